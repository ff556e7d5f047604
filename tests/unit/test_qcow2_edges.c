/* qcow2 at its edges: entries that are legal but odd or that lie about places,
 * clusters beyond the end of the file, requests that meet at a bad moment. */
#include "tests/unit/backends.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "block/filter.h"
#include "block/qcow2/format.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/state.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define CLUSTER (64 * KiB)
#define L2_HOFF (4ull * CLUSTER) /* where the first L2 table of a fresh image goes */

struct lab {
	struct mem_disk disk;
	struct image *img;
	struct record_log log;
	int pending;
};

/* An image of opt, with `n` clusters written from the start; left closed. */
static struct lab *lab_new(struct fiber *f, const struct qcow2_create_options *opt, u32 n)
{
	struct lab *l = xnew(struct lab);
	struct open_policy policy = {.writable = true};
	struct image *file = mem_image_new(fiber_loop(f), &l->disk);
	u32 bytes = opt->cluster_bytes ? opt->cluster_bytes : CLUSTER;
	AUTO_FREE u8 *buf = xalloc(bytes);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, opt, &err), 0);
	assert_int_equal(image_open_over(f, &l->img, "qcow2", file, &policy, &err), 0);
	memset(buf, 0x11, bytes);
	for (u64 i = 0; i < n; i++)
		assert_int_equal(image_pwrite(f, l->img, i * bytes, buf, bytes), 0);
	assert_int_equal(image_close(f, l->img), 0);
	return l;
}

static void lab_open(struct fiber *f, struct lab *l)
{
	struct open_policy policy = {.writable = true, .discard = true};
	struct image *below = mem_image_new(fiber_loop(f), &l->disk);
	struct error err = {0};

	assert_int_equal(filter_record_new(&below, below, &l->log), 0);
	assert_int_equal(image_open_over(f, &l->img, "qcow2", below, &policy, &err), 0);
}

static void lab_free(struct lab *l)
{
	record_log_fini(&l->log);
	mem_disk_fini(&l->disk);
	free(l);
}

static u64 l2_entry_at(const struct lab *l, u32 i)
{
	return load_be64(l->disk.data + L2_HOFF + i * 8ull);
}

static void assert_sound(struct fiber *f, struct lab *l)
{
	struct check_request req = {0};
	struct error err = {0};

	lab_open(f, l);
	assert_int_equal(l->img->driver->check(f, l->img, &req, &err), 0);
	assert_int_equal(req.result.corruptions + req.result.check_errors, 0);
	assert_int_equal(image_close(f, l->img), 0);
}

/* --- reserved bits of the refcount table ------------------------------------------- */

static void reserved_bits(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB, .cluster_bytes = 512};
	struct lab *l = lab_new(f, &opt, 1);
	u64 reftable = load_be64(l->disk.data + 48);
	u8 buf[512] = {0x22};

	for (u32 i = 1; i < 64; i++)
		store_be64(l->disk.data + reftable + i * 8ull, 1); /* no block there */
	lab_open(f, l);
	for (u64 goff = 512; goff < 512 * KiB; goff += 512)
		assert_int_equal(image_pwrite(f, l->img, goff, buf, 512), 0);
	assert_int_equal(image_close(f, l->img), 0);
	reftable = load_be64(l->disk.data + 48);
	for (u32 i = 1; i < 64; i++) /* a check would count them */
		if (load_be64(l->disk.data + reftable + i * 8ull) == 1)
			store_be64(l->disk.data + reftable + i * 8ull, 0);
	assert_sound(f, l);
	lab_free(l);
}

static void reserved_bits_of_the_refcount_table_are_no_block(void **state)
{
	assert_int_equal(loop_run_fiber(*state, reserved_bits, NULL), 0);
}

/* --- an L1 entry beyond the disk --------------------------------------------------- */

static void shrink_garbage(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB};
	u64 entries[] = {0x50200 | ENTRY_COPIED, 2 * CLUSTER, 2 * CLUSTER | ENTRY_COPIED >> 1};

	for (unsigned i = 0; i < ARRAY_LEN(entries); i++) {
		struct lab *l = lab_new(f, &opt, 1);
		u64 l1 = load_be64(l->disk.data + 40);
		struct error err = {0};

		store_be32(l->disk.data + 36, 3); /* more entries than the size needs */
		store_be64(l->disk.data + l1 + 16, entries[i]);
		lab_open(f, l);
		(void)image_resize(f, l->img, 512 * KiB, &err);
		(void)image_close(f, l->img);
		/* Whatever it said, the refcount block is still in use. */
		assert_int_equal(load_be16(l->disk.data + 2 * CLUSTER + 4), 1);
		lab_free(l);
	}
}

static void shrinking_survives_garbage_beyond_the_disk(void **state)
{
	assert_int_equal(loop_run_fiber(*state, shrink_garbage, NULL), 0);
}

