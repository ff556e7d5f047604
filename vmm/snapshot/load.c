/* loadvm: back to the machine of a moment.
 *
 * 1. Everything but memory is read, checked and decoded; a machine that is not the
 *    one that was saved is refused with the list of differences.  Nothing has changed.
 *    What this snapshot shares with the one that memory is counted from is noted:
 *    where memory was not written since, it stays.
 * 2. The machine stops, and the disks begin to become what they were (each of them
 *    atomically).  Requests wait until they are; nothing else does.
 * 3. Memory is thrown away and comes in on demand (ram_load.h), by a reader of its own
 *    on the image file: the drive's thread may itself wait for memory.  Without
 *    userfaultfd, or such a reader, all of it is read now.
 * 4. State of devices, interrupt chips and vCPUs is put in place, and the guest goes on.
 * Threads: control; the source runs on ram_load's threads. */
#include "vmm/snapshot/snapshot.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "block/blk_task.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/unlock.h"
#include "vmm/blockdev.h"
#include "vmm/vmstate.h"

#include <errno.h>

/* Runs of memory that are kept: more are not worth it. */
#define MOST_RUNS 512

struct apply_call {
	struct blk_task task;
	const struct qcow2_snapshot *entry;
	struct error err;
};

struct load_job {
	struct snapshots *s;
	struct drive_set set;
	struct apply_call *disks;    /* of each drive, under way; NULL: none is */
	struct qcow2_snapshot entry; /* in the first drive */
	struct blk *reader;	     /* of the snapshot's image, with a thread of its own */
	struct area area;	     /* as it shows it */
	struct snap_header header;
	char *manifest;
	struct state_buf state;
	u32 *crcs;
	struct vmstate *decoded;
	u32 *working_set; /* units */
	u64 *same;	  /* bits of memory that the base has in the same clusters; NULL: none */
	u64 *keep;	  /* bits of memory that is as in the snapshot; NULL: none */
	struct ram_load *ram;
	struct loop_call ended; /* posted when all memory is there */
	bool end_posted;	/* [atomic] */
	bool live;		/* memory is still coming in */
};

/* --- on the drives' loops ------------------------------------------------------- */

static int apply(struct fiber *f, struct blk *blk, void *arg)
{
	struct apply_call *c = arg;
	int index = snapshot_index(blk_image(blk), c->entry), ret;

	if (index < 0)
		return err_set(&c->err, index, "the snapshot has gone");
	ret = qcow2_snapshot_apply_disk(f, blk_image(blk), (u32)index, &c->err);
	if (ret == 0)
		blk_image_changed(blk);
	return ret;
}

/* --- reading and judging ---------------------------------------------------------- */

static int read_part(struct load_job *job, enum snap_part part, const char *what, void *data,
		     struct error *err)
{
	u64 bytes = job->header.parts[part].bytes;
	int ret = area_read(&job->area, job->header.parts[part].off, data, bytes);

	if (ret < 0)
		return err_set_errno(err, ret, "snapshot '%s': cannot read its %s", job->entry.name,
				     what);
	if (crc32c(0, data, bytes) != job->header.parts[part].crc)
		return err_set(err, -EBADMSG, "snapshot '%s': its %s is damaged", job->entry.name,
			       what);
	return 0;
}

static int read_header(struct load_job *job, struct error *err)
{
	u8 page[SNAP_HEADER_BYTES];
	int ret = area_read(&job->area, 0, page, sizeof(page));

	if (ret < 0)
		return err_set_errno(err, ret, "snapshot '%s': cannot read its header",
				     job->entry.name);
	ret = snap_header_decode(&job->header, page, err);
	if (ret < 0)
		return err_prefix(err, "snapshot '%s'", job->entry.name);
	return 0;
}

static int compare(struct load_job *job, struct printer *p, struct error *err)
{
	AUTO_FREE char *now = vmstate_manifest(job->s->vm);
	u64 bytes = job->header.parts[SNAP_MANIFEST].bytes;
	unsigned differences;
	int ret;

	job->manifest = try_alloc(bytes + 1);
	if (!job->manifest)
		return err_set_errno(err, -ENOMEM, "snapshot '%s'", job->entry.name);
	ret = read_part(job, SNAP_MANIFEST, "description of the machine", job->manifest, err);
	if (ret < 0)
		return ret;
	differences = vmstate_compare(job->manifest, now, p);
	if (!differences && job->header.units == job->s->map.units)
		return 0;
	return err_set(err, -EINVAL, "Snapshot '%s' is of a machine that differs from this one",
		       job->entry.name);
}

