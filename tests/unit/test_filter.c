/* The filters that the crash and fault tests stand on. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/file.h"
#include "block/filter.h"

#include <errno.h>
#include <unistd.h>

static struct image *temp_file(struct fiber *f, char name[32])
{
	struct open_policy policy = {.discard = true};
	struct image *img;
	struct error err;
	int fd;

	strcpy(name, "/tmp/test_filter_XXXXXX");
	fd = mkstemp(name);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(file_create(f, &img, name, 4096, &policy, &err), 0);
	return img;
}

/* --- record ----------------------------------------------------------------- */

static void expect(const struct record_event *e, enum record_kind kind, u64 hoff, u64 bytes,
		   size_t issued)
{
	assert_int_equal(e->kind, kind);
	assert_int_equal(e->hoff, hoff);
	assert_int_equal(e->bytes, bytes);
	assert_int_equal(e->issued, issued);
}

static void record_some(struct fiber *f, void *arg)
{
	struct record_log log = {0};
	struct image *img;
	struct error err;
	char name[32];
	u8 in[8];

	assert_int_equal(filter_record_new(&img, temp_file(f, name), &log), 0);
	assert_true(img->grows && img->writable);
	assert_int_equal(image_pwrite(f, img, 5000, "abc", 3), 0);
	assert_int_equal(img->bytes, 5003);
	assert_int_equal(image_flush(f, img), 0);
	record_mark(&log, 77);
	assert_int_equal(image_zero(f, img, 0, 512, 0), 0);
	assert_int_equal(image_discard(f, img, 512, 512), 0);
	assert_int_equal(image_resize(f, img, 8192, &err), 0);
	assert_int_equal(img->bytes, 8192);
	assert_int_equal(image_pread(f, img, 5000, in, 3), 0);
	assert_memory_equal(in, "abc", 3);

	assert_int_equal(log.n, 6);
	expect(&log.events[0], RECORD_WRITE, 5000, 3, 0);
	assert_memory_equal(log.events[0].data, "abc", 3);
	expect(&log.events[1], RECORD_SYNC, 0, 0, 1);
	expect(&log.events[2], RECORD_MARK, 77, 0, 2);
	expect(&log.events[3], RECORD_ZERO, 0, 512, 3);
	expect(&log.events[4], RECORD_DISCARD, 512, 512, 4);
	expect(&log.events[5], RECORD_RESIZE, 0, 8192, 5);
	assert_int_equal(image_close(f, img), 0);
	record_log_fini(&log);
	unlink(name);
}

static void every_change_is_recorded_in_order_with_its_data(void **state)
{
	assert_int_equal(loop_run_fiber(*state, record_some, NULL), 0);
}

struct overlap {
	struct image *img;
	unsigned left;
};

static void write_one(struct fiber *f, void *arg)
{
	struct overlap *o = arg;

	assert_int_equal(image_pwrite(f, o->img, o->left * 512, "x", 1), 0);
	o->left--;
}

static void record_overlapping(struct fiber *f, void *arg)
{
	struct record_log log = {0};
	struct overlap o = {.left = 2};
	char name[32];

	assert_int_equal(filter_record_new(&o.img, temp_file(f, name), &log), 0);
	assert_int_equal(fiber_spawn(fiber_loop(f), write_one, &o), 0);
	assert_int_equal(fiber_spawn(fiber_loop(f), write_one, &o), 0);
	while (o.left)
		fiber_sleep_ns(f, NS_PER_MS);
	assert_int_equal(image_flush(f, o.img), 0);
	/* Both were issued before either was complete. */
	assert_int_equal(log.n, 3);
	assert_int_equal(log.events[0].issued, 0);
	assert_int_equal(log.events[1].issued, 0);
	assert_int_equal(log.events[2].issued, 2);
	assert_int_equal(image_close(f, o.img), 0);
	record_log_fini(&log);
	unlink(name);
}

static void writes_in_flight_together_are_recorded_as_such(void **state)
{
	assert_int_equal(loop_run_fiber(*state, record_overlapping, NULL), 0);
}

/* --- fault ------------------------------------------------------------------ */

static void fail_some(struct fiber *f, void *arg)
{
	struct fault_rule rule = {.error = -EIO};
	struct image *img;
	char name[32];
	u8 b[512] = {0};

	assert_int_equal(filter_fault_new(&img, temp_file(f, name), &rule), 0);
	assert_int_equal(image_pread(f, img, 0, b, 512), 0);
	rule.reads = 2;
	assert_int_equal(image_pread(f, img, 0, b, 512), 0);
	assert_int_equal(image_pwrite(f, img, 0, b, 512), 0);
	assert_int_equal(image_pread(f, img, 0, b, 512), -EIO);
	assert_int_equal(image_pread(f, img, 0, b, 512), 0);
	rule = (struct fault_rule){.writes = 1, .syncs = 1, .error = -ENOSPC, .sticky = true};
	assert_int_equal(image_pwrite(f, img, 8192, b, 512), -ENOSPC);
	assert_int_equal(image_zero(f, img, 0, 512, 0), -ENOSPC);
	assert_int_equal(image_resize(f, img, 512, &(struct error){0}), -ENOSPC);
	assert_int_equal(image_flush(f, img), -ENOSPC);
	assert_int_equal(img->bytes, 4096); /* nothing reached the file */
	rule = (struct fault_rule){0};
	assert_int_equal(image_flush(f, img), 0);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void the_nth_operation_fails_and_sticky_rules_go_on_failing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, fail_some, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(every_change_is_recorded_in_order_with_its_data),                                        \
		X(writes_in_flight_together_are_recorded_as_such),                                 \
		X(the_nth_operation_fails_and_sticky_rules_go_on_failing)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
