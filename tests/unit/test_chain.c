/* Backing chains of qcow2 and raw: names, formats, loops, sizes, policy. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/blk.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/graph.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* A directory for the images of one test, and their names in it. */
struct folder {
	char dir[64], path[128];
};

static void folder_make(struct folder *d)
{
	strcpy(d->dir, "/tmp/test_chain_XXXXXX");
	assert_non_null(mkdtemp(d->dir));
}

static const char *in(struct folder *d, const char *name)
{
	snprintf(d->path, sizeof(d->path), "%s/%s", d->dir, name);
	return d->path;
}

static void folder_remove(struct folder *d)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", d->dir);
	assert_int_equal(system(command), 0);
}

static void make_raw(struct fiber *f, const char *path, u64 bytes, u8 fill)
{
	struct open_policy policy = {0};
	struct image *img;
	struct error err;
	u8 *data = xnew_n(u8, bytes);

	memset(data, fill, bytes);
	assert_int_equal(file_create(f, &img, path, 0, &policy, &err), 0);
	assert_int_equal(image_pwrite(f, img, 0, data, bytes), 0);
	assert_int_equal(image_close(f, img), 0);
	free(data);
}

static void make_qcow2(struct fiber *f, const char *path, u64 bytes, const char *backing,
		       const char *format)
{
	struct qcow2_create_options opt = {
		.bytes = bytes, .backing_file = backing, .backing_format = format};
	struct open_policy policy = {0};
	struct image *img;
	struct error err;

	assert_int_equal(file_create(f, &img, path, 0, &policy, &err), 0);
	if (qcow2_create(f, img, &opt, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(image_close(f, img), 0);
}

static struct image *open_ok(struct fiber *f, const char *path, const struct open_policy *policy)
{
	struct image *img;
	struct error err;

	if (image_open(f, &img, path, policy, &err) < 0)
		fail_msg("%s", err.text);
	return img;
}

static u8 byte_at(struct fiber *f, struct image *img, u64 goff)
{
	u8 b[512];

	assert_int_equal(image_pread(f, img, goff, b, sizeof(b)), 0);
	return b[0];
}

/* --- reading and writing ---------------------------------------------------- */

static void use_chain(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true, .format = "qcow2"};
	struct folder d;
	struct image *img;
	u8 b[512];

	folder_make(&d);
	assert_int_equal(mkdir(in(&d, "sub"), 0755), 0);
	make_raw(f, in(&d, "base.raw"), 128 * KiB, 1);
	make_qcow2(f, in(&d, "sub/middle.qcow2"), 512 * KiB, "../base.raw", "raw");
	make_qcow2(f, in(&d, "top.qcow2"), MiB, "sub/middle.qcow2", NULL);
	img = open_ok(f, in(&d, "top.qcow2"), &policy);
	assert_int_equal(image_depth(img), 2);
	assert_string_equal(img->backing->driver->name, "qcow2"); /* probed */
	assert_string_equal(img->backing->backing->driver->name, "raw");
	assert_false(img->backing->writable || img->backing->backing->writable);
	assert_int_equal(byte_at(f, img, 0), 1);
	assert_int_equal(byte_at(f, img, 128 * KiB), 0); /* beyond the base */
	assert_int_equal(byte_at(f, img, MiB - 512), 0); /* beyond the middle */
	memset(b, 2, sizeof(b));
	assert_int_equal(image_pwrite(f, img, 1024, b, sizeof(b)), 0);
	assert_int_equal(image_pwrite(f, img, MiB - 512, b, sizeof(b)), 0);
	assert_int_equal(image_close(f, img), 0);

	img = open_ok(f, in(&d, "top.qcow2"), &policy);
	assert_int_equal(byte_at(f, img, 512), 1);
	assert_int_equal(byte_at(f, img, 1024), 2);
	assert_int_equal(byte_at(f, img, 1536), 1);
	assert_int_equal(byte_at(f, img, MiB - 512), 2);
	assert_int_equal(byte_at(f, img, MiB - 1024), 0);
	assert_int_equal(byte_at(f, img->backing, 1024), 1);
	assert_int_equal(image_close(f, img), 0);
	folder_remove(&d);
}

static void a_chain_reads_through_and_writes_only_its_top(void **state)
{
	assert_int_equal(loop_run_fiber(*state, use_chain, NULL), 0);
}

/* --- what goes wrong -------------------------------------------------------- */

static void open_loops(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true}, unread = {.no_backing = true};
	struct folder d;
	struct image *img;
	struct error err;

	folder_make(&d);
	make_qcow2(f, in(&d, "self"), MiB, "self", "qcow2");
	make_qcow2(f, in(&d, "a"), MiB, "b", "qcow2");
	make_qcow2(f, in(&d, "b"), MiB, "c", "qcow2");
	make_qcow2(f, in(&d, "c"), MiB, "./a", "qcow2");
	assert_int_equal(image_open(f, &img, in(&d, "self"), &policy, &err), -ELOOP);
	assert_non_null(strstr(err.text, "infinite loop"));
	assert_int_equal(image_open(f, &img, in(&d, "a"), &policy, &err), -ELOOP);
	assert_non_null(strstr(err.text, "infinite loop"));
	img = open_ok(f, in(&d, "a"), &unread);
	assert_string_equal(img->backing_name, "b");
	assert_null(img->backing);
	assert_int_equal(image_close(f, img), 0);
	folder_remove(&d);
}

