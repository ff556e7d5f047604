/* Power cuts over jobs and external snapshots, with a guest that writes and flushes
 * without pause: whatever the files have lost since their last sync, no image is
 * corrupt, and the chain by the old top's name, or once it may be in use the one by
 * the new name, shows what the guest had flushed.  A job that is run again on what the
 * cut left does the rest.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/blk_internal.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/job.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/cuts.h"

#include <errno.h>
#include <stdio.h>

#define BYTES	(1280 * KiB)
#define SECTORS (BYTES / 512)
#define FILES	4
#define ROUNDS	400 /* of the guest, at most */
#define EXTENT	24  /* sectors of one write, at most */

enum what { STREAM, STREAM_TO_BASE, COMMIT_BEHIND, COMMIT_ACTIVE, COMMIT_EMPTY, SNAPSHOT };

static const char *const names[FILES] = {"base", "middle", "top", "new"};

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
	/* What the guest sees after each of its rounds, which end with a flush. */
	u16 (*view)[SECTORS];
	size_t begun[ROUNDS + 1], ended[ROUNDS + 1];
	u32 rounds;
	bool stop, guest_ended, job_over;
	int job_result;
	size_t change_begun, change_ended; /* events: another file becomes the top */
	u32 old_top, new_top;
	struct fiber_queue wait;
	u64 seed, judged, rerun;
	u16 stamp;
};

static void fill(u8 *sector, u16 stamp)
{
	for (u32 i = 0; i < 512; i += 2)
		memcpy(sector + i, &stamp, 2);
}

/* --- images ------------------------------------------------------------------------ */

static void create(struct fiber *f, struct run *r, u32 at)
{
	struct qcow2_create_options opt = {.bytes = BYTES,
					   .cluster_bytes = r->s->cluster_bytes,
					   .backing_file = at ? names[at - 1] : NULL,
					   .backing_format = at ? "qcow2" : NULL};
	struct image *file = mem_image_new(fiber_loop(f), &r->disks[at]);
	struct error err = {0};

	assert_int_equal(filter_record_file(&file, file, &r->log, at), 0);
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
}

/* An image alone, by its place; recorded if there is a log. */
static struct image *open_one(struct fiber *f, struct mem_disk *disks, u32 at,
			      struct record_log *log, struct open_policy policy)
{
	struct image *img, *file = mem_image_new(fiber_loop(f), &disks[at]);
	struct error err = {0};

	if (log)
		assert_int_equal(filter_record_file(&file, file, log, at), 0);
	if (image_open_over(f, &img, "qcow2", file, &policy, &err))
		fail_msg("%s: %s", names[at], err.text);
	free(img->name);
	img->name = xstrdup(names[at]);
	return img;
}

static u32 place_of(const char *name)
{
	u32 at = 0;

	while (at < FILES && strcmp(names[at], name))
		at++;
	assert_true(at < FILES);
	return at;
}

/* A chain as its headers name it; only the top may be written to. */
static struct image *open_chain(struct fiber *f, struct mem_disk *disks, u32 top,
				struct record_log *log)
{
	struct image *first = open_one(f, disks, top, log, (struct open_policy){.writable = true});
	struct image *img = first;

	for (u32 n = 0; img->backing_name; n++) {
		assert_true(n < FILES);
		img->backing = open_one(f, disks, place_of(img->backing_name), log,
					(struct open_policy){.writable = true});
		img = img->backing;
		img->writable = false;
	}
	return first;
}

static void scribble(struct fiber *f, struct run *r, u32 at)
{
	struct image *img = open_chain(f, r->disks, at, NULL);
	u8 buf[EXTENT * 512];

	for (u32 i = 0; i < 40; i++) {
		u64 n = 1 + next_random(&r->seed) % EXTENT;
		u64 sector = next_random(&r->seed) % (SECTORS - n);

		r->stamp = i == 3 ? 0 : (u16)(at * 1000 + i + 1);
		for (u64 k = 0; k < n; k++) {
			fill(buf + k * 512, r->stamp);
			r->view[0][sector + k] = r->stamp;
		}
		assert_int_equal(r->stamp ? image_pwrite(f, img, sector * 512, buf, n * 512)
					  : image_zero(f, img, sector * 512, n * 512, 0),
				 0);
	}
	assert_int_equal(image_close(f, img), 0);
}

/* --- the guest ----------------------------------------------------------------------- */

struct request {
	struct blk_req req;
	struct fiber_queue *wait;
	int ret;
};

static void on_done(struct blk_req *req, int ret)
{
	struct request *q = container_of(req, struct request, req);

	q->ret = ret;
	fiber_queue_wake_all(q->wait);
}

static void submit(struct fiber *f, struct run *r, struct request *q)
{
	struct fiber_queue wait;

	fiber_queue_init(&wait);
	q->wait = &wait;
	q->ret = 1;
	q->req.done = on_done;
	blk_submit(r->blk, &q->req);
	while (q->ret > 0)
		fiber_queue_wait(f, &wait);
	assert_int_equal(q->ret, 0);
}

