/* What the order of writes needs to be remembered; see commit.c.
 * Thread: the image's loop. */
#ifndef BLOCK_QCOW2_ORDER_H
#define BLOCK_QCOW2_ORDER_H

#include "base/list.h"

/* Host clusters whose last pointer is gone in memory.  I2: on q->freed until a
 * commit made that durable, then on q->durable until every I/O that may still
 * use them has ended; only then their refcounts are lowered. */
struct freed_run {
	struct list link;
	u64 hoff, clusters;
	u64 seq; /* I/O started later cannot know them */
};

/* A guest read or write in flight on host clusters. */
struct io_track {
	struct list link;
	u64 seq;
};

/* Header fields that are switched together, by one sector in stage B. */
struct layout {
	u64 bytes;
	u64 l1_hoff;
	u32 l1_entries;
};

#endif
