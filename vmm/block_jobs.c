/* Jobs on the images of drives, as the monitor sees them: commit, stream, merge.
 *
 * A job lives on its drive's loop (block/job.h); only somebody who waits for its end
 * has something here.  One waits at a time.  Thread: control, but on_ended. */
#include "base/thread.h"
#include "block/blk.h"
#include "block/image.h"
#include "block/job.h"
#include "vmm/blockdev.h"

#include <errno.h>
#include <stdio.h>

#define TICK_NS (200 * NS_PER_MS) /* of progress */

/* Somebody who waits for a commit or merge. */
struct block_wait {
	struct vm *vm;
	struct vm_waiter *waiter; /* NULL: gone */
	struct drive *drive;	  /* at work */
	bool all;		  /* then the drives after this one */
	bool is_commit;		  /* with the words of that command */
	struct loop_timer tick;
	struct loop_call ended; /* [drive's loop] posted when the job is over */
	int ret;
	char text[512];
};

static int find(struct vm *vm, const char *device, struct drive **out, struct error *err)
{
	*out = vm_find_drive(vm, device);
	return *out ? 0 : err_set(err, -ENODEV, "Device '%s' not found", device);
}

int vm_no_block_jobs(struct vm *vm, struct error *err)
{
	struct job_status status;

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (job_status(d->blk, &status) == 0)
			return err_set(err, -EBUSY,
				       "Node '%s' is busy: block device is in use by block job: %s",
				       d->config->id, status.type);
	}
	return 0;
}

/* --- those that are waited for ---------------------------------------------------- */

static void wait_over(struct block_wait *b, int ret, const char *text)
{
	struct vm_waiter *w = b->waiter;

	loop_timer_del(&b->tick);
	b->vm->block_wait = NULL;
	if (w)
		w->done(w, ret, text);
	free(b);
}

static void on_tick(struct loop_timer *timer)
{
	struct block_wait *b = container_of(timer, struct block_wait, tick);
	struct job_status s;

	if (b->waiter && b->waiter->progress && job_status(b->drive->blk, &s) == 0)
		b->waiter->progress(b->waiter, s.done, s.total);
	loop_timer_set(&b->tick, now_ns() + TICK_NS);
}

static void on_ended(void *arg, int ret, const char *text)
{
	struct block_wait *b = arg;

	b->ret = ret;
	snprintf(b->text, sizeof(b->text), "%s", text);
	loop_post(b->vm->loop, &b->ended);
}

static int begin(struct block_wait *b, struct error *err)
{
	struct job_request req = {.type = JOB_COMMIT,
				  .one = true,
				  .end = b->is_commit ? JOB_EMPTY : JOB_PIVOT,
				  .ended = on_ended,
				  .arg = b};

	return job_start(b->drive->blk, &req, err);
}

static int has_backing(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk_image(blk);

	return img && img->backing;
}

static struct drive *next_to_commit(struct vm *vm, const struct drive *after)
{
	struct list *pos = after ? after->link.next : vm->drives.next;

	for (; pos != &vm->drives; pos = pos->next) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (!blk_is_readonly(d->blk) && blk_run(d->blk, has_backing, NULL))
			return d;
	}
	return NULL;
}

static int commit_error(const struct block_wait *b, int ret, struct error *err)
{
	return err_set(err, ret, "'commit' error for '%s': %s",
		       b->all ? "all" : b->drive->config->id, strerror(-ret));
}

static void on_main(struct loop_call *call)
{
	struct block_wait *b = container_of(call, struct block_wait, ended);
	struct drive *next = b->all && b->ret == 0 ? next_to_commit(b->vm, b->drive) : NULL;
	struct error err = {0};

	if (next) {
		b->drive = next;
		b->ret = begin(b, &err);
		if (b->ret == 0)
			return;
	}
	if (b->ret < 0 && b->is_commit) {
		commit_error(b, b->ret, &err);
		snprintf(b->text, sizeof(b->text), "%s", err.text);
	}
	wait_over(b, b->ret, b->text);
}

static int wait_for(struct vm *vm, const struct block_wait *what, struct vm_waiter *w,
		    struct error *err)
{
	struct block_wait *b;
	int ret;

	if (vm->block_wait)
		return err_set(err, -EBUSY, "Device or resource busy");
	b = xnew(struct block_wait);
	*b = *what;
	b->vm = vm;
	b->ended.fn = on_main;
	loop_timer_init(vm->loop, &b->tick, on_tick);
	ret = begin(b, err);
	if (ret < 0) {
		free(b);
		return ret;
	}
	b->waiter = w;
	vm->block_wait = b;
	loop_timer_set(&b->tick, now_ns() + TICK_NS);
	return 0;
}

