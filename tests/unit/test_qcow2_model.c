/* qcow2 against a flat array: random operations on every cluster size, refcount
 * width, version, with and without backing, on a disk that interleaves them at
 * random.  Each run ends in a check of the image. */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define WRITERS 6
#define SLOT	1536 /* bytes that belong to one writer, then the next one's */

struct setup {
	u32 version, cluster_bytes, refcount_bits;
	u64 bytes, backing_bytes; /* 0: no backing */
	bool lazy, fixed, zstd, extended;
	enum prealloc preallocation;
	u32 rounds;
	u64 seed;
};

struct model {
	const struct setup *s;
	struct mem_disk disk, backing_disk;
	struct image *img;
	u8 *want; /* what the guest should see */
	u64 bytes, room, seed;
	u32 running; /* writers */
	u8 next_byte;
};

struct writer {
	struct model *m;
	u32 index;
	u64 seed;
	struct fiber_queue *done;
};

static void check_clean(struct fiber *f, struct model *m)
{
	struct check_request req = {0};
	struct error err = {0};

	if (m->img->driver->check(f, m->img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	assert_int_equal(req.result.check_errors, 0);
	assert_int_equal(req.result.corruptions, 0);
	assert_int_equal(req.result.leaks, 0);
}

static void open_model(struct fiber *f, struct model *m)
{
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 16 * 1024};
	struct open_policy readonly = {0};
	struct loop *loop = fiber_loop(f);
	struct image *below = mem_image_new(loop, &m->disk);
	struct error err = {0};

	if (image_open_over(f, &m->img, "qcow2", below, &policy, &err) < 0)
		fail_msg("%s", err.text);
	if (m->s->backing_bytes) {
		struct image *raw = mem_image_new(loop, &m->backing_disk);

		assert_int_equal(image_open_over(f, &m->img->backing, "raw", raw, &readonly, &err),
				 0);
	}
	assert_int_equal(m->img->bytes, m->bytes);
}

static void create_model(struct fiber *f, struct model *m)
{
	struct qcow2_create_options opt = {
		.bytes = m->s->bytes,
		.version = m->s->version,
		.cluster_bytes = m->s->cluster_bytes,
		.refcount_bits = m->s->refcount_bits,
		.lazy_refcounts = m->s->lazy,
		.compression_type = m->s->zstd,
		.extended_l2 = m->s->extended,
		.preallocation = m->s->preallocation,
		.backing_file = m->s->backing_bytes ? "backing" : NULL,
	};
	struct image *file;
	struct error err = {0};

	m->bytes = m->s->bytes;
	m->room = 2 * m->bytes;
	m->want = xalloc(m->room);
	m->seed = m->s->seed;
	m->disk.seed = m->s->seed + 1;
	if (m->s->fixed) {
		m->disk.fixed = false;
		m->disk.bytes = m->disk.room = 2 * m->bytes + 64 * m->s->cluster_bytes;
		m->disk.data = xalloc(m->disk.room);
		memset(m->disk.data, 0xee, m->disk.room); /* a used device */
		m->disk.fixed = true;
	}
	if (m->s->backing_bytes) {
		m->backing_disk.bytes = m->backing_disk.room = m->s->backing_bytes;
		m->backing_disk.data = xalloc(m->s->backing_bytes);
		for (u64 i = 0; i < m->s->backing_bytes; i++)
			m->backing_disk.data[i] = (u8)(i >> 9 | 1);
		memcpy(m->want, m->backing_disk.data, MIN(m->bytes, m->s->backing_bytes));
	}
	file = mem_image_new(fiber_loop(f), &m->disk);
	if (qcow2_create(f, file, &opt, &err) < 0)
		fail_msg("%s", err.text);
	image_close(f, file);
	open_model(f, m);
}

/* --- operations one at a time ------------------------------------------------ */

static void compare(struct fiber *f, struct model *m, u64 goff, u64 bytes)
{
	AUTO_FREE u8 *got = xalloc(bytes);

	assert_int_equal(image_pread(f, m->img, goff, got, bytes), 0);
	for (u64 i = 0; i < bytes; i++)
		if (got[i] != m->want[goff + i])
			fail_msg("byte %llu is %#x, expected %#x", (unsigned long long)(goff + i),
				 got[i], m->want[goff + i]);
}

static void pick(struct model *m, u64 *goff, u64 *bytes)
{
	u64 most = MIN(m->bytes, next_random(&m->seed) % 4 ? 64 * KiB : 3 * MiB);

	*bytes = (next_random(&m->seed) % (most / 512) + 1) * 512;
	*goff = next_random(&m->seed) % ((m->bytes - *bytes) / 512 + 1) * 512;
}

static void do_write(struct fiber *f, struct model *m, u64 goff, u64 bytes)
{
	struct iovec iov[3];
	u64 a = bytes / 3, b = bytes / 2;

	memset(m->want + goff, ++m->next_byte | 1, bytes);
	iov[0] = (struct iovec){m->want + goff, a};
	iov[1] = (struct iovec){m->want + goff + a, b - a};
	iov[2] = (struct iovec){m->want + goff + b, bytes - b};
	assert_int_equal(image_write(f, m->img, goff, iov, 3), 0);
}

/* Whole clusters become zeros, unless that would show the backing image. */
static void do_discard(struct fiber *f, struct model *m, u64 goff, u64 bytes)
{
	u64 from = align_up(goff, m->s->cluster_bytes);
	u64 to = align_down(goff + bytes, m->s->cluster_bytes);

	assert_int_equal(image_discard(f, m->img, goff, bytes), 0);
	if (goff + bytes == m->bytes)
		to = m->bytes;
	if (to > from && !(m->s->version == 2 && m->s->backing_bytes))
		memset(m->want + from, 0, to - from);
}

/* Nothing of its own lies there: it may be written compressed. */
static bool is_free(struct fiber *f, struct model *m, u64 goff, u64 bytes)
{
	struct map_extent e;

	for (u64 end = goff + bytes; goff < end; goff += e.bytes) {
		assert_int_equal(image_map(f, m->img, goff, end - goff, &e), 0);
		if (e.kind & (MAP_HOFF | MAP_DATA))
			return false;
	}
	return true;
}

/* A few whole clusters, some of them not compressible. */
static void do_pack(struct fiber *f, struct model *m, u64 goff, u64 bytes)
{
	u64 cluster = m->s->cluster_bytes, noise = next_random(&m->seed) % (cluster + 1);
	u64 from = align_down(goff, cluster), to;
	AUTO_FREE u8 *buf = NULL;
	struct iovec iov[2];
	bool may;

	bytes = MIN(bytes, 8 * cluster);
	to = MIN(m->bytes, align_up(from + bytes, cluster));
	if (next_random(&m->seed) % 2)
		do_discard(f, m, from, to - from);
	may = is_free(f, m, from, to - from);
	buf = xalloc(to - from);
	memset(buf, ++m->next_byte | 1, to - from);
	for (u64 i = 0; i < to - from; i++)
		if (i % cluster < noise)
			buf[i] = (u8)next_random(&m->seed);
	iov[0] = (struct iovec){buf, (to - from) / 2};
	iov[1] = (struct iovec){buf + (to - from) / 2, (to - from) - (to - from) / 2};
	if (!may) { /* refused, but those that may be are written: one is enough */
		iov[0].iov_len = MIN(to - from, cluster);
		if (!is_free(f, m, from, iov[0].iov_len))
			assert_int_equal(qcow2_write_compressed(f, m->img, from, iov, 1), -EIO);
		return;
	}
	assert_int_equal(qcow2_write_compressed(f, m->img, from, iov, 2), 0);
	memcpy(m->want + from, buf, to - from);
}

static void do_resize(struct fiber *f, struct model *m)
{
	u64 bytes = (next_random(&m->seed) % (m->room / 512) + 1) * 512;
	struct error err = {0};

	if (m->s->fixed)
		return;
	if (image_resize(f, m->img, bytes, &err) < 0)
		fail_msg("%s", err.text);
	if (bytes < m->bytes)
		memset(m->want + bytes, 0, m->bytes - bytes);
	m->bytes = bytes;
	assert_int_equal(m->img->bytes, bytes);
}

static void step(struct fiber *f, struct model *m)
{
	u64 goff, bytes;

	pick(m, &goff, &bytes);
	switch (next_random(&m->seed) % 15) {
	case 0:
	case 1:
	case 2: do_write(f, m, goff, bytes); break;
	case 3:
	case 4: compare(f, m, goff, bytes); break;
	case 5:
		memset(m->want + goff, 0, bytes);
		assert_int_equal(image_zero(f, m->img, goff, bytes, 0), 0);
		break;
	case 6:
		memset(m->want + goff, 0, bytes);
		assert_int_equal(image_zero(f, m->img, goff, bytes, ZERO_MAY_UNMAP), 0);
		break;
	case 7: do_discard(f, m, goff, bytes); break;
	case 8: assert_int_equal(image_flush(f, m->img), 0); break;
	case 9: check_clean(f, m); break;
	case 10:
		assert_int_equal(image_close(f, m->img), 0);
		open_model(f, m);
		break;
	case 11:
		if (next_random(&m->seed) % 4 == 0)
			do_resize(f, m);
		break;
	default: do_pack(f, m, goff, bytes);
	}
}

/* --- writers side by side ------------------------------------------------------ */

static void writer_step(struct fiber *f, struct writer *w, u64 goff, u64 bytes)
{
	struct model *m = w->m;
	u8 *got;

	switch (next_random(&w->seed) % 6) {
	case 0:
		got = xalloc(bytes);
		assert_int_equal(image_pread(f, m->img, goff, got, bytes), 0);
		assert_memory_equal(got, m->want + goff, bytes);
		free(got);
		break;
	case 1:
		memset(m->want + goff, 0, bytes);
		assert_int_equal(image_zero(f, m->img, goff, bytes, 0), 0);
		break;
	case 2: assert_int_equal(image_flush(f, m->img), 0); break;
	default:
		memset(m->want + goff, (int)(next_random(&w->seed) & 0xff), bytes);
		assert_int_equal(image_pwrite(f, m->img, goff, m->want + goff, bytes), 0);
	}
}

static void writer_main(struct fiber *f, void *arg)
{
	struct writer *w = arg;
	struct model *m = w->m;
	u64 slots = m->bytes / SLOT;

	for (u32 i = 0; i < 12 && slots > WRITERS; i++) {
		u64 slot = next_random(&w->seed) % (slots / WRITERS) * WRITERS + w->index;
		u64 skip = next_random(&w->seed) % 3 * 512;

		writer_step(f, w, slot * SLOT + skip, SLOT - skip);
	}
	m->running--;
	fiber_queue_wake_all(w->done);
}

static void run_writers(struct fiber *f, struct model *m)
{
	struct writer w[WRITERS];
	struct fiber_queue done;

	fiber_queue_init(&done);
	m->running = WRITERS;
	for (u32 i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){m, i, next_random(&m->seed) | 1, &done};
		assert_int_equal(fiber_spawn(fiber_loop(f), writer_main, &w[i]), 0);
	}
	while (m->running)
		fiber_queue_wait(f, &done);
}

