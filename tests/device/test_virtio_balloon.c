/* virtio-balloon as its driver sees it: either interface, pages that go and come,
 * statistics, free pages that are reported, nonsense, a snapshot. */
#include "devices/virtio/balloon.h"
#include "tests/lib/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#include <errno.h>

enum { F_STATS = 1 << 1, F_OOM = 1 << 2, F_POISON = 1 << 4, F_REPORTING = 1 << 5 };
enum { Q_INFLATE, Q_DEFLATE, Q_STATS, Q_REPORTING };
#define PAGE 4096u
#define BUF  RIG_BUFS
#define FULL (RIG_BUFS + 0x10000u) /* pages that are not empty */
#define N    64u

static void start_balloon(struct virtio_rig *r, bool legacy)
{
	vdev_init(r);
	vdev_attach(r,
		    fake_device(&r->fm, &virtio_balloon_class, r->bridge, "free-page-reporting=on",
				"guest-stats-polling-interval=1", NULL));
	vdev_start(r, legacy, F_STATS | F_POISON | F_REPORTING | (u64)1 << VIRTIO_F_EVENT_IDX, 4);
	memset(vring_host(&r->rings[0], FULL, N * PAGE), 0x5a, N * PAGE);
}

static bool page_is(struct virtio_rig *r, unsigned page, u8 value)
{
	const u8 *p = vring_host(&r->rings[0], FULL + page * PAGE, PAGE);

	return p[0] == value && !memcmp(p, p + 1, PAGE - 1);
}

static void send_pages(struct virtio_rig *r, unsigned queue, const u32 *pfns, unsigned n)
{
	u8 raw[4 * N];

	for (unsigned i = 0; i < n; i++)
		store_le32(raw + 4 * (size_t)i, pfns[i]);
	vdev_send(r, queue, BUF, raw, 4 * n);
}

static void pages_given_away_are_zeros(void **state)
{
	const u32 first = FULL / PAGE;
	/* Up, down, and alone. */
	const u32 pfns[] = {first + 2, first + 3, first + 9, first + 8, first + 7, first + 20};

	for (int legacy = 0; legacy < 2; legacy++) {
		struct virtio_rig r;

		start_balloon(&r, legacy);
		send_pages(&r, Q_INFLATE, pfns, ARRAY_LEN(pfns));
		assert_int_equal(vdev_used(&r, Q_INFLATE), 0);
		for (unsigned i = 0; i < N; i++) {
			bool gone = i == 2 || i == 3 || (i >= 7 && i <= 9) || i == 20;

			assert_true(page_is(&r, i, gone ? 0 : 0x5a));
		}
		send_pages(&r, Q_DEFLATE, pfns, 1);
		assert_int_equal(vdev_used(&r, Q_DEFLATE), 0);
		assert_true(page_is(&r, 3, 0));
		vdev_fini(&r);
	}
}

static void the_target_is_told_by_a_configuration_interrupt(void **state)
{
	for (int legacy = 0; legacy < 2; legacy++) {
		struct virtio_rig r;

		start_balloon(&r, legacy);
		assert_int_equal(vdev_config(&r, 0, 4), 0);
		balloon_set_target(r.dev, RIG_RAM - 1 * MiB);
		assert_int_equal(vdev_config(&r, 0, 4), 256);
		assert_int_equal(legacy ? inb(&r.fm, RIG_IO + 19)
					: (u8)mmio_read(&r.fm, RIG_MEM + 0x1000, 1),
				 3);
		assert_int_equal(balloon_actual(r.dev), RIG_RAM);
		vdev_set_config(&r, 4, 4, 255);
		assert_int_equal(vdev_config(&r, 4, 4), 255);
		assert_int_equal(balloon_actual(r.dev), RIG_RAM - 255 * PAGE);
		vdev_set_config(&r, 0, 4, 7); /* not the driver's to say */
		assert_int_equal(vdev_config(&r, 0, 4), 256);
		balloon_set_target(r.dev, 2 * RIG_RAM);
		assert_int_equal(vdev_config(&r, 0, 4), 0);
		vdev_set_config(&r, 4, 4, 0xffffffff);
		assert_int_equal(balloon_actual(r.dev), 0);
		vdev_fini(&r);
	}
}

static void put_stat(u8 *to, u16 tag, u64 value)
{
	store_le16(to, tag);
	store_le64(to + 2, value);
}

static void statistics_are_asked_for_and_read(void **state)
{
	struct virtio_rig r;
	const char *name;
	u8 stats[30];
	u64 value;

	start_balloon(&r, false);
	assert_false(balloon_stat(r.dev, 0, &name, &value));
	put_stat(stats, 4, 1000);
	put_stat(stats + 10, 99, 5);
	put_stat(stats + 20, 5, 2000);
	vdev_send(&r, Q_STATS, BUF, stats, sizeof(stats));
	assert_int_equal(vdev_used(&r, Q_STATS), -1); /* kept until new ones are wanted */
	assert_true(balloon_stat(r.dev, 0, &name, &value));
	assert_string_equal(name, "stat-free-memory");
	assert_int_equal(value, 1000);
	assert_true(balloon_stat(r.dev, 1, &name, &value));
	assert_int_equal(value, 2000);
	assert_false(balloon_stat(r.dev, 2, &name, &value));
	vdev_round_trip(&r);
	assert_true(balloon_stat(r.dev, 1, &name, &value));
	clock_advance(r.fm.m.clock, NS_PER_SEC);
	assert_int_equal(vdev_used(&r, Q_STATS), 0);
	put_stat(stats, 4, 1001);
	vdev_send(&r, Q_STATS, BUF, stats, sizeof(stats));
	assert_true(balloon_stat(r.dev, 0, &name, &value));
	assert_int_equal(value, 1001);
	clock_advance(r.fm.m.clock, NS_PER_SEC);
	assert_int_equal(vdev_used(&r, Q_STATS), 0);
	vdev_send(&r, Q_STATS, BUF, stats, 3); /* less than one */
	assert_false(balloon_stat(r.dev, 0, &name, &value));
	vdev_fini(&r);
}

