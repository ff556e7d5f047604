/* Power cuts while snapshots are taken, gone back to and deleted, of a disk
 * that stands still or of one whose guest writes on (snapshot_live.c), with VM
 * state that is shared with the snapshot before: whatever the disk has lost
 * since its last sync, both checkers find no corruption, the list and every
 * snapshot in it are as before the operation or as after it, VM state too, and
 * so is the disk. COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make
 * check-crash). */
#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"
#include "tests/lib/cuts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES	(192 * KiB)
#define SECTORS (BYTES / 512)
#define MOST	4
#define STEPS	36
#define MOST_VM 6 /* clusters of VM state */

struct scenario {
	const char *name;
	u32 cluster_bytes, refcount_bits, version;
	bool lazy, live;
	u32 vm_clusters; /* of VM state, live only */
	u32 steps;	 /* 0: STEPS */
	u64 seed;
	u32 samples;
};

/* Everything there is to see. */
struct view {
	u16 disk[SECTORS];
	u32 n;
	u32 names[MOST];
	u16 kept[MOST][SECTORS];
	u16 vm[MOST][MOST_VM]; /* 0: a hole */
};

/* A snapshot of a running machine, between its steps. */
struct live {
	struct qcow2_snapshot_job *job; /* NULL: none */
	u16 disk[SECTORS];		/* of its moment */
	u16 vm[MOST_VM];
	u32 written; /* clusters of VM state so far */
};

struct run {
	const struct scenario *s;
	struct mem_disk disk, start;
	struct record_log log;
	struct image *img;
	struct view view[STEPS + 1]; /* after each step, which made it durable */
	size_t begun[STEPS + 1], ended[STEPS + 1];
	bool atomic[STEPS + 1];
	struct live live;
	u64 seed, judged;
	u16 stamp;
	u32 next_name, steps, shown;
	char path[64];
};

static void fill(u8 *sector, u16 stamp)
{
	for (u32 i = 0; i < 512; i += 2)
		memcpy(sector + i, &stamp, 2);
}

/* --- the run
 * ---------------------------------------------------------------------- */

/* Every sector at most once, so that it holds the old value or the new one. */
static void do_writes(struct fiber *f, struct run *r, struct view *v)
{
	u64 at = next_random(&r->seed) % 32;

	while (at + 24 < SECTORS) {
		u64 n = next_random(&r->seed) % 24 + 1;
		u8 buf[24 * 512];

		r->stamp++;
		for (u64 i = 0; i < n; i++) {
			fill(buf + i * 512, r->stamp);
			v->disk[at + i] = r->stamp;
		}
		assert_int_equal(image_pwrite(f, r->img, at * 512, buf, n * 512), 0);
		at += n + next_random(&r->seed) % 96;
	}
	assert_int_equal(image_flush(f, r->img), 0);
}

static void do_create(struct fiber *f, struct run *r, struct view *v)
{
	struct qcow2_new_snapshot s = {.date_sec = 1};
	char name[16];

	v->names[v->n] = r->next_name++;
	snprintf(name, sizeof(name), "%u", v->names[v->n]);
	s.name = name;
	assert_int_equal(qcow2_snapshot_create(f, r->img, &s), 0);
	memset(v->vm[v->n], 0, sizeof(v->vm[0]));
	memcpy(v->kept[v->n++], v->disk, sizeof(v->disk));
}

static void do_delete(struct fiber *f, struct run *r, struct view *v, u32 i)
{
	struct error err = {0};

	assert_int_equal(qcow2_snapshot_delete(f, r->img, i, &err), 0);
	v->n--;
	memmove(&v->names[i], &v->names[i + 1], (v->n - i) * sizeof(v->names[0]));
	memmove(&v->vm[i], &v->vm[i + 1], (v->n - i) * sizeof(v->vm[0]));
	memmove(&v->kept[i], &v->kept[i + 1], (v->n - i) * sizeof(v->kept[0]));
}

