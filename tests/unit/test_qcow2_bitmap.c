/* Persistent bitmaps: power cuts and failing requests at every moment of a change,
 * and what follows writes. */
#include "tests/unit/backends.h"

#include "base/log.h"
#include "block/filter.h"
#include "block/qcow2/bitmap.h"
#include "block/dirty_map.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/state.h"
#include "tests/lib/cuts.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define DISK_BYTES (1 * MiB)

struct rig {
	struct mem_disk disk, start;
	struct record_log log;
	struct fault_rule rule;
	struct image *img;
	u64 in_use_after; /* events after which "auto" must be marked */
};

static void fail_on_corruption(struct fiber *f, struct mem_disk *disk, bool leaks_too,
			       const char *when, size_t events)
{
	struct open_policy policy = {.check_only = true};
	struct check_request req = {0};
	struct error err = {0};
	struct image *img;

	if (image_open_over(f, &img, "qcow2", mem_image_new(fiber_loop(f), disk), &policy, &err))
		fail_msg("%s %zu: %s", when, events, err.text);
	assert_int_equal(img->driver->check(f, img, &req, &err), 0);
	if (req.result.corruptions || req.result.check_errors || (leaks_too && req.result.leaks))
		fail_msg("%s %zu: %llu corruptions, %llu leaks", when, events,
			 (unsigned long long)req.result.corruptions,
			 (unsigned long long)req.result.leaks);
	assert_int_equal(image_close(f, img), 0);
}

static struct image *open_rig(struct fiber *f, struct rig *r, bool record, bool faults)
{
	struct open_policy policy = {.writable = true};
	struct image *below = mem_image_new(fiber_loop(f), &r->disk), *img;
	struct error err = {0};

	if (record)
		assert_int_equal(filter_record_new(&below, below, &r->log), 0);
	if (faults)
		assert_int_equal(filter_fault_new(&below, below, &r->rule), 0);
	if (image_open_over(f, &img, "qcow2", below, &policy, &err) < 0)
		return NULL;
	return img;
}

static void add(struct fiber *f, struct image *img, const char *name, u64 granularity,
		bool automatic)
{
	struct qcow2_bitmap b = {
		.name = name, .granularity_bytes = granularity, .automatic = automatic};
	struct error err = {0};

	if (qcow2_bitmap_add(f, img, &b, &err) < 0)
		fail_msg("%s", err.text);
}

static void write_at(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	AUTO_FREE u8 *buf = xalloc(bytes);

	memset(buf, 0x77, bytes);
	assert_int_equal(image_pwrite(f, img, goff, buf, bytes), 0);
}

/* "auto" (with something set) and "still", which is disabled. */
static struct rig *rig_new(struct fiber *f, u32 cluster_bytes, bool lazy)
{
	struct qcow2_create_options opt = {
		.bytes = DISK_BYTES, .cluster_bytes = cluster_bytes, .lazy_refcounts = lazy};
	struct rig *r = xnew(struct rig);
	struct image *file = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	assert_int_equal(image_close(f, file), 0);
	r->img = open_rig(f, r, false, false);
	add(f, r->img, "auto", 512, true);
	add(f, r->img, "still", 4096, false);
	write_at(f, r->img, 64 * KiB, 3000);
	assert_int_equal(image_close(f, r->img), 0);
	return r;
}

static void rig_free(struct rig *r)
{
	record_log_fini(&r->log);
	mem_disk_fini(&r->disk);
	mem_disk_fini(&r->start);
	free(r);
}

