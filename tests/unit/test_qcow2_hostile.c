/* Damaged and malicious images: refused with a message, or served without crash,
 * hang, or a write outside; and repaired as far as possible. */
#include "tests/unit/backends.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "block/qcow2/format.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/mem_image.h"

#include <errno.h>
#include <stdio.h>

#define BYTES (2 * MiB)

struct lab {
	struct mem_disk good, disk;
	struct image *img;
	struct error err;
	char lines[64 * 1024];
};

static void create(struct fiber *f, struct lab *l, const struct qcow2_create_options *opt)
{
	struct image *file = mem_image_new(fiber_loop(f), &l->good);
	struct open_policy policy = {.writable = true};
	struct error err = {0};
	struct image *img;
	u64 seed = 99;
	u8 buf[8192];

	assert_int_equal(qcow2_create(f, file, opt, &err), 0);
	assert_int_equal(image_open_over(f, &img, "qcow2", file, &policy, &err), 0);
	for (u32 i = 0; i < 40; i++) {
		u64 goff = next_random(&seed) % (opt->bytes / 8192) * 8192;

		memset(buf, (int)i + 1, sizeof(buf));
		assert_int_equal(image_pwrite(f, img, goff, buf, sizeof(buf)), 0);
	}
	assert_int_equal(image_zero(f, img, 0, 64 * KiB, 0), 0);
	assert_int_equal(image_close(f, img), 0);
}

static void restore(struct lab *l)
{
	if (l->disk.room < l->good.bytes) {
		l->disk.data = xrealloc(l->disk.data, l->good.bytes);
		l->disk.room = l->good.bytes;
	}
	memset(l->disk.data, 0, l->disk.room);
	memcpy(l->disk.data, l->good.data, l->good.bytes);
	l->disk.bytes = l->good.bytes;
	l->disk.limit = 8 * MiB; /* wild writes find a full disk */
}

static int open_lab(struct fiber *f, struct lab *l, bool writable, bool check)
{
	struct open_policy policy = {.writable = writable, .check_only = check};

	l->err = (struct error){0};
	l->img = NULL;
	return image_open_over(f, &l->img, "qcow2", mem_image_new(fiber_loop(f), &l->disk), &policy,
			       &l->err);
}

static void keep_line(void *arg, const char *text)
{
	struct lab *l = arg;
	size_t n = strlen(l->lines);

	snprintf(l->lines + n, sizeof(l->lines) - n, "%s\n", text);
}

static struct check_result check(struct fiber *f, struct lab *l, bool fix)
{
	struct check_request req = {
		.fix_leaks = fix, .fix_errors = fix, .line = keep_line, .arg = l};
	struct check_result none = {.check_errors = 99};

	l->lines[0] = '\0';
	if (open_lab(f, l, fix, true) < 0)
		return none;
	if (l->img->driver->check(f, l->img, &req, &l->err) < 0)
		req.result = none;
	image_close(f, l->img);
	return req.result;
}

/* --- headers that lie ------------------------------------------------------------- */

static const struct lie {
	u32 at, bytes;
	u64 value;
	const char *says;
} lies[] = {
	{4, 4, 1, "Unsupported qcow2 version 1"},
	{4, 4, 4, "Unsupported qcow2 version 4"},
	{8, 8, 200, "Backing file name too long"}, /* of 65536 bytes */
	{8, 8, 1ull << 40, "Invalid backing file offset"},
	{20, 4, 8, "cluster size"},
	{20, 4, 22, "cluster size"},
	{20, 4, 0xffffffff, "cluster size"},
	{24, 8, 1ull << 62, "Image is too big"},
	{24, 8, 1ull << 40, "L1 table is too small"},
	{32, 4, 1, "encrypt.key-secret"},
	{32, 4, 2, "Missing CRYPTO header"},
	{32, 4, 3, "Unsupported encryption method 3"},
	{36, 4, 0, "L1 table is too small"},
	{36, 4, 0x7fffffff, "Active L1 table too large"},
	{40, 8, 0x30001, "Active L1 table offset invalid"},
	{40, 8, 1ull << 60, "Active L1 table offset invalid"},
	{48, 8, 0x10200, "Reference count table offset invalid"},
	{48, 8, 1ull << 57, "Reference count table offset invalid"},
	{56, 4, 0, "does not contain a reference count table"},
	{56, 4, 0x10000, "Reference count table too large"},
	{60, 4, 65537, "Snapshot table too large"},
	{64, 8, 0x10001, "Snapshot table offset invalid"},
	{72, 8, 1 << 3, "Compression type"},
	{72, 8, 1 << 2, "'data-file' is required"},
	{72, 8, 1ull << 40, "Unknown incompatible feature: 10000000000"},
	{72, 8, 2, "Image is corrupt; cannot be opened read/write"},
	{96, 4, 7, "may not exceed 64 bits"},
	{100, 4, 96, "qcow2 header too short"},
	{100, 4, 0x20000, "qcow2 header exceeds cluster size"},
	{100, 4, 107, "not a multiple of 8"},
	{104, 1, 1, "Compression type"},
	{112 + 4, 4, 0x10000000, "too large"},
};

