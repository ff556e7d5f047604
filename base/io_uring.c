/* Loop backend on io_uring: file operations, polls and the bell are submission
 * entries, all submitted by the one system call that also waits.
 *
 * The ring is created disabled and enabled by the thread that runs the loop, so
 * that the kernel may take the single-issuer shortcuts where it knows them.  What
 * finds no free entry waits in `backlog`.
 *
 * user_data is a pointer tagged in its low bits with what it points to.
 * Thread: the loop's. */
#define _GNU_SOURCE
#include "base/loop_internal.h"

#include <errno.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>

#define RING_ENTRIES 256

enum cqe_tag { TAG_OP, TAG_POLL, TAG_BELL, TAG_IGNORE, TAG_MASK = 3 };

/* A poll of one watch.  Outlives the watch while the kernel still holds it. */
struct ring_poll {
	struct list link;	  /* to_arm, dying, or nowhere */
	struct loop_watch *watch; /* NULL: only waiting for its last completion */
	u32 events;		  /* armed with */
	bool armed;
};

struct ring {
	struct io_uring uring;
	bool enabled;
	bool bell_armed;
	u64 bell;	     /* the kernel reads event_fd into this */
	struct list backlog; /* io_op */
	struct list to_arm;  /* ring_poll */
	struct list dying;   /* ring_poll without a watch, armed */
};

/* --- submission ------------------------------------------------------------ */

static struct io_uring_sqe *get_sqe(struct ring *r)
{
	struct io_uring_sqe *sqe;

	if (!r->enabled)
		return NULL;
	sqe = io_uring_get_sqe(&r->uring);
	if (sqe)
		return sqe;
	/* Full: hand over what is there.  An error shows again, and lasts, in wait. */
	io_uring_submit(&r->uring);
	return io_uring_get_sqe(&r->uring);
}

static void set_data(struct io_uring_sqe *sqe, void *p, enum cqe_tag tag)
{
	assert(!((uintptr_t)p & TAG_MASK));
	io_uring_sqe_set_data64(sqe, (u64)(uintptr_t)p | tag);
}

static void prep_transfer(struct io_uring_sqe *sqe, struct io_op *op)
{
	unsigned len = (unsigned)MIN(op->iov->iov_len, (size_t)GiB);

	/* One buffer needs no vector to be copied in. */
	if (op->kind == IO_READV && op->n == 1)
		io_uring_prep_read(sqe, op->fd, op->iov->iov_base, len, op->offset);
	else if (op->kind == IO_READV)
		io_uring_prep_readv(sqe, op->fd, op->iov, op->n, op->offset);
	else if (op->n == 1)
		io_uring_prep_write(sqe, op->fd, op->iov->iov_base, len, op->offset);
	else
		io_uring_prep_writev(sqe, op->fd, op->iov, op->n, op->offset);
}

static bool try_start(struct ring *r, struct io_op *op)
{
	struct io_uring_sqe *sqe = get_sqe(r);

	if (!sqe)
		return false;
	switch (op->kind) {
	case IO_READV:
	case IO_WRITEV: prep_transfer(sqe, op); break;
	case IO_DATASYNC: io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC); break;
	case IO_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, op->mode, (off_t)op->offset, (off_t)op->bytes);
		break;
	}
	if (op->retried)
		io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
	set_data(sqe, op, TAG_OP);
	return true;
}

static void ring_io_start(struct loop *loop, struct io_op *op)
{
	struct ring *r = loop->backend;

	if (!list_empty(&r->backlog) || !try_start(r, op))
		list_append(&r->backlog, &op->link);
}

static void start_backlog(struct ring *r)
{
	while (!list_empty(&r->backlog)) {
		struct io_op *op = list_entry(r->backlog.next, struct io_op, link);

		if (!try_start(r, op))
			return;
		list_del(&op->link);
	}
}

/* --- descriptors ----------------------------------------------------------- */

/* Polls are one-shot: level-triggered watches are armed again by each wait.  A bell's
 * stays armed and reports every write, though nobody reads what is written. */