static const struct qcow2_bitmap *find(const struct qcow2_bitmap *list, u32 n, const char *name)
{
	for (u32 i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	return NULL;
}

/* --- power cuts --------------------------------------------------------------------- */

static void judge(struct fiber *f, struct mem_disk *disk, size_t events, void *arg)
{
	struct open_policy policy = {.writable = false};
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	const struct qcow2_bitmap *b;
	struct error err = {0};
	struct image *img;
	u32 n;

	if (image_open_over(f, &img, "qcow2", mem_image_new(fiber_loop(f), disk), &policy, &err))
		fail_msg("cut after %zu: %s", events, err.text);
	n = qcow2_bitmaps_list(img, &list);
	b = find(list, n, "still");
	if (!b || b->in_use)
		fail_msg("cut after %zu: the disabled bitmap is lost", events);
	b = find(list, n, "auto");
	if (b && !b->automatic)
		fail_msg("cut after %zu: the automatic bitmap is disabled", events);
	assert_int_equal(image_close(f, img), 0);
	fail_on_corruption(f, disk, false, "cut after", events);
}

/* Every change there is, on one image. */
static void change_all(struct fiber *f, struct rig *r)
{
	struct error err = {0};

	r->img = open_rig(f, r, true, false);
	write_at(f, r->img, 300 * KiB, 70000);
	add(f, r->img, "more", 65536, true);
	assert_int_equal(qcow2_bitmap_merge(f, r->img, "more", r->img, "auto", &err), 0);
	write_at(f, r->img, 10 * KiB, 512);
	assert_int_equal(qcow2_bitmap_clear(f, r->img, "auto", &err), 0);
	assert_int_equal(qcow2_bitmap_enable(f, r->img, "more", false, &err), 0);
	write_at(f, r->img, 900 * KiB, 512);
	assert_int_equal(image_resize(f, r->img, 2 * DISK_BYTES, &err), 0);
	write_at(f, r->img, 2 * DISK_BYTES - 512, 512);
	assert_int_equal(image_resize(f, r->img, DISK_BYTES, &err), 0);
	assert_int_equal(qcow2_bitmap_remove(f, r->img, "auto", &err), 0);
	assert_int_equal(image_close(f, r->img), 0);
}

static void cut_changes(struct fiber *f, void *arg)
{
	static const u32 sizes[] = {512, 4096, 65536};

	for (unsigned i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
		bool lazy = i >= ARRAY_LEN(sizes);
		struct rig *r = rig_new(f, sizes[i % ARRAY_LEN(sizes)], lazy);
		struct cuts cuts = {.start = &r->start,
				    .log = &r->log,
				    .samples = 2,
				    .seed = i + 1,
				    .judge = judge};

		mem_disk_copy(&r->start, &r->disk);
		change_all(f, r);
		fail_on_corruption(f, &r->disk, true, "at the end", 0);
		if (!lazy) /* with them refcounts are wrong until the next open */
			assert_true(cuts_run(f, &cuts) > 100);
		rig_free(r);
	}
}

static void a_power_cut_leaves_the_old_bitmaps_or_the_new_ones(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cut_changes, NULL), 0);
}

/* From the first guest write on until the image is closed, a cut must leave the
 * mark: else somebody would believe the bits. */
static void judge_mark(struct fiber *f, struct mem_disk *disk, size_t events, void *arg)
{
	struct rig *r = arg;
	struct open_policy policy = {.writable = false};
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	struct error err = {0};
	struct image *img;
	u8 byte;
	u32 n;

	assert_int_equal(image_open_over(f, &img, "qcow2", mem_image_new(fiber_loop(f), disk),
					 &policy, &err),
			 0);
	n = qcow2_bitmaps_list(img, &list);
	assert_int_equal(n, 2);
	assert_int_equal(image_pread(f, img, 200 * KiB, &byte, 1), 0);
	if (byte && events < r->in_use_after && !list[0].in_use)
		fail_msg("cut after %zu: data is there and the mark is not", events);
	assert_int_equal(image_close(f, img), 0);
}

static void cut_session(struct fiber *f, void *arg)
{
	struct rig *r = rig_new(f, 4096, false);
	struct cuts cuts = {.start = &r->start,
			    .log = &r->log,
			    .samples = 10,
			    .seed = 77,
			    .judge = judge_mark,
			    .arg = r};

	mem_disk_copy(&r->start, &r->disk);
	r->img = open_rig(f, r, true, false);
	write_at(f, r->img, 200 * KiB, 4096);
	assert_int_equal(image_flush(f, r->img), 0);
	r->in_use_after = r->log.n;
	assert_int_equal(image_close(f, r->img), 0);
	assert_true(cuts_run(f, &cuts) > 50);
	rig_free(r);
}

static void no_written_data_is_seen_without_the_mark_in_use(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cut_session, NULL), 0);
}

/* --- failing requests ------------------------------------------------------------------ */

static int change_some(struct fiber *f, struct rig *r)
{
	struct qcow2_bitmap b = {.name = "more", .automatic = true};
	struct error err = {0};
	u8 buf[512] = {1};
	int ret, closed;

	r->img = open_rig(f, r, false, true);
	if (!r->img)
		return -EIO;
	ret = image_pwrite(f, r->img, 500 * KiB, buf, sizeof(buf));
	if (ret == 0)
		ret = qcow2_bitmap_add(f, r->img, &b, &err);
	if (ret == 0)
		ret = qcow2_bitmap_merge(f, r->img, "more", r->img, "auto", &err);
	if (ret == 0)
		ret = qcow2_bitmap_remove(f, r->img, "auto", &err);
	closed = image_close(f, r->img);
	return ret < 0 ? ret : closed;
}

