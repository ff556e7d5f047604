/* The real-time clock: formats, setting, alarms, periodic and update interrupts. */
#include "devices/rtc.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#define IRQ    8
#define MS     ((u64)NS_PER_MS)
#define SECOND ((u64)NS_PER_SEC)
#define BASE   1709164799 /* 2024-02-28 23:59:59 UTC, a Wednesday; a leap year */

struct rig {
	struct fake_machine fm;
	struct device *dev;
};

static void setup(struct rig *r)
{
	fake_machine_init(&r->fm, MiB);
	r->fm.m.ram_below_4g = 3 * GiB;
	r->fm.m.ram_above_4g = 5 * GiB;
	r->fm.m.cpus = 4;
	r->dev = fake_device(&r->fm, &rtc_class, NULL, NULL);
	rtc_set_time(r->dev, BASE);
}

static u8 rd(struct rig *r, u8 reg)
{
	outb(&r->fm, 0x70, reg);
	return inb(&r->fm, 0x71);
}

static void wr(struct rig *r, u8 reg, u8 value)
{
	outb(&r->fm, 0x70, reg);
	outb(&r->fm, 0x71, value);
}

static void advance(struct rig *r, u64 ns)
{
	clock_advance(r->fm.m.clock, ns);
}

/* "century year month day weekday hour minute second" in hex digits. */
static void assert_time(struct rig *r, const char *expected)
{
	static const u8 regs[] = {0x32, 9, 8, 7, 6, 4, 2, 0};
	char text[64] = "";

	for (unsigned i = 0; i < sizeof(regs); i++)
		snprintf(text + 3 * i, 4, "%02x ", rd(r, regs[i]));
	text[3 * sizeof(regs) - 1] = '\0';
	assert_string_equal(text, expected);
}

static void time_runs_and_carries_into_a_leap_day(void **state)
{
	struct rig r;

	setup(&r);
	assert_time(&r, "20 24 02 28 04 23 59 59");
	advance(&r, SECOND);
	assert_time(&r, "20 24 02 29 05 00 00 00");
	advance(&r, 86400 * SECOND);
	assert_time(&r, "20 24 03 01 06 00 00 00");
	assert_int_equal(rd(&r, 0x37), 0x20); /* the PS/2 place of the century */
	fake_machine_fini(&r.fm);
}

static void formats_are_binary_or_bcd_and_12_or_24_hours(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 0x0b, 0x06); /* binary, 24 hours */
	assert_time(&r, "14 18 02 1c 04 17 3b 3b");
	wr(&r, 0x0b, 0x00); /* BCD, 12 hours */
	assert_time(&r, "20 24 02 28 04 91 59 59");
	advance(&r, SECOND);
	assert_time(&r, "20 24 02 29 05 12 00 00"); /* midnight is 12 AM */
	advance(&r, 12 * 3600 * SECOND);
	assert_time(&r, "20 24 02 29 05 92 00 00"); /* noon is 12 PM */
	fake_machine_fini(&r.fm);
}

static void set_stops_the_clock_until_it_is_cleared(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 0x0b, 0x82);
	advance(&r, 5 * SECOND);
	assert_time(&r, "20 24 02 28 04 23 59 59");
	wr(&r, 0x32, 0x19);
	wr(&r, 9, 0x99);
	wr(&r, 8, 0x12);
	wr(&r, 7, 0x31);
	wr(&r, 0x0b, 0x02);
	assert_time(&r, "19 99 12 31 06 23 59 59");
	advance(&r, SECOND);
	assert_time(&r, "20 00 01 01 07 00 00 00");
	fake_machine_fini(&r.fm);
}

static void divider_in_reset_holds_the_clock_for_half_a_second(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 0x0a, 0x70);
	advance(&r, 10 * SECOND);
	wr(&r, 0x0a, 0x26);
	assert_int_equal(rd(&r, 0), 0x59);
	advance(&r, 499 * MS);
	assert_int_equal(rd(&r, 0), 0x59);
	advance(&r, MS);
	assert_int_equal(rd(&r, 0), 0x00);
	fake_machine_fini(&r.fm);
}

