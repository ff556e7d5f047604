/* Where a pivot puts things, and how memory follows once the header has turned.
 *
 * Places are claimed like any cluster: refcounts in memory, which are then written,
 * so that the refcount structure in use counts them before anything refers to them
 * (leaks, should it end there).  Thread: the image's loop. */
#include "block/qcow2/pivot.h"

#include <errno.h>

/* --- claiming --- */

static int note_place(struct pivot *p, u64 hoff, u64 n)
{
	u32 room = p->place_room ? 2 * p->place_room : 16;
	struct pivot_place *places = p->places;

	if (p->place_n == p->place_room) {
		places = try_alloc(room * sizeof(*places));
		if (!places)
			return -ENOMEM;
		if (p->place_n)
			memcpy(places, p->places, p->place_n * sizeof(*places));
		free(p->places);
		p->places = places;
		p->place_room = room;
	}
	places[p->place_n++] = (struct pivot_place){hoff, n};
	return 0;
}

static int claim(struct fiber *f, struct pivot *p, u64 want, struct alloc *a)
{
	int ret = cluster_alloc(f, p->q, want, a);

	if (ret < 0)
		return ret;
	ret = note_place(p, a->hoff, a->clusters);
	if (ret < 0)
		cluster_free(p->q, a->hoff, a->clusters);
	return ret;
}

/* n clusters in a row for `bytes` of a table. */
static int claim_run(struct fiber *f, struct pivot *p, u64 bytes, struct pivot_place *out)
{
	u64 n = clusters_of(p->q, bytes), hoff;
	int ret;

	*out = (struct pivot_place){0};
	if (!n)
		return 0;
	ret = cluster_alloc_run(f, p->q, n, &hoff);
	if (ret < 0)
		return ret;
	ret = note_place(p, hoff, n);
	if (ret < 0)
		cluster_free(p->q, hoff, n);
	else
		*out = (struct pivot_place){hoff, n};
	return ret;
}

/* One cluster for each bit, of n, into `to`. */
static int claim_each(struct fiber *f, struct pivot *p, const u8 *bits, u64 n, u64 *to)
{
	struct alloc a = {0};
	u64 left = 0;

	for (u64 i = 0; i < n; i++)
		left += bit_get(bits, i);
	for (u64 i = 0; i < n; i++) {
		int ret;

		if (!bit_get(bits, i))
			continue;
		ret = a.clusters ? 0 : claim(f, p, left, &a);
		if (ret < 0)
			return ret;
		to[i] = a.hoff;
		a.hoff += p->q->cluster_bytes;
		a.clusters--;
		left--;
	}
	return 0;
}

/* The table may grow while its own place is sought. */
static int claim_reftable(struct fiber *f, struct pivot *p)
{
	u64 bytes;
	int ret;

	do {
		bytes = p->q->reftable_n * 8ull;
		ret = claim_run(f, p, bytes, &p->reftable_place);
	} while (ret == 0 && p->q->reftable_n * 8ull > bytes);
	return ret;
}

static int alloc_arrays(struct pivot *p)
{
	p->l2_new = try_alloc(p->l1_entries * sizeof(*p->l2_new) + 1);
	p->block_new = try_alloc(((p->total >> p->q->refblock_bits) + 1) * sizeof(*p->block_new));
	return p->l2_new && p->block_new ? 0 : -ENOMEM;
}

/* Is the active L1 table another one than now? */
static bool l1_changes(const struct pivot *p)
{
	const struct qcow2 *q = p->q;

	return p->l2_count || p->l1_entries != q->l1_entries ||
	       memcmp(p->l1, q->l1, p->l1_entries * 8ull) != 0;
}

static int claim_all(struct fiber *f, struct pivot *p)
{
	u64 blocks = (p->total >> p->q->refblock_bits) + 1;
	int ret = alloc_arrays(p);

	p->l1_moves = l1_changes(p);
	if (ret == 0)
		ret = claim_each(f, p, p->l2_bits, p->l1_entries, p->l2_new);
	if (ret == 0 && p->block_count)
		ret = claim_each(f, p, p->block_bits, blocks, p->block_new);
	if (ret == 0 && p->l1_moves)
		ret = claim_run(f, p, MAX(p->l1_entries, 1u) * 8ull, &p->l1_place);
	if (ret == 0 && p->fresh)
		ret = claim_run(f, p, MAX(p->kept_n, 1u) * 8ull, &p->kept_place);
	if (ret == 0 && p->snapshots)
		ret = claim_run(f, p, snapshots_bytes(p->snapshots, p->snapshot_n),
				&p->table_place);
	if (ret == 0 && p->block_count)
		ret = claim_reftable(f, p);
	return ret;
}

