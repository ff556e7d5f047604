/* Encrypted drives of a machine, for the files of vmm/; what the monitor may do is in
 * control.h. */
#ifndef VMM_UNLOCK_H
#define VMM_UNLOCK_H

#include "base/error.h"

struct vm;

int vm_check_unlocked(struct vm *vm, struct error *err); /* -EACCES: an image is locked */
void vm_end_unlocking(struct vm *vm);			 /* waits; before the drives go */
/* No core dumps, and nobody else reads our memory: keys are in it. */
void vm_hide_memory(void);

#endif
