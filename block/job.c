/* Jobs: starting, control, speed, the end; see job.h.
 *
 * A job is a fiber of the drive's loop, and a few more that copy.  It begins and
 * ends with the drive drained, so every request that changes something knows of it
 * or has ended before.  Chunks and guest writes exclude one another by range.
 * Thread: the drive's loop; the doors at the end wait for it. */
#include "block/job_int.h"

#include "base/log.h"
#include "base/thread.h"
#include "block/unlock.h"

#include <errno.h>
#include <stdio.h>

#define NAP_NS (50 * NS_PER_MS) /* between two looks at what somebody may have said */

static const char *type_name(const struct job *job)
{
	return job->req.type == JOB_STREAM ? "stream" : "commit";
}

/* --- for the work ------------------------------------------------------------------ */

bool job_goes_on(struct fiber *f, struct job *job)
{
	while (job->paused && !job->cancelled && !job->error)
		fiber_queue_wait(f, &job->wait);
	return !job->cancelled && !job->error;
}

void job_pay(struct fiber *f, struct job *job, u64 bytes)
{
	job->paid += bytes;
	while (job->speed && !job->cancelled && !job->error && !job->in_sync) {
		u64 now = now_ns();
		double due = (double)job->paid / (double)job->speed * NS_PER_SEC;

		if ((double)(now - job->paid_since_ns) >= due)
			return;
		due -= (double)(now - job->paid_since_ns);
		fiber_sleep_ns(f, (u64)MIN(due, (double)NAP_NS));
	}
}

static void restart_accounting(struct job *job)
{
	job->paid = 0;
	job->paid_since_ns = now_ns();
}

void job_hand_out(struct fiber *f, struct job *job, const struct job_chunk *range, job_chunk_fn *fn)
{
	for (u64 at = 0, part; at < range->bytes; at += part) {
		struct crew_hand *hand = crew_take(f, &job->crew);
		struct job_chunk *c = hand->task;
		u64 goff = range->goff + at;

		if (!job->in_sync && !job_goes_on(f, job))
			return;
		/* Zeros cost nothing, but nobody shall wait long for them either. */
		part = range->zero ? MIN(range->bytes - at, 64 * JOB_CHUNK_BYTES)
				   : MIN(range->bytes - at,
					 JOB_CHUNK_BYTES - (goff & (JOB_CHUNK_BYTES - 1)));
		c->goff = goff;
		c->bytes = part;
		c->zero = range->zero;
		if (job->dirty)
			dirty_map_clear(job->dirty, goff, part);
		else
			job->done = goff + part; /* a walk from start to end */
		crew_start(f, hand, fn);
		if (!range->zero)
			job_pay(f, job, part);
	}
}

int job_guard(struct fiber *f, struct job *job, struct blk_req *req,
	      int (*fn)(struct fiber *f, struct blk *blk, struct blk_req *req))
{
	struct range_lock lock;
	int ret;

	range_lock(f, &job->locks, &lock, req->goff, req->bytes, false);
	ret = fn(f, job->blk, req);
	/* Also after an error: some of it may have got there. */
	if (job->dirty) {
		job_failed(job, dirty_map_set(job->dirty, req->goff, req->bytes));
		fiber_queue_wake_all(&job->wait);
	}
	range_unlock(&job->locks, &lock);
	return ret;
}

int job_wait_visitors(struct fiber *f, struct job *job)
{
	while (job->blk->visitors && !job->cancelled)
		fiber_queue_wait(f, &job->blk->idle);
	return job->cancelled ? -ECANCELED : 0;
}

/* --- beginning ----------------------------------------------------------------------- */

int job_none(const struct blk *blk, struct error *err)
{
	if (!blk->job)
		return 0;
	return err_set(err, -EBUSY, "Node '%s' is busy: block device is in use by block job: %s",
		       blk->id, type_name(blk->job));
}

static int find_top(struct job *job, const char *name, struct error *err)
{
	struct image *img = job->blk->img;

	job->top = img;
	if (!name || image_has_name(img, NULL, name))
		return 0;
	job->over = image_find_over(img, name);
	if (!job->over)
		return err_set(err, -ENOENT, "Top image file %s not found", name);
	job->top = job->over->backing;
	return 0;
}

