/* Rewriting the header cluster: what is kept, what fits, and power cuts. */
#include "tests/unit/backends.h"

#include "base/bytes.h"
#include "base/log.h"
#include "block/filter.h"
#include "block/qcow2/header_update.h"
#include "block/qcow2/parts.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/cuts.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define EXT_UNKNOWN 0x12345678u

struct rig {
	struct mem_disk disk, start;
	struct record_log log;
	struct image *img;
	const char *before, *after; /* names of backing files */
	u32 old_version, new_version;
	u32 unknown; /* bytes of an extension that stays */
};

static int rig_open(struct fiber *f, struct mem_disk *disk, struct record_log *log, bool writable,
		    struct image **out)
{
	struct open_policy policy = {.writable = writable, .no_backing = true};
	struct image *below = mem_image_new(fiber_loop(f), disk);
	struct error err = {0};
	int ret;

	if (log)
		assert_int_equal(filter_record_new(&below, below, log), 0);
	ret = image_open_over(f, out, "qcow2", below, &policy, &err);
	if (ret < 0)
		print_message("%s\n", err.text);
	return ret;
}

static struct rig *rig_new(struct fiber *f, u32 version, u32 cluster_bytes, const char *backing)
{
	struct qcow2_create_options opt = {.bytes = 1 * MiB,
					   .version = version,
					   .cluster_bytes = cluster_bytes,
					   .backing_file = backing,
					   .backing_format = backing ? "raw" : NULL};
	struct rig *r = xnew(struct rig);
	struct image *file = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	assert_int_equal(image_close(f, file), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	record_log_fini(&r->log);
	mem_disk_fini(&r->disk);
	mem_disk_fini(&r->start);
	free(r);
}

static int set_backing(struct fiber *f, struct rig *r, const char *name, const char *format)
{
	struct error err = {0};
	int ret;

	assert_int_equal(rig_open(f, &r->disk, NULL, true, &r->img), 0);
	ret = qcow2_set_backing(f, r->img, name, format, &err);
	assert_int_equal(image_close(f, r->img), 0);
	return ret;
}

static void assert_backing(struct fiber *f, struct mem_disk *d, const char *name)
{
	struct image *img;

	assert_int_equal(rig_open(f, d, NULL, false, &img), 0);
	assert_int_equal(!name, !img->backing_name);
	if (name)
		assert_string_equal(img->backing_name, name);
	assert_int_equal(image_close(f, img), 0);
}

/* --- unknown extensions ------------------------------------------------------------ */

static void put_unknown(struct mem_disk *d, u32 bytes)
{
	u64 at = load_be32(d->data + 4) == 2 ? 72 : load_be32(d->data + 100);

	assert_int_equal(load_be64(d->data + 8), 0); /* no name in the way */
	while (load_be32(d->data + at))
		at += 8 + align_up(load_be32(d->data + at + 4), 8);
	store_be32(d->data + at, EXT_UNKNOWN);
	store_be32(d->data + at + 4, bytes);
	memset(d->data + at + 8, 0x5a, bytes);
	memset(d->data + at + 8 + bytes, 0, 16);
}

static bool has_unknown(const struct mem_disk *d, u32 bytes)
{
	u64 at = load_be32(d->data + 4) == 2 ? 72 : load_be32(d->data + 100);

	while (load_be32(d->data + at) && load_be32(d->data + at) != EXT_UNKNOWN)
		at += 8 + align_up(load_be32(d->data + at + 4), 8);
	if (!load_be32(d->data + at) || load_be32(d->data + at + 4) != bytes)
		return false;
	for (u32 i = 0; i < bytes; i++)
		if (d->data[at + 8 + i] != 0x5a)
			return false;
	return true;
}

static void unknown_kept(struct fiber *f, void *arg)
{
	for (u32 version = 2; version < 4; version++) {
		struct rig *r = rig_new(f, version, 65536, NULL);

		put_unknown(&r->disk, 37);
		assert_int_equal(set_backing(f, r, "a-file", "qcow2"), 0);
		assert_true(has_unknown(&r->disk, 37));
		assert_backing(f, &r->disk, "a-file");
		assert_int_equal(set_backing(f, r, NULL, NULL), 0);
		assert_true(has_unknown(&r->disk, 37));
		assert_backing(f, &r->disk, NULL);
		rig_free(r);
	}
}

static void unknown_extensions_survive_a_rewrite(void **state)
{
	assert_int_equal(loop_run_fiber(*state, unknown_kept, NULL), 0);
}

/* --- what does not fit --------------------------------------------------------------- */

static void too_long(struct fiber *f, void *arg)
{
	struct rig *r = rig_new(f, 3, 512, NULL);
	char name[1100];

	memset(name, 'n', sizeof(name));
	name[1024] = '\0';
	assert_int_equal(set_backing(f, r, name, "raw"), -EINVAL);
	name[1023] = '\0';
	assert_int_equal(set_backing(f, r, name, "raw"), -ENOSPC);
	assert_backing(f, &r->disk, NULL);
	name[300] = '\0'; /* the names of features make way */
	assert_int_equal(set_backing(f, r, name, "raw"), 0);
	assert_backing(f, &r->disk, name);
	rig_free(r);
}

static void a_name_without_room_is_refused_and_changes_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, too_long, NULL), 0);
}

