/* The front door: requests from several threads, drains, checks, statistics. */
#define _GNU_SOURCE
/* cmocka wants these four before its own header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/thread.h"
#include "block/blk.h"
#include "block/file.h"
#include "block/filter.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define DISK_BYTES MiB
#define SECTOR	   512

/* A raw disk in a temporary file, opened on the backend of the test's state. */
struct disk {
	struct blk *blk;
	struct blk_options opt;
	char name[32];
};

static void make_file(struct disk *d)
{
	int fd;

	strcpy(d->name, "/tmp/test_blk_XXXXXX");
	fd = mkstemp(d->name);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, DISK_BYTES), 0);
	close(fd);
	d->opt = (struct blk_options){.id = "ide0-hd0", .file = d->name, .format = "raw"};
}

static void reopen(struct disk *d)
{
	struct error err;

	blk_close(d->blk);
	d->blk = NULL;
	if (blk_open(&d->blk, &d->opt, &err) < 0)
		fail_msg("%s", err.text);
}

static int setup(void **state, const char *aio)
{
	struct disk *d = xnew(struct disk);

	make_file(d);
	d->opt.aio = aio;
	reopen(d);
	*state = d;
	return 0;
}

static int setup_threads(void **state)
{
	return setup(state, "threads");
}

static int setup_uring(void **state)
{
	return setup(state, "io_uring");
}

static int teardown(void **state)
{
	struct disk *d = *state;

	blk_close(d->blk);
	unlink(d->name);
	free(d);
	return 0;
}

/* A request and who waits for it on another thread. */
struct waiter {
	struct blk_req req;
	struct iovec iov;
	struct mutex lock;
	struct cond cond;
	bool done; /* [lock] */
	int ret;   /* [lock] */
};

static void waiter_done(struct blk_req *req, int ret)
{
	struct waiter *w = container_of(req, struct waiter, req);

	mutex_lock(&w->lock);
	w->done = true;
	w->ret = ret;
	cond_broadcast(&w->cond);
	mutex_unlock(&w->lock);
}

static void submit(struct blk *blk, struct waiter *w, enum blk_op op, u64 goff, void *buf,
		   u64 bytes)
{
	w->done = false;
	w->iov = (struct iovec){buf, bytes};
	w->req = (struct blk_req){.op = op, .goff = goff, .bytes = bytes, .done = waiter_done};
	if (buf) {
		w->req.iov = &w->iov;
		w->req.niov = 1;
	}
	mutex_init(&w->lock);
	cond_init(&w->cond);
	blk_submit(blk, &w->req);
}

static int wait_for(struct waiter *w)
{
	mutex_lock(&w->lock);
	while (!w->done)
		cond_wait(&w->cond, &w->lock);
	mutex_unlock(&w->lock);
	cond_fini(&w->cond);
	mutex_fini(&w->lock);
	return w->ret;
}

static int do_req(struct blk *blk, enum blk_op op, u64 goff, void *buf, u64 bytes)
{
	struct waiter w;

	submit(blk, &w, op, goff, buf, bytes);
	return wait_for(&w);
}

/* --- requests --------------------------------------------------------------- */

static void data_written_is_read_back_and_lies_in_the_file(void **state)
{
	struct disk *d = *state;
	u8 out[2 * SECTOR], in[2 * SECTOR];
	int fd;

	memset(out, 0x5a, sizeof(out));
	assert_int_equal(do_req(d->blk, BLK_WRITE, 4096, out, sizeof(out)), 0);
	assert_int_equal(do_req(d->blk, BLK_READ, 4096, in, sizeof(in)), 0);
	assert_memory_equal(in, out, sizeof(in));
	assert_int_equal(do_req(d->blk, BLK_ZERO, 4096, NULL, SECTOR), 0);
	assert_int_equal(do_req(d->blk, BLK_DISCARD, 4096, NULL, SECTOR), 0);
	assert_int_equal(do_req(d->blk, BLK_FLUSH, 0, NULL, 0), 0);
	memset(out, 0, SECTOR);
	fd = sys_open(d->name, 0, 0);
	assert_int_equal(sys_pread(fd, in, sizeof(in), 4096), sizeof(in));
	assert_memory_equal(in, out, sizeof(in));
	sys_close(fd);
}

