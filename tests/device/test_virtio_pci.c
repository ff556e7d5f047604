/* The virtio transport over PCI as drivers of both ages use it. */
#include "tests/lib/virtio_guest.h"

#include "devices/pci.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define DISK (1 * MiB)

static const struct guest_mode modern = {.features = 0}, legacy = {.legacy = true};

static u8 find_cap(struct virtio_guest *g, u8 type)
{
	u8 cap = (u8)pci_read(&g->fm, g->devfn, 0x34, 1);

	for (; cap; cap = (u8)pci_read(&g->fm, g->devfn, (u8)(cap + 1), 1))
		if (pci_read(&g->fm, g->devfn, cap, 1) == 9 &&
		    pci_read(&g->fm, g->devfn, (u8)(cap + 3), 1) == type)
			return cap;
	fail_msg("no capability of type %u", type);
	return 0;
}

static void ids_tell_the_interfaces(void **state)
{
	static const struct {
		const char *prop;
		u32 id, revision;
		bool io, mem;
	} t[] = {
		{"disable-legacy=auto", 0x10011af4, 0, true, true},
		{"disable-modern=on", 0x10011af4, 0, true, false},
		{"disable-legacy=on", 0x10421af4, 1, false, true},
	};

	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		struct virtio_guest g;

		guest_init(&g, DISK, t[i].prop, NULL);
		assert_int_equal(pci_read(&g.fm, g.devfn, 0, 4), t[i].id);
		assert_int_equal(pci_read(&g.fm, g.devfn, 8, 4), 0x01000000 | t[i].revision);
		assert_int_equal(pci_read(&g.fm, g.devfn, 0x10, 4), t[i].io ? GUEST_IO | 1 : 0);
		assert_int_equal(pci_read(&g.fm, g.devfn, 0x20, 4), t[i].mem ? GUEST_MEM | 0xc : 0);
		guest_fini(&g);
	}
}

static void capabilities_describe_the_bar(void **state)
{
	static const u32 offsets[] = {0, MEM_COMMON, MEM_NOTIFY, MEM_ISR, MEM_CONFIG};
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	for (u8 type = 1; type <= 4; type++) {
		u8 cap = find_cap(&g, type);

		assert_int_equal(pci_read(&g.fm, g.devfn, (u8)(cap + 4), 1), 4);
		assert_int_equal(pci_read(&g.fm, g.devfn, (u8)(cap + 8), 4), offsets[type]);
		assert_true(pci_read(&g.fm, g.devfn, (u8)(cap + 12), 4) > 0);
	}
	assert_int_equal(pci_read(&g.fm, g.devfn, (u8)(find_cap(&g, 2) + 16), 4), 4);
	guest_fini(&g);
}

static void the_configuration_window_reaches_registers(void **state)
{
	struct virtio_guest g;
	u8 cap;

	guest_init(&g, DISK, NULL);
	cap = find_cap(&g, 5);
	pci_write(&g.fm, g.devfn, (u8)(cap + 4), 1, 4);
	pci_write(&g.fm, g.devfn, (u8)(cap + 8), 4, MEM_COMMON + 20);
	pci_write(&g.fm, g.devfn, (u8)(cap + 12), 4, 1);
	pci_write(&g.fm, g.devfn, (u8)(cap + 16), 1, 3);
	assert_int_equal(guest_status(&g), 3);
	assert_int_equal(pci_read(&g.fm, g.devfn, (u8)(cap + 16), 1), 3);
	pci_write(&g.fm, g.devfn, (u8)(cap + 8), 4, MEM_CONFIG);
	pci_write(&g.fm, g.devfn, (u8)(cap + 12), 4, 4);
	assert_int_equal(pci_read(&g.fm, g.devfn, (u8)(cap + 16), 4), DISK / 512);
	/* Windows that make no sense lead nowhere. */
	pci_write(&g.fm, g.devfn, (u8)(cap + 8), 4, 0x4000);
	pci_write(&g.fm, g.devfn, (u8)(cap + 16), 4, 0);
	pci_write(&g.fm, g.devfn, (u8)(cap + 8), 4, 0xfffffffe);
	pci_write(&g.fm, g.devfn, (u8)(cap + 16), 4, 0);
	assert_int_equal(guest_status(&g), 3);
	guest_fini(&g);
}

