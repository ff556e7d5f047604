/* The front door: requests, drains, functions run on the loop, statistics.
 *
 * A request becomes a fiber of the loop; fibers are pooled, so the steady path
 * allocates nothing, and the request's vector goes straight to the driver.
 * Requests from other threads arrive as posted calls. */
#include "block/blk.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"
#include "block/blk_internal.h"
#include "block/blk_task.h"
#include "block/copy_on_read.h"
#include "block/graph.h"
#include "block/job_int.h"
#include "block/unlock.h"

#include <errno.h>

#define SECTOR_BYTES 512

/* --- requests -------------------------------------------------------------- */

static int check_request(const struct blk *blk, const struct blk_req *req)
{
	u64 end;

	if (!blk->img)
		return -ENOMEDIUM;
	if (unlikely(blk->locked))
		return -EACCES;
	if (req->op == BLK_FLUSH)
		return 0;
	if (req->op != BLK_READ && blk->readonly)
		return -EROFS;
	if (!is_aligned(req->goff | req->bytes, SECTOR_BYTES))
		return -EINVAL;
	if (!add_ok(req->goff, req->bytes, &end) || end > blk->img->bytes)
		return -EINVAL;
	return 0;
}

static int do_request(struct fiber *f, struct blk *blk, struct blk_req *req)
{
	switch (req->op) {
	case BLK_READ: return image_read(f, blk->img, req->goff, req->iov, req->niov);
	case BLK_WRITE: return image_write(f, blk->img, req->goff, req->iov, req->niov);
	case BLK_FLUSH: return image_flush(f, blk->img);
	case BLK_DISCARD: return image_discard(f, blk->img, req->goff, req->bytes);
	case BLK_ZERO:
		return image_zero(f, blk->img, req->goff, req->bytes,
				  req->flags & BLK_MAY_UNMAP ? ZERO_MAY_UNMAP : 0);
	}
	return -ENOTSUP;
}

/* Job and copy-on-read keep their copying away from it. */
static int guarded_change(struct fiber *f, struct blk *blk, struct blk_req *req)
{
	struct range_lock lock;
	int ret;

	if (blk->copy_on_read)
		range_lock(f, &blk->copy_locks, &lock, req->goff, req->bytes, false);
	ret = blk->job ? job_guard(f, blk->job, req, do_request) : do_request(f, blk, req);
	if (blk->copy_on_read)
		range_unlock(&blk->copy_locks, &lock);
	return ret;
}

static int run_request(struct fiber *f, struct blk *blk, struct blk_req *req)
{
	bool changes = req->op == BLK_WRITE || req->op == BLK_ZERO || req->op == BLK_DISCARD;
	int ret = check_request(blk, req);

	if (ret < 0)
		return ret;
	if (unlikely(blk->copy_on_read) && req->op == BLK_READ)
		copy_on_read(f, blk, req);
	if (unlikely(blk->job || blk->copy_on_read) && changes)
		ret = guarded_change(f, blk, req);
	else
		ret = do_request(f, blk, req);
	if (ret == 0 && changes && (req->flags & BLK_FUA || !blk->write_cache))
		ret = image_flush(f, blk->img);
	return ret;
}

static void add(u64 *counter, u64 n)
{
	/* One writer, the loop; readers want no more than a recent value. */
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

static void account(struct blk *blk, const struct blk_req *req, int ret)
{
	struct blk_stats *s = &blk->stats;

	if (ret < 0) {
		add(&s->failed[req->op], 1);
		return;
	}
	__atomic_store_n(&blk->last_ns, now_ns(), __ATOMIC_RELAXED);
	add(&s->ops[req->op], 1);
	add(&s->bytes[req->op], req->op == BLK_FLUSH ? 0 : req->bytes);
	add(&s->total_ns[req->op], now_ns() - req->start_ns);
}

/* The storage of the request may be gone once done was called. */
static void finish(struct blk *blk, struct blk_req *req, int ret)
{
	account(blk, req, ret);
	req->done(req, ret);
	assert(blk->in_flight);
	if (!--blk->in_flight)
		fiber_queue_wake_all(&blk->idle);
}

static void request_fiber(struct fiber *f, void *arg)
{
	struct blk_req *req = arg;
	struct blk *blk = req->blk;

	finish(blk, req, run_request(f, blk, req));
}

static void start(struct blk *blk, struct blk_req *req)
{
	if (blk->drains)
		list_append(&blk->held, &req->link);
	else if (likely(!blk->limits) || !blk_throttle(blk, req))
		blk_go(blk, req);
}

void blk_go(struct blk *blk, struct blk_req *req)
{
	blk->in_flight++;
	if (fiber_spawn(blk->loop, request_fiber, req) < 0)
		finish(blk, req, -ENOMEM);
}

static void start_posted(struct loop_call *call)
{
	struct blk_req *req = container_of(call, struct blk_req, call);

	start(req->blk, req);
}

void blk_submit(struct blk *blk, struct blk_req *req)
{
	assert(req->op <= BLK_ZERO && req->done);
	req->blk = blk;
	req->start_ns = now_ns();
	if (req->op == BLK_READ || req->op == BLK_WRITE)
		req->bytes = iov_bytes(req->iov, req->niov);
	if (loop_is_current(blk->loop)) {
		start(blk, req);
		return;
	}
	req->call.fn = start_posted;
	loop_post(blk->loop, &req->call);
}

/* What the guest did wrong is not going to be right the next time. */
static bool is_hopeless(int ret)
{
	return ret == -EINVAL || ret == -EROFS || ret == -ENOMEDIUM || ret == -EACCES;
}

enum blk_on_error blk_on_error(struct blk *blk, enum blk_op op, int ret)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "write of zeros"};
	const struct blk_error_policy *policy =
		op == BLK_READ ? &blk->on_read_error : &blk->on_write_error;
	enum blk_on_error action = policy->action;

	if (is_hopeless(ret) || (policy->only_enospc && ret != -ENOSPC))
		return BLK_REPORT;
	if (action == BLK_STOP && !__atomic_exchange_n(&blk->error_said, true, __ATOMIC_RELAXED))
		log_warn("%s: %s failed: %s: the guest is stopped, 'cont' tries again", blk->id,
			 names[op], strerror(-ret));
	return action;
}

