/* The human monitor: one instance per chardev, any number per machine.
 * Runs on the main loop thread.  Knows the machine by vmm/control.h alone. */
#ifndef MONITOR_MONITOR_H
#define MONITOR_MONITOR_H

#include "base/base.h"
#include "base/error.h"

struct chardev;
struct monitor;
struct vm;

/* Attach to the chardev (lent until monitor_free), print the banner when a peer is
 * there, and prompt.  A monitor that shares a mux prompts when it gets the focus. */
int monitor_new(struct monitor **out, struct vm *vm, struct chardev *chardev, struct error *err);
void monitor_free(struct monitor *mon);

#endif