static void a_running_clock_takes_single_registers(void **state)
{
	struct rig r;

	setup(&r);
	advance(&r, 900 * MS);
	wr(&r, 4, 0x08);
	assert_time(&r, "20 24 02 28 04 08 59 59");
	advance(&r, 100 * MS); /* the fraction of the second went on */
	assert_time(&r, "20 24 02 28 04 09 00 00");
	wr(&r, 8, 0xff); /* nonsense counts as the nearest month */
	assert_int_equal(rd(&r, 8), 0x12);
	fake_machine_fini(&r.fm);
}

static void update_in_progress_shows_before_the_second(void **state)
{
	struct rig r;

	setup(&r);
	assert_int_equal(rd(&r, 0x0a), 0x26);
	advance(&r, SECOND - 200000);
	assert_int_equal(rd(&r, 0x0a), 0xa6);
	advance(&r, 200000);
	assert_int_equal(rd(&r, 0x0a), 0x26);
	wr(&r, 0x0b, 0x82);
	advance(&r, SECOND - 200000);
	assert_int_equal(rd(&r, 0x0a), 0x26); /* no updates under SET */
	fake_machine_fini(&r.fm);
}

static void update_ended_interrupts_once_a_second(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 0x0b, 0x12);
	advance(&r, SECOND - 1);
	assert_false(r.fm.gsi[IRQ]);
	advance(&r, 1);
	assert_true(r.fm.gsi[IRQ]);
	assert_int_equal(rd(&r, 0x0c) & 0x90, 0x90);
	assert_false(r.fm.gsi[IRQ]);
	assert_int_equal(rd(&r, 0x0c), 0x00);
	for (int i = 0; i < 5; i++) {
		advance(&r, SECOND);
		rd(&r, 0x0c);
	}
	assert_int_equal(r.fm.rises[IRQ], 6);
	fake_machine_fini(&r.fm);
}

static void alarm_interrupts_at_its_time(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 1, 0x30);
	wr(&r, 3, 0x01);
	wr(&r, 5, 0x00);
	wr(&r, 0x0b, 0x22);
	advance(&r, 90 * SECOND); /* 00:01:29 */
	assert_false(r.fm.gsi[IRQ]);
	advance(&r, SECOND);
	assert_true(r.fm.gsi[IRQ]);
	assert_int_equal(rd(&r, 0x0c) & 0xa0, 0xa0);
	advance(&r, 86399 * SECOND);
	assert_false(r.fm.gsi[IRQ]);
	advance(&r, SECOND); /* the next day */
	assert_true(r.fm.gsi[IRQ]);
	fake_machine_fini(&r.fm);
}

static void alarm_fields_may_not_care(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 1, 0x05);
	wr(&r, 3, 0xff);
	wr(&r, 5, 0xc0);
	wr(&r, 0x0b, 0x22); /* every minute at :05 */
	for (int i = 0; i < 3; i++) {
		advance(&r, i == 0 ? 6 * SECOND : 60 * SECOND);
		assert_true(r.fm.gsi[IRQ]);
		rd(&r, 0x0c);
	}
	wr(&r, 3, 0x77); /* never */
	advance(&r, 3 * 86400 * SECOND);
	assert_int_equal(r.fm.rises[IRQ], 3);
	fake_machine_fini(&r.fm);
}

static void periodic_interrupts_at_the_chosen_rate(void **state)
{
	struct rig r;
	unsigned fired = 0;

	setup(&r);
	wr(&r, 0x0a, 0x26); /* 1024 Hz */
	wr(&r, 0x0b, 0x42);
	for (int ms = 0; ms < 2000; ms++) {
		advance(&r, MS / 2);
		fired += (rd(&r, 0x0c) & 0x40) != 0;
	}
	assert_in_range(fired, 1023, 1025);
	assert_in_range(r.fm.rises[IRQ], 1023, 1025);
	wr(&r, 0x0a, 0x2f); /* 2 Hz */
	r.fm.rises[IRQ] = 0;
	for (int ms = 0; ms < 2000; ms++) {
		advance(&r, MS);
		rd(&r, 0x0c);
	}
	assert_int_equal(r.fm.rises[IRQ], 4);
	wr(&r, 0x0a, 0x20);
	advance(&r, SECOND);
	assert_int_equal(rd(&r, 0x0c) & 0x40, 0);
	fake_machine_fini(&r.fm);
}

