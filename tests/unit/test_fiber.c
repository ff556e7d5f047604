/* Fibers: order, queues, mutexes, range locks, registers across a switch. */
#include "tests/unit/backends.h"

#include "base/fiber.h"
#include "base/thread.h"

#include <xmmintrin.h>

struct journal {
	char text[128];
	unsigned len;
};

static void note(struct journal *j, char c)
{
	assert_true(j->len + 1 < sizeof(j->text));
	j->text[j->len++] = c;
}

struct worker {
	struct journal *j;
	struct fiber_queue *queue;
	struct fiber_mutex *mutex;
	char name;
	unsigned rounds;
};

/* --- order ------------------------------------------------------------------ */

static void yielding(struct fiber *f, void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->rounds; i++) {
		note(w->j, w->name);
		fiber_yield(f);
	}
}

static void spawn_two_and_outlive_them(struct fiber *f, void *arg)
{
	struct journal *j = arg;
	struct worker a = {.j = j, .name = 'a', .rounds = 3};
	struct worker b = {.j = j, .name = 'b', .rounds = 2};

	assert_int_equal(fiber_spawn(fiber_loop(f), yielding, &a), 0);
	assert_int_equal(fiber_spawn(fiber_loop(f), yielding, &b), 0);
	for (int i = 0; i < 5; i++)
		fiber_yield(f);
}

static void fibers_take_turns_in_the_order_they_became_ready(void **state)
{
	struct journal j = {0};

	assert_int_equal(loop_run_fiber(*state, spawn_two_and_outlive_them, &j), 0);
	assert_string_equal(j.text, "ababa");
}

/* --- queues ----------------------------------------------------------------- */

static void waiting(struct fiber *f, void *arg)
{
	struct worker *w = arg;

	fiber_queue_wait(f, w->queue);
	note(w->j, w->name);
}

static void wake_in_steps(struct fiber *f, void *arg)
{
	struct journal *j = arg;
	struct fiber_queue q;
	struct worker w[3];

	fiber_queue_init(&q);
	assert_false(fiber_queue_wake_one(&q));
	for (unsigned i = 0; i < 3; i++) {
		w[i] = (struct worker){.j = j, .queue = &q, .name = (char)('a' + i)};
		assert_int_equal(fiber_spawn(fiber_loop(f), waiting, &w[i]), 0);
	}
	fiber_yield(f);
	note(j, '1');
	assert_true(fiber_queue_wake_one(&q));
	fiber_yield(f);
	note(j, '2');
	fiber_queue_wake_all(&q);
	fiber_yield(f);
	assert_false(fiber_queue_wake_one(&q));
}

static void a_queue_wakes_its_oldest_waiter_first(void **state)
{
	struct journal j = {0};

	assert_int_equal(loop_run_fiber(*state, wake_in_steps, &j), 0);
	assert_string_equal(j.text, "1a2bc");
}

/* --- mutex ------------------------------------------------------------------ */

static void critical(struct fiber *f, void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < 2; i++) {
		fiber_mutex_lock(f, w->mutex);
		note(w->j, w->name);
		fiber_yield(f);
		fiber_yield(f);
		note(w->j, w->name);
		fiber_mutex_unlock(f, w->mutex);
	}
}

static void contend_for_mutex(struct fiber *f, void *arg)
{
	struct fiber_mutex m;
	struct worker w[3];

	fiber_mutex_init(&m);
	for (unsigned i = 0; i < 3; i++) {
		w[i] = (struct worker){.j = arg, .mutex = &m, .name = (char)('a' + i)};
		assert_int_equal(fiber_spawn(fiber_loop(f), critical, &w[i]), 0);
	}
	for (int i = 0; i < 50; i++)
		fiber_yield(f);
	assert_null(m.holder);
}

static void a_mutex_is_handed_over_in_order_and_never_shared(void **state)
{
	struct journal j = {0};

	assert_int_equal(loop_run_fiber(*state, contend_for_mutex, &j), 0);
	assert_string_equal(j.text, "aabbccaabbcc");
}

/* --- range locks ------------------------------------------------------------ */

struct ranger {
	struct range_locks *locks;
	struct journal *j;
	u64 start, bytes;
	bool exclusive;
	char name;
	unsigned hold;
};

static void ranging(struct fiber *f, void *arg)
{
	struct ranger *r = arg;
	struct range_lock lock;

	range_lock(f, r->locks, &lock, r->start, r->bytes, r->exclusive);
	note(r->j, r->name);
	for (unsigned i = 0; i < r->hold; i++)
		fiber_yield(f);
	note(r->j, (char)(r->name - 'a' + 'A'));
	range_unlock(r->locks, &lock);
}

static void run_rangers(struct fiber *f, struct ranger *r, unsigned n)
{
	struct range_locks locks;

	range_locks_init(&locks);
	for (unsigned i = 0; i < n; i++) {
		r[i].locks = &locks;
		r[i].name = (char)('a' + i);
		assert_int_equal(fiber_spawn(fiber_loop(f), ranging, &r[i]), 0);
	}
	for (int i = 0; i < 100; i++)
		fiber_yield(f);
	assert_true(list_empty(&locks.ranges));
}

static void readers_and_a_writer(struct fiber *f, void *arg)
{
	struct ranger r[] = {
		{.j = arg, .start = 0, .bytes = 10, .hold = 3},
		{.j = arg, .start = 5, .bytes = 10, .hold = 1},
		{.j = arg, .start = 8, .bytes = 1, .exclusive = true, .hold = 1},
		{.j = arg, .start = 8, .bytes = 4, .hold = 1},
		{.j = arg, .start = 100, .bytes = 4, .exclusive = true, .hold = 1},
	};

	run_rangers(f, r, ARRAY_LEN(r));
}

