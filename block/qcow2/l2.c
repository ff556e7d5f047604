/* Mapping of guest offsets: L1 in memory, L2 tables in the cache.
 *
 * A table is found by its L1 index with one array lookup.  Changes are made in
 * memory only; commit.c decides when they reach the file.
 * Thread: the image's loop. */
#include "block/qcow2/parts.h"
#include "block/qcow2/subcluster.h"

#include <errno.h>

enum extent_kind l2_kind(const struct qcow2 *q, u64 entry)
{
	if (entry & ENTRY_COMPRESSED)
		return EXTENT_COMPRESSED;
	if (entry & q->zero_bit)
		return EXTENT_ZERO;
	return l2_is_placed(q, entry) ? EXTENT_DATA : EXTENT_HOLE;
}

static int load_table(struct fiber *f, struct qcow2 *q, u32 l1_index)
{
	u64 hoff = q->l1[l1_index] & ENTRY_HOFF;

	if (!is_aligned(hoff, q->cluster_bytes))
		return qcow2_corrupt(f, q, "L2 table offset %#llx unaligned (L1 index: %#x)",
				     (unsigned long long)hoff, l1_index);
	slices_forget(q, hoff);
	slices_make_room(q);
	return cache_load(f, &q->l2, q->img.below, l1_index, hoff);
}

int l2_get(struct fiber *f, struct qcow2 *q, u32 l1_index, struct table **out)
{
	int ret;

	for (;;) {
		if (unlikely(l1_index >= q->l1_entries)) /* cut off by a resize */
			return -EIO;
		*out = cache_peek(&q->l2, l1_index);
		if (likely(*out))
			return 0;
		if (q->l2.tables[l1_index]) {
			fiber_queue_wait(f, &q->l2.loaded);
			continue;
		}
		if (!(q->l1[l1_index] & ENTRY_HOFF))
			return 0;
		ret = load_table(f, q, l1_index);
		if (ret < 0)
			return ret;
	}
}

void l1_set(struct qcow2 *q, u32 l1_index, u64 entry)
{
	assert(l1_index < q->l1_entries);
	q->l1[l1_index] = entry;
	q->l1_dirty[(u64)l1_index * 8 / q->granule] = 1;
	q->l1_any_dirty = true;
}

bool l2_place_is_sound(const struct qcow2 *q, u64 hoff)
{
	enum overlap_kind kind = overlap_find(&q->metadata, hoff >> q->cluster_bits);

	/* Two entries may share a table; the first that copies it unmarks it. */
	return is_aligned(hoff, q->cluster_bytes) && (kind == OVERLAP_L2 || kind == OVERLAP_NONE);
}

/* Put a table, new or a copy of `old`, at its place.  -ENOMEM. */
static int install(struct qcow2 *q, u32 l1_index, struct table *old, const struct alloc *a)
{
	u64 hoff = a->hoff;
	struct table *t;
	int ret = overlap_add(&q->metadata, hoff >> q->cluster_bits, OVERLAP_L2, NULL);

	assert(ret != -EEXIST); /* the allocator looked */
	if (ret < 0)
		return ret;
	slices_forget(q, hoff);
	if (old) {
		u64 old_hoff = old->hoff;

		old->hoff = hoff;
		old->fresh = true;
		old->blank = a->zeroed;
		cache_mark_dirty(&q->l2, old, 0, q->cluster_bytes);
		overlap_remove(&q->metadata, old_hoff >> q->cluster_bits);
		cluster_free(q, old_hoff, 1);
	} else {
		slices_make_room(q);
		ret = cache_add_fresh(&q->l2, l1_index, hoff, a->zeroed, &t);
		if (ret < 0) {
			overlap_remove(&q->metadata, hoff >> q->cluster_bits);
			return ret;
		}
	}
	l1_set(q, l1_index, hoff | ENTRY_COPIED);
	return 0;
}

/* A table that several entries name must have as many references: else the one
 * that copies it would free it under the others. */
static int judge_twins(struct fiber *f, struct qcow2 *q, u64 entry)
{
	u64 cluster = (entry & ENTRY_HOFF) >> q->cluster_bits, refcount = 0;
	struct table *t;
	u32 n = 0;
	int ret = refblock_get(f, q, cluster >> q->refblock_bits, &t);

	if (ret < 0)
		return ret;
	if (t)
		refcount = refcount_load(q, t->data, (u32)(cluster & (q->refblock_entries - 1)));
	for (u32 i = 0; i < q->l1_entries; i++)
		n += (q->l1[i] & ENTRY_HOFF) == (entry & ENTRY_HOFF);
	if (n > 1 && refcount < n)
		return qcow2_corrupt(
			f, q, "L2 table %#llx is named by %u L1 entries, its refcount is %llu",
			(unsigned long long)(entry & ENTRY_HOFF), n, (unsigned long long)refcount);
	return 0;
}

