/* File I/O for fibers and vector helpers; see io.h.
 *
 * The backend performs one system call's worth of a struct io_op; io_op_result
 * is where short transfers, EINTR, EAGAIN and the end of a file are dealt with,
 * for both backends alike. */
#define _GNU_SOURCE
#include "base/io.h"

#include "base/io_cached.h"
#include "base/loop_internal.h"

#include <errno.h>
#include <limits.h>

/* --- one operation --------------------------------------------------------- */

/* Aim the next transfer: the vector as it is, or, after a transfer that ended
 * inside an entry, the rest of that entry alone, so that nothing is copied. */
static void op_aim(struct io_op *op)
{
	if (op->skip) {
		op->tail.iov_base = (char *)op->vec->iov_base + op->skip;
		op->tail.iov_len = op->vec->iov_len - op->skip;
		op->iov = &op->tail;
		op->n = 1;
	} else {
		op->iov = op->vec;
		op->n = MIN(op->n_vec, (unsigned)IOV_MAX);
	}
}

static void op_advance(struct io_op *op, u64 bytes)
{
	assert(bytes <= op->bytes);
	op->offset += bytes;
	op->bytes -= bytes;
	op->done_bytes += bytes;
	op->skip += bytes;
	while (op->n_vec && op->skip >= op->vec->iov_len) {
		op->skip -= op->vec->iov_len;
		op->vec++;
		op->n_vec--;
	}
	op_aim(op);
}

static void op_finish(struct io_op *op, s64 result)
{
	op->result = result;
	op->finished = true;
	op->finish(op);
}

static void op_start(struct io_op *op)
{
	if (op->cached)
		io_cached_start(op);
	else
		op->loop->ops->io_start(op->loop, op);
}

void io_op_result(struct io_op *op, s64 result)
{
	bool transfer = op->kind == IO_READV || op->kind == IO_WRITEV;

	if (result == -EINTR || result == -EAGAIN) {
		op->retried |= result == -EAGAIN;
		op_start(op);
		return;
	}
	/* A direct read that stopped inside a sector met the end of the file, and
	 * may not go on from there. */
	if (result == -EINVAL && op->kind == IO_READV && op->done_bytes % 512)
		result = 0;
	if (result < 0 || !transfer) {
		op_finish(op, MIN(result, 0));
		return;
	}
	op->retried = false;
	op_advance(op, (u64)result);
	if (!op->bytes || (!result && op->kind == IO_READV))
		op_finish(op, (s64)op->done_bytes);
	else if (!result)
		op_finish(op, -ENOSPC); /* a write that makes no progress */
	else
		op_start(op);
}

static void op_begin(struct io_op *op)
{
	bool transfer = op->kind == IO_READV || op->kind == IO_WRITEV;

	if (transfer && !op->bytes)
		op_finish(op, 0);
	else
		op_start(op);
}

static void op_set_transfer(struct io_op *op, enum io_kind kind, int fd, const struct iovec *iov,
			    unsigned n)
{
	op->kind = kind;
	op->fd = fd;
	op->vec = iov;
	op->n_vec = n;
	op->bytes = iov_bytes(iov, n);
	op_aim(op);
}

/* --- one operation of a fiber ---------------------------------------------- */

static void wake_owner(struct io_op *op)
{
	fiber_wake(op->owner);
}

static s64 op_run(struct fiber *f, struct io_op *op)
{
	op->loop = fiber_loop(f);
	op->owner = f;
	op->finish = wake_owner;
	/* What is done on the spot suspends nobody: let others have their turn, too. */
	if (op->cached && !op->loop->inline_left)
		fiber_yield(f);
	op_begin(op);
	while (!op->finished)
		fiber_suspend(f);
	return op->result;
}

s64 io_readv(struct fiber *f, int fd, const struct iovec *iov, unsigned n, u64 offset)
{
	struct io_op op = {.offset = offset};

	op_set_transfer(&op, IO_READV, fd, iov, n);
	return op_run(f, &op);
}

s64 io_writev(struct fiber *f, int fd, const struct iovec *iov, unsigned n, u64 offset)
{
	struct io_op op = {.offset = offset};

	op_set_transfer(&op, IO_WRITEV, fd, iov, n);
	return op_run(f, &op);
}

s64 io_cached_readv(struct fiber *f, struct io_cached *c, const struct iovec *iov, unsigned n,
		    u64 offset)
{
	struct io_op op = {.offset = offset, .cached = c};

	op_set_transfer(&op, IO_READV, c->fd, iov, n);
	return op_run(f, &op);
}

s64 io_cached_writev(struct fiber *f, struct io_cached *c, const struct iovec *iov, unsigned n,
		     u64 offset)
{
	struct io_op op = {.offset = offset, .cached = c};

	op_set_transfer(&op, IO_WRITEV, c->fd, iov, n);
	return op_run(f, &op);
}