static int find_base(struct job *job, const struct job_request *req, struct error *err)
{
	struct image *over;

	if (req->base) {
		over = image_find_over(job->top, req->base);
		if (!over)
			return err_set(err, -ENOENT, "Can't find '%s' in the backing chain",
				       req->base);
		job->base = over->backing;
		return 0;
	}
	if (req->type == JOB_STREAM)
		return 0;
	job->base = job->top->backing;
	while (!req->one && job->base && job->base->backing)
		job->base = job->base->backing;
	return job->base ? 0 : err_set(err, -ENOTSUP, "cannot commit an image into itself");
}

static int judge(struct job *job, const struct job_request *req, struct error *err)
{
	struct blk *blk = job->blk;
	int ret = job_none(blk, err);

	if (ret < 0)
		return ret;
	if (!blk->img)
		return err_set(err, -ENOMEDIUM, "Device '%s' has no medium", blk->id);
	if (image_first_locked(blk->img))
		return err_set(err, -EACCES, "'%s' (%s) is encrypted", blk->id, blk->file);
	if (blk->readonly || !blk->img->writable)
		return err_set(err, -EROFS, "Block node is read-only");
	ret = req->type == JOB_COMMIT ? find_top(job, req->top, err) : 0;
	if (req->type == JOB_STREAM)
		job->top = blk->img;
	return ret < 0 ? ret : find_base(job, req, err);
}

/* The drive is drained. */
static int prepare(struct fiber *f, struct job *job, struct error *err)
{
	int ret;

	job->memory = try_alloc_aligned(JOB_HANDS * JOB_CHUNK_BYTES, 4096);
	if (!job->memory)
		return err_set(err, -ENOMEM, "out of memory");
	for (unsigned i = 0; i < JOB_HANDS; i++) {
		job->chunks[i].job = job;
		job->chunks[i].buf = job->memory + i * JOB_CHUNK_BYTES;
	}
	crew_init(&job->crew, JOB_HANDS, job->chunks, sizeof(job->chunks[0]));
	job->total = job->top->bytes;
	if (job->req.type == JOB_STREAM)
		return 0;
	ret = image_set_writable(f, job->base, true, err);
	if (ret < 0)
		return ret;
	if (!job->over) {
		ret = dirty_map_new(&job->dirty, job->top->bytes, JOB_GRAIN_BITS);
		if (ret < 0)
			err_set_errno(err, ret, "Could not follow what is written");
	}
	if (ret == 0 && job->base->bytes < job->top->bytes)
		ret = image_resize(f, job->base, job->top->bytes, err);
	if (ret < 0)
		(void)image_set_writable(f, job->base, false, &(struct error){0});
	return ret;
}

static void job_free(struct job *job)
{
	dirty_map_free(job->dirty);
	free(job->memory);
	free(job);
}

/* --- the end -------------------------------------------------------------------------- */

/* The work is over, requests go on; from here on they do not know the job. */
static void retire(struct fiber *f, struct job *job, int ret)
{
	struct blk *blk = job->blk;

	blk_drain_fiber(f, blk);
	assert(list_empty(&job->locks.ranges));
	if (job->base && job->base != blk->img && job->base->writable &&
	    image_set_writable(f, job->base, false, &(struct error){0}) < 0)
		log_warn("%s: '%s' stays open for writing", blk->id, job->base->name);
	blk->job = NULL;
	blk_drain_stop(blk);
	if (ret < 0 && ret != -ECANCELED)
		log_error("%s: block job '%s' failed: %s", blk->id, type_name(job), job->err.text);
	if (job->req.ended)
		job->req.ended(job->req.arg, ret, job->err.text);
	fiber_queue_wake_all(&job->wait_ended);
	/* Those that wait look at blk->job alone, but their queue is in here. */
	fiber_yield(f);
	job_free(job);
}

static void job_fiber(struct fiber *f, void *arg)
{
	struct job *job = arg;
	int ret;

	if (job->req.type == JOB_STREAM)
		ret = job_stream_run(f, job);
	else
		ret = job->over ? job_commit_behind(f, job) : job_commit_active(f, job);
	if (ret == -ECANCELED)
		err_set(&job->err, ret, "The job was cancelled");
	else if (ret < 0 && !job->err.code)
		err_set(&job->err, ret, "%s", strerror(-ret));
	retire(f, job, ret);
}

int job_start_fiber(struct fiber *f, struct blk *blk, const struct job_request *req,
		    struct error *err)
{
	struct job *job = xnew(struct job);
	int ret;

