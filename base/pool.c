/* A few threads that run jobs: for pool_call, and for the file operations of the
 * thread backend; see pool.h and loop_internal.h.
 *
 * Threads are started when a job finds nobody idle and end after IDLE_NS without
 * one.  A thread that ended leaves its slot for joining, at reuse or pool_free. */
#define _GNU_SOURCE
#include "base/pool.h"

#include "base/loop_internal.h"

#include <errno.h>
#include <unistd.h>

#define MAX_THREADS 16
#define IDLE_NS	    (10 * NS_PER_SEC)

enum slot_state { SLOT_FREE, SLOT_RUNNING, SLOT_ENDED };

struct pool_slot {
	struct pool *pool;     /* [const] */
	enum slot_state state; /* [lock] */
	pthread_t thread;      /* [lock] valid unless SLOT_FREE */
};

struct pool {
	char name[16];	      /* [const] */
	unsigned max_threads; /* [const] */
	struct mutex lock;
	struct cond work;
	struct list jobs;   /* [lock] oldest first */
	unsigned n_jobs;    /* [lock] */
	unsigned n_idle;    /* [lock] threads waiting for a job */
	unsigned n_threads; /* [lock] */
	bool stop;	    /* [lock] */
	struct pool_slot slots[MAX_THREADS];
};

struct pool *pool_new(const char *name, unsigned max_threads)
{
	struct pool *p = xnew(struct pool);

	assert(max_threads && max_threads <= MAX_THREADS);
	strncpy(p->name, name, sizeof(p->name) - 1);
	p->max_threads = max_threads;
	mutex_init(&p->lock);
	cond_init(&p->work);
	list_init(&p->jobs);
	for (unsigned i = 0; i < MAX_THREADS; i++)
		p->slots[i].pool = p;
	return p;
}

void pool_free(struct pool *p)
{
	bool used;

	if (!p)
		return;
	mutex_lock(&p->lock);
	assert(list_empty(&p->jobs));
	p->stop = true;
	cond_broadcast(&p->work);
	mutex_unlock(&p->lock);
	for (unsigned i = 0; i < MAX_THREADS; i++) {
		mutex_lock(&p->lock);
		used = p->slots[i].state != SLOT_FREE;
		mutex_unlock(&p->lock);
		if (used) /* nobody starts a thread any more */
			pthread_join(p->slots[i].thread, NULL);
	}
	cond_fini(&p->work);
	mutex_fini(&p->lock);
	free(p);
}

/* The next job, or NULL when the thread is to end. */
static struct pool_job *next_job(struct pool *p)
{
	bool in_time = true;

	while (list_empty(&p->jobs)) {
		if (p->stop || !in_time)
			return NULL;
		p->n_idle++;
		in_time = cond_wait_until(&p->work, &p->lock, now_ns() + (u64)IDLE_NS);
		p->n_idle--;
	}
	p->n_jobs--;
	return list_entry(list_pop(&p->jobs), struct pool_job, link);
}

static void *pool_thread(void *arg)
{
	struct pool_slot *slot = arg;
	struct pool *p = slot->pool;
	struct pool_job *job;

	mutex_lock(&p->lock);
	while ((job = next_job(p))) {
		mutex_unlock(&p->lock);
		job->run(job);
		mutex_lock(&p->lock);
	}
	p->n_threads--;
	slot->state = SLOT_ENDED;
	mutex_unlock(&p->lock);
	return NULL;
}

static int start_thread(struct pool *p)
{
	struct pool_slot *slot = p->slots;
	struct error err;
	int ret;

	lock_assert(&p->lock);
	while (slot->state == SLOT_RUNNING)
		slot++;
	assert(slot < p->slots + MAX_THREADS);
	if (slot->state == SLOT_ENDED)
		pthread_join(slot->thread, NULL); /* past its last unlock, or about to be */
	slot->state = SLOT_FREE;
	ret = thread_start(&slot->thread, p->name, pool_thread, slot, &err);
	if (ret < 0)
		return ret;
	slot->state = SLOT_RUNNING;
	p->n_threads++;
	return 0;
}

int pool_submit(struct pool *p, struct pool_job *job)
{
	LOCK_SCOPE(&p->lock);

	/* A job may wait for a busy thread, but not for one that cannot be had. */
	if (p->n_jobs >= p->n_idle && p->n_threads < p->max_threads && start_thread(p) < 0 &&
	    !p->n_threads)
		return -EAGAIN;
	list_append(&p->jobs, &job->link);
	p->n_jobs++;
	cond_signal(&p->work);
	return 0;
}

/* --- pool_call ------------------------------------------------------------- */

struct call_job {
	struct pool_job job;
	struct loop_call back;
	struct loop *loop;
	struct fiber *f;
	int (*fn)(void *arg);
	void *arg;
	int result;
	bool done; /* loop thread */
};

static void call_run(struct pool_job *job)
{
	struct call_job *c = container_of(job, struct call_job, job);

	c->result = c->fn(c->arg);
	loop_post(c->loop, &c->back);
}

static void call_back(struct loop_call *call)
{
	struct call_job *c = container_of(call, struct call_job, back);

	c->done = true;
	fiber_wake(c->f);
}

int pool_call(struct fiber *f, int (*fn)(void *arg), void *arg)
{
	struct loop *loop = fiber_loop(f);
	struct call_job c = {.job.run = call_run, .back.fn = call_back, .loop = loop};
	long cpus;

	if (!loop->pool) {
		cpus = sysconf(_SC_NPROCESSORS_ONLN);
		loop->pool = pool_new("pool", (unsigned)MIN(MAX(cpus, 2l), (long)MAX_THREADS));
	}
	c.f = f;
	c.fn = fn;
	c.arg = arg;
	if (pool_submit(loop->pool, &c.job) < 0)
		return fn(arg);
	while (!c.done)
		fiber_suspend(f);
	return c.result;
}