/* Both the active state and somebody else will refer to a replaced table. */
static bool is_shared(const struct pivot *p)
{
	return p->from_active && p->flags == FLAGS_CLEAR;
}

static int share_tables(struct fiber *f, struct pivot *p)
{
	struct qcow2 *q = p->q;

	for (u32 i = 0; is_shared(p) && p->l2_count && i < p->l1_entries; i++) {
		u64 c = p->l2_new[i] >> q->cluster_bits;
		struct table *t;
		int ret;

		if (!c)
			continue;
		ret = refblock_get(f, q, c >> q->refblock_bits, &t);
		if (ret < 0)
			return ret;
		assert(t); /* it was made for the allocation */
		if (refcount_max(q) < 2)
			return -EINVAL;
		refblock_set(q, t, (u32)(c & (q->refblock_entries - 1)), 2);
	}
	return 0;
}

/* --- the set of metadata places --- */

static int enter_run(struct pivot *p, const struct pivot_place *at, enum overlap_kind kind)
{
	int ret = 0;

	for (u64 i = 0; i < at->n && ret == 0; i++)
		ret = overlap_add(&p->q->metadata, (at->hoff >> p->q->cluster_bits) + i, kind,
				  NULL);
	return ret == -EEXIST ? 0 : ret;
}

static int enter_each(struct pivot *p, const u64 *hoffs, u64 n, enum overlap_kind kind)
{
	int ret = 0;

	for (u64 i = 0; i < n && ret >= 0; i++)
		if (hoffs[i])
			ret = overlap_add(&p->q->metadata, hoffs[i] >> p->q->cluster_bits, kind,
					  NULL);
	return ret == -EEXIST ? 0 : ret;
}

static void leave(struct qcow2 *q, u64 hoff, u64 n)
{
	for (u64 i = 0; i < n; i++)
		overlap_remove(&q->metadata, (hoff >> q->cluster_bits) + i);
}

static int enter_all(struct pivot *p)
{
	int ret = enter_each(p, p->l2_new, p->l1_entries, OVERLAP_L2);

	if (ret == 0)
		ret = enter_each(p, p->block_new, (p->total >> p->q->refblock_bits) + 1,
				 OVERLAP_REFBLOCK);
	if (ret == 0)
		ret = enter_run(p, &p->l1_place, OVERLAP_L1);
	if (ret == 0)
		ret = enter_run(p, &p->reftable_place, OVERLAP_REFTABLE);
	if (ret == 0)
		ret = enter_run(p, &p->table_place, OVERLAP_SNAPSHOTS);
	if (ret == 0)
		ret = enter_run(p, &p->kept_place, OVERLAP_INACTIVE_L1);
	/* Tables that apply brings back from a snapshot. */
	for (u32 i = 0; i < p->l1_entries && !p->from_active && ret >= 0; i++)
		if (!p->l2_new[i] && p->l1[i])
			ret = overlap_add(&p->q->metadata,
					  (p->l1[i] & ENTRY_HOFF) >> p->q->cluster_bits, OVERLAP_L2,
					  NULL);
	return ret == -ENOMEM ? ret : 0;
}

int pivot_place(struct fiber *f, struct pivot *p)
{
	struct qcow2 *q = p->q;
	int ret = claim_all(f, p);

	if (ret == 0)
		ret = share_tables(f, p);
	if (ret == 0) /* stage A's sync is theirs, too */
		ret = qcow2_commit_refcounts(f, q, false);
	if (ret == 0)
		ret = enter_all(p);
	return ret;
}

void pivot_unplace(struct fiber *f, struct pivot *p)
{
	struct qcow2 *q = p->q;

	for (u32 i = 0; i < p->place_n; i++) {
		leave(q, p->places[i].hoff, p->places[i].n);
		cluster_free(q, p->places[i].hoff, p->places[i].n);
	}
	for (u32 i = 0; is_shared(p) && p->l2_new && i < p->l1_entries; i++) {
		u64 c = p->l2_new[i] >> q->cluster_bits;
		struct table *t;

		/* The second reference, if share_tables came that far. */
		if (c && refblock_get(f, q, c >> q->refblock_bits, &t) == 0 && t &&
		    refcount_load(q, t->data, (u32)(c & (q->refblock_entries - 1))) == 2)
			cluster_free(q, c << q->cluster_bits, 1);
	}
}

/* --- after the turn --- */

