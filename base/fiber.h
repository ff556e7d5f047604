/* Stackful fibers, each pinned for life to one loop thread.
 *
 * Rules (style.md C2): a function that may suspend takes `struct fiber *f`
 * first; nobody stores the pointer beyond the call, save the wait queues here;
 * there is no "current fiber".  All calls on the fiber's loop thread.
 * Stacks are 64 KiB with a guard page, pooled per loop. */
#ifndef BASE_FIBER_H
#define BASE_FIBER_H

#include "base/base.h"
#include "base/list.h"

struct fiber;
struct loop;

typedef void fiber_fn(struct fiber *f, void *arg);

/* Create a fiber that runs fn(f, arg) from the loop's next turn on.  -ENOMEM. */
int fiber_spawn(struct loop *loop, fiber_fn *fn, void *arg);

struct loop *fiber_loop(struct fiber *f);

/* Bytes of stack that the running fiber has left; recursion over what comes from
 * images or users asks, and goes on with fiber_call when it gets short. */
size_t fiber_stack_left(const struct fiber *f);
/* Run fn(arg) on a fresh stack and suspend until it returns; its result, or
 * -ENOMEM. */
int fiber_call(struct fiber *f, int (*fn)(struct fiber *f, void *arg), void *arg);

/* Suspend until fiber_wake; wakes do not count up, so re-check the condition. */
void fiber_suspend(struct fiber *f);
/* Make a suspended fiber runnable (loop thread only; not from other threads:
 * those use loop_post). */
void fiber_wake(struct fiber *f);
/* Let everything else that is runnable go first. */
void fiber_yield(struct fiber *f);
/* Suspend for at least this long. */
void fiber_sleep_ns(struct fiber *f, u64 ns);

/* A queue of suspended fibers. */
struct fiber_queue {
	struct list waiters; /* [loop] */
};
void fiber_queue_init(struct fiber_queue *q);
void fiber_queue_wait(struct fiber *f, struct fiber_queue *q);
bool fiber_queue_wake_one(struct fiber_queue *q); /* false: nobody waits */
void fiber_queue_wake_all(struct fiber_queue *q);

/* A mutex whose holder may suspend.  First come, first served. */
struct fiber_mutex {
	struct fiber *holder; /* [loop] */
	struct fiber_queue queue;
};
void fiber_mutex_init(struct fiber_mutex *m);
void fiber_mutex_lock(struct fiber *f, struct fiber_mutex *m);
void fiber_mutex_unlock(struct fiber *f, struct fiber_mutex *m);

/* Locks on byte ranges: readers share, a writer excludes what overlaps.  First
 * come, first served among overlapping ranges, so writers do not starve. */
struct range_locks {
	struct list ranges; /* [loop] held and waited for, oldest first */
};
struct range_lock {
	struct list link;
	u64 start, end; /* end exclusive */
	bool exclusive, granted;
	struct fiber *waiter;
};
void range_locks_init(struct range_locks *locks);
/* `lock` is the caller's storage, until range_unlock. */
void range_lock(struct fiber *f, struct range_locks *locks, struct range_lock *lock, u64 start,
		u64 bytes, bool exclusive);
void range_unlock(struct range_locks *locks, struct range_lock *lock);

/* Asserts that the block between does not suspend: NOSUSPEND(f) { ... } */
u64 fiber_switches(const struct fiber *f);
#define NOSUSPEND(f)                                                                               \
	for (u64 ns_once_ = 1, ns_count_ = fiber_switches(f); ns_once_;                            \
	     ns_once_ = 0, assert(fiber_switches(f) == ns_count_))

#endif