/* --- an L2 table that is something else -------------------------------------------- */

static void alias(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1ull << 30};
	u64 span = (u64)CLUSTER * CLUSTER / 8;
	u8 buf[512] = {0x22};

	/* Refcount table, its block, L1 table. */
	for (u64 target = 1; target <= 3; target++) {
		struct lab *l = lab_new(f, &opt, 1);
		u64 l1 = load_be64(l->disk.data + 40);

		/* Shared, it says, so it would be copied and freed. */
		store_be64(l->disk.data + l1 + 8, target * CLUSTER);
		lab_open(f, l);
		assert_int_equal(image_pwrite(f, l->img, span + 1000 * CLUSTER, buf, 512), -EIO);
		assert_int_equal(load_be64(l->disk.data + 72), INCOMPAT_CORRUPT);
		(void)image_close(f, l->img);
		lab_free(l);
	}
}

static void metadata_taken_for_an_l2_table_is_not_freed(void **state)
{
	assert_int_equal(loop_run_fiber(*state, alias, NULL), 0);
}

/* --- a cluster far beyond what refcounts describe ---------------------------------- */

static void far_cluster(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {
		.bytes = 16 * KiB, .cluster_bytes = 512, .refcount_bits = 64};
	struct lab *l = lab_new(f, &opt, 4);
	u64 l1 = load_be64(l->disk.data + 40);
	u64 l2 = load_be64(l->disk.data + l1) & ENTRY_HOFF;
	u64 near = load_be64(l->disk.data + l2) & ENTRY_HOFF;
	u64 block = load_be64(l->disk.data + load_be64(l->disk.data + 48));

	/* The index of its refcount block does not fit 32 bits. */
	store_be64(l->disk.data + l2 + 8, near | (u64)1 << 47);
	lab_open(f, l);
	(void)image_discard(f, l->img, 512, 512);
	(void)image_flush(f, l->img);
	(void)image_flush(f, l->img);
	(void)image_close(f, l->img);
	assert_int_equal(load_be64(l->disk.data + block + near / 512 * 8), 1);
	lab_free(l);
}

static void freeing_a_far_cluster_leaves_near_ones_alone(void **state)
{
	assert_int_equal(loop_run_fiber(*state, far_cluster, NULL), 0);
}

/* --- a cluster beyond the end of the file ------------------------------------------ */

static void beyond_end(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB};
	struct lab *l = lab_new(f, &opt, 1);
	u64 hoff = l2_entry_at(l, 0) & ENTRY_HOFF;
	AUTO_FREE u8 *buf = xalloc(CLUSTER);

	memset(l->disk.data + hoff, 0, l->disk.bytes - hoff);
	l->disk.bytes = hoff; /* preallocated, but the file is not that long */
	lab_open(f, l);
	memset(buf, 0x33, CLUSTER);
	assert_int_equal(image_pwrite(f, l->img, 0, buf, CLUSTER), 0);
	assert_int_equal(l->disk.bytes, hoff + CLUSTER);
	assert_int_equal(image_zero(f, l->img, 0, CLUSTER, ZERO_MAY_UNMAP), 0);
	assert_int_equal(image_flush(f, l->img), 0);
	assert_int_equal(image_flush(f, l->img), 0);
	memset(l->disk.data + hoff, 0x44, CLUSTER); /* discarding may do nothing */
	assert_int_equal(image_pwrite(f, l->img, 0, buf, 512), 0);
	assert_int_equal(image_pread(f, l->img, 0, buf, CLUSTER), 0);
	for (u32 i = 512; i < CLUSTER; i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(image_close(f, l->img), 0);
	lab_free(l);
}

static void a_cluster_beyond_the_files_end_is_not_taken_for_new_twice(void **state)
{
	assert_int_equal(loop_run_fiber(*state, beyond_end, NULL), 0);
}

/* --- growing over a longer backing image ------------------------------------------- */

static void grow_over_backing(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB, .backing_file = "b"};
	struct lab *l = lab_new(f, &opt, 1);
	struct mem_disk backing = {.bytes = 2 * MiB, .room = 2 * MiB, .data = xalloc(2 * MiB)};
	struct image *raw = mem_image_new(fiber_loop(f), &backing);
	struct open_policy policy = {0};
	struct error err = {0};
	size_t head = 0, sync = 0;
	const struct record_event *e;

	lab_open(f, l);
	assert_int_equal(image_open_over(f, &l->img->backing, "raw", raw, &policy, &err), 0);
	assert_int_equal(image_resize(f, l->img, 2 * MiB, &err), 0);
	e = l->log.events;
	for (size_t i = 0; i < l->log.n; i++)
		if (e[i].kind == RECORD_WRITE && !e[i].hoff &&
		    load_be64(e[i].data + 24) == 2 * MiB && !head)
			head = i;
	assert_true(head > 0);
	for (size_t i = 0; i < e[head].issued; i++)
		if (e[i].kind == RECORD_SYNC)
			sync = i;
	/* A power loss must not show the backing image's end: its removal is
	 * durable before the size. */
	for (size_t i = 0; i < l->log.n; i++)
		if (e[i].kind == RECORD_WRITE && e[i].hoff)
			assert_true(i < e[sync].issued);
	assert_int_equal(image_close(f, l->img), 0);
	mem_disk_fini(&backing);
	lab_free(l);
}

