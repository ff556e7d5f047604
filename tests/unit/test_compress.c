/* Compressed clusters: codecs, descriptors, reading and packing, and what a
 * damaged or malicious image may say about them. */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/qcow2/parts.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/mem_image.h"

#include <errno.h>
#include <zlib.h>
#include <zstd.h>

#define CLUSTER	 65536
#define BYTES	 (16 * CLUSTER + 1536)
#define CLUSTERS 17

/* Text that compresses about 2 : 1, another one for each seed. */
static void fill_text(u8 *buf, u64 bytes, u64 seed)
{
	for (u64 i = 0; i < bytes; i++)
		buf[i] = i % 16 < 7 ? (u8)next_random(&seed) : (u8)(i >> 4);
}

static void fill_noise(u8 *buf, u64 bytes, u64 seed)
{
	for (u64 i = 0; i < bytes; i++)
		buf[i] = (u8)next_random(&seed);
}

/* --- codecs ------------------------------------------------------------------- */

static void round_trip(enum codec_type type, u64 bytes, void (*fill)(u8 *, u64, u64))
{
	struct codec *c = codec_new(type);
	u8 *in = xalloc(bytes), *out = xalloc(bytes), *back = xalloc(bytes);

	for (u64 seed = 1; seed < 4; seed++) {
		s64 n;

		fill(in, bytes, seed);
		n = codec_pack(c, in, bytes, out, bytes - 1);
		if (fill == fill_noise) {
			assert_int_equal(n, -ENOSPC);
			continue;
		}
		assert_true(n > 0 && (u64)n < bytes);
		assert_int_equal(codec_unpack(c, out, (u64)n, back, bytes), 0);
		assert_memory_equal(in, back, bytes);
		assert_int_equal(codec_pack(c, in, bytes, out, (u64)n - 1), -ENOSPC);
	}
	codec_free(c);
	free(in);
	free(out);
	free(back);
}

static void every_cluster_size_survives_both_codecs(void **state)
{
	for (u64 bytes = 512; bytes <= 2 * MiB; bytes *= 2) {
		for (int type = CODEC_ZLIB; type <= CODEC_ZSTD; type++) {
			round_trip(type, bytes, fill_text);
			round_trip(type, bytes, fill_noise);
		}
	}
}

/* Raw deflate of text by zlib itself. */
static u64 deflate_text(const u8 *in, u64 bytes, u8 *out, u64 room, int flush)
{
	z_stream z = {.next_in = (u8 *)(uintptr_t)in,
		      .avail_in = (uInt)bytes,
		      .next_out = out,
		      .avail_out = (uInt)room};

	assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), Z_OK);
	deflate(&z, flush);
	deflateEnd(&z);
	return room - z.avail_out;
}

static void deflate_streams_are_judged_as_the_reference_does(void **state)
{
	u8 in[2 * 2048], out[3 * 2048], back[2048];
	struct codec *c = codec_new(CODEC_ZLIB);
	u64 n;

	fill_text(in, sizeof(in), 7);
	n = deflate_text(in, 2048, out, sizeof(out), Z_FINISH);
	memset(out + n, 0xff, 500); /* what follows belongs to others */
	assert_int_equal(codec_unpack(c, out, n + 500, back, 2048), 0);
	assert_memory_equal(in, back, 2048);
	assert_int_equal(codec_unpack(c, out, n / 2, back, 2048), -EIO);
	n = deflate_text(in, 4096, out, sizeof(out), Z_FINISH); /* more than a cluster */
	memset(back, 0, sizeof(back));
	assert_int_equal(codec_unpack(c, out, n, back, 2048), 0);
	assert_memory_equal(in, back, 2048);
	n = deflate_text(in, 2000, out, sizeof(out), Z_FINISH); /* less */
	assert_int_equal(codec_unpack(c, out, n, back, 2048), -EIO);
	memset(out, 0xff, sizeof(out));
	assert_int_equal(codec_unpack(c, out, sizeof(out), back, 2048), -EIO);
	codec_free(c);
}

static void zstd_frames_are_read_until_the_cluster_is_full(void **state)
{
	u8 in[2048], out[3 * 2048], back[2048];
	struct codec *c = codec_new(CODEC_ZSTD);
	u64 n, first;

	fill_text(in, sizeof(in), 7);
	first = n = ZSTD_compress(out, sizeof(out), in, 1000, 3);
	assert_int_equal(codec_unpack(c, out, n, back, 2048), -EIO);
	n += ZSTD_compress(out + n, sizeof(out) - n, in + 1000, 1048, 3);
	memset(out + n, 0xff, 500);
	assert_int_equal(codec_unpack(c, out, n + 500, back, 2048), 0);
	assert_memory_equal(in, back, 2048);
	assert_int_equal(codec_unpack(c, out, first, back, 1000), 0);
	assert_int_equal(codec_unpack(c, out, first / 2, back, 1000), -EIO);
	memset(out, 0xff, sizeof(out));
	assert_int_equal(codec_unpack(c, out, sizeof(out), back, 2048), -EIO);
	codec_free(c);
}

