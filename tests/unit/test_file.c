/* Host files as images: data in every cache mode against a model, locks, holes. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODEL_BYTES (96 * KiB)

static void temp_name(char name[32])
{
	int fd;

	strcpy(name, "/tmp/test_file_XXXXXX");
	fd = mkstemp(name);
	assert_true(fd >= 0);
	close(fd);
}

static struct image *create(struct fiber *f, const char *name, u64 bytes, enum cache_mode cache)
{
	struct open_policy policy = {.cache = cache, .discard = true};
	struct image *img;
	struct error err;

	if (file_create(f, &img, name, bytes, &policy, &err) < 0)
		fail_msg("%s", err.text);
	return img;
}

/* --- data ------------------------------------------------------------------- */

struct model {
	struct image *img;
	u8 *bytes;
	u8 *buf; /* MODEL_BYTES + 4096, page aligned */
	u32 seed;
};

static u32 next_random(struct model *m)
{
	m->seed = m->seed * 1664525 + 1013904223;
	return m->seed >> 8;
}

/* Ranges that are sometimes aligned to sectors or pages, in memory too. */
static void pick(struct model *m, u64 *goff, u64 *bytes, u8 **buf)
{
	static const u32 aligns[] = {1, 512, 4096};
	u32 align = aligns[next_random(m) % 3];

	*goff = align_down(next_random(m) % MODEL_BYTES, align);
	*bytes = align_up(1 + next_random(m) % 12000, align);
	*bytes = MIN(*bytes, MODEL_BYTES - *goff);
	*buf = m->buf + align_down(next_random(m) % 4096, align);
}

static void do_write(struct fiber *f, struct model *m, u64 goff, u8 *buf, u64 bytes)
{
	struct iovec iov[3] = {{buf, bytes / 3},
			       {buf + bytes / 3, bytes / 3},
			       {buf + 2 * (bytes / 3), bytes - 2 * (bytes / 3)}};

	for (u64 i = 0; i < bytes; i++)
		buf[i] = (u8)next_random(m);
	memcpy(m->bytes + goff, buf, bytes);
	assert_int_equal(image_write(f, m->img, goff, iov, 3), 0);
}

static void do_read(struct fiber *f, struct model *m, u64 goff, u8 *buf, u64 bytes)
{
	struct iovec iov[2] = {{buf, bytes / 2}, {buf + bytes / 2, bytes - bytes / 2}};

	memset(buf, 0xee, bytes);
	assert_int_equal(image_read(f, m->img, goff, iov, 2), 0);
	assert_memory_equal(buf, m->bytes + goff, bytes);
}

static void do_step(struct fiber *f, struct model *m)
{
	u64 goff, bytes;
	u8 *buf;

	pick(m, &goff, &bytes, &buf);
	switch (next_random(m) % 8) {
	case 0:
		assert_int_equal(image_zero(f, m->img, goff, bytes, 0), 0);
		memset(m->bytes + goff, 0, bytes);
		break;
	case 1:
		assert_int_equal(image_zero(f, m->img, goff, bytes, ZERO_MAY_UNMAP), 0);
		memset(m->bytes + goff, 0, bytes);
		break;
	case 2: assert_int_equal(image_flush(f, m->img), 0); break;
	case 3:
	case 4:
	case 5: do_write(f, m, goff, buf, bytes); break;
	default: do_read(f, m, goff, buf, bytes);
	}
}

static void random_operations(struct fiber *f, void *arg)
{
	enum cache_mode cache = *(enum cache_mode *)arg;
	struct model m = {.seed = 42 + (u32)cache};
	char name[32];
	struct stat st;

	temp_name(name);
	m.img = create(f, name, 1000, cache);
	m.bytes = xnew_n(u8, MODEL_BYTES);
	m.buf = try_alloc_aligned(MODEL_BYTES + 8192, 4096);
	for (unsigned i = 0; i < 1500; i++)
		do_step(f, &m);
	do_read(f, &m, 0, m.buf, MODEL_BYTES);
	assert_int_equal(image_resize(f, m.img, 5000, &(struct error){0}), 0);
	memset(m.bytes + 5000, 0, MODEL_BYTES - 5000);
	do_read(f, &m, 0, m.buf, MODEL_BYTES);
	do_write(f, &m, 6000, m.buf, 777);
	do_read(f, &m, 0, m.buf, MODEL_BYTES);
	assert_int_equal(image_close(f, m.img), 0);
	assert_int_equal(stat(name, &st), 0);
	assert_int_equal(st.st_size, 6777);
	unlink(name);
	free(m.bytes);
	free(m.buf);
}