/* --- of a running machine
 * -------------------------------------------------------------- */

static void vm_cluster(const struct run *r, u8 *data, u16 stamp)
{
	for (u64 at = 0; at < r->s->cluster_bytes; at += 512)
		fill(data + at, stamp);
}

/* The area for VM state begins with what a snapshot has, or with nothing. */
static void live_prepare(struct fiber *f, struct run *r, struct view *v)
{
	struct error err = {0};
	u32 i = v->n ? (u32)(next_random(&r->seed) % v->n) : 0;

	if (v->n && next_random(&r->seed) % 3) {
		assert_int_equal(qcow2_vmstate_adopt(f, r->img, i, &err), 0);
		memcpy(r->live.vm, v->vm[i], sizeof(r->live.vm));
		return;
	}
	assert_int_equal(qcow2_vmstate_drop(f, r->img, 0, (u64)1 << 40), 0);
	memset(r->live.vm, 0, sizeof(r->live.vm));
}

/* The moment, and what is shown then. */
static void live_begin(struct fiber *f, struct run *r, struct view *v)
{
	live_prepare(f, r, v);
	assert_int_equal(qcow2_snapshot_begin(f, r->img, &r->live.job), 0);
	memcpy(r->live.disk, v->disk, sizeof(r->live.disk));
	assert_int_equal(qcow2_snapshot_keep(f, r->live.job), 0);
	r->live.written = 0;
}

static void live_write(struct fiber *f, struct run *r)
{
	u32 n = (u32)(next_random(&r->seed) % r->s->vm_clusters) + 1;
	AUTO_FREE u8 *data = try_alloc_aligned(r->s->cluster_bytes, 4096);
	u64 bytes = r->s->cluster_bytes;

	for (u32 i = 0; i < n; i++) {
		u64 at = next_random(&r->seed) % r->s->vm_clusters;
		struct iovec iov = {data, bytes};

		if (next_random(&r->seed) % 5 == 0) {
			assert_int_equal(qcow2_vmstate_drop(f, r->img, at * bytes, bytes), 0);
			r->live.vm[at] = 0;
			continue;
		}
		r->live.vm[at] = ++r->stamp;
		vm_cluster(r, data, r->stamp);
		assert_int_equal(qcow2_vmstate_write(f, r->img, at * bytes, &iov, 1), 0);
	}
	r->live.written += n;
}

static void live_finish(struct fiber *f, struct run *r, struct view *v)
{
	struct qcow2_new_snapshot s = {
		.date_sec = 1, .vm_state_bytes = (u64)r->s->vm_clusters * r->s->cluster_bytes};
	char name[16];

	/* The name of one that is there: it goes when the new one has come. */
	v->names[v->n] = v->n && next_random(&r->seed) % 2 ? v->names[0] : r->next_name++;
	snprintf(name, sizeof(name), "%u", v->names[v->n]);
	s.name = name;
	assert_int_equal(qcow2_snapshot_finish(f, r->live.job, &s), 0);
	r->live.job = NULL;
	memcpy(v->kept[v->n], r->live.disk, sizeof(v->disk));
	memcpy(v->vm[v->n++], r->live.vm, sizeof(r->live.vm));
}

/* The next step of a snapshot under way; is it atomic? */
static bool live_step(struct fiber *f, struct run *r, struct view *v)
{
	switch (next_random(&r->seed) % 5) {
	case 0:
	case 1: live_write(f, r); return true;
	case 2: do_writes(f, r, v); return false;
	case 3:
		if (r->live.written < 2)
			break;
		live_finish(f, r, v);
		return true;
	default:
		if (next_random(&r->seed) % 4)
			break;
		assert_int_equal(qcow2_snapshot_cancel(f, r->live.job), 0);
		r->live.job = NULL;
		return true;
	}
	live_write(f, r);
	return true;
}

