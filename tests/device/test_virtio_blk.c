/* virtio-blk as its driver sees it, on a real drive with its own thread. */
#define _GNU_SOURCE
#include "tests/lib/virtio_guest.h"

#include "devices/i440fx.h"
#include "devices/virtio/blk.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define DISK (4 * MiB)
enum { OK = 0, IOERR = 1, UNSUPP = 2 };

static const struct guest_mode modern = {.features = 1u << BLK_F_FLUSH | 1u << BLK_F_DISCARD |
						     1u << BLK_F_WRITE_ZEROES |
						     1u << BLK_F_CONFIG_WCE | (u64)3 << 28};

static void start(struct virtio_guest *g)
{
	guest_init(g, DISK, NULL);
	guest_start(g, &modern);
}

static u8 *data(struct virtio_guest *g, u16 slot)
{
	return vring_host(&g->ring, guest_data(slot), 64 * KiB);
}

static void fill(u8 *p, u64 seed, u32 bytes)
{
	for (u32 i = 0; i < bytes; i++)
		p[i] = (u8)(seed * 37 + i / 3);
}

static void writes_reach_the_file(void **state)
{
	struct virtio_guest g;
	u8 back[8192];
	int fd;

	start(&g);
	fill(data(&g, 0), 1, 8192);
	assert_int_equal(guest_request(&g, T_OUT, 100, 8192, false), OK);
	assert_int_equal(guest_request(&g, T_FLUSH, 0, 0, false), OK);
	fd = open(g.path, O_RDONLY);
	assert_int_equal(pread(fd, back, sizeof(back), 100 * 512), sizeof(back));
	close(fd);
	assert_memory_equal(back, data(&g, 0), sizeof(back));
	guest_fini(&g);
}

static void random_requests_agree_with_a_model(void **state)
{
	u8 *model = xalloc(DISK);
	struct rng rng = {5};
	struct virtio_guest g;

	start(&g);
	for (unsigned i = 0; i < 600; i++) {
		u16 slot = g.next_slot % 16;
		u32 bytes = (1 + rng_below(&rng, 64)) * 512;
		u64 sector = rng_below(&rng, DISK / 512 - 64);

		if (rng_below(&rng, 2)) {
			fill(data(&g, slot), rng_next(&rng), bytes);
			memcpy(model + sector * 512, data(&g, slot), bytes);
			assert_int_equal(guest_request(&g, T_OUT, sector, bytes, false), OK);
		} else {
			assert_int_equal(guest_request(&g, T_IN, sector, bytes, true), OK);
			assert_memory_equal(data(&g, slot), model + sector * 512, bytes);
		}
	}
	free(model);
	guest_fini(&g);
}

static void many_requests_are_in_flight_at_once(void **state)
{
	struct virtio_guest g;

	start(&g);
	for (unsigned round = 0; round < 50; round++) {
		bool seen[16] = {false};

		for (unsigned i = 0; i < 16; i++)
			guest_submit(&g, T_IN, i * 8, 4096, true);
		guest_kick(&g);
		for (unsigned i = 0; i < 16; i++) {
			int slot = guest_wait(&g);

			assert_true(slot >= 0 && slot < 16 && !seen[slot]);
			seen[slot] = true;
			assert_int_equal(guest_result(&g, (u16)slot), OK);
		}
	}
	guest_fini(&g);
}

static void a_header_may_be_cut_anywhere(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &modern);
	for (u32 cut = 1; cut < 16; cut++) {
		u8 *header = vring_host(&g.ring, GUEST_REQ, 64);
		/* Header in two, its second part runs on into the data; the status
		 * byte shares the descriptor of what is read. */
		struct vring_buf bufs[] = {{GUEST_REQ, cut, 0},
					   {GUEST_REQ + cut, 16 - cut, 0},
					   {GUEST_DATA, 100, VRING_WRITE},
					   {GUEST_DATA + 100, 413, VRING_WRITE}};
		u32 head, written;

		memset(header, 0, 16);
		data(&g, 0)[512] = 0xee;
		vring_add(&g.ring, 0, bufs, 4);
		guest_kick(&g);
		assert_int_equal(guest_wait(&g), 0);
		assert_int_equal(data(&g, 0)[512], OK);
		assert_false(vring_used(&g.ring, &head, &written));
	}
	guest_fini(&g);
}

