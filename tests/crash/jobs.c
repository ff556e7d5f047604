/* Power cuts over jobs and external snapshots, with a guest that writes and flushes
 * without pause: whatever the files have lost since their last sync, no image is
 * corrupt, and the chain by the old top's name, or once it may be in use the one by
 * the new name, shows what the guest had flushed.  A job that is run again on what the
 * cut left does the rest.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/scribe.h"
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/blk_internal.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/job.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/cuts.h"
#include "tests/lib/mem_chain.h"

#include <errno.h>
#include <stdio.h>

#define FILES MEM_CHAIN_MOST

enum what { STREAM, STREAM_TO_BASE, COMMIT_BEHIND, COMMIT_ACTIVE, COMMIT_EMPTY, SNAPSHOT, READS };

struct scenario {
	const char *name;
	enum what what;
	u32 cluster_bytes;
	u32 samples;
	u64 seed;
};

struct run {
	const struct scenario *s;
	struct mem_disk disks[FILES], start[FILES];
	struct record_log log;
	struct blk *blk;
	struct loop *loop;
	struct scribe scribe;
	bool job_over;
	int job_result;
	size_t change_begun, change_ended; /* events: another file becomes the top */
	u32 old_top, new_top;
	struct fiber_queue wait;
	u64 seed, judged, rerun;
};

/* --- images ------------------------------------------------------------------------ */

static struct image *add_record(struct image *file, u32 at, void *arg)
{
	assert_int_equal(filter_record_file(&file, file, arg, at), 0);
	return file;
}

static void create(struct fiber *f, struct run *r, u32 at)
{
	const struct mem_chain_filter filter = {add_record, &r->log};

	mem_chain_create(f, r->disks, at, r->s->cluster_bytes, SCRIBE_BYTES, &filter);
}

/* An image alone, by its place; recorded if there is a log. */
static struct image *open_one(struct fiber *f, struct mem_disk *disks, u32 at,
			      struct record_log *log, struct open_policy policy)
{
	const struct mem_chain_filter filter = {log ? add_record : NULL, log};
	struct image *img;

	assert_int_equal(mem_chain_open_one(f, disks, at, &filter, &policy, &img), 0);
	return img;
}

static struct image *open_chain(struct fiber *f, struct mem_disk *disks, u32 top,
				struct record_log *log)
{
	const struct mem_chain_filter filter = {log ? add_record : NULL, log};
	struct image *img;

	assert_int_equal(mem_chain_open(f, disks, top, &filter, &img), 0);
	return img;
}

static void scribble(struct fiber *f, struct run *r, u32 at)
{
	struct image *img = open_chain(f, r->disks, at, NULL);

	scribe_scribble(f, &r->scribe, img, (u16)(at * 1000));
	assert_int_equal(image_close(f, img), 0);
}

/* --- what is cut into ------------------------------------------------------------------- */

static void on_job_over(void *arg, int ret, const char *text)
{
	struct run *r = arg;

	r->job_over = true;
	r->job_result = ret;
	r->change_ended = r->log.n;
	fiber_queue_wake_all(&r->wait);
}

static struct job_request request_for(enum what what)
{
	switch (what) {
	case STREAM_TO_BASE: return (struct job_request){.type = JOB_STREAM, .base = "base"};
	case COMMIT_BEHIND: return (struct job_request){.type = JOB_COMMIT, .top = "middle"};
	case COMMIT_ACTIVE: return (struct job_request){.type = JOB_COMMIT, .end = JOB_PIVOT};
	case COMMIT_EMPTY:
		return (struct job_request){.type = JOB_COMMIT, .one = true, .end = JOB_EMPTY};
	default: return (struct job_request){.type = JOB_STREAM};
	}
}

