/* Loop backend without io_uring: ppoll for descriptors, and a pool of threads
 * that make the file calls (io_pool.c).  Serves where the host forbids io_uring.
 *
 * Thread: the loop's. */
#define _GNU_SOURCE
#include "base/loop_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

struct threads {
	/* What ppoll looks at: entry 0 is the bell, the others are the watches.
	 * Built again when `stale`; watches[i] is NULL once deleted. */
	struct pollfd *fds;
	struct loop_watch **watches;
	unsigned n, room;
	bool stale;
};

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
	u64 count;

	if (t->stale)
		build_fds(loop, t);
	if (ppoll(t->fds, t->n, timeout_ns < 0 ? NULL : &ts, NULL) <= 0)
		return; /* time is up, or a signal: the loop looks for itself */
	if (t->fds[0].revents)
		sys_read(loop->event_fd, &count, sizeof(count));
	for (unsigned i = 1; i < t->n; i++) {
		struct loop_watch *w = t->watches[i];

		/* Earlier callbacks may have deleted or paused it. */
		if (!w || !t->fds[i].revents || !w->events)
			continue;
		if (w->bell)
			sys_read(w->fd, &count, sizeof(count));
		w->fn(w, (u32)t->fds[i].revents);
	}
}

/* --- life cycle ------------------------------------------------------------ */

static int threads_open(struct loop *loop, struct error *err)
{
	struct threads *t = xnew(struct threads);

	t->stale = true;
	loop->backend = t;
	return 0;
}

static void threads_close(struct loop *loop)
{
	struct threads *t = loop->backend;

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
	.io_start = io_op_start_on_pool,
	.watch_add = threads_stale,
	.watch_set = threads_stale,
	.watch_del = threads_watch_del,
};
