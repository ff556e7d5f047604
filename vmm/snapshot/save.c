/* savevm: the machine of one moment goes to disk while it runs on.
 *
 * 1. Memory to be saved is write-protected and the area for VM state is prepared,
 *    with the guest running.
 * 2. The moment: vCPUs parked, devices held, drives drained.  State of devices and
 *    vCPUs is copied, what was dirtied since 1 is protected too.  The guest goes on;
 *    writes to the disks wait until
 * 3. the disks as they are now are kept (one reference more, block/qcow2/snapshot.h).
 * 4. Memory goes to the area, what the guest wants to write first (ram_save.h).
 * 5. CRCs, manifest, state and header go there; then the entries appear, the one with
 *    the VM state last.  An older set of this name goes away after that.
 * A crash before the last entry of 5 leaves leaked clusters, or entries that make
 * no complete set.
 * While memory of a loaded snapshot is still coming in, all of this waits for it.
 * Without userfaultfd memory is saved first, with the guest running, and again what
 * it wrote meanwhile, until little is left or that is of no use: then come 2 and 3, with
 * the guest standing still until the rest is saved too.
 * Threads: control; ram_save's workers run the sink. */
#include "vmm/snapshot/snapshot.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "base/thread.h"
#include "block/blk.h"
#include "vmm/control_block.h"
#include "vmm/snapshot/copies.h"
#include "vmm/vmstate.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

/* Without userfaultfd: how much may be left for the moment, and how often to try. */
#define LAST_UNITS (8 * MiB / RAM_UNIT)
#define MAX_PASSES 12

struct save_job {
	struct snapshots *s;
	struct drive_set set;
	struct qcow2_snapshot_job *disks[SET_MAX_DRIVES]; /* NULL: none yet, or no more */
	struct area area;				  /* in the first drive */
	bool area_there;
	struct vm_waiter *waiter; /* NULL: nobody waits */
	bool begun;		  /* else memory is still coming in: save_load_ended */
	char *tag;
	struct qcow2_new_snapshot entry;
	u64 *bits;  /* units to save */
	u64 *zeros; /* units that are zeros, because nobody has touched them */
	u64 *pass;  /* of those, in the pass that goes on before the moment; NULL: live */
	u32 passes;
	u64 pass_units;
	bool moment_over;
	u32 *crcs;
	u32 *working_set; /* NULL: none */
	u32 n_working_set;
	struct state_buf state;
	char *manifest;
	struct ram_save *ram;
	u64 begun_ns;
	struct loop_call ended; /* posted by the last worker */
	bool end_posted;	/* [atomic] */
	struct loop_timer tick;
};

/* --- on the drives' loops ------------------------------------------------------- */

struct image_call {
	struct qcow2_snapshot_job **job;
	const struct qcow2_new_snapshot *entry;
};

static int begin_disk(struct fiber *f, struct blk *blk, void *arg)
{
	const struct image_call *c = arg;

	return qcow2_snapshot_begin(f, blk_image(blk), c->job);
}

static int keep_disk(struct fiber *f, struct blk *blk, void *arg)
{
	const struct image_call *c = arg;

	return qcow2_snapshot_keep(f, *c->job);
}

static int finish_disk(struct fiber *f, struct blk *blk, void *arg)
{
	const struct image_call *c = arg;

	return qcow2_snapshot_finish(f, *c->job, c->entry);
}

static int cancel_disk(struct fiber *f, struct blk *blk, void *arg)
{
	const struct image_call *c = arg;

	return qcow2_snapshot_cancel(f, *c->job);
}

static int each_disk(struct save_job *job, blk_fn *fn, const char *what, struct error *err)
{
	int ret = 0;

	for (u32 i = 0; i < job->set.n; i++) {
		struct image_call c = {.job = &job->disks[i]};
		int one = blk_run(job->set.drives[i]->blk, fn, &c);

		if (one < 0 && ret == 0)
			ret = err_set_errno(err, one, "%s: cannot %s",
					    job->set.drives[i]->config->id, what);
	}
	return ret;
}

