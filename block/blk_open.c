/* Opening and closing of drives: options, the loop thread, temporary overlays.
 *
 * Thread: the caller's, which waits; the chain itself is opened on the loop. */
#include "block/blk.h"

#include "base/log.h"
#include "block/blk_internal.h"
#include "block/file.h"
#include "block/job.h"
#include "block/names.h"
#include "block/temporary.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

struct cache_name {
	const char *name;
	enum cache_mode mode;
	bool write_cache;
};

static const struct cache_name cache_names[] = {
	{"writeback", CACHE_WRITEBACK, true},
	{"none", CACHE_NONE, true},
	{"writethrough", CACHE_WRITETHROUGH, false},
	{"directsync", CACHE_DIRECTSYNC, false},
	{"unsafe", CACHE_UNSAFE, true},
	{"off", CACHE_NONE, true},
};

static const struct cache_name *find_cache(const char *name)
{
	if (!name)
		return &cache_names[0];
	for (unsigned i = 0; i < ARRAY_LEN(cache_names); i++)
		if (!strcmp(cache_names[i].name, name))
			return &cache_names[i];
	return NULL;
}

static int find_backend(const char *aio, enum loop_backend *out)
{
	*out = LOOP_AUTO;
	if (!aio || !strcmp(aio, "native"))
		return 0;
	if (!strcmp(aio, "io_uring"))
		*out = LOOP_URING;
	else if (!strcmp(aio, "threads"))
		*out = LOOP_THREADS;
	else
		return -EINVAL;
	return 0;
}

static const char *const error_actions[] = {"report", "ignore", "stop", "enospc", NULL};

/* In the order of enum blk_on_error; enospc is a stop for one kind of error. */
int blk_set_error_action(struct blk *blk, enum blk_op op, const char *name, struct error *err)
{
	int at = parse_choice(name, error_actions);

	if (at < 0)
		return err_set(err, -EINVAL, "'%s' invalid %s error action", name,
			       op == BLK_READ ? "read" : "write");
	*(op == BLK_READ ? &blk->on_read_error : &blk->on_write_error) =
		(struct blk_error_policy){(enum blk_on_error)MIN(at, BLK_STOP), at > BLK_STOP};
	return 0;
}

static int set_error_actions(struct blk *blk, const struct blk_options *opt, struct error *err)
{
	int ret = blk_set_error_action(blk, BLK_WRITE, opt->werror ? opt->werror : "enospc", err);

	if (ret == 0 && opt->rerror && !strcmp(opt->rerror, "enospc"))
		return err_set(err, -EINVAL, "'%s' invalid read error action", opt->rerror);
	if (ret == 0)
		ret = blk_set_error_action(blk, BLK_READ, opt->rerror ? opt->rerror : "report",
					   err);
	return ret;
}

static struct blk *blk_new(const char *id, struct loop *loop, bool owns_loop)
{
	struct blk *blk = xnew(struct blk);

	blk->id = xstrdup(id);
	blk->loop = loop;
	blk->owns_loop = owns_loop;
	list_init(&blk->held);
	blk_throttle_init(blk);
	list_init(&blk->watchers);
	range_locks_init(&blk->copy_locks);
	fiber_queue_init(&blk->idle);
	return blk;
}

void blk_free(struct blk *blk)
{
	free(blk->id);
	free(blk->file);
	free(blk);
}

/* --- open and close -------------------------------------------------------- */

struct open_call {
	const struct blk_options *opt;
	struct open_policy policy;
	struct error *err;
};

static int open_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct open_call *call = arg;
	const struct blk_options *opt = call->opt;
	struct image *img;
	int ret;

	if (opt->snapshot && !opt->readonly)
		ret = temporary_open(f, &img, opt->file, &call->policy, call->err);
	else
		ret = image_open(f, &img, opt->file, &call->policy, call->err);
	if (ret < 0)
		return ret;
	if (!blk->file)
		blk->file = xstrdup(img->name);
	blk_set_image(blk, img);
	return 0;
}

