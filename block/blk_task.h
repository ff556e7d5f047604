/* Functions on a drive's loop that somebody does not wait for at once: blk_run (blk.h) in
 * two steps. */
#ifndef BLOCK_BLK_TASK_H
#define BLOCK_BLK_TASK_H

#include "base/thread.h"
#include "block/blk.h"

/* The memory is lent until blk_wait, which whoever begins a task calls once. */
struct blk_task {
	struct loop_call call;
	struct blk *blk; /* [const] */
	blk_fn *fn;	 /* [const] */
	void *arg;	 /* [const] */
	struct mutex lock;
	struct cond cond;
	bool done;  /* [lock] */
	int result; /* [lock] */
};

void blk_begin(struct blk *blk, struct blk_task *t, blk_fn *fn, void *arg); /* [any thread] */
int blk_wait(struct blk_task *t);

#endif