static void requests_that_do_not_fit_are_refused(void **state)
{
	struct disk *d = *state;
	u8 b[2 * SECTOR] = {0};

	assert_int_equal(do_req(d->blk, BLK_READ, 1, b, SECTOR), -EINVAL);
	assert_int_equal(do_req(d->blk, BLK_READ, 0, b, SECTOR + 1), -EINVAL);
	assert_int_equal(do_req(d->blk, BLK_READ, DISK_BYTES - SECTOR, b, 2 * SECTOR), -EINVAL);
	assert_int_equal(do_req(d->blk, BLK_WRITE, -(u64)SECTOR, b, 2 * SECTOR), -EINVAL);
	assert_int_equal(do_req(d->blk, BLK_DISCARD, 0, NULL, DISK_BYTES + SECTOR), -EINVAL);
	assert_int_equal(do_req(d->blk, BLK_READ, DISK_BYTES - SECTOR, b, SECTOR), 0);
}

static void a_read_only_drive_refuses_writes_and_needs_no_lock_of_its_own(void **state)
{
	struct disk *d = *state;
	struct blk *second;
	struct error err;
	u8 b[SECTOR] = {0};

	d->opt.readonly = true;
	reopen(d);
	assert_true(blk_is_readonly(d->blk));
	assert_int_equal(do_req(d->blk, BLK_WRITE, 0, b, SECTOR), -EROFS);
	assert_int_equal(do_req(d->blk, BLK_ZERO, 0, NULL, SECTOR), -EROFS);
	assert_int_equal(do_req(d->blk, BLK_READ, 0, b, SECTOR), 0);
	assert_int_equal(blk_open(&second, &d->opt, &err), 0);
	blk_close(second);
	d->opt.readonly = false;
	assert_int_equal(blk_open(&second, &d->opt, &err), -EAGAIN);
}

static void a_drive_without_medium_says_so(void **state)
{
	struct disk *d = *state;
	struct blk_options opt = {.id = "ide1-cd0", .readonly = true, .aio = d->opt.aio};
	struct blk_info info;
	struct blk *cd;
	struct error err;
	u8 b[SECTOR];

	assert_int_equal(blk_open(&cd, &opt, &err), 0);
	assert_false(blk_has_medium(cd));
	assert_null(blk_file(cd));
	assert_int_equal(blk_bytes(cd), 0);
	assert_int_equal(do_req(cd, BLK_READ, 0, b, SECTOR), -ENOMEDIUM);
	assert_int_equal(blk_flush_wait(cd), 0);
	assert_int_equal(blk_resize(cd, 512, &err), -ENOMEDIUM);
	blk_get_info(cd, &info);
	assert_false(info.has_medium);
	blk_info_fini(&info);
	blk_close(cd);
}

static void bad_options_are_named(void **state)
{
	struct disk *d = *state;
	struct blk_options opt = {.id = "hd", .file = d->name, .cache = "sometimes"};
	struct blk *blk;
	struct error err;

	assert_int_equal(blk_open(&blk, &opt, &err), -EINVAL);
	assert_non_null(strstr(err.text, "sometimes"));
	opt.cache = "none";
	opt.aio = "magic";
	assert_int_equal(blk_open(&blk, &opt, &err), -EINVAL);
	assert_non_null(strstr(err.text, "magic"));
	opt.aio = d->opt.aio;
	opt.file = "/nonexistent/disk";
	assert_int_equal(blk_open(&blk, &opt, &err), -ENOENT);
	assert_string_equal(err.text,
			    "Could not open '/nonexistent/disk': No such file or directory");
}