static void wrong_requests_get_an_error(void **state)
{
	struct virtio_guest g;

	start(&g);
	assert_int_equal(guest_request(&g, T_IN, DISK / 512, 512, true), IOERR);
	assert_int_equal(guest_request(&g, T_IN, DISK / 512 - 1, 1024, true), IOERR);
	assert_int_equal(guest_request(&g, T_OUT, UINT64_MAX, 512, false), IOERR);
	assert_int_equal(guest_request(&g, T_OUT, UINT64_MAX / 512, 512, false), IOERR);
	assert_int_equal(guest_request(&g, T_IN, 0, 100, true), IOERR);
	assert_int_equal(guest_request(&g, 99, 0, 512, true), UNSUPP);
	assert_int_equal(guest_request(&g, T_DISCARD, 0, 20, false), UNSUPP);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), OK);
	guest_fini(&g);
}

static void a_request_without_header_breaks_the_queue(void **state)
{
	struct virtio_guest g;
	struct vring_buf bufs[] = {{GUEST_REQ, 15, 0}, {GUEST_REQ + 16, 1, VRING_WRITE}};

	start(&g);
	vring_add(&g.ring, 0, bufs, 2);
	guest_kick(&g);
	for (unsigned i = 0; i < 1000 && !(guest_status(&g) & 0x40); i++)
		usleep(2000);
	assert_int_equal(guest_status(&g), 0x4f);
	guest_fini(&g);
}

static void the_id_is_the_serial_number(void **state)
{
	struct virtio_guest g;
	char expected[20] = "WD-1234";

	guest_init(&g, DISK, "serial=WD-1234", NULL);
	guest_start(&g, &modern);
	memset(data(&g, 0), 0xff, 64);
	assert_int_equal(guest_request(&g, T_GET_ID, 0, 20, true), OK);
	assert_memory_equal(data(&g, 0), expected, 20);
	assert_int_equal(data(&g, 0)[20], 0xff);
	assert_int_equal(guest_request(&g, T_GET_ID, 0, 4, true), OK); /* cut */
	guest_fini(&g);
}

static void put_segment(struct virtio_guest *g, u64 sector, u32 sectors, u32 flags)
{
	u8 *p = data(g, g->next_slot % 16);

	store_le64(p, sector);
	store_le32(p + 8, sectors);
	store_le32(p + 12, flags);
}

static void zeroes_are_written_and_ranges_discarded(void **state)
{
	struct virtio_guest g;

	start(&g);
	for (u32 unmap = 0; unmap < 2; unmap++) {
		u16 slot;

		memset(data(&g, g.next_slot % 16), 0xaa, 8192);
		assert_int_equal(guest_request(&g, T_OUT, 64, 8192, false), OK);
		put_segment(&g, 66, 8, unmap);
		assert_int_equal(guest_request(&g, T_WRITE_ZEROES, 0, 16, false), OK);
		slot = g.next_slot % 16;
		assert_int_equal(guest_request(&g, T_IN, 64, 8192, true), OK);
		for (unsigned i = 0; i < 8192; i++)
			assert_int_equal(data(&g, slot)[i], i >= 1024 && i < 5120 ? 0 : 0xaa);
	}
	put_segment(&g, 0, 64, 0);
	assert_int_equal(guest_request(&g, T_DISCARD, 0, 16, false), OK);
	put_segment(&g, 0, 64, 1); /* unmap means nothing to discard */
	assert_int_equal(guest_request(&g, T_DISCARD, 0, 16, false), UNSUPP);
	put_segment(&g, 0, 64, 2);
	assert_int_equal(guest_request(&g, T_WRITE_ZEROES, 0, 16, false), UNSUPP);
	put_segment(&g, DISK / 512 - 1, 2, 0);
	assert_int_equal(guest_request(&g, T_WRITE_ZEROES, 0, 16, false), IOERR);
	put_segment(&g, UINT64_MAX - 1, 2, 0);
	assert_int_equal(guest_request(&g, T_DISCARD, 0, 16, false), IOERR);
	put_segment(&g, 0, UINT32_MAX, 0);
	assert_int_equal(guest_request(&g, T_DISCARD, 0, 16, false), IOERR);
	guest_fini(&g);
}