/* The descriptor of the file that the drive's image lies in. */
static int image_fd(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk_image(blk);

	while (img->below)
		img = img->below;
	return img->driver == &file_driver ? file_fd(img) : -ENOTSUP;
}

/* By its descriptor: an overlay of -snapshot has no name, another one may have been
 * taken by another file. */
static int open_reader(struct load_job *job, struct error *err)
{
	int fd = blk_run(job->set.drives[0]->blk, image_fd, NULL);
	AUTO_FREE char *file = fd < 0 ? xstrdup(blk_file(job->set.drives[0]->blk))
				      : xasprintf("/proc/self/fd/%d", fd);
	static const struct unlock_policy later = {.when = UNLOCK_LATER};
	struct blk_options options = {.id = "loadvm",
				      .file = file,
				      .format = "qcow2",
				      .readonly = true,
				      .unlock = &later,
				      .vm_state_of = job->entry.id};
	int ret = blk_open(&job->reader, &options, err);

	if (ret < 0)
		return err_prefix(err, "snapshot '%s'", job->entry.name);
	area_init(&job->area, job->reader);
	ret = area_unlock(&job->area, job->set.drives[0]->blk);
	return ret < 0 ? err_set_errno(err, ret, "snapshot '%s': its image", job->entry.name) : 0;
}

struct same_call {
	const struct qcow2_snapshot *base;
	struct qcow2_vmstate_pieces pieces;
};

static int find_same(struct fiber *f, struct blk *blk, void *arg)
{
	const struct same_call *c = arg;
	int index = snapshot_index(blk_image(blk), c->base);

	return index < 0 ? index : qcow2_vmstate_compare(f, blk_image(blk), (u32)index, &c->pieces);
}

/* What both this snapshot and the one that memory is counted from refer to. */
static void compare_base(struct load_job *job)
{
	struct snapshots *s = job->s;
	u64 bytes = ram_bitmap_bytes(&s->map);
	struct same_call c = {&s->base, {job->header.ram_off, RAM_UNIT, s->map.units, NULL}};

	if (!s->base.name || !s->map.tracking)
		return;
	c.pieces.bits = job->same = try_alloc(bytes);
	if (!job->same)
		return;
	memset(job->same, 0xff, bytes);
	if (snapshot_is_same(&s->base, &job->entry) || blk_run(job->reader, find_same, &c) == 0)
		return;
	free(job->same);
	job->same = NULL;
}

static int read_all(struct load_job *job, struct printer *p, struct error *err)
{
	struct state_buf in;
	int ret = open_reader(job, err);

	if (ret == 0)
		ret = read_header(job, err);
	if (ret == 0)
		ret = compare(job, p, err);
	if (ret < 0)
		return ret;
	job->crcs = try_alloc(job->header.parts[SNAP_CRCS].bytes);
	job->state.bytes = job->header.parts[SNAP_STATE].bytes;
	job->state.data = try_alloc(job->state.bytes);
	job->state.room = job->state.bytes;
	job->working_set = try_alloc(MAX(job->header.parts[SNAP_WORKING_SET].bytes, 1u));
	if (!job->crcs || !job->state.data || !job->working_set)
		return err_set_errno(err, -ENOMEM, "snapshot '%s'", job->entry.name);
	ret = read_part(job, SNAP_CRCS, "table of checksums", job->crcs, err);
	if (ret == 0)
		ret = read_part(job, SNAP_STATE, "state of devices", job->state.data, err);
	if (ret == 0)
		ret = read_part(job, SNAP_WORKING_SET, "working set", job->working_set, err);
	if (ret < 0)
		return ret;
	in = (struct state_buf){.data = job->state.data, .bytes = job->state.bytes};
	ret = vmstate_decode(job->s->vm, &in, &job->decoded, err);
	if (ret < 0)
		return err_prefix(err, "snapshot '%s'", job->entry.name);
	compare_base(job);
	return 0;
}

/* --- memory ----------------------------------------------------------------------- */

static int source(void *arg, u64 unit, u64 n, u8 *data)
{
	struct load_job *job = arg;

	return area_read(&job->area, job->header.ram_off + unit * RAM_UNIT, data, n * RAM_UNIT);
}

static void failed(void *arg, u64 unit, int ret)
{
	struct load_job *job = arg;

	log_error("snapshot '%s': memory unit %llu %s", job->entry.name, (unsigned long long)unit,
		  ret == -EBADMSG ? "is damaged" : "cannot be read");
	vm_lost_memory(job->s->vm);
}

