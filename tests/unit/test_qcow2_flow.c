/* What requests cost, and what holds while they are under way. */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define CLUSTER 4096u
#define BYTES	(1 * MiB)

struct stage {
	struct mem_disk disk, backing;
	struct image *img;
	u8 buf[CLUSTER];
	int result;
	bool done;
	u32 running;
};

static struct stage *stage_new(struct fiber *f, bool backing)
{
	struct qcow2_create_options opt = {
		.bytes = BYTES, .cluster_bytes = CLUSTER, .backing_file = backing ? "b" : NULL};
	struct open_policy policy = {.writable = true}, readonly = {0};
	struct stage *s = xnew(struct stage);
	struct loop *loop = fiber_loop(f);
	struct image *file = mem_image_new(loop, &s->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	assert_int_equal(image_open_over(f, &s->img, "qcow2", file, &policy, &err), 0);
	if (!backing)
		return s;
	s->backing.data = xalloc(BYTES);
	s->backing.bytes = s->backing.room = BYTES;
	memset(s->backing.data, 0xbb, BYTES);
	assert_int_equal(image_open_over(f, &s->img->backing, "raw",
					 mem_image_new(loop, &s->backing), &readonly, &err),
			 0);
	return s;
}

static void stage_free(struct fiber *f, struct stage *s)
{
	struct check_request req = {0};
	struct error err = {0};

	assert_int_equal(s->img->driver->check(f, s->img, &req, &err), 0);
	assert_int_equal(req.result.corruptions + req.result.leaks, 0);
	assert_int_equal(image_close(f, s->img), 0);
	mem_disk_fini(&s->disk);
	mem_disk_fini(&s->backing);
	free(s);
}

static void put(struct fiber *f, struct stage *s, u64 goff, u64 bytes, int byte)
{
	u8 buf[CLUSTER];

	memset(buf, byte, sizeof(buf));
	assert_int_equal(image_pwrite(f, s->img, goff, buf, bytes), 0);
}

static void expect_byte(struct fiber *f, struct stage *s, u64 goff, u64 bytes, int byte)
{
	u8 buf[CLUSTER];

	assert_int_equal(image_pread(f, s->img, goff, buf, bytes), 0);
	for (u64 i = 0; i < bytes; i++)
		assert_int_equal(buf[i], byte);
}

static void forget_costs(struct stage *s)
{
	s->disk.reads = s->disk.writes = s->disk.syncs = 0;
	s->backing.reads = 0;
}

static void expect_costs(const struct stage *s, u64 reads, u64 writes, u64 syncs)
{
	assert_int_equal(s->disk.reads, reads);
	assert_int_equal(s->disk.writes, writes);
	assert_int_equal(s->disk.syncs, syncs);
}

/* --- costs ------------------------------------------------------------------------- */

static void count_costs(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, false);

	put(f, s, 0, 512, 1);
	forget_costs(s);
	put(f, s, CLUSTER, 512, 2); /* allocates */
	expect_costs(s, 0, 1, 0);
	put(f, s, CLUSTER + 512, 512, 3); /* in place */
	expect_costs(s, 0, 2, 0);
	expect_byte(f, s, CLUSTER, 512, 2);
	expect_costs(s, 1, 2, 0);
	expect_byte(f, s, 10 * CLUSTER, CLUSTER, 0); /* a hole */
	expect_costs(s, 1, 2, 0);
	assert_int_equal(image_flush(f, s->img), 0);
	assert_int_equal(s->disk.syncs, 2); /* stages A and B */
	forget_costs(s);
	assert_int_equal(image_flush(f, s->img), 0); /* nothing to do */
	expect_costs(s, 0, 0, 0);
	put(f, s, CLUSTER, 512, 4);
	assert_int_equal(image_flush(f, s->img), 0); /* data only */
	expect_costs(s, 0, 1, 1);
	stage_free(f, s);
}

static void a_request_costs_what_it_must(void **state)
{
	assert_int_equal(loop_run_fiber(*state, count_costs, NULL), 0);
}

static void count_copies(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, true);

	put(f, s, 0, CLUSTER, 1);
	forget_costs(s);
	put(f, s, CLUSTER, CLUSTER, 2);
	assert_int_equal(s->backing.reads, 0); /* nothing old is left of it */
	expect_costs(s, 0, 1, 0);
	put(f, s, 2 * CLUSTER + 512, 1024, 3);
	assert_int_equal(s->backing.reads, 2); /* head and tail */
	expect_costs(s, 0, 2, 0);	       /* one write for all three */
	expect_byte(f, s, 2 * CLUSTER, 512, 0xbb);
	expect_byte(f, s, 2 * CLUSTER + 512, 1024, 3);
	expect_byte(f, s, 2 * CLUSTER + 1536, CLUSTER - 1536, 0xbb);
	stage_free(f, s);
}

static void old_data_is_copied_only_where_some_is_left(void **state)
{
	assert_int_equal(loop_run_fiber(*state, count_copies, NULL), 0);
}

/* --- what is under way --------------------------------------------------------------- */

static void read_first(struct fiber *f, void *arg)
{
	struct stage *s = arg;

	s->result = image_pread(f, s->img, 0, s->buf, CLUSTER);
	s->done = true;
}

