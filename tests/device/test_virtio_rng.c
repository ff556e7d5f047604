/* virtio-rng as its driver sees it: bytes by either interface, limits, files, nonsense. */
#include "devices/virtio/rng.h"
#include "tests/lib/virtio_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include <errno.h>

static void start_rng(struct virtio_rig *r, bool legacy, const char *first, const char *second)
{
	vdev_init(r);
	vdev_attach(r, fake_device(&r->fm, &virtio_rng_class, r->bridge, first, second, NULL));
	vdev_start(r, legacy, 0, 1);
}

static unsigned different_bytes(struct virtio_rig *r, u32 n)
{
	const u8 *p = vring_host(&r->rings[0], RIG_BUFS, n);
	bool seen[256] = {false};
	unsigned count = 0;

	for (u32 i = 0; i < n; i++) {
		count += !seen[p[i]];
		seen[p[i]] = true;
	}
	return count;
}

static void buffers_are_filled_with_random_bytes(void **state)
{
	for (int legacy = 0; legacy < 2; legacy++) {
		struct virtio_rig r;

		start_rng(&r, legacy, "max-bytes=1000000", "period=1000");
		vdev_offer(&r, 0, RIG_BUFS, 256);
		assert_int_equal(vdev_used(&r, 0), 256);
		assert_true(different_bytes(&r, 256) > 100);
		vdev_offer(&r, 0, RIG_BUFS, 1 * MiB); /* as much as it likes */
		assert_int_equal(vdev_used(&r, 0), 4096);
		vdev_fini(&r);
	}
}

/* Without a configuration there is no capability for it: Linux takes no empty ones. */
static void capabilities_are_of_what_there_is(void **state)
{
	unsigned types = 0;
	struct virtio_rig r;

	start_rng(&r, false, NULL, NULL);
	for (u8 cap = (u8)pci_read(&r.fm, r.devfn, 0x34, 1); cap;
	     cap = (u8)pci_read(&r.fm, r.devfn, (u8)(cap + 1), 1)) {
		u8 type = (u8)pci_read(&r.fm, r.devfn, (u8)(cap + 3), 1);

		if (pci_read(&r.fm, r.devfn, cap, 1) != 9)
			continue;
		types |= 1u << type;
		if (type < 5)
			assert_true(pci_read(&r.fm, r.devfn, (u8)(cap + 12), 4) > 0);
	}
	assert_int_equal(types, 1 << 1 | 1 << 2 | 1 << 3 | 1 << 5);
	vdev_fini(&r);
}

static void a_period_gives_so_many_bytes_only(void **state)
{
	struct virtio_rig r;

	start_rng(&r, false, "max-bytes=100", "period=50");
	vdev_offer(&r, 0, RIG_BUFS, 64);
	vdev_offer(&r, 0, RIG_BUFS + 64, 64);
	vdev_offer(&r, 0, RIG_BUFS + 128, 64);
	assert_int_equal(vdev_used(&r, 0), 64);
	assert_int_equal(vdev_used(&r, 0), 36);
	assert_int_equal(vdev_used(&r, 0), -1);
	vdev_round_trip(&r); /* no way around it */
	assert_int_equal(vdev_used(&r, 0), -1);
	clock_advance(r.fm.m.clock, NS_PER_SEC / 10);
	assert_int_equal(vdev_used(&r, 0), 64);
	vdev_fini(&r);
}

static void bytes_may_come_from_a_file(void **state)
{
	char name[] = "/tmp/test_virtio_rng_XXXXXX";
	AUTO_FREE char *rng = NULL;
	int fd = mkstemp(name);
	struct virtio_rig r;

	assert_int_equal(write(fd, "0123456789", 10), 10);
	close(fd);
	rng = xasprintf("rng=%s", name);
	start_rng(&r, false, rng, "max-bytes=1000000");
	vdev_offer(&r, 0, RIG_BUFS, 8);
	vdev_offer(&r, 0, RIG_BUFS + 8, 8);
	vdev_offer(&r, 0, RIG_BUFS + 16, 8); /* there is no more */
	assert_int_equal(vdev_used(&r, 0), 8);
	assert_int_equal(vdev_used(&r, 0), 2);
	assert_int_equal(vdev_used(&r, 0), -1);
	assert_memory_equal(vring_host(&r.rings[0], RIG_BUFS, 10), "0123456789", 10);
	vdev_fini(&r);
	unlink(name);
}

static void a_buffer_to_read_from_needs_a_reset(void **state)
{
	struct virtio_rig r;

	start_rng(&r, false, "max-bytes=1000", "period=1000");
	vdev_offer(&r, 0, RIG_BUFS, 8);
	vdev_send(&r, 0, RIG_BUFS, "x", 1);
	assert_true(vdev_status(&r) & 0x40);
	assert_int_equal(vdev_used(&r, 0), 8);
	assert_int_equal(vdev_used(&r, 0), -1);
	vdev_start(&r, true, 0, 1);
	vdev_offer(&r, 0, RIG_BUFS, 8);
	assert_int_equal(vdev_used(&r, 0), 8);
	vdev_fini(&r);
}

static void refuse(const char *name, const char *text, const char *says)
{
	struct prop_value value = {.name = name, .text = text};
	struct device_args args = {.values = &value, .n_values = 1};
	struct virtio_rig r;
	struct device *dev;
	struct error err;

	vdev_init(&r);
	args.parent = r.bridge;
	assert_true(device_new(&dev, &r.fm.m, &virtio_rng_class, &args, &err) < 0);
	assert_non_null(strstr(err.text, says));
	vdev_fini(&r);
}

static void what_cannot_be_is_refused(void **state)
{
	refuse("period", "0", "'period' parameter expects a positive integer");
	refuse("max-bytes", "0x8000000000000000", "'max-bytes' parameter must be non-negative");
	refuse("rng", "/nonexistent", "Could not open '/nonexistent'");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buffers_are_filled_with_random_bytes),
		cmocka_unit_test(capabilities_are_of_what_there_is),
		cmocka_unit_test(a_period_gives_so_many_bytes_only),
		cmocka_unit_test(bytes_may_come_from_a_file),
		cmocka_unit_test(a_buffer_to_read_from_needs_a_reset),
		cmocka_unit_test(what_cannot_be_is_refused),
	};

	return cmocka_run_group_tests_name("virtio rng", tests, NULL, NULL);
}
