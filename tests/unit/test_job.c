/* Jobs on a drive's chain while it is written to without pause: no write is lost, and
 * the files say what the drive said. */
#define _GNU_SOURCE
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"
#include "block/blk.h"
#include "block/file.h"
#include "block/job.h"
#include "block/overlay.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define DISK_BYTES  (12 * MiB)
#define BLOCK_BYTES 4096
#define BLOCKS	    (DISK_BYTES / BLOCK_BYTES)
#define SLOTS	    16

struct rig;
struct slot {
	struct rig *rig;
	struct blk_req req;
	struct iovec iov;
	u8 *buf;
	u64 block, n;
	u8 stamp;
	bool busy; /* [atomic] cleared on the loop */
	int ret;
};
struct rig {
	char dir[64], path[4][128];
	struct blk *blk;
	u8 model[BLOCKS]; /* what each block is full of */
	struct slot slots[SLOTS];
	u64 seed, writes;
	bool copy_on_read;
	int ended; /* [atomic] 1: not yet; else the job's result */
};

static u64 next_random(struct rig *r)
{
	r->seed = r->seed * 6364136223846793005ull + 1442695040888963407ull;
	return r->seed >> 33;
}

/* --- images -------------------------------------------------------------------- */

struct making {
	struct rig *r;
	u32 cluster_bytes[3];
};

static void make_image(struct fiber *f, const char *path, const char *backing, u32 cluster)
{
	struct qcow2_create_options opt = {.bytes = DISK_BYTES,
					   .cluster_bytes = cluster,
					   .backing_file = backing,
					   .backing_format = backing ? "qcow2" : NULL};
	struct image *img;
	struct error err;

	assert_int_equal(file_create(f, &img, path, 0, &(struct open_policy){0}, &err), 0);
	assert_int_equal(qcow2_create(f, img, &opt, &err), 0);
	assert_int_equal(image_close(f, img), 0);
}

static void scribble(struct fiber *f, struct rig *r, const char *path, unsigned layer)
{
	struct open_policy policy = {.writable = true};
	u8 *buf = xnew_n(u8, 64 * BLOCK_BYTES);
	struct image *img;
	struct error err;

	assert_int_equal(image_open(f, &img, path, &policy, &err), 0);
	for (unsigned i = 0; i < 40; i++) {
		u64 n = 1 + next_random(r) % 64, at = next_random(r) % (BLOCKS - n);
		u8 stamp = (u8)(1 + layer * 60 + i);

		if (next_random(r) % 5 == 0) {
			stamp = 0;
			assert_int_equal(image_zero(f, img, at * BLOCK_BYTES, n * BLOCK_BYTES, 0),
					 0);
		} else {
			memset(buf, stamp, n * BLOCK_BYTES);
			assert_int_equal(
				image_pwrite(f, img, at * BLOCK_BYTES, buf, n * BLOCK_BYTES), 0);
		}
		memset(r->model + at, stamp, n);
	}
	assert_int_equal(image_close(f, img), 0);
	free(buf);
}

/* base <- middle <- top, each with something of its own. */
static void make_chain(struct fiber *f, void *arg)
{
	struct making *m = arg;
	struct rig *r = m->r;

	for (unsigned i = 0; i < 3; i++) {
		make_image(f, r->path[i], i ? strrchr(r->path[i - 1], '/') + 1 : NULL,
			   m->cluster_bytes[i]);
		scribble(f, r, r->path[i], i);
	}
}

static struct rig *rig_new(struct loop *loop, u32 base, u32 middle, u32 top)
{
	static const char *const names[] = {"base", "middle", "top", "new"};
	struct rig *r = xnew(struct rig);
	struct making m = {r, {base, middle, top}};

