/* Virtual time: the manual clock, and the real one on a loop. */
#include "vmm/core/clock.h"

#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define MS ((u64)NS_PER_MS)

struct alarm {
	struct timer timer;
	char name;
	char *journal;
	u64 again, fired_at; /* again: rearm after this long */
	unsigned fired;
};

static void ring(struct timer *t)
{
	struct alarm *a = container_of(t, struct alarm, timer);

	a->fired++;
	a->fired_at = clock_now(t->clock);
	if (a->journal)
		strcat(a->journal, (char[]){a->name, 0});
	if (a->again)
		timer_set(t, t->due + a->again);
}

static void alarm_init(struct alarm *a, struct clock *c, char name, char *journal)
{
	*a = (struct alarm){.name = name, .journal = journal};
	timer_init(&a->timer, c, ring);
}

static void timers_fire_in_order_at_their_time(void **state)
{
	struct clock *c;
	struct alarm a, b, d;
	char journal[16] = "";

	clock_new_manual(&c);
	alarm_init(&a, c, 'a', journal);
	alarm_init(&b, c, 'b', journal);
	alarm_init(&d, c, 'd', journal);
	timer_set(&a.timer, 300);
	timer_set(&b.timer, 100);
	timer_set(&d.timer, 200);
	clock_advance(c, 99);
	assert_string_equal(journal, "");
	clock_advance(c, 151);
	assert_string_equal(journal, "bd");
	assert_int_equal(d.fired_at, 200);
	assert_int_equal(clock_now(c), 250);
	clock_advance(c, 50);
	assert_string_equal(journal, "bda");
	clock_free(c);
}

static void a_timer_may_set_itself_again(void **state)
{
	struct clock *c;
	struct alarm a;
	u64 due;

	clock_new_manual(&c);
	alarm_init(&a, c, 'a', NULL);
	a.again = 10;
	timer_set(&a.timer, 10);
	clock_advance(c, 105);
	assert_int_equal(a.fired, 10);
	assert_true(timer_is_armed(&a.timer, &due));
	assert_int_equal(due, 110);
	timer_del(&a.timer);
	assert_false(timer_is_armed(&a.timer, &due));
	clock_free(c);
}

static void a_deleted_or_replaced_timer_keeps_quiet(void **state)
{
	struct clock *c;
	struct alarm a, b;

	clock_new_manual(&c);
	alarm_init(&a, c, 'a', NULL);
	alarm_init(&b, c, 'b', NULL);
	timer_set(&a.timer, 10);
	timer_set(&b.timer, 20);
	timer_set(&a.timer, 50);
	timer_del(&b.timer);
	timer_del(&b.timer);
	clock_advance(c, 49);
	assert_int_equal(a.fired + b.fired, 0);
	clock_advance(c, 1);
	assert_int_equal(a.fired, 1);
	timer_set(&a.timer, 5); /* in the past: at once */
	clock_advance(c, 0);
	assert_int_equal(a.fired, 2);
	assert_int_equal(a.fired_at, 50);
	clock_free(c);
}

/* The heap against a plain search over many random sets and deletes. */
static void many_timers_agree_with_a_model(void **state)
{
	struct clock *c;
	struct alarm alarms[40];
	u64 due[40] = {0}; /* 0: not armed */
	unsigned seed = 3;

	clock_new_manual(&c);
	for (unsigned i = 0; i < 40; i++)
		alarm_init(&alarms[i], c, 'x', NULL);
	for (unsigned step = 0; step < 5000; step++) {
		unsigned i = (unsigned)rand_r(&seed) % 40;

		if (rand_r(&seed) % 4) {
			due[i] = clock_now(c) + 1 + (u64)rand_r(&seed) % 1000;
			timer_set(&alarms[i].timer, due[i]);
		} else {
			due[i] = 0;
			timer_del(&alarms[i].timer);
		}
		clock_advance(c, (u64)rand_r(&seed) % 50);
		for (unsigned k = 0; k < 40; k++) {
			bool fired = due[k] && due[k] <= clock_now(c);

			assert_int_equal(alarms[k].fired, fired);
			if (fired)
				assert_int_equal(alarms[k].fired_at, due[k]);
			due[k] = fired ? 0 : due[k];
			alarms[k].fired = 0;
		}
	}
	for (unsigned i = 0; i < 40; i++)
		timer_del(&alarms[i].timer);
	clock_free(c);
}