static void a_larger_size_is_written_after_the_zeros_it_shows(void **state)
{
	assert_int_equal(loop_run_fiber(*state, grow_over_backing, NULL), 0);
}

/* --- an empty refcount block that another one counts ------------------------------- */

static void empty_block(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 64 * KiB, .cluster_bytes = 512};
	struct lab *l = lab_new(f, &opt, 1);
	u64 reftable = load_be64(l->disk.data + 48), place = align_up(l->disk.bytes, 512);
	u64 block = load_be64(l->disk.data + reftable);
	struct check_request req = {0};
	struct error err = {0};

	l->disk.data = xrealloc(l->disk.data, place + 512);
	memset(l->disk.data + place, 0, 512);
	l->disk.bytes = l->disk.room = place + 512;
	store_be64(l->disk.data + reftable + 5 * 8, place);
	store_be16(l->disk.data + block + place / 512 * 2, 1);
	lab_open(f, l);
	assert_int_equal(image_resize(f, l->img, 32 * KiB, &err), 0);
	assert_int_equal(image_close(f, l->img), 0);
	lab_open(f, l);
	assert_int_equal(l->img->driver->check(f, l->img, &req, &err), 0);
	assert_int_equal(req.result.corruptions + req.result.leaks, 0);
	assert_int_equal(image_close(f, l->img), 0);
	lab_free(l);
}

static void shrinking_does_not_lose_an_empty_refcount_block(void **state)
{
	assert_int_equal(loop_run_fiber(*state, empty_block, NULL), 0);
}

/* --- too many snapshots ------------------------------------------------------------ */

static void snapshot_flood(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB, .cluster_bytes = 512};
	struct lab *l = lab_new(f, &opt, 1);
	u32 n = 1000;
	u64 table = 1 * MiB;
	u8 buf[512] = {0x22};

	l->disk.data = xrealloc(l->disk.data, 2 * MiB);
	memset(l->disk.data + l->disk.bytes, 0, 2 * MiB - l->disk.bytes);
	l->disk.bytes = l->disk.room = 2 * MiB;
	store_be32(l->disk.data + 60, n);
	store_be64(l->disk.data + 64, table);
	for (u32 i = 0; i < n; i++) { /* 32 MiB each */
		store_be64(l->disk.data + table + i * 40ull, (u64)(i + 1) << 25);
		store_be32(l->disk.data + table + i * 40ull + 8, 4 * MiB);
	}
	lab_open(f, l);
	assert_true(to_qcow2(l->img)->metadata.used < 4 * MiB);
	assert_int_equal(image_pwrite(f, l->img, 0, buf, 512), 0);
	assert_int_equal(image_close(f, l->img), 0);
	lab_free(l);
}

static void a_flood_of_snapshots_takes_bounded_memory(void **state)
{
	assert_int_equal(loop_run_fiber(*state, snapshot_flood, NULL), 0);
}

/* --- a commit without memory ------------------------------------------------------- */

static void no_memory(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB};
	u8 buf[512] = {0x22}, got[512];

	for (unsigned nth = 1; nth < 8; nth++) {
		struct lab *l = lab_new(f, &opt, 0);

		lab_open(f, l);
		assert_int_equal(image_pwrite(f, l->img, 0, buf, 512), 0);
		try_alloc_fail_nth(nth);
		(void)image_flush(f, l->img);
		try_alloc_fail_nth(0);
		assert_int_equal(image_flush(f, l->img), 0);
		assert_int_equal(image_close(f, l->img), 0);
		lab_open(f, l);
		assert_int_equal(image_pread(f, l->img, 0, got, 512), 0);
		assert_memory_equal(got, buf, 512);
		assert_int_equal(image_close(f, l->img), 0);
		lab_free(l);
	}
}

static void a_flush_without_memory_loses_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, no_memory, NULL), 0);
}

/* --- the first two writes of a session --------------------------------------------- */

static void first_write(struct fiber *f, void *arg)
{
	struct lab *l = arg;
	u8 buf[512] = {0x22};

	assert_int_equal(image_pwrite(f, l->img, 0, buf, 512), 0);
	l->pending--;
}