	strcpy(r->dir, "/tmp/test_job_XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	for (unsigned i = 0; i < 4; i++)
		snprintf(r->path[i], sizeof(r->path[i]), "%s/%s.qcow2", r->dir, names[i]);
	r->seed = base + middle + top;
	assert_int_equal(loop_run_fiber(loop, make_chain, &m), 0);
	for (unsigned i = 0; i < SLOTS; i++) {
		r->slots[i].rig = r;
		r->slots[i].buf = try_alloc_aligned(16 * BLOCK_BYTES, 4096);
	}
	return r;
}

static void rig_open(struct rig *r, const char *file)
{
	struct blk_options opt = {
		.id = "ide0-hd0", .file = file, .format = "qcow2", .copy_on_read = r->copy_on_read};
	struct error err;

	if (blk_open(&r->blk, &opt, &err) < 0)
		fail_msg("%s", err.text);
}

static void rig_free(struct rig *r)
{
	char command[128];

	blk_close(r->blk);
	snprintf(command, sizeof(command), "rm -rf %s", r->dir);
	assert_int_equal(system(command), 0);
	for (unsigned i = 0; i < SLOTS; i++)
		free(r->slots[i].buf);
	free(r);
}

/* --- the guest --------------------------------------------------------------------- */

static void wrote(struct blk_req *req, int ret)
{
	struct slot *s = container_of(req, struct slot, req);

	s->ret = ret;
	__atomic_store_n(&s->busy, false, __ATOMIC_RELEASE);
}

static bool is_busy(struct slot *s)
{
	return __atomic_load_n(&s->busy, __ATOMIC_ACQUIRE);
}

static void take_result(struct slot *s)
{
	if (s->n)
		assert_int_equal(s->ret, 0);
	memset(s->rig->model + s->block, s->stamp, s->n);
	s->n = 0;
}

/* Somewhere in this slot's part of the disk, so that no two writes overlap. */
static void write_some(struct slot *s)
{
	struct rig *r = s->rig;
	u64 part = BLOCKS / SLOTS;

	s->n = 1 + next_random(r) % 8;
	s->block = (u64)(s - r->slots) * part + next_random(r) % (part - s->n);
	s->req = (struct blk_req){
		.op = BLK_WRITE, .goff = s->block * BLOCK_BYTES, .done = wrote, .iov = &s->iov};
	s->stamp = (u8)(1 + next_random(r) % 255);
	if (next_random(r) % 6 == 0) {
		s->stamp = 0;
		s->req.op = BLK_ZERO;
		s->req.flags = BLK_MAY_UNMAP;
		s->req.bytes = s->n * BLOCK_BYTES;
	} else {
		memset(s->buf, s->stamp, s->n * BLOCK_BYTES);
		s->iov = (struct iovec){s->buf, s->n * BLOCK_BYTES};
		s->req.niov = 1;
	}
	__atomic_store_n(&s->busy, true, __ATOMIC_RELAXED);
	r->writes++;
	blk_submit(r->blk, &s->req);
}

static void write_round(struct rig *r)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		if (is_busy(&r->slots[i]))
			continue;
		take_result(&r->slots[i]);
		write_some(&r->slots[i]);
	}
	usleep(300);
}

static void stop_writing(struct rig *r)
{
	for (unsigned i = 0; i < SLOTS; i++) {
		while (is_busy(&r->slots[i]))
			usleep(100);
		take_result(&r->slots[i]);
	}
}

static int compare(struct fiber *f, struct blk *blk, void *arg)
{
	struct rig *r = arg;
	u8 *buf = xnew_n(u8, DISK_BYTES), *want = xnew_n(u8, BLOCK_BYTES);
	int ret = image_pread(f, blk_image(blk), 0, buf, DISK_BYTES);

	for (u64 i = 0; i < BLOCKS && ret == 0; i++) {
		memset(want, r->model[i], BLOCK_BYTES);
		if (memcmp(buf + i * BLOCK_BYTES, want, BLOCK_BYTES)) {
			print_message("block %llu is %02x, expected %02x\n", (unsigned long long)i,
				      buf[i * BLOCK_BYTES], r->model[i]);
			ret = -EILSEQ;
		}
	}
	free(buf);
	free(want);
	return ret < 0 ? ret : (int)image_depth(blk_image(blk));
}

static int check_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct check_request req = {0};
	struct image *img = blk_image(blk);
	struct error err;
	int ret = img->driver->check(f, img, &req, &err);

	return ret < 0 ? ret : (int)(req.result.corruptions + req.result.leaks);
}