	job->blk = blk;
	job->req = *req;
	job->req.top = job->req.base = NULL;
	job->speed = req->speed;
	fiber_queue_init(&job->wait);
	fiber_queue_init(&job->wait_ended);
	range_locks_init(&job->locks);
	ret = judge(job, req, err);
	if (ret < 0) {
		job_free(job);
		return ret;
	}
	blk->job = job; /* nobody else comes in between */
	blk_drain_fiber(f, blk);
	ret = prepare(f, job, err);
	restart_accounting(job);
	if (ret == 0)
		ret = fiber_spawn(blk->loop, job_fiber, job);
	if (ret == -ENOMEM && !err->code)
		err_set(err, ret, "out of memory");
	if (ret < 0)
		blk->job = NULL;
	blk_drain_stop(blk);
	if (ret < 0)
		job_free(job);
	return ret;
}

void job_wait(struct fiber *f, struct blk *blk, bool cancel)
{
	while (blk->job) {
		blk->job->cancelled |= cancel;
		fiber_queue_wake_all(&blk->job->wait);
		fiber_queue_wake_all(&blk->idle); /* it may wait for us */
		fiber_queue_wait(f, &blk->job->wait_ended);
	}
}

/* --- doors ------------------------------------------------------------------------------ */

struct start_call {
	const struct job_request *req;
	struct error *err;
};

static int start_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct start_call *c = arg;

	return job_start_fiber(f, blk, c->req, c->err);
}

int job_start(struct blk *blk, const struct job_request *req, struct error *err)
{
	struct start_call c = {req, err};

	return blk_run(blk, start_fiber, &c);
}

static int status_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct job_status *out = arg;
	const struct job *job = blk->job;

	if (!job)
		return -ENOENT;
	*out = (struct job_status){.type = type_name(job),
				   .done = MIN(job->done, job->total),
				   .total = job->total,
				   .speed = job->speed,
				   .paused = job->paused,
				   .ready = job->ready};
	return 0;
}

int job_status(struct blk *blk, struct job_status *out)
{
	return blk_run(blk, status_fiber, out);
}

struct control_call {
	enum job_verb verb;
	u64 value;
	struct error *err;
};

static int cancel(struct job *job, bool now, struct error *err)
{
	if (job->paused && !now)
		return err_set(err, -EBUSY, "The block job for device '%s' is currently paused",
			       job->blk->id);
	/* One that is ready ends with a base that is whole. */
	if (job->ready && !now) {
		job->finish = true;
		job->req.end = JOB_WAIT;
	} else {
		job->cancelled = true;
	}
	return 0;
}

static int complete(struct job *job, struct error *err)
{
	if (!job->ready)
		return err_set(err, -EPERM,
			       "Job '%s' in state '%s' cannot accept command verb 'complete'",
			       job->blk->id, job->paused ? "paused" : "running");
	job->finish = true;
	job->req.end = JOB_PIVOT;
	return 0;
}

static int control_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct control_call *c = arg;
	struct job *job = blk->job;
	int ret = 0;

	if (!job)
		return err_set(c->err, -ENOENT, "Block job '%s' not found", blk->id);
	switch (c->verb) {
	case JOB_PAUSE:
		if (job->paused)
			return err_set(c->err, -EBUSY, "Job is already paused");
		job->paused = true;
		break;
	case JOB_RESUME:
		if (!job->paused)
			return err_set(c->err, -EINVAL, "Can't resume a job that was not paused");
		job->paused = false;
		restart_accounting(job);
		break;
	case JOB_CANCEL:
	case JOB_CANCEL_NOW: ret = cancel(job, c->verb == JOB_CANCEL_NOW, c->err); break;
	case JOB_COMPLETE: ret = complete(job, c->err); break;
	case JOB_SPEED:
		job->speed = c->value;
		restart_accounting(job);
		break;
	}
	fiber_queue_wake_all(&job->wait);
	return ret;
}

int job_control(struct blk *blk, enum job_verb verb, u64 value, struct error *err)
{
	struct control_call c = {verb, value, err};

	return blk_run(blk, control_fiber, &c);
}

static int forget_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	if (blk->job && blk->job->req.arg == arg)
		blk->job->req.ended = NULL;
	return 0;
}

void job_forget_waiter(struct blk *blk, void *arg)
{
	blk_run(blk, forget_fiber, arg);
}