static void discard_needs_its_feature(void **state)
{
	struct guest_mode plain = {.features = 0};
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &plain);
	put_segment(&g, 0, 64, 0);
	assert_int_equal(guest_request(&g, T_DISCARD, 0, 16, false), UNSUPP);
	guest_fini(&g);
}

static u64 flushes(struct virtio_guest *g)
{
	struct blk_stats s;

	guest_settle(g);
	blk_get_stats(g->blk, &s);
	return s.ops[BLK_FLUSH];
}

static void the_cache_mode_follows_the_driver(void **state)
{
	struct guest_mode no_flush = {.features = 0};
	struct virtio_guest g;

	start(&g);
	assert_int_equal(guest_config(&g, 32, 1), 1);
	mmio_write(&g.fm, GUEST_MEM + MEM_CONFIG + 32, 1, 0);
	assert_int_equal(guest_config(&g, 32, 1), 0);
	assert_int_equal(guest_request(&g, T_OUT, 0, 512, false), OK);
	assert_int_equal(guest_request(&g, T_FLUSH, 0, 0, false), OK);
	assert_int_equal(flushes(&g), 1);
	/* Without the feature the byte cannot be changed. */
	guest_start(&g, &no_flush);
	mmio_write(&g.fm, GUEST_MEM + MEM_CONFIG + 32, 1, 1);
	assert_int_equal(guest_config(&g, 32, 1), 0);
	assert_int_equal(guest_request(&g, T_OUT, 0, 512, false), OK);
	guest_fini(&g);
}

static void the_configuration_describes_the_disk(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, "queue-size=128", "num-queues=4", NULL);
	guest_start(&g, &modern);
	assert_int_equal(guest_config(&g, 0, 4), DISK / 512);
	assert_int_equal(guest_config(&g, 4, 4), 0);
	assert_int_equal(guest_config(&g, 12, 4), 126); /* seg_max */
	assert_int_equal(guest_config(&g, 18, 1), 16);	/* heads */
	assert_int_equal(guest_config(&g, 20, 4), 512); /* blk_size */
	assert_int_equal(guest_config(&g, 34, 2), 4);	/* num_queues */
	assert_int_equal(guest_config(&g, 60, 4), 0);	/* beyond */
	assert_int_equal(mmio_read(&g.fm, GUEST_MEM + 18, 2), 4);
	guest_fini(&g);
}

static void blocks_of_other_sizes_are_told_and_kept_to(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, "logical_block_size=4k", "physical_block_size=16k", "opt_io_size=64k",
		   "discard_granularity=32k", NULL);
	guest_start(&g, &modern);
	assert_int_equal(guest_config(&g, 0, 4), DISK / 512);
	assert_int_equal(guest_config(&g, 20, 4), 4096);
	assert_int_equal(guest_config(&g, 24, 1), 2);  /* 2^2 blocks in a physical one */
	assert_int_equal(guest_config(&g, 26, 2), 4);  /* least of a request, in blocks */
	assert_int_equal(guest_config(&g, 28, 4), 16); /* best */
	assert_int_equal(guest_config(&g, 44, 4), 64); /* of discards, in sectors */
	assert_int_equal(guest_request(&g, T_IN, 8, 4096, true), OK);
	assert_int_equal(guest_request(&g, T_IN, 1, 4096, true), IOERR);
	assert_int_equal(guest_request(&g, T_OUT, 8, 512, false), IOERR);
	guest_fini(&g);
}