static void tell_lies(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = BYTES};
	struct lab *l = xnew(struct lab);

	create(f, l, &opt);
	for (unsigned i = 0; i < ARRAY_LEN(lies); i++) {
		const struct lie *lie = &lies[i];

		restore(l);
		for (u32 k = 0; k < lie->bytes; k++)
			l->disk.data[lie->at + k] = (u8)(lie->value >> (lie->bytes - 1 - k) * 8);
		if (lie->at == 8)
			store_be32(l->disk.data + 16, lie->value == 200 ? 65536 : 5);
		if (open_lab(f, l, true, false) == 0)
			fail_msg("lie %u was believed (\"%s\")", i, lie->says);
		if (!strstr(l->err.text, lie->says))
			fail_msg("lie %u: \"%s\" should say \"%s\"", i, l->err.text, lie->says);
	}
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void every_lie_of_a_header_is_refused_with_a_message(void **state)
{
	assert_int_equal(loop_run_fiber(*state, tell_lies, NULL), 0);
}

static void name_unknown(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = BYTES};
	struct lab *l = xnew(struct lab);

	create(f, l, &opt);
	restore(l);
	/* The first entry of the feature name table becomes bit 9's. */
	l->disk.data[112 + 8 + 1] = 9;
	strcpy((char *)l->disk.data + 112 + 8 + 2, "quantum clusters");
	store_be64(l->disk.data + 72, 1 << 9 | 1 << 10);
	assert_int_equal(open_lab(f, l, false, false), -ENOTSUP);
	assert_non_null(strstr(l->err.text, "quantum clusters, Unknown incompatible feature: 400"));
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void an_unknown_feature_is_named_from_the_images_own_table(void **state)
{
	assert_int_equal(loop_run_fiber(*state, name_unknown, NULL), 0);
}

static void drop_autoclear(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = BYTES};
	struct lab *l = xnew(struct lab);
	u8 sector[512] = {1};

	create(f, l, &opt);
	restore(l);
	store_be64(l->disk.data + 88, 1 << 5);
	assert_int_equal(open_lab(f, l, true, false), 0);
	assert_int_equal(image_pread(f, l->img, 0, sector, 512), 0);
	assert_int_equal(image_flush(f, l->img), 0);
	assert_int_equal(load_be64(l->disk.data + 88), 1 << 5);
	assert_int_equal(image_pwrite(f, l->img, 0, sector, 512), 0);
	assert_int_equal(load_be64(l->disk.data + 88), 0);
	image_close(f, l->img);
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void autoclear_bits_go_with_the_first_write(void **state)
{
	assert_int_equal(loop_run_fiber(*state, drop_autoclear, NULL), 0);
}

/* --- noise ------------------------------------------------------------------------- */

static void exercise(struct fiber *f, struct lab *l, u64 *seed)
{
	u8 buf[20 * 512];

	for (u32 i = 0; i < 12; i++) {
		u64 most = l->img->bytes / 512, n = next_random(seed) % 20 + 1, goff;

		if (most < 20)
			return;
		goff = next_random(seed) % (most - n) * 512;
		memset(buf, 0x5e, sizeof(buf));
		switch (next_random(seed) % 5) {
		case 0: (void)image_pread(f, l->img, goff, buf, n * 512); break;
		case 1: (void)image_zero(f, l->img, goff, n * 512, ZERO_MAY_UNMAP); break;
		case 2: (void)image_discard(f, l->img, goff, n * 512); break;
		case 3: (void)image_flush(f, l->img); break;
		default: (void)image_pwrite(f, l->img, goff, buf, n * 512);
		}
	}
}