static void in_cache_mode(void **state, enum cache_mode cache)
{
	assert_int_equal(loop_run_fiber(*state, random_operations, &cache), 0);
}

static void buffered_files_behave_like_an_array(void **state)
{
	in_cache_mode(state, CACHE_WRITEBACK);
}

static void direct_files_behave_like_an_array_whatever_the_alignment(void **state)
{
	in_cache_mode(state, CACHE_NONE);
}

static void unsafe_files_behave_like_an_array(void **state)
{
	in_cache_mode(state, CACHE_UNSAFE);
}

struct neighbour {
	struct image *img;
	u64 goff;
	unsigned *running;
};

static void write_own_bytes(struct fiber *f, void *arg)
{
	struct neighbour *n = arg;
	u8 buf[100];

	memset(buf, (int)(n->goff / 100), sizeof(buf));
	assert_int_equal(image_pwrite(f, n->img, n->goff, buf, sizeof(buf)), 0);
	--*n->running;
}

static void neighbours_share_blocks(struct fiber *f, void *arg)
{
	struct neighbour n[64];
	unsigned running = ARRAY_LEN(n);
	char name[32];
	struct image *img;
	u8 buf[6400];

	temp_name(name);
	img = create(f, name, sizeof(buf), CACHE_NONE);
	for (unsigned i = 0; i < ARRAY_LEN(n); i++) {
		n[i] = (struct neighbour){.img = img, .goff = i * 100, .running = &running};
		assert_int_equal(fiber_spawn(fiber_loop(f), write_own_bytes, &n[i]), 0);
	}
	while (running)
		fiber_sleep_ns(f, NS_PER_MS);
	assert_int_equal(image_pread(f, img, 0, buf, sizeof(buf)), 0);
	for (unsigned i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], i / 100);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void direct_writes_to_parts_of_a_block_do_not_undo_each_other(void **state)
{
	assert_int_equal(loop_run_fiber(*state, neighbours_share_blocks, NULL), 0);
}

static void zero_own_bytes(struct fiber *f, void *arg)
{
	struct neighbour *n = arg;

	assert_int_equal(image_zero(f, n->img, n->goff, 100, 0), 0);
	--*n->running;
}

static void zeros_share_blocks(struct fiber *f, void *arg)
{
	struct neighbour n[64];
	unsigned running = ARRAY_LEN(n);
	char name[32];
	struct image *img;
	u8 buf[6400];

	temp_name(name);
	img = create(f, name, sizeof(buf), CACHE_NONE);
	memset(buf, 0xff, sizeof(buf));
	assert_int_equal(image_pwrite(f, img, 0, buf, sizeof(buf)), 0);
	for (unsigned i = 0; i < ARRAY_LEN(n); i++) {
		fiber_fn *fn = i % 2 ? write_own_bytes : zero_own_bytes;

		n[i] = (struct neighbour){.img = img, .goff = i * 100, .running = &running};
		assert_int_equal(fiber_spawn(fiber_loop(f), fn, &n[i]), 0);
	}
	while (running)
		fiber_sleep_ns(f, NS_PER_MS);
	assert_int_equal(image_pread(f, img, 0, buf, sizeof(buf)), 0);
	for (unsigned i = 0; i < sizeof(buf); i++)
		assert_int_equal(buf[i], i / 100 % 2 ? i / 100 : 0);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void a_direct_write_does_not_undo_zeros_beside_it(void **state)
{
	for (int round = 0; round < 10; round++)
		assert_int_equal(loop_run_fiber(*state, zeros_share_blocks, NULL), 0);
}

/* --- checks ----------------------------------------------------------------- */

static void change_readonly(struct fiber *f, void *arg)
{
	struct open_policy policy = {0};
	struct image *img;
	struct error err;
	char name[32];
	u8 buf[512] = {0};

	temp_name(name);
	assert_int_equal(file_open(f, &img, name, &policy, &err), 0);
	assert_int_equal(image_pwrite(f, img, 0, buf, sizeof(buf)), -EROFS);
	assert_int_equal(image_zero(f, img, 0, 512, 0), -EROFS);
	assert_int_equal(image_discard(f, img, 0, 512), -EROFS);
	assert_int_equal(image_resize(f, img, 512, &err), -EROFS);
	assert_int_equal(image_pread(f, img, UINT64_MAX - 100, buf, sizeof(buf)), -EINVAL);
	assert_int_equal(image_flush(f, img), 0);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void a_read_only_file_refuses_every_change(void **state)
{
	assert_int_equal(loop_run_fiber(*state, change_readonly, NULL), 0);
}

static void open_nonsense(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true}, readonly = {0};
	struct image *img;
	struct error err;

	assert_int_equal(file_open(f, &img, "/nonexistent/x", &policy, &err), -ENOENT);
	assert_string_equal(err.text, "Could not open '/nonexistent/x': No such file or directory");
	assert_int_equal(file_open(f, &img, "/tmp", &policy, &err), -EISDIR);
	assert_int_equal(file_open(f, &img, "/tmp", &readonly, &err), -EISDIR);
	assert_int_equal(file_open(f, &img, "/dev/null", &readonly, &err), -EINVAL);
	assert_int_equal(file_open(f, &img, "gopher://x", &readonly, &err), -EINVAL);
	assert_string_equal(err.text, "Unknown protocol 'gopher'");
}

static void what_is_no_image_is_refused_with_a_reason(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_nonsense, NULL), 0);
}