static void a_resize_is_announced(void **state)
{
	struct guest_mode mode = modern;
	struct virtio_guest g;
	struct error err;
	u8 generation;

	mode.msix = true;
	guest_init(&g, DISK, NULL);
	guest_start(&g, &mode);
	generation = (u8)mmio_read(&g.fm, GUEST_MEM + 21, 1);
	assert_int_equal(blk_resize(g.blk, 2 * DISK, &err), 0);
	assert_int_equal(guest_msis(&g, 0x40), 1);
	assert_int_equal(guest_config(&g, 0, 4), 2 * DISK / 512);
	assert_int_not_equal((u8)mmio_read(&g.fm, GUEST_MEM + 21, 1), generation);
	assert_int_equal(guest_request(&g, T_IN, 2 * DISK / 512 - 1, 512, true), OK);
	guest_fini(&g);
}

static void interrupts_are_batched_and_suppressed(void **state)
{
	struct guest_mode mode = {.msix = true, .features = (u64)1 << 29};
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	guest_start(&g, &mode);
	vring_set_used_event(&g.ring, 7); /* tell me when eight are done */
	for (unsigned i = 0; i < 8; i++)
		guest_submit(&g, T_IN, i, 512, true);
	guest_kick(&g);
	for (unsigned i = 0; i < 8; i++)
		assert_true(guest_wait(&g) >= 0);
	assert_int_equal(guest_msis(&g, 0x41), 1);
	guest_fini(&g);
}

static void every_queue_is_served(void **state)
{
	struct virtio_guest g;

	guest_init(&g, DISK, "num-queues=4", NULL);
	for (u16 q = 0; q < 4; q++) {
		/* The guest's one ring, as queue q of a driver that uses no other. */
		guest_start(&g, &modern);
		guest_set_status(&g, 0);
		guest_set_status(&g, 3);
		mmio_write(&g.fm, GUEST_MEM + 8, 4, 1);
		mmio_write(&g.fm, GUEST_MEM + 12, 4, 1);
		guest_set_status(&g, 0xb);
		vring_init(&g.ring, g.fm.m.mem, GUEST_RING, 256);
		mmio_write(&g.fm, GUEST_MEM + 22, 2, q);
		mmio_write(&g.fm, GUEST_MEM + 32, 4, g.ring.desc);
		mmio_write(&g.fm, GUEST_MEM + 40, 4, g.ring.avail);
		mmio_write(&g.fm, GUEST_MEM + 48, 4, g.ring.used);
		mmio_write(&g.fm, GUEST_MEM + 28, 2, 1);
		guest_set_status(&g, 0xf);
		guest_submit(&g, T_IN, 0, 512, true);
		mmio_write(&g.fm, GUEST_MEM + MEM_NOTIFY + 4u * q, 2, q);
		assert_true(guest_wait(&g) >= 0);
	}
	guest_fini(&g);
}

static void a_read_only_drive_says_so_and_refuses(void **state)
{
	struct guest_mode mode = {.features = ~(u64)0 >> 31};
	struct blk_options opt = {.id = "ro", .format = "raw", .readonly = true};
	struct prop_value values[] = {{.name = "drive"}};
	struct device_args args = {.values = values, .n_values = 1};
	struct virtio_guest g;
	struct error err;
	struct blk *blk;

	guest_init(&g, DISK, NULL);
	opt.file = g.path;
	device_free(g.dev);
	blk_close(g.blk);
	assert_int_equal(blk_open(&blk, &opt, &err), 0);
	g.blk = values[0].ptr = blk;
	args.parent = g.bridge;
	assert_int_equal(device_new(&g.dev, &g.fm.m, &virtio_blk_class, &args, &err), 0);
	for (u8 bar = 0; bar < 6; bar++)
		pci_write(&g.fm, g.devfn, (u8)(0x10 + 4 * bar), 4,
			  bar == 0   ? GUEST_IO
			  : bar == 1 ? GUEST_MSIX
			  : bar == 4 ? GUEST_MEM
				     : 0);
	pci_write(&g.fm, g.devfn, 4, 2, 7);
	guest_start(&g, &mode);
	assert_true(g.features & 1u << 5);
	assert_int_equal(guest_request(&g, T_OUT, 0, 512, false), IOERR);
	assert_int_equal(guest_request(&g, T_IN, 0, 512, true), OK);
	guest_fini(&g);
}

