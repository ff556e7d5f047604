/* Fibers: creation, switching, wait queues, mutexes, range locks; see fiber.h.
 *
 * A fiber is one mapping: a guard page, the stack, and struct fiber at its top.
 * It runs only between fiber_sched_run's switch to it and its own switch back;
 * every switch goes through the loop's stack, so "ready" is the only queue that
 * decides who runs.  A fiber is on at most one list: ready, pool, or the wait
 * queue it sleeps on.
 *
 * Thread: the loop's.  The sanitizers are told of every switch. */
#define _GNU_SOURCE
#include "base/fiber.h"

#include "base/loop_internal.h"

#include <errno.h>
#include <sys/mman.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define FIBER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__)
#define FIBER_TSAN 1
#endif

#if defined(FIBER_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(FIBER_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

#if defined(FIBER_ASAN) || defined(FIBER_TSAN)
#define STACK_BYTES (256 * KiB) /* instrumented frames are several times as large */
#else
#define STACK_BYTES (64 * KiB)
#endif
#define GUARD_BYTES (4 * KiB)
#define POOL_MAX    64 /* finished fibers kept; one in use touches about two pages */
#define RUN_ROUNDS  16

enum fiber_state { FIBER_READY, FIBER_RUNNING, FIBER_SUSPENDED, FIBER_DONE };

struct fiber {
	struct loop *loop;
	struct list link;
	enum fiber_state state;
	void *sp; /* while it does not run */
	u64 switches;
	fiber_fn *fn;
	void *arg;
	void *mapping;
	void *fake_stack; /* ASan */
	void *tsan_fiber;
};

/* What fiber_switch_stack expects at the stack pointer it switches to. */
struct switch_frame {
	u32 mxcsr;
	u32 x87_control;
	u64 r15, r14, r13, r12, rbx, rbp;
	void (*rip)(void);
};

void fiber_switch_stack(void **save_sp, void *to_sp);
void fiber_first_frame(void);
void fiber_main(struct fiber *f) __attribute__((noreturn));

/* --- switching ------------------------------------------------------------- */

static void switch_to_fiber(struct fiber_sched *s, struct fiber *f)
{
#if defined(FIBER_TSAN)
	s->tsan_fiber = __tsan_get_current_fiber();
	__tsan_switch_to_fiber(f->tsan_fiber, 0);
#endif
#if defined(FIBER_ASAN)
	__sanitizer_start_switch_fiber(&s->fake_stack, (char *)f->mapping + GUARD_BYTES,
				       STACK_BYTES);
#endif
	fiber_switch_stack(&s->sp, f->sp);
#if defined(FIBER_ASAN)
	__sanitizer_finish_switch_fiber(s->fake_stack, NULL, NULL);
#endif
}

/* Returns when the fiber is switched to again; never for a finished one. */
static void switch_to_loop(struct fiber *f)
{
	struct fiber_sched *s = &f->loop->sched;

	f->switches++;
#if defined(FIBER_TSAN)
	__tsan_switch_to_fiber(s->tsan_fiber, 0);
#endif
#if defined(FIBER_ASAN)
	/* NULL releases the fake stack of a fiber that will not come back. */
	__sanitizer_start_switch_fiber(f->state == FIBER_DONE ? NULL : &f->fake_stack,
				       s->stack_bottom, s->stack_bytes);
#endif
	fiber_switch_stack(&f->sp, s->sp);
#if defined(FIBER_ASAN)
	__sanitizer_finish_switch_fiber(f->fake_stack, &s->stack_bottom, &s->stack_bytes);
#endif
}

void fiber_main(struct fiber *f)
{
#if defined(FIBER_ASAN)
	__sanitizer_finish_switch_fiber(NULL, &f->loop->sched.stack_bottom,
					&f->loop->sched.stack_bytes);
#endif
	f->fn(f, f->arg);
	f->state = FIBER_DONE;
	switch_to_loop(f);
	abort();
}

/* --- creation -------------------------------------------------------------- */

static struct fiber *fiber_map(void)
{
	size_t bytes = GUARD_BYTES + STACK_BYTES;
	char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
	struct fiber *f;

	if (p == MAP_FAILED)
		return NULL;
	if (mprotect(p, GUARD_BYTES, PROT_NONE)) {
		munmap(p, bytes);
		return NULL;
	}
	f = (struct fiber *)(p + bytes - align_up(sizeof(*f), 64));
	f->mapping = p;
	list_init(&f->link);
#if defined(FIBER_TSAN)
	f->tsan_fiber = __tsan_create_fiber(0);
#endif
	return f;
}