static int start_loop(struct loop **out, const struct blk_options *opt, struct error *err)
{
	enum loop_backend backend;
	char name[16];
	int ret;

	if (find_backend(opt->aio, &backend) < 0)
		return err_set(err, -EINVAL,
			       "%s: aio is '%s', expected threads, native or io_uring", opt->id,
			       opt->aio);
	snprintf(name, sizeof(name), "io-%s", opt->id);
	ret = loop_new(out, name, backend, err);
	if (ret < 0)
		return ret;
	ret = loop_start_thread(*out, err);
	if (ret < 0)
		loop_free(*out);
	return ret;
}

static void stop_loop(struct loop *loop)
{
	loop_join(loop);
	loop_free(loop);
}

int blk_open(struct blk **out, const struct blk_options *opt, struct error *err)
{
	const struct cache_name *cache = find_cache(opt->cache);
	struct open_call call = {.opt = opt, .err = err};
	struct loop *loop;
	struct blk *blk;
	int ret = 0;

	if (!cache)
		return err_set(err, -EINVAL, "%s: invalid cache option '%s'", opt->id, opt->cache);
	ret = start_loop(&loop, opt, err);
	if (ret < 0)
		return ret;
	blk = blk_new(opt->id, loop, true);
	blk->file = opt->file ? xstrdup(opt->file) : NULL;
	blk->readonly = opt->readonly;
	blk->copy_on_read = opt->copy_on_read && !opt->readonly;
	blk->write_cache = cache->write_cache;
	call.policy.writable = !opt->readonly;
	call.policy.discard = opt->discard_unmap;
	call.policy.share_rw = opt->share_rw;
	call.policy.cache = cache->mode;
	call.policy.format = opt->format;
	call.policy.snapshot = opt->vm_state_of;
	call.policy.options = opt->image;
	call.policy.unlock = opt->unlock;
	call.policy.share_writers = call.policy.no_backing = opt->vm_state_of != NULL;
	blk->policy = call.policy;
	blk->policy.format = blk->policy.snapshot = NULL;
	blk->policy.options = NULL;
	if (opt->unlock)
		blk->unlock = *opt->unlock;
	blk->policy.unlock = &blk->unlock;
	blk->limits = opt->limits ? throttle_group_ref(opt->limits) : NULL;
	ret = set_error_actions(blk, opt, err);
	if (ret == 0 && (opt->file || opt->image))
		ret = blk_run(blk, open_fiber, &call);
	if (ret < 0) {
		throttle_group_put(blk->limits);
		stop_loop(loop);
		blk_free(blk);
		return ret;
	}
	*out = blk;
	return 0;
}

int blk_from_image(struct blk **out, struct loop *loop, struct image *img)
{
	struct blk *blk = blk_new(img->name, loop, false);

	blk->file = xstrdup(img->name);
	blk->readonly = !img->writable;
	blk->write_cache = true;
	blk_set_image(blk, img);
	*out = blk;
	return 0;
}

static int close_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk->img;
	int ret, closed;

	blk_start_waiting(blk);
	job_wait(f, blk, true);
	blk_drain_fiber(f, blk);
	assert(list_empty(&blk->held));
	blk_throttle_fini(blk);
	if (!img)
		return 0;
	blk->img = NULL;
	ret = image_flush(f, img);
	closed = image_close(f, img);
	return ret < 0 ? ret : closed;
}

struct local_close {
	struct blk *blk;
	int result;
};

static void local_close_fiber(struct fiber *f, void *arg)
{
	struct local_close *c = arg;

	c->result = close_fiber(f, c->blk, NULL);
}

void blk_close(struct blk *blk)
{
	struct local_close c = {.blk = blk};
	int ret;

	if (!blk)
		return;
	if (blk->owns_loop) {
		ret = blk_run(blk, close_fiber, NULL);
		stop_loop(blk->loop);
	} else {
		ret = loop_run_fiber(blk->loop, local_close_fiber, &c);
		ret = ret < 0 ? ret : c.result;
	}
	if (ret < 0)
		log_error("%s: closing '%s' failed: %s", blk->id, blk->file, strerror(-ret));
	blk_free(blk);
}