static void a_bomb_fills_one_cluster_and_no_more(void **state)
{
	u64 bytes = 64 * MiB, n;
	u8 *zeros = xalloc(bytes), *out = xalloc(1 * MiB), back[4096 + 64];
	struct codec *c = codec_new(CODEC_ZLIB);

	n = deflate_text(zeros, bytes, out, 1 * MiB, Z_FINISH);
	memset(back, 0xaa, sizeof(back));
	assert_int_equal(codec_unpack(c, out, n, back, 4096), 0);
	for (u32 i = 4096; i < sizeof(back); i++)
		assert_int_equal(back[i], 0xaa);
	codec_free(c);
	c = codec_new(CODEC_ZSTD);
	n = ZSTD_compress(out, 1 * MiB, zeros, bytes, 3);
	assert_int_equal(codec_unpack(c, out, n, back, 4096), 0);
	for (u32 i = 4096; i < sizeof(back); i++)
		assert_int_equal(back[i], 0xaa);
	codec_free(c);
	free(zeros);
	free(out);
}

/* --- descriptors ---------------------------------------------------------------- */

static void descriptors_say_place_and_sectors(void **state)
{
	for (u32 bits = 9; bits <= 21; bits++) {
		struct qcow2 q = {.cluster_bits = bits, .cluster_bytes = 1u << bits};
		u64 hoff = 5ull * q.cluster_bytes + 777 % q.cluster_bytes, entry, at, n;
		u64 top = (u64)1 << (70 - bits);
		struct compressed c;

		assert_true(compressed_encode(&q, hoff, q.cluster_bytes - 1, &entry));
		c = compressed_decode(&q, entry);
		assert_int_equal(c.hoff, hoff);
		assert_true(c.bytes >= q.cluster_bytes - 1 && c.bytes < q.cluster_bytes + 511);
		compressed_span(&q, entry, &at, &n);
		assert_int_equal(at, 5ull * q.cluster_bytes);
		assert_int_equal(n, 1 + (hoff - at > 1));
		assert_true(compressed_encode(&q, top - 512, 512, &entry));
		assert_false(compressed_encode(&q, top, 512, &entry));
		assert_false(compressed_encode(&q, 0, 2ull * q.cluster_bytes + 1, &entry));
		entry = ENTRY_COMPRESSED | (top - 1) | ~(u64)0 << (70 - bits); /* all there is */
		c = compressed_decode(&q, entry);
		assert_true(c.bytes <= 2ull * q.cluster_bytes);
	}
}

/* --- images ---------------------------------------------------------------------- */

struct lab {
	struct mem_disk disk;
	struct image *img;
	u32 cluster, refcount_bits, type;
	bool extended; /* L2 entries */
	u8 *want;
};

static void lab_open(struct fiber *f, struct lab *l)
{
	struct open_policy policy = {.writable = true, .discard = true};
	struct error err = {0};

	if (image_open_over(f, &l->img, "qcow2", mem_image_new(fiber_loop(f), &l->disk), &policy,
			    &err) < 0)
		fail_msg("%s", err.text);
}

static void lab_make(struct fiber *f, struct lab *l, const struct lab *like)
{
	struct qcow2_create_options opt = {.bytes = BYTES,
					   .cluster_bytes = like->cluster,
					   .refcount_bits = like->refcount_bits,
					   .extended_l2 = like->extended,
					   .compression_type = like->type};
	struct error err = {0};
	struct image *file;

	*l = *like;
	l->disk.seed = 17;
	file = mem_image_new(fiber_loop(f), &l->disk);
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	lab_open(f, l);
	l->want = xalloc(BYTES);
}

static void lab_check(struct fiber *f, struct lab *l, u64 compressed)
{
	struct check_request req = {0};
	struct error err = {0};
	AUTO_FREE u8 *got = xalloc(BYTES);

	assert_int_equal(image_pread(f, l->img, 0, got, BYTES), 0);
	assert_memory_equal(got, l->want, BYTES);
	assert_int_equal(l->img->driver->check(f, l->img, &req, &err), 0);
	assert_int_equal(req.result.corruptions + req.result.leaks + req.result.check_errors, 0);
	if (compressed != UINT64_MAX)
		assert_int_equal(req.result.compressed_clusters, compressed);
}

