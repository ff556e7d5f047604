/* A drive in memory, see fake_blk.h.  Any thread; the list is under a mutex. */
#include "tests/lib/fake_blk.h"

#include "base/thread.h"

#include <errno.h>

#define FILLED_BYTES (64 * MiB)

struct blk {
	const char *id;
	struct mutex lock;
	struct list pending, watchers;
	u8 *data;
	u64 bytes;
	bool readonly;
	unsigned fail_nth;
	int fail_ret;
	enum blk_on_error on_error;
	struct fake_blk_log log;
};

static void fill(struct blk *blk, u64 bytes)
{
	free(blk->data);
	blk->bytes = bytes;
	blk->data = NULL;
	if (bytes == 0 || bytes > FILLED_BYTES)
		return; /* a size only */
	blk->data = xalloc(bytes);
	for (u64 i = 0; i < bytes; i++)
		blk->data[i] = fake_blk_byte(i);
}

struct blk *fake_blk_new(const char *id, u64 bytes)
{
	struct blk *blk = xnew(struct blk);

	blk->id = id;
	mutex_init(&blk->lock);
	list_init(&blk->pending);
	list_init(&blk->watchers);
	fill(blk, bytes);
	return blk;
}

void fake_blk_free(struct blk *blk)
{
	assert(list_empty(&blk->pending));
	mutex_fini(&blk->lock);
	free(blk->data);
	free(blk);
}

u8 *fake_blk_data(struct blk *blk)
{
	return blk->data;
}

void fake_blk_set_readonly(struct blk *blk, bool readonly)
{
	blk->readonly = readonly;
}

void fake_blk_set_medium(struct blk *blk, u64 bytes)
{
	fill(blk, bytes);
	list_for_each (item, &blk->watchers) {
		struct blk_watcher *w = list_entry(item, struct blk_watcher, link);

		w->changed(w);
	}
}

unsigned fake_blk_pending(struct blk *blk)
{
	unsigned n = 0;
	LOCK_SCOPE(&blk->lock);

	list_for_each (item, &blk->pending)
		n++;
	return n;
}

void fake_blk_fail(struct blk *blk, unsigned nth, int ret)
{
	blk->fail_nth = nth;
	blk->fail_ret = ret;
}

const struct fake_blk_log *fake_blk_log(struct blk *blk)
{
	return &blk->log;
}

static void copy(struct blk *blk, const struct blk_req *req)
{
	u8 *at = blk->data + req->goff;

	for (unsigned i = 0; i < req->niov; i++) {
		if (req->op == BLK_READ)
			memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
		else
			memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
}

static int carry_out(struct blk *blk, const struct blk_req *req)
{
	if (blk->fail_nth && --blk->fail_nth == 0)
		return blk->fail_ret;
	if (req->op == BLK_FLUSH)
		return 0;
	if (req->goff % 512 || req->bytes % 512 || req->goff > blk->bytes ||
	    req->bytes > blk->bytes - req->goff || !blk->data)
		return -EINVAL;
	if (req->op != BLK_READ && blk->readonly)
		return -EROFS;
	if (req->op == BLK_READ || req->op == BLK_WRITE)
		copy(blk, req);
	else
		memset(blk->data + req->goff, 0, req->bytes);
	return 0;
}

bool fake_blk_step(struct blk *blk)
{
	struct list *item;
	struct blk_req *req;
	int ret;

	mutex_lock(&blk->lock);
	item = list_pop(&blk->pending);
	mutex_unlock(&blk->lock);
	if (!item)
		return false;
	req = list_entry(item, struct blk_req, link);
	ret = carry_out(blk, req);
	req->done(req, ret);
	return true;
}

void fake_blk_run(struct blk *blk)
{
	while (fake_blk_step(blk))
		continue;
}

/* --- block/blk.h ---------------------------------------------------------------- */

void blk_submit(struct blk *blk, struct blk_req *req)
{
	LOCK_SCOPE(&blk->lock);

	if (req->op == BLK_READ || req->op == BLK_WRITE) {
		req->bytes = 0;
		for (unsigned i = 0; i < req->niov; i++)
			req->bytes += req->iov[i].iov_len;
	}
	blk->log.op = req->op;
	blk->log.flags = req->flags;
	blk->log.goff = req->goff;
	blk->log.bytes = req->bytes;
	blk->log.niov = req->niov;
	blk->log.count[req->op]++;
	req->blk = blk;
	list_append(&blk->pending, &req->link);
}

void fake_blk_on_error(struct blk *blk, enum blk_on_error action)
{
	blk->on_error = action;
}

enum blk_on_error blk_on_error(struct blk *blk, enum blk_op op, int ret)
{
	return blk->on_error;
}

const char *blk_id(const struct blk *blk)
{
	return blk->id;
}

bool blk_has_medium(const struct blk *blk)
{
	return blk->bytes != 0;
}

u64 blk_bytes(const struct blk *blk)
{
	return blk->bytes;
}

bool blk_is_readonly(const struct blk *blk)
{
	return blk->readonly;
}

bool blk_write_cache(const struct blk *blk)
{
	return true;
}

void blk_watch(struct blk *blk, struct blk_watcher *w)
{
	list_append(&blk->watchers, &w->link);
}

void blk_unwatch(struct blk_watcher *w)
{
	list_del(&w->link);
}

/* The rest is there so that nothing pulls in the real one; no device calls it. */
#define NOT_HERE(declaration)                                                                      \
	declaration                                                                                \
	{                                                                                          \
		abort();                                                                           \
	}

int blk_set_error_action(struct blk *blk, enum blk_op op, const char *name, struct error *err)
{
	return 0;
}

NOT_HERE(void blk_set_write_cache(struct blk *blk, bool on))
NOT_HERE(struct loop *blk_loop(struct blk *blk))
NOT_HERE(int blk_run(struct blk *blk, blk_fn *fn, void *arg))
NOT_HERE(void blk_drain_begin(struct blk *blk))
NOT_HERE(void blk_start_waiting(struct blk *blk))
NOT_HERE(void blk_drain_end(struct blk *blk))
