/* PIIX3 bridge and PIIX4 power management through their registers. */
#include "devices/i440fx.h"
#include "devices/piix3.h"
#include "devices/piix4pm.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define PM     0x600
#define SCI    9
#define BRIDGE DEVFN(1, 0)
#define POWER  DEVFN(1, 3)

/* The top bit of the timer changes every 2^23 ticks of 3.579545 MHz. */
#define HALF_NS 2343484438ull

struct bench {
	struct fake_machine fm;
	struct device *host, *isa, *pm;
};

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);

	fake_machine_init(&b->fm, MiB);
	b->host = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	b->isa = fake_device(&b->fm, &piix3_class, b->host, NULL);
	b->pm = fake_device(&b->fm, &piix4pm_class, b->host, NULL);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	fake_machine_fini(&b->fm);
	free(b);
	return 0;
}

static void the_functions_are_where_firmware_looks(void **state)
{
	struct bench *b = *state;

	assert_int_equal(pci_read(&b->fm, BRIDGE, 0, 4), 0x70008086);
	assert_int_equal(pci_read(&b->fm, BRIDGE, 0x0e, 1), 0x80);
	assert_int_equal(pci_read(&b->fm, POWER, 0, 4), 0x71138086);
	assert_int_equal(pci_read(&b->fm, POWER, 0x5b, 1), 0x02);
}

static void routing_registers_reach_the_bus(void **state)
{
	struct bench *b = *state;
	struct pci_dev *function = pci_bus_dev(pci_bus_of(b->host), POWER); /* INTA: PIRQA */

	pci_set_intx(function, true);
	pci_write(&b->fm, BRIDGE, 0x60, 1, 11);
	assert_true(b->fm.gsi[11]);
	pci_write(&b->fm, BRIDGE, 0x60, 4, 0x0b0b0a0a);
	assert_false(b->fm.gsi[11]);
	assert_true(b->fm.gsi[10]);
	pci_write(&b->fm, BRIDGE, 0x60, 1, 2); /* the cascade: not to be had */
	assert_false(b->fm.gsi[10] || b->fm.gsi[2]);
	pci_write(&b->fm, BRIDGE, 0x60, 1, 10);
	device_reset(b->isa);
	assert_false(b->fm.gsi[10]);
}

static void edge_of_reset_control_resets_the_machine(void **state)
{
	struct bench *b = *state;

	outb(&b->fm, 0xcf9, 2);
	assert_int_equal(b->fm.requests, 0);
	assert_int_equal(inb(&b->fm, 0xcf9), 2);
	outb(&b->fm, 0xcf9, 6);
	assert_int_equal(b->fm.requests, 1);
	assert_int_equal(b->fm.request, MACHINE_RESET);
	outb(&b->fm, 0xcf9, 6);
	assert_int_equal(b->fm.requests, 1);
	outl(&b->fm, 0xcf8, 0x80000000); /* a configuration address is no reset */
	assert_int_equal(b->fm.requests, 1);
}

static void elcr_keeps_only_what_may_be_level(void **state)
{
	struct bench *b = *state;

	outw(&b->fm, 0x4d0, 0xffff);
	assert_int_equal(inw(&b->fm, 0x4d0), 0xdef8);
}

static void power_button_raises_the_sci_once_acpi_is_on(void **state)
{
	struct bench *b = *state;

	piix4pm_power_button(b->pm);
	assert_int_equal(inw(&b->fm, PM), 0x100);
	assert_false(b->fm.gsi[SCI]);
	outw(&b->fm, PM + 2, 0x100);
	outb(&b->fm, 0xb2, 0xf1);
	assert_int_equal(inw(&b->fm, PM + 4), 1);
	assert_true(b->fm.gsi[SCI]);
	outw(&b->fm, PM, 0x100);
	assert_false(b->fm.gsi[SCI]);
	outb(&b->fm, 0xb2, 0xf0);
	assert_int_equal(inw(&b->fm, PM + 4), 0);
}