/* [worker] */
static int sink(void *arg, const struct ram_batch *b)
{
	struct save_job *job = arg;
	struct snap_header h;
	const u64 none[SNAP_PARTS] = {0};

	snap_layout(&h, job->s->map.units, none);
	return area_write(&job->area, h.ram_off + b->unit * RAM_UNIT, b->data, b->n * RAM_UNIT);
}

/* [fault thread] Only vCPUs may wait for the disk: the drives' threads may not. */
static bool may_wait(void *arg, u32 thread)
{
	struct save_job *job = arg;
	struct vcpus *v = job->s->vm->vcpus;

	for (u32 i = 0; i < vcpus_count(v); i++)
		if (vcpu_thread_id(vcpus_get(v, i)) == thread)
			return true;
	return false;
}

static void memory_done(void *arg)
{
	struct save_job *job = arg;

	/* Partner: save_free, which runs what has been posted. */
	__atomic_store_n(&job->end_posted, true, __ATOMIC_RELEASE);
	loop_post(job->s->vm->loop, &job->ended);
}

/* --- the end -------------------------------------------------------------------- */

void save_free(struct save_job *job)
{
	if (!job)
		return;
	if (job->s->save == job) /* on_ended has nothing to do any more */
		job->s->save = NULL;
	ram_save_free(job->ram);
	for (u32 i = 0; i < job->set.n; i++) {
		struct image_call call = {.job = &job->disks[i]};

		if (job->disks[i]) /* at worst leaks remain */
			(void)blk_run(job->set.drives[i]->blk, cancel_disk, &call);
	}
	if (job->area_there)
		area_fini(&job->area);
	loop_timer_del(&job->tick);
	if (__atomic_load_n(&job->end_posted, __ATOMIC_ACQUIRE))
		loop_run_posted(job->s->vm->loop);
	state_buf_fini(&job->state);
	free(job->manifest);
	free(job->zeros);
	free(job->bits);
	free(job->pass);
	free(job->working_set);
	free(job->crcs);
	free(job->tag);
	free(job);
}

static int write_parts(struct save_job *job, struct error *err)
{
	const u64 bytes[SNAP_PARTS] = {[SNAP_MANIFEST] = strlen(job->manifest),
				       [SNAP_STATE] = job->state.bytes,
				       [SNAP_WORKING_SET] = job->n_working_set * sizeof(u32)};
	const void *parts[SNAP_PARTS] = {[SNAP_CRCS] = job->crcs,
					 [SNAP_MANIFEST] = job->manifest,
					 [SNAP_STATE] = job->state.data,
					 [SNAP_WORKING_SET] = job->working_set};
	struct snap_header h;
	u8 page[SNAP_HEADER_BYTES];
	int ret = 0;

	snap_layout(&h, job->s->map.units, bytes);
	for (unsigned i = 0; ret == 0 && i < SNAP_PARTS; i++) {
		h.parts[i].crc = crc32c(0, parts[i], h.parts[i].bytes);
		ret = area_write(&job->area, h.parts[i].off, parts[i], h.parts[i].bytes);
	}
	snap_header_encode(&h, page);
	if (ret == 0)
		ret = area_write(&job->area, 0, page, sizeof(page));
	job->entry.vm_state_bytes = h.area_bytes;
	return ret < 0 ? err_set_errno(err, ret, "cannot write the VM state") : 0;
}

/* The drive with the VM state last: with it the set is complete. */
static int make_entries(struct save_job *job, struct error *err)
{
	int ret = 0;

	for (u32 i = job->set.n; ret == 0 && i-- > 0;) {
		struct qcow2_new_snapshot entry = job->entry;
		struct image_call call = {.job = &job->disks[i], .entry = &entry};

		if (i)
			entry.vm_state_bytes = 0;
		ret = blk_run(job->set.drives[i]->blk, finish_disk, &call);
		if (ret < 0)
			return err_set_errno(err, ret, "%s: cannot create the snapshot",
					     job->set.drives[i]->config->id);
		job->disks[i] = NULL;
	}
	return ret;
}

/* From now on memory is counted from this snapshot. */
static void set_base(struct save_job *job)
{
	struct snapshots *s = job->s;

	snapshot_entry_fini(&s->base);
	s->base = (struct qcow2_snapshot){.id = xstrdup(""),
					  .name = xstrdup(job->tag),
					  .date_sec = job->entry.date_sec,
					  .date_nsec = job->entry.date_nsec,
					  .vm_clock_ns = job->entry.vm_clock_ns};
}

