/* The event loop's backend-independent half: turns, posted calls, timers, idle
 * hooks, life cycle; see loop.h and loop_internal.h.
 *
 * A turn: posted calls, ready fibers, due timers, idle hooks; then one wait in
 * the backend, which submits everything queued meanwhile at once.
 *
 * Cross-thread entry is one lock-free stack (`posted`).  The pusher rings
 * event_fd only when `sleeping` is set; the loop sets it, then looks at `posted`
 * again, so one of the two always sees the other (both sequentially consistent). */
#define _GNU_SOURCE
#include "base/loop.h"

#include "base/log.h"
#include "base/loop_internal.h"

#include <errno.h>
#include <poll.h>
#include <strings.h>
#include <sys/eventfd.h>

#define INLINE_OPS 64 /* of one turn, before those who wait for something else go first */

/* The loop's thread has been started and will attach: nobody else may touch it. */
#define OWNER_STARTING UINT32_MAX

/* --- posted calls ---------------------------------------------------------- */

static void ring_bell(struct loop *loop)
{
	u64 one = 1;

	if (__atomic_exchange_n(&loop->sleeping, 0, __ATOMIC_SEQ_CST))
		sys_write(loop->event_fd, &one, sizeof(one));
}

void loop_post(struct loop *loop, struct loop_call *call)
{
	struct loop_call *head = __atomic_load_n(&loop->posted, __ATOMIC_RELAXED);

	/* Pairs with the exchange in loop_run_posted. */
	do
		call->next = head;
	while (!__atomic_compare_exchange_n(&loop->posted, &head, call, true, __ATOMIC_SEQ_CST,
					    __ATOMIC_RELAXED));
	ring_bell(loop);
}

void loop_run_posted(struct loop *loop)
{
	struct loop_call *newest, *call, *oldest = NULL;

	if (!__atomic_load_n(&loop->posted, __ATOMIC_RELAXED))
		return;
	newest = __atomic_exchange_n(&loop->posted, NULL, __ATOMIC_SEQ_CST);
	while (newest) {
		call = newest;
		newest = call->next;
		call->next = oldest;
		oldest = call;
	}
	while (oldest) {
		call = oldest;
		oldest = call->next; /* fn may free or post it again */
		call->fn(call);
	}
}

struct waited_call {
	struct loop_call call;
	void (*fn)(void *arg);
	void *arg;
	struct mutex lock;
	struct cond cond;
	bool done; /* [lock] */
};

static void waited_call_run(struct loop_call *call)
{
	struct waited_call *w = container_of(call, struct waited_call, call);

	w->fn(w->arg);
	mutex_lock(&w->lock);
	w->done = true;
	cond_broadcast(&w->cond);
	mutex_unlock(&w->lock);
}

void loop_call_wait(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct waited_call w = {.call.fn = waited_call_run, .fn = fn, .arg = arg};

	assert(__atomic_load_n(&loop->owner, __ATOMIC_ACQUIRE) != thread_id());
	mutex_init(&w.lock);
	cond_init(&w.cond);
	loop_post(loop, &w.call);
	mutex_lock(&w.lock);
	while (!w.done)
		cond_wait(&w.cond, &w.lock);
	mutex_unlock(&w.lock);
	cond_fini(&w.cond);
	mutex_fini(&w.lock);
}

/* --- timers: a binary heap, the earliest at index 0 ------------------------ */

static void timer_place(struct loop *loop, struct loop_timer *timer, u32 i)
{
	loop->timers[i] = timer;
	timer->slot = i + 1;
}

static void timer_up(struct loop *loop, struct loop_timer *timer, u32 i)
{
	while (i && loop->timers[(i - 1) / 2]->due_ns > timer->due_ns) {
		timer_place(loop, loop->timers[(i - 1) / 2], i);
		i = (i - 1) / 2;
	}
	timer_place(loop, timer, i);
}

static void timer_down(struct loop *loop, struct loop_timer *timer, u32 i)
{
	for (u32 child; (child = 2 * i + 1) < loop->n_timers; i = child) {
		if (child + 1 < loop->n_timers &&
		    loop->timers[child + 1]->due_ns < loop->timers[child]->due_ns)
			child++;
		if (loop->timers[child]->due_ns >= timer->due_ns)
			break;
		timer_place(loop, loop->timers[child], i);
	}
	timer_place(loop, timer, i);
}

void loop_timer_init(struct loop *loop, struct loop_timer *timer,
		     void (*fn)(struct loop_timer *timer))
{
	*timer = (struct loop_timer){.loop = loop, .fn = fn};
}

void loop_timer_set(struct loop_timer *timer, u64 due_ns)
{
	struct loop *loop = timer->loop;

	assert(loop_is_current(loop));
	loop_timer_del(timer);
	if (loop->n_timers == loop->timers_room) {
		loop->timers_room = MAX(2 * loop->timers_room, 16u);
		loop->timers = xrealloc(loop->timers, loop->timers_room * sizeof(timer));
	}
	timer->due_ns = due_ns;
	timer_up(loop, timer, loop->n_timers++);
}

