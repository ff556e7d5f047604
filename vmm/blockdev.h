/* Disks whose images change while the machine runs, for the files of vmm/. */
#ifndef VMM_BLOCKDEV_H
#define VMM_BLOCKDEV_H

#include "vmm/control_block.h"
#include "vmm/vm.h"

/* block_jobs.c: is nothing at work on the images of any drive? */
int vm_no_block_jobs(struct vm *vm, struct error *err);
void vm_end_block_wait(struct vm *vm); /* before the drives go */
/* blockdev.c: passphrases that are being tried */
void vm_forget_overlay_waiter(struct vm *vm, struct vm_waiter *w);
void vm_end_overlaying(struct vm *vm); /* waits */

#endif
