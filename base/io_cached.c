/* Files in the page cache; see io_cached.h.
 *
 * The rule.  A transfer of up to INLINE_BYTES is a copy that takes microseconds,
 * less than any way to have somebody else do it, and is done on the spot:
 *   - a read, if the cache has it (RWF_NOWAIT); else the backend reads it;
 *   - a write, unless writing has become slow (the host throttles those who dirty
 *     pages, or a journal is full): after one that slept, SLOW_NS or longer, all go
 *     to the writer for SLOW_FACTOR times as long, so the loop stands still for a
 *     small part of the time only.  On a busy host, most that take long were not
 *     asleep but had no processor: sleeps are counted once a long one was seen.
 * Larger ones are worth another core: reads go to threads, as many as come.  Writes
 * go to the file's writer, one thread that takes one after the other, because the
 * kernel lets only one at a time write to a file: more threads, or a ring's workers,
 * would just wait for each other in there.  The writer joins neighbours that have
 * queued up.
 *
 * Threads: the loop's, and the writer (write_jobs). */
#define _GNU_SOURCE
#include "base/io_cached.h"

#include "base/loop_internal.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

#define INLINE_BYTES (64 * KiB)
#define SLOW_NS	     (2 * NS_PER_MS)
#define SLOW_FACTOR  8
#define WATCHED	     1000      /* writes after a long one that are watched for sleeping */
#define JOIN_IOVS    64	       /* of what the writer joins */
#define JOIN_BYTES   (1 * MiB) /* others get their results when these are through */

/* What is written by one system call. */
struct run {
	struct io_op *ops[JOIN_IOVS];
	struct iovec iov[JOIN_IOVS];
	unsigned n_ops, n;
	u64 bytes;
};

void io_cached_init(struct io_cached *c, int fd)
{
	*c = (struct io_cached){.fd = fd};
	mutex_init(&c->lock);
	list_init(&c->writes);
}

void io_cached_fini(struct io_cached *c)
{
	mutex_lock(&c->lock); /* the writer may just be about to let go of it */
	assert(list_empty(&c->writes) && !c->writing);
	mutex_unlock(&c->lock);
	mutex_fini(&c->lock);
}

/* --- the writer -------------------------------------------------------------- */

static bool joins(const struct run *r, const struct io_op *op)
{
	return r->n + op->n <= JOIN_IOVS && r->bytes + iov_bytes(op->iov, op->n) <= JOIN_BYTES &&
	       op->offset == r->ops[0]->offset + r->bytes;
}

/* The oldest operation, and what goes on where it ends. */
static void take_run(struct io_cached *c, struct run *r)
{
	LOCK_SCOPE(&c->lock);

	r->n_ops = r->n = 0;
	r->bytes = 0;
	while (!list_empty(&c->writes)) {
		struct io_op *op = list_entry(c->writes.next, struct io_op, link);

		if (r->n_ops && !joins(r, op))
			break;
		list_del(&op->link);
		r->ops[r->n_ops++] = op;
		if (op->n > JOIN_IOVS)
			break; /* goes alone, with its own vector */
		memcpy(r->iov + r->n, op->iov, op->n * sizeof(*op->iov));
		r->n += op->n;
		r->bytes += iov_bytes(op->iov, op->n);
	}
	assert(r->n_ops);
}

static s64 write_run(const struct run *r)
{
	struct io_op joined = *r->ops[0];

	if (r->n_ops > 1) {
		joined.iov = r->iov;
		joined.n = r->n;
	}
	return io_op_call(&joined);
}

/* Everybody gets his share.  What comes away with nothing is tried again, so that an
 * error goes to the one that met it. */
static void post_run(const struct run *r, s64 result)
{
	u64 left = result > 0 ? (u64)result : 0;

	for (unsigned i = 0; i < r->n_ops; i++) {
		struct io_op *op = r->ops[i];
		u64 part = MIN(left, iov_bytes(op->iov, op->n));

		left -= part;
		if (part)
			io_op_post(op, (s64)part);
		else
			io_op_post(op, i ? -EINTR : result);
	}
}

static void write_job(struct pool_job *job)
{
	struct io_cached *c = container_of(job, struct io_op, job)->cached;
	bool more = true;
	struct run r;

	while (more) {
		s64 result;

		take_run(c, &r);
		result = write_run(&r);
		mutex_lock(&c->lock);
		c->writing = more = !list_empty(&c->writes);
		mutex_unlock(&c->lock);
		post_run(&r, result); /* without `more`, the file may be closed now */
	}
}

static void queue_write(struct io_cached *c, struct io_op *op)
{
	bool was_writing;

	list_init(&op->link);
	mutex_lock(&c->lock);
	list_append(&c->writes, &op->link);
	was_writing = c->writing;
	c->writing = true;
	mutex_unlock(&c->lock);
	if (was_writing)
		return;
	/* The pool is done with a job when it calls it: any operation can lend its. */
	op->job.run = write_job;
	if (pool_submit(io_pool(op->loop), &op->job) < 0)
		write_job(&op->job);
}

/* --- on the spot ------------------------------------------------------------- */

static bool is_slow(struct io_cached *c, u64 now)
{
	return c->slow_until_ns && now < c->slow_until_ns;
}

/* How slow it was is known by the first write that sleeps while it is watched. */
static void judge_write(struct io_cached *c, u64 start, u64 took, bool slept)
{
	bool was_watched = c->watched;

	c->watched -= was_watched;
	if (took < SLOW_NS)
		return;
	if (slept)
		c->slow_until_ns = start + (SLOW_FACTOR + 1) * took;
	if (!was_watched)
		c->watched = WATCHED;
}

static bool try_write(struct io_cached *c, struct io_op *op, s64 *result)
{
	u64 start = now_ns(), sleeps;

	if (op->bytes > INLINE_BYTES || is_slow(c, start))
		return false;
	sleeps = c->watched ? thread_sleeps() : 0;
	*result = io_op_call(op);
	judge_write(c, start, now_ns() - start, c->watched && thread_sleeps() != sleeps);
	return true;
}

static bool try_read(struct io_cached *c, struct io_op *op, s64 *result)
{
	if (op->bytes > INLINE_BYTES || op->retried || c->cannot_peek)
		return false;
	*result = preadv2(op->fd, op->iov, (int)op->n, (off_t)op->offset, RWF_NOWAIT);
	if (*result >= 0)
		return true;
	c->cannot_peek = errno == EOPNOTSUPP || errno == ENOSYS;
	return false;
}

void io_cached_start(struct io_op *op)
{
	struct io_cached *c = op->cached;
	struct loop *loop = op->loop;
	bool reads = op->kind == IO_READV;
	s64 result;

	assert(reads || op->kind == IO_WRITEV);
	if (reads ? try_read(c, op, &result) : try_write(c, op, &result)) {
		loop->inline_left -= loop->inline_left > 0;
		io_op_result(op, result);
	} else if (!reads) {
		queue_write(c, op);
	} else if (op->bytes > INLINE_BYTES) {
		io_op_start_on_pool(loop, op);
	} else {
		loop->ops->io_start(loop, op);
	}
}
