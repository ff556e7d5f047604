/* Loop backend without io_uring: ppoll for descriptors, and a pool of threads
 * that make the file calls.  Serves where the host forbids io_uring.
 *
 * Thread: all but file_job_run is the loop's. */
#define _GNU_SOURCE
#include "base/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#define FILE_THREADS   16
#define FREE_JOBS_ROOM 64
#define NOWAIT_BYTES   (64 * KiB) /* larger copies are worth a thread */

struct file_job {
	struct pool_job job;
	struct loop_call back;
	struct list free_link;
	struct io_op *op;
	s64 result;
};

struct threads {
	struct pool *pool; /* made at first use */
	struct list free_jobs;
	unsigned n_free_jobs;
	/* What ppoll looks at: entry 0 is the bell, the others are the watches.
	 * Built again when `stale`; watches[i] is NULL once deleted. */
	struct pollfd *fds;
	struct loop_watch **watches;
	unsigned n, room;
	bool stale;
};

/* --- file operations ------------------------------------------------------- */

static s64 file_call(struct io_op *op)
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

static void file_job_run(struct pool_job *job)
{
	struct file_job *j = container_of(job, struct file_job, job);

	j->result = file_call(j->op);
	loop_post(j->op->loop, &j->back);
}

static void file_job_back(struct loop_call *call)
{
	struct file_job *j = container_of(call, struct file_job, back);
	struct threads *t = j->op->loop->backend;
	struct io_op *op = j->op;
	s64 result = j->result;

	if (t->n_free_jobs < FREE_JOBS_ROOM) {
		t->n_free_jobs++;
		list_push(&t->free_jobs, &j->free_link);
	} else {
		free(j);
	}
	io_op_result(op, result);
}

static struct file_job *file_job_get(struct threads *t)
{
	struct list *item = list_pop(&t->free_jobs);

	if (!item)
		return xnew(struct file_job);
	t->n_free_jobs--;
	return list_entry(item, struct file_job, free_link);
}

static void threads_io_start(struct loop *loop, struct io_op *op)
{
	struct threads *t = loop->backend;
	struct file_job *j;
	s64 n;

	/* What the page cache holds needs no thread. */
	if (op->kind == IO_READV && !op->retried && op->bytes <= NOWAIT_BYTES) {
		n = preadv2(op->fd, op->iov, (int)op->n, (off_t)op->offset, RWF_NOWAIT);
		if (n > 0) {
			io_op_result(op, n);
			return;
		}
	}
	if (!t->pool)
		t->pool = pool_new("file", FILE_THREADS);
	j = file_job_get(t);
	j->job.run = file_job_run;
	j->back.fn = file_job_back;
	j->op = op;
	list_init(&j->free_link);
	if (pool_submit(t->pool, &j->job) < 0)
		file_job_run(&j->job);
}

/* --- descriptors ----------------------------------------------------------- */

static void threads_stale(struct loop *loop, struct loop_watch *watch)
{
	struct threads *t = loop->backend;

	t->stale = true;
}

static void threads_watch_del(struct loop *loop, struct loop_watch *watch)
{
	struct threads *t = loop->backend;

	t->stale = true;
	for (unsigned i = 1; i < t->n; i++)
		if (t->watches[i] == watch)
			t->watches[i] = NULL;
}

static void build_fds(struct loop *loop, struct threads *t)
{
	unsigned n = 1;

	list_for_each (pos, &loop->watches)
		n++;
	if (n > t->room) {
		t->room = 2 * n;
		t->fds = xrealloc(t->fds, t->room * sizeof(*t->fds));
		t->watches = xrealloc(t->watches, t->room * sizeof(struct loop_watch *));
	}
	t->fds[0] = (struct pollfd){.fd = loop->event_fd, .events = POLLIN};
	t->watches[0] = NULL;
	t->n = 1;
	list_for_each (pos, &loop->watches) {
		struct loop_watch *w = list_entry(pos, struct loop_watch, link);

		/* A negative descriptor is skipped by poll: a paused watch. */
		t->fds[t->n] =
			(struct pollfd){.fd = w->events ? w->fd : -1, .events = (short)w->events};
		t->watches[t->n++] = w;
	}
	t->stale = false;
}

static void threads_wait(struct loop *loop, s64 timeout_ns)
{
	struct threads *t = loop->backend;
	struct timespec ts = {.tv_sec = timeout_ns / NS_PER_SEC,
			      .tv_nsec = timeout_ns % NS_PER_SEC};
	u64 bell;

	if (t->stale)
		build_fds(loop, t);
	if (ppoll(t->fds, t->n, timeout_ns < 0 ? NULL : &ts, NULL) <= 0)
		return; /* time is up, or a signal: the loop looks for itself */
	if (t->fds[0].revents)
		sys_read(loop->event_fd, &bell, sizeof(bell));
	for (unsigned i = 1; i < t->n; i++) {
		struct loop_watch *w = t->watches[i];

		/* Earlier callbacks may have deleted or paused it. */
		if (w && t->fds[i].revents && w->events)
			w->fn(w, (u32)t->fds[i].revents);
	}
}

/* --- life cycle ------------------------------------------------------------ */

static int threads_open(struct loop *loop, struct error *err)
{
	struct threads *t = xnew(struct threads);

	list_init(&t->free_jobs);
	t->stale = true;
	loop->backend = t;
	return 0;
}

static void threads_close(struct loop *loop)
{
	struct threads *t = loop->backend;
	struct list *item;

	pool_free(t->pool);
	while ((item = list_pop(&t->free_jobs)))
		free(list_entry(item, struct file_job, free_link));
	free(t->fds);
	free(t->watches);
	free(t);
}

static void threads_attach(struct loop *loop)
{
}

const struct loop_ops loop_threads_ops = {
	.open = threads_open,
	.close = threads_close,
	.attach = threads_attach,
	.wait = threads_wait,
	.io_start = threads_io_start,
	.watch_add = threads_stale,
	.watch_set = threads_stale,
	.watch_del = threads_watch_del,
};