static void a_chain_that_bites_its_tail_is_refused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_loops, NULL), 0);
}

static void open_long_chain(struct fiber *f, void *arg)
{
	struct open_policy policy = {0};
	char name[16], backing[16] = "";
	struct folder d;
	struct image *img;

	folder_make(&d);
	for (unsigned i = 0; i <= 202; i++) {
		snprintf(name, sizeof(name), "i%u", i);
		make_qcow2(f, in(&d, name), 64 * KiB, i ? backing : NULL, i ? "qcow2" : NULL);
		strcpy(backing, name);
	}
	img = open_ok(f, in(&d, "i202"), &policy);
	assert_int_equal(image_depth(img), 202);
	assert_int_equal(byte_at(f, img, 0), 0);
	assert_int_equal(image_close(f, img), 0);
	folder_remove(&d);
}

static void a_chain_may_be_long(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_long_chain, NULL), 0);
}

static void open_broken_chains(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true};
	struct folder d;
	struct image *img;
	struct error err;

	folder_make(&d);
	make_qcow2(f, in(&d, "a"), MiB, "missing", "qcow2");
	assert_int_equal(image_open(f, &img, in(&d, "a"), &policy, &err), -ENOENT);
	assert_memory_equal(err.text, "Could not open backing file: Could not open '", 45);
	make_qcow2(f, in(&d, "a"), MiB, "missing", "strange");
	make_raw(f, in(&d, "missing"), 512, 0);
	assert_int_equal(image_open(f, &img, in(&d, "a"), &policy, &err), -EINVAL);
	assert_string_equal(err.text, "Could not open backing file: Unknown driver 'strange'");
	make_qcow2(f, in(&d, "a"), MiB, "ftp://host/x", "raw");
	assert_int_equal(image_open(f, &img, in(&d, "a"), &policy, &err), -EINVAL);
	assert_string_equal(err.text, "Could not open backing file: Unknown protocol 'ftp'");
	/* Nothing stays locked after a failure. */
	make_qcow2(f, in(&d, "a"), MiB, NULL, NULL);
	assert_int_equal(image_close(f, open_ok(f, in(&d, "a"), &policy)), 0);
	folder_remove(&d);
}

static void a_backing_file_that_cannot_be_opened_is_named(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_broken_chains, NULL), 0);
}