static void arm_polls(struct ring *r)
{
	while (!list_empty(&r->to_arm)) {
		struct ring_poll *p = list_entry(r->to_arm.next, struct ring_poll, link);
		struct io_uring_sqe *sqe = get_sqe(r);

		if (!sqe)
			return;
		list_del(&p->link);
		p->armed = true;
		p->events = p->watch->events;
		if (p->watch->bell)
			io_uring_prep_poll_multishot(sqe, p->watch->fd, p->events);
		else
			io_uring_prep_poll_add(sqe, p->watch->fd, p->events);
		set_data(sqe, p, TAG_POLL);
	}
}

static void poll_new(struct ring *r, struct loop_watch *watch)
{
	struct ring_poll *p = xnew(struct ring_poll);

	p->watch = watch;
	watch->backend = p;
	list_init(&p->link);
	if (watch->events)
		list_append(&r->to_arm, &p->link);
}

/* Part poll and watch; the poll goes when the kernel is done with it. */
static void poll_drop(struct ring *r, struct ring_poll *p)
{
	struct io_uring_sqe *sqe;

	p->watch->backend = NULL;
	p->watch = NULL;
	list_del(&p->link);
	if (!p->armed) {
		free(p);
		return;
	}
	list_append(&r->dying, &p->link);
	/* Submitted at once, because the caller may close the descriptor now and
	 * expect the file to be let go.  Without a free entry the poll just stays
	 * until it fires. */
	sqe = get_sqe(r);
	if (!sqe)
		return;
	io_uring_prep_poll_remove(sqe, (u64)(uintptr_t)p | TAG_POLL);
	set_data(sqe, NULL, TAG_IGNORE);
	io_uring_submit(&r->uring);
}

static void ring_watch_add(struct loop *loop, struct loop_watch *watch)
{
	poll_new(loop->backend, watch);
}

static void ring_watch_set(struct loop *loop, struct loop_watch *watch)
{
	struct ring *r = loop->backend;
	struct ring_poll *p = watch->backend;

	if (p->armed && p->events == watch->events)
		return; /* paused and resumed before it fired */
	if (p->armed && watch->events) {
		poll_drop(r, p);
		poll_new(r, watch);
		return;
	}
	/* A paused watch leaves its armed poll: if it fires, nothing is called. */
	list_del(&p->link);
	if (watch->events)
		list_append(&r->to_arm, &p->link);
}

static void ring_watch_del(struct loop *loop, struct loop_watch *watch)
{
	poll_drop(loop->backend, watch->backend);
}

/* The kernel hands on what woke its poll, and a socket wakes for urgent data at
 * whatever arrives: only asking again tells.  (libslirp would pass a byte of every
 * such moment on as urgent, which takes it out of the guest's stream.) */
static s32 without_false_urgency(const struct loop_watch *watch, s32 res)
{
	struct pollfd now = {.fd = watch->fd, .events = (short)watch->events};

	if (res < 0 || !(res & POLLPRI))
		return res;
	return poll(&now, 1, 0) > 0 ? now.revents : 0;
}

static void poll_done(struct ring *r, struct ring_poll *p, s32 res, bool more)
{
	struct loop_watch *watch = p->watch;

	p->armed = more;
	if (!watch && !more) {
		list_del(&p->link);
		free(p);
	}
	if (!watch || !watch->events)
		return;
	if (!more)
		list_append(&r->to_arm, &p->link);
	res = without_false_urgency(watch, res);
	if (!res)
		return;
	/* A descriptor that cannot be polled is reported as an error on it. */
	watch->fn(watch, res < 0 ? POLLERR : (u32)res);
}

/* --- completion ------------------------------------------------------------ */

static void deliver(struct ring *r, u64 data, s32 res, u32 flags)
{
	void *p = (void *)(uintptr_t)(data & ~(u64)TAG_MASK);

	switch ((enum cqe_tag)(data & TAG_MASK)) {
	case TAG_OP: io_op_result(p, res); break;
	case TAG_POLL: poll_done(r, p, res, flags & IORING_CQE_F_MORE); break;
	case TAG_BELL: r->bell_armed = flags & IORING_CQE_F_MORE; break;
	default: break;
	}
}

