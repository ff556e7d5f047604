/* Virtual time and its timers; see clock.h.
 *
 * Virtual time is CLOCK_MONOTONIC minus `offset` while the clock runs, and `frozen`
 * while it stands; readers take no lock.  One loop timer serves the earliest of a
 * heap of ours; a timer that becomes the earliest on another thread posts a call
 * to the loop.
 * Invariant: timer.slot - 1 is the timer's index in the heap, slot 0: not in it.
 * Threads: as clock.h says; clock.lock is a leaf. */
#include "vmm/core/clock.h"

#include "base/thread.h"

#define RUNNING	    UINT64_MAX
#define MAX_WAIT_NS (3600 * (u64)NS_PER_SEC)

/* A call to the loop; outlives the clock when it is freed with one on the way. */
struct kick {
	struct loop_call call;
	struct clock *clock; /* [loop] NULL: the clock is gone */
};

struct clock {
	struct loop *loop; /* [const] NULL: manual */
	struct mutex lock;
	/* [atomic] clock_start stores offset, then frozen; clock_now loads frozen,
	 * then offset. */
	u64 offset, frozen;
	struct timer **heap; /* [clock.lock] */
	u32 n, room;	     /* [clock.lock] */
	struct loop_timer loop_timer;
	struct kick *kick;
	bool kicked; /* [clock.lock] the kick is on its way */
};

static void loop_timer_fired(struct loop_timer *timer);
static void kick_arrived(struct loop_call *call);

static struct clock *clock_alloc(void)
{
	struct clock *c = xnew(struct clock);

	mutex_init(&c->lock);
	return c;
}

int clock_new(struct clock **out, struct loop *loop, struct error *err)
{
	struct clock *c = clock_alloc();

	c->loop = loop;
	c->kick = xnew(struct kick);
	c->kick->clock = c;
	c->kick->call.fn = kick_arrived;
	loop_timer_init(loop, &c->loop_timer, loop_timer_fired);
	*out = c;
	return 0;
}

int clock_new_manual(struct clock **out)
{
	*out = clock_alloc();
	return 0;
}

void clock_free(struct clock *c)
{
	if (!c)
		return;
	assert(c->n == 0);
	if (c->loop) {
		loop_timer_del(&c->loop_timer);
		c->kick->clock = NULL;
		if (!c->kicked)
			free(c->kick);
	}
	mutex_fini(&c->lock);
	free(c->heap);
	free(c);
}

u64 clock_now(struct clock *c)
{
	u64 frozen = __atomic_load_n(&c->frozen, __ATOMIC_ACQUIRE);

	return frozen != RUNNING ? frozen
				 : now_ns() - __atomic_load_n(&c->offset, __ATOMIC_ACQUIRE);
}

/* --- the heap ----------------------------------------------------------------- */

static void heap_put(struct clock *c, u32 i, struct timer *t)
{
	c->heap[i] = t;
	t->slot = i + 1;
}

static void sift_up(struct clock *c, u32 i, struct timer *t)
{
	for (; i > 0 && c->heap[(i - 1) / 2]->due > t->due; i = (i - 1) / 2)
		heap_put(c, i, c->heap[(i - 1) / 2]);
	heap_put(c, i, t);
}

static void sift_down(struct clock *c, u32 i, struct timer *t)
{
	for (;;) {
		u32 child = 2 * i + 1;

		if (child + 1 < c->n && c->heap[child + 1]->due < c->heap[child]->due)
			child++;
		if (child >= c->n || c->heap[child]->due >= t->due)
			break;
		heap_put(c, i, c->heap[child]);
		i = child;
	}
	heap_put(c, i, t);
}

static void heap_remove(struct clock *c, struct timer *t)
{
	u32 i = t->slot - 1;
	struct timer *last;

	lock_assert(&c->lock);
	assert(t->slot && c->heap[i] == t);
	t->slot = 0;
	last = c->heap[--c->n];
	if (last == t)
		return;
	if (i > 0 && c->heap[(i - 1) / 2]->due > last->due)
		sift_up(c, i, last);
	else
		sift_down(c, i, last);
}

static void heap_insert(struct clock *c, struct timer *t)
{
	lock_assert(&c->lock);
	if (c->n == c->room) {
		c->room = c->room * 2 + 16;
		c->heap = xrealloc(c->heap, c->room * sizeof(*c->heap));
	}
	c->n++;
	sift_up(c, c->n - 1, t);
}

/* --- firing ------------------------------------------------------------------- */

/* Run what is due at `now`, in order. */
static void fire_due(struct clock *c, u64 now)
{
	mutex_lock(&c->lock);
	while (c->n && c->heap[0]->due <= now) {
		struct timer *t = c->heap[0];

		heap_remove(c, t);
		mutex_unlock(&c->lock);
		t->fn(t);
		mutex_lock(&c->lock);
	}
	mutex_unlock(&c->lock);
}

