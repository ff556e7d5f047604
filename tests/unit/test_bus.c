/* Buses: overlaps, widths, moves, doorbells without KVM. */
#include "vmm/core/bus.h"

#include "base/io.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

/* A device that journals calls; reads give bytes that tell their offset. */
struct dev {
	char name;
	char text[256];
	struct mutex *lock;
	struct bus_region *unmap_me;
};

static void note(struct dev *d, const char *what, u64 off, unsigned size, u64 value)
{
	size_t len = strlen(d->text);

	snprintf(d->text + len, sizeof(d->text) - len, "%s%llx/%u=%llx ", what,
		 (unsigned long long)off, size, (unsigned long long)value);
}

static u64 dev_read(void *owner, u64 off, unsigned size)
{
	struct dev *d = owner;
	u64 value = 0;

	if (d->lock)
		assert_true(mutex_held(d->lock));
	for (unsigned i = 0; i < size; i++)
		value |= (u64)(u8)(d->name * 16 + off + i) << (8 * i);
	note(d, "r", off, size, value);
	return value;
}

static void dev_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct dev *d = owner;

	note(d, "w", off, size, value);
	bus_unmap(d->unmap_me);
	d->unmap_me = NULL;
}

static const struct bus_ops any_ops = {dev_read, dev_write, 1, 8};
static const struct bus_ops byte_ops = {dev_read, dev_write, 1, 1};
static const struct bus_ops default_ops = {dev_read, dev_write, 0, 0};
static const struct bus_ops dword_ops = {dev_read, dev_write, 4, 4};

static struct bus *new_bus(void)
{
	struct bus *bus;

	assert_int_equal(bus_new(&bus, "test", 0x10000), 0);
	return bus;
}

static struct bus_region *map(struct bus *bus, struct dev *d, u64 addr, u64 bytes, int priority,
			      const struct bus_ops *ops)
{
	struct bus_place place = {
		.name = "dev", .addr = addr, .bytes = bytes, .priority = priority};
	struct bus_region *r = NULL;

	assert_int_equal(bus_map(bus, &r, &place, ops, d, d->lock), 0);
	return r;
}

static u64 peek(struct bus *bus, u64 addr, unsigned size)
{
	u64 value;

	bus_read(bus, addr, size, &value);
	return value;
}

static void unclaimed_reads_give_ones_and_writes_vanish(void **state)
{
	struct bus *bus = new_bus();
	u64 value;

	assert_false(bus_read(bus, 0x80, 1, &value));
	assert_int_equal(value, 0xff);
	assert_false(bus_read(bus, 0x80, 4, &value));
	assert_int_equal(value, 0xffffffff);
	assert_false(bus_read(bus, 0xfffe, 8, &value)); /* across the limit */
	assert_true(value == UINT64_MAX);
	assert_false(bus_write(bus, 0x80, 2, 1));
	bus_free(bus);
}

static void handler_is_called_with_its_lock_and_offset(void **state)
{
	struct bus *bus = new_bus();
	struct mutex lock;
	struct dev d = {.name = 1, .lock = &lock};

	mutex_init(&lock);
	map(bus, &d, 0x60, 8, 0, &any_ops);
	assert_int_equal(peek(bus, 0x64, 1), 0x14);
	assert_false(mutex_held(&lock));
	assert_true(bus_write(bus, 0x61, 1, 0x3ff));
	assert_string_equal(d.text, "r4/1=14 w1/1=ff ");
	bus_free(bus);
	mutex_fini(&lock);
}

static void wide_access_is_split_for_a_narrow_device(void **state)
{
	struct bus *bus = new_bus();
	struct dev d = {.name = 1};

	map(bus, &d, 0x60, 8, 0, &byte_ops);
	assert_int_equal(peek(bus, 0x61, 2), 0x1211);
	bus_write(bus, 0x62, 4, 0x44332211);
	assert_string_equal(d.text, "r1/1=11 r2/1=12 w2/1=11 w3/1=22 w4/1=33 w5/1=44 ");
	bus_free(bus);
}

static void default_widths_are_one_to_four(void **state)
{
	struct bus *bus = new_bus();
	struct dev d = {.name = 0};

	map(bus, &d, 0x60, 8, 0, &default_ops);
	assert_true(peek(bus, 0x60, 8) == 0x0706050403020100);
	assert_string_equal(d.text, "r0/4=3020100 r4/4=7060504 ");
	bus_free(bus);
}

static void narrow_access_is_widened_for_a_dword_device(void **state)
{
	struct bus *bus = new_bus();
	struct dev d = {.name = 0};

	map(bus, &d, 0x60, 8, 0, &dword_ops);
	assert_int_equal(peek(bus, 0x62, 1), 0x02);
	assert_int_equal(peek(bus, 0x66, 2), 0x0706);
	assert_int_equal(peek(bus, 0x63, 2), 0x0403); /* across two registers */
	bus_write(bus, 0x65, 1, 0xab);
	assert_string_equal(d.text, "r0/4=3020100 r4/4=7060504 r0/4=3020100 r4/4=7060504 "
				    "w4/4=ab00 ");
	bus_free(bus);
}