/* What the guest needs first from there on: what it wrote first, and what it asked for
 * when it last went on from a snapshot. */
static void note_working_set(struct save_job *job)
{
	struct snapshots *s = job->s;
	u32 n;

	job->working_set = xnew_n(u32, RAM_WORKING_SET);
	n = ram_save_working_set(job->ram, job->working_set, RAM_WORKING_SET);
	for (u32 i = 0; i < s->n_asked && n < RAM_WORKING_SET; i++)
		job->working_set[n++] = s->asked[i];
	job->n_working_set = n;
}

static int wait_for_memory(struct save_job *job, struct error *err)
{
	int ret = ram_save_wait(job->ram);

	if (ret == -ECANCELED)
		return err_set(err, ret, "cancelled");
	return ret < 0 ? err_set_errno(err, ret, "cannot write guest memory") : 0;
}

static void count_memory(struct save_job *job)
{
	struct ram_progress p;

	ram_save_progress(job->ram, &p);
	job->s->ram_written += (p.units - p.zeros) * RAM_UNIT;
}

/* What nobody has touched has no place in the area. */
static int drop_zeros(struct save_job *job, struct error *err)
{
	const struct ram_map *map = &job->s->map;
	int ret = 0;
	u64 n;

	for (u64 at = 0; ret == 0 && (n = ram_next_run(map, job->zeros, &at, UINT64_MAX));
	     at += n) {
		const struct ram_batch none = {.unit = at, .n = n};

		memset(job->crcs + at, 0, n * sizeof(*job->crcs));
		ret = sink(job, &none);
	}
	return ret < 0 ? err_set_errno(err, ret, "cannot write guest memory") : 0;
}

static int complete(struct save_job *job, struct error *err)
{
	u32 count;
	int ret = wait_for_memory(job, err);

	if (ret < 0)
		return ret;
	count_memory(job);
	note_working_set(job);
	/* Nobody writes protected memory any more: no faults from here on. */
	ram_save_free(job->ram);
	job->ram = NULL;
	ret = drop_zeros(job, err);
	if (ret == 0)
		ret = write_parts(job, err);
	if (ret == 0)
		ret = make_entries(job, err);
	if (ret < 0)
		return ret;
	set_base(job);
	return set_delete(&job->set, job->tag, &job->s->base, &count, err);
}

/* What was to be saved is still dirty. */
static void keep_dirty(struct save_job *job)
{
	struct ram_map *map = &job->s->map;

	for (u64 i = 0; i < ram_bitmap_bytes(map) / sizeof(u64); i++)
		map->dirty[i] |= job->bits[i] | job->zeros[i];
}

static void job_ends(struct save_job *job, int ret, const struct error *err)
{
	struct vm_waiter *w = job->waiter;
	struct snapshots *s = job->s;

	if (ret < 0 && job->zeros && s->base.date_nsec != job->entry.date_nsec)
		keep_dirty(job);
	s->total_ns = now_ns() - job->begun_ns;
	if (ret < 0 && !w)
		log_error("snapshot '%s': %s", job->tag, err->text);
	save_free(job);
	if (w)
		w->done(w, ret, err->text);
}

static void on_tick(struct loop_timer *timer)
{
	struct save_job *job = container_of(timer, struct save_job, tick);
	struct ram_progress p = {0};

	if (!job->waiter || (job->begun && !job->ram))
		return;
	if (job->ram)
		ram_save_progress(job->ram, &p);
	else
		load_progress(job->s, &p.done, &p.units);
	job->waiter->progress(job->waiter, p.done * RAM_UNIT, p.units * RAM_UNIT);
	loop_timer_set(&job->tick, now_ns() + SNAPSHOT_TICK_NS);
}

/* --- the moment ------------------------------------------------------------------- */

static void fill_entry(struct save_job *job)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	job->entry = (struct qcow2_new_snapshot){
		.name = job->tag,
		.date_sec = (u32)now.tv_sec,
		.date_nsec = (u32)now.tv_nsec,
		.vm_clock_ns = clock_now(job->s->vm->machine.clock),
		.icount = QCOW2_NO_ICOUNT,
	};
}

