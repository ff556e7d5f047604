/* Streaming: what the images between the top and the base have, is copied into the
 * top where it has nothing itself; then the base (or nothing) is behind it.
 *
 * A chunk excludes guest writes while it is read from behind and written to the
 * top, cluster by cluster only where the top still has none: the guest's data are
 * never overwritten.  The header names the base when all is durable, so a crash
 * leaves the old chain, with some of it copied already, or the new one.
 * Thread: the drive's loop. */
#include "block/job_int.h"

#include "base/io.h"
#include "block/map_cursor.h"

#include <errno.h>

#define KINDS	     (MAP_DATA | MAP_ZERO | MAP_ALLOC)
#define WINDOW_BYTES (1 * GiB)

/* What is behind, to where the top has nothing. */
static int fill(struct fiber *f, const struct job_chunk *c, u64 goff, u64 bytes)
{
	struct image *top = c->job->top;
	struct iovec iov = {c->buf, bytes};
	int ret;

	if (c->zero)
		return image_zero(f, top, goff, bytes, 0);
	ret = image_read_backing(f, top, goff, &iov, 1);
	if (ret < 0)
		return ret;
	return iov_is_zero(&iov, 1) ? image_zero(f, top, goff, bytes, 0)
				    : image_write(f, top, goff, &iov, 1);
}

static int fill_holes(struct fiber *f, const struct job_chunk *c)
{
	u64 end = c->goff + c->bytes;
	int ret = 0;

	for (u64 goff = c->goff; goff < end && ret == 0;) {
		struct map_extent e;

		ret = image_map(f, c->job->top, goff, end - goff, &e);
		if (ret == 0 && !(e.kind & MAP_ALLOC))
			ret = fill(f, c, goff, e.bytes);
		goff += e.bytes;
	}
	return ret;
}

static void fill_chunk(struct fiber *f, struct crew_hand *hand)
{
	struct job_chunk *c = hand->task;
	struct range_lock lock;

	range_lock(f, &c->job->locks, &lock, c->goff, c->bytes, true);
	job_failed(c->job, fill_holes(f, c));
	range_unlock(&c->job->locks, &lock);
}

/* What the images between have at goff, where the top has nothing: 0: the base
 * decides, or nothing needs to be done. */
static int look_behind(struct fiber *f, struct job *job, struct map_cursor *between,
		       struct job_chunk *range, bool *needed)
{
	struct image *first = job->top->backing, *base = job->base;
	struct chain_extent x = {.map = {.bytes = range->bytes, .kind = MAP_ZERO}};
	int ret = 0;

	*needed = false;
	if (!first || first == base)
		return 0;
	if (range->goff < first->bytes)
		ret = map_cursor_run(f, between, range->goff,
				     MIN(range->bytes, first->bytes - range->goff), KINDS, &x);
	if (ret < 0)
		return ret;
	range->bytes = x.map.bytes;
	range->zero = x.map.kind & MAP_ZERO;
	/* Zeros show by themselves, unless the base has something there. */
	*needed = range->zero ? base && range->goff < base->bytes : x.map.kind != 0;
	return 0;
}

static int walk(struct fiber *f, struct job *job, struct map_cursor *between)
{
	u64 end = job->top->bytes;
	int ret = 0;

	for (u64 goff = 0; goff < end && ret == 0 && job_goes_on(f, job);) {
		struct job_chunk range = {.goff = goff};
		struct map_extent e;
		bool needed = false;

		ret = image_map(f, job->top, goff, MIN(end - goff, WINDOW_BYTES), &e);
		if (ret < 0)
			break;
		range.bytes = e.bytes;
		if (!(e.kind & MAP_ALLOC))
			ret = look_behind(f, job, between, &range, &needed);
		if (ret == 0 && needed)
			job_hand_out(f, job, &range, fill_chunk);
		goff += range.bytes;
		job->done = goff;
	}
	crew_wait(f, &job->crew);
	return ret < 0 ? ret : job->error;
}

/* All is copied: name the base, and let go of what was between. */
static int finish(struct fiber *f, struct job *job)
{
	struct image *top = job->top, *base = job->base;
	AUTO_FREE char *name = base ? image_backing_name(base, image_host_name(top)) : NULL;
	int ret;

	if (!top->backing || top->backing == base)
		return 0;
	if (!top->driver->graph || !top->driver->graph->set_backing)
		return err_set(&job->err, -ENOTSUP, "'%s' cannot have another backing file",
			       top->name);
	ret = image_flush(f, top);
	if (ret < 0)
		return ret;
	ret = top->driver->graph->set_backing(f, top, name, base ? base->driver->name : NULL,
					      &job->err);
	/* The file names the base now; a job that is cancelled here leaves the rest open. */
	if (ret < 0 || job_wait_visitors(f, job) < 0)
		return ret;
	return image_cut_chain(f, top, base);
}

int job_stream_run(struct fiber *f, struct job *job)
{
	struct map_cursor between;
	int ret;

	map_cursor_init(&between, job->top->backing, job->base);
	ret = walk(f, job, &between);
	map_cursor_fini(&between);
	if (ret == 0 && job->cancelled)
		ret = -ECANCELED;
	/* Once more after the flush, which may take its time. */
	if (ret == 0)
		ret = image_flush(f, job->top);
	if (ret < 0)
		return ret;
	blk_drain_fiber(f, job->blk);
	ret = finish(f, job);
	blk_drain_stop(job->blk);
	return ret;
}
