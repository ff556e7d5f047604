/* i8042, keyboard and mouse through ports 0x60 and 0x64. */
#include "devices/ps2.h"
#include "tests/lib/fake_machine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define KBD_IRQ	  1
#define MOUSE_IRQ 12

struct rig {
	struct fake_machine fm;
	struct device *dev;
};

static void setup(struct rig *r)
{
	fake_machine_init(&r->fm, MiB);
	r->dev = fake_device(&r->fm, &i8042_class, NULL, NULL);
}

static void teardown(struct rig *r)
{
	fake_machine_fini(&r->fm);
}

static void command(struct rig *r, u8 value)
{
	outb(&r->fm, 0x64, value);
}

static void data(struct rig *r, u8 value)
{
	outb(&r->fm, 0x60, value);
}

static void to_mouse(struct rig *r, u8 value)
{
	command(r, 0xd4);
	data(r, value);
}

/* All bytes that wait, in hex; "m" in front of the mouse's. */
static const char *drain(struct rig *r)
{
	static char text[512];
	size_t len = 0;
	u8 status;

	text[0] = '\0';
	while ((status = inb(&r->fm, 0x64)) & 1 && len < sizeof(text) - 8)
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s%02x", len ? " " : "",
					status & 0x20 ? "m" : "", inb(&r->fm, 0x60));
	return text;
}

static void set_mode(struct rig *r, u8 mode)
{
	command(r, 0x60);
	data(r, mode);
}

static const char *key(struct rig *r, u32 code, bool pressed)
{
	assert_int_equal(ps2_key(r->dev, code, pressed), 0);
	return drain(r);
}

/* --- controller ----------------------------------------------------------------- */

static void controller_tests_itself_and_its_lines(void **state)
{
	struct rig r;

	setup(&r);
	assert_int_equal(inb(&r.fm, 0x64), 0x10);
	command(&r, 0xaa);
	assert_int_equal(inb(&r.fm, 0x64), 0x1d); /* full, system, command */
	assert_string_equal(drain(&r), "55");
	command(&r, 0xab);
	assert_string_equal(drain(&r), "00");
	command(&r, 0xa9);
	assert_string_equal(drain(&r), "00");
	assert_int_equal(inb(&r.fm, 0x64) & 0x21, 0);
	teardown(&r);
}

static void mode_byte_and_memory_are_read_back(void **state)
{
	struct rig r;

	setup(&r);
	set_mode(&r, 0x65);
	command(&r, 0x20);
	assert_string_equal(drain(&r), "65");
	command(&r, 0xa7);
	command(&r, 0xad);
	command(&r, 0x20);
	assert_string_equal(drain(&r), "75");
	command(&r, 0xa8);
	command(&r, 0xae);
	command(&r, 0x20);
	assert_string_equal(drain(&r), "45");
	command(&r, 0x7f);
	data(&r, 0x99);
	command(&r, 0x3f);
	assert_string_equal(drain(&r), "99");
	teardown(&r);
}

static void output_port_gates_a20_and_resets(void **state)
{
	struct rig r;

	setup(&r);
	command(&r, 0xdd);
	assert_false(r.fm.m.a20);
	command(&r, 0xdf);
	assert_true(r.fm.m.a20);
	command(&r, 0xd1);
	data(&r, 0x01);
	assert_false(r.fm.m.a20);
	assert_int_equal(r.fm.requests, 0);
	command(&r, 0xd0);
	assert_string_equal(drain(&r), "01");
	command(&r, 0xd1);
	data(&r, 0x02);
	assert_int_equal(r.fm.requests, 1);
	command(&r, 0xff); /* pulses nothing */
	assert_int_equal(r.fm.requests, 1);
	command(&r, 0xfe);
	assert_int_equal(r.fm.requests, 2);
	assert_int_equal(r.fm.request, MACHINE_RESET);
	teardown(&r);
}

