/* Claiming and freeing host clusters; see alloc.c.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_ALLOC_H
#define BLOCK_QCOW2_ALLOC_H

#include "block/qcow2/state.h"

struct alloc {
	u64 hoff, clusters;
	bool zeroed; /* never written: reads as zeros */
};
/* The lowest free cluster and up to `want` in all that follow it. */
int cluster_alloc(struct fiber *f, struct qcow2 *q, u64 want, struct alloc *out);
/* A fresh cluster at hoff is going to be written in part, as many will be: have the
 * host find room for them together. */
void cluster_reserve(struct qcow2 *q, u64 hoff);
/* Exactly n in a row, for tables. */
int cluster_alloc_run(struct fiber *f, struct qcow2 *q, u64 n, u64 *hoff);
/* Nothing in memory points at them any more (I2: they are reused later). */
void cluster_free(struct qcow2 *q, u64 hoff, u64 n);
/* Refcounts alone, as they are, reach the file; durable with the next sync.  For lowered
 * ones that may get lost (leaks) none is owed.  A commit, if more is pending. */
int qcow2_commit_refcounts(struct fiber *f, struct qcow2 *q, bool may_be_lost);
/* Is the write to these host bytes kept off metadata?  Else -EIO, corrupt. */
int overlap_check(struct fiber *f, struct qcow2 *q, u64 hoff, u64 bytes);

#endif