static bool has_twins(const struct view *v)
{
	return v->n > 1 && v->names[0] == v->names[v->n - 1];
}

static bool do_step(struct fiber *f, struct run *r, struct view *v)
{
	u32 some = v->n ? (u32)(next_random(&r->seed) % v->n) : 0;
	struct error err = {0};

	if (r->live.job)
		return live_step(f, r, v);
	if (has_twins(v)) {
		do_delete(f, r, v, 0);
		return true;
	}
	if (r->s->live && v->n < MOST && next_random(&r->seed) % 2) {
		live_begin(f, r, v);
		return true;
	}
	switch (next_random(&r->seed) % 6) {
	case 0:
	case 1:
		if (v->n == MOST)
			do_delete(f, r, v, some);
		else
			do_create(f, r, v);
		return true;
	case 2:
		if (!v->n)
			break;
		do_delete(f, r, v, some);
		return true;
	case 3:
		if (!v->n)
			break;
		if (next_random(&r->seed) % 2)
			assert_int_equal(qcow2_snapshot_apply(f, r->img, some, &err), 0);
		else
			assert_int_equal(qcow2_snapshot_apply_disk(f, r->img, some, &err), 0);
		memcpy(v->disk, v->kept[some], sizeof(v->disk));
		return true;
	default: break;
	}
	do_writes(f, r, v);
	return false;
}

static void record(struct fiber *f, struct run *r)
{
	struct qcow2_create_options opt = {.bytes = BYTES,
					   .version = r->s->version,
					   .cluster_bytes = r->s->cluster_bytes,
					   .refcount_bits = r->s->refcount_bits,
					   .lazy_refcounts = r->s->lazy};
	struct open_policy policy = {.writable = true, .l2_cache_bytes = 32 * 1024};
	struct image *file = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	mem_disk_copy(&r->start, &r->disk);
	r->disk.seed = r->seed;
	file = mem_image_new(fiber_loop(f), &r->disk);
	assert_int_equal(filter_record_new(&file, file, &r->log), 0);
	assert_int_equal(image_open_over(f, &r->img, "qcow2", file, &policy, &err), 0);
	for (u32 i = 1; i <= r->steps; i++) {
		r->view[i] = r->view[i - 1];
		r->begun[i] = r->log.n;
		r->atomic[i] = do_step(f, r, &r->view[i]);
		r->ended[i] = r->log.n;
	}
	if (r->live.job)
		assert_int_equal(qcow2_snapshot_cancel(f, r->live.job), 0);
	assert_int_equal(image_close(f, r->img), 0);
}

/* --- what must hold
 * ------------------------------------------------------------------ */

static struct image *open_disk(struct fiber *f, struct mem_disk *disk, struct open_policy policy)
{
	struct image *img;
	struct error err = {0};

	if (image_open_over(f, &img, "qcow2", mem_image_new(fiber_loop(f), disk), &policy, &err))
		fail_msg("%s", err.text);
	return img;
}