/* Every sector at most once in a round: it holds the old value or the new one. */
static void write_round(struct fiber *f, struct run *r, u16 *view)
{
	struct request flush = {.req.op = BLK_FLUSH};
	u8 buf[EXTENT * 512];

	for (u64 at = next_random(&r->seed) % 300; at + EXTENT < SECTORS;) {
		u64 n = 1 + next_random(&r->seed) % EXTENT;
		struct iovec iov = {buf, n * 512};
		struct request q = {
			.req = {.op = BLK_WRITE, .goff = at * 512, .iov = &iov, .niov = 1}};
		bool zero = next_random(&r->seed) % 4 == 0;

		r->stamp = zero ? 0 : (u16)(r->stamp < 5000 ? 5000 : r->stamp + 1);
		for (u64 k = 0; k < n; k++) {
			fill(buf + k * 512, r->stamp);
			view[at + k] = r->stamp;
		}
		if (zero)
			q.req = (struct blk_req){
				.op = BLK_ZERO, .goff = at * 512, .bytes = n * 512};
		submit(f, r, &q);
		if (zero)
			r->stamp = (u16)(5000 + next_random(&r->seed) % 20000);
		at += n + next_random(&r->seed) % 700;
	}
	submit(f, r, &flush);
}

static void guest(struct fiber *f, void *arg)
{
	struct run *r = arg;

	while (!r->stop && r->rounds < ROUNDS) {
		u32 i = r->rounds + 1;

		memcpy(r->view[i], r->view[i - 1], sizeof(r->view[0]));
		r->begun[i] = r->log.n;
		write_round(f, r, r->view[i]);
		r->ended[i] = r->log.n;
		r->rounds = i;
	}
	r->guest_ended = true;
	fiber_queue_wake_all(&r->wait);
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

static void wait_rounds(struct fiber *f, struct run *r, u32 n)
{
	for (n += r->rounds; r->rounds < n;)
		fiber_sleep_ns(f, 10000);
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
	assert_int_equal(fiber_spawn(r->loop, guest, r), 0);
	wait_rounds(f, r, 2);
	if (r->s->what == SNAPSHOT) {
		put_overlay(f, r);
		r->new_top = 3;
	} else {
		r->change_begun = r->log.n;
		run_job(f, r, r->blk);
		if (r->s->what == COMMIT_ACTIVE)
			r->new_top = 0;
	}
	wait_rounds(f, r, 2);
	r->stop = true;
	while (!r->guest_ended)
		fiber_queue_wait(f, &r->wait);
}

/* --- what must hold ------------------------------------------------------------------------ */

static void check(struct fiber *f, struct mem_disk *disks, u32 at, size_t events)
{
	struct image *img = open_one(f, disks, at, NULL, (struct open_policy){.check_only = true});
	struct check_request req = {0};
	struct error err = {0};

	if (img->driver->check(f, img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("cut after event %zu: %s: %llu corruptions", events, names[at],
			 (unsigned long long)req.result.corruptions);
	image_close(f, img);
}

/* Does the disk show what was flushed by then, or writes begun later? */
static bool shows(struct fiber *f, struct run *r, struct image *img, size_t events)
{
	AUTO_FREE u8 *data = xalloc(BYTES);
	u32 k = 0;

	while (k < r->rounds && r->ended[k + 1] <= events)
		k++;
	assert_int_equal(img->bytes, BYTES);
	assert_int_equal(image_pread(f, img, 0, data, BYTES), 0);
	for (u32 i = 0; i < SECTORS; i++) {
		u16 is;

		memcpy(&is, data + i * 512, 2);
		assert_memory_equal(data + i * 512, data + i * 512 + 2, 510);
		if (is != r->view[k][i] && (k == r->rounds || is != r->view[k + 1][i]))
			return false;
	}
	return true;
}

static bool fits(struct fiber *f, struct run *r, struct mem_disk *disks, u32 top, size_t events)
{
	struct image *img = open_chain(f, disks, top, NULL);
	bool same = shows(f, r, img, events);

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
	if (!shows(f, r, blk->img, events))
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
	if (r->s->what != SNAPSHOT && r->judged % 5 == 0 &&
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
	r->view = xalloc((ROUNDS + 2) * sizeof(*r->view));
	r->seed = cuts.seed = r->s->seed;
	cuts.samples = r->s->samples;
	record(f, r);
	cuts.start = r->start;
	cuts_run(f, &cuts);
	print_message("%s: %zu events, %u rounds, %llu cuts, %llu jobs run again\n", r->s->name,
		      r->log.n, r->rounds, (unsigned long long)r->judged,
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
	free(r->view);
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

#define TESTS(X)                                                                                   \
	X(power_cut_during_a_stream_loses_nothing),                                                \
		X(power_cut_during_a_commit_behind_the_top_loses_nothing),                         \
		X(power_cut_during_an_active_commit_loses_nothing),                                \
		X(power_cut_while_a_committed_image_is_emptied_loses_nothing),                     \
		X(power_cut_during_an_external_snapshot_loses_nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	setenv("CMOCKA_TEST_ABORT", "1", 1);
	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and jobs", tests, NULL, NULL);
}
