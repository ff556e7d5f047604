/* Internal snapshots against flat arrays: random writes, snapshots taken, gone back
 * to and deleted, on every cluster size, refcount width and version, each sequence
 * ending in a check; the same with every operation failing once. */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/filter.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "tests/lib/mem_image.h"

#include <errno.h>
#include <stdio.h>

#define MOST 5 /* snapshots at a time */

struct setup {
	u32 version, cluster_bytes, refcount_bits;
	u64 bytes;
	bool lazy, backing, fixed, extended;
	u32 steps;
};

struct state {
	u8 *want;
	u64 bytes;
	char name[16];
};

struct model {
	const struct setup *s;
	struct mem_disk disk, backing_disk;
	struct fault_rule rule;
	struct image *img;
	struct state now, kept[MOST];
	u32 kept_n, next_name;
	u64 seed, room;
	bool full; /* no refcount may rise any more */
};

static void open_model(struct fiber *f, struct model *m)
{
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 16 * 1024};
	struct image *below = mem_image_new(fiber_loop(f), &m->disk);
	struct error err = {0};

	assert_int_equal(filter_fault_new(&below, below, &m->rule), 0);
	if (image_open_over(f, &m->img, "qcow2", below, &policy, &err) < 0)
		fail_msg("%s", err.text);
	if (m->s->backing) {
		struct image *raw = mem_image_new(fiber_loop(f), &m->backing_disk);

		policy.writable = false;
		assert_int_equal(image_open_over(f, &m->img->backing, "raw", raw, &policy, &err),
				 0);
	}
}

static void create_model(struct fiber *f, struct model *m)
{
	struct qcow2_create_options opt = {.bytes = m->s->bytes,
					   .version = m->s->version,
					   .cluster_bytes = m->s->cluster_bytes,
					   .refcount_bits = m->s->refcount_bits,
					   .lazy_refcounts = m->s->lazy,
					   .extended_l2 = m->s->extended,
					   .backing_file = m->s->backing ? "b" : NULL};
	struct image *file;
	struct error err = {0};

	m->room = 2 * m->s->bytes;
	m->now = (struct state){.want = xalloc(m->room), .bytes = m->s->bytes};
	if (m->s->backing) {
		m->backing_disk.bytes = m->backing_disk.room = m->s->bytes / 2;
		m->backing_disk.data = xalloc(m->s->bytes / 2);
		memset(m->backing_disk.data, 0xbb, m->s->bytes / 2);
		memset(m->now.want, 0xbb, m->s->bytes / 2);
	}
	if (m->s->fixed) { /* a used device */
		m->disk.bytes = m->disk.room = 8 * m->s->bytes + 512 * m->s->cluster_bytes;
		m->disk.data = xalloc(m->disk.room);
		memset(m->disk.data, 0xee, m->disk.room);
		m->disk.fixed = true;
	}
	file = mem_image_new(fiber_loop(f), &m->disk);
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	open_model(f, m);
}

static void fini_model(struct model *m)
{
	for (u32 i = 0; i < m->kept_n; i++)
		free(m->kept[i].want);
	free(m->now.want);
	mem_disk_fini(&m->disk);
	mem_disk_fini(&m->backing_disk);
}

/* --- what must hold ----------------------------------------------------------- */

static void compare(struct fiber *f, struct model *m)
{
	AUTO_FREE u8 *got = xalloc(m->now.bytes);

	assert_int_equal(m->img->bytes, m->now.bytes);
	assert_int_equal(image_pread(f, m->img, 0, got, m->now.bytes), 0);
	for (u64 i = 0; memcmp(got, m->now.want, m->now.bytes) && i < m->now.bytes; i++)
		if (got[i] != m->now.want[i])
			fail_msg("byte %llu is %#x, expected %#x", (unsigned long long)i, got[i],
				 m->now.want[i]);
}