static void written_output_buffer_looks_like_a_device(void **state)
{
	struct rig r;

	setup(&r);
	command(&r, 0xd2);
	data(&r, 0x42);
	assert_true(r.fm.gsi[KBD_IRQ]);
	assert_string_equal(drain(&r), "42");
	command(&r, 0xd3);
	data(&r, 0x43);
	assert_true(r.fm.gsi[MOUSE_IRQ]);
	assert_false(r.fm.gsi[KBD_IRQ]);
	assert_string_equal(drain(&r), "m43");
	assert_false(r.fm.gsi[MOUSE_IRQ]);
	teardown(&r);
}

static void a_reply_does_not_lose_a_key(void **state)
{
	struct rig r;

	setup(&r);
	assert_int_equal(ps2_key(r.dev, 0x1e, true), 0);
	command(&r, 0x20);
	assert_string_equal(drain(&r), "03 1c");
	teardown(&r);
}

/* --- keyboard ------------------------------------------------------------------- */

static void keyboard_answers_commands(void **state)
{
	struct rig r;

	setup(&r);
	data(&r, 0xff);
	assert_string_equal(drain(&r), "fa aa");
	data(&r, 0xf2);
	assert_string_equal(drain(&r), "fa ab 83");
	data(&r, 0xee);
	assert_string_equal(drain(&r), "ee");
	data(&r, 0xed);
	data(&r, 0x07);
	assert_string_equal(drain(&r), "fa fa");
	data(&r, 0xf0);
	data(&r, 0x00);
	assert_string_equal(drain(&r), "fa fa 02");
	data(&r, 0xf0);
	data(&r, 0x04);
	assert_string_equal(drain(&r), "fa fe");
	data(&r, 0x55);
	assert_string_equal(drain(&r), "fe");
	data(&r, 0xf2);
	inb(&r.fm, 0x60);
	inb(&r.fm, 0x60);
	data(&r, 0xfe); /* again what came last */
	assert_string_equal(drain(&r), "83 83");
	teardown(&r);
}

static void keys_come_in_the_chosen_scan_code_set(void **state)
{
	struct rig r;

	setup(&r);
	assert_string_equal(key(&r, 0x1e, true), "1c"); /* set 2, not translated */
	assert_string_equal(key(&r, 0x1e, false), "f0 1c");
	assert_string_equal(key(&r, 0xc8, true), "e0 75");
	assert_string_equal(key(&r, 0xc8, false), "e0 f0 75");
	set_mode(&r, 0x40);
	assert_string_equal(key(&r, 0x1e, true), "1e"); /* translated to set 1 */
	assert_string_equal(key(&r, 0x1e, false), "9e");
	assert_string_equal(key(&r, 0xc8, true), "e0 48");
	assert_string_equal(key(&r, 0xc8, false), "e0 c8");
	set_mode(&r, 0x00);
	data(&r, 0xf0);
	data(&r, 0x01);
	drain(&r);
	assert_string_equal(key(&r, 0x1e, false), "9e");
	assert_string_equal(key(&r, 0xc8, false), "e0 c8");
	data(&r, 0xf0);
	data(&r, 0x03);
	drain(&r);
	assert_string_equal(key(&r, 0x1e, false), "f0 1c");
	assert_string_equal(key(&r, 0xc8, true), "63");
	assert_string_equal(key(&r, 0x01, true), "08");
	teardown(&r);
}

static void every_plain_key_translates_to_itself(void **state)
{
	struct rig r;

	setup(&r);
	set_mode(&r, 0x40);
	for (u32 code = 1; code <= 0x58; code++) {
		char expected[16];

		if (code == 0x55)
			continue;
		snprintf(expected, sizeof(expected), "%02x", code);
		assert_string_equal(key(&r, code, true), expected);
		snprintf(expected, sizeof(expected), "%02x", code | 0x80);
		assert_string_equal(key(&r, code, false), expected);
	}
	teardown(&r);
}

static void pause_and_print_screen_are_special(void **state)
{
	struct rig r;

	setup(&r);
	set_mode(&r, 0x40);
	assert_string_equal(key(&r, 0xc6, true), "e1 1d 45 e1 9d c5");
	assert_string_equal(key(&r, 0xc6, false), "");
	assert_string_equal(key(&r, 0xb7, true), "e0 2a e0 37");
	assert_string_equal(key(&r, 0xb7, false), "e0 b7 e0 aa");
	assert_int_equal(ps2_key(r.dev, 0, true), -EINVAL);
	assert_int_equal(ps2_key(r.dev, 0x80, true), -EINVAL);
	assert_int_equal(ps2_key(r.dev, 0x11e, true), -EINVAL);
	teardown(&r);
}