/* The drive, then the file opened afresh: the same, and so many images behind. */
static void expect_same(struct rig *r, const char *file, int depth)
{
	stop_writing(r);
	assert_int_equal(blk_run(r->blk, compare, r), depth);
	assert_string_equal(blk_file(r->blk), file);
	blk_close(r->blk);
	rig_open(r, file);
	assert_int_equal(blk_run(r->blk, compare, r), depth);
	assert_int_equal(blk_run(r->blk, check_fiber, NULL), 0);
}

/* --- jobs ---------------------------------------------------------------------------- */

static void on_ended(void *arg, int ret, const char *text)
{
	struct rig *r = arg;

	__atomic_store_n(&r->ended, ret, __ATOMIC_RELEASE);
}

static void start(struct rig *r, struct job_request req)
{
	struct error err = {0};

	req.ended = on_ended;
	req.arg = r;
	r->ended = 1;
	if (job_start(r->blk, &req, &err) < 0)
		fail_msg("%s", err.text);
}

static bool has_ended(struct rig *r)
{
	return __atomic_load_n(&r->ended, __ATOMIC_ACQUIRE) <= 0;
}

static int write_until_ended(struct rig *r)
{
	while (!has_ended(r))
		write_round(r);
	return r->ended;
}

static void a_stream_takes_everything_in(void **state)
{
	struct rig *r = rig_new(*state, 65536, 4096, 65536);
	struct job_status s;

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_STREAM});
	assert_int_equal(write_until_ended(r), 0);
	assert_true(r->writes > 0);
	expect_same(r, r->path[2], 0);
	assert_int_equal(job_status(r->blk, &s), -ENOENT);
	rig_free(r);
}

static void a_stream_stops_at_its_base(void **state)
{
	struct rig *r = rig_new(*state, 4096, 65536, 16384);

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_STREAM, .base = "base.qcow2"});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 1);
	rig_free(r);
}

static void images_behind_the_active_one_are_merged(void **state)
{
	struct rig *r = rig_new(*state, 65536, 512, 4096);

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_COMMIT, .top = "middle.qcow2"});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 1);
	rig_free(r);
}

static void wait_ready(struct rig *r)
{
	struct job_status s = {0};

	while (!s.ready) {
		write_round(r);
		assert_int_equal(job_status(r->blk, &s), 0);
	}
}

static void the_active_image_is_committed_and_left(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 4096);
	struct error err;

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_COMMIT});
	wait_ready(r);
	for (unsigned i = 0; i < 200; i++)
		write_round(r);
	assert_int_equal(job_control(r->blk, JOB_COMPLETE, 0, &err), 0);
	assert_int_equal(write_until_ended(r), 0);
	for (unsigned i = 0; i < 50; i++)
		write_round(r);
	expect_same(r, r->path[0], 0);
	rig_free(r);
}

static void one_image_is_merged_without_a_word(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_COMMIT, .one = true, .end = JOB_PIVOT});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[1], 1);
	rig_free(r);
}

static void a_committed_image_is_emptied(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_COMMIT, .one = true, .end = JOB_EMPTY});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 2);
	/* Once more, with nobody writing: then the image behind has it all. */
	start(r, (struct job_request){.type = JOB_COMMIT, .one = true, .end = JOB_EMPTY});
	while (!has_ended(r))
		usleep(1000);
	assert_int_equal(r->ended, 0);
	blk_close(r->blk);
	rig_open(r, r->path[1]);
	assert_int_equal(blk_run(r->blk, compare, r), 1);
	rig_free(r);
}

static void control_ok(struct rig *r, enum job_verb verb, u64 value)
{
	struct error err = {0};

	if (job_control(r->blk, verb, value, &err) < 0)
		fail_msg("%s", err.text);
}

