/* Threads and mutexes.
 *
 * Lock order: control > device > irq > log.  No mutex is held across a call
 * that takes a fiber. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/base.h"
#include "base/error.h"

#include <pthread.h>

struct mutex {
	pthread_mutex_t m;
	u32 owner; /* [atomic] kernel thread id of the holder, 0: free */
};

void mutex_init(struct mutex *m);
void mutex_fini(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
bool mutex_held(const struct mutex *m); /* by the calling thread */
#define lock_assert(m) assert(mutex_held(m))

struct cond {
	pthread_cond_t c;
};
void cond_init(struct cond *c); /* waits on CLOCK_MONOTONIC */
void cond_fini(struct cond *c);
void cond_wait(struct cond *c, struct mutex *m);
/* False when deadline_ns (CLOCK_MONOTONIC) passed first. */
bool cond_wait_until(struct cond *c, struct mutex *m, u64 deadline_ns);
void cond_signal(struct cond *c); /* wakes one */
void cond_broadcast(struct cond *c);

/* Hold the mutex to the end of the enclosing block. */
#define LOCK_SCOPE(mtx)                                                                            \
	__attribute__((cleanup(lock_scope_end_), unused)) struct mutex *lock_scope_ =              \
		lock_scope_begin_(mtx)
static inline struct mutex *lock_scope_begin_(struct mutex *m)
{
	mutex_lock(m);
	return m;
}
static inline void lock_scope_end_(struct mutex **m)
{
	mutex_unlock(*m);
}

/* Starts fn(arg) on a thread of this name (cut to 15 characters); all signals
 * but SIGSEGV-like ones are blocked in it.  Join with pthread_join. */
int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg,
		 struct error *err);
void thread_be_nice(void); /* the calling thread comes after others that want to run */
u32 thread_id(void);	   /* kernel id of the calling thread, cached */
u64 thread_sleeps(void);   /* how often it has given its processor away to wait */

u64 now_ns(void); /* CLOCK_MONOTONIC */

#endif
