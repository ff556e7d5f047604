/* Snapshots of a running machine: the disk of one moment, VM state written while the
 * guest goes on, shared with the snapshot before, and nothing left after a cancel. */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/filter.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "tests/lib/mem_image.h"

#include <errno.h>

#define BYTES (256 * KiB)
#define RAM   (128 * KiB)

struct machine {
	u32 cluster_bytes;
	struct mem_disk disk;
	struct fault_rule rule;
	struct image *img;
	u8 want[BYTES], ram[RAM];
	struct fiber_queue done;
	bool wrote;
	u64 seed;
};

static void open_machine(struct fiber *f, struct machine *m)
{
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 16 * 1024};
	struct image *below = mem_image_new(fiber_loop(f), &m->disk);
	struct error err = {0};

	assert_int_equal(filter_fault_new(&below, below, &m->rule), 0);
	assert_int_equal(image_open_over(f, &m->img, "qcow2", below, &policy, &err), 0);
}

static struct machine *machine_new(struct fiber *f, u32 cluster_bytes)
{
	struct qcow2_create_options opt = {.bytes = BYTES, .cluster_bytes = cluster_bytes};
	struct machine *m = xnew(struct machine);
	struct image *file = mem_image_new(fiber_loop(f), &m->disk);
	struct error err = {0};

	m->cluster_bytes = cluster_bytes;
	m->seed = 4711;
	fiber_queue_init(&m->done);
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	m->disk.seed = 99;
	open_machine(f, m);
	return m;
}

static void machine_free(struct fiber *f, struct machine *m)
{
	assert_int_equal(image_close(f, m->img), 0);
	mem_disk_fini(&m->disk);
	free(m);
}

static void dirty_disk(struct fiber *f, struct machine *m)
{
	for (u32 i = 0; i < 12; i++) {
		u64 bytes = (next_random(&m->seed) % 16 + 1) * 512;
		u64 goff = next_random(&m->seed) % ((BYTES - bytes) / 512) * 512;

		memset(m->want + goff, (int)(next_random(&m->seed) & 0xff), bytes);
		assert_int_equal(image_pwrite(f, m->img, goff, m->want + goff, bytes), 0);
	}
}

static int save_ram(struct fiber *f, struct machine *m, u64 from, u64 to)
{
	int ret = 0;

	for (u64 at = from; at < to && ret == 0; at += m->cluster_bytes) {
		struct iovec iov = {m->ram + at, m->cluster_bytes};

		ret = qcow2_vmstate_write(f, m->img, at, &iov, 1);
	}
	return ret;
}

static void expect_ram(struct fiber *f, struct image *img, const u8 *ram)
{
	AUTO_FREE u8 *got = xalloc(RAM + 4096);
	struct iovec iov = {got, RAM + 4096};

	assert_int_equal(qcow2_vmstate_read(f, img, 0, &iov, 1), 0);
	assert_memory_equal(got, ram, RAM);
	for (u32 i = 0; i < 4096; i++)
		assert_int_equal(got[RAM + i], 0);
}

/* What the snapshot shows, through an image of its own. */
static void expect_snapshot(struct fiber *f, struct machine *m, const char *name, const u8 *disk,
			    const u8 *ram)
{
	struct open_policy policy = {.snapshot = name};
	struct error err = {0};
	AUTO_FREE u8 *got = xalloc(BYTES);
	struct image *img;

	assert_int_equal(image_flush(f, m->img), 0);
	if (image_open_over(f, &img, "qcow2", mem_image_new(fiber_loop(f), &m->disk), &policy,
			    &err))
		fail_msg("%s", err.text);
	assert_int_equal(image_pread(f, img, 0, got, BYTES), 0);
	assert_memory_equal(got, disk, BYTES);
	if (ram)
		expect_ram(f, img, ram);
	image_close(f, img);
}

static void expect_disk(struct fiber *f, struct machine *m)
{
	AUTO_FREE u8 *got = xalloc(BYTES);

	assert_int_equal(image_pread(f, m->img, 0, got, BYTES), 0);
	assert_memory_equal(got, m->want, BYTES);
}