void loop_timer_del(struct loop_timer *timer)
{
	struct loop *loop = timer->loop;
	struct loop_timer *last;
	u32 i = timer->slot - 1;

	if (!timer->slot)
		return;
	assert(loop_is_current(loop) && loop->timers[i] == timer);
	timer->slot = 0;
	last = loop->timers[--loop->n_timers];
	if (last == timer)
		return;
	if (i && loop->timers[(i - 1) / 2]->due_ns > last->due_ns)
		timer_up(loop, last, i);
	else
		timer_down(loop, last, i);
}

static void run_timers(struct loop *loop)
{
	u64 now;

	if (!loop->n_timers)
		return;
	/* A timer that fn arms again for the past runs in the next turn. */
	now = now_ns();
	while (loop->n_timers && loop->timers[0]->due_ns <= now) {
		struct loop_timer *timer = loop->timers[0];

		loop_timer_del(timer);
		timer->fn(timer);
	}
}

/* --- watches and idle hooks ------------------------------------------------ */

void loop_watch_add(struct loop *loop, struct loop_watch *watch, int fd, u32 events,
		    void (*fn)(struct loop_watch *watch, u32 revents))
{
	assert(loop_is_current(loop));
	*watch = (struct loop_watch){.loop = loop, .fd = fd, .events = events, .fn = fn};
	list_append(&loop->watches, &watch->link);
	loop->ops->watch_add(loop, watch);
}

void loop_watch_bell(struct loop *loop, struct loop_watch *watch, int fd,
		     void (*fn)(struct loop_watch *watch, u32 revents))
{
	assert(loop_is_current(loop));
	*watch = (struct loop_watch){
		.loop = loop, .fd = fd, .events = POLLIN, .fn = fn, .bell = true};
	list_append(&loop->watches, &watch->link);
	loop->ops->watch_add(loop, watch);
}

void loop_watch_set(struct loop_watch *watch, u32 events)
{
	assert(loop_is_current(watch->loop) && !watch->bell);
	if (watch->events == events)
		return;
	watch->events = events;
	watch->loop->ops->watch_set(watch->loop, watch);
}

void loop_watch_del(struct loop_watch *watch)
{
	assert(loop_is_current(watch->loop));
	watch->loop->ops->watch_del(watch->loop, watch);
	list_del(&watch->link);
}

void loop_idle_add(struct loop *loop, struct loop_idle *idle, void (*fn)(struct loop_idle *idle))
{
	assert(loop_is_current(loop));
	idle->fn = fn;
	list_append(&loop->idles, &idle->link);
}

void loop_idle_del(struct loop_idle *idle)
{
	list_del(&idle->link);
}

void loop_idle_again(struct loop *loop)
{
	loop->idle_again = true;
}

/* --- turns ----------------------------------------------------------------- */

static void loop_work(struct loop *loop)
{
	loop->inline_left = INLINE_OPS;
	loop_run_posted(loop);
	fiber_sched_run(&loop->sched);
	run_timers(loop);
	fiber_sched_run(&loop->sched);
	do {
		loop->idle_again = false;
		list_for_each_safe (pos, &loop->idles) {
			struct loop_idle *idle = list_entry(pos, struct loop_idle, link);

			idle->fn(idle);
		}
	} while (loop->idle_again);
}

static s64 loop_timeout_ns(struct loop *loop)
{
	u64 now;

	if (!list_empty(&loop->sched.ready))
		return 0;
	if (!loop->n_timers)
		return -1;
	now = now_ns();
	return loop->timers[0]->due_ns <= now ? 0 : (s64)(loop->timers[0]->due_ns - now);
}

static void loop_wait(struct loop *loop)
{
	s64 timeout_ns = loop_timeout_ns(loop);

	if (timeout_ns) {
		__atomic_store_n(&loop->sleeping, 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&loop->posted, __ATOMIC_SEQ_CST) ||
		    __atomic_load_n(&loop->stop, __ATOMIC_SEQ_CST))
			timeout_ns = 0;
	}
	loop->ops->wait(loop, timeout_ns);
	__atomic_store_n(&loop->sleeping, 0, __ATOMIC_RELAXED);
}

static void loop_attach(struct loop *loop)
{
	u32 owner = __atomic_load_n(&loop->owner, __ATOMIC_RELAXED);

	if (owner == thread_id())
		return;
	assert(!owner || owner == OWNER_STARTING);
	__atomic_store_n(&loop->owner, thread_id(), __ATOMIC_RELEASE);
	loop->ops->attach(loop);
}

void loop_run(struct loop *loop)
{
	loop_attach(loop);
	while (!__atomic_exchange_n(&loop->stop, 0, __ATOMIC_SEQ_CST)) {
		loop_work(loop);
		loop_wait(loop);
	}
}

