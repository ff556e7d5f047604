/* Power cuts in the middle of whole runs of cowimg: commit, rebase, convert into an image
 * that is there.  Files are lost independently between syncs; whatever is left, both
 * checkers find no corruption, and nothing that anybody could read is gone.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/tool_rig.h"

#include "base/log.h"
#include "block/qcow2/snapshot.h"

#include <stdio.h>

/* --- commit -------------------------------------------------------------------------- */

static void make_chain(struct fiber *f, void *arg)
{
	struct rig *r = arg;

	rig_fill(f, r, "base");
	if (rig_index(r, "mid") < r->n)
		rig_fill(f, r, "mid");
	rig_fill(f, r, "top");
	rig_note(f, r);
}

static void set_up_chain(struct rig *r, struct loop *loop)
{
	bool mid = rig_index(r, "mid") < r->n;
	AUTO_FREE char *over =
		xasprintf(",backing_file=%s,backing_fmt=qcow2", mid ? "mid" : "base");

	rig_create(r, "", "base");
	if (mid)
		rig_create(r, ",backing_file=base,backing_fmt=qcow2", "mid");
	rig_create(r, over, "top");
	assert_int_equal(loop_run_fiber(loop, make_chain, r), 0);
}

/* The top shows the same at every moment, the base what it had or what it gets. */
static void judge_commit(struct fiber *f, void *arg, size_t events)
{
	struct rig *r = arg;
	const u8 *top = r->old[rig_index(r, "top")], *base = r->old[rig_index(r, "base")];

	rig_read(f, r, "top", NULL);
	rig_expect(r, top, NULL, "top", events);
	rig_read(f, r, "base", NULL);
	rig_expect(r, top, events == r->log.n ? NULL : base, "base", events);
}

/* --- rebase -------------------------------------------------------------------------- */

static void make_two_bases(struct fiber *f, void *arg)
{
	struct rig *r = arg;

	rig_fill(f, r, "base");
	rig_fill(f, r, "other");
	rig_fill(f, r, "top");
	rig_note(f, r);
}

static void set_up_two_bases(struct rig *r, struct loop *loop)
{
	rig_create(r, "", "base");
	rig_create(r, "", "other");
	rig_create(r, ",backing_file=base,backing_fmt=qcow2", "top");
	assert_int_equal(loop_run_fiber(loop, make_two_bases, r), 0);
}

/* The top shows the same, over whichever image it names; in the end over the new one. */
static void judge_rebase(struct fiber *f, void *arg, size_t events)
{
	struct rig *r = arg;
	struct open_policy policy = {.no_backing = true};
	struct image *img = rig_open(f, r, "top", &policy);
	bool moved = !img->backing_name || strcmp(img->backing_name, "base") != 0;

	assert_int_equal(image_close(f, img), 0);
	if (events == r->log.n)
		assert_true(moved);
	rig_read(f, r, "top", NULL);
	rig_expect(r, r->old[rig_index(r, "top")], NULL, moved ? "moved top" : "top", events);
}

/* --- convert -n ----------------------------------------------------------------------- */

static void take_snapshot(struct fiber *f, struct rig *r)
{
	AUTO_FREE char *path = xasprintf("%s/target", r->dir);
	struct open_policy policy = {.writable = true, .format = "qcow2"};
	struct qcow2_new_snapshot s = {.name = "before", .date_sec = 1};
	struct error err = {0};
	struct image *img;

	assert_int_equal(image_open(f, &img, path, &policy, &err), 0);
	assert_int_equal(qcow2_snapshot_create(f, img, &s), 0);
	assert_int_equal(image_close(f, img), 0);
}

static void make_target(struct fiber *f, void *arg)
{
	struct rig *r = arg;

	rig_fill(f, r, "source");
	rig_fill(f, r, "target");
	take_snapshot(f, r);
	rig_note(f, r);
}

static void set_up_target(struct rig *r, struct loop *loop)
{
	rig_create(r, "", "source");
	rig_create(r, "", "target");
	assert_int_equal(loop_run_fiber(loop, make_target, r), 0);
}

static void judge_convert(struct fiber *f, void *arg, size_t events)
{
	struct rig *r = arg;
	const u8 *source = r->old[rig_index(r, "source")], *old = r->old[rig_index(r, "target")];

	rig_read(f, r, "target", NULL);
	rig_expect(r, source, events == r->log.n ? NULL : old, "target", events);
	rig_read(f, r, "target", "before");
	rig_expect(r, old, NULL, "snapshot of the target", events);
}