static void lab_end(struct fiber *f, struct lab *l, u64 compressed)
{
	assert_int_equal(image_flush(f, l->img), 0);
	lab_check(f, l, compressed);
	assert_int_equal(image_close(f, l->img), 0);
	lab_open(f, l);
	lab_check(f, l, compressed);
	assert_int_equal(image_close(f, l->img), 0);
	mem_disk_fini(&l->disk);
	free(l->want);
}

static int pack(struct fiber *f, struct lab *l, u64 goff, u64 bytes)
{
	u64 a = bytes / 3;
	struct iovec iov[] = {{l->want + goff, a}, {l->want + goff + a, bytes - a}};

	return qcow2_write_compressed(f, l->img, goff, iov, 2);
}

static void flow(struct fiber *f, void *arg)
{
	struct lab l;

	lab_make(f, &l, arg);
	fill_text(l.want, BYTES, 3);
	fill_noise(l.want + 2 * CLUSTER, CLUSTER, 5); /* stays as it is */
	assert_int_equal(pack(f, &l, 0, BYTES), 0);
	lab_check(f, &l, UINT64_MAX);
	/* Over compressed ones: parts, whole clusters, zeros, nothing. */
	for (u64 goff = 100 * 512; goff < BYTES - 3 * 512; goff += 3 * CLUSTER + 7 * 512) {
		fill_noise(l.want + goff, 3 * 512, goff + 1);
		assert_int_equal(image_pwrite(f, l.img, goff, l.want + goff, 3 * 512), 0);
	}
	fill_noise(l.want + 4 * CLUSTER, 2 * CLUSTER, 9);
	assert_int_equal(image_pwrite(f, l.img, 4 * CLUSTER, l.want + 4 * CLUSTER, 2 * CLUSTER), 0);
	memset(l.want + 8 * CLUSTER, 0, 3 * CLUSTER);
	assert_int_equal(image_zero(f, l.img, 8 * CLUSTER, CLUSTER, 0), 0);
	assert_int_equal(image_zero(f, l.img, 9 * CLUSTER, CLUSTER, ZERO_MAY_UNMAP), 0);
	assert_int_equal(image_discard(f, l.img, 10 * CLUSTER, CLUSTER), 0);
	lab_check(f, &l, UINT64_MAX);
	/* And packed again where room became free. */
	assert_int_equal(image_flush(f, l.img), 0);
	fill_text(l.want + 9 * CLUSTER, 2 * CLUSTER, 11);
	assert_int_equal(pack(f, &l, 9 * CLUSTER, 2 * CLUSTER), 0);
	lab_end(f, &l, UINT64_MAX);
}

static void compressed_clusters_are_overwritten_freed_and_packed_again(void **state)
{
	for (u32 cluster = 512; cluster <= CLUSTER; cluster *= 2) {
		struct lab like = {.cluster = cluster, .type = cluster >> 9 & 1};

		like.refcount_bits = cluster == 4096 ? 1 : cluster == 8192 ? 2 : 16;
		assert_int_equal(loop_run_fiber(*state, flow, &like), 0);
		like.extended = true;
		if (cluster >= 16384)
			assert_int_equal(loop_run_fiber(*state, flow, &like), 0);
	}
}

static void rules(struct fiber *f, void *arg)
{
	struct lab l;

	lab_make(f, &l, arg);
	fill_text(l.want, 4 * CLUSTER, 3);
	assert_int_equal(pack(f, &l, 512, CLUSTER), -EINVAL);
	assert_int_equal(pack(f, &l, 0, CLUSTER - 512), -EINVAL);
	assert_int_equal(pack(f, &l, 16 * CLUSTER, CLUSTER), -EINVAL);
	assert_int_equal(pack(f, &l, 0, 2 * CLUSTER), 0);
	assert_int_equal(pack(f, &l, 0, CLUSTER), -EIO); /* is there already */
	assert_int_equal(pack(f, &l, CLUSTER, 2 * CLUSTER), -EIO);
	assert_int_equal(image_pwrite(f, l.img, 3 * CLUSTER, l.want + 3 * CLUSTER, CLUSTER), 0);
	assert_int_equal(pack(f, &l, 3 * CLUSTER, CLUSTER), -EIO);
	/* The cluster beside the refused one was done. */
	assert_int_equal(image_zero(f, l.img, 4 * CLUSTER, CLUSTER, 0), 0);
	assert_int_equal(pack(f, &l, 4 * CLUSTER, CLUSTER), 0);
	fill_text(l.want + 16 * CLUSTER, 1536, 4);
	assert_int_equal(pack(f, &l, 16 * CLUSTER, 1536), 0); /* the short end */
	l.img->writable = false;
	assert_int_equal(pack(f, &l, 5 * CLUSTER, CLUSTER), -EROFS);
	l.img->writable = true;
	lab_end(f, &l, 5);
}

