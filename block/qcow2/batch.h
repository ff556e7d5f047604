/* Metadata writes that go out together: copies of bytes, made at one moment.
 * Thread: the image's loop. */
#ifndef BLOCK_QCOW2_BATCH_H
#define BLOCK_QCOW2_BATCH_H

#include "block/qcow2/state.h"

struct piece {
	u64 hoff;
	u32 bytes;
	u32 lo;		     /* place in what it is a copy of */
	bool blank;	     /* the file has zeros there */
	struct table *table; /* NULL: L1 or refcount table */
	u8 *data;
};

struct batch {
	struct piece *pieces;
	size_t n, room;
	bool may_be_lost; /* no sync is owed for it */
};

/* A piece of zeros, to be filled in.  -ENOMEM leaves the batch as it was. */
int batch_add(struct batch *b, u64 hoff, u32 bytes, struct piece **out);
/* Copy the dirty part of a table, whole granules; the table leaves the dirty list
 * for `committing`. */
int batch_add_table(struct batch *b, struct qcow2 *q, struct table_cache *c, struct table *t,
		    struct list *committing);
/* Write all pieces, in no order.  Suspends. */
int batch_write(struct fiber *f, struct qcow2 *q, const struct batch *b);
/* The tables that were copied are dirty where they were. */
void batch_undo(const struct batch *b, struct table_cache *c);
void batch_fini(struct batch *b);

#endif