static void access_across_two_devices_reaches_both(void **state)
{
	struct bus *bus = new_bus();
	struct dev a = {.name = 1}, b = {.name = 2};
	u64 value;

	map(bus, &a, 0x60, 2, 0, &any_ops);
	map(bus, &b, 0x63, 1, 0, &any_ops);
	assert_true(bus_read(bus, 0x60, 4, &value));
	assert_int_equal(value, 0x20ff1110); /* nobody has 0x62 */
	assert_string_equal(a.text, "r0/2=1110 ");
	assert_string_equal(b.text, "r0/1=20 ");
	bus_free(bus);
}

static void higher_priority_hides_what_lies_below(void **state)
{
	struct bus *bus = new_bus();
	struct dev low = {.name = 1}, high = {.name = 2};
	struct bus_region *r;

	map(bus, &low, 0x100, 0x100, 0, &any_ops);
	r = map(bus, &high, 0x140, 0x10, 1, &any_ops);
	assert_int_equal(peek(bus, 0x13f, 1), 0x4f);
	assert_int_equal(peek(bus, 0x140, 1), 0x20);
	assert_int_equal(peek(bus, 0x14f, 1), 0x2f);
	assert_int_equal(peek(bus, 0x150, 1), 0x60);
	assert_string_equal(low.text, "r3f/1=4f r50/1=60 ");
	bus_unmap(r);
	assert_int_equal(peek(bus, 0x140, 1), 0x50);
	bus_free(bus);
}

static void overlap_of_equal_priority_is_busy(void **state)
{
	struct bus *bus = new_bus();
	struct dev d = {.name = 1};
	struct bus_place place = {.name = "dev", .addr = 0x107, .bytes = 2};
	struct bus_region *r;

	map(bus, &d, 0x100, 8, 0, &any_ops);
	assert_int_equal(bus_map(bus, &r, &place, &any_ops, &d, NULL), -EBUSY);
	place.addr = 0xffff;
	assert_int_equal(bus_map(bus, &r, &place, &any_ops, &d, NULL), -EINVAL);
	place.addr = UINT64_MAX;
	assert_int_equal(bus_map(bus, &r, &place, &any_ops, &d, NULL), -EINVAL);
	place.addr = 0x108;
	assert_int_equal(bus_map(bus, &r, &place, &any_ops, &d, NULL), 0);
	bus_free(bus);
}

static void moved_region_answers_at_its_new_place_only(void **state)
{
	struct bus *bus = new_bus();
	struct dev a = {.name = 1}, b = {.name = 2};
	struct bus_region *r = map(bus, &a, 0x100, 8, 0, &any_ops);
	u64 value;

	map(bus, &b, 0x200, 8, 0, &any_ops);
	assert_int_equal(bus_move(r, 0x1fc), -EBUSY);
	assert_int_equal(peek(bus, 0x100, 1), 0x10); /* where it was */
	assert_int_equal(bus_move(r, 0x300), 0);
	assert_false(bus_read(bus, 0x100, 1, &value));
	assert_int_equal(peek(bus, 0x301, 1), 0x11);
	bus_free(bus);
}

static void handler_may_unmap_itself(void **state)
{
	struct bus *bus = new_bus();
	struct dev d = {.name = 1};
	u64 value;

	d.unmap_me = map(bus, &d, 0x100, 8, 0, &any_ops);
	assert_true(bus_write(bus, 0x100, 1, 1));
	assert_false(bus_read(bus, 0x100, 1, &value));
	bus_free(bus);
}

/* Many random regions against a plain array of what shows where. */
static void random_overlaps_agree_with_a_model(void **state)
{
	struct bus *bus = new_bus();
	struct dev devs[16];
	struct bus_region *regions[16] = {NULL};
	struct bus_place places[16];
	unsigned seed = 7;

	memset(devs, 0, sizeof(devs));
	for (unsigned step = 0; step < 500; step++) {
		unsigned i = (unsigned)rand_r(&seed) % 16;
		unsigned addr = (unsigned)rand_r(&seed) % 256;
		int best = -1;
		u64 value;

		bus_unmap(regions[i]);
		regions[i] = NULL;
		places[i] = (struct bus_place){"x", (u64)rand_r(&seed) % 200,
					       1 + (u64)rand_r(&seed) % 56, (int)i};
		devs[i].name = (char)i;
		assert_int_equal(bus_map(bus, &regions[i], &places[i], &any_ops, &devs[i], NULL),
				 0);
		for (int k = 0; k < 16; k++)
			if (regions[k] && addr >= places[k].addr &&
			    addr < places[k].addr + places[k].bytes)
				best = k;
		assert_int_equal(bus_read(bus, addr, 1, &value), best >= 0);
		assert_int_equal(value,
				 best < 0 ? 0xff : (u8)(best * 16 + addr - places[best].addr));
		devs[i].text[0] = '\0';
		if (best >= 0)
			devs[best].text[0] = '\0';
	}
	bus_free(bus);
}

