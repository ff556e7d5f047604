/* Committing live: images above the base into it, while the guest writes.
 *
 * Behind the active image nothing changes meanwhile, so the merge of cowimg's
 * commit does the work (job_commit.h); then the image above forgets what was merged.
 *
 * The active image is followed: `dirty` has what the base lacks, first all that is
 * above it, then what is written.  A chunk's bits are cleared, then it is copied
 * while guest writes to it wait; a write sets its bits again when it has ended, so
 * none is lost.  When little is left requests are held, the rest is copied, the base
 * made durable, and only then the drive changes over, or the top is emptied.
 * Thread: the drive's loop. */
#include "block/job_int.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/job_commit.h"
#include "block/map_cursor.h"

#include <errno.h>

#define KINDS	    (MAP_DATA | MAP_ZERO | MAP_ALLOC)
#define LITTLE	    (4 * MiB) /* may be copied while requests wait */
#define PASSES_MOST 10	      /* the guest writes faster than we copy: stop hoping */
#define NAP_NS	    (20 * NS_PER_MS)

/* --- behind the active image ---------------------------------------------------------- */

static bool on_progress(struct fiber *f, void *arg, u64 done, u64 total)
{
	struct job *job = arg;

	job->done = done;
	return job_goes_on(f, job);
}

static void on_copied(struct fiber *f, void *arg, u64 bytes)
{
	job_pay(f, arg, bytes);
}

static int name_base(struct fiber *f, struct job *job)
{
	struct image *over = job->over;
	AUTO_FREE char *name = image_backing_name(job->base, image_host_name(over));
	bool was_writable = over->writable;
	int ret = image_set_writable(f, over, true, &job->err);

	if (ret < 0)
		return ret;
	ret = over->driver->graph->set_backing(f, over, name, job->base->driver->name, &job->err);
	if (!was_writable) {
		struct error err;

		if (image_set_writable(f, over, false, &err) < 0 && ret == 0) {
			job->err = err;
			ret = err.code;
		}
	}
	return ret;
}

int job_commit_behind(struct fiber *f, struct job *job)
{
	struct commit_job c = {.top = job->top,
			       .base = job->base,
			       .progress = on_progress,
			       .copied = on_copied,
			       .arg = job};
	int ret = commit_run(f, &c, &job->err);

	if (ret < 0)
		return ret;
	job->done = job->total;
	blk_drain_fiber(f, job->blk);
	ret = name_base(f, job);
	/* The file names the base now; a job that is cancelled here leaves the rest open. */
	if (ret == 0 && job_wait_visitors(f, job) == 0)
		ret = image_cut_chain(f, job->over, job->base);
	blk_drain_stop(job->blk);
	return ret;
}

/* --- the active image ------------------------------------------------------------------- */

static int copy_range(struct fiber *f, const struct job_chunk *c, u64 goff, u64 bytes)
{
	struct iovec iov = {c->buf, bytes};
	int ret = image_read(f, c->job->top, goff, &iov, 1);

	if (ret < 0)
		return ret;
	return iov_is_zero(&iov, 1) ? image_zero(f, c->job->base, goff, bytes, ZERO_MAY_UNMAP)
				    : image_write(f, c->job->base, goff, &iov, 1);
}

static int copy_extents(struct fiber *f, const struct job_chunk *c)
{
	u64 end = c->goff + c->bytes;
	int ret = 0;

	for (u64 goff = c->goff; goff < end && ret == 0;) {
		struct chain_extent x;

		ret = image_map_chain(f, c->job->top, goff, end - goff, &x);
		if (ret == 0 && x.map.kind & MAP_ZERO)
			ret = image_zero(f, c->job->base, goff, x.map.bytes, ZERO_MAY_UNMAP);
		else if (ret == 0)
			ret = copy_range(f, c, goff, x.map.bytes);
		goff += x.map.bytes;
	}
	return ret;
}

static void copy_chunk(struct fiber *f, struct crew_hand *hand)
{
	struct job_chunk *c = hand->task;
	struct range_lock lock;

	range_lock(f, &c->job->locks, &lock, c->goff, c->bytes, true);
	job_failed(c->job, copy_extents(f, c));
	c->job->done += c->bytes;
	range_unlock(&c->job->locks, &lock);
}

