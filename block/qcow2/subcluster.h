/* Extended L2 entries: 32 subclusters of a cluster, each with a bit that says it is
 * allocated and one that says it reads as zeros.
 * QEMU's docs/interop/qcow2, "Extended L2 Entries".  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_SUBCLUSTER_H
#define BLOCK_QCOW2_SUBCLUSTER_H

#include "block/qcow2/parts.h"

struct image_transfer;

#define SUBCLUSTERS   32u
#define SUB_ALL_ALLOC 0x00000000ffffffffull
#define SUB_ALL_ZERO  0xffffffff00000000ull

static inline u64 l2_bitmap(const struct table *t, u32 i)
{
	return load_be64(t->data + ((u64)i << t->entry_shift) + 8);
}
/* As l2_set, for both halves of the entry. */
void l2_set_extended(struct qcow2 *q, struct table *t, u32 i, u64 entry, u64 bitmap);

/* The bits [from, to) of a bitmap's allocated half. */
static inline u32 sub_mask(u32 from, u32 to)
{
	return (u32)((((u64)1 << to) - 1) & ~(((u64)1 << from) - 1));
}

/* Do the two halves and the entry go together? */
bool sub_is_sound(const struct qcow2 *q, u64 entry, u64 bitmap);
enum extent_kind sub_kind(u64 entry, u64 bitmap, u32 sub);
/* How many subclusters from `sub` to the end of the cluster are of its kind. */
u32 sub_run(u64 entry, u64 bitmap, u32 sub);
/* Marks the image corrupt; -EIO. */
int sub_invalid(struct fiber *f, struct qcow2 *q, const struct table *t, u32 i);

/* l2_map for extended entries: table t, entry i, `left` bytes of it and more. */
int sub_map(struct fiber *f, struct qcow2 *q, const struct table *t, u64 goff, u64 left,
	    struct extent *out);
/* Make whole subclusters of one cluster read as zeros.  1: cannot be said in the
 * map (a compressed cluster).  Suspends. */
int sub_zero(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes);
/* write_alloc for extended entries.  Suspends. */
int sub_write_alloc(struct fiber *f, struct qcow2 *q, const struct image_transfer *data, u64 *done);

#endif