static void check(struct fiber *f, struct mem_disk *disk, size_t events)
{
	struct image *img = open_disk(f, disk, (struct open_policy){.check_only = true});
	struct check_request req = {0};
	struct error err = {0};

	if (img->driver->check(f, img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("cut after event %zu: %llu corruptions", events,
			 (unsigned long long)req.result.corruptions);
	image_close(f, img);
}

static void read_sectors(struct fiber *f, struct image *img, u16 *out)
{
	AUTO_FREE u8 *data = xalloc(BYTES);

	assert_int_equal(img->bytes, BYTES);
	assert_int_equal(image_pread(f, img, 0, data, BYTES), 0);
	for (u32 i = 0; i < SECTORS; i++) {
		memcpy(&out[i], data + i * 512, 2);
		assert_memory_equal(data + i * 512, data + i * 512 + 2, 510);
	}
}

static void read_vm(struct fiber *f, const struct run *r, struct image *img, u16 *out)
{
	u64 bytes = r->s->cluster_bytes;
	AUTO_FREE u8 *data = xalloc(bytes);

	for (u32 i = 0; i < r->s->vm_clusters; i++) {
		struct iovec iov = {data, bytes};

		assert_int_equal(qcow2_vmstate_read(f, img, i * bytes, &iov, 1), 0);
		memcpy(&out[i], data, 2);
		assert_memory_equal(data, data + 2, bytes - 2);
	}
}

static void look(struct fiber *f, const struct run *r, struct mem_disk *disk, struct view *v)
{
	struct image *img = open_disk(f, disk, (struct open_policy){.writable = true});
	const struct qcow2_snapshot *list;
	char ids[MOST][16];

	read_sectors(f, img, v->disk);
	v->n = qcow2_snapshots(img, &list);
	assert_true(v->n <= MOST);
	for (u32 i = 0; i < v->n; i++) {
		snprintf(ids[i], sizeof(ids[i]), "%s", list[i].id);
		v->names[i] = (u32)atoi(list[i].name);
	}
	assert_int_equal(image_close(f, img), 0);
	for (u32 i = 0; i < v->n; i++) {
		char text[32];

		snprintf(text, sizeof(text), "snapshot.id=%s", ids[i]);
		img = open_disk(f, disk, (struct open_policy){.snapshot = text});
		read_sectors(f, img, v->kept[i]);
		read_vm(f, r, img, v->vm[i]);
		image_close(f, img);
	}
}

static bool same_snapshots(const struct view *a, const struct view *b)
{
	return a->n == b->n && !memcmp(a->names, b->names, a->n * sizeof(a->names[0])) &&
	       !memcmp(a->vm, b->vm, a->n * sizeof(a->vm[0])) &&
	       !memcmp(a->kept, b->kept, a->n * sizeof(a->kept[0]));
}

static bool same_disk(const struct view *a, const struct view *b)
{
	return !memcmp(a->disk, b->disk, sizeof(a->disk));
}

/* Is it step k's outcome, or what step k + 1 may have made of it? */
static bool may_be(const struct run *r, const struct view *v, u32 k, bool next)
{
	const struct view *a = &r->view[k], *b = &r->view[k + 1];

	if (same_snapshots(v, a) && same_disk(v, a))
		return true;
	if (!next)
		return false;
	if (r->atomic[k + 1])
		return same_snapshots(v, b) && same_disk(v, b);
	for (u32 i = 0; i < SECTORS; i++)
		if (v->disk[i] != a->disk[i] && v->disk[i] != b->disk[i])
			return false;
	return same_snapshots(v, a);
}

/* The reference's opinion. */
static void show(struct run *r, const struct mem_disk *disk, size_t events)
{
	char command[160];
	int fd = open(r->path, O_CREAT | O_TRUNC | O_WRONLY, 0600), status;

	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite(fd, disk->data, disk->bytes, 0), disk->bytes);
	close(fd);
	snprintf(command, sizeof(command), "qemu-img check -q -f qcow2 %s >/dev/null 2>&1",
		 r->path);
	status = system(command);
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3))
		fail_msg("cut after event %zu: qemu-img check ends with status %d", events,
			 WEXITSTATUS(status));
	r->shown++;
}

static void judge(struct fiber *f, struct mem_disk *disk, size_t events, void *arg)
{
	struct run *r = arg;
	struct view *v = xnew(struct view);
	u32 k = 0;

	while (k < r->steps && r->ended[k + 1] <= events)
		k++;
	if (!r->s->lazy) { /* else opening repairs first */
		check(f, disk, events);
		if (r->judged % 97 == 0)
			show(r, disk, events);
	}
	look(f, r, disk, v);
	check(f, disk, events);
	if (r->s->lazy && r->judged % 97 == 0)
		show(r, disk, events);
	if (!may_be(r, v, k, k < r->steps))
		fail_msg("cut after event %zu: neither before step %u nor after", events, k + 1);
	r->judged++;
	free(v);
}