/* --- doorbells ---------------------------------------------------------------- */

static u64 rings(int fd)
{
	u64 n = 0;

	return sys_read(fd, &n, sizeof(n)) == (s64)sizeof(n) ? n : 0;
}

static void doorbell_takes_its_write_from_the_handler(void **state)
{
	struct bus *bus = new_bus();
	struct dev d = {.name = 1};
	int fd = sys_eventfd();
	struct bus_doorbell bell = {.addr = 0x104, .size = 2, .match = true, .value = 3, .fd = fd};

	map(bus, &d, 0x100, 8, 0, &any_ops);
	assert_int_equal(bus_doorbell_add(bus, &bell), 0);
	bus_write(bus, 0x104, 2, 3);
	assert_int_equal(rings(fd), 1);
	bus_write(bus, 0x104, 2, 4); /* other value */
	bus_write(bus, 0x104, 4, 3); /* other width */
	bus_write(bus, 0x105, 2, 3); /* other place */
	assert_int_equal(rings(fd), 0);
	assert_string_equal(d.text, "w4/2=4 w4/4=3 w5/2=3 ");
	bus_doorbell_del(bus, &bell);
	bus_write(bus, 0x104, 2, 3);
	assert_int_equal(rings(fd), 0);
	bus_free(bus);
	sys_close(fd);
}

static void doorbells_of_different_values_share_a_place(void **state)
{
	struct bus *bus = new_bus();
	int fds[2] = {sys_eventfd(), sys_eventfd()};
	struct bus_doorbell bells[2], any = {.addr = 0x10, .fd = fds[0]};

	for (unsigned i = 0; i < 2; i++) {
		bells[i] = (struct bus_doorbell){
			.addr = 0x10, .size = 2, .match = true, .value = i, .fd = fds[i]};
		assert_int_equal(bus_doorbell_add(bus, &bells[i]), 0);
	}
	assert_int_equal(bus_doorbell_add(bus, &any), -EEXIST);
	bus_write(bus, 0x10, 2, 1);
	assert_int_equal(rings(fds[0]), 0);
	assert_int_equal(rings(fds[1]), 1);
	for (unsigned i = 0; i < 2; i++)
		bus_doorbell_del(bus, &bells[i]);
	assert_int_equal(bus_doorbell_add(bus, &any), 0);
	bus_write(bus, 0x10, 1, 0x77);
	assert_int_equal(rings(fds[0]), 1);
	bus_doorbell_del(bus, &any);
	bus_free(bus);
	sys_close(fds[0]);
	sys_close(fds[1]);
}

static int refuse(void *arg, const struct bus_doorbell *bell, bool on)
{
	*(int *)arg += on ? 1 : 100;
	return -ENOSPC;
}

static void doorbell_that_the_host_refuses_is_not_kept(void **state)
{
	static const struct bus_doorbell_ops ops = {refuse};
	struct bus *bus = new_bus();
	struct bus_doorbell bell = {.addr = 0x10, .size = 2, .fd = -1};
	int calls = 0;

	bus_set_doorbell_ops(bus, &ops, &calls);
	assert_int_equal(bus_doorbell_add(bus, &bell), -ENOSPC);
	assert_int_equal(calls, 1);
	assert_false(bus_write(bus, 0x10, 2, 0));
	bus_free(bus);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unclaimed_reads_give_ones_and_writes_vanish),
		cmocka_unit_test(handler_is_called_with_its_lock_and_offset),
		cmocka_unit_test(wide_access_is_split_for_a_narrow_device),
		cmocka_unit_test(default_widths_are_one_to_four),
		cmocka_unit_test(narrow_access_is_widened_for_a_dword_device),
		cmocka_unit_test(access_across_two_devices_reaches_both),
		cmocka_unit_test(higher_priority_hides_what_lies_below),
		cmocka_unit_test(overlap_of_equal_priority_is_busy),
		cmocka_unit_test(moved_region_answers_at_its_new_place_only),
		cmocka_unit_test(handler_may_unmap_itself),
		cmocka_unit_test(random_overlaps_agree_with_a_model),
		cmocka_unit_test(doorbell_takes_its_write_from_the_handler),
		cmocka_unit_test(doorbells_of_different_values_share_a_place),
		cmocka_unit_test(doorbell_that_the_host_refuses_is_not_kept),
	};

	return cmocka_run_group_tests_name("bus", tests, NULL, NULL);
}
