/* Parts of L2 tables, for images that have more tables than the cache is to hold.
 *
 * Who looks up one entry there reads one part of its table, not all of it.  Parts are as
 * the file has them: a table that is in the cache, or on its way there, has none, so
 * whatever changes it changes nothing here.  They share the cache's room.
 * Thread: the image's loop. */
#ifndef BLOCK_QCOW2_SLICE_H
#define BLOCK_QCOW2_SLICE_H

#include "block/qcow2/cache.h"

struct qcow2;
struct slice;

#define L2_SLICE_BYTES 4096u

struct slices {
	struct slice **buckets; /* by place in the file; NULL: none were needed yet */
	u32 n_buckets;
	u32 count;	  /* here or being read */
	struct list here; /* the oldest first */
	struct fiber_queue loaded;
};

void slices_init(struct slices *s);
void slices_fini(struct slices *s); /* then empty, as after _init */

/* Are there too many tables for the cache?  Else parts are not asked for. */
bool l2_has_slices(const struct qcow2 *q);
u32 l2_slice_entries(const struct qcow2 *q);

/* The part of l1_index's table with entry i, as a table of its own whose first entry is
 * the first one of it; NULL: look at the whole table.  Good until the caller next
 * suspends.  Suspends. */
int slice_get(struct fiber *f, struct qcow2 *q, u32 l1_index, u32 i, struct table **out);
/* The same, if it is here: else NULL. */
struct table *slice_peek(struct qcow2 *q, u32 l1_index, u32 i);
/* The table at hoff comes into the cache, or what is there becomes one. */
void slices_forget(struct qcow2 *q, u64 hoff);
/* A table more is to fit into the cache; may throw out others. */
void slices_make_room(struct qcow2 *q);
void slices_forget_all(struct qcow2 *q);

#endif
