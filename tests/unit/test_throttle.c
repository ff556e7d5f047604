/* Limits in bytes and requests a second, by a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "block/throttle.h"

#define SECOND 1000000000ull

/* Bytes (or requests) that get through in these seconds when there is always more. */
static u64 through(struct throttle_group *g, bool write, u64 bytes, unsigned seconds, bool count)
{
	u64 now = SECOND, end = now + seconds * SECOND, sum = 0;

	while (now < end) {
		u64 wait = throttle_take(g, write, bytes, now);

		if (wait)
			now += wait;
		else
			sum += count ? 1 : bytes;
	}
	return sum;
}

static struct throttle_group *group_of(const char *text, enum throttle_owner owner)
{
	struct throttle_group *g;
	struct throttle_limits l;
	struct error err = {0};
	struct opts o;

	assert_int_equal(opts_parse(&o, text, NULL, &err), 0);
	if (throttle_limits_parse(&l, &o, owner, &err) < 0)
		fail_msg("%s", err.text);
	opts_fini(&o);
	assert_true(throttle_limits_any(&l));
	g = throttle_group_new("g", &l);
	return g;
}

static struct throttle_group *group(const char *text)
{
	return group_of(text, THROTTLE_DRIVE);
}

static void assert_near(u64 got, u64 expected)
{
	if (got < expected * 9 / 10 || got > expected * 13 / 10)
		fail_msg("%llu, expected about %llu", (unsigned long long)got,
			 (unsigned long long)expected);
}

static void a_rate_is_kept_over_seconds(void **state)
{
	struct throttle_group *g = group("bps=1000000");

	assert_near(through(g, false, 4096, 10, false), 10000000);
	throttle_group_put(g);
	g = group("throttling.iops-total=100");
	assert_near(through(g, true, 65536, 10, true), 1000);
	throttle_group_put(g);
}

static void requests_larger_than_the_rate_get_through_too(void **state)
{
	struct throttle_group *g = group("bps=1000");

	assert_int_equal(through(g, false, 65536, 1, false), 65536);
	assert_true(throttle_take(g, false, 512, 2 * SECOND) > 60 * SECOND);
	assert_true(throttle_take(g, true, 512, 2 * SECOND) > 60 * SECOND);
	throttle_group_put(g);
}

static void reads_and_writes_have_limits_of_their_own(void **state)
{
	struct throttle_group *g = group("bps_rd=1000000,iops_wr=50");

	assert_near(through(g, false, 4096, 5, false), 5000000);
	throttle_group_put(g);
	g = group("bps_rd=1000000,iops_wr=50");
	assert_near(through(g, true, 1 << 20, 5, true), 250);
	throttle_group_put(g);
}

static void large_requests_count_as_several(void **state)
{
	struct throttle_group *g = group("iops=100,iops_size=4096");

	assert_near(through(g, false, 16384, 10, true), 250);
	assert_near(through(g, false, 512, 10, true), 1000);
	throttle_group_put(g);
}

static void a_burst_lasts_as_long_as_it_may(void **state)
{
	struct throttle_group *g = group("bps=100000,bps_max=1000000,bps_max_length=5");
	u64 first = through(g, false, 1000, 4, false);

	assert_near(first, 4000000);
	throttle_group_put(g);
	g = group("bps=100000,bps_max=1000000,bps_max_length=5");
	assert_near(through(g, false, 1000, 100, false), 5000000 + 9500000);
	throttle_group_put(g);
}

static void idle_time_is_not_saved_up(void **state)
{
	struct throttle_group *g = group("bps=1000000");

	assert_int_equal(throttle_take(g, false, 512, SECOND), 0);
	assert_near(through(g, false, 4096, 1, false), 1100000);
	throttle_group_put(g);
}

static void nonsense_is_refused(void **state)
{
	static const char *const bad[] = {
		"bps=-1",
		"bps=1000000000000001",
		"bps_max=5",
		"bps=5,bps_max=4",
		"bps=5,bps_max=6,bps_max_length=0",
		"bps=5,bps_max_length=2",
		"bps=5,bps_wr=1",
		"iops_size=5",
		"bps=1,bps_max=1000000000000000,bps_max_length=18446744073709551615",
		"iops=zz",
		"bps=5,throttling.bps-total=5",
		"iops=5,iops_size=5,throttling.iops-size=5",
	};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct throttle_limits l;
		struct error err = {0};
		struct opts o;

		assert_int_equal(opts_parse(&o, bad[i], NULL, &err), 0);
		if (throttle_limits_parse(&l, &o, THROTTLE_DRIVE, &err) >= 0)
			fail_msg("'%s' was accepted", bad[i]);
		assert_true(*err.text);
		opts_fini(&o);
	}
}

static void each_owner_has_two_spellings(void **state)
{
	static const char *const drive[] = {"iops_wr_max_length", "throttling.bps-read",
					    "throttling.iops-size", "throttling.group", "group"};
	static const char *const object[] = {"x-iops-write-max-length", "limits.bps-read",
					     "limits.iops-size", "x-iops-size"};
	static const char *const neither[] = {"encrypt.key-secret", "throttling.foo", "limits.",
					      "x-bps"};
	struct throttle_limits l;
	struct throttle_group *g;

	for (unsigned i = 0; i < ARRAY_LEN(drive); i++) {
		assert_true(throttle_is_option(drive[i], THROTTLE_DRIVE));
		assert_false(throttle_is_option(drive[i], THROTTLE_OBJECT));
	}
	for (unsigned i = 0; i < ARRAY_LEN(object); i++) {
		assert_true(throttle_is_option(object[i], THROTTLE_OBJECT));
		assert_false(throttle_is_option(object[i], THROTTLE_DRIVE));
	}
	for (unsigned i = 0; i < ARRAY_LEN(neither) * 2; i++)
		assert_false(throttle_is_option(neither[i / 2], (enum throttle_owner)(i & 1)));
	g = group_of("x-bps-read=5,limits.iops-write-max-length=7,limits.iops-write=2,"
		     "x-iops-write-max=3,limits.iops-size=9",
		     THROTTLE_OBJECT);
	throttle_get(g, &l);
	assert_int_equal(l.bps[1].avg, 5);
	assert_int_equal(l.iops[2].avg, 2);
	assert_int_equal(l.iops[2].max, 3);
	assert_int_equal(l.iops[2].length, 7);
	assert_int_equal(l.iops_size, 9);
	throttle_group_put(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_rate_is_kept_over_seconds),
		cmocka_unit_test(requests_larger_than_the_rate_get_through_too),
		cmocka_unit_test(reads_and_writes_have_limits_of_their_own),
		cmocka_unit_test(large_requests_count_as_several),
		cmocka_unit_test(a_burst_lasts_as_long_as_it_may),
		cmocka_unit_test(idle_time_is_not_saved_up),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(each_owner_has_two_spellings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