static void flags_are_set_without_interrupts_too(void **state)
{
	struct rig r;

	setup(&r);
	rd(&r, 0x0c);
	advance(&r, MS);
	assert_int_equal(rd(&r, 0x0c), 0x40); /* polled: PF alone */
	advance(&r, SECOND);
	assert_int_equal(rd(&r, 0x0c), 0x40 | 0x10 | 0x20); /* alarm at 00:00:00 */
	assert_int_equal(r.fm.rises[IRQ], 0);
	fake_machine_fini(&r.fm);
}

static void reset_keeps_time_and_memory(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 0x40, 0xab);
	wr(&r, 0x0b, 0x72);
	advance(&r, SECOND);
	assert_true(r.fm.gsi[IRQ]);
	device_reset(r.dev);
	assert_false(r.fm.gsi[IRQ]);
	assert_int_equal(rd(&r, 0x40), 0xab);
	assert_int_equal(rd(&r, 0x0b), 0x02);
	assert_time(&r, "20 24 02 29 05 00 00 00");
	fake_machine_fini(&r.fm);
}

static void cmos_tells_the_firmware_about_memory(void **state)
{
	struct rig r;
	u16 sum = 0;

	setup(&r);
	assert_int_equal(rd(&r, 0x15) | rd(&r, 0x16) << 8, 640);
	assert_int_equal(rd(&r, 0x17) | rd(&r, 0x18) << 8, 0xffff);
	assert_int_equal(rd(&r, 0x30) | rd(&r, 0x31) << 8, 0xffff);
	assert_int_equal(rd(&r, 0x34) | rd(&r, 0x35) << 8, 49152 - 256);
	assert_int_equal(rd(&r, 0x5b) | rd(&r, 0x5c) << 8 | rd(&r, 0x5d) << 16, 81920);
	assert_int_equal(rd(&r, 0x5f), 3);
	assert_int_equal(rd(&r, 0x0d), 0x80);
	rtc_set_cmos(r.dev, 0x2d, 0x77);
	for (u8 i = 0x10; i < 0x2e; i++)
		sum = (u16)(sum + rd(&r, i));
	assert_int_equal(rd(&r, 0x2e) << 8 | rd(&r, 0x2f), sum);
	fake_machine_fini(&r.fm);
}

static void saved_clock_goes_on_where_it_was(void **state)
{
	struct rig a, b;
	struct state_buf saved;
	struct error err;

	setup(&a);
	setup(&b);
	wr(&a, 0x0b, 0x12);
	wr(&a, 0x50, 0x99);
	advance(&a, 1500 * MS);
	assert_true(a.fm.gsi[IRQ]);
	fake_save(a.dev, &saved);
	clock_set(b.fm.m.clock, clock_now(a.fm.m.clock));
	saved.at = 0;
	assert_int_equal(device_load(b.dev, &saved, &err), 0);
	assert_true(b.fm.gsi[IRQ]); /* not yet acknowledged */
	assert_int_equal(rd(&b, 0x50), 0x99);
	assert_time(&b, "20 24 02 29 05 00 00 00");
	rd(&b, 0x0c);
	advance(&b, 500 * MS);
	assert_true(b.fm.gsi[IRQ]); /* at the second, not a second later */
	state_buf_fini(&saved);
	fake_machine_fini(&a.fm);
	fake_machine_fini(&b.fm);
}