static void every_cache_mode_carries_data(void **state)
{
	static const char *const modes[] = {"writeback", "none", "writethrough", "directsync",
					    "unsafe"};
	struct disk *d = *state;
	u8 out[SECTOR], in[SECTOR];

	for (unsigned i = 0; i < ARRAY_LEN(modes); i++) {
		d->opt.cache = modes[i];
		reopen(d);
		assert_int_equal(blk_write_cache(d->blk), i != 2 && i != 3);
		memset(out, (int)i + 1, sizeof(out));
		assert_int_equal(do_req(d->blk, BLK_WRITE, i * SECTOR, out, SECTOR), 0);
		assert_int_equal(do_req(d->blk, BLK_READ, i * SECTOR, in, SECTOR), 0);
		assert_memory_equal(in, out, SECTOR);
	}
}

/* --- drains ----------------------------------------------------------------- */

static void a_drain_holds_requests_back_until_it_ends(void **state)
{
	struct disk *d = *state;
	struct waiter w;
	u8 b[SECTOR] = {1};

	blk_drain_begin(d->blk);
	blk_drain_begin(d->blk);
	submit(d->blk, &w, BLK_WRITE, 0, b, SECTOR);
	blk_drain_end(d->blk);
	assert_int_equal(blk_flush_wait(d->blk), 0);
	mutex_lock(&w.lock);
	assert_false(w.done);
	mutex_unlock(&w.lock);
	blk_drain_end(d->blk);
	assert_int_equal(wait_for(&w), 0);
}

/* --- many threads ----------------------------------------------------------- */

#define THREADS	   4
#define PER_THREAD 200

struct hammer {
	struct blk *blk;
	u64 start;
	u32 failed;
};

static void *hammer_thread(void *arg)
{
	struct hammer *h = arg;
	u8 out[SECTOR], in[SECTOR];

	for (unsigned i = 0; i < PER_THREAD; i++) {
		u64 goff = h->start + (i % 64) * SECTOR;

		memset(out, (int)i, sizeof(out));
		h->failed += do_req(h->blk, BLK_WRITE, goff, out, SECTOR) != 0;
		h->failed += do_req(h->blk, BLK_READ, goff, in, SECTOR) != 0;
		h->failed += memcmp(in, out, SECTOR) != 0;
	}
	return NULL;
}

static void several_threads_submit_at_once_and_are_counted(void **state)
{
	struct disk *d = *state;
	struct hammer h[THREADS];
	struct blk_stats stats;
	pthread_t threads[THREADS];
	struct error err;

	for (unsigned i = 0; i < THREADS; i++) {
		h[i] = (struct hammer){.blk = d->blk, .start = i * 64 * SECTOR};
		assert_int_equal(thread_start(&threads[i], "hammer", hammer_thread, &h[i], &err),
				 0);
	}
	for (unsigned i = 0; i < 20; i++) {
		blk_drain_begin(d->blk);
		blk_get_stats(d->blk, &stats);
		blk_drain_end(d->blk);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(h[i].failed, 0);
	}
	assert_int_equal(do_req(d->blk, BLK_READ, 1, (u8[SECTOR]){0}, SECTOR), -EINVAL);
	assert_int_equal(blk_flush_wait(d->blk), 0);
	blk_get_stats(d->blk, &stats);
	assert_int_equal(stats.ops[BLK_WRITE], THREADS * PER_THREAD);
	assert_int_equal(stats.bytes[BLK_READ], THREADS * PER_THREAD * SECTOR);
	assert_int_equal(stats.failed[BLK_READ], 1);
	assert_true(stats.total_ns[BLK_WRITE] > 0);
}

/* --- the rest --------------------------------------------------------------- */

struct size_watcher {
	struct blk_watcher w;
	u32 calls; /* [atomic] */
};

static void count_call(struct blk_watcher *w)
{
	struct size_watcher *s = container_of(w, struct size_watcher, w);

	__atomic_add_fetch(&s->calls, 1, __ATOMIC_RELAXED);
}

