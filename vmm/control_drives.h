/* What a monitor may do with drives and their images, as part of control.h. */
#ifndef VMM_CONTROL_DRIVES_H
#define VMM_CONTROL_DRIVES_H

#include "vmm/control.h"

/* Encrypted drives: the machine does not run before all images are unlocked.
 * "ide0-hd0 (a.qcow2)", the first image of that drive (NULL: of any) that is locked;
 * free() it.  NULL: none. */
char *vm_locked_image(struct vm *vm, const char *device);
/* The passphrase of an image, named as above.  It takes its time: what came of it is told
 * to the waiter (NULL: it is waited for).  -EACCES: it is wrong.  0 too if the image is not
 * locked any more. */
int vm_unlock(struct vm *vm, const char *image, const char *passphrase, struct vm_waiter *w,
	      struct error *err);
void vm_forget_unlock_waiter(struct vm *vm, struct vm_waiter *w);
/* A line for each drive that waits for one; p NULL: to standard error. */
void vm_print_locked(struct vm *vm, struct printer *p);
bool vm_has_drive(struct vm *vm, const char *id);

/* Media, sizes and limits of drives. */
struct vm_change {
	const char *device, *file;
	const char *format, *mode; /* NULL: probe; retain, read-only, read-write */
	bool force;
};
int vm_change(struct vm *vm, const struct vm_change *c, struct error *err);
int vm_eject(struct vm *vm, const char *device, bool force, struct error *err);
int vm_block_resize(struct vm *vm, const char *device, u64 bytes, struct error *err);
struct vm_throttle {
	u64 bps[3], iops[3]; /* total, read, write; 0: no limit */
};
int vm_set_throttle(struct vm *vm, const char *device, const struct vm_throttle *t,
		    struct error *err);

#endif