/* --- locks ------------------------------------------------------------------ */

static int try_open(struct fiber *f, const char *name, bool writable, bool share,
		    struct image **out, struct error *err)
{
	struct open_policy policy = {.writable = writable, .share_writers = share};

	return file_open(f, out, name, &policy, err);
}

static void open_twice(struct fiber *f, void *arg)
{
	struct image *writer, *reader, *other;
	struct error err;
	char name[32], text[128];

	temp_name(name);
	assert_int_equal(try_open(f, name, true, false, &writer, &err), 0);
	assert_int_equal(try_open(f, name, true, false, &other, &err), -EAGAIN);
	snprintf(text, sizeof(text),
		 "Failed to get \"write\" lock\nIs another process using the image [%s]?", name);
	assert_string_equal(err.text, text);
	assert_int_equal(try_open(f, name, false, false, &other, &err), -EAGAIN);
	snprintf(text, sizeof(text),
		 "Failed to get shared \"write\" lock\nIs another process using the image [%s]?",
		 name);
	assert_string_equal(err.text, text);
	assert_int_equal(try_open(f, name, false, true, &other, &err), 0);
	assert_int_equal(image_close(f, other), 0);
	assert_int_equal(image_close(f, writer), 0);

	assert_int_equal(try_open(f, name, false, false, &reader, &err), 0);
	assert_int_equal(try_open(f, name, false, false, &other, &err), 0);
	assert_int_equal(try_open(f, name, true, false, &writer, &err), -EAGAIN);
	assert_int_equal(image_close(f, other), 0);
	assert_int_equal(image_close(f, reader), 0);
	unlink(name);
}

static void writers_exclude_others_and_readers_share(void **state)
{
	assert_int_equal(loop_run_fiber(*state, open_twice, NULL), 0);
}

static void expect_locked_bytes(const char *name, const char *expected)
{
	static const int bytes[] = {100, 101, 102, 103, 200, 201, 202, 203};
	int fd = sys_open(name, O_RDWR, 0);
	char text[64] = "";

	for (unsigned i = 0; i < ARRAY_LEN(bytes); i++) {
		struct flock lock = {.l_type = F_WRLCK, .l_start = bytes[i], .l_len = 1};

		assert_int_equal(fcntl(fd, F_OFD_GETLK, &lock), 0);
		if (lock.l_type != F_UNLCK)
			sprintf(text + strlen(text), "%d ", bytes[i]);
	}
	assert_string_equal(text, expected);
	sys_close(fd);
}

/* As /proc/locks shows them of qemu-io 7.2 with a qcow2 image. */
static void look_at_locks(struct fiber *f, void *arg)
{
	struct image *img;
	struct error err;
	char name[32];

	temp_name(name);
	assert_int_equal(try_open(f, name, true, false, &img, &err), 0);
	expect_locked_bytes(name, "100 101 103 201 203 ");
	assert_int_equal(image_close(f, img), 0);
	assert_int_equal(try_open(f, name, false, false, &img, &err), 0);
	expect_locked_bytes(name, "100 201 203 ");
	assert_int_equal(image_close(f, img), 0);
	assert_int_equal(try_open(f, name, false, true, &img, &err), 0);
	expect_locked_bytes(name, "100 ");
	assert_int_equal(image_close(f, img), 0);
	expect_locked_bytes(name, "");
	unlink(name);
}

static void the_locked_bytes_are_the_references(void **state)
{
	assert_int_equal(loop_run_fiber(*state, look_at_locks, NULL), 0);
}