static void run_model(struct fiber *f, void *arg)
{
	struct model m = {.s = arg};

	create_model(f, &m);
	for (u32 round = 0; round < m.s->rounds; round++) {
		for (u32 i = 0; i < 10; i++)
			step(f, &m);
		run_writers(f, &m);
	}
	compare(f, &m, 0, m.bytes);
	check_clean(f, &m);
	assert_int_equal(image_close(f, m.img), 0);
	open_model(f, &m);
	compare(f, &m, 0, m.bytes);
	check_clean(f, &m);
	assert_int_equal(image_close(f, m.img), 0);
	mem_disk_fini(&m.disk);
	mem_disk_fini(&m.backing_disk);
	free(m.want);
}

static void run_setup(void **state, struct setup s)
{
	s.seed = s.seed ? s.seed : 0x9e3779b97f4a7c15ull ^ s.cluster_bytes * s.refcount_bits;
	s.rounds = s.rounds ? s.rounds : 12;
	assert_int_equal(loop_run_fiber(*state, run_model, &s), 0);
}

static void every_cluster_size_reads_back_what_was_written(void **state)
{
	for (u32 bits = 9; bits <= 21; bits++)
		run_setup(state, (struct setup){.version = 3,
						.cluster_bytes = 1u << bits,
						.refcount_bits = 16,
						.zstd = bits % 2,
						.bytes = 4 * MiB + 5 * 512});
}