static void only_whole_clusters_that_are_not_there_are_packed(void **state)
{
	struct lab like = {.cluster = CLUSTER};

	assert_int_equal(loop_run_fiber(*state, rules, &like), 0);
	like.extended = true;
	assert_int_equal(loop_run_fiber(*state, rules, &like), 0);
}

static void small_reads(struct fiber *f, void *arg)
{
	struct lab l;
	u8 buf[4096];
	u64 reads;

	lab_make(f, &l, arg);
	fill_text(l.want, BYTES, 3);
	assert_int_equal(pack(f, &l, 0, BYTES), 0);
	reads = l.disk.reads;
	for (u64 goff = 0; goff < CLUSTER; goff += sizeof(buf)) {
		assert_int_equal(image_pread(f, l.img, goff, buf, sizeof(buf)), 0);
		assert_memory_equal(buf, l.want + goff, sizeof(buf));
	}
	assert_int_equal(l.disk.reads, reads + 1);
	/* New data at the place of old ones: what was kept is not shown. */
	for (u32 i = 0; i < 40; i++) {
		fill_text(l.want, CLUSTER, 100 + i);
		assert_int_equal(image_discard(f, l.img, 0, CLUSTER), 0);
		for (u32 k = 0; k < 3; k++)
			assert_int_equal(image_flush(f, l.img), 0);
		assert_int_equal(pack(f, &l, 0, CLUSTER), 0);
		assert_int_equal(image_pread(f, l.img, 8192, buf, sizeof(buf)), 0);
		assert_memory_equal(buf, l.want + 8192, sizeof(buf));
	}
	assert_true(l.disk.bytes < 40 * CLUSTER); /* room was used again */
	lab_end(f, &l, CLUSTERS);
}

static void small_reads_inflate_a_cluster_once(void **state)
{
	struct lab like = {.cluster = CLUSTER};

	assert_int_equal(loop_run_fiber(*state, small_reads, &like), 0);
}

/* --- giving back -------------------------------------------------------------------- */

static u64 used_clusters(const struct lab *l)
{
	u64 n = 0;

	for (u64 at = 0; at < l->disk.bytes; at += CLUSTER) {
		u64 end = MIN(at + CLUSTER, l->disk.bytes), i = at;

		while (i < end && !l->disk.data[i])
			i++;
		n += i < end;
	}
	return n;
}

static void give_back(struct fiber *f, void *arg)
{
	struct lab l;

	lab_make(f, &l, arg);
	fill_text(l.want, BYTES, 3);
	assert_int_equal(pack(f, &l, 0, BYTES), 0);
	assert_int_equal(image_flush(f, l.img), 0);
	assert_true(used_clusters(&l) > 10);
	memset(l.want, 0, BYTES);
	assert_int_equal(image_discard(f, l.img, 0, BYTES), 0);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(image_flush(f, l.img), 0);
	assert_true(used_clusters(&l) <= 5); /* header, tables */
	lab_end(f, &l, 0);
}

static void discarded_clusters_leave_no_host_cluster_behind(void **state)
{
	struct lab like = {.cluster = CLUSTER};

	assert_int_equal(loop_run_fiber(*state, give_back, &like), 0);
}

/* --- writers side by side ---------------------------------------------------------- */

struct packing {
	struct lab *l;
	u64 goff;
	u32 *running;
	struct fiber_queue *done;
};

static void pack_one(struct fiber *f, void *arg)
{
	struct packing *p = arg;

	assert_int_equal(pack(f, p->l, p->goff, 2 * CLUSTER), 0);
	--*p->running;
	fiber_queue_wake_all(p->done);
}

static void side_by_side(struct fiber *f, void *arg)
{
	struct packing p[8];
	struct fiber_queue done;
	struct lab l, alone;
	u32 running = ARRAY_LEN(p);

	lab_make(f, &l, arg);
	lab_make(f, &alone, arg);
	fill_text(l.want, 16 * CLUSTER, 3);
	memcpy(alone.want, l.want, 16 * CLUSTER);
	fiber_queue_init(&done);
	for (u32 i = 0; i < ARRAY_LEN(p); i++) {
		p[i] = (struct packing){&l, i * 2ull * CLUSTER, &running, &done};
		assert_int_equal(fiber_spawn(fiber_loop(f), pack_one, &p[i]), 0);
	}
	while (running)
		fiber_queue_wait(f, &done);
	for (u64 goff = 0; goff < 16 * CLUSTER; goff += CLUSTER)
		assert_int_equal(pack(f, &alone, goff, CLUSTER), 0);
	assert_int_equal(image_flush(f, l.img), 0);
	assert_int_equal(image_flush(f, alone.img), 0);
	assert_int_equal(l.disk.bytes, alone.disk.bytes);
	assert_memory_equal(l.disk.data, alone.disk.data, l.disk.bytes);
	lab_end(f, &l, 16);
	lab_end(f, &alone, 16);
}