static void run_job(struct fiber *f, struct run *r, struct blk *blk)
{
	struct job_request req = request_for(r->s->what);
	struct error err = {0};

	req.ended = on_job_over;
	req.arg = r;
	r->job_over = false;
	if (job_start_fiber(f, blk, &req, &err) < 0)
		fail_msg("%s", err.text);
	while (!r->job_over)
		fiber_queue_wait(f, &r->wait);
	assert_int_equal(r->job_result, 0);
}

/* The steps of overlay.c, on images in memory. */
static void put_overlay(struct fiber *f, struct run *r)
{
	struct image *old = r->blk->img, *img;
	struct error err = {0};

	create(f, r, 3);
	img = open_one(f, r->disks, 3, &r->log, (struct open_policy){.writable = true});
	blk_drain_fiber(f, r->blk);
	assert_int_equal(image_set_writable(f, old, false, &err), 0);
	r->change_begun = r->log.n;
	img->backing = old;
	blk_switch(r->blk, img);
	r->change_ended = r->log.n;
	blk_drain_stop(r->blk);
}

static void record(struct fiber *f, struct run *r)
{
	struct image *img;

	for (u32 i = 0; i < 3; i++) {
		create(f, r, i);
		scribble(f, r, i);
	}
	record_log_fini(&r->log);
	for (u32 i = 0; i < FILES; i++) {
		mem_disk_copy(&r->start[i], &r->disks[i]);
		r->disks[i].seed = r->seed + i + 1;
	}
	img = open_chain(f, r->disks, 2, &r->log);
	assert_int_equal(image_depth(img), 2);
	assert_int_equal(blk_from_image(&r->blk, r->loop, img), 0);
	fiber_queue_init(&r->wait);
	r->old_top = r->new_top = 2;
	scribe_start(f, &r->scribe, r->blk);
	scribe_wait_rounds(f, &r->scribe, 2);
	if (r->s->what == READS) {
		r->blk->copy_on_read = true;
		scribe_read(f, &r->scribe, 120);
	} else if (r->s->what == SNAPSHOT) {
		put_overlay(f, r);
		r->new_top = 3;
	} else {
		r->change_begun = r->log.n;
		run_job(f, r, r->blk);
		if (r->s->what == COMMIT_ACTIVE)
			r->new_top = 0;
	}
	scribe_wait_rounds(f, &r->scribe, 2);
	scribe_stop(f, &r->scribe);
}

/* --- what must hold ------------------------------------------------------------------------ */

static void check(struct fiber *f, struct mem_disk *disks, u32 at, size_t events)
{
	struct image *img = open_one(f, disks, at, NULL, (struct open_policy){.check_only = true});

	scribe_check(f, img, events);
	image_close(f, img);
}

static bool fits(struct fiber *f, struct run *r, struct mem_disk *disks, u32 top, size_t events)
{
	struct image *img = open_chain(f, disks, top, NULL);
	bool same = scribe_is_shown(f, &r->scribe, img, events);

	assert_int_equal(image_close(f, img), 0);
	return same;
}

/* Once more, from what the cut left: it goes to its end, and shows the same. */
static void run_again(struct fiber *f, struct run *r, struct mem_disk *disks, size_t events)
{
	struct image *img = open_chain(f, disks, 2, NULL);
	struct blk *blk;

	assert_int_equal(blk_from_image(&blk, r->loop, img), 0);
	/* The cut may have come after its end. */
	if (image_depth(img) == 2 || (r->s->what == STREAM_TO_BASE && image_depth(img) > 1)) {
		run_job(f, r, blk);
		r->rerun++;
	}
	if (!scribe_is_shown(f, &r->scribe, blk->img, events))
		fail_msg("cut after event %zu: not the same after another run", events);
	assert_int_equal(image_close(f, blk->img), 0);
	blk->img = NULL;
	blk_free(blk);
}