/* --- the test -------------------------------------------------------------------------- */

static void run_scenario(void **state, void (*set_up)(struct rig *r, struct loop *loop),
			 struct scenario s)
{
	static const struct {
		u32 cluster_bytes, refcount_bits;
		bool lazy;
		u64 bytes;
	} shapes[] = {{65536, 16, false, 2 * MiB}, {512, 64, false, 384 * KiB},
		      {4096, 16, true, 768 * KiB}, {2 * MiB, 16, false, 10 * MiB},
		      {8192, 8, true, 768 * KiB},  {65536, 16, true, 2 * MiB},
		      {1024, 16, true, 512 * KiB}, {2048, 32, false, 768 * KiB}};
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 0;
	u32 runs = rounds ? MAX(rounds, (u32)ARRAY_LEN(shapes)) : 4;

	for (u32 i = 0; i < runs; i++) {
		u32 k = i == 3 ? 6 : i % ARRAY_LEN(shapes);
		AUTO_FREE char *name =
			xasprintf("%s, clusters of %u%s", s.name, shapes[k].cluster_bytes,
				  shapes[k].lazy ? ", lazy refcounts" : "");
		struct scenario one = s;
		struct rig *r;

		one.name = name;
		one.cluster_bytes = shapes[k].cluster_bytes;
		one.refcount_bits = shapes[k].refcount_bits;
		one.lazy = shapes[k].lazy;
		one.bytes = shapes[k].bytes;
		one.seed = 0x9216d5d98979fb1bull + i * 7919ull;
		one.samples = rounds ? 6 : 1;
		r = rig_new(&one);
		set_up(r, *state);
		rig_cut_everywhere(r, *state);
		rig_free(r);
	}
}

static void power_cut_of_a_commit_loses_nothing(void **state)
{
	run_scenario(state, set_up_chain,
		     (struct scenario){.name = "commit",
				       .files = {"base", "top"},
				       .commands = {"commit -q -t writeback @top"},
				       .judge = judge_commit});
}

static void power_cut_of_a_commit_that_keeps_the_overlay_loses_nothing(void **state)
{
	run_scenario(state, set_up_chain,
		     (struct scenario){.name = "commit -d",
				       .files = {"base", "top"},
				       .commands = {"commit -q -d -t writeback @top"},
				       .judge = judge_commit});
}

static void power_cut_of_a_commit_over_two_images_loses_nothing(void **state)
{
	run_scenario(state, set_up_chain,
		     (struct scenario){.name = "commit -b",
				       .files = {"base", "mid", "top"},
				       .commands = {"commit -q -b @base -t writeback @top"},
				       .judge = judge_commit});
}

static void power_cut_of_a_rebase_changes_nothing_that_is_shown(void **state)
{
	run_scenario(
		state, set_up_two_bases,
		(struct scenario){.name = "rebase",
				  .files = {"base", "other", "top"},
				  .commands = {"rebase -q -t writeback -b other -F qcow2 @top"},
				  .judge = judge_rebase});
}

static void power_cut_of_a_rebase_to_nothing_changes_nothing_that_is_shown(void **state)
{
	run_scenario(state, set_up_two_bases,
		     (struct scenario){.name = "rebase -b ''",
				       .files = {"base", "other", "top"},
				       .commands = {"rebase -q -t writeback -b  @top"},
				       .judge = judge_rebase});
}

static void power_cut_of_a_convert_leaves_old_or_new_sectors(void **state)
{
	run_scenario(
		state, set_up_target,
		(struct scenario){.name = "convert -n",
				  .files = {"source", "target"},
				  .commands = {"convert -n -t writeback -O qcow2 @source @target"},
				  .judge = judge_convert});
}

#define TESTS(X)                                                                                   \
	X(power_cut_of_a_commit_loses_nothing),                                                    \
		X(power_cut_of_a_commit_that_keeps_the_overlay_loses_nothing),                     \
		X(power_cut_of_a_commit_over_two_images_loses_nothing),                            \
		X(power_cut_of_a_rebase_changes_nothing_that_is_shown),                            \
		X(power_cut_of_a_rebase_to_nothing_changes_nothing_that_is_shown),                 \
		X(power_cut_of_a_convert_leaves_old_or_new_sectors)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and cowimg", tests, NULL, NULL);
}