static void parallel_packing_gives_the_same_file_as_one_by_one(void **state)
{
	struct lab like = {.cluster = CLUSTER, .type = CODEC_ZSTD};

	assert_int_equal(loop_run_fiber(*state, side_by_side, &like), 0);
}

/* --- lies --------------------------------------------------------------------------- */

/* Cluster 0's descriptor says something else. */
static void lie(struct fiber *f, struct lab *l, u64 entry)
{
	struct qcow2 *q = to_qcow2(l->img);
	u64 l2_hoff = q->l1[0] & ENTRY_HOFF;

	assert_int_equal(image_close(f, l->img), 0);
	store_be64(l->disk.data + l2_hoff, entry);
	lab_open(f, l);
}

static void one_lie(struct fiber *f, const struct lab *like, u64 entry)
{
	struct check_request req = {0};
	struct error err = {0};
	u8 buf[4096];
	struct lab l;

	lab_make(f, &l, like);
	fill_text(l.want, 4 * CLUSTER, 3);
	assert_int_equal(pack(f, &l, 0, 4 * CLUSTER), 0);
	lie(f, &l, entry);
	assert_int_equal(image_pread(f, l.img, 512, buf, 512), -EIO);
	assert_int_equal(image_pwrite(f, l.img, 512, l.want, 512), -EIO);
	assert_int_equal(image_pread(f, l.img, 2 * CLUSTER, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, l.want + 2 * CLUSTER, sizeof(buf));
	assert_int_equal(l.img->driver->check(f, l.img, &req, &err), 0);
	assert_true(req.result.corruptions + req.result.leaks > 0);
	/* Whole: no need to read; what it named is freed, as far as it is there. */
	(void)image_pwrite(f, l.img, 0, l.want, CLUSTER);
	(void)image_flush(f, l.img);
	(void)image_pwrite(f, l.img, 8 * CLUSTER, l.want, 4 * CLUSTER);
	(void)image_flush(f, l.img);
	(void)image_close(f, l.img);
	mem_disk_fini(&l.disk);
	free(l.want);
}

static void lies(struct fiber *f, void *arg)
{
	const u64 shift = 62 - 8, all = (u64)255 << shift, none = 0;
	const u64 entries[] = {
		none,			       /* the header */
		all,			       /* the header and on */
		CLUSTER | all,		       /* metadata */
		(u64)1 << 40 | all,	       /* far behind the end */
		(((u64)1 << shift) - 1) | all, /* as far as it goes */
		5 * CLUSTER | ENTRY_COPIED,    /* into others' data, with a wrong flag */
		5 * CLUSTER + 40,	       /* in the middle of a stream */
	};

	for (u32 i = 0; i < ARRAY_LEN(entries); i++)
		one_lie(f, arg, entries[i] | ENTRY_COMPRESSED);
}

static void hostile_descriptors_give_errors_and_nothing_else(void **state)
{
	struct lab like = {.cluster = CLUSTER};

	assert_int_equal(loop_run_fiber(*state, lies, &like), 0);
	like.type = CODEC_ZSTD;
	assert_int_equal(loop_run_fiber(*state, lies, &like), 0);
}

#define TESTS(X)                                                                                   \
	X(every_cluster_size_survives_both_codecs),                                                \
		X(deflate_streams_are_judged_as_the_reference_does),                               \
		X(zstd_frames_are_read_until_the_cluster_is_full),                                 \
		X(a_bomb_fills_one_cluster_and_no_more), X(descriptors_say_place_and_sectors),     \
		X(compressed_clusters_are_overwritten_freed_and_packed_again),                     \
		X(only_whole_clusters_that_are_not_there_are_packed),                              \
		X(small_reads_inflate_a_cluster_once),                                             \
		X(discarded_clusters_leave_no_host_cluster_behind),                                \
		X(parallel_packing_gives_the_same_file_as_one_by_one),                             \
		X(hostile_descriptors_give_errors_and_nothing_else)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("compressed clusters", tests, NULL, NULL);
}
