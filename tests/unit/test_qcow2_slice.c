/* Images with more L2 tables than the cache holds, of which parts are read: what several
 * readers and writers at once see, with snapshots taken, gone back to and deleted between
 * them, against one byte for each of many places. */
#include "tests/unit/backends.h"

#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "block/qcow2/state.h"
#include "tests/lib/mem_image.h"

#define CLUSTER 8192u
#define DISK	(512 * MiB) /* 64 tables; the cache holds eight */
#define PLACES	512u	    /* of a sector, in other parts and tables */
#define FIBERS	6u

struct model {
	struct mem_disk disk;
	struct image *img;
	u8 now[PLACES], kept[PLACES];
	u64 seed;
	u32 running;
	struct fiber_queue done;
};

struct user {
	struct model *m;
	u32 index;
	u64 seed;
};

static u64 place(u32 n)
{
	return (u64)n * (DISK / PLACES) + n % 7 * CLUSTER;
}

static void open_model(struct fiber *f, struct model *m)
{
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 16 * 1024};
	struct image *below = mem_image_new(fiber_loop(f), &m->disk);
	struct error err = {0};

	if (image_open_over(f, &m->img, "qcow2", below, &policy, &err) < 0)
		fail_msg("%s", err.text);
}

static void read_one(struct fiber *f, struct model *m, u32 n)
{
	u8 got[512];

	assert_int_equal(image_pread(f, m->img, place(n), got, sizeof(got)), 0);
	if (got[0] != m->now[n] || got[511] != m->now[n])
		fail_msg("place %u is %#x, expected %#x", n, got[0], m->now[n]);
}

static void write_one(struct fiber *f, struct model *m, u32 n, u8 value)
{
	u8 data[512];

	memset(data, value, sizeof(data));
	assert_int_equal(image_pwrite(f, m->img, place(n), data, sizeof(data)), 0);
	m->now[n] = value;
}

/* Each has places of its own, in tables that all use. */
static void use(struct fiber *f, void *arg)
{
	struct user *u = arg;
	struct model *m = u->m;

	for (u32 i = 0; i < 60; i++) {
		u32 n = (u32)(next_random(&u->seed) % (PLACES / FIBERS)) * FIBERS + u->index;
		u64 what = next_random(&u->seed) % 16;

		if (what == 0) {
			assert_int_equal(image_flush(f, m->img), 0);
		} else if (what == 1) {
			assert_int_equal(image_zero(f, m->img, place(n), 512, 0), 0);
			m->now[n] = 0;
		} else if (what < 6) {
			write_one(f, m, n, (u8)(next_random(&u->seed) | 1));
		} else {
			read_one(f, m, n);
		}
	}
	m->running--;
	fiber_queue_wake_all(&m->done);
}

static void use_all(struct fiber *f, struct model *m)
{
	struct user users[FIBERS];

	m->running = FIBERS;
	for (u32 i = 0; i < FIBERS; i++) {
		users[i] = (struct user){m, i, next_random(&m->seed) | 1};
		assert_int_equal(fiber_spawn(fiber_loop(f), use, &users[i]), 0);
	}
	while (m->running)
		fiber_queue_wait(f, &m->done);
}

static void check_all(struct fiber *f, struct model *m)
{
	struct check_request req = {0};
	struct error err = {0};

	for (u32 n = 0; n < PLACES; n++)
		read_one(f, m, n);
	assert_int_equal(m->img->driver->check(f, m->img, &req, &err), 0);
	assert_int_equal(req.result.corruptions, 0);
	assert_int_equal(req.result.leaks, 0);
}

static void create_model(struct fiber *f, struct model *m)
{
	struct qcow2_create_options opt = {.bytes = DISK, .cluster_bytes = CLUSTER};
	struct image *file = mem_image_new(fiber_loop(f), &m->disk);
	struct error err = {0};

	fiber_queue_init(&m->done);
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	open_model(f, m);
}