static void open_base_elsewhere(struct fiber *f, void *arg)
{
	struct open_policy writable = {.writable = true};
	struct image *one, *two, *base;
	struct folder d;
	struct error err;

	folder_make(&d);
	make_qcow2(f, in(&d, "base"), MiB, NULL, NULL);
	make_qcow2(f, in(&d, "one"), MiB, "base", "qcow2");
	make_qcow2(f, in(&d, "two"), MiB, "base", "qcow2");
	one = open_ok(f, in(&d, "one"), &writable);
	two = open_ok(f, in(&d, "two"), &writable); /* both read the base */
	assert_int_equal(image_open(f, &base, in(&d, "base"), &writable, &err), -EAGAIN);
	assert_int_equal(image_close(f, one), 0);
	assert_int_equal(image_close(f, two), 0);
	base = open_ok(f, in(&d, "base"), &writable);
	assert_int_equal(image_open(f, &one, in(&d, "one"), &writable, &err), -EAGAIN);
	assert_memory_equal(err.text, "Could not open backing file: Failed to get", 42);
	assert_int_equal(image_close(f, base), 0);
	folder_remove(&d);
}

static void overlays_share_a_base_that_nobody_may_write(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_base_elsewhere, NULL), 0);
}

/* --- drives with a temporary overlay ------------------------------------------ */

struct write_read {
	u8 before, after;
};

static int write_then_read(struct fiber *f, struct blk *blk, void *arg)
{
	struct write_read *w = arg;
	u8 b[512];

	w->before = byte_at(f, blk_image(blk), 4096);
	memset(b, 9, sizeof(b));
	assert_int_equal(image_pwrite(f, blk_image(blk), 4096, b, sizeof(b)), 0);
	w->after = byte_at(f, blk_image(blk), 4096);
	return 0;
}

static void make_base(struct fiber *f, void *arg)
{
	make_raw(f, arg, 64 * KiB, 3);
}

static void writes_of_a_snapshot_drive_are_gone_when_it_is_closed(void **state)
{
	struct blk_options opt = {.id = "hd0", .format = "raw", .snapshot = true};
	struct write_read w;
	struct folder d;
	struct blk *blk;
	struct error err;

	folder_make(&d);
	opt.file = in(&d, "base.raw");
	assert_int_equal(loop_run_fiber(*state, make_base, d.path), 0);
	for (unsigned i = 0; i < 2; i++) {
		if (blk_open(&blk, &opt, &err) < 0)
			fail_msg("%s", err.text);
		assert_int_equal(blk_bytes(blk), 64 * KiB);
		assert_int_equal(blk_run(blk, write_then_read, &w), 0);
		assert_int_equal(w.before, 3);
		assert_int_equal(w.after, 9);
		blk_close(blk);
	}
	folder_remove(&d);
}

/* --- what is remembered of a chain ------------------------------------------------------ */

#define LAYERS	8
#define CLUSTER (64 * KiB)

static void write_byte(struct fiber *f, struct image *img, u64 goff, u8 value)
{
	u8 b[512];

	memset(b, value, sizeof(b));
	assert_int_equal(image_pwrite(f, img, goff, b, sizeof(b)), 0);
}

/* 0.qcow2 is the lowest; it and number 3 have a cluster. */
static struct image *open_layers(struct fiber *f, struct folder *d)
{
	struct open_policy policy = {.writable = true, .format = "qcow2"};
	char name[24], below[24] = "";

	for (unsigned i = 0; i < LAYERS; i++) {
		struct image *img;

		snprintf(name, sizeof(name), "%u.qcow2", i);
		make_qcow2(f, in(d, name), MiB, i ? below : NULL, i ? "qcow2" : NULL);
		img = open_ok(f, in(d, name), &policy);
		if (i == 0 || i == 3)
			write_byte(f, img, i * CLUSTER, (u8)(i + 1));
		assert_int_equal(image_close(f, img), 0);
		strcpy(below, name);
	}
	return open_ok(f, in(d, name), &policy);
}