/* [loader] */
static void memory_done(void *arg)
{
	struct load_job *job = arg;

	/* Partner: load_free, which runs what has been posted. */
	__atomic_store_n(&job->end_posted, true, __ATOMIC_RELEASE);
	loop_post(job->s->vm->loop, &job->ended);
}

static void on_ended(struct loop_call *call)
{
	struct load_job *job = container_of(call, struct load_job, ended);
	struct snapshots *s = job->s;
	int ret;

	__atomic_store_n(&job->end_posted, false, __ATOMIC_RELAXED);
	if (s->load != job)
		return;
	ret = ram_load_result(job->ram);
	load_free(job);
	snapshots_load_ended(s, ret);
}

static int load_memory(struct load_job *job, struct error *err)
{
	struct ram_load_options opt = {
		.map = &job->s->map,
		.source = source,
		.failed = failed,
		.done = memory_done,
		.arg = job,
		.crcs = job->crcs,
		.keep = job->keep,
		.first_units = job->working_set,
		.n_first = (u32)(job->header.parts[SNAP_WORKING_SET].bytes / sizeof(u32)),
		.live = true};
	int ret = ram_load_start(&job->ram, &opt, err);

	if (ret == -EPERM || ret == -ENOSYS || ret == -ENOENT || ret == -EINVAL) {
		log_warn("loadvm: %s: all memory is read before the guest goes on", err->text);
		opt.live = false;
		ret = ram_load_start(&job->ram, &opt, err);
	}
	job->live = opt.live;
	return ret < 0 ? err_prefix(err, "snapshot '%s'", job->entry.name) : 0;
}

/* Memory is as in the snapshot: from here on its changes count.  Devices and KVM (its
 * clock) may write to it as soon as they get their state. */
static int start_counting(struct load_job *job)
{
	struct snapshots *s = job->s;
	int ret = s->map.tracking ? 0 : ram_track(&s->map, true);

	if (ret == 0)
		ret = ram_collect(&s->map, s->map.dirty);
	if (ret < 0) {
		snapshots_forget_base(s);
		return ret;
	}
	memset(s->map.dirty, 0, ram_bitmap_bytes(&s->map));
	snapshot_entry_fini(&s->base);
	s->base = job->entry;
	s->base.id = xstrdup(job->entry.id);
	s->base.name = xstrdup(job->entry.name);
	return 0;
}

/* --- loadvm ----------------------------------------------------------------------- */

static void take_leave(struct load_job *job)
{
	struct snapshots *s = job->s;

	if (ram_load_result(job->ram) < 0)
		snapshots_forget_base(s); /* part of it is zeros */
	free(s->asked);
	s->asked = xnew_n(u32, RAM_WORKING_SET);
	s->n_asked = ram_load_working_set(job->ram, s->asked, RAM_WORKING_SET);
	ram_load_progress(job->ram, &s->loaded);
	s->loaded_live = job->live;
}

void load_free(struct load_job *job)
{
	if (!job)
		return;
	if (job->s->load == job) /* on_ended has nothing to do any more */
		job->s->load = NULL;
	if (job->ram)
		take_leave(job);
	ram_load_free(job->ram);
	if (__atomic_load_n(&job->end_posted, __ATOMIC_ACQUIRE))
		loop_run_posted(job->s->vm->loop);
	if (job->reader)
		area_fini(&job->area);
	blk_close(job->reader);
	vmstate_free(job->decoded);
	state_buf_fini(&job->state);
	snapshot_entry_fini(&job->entry);
	free(job->manifest);
	free(job->same);
	free(job->keep);
	free(job->working_set);
	free(job->crcs);
	free(job);
}

void load_progress(struct snapshots *s, u64 *there, u64 *units)
{
	struct ram_load_progress p;

	ram_load_progress(s->load->ram, &p);
	*there = p.there;
	*units = p.units;
}

static u64 mib(u64 units)
{
	return units * RAM_UNIT / MiB;
}

void load_info(struct snapshots *s, struct printer *p)
{
	struct ram_load_progress l = s->loaded;

	if (s->load) {
		ram_load_progress(s->load->ram, &l);
		print_to(p, "Snapshot '%s' is coming in: %llu of %llu MiB, %llu faults\n",
			 s->load->entry.name, (unsigned long long)mib(l.there),
			 (unsigned long long)mib(l.units), (unsigned long long)l.faults);
	} else if (l.units) {
		print_to(p, "Last loaded: %llu units of 64 KiB read, %llu kept (%s)\n",
			 (unsigned long long)l.read, (unsigned long long)l.kept,
			 s->loaded_live	    ? "on demand"
			 : s->map.anonymous ? "all at once: no userfaultfd"
					    : "all at once: guest memory lies in a file");
	}
}