int io_datasync(struct fiber *f, int fd)
{
	struct io_op op = {.kind = IO_DATASYNC, .fd = fd};

	return (int)op_run(f, &op);
}

int io_fallocate(struct fiber *f, int fd, int mode, u64 offset, u64 bytes)
{
	struct io_op op = {
		.kind = IO_FALLOCATE, .fd = fd, .mode = mode, .offset = offset, .bytes = bytes};

	return (int)op_run(f, &op);
}

/* --- groups ---------------------------------------------------------------- */

#define FREE_OPS_ROOM 64 /* operations of groups kept for reuse, each about 200 bytes */

void io_group_init(struct fiber *f, struct io_group *g)
{
	*g = (struct io_group){.f = f};
}

static void group_op_finished(struct io_op *op)
{
	struct io_group *g = op->owner;

	if (op->result >= 0 && op->kind == IO_READV)
		iov_zero(op->vec, op->n_vec, op->skip, op->bytes);
	if (op->result < 0 && !g->error)
		g->error = (int)op->result;
	if (op->loop->n_free_ops < FREE_OPS_ROOM) {
		op->loop->n_free_ops++;
		list_push(&op->loop->free_ops, &op->link);
	} else {
		free(op);
	}
	assert(g->pending);
	if (!--g->pending)
		fiber_wake(g->f);
}

static void group_start(struct io_group *g, enum io_kind kind, int fd, const struct iovec *iov,
			unsigned n, u64 offset)
{
	struct loop *loop = fiber_loop(g->f);
	struct list *item = list_pop(&loop->free_ops);
	struct io_op *op;

	if (item) {
		op = list_entry(item, struct io_op, link);
		loop->n_free_ops--;
	} else {
		op = xnew(struct io_op);
	}
	*op = (struct io_op){
		.loop = loop, .owner = g, .finish = group_op_finished, .offset = offset};
	op_set_transfer(op, kind, fd, iov, n);
	g->pending++;
	op_begin(op);
}

void io_group_readv(struct io_group *g, int fd, const struct iovec *iov, unsigned n, u64 offset)
{
	group_start(g, IO_READV, fd, iov, n, offset);
}

void io_group_writev(struct io_group *g, int fd, const struct iovec *iov, unsigned n, u64 offset)
{
	group_start(g, IO_WRITEV, fd, iov, n, offset);
}

int io_group_wait(struct fiber *f, struct io_group *g)
{
	assert(f == g->f);
	while (g->pending)
		fiber_suspend(f);
	return g->error;
}

/* --- vectors --------------------------------------------------------------- */

u64 iov_bytes(const struct iovec *iov, unsigned n)
{
	u64 sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

unsigned iov_slice(struct iovec *to, const struct iovec *from, unsigned n, u64 skip, u64 bytes)
{
	unsigned used = 0;

	for (unsigned i = 0; i < n && bytes; i++) {
		u64 len = from[i].iov_len, part;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		part = MIN(len - skip, bytes);
		to[used].iov_base = (char *)from[i].iov_base + skip;
		to[used++].iov_len = part;
		skip = 0;
		bytes -= part;
	}
	assert(!bytes);
	return used;
}

enum iov_action { IOV_ZERO, IOV_TO, IOV_FROM };

/* Walk bytes [skip, skip + bytes) of the vector as far as it goes: bytes handled. */
static u64 iov_walk(const struct iovec *iov, unsigned n, u64 skip, char *buf, u64 bytes,
		    enum iov_action action)
{
	u64 done = 0;

	for (unsigned i = 0; i < n && done < bytes; i++) {
		u64 len = iov[i].iov_len, part;
		char *p;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		p = (char *)iov[i].iov_base + skip;
		part = MIN(len - skip, bytes - done);
		if (action == IOV_ZERO)
			memset(p, 0, part);
		else if (action == IOV_TO)
			memcpy(p, buf + done, part);
		else
			memcpy(buf + done, p, part);
		skip = 0;
		done += part;
	}
	return done;
}

bool iov_is_zero(const struct iovec *iov, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const u8 *p = iov[i].iov_base;
		size_t bytes = iov[i].iov_len;

		/* The first byte, and every byte like the one before it. */
		if (bytes && (p[0] || memcmp(p, p + 1, bytes - 1)))
			return false;
	}
	return true;
}

void iov_zero(const struct iovec *iov, unsigned n, u64 skip, u64 bytes)
{
	iov_walk(iov, n, skip, NULL, bytes, IOV_ZERO);
}

u64 iov_copy_to(const struct iovec *iov, unsigned n, u64 skip, const void *buf, u64 bytes)
{
	return iov_walk(iov, n, skip, (char *)(uintptr_t)buf, bytes, IOV_TO);
}

u64 iov_copy_from(const struct iovec *iov, unsigned n, u64 skip, void *buf, u64 bytes)
{
	return iov_walk(iov, n, skip, buf, bytes, IOV_FROM);
}