static void watchers_are_told_of_a_new_size(void **state)
{
	struct disk *d = *state;
	struct size_watcher s = {.w.changed = count_call};
	struct error err;

	blk_watch(d->blk, &s.w);
	assert_int_equal(blk_resize(d->blk, 2 * DISK_BYTES, &err), 0);
	assert_int_equal(blk_bytes(d->blk), 2 * DISK_BYTES);
	assert_int_equal(__atomic_load_n(&s.calls, __ATOMIC_RELAXED), 1);
	blk_unwatch(&s.w);
	assert_int_equal(blk_resize(d->blk, DISK_BYTES, &err), 0);
	assert_int_equal(__atomic_load_n(&s.calls, __ATOMIC_RELAXED), 1);
}

static void info_describes_the_drive(void **state)
{
	struct disk *d = *state;
	struct blk_info info;

	blk_get_info(d->blk, &info);
	assert_string_equal(info.file, d->name);
	assert_string_equal(info.format, "raw");
	assert_string_equal(info.cache, "writeback");
	assert_memory_equal(info.node, "#block", 6);
	assert_true(info.has_medium && !info.readonly && !info.backing_depth);
	blk_info_fini(&info);
	assert_string_equal(blk_id(d->blk), "ide0-hd0");
}

/* --- on the caller's own loop ------------------------------------------------ */

struct local {
	struct blk *blk;
	const char *name;
	struct blk_req req;
	bool done;
};