static void check(struct fiber *f, struct machine *m, bool leaks_too)
{
	struct check_request req = {0};
	struct error err = {0};

	if (m->img->driver->check(f, m->img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	assert_int_equal(req.result.corruptions + req.result.check_errors, 0);
	if (leaks_too)
		assert_int_equal(req.result.leaks, 0);
}

/* --- one after the other ------------------------------------------------------------ */

static void take(struct fiber *f, struct machine *m, const char *name, u8 *disk_then)
{
	struct qcow2_new_snapshot s = {.name = name, .vm_state_bytes = RAM};
	struct qcow2_snapshot_job *job;

	assert_int_equal(save_ram(f, m, 0, RAM / 2), 0); /* before the moment */
	assert_int_equal(qcow2_snapshot_begin(f, m->img, &job), 0);
	memcpy(disk_then, m->want, BYTES);
	assert_int_equal(qcow2_snapshot_keep(f, job), 0);
	dirty_disk(f, m); /* the guest goes on */
	expect_disk(f, m);
	assert_int_equal(save_ram(f, m, RAM / 2, RAM), 0);
	assert_int_equal(image_flush(f, m->img), 0);
	dirty_disk(f, m);
	assert_int_equal(qcow2_snapshot_finish(f, job, &s), 0);
	expect_disk(f, m);
}

static void lives(struct fiber *f, void *arg)
{
	for (u32 bits = 9; bits <= 16; bits++) {
		struct machine *m = machine_new(f, 1u << bits);
		AUTO_FREE u8 *one = xalloc(BYTES), *two = xalloc(BYTES), *ram = xalloc(RAM),
			     *zeros = xalloc(RAM);
		struct error err = {0};
		u64 grown;

		memset(m->ram, 0x11, RAM);
		memcpy(ram, m->ram, RAM);
		dirty_disk(f, m);
		take(f, m, "one", one);
		expect_snapshot(f, m, "one", one, ram);
		expect_ram(f, m->img, zeros); /* the active state has no VM state now */
		check(f, m, true);

		/* The next one costs what changed. */
		assert_int_equal(qcow2_vmstate_adopt(f, m->img, 0, &err), 0);
		expect_ram(f, m->img, ram);
		check(f, m, true);
		grown = m->disk.bytes;
		memset(m->ram, 0x22, RAM / 2);
		take(f, m, "two", two);
		expect_snapshot(f, m, "one", one, ram);
		expect_snapshot(f, m, "two", two, m->ram);
		check(f, m, true);
		assert_true(m->disk.bytes - grown < 2 * MiB);

		/* Back to the first, with its VM state, and on from there. */
		assert_int_equal(qcow2_snapshot_apply(f, m->img, 0, &err), 0);
		memcpy(m->want, one, BYTES);
		expect_disk(f, m);
		expect_ram(f, m->img, ram);
		assert_int_equal(image_close(f, m->img), 0);
		open_machine(f, m);
		expect_ram(f, m->img, ram);
		/* Back to it without. */
		dirty_disk(f, m);
		assert_int_equal(qcow2_snapshot_apply_disk(f, m->img, 0, &err), 0);
		memcpy(m->want, one, BYTES);
		expect_disk(f, m);
		expect_ram(f, m->img, zeros);
		expect_snapshot(f, m, "one", one, ram);
		check(f, m, true);
		assert_int_equal(qcow2_snapshot_delete(f, m->img, 0, &err), 0);
		assert_int_equal(qcow2_vmstate_drop(f, m->img, 0, RAM), 0);
		expect_ram(f, m->img, zeros);
		assert_int_equal(qcow2_snapshot_delete(f, m->img, 0, &err), 0);
		expect_disk(f, m);
		check(f, m, true);
		machine_free(f, m);
	}
}

static void a_live_snapshot_has_the_disk_of_its_moment_and_shares_vm_state(void **state)
{
	assert_int_equal(loop_run_fiber(*state, lives, NULL), 0);
}

/* --- while it lasts ------------------------------------------------------------------- */

static void write_later(struct fiber *f, void *arg)
{
	struct machine *m = arg;

	memset(m->want, 0x5a, 4096);
	assert_int_equal(image_pwrite(f, m->img, 0, m->want, 4096), 0);
	m->wrote = true;
	fiber_queue_wake_all(&m->done);
}

static void frozen(struct fiber *f, void *arg)
{
	struct machine *m = machine_new(f, 4096);
	struct qcow2_new_snapshot s = {.name = "s"};
	struct qcow2_snapshot_job *job, *other;
	AUTO_FREE u8 *then = xalloc(BYTES);
	struct error err = {0};
	u64 writes;

	dirty_disk(f, m);
	assert_int_equal(image_flush(f, m->img), 0);
	memcpy(then, m->want, BYTES);
	writes = m->disk.writes;
	assert_int_equal(qcow2_snapshot_begin(f, m->img, &job), 0);
	assert_int_equal(m->disk.writes, writes); /* the moment costs no I/O */
	assert_int_equal(qcow2_snapshot_begin(f, m->img, &other), -EBUSY);
	assert_int_equal(fiber_spawn(fiber_loop(f), write_later, m), 0);
	for (u32 i = 0; i < 100; i++)
		fiber_yield(f);
	assert_false(m->wrote);
	assert_int_equal(qcow2_snapshot_keep(f, job), 0);
	while (!m->wrote)
		fiber_queue_wait(f, &m->done);
	assert_int_equal(image_resize(f, m->img, 2 * BYTES, &err), -EBUSY);
	assert_int_equal(qcow2_snapshot_finish(f, job, &s), 0);
	expect_snapshot(f, m, "s", then, NULL);
	expect_disk(f, m);
	check(f, m, true);
	machine_free(f, m);
}

static void writes_wait_from_the_moment_until_it_is_durable(void **state)
{
	assert_int_equal(loop_run_fiber(*state, frozen, NULL), 0);
}

static void cancels(struct fiber *f, void *arg)
{
	for (u32 kept = 0; kept <= 1; kept++) {
		struct machine *m = machine_new(f, 1024);
		struct qcow2_snapshot_job *job;
		const struct qcow2_snapshot *list;
		struct error err = {0};

		dirty_disk(f, m);
		assert_int_equal(save_ram(f, m, 0, RAM), 0);
		assert_int_equal(qcow2_snapshot_begin(f, m->img, &job), 0);
		if (kept) {
			assert_int_equal(qcow2_snapshot_keep(f, job), 0);
			dirty_disk(f, m);
		}
		assert_int_equal(qcow2_snapshot_cancel(f, job), 0);
		assert_int_equal(qcow2_snapshots(m->img, &list), 0);
		expect_disk(f, m);
		check(f, m, true);
		dirty_disk(f, m);
		assert_int_equal(image_resize(f, m->img, 2 * BYTES, &err), 0);
		expect_disk(f, m);
		check(f, m, true);
		machine_free(f, m);
	}
}

static void a_cancelled_snapshot_leaves_nothing(void **state)
{
	assert_int_equal(loop_run_fiber(*state, cancels, NULL), 0);
}

/* Eighths of the VM state of `name` that are the same in snapshot `other`, as bits. */
static u64 same_eighths(struct fiber *f, struct machine *m, const char *name, u32 other)
{
	struct open_policy policy = {.snapshot = name};
	u64 bits = 0xff;
	struct qcow2_vmstate_pieces p = {.bytes_each = RAM / 8, .n = 8, .bits = &bits};
	struct error err = {0};
	struct image *img;

	assert_int_equal(image_flush(f, m->img), 0);
	if (image_open_over(f, &img, "qcow2", mem_image_new(fiber_loop(f), &m->disk), &policy,
			    &err))
		fail_msg("%s", err.text);
	assert_int_equal(qcow2_vmstate_compare(f, img, other, &p), 0);
	assert_int_equal(qcow2_vmstate_compare(f, img, 2, &p), -EINVAL);
	image_close(f, img);
	return bits;
}

static void shares(struct fiber *f, void *arg)
{
	for (u32 bits = 9; bits <= 15; bits++) {
		struct machine *m = machine_new(f, 1u << bits);
		struct qcow2_new_snapshot s = {.name = "two", .vm_state_bytes = RAM};
		AUTO_FREE u8 *disk = xalloc(BYTES);
		struct qcow2_snapshot_job *job;
		struct error err = {0};

		memset(m->ram, 0x11, RAM);
		take(f, m, "one", disk);
		assert_int_equal(qcow2_vmstate_adopt(f, m->img, 0, &err), 0);
		assert_int_equal(save_ram(f, m, RAM / 2, RAM), 0);
		assert_int_equal(qcow2_vmstate_drop(f, m->img, 0, RAM / 4), 0);
		assert_int_equal(qcow2_snapshot_begin(f, m->img, &job), 0);
		assert_int_equal(qcow2_snapshot_keep(f, job), 0);
		assert_int_equal(qcow2_snapshot_finish(f, job, &s), 0);
		assert_int_equal(same_eighths(f, m, "one", 1), 0x0c);
		assert_int_equal(same_eighths(f, m, "two", 0), 0x0c);
		assert_int_equal(same_eighths(f, m, "two", 1), 0xff);
		machine_free(f, m);
	}
}

static void vm_state_that_two_snapshots_share_is_found(void **state)
{
	assert_int_equal(loop_run_fiber(*state, shares, NULL), 0);
}

/* VM state that a snapshot brought back must not show when the disk grows over it. */
static void grows(struct fiber *f, void *arg)
{
	struct machine *m = machine_new(f, 512);
	AUTO_FREE u8 *then = xalloc(BYTES), *more = xalloc(4 * BYTES);
	struct error err = {0};

	memset(m->ram, 0x77, RAM);
	take(f, m, "s", then);
	assert_int_equal(qcow2_snapshot_apply(f, m->img, 0, &err), 0);
	assert_int_equal(image_resize(f, m->img, 5 * BYTES, &err), 0);
	assert_int_equal(image_pread(f, m->img, BYTES, more, 4 * BYTES), 0);
	for (u64 i = 0; i < 4 * BYTES; i++)
		assert_int_equal(more[i], 0);
	expect_snapshot(f, m, "s", then, m->ram);
	check(f, m, true);
	machine_free(f, m);
}

static void vm_state_does_not_become_disk(void **state)
{
	assert_int_equal(loop_run_fiber(*state, grows, NULL), 0);
}

/* --- faults ------------------------------------------------------------------------------ */

/* The nth write or sync of keep, finish or cancel fails.  Returns whether it did. */
static bool fault(struct fiber *f, u32 step, bool sync, unsigned nth)
{
	struct machine *m = machine_new(f, 512);
	struct qcow2_new_snapshot s = {.name = "s", .vm_state_bytes = RAM};
	struct qcow2_snapshot_job *job;
	struct fault_rule rule = {.error = -EIO, .writes = sync ? 0 : nth, .syncs = sync ? nth : 0};
	int ret;

	dirty_disk(f, m);
	assert_int_equal(qcow2_snapshot_begin(f, m->img, &job), 0);
	if (step == 0)
		m->rule = rule;
	ret = qcow2_snapshot_keep(f, job);
	if (step > 0) {
		assert_int_equal(save_ram(f, m, 0, RAM), 0);
		dirty_disk(f, m);
		m->rule = rule;
		ret = step == 1 ? qcow2_snapshot_finish(f, job, &s) : qcow2_snapshot_cancel(f, job);
	}
	m->rule = (struct fault_rule){0};
	if (ret < 0 && step < 2)
		assert_int_equal(qcow2_snapshot_cancel(f, job), 0);
	else if (step == 0)
		assert_int_equal(qcow2_snapshot_finish(f, job, &s), 0);
	expect_disk(f, m);
	check(f, m, false);
	dirty_disk(f, m);
	assert_int_equal(image_close(f, m->img), 0);
	open_machine(f, m);
	expect_disk(f, m);
	check(f, m, false);
	machine_free(f, m);
	return ret < 0;
}

static void faults(struct fiber *f, void *arg)
{
	u32 failed = 0;

	for (u32 step = 0; step < 3; step++)
		for (u32 sync = 0; sync <= 1; sync++)
			for (unsigned nth = 1, quiet = 0; quiet < 3; nth++) {
				bool hit = fault(f, step, sync, nth);

				quiet = hit ? 0 : quiet + 1;
				failed += hit;
			}
	assert_true(failed > 6);
}

static void a_failure_on_the_way_can_be_cancelled(void **state)
{
	assert_int_equal(loop_run_fiber(*state, faults, NULL), 0);
}

#define TESTS(X)                                                                                   \
	X(a_live_snapshot_has_the_disk_of_its_moment_and_shares_vm_state),                         \
		X(writes_wait_from_the_moment_until_it_is_durable),                                \
		X(a_cancelled_snapshot_leaves_nothing),                                            \
		X(vm_state_that_two_snapshots_share_is_found), X(vm_state_does_not_become_disk),   \
		X(a_failure_on_the_way_can_be_cancelled)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("qcow2 live snapshots", tests, NULL, NULL);
}