static struct image *nth_below(struct image *img, unsigned n)
{
	while (n--)
		img = img->backing;
	return img;
}

static void expect_layers(struct fiber *f, struct image *top, u8 first, u8 second)
{
	for (unsigned i = 0; i < 3; i++) { /* asked for, remembered, recalled */
		assert_int_equal(byte_at(f, top, 0), first);
		assert_int_equal(byte_at(f, top, 3 * CLUSTER), second);
		assert_int_equal(byte_at(f, top, 5 * CLUSTER), 0);
	}
}

static void change_layers(struct fiber *f, void *arg)
{
	struct folder d;
	struct image *top, *fifth;
	struct error err;

	folder_make(&d);
	top = open_layers(f, &d);
	expect_layers(f, top, 1, 4);
	fifth = nth_below(top, LAYERS - 1 - 5);
	assert_int_equal(image_set_writable(f, fifth, true, &err), 0);
	write_byte(f, fifth, 0, 9);
	expect_layers(f, top, 9, 4);
	write_byte(f, fifth, 3 * CLUSTER, 8);
	expect_layers(f, top, 9, 8);
	assert_int_equal(image_set_writable(f, fifth, false, &err), 0);
	expect_layers(f, top, 9, 8);
	assert_int_equal(image_cut_chain(f, top, fifth->backing), 0);
	expect_layers(f, top, 1, 4);
	write_byte(f, top, 0, 7);
	expect_layers(f, top, 7, 4);
	assert_int_equal(image_cut_chain(f, top, NULL), 0);
	expect_layers(f, top, 7, 0);
	assert_int_equal(image_close(f, top), 0);
	folder_remove(&d);
}

static void a_chain_that_changes_is_read_as_it_is(void **state)
{
	assert_int_equal(loop_run_fiber(*state, change_layers, NULL), 0);
}

/* --- room ahead --------------------------------------------------------------------------- */

static void write_scattered(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true, .format = "qcow2"};
	struct image *img;
	struct folder d;
	struct stat st;

	folder_make(&d);
	make_qcow2(f, in(&d, "disk.qcow2"), 16 * MiB, NULL, NULL);
	img = open_ok(f, in(&d, "disk.qcow2"), &policy);
	for (u64 i = 0; i < 100; i++)
		write_byte(f, img, i * CLUSTER + 512 * (i % 100), (u8)(i + 1));
	assert_int_equal(stat(d.path, &st), 0);
	assert_true((u64)st.st_size > 106 * CLUSTER); /* 5 clusters of metadata, an L2 table */
	assert_int_equal(image_close(f, img), 0);
	assert_int_equal(stat(d.path, &st), 0);
	assert_true((u64)st.st_size <= 106 * CLUSTER);
	img = open_ok(f, in(&d, "disk.qcow2"), &policy);
	for (u64 i = 0; i < 100; i++) {
		assert_int_equal(byte_at(f, img, i * CLUSTER + 512 * (i % 100)), (u8)(i + 1));
		assert_int_equal(byte_at(f, img, i * CLUSTER + 512 * ((i + 1) % 100)), 0);
	}
	assert_int_equal(image_close(f, img), 0);
	folder_remove(&d);
}

static void room_ahead_of_small_writes_is_given_back_at_close(void **state)
{
	assert_int_equal(loop_run_fiber(*state, write_scattered, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(a_chain_reads_through_and_writes_only_its_top),                                          \
		X(a_chain_that_bites_its_tail_is_refused), X(a_chain_may_be_long),                 \
		X(a_backing_file_that_cannot_be_opened_is_named),                                  \
		X(overlays_share_a_base_that_nobody_may_write),                                    \
		X(writes_of_a_snapshot_drive_are_gone_when_it_is_closed),                          \
		X(a_chain_that_changes_is_read_as_it_is),                                          \
		X(room_ahead_of_small_writes_is_given_back_at_close)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
