/* What the monitor may do with single disks while the guest runs: snapshots, each
 * of its own, in another file or inside.  The words are the reference's.
 * Thread: control; what touches images runs on the drives' loops. */
#include "block/blk.h"
#include "block/driver.h"
#include "block/job.h"
#include "block/overlay.h"
#include "block/qcow2/snapshot.h"
#include "vmm/blockdev.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/unlock.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static int no_snapshot_job(struct vm *vm, struct error *err)
{
	int ret = vm_check_unlocked(vm, err);

	if (ret < 0)
		return ret;
	return vm->snapshots && vm->snapshots->save
		       ? err_set(err, -EBUSY, "a snapshot is being taken")
		       : 0;
}

/* --- external snapshots ---------------------------------------------------------- */

static int put_overlays(struct vm *vm, struct overlay_change *v, unsigned n, struct printer *p,
			struct error *err)
{
	int ret = overlays_put(v, n, err);

	for (unsigned i = 0; i < n; i++) {
		if (v[i].text)
			print_to(p, "%s\n", v[i].text);
		if (v[i].warning)
			print_to(p, "warning: %s\n", v[i].warning);
		overlay_change_fini(&v[i]);
	}
	/* The images that hold it are no longer on top. */
	if (ret == 0 && vm->snapshots)
		snapshots_forget_base(vm->snapshots);
	return ret;
}

/* One whose passphrase is being tried: that takes seconds, and nobody is to stand still. */
struct overlaying {
	struct overlay_unlocking u;
	struct vm *vm;
	struct vm_waiter *waiter; /* NULL: gone, nothing changes */
	char *file, *format;
	bool over;
	struct loop_call ended;
};

static int use_overlay(struct overlaying *o, struct error *err)
{
	struct vm *vm = o->vm;
	int ret = o->waiter ? no_snapshot_job(vm, err) : -ECANCELED;
	int put = overlay_unlock_end(&o->u, ret == 0);

	if (ret == 0 && put < 0)
		*err = o->u.err;
	if (put == 0 && vm->snapshots)
		snapshots_forget_base(vm->snapshots);
	return ret < 0 ? ret : put;
}

static void on_main(struct loop_call *call)
{
	struct overlaying *o = container_of(call, struct overlaying, ended);
	struct vm_waiter *w = o->waiter;
	struct error err = {0};
	int ret = o->over ? 0 : use_overlay(o, &err);

	o->vm->overlaying = NULL;
	overlay_change_fini(&o->u.c);
	free(o->file);
	free(o->format);
	free(o);
	if (w)
		w->done(w, ret, err.text);
}

/* [drive's loop] */
static void on_ended(struct overlay_unlocking *u)
{
	struct overlaying *o = container_of(u, struct overlaying, u);

	loop_post(o->vm->loop, &o->ended);
}

static int begin_overlaying(struct vm *vm, const struct vm_snapshot_blkdev *s, struct blk *blk,
			    struct error *err)
{
	struct overlaying *o;
	struct key key;
	int ret;

	if (vm->overlaying)
		return err_set(err, -EBUSY, "Another passphrase is being tried");
	ret = key_set(&key, s->passphrase, strlen(s->passphrase));
	if (ret < 0)
		return err_set_errno(err, ret, "cannot keep the passphrase");
	vm->overlaying = o = xnew(struct overlaying);
	o->vm = vm;
	o->waiter = s->waiter;
	o->ended.fn = on_main;
	o->file = xstrdup(s->file);
	o->format = s->format ? xstrdup(s->format) : NULL;
	o->u = (struct overlay_unlocking){.passphrase = key, .ended = on_ended};
	o->u.c = (struct overlay_change){
		.blk = blk, .file = o->file, .format = o->format, .reuse = true};
	overlay_unlock_begin(&o->u);
	return 0;
}

int vm_snapshot_blkdev(struct vm *vm, struct vm_snapshot_blkdev *s, struct printer *p,
		       struct error *err)
{
	struct overlay_change c = {.file = s->file, .format = s->format, .reuse = s->reuse};
	struct drive *d = vm_find_drive(vm, s->device);
	int ret;

	if (!d)
		return err_set(err, -ENODEV, "Cannot find device='%s' nor node-name=''", s->device);
	c.blk = d->blk;
	ret = no_snapshot_job(vm, err);
	if (ret < 0)
		return ret;
	if (s->passphrase)
		return begin_overlaying(vm, s, d->blk, err);
	ret = put_overlays(vm, &c, 1, p, err);
	s->locked = c.locked;
	return ret;
}

void vm_forget_overlay_waiter(struct vm *vm, struct vm_waiter *w)
{
	if (vm->overlaying && vm->overlaying->waiter == w)
		vm->overlaying->waiter = NULL;
}

void vm_end_overlaying(struct vm *vm)
{
	if (!vm->overlaying)
		return;
	vm->overlaying->over = true;
	(void)overlay_unlock_end(&vm->overlaying->u, false);
	loop_run_posted(vm->loop);
}

/* "dir/disk.qcow2", "one": dir/disk-one.qcow2. */
static char *name_with(const char *file, const char *suffix)
{
	const char *slash = strrchr(file, '/'), *base = slash ? slash + 1 : file;
	const char *dot = strrchr(base, '.');
	int bytes = dot && dot != base ? (int)(dot - file) : (int)strlen(file);

	return xasprintf("%.*s-%s.qcow2", bytes, file, suffix);
}

int vm_snapshot_blkdev_all(struct vm *vm, const char *suffix, bool needed, struct printer *p,
			   struct error *err)
{
	struct overlay_change v[SET_MAX_DRIVES] = {0};
	char *names[SET_MAX_DRIVES];
	unsigned n = 0;
	int ret = no_snapshot_job(vm, err);