static void wall_clock_is_offset_plus_virtual_time(void **state)
{
	struct wall_clock w = {.offset_ns = 1700000000 * NS_PER_SEC};
	struct clock *c;

	clock_new_manual(&c);
	clock_advance(c, 5);
	assert_true(wall_now_ns(&w, c) == 1700000000 * NS_PER_SEC + 5);
	clock_set(c, 77);
	assert_int_equal(clock_now(c), 77);
	clock_free(c);
}

/* --- on a loop ---------------------------------------------------------------- */

struct stopper {
	struct alarm alarm;
	struct loop *loop;
};

static void ring_and_stop(struct timer *t)
{
	struct stopper *s = container_of(t, struct stopper, alarm.timer);

	ring(t);
	loop_stop(s->loop);
}

static struct loop *new_loop(void)
{
	struct error err = {0};
	struct loop *loop;

	assert_int_equal(loop_new(&loop, "test", LOOP_AUTO, &err), 0);
	return loop;
}

static void timers_fire_on_the_loop_not_before_their_time(void **state)
{
	struct loop *loop = new_loop();
	struct stopper s = {.loop = loop};
	struct error err = {0};
	struct clock *c;

	assert_int_equal(clock_new(&c, loop, &err), 0);
	timer_init(&s.alarm.timer, c, ring_and_stop);
	timer_set(&s.alarm.timer, 5 * MS);
	assert_int_equal(clock_now(c), 0); /* stands still at first */
	clock_start(c);
	loop_run(loop);
	assert_int_equal(s.alarm.fired, 1);
	assert_true(s.alarm.fired_at >= 5 * MS);
	clock_free(c);
	loop_free(loop);
}

static void a_stopped_clock_holds_its_timers(void **state)
{
	struct loop *loop = new_loop();
	struct stopper s = {.loop = loop}, other = {.loop = loop};
	struct error err = {0};
	struct clock *c, *c2;
	u64 at;

	assert_int_equal(clock_new(&c, loop, &err), 0);
	assert_int_equal(clock_new(&c2, loop, &err), 0);
	timer_init(&s.alarm.timer, c, ring_and_stop);
	timer_init(&other.alarm.timer, c2, ring_and_stop);
	clock_start(c);
	clock_start(c2);
	timer_set(&s.alarm.timer, clock_now(c) + 2 * MS);
	clock_stop(c);
	at = clock_now(c);
	timer_set(&other.alarm.timer, clock_now(c2) + 10 * MS);
	loop_run(loop);
	assert_int_equal(s.alarm.fired, 0);
	assert_int_equal(clock_now(c), at);
	clock_start(c);
	assert_true(clock_now(c) < at + 10 * MS); /* the pause did not count */
	loop_run(loop);
	assert_int_equal(s.alarm.fired, 1);
	clock_free(c);
	clock_free(c2);
	loop_free(loop);
}

static void *set_from_elsewhere(void *arg)
{
	struct stopper *s = arg;

	/* A far timer first, so that the second becomes the earliest. */
	timer_set(&s->alarm.timer, UINT64_MAX);
	timer_set(&s->alarm.timer, clock_now(s->alarm.timer.clock) + MS);
	return NULL;
}

static void start_thread(struct timer *t)
{
	struct stopper *s = container_of(t, struct stopper, alarm.timer);
	struct error err = {0};
	pthread_t thread;

	timer_init(&s->alarm.timer, t->clock, ring_and_stop);
	assert_int_equal(thread_start(&thread, "setter", set_from_elsewhere, s, &err), 0);
	pthread_join(thread, NULL);
}

static void another_thread_may_set_a_timer(void **state)
{
	struct loop *loop = new_loop();
	struct stopper s = {.loop = loop};
	struct error err = {0};
	struct clock *c;

	assert_int_equal(clock_new(&c, loop, &err), 0);
	clock_start(c);
	timer_init(&s.alarm.timer, c, start_thread);
	timer_set(&s.alarm.timer, 0);
	loop_run(loop);
	assert_int_equal(s.alarm.fired, 1);
	clock_free(c);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_fire_in_order_at_their_time),
		cmocka_unit_test(a_timer_may_set_itself_again),
		cmocka_unit_test(a_deleted_or_replaced_timer_keeps_quiet),
		cmocka_unit_test(many_timers_agree_with_a_model),
		cmocka_unit_test(wall_clock_is_offset_plus_virtual_time),
		cmocka_unit_test(timers_fire_on_the_loop_not_before_their_time),
		cmocka_unit_test(a_stopped_clock_holds_its_timers),
		cmocka_unit_test(another_thread_may_set_a_timer),
	};

	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
