/* What every internal snapshot, and the active state, refers to, holds alone and
 * shares; see snapshot_tree.c. */
#ifndef BLOCK_QCOW2_SNAPSHOT_TREE_H
#define BLOCK_QCOW2_SNAPSHOT_TREE_H

#include "block/image.h"

#define QCOW2_ACTIVE	  UINT32_MAX
#define QCOW2_PAIR_STATES 64 /* up to so many, sharing is known for every pair */

/* Bytes of the image file: whole clusters of data and of L1 and L2 tables. */
struct qcow2_state_use {
	u32 index; /* in the list of snapshots, or QCOW2_ACTIVE */
	u64 bytes; /* it refers to, VM state included */
	u64 alone; /* of them, nobody else does: deleting it frees them */
	u64 vm;	   /* of them, VM state and its tables */
	s64 from;  /* the earlier state that it shares most with; -1: none */
	u64 from_bytes;
};
struct qcow2_tree {
	u32 n;
	struct qcow2_state_use *states; /* by date, the active state last */
	u64 *shared;			/* [n * later + earlier]; NULL: too many */
	u64 damaged;			/* references to places that cannot be */
};

/* Reads every table once (once per window of a very large file).  Suspends. */
int qcow2_tree(struct fiber *f, struct image *img, struct qcow2_tree *out, struct error *err);
void qcow2_tree_fini(struct qcow2_tree *t);

#endif