/* Free what the header named before, and what was claimed and not used. */
static void settle_runs(struct pivot *p)
{
	struct qcow2 *q = p->q;

	if (p->l1_moves) {
		leave(q, q->l1_hoff, q->l1_clusters);
		if (q->l1_clusters)
			cluster_free(q, q->l1_hoff, q->l1_clusters);
		q->l1_hoff = p->l1_place.hoff;
		q->l1_clusters = (u32)p->l1_place.n;
	}
	if (p->block_count) {
		leave(q, q->reftable_hoff, q->reftable_clusters);
		cluster_free(q, q->reftable_hoff, q->reftable_clusters);
		q->reftable_hoff = p->reftable_place.hoff;
		q->reftable_clusters = (u32)p->reftable_place.n;
	}
	for (u32 i = 0; i < p->place_n; i++) { /* tables that turned out too small */
		u64 hoff = p->places[i].hoff;

		if (overlap_find(&q->metadata, hoff >> q->cluster_bits) == OVERLAP_NONE)
			cluster_free(q, hoff, p->places[i].n);
	}
}

static void settle_blocks(struct pivot *p)
{
	struct qcow2 *q = p->q;

	for (u64 b = 0; p->block_count && b <= p->total >> q->refblock_bits; b++) {
		u64 old = p->block_new[b] ? q->reftable[b] & REFTABLE_HOFF : 0;

		if (!p->block_new[b])
			continue;
		if (q->blocks.tables[b])
			cache_drop(&q->blocks, q->blocks.tables[b]);
		leave(q, old, 1);
		cluster_free(q, old, 1);
		q->reftable[b] = p->block_new[b];
		if (!p->frees)
			continue;
		q->first_free[b] = 0;
		q->first_block = MIN(q->first_block, (u32)b);
	}
}

/* The table of index i, cached or not, lies elsewhere now, or is another one. */
static void settle_table(struct pivot *p, u32 i)
{
	struct qcow2 *q = p->q;
	u64 now = i < p->l1_entries ? p->l1[i] & ENTRY_HOFF : 0, old = q->l1[i] & ENTRY_HOFF;
	struct table *t = q->l2.tables[i];

	if (now == old)
		return;
	if (t && now && p->from_active && p->flags == FLAGS_CLEAR) {
		(void)pivot_fix_flags(p, t->data);
		t->hoff = now;
	} else if (t) {
		cache_drop(&q->l2, t);
	}
	if (!old || !l2_place_is_sound(q, old))
		return;
	leave(q, old, 1);
	if (p->from_active && now)
		cluster_free(q, old, 1);
}

static void settle_tables(struct pivot *p)
{
	struct qcow2 *q = p->q;

	slices_forget_all(q); /* tables were written that never were in the cache */
	for (u32 i = 0; i < q->l1_entries; i++)
		settle_table(p, i);
	/* A table left at one index may be in use at another. */
	for (u32 i = 0; i < p->l1_entries && !p->from_active; i++)
		if (p->l1[i])
			(void)overlap_add(&q->metadata, (p->l1[i] & ENTRY_HOFF) >> q->cluster_bits,
					  OVERLAP_L2, NULL);
}

static void settle_l1(struct pivot *p)
{
	struct qcow2 *q = p->q;
	u32 n = p->l1_entries;

	memcpy(q->l1, p->l1, MIN(n, q->l1_room) * 8ull);
	if (n < q->l1_entries)
		memset(q->l1 + n, 0, (q->l1_entries - n) * 8ull);
	q->l1_entries = n;
	q->l1_room = (u32)(align_up(n * 8ull, q->granule) / 8);
}

static void settle_snapshots(struct pivot *p, u64 old_hoff)
{
	struct qcow2 *q = p->q;

	if (!p->snapshots)
		return;
	if (q->snapshot_bytes) {
		leave(q, old_hoff, clusters_of(q, q->snapshot_bytes));
		cluster_free(q, old_hoff, clusters_of(q, q->snapshot_bytes));
	}
	free(q->snapshots); /* what they hold went over to the new list */
	q->snapshots = p->snapshots;
	q->snapshot_count = p->snapshot_n;
	q->snapshot_bytes = snapshots_bytes(p->snapshots, p->snapshot_n);
	p->snapshots = NULL;
}

void pivot_settle(struct pivot *p, const struct disk_header *old)
{
	if (p->frees)
		pack_close(p->q, 0, p->total);
	settle_runs(p);
	settle_blocks(p);
	if (p->l1_moves) {
		settle_tables(p);
		settle_l1(p);
	}
	p->q->img.bytes = p->bytes;
	settle_snapshots(p, be64_get(old->snapshots_hoff));
}
