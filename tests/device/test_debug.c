/* The debug port and the port that ends the process. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/chardev.h"
#include "devices/debug.h"
#include "devices/pvpanic.h"
#include "tests/lib/fake_machine.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

static void bytes_reach_the_stream_and_reads_give_e9(void **state)
{
	struct prop_value values[] = {{.name = "chardev"}, {.name = "iobase", .text = "0x402"}};
	struct device_args args = {.values = values, .n_values = 2};
	struct fake_machine fm;
	struct chardev *c;
	struct device *dev;
	struct loop *loop;
	struct error err;
	char text[3] = "";
	int host[2];

	fake_machine_init(&fm, 1 * MiB);
	assert_int_equal(loop_new(&loop, "main", LOOP_AUTO, &err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, host), 0);
	assert_int_equal(chardev_from_fds(&c, loop, "debug", host[0], host[0], &err), 0);
	values[0].ptr = c;
	assert_int_equal(device_new(&dev, &fm.m, &debugcon_class, &args, &err), 0);

	assert_int_equal(inb(&fm, 0x402), 0xe9);
	outb(&fm, 0x402, 'o');
	outb(&fm, 0x402, 'k');
	assert_int_equal(read(host[1], text, 2), 2);
	assert_string_equal(text, "ok");

	device_free(dev);
	chardev_close(c);
	loop_free(loop);
	close(host[1]);
	fake_machine_fini(&fm);
}

static void a_write_asks_for_the_end_with_an_odd_status(void **state)
{
	struct fake_machine fm;
	struct device *dev;
	struct error err;

	fake_machine_init(&fm, 1 * MiB);
	assert_int_equal(device_new(&dev, &fm.m, &debug_exit_class, NULL, &err), 0);
	assert_int_equal(inb(&fm, 0x501), 0);
	outb(&fm, 0x501, 0x31);
	assert_int_equal(fm.request, MACHINE_EXIT);
	assert_int_equal(fm.request_code, 0x63);
	device_free(dev);
	fake_machine_fini(&fm);
}

static void a_crash_is_reported_if_the_event_is_on_offer(void **state)
{
	struct prop_value value = {.name = "events", .text = "2"};
	struct device_args args = {.values = &value, .n_values = 1};
	struct fake_machine fm;
	struct device *dev;
	struct error err;

	fake_machine_init(&fm, 1 * MiB);
	assert_int_equal(device_new(&dev, &fm.m, &pvpanic_class, NULL, &err), 0);
	assert_int_equal(inb(&fm, 0x505), 3);
	outb(&fm, 0x505, 2);
	assert_int_equal(fm.requests, 0);
	outb(&fm, 0x505, 1);
	assert_int_equal(fm.requests, 1);
	assert_int_equal(fm.request, MACHINE_PANIC);
	device_free(dev);
	assert_int_equal(device_new(&dev, &fm.m, &pvpanic_class, &args, &err), 0);
	outb(&fm, 0x505, 1);
	assert_int_equal(fm.requests, 1);
	device_free(dev);
	fake_machine_fini(&fm);
}

static void a_size_beyond_four_ports_is_refused(void **state)
{
	struct prop_value value = {.name = "iosize", .text = "5"};
	struct device_args args = {.values = &value, .n_values = 1};
	struct fake_machine fm;
	struct device *dev;
	struct error err;

	fake_machine_init(&fm, 1 * MiB);
	assert_int_equal(device_new(&dev, &fm.m, &debug_exit_class, &args, &err), -EINVAL);
	assert_string_equal(err.text, "isa-debug-exit: iosize is 5, expected 1..4");
	fake_machine_fini(&fm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_reach_the_stream_and_reads_give_e9),
		cmocka_unit_test(a_write_asks_for_the_end_with_an_odd_status),
		cmocka_unit_test(a_crash_is_reported_if_the_event_is_on_offer),
		cmocka_unit_test(a_size_beyond_four_ports_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
