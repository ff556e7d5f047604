/* image.c with the raw driver: probing, checks, names, zeros, sizes. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>
#include <unistd.h>

static void temp_image(char name[32], const void *head, size_t bytes)
{
	int fd;

	strcpy(name, "/tmp/test_image_XXXXXX");
	fd = mkstemp(name);
	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite(fd, head, bytes, 0), bytes);
	close(fd);
}

static struct image *open_ok(struct fiber *f, const char *name, const struct open_policy *policy)
{
	struct image *img;
	struct error err;

	if (image_open(f, &img, name, policy, &err) < 0)
		fail_msg("%s", err.text);
	return img;
}

/* --- raw -------------------------------------------------------------------- */

static void use_odd_sized_raw(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true, .format = "raw"};
	struct map_extent e;
	struct image *img;
	char name[32];
	u8 data[700], in[1024];

	memset(data, 7, sizeof(data));
	temp_image(name, data, sizeof(data));
	img = open_ok(f, name, &policy);
	assert_string_equal(img->driver->name, "raw");
	assert_int_equal(img->bytes, 1024);
	assert_int_equal(image_pread(f, img, 0, in, 1024), 0);
	assert_memory_equal(in, data, 700);
	for (unsigned i = 700; i < 1024; i++)
		assert_int_equal(in[i], 0);
	assert_int_equal(image_pread(f, img, 512, in, 1024), -EINVAL);
	assert_int_equal(image_pwrite(f, img, 1024, in, 1), -EINVAL);
	assert_int_equal(image_map(f, img, 1000, 24, &e), 0);
	assert_int_equal(e.kind, MAP_ZERO | MAP_ALLOC | MAP_HOFF);
	assert_int_equal(image_resize(f, img, 4096, &(struct error){0}), 0);
	assert_int_equal(img->bytes, 4096);
	assert_int_equal(image_pwrite(f, img, 3584, data, 512), 0);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void raw_images_round_up_to_sectors_and_keep_to_their_size(void **state)
{
	assert_int_equal(loop_run_fiber(*state, use_odd_sized_raw, NULL), 0);
}

static void write_signature(struct fiber *f, void *arg)
{
	struct open_policy probed = {.writable = true};
	struct open_policy named = {.writable = true, .format = "raw"};
	u8 sector[1024] = {0};
	struct image *img;
	char name[32];

	temp_image(name, sector, sizeof(sector));
	img = open_ok(f, name, &probed);
	assert_int_equal(image_pwrite(f, img, 0, sector, sizeof(sector)), 0);
	memcpy(sector, "harmless", 8);
	assert_int_equal(image_pwrite(f, img, 0, sector, sizeof(sector)), 0);
	/* Another format's signature, in one write or in two. */
	memcpy(sector, "QFI\373\0\0\0\3", 8);
	assert_int_equal(image_pwrite(f, img, 0, sector, sizeof(sector)), -EPERM);
	assert_int_equal(image_pwrite(f, img, 0, sector, 2), 0);
	assert_int_equal(image_pwrite(f, img, 2, sector + 2, 6), -EPERM);
	assert_int_equal(image_pwrite(f, img, 512, sector, 512), 0);
	assert_int_equal(image_close(f, img), 0);
	img = open_ok(f, name, &named);
	memcpy(sector, "QFI\373\0\0\0\3", 8);
	assert_int_equal(image_pwrite(f, img, 0, sector, sizeof(sector)), 0);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void only_a_named_raw_image_may_take_another_formats_signature(void **state)
{
	assert_int_equal(loop_run_fiber(*state, write_signature, NULL), 0);
}

static void open_with_unknown_format(struct fiber *f, void *arg)
{
	struct open_policy policy = {.format = "vhdx"};
	struct image *img;
	struct error err;
	char name[32];

	temp_image(name, "x", 1);
	assert_int_equal(image_open(f, &img, name, &policy, &err), -EINVAL);
	assert_string_equal(err.text, "Unknown driver 'vhdx'");
	unlink(name);
}

static void an_unknown_format_is_named(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_with_unknown_format, NULL), 0);
}

/* --- zeros without help from below ------------------------------------------- */

static int plain_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		      unsigned n)
{
	return image_read(f, img->below, goff, iov, n);
}

static int plain_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		       unsigned n)
{
	return image_write(f, img->below, goff, iov, n);
}

static const struct image_driver plain_driver = {
	.name = "plain",
	.state_size = sizeof(struct image),
	.read = plain_read,
	.write = plain_write,
};