/* Everything that the images above the base have. */
static int find_all(struct fiber *f, struct job *job)
{
	struct map_cursor cursor;
	u64 end = job->top->bytes;
	int ret = 0;

	map_cursor_init(&cursor, job->top, job->base);
	for (u64 goff = 0; goff < end && ret == 0 && job_goes_on(f, job);) {
		struct chain_extent x;

		ret = map_cursor_run(f, &cursor, goff, end - goff, KINDS, &x);
		if (ret == 0 && x.map.kind)
			ret = dirty_map_set(job->dirty, goff, x.map.bytes);
		goff += x.map.bytes;
	}
	map_cursor_fini(&cursor);
	return ret;
}

/* Once over the map. */
static int copy_pass(struct fiber *f, struct job *job)
{
	struct job_chunk range = {0};

	job->total = job->done + dirty_map_bytes(job->dirty);
	while ((job->in_sync || job_goes_on(f, job)) &&
	       dirty_map_next(job->dirty, &range.goff, &range.bytes)) {
		range.bytes =
			MIN(range.bytes, JOB_CHUNK_BYTES - (range.goff & (JOB_CHUNK_BYTES - 1)));
		job_hand_out(f, job, &range, copy_chunk);
		range.goff += range.bytes;
		if (job->error)
			break;
	}
	crew_wait(f, &job->crew);
	return job->error;
}

/* Until little is left and somebody wants the end. */
static int follow(struct fiber *f, struct job *job)
{
	int ret = 0;

	for (unsigned pass = 1; ret == 0 && !job->cancelled; pass++) {
		u64 left;

		ret = copy_pass(f, job);
		left = dirty_map_bytes(job->dirty);
		if (ret < 0 || job->cancelled)
			break;
		job->ready |= left <= LITTLE;
		if (job->req.end != JOB_WAIT)
			job->finish = job->ready || pass >= PASSES_MOST;
		if (job->finish)
			break;
		if (!left)
			fiber_queue_wait(f, &job->wait);
		else if (job->ready)
			fiber_sleep_ns(f, NAP_NS); /* let some more come together */
	}
	return ret < 0 ? ret : job->cancelled ? -ECANCELED : 0;
}

/* The base takes the top's place. */
static int pivot(struct fiber *f, struct job *job)
{
	struct image *top = job->top;
	int ret = job_wait_visitors(f, job), closed;

	if (ret == 0) /* -EBUSY: one of them has begun a snapshot */
		ret = top->driver->graph->settle(f, top);
	if (ret < 0) {
		(void)image_set_writable(f, top, true, &(struct error){0});
		return ret;
	}
	blk_switch(job->blk, job->base);
	ret = image_cut_chain(f, top, job->base);
	image_set_backing(top, NULL); /* the drive's now */
	closed = image_close(f, top);
	return ret < 0 ? ret : closed;
}

static int change_over(struct fiber *f, struct job *job)
{
	struct image *top = job->top;
	/* The same fails while a snapshot of the machine is being taken from it. */
	int ret = image_set_writable(f, top, false, &job->err);

	if (ret < 0)
		return ret;
	if (job->req.end == JOB_PIVOT)
		return pivot(f, job);
	ret = image_set_writable(f, top, true, &job->err);
	return ret < 0 ? ret : top->driver->graph->make_empty(f, top, true);
}

/* Requests are held. */
static int settle(struct fiber *f, struct job *job)
{
	int ret = 0;

	job->in_sync = true;
	while (ret == 0 && dirty_map_bytes(job->dirty))
		ret = copy_pass(f, job);
	if (ret == 0)
		ret = image_flush(f, job->base);
	if (ret == 0 && job->req.end != JOB_WAIT)
		ret = change_over(f, job);
	job->in_sync = false;
	return ret;
}

int job_commit_active(struct fiber *f, struct job *job)
{
	int ret = find_all(f, job);

	if (ret < 0)
		return ret;
	do {
		ret = follow(f, job);
		if (ret < 0)
			return ret;
		blk_drain_fiber(f, job->blk);
		ret = settle(f, job);
		blk_drain_stop(job->blk);
		if (ret == -EBUSY)
			fiber_sleep_ns(f, NAP_NS);
	} while (ret == -EBUSY && !job->cancelled);
	return ret;
}
