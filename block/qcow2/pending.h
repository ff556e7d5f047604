/* Small parts of an open image: clusters to be reused, requests under way, room ahead,
 * what is known of a chain.
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

/* Room that the host's file system was asked for ahead of small writes (alloc.c). */
struct host_room {
	u64 hoff;	    /* up to here */
	u64 partial_writes; /* of fresh clusters */
	bool refused;
};

/* What is known of the chain behind the image (descend.c). */
struct depths;
struct depths_memory {
	struct depths *depths; /* NULL: nothing */
	u64 changes;	       /* of the graph, when it was made */
};

#endif