static void cancelled_jobs_leave_the_disk_as_it_is(void **state)
{
	static const struct job_request requests[] = {
		{.type = JOB_STREAM, .speed = MiB},
		{.type = JOB_COMMIT, .speed = MiB},
		{.type = JOB_COMMIT, .top = "middle.qcow2", .speed = MiB},
		{.type = JOB_COMMIT, .one = true, .end = JOB_EMPTY, .speed = MiB},
	};
	struct rig *r = rig_new(*state, 65536, 65536, 65536);

	rig_open(r, r->path[2]);
	for (unsigned i = 0; i < ARRAY_LEN(requests); i++) {
		start(r, requests[i]);
		for (unsigned n = 0; n < 50; n++)
			write_round(r);
		control_ok(r, JOB_CANCEL, 0);
		assert_int_equal(write_until_ended(r), -ECANCELED);
		expect_same(r, r->path[2], 2);
	}
	/* And again, to the end. */
	start(r, (struct job_request){.type = JOB_STREAM});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 0);
	rig_free(r);
}

static void a_ready_commit_that_is_cancelled_leaves_a_whole_base(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_COMMIT});
	wait_ready(r);
	stop_writing(r);
	control_ok(r, JOB_CANCEL, 0);
	while (!has_ended(r))
		usleep(1000);
	assert_int_equal(r->ended, 0);
	expect_same(r, r->path[2], 2);
	rig_free(r);
}

static void words(struct rig *r, enum job_verb verb, const char *text)
{
	struct error err = {0};

	assert_true(job_control(r->blk, verb, 0, &err) < 0);
	assert_string_equal(err.text, text);
}

static void jobs_are_paused_limited_and_busy(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);
	struct job_status s, later;
	struct error err = {0};
	struct overlay_change c = {.file = r->path[3]};

	rig_open(r, r->path[2]);
	words(r, JOB_PAUSE, "Block job 'ide0-hd0' not found");
	start(r, (struct job_request){.type = JOB_STREAM, .speed = MiB / 4});
	words(r, JOB_COMPLETE,
	      "Job 'ide0-hd0' in state 'running' cannot accept command verb 'complete'");
	words(r, JOB_RESUME, "Can't resume a job that was not paused");
	control_ok(r, JOB_PAUSE, 0);
	words(r, JOB_PAUSE, "Job is already paused");
	words(r, JOB_CANCEL, "The block job for device 'ide0-hd0' is currently paused");
	assert_int_equal(job_status(r->blk, &later), 0);
	do { /* what was under way ends */
		s = later;
		usleep(600000);
		assert_int_equal(job_status(r->blk, &later), 0);
	} while (later.done != s.done);
	assert_true(s.paused && s.speed == MiB / 4 && !strcmp(s.type, "stream"));
	assert_true(s.done < DISK_BYTES && s.total == DISK_BYTES);
	usleep(300000);
	assert_int_equal(job_status(r->blk, &later), 0);
	assert_int_equal(later.done, s.done);
	assert_int_equal(job_start(r->blk, &(struct job_request){.type = JOB_COMMIT}, &err),
			 -EBUSY);
	assert_string_equal(err.text,
			    "Node 'ide0-hd0' is busy: block device is in use by block job: stream");
	assert_int_equal(blk_resize(r->blk, 2 * DISK_BYTES, &err), -EBUSY);
	assert_int_equal(overlay_revert(r->blk, &err), -EBUSY);
	c.blk = r->blk;
	assert_int_equal(overlays_put(&c, 1, &err), -EBUSY);
	control_ok(r, JOB_RESUME, 0);
	control_ok(r, JOB_SPEED, 0);
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 0);
	rig_free(r);
}

static void what_cannot_be_is_refused(void **state)
{
	static const struct {
		struct job_request req;
		const char *text;
	} cases[] = {
		{{.type = JOB_STREAM, .base = "nosuch"},
		 "Can't find 'nosuch' in the backing chain"},
		{{.type = JOB_STREAM, .base = "top.qcow2"},
		 "Can't find 'top.qcow2' in the backing chain"},
		{{.type = JOB_COMMIT, .top = "nosuch"}, "Top image file nosuch not found"},
		{{.type = JOB_COMMIT, .top = "base.qcow2"}, "cannot commit an image into itself"},
		{{.type = JOB_COMMIT, .top = "middle.qcow2", .base = "top.qcow2"},
		 "Can't find 'top.qcow2' in the backing chain"},
		{{.type = JOB_COMMIT, .top = "base.qcow2", .base = "middle.qcow2"},
		 "Can't find 'middle.qcow2' in the backing chain"},
	};
	struct rig *r = rig_new(*state, 65536, 65536, 65536);
	struct error err;

	rig_open(r, r->path[2]);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		assert_true(job_start(r->blk, &cases[i].req, &err) < 0);
		assert_string_equal(err.text, cases[i].text);
	}
	rig_free(r);
}