static void each_byte_of_a_key_interrupts(void **state)
{
	struct rig r;

	setup(&r);
	ps2_key(r.dev, 0xc8, true);
	assert_true(r.fm.gsi[KBD_IRQ]);
	inb(&r.fm, 0x60);
	assert_true(r.fm.gsi[KBD_IRQ]);
	inb(&r.fm, 0x60);
	assert_false(r.fm.gsi[KBD_IRQ]);
	assert_int_equal(r.fm.rises[KBD_IRQ], 2);
	set_mode(&r, 0x00); /* no interrupts */
	ps2_key(r.dev, 0x1e, true);
	assert_false(r.fm.gsi[KBD_IRQ]);
	set_mode(&r, 0x01);
	assert_true(r.fm.gsi[KBD_IRQ]);
	teardown(&r);
}

static void a_disabled_keyboard_keeps_or_refuses_keys(void **state)
{
	struct rig r;
	int ret = 0;

	setup(&r);
	command(&r, 0xad); /* the line is off: keys wait */
	assert_string_equal(key(&r, 0x1e, true), "");
	command(&r, 0xae);
	assert_string_equal(drain(&r), "1c");
	data(&r, 0xf5); /* scanning is off: there are none */
	drain(&r);
	assert_int_equal(ps2_key(r.dev, 0x1e, true), -EBUSY);
	data(&r, 0xf4);
	drain(&r);
	for (int i = 0; ret == 0 && i < 1000; i++)
		ret = ps2_key(r.dev, 0xc8, true);
	assert_int_equal(ret, -EBUSY); /* nobody reads */
	teardown(&r);
}

/* --- mouse ---------------------------------------------------------------------- */

static void mouse_on(struct rig *r)
{
	to_mouse(r, 0xf4);
	assert_string_equal(drain(r), "mfa");
}

static void rates(struct rig *r, u8 a, u8 b, u8 c)
{
	const u8 all[] = {a, b, c};

	for (unsigned i = 0; i < 3; i++) {
		to_mouse(r, 0xf3);
		to_mouse(r, all[i]);
	}
	drain(r);
}

static void mouse_answers_commands(void **state)
{
	struct rig r;

	setup(&r);
	to_mouse(&r, 0xff);
	assert_string_equal(drain(&r), "mfa maa m00");
	to_mouse(&r, 0xf2);
	assert_string_equal(drain(&r), "mfa m00");
	to_mouse(&r, 0xe8);
	to_mouse(&r, 0x03);
	to_mouse(&r, 0xe9);
	assert_string_equal(drain(&r), "mfa mfa mfa m00 m03 m64");
	to_mouse(&r, 0xee); /* wrap: an echo of everything */
	to_mouse(&r, 0x12);
	to_mouse(&r, 0xf2);
	to_mouse(&r, 0xec);
	assert_string_equal(drain(&r), "mfa m12 mf2 mfa");
	to_mouse(&r, 0x33);
	assert_string_equal(drain(&r), "mfe");
	teardown(&r);
}

static void plain_packets_have_signs_and_buttons(void **state)
{
	struct rig r;

	setup(&r);
	assert_int_equal(ps2_mouse(r.dev, 1, 1, 0, 0), -EBUSY); /* nobody listens */
	assert_false(ps2_mouse_is_on(r.dev));
	mouse_on(&r);
	assert_true(ps2_mouse_is_on(r.dev));
	ps2_mouse(r.dev, 5, -3, 0, PS2_LEFT);
	assert_true(r.fm.gsi[MOUSE_IRQ]);
	assert_string_equal(drain(&r), "m09 m05 m03");
	ps2_mouse(r.dev, -5, 3, 1, PS2_LEFT);
	assert_string_equal(drain(&r), "m39 mfb mfd");
	ps2_mouse(r.dev, 300, 0, 0, 0); /* in two steps */
	assert_string_equal(drain(&r), "m08 mff m00 m08 m2d m00");
	ps2_mouse(r.dev, 0, 0, 0, 0);
	assert_string_equal(drain(&r), "");
	teardown(&r);
}