/* Names that fill more than a sector, next to one another: there would be a moment at
 * which neither is whole. */
static void no_way(struct fiber *f, void *arg)
{
	char name[700];
	u32 end;

	for (u32 bytes = 1024; bytes <= 2048; bytes *= 2) {
		struct rig *r = rig_new(f, 3, bytes, NULL);

		end = bytes == 1024 ? 500 : 699;
		memset(name, 'n', sizeof(name));
		name[end] = '\0';
		assert_int_equal(set_backing(f, r, name, "raw"), 0);
		mem_disk_copy(&r->start, &r->disk);
		name[end - 1] = 'x';
		assert_int_equal(set_backing(f, r, name, "raw"), -ENOSPC);
		assert_int_equal(r->disk.bytes, r->start.bytes);
		assert_memory_equal(r->disk.data, r->start.data, r->disk.bytes);
		name[end - 1] = 'n';
		assert_backing(f, &r->disk, name);
		assert_int_equal(set_backing(f, r, "short", "raw"), 0);
		name[end - 1] = 'x';
		assert_int_equal(set_backing(f, r, name, "raw"), 0);
		assert_backing(f, &r->disk, name);
		rig_free(r);
	}
}

static void a_name_that_cannot_change_safely_is_refused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, no_way, NULL), 0);
}

/* --- power cuts ------------------------------------------------------------------------ */

static void judge(struct fiber *f, struct mem_disk *disk, size_t events, void *arg)
{
	struct rig *r = arg;
	struct image *img;
	const char *name;

	assert_int_equal(rig_open(f, disk, NULL, false, &img), 0);
	name = img->backing_name ? img->backing_name : "";
	if (strcmp(name, r->before) && strcmp(name, r->after))
		fail_msg("cut after event %zu: the backing file is '%s'", events, name);
	if (*name && (!img->backing_format || strcmp(img->backing_format, "raw")))
		fail_msg("cut after event %zu: the backing format is lost", events);
	if (*name == 0 && img->backing_format)
		fail_msg("cut after event %zu: a format without a name", events);
	if (!has_unknown(disk, r->unknown))
		fail_msg("cut after event %zu: an extension is lost", events);
	assert_int_equal(to_qcow2(img)->version,
			 strcmp(name, r->before) ? r->new_version : r->old_version);
	assert_int_equal(image_close(f, img), 0);
}

static void cut_change(struct fiber *f, struct rig *r, const char *to, u32 version)
{
	struct header_ext ext = {EXT_BACKING_FORMAT, *to ? "raw" : NULL, *to ? 3 : 0};
	struct header_change change = {.set_backing = true,
				       .backing = *to ? to : NULL,
				       .exts = &ext,
				       .n = 1,
				       .version = version};
	struct cuts cuts = {.start = &r->start,
			    .log = &r->log,
			    .samples = 12,
			    .seed = r->disk.bytes + *to,
			    .judge = judge,
			    .arg = r};

	mem_disk_fini(&r->start);
	mem_disk_copy(&r->start, &r->disk);
	r->after = to;
	r->new_version = version;
	assert_int_equal(rig_open(f, &r->disk, &r->log, true, &r->img), 0);
	assert_int_equal(header_update(f, to_qcow2(r->img), &change), 0);
	assert_int_equal(image_close(f, r->img), 0);
	assert_true(cuts_run(f, &cuts) > 14);
	record_log_fini(&r->log);
	r->log = (struct record_log){0};
	r->before = to;
	r->old_version = version;
}

static void cuts(struct fiber *f, void *arg)
{
	static const u32 sizes[] = {1024, 2048, 4096, 65536};
	char longest[400], other[300];

	memset(longest, 'l', sizeof(longest));
	memset(other, 'o', sizeof(other));
	longest[399] = other[299] = '\0';
	for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
		struct rig *r = rig_new(f, 3, sizes[i], NULL);
		const char *names[] = {"short", longest, other, "", longest, "another", ""};
		static const u32 versions[] = {3, 3, 3, 3, 2, 2, 3};

		if (sizes[i] == 2048) /* no room for two of each */
			longest[150] = other[120] = '\0';
		else if (sizes[i] > 2048)
			memset(longest, 'l', 399), memset(other, 'o', 299);
		r->unknown = sizes[i] == 1024 ? 40 : 200;
		put_unknown(&r->disk, r->unknown);
		r->before = "";
		r->old_version = 3;
		for (unsigned k = 0; k < ARRAY_LEN(names); k++)
			cut_change(f, r, names[k], versions[k]);
		rig_free(r);
	}
}

static void a_power_cut_leaves_the_old_header_or_the_new_one(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cuts, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(unknown_extensions_survive_a_rewrite),                                                   \
		X(a_name_without_room_is_refused_and_changes_nothing),                             \
		X(a_name_that_cannot_change_safely_is_refused),                                    \
		X(a_power_cut_leaves_the_old_header_or_the_new_one)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("header of qcow2", tests, NULL, NULL);
}