static void replay(struct fiber *f, void *arg)
{
	struct run *r = xnew(struct run);
	struct cuts cuts = {.log = &r->log, .judge = judge, .arg = r};

	r->s = arg;
	r->steps = r->s->steps ? r->s->steps : STEPS;
	r->seed = cuts.seed = r->s->seed;
	cuts.samples = r->s->samples;
	strcpy(r->path, "/tmp/crash_snapshots_XXXXXX");
	close(mkstemp(r->path));
	record(f, r);
	cuts.start = &r->start;
	cuts_run(f, &cuts);
	print_message("%s: %zu events, %llu cuts, %u also checked by qemu-img\n", r->s->name,
		      r->log.n, (unsigned long long)r->judged, r->shown);
	assert_true(r->judged > 150);
	unlink(r->path);
	record_log_fini(&r->log);
	mem_disk_fini(&r->disk);
	mem_disk_fini(&r->start);
	free(r);
}

static void run_scenario(void **state, struct scenario s)
{
	const char *text = getenv("COWVM_CRASH_ROUNDS");
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 1;

	s.version = s.version ? s.version : 3;
	for (u32 i = 0; i < rounds; i++) {
		s.seed = 0x13198a2e03707344ull + s.cluster_bytes * 91 + i * 7919ull;
		s.samples = i ? 6 : 1;
		assert_int_equal(loop_run_fiber(*state, replay, &s), 0);
	}
}

static void power_cut_leaves_snapshots_whole_with_large_clusters(void **state)
{
	run_scenario(state, (struct scenario){.name = "64 KiB clusters", .cluster_bytes = 65536});
}

static void power_cut_leaves_snapshots_whole_with_small_clusters(void **state)
{
	run_scenario(state, (struct scenario){.name = "512 byte clusters, 64-bit refcounts",
					      .cluster_bytes = 512,
					      .refcount_bits = 64});
}

static void power_cut_leaves_snapshots_whole_in_version_2(void **state)
{
	run_scenario(state, (struct scenario){.name = "version 2, 4 KiB clusters",
					      .cluster_bytes = 4096,
					      .version = 2});
}

static void power_cut_leaves_snapshots_whole_with_lazy_refcounts(void **state)
{
	run_scenario(state, (struct scenario){.name = "lazy refcounts, 2 KiB clusters",
					      .cluster_bytes = 2048,
					      .lazy = true});
}

static void power_cut_of_a_live_snapshot_leaves_the_old_set_or_the_new(void **state)
{
	static const struct scenario all[] = {
		{"live, 64 KiB clusters", 65536, .vm_clusters = 4},
		{"live, 512 byte clusters, 64-bit refcounts", 512, 64, .vm_clusters = 6},
		{"live, lazy refcounts, 4 KiB clusters", 4096, .lazy = true, .vm_clusters = 6},
		{"live, version 2, 2 KiB clusters", 2048, 0, 2, .vm_clusters = 5},
		{"live, 2 MiB clusters", 2 * MiB, .vm_clusters = 2, .steps = 12},
	};

	for (u32 i = 0; i < ARRAY_LEN(all); i++) {
		struct scenario s = all[i];

		s.live = true;
		run_scenario(state, s);
	}
}

#define TESTS(X)                                                                                   \
	X(power_cut_leaves_snapshots_whole_with_large_clusters),                                   \
		X(power_cut_leaves_snapshots_whole_with_small_clusters),                           \
		X(power_cut_leaves_snapshots_whole_in_version_2),                                  \
		X(power_cut_leaves_snapshots_whole_with_lazy_refcounts),                           \
		X(power_cut_of_a_live_snapshot_leaves_the_old_set_or_the_new)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts and snapshots", tests, NULL, NULL);
}