static void both_interfaces_carry_requests(void **state)
{
	for (unsigned i = 0; i < 8; i++) {
		struct guest_mode mode = {.legacy = i & 1,
					  .indirect = i & 2,
					  .features = (u64)3 << 28,
					  .queue_size = i & 1 ? 0 : 64};
		struct virtio_guest g;

		if (!(i & 2))
			mode.features = i & 4 ? (u64)1 << 29 : 0;
		guest_init(&g, DISK, NULL);
		guest_start(&g, &mode);
		assert_true(guest_status(&g) & 4);
		memset(vring_host(&g.ring, guest_data(0), 512), 0x5a, 512);
		assert_int_equal(guest_request(&g, T_OUT, 7, 512, false), 0);
		assert_int_equal(guest_request(&g, T_IN, 7, 512, true), 0);
		assert_memory_equal(vring_host(&g.ring, guest_data(0), 512),
				    vring_host(&g.ring, guest_data(1), 512), 512);
		guest_fini(&g);
	}
}

static void features_beyond_the_offer_are_refused(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_set_status(&g, 3);
	mmio_write(&g.fm, GUEST_MEM + 8, 4, 1);
	mmio_write(&g.fm, GUEST_MEM + 12, 4, 3); /* VERSION_1 and one that is not there */
	guest_set_status(&g, 0xb);
	assert_int_equal(guest_status(&g), 3);
	mmio_write(&g.fm, GUEST_MEM + 12, 4, 0); /* not even VERSION_1 */
	guest_set_status(&g, 0xb);
	assert_int_equal(guest_status(&g), 3);
	mmio_write(&g.fm, GUEST_MEM + 12, 4, 1);
	guest_set_status(&g, 0xb);
	assert_int_equal(guest_status(&g), 0xb);
	mmio_write(&g.fm, GUEST_MEM + 12, 4, 0); /* too late */
	assert_int_equal(mmio_read(&g.fm, GUEST_MEM + 12, 4), 1);
	guest_fini(&g);
}

static void the_pin_is_raised_and_lowered_by_the_isr(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct virtio_guest g;

		guest_init(&g, DISK, NULL);
		guest_start(&g, i ? &legacy : &modern);
		assert_false(irq_level(g.fm.m.irq, GUEST_GSI));
		assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
		guest_settle(&g);
		assert_true(irq_level(g.fm.m.irq, GUEST_GSI));
		assert_int_equal(guest_take_isr(&g), 1);
		assert_false(irq_level(g.fm.m.irq, GUEST_GSI));
		assert_int_equal(guest_take_isr(&g), 0);
		guest_fini(&g);
	}
}

static void vectors_replace_the_pin(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct guest_mode mode = {.legacy = i, .msix = true};
		struct virtio_guest g;

		guest_init(&g, DISK, NULL);
		guest_start(&g, &mode);
		assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
		assert_int_equal(guest_msis(&g, 0x41), 1);
		assert_int_equal(guest_msis(&g, 0x40), 0);
		assert_false(irq_level(g.fm.m.irq, GUEST_GSI));
		guest_fini(&g);
	}
}

static void vectors_that_are_not_there_read_back_as_none(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	mmio_write(&g.fm, GUEST_MEM + 16, 2, 1);
	assert_int_equal(mmio_read(&g.fm, GUEST_MEM + 16, 2), 1);
	mmio_write(&g.fm, GUEST_MEM + 16, 2, 2);
	assert_int_equal(mmio_read(&g.fm, GUEST_MEM + 16, 2), 0xffff);
	guest_fini(&g);
}

static void legacy_configuration_moves_with_msix(void **state)
{
	struct guest_mode mode = {.legacy = true, .msix = true};
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &legacy);
	assert_int_equal(inl(&g.fm, GUEST_IO + IO_CONFIG), DISK / 512);
	guest_start(&g, &mode);
	assert_int_equal(inl(&g.fm, GUEST_IO + IO_CONFIG_MSIX), DISK / 512);
	assert_int_equal(inw(&g.fm, GUEST_IO + 22), 1);
	guest_fini(&g);
}