static void reap(struct ring *r)
{
	struct io_uring_cqe *cqe;

	while (!io_uring_peek_cqe(&r->uring, &cqe)) {
		u64 data = io_uring_cqe_get_data64(cqe);
		u32 flags = cqe->flags;
		s32 res = cqe->res;

		io_uring_cqe_seen(&r->uring, cqe);
		deliver(r, data, res, flags);
	}
}

/* A poll that stays armed reports every write to event_fd, though nobody reads
 * it: one completion for each ring of the bell, and nothing else to do. */
static void arm_bell(struct loop *loop, struct ring *r)
{
	struct io_uring_sqe *sqe;

	if (r->bell_armed)
		return;
	sqe = get_sqe(r);
	if (!sqe)
		return;
	io_uring_prep_poll_multishot(sqe, loop->event_fd, POLLIN);
	set_data(sqe, NULL, TAG_BELL);
	r->bell_armed = true;
}

static void ring_wait(struct loop *loop, s64 timeout_ns)
{
	struct ring *r = loop->backend;
	struct __kernel_timespec ts = {.tv_sec = timeout_ns / NS_PER_SEC,
				       .tv_nsec = timeout_ns % NS_PER_SEC};
	struct io_uring_cqe *cqe;

	arm_bell(loop, r);
	arm_polls(r);
	start_backlog(r);
	/* Never sleep while something could not be armed. */
	if (!r->bell_armed || !list_empty(&r->to_arm) || !list_empty(&r->backlog))
		timeout_ns = 0;
	/* Errors (EINTR, ETIME, EBUSY) mean a turn without news. */
	if (timeout_ns == 0)
		io_uring_submit_and_get_events(&r->uring);
	else
		io_uring_submit_and_wait_timeout(&r->uring, &cqe, 1, timeout_ns < 0 ? NULL : &ts,
						 NULL);
	reap(r);
}

/* --- life cycle ------------------------------------------------------------ */

static int ring_open(struct loop *loop, struct error *err)
{
	/* Best first.  Kernels before 5.19 refuse both, and get threads: they lack
	 * polls that stay armed, or have them with defects. */
	static const unsigned flags[] = {
		IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
		IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN,
	};
	struct ring *r = xnew(struct ring);
	int ret = -EINVAL;

	for (unsigned i = 0; i < ARRAY_LEN(flags) && ret == -EINVAL; i++)
		ret = io_uring_queue_init(RING_ENTRIES, &r->uring, flags[i]);
	if (ret < 0) {
		free(r);
		return err_set_errno(err, ret, "%s: cannot set up io_uring", loop->name);
	}
	io_uring_ring_dontfork(&r->uring);
	list_init(&r->backlog);
	list_init(&r->to_arm);
	list_init(&r->dying);
	loop->backend = r;
	return 0;
}

static void ring_close(struct loop *loop)
{
	struct ring *r = loop->backend;
	struct list *item;

	assert(list_empty(&r->backlog) && list_empty(&r->to_arm));
	io_uring_queue_exit(&r->uring);
	while ((item = list_pop(&r->dying)))
		free(list_entry(item, struct ring_poll, link));
	free(r);
}

static void ring_attach(struct loop *loop)
{
	struct ring *r = loop->backend;
	/* liburing 2.3 declares io_uring_enable_rings but does not export it. */
	int ret = io_uring_register((unsigned)r->uring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL,
				    0);

	assert(!ret);
	r->enabled = true;
}

const struct loop_ops loop_uring_ops = {
	.open = ring_open,
	.close = ring_close,
	.attach = ring_attach,
	.wait = ring_wait,
	.io_start = ring_io_start,
	.watch_add = ring_watch_add,
	.watch_set = ring_watch_set,
	.watch_del = ring_watch_del,
};