static void fiber_unmap(struct fiber *f)
{
#if defined(FIBER_TSAN)
	__tsan_destroy_fiber(f->tsan_fiber);
#endif
	munmap(f->mapping, GUARD_BYTES + STACK_BYTES);
}

/* Lay out the first frame so that the switch "returns" into fiber_first_frame,
 * with the stack 16-byte aligned as at any call. */
static void fiber_prepare(struct fiber *f)
{
	struct switch_frame *frame = (struct switch_frame *)f - 1;
	u32 mxcsr;
	u16 x87;

	assert(is_aligned((uintptr_t)f, 64));
	memset(frame, 0, sizeof(*frame));
	__asm__("stmxcsr %0" : "=m"(mxcsr));
	__asm__("fnstcw %0" : "=m"(x87));
	frame->mxcsr = mxcsr;
	frame->x87_control = x87;
	frame->r12 = (u64)(uintptr_t)f;
	frame->rip = fiber_first_frame;
	f->sp = frame;
}

int fiber_spawn(struct loop *loop, fiber_fn *fn, void *arg)
{
	struct fiber_sched *s = &loop->sched;
	struct list *item;
	struct fiber *f;

	assert(loop_is_current(loop));
	item = list_pop(&s->pool);
	if (item) {
		f = list_entry(item, struct fiber, link);
		s->pooled--;
	} else {
		f = fiber_map();
		if (!f)
			return -ENOMEM;
	}
	f->loop = loop;
	f->fn = fn;
	f->arg = arg;
	f->fake_stack = NULL;
	f->state = FIBER_READY;
	fiber_prepare(f);
	s->alive++;
	list_append(&s->ready, &f->link);
	return 0;
}

static void fiber_retire(struct fiber_sched *s, struct fiber *f)
{
	s->alive--;
#if defined(FIBER_ASAN)
	/* The last frames never returned, so their red zones are still marked. */
	__asan_unpoison_memory_region((char *)f->mapping + GUARD_BYTES, STACK_BYTES);
#endif
	if (s->pooled >= POOL_MAX) {
		fiber_unmap(f);
		return;
	}
	s->pooled++;
	list_push(&s->pool, &f->link); /* warmest stack first */
}

/* --- the loop's side ------------------------------------------------------- */

void fiber_sched_init(struct fiber_sched *s)
{
	list_init(&s->ready);
	list_init(&s->pool);
}

void fiber_sched_fini(struct fiber_sched *s)
{
	struct list *item;

	assert(!s->alive);
	while ((item = list_pop(&s->pool)))
		fiber_unmap(list_entry(item, struct fiber, link));
}

static void run_one(struct fiber_sched *s, struct fiber *f)
{
	assert(f->state == FIBER_READY);
	f->state = FIBER_RUNNING;
	switch_to_fiber(s, f);
	assert(f->state != FIBER_RUNNING);
	if (f->state == FIBER_DONE)
		fiber_retire(s, f);
}

void fiber_sched_run(struct fiber_sched *s)
{
	struct list round = LIST_INIT(round), *item;

	for (unsigned i = 0; i < RUN_ROUNDS && !list_empty(&s->ready); i++) {
		list_splice(&round, &s->ready);
		while ((item = list_pop(&round)))
			run_one(s, list_entry(item, struct fiber, link));
	}
}

/* --- suspending and waking ------------------------------------------------- */

struct loop *fiber_loop(struct fiber *f)
{
	return f->loop;
}

u64 fiber_switches(const struct fiber *f)
{
	return f->switches;
}

void fiber_suspend(struct fiber *f)
{
	assert(f->state == FIBER_RUNNING);
	f->state = FIBER_SUSPENDED;
	switch_to_loop(f);
	assert(f->state == FIBER_RUNNING);
}

void fiber_wake(struct fiber *f)
{
	assert(loop_is_current(f->loop));
	if (f->state != FIBER_SUSPENDED)
		return;
	f->state = FIBER_READY;
	list_del(&f->link); /* off the queue it waits on, if any */
	list_append(&f->loop->sched.ready, &f->link);
}

void fiber_yield(struct fiber *f)
{
	assert(f->state == FIBER_RUNNING);
	f->state = FIBER_READY;
	list_append(&f->loop->sched.ready, &f->link);
	switch_to_loop(f);
}

struct sleeper {
	struct loop_timer timer;
	struct fiber *f;
	bool due;
};

static void sleeper_due(struct loop_timer *timer)
{
	struct sleeper *s = container_of(timer, struct sleeper, timer);

	s->due = true;
	fiber_wake(s->f);
}