static void judge(struct fiber *f, struct mem_disk *disks, size_t events, void *arg)
{
	struct run *r = arg;
	bool may_change = r->old_top != r->new_top && events >= r->change_begun;

	for (u32 i = 0; i < (r->new_top == 3 && may_change ? 4 : 3); i++)
		check(f, disks, i, events);
	if (!(may_change && fits(f, r, disks, r->new_top, events)) &&
	    !((!may_change || events < r->change_ended) && fits(f, r, disks, r->old_top, events)))
		fail_msg("cut after event %zu of %zu (change %zu to %zu): flushed writes are lost",
			 events, r->log.n, r->change_begun, r->change_ended);
	if (r->s->what < SNAPSHOT && r->judged % 5 == 0 &&
	    (r->old_top == r->new_top || events < r->change_begun)) {
		size_t change_ended = r->change_ended;

		run_again(f, r, disks, events);
		r->change_ended = change_ended;
	}
	r->judged++;
}

static void replay(struct fiber *f, void *arg)
{
	struct run *r = xnew(struct run);
	struct cuts cuts = {.log = &r->log, .files = FILES, .judge = judge, .arg = r};

	r->s = arg;
	r->loop = fiber_loop(f);
	r->seed = cuts.seed = r->s->seed;
	scribe_init(&r->scribe, &r->log, r->s->seed);
	cuts.samples = r->s->samples;
	record(f, r);
	cuts.start = r->start;
	cuts_run(f, &cuts);
	print_message("%s: %zu events, %u rounds, %llu cuts, %llu jobs run again\n", r->s->name,
		      r->log.n, r->scribe.rounds, (unsigned long long)r->judged,
		      (unsigned long long)r->rerun);
	assert_true(r->judged > 100);
	image_close(f, r->blk->img);
	r->blk->img = NULL;
	blk_free(r->blk);
	record_log_fini(&r->log);
	for (u32 i = 0; i < FILES; i++) {
		mem_disk_fini(&r->disks[i]);
		mem_disk_fini(&r->start[i]);
	}
	scribe_fini(&r->scribe);
	free(r);
}

static void run_scenario(void **state, const char *name, enum what what)
{
	static const u32 clusters[] = {4096, 512, 65536};
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 1;

	for (u32 i = 0; i < rounds; i++) {
		struct scenario s = {.name = name,
				     .what = what,
				     .cluster_bytes = clusters[i % ARRAY_LEN(clusters)],
				     .samples = i ? 4 : 1,
				     .seed = 0x452821e638d01377ull + what * 91 + i * 7919ull};

		assert_int_equal(loop_run_fiber(*state, replay, &s), 0);
	}
}

static void power_cut_during_a_stream_loses_nothing(void **state)
{
	run_scenario(state, "stream", STREAM);
	run_scenario(state, "stream to a base", STREAM_TO_BASE);
}

static void power_cut_during_a_commit_behind_the_top_loses_nothing(void **state)
{
	run_scenario(state, "commit behind", COMMIT_BEHIND);
}

static void power_cut_during_an_active_commit_loses_nothing(void **state)
{
	run_scenario(state, "active commit", COMMIT_ACTIVE);
}

static void power_cut_while_a_committed_image_is_emptied_loses_nothing(void **state)
{
	run_scenario(state, "commit and empty", COMMIT_EMPTY);
}

static void power_cut_during_an_external_snapshot_loses_nothing(void **state)
{
	run_scenario(state, "external snapshot", SNAPSHOT);
}

static void power_cut_while_reads_are_copied_loses_nothing(void **state)
{
	run_scenario(state, "copy-on-read", READS);
}

#define TESTS(X)                                                                                   \
	X(power_cut_during_a_stream_loses_nothing),                                                \
		X(power_cut_during_a_commit_behind_the_top_loses_nothing),                         \
		X(power_cut_during_an_active_commit_loses_nothing),                                \
		X(power_cut_while_a_committed_image_is_emptied_loses_nothing),                     \
		X(power_cut_during_an_external_snapshot_loses_nothing),                            \
		X(power_cut_while_reads_are_copied_loses_nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and jobs", tests, NULL, NULL);
}