int l2_get_writable(struct fiber *f, struct qcow2 *q, u32 l1_index, struct table **out)
{
	struct alloc a;
	int ret;

	for (;;) {
		u64 entry;

		ret = l2_get(f, q, l1_index, out);
		if (ret < 0 || (*out && q->l1[l1_index] & ENTRY_COPIED))
			return ret;
		entry = q->l1[l1_index];
		if (*out && !l2_place_is_sound(q, entry & ENTRY_HOFF))
			return qcow2_corrupt(f, q, "L2 table in other metadata (L1 index: %#x)",
					     l1_index);
		ret = *out && q->l2_twins ? judge_twins(f, q, entry) : 0;
		if (ret == 0)
			ret = cluster_alloc(f, q, 1, &a);
		if (ret < 0)
			return ret;
		/* Others may have come first while the allocation waited. */
		*out = q->l2.tables[l1_index];
		if (l1_index >= q->l1_entries || q->l1[l1_index] != entry ||
		    (*out && (*out)->loading) || (!*out && entry & ENTRY_HOFF)) {
			cluster_free(q, a.hoff, 1);
			continue;
		}
		assert(!*out || !(*out)->committing); /* a shared table is never dirty */
		ret = install(q, l1_index, *out, &a);
		if (ret < 0) {
			cluster_free(q, a.hoff, 1);
			return ret;
		}
	}
}

void l2_set(struct qcow2 *q, struct table *t, u32 i, u64 entry)
{
	assert(i < q->l2_entries && q->l1[t->index] & ENTRY_COPIED); /* I4 */
	store_be64(t->data + ((u64)i << t->entry_shift), entry);
	if (q->extended && entry & ENTRY_COMPRESSED) /* it has no subclusters */
		store_be64(t->data + ((u64)i << t->entry_shift) + 8, 0);
	cache_mark_dirty(&q->l2, t, i << t->entry_shift, (i + 1) << t->entry_shift);
}

/* How many entries from i on, up to n, go on in the way of the first one. */
static u64 run_length(const struct qcow2 *q, const struct table *t, u32 i, u64 n)
{
	u64 first = l2_entry(t, i), k = 1;
	enum extent_kind kind = l2_kind(q, first);

	switch (kind) {
	case EXTENT_DATA:
		while (k < n && l2_entry(t, i + k) == first + (k << q->cluster_bits))
			k++;
		break;
	case EXTENT_HOLE:
	case EXTENT_ZERO:
		while (k < n && l2_entry(t, i + k) == first)
			k++;
		break;
	case EXTENT_COMPRESSED: break;
	}
	return k;
}

int l2_place_extent(struct fiber *f, struct qcow2 *q, const struct table *t, u64 goff, u64 entry,
		    struct extent *out)
{
	u32 i = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);

	if (unlikely(out->kind == EXTENT_COMPRESSED && q->data_external))
		return qcow2_corrupt(f, q,
				     "Compressed cluster entry found in image with external data "
				     "file (L2 offset: %#llx, L2 index: %#x)",
				     (unsigned long long)t->hoff, i);
	if (out->kind == EXTENT_COMPRESSED)
		out->hoff = entry;
	if (out->kind == EXTENT_COMPRESSED || !l2_is_placed(q, entry))
		return 0;
	out->placed = true;
	out->hoff = entry & ENTRY_HOFF;
	out->in_place = entry & q->l1[t->index] & ENTRY_COPIED;
	if (unlikely(!is_aligned(out->hoff, q->cluster_bytes)))
		return qcow2_corrupt(f, q,
				     "Cluster allocation offset %#llx unaligned (L2 offset: "
				     "%#llx, L2 index: %#x)",
				     (unsigned long long)out->hoff, (unsigned long long)t->hoff, i);
	if (unlikely(q->data_raw && out->hoff != cluster_floor(q, goff)))
		return qcow2_corrupt(f, q,
				     "External data file host cluster offset %#llx does not match "
				     "guest cluster offset: %#llx, L2 index: %#x)",
				     (unsigned long long)out->hoff,
				     (unsigned long long)cluster_floor(q, goff), i);
	out->hoff += goff & (q->cluster_bytes - 1);
	return 0;
}

/* The table of l1_index, or the part of it that entry *i is in: then *i and *left are
 * cut to that. */
static int l2_get_part(struct fiber *f, struct qcow2 *q, u64 goff, u32 *i, u64 *left,
		       struct table **out)
{
	u32 l1_index = (u32)(goff >> (q->cluster_bits + q->l2_bits));
	u64 span = (u64)l2_slice_entries(q) << q->cluster_bits;
	int ret;

	if (l2_has_slices(q)) {
		ret = slice_get(f, q, l1_index, *i, out);
		if (ret < 0)
			return ret;
		if (*out) {
			*i &= l2_slice_entries(q) - 1;
			*left = MIN(*left, span - (goff & (span - 1)));
			return 0;
		}
	}
	return l2_get(f, q, l1_index, out);
}

int l2_map(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes, struct extent *out)
{
	u32 l1_index = (u32)(goff >> (q->cluster_bits + q->l2_bits));
	u32 i = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);
	u64 in_cluster = goff & (q->cluster_bytes - 1);
	u64 left = MIN(bytes, l2_span(q) - (goff & (l2_span(q) - 1)));
	struct table *t = cache_peek(&q->l2, l1_index);
	u64 entry;
	int ret;

	if (unlikely(!t)) {
		ret = l2_get_part(f, q, goff, &i, &left, &t);
		if (ret < 0)
			return ret;
	}
	*out = (struct extent){.kind = EXTENT_HOLE, .bytes = left};
	if (!t)
		return 0;
	if (unlikely(q->extended))
		return sub_map(f, q, t, goff, left, out);
	entry = l2_entry(t, i);
	out->kind = l2_kind(q, entry);
	out->bytes = MIN(left, (run_length(q, t, i, clusters_of(q, in_cluster + left))
				<< q->cluster_bits) -
				       in_cluster);
	return l2_place_extent(f, q, t, goff, entry, out);
}
