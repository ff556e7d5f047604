/* Commands that end later than they return: the monitor is suspended meanwhile, shows
 * progress on a terminal, and Ctrl-c cancels.  Thread: main. */
#ifndef MONITOR_WAIT_H
#define MONITOR_WAIT_H

#include "monitor/internal.h"

/* What is waited for. */
struct wait_ops {
	/* As the function in control.h; waiter NULL: nobody waits for the end.  1: it is
	 * over already, the waiter is not used. */
	int (*start)(struct vm *vm, const void *arg, struct vm_waiter *w, struct error *err);
	int (*cancel)(struct vm *vm, struct error *err);
	void (*forget)(struct vm *vm, struct vm_waiter *w);
	const char *before; /* the message of an end that is a failure */
};

/* Start, and wait if a monitor is there to do it.  ops is kept until the end, arg is lent for
 * the call.  Returns what start did. */
int run_waiting(struct cmd_ctx *ctx, const struct wait_ops *ops, const void *arg,
		struct error *err);

#endif
