/* 16550A: registers, FIFO, interrupts, flow control towards a chardev. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/chardev.h"
#include "base/thread.h"
#include "devices/serial.h"
#include "tests/lib/fake_machine.h"
#include "tests/lib/turns.h"

#include <sys/socket.h>
#include <unistd.h>

#define COM1 0x3f8
enum { DATA = COM1, IER, IIR, LCR, MCR, LSR, MSR, SCR };

struct rig {
	struct fake_machine fm;
	struct loop *loop;
	struct chardev *c;
	struct device *dev;
	int host[2];
};

static void turn(struct rig *r)
{
	run_turns(r->loop, 10);
}

static void setup(struct rig *r)
{
	struct prop_value value = {.name = "chardev"};
	struct device_args args = {.values = &value, .n_values = 1};
	struct error err = {0};

	memset(r, 0, sizeof(*r));
	fake_machine_init(&r->fm, 1 * MiB);
	assert_int_equal(loop_new(&r->loop, "main", LOOP_AUTO, &err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, r->host), 0);
	assert_int_equal(chardev_from_fds(&r->c, r->loop, "serial0", r->host[0], r->host[0], &err),
			 0);
	value.ptr = r->c;
	assert_int_equal(device_new(&r->dev, &r->fm.m, &serial_class, &args, &err), 0);
}

static void teardown(struct rig *r)
{
	fake_machine_fini(&r->fm);
	chardev_close(r->c);
	loop_free(r->loop);
	close(r->host[1]);
}

static void bytes_go_out_at_once_and_the_transmitter_stays_empty(void **state)
{
	static struct rig r;
	char got[8];

	setup(&r);
	for (const char *s = "hello"; *s; s++) {
		assert_int_equal(inb(&r.fm, LSR) & 0x60, 0x60);
		outb(&r.fm, DATA, (u8)*s);
	}
	assert_int_equal(read(r.host[1], got, sizeof(got)), 5);
	assert_memory_equal(got, "hello", 5);
	teardown(&r);
}

static void empty_transmitter_interrupts_once(void **state)
{
	static struct rig r;

	setup(&r);
	outb(&r.fm, IER, 2);
	assert_true(r.fm.gsi[4]);
	assert_int_equal(inb(&r.fm, IIR), 0x02);
	assert_false(r.fm.gsi[4]);
	assert_int_equal(inb(&r.fm, IIR), 0x01);
	outb(&r.fm, DATA, 'x');
	assert_true(r.fm.gsi[4]);
	assert_int_equal(inb(&r.fm, IIR), 0x02);
	assert_false(r.fm.gsi[4]);
	teardown(&r);
}

static void input_beyond_the_fifo_waits_on_the_host(void **state)
{
	static struct rig r;

	setup(&r);
	outb(&r.fm, IIR, 0x81); /* FIFO on, trigger at 8 */
	outb(&r.fm, IER, 1);
	assert_int_equal(write(r.host[1], "0123456789abcdefghij", 20), 20);
	turn(&r);
	assert_true(r.fm.gsi[4]);
	assert_int_equal(inb(&r.fm, IIR), 0xc4);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(inb(&r.fm, LSR) & 3, 1); /* data, no overrun */
		assert_int_equal(inb(&r.fm, DATA), "0123456789abcdefghij"[i]);
		turn(&r);
	}
	assert_int_equal(inb(&r.fm, LSR) & 1, 0);
	assert_false(r.fm.gsi[4]);
	teardown(&r);
}

static void a_few_bytes_below_the_trigger_time_out(void **state)
{
	static struct rig r;

	setup(&r);
	outb(&r.fm, IIR, 0xc1);
	outb(&r.fm, IER, 1);
	assert_int_equal(write(r.host[1], "ab", 2), 2);
	turn(&r);
	assert_int_equal(inb(&r.fm, IIR), 0xcc);
	assert_true(r.fm.gsi[4]);
	teardown(&r);
}

static void loopback_returns_data_and_modem_lines(void **state)
{
	static struct rig r;

	setup(&r);
	outb(&r.fm, MCR, 0x1a); /* loop, OUT2, RTS */
	assert_int_equal(inb(&r.fm, MSR) & 0xf0, 0x90);
	outb(&r.fm, DATA, 'q');
	assert_int_equal(inb(&r.fm, LSR) & 1, 1);
	assert_int_equal(inb(&r.fm, DATA), 'q');
	outb(&r.fm, DATA, '1');
	outb(&r.fm, DATA, '2'); /* no FIFO: overrun */
	assert_int_equal(inb(&r.fm, LSR) & 2, 2);
	assert_int_equal(inb(&r.fm, LSR) & 2, 0);
	teardown(&r);
}

static void the_divisor_hides_behind_dlab(void **state)
{
	static struct rig r;

	setup(&r);
	outb(&r.fm, LCR, 0x83);
	outb(&r.fm, DATA, 0x01);
	outb(&r.fm, IER, 0x02);
	assert_int_equal(inb(&r.fm, DATA), 0x01);
	assert_int_equal(inb(&r.fm, IER), 0x02);
	outb(&r.fm, LCR, 0x03);
	assert_int_equal(inb(&r.fm, IER), 0);
	outb(&r.fm, SCR, 0x5a);
	assert_int_equal(inb(&r.fm, SCR), 0x5a);
	teardown(&r);
}

static void a_connected_peer_is_carrier(void **state)
{
	static struct rig r;

	setup(&r);
	assert_int_equal(inb(&r.fm, MSR) & 0xb0, 0xb0);
	teardown(&r);
}

static void state_survives_save_and_load(void **state)
{
	static struct rig r;
	struct state_buf buf = {0};
	struct error err = {0};

	setup(&r);
	outb(&r.fm, IIR, 0x81);
	outb(&r.fm, IER, 1);
	assert_int_equal(write(r.host[1], "xyz", 3), 3);
	turn(&r);
	fake_save(r.dev, &buf);
	device_reset(r.dev);
	assert_false(r.fm.gsi[4]);
	assert_int_equal(device_load(r.dev, &buf, &err), 0);
	assert_true(r.fm.gsi[4]);
	assert_int_equal(inb(&r.fm, DATA), 'x');
	assert_int_equal(inb(&r.fm, DATA), 'y');
	assert_int_equal(inb(&r.fm, DATA), 'z');
	state_buf_fini(&buf);
	teardown(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_go_out_at_once_and_the_transmitter_stays_empty),
		cmocka_unit_test(empty_transmitter_interrupts_once),
		cmocka_unit_test(input_beyond_the_fifo_waits_on_the_host),
		cmocka_unit_test(a_few_bytes_below_the_trigger_time_out),
		cmocka_unit_test(loopback_returns_data_and_modem_lines),
		cmocka_unit_test(the_divisor_hides_behind_dlab),
		cmocka_unit_test(a_connected_peer_is_carrier),
		cmocka_unit_test(state_survives_save_and_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