static void check(struct fiber *f, struct model *m, bool leaks_too)
{
	struct check_request req = {0};
	struct error err = {0};

	if (m->img->driver->check(f, m->img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	assert_int_equal(req.result.check_errors, 0);
	assert_int_equal(req.result.corruptions, 0);
	if (leaks_too)
		assert_int_equal(req.result.leaks, 0);
}

static void check_list(struct model *m)
{
	const struct qcow2_snapshot *list;

	assert_int_equal(qcow2_snapshots(m->img, &list), m->kept_n);
	for (u32 i = 0; i < m->kept_n; i++) {
		assert_string_equal(list[i].name, m->kept[i].name);
		assert_int_equal(list[i].disk_bytes, m->kept[i].bytes);
		assert_int_equal(qcow2_snapshot_find(m->img, list[i].id, FIND_ID), i);
		assert_int_equal(qcow2_snapshot_find(m->img, list[i].name, FIND_NAME), i);
	}
}

/* --- steps ---------------------------------------------------------------------- */

static void fork_state(struct model *m, const struct state *from, struct state *to)
{
	to->want = xalloc(m->room);
	to->bytes = from->bytes;
	memcpy(to->want, from->want, from->bytes);
}

static int do_create(struct fiber *f, struct model *m)
{
	struct state *s = &m->kept[m->kept_n];
	struct qcow2_new_snapshot desc = {.date_sec = 1, .date_nsec = 2, .name = s->name};
	int ret;

	if (m->kept_n == MOST)
		return 0;
	snprintf(s->name, sizeof(s->name), "s%u", m->next_name++);
	ret = qcow2_snapshot_create(f, m->img, &desc);
	if (ret < 0)
		return ret;
	fork_state(m, &m->now, s);
	m->kept_n++;
	return 0;
}

static int do_apply(struct fiber *f, struct model *m, u32 i)
{
	struct error err = {0};
	int ret = qcow2_snapshot_apply(f, m->img, i, &err);

	if (ret < 0) {
		assert_true(err.text[0]);
		return ret;
	}
	free(m->now.want);
	fork_state(m, &m->kept[i], &m->now);
	return 0;
}

static int do_delete(struct fiber *f, struct model *m, u32 i)
{
	struct error err = {0};
	int ret = qcow2_snapshot_delete(f, m->img, i, &err);

	if (ret < 0) {
		assert_true(err.text[0]);
		return ret;
	}
	free(m->kept[i].want);
	m->kept_n--;
	memmove(&m->kept[i], &m->kept[i + 1], (m->kept_n - i) * sizeof(m->kept[0]));
	return 0;
}

static void do_write(struct fiber *f, struct model *m)
{
	u64 most = next_random(&m->seed) % 4 ? 16 * KiB : 300 * KiB;
	u64 bytes = (next_random(&m->seed) % (MIN(most, m->now.bytes) / 512) + 1) * 512;
	u64 goff = next_random(&m->seed) % ((m->now.bytes - bytes) / 512 + 1) * 512;
	u8 byte = (u8)next_random(&m->seed);

	switch (next_random(&m->seed) % 6) {
	case 0:
		memset(m->now.want + goff, 0, bytes);
		assert_int_equal(image_zero(f, m->img, goff, bytes, ZERO_MAY_UNMAP), 0);
		break;
	case 1:
		memset(m->now.want + goff, 0, bytes);
		assert_int_equal(image_zero(f, m->img, goff, bytes, 0), 0);
		break;
	default:
		memset(m->now.want + goff, byte, bytes);
		assert_int_equal(image_pwrite(f, m->img, goff, m->now.want + goff, bytes), 0);
	}
}

static void do_resize(struct fiber *f, struct model *m)
{
	u64 bytes = (next_random(&m->seed) % (m->room / 512) + 1) * 512;
	struct error err = {0};

	if (m->s->version == 2 || m->s->fixed)
		return;
	if (image_resize(f, m->img, bytes, &err) < 0)
		fail_msg("%s", err.text);
	if (bytes < m->now.bytes)
		memset(m->now.want + bytes, 0, m->now.bytes - bytes);
	m->now.bytes = bytes;
}

static void reopen(struct fiber *f, struct model *m)
{
	assert_int_equal(image_close(f, m->img), 0);
	open_model(f, m);
}

static void step(struct fiber *f, struct model *m)
{
	u32 some = m->kept_n ? (u32)(next_random(&m->seed) % m->kept_n) : 0;

	switch (next_random(&m->seed) % 14) {
	case 0:
	case 1: assert_int_equal(do_create(f, m), 0); break;
	case 2:
		if (m->kept_n)
			assert_int_equal(do_apply(f, m, some), 0);
		break;
	case 3:
		if (m->kept_n)
			assert_int_equal(do_delete(f, m, some), 0);
		break;
	case 4: check(f, m, true); break;
	case 5: reopen(f, m); break;
	case 6: assert_int_equal(image_flush(f, m->img), 0); break;
	case 7:
		if (next_random(&m->seed) % 3 == 0)
			do_resize(f, m);
		break;
	default: do_write(f, m); break;
	}
}

static void run_model(struct fiber *f, void *arg)
{
	struct model m = {.s = arg};

	m.seed = 0x9e3779b97f4a7c15ull ^ m.s->cluster_bytes * m.s->refcount_bits;
	m.disk.seed = m.seed + 1;
	create_model(f, &m);
	for (u32 i = 0; i < m.s->steps; i++) {
		step(f, &m);
		check_list(&m);
		compare(f, &m);
	}
	reopen(f, &m);
	check(f, &m, true);
	for (u32 i = 0; i < m.kept_n; i++) {
		assert_int_equal(do_apply(f, &m, i), 0);
		compare(f, &m);
	}
	while (m.kept_n)
		assert_int_equal(do_delete(f, &m, m.kept_n / 2), 0);
	check(f, &m, true);
	compare(f, &m);
	assert_int_equal(image_close(f, m.img), 0);
	fini_model(&m);
}

static void run_setup(void **state, struct setup s)
{
	s.steps = s.steps ? s.steps : 90;
	s.bytes = s.bytes ? s.bytes : 1 * MiB + 512;
	s.version = s.version ? s.version : 3;
	s.refcount_bits = s.refcount_bits ? s.refcount_bits : 16;
	assert_int_equal(loop_run_fiber(*state, run_model, &s), 0);
}

static void every_cluster_size_keeps_its_snapshots(void **state)
{
	for (u32 bits = 9; bits <= 21; bits++)
		run_setup(state, (struct setup){.cluster_bytes = 1u << bits});
}

static void every_refcount_width_keeps_its_snapshots(void **state)
{
	for (u32 bits = 4; bits <= 64; bits *= 2) /* 15 references are enough here */
		for (u32 cluster = 512; cluster <= 4096; cluster *= 8)
			run_setup(state,
				  (struct setup){.cluster_bytes = cluster, .refcount_bits = bits});
}

static void version_2_and_lazy_images_and_overlays_have_snapshots_too(void **state)
{
	run_setup(state, (struct setup){.cluster_bytes = 1024, .version = 2});
	run_setup(state, (struct setup){.cluster_bytes = 4096, .lazy = true});
	run_setup(state, (struct setup){.cluster_bytes = 2048, .backing = true});
	run_setup(state, (struct setup){.cluster_bytes = 4096, .fixed = true});
}

static void images_with_subclusters_have_snapshots_too(void **state)
{
	for (u32 bits = 14; bits <= 16; bits++)
		for (u32 backing = 0; backing <= 1; backing++)
			run_setup(state, (struct setup){.cluster_bytes = 1u << bits,
							.extended = true,
							.backing = backing});
}

/* --- refcounts that are too narrow ------------------------------------------------ */

static void overflow(struct fiber *f, void *arg)
{
	struct setup s = {.version = 3, .cluster_bytes = 512, .bytes = 64 * KiB};

	for (s.refcount_bits = 1; s.refcount_bits <= 2; s.refcount_bits++) {
		struct model m = {.s = &s, .seed = 77};
		u32 most = s.refcount_bits == 1 ? 0 : 2;

		create_model(f, &m);
		for (u32 i = 0; i < 10; i++)
			do_write(f, &m);
		for (u32 i = 0; i < most; i++)
			assert_int_equal(do_create(f, &m), 0);
		assert_int_equal(do_create(f, &m), -EINVAL);
		check_list(&m);
		compare(f, &m);
		check(f, &m, false);
		assert_int_equal(image_close(f, m.img), 0);
		open_model(f, &m);
		check(f, &m, true); /* nothing was left behind */
		if (most) {
			assert_int_equal(do_apply(f, &m, 0), 0);
			assert_int_equal(do_delete(f, &m, 1), 0);
			assert_int_equal(do_create(f, &m), 0);
			check(f, &m, true);
		}
		assert_int_equal(image_close(f, m.img), 0);
		fini_model(&m);
	}
}

static void a_refcount_that_would_overflow_is_refused(void **state)
{
	assert_int_equal(loop_run_fiber(*state, overflow, NULL), 0);
}

/* --- faults ------------------------------------------------------------------------ */

enum what { FAIL_READ, FAIL_WRITE, FAIL_SYNC, FAIL_ALLOC, FAIL_SPACE };

static void arm(struct model *m, enum what what, unsigned nth, bool sticky)
{
	m->rule = (struct fault_rule){.error = -EIO, .sticky = sticky};
	switch (what) {
	case FAIL_READ: m->rule.reads = nth; break;
	case FAIL_WRITE: m->rule.writes = nth; break;
	case FAIL_SYNC: m->rule.syncs = nth; break;
	case FAIL_ALLOC: try_alloc_fail_nth(nth); break;
	case FAIL_SPACE: m->disk.limit = m->disk.bytes + (nth - 1) * 512; break;
	}
}

static void disarm(struct model *m)
{
	m->rule = (struct fault_rule){0};
	m->disk.limit = 0;
	try_alloc_fail_nth(0);
}

/* The nth request of one of the three fails; afterwards all is as if it had not
 * been asked for, or as if it had succeeded.  Returns whether it failed. */
static bool one_fault(struct fiber *f, struct model *m, enum what what, u32 op, unsigned nth)
{
	int ret;

	arm(m, what, nth, op >= 3);
	switch (op % 3) {
	case 0: ret = do_create(f, m); break;
	case 1: ret = do_apply(f, m, 0); break;
	default: ret = do_delete(f, m, 0); break;
	}
	if (op >= 3) { /* the disk is gone: what it has must be whole */
		(void)image_close(f, m->img);
		disarm(m);
		open_model(f, m);
	}
	disarm(m);
	check_list(m);
	compare(f, m);
	check(f, m, false);
	return ret < 0;
}

struct fault_play {
	const struct setup *s;
	enum what what;
};

static void play_faults(struct fiber *f, void *arg)
{
	const struct fault_play *play = arg;
	u32 failed = 0;

	for (u32 op = 0; op < 6; op++)
		for (unsigned nth = 1, quiet = 0; quiet < 3; nth++) {
			struct model m = {.s = play->s, .seed = 0x1234567};
			bool hit;

			create_model(f, &m);
			for (u32 i = 0; i < 12; i++)
				do_write(f, &m);
			assert_int_equal(do_create(f, &m), 0);
			for (u32 i = 0; i < 6; i++)
				do_write(f, &m);
			reopen(f, &m);
			hit = one_fault(f, &m, play->what, op, nth);
			quiet = hit ? 0 : quiet + 1;
			failed += hit;
			do_write(f, &m);
			if (op < 3)
				assert_int_equal(do_create(f, &m), 0); /* and so it goes on */
			compare(f, &m);
			(void)image_close(f, m.img);
			open_model(f, &m);
			compare(f, &m);
			check(f, &m, false);
			assert_int_equal(image_close(f, m.img), 0);
			fini_model(&m);
		}
	assert_true(failed > 6);
}

static void fault_each(void **state, enum what what)
{
	const u32 shapes[][2] = {{512, 64}, {4096, 4}, {65536, 16}};

	for (unsigned i = 0; i < ARRAY_LEN(shapes); i++) {
		struct setup s = {.version = 3,
				  .bytes = 96 * KiB,
				  .cluster_bytes = shapes[i][0],
				  .refcount_bits = shapes[i][1]};
		struct fault_play play = {&s, what};

		assert_int_equal(loop_run_fiber(*state, play_faults, &play), 0);
	}
}

static void a_failed_read_changes_nothing(void **state)
{
	fault_each(state, FAIL_READ);
}

static void a_failed_write_changes_nothing(void **state)
{
	fault_each(state, FAIL_WRITE);
}

static void a_failed_sync_changes_nothing(void **state)
{
	fault_each(state, FAIL_SYNC);
}

static void a_failed_allocation_changes_nothing(void **state)
{
	fault_each(state, FAIL_ALLOC);
}

static void a_full_disk_changes_nothing(void **state)
{
	fault_each(state, FAIL_SPACE);
}

#define TESTS(X)                                                                                   \
	X(every_cluster_size_keeps_its_snapshots), X(every_refcount_width_keeps_its_snapshots),    \
		X(version_2_and_lazy_images_and_overlays_have_snapshots_too),                      \
		X(images_with_subclusters_have_snapshots_too),                                     \
		X(a_refcount_that_would_overflow_is_refused), X(a_failed_read_changes_nothing),    \
		X(a_failed_write_changes_nothing), X(a_failed_sync_changes_nothing),               \
		X(a_failed_allocation_changes_nothing), X(a_full_disk_changes_nothing)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("qcow2 snapshots", tests, NULL, NULL);
}