/* Set the loop's timer to the earliest of ours.  On the loop's thread. */
static void rearm(struct clock *c)
{
	u64 now, wait;

	lock_assert(&c->lock);
	if (!c->n || c->frozen != RUNNING) {
		loop_timer_del(&c->loop_timer);
		return;
	}
	now = now_ns();
	wait = c->heap[0]->due - MIN(c->heap[0]->due, now - c->offset);
	/* Cut, so that a time at the end of all times does not wrap. */
	loop_timer_set(&c->loop_timer, now + MIN(wait, MAX_WAIT_NS));
}

static void loop_timer_fired(struct loop_timer *timer)
{
	struct clock *c = container_of(timer, struct clock, loop_timer);

	/* When the clock stands still, a loop timer that had fired already waits
	 * for clock_start. */
	if (__atomic_load_n(&c->frozen, __ATOMIC_ACQUIRE) == RUNNING)
		fire_due(c, clock_now(c));
	LOCK_SCOPE(&c->lock);
	rearm(c);
}

static void kick_arrived(struct loop_call *call)
{
	struct kick *kick = container_of(call, struct kick, call);
	struct clock *c = kick->clock;

	if (!c) {
		free(kick);
		return;
	}
	LOCK_SCOPE(&c->lock);
	c->kicked = false;
	rearm(c);
}

/* The earliest timer changed. */
static void earliest_changed(struct clock *c)
{
	lock_assert(&c->lock);
	if (!c->loop || c->frozen != RUNNING)
		return;
	if (loop_is_current(c->loop)) {
		rearm(c);
	} else if (!c->kicked) {
		c->kicked = true;
		loop_post(c->loop, &c->kick->call);
	}
}

void clock_stop(struct clock *c)
{
	LOCK_SCOPE(&c->lock);
	assert(c->loop && c->frozen == RUNNING);
	__atomic_store_n(&c->frozen, now_ns() - c->offset, __ATOMIC_RELEASE);
	rearm(c);
}

void clock_start(struct clock *c)
{
	LOCK_SCOPE(&c->lock);
	assert(c->loop && c->frozen != RUNNING);
	__atomic_store_n(&c->offset, now_ns() - c->frozen, __ATOMIC_RELEASE);
	__atomic_store_n(&c->frozen, RUNNING, __ATOMIC_RELEASE);
	rearm(c);
}

void clock_set(struct clock *c, u64 now)
{
	LOCK_SCOPE(&c->lock);
	assert(c->frozen != RUNNING); /* loads happen while paused */
	__atomic_store_n(&c->frozen, now, __ATOMIC_RELEASE);
}

/* When the next timer is due, if that is at `end` or earlier. */
static bool next_due(struct clock *c, u64 end, u64 *due)
{
	LOCK_SCOPE(&c->lock);
	if (!c->n || c->heap[0]->due > end)
		return false;
	*due = c->heap[0]->due;
	return true;
}

void clock_advance(struct clock *c, u64 ns)
{
	u64 end = c->frozen + ns, due;

	assert(!c->loop);
	while (next_due(c, end, &due)) {
		/* Timers see the time they were set for. */
		__atomic_store_n(&c->frozen, MAX(c->frozen, due), __ATOMIC_RELEASE);
		fire_due(c, c->frozen);
	}
	__atomic_store_n(&c->frozen, end, __ATOMIC_RELEASE);
}

/* --- timers ------------------------------------------------------------------- */

void timer_init(struct timer *t, struct clock *c, void (*fn)(struct timer *timer))
{
	*t = (struct timer){.clock = c, .fn = fn};
}

void timer_set(struct timer *t, u64 due)
{
	struct clock *c = t->clock;
	struct timer *first;

	LOCK_SCOPE(&c->lock);
	first = c->n ? c->heap[0] : NULL;
	if (t->slot)
		heap_remove(c, t);
	t->due = due;
	heap_insert(c, t);
	if (first == t || c->heap[0] == t)
		earliest_changed(c);
}

void timer_del(struct timer *t)
{
	struct clock *c = t->clock;

	LOCK_SCOPE(&c->lock);
	/* The loop's timer may fire for nothing; it then looks at the next. */
	if (t->slot)
		heap_remove(c, t);
}

bool timer_is_armed(struct timer *t, u64 *due)
{
	LOCK_SCOPE(&t->clock->lock);
	if (!t->slot)
		return false;
	*due = t->due;
	return true;
}

s64 wall_now_ns(const struct wall_clock *w, struct clock *c)
{
	return (s64)clock_now(c) + w->offset_ns;
}
