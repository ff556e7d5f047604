/* Shared by the files of jobs: job.c, job_stream.c, job_live.c.
 * Thread: the drive's loop, everywhere. */
#ifndef BLOCK_JOB_INT_H
#define BLOCK_JOB_INT_H

#include "block/blk_internal.h"
#include "block/crew.h"
#include "block/dirty_map.h"
#include "block/graph.h"
#include "block/job.h"

#define JOB_HANDS	8
#define JOB_CHUNK_BYTES (512 * KiB)
#define JOB_GRAIN_BITS	16 /* of what an active commit follows */

struct job_chunk {
	struct job *job;
	u64 goff, bytes;
	bool zero;
	u8 *buf;
};

struct job {
	struct blk *blk;
	struct job_request req;	  /* its names are not kept */
	struct image *top, *base; /* base NULL: a stream of everything */
	struct image *over;	  /* whose backing image the top is; NULL: active */
	u64 done, total, speed;
	u64 paid, paid_since_ns; /* bytes copied since the speed was set */
	bool paused, cancelled, ready, pivot;
	bool finish;  /* an active commit that is ready: go to the end */
	bool in_sync; /* the end has come: requests are held, what is left is copied */
	int error;
	struct error err;	       /* of the end */
	struct fiber_queue wait;       /* the job, for somebody's word */
	struct fiber_queue wait_ended; /* others, for its end */
	struct range_locks locks;      /* guest writes share, a chunk excludes */
	struct dirty_map *dirty;       /* to be copied; NULL: not an active commit */
	struct crew crew;
	struct job_chunk chunks[JOB_HANDS];
	u8 *memory;
};

/* May it go on?  Waits while it is paused.  Suspends. */
bool job_goes_on(struct fiber *f, struct job *job);
/* These bytes are being copied: wait until the speed allows more.  Suspends. */
void job_pay(struct fiber *f, struct job *job, u64 bytes);
/* Run fn on the range, a chunk at a time, on the job's hands; it sets job->error.
 * Ends early when the job does.  Suspends. */
typedef void job_chunk_fn(struct fiber *f, struct crew_hand *hand);
void job_hand_out(struct fiber *f, struct job *job, const struct job_chunk *range,
		  job_chunk_fn *fn);
/* Until nobody works on the images by blk_run: those that go may be closed.  Drained.
 * -ECANCELED.  Suspends, but not after it has looked. */
int job_wait_visitors(struct fiber *f, struct job *job);
static inline void job_failed(struct job *job, int ret)
{
	if (ret < 0 && !job->error)
		job->error = ret;
}

/* The work; 0 or an error, job->err filled.  Suspend. */
int job_stream_run(struct fiber *f, struct job *job);
int job_commit_behind(struct fiber *f, struct job *job);
int job_commit_active(struct fiber *f, struct job *job);

/* A guest request that changes something, while a job is there: fn, in step with
 * the job's copying.  Suspends. */
int job_guard(struct fiber *f, struct job *job, struct blk_req *req,
	      int (*fn)(struct fiber *f, struct blk *blk, struct blk_req *req));

#endif
