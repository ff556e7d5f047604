/* One thread's event loop: fibers, file I/O, descriptors, timers, posted calls.
 *
 * Every loop is run by one thread.  The process's main thread runs one (monitor,
 * timers, displays); each drive has one of its own; cowimg runs one.  Backend:
 * io_uring, or a pool of threads and ppoll where the host forbids io_uring.
 * Only functions marked [any thread] may be called from elsewhere. */
#ifndef BASE_LOOP_H
#define BASE_LOOP_H

#include "base/base.h"
#include "base/error.h"
#include "base/fiber.h"
#include "base/list.h"

struct loop;

enum loop_backend {
	LOOP_AUTO, /* the environment's COWVM_IO=uring|threads, else what works */
	LOOP_URING,
	LOOP_THREADS,
};

int loop_new(struct loop **out, const char *name, enum loop_backend backend, struct error *err);
/* No fiber, watch or timer may be left. */
void loop_free(struct loop *loop);
enum loop_backend loop_backend(const struct loop *loop);

/* Run on the calling thread until loop_stop. */
void loop_run(struct loop *loop);
void loop_stop(struct loop *loop); /* [any thread] */
/* Run fn as a fiber on the calling thread, and the loop until fn returned. */
int loop_run_fiber(struct loop *loop, fiber_fn *fn, void *arg);
/* Run loop_run on a thread of its own; loop_join stops it and waits. */
int loop_start_thread(struct loop *loop, struct error *err);
void loop_join(struct loop *loop); /* then only taking down and loop_free */
/* True on the thread that runs the loop (or before any has run it). */
bool loop_is_current(const struct loop *loop);

/* A count, never 0, for those who keep something until anything of a kind changes: in
 * the block layer, how images hang together. */
u64 loop_changes(const struct loop *loop);
void loop_note_change(struct loop *loop);

/* A call to make on the loop's thread.  The storage is the caller's until fn is
 * called; posting it again before that is a bug. */
struct loop_call {
	struct loop_call *next;
	void (*fn)(struct loop_call *call);
};
void loop_post(struct loop *loop, struct loop_call *call); /* [any thread] */
/* Run what has been posted so far, for an owner that is about to free a call. */
void loop_run_posted(struct loop *loop);
/* Post and wait until it has run; not from the loop's own thread. */
void loop_call_wait(struct loop *loop, void (*fn)(void *arg), void *arg); /* [any thread] */

/* Watch a descriptor: fn is called on the loop thread while `events` (POLLIN,
 * POLLOUT) hold, level-triggered; revents may also carry POLLHUP and POLLERR. */
struct loop_watch {
	struct list link; /* [loop] */
	struct loop *loop;
	int fd;
	u32 events;
	void (*fn)(struct loop_watch *watch, u32 revents);
	bool bell;     /* [const] of loop_watch_bell */
	void *backend; /* owned by the loop */
};
void loop_watch_add(struct loop *loop, struct loop_watch *watch, int fd, u32 events,
		    void (*fn)(struct loop_watch *watch, u32 revents));
/* An eventfd whose count is of no interest, only that it was written to: fn is called
 * after that (and may be without), and leaves the descriptor alone. */
void loop_watch_bell(struct loop *loop, struct loop_watch *watch, int fd,
		     void (*fn)(struct loop_watch *watch, u32 revents));
void loop_watch_set(struct loop_watch *watch, u32 events); /* 0: pause; not of bells */
/* After this fn is not called again and the descriptor may be closed. */
void loop_watch_del(struct loop_watch *watch);

/* A one-shot timer on CLOCK_MONOTONIC.  fn may arm it again. */
struct loop_timer {
	struct loop *loop;
	u64 due_ns;
	u32 slot; /* place in the heap + 1, 0: not armed */
	void (*fn)(struct loop_timer *timer);
};
void loop_timer_init(struct loop *loop, struct loop_timer *timer,
		     void (*fn)(struct loop_timer *timer));
void loop_timer_set(struct loop_timer *timer, u64 due_ns);
void loop_timer_del(struct loop_timer *timer);

/* fn is called before each wait, after fibers and callbacks have run: batching. */
struct loop_idle {
	struct list link;
	void (*fn)(struct loop_idle *idle);
};
void loop_idle_add(struct loop *loop, struct loop_idle *idle, void (*fn)(struct loop_idle *idle));
void loop_idle_del(struct loop_idle *idle);
/* On the loop: there is work for a hook, which in this turn may have been called already:
 * all are called (again) before the wait. */
void loop_idle_again(struct loop *loop);

#endif
