/* External data files: guest data is durable before the map names it, failures
 * reach the caller, and hostile names open nothing. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/create.h"
#include "block/filter.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* An image and its data file in a folder of their own, each over a filter. */
struct place {
	char dir[64], image[96], data[96];
	struct fault_rule rules[2]; /* image, data file */
	unsigned opened;
	struct image *img;
	const char *options;
};

static void place_make(struct place *p)
{
	snprintf(p->dir, sizeof(p->dir), "/tmp/cowvm-datafile-XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	snprintf(p->image, sizeof(p->image), "%s/a", p->dir);
	snprintf(p->data, sizeof(p->data), "%s/d", p->dir);
}

static void place_remove(struct place *p)
{
	unlink(p->image);
	unlink(p->data);
	rmdir(p->dir);
}

static void create(struct fiber *f, struct place *p)
{
	AUTO_FREE char *text = xasprintf("size=1M,data_file=%s%s", p->data, p->options);
	struct create_request req;
	struct error err = {0};

	image_create_init(&req, "qcow2", p->image);
	assert_int_equal(opts_append(&req.options, text, NULL, &err), 0);
	if (image_create(f, &req, &err) < 0)
		fail_msg("%s", err.text);
	image_create_fini(&req);
}

static struct image *wrap(struct image *file, void *arg)
{
	struct place *p = arg;
	struct image *out;

	assert_true(p->opened < 2);
	assert_int_equal(filter_fault_new(&out, file, &p->rules[p->opened++]), 0);
	return out;
}

static int open_place(struct fiber *f, struct place *p, struct error *err)
{
	struct open_policy policy = {
		.writable = true, .format = "qcow2", .wrap = wrap, .wrap_arg = p};

	p->opened = 0;
	return image_open(f, &p->img, p->image, &policy, err);
}

static void open_ok(struct fiber *f, struct place *p)
{
	struct error err = {0};

	if (open_place(f, p, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(p->opened, 2);
}

static void fill(u8 *buf, u64 bytes, u8 byte)
{
	memset(buf, byte, bytes);
}

static void expect(struct fiber *f, struct place *p, u64 goff, u8 byte)
{
	u8 buf[4096];

	assert_int_equal(image_pread(f, p->img, goff, buf, sizeof(buf)), 0);
	for (unsigned i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], byte);
}

/* --- tests ---------------------------------------------------------------------- */

static void sync_order(struct fiber *f, void *arg)
{
	struct place *p = arg;
	struct map_extent e;
	u8 buf[4096];

	fill(buf, sizeof(buf), 7);
	create(f, p);
	open_ok(f, p);
	assert_int_equal(image_pwrite(f, p->img, 64 * KiB, buf, sizeof(buf)), 0);
	/* The data file cannot be synced: no metadata may be written after that. */
	p->rules[1] = (struct fault_rule){.syncs = 1, .error = -EIO, .sticky = true};
	p->rules[0] = (struct fault_rule){.syncs = 1, .error = -EILSEQ, .sticky = true};
	assert_int_equal(image_flush(f, p->img), -EIO);
	p->rules[0].syncs = 0;
	assert_true(image_close(f, p->img) < 0);
	memset(p->rules, 0, sizeof(p->rules));
	open_ok(f, p);
	assert_int_equal(image_map(f, p->img, 64 * KiB, 4096, &e), 0);
	assert_false(e.kind & MAP_DATA); /* the map never heard of it */
	assert_int_equal(image_close(f, p->img), 0);
}

static void faults(struct fiber *f, void *arg)
{
	struct place *p = arg;
	u8 buf[4096], old = 0;

	create(f, p);
	for (u8 round = 1; round < 12; round++) {
		int ret, later;

		fill(buf, sizeof(buf), round);
		open_ok(f, p);
		p->rules[1] = (struct fault_rule){
			.writes = round % 3, .syncs = round % 4 == 3, .error = -EIO};
		ret = image_pwrite(f, p->img, 128 * KiB, buf, sizeof(buf));
		later = image_flush(f, p->img);
		memset(p->rules, 0, sizeof(p->rules));
		assert_true(ret == 0 || ret == -EIO);
		assert_true(later == 0 || later == -EIO);
		if (ret == 0)
			old = round;
		expect(f, p, 128 * KiB, old);
		later = image_close(f, p->img);
		assert_true(later == 0 || later == -EIO);
		open_ok(f, p);
		expect(f, p, 128 * KiB, old);
		assert_int_equal(image_close(f, p->img), 0);
	}
}

static void raw_zeros(struct fiber *f, void *arg)
{
	struct place *p = arg;
	u8 buf[4096];
	int fd;

	fill(buf, sizeof(buf), 9);
	create(f, p);
	open_ok(f, p);
	for (u64 goff = 0; goff < 512 * KiB; goff += sizeof(buf))
		assert_int_equal(image_pwrite(f, p->img, goff, buf, sizeof(buf)), 0);
	assert_int_equal(image_zero(f, p->img, 4096, 8192, 0), 0);
	assert_int_equal(image_zero(f, p->img, 64 * KiB, 64 * KiB, ZERO_MAY_UNMAP), 0);
	assert_int_equal(image_discard(f, p->img, 128 * KiB, 64 * KiB), 0);
	/* What cannot be zeroed in the file is not zero in the map. */
	p->rules[1] = (struct fault_rule){.writes = 1, .error = -EIO, .sticky = true};
	assert_true(image_zero(f, p->img, 192 * KiB, 64 * KiB, 0) < 0);
	memset(p->rules, 0, sizeof(p->rules));
	expect(f, p, 192 * KiB, 9);
	assert_int_equal(image_close(f, p->img), 0);
	fd = sys_open(p->data, 0, 0);
	assert_true(fd >= 0);
	for (u64 goff = 0; goff < 512 * KiB; goff += sizeof(buf)) {
		bool zero =
			(goff >= 4096 && goff < 12288) || (goff >= 64 * KiB && goff < 192 * KiB);

		assert_int_equal(sys_pread(fd, buf, sizeof(buf), goff), sizeof(buf));
		assert_int_equal(buf[100], zero ? 0 : 9);
	}
	sys_close(fd);
}

static void no_file(struct fiber *f, void *arg)
{
	struct place *p = arg;
	struct error err = {0};

	create(f, p);
	unlink(p->data);
	assert_int_equal(open_place(f, p, &err), -ENOENT);
	assert_non_null(strstr(err.text, "No such file"));
	assert_int_equal(link(p->image, p->data), 0);
	assert_int_equal(open_place(f, p, &err), -EINVAL);
	assert_non_null(strstr(err.text, "is the image itself"));
}

static void run(void **state, void (*fn)(struct fiber *f, void *arg), const char *options)
{
	struct place *p = xnew(struct place);

	p->options = options;
	place_make(p);
	assert_int_equal(loop_run_fiber(*state, fn, p), 0);
	place_remove(p);
	free(p);
}

static void data_is_durable_before_the_map_names_it(void **state)
{
	run(state, sync_order, "");
	run(state, sync_order, ",extended_l2=on");
}

static void a_failing_data_file_is_reported(void **state)
{
	run(state, faults, "");
	run(state, faults, ",extended_l2=on");
	run(state, faults, ",data_file_raw=on");
}

static void a_raw_data_file_has_zeros_where_the_guest_sees_them(void **state)
{
	run(state, raw_zeros, ",data_file_raw=on");
	run(state, raw_zeros, ",data_file_raw=on,extended_l2=on");
}

static void a_missing_or_absurd_data_file_is_refused(void **state)
{
	run(state, no_file, "");
}

#define TESTS(X)                                                                                   \
	X(data_is_durable_before_the_map_names_it), X(a_failing_data_file_is_reported),            \
		X(a_raw_data_file_has_zeros_where_the_guest_sees_them),                            \
		X(a_missing_or_absurd_data_file_is_refused)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