static void random_use(struct fiber *f, void *arg)
{
	struct model m = {.seed = 77, .disk.seed = 5};
	const struct qcow2_new_snapshot snapshot = {.name = "s", .icount = QCOW2_NO_ICOUNT};
	struct error err = {0};

	create_model(f, &m);
	for (u32 round = 0; round < 24; round++) {
		use_all(f, &m);
		if (round % 6 == 1) {
			memcpy(m.kept, m.now, sizeof(m.now));
			assert_int_equal(qcow2_snapshot_create(f, m.img, &snapshot), 0);
		} else if (round % 6 == 3) {
			assert_int_equal(qcow2_snapshot_apply(f, m.img, 0, &err), 0);
			memcpy(m.now, m.kept, sizeof(m.now));
		} else if (round % 6 == 5) {
			assert_int_equal(qcow2_snapshot_delete(f, m.img, 0, &err), 0);
		}
	}
	check_all(f, &m);
	assert_int_equal(image_close(f, m.img), 0);
	open_model(f, &m);
	check_all(f, &m);
	assert_int_equal(image_close(f, m.img), 0);
	mem_disk_fini(&m.disk);
}

static void what_is_read_in_parts_is_what_was_written(void **state)
{
	assert_int_equal(loop_run_fiber(*state, random_use, NULL), 0);
}

/* Tables and parts of them, with requests for all of both. */
static void fill_caches(struct fiber *f, void *arg)
{
	struct model m = {.disk.seed = 9};
	struct qcow2 *q;

	create_model(f, &m);
	for (u32 n = 0; n < PLACES; n++)
		write_one(f, &m, n, (u8)(n | 1));
	assert_int_equal(image_close(f, m.img), 0);
	open_model(f, &m);
	q = to_qcow2(m.img);
	for (u32 n = 0; n < 2 * PLACES; n++) {
		u64 used;

		if (n % 3)
			read_one(f, &m, n % PLACES);
		else
			write_one(f, &m, n % PLACES, (u8)n | 1);
		assert_int_equal(image_flush(f, m.img), 0); /* so that all of it can go */
		used = (u64)q->slices.count * L2_SLICE_BYTES + (u64)q->l2.count * CLUSTER;
		assert_in_range(used, 1, (u64)q->l2.max * CLUSTER);
	}
	assert_true(q->slices.count > 0);
	assert_int_equal(image_close(f, m.img), 0);
	mem_disk_fini(&m.disk);
}

static void tables_and_parts_share_the_caches_room(void **state)
{
	assert_int_equal(loop_run_fiber(*state, fill_caches, NULL), 0);
}

/* A part that is being read when its whole table is read and changed. */
static void read_it(struct fiber *f, void *arg)
{
	struct model *m = arg;
	u8 got[512];

	assert_int_equal(image_pread(f, m->img, place(0), got, sizeof(got)), 0);
	m->running--;
	fiber_queue_wake_all(&m->done);
}

static void overtake(struct fiber *f, void *arg)
{
	struct model m = {.disk.seed = 0};

	create_model(f, &m);
	write_one(f, &m, 0, 1);
	assert_int_equal(image_close(f, m.img), 0);
	open_model(f, &m);
	m.running = 1;
	m.disk.hold_next = true;
	assert_int_equal(fiber_spawn(fiber_loop(f), read_it, &m), 0);
	while (!m.disk.held)
		fiber_yield(f);
	/* Zeros go through the whole table. */
	assert_int_equal(image_zero(f, m.img, place(0), CLUSTER, 0), 0);
	m.now[0] = 0;
	mem_disk_release(&m.disk);
	while (m.running)
		fiber_queue_wait(f, &m.done);
	assert_int_equal(to_qcow2(m.img)->slices.count, 0);
	read_one(f, &m, 0);
	assert_int_equal(image_close(f, m.img), 0);
	mem_disk_fini(&m.disk);
}

static void a_part_that_comes_after_its_table_is_dropped(void **state)
{
	assert_int_equal(loop_run_fiber(*state, overtake, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(what_is_read_in_parts_is_what_was_written), X(tables_and_parts_share_the_caches_room),   \
		X(a_part_that_comes_after_its_table_is_dropped)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	/* The disk is in memory: the loop's backend makes no difference. */
	return cmocka_run_group_tests_name("qcow2 slices", tests, NULL, NULL);
}
