/* What a monitor may do with single disks of a machine while the guest runs: snapshots,
 * and jobs on their images.  Belongs to control.h.  Called on the main thread. */
#ifndef VMM_CONTROL_BLOCK_H
#define VMM_CONTROL_BLOCK_H

#include "vmm/control.h"

/* Snapshots of disks alone, which the guest does not notice. */
struct vm_snapshot_blkdev {
	const char *device;
	const char *file, *format; /* of the new image; format NULL: qcow2 */
	bool reuse;		   /* the image is there already */
	bool locked;		   /* out, with -EACCES: and waits for its passphrase */
	/* This one: trying it takes its time, what came of it is told to the waiter.
	 * -EACCES: it is wrong.  vm_forget_unlock_waiter.  NULL: none. */
	const char *passphrase;
	struct vm_waiter *waiter;
};
int vm_snapshot_blkdev(struct vm *vm, struct vm_snapshot_blkdev *s, struct printer *p,
		       struct error *err);
/* All disks that can be written, or (needed) those of them that have no snapshots of
 * their own, at one moment; the files are called after the images, with the suffix. */
int vm_snapshot_blkdev_all(struct vm *vm, const char *suffix, bool needed, struct printer *p,
			   struct error *err);
int vm_snapshot_blkdev_internal(struct vm *vm, const char *device, const char *name,
				struct error *err);
int vm_snapshot_delete_blkdev_internal(struct vm *vm, const char *device, const char *name,
				       const char *id, struct error *err);
/* Back to the image behind the top, whose own content is thrown away. */
int vm_snapshot_revert(struct vm *vm, const char *device, struct error *err);

/* Work on the images of a disk while the guest runs; it ends later than these return.
 * commit: the top goes into the image behind it and is empty then ("all": each disk);
 * merge: the same, and the disk is that image then.  Their end is told to the waiter. */
int vm_commit(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err);
int vm_snapshot_merge(struct vm *vm, const char *device, struct vm_waiter *w, struct error *err);
int vm_block_wait_cancel(struct vm *vm, struct error *err); /* what is waited for */
void vm_forget_block_waiter(struct vm *vm, struct vm_waiter *w);
struct vm_block_job {
	const char *device;
	const char *top, *base; /* images of the chain; NULL: the ends of it */
	u64 speed;		/* bytes a second; 0: no limit */
};
int vm_block_stream(struct vm *vm, const struct vm_block_job *job, struct error *err);
int vm_block_commit(struct vm *vm, const struct vm_block_job *job, struct error *err);
enum vm_job_verb {
	VM_JOB_PAUSE,
	VM_JOB_RESUME,
	VM_JOB_CANCEL,
	VM_JOB_CANCEL_NOW,
	VM_JOB_COMPLETE,
	VM_JOB_SPEED
};
int vm_block_job_control(struct vm *vm, const char *device, enum vm_job_verb verb, u64 value,
			 struct error *err);
void vm_info_block_jobs(struct vm *vm, struct printer *p);

#endif