static void fail_each(struct fiber *f, void *arg)
{
	for (unsigned kind = 0; kind < 3; kind++) {
		for (unsigned nth = 1;; nth++) {
			struct rig *r = rig_new(f, 4096, false);
			int ret;

			r->rule = (struct fault_rule){.error = -EIO, .sticky = nth % 2};
			*(kind == 0   ? &r->rule.reads
			  : kind == 1 ? &r->rule.writes
				      : &r->rule.syncs) = nth;
			ret = change_some(f, r);
			fail_on_corruption(f, &r->disk, ret == 0, "failing request", nth);
			rig_free(r);
			if (ret == 0)
				break;
			assert_true(nth < 200);
		}
	}
}

static void a_failing_request_is_reported_and_harms_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, fail_each, NULL), 0);
}

static void fail_memory(struct fiber *f, void *arg)
{
	for (unsigned nth = 1; nth < 60; nth++) {
		struct rig *r = rig_new(f, 4096, false);

		try_alloc_fail_nth(nth);
		(void)change_some(f, r);
		try_alloc_fail_nth(0);
		fail_on_corruption(f, &r->disk, false, "failing allocation", nth);
		rig_free(r);
	}
}

static void missing_memory_harms_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, fail_memory, NULL), 0);
}

/* --- the first writes of a session ------------------------------------------------------- */

#define RACERS 4

struct race {
	struct image *img;
	u32 left, next;
	struct fiber_queue done;
};

static u64 racer_place(u32 i)
{
	return i * 200 * KiB + 5 * 512;
}

static void racer(struct fiber *f, void *arg)
{
	struct race *race = arg;

	write_at(f, race->img, racer_place(race->next++), 512);
	race->left--;
	fiber_queue_wake_all(&race->done);
}

static void race_at_the_start(struct fiber *f, void *arg)
{
	struct rig *r = rig_new(f, 4096, false);
	struct race race = {.left = RACERS};

	r->disk.seed = 12345;
	race.img = open_rig(f, r, false, false);
	fiber_queue_init(&race.done);
	for (u32 i = 0; i < RACERS; i++)
		assert_int_equal(fiber_spawn(fiber_loop(f), racer, &race), 0);
	while (race.left)
		fiber_queue_wait(f, &race.done);
	for (u32 i = 0; i < RACERS; i++) {
		u64 at = racer_place(i), n;

		assert_true(dirty_map_next(to_qcow2(race.img)->tracking, &at, &n));
		assert_int_equal(at, racer_place(i));
	}
	assert_int_equal(image_close(f, race.img), 0);
	rig_free(r);
}

static void writes_that_come_together_first_are_all_followed(void **state)
{
	assert_int_equal(loop_run_fiber(*state, race_at_the_start, NULL), 0);
}

/* --- the map in memory ------------------------------------------------------------------ */

static void map_finds_what_was_set(void **state)
{
	const u64 bytes = 100 * MiB + 512;
	struct dirty_map *m;
	u64 seed = 5, at, n;
	AUTO_FREE u8 *model = xalloc(bytes / 512 + 1);

	assert_int_equal(dirty_map_new(&m, bytes, 9), 0);
	for (u32 i = 0; i < 500; i++) {
		u64 goff = next_random(&seed) % (bytes + 4096);
		u64 len = next_random(&seed) % (i % 10 ? 5000 : 1 * MiB);

		assert_int_equal(dirty_map_set(m, goff, len), 0);
		for (u64 s = goff / 512; len && s <= (goff + len - 1) / 512; s++)
			if (s * 512 < bytes)
				model[s] = 1;
	}
	for (u64 s = 0, stop; s * 512 < bytes; s = stop) {
		stop = s;
		at = s * 512;
		while (stop * 512 < bytes && model[stop] == model[s])
			stop++;
		if (!model[s])
			continue;
		assert_true(dirty_map_next(m, &at, &n));
		assert_int_equal(at, s * 512);
		assert_int_equal(n, MIN(stop * 512, bytes) - at);
	}
	dirty_map_free(m);
	assert_int_equal(dirty_map_new(&m, (u64)1 << 50, 9), -EFBIG);
}

#define TESTS(X)                                                                                   \
	X(a_power_cut_leaves_the_old_bitmaps_or_the_new_ones),                                     \
		X(no_written_data_is_seen_without_the_mark_in_use),                                \
		X(a_failing_request_is_reported_and_harms_nothing),                                \
		X(missing_memory_harms_nothing),                                                   \
		X(writes_that_come_together_first_are_all_followed), X(map_finds_what_was_set)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("bitmaps of qcow2", tests, NULL, NULL);
}