static void every_refcount_width_keeps_its_counts(void **state)
{
	for (u32 bits = 1; bits <= 64; bits *= 2)
		for (u32 cluster = 512; cluster <= 4096; cluster *= 8)
			run_setup(state, (struct setup){.version = 3,
							.cluster_bytes = cluster,
							.refcount_bits = bits,
							.bytes = 3 * MiB + 512});
}

static void version_2_images_have_no_zero_clusters(void **state)
{
	for (u32 bits = 9; bits <= 16; bits += 7)
		run_setup(state, (struct setup){.version = 2,
						.cluster_bytes = 1u << bits,
						.refcount_bits = 16,
						.bytes = 2 * MiB});
}

static void backing_shows_through_where_nothing_was_written(void **state)
{
	for (u32 version = 2; version <= 3; version++)
		for (u32 bits = 9; bits <= 18; bits += 3)
			for (u32 longer = 0; longer <= 1; longer++)
				run_setup(state,
					  (struct setup){.version = version,
							 .cluster_bytes = 1u << bits,
							 .refcount_bits = 16,
							 .bytes = 2 * MiB + 1536,
							 .backing_bytes =
								 longer ? 5 * MiB : 1 * MiB + 1024,
							 .rounds = 6});
}

static void lazy_refcounts_are_exact_after_close(void **state)
{
	for (u32 bits = 9; bits <= 16; bits += 7)
		run_setup(state, (struct setup){.version = 3,
						.cluster_bytes = 1u << bits,
						.refcount_bits = 16,
						.lazy = true,
						.bytes = 3 * MiB});
}