static void readers_share_and_a_waiting_writer_is_not_overtaken(void **state)
{
	struct journal j = {0};

	assert_int_equal(loop_run_fiber(*state, readers_and_a_writer, &j), 0);
	/* a, b and the far e at once; c after a and b; d after c although only
	 * readers hold the range when it asks. */
	assert_string_equal(j.text, "abeBEAcCdD");
}

static void writers_that_touch_but_do_not_overlap(struct fiber *f, void *arg)
{
	struct ranger r[] = {
		{.j = arg, .start = 0, .bytes = 8, .exclusive = true, .hold = 1},
		{.j = arg, .start = 8, .bytes = 8, .exclusive = true, .hold = 1},
		{.j = arg, .start = 15, .bytes = UINT64_MAX, .exclusive = true, .hold = 1},
	};

	run_rangers(f, r, ARRAY_LEN(r));
}

static void adjacent_ranges_do_not_exclude_each_other(void **state)
{
	struct journal j = {0};

	assert_int_equal(loop_run_fiber(*state, writers_that_touch_but_do_not_overlap, &j), 0);
	assert_string_equal(j.text, "abABcC");
}

/* --- many, and registers ---------------------------------------------------- */

struct crowd {
	unsigned done;
	struct fiber *main;
};

static void use_stack_and_yield(struct fiber *f, void *arg)
{
	struct crowd *c = arg;
	volatile u8 frame[900];

	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (u8)(i ^ c->done);
	fiber_yield(f);
	fiber_yield(f);
	assert_int_equal(frame[899], frame[899 - 256]);
	c->done++;
}

static void spawn_crowds(struct fiber *f, void *arg)
{
	struct crowd *c = arg;

	for (unsigned round = 1; round <= 3; round++) {
		for (unsigned i = 0; i < 500; i++)
			assert_int_equal(fiber_spawn(fiber_loop(f), use_stack_and_yield, c), 0);
		while (c->done < round * 500)
			fiber_yield(f);
	}
}

static void more_fibers_than_are_pooled_come_and_go(void **state)
{
	struct crowd c = {0};

	assert_int_equal(loop_run_fiber(*state, spawn_crowds, &c), 0);
	assert_int_equal(c.done, 1500);
}

static void round_upward(struct fiber *f, void *arg)
{
	volatile double third = 1.0;

	_MM_SET_ROUNDING_MODE(_MM_ROUND_UP);
	fiber_yield(f);
	assert_int_equal(_MM_GET_ROUNDING_MODE(), _MM_ROUND_UP);
	third /= 3;
	assert_true(third * 3 >= 1.0);
}

static void mix_rounding(struct fiber *f, void *arg)
{
	assert_int_equal(fiber_spawn(fiber_loop(f), round_upward, NULL), 0);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(_MM_GET_ROUNDING_MODE(), _MM_ROUND_NEAREST);
		fiber_yield(f);
	}
}

static void each_fiber_keeps_its_own_rounding_mode(void **state)
{
	assert_int_equal(loop_run_fiber(*state, mix_rounding, NULL), 0);
	assert_int_equal(_MM_GET_ROUNDING_MODE(), _MM_ROUND_NEAREST);
}

static void count_switches(struct fiber *f, void *arg)
{
	u64 before = fiber_switches(f);

	NOSUSPEND(f)
	{
		*(bool *)arg = true;
	}
	fiber_yield(f);
	fiber_yield(f);
	assert_int_equal(fiber_switches(f), before + 2);
}

static void switches_are_counted_for_nosuspend(void **state)
{
	bool ran = false;

	assert_int_equal(loop_run_fiber(*state, count_switches, &ran), 0);
	assert_true(ran);
}

static int recurse(struct fiber *f, void *arg)
{
	volatile u8 frame[600];
	u32 *left = arg;
	int below;

	frame[0] = (u8)*left;
	if (!*left)
		return 0;
	--*left;
	below = fiber_stack_left(f) < 8 * KiB ? fiber_call(f, recurse, left) : recurse(f, left);
	assert_int_equal(frame[0], (u8)(below + 1));
	return below + 1;
}

static void recurse_deeply(struct fiber *f, void *arg)
{
	*(int *)arg = recurse(f, &(u32){5000});
}

static void recursion_goes_on_on_fresh_stacks(void **state)
{
	int depth = 0;

	assert_int_equal(loop_run_fiber(*state, recurse_deeply, &depth), 0);
	assert_int_equal(depth, 5000);
}

static void sleep_a_little(struct fiber *f, void *arg)
{
	u64 start = now_ns();

	fiber_sleep_ns(f, 5 * NS_PER_MS);
	*(u64 *)arg = now_ns() - start;
}

static void sleeping_takes_at_least_the_time_asked_for(void **state)
{
	u64 took = 0;

	assert_int_equal(loop_run_fiber(*state, sleep_a_little, &took), 0);
	assert_true(took >= 5 * NS_PER_MS);
}

#define TESTS(X)                                                                                   \
	X(fibers_take_turns_in_the_order_they_became_ready),                                       \
		X(a_queue_wakes_its_oldest_waiter_first),                                          \
		X(a_mutex_is_handed_over_in_order_and_never_shared),                               \
		X(readers_share_and_a_waiting_writer_is_not_overtaken),                            \
		X(adjacent_ranges_do_not_exclude_each_other),                                      \
		X(more_fibers_than_are_pooled_come_and_go),                                        \
		X(each_fiber_keeps_its_own_rounding_mode), X(switches_are_counted_for_nosuspend),  \
		X(recursion_goes_on_on_fresh_stacks),                                              \
		X(sleeping_takes_at_least_the_time_asked_for)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