static void a_bad_ring_needs_a_reset_and_says_so(void **state)
{
	struct guest_mode mode = {.msix = true};
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &mode);
	vring_set_desc(&g.ring, 0, GUEST_RAM, 16, 0); /* beyond memory */
	vring_offer(&g.ring, 0);
	guest_kick(&g);
	for (unsigned i = 0; i < 1000 && !(guest_status(&g) & 0x40); i++)
		poll(NULL, 0, 2);
	assert_int_equal(guest_status(&g), 0x4f);
	assert_int_equal(guest_msis(&g, 0x40), 1); /* configuration vector */
	assert_int_equal(g.dev->guest_errors, 1);
	guest_kick(&g); /* silence until the reset */
	guest_settle(&g);
	assert_int_equal(guest_msis(&g, 0x40), 1);
	guest_start(&g, &mode);
	assert_int_equal(guest_status(&g), 0xf);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	guest_fini(&g);
}

static void a_ring_outside_of_memory_needs_a_reset(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_set_status(&g, 3);
	mmio_write(&g.fm, GUEST_MEM + 8, 4, 1);
	mmio_write(&g.fm, GUEST_MEM + 12, 4, 1);
	guest_set_status(&g, 0xb);
	mmio_write(&g.fm, GUEST_MEM + 32, 4, GUEST_RAM - 16);
	mmio_write(&g.fm, GUEST_MEM + 28, 2, 1);
	guest_set_status(&g, 0xf);
	assert_int_equal(guest_status(&g), 0x4f);
	guest_set_status(&g, 0);
	assert_int_equal(guest_status(&g), 0);
	guest_fini(&g);
}

static void old_drivers_may_kick_before_driver_ok(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	g.legacy = true;
	guest_set_status(&g, 3);
	vring_init(&g.ring, g.fm.m.mem, GUEST_RING, inw(&g.fm, GUEST_IO + 12));
	outl(&g.fm, GUEST_IO + 8, GUEST_RING / 4096);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	guest_fini(&g);
}

static void bars_may_move_while_queues_run(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &modern);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	pci_write(&g.fm, g.devfn, 0x20, 4, GUEST_MEM + 0x100000);
	guest_submit(&g, T_IN, 0, 512, true);
	mmio_write(&g.fm, GUEST_MEM + MEM_NOTIFY, 2, 0); /* nobody lives there now */
	mmio_write(&g.fm, GUEST_MEM + 0x100000 + MEM_NOTIFY, 2, 0);
	assert_int_equal(guest_wait(&g), 1);
	pci_write(&g.fm, g.devfn, 0x04, 2, 0); /* nothing decoded */
	pci_write(&g.fm, g.devfn, 0x20, 4, GUEST_MEM);
	pci_write(&g.fm, g.devfn, 0x04, 2, 7);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	guest_fini(&g);
}

/* --- reset and pause with requests in flight ------------------------------------------ */

struct resetter {
	struct virtio_guest *g;
	bool done; /* [atomic] */
};

static void *reset_thread(void *arg)
{
	struct resetter *r = arg;

	guest_set_status(r->g, 0);
	__atomic_store_n(&r->done, true, __ATOMIC_RELEASE);
	return NULL;
}

static void reset_waits_for_what_is_in_flight(void **state)
{
	struct resetter r = {.done = false};
	struct virtio_guest g;
	struct error err;
	pthread_t thread;

	guest_init(&g, DISK, NULL);
	r.g = &g;
	guest_start(&g, &modern);
	blk_drain_begin(g.blk); /* the drive holds what comes now */
	for (unsigned i = 0; i < 4; i++)
		guest_submit(&g, T_IN, 0, 4096, true);
	guest_kick(&g);
	guest_settle(&g);
	assert_int_equal(thread_start(&thread, "resetter", reset_thread, &r, &err), 0);
	poll(NULL, 0, 50);
	assert_false(__atomic_load_n(&r.done, __ATOMIC_ACQUIRE));
	blk_drain_end(g.blk);
	pthread_join(thread, NULL);
	assert_true(r.done);
	assert_int_equal(guest_status(&g), 0);
	guest_start(&g, &modern);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	guest_fini(&g);
}

