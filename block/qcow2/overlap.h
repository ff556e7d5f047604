/* Which host clusters hold metadata: a hash set of cluster numbers.
 *
 * Header, active L1 and L2 tables, refcount table and blocks, bitmap directory,
 * snapshot table and the snapshots' L1 tables (their L2 tables are not known
 * without reading them).
 * Asked before every allocation and every write in place.  Thread: the loop. */
#ifndef BLOCK_QCOW2_OVERLAP_H
#define BLOCK_QCOW2_OVERLAP_H

#include "base/base.h"

enum overlap_kind {
	OVERLAP_NONE,
	OVERLAP_HEADER,
	OVERLAP_L1,
	OVERLAP_L2,
	OVERLAP_REFTABLE,
	OVERLAP_REFBLOCK,
	OVERLAP_SNAPSHOTS,
	OVERLAP_INACTIVE_L1,
	OVERLAP_BITMAPS,
	OVERLAP_CRYPT,
};

struct overlap_set {
	u64 *slots; /* cluster number << 4 | kind, 0: empty */
	u32 bits;   /* 1 << bits slots */
	u64 used;
};

void overlap_init(struct overlap_set *s);
void overlap_fini(struct overlap_set *s);
/* 0, -ENOMEM, or -EEXIST: `*was` (may be NULL) says what it is already. */
int overlap_add(struct overlap_set *s, u64 cluster, enum overlap_kind kind, enum overlap_kind *was);
void overlap_remove(struct overlap_set *s, u64 cluster);
enum overlap_kind overlap_find(const struct overlap_set *s, u64 cluster);
const char *overlap_name(enum overlap_kind kind); /* "active L2 table", ... */

#endif
