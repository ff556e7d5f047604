/* What an open image waits for: clusters to be reused, requests under way.
 * Thread: the image's loop. */
#ifndef BLOCK_QCOW2_PENDING_H
#define BLOCK_QCOW2_PENDING_H

#include "base/base.h"
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

#endif