static int copy_state(struct save_job *job, struct error *err)
{
	struct ram_map *map = &job->s->map;
	int ret = vmstate_save(job->s->vm, &job->state, err);

	if (ret < 0)
		return ret;
	ram_save_moment(job->ram, map->dirty);
	ret = ram_collect(map, map->dirty);
	if (ret == 0)
		ret = ram_save_protect(job->ram, map->dirty);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot protect guest memory");
	for (u64 i = 0; i < ram_bitmap_bytes(map) / sizeof(u64); i++) {
		job->bits[i] |= map->dirty[i];
		job->zeros[i] &= ~map->dirty[i];
		if (job->pass) /* the rest has been saved */
			job->pass[i] = map->dirty[i];
		map->dirty[i] = 0;
	}
	return 0;
}

/* Writes to the disks, also those of the VM state, wait from the moment on until their
 * content is kept; the guest goes on as soon as its state is copied, or, if not live,
 * the rest of its memory is saved. */
static int take_moment(struct save_job *job, bool live, struct error *err)
{
	struct vm *vm = job->s->vm;
	const char *keep = "keep its content";
	u64 start = now_ns();
	int ret;

	vm_freeze(vm);
	job->moment_over = true;
	fill_entry(job);
	ret = copy_state(job, err);
	if (ret == 0)
		ret = each_disk(job, begin_disk, "begin a snapshot", err);
	if (ret == 0 && !live)
		ret = each_disk(job, keep_disk, keep, err);
	if (ret == 0)
		ret = ram_save_start(job->ram, live ? job->bits : job->pass, err);
	if (ret == 0 && !live)
		ret = wait_for_memory(job, err);
	vm_thaw(vm);
	job->s->pause_ns = now_ns() - start;
	return ret == 0 && live ? each_disk(job, keep_disk, keep, err) : ret;
}

/* --- the beginning ---------------------------------------------------------------- */

/* CRCs of what is not saved again, as the area has them now. */
static int load_crcs(struct save_job *job)
{
	u8 page[SNAP_HEADER_BYTES];
	struct snap_header h;
	struct error err;
	int ret = area_read(&job->area, 0, page, sizeof(page));

	if (ret == 0)
		ret = snap_header_decode(&h, page, &err);
	if (ret < 0 || h.units != job->s->map.units)
		return -EINVAL;
	ret = area_read(&job->area, h.parts[SNAP_CRCS].off, job->crcs, h.parts[SNAP_CRCS].bytes);
	if (ret == 0 && crc32c(0, job->crcs, h.parts[SNAP_CRCS].bytes) != h.parts[SNAP_CRCS].crc)
		ret = -EBADMSG;
	return ret;
}

/* The area shows what memory is counted from, or nothing and all of it is saved. */
static int prepare_area(struct save_job *job, struct error *err)
{
	struct snapshots *s = job->s;
	int ret = -ENOENT;

	area_init(&job->area, job->set.drives[0]->blk);
	job->area_there = true;
	if (s->base.name && s->map.tracking)
		ret = area_adopt(&job->area, &s->base, err);
	if (ret == 0)
		ret = load_crcs(job);
	if (ret == 0)
		return 0;
	snapshots_forget_base(s);
	memset(job->crcs, 0, s->map.units * sizeof(u32));
	return area_clear(&job->area, err);
}

static int new_ram_save(struct save_job *job, bool live, struct error *err)
{
	struct ram_save_options opt = {.map = &job->s->map,
				       .sink = sink,
				       .may_wait = may_wait,
				       .done = memory_done,
				       .arg = job,
				       .crcs = job->crcs,
				       .early_units = copies_budget(job->s->map.units),
				       .live = live};

	return ram_save_new(&job->ram, &opt, err);
}

/* --- without userfaultfd ------------------------------------------------------------ */

static u64 count_bits(const struct ram_map *map, const u64 *bits)
{
	u64 n = 0;

	for (u64 i = 0; i < ram_bitmap_bytes(map) / sizeof(u64); i++)
		n += (u64)__builtin_popcountll(bits[i]);
	return n;
}