	if (ret == 0) /* a job may change the names */
		ret = vm_no_block_jobs(vm, err);
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (ret < 0 || !blk_has_medium(d->blk) || blk_is_readonly(d->blk))
			continue;
		if (needed && drive_has_snapshots(d))
			continue;
		if (n == SET_MAX_DRIVES) {
			ret = err_set(err, -E2BIG, "more than %u drives to take a snapshot of",
				      SET_MAX_DRIVES);
			break;
		}
		names[n] = name_with(blk_file(d->blk), suffix);
		v[n] = (struct overlay_change){.blk = d->blk, .file = names[n]};
		n++;
	}
	if (ret == 0 && n && (!*suffix || strchr(suffix, '/')))
		ret = err_set(err, -EINVAL, "'%s' cannot be part of a file's name", suffix);
	if (ret == 0 && n)
		ret = put_overlays(vm, v, n, p, err);
	else if (ret == 0 && !needed)
		ret = err_set(err, -ENOTSUP, "No block device can accept snapshots");
	for (unsigned i = 0; i < n; i++)
		free(names[i]);
	return ret;
}

int vm_snapshot_revert(struct vm *vm, const char *device, struct error *err)
{
	struct drive *d = vm_find_drive(vm, device);
	int ret;

	if (!d)
		return err_set(err, -ENODEV, "Device '%s' not found", device);
	ret = no_snapshot_job(vm, err);
	return ret < 0 ? ret : overlay_revert(d->blk, err);
}

/* --- internal snapshots ------------------------------------------------------------ */

struct internal {
	const char *name, *id;
	u64 vm_clock_ns;
	struct error *err;
};

static int create_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct internal *c = arg;
	struct image *img = blk_image(blk);
	struct timespec now;
	int ret;

	if (!img)
		return err_set(c->err, -ENOMEDIUM, "Device '%s' has no medium", blk_id(blk));
	if (job_none(blk, c->err) < 0)
		return c->err->code;
	if (blk_is_readonly(blk))
		return err_set(c->err, -EROFS, "Device '%s' is read only", blk_id(blk));
	if (img->driver != &qcow2_driver)
		return err_set(c->err, -ENOTSUP,
			       "Block format '%s' used by device '%s' does not support internal "
			       "snapshots",
			       img->driver->name, blk_id(blk));
	if (!*c->name)
		return err_set(c->err, -EINVAL, "Name is empty");
	if (qcow2_snapshot_find(img, c->name, FIND_NAME) >= 0)
		return err_set(c->err, -EINVAL,
			       "Snapshot with name '%s' already exists on device '%s'", c->name,
			       blk_id(blk));
	clock_gettime(CLOCK_REALTIME, &now);
	ret = qcow2_snapshot_create(f, img,
				    &(struct qcow2_new_snapshot){
					    .name = c->name,
					    .date_sec = (u32)now.tv_sec,
					    .date_nsec = (u32)now.tv_nsec,
					    .vm_clock_ns = c->vm_clock_ns,
					    .icount = QCOW2_NO_ICOUNT,
				    });
	return ret < 0 ? err_set_errno(c->err, ret, "Failed to create snapshot '%s' on device '%s'",
				       c->name, blk_id(blk))
		       : 0;
}

static int find(struct image *img, const struct internal *c)
{
	const struct qcow2_snapshot *list;
	u32 n = qcow2_snapshots(img, &list);

	for (u32 i = 0; i < n; i++)
		if (!strcmp(list[i].name, c->name) && (!c->id || !strcmp(list[i].id, c->id)))
			return (int)i;
	return -ENOENT;
}

static int delete_fiber(struct fiber *f, struct blk *blk, void *arg)
{
	struct internal *c = arg;
	struct image *img = blk_image(blk);
	int at;

	if (!img)
		return err_set(c->err, -ENOMEDIUM, "Device '%s' has no medium", blk_id(blk));
	if (img->driver != &qcow2_driver)
		return err_set(c->err, -ENOTSUP,
			       "Failed to get a snapshot list: Operation not supported");
	at = find(img, c);
	if (at < 0)
		return err_set(c->err, at,
			       "Snapshot with id '%s' and name '%s' does not exist on device '%s'",
			       c->id ? c->id : "null", c->name, blk_id(blk));
	return qcow2_snapshot_delete(f, img, (u32)at, c->err);
}

static int run_internal(struct vm *vm, const char *device, blk_fn *fn, struct internal *c,
			struct error *err)
{
	struct drive *d = vm_find_drive(vm, device);
	int ret;

	if (!d)
		return err_set(err, -ENODEV, "Cannot find device='%s' nor node-name='%s'", device,
			       device);
	ret = no_snapshot_job(vm, err);
	c->err = err;
	return ret < 0 ? ret : blk_run(d->blk, fn, c);
}

int vm_snapshot_blkdev_internal(struct vm *vm, const char *device, const char *name,
				struct error *err)
{
	struct internal c = {.name = name, .vm_clock_ns = clock_now(vm->machine.clock)};

	return run_internal(vm, device, create_fiber, &c, err);
}

int vm_snapshot_delete_blkdev_internal(struct vm *vm, const char *device, const char *name,
				       const char *id, struct error *err)
{
	struct internal c = {.name = name, .id = id};

	/* Its clusters would be written to while they are read. */
	if (vm->snapshots && load_is_of(vm->snapshots, name))
		return err_set(err, -EBUSY, "snapshot '%s' is being loaded", name);
	return run_internal(vm, device, delete_fiber, &c, err);
}
