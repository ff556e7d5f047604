/* Threads and mutexes; see thread.h. */
#define _GNU_SOURCE
#include "base/thread.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

u32 thread_id(void)
{
	static __thread u32 id;

	if (unlikely(!id))
		id = (u32)gettid();
	return id;
}

void thread_be_nice(void)
{
	/* On Linux this is of a thread.  Not by much: it is to come after our own others,
	 * and to get its work done on a host that has more to do. */
	int now = getpriority(PRIO_PROCESS, thread_id());

	(void)setpriority(PRIO_PROCESS, thread_id(), MIN(now + 5, 19));
}

void mutex_init(struct mutex *m)
{
	pthread_mutex_init(&m->m, NULL);
	m->owner = 0;
}

void mutex_fini(struct mutex *m)
{
	assert(!m->owner);
	pthread_mutex_destroy(&m->m);
}

void mutex_lock(struct mutex *m)
{
	int ret;

	assert(!mutex_held(m));
	ret = pthread_mutex_lock(&m->m);
	assert(!ret);
	__atomic_store_n(&m->owner, thread_id(), __ATOMIC_RELAXED);
}

void mutex_unlock(struct mutex *m)
{
	int ret;

	lock_assert(m);
	__atomic_store_n(&m->owner, 0, __ATOMIC_RELAXED);
	ret = pthread_mutex_unlock(&m->m);
	assert(!ret);
}

bool mutex_held(const struct mutex *m)
{
	/* Only the holder stores its own id: relaxed is enough. */
	return __atomic_load_n(&m->owner, __ATOMIC_RELAXED) == thread_id();
}

void cond_init(struct cond *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->c, &attr);
	pthread_condattr_destroy(&attr);
}

void cond_fini(struct cond *c)
{
	pthread_cond_destroy(&c->c);
}

void cond_wait(struct cond *c, struct mutex *m)
{
	lock_assert(m);
	__atomic_store_n(&m->owner, 0, __ATOMIC_RELAXED);
	pthread_cond_wait(&c->c, &m->m);
	__atomic_store_n(&m->owner, thread_id(), __ATOMIC_RELAXED);
}

bool cond_wait_until(struct cond *c, struct mutex *m, u64 deadline_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(deadline_ns / NS_PER_SEC),
			      .tv_nsec = (long)(deadline_ns % NS_PER_SEC)};
	int ret;

	lock_assert(m);
	__atomic_store_n(&m->owner, 0, __ATOMIC_RELAXED);
	ret = pthread_cond_timedwait(&c->c, &m->m, &ts);
	__atomic_store_n(&m->owner, thread_id(), __ATOMIC_RELAXED);
	return ret != ETIMEDOUT;
}

void cond_signal(struct cond *c)
{
	pthread_cond_signal(&c->c);
}

void cond_broadcast(struct cond *c)
{
	pthread_cond_broadcast(&c->c);
}

int thread_start(pthread_t *out, const char *name, void *(*fn)(void *), void *arg,
		 struct error *err)
{
	sigset_t all, old;
	char cut[16] = "";
	int ret;

	/* The new thread inherits the mask: signals go to the main thread only. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(out, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return err_set_errno(err, -ret, "cannot start thread '%s'", name);
	strncpy(cut, name, sizeof(cut) - 1);
	pthread_setname_np(*out, cut);
	return 0;
}

u64 thread_sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) ? 0 : (u64)usage.ru_nvcsw;
}

u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * NS_PER_SEC + (u64)ts.tv_nsec;
}
