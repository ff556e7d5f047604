/* qcow2 when things fail: the Nth read, write, sync or allocation, for every N.
 * Whatever fails is reported, nothing else is lost, and a retry works. */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/filter.h"
#include "block/qcow2/qcow2.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define BYTES	(256 * KiB)
#define SECTORS (BYTES / 512)
#define STEPS	40
#define UNSURE	0xffffu

enum what { FAIL_READ, FAIL_WRITE, FAIL_SYNC, FAIL_ALLOC };

struct setup {
	enum what what;
	u32 cluster_bytes, refcount_bits;
	bool sticky, lazy, backing;
	bool extended;
};

struct play {
	const struct setup *s;
	struct mem_disk disk, backing;
	struct fault_rule rule;
	struct image *img;
	u16 want[SECTORS]; /* byte of each sector, UNSURE after a failure */
	bool failed;	   /* the fault was met */
};

static void arm(struct play *p, unsigned nth)
{
	p->rule = (struct fault_rule){.error = -EIO, .sticky = p->s->sticky};
	switch (p->s->what) {
	case FAIL_READ: p->rule.reads = nth; break;
	case FAIL_WRITE: p->rule.writes = nth; break;
	case FAIL_SYNC: p->rule.syncs = nth; break;
	case FAIL_ALLOC: try_alloc_fail_nth(nth); break;
	}
}

static void disarm(struct play *p)
{
	p->rule = (struct fault_rule){0};
	try_alloc_fail_nth(0);
}

static int open_play(struct fiber *f, struct play *p)
{
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 4096};
	struct image *below = mem_image_new(fiber_loop(f), &p->disk), *raw;
	struct error err = {0};
	int ret;

	assert_int_equal(filter_fault_new(&below, below, &p->rule), 0);
	ret = image_open_over(f, &p->img, "qcow2", below, &policy, &err);
	if (ret < 0) {
		assert_int_equal(err.code, ret);
		assert_true(err.text[0]);
		p->img = NULL;
		return ret;
	}
	if (p->s->backing) {
		raw = mem_image_new(fiber_loop(f), &p->backing);
		try_alloc_fail_nth(0);
		policy.writable = false;
		assert_int_equal(image_open_over(f, &p->img->backing, "raw", raw, &policy, &err),
				 0);
	}
	return 0;
}

