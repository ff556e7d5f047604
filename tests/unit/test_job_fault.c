/* Jobs on a chain when things fail: the Nth read, write, sync or allocation, for every N.
 * The job says so, or does not need it; the drive shows the same all the time, every image
 * is in order, and another run does the rest. */
#include "tests/unit/backends.h"

#include "base/log.h"
#include "block/blk_internal.h"
#include "block/filter.h"
#include "block/job.h"
#include "tests/crash/scribe.h"
#include "tests/lib/cuts.h"
#include "tests/lib/mem_chain.h"

#include <errno.h>

#define IMAGES 3

enum what { FAIL_READ, FAIL_WRITE, FAIL_SYNC, FAIL_ALLOC, FAIL_KINDS };

struct play {
	struct job_request req;
	enum what what;
	bool sticky;
	struct mem_disk disks[MEM_CHAIN_MOST], fresh[MEM_CHAIN_MOST];
	struct scribe scribe; /* knows what the chain shows; writes no more */
	struct fault_rule rule;
	struct blk *blk;
	bool over;
	int result;
	struct fiber_queue wait;
};

static struct image *add_fault(struct image *file, u32 at, void *arg)
{
	struct image *over;

	assert_int_equal(filter_fault_new(&over, file, arg), 0);
	return over;
}

static void arm(struct play *p, unsigned nth)
{
	p->rule = (struct fault_rule){.error = -EIO, .sticky = p->sticky};
	switch (p->what) {
	case FAIL_READ: p->rule.reads = nth; break;
	case FAIL_WRITE: p->rule.writes = nth; break;
	case FAIL_SYNC: p->rule.syncs = nth; break;
	default: try_alloc_fail_nth(nth);
	}
}

static void disarm(struct play *p)
{
	p->rule = (struct fault_rule){0};
	try_alloc_fail_nth(0);
}

static void make_chain(struct fiber *f, struct play *p)
{
	const struct mem_chain_filter none = {0};

	scribe_init(&p->scribe, NULL, 0x7135);
	for (u32 i = 0; i < IMAGES; i++) {
		struct image *img;

		mem_chain_create(f, p->fresh, i, 4096, SCRIBE_BYTES, &none);
		assert_int_equal(mem_chain_open(f, p->fresh, i, &none, &img), 0);
		scribe_scribble(f, &p->scribe, img, (u16)(i * 1000));
		assert_int_equal(image_close(f, img), 0);
	}
}

static void on_over(void *arg, int ret, const char *text)
{
	struct play *p = arg;

	p->over = true;
	p->result = ret;
	assert_true(ret == 0 || text[0]);
	fiber_queue_wake_all(&p->wait);
}

static int run_job(struct fiber *f, struct play *p)
{
	struct job_request req = p->req;
	struct error err = {0};
	int ret;

	req.ended = on_over;
	req.arg = p;
	p->over = false;
	ret = job_start_fiber(f, p->blk, &req, &err);
	if (ret < 0) {
		assert_true(err.text[0]);
		return ret;
	}
	while (!p->over)
		fiber_queue_wait(f, &p->wait);
	return p->result;
}

static void open_drive(struct fiber *f, struct play *p, u32 top)
{
	const struct mem_chain_filter filter = {add_fault, &p->rule};
	struct image *img;

	assert_int_equal(mem_chain_open(f, p->disks, top, &filter, &img), 0);
	assert_int_equal(blk_from_image(&p->blk, fiber_loop(f), img), 0);
}

/* The drive's top, after all that failed has come back. */
static u32 close_drive(struct fiber *f, struct play *p)
{
	u32 top = mem_chain_place(p->blk->img->name);

	assert_true(scribe_is_shown(f, &p->scribe, p->blk->img, 0));
	(void)image_close(f, p->blk->img);
	p->blk->img = NULL;
	blk_free(p->blk);
	return top;
}

/* All is in order, by the names of the files too. */
static void look(struct fiber *f, struct play *p, u32 top)
{
	const struct open_policy policy = {.check_only = true};
	const struct mem_chain_filter none = {0};
	struct image *img;

	for (u32 i = 0; i < IMAGES; i++) {
		assert_int_equal(mem_chain_open_one(f, p->disks, i, &none, &policy, &img), 0);
		scribe_check(f, img, 0);
		image_close(f, img);
	}
	assert_int_equal(mem_chain_open(f, p->disks, top, &none, &img), 0);
	assert_true(scribe_is_shown(f, &p->scribe, img, 0));
	assert_int_equal(image_close(f, img), 0);
}

/* True: the job was hurt. */
static bool play_once(struct fiber *f, struct play *p, unsigned nth)
{
	int ret;
	u32 top;

	for (u32 i = 0; i < IMAGES; i++) {
		mem_disk_fini(&p->disks[i]);
		mem_disk_copy(&p->disks[i], &p->fresh[i]);
	}
	open_drive(f, p, IMAGES - 1);
	arm(p, nth);
	ret = run_job(f, p);
	disarm(p);
	top = close_drive(f, p);
	look(f, p, top);
	if (ret == 0)
		return false;
	open_drive(f, p, top);
	/* It may have failed when all was done. */
	if (p->blk->img->backing)
		(void)run_job(f, p);
	top = close_drive(f, p);
	look(f, p, top);
	return true;
}

static void play_all(struct fiber *f, void *arg)
{
	struct play *p = arg;
	unsigned quiet = 0, hurt = 0;

	fiber_queue_init(&p->wait);
	make_chain(f, p);
	for (unsigned nth = 1; quiet < 6; nth += p->sticky ? 3 : 1) {
		bool hit = play_once(f, p, nth);

		quiet = hit ? 0 : quiet + 1;
		hurt += hit;
	}
	assert_true(hurt > 0);
	for (u32 i = 0; i < IMAGES; i++) {
		mem_disk_fini(&p->disks[i]);
		mem_disk_fini(&p->fresh[i]);
	}
	scribe_fini(&p->scribe);
}

static void fail_each(void **state, struct job_request req)
{
	for (unsigned i = 0; i < 2 * FAIL_KINDS; i++) {
		struct play *p = xnew(struct play);

		p->req = req;
		p->what = (enum what)(i / 2);
		p->sticky = i % 2;
		if (p->what != FAIL_ALLOC || !p->sticky)
			assert_int_equal(loop_run_fiber(*state, play_all, p), 0);
		free(p);
	}
}

static void a_stream_that_fails_changes_nothing_that_is_shown(void **state)
{
	fail_each(state, (struct job_request){.type = JOB_STREAM});
	fail_each(state, (struct job_request){.type = JOB_STREAM, .base = "base"});
}

static void a_commit_that_fails_changes_nothing_that_is_shown(void **state)
{
	fail_each(state, (struct job_request){.type = JOB_COMMIT, .top = "middle"});
	fail_each(state, (struct job_request){.type = JOB_COMMIT, .end = JOB_PIVOT});
	fail_each(state, (struct job_request){.type = JOB_COMMIT, .one = true, .end = JOB_EMPTY});
}

#define TESTS(X)                                                                                   \
	X(a_stream_that_fails_changes_nothing_that_is_shown),                                      \
		X(a_commit_that_fails_changes_nothing_that_is_shown)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("jobs that fail", tests, NULL, NULL);
}
