/* Merging images into one behind them; see job_commit.h.
 *
 * One fiber walks the maps of the layers above the base and hands ranges of data
 * to others, which read through the top and write to the base: a few MiB are under
 * way at a time.  Zeros become zeros without being read.
 * Memory: HANDS buffers.  Thread: the chain's loop. */
#include "block/job_commit.h"

#include "base/loop.h"
#include "block/crew.h"
#include "block/map_cursor.h"

#include <errno.h>
#include <time.h>

#define HANDS	     8
#define CHUNK_BYTES  (1 * MiB)
#define WINDOW_BYTES (1 * GiB) /* of zeros, between two looks at the clock */

struct copy {
	struct run *run;
	u64 goff, bytes;
	u8 *buf;
};

struct run {
	struct commit_job *job;
	struct fiber *f;
	struct crew crew;
	struct copy copies[HANDS];
	int error;
	u64 copied, begun_ns;
};

static u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * NS_PER_SEC + (u64)t.tv_nsec;
}

static void copy_one(struct fiber *f, struct crew_hand *hand)
{
	struct copy *c = hand->task;
	struct commit_job *job = c->run->job;
	int ret = image_pread(f, job->top, c->goff, c->buf, c->bytes);

	if (ret == 0)
		ret = image_pwrite(f, job->base, c->goff, c->buf, c->bytes);
	if (ret < 0 && !c->run->error)
		c->run->error = ret;
}

/* Sleep until what was copied fits the rate. */
static void keep_rate(struct run *r, u64 bytes)
{
	u64 due, now;

	r->copied += bytes;
	if (r->job->copied)
		r->job->copied(r->f, r->job->arg, bytes);
	if (!r->job->rate)
		return;
	due = r->begun_ns + (u64)((double)r->copied / (double)r->job->rate * NS_PER_SEC);
	now = now_ns();
	if (due > now)
		fiber_sleep_ns(r->f, due - now);
}

/* May the job go on? */
static bool goes_on(struct run *r, u64 done)
{
	struct commit_job *job = r->job;

	if (!r->error && job->progress && !job->progress(r->f, job->arg, done, job->top->bytes))
		r->error = -ECANCELED;
	return !r->error;
}

static void copy_data(struct run *r, u64 goff, u64 bytes)
{
	for (u64 at = 0, part; at < bytes; at += part) {
		struct crew_hand *hand = crew_take(r->f, &r->crew);
		struct copy *c = hand->task;

		if (!goes_on(r, goff + at))
			return;
		part = MIN(bytes - at, CHUNK_BYTES - ((goff + at) & (CHUNK_BYTES - 1)));
		c->run = r;
		c->goff = goff + at;
		c->bytes = part;
		crew_start(r->f, hand, copy_one);
		keep_rate(r, part);
	}
}

static void walk(struct run *r, struct map_cursor *cursor)
{
	const u32 mask = MAP_DATA | MAP_ZERO | MAP_ALLOC;
	u64 end = r->job->top->bytes;

	for (u64 goff = 0; goff < end && goes_on(r, goff);) {
		struct chain_extent x;
		int ret =
			map_cursor_run(r->f, cursor, goff, MIN(end - goff, WINDOW_BYTES), mask, &x);

		/* The base itself says what is not above it. */
		if (ret == 0 && x.map.kind & MAP_ZERO)
			ret = image_zero(r->f, r->job->base, goff, x.map.bytes, ZERO_MAY_UNMAP);
		else if (ret == 0 && x.map.kind & MAP_DATA)
			copy_data(r, goff, x.map.bytes);
		if (ret < 0 && !r->error)
			r->error = ret;
		goff += x.map.bytes;
	}
	crew_wait(r->f, &r->crew);
}

static int grow_base(struct fiber *f, struct commit_job *job, struct error *err)
{
	if (job->base->bytes >= job->top->bytes)
		return 0;
	return image_resize(f, job->base, job->top->bytes, err);
}

static int run_with(struct run *r, u8 *memory, struct error *err)
{
	struct commit_job *job = r->job;
	struct map_cursor cursor;
	int ret;

	for (unsigned i = 0; i < HANDS; i++)
		r->copies[i].buf = memory + i * CHUNK_BYTES;
	crew_init(&r->crew, HANDS, r->copies, sizeof(r->copies[0]));
	map_cursor_init(&cursor, job->top, job->base);
	walk(r, &cursor);
	map_cursor_fini(&cursor);
	ret = r->error;
	if (ret == 0)
		ret = image_flush(r->f, job->base);
	if (ret == -ECANCELED)
		return err_set(err, ret, "interrupted");
	return ret < 0 ? err_set_errno(err, ret, "block job failed") : 0;
}

int commit_run(struct fiber *f, struct commit_job *job, struct error *err)
{
	struct run r = {.job = job, .f = f, .begun_ns = now_ns()};
	u8 *memory;
	int ret = grow_base(f, job, err);

	if (ret < 0)
		return ret;
	memory = try_alloc_aligned(HANDS * CHUNK_BYTES, 4096);
	if (!memory)
		return err_set(err, -ENOMEM, "out of memory");
	ret = run_with(&r, memory, err);
	free(memory);
	return ret;
}
