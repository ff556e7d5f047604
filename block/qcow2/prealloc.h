/* Clusters before they are written; see prealloc.c.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_PREALLOC_H
#define BLOCK_QCOW2_PREALLOC_H

#include "block/qcow2/parts.h"

/* Give every hole of guest bytes [from, to) a cluster that reads as zeros, with
 * extended entries one without subclusters.  Suspends. */
int prealloc_area(struct fiber *f, struct qcow2 *q, u64 from, u64 to, enum prealloc mode,
		  struct error *err);
/* The external data file, if there is one, is to have this size.  Suspends. */
int prealloc_data_file(struct fiber *f, struct qcow2 *q, u64 bytes, enum prealloc mode,
		       struct error *err);

#endif