static void open_local(struct fiber *f, void *arg)
{
	struct open_policy policy = {.writable = true, .format = "raw"};
	struct local *l = arg;
	struct image *img;
	struct error err;

	if (image_open(f, &img, l->name, &policy, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(blk_from_image(&l->blk, fiber_loop(f), img), 0);
}

static void local_done(struct blk_req *req, int ret)
{
	assert_int_equal(ret, 0);
	container_of(req, struct local, req)->done = true;
}

static void read_local(struct fiber *f, void *arg)
{
	struct local *l = arg;
	u8 b[SECTOR];
	struct iovec iov = {b, sizeof(b)};

	l->req = (struct blk_req){.op = BLK_READ, .iov = &iov, .niov = 1, .done = local_done};
	blk_submit(l->blk, &l->req);
	while (!l->done)
		fiber_yield(f);
}

static void a_borrowed_loop_serves_requests_too(void **state)
{
	struct disk *d = *state;
	struct local l = {.name = d->name};
	struct loop *loop;
	struct error err;

	blk_close(d->blk);
	d->blk = NULL;
	assert_int_equal(loop_new(&loop, "test", LOOP_AUTO, &err), 0);
	assert_int_equal(loop_run_fiber(loop, open_local, &l), 0);
	assert_int_equal(loop_run_fiber(loop, read_local, &l), 0);
	assert_true(l.done);
	blk_close(l.blk);
	loop_free(loop);
}

/* --- durability, seen from the file ------------------------------------------ */

struct durable {
	const char *name;
	struct record_log log;
	struct fault_rule rule;
	struct blk *blk;
	struct blk_req req;
	int ret;
	bool done;
};

static struct image *wrap_both(struct image *file, void *arg)
{
	struct durable *d = arg;
	struct image *img;

	assert_int_equal(filter_record_new(&img, file, &d->log), 0);
	assert_int_equal(filter_fault_new(&img, img, &d->rule), 0);
	return img;
}

static void open_durable(struct fiber *f, void *arg)
{
	struct durable *d = arg;
	struct open_policy policy = {
		.writable = true, .format = "raw", .wrap = wrap_both, .wrap_arg = d};
	struct image *img;
	struct error err;

	assert_int_equal(image_open(f, &img, d->name, &policy, &err), 0);
	assert_int_equal(blk_from_image(&d->blk, fiber_loop(f), img), 0);
}

static void durable_done(struct blk_req *req, int ret)
{
	struct durable *d = container_of(req, struct durable, req);

	d->ret = ret;
	d->done = true;
}

static int durable_write(struct fiber *f, struct durable *d, u32 flags)
{
	u8 b[SECTOR] = {0};
	struct iovec iov = {b, sizeof(b)};

	d->done = false;
	d->req = (struct blk_req){
		.op = BLK_WRITE, .flags = flags, .iov = &iov, .niov = 1, .done = durable_done};
	blk_submit(d->blk, &d->req);
	while (!d->done)
		fiber_yield(f);
	return d->ret;
}

static void write_durably(struct fiber *f, void *arg)
{
	struct durable *d = arg;

	d->rule.error = -EIO;
	assert_int_equal(durable_write(f, d, 0), 0);
	assert_int_equal(d->log.n, 1);
	assert_int_equal(durable_write(f, d, BLK_FUA), 0);
	assert_int_equal(d->log.n, 3);
	assert_int_equal(d->log.events[1].kind, RECORD_WRITE);
	assert_int_equal(d->log.events[2].kind, RECORD_SYNC);
	assert_int_equal(d->log.events[2].issued, 2); /* the write is covered */
	d->rule.syncs = 1;
	assert_int_equal(durable_write(f, d, BLK_FUA), -EIO);
	d->rule.writes = 1;
	assert_int_equal(durable_write(f, d, 0), -EIO);
}

static void a_write_with_fua_is_synced_before_it_is_done(void **state)
{
	struct disk *disk = *state;
	struct durable d = {.name = disk->name};
	struct blk_stats stats;
	struct loop *loop;
	struct error err;

	blk_close(disk->blk);
	disk->blk = NULL;
	assert_int_equal(loop_new(&loop, "test", LOOP_AUTO, &err), 0);
	assert_int_equal(loop_run_fiber(loop, open_durable, &d), 0);
	assert_int_equal(loop_run_fiber(loop, write_durably, &d), 0);
	blk_get_stats(d.blk, &stats);
	assert_int_equal(stats.ops[BLK_WRITE], 2);
	assert_int_equal(stats.failed[BLK_WRITE], 2);
	blk_close(d.blk);
	loop_free(loop);
	record_log_fini(&d.log);
}

#define ON(setup, test) cmocka_unit_test_setup_teardown(test, setup, teardown)
#define ALL(setup)                                                                                 \
	ON(setup, data_written_is_read_back_and_lies_in_the_file),                                 \
		ON(setup, requests_that_do_not_fit_are_refused),                                   \
		ON(setup, a_read_only_drive_refuses_writes_and_needs_no_lock_of_its_own),          \
		ON(setup, a_drive_without_medium_says_so), ON(setup, bad_options_are_named),       \
		ON(setup, every_cache_mode_carries_data),                                          \
		ON(setup, a_drain_holds_requests_back_until_it_ends),                              \
		ON(setup, several_threads_submit_at_once_and_are_counted),                         \
		ON(setup, watchers_are_told_of_a_new_size), ON(setup, info_describes_the_drive),   \
		ON(setup, a_borrowed_loop_serves_requests_too),                                    \
		ON(setup, a_write_with_fua_is_synced_before_it_is_done)

int main(void)
{
	const struct CMUnitTest on_threads[] = {ALL(setup_threads)};
	const struct CMUnitTest on_uring[] = {ALL(setup_uring)};
	struct loop *loop;
	struct error err;
	int failed;

	/* A failure inside a fiber must not jump off its stack. */
	setenv("CMOCKA_TEST_ABORT", "1", 1);
	failed = cmocka_run_group_tests_name("threads", on_threads, NULL, NULL);

	if (loop_new(&loop, "probe", LOOP_URING, &err) < 0) {
		print_message("[  SKIPPED ] all tests on io_uring: %s\n", err.text);
		return failed;
	}
	loop_free(loop);
	return failed + cmocka_run_group_tests_name("io_uring", on_uring, NULL, NULL);
}