static struct image *wrap_plain(struct image *file, void *arg)
{
	++*(unsigned *)arg;
	return image_new_filter(&plain_driver, file);
}

static void zero_by_writing(struct fiber *f, void *arg)
{
	unsigned wrapped = 0;
	struct open_policy policy = {.writable = true,
				     .format = "raw",
				     .cache = CACHE_NONE,
				     .wrap = wrap_plain,
				     .wrap_arg = &wrapped};
	u64 bytes = 300 * KiB;
	u8 *data = xnew_n(u8, bytes);
	struct map_extent e;
	struct image *img;
	char name[32];

	memset(data, 9, bytes);
	temp_image(name, data, bytes);
	img = open_ok(f, name, &policy);
	assert_int_equal(wrapped, 1);
	assert_int_equal(image_zero(f, img, 512, bytes - 1024, ZERO_NO_FALLBACK), -ENOTSUP);
	assert_int_equal(image_zero(f, img, 512, bytes - 1024, 0), 0);
	assert_int_equal(image_discard(f, img, 0, 512), 0);
	assert_int_equal(image_map(f, img, 0, bytes, &e), 0);
	assert_int_equal(e.kind, MAP_DATA | MAP_ALLOC);
	assert_int_equal(image_pread(f, img, 0, data, bytes), 0);
	for (u64 i = 0; i < bytes; i++)
		assert_int_equal(data[i], i < 512 || i >= bytes - 512 ? 9 : 0);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
	free(data);
}

static void zeros_are_written_where_nothing_cheaper_exists(void **state)
{
	assert_int_equal(loop_run_fiber(*state, zero_by_writing, NULL), 0);
}

/* --- backing ---------------------------------------------------------------- */

static void read_short_backing(struct fiber *f, void *arg)
{
	struct open_policy policy = {.format = "raw"};
	struct image *top, *backing;
	struct iovec iov[40];
	char name[32];
	u8 data[1024], in[4000];

	memset(data, 5, sizeof(data));
	temp_image(name, data, sizeof(data));
	backing = open_ok(f, name, &policy);
	top = image_new(&plain_driver, fiber_loop(f), "top");
	for (unsigned i = 0; i < 40; i++)
		iov[i] = (struct iovec){in + i * 100, 100};
	memset(in, 0xee, sizeof(in));
	assert_int_equal(image_read_backing(f, top, 0, iov, 40), 0);
	assert_int_equal(in[0] | in[3999], 0); /* none at all */
	top->backing = backing;
	assert_int_equal(image_depth(top), 1);
	memset(in, 0xee, sizeof(in));
	assert_int_equal(image_read_backing(f, top, 512, iov, 40), 0);
	for (unsigned i = 0; i < sizeof(in); i++)
		assert_int_equal(in[i], i < 512 ? 5 : 0);
	memset(in, 0xee, sizeof(in));
	assert_int_equal(image_read_backing(f, top, 100000, iov, 40), 0);
	assert_int_equal(in[0] | in[3999], 0); /* all beyond its end */
	assert_int_equal(image_close(f, top), 0);
	unlink(name);
}

static void reads_beyond_a_short_backing_image_give_zeros(void **state)
{
	assert_int_equal(loop_run_fiber(*state, read_short_backing, NULL), 0);
}

static void resolves(const char *overlay, const char *backing, const char *expected)
{
	char *name = image_resolve_name(overlay, backing);

	assert_string_equal(name, expected);
	free(name);
}

static void backing_names_are_relative_to_their_overlay(void **state)
{
	resolves("a.qcow2", "b.qcow2", "b.qcow2");
	resolves("dir/a.qcow2", "b.qcow2", "dir/b.qcow2");
	resolves("dir/a.qcow2", "../b.qcow2", "dir/../b.qcow2");
	resolves("/x/dir/a", "/y/b", "/y/b");
	resolves("/x/dir/a", "nbd:host:1", "nbd:host:1");
	resolves("/x/dir/a", "sub/with:colon", "/x/dir/sub/with:colon");
}

#define TESTS(X)                                                                                   \
	X(raw_images_round_up_to_sectors_and_keep_to_their_size),                                  \
		X(only_a_named_raw_image_may_take_another_formats_signature),                      \
		X(an_unknown_format_is_named), X(zeros_are_written_where_nothing_cheaper_exists),  \
		X(reads_beyond_a_short_backing_image_give_zeros),                                  \
		X(backing_names_are_relative_to_their_overlay)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