/* --- functions on the loop ------------------------------------------------- */

static void task_done(struct blk_task *t, int result)
{
	mutex_lock(&t->lock);
	t->result = result;
	t->done = true;
	cond_broadcast(&t->cond);
	mutex_unlock(&t->lock);
}

static void task_fiber(struct fiber *f, void *arg)
{
	struct blk_task *t = arg;
	struct blk *blk = t->blk;
	int ret;

	blk->visitors++;
	ret = t->fn(f, blk, t->arg);
	if (!--blk->visitors)
		fiber_queue_wake_all(&blk->idle);
	task_done(t, ret);
}

static void task_posted(struct loop_call *call)
{
	struct blk_task *t = container_of(call, struct blk_task, call);
	int ret = fiber_spawn(t->blk->loop, task_fiber, t);

	if (ret < 0)
		task_done(t, ret);
}

void blk_begin(struct blk *blk, struct blk_task *t, blk_fn *fn, void *arg)
{
	*t = (struct blk_task){.call.fn = task_posted, .blk = blk, .fn = fn, .arg = arg};
	mutex_init(&t->lock);
	cond_init(&t->cond);
	loop_post(blk->loop, &t->call);
}

int blk_wait(struct blk_task *t)
{
	mutex_lock(&t->lock);
	while (!t->done)
		cond_wait(&t->cond, &t->lock);
	mutex_unlock(&t->lock);
	cond_fini(&t->cond);
	mutex_fini(&t->lock);
	return t->result;
}

int blk_run(struct blk *blk, blk_fn *fn, void *arg)
{
	struct blk_task t;

	blk_begin(blk, &t, fn, arg);
	return blk_wait(&t);
}

int blk_drain_fiber(struct fiber *f, struct blk *blk)
{
	blk->drains++;
	while (blk->in_flight)
		fiber_queue_wait(f, &blk->idle);
	return 0;
}

static int drain_begin(struct fiber *f, struct blk *blk, void *arg)
{
	return blk_drain_fiber(f, blk);
}

void blk_drain_begin(struct blk *blk)
{
	blk_run(blk, drain_begin, NULL);
}

void blk_drain_stop(struct blk *blk)
{
	struct list held = LIST_INIT(held), *item;

	assert(blk->drains);
	if (--blk->drains)
		return;
	list_splice(&held, &blk->held);
	while ((item = list_pop(&held)))
		start(blk, list_entry(item, struct blk_req, link));
	blk_throttle_serve(blk);
}

static void drain_end(void *arg)
{
	struct blk *blk = arg;

	__atomic_store_n(&blk->error_said, false, __ATOMIC_RELAXED);
	blk_drain_stop(arg);
}

void blk_drain_end(struct blk *blk)
{
	loop_call_wait(blk->loop, drain_end, blk);
}

static int flush_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	return blk->img ? image_flush(f, blk->img) : 0;
}

int blk_flush_wait(struct blk *blk)
{
	return blk_run(blk, flush_fiber, NULL);
}

/* --- size and watchers ----------------------------------------------------- */

static void size_changed(struct blk *blk)
{
	__atomic_store_n(&blk->bytes, blk->img ? blk->img->bytes : 0, __ATOMIC_RELAXED);
	list_for_each_safe (pos, &blk->watchers) {
		struct blk_watcher *w = list_entry(pos, struct blk_watcher, link);

		w->changed(w);
	}
}

void blk_set_image(struct blk *blk, struct image *img)
{
	blk->img = img;
	__atomic_store_n(&blk->has_medium, img != NULL, __ATOMIC_RELAXED);
	blk->locked = image_first_locked(img) != NULL;
	size_changed(blk);
}

void blk_switch(struct blk *blk, struct image *img)
{
	assert(blk->drains && !blk->in_flight);
	free(blk->file);
	blk->file = xstrdup(img->name);
	blk->img = img;
	/* The guest is told of a change that it can see. */
	if (img->bytes != blk->bytes)
		size_changed(blk);
}