static void create_over_used_image(struct fiber *f, void *arg)
{
	struct open_policy policy = {0};
	struct image *img, *other;
	struct error err;
	char name[32];
	u64 bytes;

	temp_name(name);
	img = create(f, name, 12345, CACHE_WRITEBACK);
	assert_int_equal(file_create(f, &other, name, 1, &policy, &err), -EAGAIN);
	assert_int_equal(sys_file_bytes(file_fd(img), &bytes), 0);
	assert_int_equal(bytes, 12345);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void an_image_in_use_is_not_emptied_by_create(void **state)
{
	assert_int_equal(loop_run_fiber(*state, create_over_used_image, NULL), 0);
}

/* --- no memory ---------------------------------------------------------------- */

static void bounce_without_memory(struct fiber *f, void *arg)
{
	struct image *img;
	char name[32];
	u8 b[3] = {1, 2, 3}, in[3];

	temp_name(name);
	img = create(f, name, 4096, CACHE_NONE);
	assert_int_equal(image_pwrite(f, img, 100, b, sizeof(b)), 0);
	try_alloc_fail_nth(1);
	assert_int_equal(image_pread(f, img, 100, in, sizeof(in)), -ENOMEM);
	try_alloc_fail_nth(1);
	assert_int_equal(image_pwrite(f, img, 100, in, sizeof(in)), -ENOMEM);
	try_alloc_fail_nth(0);
	assert_int_equal(image_pread(f, img, 100, in, sizeof(in)), 0);
	assert_memory_equal(in, b, sizeof(b));
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
}

static void an_unaligned_request_fails_cleanly_without_memory(void **state)
{
	assert_int_equal(loop_run_fiber(*state, bounce_without_memory, NULL), 0);
}

/* --- holes ------------------------------------------------------------------ */

static void map_holes(struct fiber *f, void *arg)
{
	struct map_extent e;
	struct image *img;
	u8 *buf = xnew_n(u8, 64 * KiB);
	char name[32];
	u64 before, after;

	temp_name(name);
	img = create(f, name, MiB, CACHE_WRITEBACK);
	memset(buf, 1, 64 * KiB);
	assert_int_equal(image_pwrite(f, img, 256 * KiB, buf, 64 * KiB), 0);
	assert_int_equal(image_map(f, img, 0, MiB, &e), 0);
	assert_int_equal(e.kind, MAP_ZERO | MAP_ALLOC | MAP_HOFF);
	assert_int_equal(e.bytes, 256 * KiB);
	assert_int_equal(image_map(f, img, 256 * KiB, MiB, &e), 0);
	assert_int_equal(e.kind, MAP_DATA | MAP_ALLOC | MAP_HOFF);
	assert_int_equal(e.bytes, 64 * KiB);
	assert_int_equal(e.hoff, 256 * KiB);
	assert_int_equal(image_map(f, img, 320 * KiB, 4096, &e), 0);
	assert_int_equal(e.bytes, 4096);
	assert_int_equal(image_map(f, img, MiB, 1, &e), -EINVAL);
	assert_int_equal(file_allocated_bytes(img, &before), 0);
	assert_int_equal(image_discard(f, img, 256 * KiB, 64 * KiB), 0);
	assert_int_equal(file_allocated_bytes(img, &after), 0);
	assert_true(after + 64 * KiB <= before);
	assert_int_equal(image_map(f, img, 0, MiB, &e), 0);
	assert_int_equal(e.bytes, MiB);
	assert_int_equal(image_close(f, img), 0);
	unlink(name);
	free(buf);
}

static void holes_are_seen_and_made(void **state)
{
	assert_int_equal(loop_run_fiber(*state, map_holes, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(buffered_files_behave_like_an_array),                                                    \
		X(direct_files_behave_like_an_array_whatever_the_alignment),                       \
		X(unsafe_files_behave_like_an_array),                                              \
		X(direct_writes_to_parts_of_a_block_do_not_undo_each_other),                       \
		X(a_direct_write_does_not_undo_zeros_beside_it),                                   \
		X(a_read_only_file_refuses_every_change),                                          \
		X(what_is_no_image_is_refused_with_a_reason),                                      \
		X(writers_exclude_others_and_readers_share),                                       \
		X(the_locked_bytes_are_the_references),                                            \
		X(an_unaligned_request_fails_cleanly_without_memory),                              \
		X(an_image_in_use_is_not_emptied_by_create), X(holes_are_seen_and_made)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