static void sleep_type_0_powers_off_and_others_wake_at_once(void **state)
{
	struct bench *b = *state;

	outw(&b->fm, PM + 4, 0x2001 | 1 << 10);
	assert_int_equal(b->fm.requests, 0);
	assert_int_equal(inw(&b->fm, PM) & 0x8000, 0x8000);
	outw(&b->fm, PM + 4, 0x2001);
	assert_int_equal(b->fm.requests, 1);
	assert_int_equal(b->fm.request, MACHINE_SHUTDOWN);
	assert_int_equal(inw(&b->fm, PM + 4), 1);
}

static void timer_counts_at_its_frequency_in_24_bits(void **state)
{
	struct bench *b = *state;
	u32 start = inl(&b->fm, PM + 8);

	clock_advance(b->fm.m.clock, NS_PER_SEC);
	assert_int_equal(inl(&b->fm, PM + 8) - start, 3579545);
	clock_advance(b->fm.m.clock, 10 * (u64)NS_PER_SEC);
	assert_int_equal(inl(&b->fm, PM + 8), 11 * 3579545 & 0xffffff);
}

static void timer_overflow_interrupts_if_enabled(void **state)
{
	struct bench *b = *state;

	outb(&b->fm, 0xb2, 0xf1);
	clock_advance(b->fm.m.clock, HALF_NS - 1000);
	assert_int_equal(inw(&b->fm, PM) & 1, 0);
	clock_advance(b->fm.m.clock, 2000);
	assert_int_equal(inw(&b->fm, PM) & 1, 1);
	assert_false(b->fm.gsi[SCI]);
	outw(&b->fm, PM, 1);
	outw(&b->fm, PM + 2, 1);
	assert_false(b->fm.gsi[SCI]);
	clock_advance(b->fm.m.clock, HALF_NS);
	assert_true(b->fm.gsi[SCI]);
	outw(&b->fm, PM, 1);
	assert_false(b->fm.gsi[SCI]);
}

static void ports_move_where_firmware_puts_them(void **state)
{
	struct bench *b = *state;

	pci_write(&b->fm, POWER, 0x40, 4, 0xb001);
	piix4pm_power_button(b->pm);
	assert_int_equal(inw(&b->fm, 0xb000), 0x100);
	assert_int_equal(inw(&b->fm, PM), 0xffff);
	pci_write(&b->fm, POWER, 0x80, 1, 0);
	assert_int_equal(inw(&b->fm, 0xb000), 0xffff);
}

static void smbus_reports_that_nobody_is_there(void **state)
{
	struct bench *b = *state;

	pci_write(&b->fm, POWER, 0x90, 4, 0x701);
	pci_write(&b->fm, POWER, 0xd2, 1, 9);
	assert_int_equal(inb(&b->fm, 0x700), 0);
	outb(&b->fm, 0x702, 0x48);
	assert_int_equal(inb(&b->fm, 0x700), 4);
	outb(&b->fm, 0x700, 0x1e);
	assert_int_equal(inb(&b->fm, 0x700), 0);
}

#define PIIX_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		PIIX_TEST(the_functions_are_where_firmware_looks),
		PIIX_TEST(routing_registers_reach_the_bus),
		PIIX_TEST(edge_of_reset_control_resets_the_machine),
		PIIX_TEST(elcr_keeps_only_what_may_be_level),
		PIIX_TEST(power_button_raises_the_sci_once_acpi_is_on),
		PIIX_TEST(sleep_type_0_powers_off_and_others_wake_at_once),
		PIIX_TEST(timer_counts_at_its_frequency_in_24_bits),
		PIIX_TEST(timer_overflow_interrupts_if_enabled),
		PIIX_TEST(ports_move_where_firmware_puts_them),
		PIIX_TEST(smbus_reports_that_nobody_is_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