static void paused_queues_rest_and_go_on(void **state)
{
	struct guest_mode mode = {.features = (u64)1 << 29};
	struct virtio_guest g;
	struct state_buf saved;
	u64 before;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &mode);
	for (unsigned i = 0; i < 300; i++) {
		u16 slot;

		before = i;
		g.dev->cls->pause(g.dev);
		slot = guest_submit(&g, T_IN, before % 64, 512, true);
		guest_kick(&g);
		fake_save(g.dev, &saved);
		assert_true(saved.bytes > 0);
		state_buf_fini(&saved);
		g.dev->cls->resume(g.dev);
		assert_int_equal(guest_wait(&g), slot);
		assert_int_equal(guest_result(&g, slot), 0);
	}
	guest_fini(&g);
}

static void a_running_queue_survives_save_and_load(void **state)
{
	struct guest_mode mode = {.msix = true, .features = (u64)1 << 29};
	struct state_buf saved;
	struct virtio_guest g;
	struct error err;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &mode);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	g.dev->cls->pause(g.dev);
	fake_save(g.dev, &saved);
	device_reset(g.dev);
	assert_int_equal(device_load(g.dev, &saved, &err), 0);
	g.dev->cls->resume(g.dev);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
	state_buf_fini(&saved);
	guest_fini(&g);
}

/* --- nonsense --------------------------------------------------------------------------- */

/* A hostile driver writes what the device is reading.  That is no race of ours, so
 * the thread sanitizer is spared the sight. */
#ifdef __SANITIZE_THREAD__
#define SPARE_TSAN true
#else
#define SPARE_TSAN false
#endif

static void wait_until_idle(struct virtio_guest *g)
{
	guest_settle(g);
	blk_drain_begin(g->blk);
	blk_drain_end(g->blk);
}

static void random_drivers_do_no_harm(void **state)
{
	struct rng rng = {77};

	for (unsigned round = 0; round < 60; round++) {
		struct guest_mode mode = {.legacy = rng_below(&rng, 2),
					  .msix = rng_below(&rng, 2),
					  .features = rng_next(&rng) & ((u64)3 << 28)};
		struct virtio_guest g;

		guest_init(&g, DISK, NULL);
		guest_start(&g, &mode);
		for (unsigned i = 0; i < 300; i++) {
			u64 value = rng_below(&rng, 2) ? rng_next(&rng) : rng_below(&rng, 32);

			if (SPARE_TSAN)
				wait_until_idle(&g);
			switch (rng_below(&rng, 5)) {
			case 0:
				mmio_write(&g.fm, GUEST_MEM + rng_below(&rng, 0x3010), 4, value);
				break;
			case 1:
				outl(&g.fm, (u16)(GUEST_IO + rng_below(&rng, 96)), (u32)value);
				break;
			case 2:
				mem_write(g.fm.m.mem, GUEST_RING + rng_below(&rng, 0x3000), &value,
					  8);
				break;
			case 3:
				guest_submit(&g, (u32)value % 16, value, 512, rng_below(&rng, 2));
				break;
			default: guest_kick(&g);
			}
		}
		guest_start(&g, &mode);
		assert_int_equal(guest_request(&g, T_IN, 0, 512, true), 0);
		guest_fini(&g);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_tell_the_interfaces),
		cmocka_unit_test(capabilities_describe_the_bar),
		cmocka_unit_test(the_configuration_window_reaches_registers),
		cmocka_unit_test(both_interfaces_carry_requests),
		cmocka_unit_test(features_beyond_the_offer_are_refused),
		cmocka_unit_test(the_pin_is_raised_and_lowered_by_the_isr),
		cmocka_unit_test(vectors_replace_the_pin),
		cmocka_unit_test(vectors_that_are_not_there_read_back_as_none),
		cmocka_unit_test(legacy_configuration_moves_with_msix),
		cmocka_unit_test(a_bad_ring_needs_a_reset_and_says_so),
		cmocka_unit_test(a_ring_outside_of_memory_needs_a_reset),
		cmocka_unit_test(old_drivers_may_kick_before_driver_ok),
		cmocka_unit_test(bars_may_move_while_queues_run),
		cmocka_unit_test(reset_waits_for_what_is_in_flight),
		cmocka_unit_test(paused_queues_rest_and_go_on),
		cmocka_unit_test(a_running_queue_survives_save_and_load),
		cmocka_unit_test(random_drivers_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
