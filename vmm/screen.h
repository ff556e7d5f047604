/* The machine's display, who shows it, and what people type and point at. */
#ifndef VMM_SCREEN_H
#define VMM_SCREEN_H

#include "vmm/vm.h"

/* When all devices are there; vm_free_screen also undoes half of it. */
int vm_add_screen(struct vm *vm, struct error *err);
void vm_free_screen(struct vm *vm);

#endif
