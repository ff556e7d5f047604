/* The machine's state but for its memory: what a snapshot keeps of it.
 *
 * Two parts: a manifest, which is text that describes the machine line by line, and
 * the state itself, as state.h encodes it.  A state fits a machine whose manifest
 * is the same.  Loading is decoding, which changes nothing, and applying, which can
 * fail only if KVM refuses its own values.
 * Thread: control; the machine is stopped (vm_stop_as) or held. */
#ifndef VMM_VMSTATE_H
#define VMM_VMSTATE_H

#include "base/base.h"
#include "base/error.h"
#include "base/printer.h"

struct state_buf;
struct vm;
struct vmstate;

/* Text of lines; free() it. */
char *vmstate_manifest(struct vm *vm);
/* Print the lines that only one of the two has, as "  saved: X" and "  now: X";
 * returns how many. */
unsigned vmstate_compare(const char *saved, const char *now, struct printer *p);

int vmstate_save(struct vm *vm, struct state_buf *out, struct error *err);
int vmstate_decode(struct vm *vm, struct state_buf *in, struct vmstate **out, struct error *err);
int vmstate_apply(struct vm *vm, struct vmstate *state, struct error *err);
void vmstate_free(struct vmstate *state); /* NULL is fine */

#endif