void fiber_sleep_ns(struct fiber *f, u64 ns)
{
	struct sleeper s = {.f = f};

	loop_timer_init(f->loop, &s.timer, sleeper_due);
	loop_timer_set(&s.timer, now_ns() + ns);
	while (!s.due)
		fiber_suspend(f);
}

/* --- fresh stacks ---------------------------------------------------------- */

size_t fiber_stack_left(const struct fiber *f)
{
	char *here = __builtin_frame_address(0);

	assert(f->state == FIBER_RUNNING);
	return (size_t)(here - ((char *)f->mapping + GUARD_BYTES));
}

struct fresh_call {
	struct fiber *caller;
	int (*fn)(struct fiber *f, void *arg);
	void *arg;
	int result;
	bool done;
};

static void run_fresh_call(struct fiber *f, void *arg)
{
	struct fresh_call *c = arg;

	c->result = c->fn(f, c->arg);
	c->done = true;
	fiber_wake(c->caller);
}

int fiber_call(struct fiber *f, int (*fn)(struct fiber *f, void *arg), void *arg)
{
	struct fresh_call c = {.caller = f, .fn = fn, .arg = arg};
	int ret = fiber_spawn(f->loop, run_fresh_call, &c);

	if (ret < 0)
		return ret;
	while (!c.done)
		fiber_suspend(f);
	return c.result;
}

/* --- queues and mutexes ---------------------------------------------------- */

void fiber_queue_init(struct fiber_queue *q)
{
	list_init(&q->waiters);
}

void fiber_queue_wait(struct fiber *f, struct fiber_queue *q)
{
	assert(f->state == FIBER_RUNNING);
	list_append(&q->waiters, &f->link);
	fiber_suspend(f);
}

bool fiber_queue_wake_one(struct fiber_queue *q)
{
	if (list_empty(&q->waiters))
		return false;
	fiber_wake(list_entry(q->waiters.next, struct fiber, link));
	return true;
}

void fiber_queue_wake_all(struct fiber_queue *q)
{
	while (fiber_queue_wake_one(q))
		;
}

void fiber_mutex_init(struct fiber_mutex *m)
{
	m->holder = NULL;
	fiber_queue_init(&m->queue);
}

void fiber_mutex_lock(struct fiber *f, struct fiber_mutex *m)
{
	assert(m->holder != f);
	if (!m->holder) {
		m->holder = f;
		return;
	}
	/* The holder hands over to the first in the queue: nobody overtakes. */
	while (m->holder && m->holder != f)
		fiber_queue_wait(f, &m->queue);
	m->holder = f;
}

void fiber_mutex_unlock(struct fiber *f, struct fiber_mutex *m)
{
	assert(m->holder == f);
	m->holder = NULL;
	if (list_empty(&m->queue.waiters))
		return;
	m->holder = list_entry(m->queue.waiters.next, struct fiber, link);
	fiber_wake(m->holder);
}

/* --- range locks ----------------------------------------------------------- */

void range_locks_init(struct range_locks *locks)
{
	list_init(&locks->ranges);
}

static bool ranges_conflict(const struct range_lock *a, const struct range_lock *b)
{
	return (a->exclusive || b->exclusive) && a->start < b->end && b->start < a->end;
}

/* Older ranges win, granted or not: a waiting writer is not overtaken. */
static bool range_blocked(struct range_locks *locks, struct range_lock *lock)
{
	for (struct list *pos = lock->link.prev; pos != &locks->ranges; pos = pos->prev)
		if (ranges_conflict(list_entry(pos, struct range_lock, link), lock))
			return true;
	return false;
}

void range_lock(struct fiber *f, struct range_locks *locks, struct range_lock *lock, u64 start,
		u64 bytes, bool exclusive)
{
	lock->start = start;
	if (!add_ok(start, bytes, &lock->end))
		lock->end = UINT64_MAX;
	lock->exclusive = exclusive;
	lock->waiter = f;
	list_append(&locks->ranges, &lock->link);
	lock->granted = !range_blocked(locks, lock);
	while (!lock->granted)
		fiber_suspend(f);
}

void range_unlock(struct range_locks *locks, struct range_lock *lock)
{
	struct list *next = lock->link.next;

	assert(lock->granted);
	list_del(&lock->link);
	for (struct list *pos = next; pos != &locks->ranges; pos = pos->next) {
		struct range_lock *later = list_entry(pos, struct range_lock, link);

		if (later->granted || !ranges_conflict(lock, later) || range_blocked(locks, later))
			continue;
		later->granted = true;
		fiber_wake(later->waiter);
	}
}