static void reported_pages_are_emptied_unless_they_hold_a_pattern(void **state)
{
	struct virtio_rig r;

	start_balloon(&r, false);
	vdev_offer(&r, Q_REPORTING, FULL + 100, 3 * PAGE); /* two whole pages */
	assert_int_equal(vdev_used(&r, Q_REPORTING), 0);
	assert_true(page_is(&r, 1, 0) && page_is(&r, 2, 0));
	assert_int_equal(*vring_host(&r.rings[0], FULL + 3 * PAGE, 1), 0x5a);
	vdev_set_config(&r, 12, 4, 0xaaaaaaaa);
	vdev_offer(&r, Q_REPORTING, FULL + 4 * PAGE, PAGE);
	assert_int_equal(vdev_used(&r, Q_REPORTING), 0);
	assert_true(page_is(&r, 4, 0x5a));
	/* Without statistics the queue is another one. */
	vdev_start(&r, false, F_REPORTING, 3);
	vdev_offer(&r, Q_STATS, FULL + 4 * PAGE, PAGE);
	assert_true(page_is(&r, 4, 0));
	vdev_fini(&r);
}

static void pages_that_are_no_ram_are_not_touched(void **state)
{
	static const u32 pfns[] = {0xffffffff, RIG_RAM / PAGE, 0xfffff, 0};
	struct virtio_rig r;
	u8 big[2 * PAGE] = {0};

	start_balloon(&r, false);
	send_pages(&r, Q_INFLATE, pfns, 3);
	assert_int_equal(vdev_used(&r, Q_INFLATE), 0);
	assert_int_equal(r.dev->guest_errors, 3);
	vdev_send(&r, Q_INFLATE, BUF, big, 3); /* not a whole number */
	assert_int_equal(vdev_used(&r, Q_INFLATE), 0);
	assert_false(vdev_status(&r) & 0x40);
	vdev_send(&r, Q_INFLATE, BUF, big, sizeof(big));
	assert_true(vdev_status(&r) & 0x40);
	assert_int_equal(vdev_used(&r, Q_INFLATE), -1);
	vdev_fini(&r);
}

/* Its own rings, while it looks at them. */
static void a_driver_may_give_its_rings_away(void **state)
{
	u32 pfns[8];
	struct virtio_rig r;

	start_balloon(&r, false);
	for (u32 i = 0; i < ARRAY_LEN(pfns); i++)
		pfns[i] = RIG_RINGS / PAGE + i;
	send_pages(&r, Q_INFLATE, pfns, ARRAY_LEN(pfns));
	vdev_kick(&r, Q_INFLATE);
	vdev_turn(&r);
	vdev_start(&r, true, 0, 2);
	send_pages(&r, Q_INFLATE, pfns, 0 + 1);
	vdev_fini(&r);
}

static void a_snapshot_keeps_target_and_size(void **state)
{
	struct virtio_rig r;

	start_balloon(&r, false);
	balloon_set_target(r.dev, RIG_RAM / 2);
	vdev_set_config(&r, 4, 4, 100);
	vdev_round_trip(&r);
	assert_int_equal(vdev_config(&r, 0, 4), RIG_RAM / 2 / PAGE);
	assert_int_equal(balloon_actual(r.dev), RIG_RAM - 100 * PAGE);
	device_reset(r.dev);
	assert_int_equal(balloon_actual(r.dev), RIG_RAM); /* a new driver begins with none */
	vdev_fini(&r);
}

static void there_is_one_balloon_only(void **state)
{
	struct device_args args = {0};
	struct virtio_rig r;
	struct device *dev;
	struct error err;

	vdev_init(&r);
	assert_null(balloon_find(&r.fm.m));
	args.parent = r.bridge;
	vdev_attach(&r, fake_device(&r.fm, &virtio_balloon_class, r.bridge, NULL));
	assert_ptr_equal(balloon_find(&r.fm.m), r.dev);
	assert_int_equal(device_new(&dev, &r.fm.m, &virtio_balloon_class, &args, &err), -EBUSY);
	assert_string_equal(err.text, "Only one balloon device is supported");
	assert_int_equal(vdev_offered(&r) & 0x3f, F_STATS | F_POISON);
	vdev_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages_given_away_are_zeros),
		cmocka_unit_test(the_target_is_told_by_a_configuration_interrupt),
		cmocka_unit_test(statistics_are_asked_for_and_read),
		cmocka_unit_test(reported_pages_are_emptied_unless_they_hold_a_pattern),
		cmocka_unit_test(pages_that_are_no_ram_are_not_touched),
		cmocka_unit_test(a_driver_may_give_its_rings_away),
		cmocka_unit_test(a_snapshot_keeps_target_and_size),
		cmocka_unit_test(there_is_one_balloon_only),
	};

	return cmocka_run_group_tests_name("virtio balloon", tests, NULL, NULL);
}