static void autoclear_race(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB};

	for (u64 seed = 1; seed < 20; seed++) {
		struct lab *l = lab_new(f, &opt, 1);
		size_t sync = 0;

		store_be64(l->disk.data + 88, 1);
		l->disk.seed = seed;
		lab_open(f, l);
		l->pending = 4;
		for (int i = 0; i < 4; i++)
			assert_int_equal(fiber_spawn(fiber_loop(f), first_write, l), 0);
		while (l->pending)
			fiber_yield(f);
		while (sync < l->log.n && l->log.events[sync].kind != RECORD_SYNC)
			sync++;
		for (size_t i = 0; i < l->log.n; i++)
			if (l->log.events[i].kind == RECORD_WRITE && l->log.events[i].hoff)
				assert_true(l->log.events[i].issued > sync);
		assert_int_equal(image_close(f, l->img), 0);
		lab_free(l);
	}
}

static void no_write_overtakes_the_clearing_of_autoclear_bits(void **state)
{
	assert_int_equal(loop_run_fiber(*state, autoclear_race, NULL), 0);
}

/* --- one L2 table named twice --------------------------------------------------- */

static void twins(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB, .cluster_bytes = 512};

	for (u16 refcount = 1; refcount < 3; refcount++) {
		struct lab *l = lab_new(f, &opt, 1);
		u64 l1 = load_be64(l->disk.data + 40);
		u64 table = load_be64(l->disk.data + l1) & ENTRY_HOFF;
		u64 block = load_be64(l->disk.data + load_be64(l->disk.data + 48));
		u8 buf[512] = {1};

		store_be64(l->disk.data + l1, table);
		store_be64(l->disk.data + l1 + 8, table);
		store_be16(l->disk.data + block + table / 512 * 2, refcount);
		lab_open(f, l);
		assert_int_equal(image_pwrite(f, l->img, 32 * KiB + 5 * 512, buf, 512),
				 refcount == 1 ? -EIO : 0);
		(void)image_close(f, l->img);
		assert_int_equal(l->disk.data[79] & 2, refcount == 1 ? 2 : 0);
		lab_free(l);
	}
}

static void a_write_to_a_table_named_twice_is_refused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, twins, NULL), 0);
}

/* --- many freed clusters behind a request that stands still ----------------------- */

static void stuck_read(struct fiber *f, void *arg)
{
	struct lab *l = arg;
	u8 buf[512];

	assert_int_equal(image_pread(f, l->img, 0, buf, sizeof(buf)), 0);
	l->pending--;
}

static void free_many(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = 20 * MiB, .cluster_bytes = 512};
	struct lab *l = lab_new(f, &opt, 36000);
	u8 buf[512] = {1}, first[512];
	u64 syncs;

	lab_open(f, l);
	assert_int_equal(image_pread(f, l->img, 0, first, 512), 0); /* the table is there */
	l->pending = 1;
	l->disk.hold_next = true;
	assert_int_equal(fiber_spawn(fiber_loop(f), stuck_read, l), 0);
	while (!l->disk.held)
		fiber_yield(f);
	for (u64 i = 1; i < 17500; i++) /* each a run of its own */
		assert_int_equal(image_discard(f, l->img, i * 1024, 512), 0);
	assert_int_equal(image_flush(f, l->img), 0);
	syncs = l->disk.syncs;
	for (u64 i = 1; i < 100; i++)
		assert_int_equal(image_pwrite(f, l->img, i * 1024 + 512, buf, 512), 0);
	assert_true(l->disk.syncs - syncs < 5); /* no commit with each of them */
	mem_disk_release(&l->disk);
	while (l->pending)
		fiber_yield(f);
	assert_int_equal(image_close(f, l->img), 0);
	assert_sound(f, l);
	lab_free(l);
}

static void clusters_that_wait_for_a_request_need_no_commits(void **state)
{
	assert_int_equal(loop_run_fiber(*state, free_many, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(reserved_bits_of_the_refcount_table_are_no_block),                                       \
		X(shrinking_survives_garbage_beyond_the_disk),                                     \
		X(metadata_taken_for_an_l2_table_is_not_freed),                                    \
		X(freeing_a_far_cluster_leaves_near_ones_alone),                                   \
		X(a_cluster_beyond_the_files_end_is_not_taken_for_new_twice),                      \
		X(a_flush_without_memory_loses_nothing),                                           \
		X(a_flood_of_snapshots_takes_bounded_memory),                                      \
		X(a_larger_size_is_written_after_the_zeros_it_shows),                              \
		X(shrinking_does_not_lose_an_empty_refcount_block),                                \
		X(no_write_overtakes_the_clearing_of_autoclear_bits),                              \
		X(a_write_to_a_table_named_twice_is_refused),                                      \
		X(clusters_that_wait_for_a_request_need_no_commits)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("edges of qcow2", tests, NULL, NULL);
}