/* Against the C library's calendar. */
static void dates_agree_with_the_calendar(void **state)
{
	struct rig r;

	setup(&r);
	wr(&r, 0x0b, 0x06);
	for (s64 t = -900000000; t < 7200000000; t += 86400 * 37 + 12345) {
		time_t host = (time_t)t;
		struct tm tm;

		gmtime_r(&host, &tm);
		rtc_set_time(r.dev, t);
		assert_int_equal(rd(&r, 0x32) * 100 + rd(&r, 9), tm.tm_year + 1900);
		assert_int_equal(rd(&r, 8), tm.tm_mon + 1);
		assert_int_equal(rd(&r, 7), tm.tm_mday);
		assert_int_equal(rd(&r, 6), tm.tm_wday + 1);
		assert_int_equal(rd(&r, 4), tm.tm_hour);
		assert_int_equal(rd(&r, 0), tm.tm_sec);
		wr(&r, 0x0b, 0x86); /* through the registers and back */
		wr(&r, 0x0b, 0x06);
		assert_int_equal(rd(&r, 7), tm.tm_mday);
		assert_int_equal(rd(&r, 2), tm.tm_min);
	}
	fake_machine_fini(&r.fm);
}

/* A machine stands still for 40 ms, of which 30 are left of a second, or for as long as the
 * host does not let us go on: how long that was. */
static u64 stand_still(struct rig *r, bool load)
{
	struct state_buf saved;
	struct error err;
	u64 start = now_ns();

	advance(r, 970 * MS);
	rtc_class.pause(r->dev);
	fake_save(r->dev, &saved);
	usleep(40000);
	if (load)
		assert_int_equal(device_load(r->dev, &saved, &err), 0);
	rtc_class.resume(r->dev);
	state_buf_fini(&saved);
	return now_ns() - start;
}

static void time_passes_while_the_machine_stands_still_if_it_is_to(void **state)
{
	static const struct {
		enum rtc_clock clock;
		bool load;
		const char *then;
	} cases[] = {
		{RTC_CLOCK_VIRTUAL, false, "20 24 02 28 04 23 59 59"},
		{RTC_CLOCK_HOST, false, "20 24 02 29 05 00 00 00"},
		{RTC_CLOCK_HOST, true, "20 24 02 29 05 00 00 00"},
		{RTC_CLOCK_MONOTONIC, false, "20 24 02 29 05 00 00 00"},
		{RTC_CLOCK_MONOTONIC, true, "20 24 02 28 04 23 59 59"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		struct rig r;

		setup(&r);
		rtc_follow(r.dev, cases[i].clock);
		if (stand_still(&r, cases[i].load) < 900 * MS) {
			assert_time(&r, cases[i].then);
			advance(&r, 30 * MS);
			assert_time(&r, "20 24 02 29 05 00 00 00");
		} else {
			i--; /* that was too long to tell: once more */
		}
		fake_machine_fini(&r.fm);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_runs_and_carries_into_a_leap_day),
		cmocka_unit_test(formats_are_binary_or_bcd_and_12_or_24_hours),
		cmocka_unit_test(set_stops_the_clock_until_it_is_cleared),
		cmocka_unit_test(divider_in_reset_holds_the_clock_for_half_a_second),
		cmocka_unit_test(a_running_clock_takes_single_registers),
		cmocka_unit_test(update_in_progress_shows_before_the_second),
		cmocka_unit_test(update_ended_interrupts_once_a_second),
		cmocka_unit_test(alarm_interrupts_at_its_time),
		cmocka_unit_test(alarm_fields_may_not_care),
		cmocka_unit_test(periodic_interrupts_at_the_chosen_rate),
		cmocka_unit_test(flags_are_set_without_interrupts_too),
		cmocka_unit_test(reset_keeps_time_and_memory),
		cmocka_unit_test(cmos_tells_the_firmware_about_memory),
		cmocka_unit_test(saved_clock_goes_on_where_it_was),
		cmocka_unit_test(dates_agree_with_the_calendar),
		cmocka_unit_test(time_passes_while_the_machine_stands_still_if_it_is_to),
	};

	return cmocka_run_group_tests_name("rtc", tests, NULL, NULL);
}