int vm_commit(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err)
{
	struct block_wait b = {.is_commit = true, .all = !strcmp(device, "all")};
	int ret = 0;

	if (b.all)
		b.drive = next_to_commit(vm, NULL);
	else
		ret = find(vm, device, &b.drive, err);
	if (ret < 0)
		return ret;
	if (!b.drive) { /* nothing to do */
		if (w)
			w->done(w, 0, "");
		return 0;
	}
	if (!blk_has_medium(b.drive->blk))
		return err_set(err, -ENOMEDIUM, "Device '%s' has no medium", device);
	ret = wait_for(vm, &b, w, err);
	return ret < 0 ? commit_error(&b, ret, err) : 0;
}

int vm_snapshot_merge(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err)
{
	struct block_wait b = {.is_commit = false};
	int ret = find(vm, device, &b.drive, err);

	return ret < 0 ? ret : wait_for(vm, &b, w, err);
}

void vm_forget_block_waiter(struct vm *vm, struct vm_waiter *w)
{
	if (vm->block_wait && vm->block_wait->waiter == w)
		vm->block_wait->waiter = NULL;
}

int vm_block_wait_cancel(struct vm *vm, struct error *err)
{
	if (!vm->block_wait)
		return err_set(err, -ENOENT, "nothing is being waited for");
	vm->block_wait->all = false;
	return job_control(vm->block_wait->drive->blk, JOB_CANCEL_NOW, 0, err);
}

void vm_end_block_wait(struct vm *vm)
{
	struct block_wait *b = vm->block_wait;

	if (!b)
		return;
	job_forget_waiter(b->drive->blk, b);
	loop_run_posted(vm->loop); /* it may have ended just before */
	if (vm->block_wait == b)
		wait_over(b, -ECANCELED, "The machine has ended");
}

/* --- the others ---------------------------------------------------------------------- */

static int start(struct vm *vm, const struct vm_block_job *job, enum job_type type,
		 struct error *err)
{
	struct drive *d = vm_find_drive(vm, job->device);
	struct job_request req = {
		.type = type, .top = job->top, .base = job->base, .speed = job->speed};

	assert(d);
	return job_start(d->blk, &req, err);
}

int vm_block_stream(struct vm *vm, const struct vm_block_job *job, struct error *err)
{
	if (!vm_find_drive(vm, job->device))
		return err_set(err, -ENODEV, "Cannot find device='%s' nor node-name='%s'",
			       job->device, job->device);
	return start(vm, job, JOB_STREAM, err);
}

int vm_block_commit(struct vm *vm, const struct vm_block_job *job, struct error *err)
{
	struct drive *d;
	int ret = find(vm, job->device, &d, err);

	return ret < 0 ? ret : start(vm, job, JOB_COMMIT, err);
}

int vm_block_job_control(struct vm *vm, const char *device, enum vm_job_verb verb, u64 value,
			 struct error *err)
{
	static const enum job_verb verbs[] = {
		[VM_JOB_PAUSE] = JOB_PAUSE,	  [VM_JOB_RESUME] = JOB_RESUME,
		[VM_JOB_CANCEL] = JOB_CANCEL,	  [VM_JOB_CANCEL_NOW] = JOB_CANCEL_NOW,
		[VM_JOB_COMPLETE] = JOB_COMPLETE, [VM_JOB_SPEED] = JOB_SPEED};
	struct drive *d = vm_find_drive(vm, device);

	if (!d)
		return err_set(err, -ENOENT, "Block job '%s' not found", device);
	return job_control(d->blk, verbs[verb], value, err);
}

void vm_info_block_jobs(struct vm *vm, struct printer *p)
{
	bool any = false;

	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);
		struct job_status s;

		if (job_status(d->blk, &s) < 0)
			continue;
		any = true;
		if (strcmp(s.type, "stream"))
			print_to(p, "Type %s, device %s", s.type, d->config->id);
		else
			print_to(p, "Streaming device %s", d->config->id);
		print_to(p, ": Completed %llu of %llu bytes, speed limit %llu bytes/s\n",
			 (unsigned long long)s.done, (unsigned long long)s.total,
			 (unsigned long long)s.speed);
	}
	if (!any)
		print_to(p, "No active jobs\n");
}
