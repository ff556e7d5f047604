/* How large a qcow2 file would be, without making it. */
#ifndef BLOCK_QCOW2_MEASURE_H
#define BLOCK_QCOW2_MEASURE_H

#include "block/image.h"

struct qcow2_measure_options {
	u64 bytes;	   /* guest size */
	u32 cluster_bytes; /* 0: 65536 */
	u32 refcount_bits; /* 0: 16 */
	u64 luks_bytes;	   /* of the LUKS header; 0: none */
	bool version2;
	bool extended_l2;
	bool preallocated; /* falloc or full: all data counts as required */
	bool backed;	   /* nobody knows what it shares: all data counts */
};

struct image_measure {
	u64 required, fully_allocated;
	u64 bitmaps;
	bool has_bitmaps;
};

/* source: whose data and bitmaps would be copied; its size counts instead of
 * opt->bytes.  NULL: none, empty.  Suspends. */
int qcow2_measure(struct fiber *f, const struct qcow2_measure_options *opt, struct image *source,
		  struct image_measure *out, struct error *err);

/* Bytes that the consistent persistent bitmaps of a qcow2 image would take with
 * clusters of this size.  -ENOTSUP: it cannot have any.  Suspends. */
int qcow2_bitmaps_bytes(struct fiber *f, struct image *img, u32 cluster_bytes, u64 *out);

#endif