static void create_play(struct fiber *f, struct play *p)
{
	struct qcow2_create_options opt = {.bytes = BYTES,
					   .cluster_bytes = p->s->cluster_bytes,
					   .refcount_bits = p->s->refcount_bits,
					   .lazy_refcounts = p->s->lazy,
					   .extended_l2 = p->s->extended,
					   .backing_file = p->s->backing ? "b" : NULL};
	struct image *file = mem_image_new(fiber_loop(f), &p->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	if (p->s->backing) {
		p->backing.bytes = p->backing.room = BYTES / 2;
		p->backing.data = xalloc(BYTES / 2);
		memset(p->backing.data, 0xbb, BYTES / 2);
	}
	for (u32 i = 0; i < SECTORS; i++)
		p->want[i] = p->s->backing && i < SECTORS / 2 ? 0xbb : 0;
}

/* --- the play: the same steps each time --------------------------------------- */

static void settle(struct play *p, u32 sector, u32 n, int ret, u16 byte)
{
	p->failed |= ret < 0;
	for (u32 i = sector; i < sector + n; i++)
		p->want[i] = ret < 0 ? UNSURE : byte;
}

static int write_step(struct fiber *f, struct play *p, u32 sector, u32 n, u8 byte)
{
	u8 buf[24 * 512];

	memset(buf, byte, sizeof(buf));
	return image_pwrite(f, p->img, sector * 512ull, buf, n * 512ull);
}

/* Compressed, where nothing lies yet. */
static void pack_step(struct fiber *f, struct play *p, u32 sector, u8 byte)
{
	u32 n = p->s->cluster_bytes / 512;
	AUTO_FREE u8 *buf = xalloc(p->s->cluster_bytes);
	struct iovec iov = {buf, p->s->cluster_bytes};
	struct map_extent e;
	int ret;

	sector -= sector % n;
	ret = image_discard(f, p->img, sector * 512ull, iov.iov_len);
	settle(p, sector, n, ret, 0);
	ret = image_map(f, p->img, sector * 512ull, iov.iov_len, &e);
	p->failed |= ret < 0;
	if (ret < 0 || e.bytes < iov.iov_len || e.kind & (MAP_DATA | MAP_HOFF))
		return;
	memset(buf, byte, iov.iov_len);
	ret = qcow2_write_compressed(f, p->img, sector * 512ull, &iov, 1);
	settle(p, sector, n, ret, byte);
}

static void play_step(struct fiber *f, struct play *p, u64 *seed)
{
	u32 n = (u32)(next_random(seed) % 24) + 1;
	u32 sector = (u32)(next_random(seed) % (SECTORS - n));
	u8 byte = (u8)next_random(seed), buf[24 * 512];
	int ret;

	switch (next_random(seed) % 10) {
	case 0:
		ret = image_zero(f, p->img, sector * 512ull, n * 512ull, ZERO_MAY_UNMAP);
		settle(p, sector, n, ret, 0);
		break;
	case 1:
		ret = image_zero(f, p->img, sector * 512ull, n * 512ull, 0);
		settle(p, sector, n, ret, 0);
		break;
	case 2: p->failed |= image_flush(f, p->img) < 0; break;
	case 3:
		ret = image_pread(f, p->img, sector * 512ull, buf, n * 512ull);
		p->failed |= ret < 0;
		break;
	case 4:
	case 5: pack_step(f, p, sector, byte); break;
	default: settle(p, sector, n, write_step(f, p, sector, n, byte), byte);
	}
}

static void verify(struct fiber *f, struct play *p)
{
	for (u32 i = 0; i < SECTORS; i++) {
		u8 buf[512];

		assert_int_equal(image_pread(f, p->img, i * 512ull, buf, 512), 0);
		if (p->want[i] == UNSURE)
			continue;
		for (u32 k = 0; k < 512; k++)
			if (buf[k] != p->want[i])
				fail_msg("sector %u holds %#x, expected %#x", i, buf[k],
					 p->want[i]);
	}
}

static void check(struct fiber *f, struct play *p, bool leaks_too)
{
	struct check_request req = {0};
	struct error err = {0};

	if (p->img->driver->check(f, p->img, &req, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(req.result.corruptions + req.result.check_errors, 0);
	if (leaks_too)
		assert_int_equal(req.result.leaks, 0);
}

/* One run with the nth operation failing; false when nothing was met. */
static bool play(struct fiber *f, const struct setup *s, unsigned nth)
{
	struct play *p = xnew(struct play);
	u64 seed = 0x1234567;
	bool met;

	p->s = s;
	create_play(f, p);
	arm(p, nth);
	p->failed = open_play(f, p) < 0;
	for (u32 i = 0; p->img && i < STEPS; i++)
		play_step(f, p, &seed);
	if (p->img && s->sticky) { /* the disk is gone for good, then comes back */
		p->failed |= image_close(f, p->img) < 0;
		p->img = NULL;
		for (u32 i = 0; p->failed && i < SECTORS; i++)
			p->want[i] = UNSURE;
	}
	disarm(p);
	if (!p->img)
		assert_int_equal(open_play(f, p), 0);
	verify(f, p);
	assert_int_equal(image_flush(f, p->img), 0);
	check(f, p, !s->sticky);
	assert_int_equal(image_close(f, p->img), 0);
	assert_int_equal(open_play(f, p), 0);
	verify(f, p);
	check(f, p, !s->sticky);
	assert_int_equal(image_close(f, p->img), 0);
	met = p->failed;
	mem_disk_fini(&p->disk);
	mem_disk_fini(&p->backing);
	free(p);
	return met;
}

static void play_all(struct fiber *f, void *arg)
{
	unsigned quiet = 0, met = 0;

	/* Some faults are absorbed: a dozen in a row without one met is the end. */
	for (unsigned nth = 1; quiet < 60; nth++) {
		bool hit = play(f, arg, nth);

		quiet = hit ? 0 : quiet + 1;
		met += hit;
	}
	assert_true(met > 2);
}

static void fail_each(void **state, struct setup s)
{
	/* cluster, refcount width, extended L2 entries */
	const u32 shapes[][3] = {{512, 64, 0}, {4096, 1, 0}, {65536, 16, 0}, {16384, 16, 1}};

	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		s.cluster_bytes = shapes[i][0];
		s.refcount_bits = shapes[i][1];
		s.extended = shapes[i][2];
		assert_int_equal(loop_run_fiber(*state, play_all, &s), 0);
	}
}

static void a_failed_read_is_reported_and_harmless(void **state)
{
	fail_each(state, (struct setup){.what = FAIL_READ, .backing = true});
}

static void a_failed_write_is_reported_and_can_be_retried(void **state)
{
	fail_each(state, (struct setup){.what = FAIL_WRITE});
	fail_each(state, (struct setup){.what = FAIL_WRITE, .lazy = true});
}

static void a_failed_sync_is_reported_and_can_be_retried(void **state)
{
	fail_each(state, (struct setup){.what = FAIL_SYNC});
	fail_each(state, (struct setup){.what = FAIL_SYNC, .lazy = true});
}

static void a_failed_allocation_is_reported_and_harmless(void **state)
{
	fail_each(state, (struct setup){.what = FAIL_ALLOC, .backing = true});
}

static void a_disk_that_goes_away_leaves_no_corruption(void **state)
{
	fail_each(state, (struct setup){.what = FAIL_WRITE, .sticky = true});
	fail_each(state, (struct setup){.what = FAIL_SYNC, .sticky = true, .lazy = true});
}

/* --- a full disk ------------------------------------------------------------------ */

static void fill(struct fiber *f, void *arg)
{
	struct setup s = {.cluster_bytes = 4096};
	struct play *p = xnew(struct play);
	u32 done = 0, ret = 0;

	p->s = &s;
	create_play(f, p);
	p->disk.limit = 100 * KiB;
	assert_int_equal(open_play(f, p), 0);
	while (done < SECTORS && (int)ret >= 0) {
		ret = (u32)write_step(f, p, done, 8, 0x77);
		settle(p, done, 8, (int)ret, 0x77);
		done += 8;
	}
	assert_int_equal((int)ret, -ENOSPC);
	assert_true(done > 100);
	p->disk.limit = 0;
	settle(p, done - 8, 8, write_step(f, p, done - 8, 8, 0x78), 0x78);
	assert_int_equal(image_flush(f, p->img), 0);
	verify(f, p);
	check(f, p, true);
	assert_int_equal(image_close(f, p->img), 0);
	mem_disk_fini(&p->disk);
	free(p);
}

static void a_full_disk_gives_enospc_and_loses_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, fill, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(a_failed_read_is_reported_and_harmless),                                                 \
		X(a_failed_write_is_reported_and_can_be_retried),                                  \
		X(a_failed_sync_is_reported_and_can_be_retried),                                   \
		X(a_failed_allocation_is_reported_and_harmless),                                   \
		X(a_disk_that_goes_away_leaves_no_corruption),                                     \
		X(a_full_disk_gives_enospc_and_loses_nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("qcow2 faults", tests, NULL, NULL);
}