/* Save what is dirty, while the guest goes on. */
static int start_pass(struct save_job *job, struct error *err)
{
	struct ram_map *map = &job->s->map;

	job->passes++;
	memcpy(job->pass, map->dirty, ram_bitmap_bytes(map));
	memset(map->dirty, 0, ram_bitmap_bytes(map));
	for (u64 i = 0; i < ram_bitmap_bytes(map) / sizeof(u64); i++)
		job->bits[i] |= job->pass[i];
	job->pass_units = count_bits(map, job->pass);
	return ram_save_start(job->ram, job->pass, err);
}

static int next_pass(struct save_job *job, struct error *err)
{
	struct ram_map *map = &job->s->map;
	int ret = wait_for_memory(job, err);
	u64 left;

	if (ret < 0)
		return ret;
	count_memory(job);
	ram_save_free(job->ram);
	job->ram = NULL;
	ret = new_ram_save(job, false, err);
	if (ret < 0)
		return ret;
	ret = ram_collect(map, map->dirty);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot log writes to guest memory");
	left = count_bits(map, map->dirty);
	/* A pass that leaves nearly as much as it saved will never be the last. */
	if (left > LAST_UNITS && left < job->pass_units - job->pass_units / 8 &&
	    job->passes < MAX_PASSES)
		return start_pass(job, err);
	return take_moment(job, false, err);
}

static int begin_passes(struct save_job *job, struct error *err)
{
	int ret;

	log_info("savevm: %s: the guest will stand still for the end of saving its memory",
		 err->text);
	job->pass = try_alloc(ram_bitmap_bytes(&job->s->map));
	if (!job->pass)
		return err_set(err, -ENOMEM, "no memory for a snapshot");
	ret = new_ram_save(job, false, err);
	return ret < 0 ? ret : start_pass(job, err);
}

static void on_ended(struct loop_call *call)
{
	struct save_job *job = container_of(call, struct save_job, ended);
	struct error err = {0};
	int ret;

	__atomic_store_n(&job->end_posted, false, __ATOMIC_RELAXED);
	if (job->s->save != job) /* being freed */
		return;
	if (job->moment_over) {
		ret = complete(job, &err);
		job_ends(job, ret, &err);
		return;
	}
	ret = next_pass(job, &err);
	if (ret < 0)
		job_ends(job, ret, &err);
}

static int begin(struct save_job *job, struct error *err)
{
	struct snapshots *s = job->s;
	struct ram_map *map = &s->map;
	int ret = drive_set_init(&job->set, s->vm, err);

	job->begun = true;
	job->begun_ns = now_ns();
	s->ram_written = 0;
	if (ret < 0)
		return ret;
	job->crcs = try_alloc(map->units * sizeof(u32));
	job->bits = try_alloc(ram_bitmap_bytes(map));
	job->zeros = try_alloc(ram_bitmap_bytes(map));
	if (!job->crcs || !job->bits || !job->zeros)
		return err_set(err, -ENOMEM, "no memory for a snapshot");
	job->manifest = vmstate_manifest(s->vm);
	ret = prepare_area(job, err);
	if (ret < 0)
		return ret;
	if (!map->tracking)
		ret = ram_track(map, true);
	if (ret == 0)
		ret = ram_collect(map, map->dirty);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot log writes to guest memory");
	ret = new_ram_save(job, true, err);
	s->live = ret == 0;
	if (ret == -EPERM || ret == -ENOSYS || ret == -ENOENT || ret == -EINVAL)
		return begin_passes(job, err);
	if (ret < 0)
		return ret;
	ram_untouched(map, map->dirty, job->zeros);
	for (u64 i = 0; i < ram_bitmap_bytes(map) / sizeof(u64); i++)
		job->bits[i] = map->dirty[i] & ~job->zeros[i];
	memset(map->dirty, 0, ram_bitmap_bytes(map));
	ret = ram_save_protect(job->ram, job->bits);
	return ret < 0 ? err_set_errno(err, ret, "cannot protect guest memory")
		       : take_moment(job, true, err);
}