void loop_stop(struct loop *loop)
{
	__atomic_store_n(&loop->stop, 1, __ATOMIC_SEQ_CST);
	ring_bell(loop);
}

struct main_fiber {
	fiber_fn *fn;
	void *arg;
	bool done;
};

static void run_main_fiber(struct fiber *f, void *arg)
{
	struct main_fiber *m = arg;

	m->fn(f, m->arg);
	m->done = true;
}

int loop_run_fiber(struct loop *loop, fiber_fn *fn, void *arg)
{
	struct main_fiber m = {.fn = fn, .arg = arg};
	int ret;

	loop_attach(loop);
	ret = fiber_spawn(loop, run_main_fiber, &m);
	if (ret < 0)
		return ret;
	for (;;) {
		loop_work(loop);
		if (m.done)
			return 0;
		loop_wait(loop);
	}
}

/* --- life cycle ------------------------------------------------------------ */

static int backend_wanted(enum loop_backend *wanted, struct error *err)
{
	const char *env = getenv("COWVM_IO");

	if (*wanted != LOOP_AUTO || !env || !*env)
		return 0;
	if (!strcasecmp(env, "uring"))
		*wanted = LOOP_URING;
	else if (!strcasecmp(env, "threads"))
		*wanted = LOOP_THREADS;
	else
		return err_set(err, -EINVAL, "COWVM_IO is '%s', expected uring or threads", env);
	return 0;
}

static int backend_open(struct loop *loop, enum loop_backend wanted, struct error *err)
{
	int ret;

	if (wanted != LOOP_THREADS) {
		loop->kind = LOOP_URING;
		loop->ops = &loop_uring_ops;
		ret = loop->ops->open(loop, err);
		if (ret == 0 || wanted == LOOP_URING)
			return ret;
		TRACE(TRACE_LOOP, "%s: %s: using threads", loop->name, err->text);
	}
	loop->kind = LOOP_THREADS;
	loop->ops = &loop_threads_ops;
	return loop->ops->open(loop, err);
}

int loop_new(struct loop **out, const char *name, enum loop_backend backend, struct error *err)
{
	struct loop *loop;
	int ret;

	ret = backend_wanted(&backend, err);
	if (ret < 0)
		return ret;
	loop = xnew(struct loop);
	strncpy(loop->name, name, sizeof(loop->name) - 1);
	fiber_sched_init(&loop->sched);
	list_init(&loop->watches);
	list_init(&loop->idles);
	list_init(&loop->free_ops);
	loop->changes = 1;
	ret = eventfd(0, EFD_CLOEXEC);
	if (ret < 0) {
		ret = err_set_errno(err, -errno, "%s: cannot create an eventfd", name);
		goto out_free;
	}
	loop->event_fd = ret;
	ret = backend_open(loop, backend, err);
	if (ret < 0)
		goto out_close;
	*out = loop;
	return 0;
out_close:
	sys_close(loop->event_fd);
out_free:
	free(loop);
	return ret;
}

void loop_free(struct loop *loop)
{
	struct list *item;

	if (!loop)
		return;
	assert(!loop->has_thread && list_empty(&loop->watches) && !loop->n_timers);
	assert(!__atomic_load_n(&loop->posted, __ATOMIC_ACQUIRE));
	fiber_sched_fini(&loop->sched);
	pool_free(loop->pool);
	pool_free(loop->file_pool);
	loop->ops->close(loop);
	while ((item = list_pop(&loop->free_ops)))
		free(list_entry(item, struct io_op, link));
	sys_close(loop->event_fd);
	free(loop->timers);
	free(loop);
}

enum loop_backend loop_backend(const struct loop *loop)
{
	return loop->kind;
}

bool loop_is_current(const struct loop *loop)
{
	u32 owner = __atomic_load_n(&loop->owner, __ATOMIC_RELAXED);

	return !owner || owner == thread_id();
}

u64 loop_changes(const struct loop *loop)
{
	return loop->changes;
}

void loop_note_change(struct loop *loop)
{
	loop->changes++;
}

static void *loop_thread(void *arg)
{
	loop_run(arg);
	return NULL;
}

int loop_start_thread(struct loop *loop, struct error *err)
{
	int ret;

	assert(!loop->has_thread && !__atomic_load_n(&loop->owner, __ATOMIC_RELAXED));
	__atomic_store_n(&loop->owner, OWNER_STARTING, __ATOMIC_RELAXED);
	ret = thread_start(&loop->thread, loop->name, loop_thread, loop, err);
	loop->has_thread = ret == 0;
	if (ret < 0)
		__atomic_store_n(&loop->owner, 0, __ATOMIC_RELAXED);
	return ret;
}

void loop_join(struct loop *loop)
{
	if (!loop->has_thread)
		return;
	loop_stop(loop);
	pthread_join(loop->thread, NULL);
	loop->has_thread = false;
	/* Whoever joined may take down what is left; nothing runs it again. */
	__atomic_store_n(&loop->owner, 0, __ATOMIC_RELAXED);
}
