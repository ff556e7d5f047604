/* System control port A: A20 and the reset edge. */
#include "devices/port92.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void bit_1_is_a20(void **state)
{
	struct fake_machine fm;

	fake_machine_init(&fm, MiB);
	fake_device(&fm, &port92_class, NULL, NULL);
	outb(&fm, 0x92, 0x02);
	assert_true(fm.m.a20);
	assert_int_equal(inb(&fm, 0x92), 0x02);
	outb(&fm, 0x92, 0x00);
	assert_false(fm.m.a20);
	assert_int_equal(fm.requests, 0);
	fake_machine_fini(&fm);
}

static void a_rising_edge_of_bit_0_resets(void **state)
{
	struct fake_machine fm;
	struct device *dev;

	fake_machine_init(&fm, MiB);
	dev = fake_device(&fm, &port92_class, NULL, NULL);
	outb(&fm, 0x92, 0x01);
	assert_int_equal(fm.requests, 1);
	assert_int_equal(fm.request, MACHINE_RESET);
	outb(&fm, 0x92, 0x03); /* still high: no edge */
	assert_int_equal(fm.requests, 1);
	device_reset(dev);
	assert_int_equal(inb(&fm, 0x92), 0x00);
	outb(&fm, 0x92, 0x01);
	assert_int_equal(fm.requests, 2);
	fake_machine_fini(&fm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bit_1_is_a20),
		cmocka_unit_test(a_rising_edge_of_bit_0_resets),
	};

	return cmocka_run_group_tests_name("port92", tests, NULL, NULL);
}
