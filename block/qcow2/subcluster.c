/* Extended L2 entries: what a range of subclusters is, and zeroing some of them;
 * see subcluster.h.  Thread: the image's loop. */
#include "block/qcow2/subcluster.h"

#include <errno.h>

void l2_set_extended(struct qcow2 *q, struct table *t, u32 i, u64 entry, u64 bitmap)
{
	assert(q->extended);
	l2_set(q, t, i, entry);
	store_be64(t->data + ((u64)i << t->entry_shift) + 8, bitmap);
}

bool sub_is_sound(const struct qcow2 *q, u64 entry, u64 bitmap)
{
	u32 alloc = (u32)bitmap, zero = (u32)(bitmap >> 32);

	if (entry & ENTRY_COMPRESSED)
		return !bitmap;
	return !(alloc & zero) && (!alloc || l2_is_placed(q, entry));
}

enum extent_kind sub_kind(u64 entry, u64 bitmap, u32 sub)
{
	if (entry & ENTRY_COMPRESSED)
		return EXTENT_COMPRESSED;
	if (bitmap >> 32 >> sub & 1)
		return EXTENT_ZERO;
	return bitmap >> sub & 1 ? EXTENT_DATA : EXTENT_HOLE;
}

u32 sub_run(u64 entry, u64 bitmap, u32 sub)
{
	u32 alloc = (u32)bitmap, zero = (u32)(bitmap >> 32), same;

	switch (sub_kind(entry, bitmap, sub)) {
	case EXTENT_DATA: same = alloc; break;
	case EXTENT_ZERO: same = zero; break;
	case EXTENT_HOLE: same = ~(alloc | zero); break;
	default: return SUBCLUSTERS - sub;
	}
	same = ~(same >> sub);
	return same ? MIN((u32)__builtin_ctz(same), SUBCLUSTERS - sub) : SUBCLUSTERS - sub;
}

int sub_invalid(struct fiber *f, struct qcow2 *q, const struct table *t, u32 i)
{
	if (l2_entry(t, i) & ENTRY_COMPRESSED)
		return -EIO;
	return qcow2_corrupt(f, q, "Invalid cluster entry found  (L2 offset: %#llx, L2 index: %#x)",
			     (unsigned long long)t->hoff, i);
}

/* Does entry i + 1 go on where entry i, which ends as `kind`, leaves off? */
static bool goes_on(const struct qcow2 *q, const struct table *t, u32 i, enum extent_kind kind)
{
	u64 a = l2_entry(t, i), b = l2_entry(t, i + 1), bitmap = l2_bitmap(t, i + 1);

	if (b & ENTRY_COMPRESSED || !sub_is_sound(q, b, bitmap) || sub_kind(b, bitmap, 0) != kind ||
	    l2_is_placed(q, a) != l2_is_placed(q, b))
		return false;
	return !l2_is_placed(q, a) || b == a + q->cluster_bytes;
}

/* Bytes from goff on that are as its subcluster. */
static u64 sub_extent(const struct qcow2 *q, const struct table *t, u64 goff, u64 left,
		      enum extent_kind kind)
{
	u32 i = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);
	u32 sub = (u32)(goff & (q->cluster_bytes - 1)) >> q->sub_bits;
	u64 bytes = 0, in_sub = goff & ((1u << q->sub_bits) - 1);

	for (;; sub = 0, i++) {
		u32 run = sub_run(l2_entry(t, i), l2_bitmap(t, i), sub);

		bytes += ((u64)run << q->sub_bits) - in_sub;
		in_sub = 0;
		if (bytes >= left || sub + run < SUBCLUSTERS || kind == EXTENT_COMPRESSED ||
		    i + 1 == q->l2_entries || !goes_on(q, t, i, kind))
			return MIN(bytes, left);
	}
}

int sub_map(struct fiber *f, struct qcow2 *q, const struct table *t, u64 goff, u64 left,
	    struct extent *out)
{
	u32 i = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);
	u64 in_cluster = goff & (q->cluster_bytes - 1);
	u64 entry = l2_entry(t, i), bitmap = l2_bitmap(t, i);

	if (unlikely(!sub_is_sound(q, entry, bitmap)))
		return sub_invalid(f, q, t, i);
	out->kind = sub_kind(entry, bitmap, (u32)(in_cluster >> q->sub_bits));
	out->bytes = sub_extent(q, t, goff, left, out->kind);
	return l2_place_extent(f, q, t, goff, entry, out);
}

/* --- zeroing ------------------------------------------------------------------- */

static int zero_locked(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	u32 l1_index = (u32)(goff >> (q->cluster_bits + q->l2_bits));
	u32 i = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);
	u32 sub = (u32)(goff & (q->cluster_bytes - 1)) >> q->sub_bits;
	u64 mask = sub_mask(sub, sub + (u32)(bytes >> q->sub_bits)), entry, bitmap;
	struct table *t;
	int ret = l2_get(f, q, l1_index, &t);

	entry = ret == 0 && t ? l2_entry(t, i) : 0;
	bitmap = ret == 0 && t ? l2_bitmap(t, i) : 0;
	if (ret < 0 || entry & ENTRY_COMPRESSED || (bitmap & mask << 32) == mask << 32)
		return ret < 0 ? ret : !!(entry & ENTRY_COMPRESSED);
	if (!sub_is_sound(q, entry, bitmap))
		return sub_invalid(f, q, t, i);
	ret = l2_get_writable(f, q, l1_index, &t);
	if (ret == 0 && q->corrupt)
		ret = -EIO;
	if (ret < 0)
		return ret;
	l2_set_extended(q, t, i, l2_entry(t, i), (l2_bitmap(t, i) & ~mask) | mask << 32);
	return 0;
}

int sub_zero(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	struct range_lock lock;
	int ret = write_begin(f, q);

	assert(is_aligned(goff | bytes, 1u << q->sub_bits) && bytes &&
	       cluster_floor(q, goff) == cluster_floor(q, goff + bytes - 1));
	if (ret < 0)
		return ret;
	range_lock(f, &q->cluster_locks, &lock, cluster_floor(q, goff), q->cluster_bytes, true);
	ret = zero_locked(f, q, goff, bytes);
	range_unlock(&q->cluster_locks, &lock);
	return ret;
}
