/* Power cuts over snapshots of two drives at one moment (overlays_put), each with a guest
 * that writes and flushes without pause: after any cut either both disks are to be had by
 * their old names, with all that was flushed, or both by their new ones.
 *
 * overlays_put runs on a thread of its own, as the machine's does; the linker gives it
 * recorded files in memory (--wrap, see the Makefile).
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/scribe.h"
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/blk_internal.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/overlay.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/cuts.h"

#include <pthread.h>
#include <stdio.h>

#define DRIVES 2
#define FILES  4 /* the old tops, then the new ones */

struct run {
	u32 cluster_bytes;
	struct mem_disk disks[FILES], start[FILES];
	struct record_log log;
	struct blk *blk[DRIVES];
	struct scribe scribes[DRIVES];
	size_t change_begun, change_ended; /* events */
	bool changed;			   /* [atomic] by the thread */
	int result;
	u64 seed, judged, olds, news;
	u32 samples;
};

static const char *const names[FILES] = {"overlays-a", "overlays-b", "overlays-a-new",
					 "overlays-b-new"};

/* The hooks of the linker have no argument of ours. */
static struct run **current(void)
{
	static struct run *r;

	return &r;
}

static struct image *recorded(struct fiber *f, struct run *r, const char *path)
{
	struct image *file;
	u32 at = 0;

	while (at < FILES && strcmp(names[at], path))
		at++;
	assert_true(at < FILES);
	file = mem_image_new(fiber_loop(f), &r->disks[at]);
	assert_int_equal(filter_record_file(&file, file, &r->log, at), 0);
	return file;
}

int __wrap_create_host_file(struct fiber *f, const struct create_request *req, const char *path,
			    u64 bytes, struct image **out, struct error *err);
int __wrap_create_host_file(struct fiber *f, const struct create_request *req, const char *path,
			    u64 bytes, struct image **out, struct error *err)
{
	*out = recorded(f, *current(), path);
	return 0;
}

int __wrap_file_open_path(struct fiber *f, struct image **out, const char *path,
			  const struct open_policy *policy, struct error *err);
int __wrap_file_open_path(struct fiber *f, struct image **out, const char *path,
			  const struct open_policy *policy, struct error *err)
{
	*out = recorded(f, *current(), path);
	return 0;
}

/* --- the run ------------------------------------------------------------------------- */

static struct image *open_one(struct fiber *f, struct mem_disk *disk, struct record_log *log,
			      u32 at, struct open_policy policy)
{
	struct image *img, *file = mem_image_new(fiber_loop(f), disk);
	struct error err = {0};

	if (log)
		assert_int_equal(filter_record_file(&file, file, log, at), 0);
	if (image_open_over(f, &img, "qcow2", file, &policy, &err))
		fail_msg("%s: %s", names[at], err.text);
	free(img->name);
	img->name = xstrdup(names[at]);
	return img;
}

static void make_drive(struct fiber *f, struct run *r, u32 at)
{
	struct qcow2_create_options opt = {.bytes = SCRIBE_BYTES,
					   .cluster_bytes = r->cluster_bytes};
	struct open_policy policy = {.writable = true};
	struct image *img = mem_image_new(fiber_loop(f), &r->disks[at]);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, img, &opt, &err), 0);
	image_close(f, img);
	img = open_one(f, &r->disks[at], NULL, at, policy);
	scribe_scribble(f, &r->scribes[at], img, 1000);
	assert_int_equal(image_close(f, img), 0);
	mem_disk_copy(&r->start[at], &r->disks[at]);
	r->disks[at].seed = r->seed + at + 1;
	img = open_one(f, &r->disks[at], &r->log, at, policy);
	assert_int_equal(blk_from_image(&r->blk[at], fiber_loop(f), img), 0);
	r->blk[at]->policy = policy;
}

/* The thread of the machine's control. */
static void *change(void *arg)
{
	struct run *r = arg;
	struct overlay_change v[DRIVES] = {0};
	struct error err = {0};

	for (u32 i = 0; i < DRIVES; i++)
		v[i] = (struct overlay_change){.blk = r->blk[i], .file = names[DRIVES + i]};
	r->result = overlays_put(v, DRIVES, &err);
	for (u32 i = 0; i < DRIVES; i++)
		overlay_change_fini(&v[i]);
	__atomic_store_n(&r->changed, true, __ATOMIC_RELEASE);
	return NULL;
}