static void a_full_disk_ends_the_job_alone(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);
	struct rlimit was, limit;

	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &was);
	rig_open(r, r->path[2]);
	limit = (struct rlimit){8 * MiB, was.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	start(r, (struct job_request){.type = JOB_STREAM});
	while (!has_ended(r))
		usleep(1000);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
	assert_int_equal(r->ended, -EFBIG);
	expect_same(r, r->path[2], 2);
	start(r, (struct job_request){.type = JOB_STREAM});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 0);
	rig_free(r);
}

static void closing_ends_the_job(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);

	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_COMMIT, .speed = 4096});
	for (unsigned n = 0; n < 20; n++)
		write_round(r);
	stop_writing(r);
	expect_same(r, r->path[2], 2);
	assert_int_equal(r->ended, -ECANCELED);
	rig_free(r);
}

/* --- snapshots --------------------------------------------------------------------------- */

static void snapshots_split_what_is_written(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);
	struct overlay_change c = {.file = r->path[3]};
	u8 before[BLOCKS];
	struct error err;

	rig_open(r, r->path[2]);
	for (unsigned n = 0; n < 50; n++)
		write_round(r);
	stop_writing(r);
	memcpy(before, r->model, sizeof(before));
	c.blk = r->blk;
	assert_int_equal(overlays_put(&c, 1, &err), 0);
	assert_non_null(strstr(c.text, "fmt=qcow2 cluster_size=65536"));
	overlay_change_fini(&c);
	for (unsigned n = 0; n < 50; n++)
		write_round(r);
	expect_same(r, r->path[3], 3);
	for (unsigned n = 0; n < 50; n++)
		write_round(r);
	stop_writing(r);
	assert_int_equal(overlay_revert(r->blk, &err), 0);
	memcpy(r->model, before, sizeof(before));
	expect_same(r, r->path[3], 3);
	blk_close(r->blk);
	rig_open(r, r->path[2]);
	assert_int_equal(blk_run(r->blk, compare, r), 2);
	rig_free(r);
}

static void a_snapshot_loses_no_write(void **state)
{
	struct rig *r = rig_new(*state, 65536, 65536, 65536);
	struct overlay_change c = {.file = r->path[3]};
	struct error err;

	rig_open(r, r->path[2]);
	for (unsigned n = 0; n < 20; n++)
		write_round(r);
	c.blk = r->blk;
	if (overlays_put(&c, 1, &err) < 0) /* with requests under way */
		fail_msg("%s", err.text);
	overlay_change_fini(&c);
	for (unsigned n = 0; n < 20; n++)
		write_round(r);
	expect_same(r, r->path[3], 3);
	start(r, (struct job_request){.type = JOB_COMMIT, .one = true, .end = JOB_PIVOT});
	assert_int_equal(write_until_ended(r), 0);
	expect_same(r, r->path[2], 2);
	rig_free(r);
}

/* --- copy-on-read ---------------------------------------------------------------------- */

/* One block that only this slot touches, among those of all others. */
static void read_or_write_one(struct slot *s)
{
	struct rig *r = s->rig;
	u64 slot = (u64)(s - r->slots);

	s->n = 1;
	s->block = slot + SLOTS * (next_random(r) % (BLOCKS / SLOTS));
	s->stamp = r->model[s->block];
	s->iov = (struct iovec){s->buf, BLOCK_BYTES};
	s->req = (struct blk_req){.op = BLK_READ,
				  .goff = s->block * BLOCK_BYTES,
				  .done = wrote,
				  .iov = &s->iov,
				  .niov = 1};
	if (next_random(r) % 2) {
		s->req.op = BLK_WRITE;
		s->stamp = (u8)(1 + next_random(r) % 255);
		memset(s->buf, s->stamp, BLOCK_BYTES);
	}
	__atomic_store_n(&s->busy, true, __ATOMIC_RELAXED);
	blk_submit(r->blk, &s->req);
}