bool load_is_of(struct snapshots *s, const char *name)
{
	return s->load && !strcmp(s->load->entry.name, name);
}

/* The machine will be another one: what was to come in for this one need not. */
static void give_up_load(struct snapshots *s)
{
	if (!s->load)
		return;
	ram_load_give_up(s->load->ram, s->map.dirty);
	load_free(s->load);
}

/* Every run of memory that is given up takes its time: what lies between them goes too,
 * if it is short. */
static void drop_short_runs(const struct ram_map *map, u64 *keep)
{
	u64 runs = UINT64_MAX, n;

	for (u64 least = 1; runs > MOST_RUNS; least *= 2) {
		runs = 0;
		for (u64 at = 0; (n = ram_next_run(map, keep, &at, UINT64_MAX)); at += n) {
			runs += n >= least;
			for (u64 i = at; n < least && i < at + n; i++)
				ram_clear_bit(keep, i);
		}
	}
}

/* What is not dirty need not be fetched where the snapshots are the same. */
static void find_kept(struct load_job *job)
{
	struct snapshots *s = job->s;
	u64 words = ram_bitmap_bytes(&s->map) / sizeof(u64);

	/* Giving up the load before may have shown that memory is lost. */
	if (!job->same || !s->base.name)
		return;
	/* Most of it will not be there when start_counting clears the log. */
	if (ram_look(&s->map, s->map.dirty) < 0)
		memset(s->map.dirty, 0xff, words * sizeof(u64));
	for (u64 i = 0; i < words; i++)
		job->same[i] &= ~s->map.dirty[i];
	job->keep = job->same;
	job->same = NULL;
	drop_short_runs(&s->map, job->keep);
}

static void begin_disks(struct load_job *job)
{
	job->disks = xnew_n(struct apply_call, job->set.n);
	for (u32 i = 0; i < job->set.n; i++) {
		struct blk *blk = job->set.drives[i]->blk;

		job->disks[i].entry = &job->entry;
		blk_drain_begin(blk);
		blk_begin(blk, &job->disks[i].task, apply, &job->disks[i]);
	}
}

/* All of them, whatever the first error is. */
static int end_disks(struct load_job *job, int ret, struct error *err)
{
	for (u32 i = 0; job->disks && i < job->set.n; i++) {
		struct drive *d = job->set.drives[i];
		int one = blk_wait(&job->disks[i].task);

		blk_drain_end(d->blk);
		if (one < 0 && ret == 0)
			ret = err_set(err, one, "%s: %s", d->config->id, job->disks[i].err.text);
	}
	if (ret < 0 && job->disks) {
		snapshots_forget_base(job->s);
		vm_stop_as(job->s->vm, RUN_INTERNAL_ERROR);
	}
	free(job->disks);
	job->disks = NULL;
	return ret;
}

/* From here on there is no way back to the machine that was. */
static int change_machine(struct load_job *job, struct error *err)
{
	struct vm *vm = job->s->vm;
	int ret;

	vm_stop_as(vm, RUN_PAUSED);
	vm_hold_devices(vm); /* in prelaunch nobody has yet */
	give_up_load(job->s);
	vm_another_machine(vm);
	find_kept(job);
	begin_disks(job);
	ret = load_memory(job, err);
	if (ret == 0)
		ret = start_counting(job);
	return ret == 0 ? vmstate_apply(vm, job->decoded, err) : ret;
}

int vm_loadvm(struct vm *vm, const char *tag, struct printer *p, struct error *err)
{
	bool running = vm->state == RUN_RUNNING;
	struct snapshots *s;
	struct load_job *job;
	int ret = snapshots_of(vm, &s, err);

	if (ret < 0)
		return ret;
	if (s->save)
		return err_set(err, -EBUSY, "a snapshot is being taken");
	ret = vm_no_block_jobs(vm, err);
	if (ret < 0)
		return ret;
	job = xnew(struct load_job);
	job->s = s;
	ret = drive_set_init(&job->set, vm, err);
	if (ret == 0)
		ret = set_find(&job->set, tag, &job->entry, err);
	if (ret == 0)
		ret = read_all(job, p, err);
	job->ended.fn = on_ended;
	if (ret == 0)
		ret = change_machine(job, err);
	if (ret == 0)
		vm->load_waits = false;
	if (ret == 0 && running)
		ret = vm_cont(vm, err);
	ret = end_disks(job, ret, err);
	if (ret == 0 && job->live)
		s->load = job; /* until memory_done, which may be on its way already */
	else
		load_free(job);
	delete_goes_on(s); /* memory may no longer come from what is to go */
	return ret;
}