static void record(struct fiber *f, struct run *r)
{
	pthread_t thread;

	for (u32 i = 0; i < DRIVES; i++)
		scribe_init(&r->scribes[i], &r->log, r->seed + 31 * i);
	for (u32 i = 0; i < DRIVES; i++)
		make_drive(f, r, i);
	for (u32 i = 0; i < DRIVES; i++)
		scribe_start(f, &r->scribes[i], r->blk[i]);
	scribe_wait_rounds(f, &r->scribes[1], 2);
	r->change_begun = r->log.n;
	assert_int_equal(pthread_create(&thread, NULL, change, r), 0);
	while (!__atomic_load_n(&r->changed, __ATOMIC_ACQUIRE))
		fiber_sleep_ns(f, 10000);
	r->change_ended = r->log.n;
	pthread_join(thread, NULL);
	assert_int_equal(r->result, 0);
	scribe_wait_rounds(f, &r->scribes[1], 2);
	for (u32 i = 0; i < DRIVES; i++) {
		scribe_stop(f, &r->scribes[i]);
		assert_int_equal(image_depth(r->blk[i]->img), 1);
	}
}

/* --- what must hold ---------------------------------------------------------------------- */

static void check(struct fiber *f, struct mem_disk *disk, u32 at, size_t events)
{
	struct open_policy policy = {.check_only = true};
	struct image *img = open_one(f, disk, NULL, at, policy);

	scribe_check(f, img, events);
	image_close(f, img);
}

/* All of the drives, by their old names or by their new ones? */
static bool fits(struct fiber *f, struct run *r, struct mem_disk *disks, bool new, size_t events)
{
	struct open_policy policy = {0};
	bool all = true;

	for (u32 i = 0; i < DRIVES; i++) {
		struct image *img = open_one(f, &disks[i], NULL, i, policy), *top = img;

		if (new) {
			top = open_one(f, &disks[DRIVES + i], NULL, DRIVES + i, policy);
			assert_string_equal(top->backing_name, names[i]);
			top->backing = img;
		}
		all &= scribe_is_shown(f, &r->scribes[i], top, events);
		assert_int_equal(image_close(f, top), 0);
	}
	return all;
}

/* The new images are whole once overlays_put returns, and before anybody writes to one. */
static void judge(struct fiber *f, struct mem_disk *disks, size_t events, void *arg)
{
	struct run *r = arg;
	bool made = events >= r->change_ended, old, new;

	for (u32 i = 0; i < (made ? FILES : DRIVES); i++)
		check(f, &disks[i], i, events);
	old = fits(f, r, disks, false, events);
	new = events >= r->change_begun && (made || !old) && fits(f, r, disks, true, events);
	if (!old && !new)
		fail_msg("cut after event %zu of %zu (change %zu to %zu): neither all old nor all "
			 "new",
			 events, r->log.n, r->change_begun, r->change_ended);
	if (made && !new)
		fail_msg("cut after event %zu of %zu (change %zu to %zu): not all new", events,
			 r->log.n, r->change_begun, r->change_ended);
	r->olds += old;
	r->news += new;
	r->judged++;
}

static void replay(struct fiber *f, void *arg)
{
	struct run *r = arg;
	struct cuts cuts = {.start = r->start,
			    .files = FILES,
			    .log = &r->log,
			    .samples = r->samples,
			    .seed = r->seed,
			    .judge = judge,
			    .arg = r};

	*current() = r;
	record(f, r);
	cuts_run(f, &cuts);
	print_message("two drives, clusters of %u: %zu events, %llu cuts, %llu old, %llu new\n",
		      r->cluster_bytes, r->log.n, (unsigned long long)r->judged,
		      (unsigned long long)r->olds, (unsigned long long)r->news);
	assert_true(r->olds > 50 && r->news > 50);
	for (u32 i = 0; i < DRIVES; i++) {
		assert_int_equal(image_close(f, r->blk[i]->img), 0);
		r->blk[i]->img = NULL;
		blk_free(r->blk[i]);
		scribe_fini(&r->scribes[i]);
	}
	*current() = NULL;
}

static void power_cut_during_a_snapshot_of_two_drives_switches_both_or_none(void **state)
{
	static const u32 clusters[] = {4096, 65536, 512};
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 2;

	for (u32 i = 0; i < rounds; i++) {
		struct run *r = xnew(struct run);

		r->cluster_bytes = clusters[i % ARRAY_LEN(clusters)];
		r->samples = text ? 4 : 1;
		r->seed = 0x13198a2e03707344ull + i * 7919ull;
		assert_int_equal(loop_run_fiber(*state, replay, r), 0);
		record_log_fini(&r->log);
		for (u32 k = 0; k < FILES; k++) {
			mem_disk_fini(&r->disks[k]);
			mem_disk_fini(&r->start[k]);
		}
		free(r);
	}
}

#define TESTS(X) X(power_cut_during_a_snapshot_of_two_drives_switches_both_or_none)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and snapshots of drives", tests, NULL, NULL);
}