static void write_first(struct fiber *f, void *arg)
{
	struct stage *s = arg;

	memset(s->buf, 0x33, CLUSTER);
	s->result = image_pwrite(f, s->img, 0, s->buf, CLUSTER);
	s->done = true;
}

/* Cluster 0 is discarded, and others allocated, while a request on it is held. */
static void reuse_while(struct fiber *f, struct stage *s, fiber_fn *request)
{
	put(f, s, 0, CLUSTER, 0x11);
	assert_int_equal(image_flush(f, s->img), 0);
	s->disk.hold_next = true;
	assert_int_equal(fiber_spawn(fiber_loop(f), request, s), 0);
	while (!s->disk.held)
		fiber_yield(f);
	assert_int_equal(image_discard(f, s->img, 0, CLUSTER), 0);
	for (u64 i = 1; i < 6; i++) {
		assert_int_equal(image_flush(f, s->img), 0);
		put(f, s, i * CLUSTER, CLUSTER, 0x22);
	}
	assert_false(s->done);
	mem_disk_release(&s->disk);
	while (!s->done)
		fiber_yield(f);
	assert_int_equal(s->result, 0);
}

static void reuse_under_read(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, false);

	reuse_while(f, s, read_first);
	for (u32 i = 0; i < CLUSTER; i++)
		assert_int_equal(s->buf[i], 0x11);
	stage_free(f, s);
}

static void reuse_under_write(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, false);

	reuse_while(f, s, write_first);
	for (u64 i = 1; i < 6; i++)
		expect_byte(f, s, i * CLUSTER, CLUSTER, 0x22);
	expect_byte(f, s, 0, CLUSTER, 0);
	stage_free(f, s);
}

static void a_cluster_being_read_is_not_reused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, reuse_under_read, NULL), 0);
}

static void a_cluster_being_written_is_not_reused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, reuse_under_write, NULL), 0);
}

static void write_last(struct fiber *f, void *arg)
{
	struct stage *s = arg;

	s->result = image_pwrite(f, s->img, BYTES - CLUSTER, s->buf, CLUSTER);
	s->done = true;
}

/* One request holds the lock of the last clusters, another waits behind it. */
static void shrink_under_write(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, false);
	struct error err = {0};

	s->disk.hold_next = true;
	assert_int_equal(fiber_spawn(fiber_loop(f), write_last, s), 0);
	while (!s->disk.held)
		fiber_yield(f);
	mem_disk_release(&s->disk);
	assert_int_equal(image_resize(f, s->img, 64 * KiB, &err), 0);
	while (!s->done)
		fiber_yield(f);
	assert_true(s->result == 0 || s->result == -EIO);
	expect_byte(f, s, 0, CLUSTER, 0);
	assert_int_equal(image_resize(f, s->img, BYTES, &err), 0);
	for (u64 goff = 64 * KiB; goff < BYTES; goff += CLUSTER)
		expect_byte(f, s, goff, CLUSTER, 0);
	stage_free(f, s);
}

static void a_write_that_meets_a_shrink_does_no_harm(void **state)
{
	assert_int_equal(loop_run_fiber(*state, shrink_under_write, NULL), 0);
}

static void reuse_after(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, false);
	u64 before;

	put(f, s, 0, CLUSTER, 1);
	assert_int_equal(image_flush(f, s->img), 0);
	before = s->disk.bytes;
	for (u64 i = 0; i < 50; i++) {
		assert_int_equal(image_discard(f, s->img, i * CLUSTER, CLUSTER), 0);
		assert_int_equal(image_flush(f, s->img), 0);
		put(f, s, (i + 1) * CLUSTER, CLUSTER, 1);
	}
	assert_true(s->disk.bytes <= before + 2 * CLUSTER);
	stage_free(f, s);
}

static void a_freed_cluster_is_reused_after_a_flush(void **state)
{
	assert_int_equal(loop_run_fiber(*state, reuse_after, NULL), 0);
}

static void flush_one(struct fiber *f, void *arg)
{
	struct stage *s = arg;

	assert_int_equal(image_flush(f, s->img), 0);
	s->running--;
}

static void flush_many(struct fiber *f, void *arg)
{
	struct stage *s = stage_new(f, false);

	s->disk.seed = 7;
	put(f, s, 0, CLUSTER, 1);
	forget_costs(s);
	s->running = 20;
	for (u32 i = 0; i < 20; i++)
		assert_int_equal(fiber_spawn(fiber_loop(f), flush_one, s), 0);
	while (s->running)
		fiber_yield(f);
	assert_true(s->disk.syncs <= 4);
	stage_free(f, s);
}

static void flushes_that_meet_share_a_commit(void **state)
{
	assert_int_equal(loop_run_fiber(*state, flush_many, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(a_request_costs_what_it_must), X(old_data_is_copied_only_where_some_is_left),            \
		X(a_cluster_being_read_is_not_reused), X(a_cluster_being_written_is_not_reused),   \
		X(a_write_that_meets_a_shrink_does_no_harm),                                       \
		X(a_freed_cluster_is_reused_after_a_flush), X(flushes_that_meet_share_a_commit)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	return cmocka_run_group_tests_name("qcow2 flow", tests, NULL, NULL);
}