static void magic_rates_bring_wheel_and_buttons(void **state)
{
	struct rig r;

	setup(&r);
	rates(&r, 200, 200, 80);
	to_mouse(&r, 0xf2);
	assert_string_equal(drain(&r), "mfa m00");
	rates(&r, 200, 100, 80);
	to_mouse(&r, 0xf2);
	assert_string_equal(drain(&r), "mfa m03");
	mouse_on(&r);
	ps2_mouse(r.dev, 0, 0, -2, 0);
	assert_string_equal(drain(&r), "m08 m00 m00 mfe");
	rates(&r, 200, 200, 80);
	to_mouse(&r, 0xf2);
	assert_string_equal(drain(&r), "mfa m04");
	ps2_mouse(r.dev, 0, 0, -1, PS2_SIDE);
	assert_string_equal(drain(&r), "m08 m00 m00 m1f");
	teardown(&r);
}

static void a_slow_guest_gets_all_of_the_way(void **state)
{
	struct rig r;
	int x = 0;

	setup(&r);
	mouse_on(&r);
	for (int i = 0; i < 1000; i++)
		ps2_mouse(r.dev, 7, 0, 0, 0);
	while (inb(&r.fm, 0x64) & 1) {
		u8 flags = inb(&r.fm, 0x60);

		assert_int_equal(flags, 0x08);
		x += inb(&r.fm, 0x60);
		inb(&r.fm, 0x60);
	}
	assert_int_equal(x, 7000);
	teardown(&r);
}

static void remote_mouse_reports_when_asked(void **state)
{
	struct rig r;

	setup(&r);
	to_mouse(&r, 0xf0);
	drain(&r);
	mouse_on(&r);
	ps2_mouse(r.dev, 2, 0, 0, PS2_RIGHT);
	assert_string_equal(drain(&r), "");
	to_mouse(&r, 0xeb);
	assert_string_equal(drain(&r), "mfa m0a m02 m00");
	teardown(&r);
}

static void reset_forgets_everything(void **state)
{
	struct rig r;

	setup(&r);
	mouse_on(&r);
	set_mode(&r, 0x43);
	ps2_key(r.dev, 0x1e, true);
	ps2_mouse(r.dev, 1, 1, 0, 0);
	assert_true(r.fm.gsi[KBD_IRQ]);
	device_reset(r.dev);
	assert_false(r.fm.gsi[KBD_IRQ]);
	assert_string_equal(drain(&r), "");
	assert_int_equal(ps2_mouse(r.dev, 1, 1, 0, 0), -EBUSY);
	assert_string_equal(key(&r, 0x1e, true), "1c");
	teardown(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(controller_tests_itself_and_its_lines),
		cmocka_unit_test(mode_byte_and_memory_are_read_back),
		cmocka_unit_test(output_port_gates_a20_and_resets),
		cmocka_unit_test(written_output_buffer_looks_like_a_device),
		cmocka_unit_test(a_reply_does_not_lose_a_key),
		cmocka_unit_test(keyboard_answers_commands),
		cmocka_unit_test(keys_come_in_the_chosen_scan_code_set),
		cmocka_unit_test(every_plain_key_translates_to_itself),
		cmocka_unit_test(pause_and_print_screen_are_special),
		cmocka_unit_test(each_byte_of_a_key_interrupts),
		cmocka_unit_test(a_disabled_keyboard_keeps_or_refuses_keys),
		cmocka_unit_test(mouse_answers_commands),
		cmocka_unit_test(plain_packets_have_signs_and_buttons),
		cmocka_unit_test(magic_rates_bring_wheel_and_buttons),
		cmocka_unit_test(a_slow_guest_gets_all_of_the_way),
		cmocka_unit_test(remote_mouse_reports_when_asked),
		cmocka_unit_test(reset_forgets_everything),
	};

	return cmocka_run_group_tests_name("ps2", tests, NULL, NULL);
}