void blk_image_changed(struct blk *blk)
{
	assert(loop_is_current(blk->loop));
	size_changed(blk);
}

struct resize {
	u64 bytes;
	struct error *err;
};

static int resize_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct resize *r = arg;
	int ret;

	if (!blk->img)
		return err_set(r->err, -ENOMEDIUM, "Device '%s' has no medium", blk->id);
	if (job_none(blk, r->err) < 0)
		return r->err->code;
	blk_drain_fiber(f, blk);
	ret = image_resize(f, blk->img, r->bytes, r->err);
	if (ret == 0)
		size_changed(blk);
	blk_drain_stop(blk);
	return ret;
}

int blk_resize(struct blk *blk, u64 bytes, struct error *err)
{
	struct resize r = {.bytes = bytes, .err = err};

	return blk_run(blk, resize_fiber, &r);
}

struct watch_change {
	struct blk *blk;
	struct blk_watcher *watcher;
};

static void add_watcher(void *arg)
{
	struct watch_change *c = arg;

	list_append(&c->blk->watchers, &c->watcher->link);
}

static void remove_watcher(void *arg)
{
	struct watch_change *c = arg;

	list_del(&c->watcher->link);
}

static void on_loop(struct blk *blk, void (*fn)(void *arg), void *arg)
{
	if (loop_is_current(blk->loop))
		fn(arg);
	else
		loop_call_wait(blk->loop, fn, arg);
}

void blk_watch(struct blk *blk, struct blk_watcher *w)
{
	struct watch_change c = {.blk = blk, .watcher = w};

	w->blk = blk;
	on_loop(blk, add_watcher, &c);
}

void blk_unwatch(struct blk_watcher *w)
{
	struct watch_change c = {.blk = w->blk, .watcher = w};

	on_loop(w->blk, remove_watcher, &c);
}

/* --- what a drive is ------------------------------------------------------- */

const char *blk_id(const struct blk *blk)
{
	return blk->id;
}

const char *blk_file(const struct blk *blk)
{
	return blk->file;
}

bool blk_has_medium(const struct blk *blk)
{
	return __atomic_load_n(&blk->has_medium, __ATOMIC_RELAXED);
}

u64 blk_bytes(const struct blk *blk)
{
	return __atomic_load_n(&blk->bytes, __ATOMIC_RELAXED);
}

bool blk_is_readonly(const struct blk *blk)
{
	return blk->readonly;
}

void blk_set_write_cache(struct blk *blk, bool on)
{
	blk->write_cache = on;
}

bool blk_write_cache(const struct blk *blk)
{
	return blk->write_cache;
}

struct loop *blk_loop(struct blk *blk)
{
	return blk->loop;
}

struct image *blk_image(struct blk *blk)
{
	assert(loop_is_current(blk->loop));
	return blk->img;
}

void blk_get_stats(const struct blk *blk, struct blk_stats *out)
{
	const struct blk_stats *s = &blk->stats;
	u64 last = __atomic_load_n(&blk->last_ns, __ATOMIC_RELAXED);

	out->idle_ns = last ? now_ns() - last : 0;
	for (unsigned i = 0; i <= BLK_ZERO; i++) {
		out->ops[i] = __atomic_load_n(&s->ops[i], __ATOMIC_RELAXED);
		out->bytes[i] = __atomic_load_n(&s->bytes[i], __ATOMIC_RELAXED);
		out->total_ns[i] = __atomic_load_n(&s->total_ns[i], __ATOMIC_RELAXED);
		out->failed[i] = __atomic_load_n(&s->failed[i], __ATOMIC_RELAXED);
	}
}

static char *copy_or_null(const char *s)
{
	return s ? xstrdup(s) : NULL;
}

static int info_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct blk_info *info = arg;
	const struct image *locked;
	char node[NODE_NAME_ROOM];

	*info = (struct blk_info){.readonly = blk->readonly};
	info->file = copy_or_null(blk->file);
	if (!blk->img)
		return 0;
	image_node_name(blk->img, node);
	info->node = xstrdup(node);
	info->cache = image_cache_words(blk->img->cache, blk->write_cache);
	info->has_medium = true;
	info->format = xstrdup(blk->img->driver->name);
	info->backing_file = copy_or_null(blk->img->backing_name);
	if (blk->img->backing && !info->backing_file)
		info->backing_file = xstrdup(blk->img->backing->name);
	info->backing_depth = image_depth(blk->img);
	info->encrypted = blk->img->encrypted;
	info->detect_zeroes = blk->img->detect_zeroes;
	locked = image_first_locked(blk->img);
	info->locked = copy_or_null(locked ? locked->name : NULL);
	return 0;
}

void blk_get_info(struct blk *blk, struct blk_info *out)
{
	blk_run(blk, info_fiber, out);
}

void blk_info_fini(struct blk_info *info)
{
	free(info->node);
	free(info->file);
	free(info->format);
	free(info->backing_file);
	free(info->cache);
	free(info->locked);
	memset(info, 0, sizeof(*info));
}
