/* What fiber.c, loop.c, io.c, pool.c and the two backends share.
 *
 * All fields belong to the thread that runs the loop unless tagged [atomic] or
 * [const].  The loop decides when to wait; the backend waits, submits and
 * delivers completions.  */
#ifndef BASE_LOOP_INTERNAL_H
#define BASE_LOOP_INTERNAL_H

#include "base/io.h"
#include "base/loop.h"
#include "base/thread.h"

enum io_kind { IO_READV, IO_WRITEV, IO_DATASYNC, IO_FALLOCATE };

/* Jobs for a few threads; each loop has up to two such pools, for pool_call and
 * for file operations. */
struct pool_job {
	struct list link;
	void (*run)(struct pool_job *job); /* on a pool thread */
};
struct pool;
struct pool *pool_new(const char *name, unsigned max_threads);
void pool_free(struct pool *pool); /* no job may be left */
/* -EAGAIN when there is no thread and none can be started. */
int pool_submit(struct pool *pool, struct pool_job *job);

struct io_cached;

/* One file operation.  Whoever performs it (the backend, or io_cached.c for files
 * in the page cache) does one system call's worth and hands the result to
 * io_op_result(), which restarts it or ends it with finish(). */
struct io_op {
	struct list link; /* the backend's or the writer's queue, or the loop's free list */
	enum io_kind kind;
	int fd;
	int mode;		 /* IO_FALLOCATE */
	bool retried;		 /* got EAGAIN: the backend must take its slow path */
	const struct iovec *iov; /* of the next transfer: at most IOV_MAX entries */
	unsigned n;
	u64 offset;		 /* where the next transfer starts */
	u64 bytes;		 /* left to transfer, or the length for IO_FALLOCATE */
	const struct iovec *vec; /* all that is left, `skip` bytes of its first entry are done */
	unsigned n_vec;
	u64 skip;
	struct iovec tail; /* the rest of that entry */
	u64 done_bytes;
	s64 result;
	struct loop *loop;
	void (*finish)(struct io_op *op);
	void *owner; /* struct fiber or struct io_group */
	bool finished;
	struct io_cached *cached; /* NULL: the backend performs it */
	struct pool_job job;	  /* where a thread performs it: that, ... */
	struct loop_call back;	  /* ... and the way back */
	s64 call_result;
};
void io_op_result(struct io_op *op, s64 result);

/* --- io_pool.c: operations performed by threads --- */
/* The system call, on this thread. */
s64 io_op_call(const struct io_op *op);
/* Have a thread call it; the result comes to io_op_result on the loop thread. */
void io_op_start_on_pool(struct loop *loop, struct io_op *op);
/* From a thread: its result. */
void io_op_post(struct io_op *op, s64 result);
struct pool *io_pool(struct loop *loop);

/* --- io_cached.c --- */
void io_cached_start(struct io_op *op);

struct loop_ops {
	int (*open)(struct loop *loop, struct error *err);
	void (*close)(struct loop *loop);
	/* The thread that will run the loop for life is the calling one. */
	void (*attach)(struct loop *loop);
	/* Submit, wait at most timeout_ns (-1: no limit), deliver. */
	void (*wait)(struct loop *loop, s64 timeout_ns);
	void (*io_start)(struct loop *loop, struct io_op *op);
	void (*watch_add)(struct loop *loop, struct loop_watch *watch);
	void (*watch_set)(struct loop *loop, struct loop_watch *watch); /* events changed */
	void (*watch_del)(struct loop *loop, struct loop_watch *watch);
};
extern const struct loop_ops loop_uring_ops;
extern const struct loop_ops loop_threads_ops;

/* The fibers of one loop. */
struct fiber_sched {
	struct list ready;
	struct list pool; /* finished fibers, for reuse */
	unsigned pooled, alive;
	void *sp; /* the loop's own stack while a fiber runs */
	/* For the sanitizers: the loop's own stack. */
	void *fake_stack, *tsan_fiber;
	const void *stack_bottom;
	size_t stack_bytes;
};
void fiber_sched_init(struct fiber_sched *s);
void fiber_sched_fini(struct fiber_sched *s);
/* Run what is ready until nothing is, or for a bounded number of rounds. */
void fiber_sched_run(struct fiber_sched *s);

struct loop {
	char name[16];		    /* [const] */
	enum loop_backend kind;	    /* [const] */
	const struct loop_ops *ops; /* [const] */
	void *backend;		    /* [const] */
	struct fiber_sched sched;
	struct list watches;
	struct list idles;
	bool idle_again;	    /* loop_idle_again since the hooks began */
	struct loop_timer **timers; /* binary heap by due_ns */
	u32 n_timers, timers_room;
	struct list free_ops; /* of io groups */
	unsigned n_free_ops;
	u64 changes;		/* loop_note_change */
	struct pool *pool;	/* of pool_call, made at first use */
	struct pool *file_pool; /* of io_pool, the same */
	u32 inline_left;	/* file operations that this turn may do on the spot */

	struct loop_call *posted; /* [atomic] newest first; pushed by any thread */
	u32 sleeping;		  /* [atomic] the loop may wait: a push must ring event_fd */
	u32 stop;		  /* [atomic] */
	u32 owner;		  /* [atomic] thread that runs it, 0: none has yet */
	int event_fd;		  /* [const] */
	pthread_t thread;	  /* [const] of loop_start_thread */
	bool has_thread;
};

#endif
