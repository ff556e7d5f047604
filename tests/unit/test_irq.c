/* Interrupt lines that are shared, pulsed and rerouted; MSI; eventfd routes. */
#include "vmm/core/irq.h"

#include "base/io.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

struct chip {
	char text[256];
	int add_result, last_fd;
};

static void append(struct chip *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void append(struct chip *c, const char *fmt, ...)
{
	size_t len = strlen(c->text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->text + len, sizeof(c->text) - len, fmt, ap);
	va_end(ap);
}

static void set_gsi(void *arg, u32 gsi, bool level)
{
	append(arg, "%u%c ", gsi, level ? '+' : '-');
}

static void msi(void *arg, u64 addr, u32 data)
{
	append(arg, "msi %llx %x ", (unsigned long long)addr, data);
}

static int route_add(void *arg, int fd, u64 addr, u32 data, u32 *handle)
{
	struct chip *c = arg;

	append(c, "add %llx %x ", (unsigned long long)addr, data);
	c->last_fd = fd;
	*handle = 5;
	return c->add_result;
}

static int route_set(void *arg, u32 handle, u64 addr, u32 data)
{
	append(arg, "set %u %llx %x ", handle, (unsigned long long)addr, data);
	return 0;
}

static void route_del(void *arg, u32 handle, int fd)
{
	struct chip *c = arg;

	assert_int_equal(fd, c->last_fd);
	append(c, "del %u ", handle);
}

static const struct irq_ops ops = {set_gsi, msi, route_add, route_set, route_del};

static void a_shared_line_is_high_while_any_source_is(void **state)
{
	struct chip chip = {.last_fd = -1};
	struct irq *irq;
	struct irq_line a, b;

	irq_new(&irq, &ops, &chip);
	irq_line_init(&a, irq, 11);
	irq_line_init(&b, irq, 11);
	irq_line_set(&a, true);
	irq_line_set(&a, true); /* again: counts once */
	irq_line_set(&b, true);
	irq_line_set(&a, false);
	assert_true(irq_level(irq, 11));
	assert_string_equal(chip.text, "11+ ");
	irq_line_set(&b, false);
	assert_false(irq_level(irq, 11));
	assert_string_equal(chip.text, "11+ 11- ");
	assert_int_equal(irq_count(irq, 11), 1);
	irq_free(irq);
}

static void a_pulse_is_up_and_down(void **state)
{
	struct chip chip = {.last_fd = -1};
	struct irq *irq;
	struct irq_line a;

	irq_new(&irq, &ops, &chip);
	irq_line_init(&a, irq, 4);
	irq_line_pulse(&a);
	irq_line_pulse(&a);
	assert_string_equal(chip.text, "4+ 4- 4+ 4- ");
	assert_int_equal(irq_count(irq, 4), 2);
	irq_free(irq);
}

static void a_rerouted_line_takes_its_level_along(void **state)
{
	struct chip chip = {.last_fd = -1};
	struct irq *irq;
	struct irq_line a, b;

	irq_new(&irq, &ops, &chip);
	irq_line_init(&a, irq, 10);
	irq_line_init(&b, irq, 10);
	irq_line_set(&a, true);
	irq_line_set(&b, true);
	irq_line_reroute(&a, 11);
	assert_string_equal(chip.text, "10+ 11+ "); /* b still holds 10 */
	irq_line_reroute(&b, IRQ_NONE);
	assert_string_equal(chip.text, "10+ 11+ 10- ");
	irq_line_set(&b, false);
	irq_line_reroute(&b, 10);
	assert_false(irq_level(irq, 10));
	assert_true(irq_level(irq, 11));
	irq_free(irq);
}

static void an_unconnected_line_does_nothing(void **state)
{
	struct chip chip = {.last_fd = -1};
	struct irq *irq;
	struct irq_line a;

	irq_new(&irq, &ops, &chip);
	irq_line_init(&a, irq, IRQ_NONE);
	irq_line_set(&a, true);
	irq_line_pulse(&a);
	assert_string_equal(chip.text, "");
	irq_free(irq);
}

static void messages_pass_through(void **state)
{
	struct chip chip = {.last_fd = -1};
	struct irq *irq;

	irq_new(&irq, &ops, &chip);
	irq_msi(irq, 0xfee00000, 0x4041);
	assert_string_equal(chip.text, "msi fee00000 4041 ");
	irq_free(irq);
}

static void a_route_carries_signals_in_its_eventfd(void **state)
{
	struct chip chip = {.last_fd = -1};
	struct irq *irq;
	struct irq_route route;
	u64 n = 0;

	irq_new(&irq, &ops, &chip);
	assert_int_equal(irq_route_add(irq, &route, 0xfee01000, 0x31), 0);
	irq_route_signal(&route);
	irq_route_signal(&route);
	assert_int_equal(sys_read(route.fd, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 2);
	assert_int_equal(irq_route_set(&route, 0xfee02000, 0x32), 0);
	irq_route_del(&route);
	irq_route_del(&route); /* twice is harmless */
	assert_string_equal(chip.text, "add fee01000 31 set 5 fee02000 32 del 5 ");
	irq_free(irq);
}

static void a_refused_route_leaves_nothing(void **state)
{
	struct chip chip = {.add_result = -ENOSPC};
	struct irq *irq;
	struct irq_route route;

	irq_new(&irq, &ops, &chip);
	assert_int_equal(irq_route_add(irq, &route, 0, 0), -ENOSPC);
	assert_int_equal(route.fd, -1);
	irq_route_del(&route);
	irq_free(irq);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_shared_line_is_high_while_any_source_is),
		cmocka_unit_test(a_pulse_is_up_and_down),
		cmocka_unit_test(a_rerouted_line_takes_its_level_along),
		cmocka_unit_test(an_unconnected_line_does_nothing),
		cmocka_unit_test(messages_pass_through),
		cmocka_unit_test(a_route_carries_signals_in_its_eventfd),
		cmocka_unit_test(a_refused_route_leaves_nothing),
	};

	return cmocka_run_group_tests_name("irq", tests, NULL, NULL);
}