static char *made_up_tag(void)
{
	char text[32];
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(text, sizeof(text), "vm-%Y%m%d%H%M%S", &tm);
	return xstrdup(text);
}

int vm_savevm(struct vm *vm, const struct vm_savevm *opt, struct vm_waiter *w, struct error *err)
{
	struct snapshots *s;
	struct save_job *job;
	int ret = snapshots_of(vm, &s, err);

	if (ret < 0)
		return ret;
	if (s->save)
		return err_set(err, -EBUSY, "a snapshot is being taken");
	ret = delete_none(s, err);
	if (ret < 0)
		return ret;
	job = xnew(struct save_job);
	job->s = s;
	job->tag = opt->tag ? xstrdup(opt->tag) : made_up_tag();
	if (opt->overlays)
		ret = vm_snapshot_blkdev_all(vm, job->tag, true, opt->out, err);
	job->ended.fn = on_ended;
	loop_timer_init(vm->loop, &job->tick, on_tick);
	s->save = job;
	if (ret == 0 && !s->load)
		ret = begin(job, err);
	if (ret < 0) {
		if (job->zeros)
			keep_dirty(job);
		save_free(job);
		return ret;
	}
	job->waiter = w;
	loop_timer_set(&job->tick, now_ns() + SNAPSHOT_TICK_NS);
	return 0;
}

void save_load_ended(struct snapshots *s, int ret)
{
	struct save_job *job = s->save;
	struct error err = {0};

	if (!job || job->begun)
		return;
	if (ret == -ECANCELED)
		err_set(&err, ret, "cancelled");
	else if (ret < 0)
		err_set_errno(&err, ret, "the snapshot that is being loaded");
	else
		ret = begin(job, &err);
	if (ret < 0)
		job_ends(job, ret, &err);
}

void save_forget_waiter(struct snapshots *s, struct vm_waiter *w)
{
	if (s->save && s->save->waiter == w)
		s->save->waiter = NULL;
}

int vm_snapshot_cancel(struct vm *vm, struct error *err)
{
	if (vm->snapshots && vm->snapshots->del) {
		delete_cancel(vm->snapshots);
		return 0;
	}
	if (!vm->snapshots || !vm->snapshots->save)
		return err_set(err, -ENOENT, "no snapshot is being taken");
	if (!vm->snapshots->save->begun)
		save_load_ended(vm->snapshots, -ECANCELED);
	else if (vm->snapshots->save->ram)
		ram_save_cancel(vm->snapshots->save->ram);
	return 0;
}

static void save_info(struct snapshots *s, struct printer *p)
{
	struct ram_progress r;

	if (!s || !s->save) {
		print_to(p, "No snapshot is being taken\n");
		if (s && s->total_ns)
			print_to(p,
				 "Last one: guest stood still for %llu us, %llu ms in all, %llu "
				 "bytes of memory written (%s)\n",
				 (unsigned long long)(s->pause_ns / 1000),
				 (unsigned long long)(s->total_ns / NS_PER_MS),
				 (unsigned long long)s->ram_written,
				 s->live	    ? "live"
				 : s->map.anonymous ? "in passes: no userfaultfd"
						    : "in passes: guest memory lies in a file");
		return;
	}
	if (!s->save->begun) {
		load_progress(s, &r.done, &r.units);
		print_to(p,
			 "Snapshot '%s': waits for the one that is being loaded, %llu of %llu "
			 "MiB\n",
			 s->save->tag, (unsigned long long)(r.done * RAM_UNIT / MiB),
			 (unsigned long long)(r.units * RAM_UNIT / MiB));
		return;
	}
	ram_save_progress(s->save->ram, &r);
	print_to(p, "Snapshot '%s': %llu of %llu MiB saved, %llu early writes, %llu waited\n",
		 s->save->tag, (unsigned long long)(r.done * RAM_UNIT / MiB),
		 (unsigned long long)(r.units * RAM_UNIT / MiB), (unsigned long long)r.faults,
		 (unsigned long long)r.waited);
}

void vm_info_snapshot_job(struct vm *vm, struct printer *p)
{
	save_info(vm->snapshots, p);
	if (vm->snapshots)
		load_info(vm->snapshots, p);
}