/* Bits of metadata flipped, words overwritten, the file cut. */
static void damage(struct lab *l, u64 *seed, u32 cluster)
{
	u64 meta = MIN((u64)cluster * 6, l->disk.bytes);

	for (u64 n = next_random(seed) % 4; n != UINT64_MAX; n--) {
		u64 reach[] = {128, meta, meta, l->disk.bytes};
		u64 at = next_random(seed) % reach[next_random(seed) % 4];

		switch (next_random(seed) % 4) {
		case 0: l->disk.data[at] ^= (u8)(1 << next_random(seed) % 8); break;
		case 1: l->disk.data[at] = (u8)next_random(seed); break;
		case 2: /* an entry that points somewhere */
			at = align_down(at, 8);
			store_be64(l->disk.data + at, next_random(seed) % 40 * cluster |
							      next_random(seed) % 2 << 63 |
							      (next_random(seed) % 9 == 0));
			break;
		case 3:
			if (next_random(seed) % 4 == 0)
				l->disk.bytes = MAX(at, (u64)512);
			break;
		}
	}
}

static void make_noise(struct fiber *f, void *arg)
{
	const u32 clusters[] = {512, 4096, 65536};
	struct lab *l = xnew(struct lab);
	u32 opened = 0, refused = 0;
	u64 seed = 4711;

	for (u32 round = 0; round < 3000; round++) {
		u32 cluster = clusters[round * 3 / 3000];
		struct qcow2_create_options opt = {.bytes = BYTES, .cluster_bytes = cluster};

		if (round % 1000 == 0) {
			mem_disk_fini(&l->good);
			create(f, l, &opt);
		}
		restore(l);
		damage(l, &seed, cluster);
		(void)check(f, l, false);
		if (open_lab(f, l, true, false) == 0) {
			exercise(f, l, &seed);
			image_close(f, l->img);
			opened++;
		} else {
			assert_true(l->err.code < 0 && l->err.text[0]);
			refused++;
		}
		(void)check(f, l, true);
	}
	assert_true(opened > 1000 && refused > 100);
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void thousands_of_damaged_images_do_no_harm(void **state)
{
	assert_int_equal(loop_run_fiber(*state, make_noise, NULL), 0);
}

/* --- check and repair --------------------------------------------------------------- */

static u64 l2_hoff(const struct lab *l)
{
	return load_be64(l->disk.data + load_be64(l->disk.data + 40)) & ENTRY_HOFF;
}

static u8 *refcount_of(struct lab *l, u64 cluster)
{
	u64 table = load_be64(l->disk.data + 48);

	return l->disk.data + load_be64(l->disk.data + table) + cluster * 2;
}

static void expect(struct lab *l, struct check_result r, u64 corruptions, u64 leaks,
		   const char *line)
{
	if (r.corruptions != corruptions || r.leaks != leaks || r.check_errors)
		fail_msg("%llu corruptions, %llu leaks, %llu errors:\n%s",
			 (unsigned long long)r.corruptions, (unsigned long long)r.leaks,
			 (unsigned long long)r.check_errors, l->lines);
	if (line && !strstr(l->lines, line))
		fail_msg("\"%s\" is not in:\n%s", line, l->lines);
}

static void repair_each(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = BYTES};
	struct lab *l = xnew(struct lab);
	struct check_result r;

	create(f, l, &opt);
	restore(l); /* a cluster nobody points at */
	store_be16(refcount_of(l, 60), 1);
	l->disk.bytes = MAX(l->disk.bytes, 61 * 65536ull);
	expect(l, check(f, l, false), 0, 1, "Leaked cluster 60 refcount=1 reference=0");
	r = check(f, l, true);
	expect(l, r, 0, 0, "Repairing cluster 60 refcount=1 reference=0");
	assert_int_equal(r.leaks_fixed, 1);
	expect(l, check(f, l, false), 0, 0, NULL);

	restore(l); /* a refcount lost: all of them are made anew */
	store_be16(refcount_of(l, 5), 0);
	expect(l, check(f, l, false), 2, 0, "ERROR cluster 5 refcount=0 reference=1");
	r = check(f, l, true);
	expect(l, r, 0, 0, "Rebuilding refcount structure");
	assert_int_equal(r.corruptions_fixed, 1);
	expect(l, check(f, l, false), 0, 0, NULL);

	restore(l); /* a COPIED flag that lies */
	for (u32 i = 0; i < 32; i++) {
		u64 at = l2_hoff(l) + i * 8, entry = load_be64(l->disk.data + at);

		if (entry & ENTRY_COPIED && !(entry & ENTRY_ZERO)) {
			store_be64(l->disk.data + at, entry & ~ENTRY_COPIED);
			break;
		}
	}
	expect(l, check(f, l, false), 1, 0, "ERROR OFLAG_COPIED data cluster: l2_entry=");
	r = check(f, l, true);
	expect(l, r, 0, 0, "Repairing OFLAG_COPIED data cluster: l2_entry=");
	assert_int_equal(r.corruptions_fixed, 1);
	expect(l, check(f, l, false), 0, 0, NULL);

	restore(l); /* two pointers to one cluster */
	store_be64(l->disk.data + l2_hoff(l) + 31 * 8, 6 * 65536ull | ENTRY_COPIED);
	assert_true(check(f, l, false).corruptions >= 1);
	r = check(f, l, true);
	expect(l, r, 0, 0, "Repairing cluster 6 refcount=1 reference=2");
	expect(l, check(f, l, false), 0, 0, NULL);
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void each_kind_of_damage_is_named_and_repaired(void **state)
{
	assert_int_equal(loop_run_fiber(*state, repair_each, NULL), 0);
}

static void rebuild_all(struct fiber *f, void *arg)
{
	const u32 clusters[] = {512, 4096, 65536};
	struct lab *l = xnew(struct lab);
	u8 before[4096], after[4096];

	for (u32 i = 0; i < 9; i++) {
		struct qcow2_create_options opt = {.bytes = BYTES,
						   .cluster_bytes = clusters[i % 3]};
		u64 table, seed = i + 1;

		mem_disk_fini(&l->good);
		create(f, l, &opt);
		restore(l);
		table = load_be64(l->disk.data + 48);
		assert_int_equal(open_lab(f, l, false, false), 0);
		assert_int_equal(image_pread(f, l->img, 512 * KiB, before, 4096), 0);
		image_close(f, l->img);
		if (i < 3) /* garbage in the table */
			for (u32 k = 0; k < 512; k++)
				l->disk.data[table + k] = (u8)next_random(&seed);
		else if (i < 6) /* the header points nowhere */
			store_be64(l->disk.data + 48, 0x123456789abcd);
		else /* no table at all */
			memset(l->disk.data + table, 0, 512);
		assert_true(check(f, l, false).corruptions > 0);
		expect(l, check(f, l, true), 0, 0, "Rebuilding refcount structure");
		expect(l, check(f, l, false), 0, 0, NULL);
		assert_int_equal(open_lab(f, l, true, false), 0);
		assert_int_equal(image_pread(f, l->img, 512 * KiB, after, 4096), 0);
		assert_memory_equal(before, after, 4096);
		assert_int_equal(image_pwrite(f, l->img, 1 * MiB, after, 4096), 0);
		assert_int_equal(image_close(f, l->img), 0);
		expect(l, check(f, l, false), 0, 0, NULL);
	}
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void refcounts_are_rebuilt_when_their_table_is_garbage(void **state)
{
	assert_int_equal(loop_run_fiber(*state, rebuild_all, NULL), 0);
}

/* --- overlaps ----------------------------------------------------------------------- */

static void write_over_metadata(struct fiber *f, void *arg)
{
	struct qcow2_create_options opt = {.bytes = BYTES};
	struct lab *l = xnew(struct lab);
	u8 sector[512] = {1};

	create(f, l, &opt);
	for (u64 target = 0; target < 5; target++) {
		restore(l);
		store_be64(l->disk.data + l2_hoff(l) + 31 * 8, target * 65536 | ENTRY_COPIED);
		assert_int_equal(open_lab(f, l, true, false), 0);
		if (target == 0) { /* offset 0 is a hole */
			assert_int_equal(image_pwrite(f, l->img, 31 * 65536, sector, 512), 0);
		} else {
			assert_int_equal(image_pwrite(f, l->img, 31 * 65536, sector, 512), -EIO);
			assert_int_equal(load_be64(l->disk.data + 72), INCOMPAT_CORRUPT);
			assert_int_equal(image_pwrite(f, l->img, 0, sector, 512), -EIO);
			assert_int_equal(image_pread(f, l->img, 0, sector, 512), 0);
			assert_memory_equal(l->disk.data + 65536, l->good.data + 65536, 3 * 65536);
		}
		image_close(f, l->img);
	}
	mem_disk_fini(&l->good);
	mem_disk_fini(&l->disk);
	free(l);
}

static void a_write_onto_metadata_marks_the_image_corrupt(void **state)
{
	assert_int_equal(loop_run_fiber(*state, write_over_metadata, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(every_lie_of_a_header_is_refused_with_a_message),                                        \
		X(an_unknown_feature_is_named_from_the_images_own_table),                          \
		X(autoclear_bits_go_with_the_first_write),                                         \
		X(thousands_of_damaged_images_do_no_harm),                                         \
		X(each_kind_of_damage_is_named_and_repaired),                                      \
		X(refcounts_are_rebuilt_when_their_table_is_garbage),                              \
		X(a_write_onto_metadata_marks_the_image_corrupt)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("hostile qcow2", tests, NULL, NULL);
}