static void expect_full_of(const u8 *buf, u8 stamp, u64 block)
{
	for (u64 i = 0; i < BLOCK_BYTES; i++)
		if (buf[i] != stamp)
			fail_msg("block %llu is %02x, expected %02x", (unsigned long long)block,
				 buf[i], stamp);
}

static void read_and_write(struct rig *r, unsigned rounds)
{
	while (rounds--)
		for (unsigned i = 0; i < SLOTS; i++) {
			struct slot *s = &r->slots[i];

			while (is_busy(s))
				usleep(20);
			if (s->n && s->req.op == BLK_READ)
				expect_full_of(s->buf, s->stamp, s->block);
			take_result(s);
			read_or_write_one(s);
		}
	stop_writing(r);
}

static void read_all(struct rig *r)
{
	struct slot *s = &r->slots[0];

	for (u64 at = 0; at < DISK_BYTES; at += 16 * BLOCK_BYTES) {
		s->iov = (struct iovec){s->buf, 16 * BLOCK_BYTES};
		s->req = (struct blk_req){
			.op = BLK_READ, .goff = at, .done = wrote, .iov = &s->iov, .niov = 1};
		__atomic_store_n(&s->busy, true, __ATOMIC_RELAXED);
		blk_submit(r->blk, &s->req);
		while (is_busy(s))
			usleep(20);
		assert_int_equal(s->ret, 0);
	}
}

/* The top has all: nothing is asked of what was behind it. */
static void expect_alone(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	u8 *buf = xnew_n(u8, DISK_BYTES);
	struct image *img;
	struct error err;

	assert_int_equal(image_open(f, &img, r->path[2], &(struct open_policy){.no_backing = true},
				    &err),
			 0);
	assert_int_equal(image_pread(f, img, 0, buf, DISK_BYTES), 0);
	for (u64 i = 0; i < BLOCKS; i++)
		expect_full_of(buf + i * BLOCK_BYTES, r->model[i], i);
	assert_int_equal(image_close(f, img), 0);
	free(buf);
}

static void what_is_read_is_copied_and_no_write_is_lost(void **state)
{
	static const u32 clusters[][3] = {
		{65536, 4096, 16384}, {512, 65536, 512}, {4096, 4096, 262144}};

	for (unsigned i = 0; i < ARRAY_LEN(clusters); i++) {
		struct rig *r = rig_new(*state, clusters[i][0], clusters[i][1], clusters[i][2]);

		r->copy_on_read = true;
		rig_open(r, r->path[2]);
		read_and_write(r, 60);
		read_all(r);
		expect_same(r, r->path[2], 2);
		blk_close(r->blk);
		assert_int_equal(loop_run_fiber(*state, expect_alone, r), 0);
		rig_open(r, r->path[2]);
		rig_free(r);
	}
}

static void a_copy_goes_well_with_a_stream(void **state)
{
	struct rig *r = rig_new(*state, 65536, 4096, 16384);

	r->copy_on_read = true;
	rig_open(r, r->path[2]);
	start(r, (struct job_request){.type = JOB_STREAM});
	while (!has_ended(r))
		read_and_write(r, 4);
	assert_int_equal(r->ended, 0);
	expect_same(r, r->path[2], 0);
	rig_free(r);
}

#define TESTS(X)                                                                                   \
	X(a_stream_takes_everything_in), X(a_stream_stops_at_its_base),                            \
		X(images_behind_the_active_one_are_merged),                                        \
		X(the_active_image_is_committed_and_left), X(one_image_is_merged_without_a_word),  \
		X(a_committed_image_is_emptied), X(cancelled_jobs_leave_the_disk_as_it_is),        \
		X(a_ready_commit_that_is_cancelled_leaves_a_whole_base),                           \
		X(jobs_are_paused_limited_and_busy), X(what_cannot_be_is_refused),                 \
		X(a_full_disk_ends_the_job_alone), X(closing_ends_the_job),                        \
		X(snapshots_split_what_is_written), X(a_snapshot_loses_no_write),                  \
		X(what_is_read_is_copied_and_no_write_is_lost), X(a_copy_goes_well_with_a_stream)

int main(void)
{
	return RUN_ON_BACKENDS(TESTS);
}
