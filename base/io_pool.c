/* File operations performed by threads: all of them in the thread backend, the
 * large ones of files in the page cache on either.
 *
 * Thread: the loop's, but for io_op_call and io_op_post. */
#define _GNU_SOURCE
#include "base/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define FILE_THREADS 16

s64 io_op_call(const struct io_op *op)
{
	s64 ret = -EINVAL;

	switch (op->kind) {
	case IO_READV: ret = preadv(op->fd, op->iov, (int)op->n, (off_t)op->offset); break;
	case IO_WRITEV: ret = pwritev(op->fd, op->iov, (int)op->n, (off_t)op->offset); break;
	case IO_DATASYNC: ret = fdatasync(op->fd); break;
	case IO_FALLOCATE:
		ret = fallocate(op->fd, op->mode, (off_t)op->offset, (off_t)op->bytes);
		break;
	}
	return ret < 0 ? -errno : ret;
}

static void op_back(struct loop_call *call)
{
	struct io_op *op = container_of(call, struct io_op, back);

	io_op_result(op, op->call_result);
}

void io_op_post(struct io_op *op, s64 result)
{
	op->call_result = result;
	op->back.fn = op_back;
	loop_post(op->loop, &op->back);
}

static void op_job(struct pool_job *job)
{
	struct io_op *op = container_of(job, struct io_op, job);

	io_op_post(op, io_op_call(op));
}

struct pool *io_pool(struct loop *loop)
{
	if (!loop->file_pool)
		loop->file_pool = pool_new("file", FILE_THREADS);
	return loop->file_pool;
}

void io_op_start_on_pool(struct loop *loop, struct io_op *op)
{
	op->job.run = op_job;
	if (pool_submit(io_pool(loop), &op->job) < 0)
		op_job(&op->job);
}