static void a_device_with_old_content_reads_zeros(void **state)
{
	for (u32 bits = 9; bits <= 16; bits += 7)
		run_setup(state, (struct setup){.version = 3,
						.cluster_bytes = 1u << bits,
						.refcount_bits = 16,
						.fixed = true,
						.bytes = 3 * MiB});
}

static void subclusters_read_back_what_was_written(void **state)
{
	for (u32 bits = 14; bits <= 21; bits++)
		for (u64 backing = 0; backing <= 5 * MiB; backing += 5 * MiB / 2)
			run_setup(state, (struct setup){.version = 3,
							.cluster_bytes = 1u << bits,
							.refcount_bits = 16,
							.extended = true,
							.lazy = bits == 16,
							.bytes = 4 * MiB + 5 * 512,
							.backing_bytes = backing & ~511ull,
							.rounds = 8});
}

static void subclusters_are_filled_in_preallocated_clusters(void **state)
{
	for (u32 bits = 14; bits <= 18; bits += 2)
		for (u64 backing = 0; backing <= 3 * MiB; backing += 3 * MiB)
			run_setup(state, (struct setup){.version = 3,
							.cluster_bytes = 1u << bits,
							.refcount_bits = 16,
							.extended = true,
							.preallocation = PREALLOC_METADATA,
							.bytes = 4 * MiB,
							.backing_bytes = backing,
							.rounds = 8});
}

#define TESTS(X)                                                                                   \
	X(every_cluster_size_reads_back_what_was_written),                                         \
		X(every_refcount_width_keeps_its_counts),                                          \
		X(version_2_images_have_no_zero_clusters),                                         \
		X(backing_shows_through_where_nothing_was_written),                                \
		X(subclusters_read_back_what_was_written),                                         \
		X(subclusters_are_filled_in_preallocated_clusters),                                \
		X(lazy_refcounts_are_exact_after_close), X(a_device_with_old_content_reads_zeros)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	/* The disk is in memory: the loop's backend makes no difference. */
	return cmocka_run_group_tests_name("qcow2 model", tests, NULL, NULL);
}