static void bad_properties_are_refused(void **state)
{
	static const struct {
		const char *name, *text, *message;
	} t[] = {
		{"num-queues", "0", "num-queues property must be larger than 0"},
		{"queue-size", "100", "queue-size is 100, expected a power of two"},
		{"write-cache", "maybe", "Parameter 'write-cache' does not accept value 'maybe'"},
		{"werror", "maybe", "Parameter 'werror' does not accept value 'maybe'"},
		{"logical_block_size", "1000", "it's not a power of 2"},
		{"logical_block_size", "256", "(minimum: 512, maximum: 2097152)"},
		{"logical_block_size", "8k", "logical_block_size > physical_block_size"},
		{"opt_io_size", "700", "opt_io_size must be a multiple of logical_block_size"},
		{"disable-legacy", "x", "expected on, off or auto"},
	};
	struct virtio_guest g;

	guest_init(&g, DISK, NULL);
	for (unsigned i = 0; i < ARRAY_LEN(t); i++) {
		struct prop_value values[] = {{.name = "drive", .ptr = g.blk},
					      {.name = t[i].name, .text = t[i].text}};
		struct device_args args = {.parent = g.bridge, .values = values, .n_values = 2};
		struct device *dev;
		struct error err;

		assert_true(device_new(&dev, &g.fm.m, &virtio_blk_class, &args, &err) < 0);
		assert_non_null(strstr(err.text, t[i].message));
	}
	guest_fini(&g);
}

static void no_memory_is_an_error_and_leaves_nothing_behind(void **state)
{
	struct virtio_guest g;
	struct error err;
	int ret = -ENOMEM;
	unsigned nth;

	guest_init(&g, DISK, NULL);
	device_free(g.dev);
	for (nth = 1; ret < 0; nth++) {
		struct prop_value values[] = {{.name = "drive", .ptr = g.blk},
					      {.name = "num-queues", .text = "3"}};
		struct device_args args = {.parent = g.bridge, .values = values, .n_values = 2};

		try_alloc_fail_nth(nth);
		ret = device_new(&g.dev, &g.fm.m, &virtio_blk_class, &args, &err);
		try_alloc_fail_nth(0);
		if (ret < 0)
			assert_non_null(strstr(err.text, "no memory for 256 requests"));
	}
	assert_true(nth > 3);
	guest_fini(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_reach_the_file),
		cmocka_unit_test(random_requests_agree_with_a_model),
		cmocka_unit_test(many_requests_are_in_flight_at_once),
		cmocka_unit_test(a_header_may_be_cut_anywhere),
		cmocka_unit_test(wrong_requests_get_an_error),
		cmocka_unit_test(a_request_without_header_breaks_the_queue),
		cmocka_unit_test(the_id_is_the_serial_number),
		cmocka_unit_test(zeroes_are_written_and_ranges_discarded),
		cmocka_unit_test(discard_needs_its_feature),
		cmocka_unit_test(the_cache_mode_follows_the_driver),
		cmocka_unit_test(the_configuration_describes_the_disk),
		cmocka_unit_test(blocks_of_other_sizes_are_told_and_kept_to),
		cmocka_unit_test(a_resize_is_announced),
		cmocka_unit_test(interrupts_are_batched_and_suppressed),
		cmocka_unit_test(every_queue_is_served),
		cmocka_unit_test(a_read_only_drive_says_so_and_refuses),
		cmocka_unit_test(bad_properties_are_refused),
		cmocka_unit_test(no_memory_is_an_error_and_leaves_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
