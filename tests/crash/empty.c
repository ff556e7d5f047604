/* Power cuts while a committed overlay is emptied: whatever the disk has lost since
 * its last sync, the overlay shows its own cluster as it was or lets its backing
 * image show the same content through a hole, its snapshot is whole, and check
 * finds nothing worse than leaks.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "tests/lib/cuts.h"

#include <errno.h>

#define BYTES	(768 * KiB)
#define SECTORS (BYTES / 512)

struct scenario {
	u32 cluster_bytes, version;
	bool lazy, snapshot;
	u64 seed;
	u32 samples;
};

struct run {
	const struct scenario *s;
	struct mem_disk disk, start;
	struct record_log log;
	u8 data[BYTES];
	u64 judged;
};

static struct image *open_disk(struct fiber *f, struct mem_disk *disk, struct image *over,
			       struct open_policy policy)
{
	struct image *img;
	struct error err = {0};

	if (!over)
		over = mem_image_new(fiber_loop(f), disk);
	if (image_open_over(f, &img, "qcow2", over, &policy, &err))
		fail_msg("%s", err.text);
	return img;
}

/* Some runs of sectors, each with a number of its own; the rest stays holes. */
static void fill(struct fiber *f, struct run *r, struct image *img)
{
	u64 seed = r->s->seed;

	for (u64 at = 0; at + 64 < SECTORS; at += next_random(&seed) % 96 + 1) {
		u64 n = next_random(&seed) % 64 + 1;

		memset(r->data + at * 512, (int)(next_random(&seed) % 255 + 1), n * 512);
		assert_int_equal(image_pwrite(f, img, at * 512, r->data + at * 512, n * 512), 0);
		at += n;
	}
	assert_int_equal(image_flush(f, img), 0);
}

static void record(struct fiber *f, struct run *r)
{
	struct qcow2_create_options opt = {.bytes = BYTES,
					   .version = r->s->version,
					   .cluster_bytes = r->s->cluster_bytes,
					   .lazy_refcounts = r->s->lazy};
	struct qcow2_new_snapshot snapshot = {.name = "s", .date_sec = 1};
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 16 * 1024};
	struct image *img, *file = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	img = open_disk(f, &r->disk, NULL, policy);
	fill(f, r, img);
	if (r->s->snapshot)
		assert_int_equal(qcow2_snapshot_create(f, img, &snapshot), 0);
	assert_int_equal(image_close(f, img), 0);
	mem_disk_copy(&r->start, &r->disk);
	r->disk.seed = r->s->seed;
	file = mem_image_new(fiber_loop(f), &r->disk);
	assert_int_equal(filter_record_new(&file, file, &r->log), 0);
	img = open_disk(f, NULL, file, policy);
	assert_int_equal(qcow2_make_empty(f, img), 0);
	assert_int_equal(image_close(f, img), 0);
}

static void check(struct fiber *f, struct mem_disk *disk, size_t events)
{
	struct image *img = open_disk(f, disk, NULL, (struct open_policy){.check_only = true});
	struct check_request req = {0};
	struct error err = {0};

	if (img->driver->check(f, img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("cut after event %zu: %llu corruptions", events,
			 (unsigned long long)req.result.corruptions);
	image_close(f, img);
}

/* A range is as it was, or a hole. */
static void look(struct fiber *f, struct run *r, struct image *img, bool holes)
{
	AUTO_FREE u8 *now = xalloc(BYTES);
	struct map_extent e;

	assert_int_equal(image_pread(f, img, 0, now, BYTES), 0);
	for (u64 at = 0; at < BYTES; at += e.bytes) {
		assert_int_equal(image_map(f, img, at, BYTES - at, &e), 0);
		if (holes && !(e.kind & MAP_ALLOC))
			continue;
		assert_memory_equal(now + at, r->data + at, e.bytes);
	}
}

static void judge(struct fiber *f, struct mem_disk *disk, size_t events, void *arg)
{
	struct run *r = arg;
	struct image *img;

	if (!r->s->lazy) /* else opening repairs first */
		check(f, disk, events);
	img = open_disk(f, disk, NULL, (struct open_policy){.writable = true});
	look(f, r, img, true);
	if (events == r->log.n) {
		struct map_extent e;

		assert_int_equal(image_map(f, img, 0, BYTES, &e), 0);
		assert_true(e.bytes == BYTES && !(e.kind & MAP_ALLOC));
	}
	assert_int_equal(image_close(f, img), 0);
	if (r->s->snapshot) {
		img = open_disk(f, disk, NULL, (struct open_policy){.snapshot = "s"});
		look(f, r, img, false);
		assert_int_equal(image_close(f, img), 0);
	}
	check(f, disk, events);
	r->judged++;
}

static void replay(struct fiber *f, void *arg)
{
	struct run *r = xnew(struct run);
	struct cuts cuts = {.log = &r->log, .judge = judge, .arg = r};

	r->s = arg;
	cuts.seed = r->s->seed;
	cuts.samples = r->s->samples;
	record(f, r);
	cuts.start = &r->start;
	cuts_run(f, &cuts);
	assert_true(r->judged > 5);
	record_log_fini(&r->log);
	mem_disk_fini(&r->disk);
	mem_disk_fini(&r->start);
	free(r);
}

static void run_scenario(void **state, struct scenario s)
{
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 1;

	s.version = s.version ? s.version : 3;
	for (u32 i = 0; i < rounds; i++) {
		s.seed = 0x243f6a8885a308d3ull + s.cluster_bytes * 31 + i * 7919ull;
		s.samples = 4;
		assert_int_equal(loop_run_fiber(*state, replay, &s), 0);
	}
}

static void power_cut_leaves_content_or_holes_with_large_clusters(void **state)
{
	run_scenario(state, (struct scenario){.cluster_bytes = 65536});
}

static void power_cut_leaves_content_or_holes_with_small_clusters(void **state)
{
	run_scenario(state, (struct scenario){.cluster_bytes = 512});
}

static void power_cut_leaves_content_or_holes_in_version_2(void **state)
{
	run_scenario(state, (struct scenario){.cluster_bytes = 4096, .version = 2});
}

static void power_cut_leaves_content_or_holes_with_lazy_refcounts(void **state)
{
	run_scenario(state, (struct scenario){.cluster_bytes = 2048, .lazy = true});
}

static void power_cut_leaves_the_snapshot_whole(void **state)
{
	run_scenario(state, (struct scenario){.cluster_bytes = 2048, .snapshot = true});
}

#define TESTS(X)                                                                                   \
	X(power_cut_leaves_content_or_holes_with_large_clusters),                                  \
		X(power_cut_leaves_content_or_holes_with_small_clusters),                          \
		X(power_cut_leaves_content_or_holes_in_version_2),                                 \
		X(power_cut_leaves_content_or_holes_with_lazy_refcounts),                          \
		X(power_cut_leaves_the_snapshot_whole)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and emptied overlays", tests, NULL, NULL);
}
