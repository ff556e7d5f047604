/* The refcount tree: entries of 1 to 64 bits in blocks, blocks in a table.
 *
 * In memory the table may be longer than on disk and name blocks that are not
 * there yet (fresh); commit.c puts them there before anything relies on them.
 * Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include "base/log.h"

#include <errno.h>

u64 refcount_load(const struct qcow2 *q, const u8 *block, u32 i)
{
	u32 bits = 1u << q->refcount_order;

	switch (q->refcount_order) {
	case 3: return block[i];
	case 4: return load_be16(block + 2ull * i);
	case 5: return load_be32(block + 4ull * i);
	case 6: return load_be64(block + 8ull * i);
	default: /* below a byte: the first entry in the lowest bits */
		return block[i * bits / 8] >> (i * bits % 8) & ((1u << bits) - 1);
	}
}

void refcount_store(const struct qcow2 *q, u8 *block, u32 i, u64 value)
{
	u32 bits = 1u << q->refcount_order, shift = i * bits % 8;
	u8 *byte = block + (u64)i * bits / 8;

	assert(value <= refcount_max(q));
	switch (q->refcount_order) {
	case 3: *byte = (u8)value; break;
	case 4: store_be16(byte, (u16)value); break;
	case 5: store_be32(byte, (u32)value); break;
	case 6: store_be64(byte, value); break;
	default: *byte = (u8)((*byte & ~(((1u << bits) - 1) << shift)) | value << shift); break;
	}
}

u64 refcount_max(const struct qcow2 *q)
{
	return q->refcount_order == 6 ? UINT64_MAX : ((u64)1 << (1u << q->refcount_order)) - 1;
}

static int load_block(struct fiber *f, struct qcow2 *q, u32 b)
{
	u64 hoff = q->reftable[b] & REFTABLE_HOFF;

	if (!is_aligned(hoff, q->cluster_bytes) || hoff >= QCOW2_MAX_HOFF)
		return qcow2_corrupt(f, q, "Refblock offset %#llx unaligned (reftable index: %#x)",
				     (unsigned long long)hoff, b);
	return cache_load(f, &q->blocks, q->img.below, b, hoff);
}

int refblock_get(struct fiber *f, struct qcow2 *q, u64 index, struct table **out)
{
	u32 b = (u32)index;

	for (;;) {
		int ret;

		*out = NULL;
		if (index >= q->reftable_n)
			return 0;
		*out = cache_peek(&q->blocks, b);
		if (*out)
			return 0;
		if (q->blocks.tables[b]) {
			fiber_queue_wait(f, &q->blocks.loaded);
			continue;
		}
		if (!(q->reftable[b] & REFTABLE_HOFF))
			return 0;
		ret = load_block(f, q, b);
		if (ret < 0)
			return ret;
	}
}

void refblock_set(struct qcow2 *q, struct table *t, u32 i, u64 value)
{
	u32 bits = 1u << q->refcount_order;
	u32 lo = (u32)((u64)i * bits / 8), hi = (u32)(((u64)i * bits + bits + 7) / 8);

	refcount_store(q, t->data, i, value);
	cache_mark_dirty(&q->blocks, t, lo, hi);
	if (value == 0) {
		q->first_free[t->index] = MIN(q->first_free[t->index], i);
		q->first_block = MIN(q->first_block, t->index);
	}
}

/* Make the table in memory hold at least n entries. */
static int reftable_grow(struct qcow2 *q, u32 n)
{
	u32 room = q->reftable_n + q->reftable_n / 2;
	u64 *table;
	u32 *hints;
	u8 *dirty;
	int ret;

	if (n > QCOW2_MAX_REFTABLE_BYTES / 8)
		return -EFBIG;
	room = (u32)align_up(MAX(n, room), q->cluster_bytes / 8);
	room = MIN(room, (u32)(QCOW2_MAX_REFTABLE_BYTES / 8));
	table = try_alloc(room * sizeof(*table));
	hints = try_alloc(room * sizeof(*hints));
	dirty = try_alloc(room * 8ull / HEADER_SECTOR + 1);
	ret = table && hints && dirty ? cache_set_n(&q->blocks, room) : -ENOMEM;
	if (ret < 0) {
		free(table);
		free(hints);
		free(dirty);
		return ret;
	}
	memcpy(table, q->reftable, q->reftable_n * sizeof(*table));
	memcpy(hints, q->first_free, q->reftable_n * sizeof(*hints));
	memcpy(dirty, q->reftable_dirty, q->reftable_n * 8ull / HEADER_SECTOR + 1);
	free(q->reftable);
	free(q->first_free);
	free(q->reftable_dirty);
	q->reftable = table;
	q->reftable_dirty = dirty;
	q->first_free = hints;
	q->reftable_n = room;
	return 0;
}

int refblock_add(struct fiber *f, struct qcow2 *q, u32 b, u64 cluster, struct table **out)
{
	u32 own = (u32)(cluster >> q->refblock_bits); /* the block that counts this one */
	u64 hoff = cluster << q->cluster_bits;
	enum overlap_kind was;
	int ret = b < q->reftable_n ? 0 : reftable_grow(q, b + 1);

	if (ret < 0)
		return ret;
	assert(!(q->reftable[b] & REFTABLE_HOFF) && !q->blocks.tables[b]);
	ret = overlap_add(&q->metadata, cluster, OVERLAP_REFBLOCK, &was);
	if (ret == -EEXIST)
		return qcow2_corrupt(f, q,
				     "Preventing invalid allocation of refcount block %u: "
				     "cluster holds %s",
				     b, overlap_name(was));
	if (ret < 0)
		return ret;
	ret = cache_add_fresh(&q->blocks, b, hoff, hoff >= q->fresh_hoff, out);
	if (ret < 0) {
		overlap_remove(&q->metadata, cluster);
		return ret;
	}
	q->reftable[b] = hoff;
	q->first_free[b] = 0;
	assert(q->blocks.tables[own]);
	refblock_set(q, q->blocks.tables[own], (u32)(cluster & (q->refblock_entries - 1)), 1);
	q->fresh_hoff = MAX(q->fresh_hoff, hoff + q->cluster_bytes);
	return 0;
}

/* Lower one refcount.  Its block must be cached. */
static int lower(struct fiber *f, struct qcow2 *q, struct table *t, u64 cluster)
{
	u32 i = (u32)(cluster & (q->refblock_entries - 1));
	u64 value = refcount_load(q, t->data, i);

	if (value == 0)
		return qcow2_corrupt(f, q, "refcount of freed cluster %llu is already 0",
				     (unsigned long long)cluster);
	refblock_set(q, t, i, value - 1);
	/* It may have been written where the file had not reached before. */
	q->fresh_hoff = MAX(q->fresh_hoff, (cluster + 1) << q->cluster_bits);
	return 0;
}

/* As far into the run as it goes; what is done leaves the run. */
static int release_run(struct fiber *f, struct qcow2 *q, struct freed_run *run)
{
	while (run->clusters) {
		u64 cluster = run->hoff >> q->cluster_bits;
		struct table *t;
		int ret = refblock_get(f, q, cluster >> q->refblock_bits, &t);

		if (ret < 0)
			return ret;
		if (!t)
			return qcow2_corrupt(f, q, "freed cluster %llu has no refcount block",
					     (unsigned long long)cluster);
		do {
			ret = lower(f, q, t, cluster++);
			if (ret < 0)
				return ret;
			run->hoff += q->cluster_bytes;
			run->clusters--;
		} while (run->clusters && cluster & (q->refblock_entries - 1));
	}
	return 0;
}

/* Is this the last reference?  Shared clusters stay in use. */
static bool is_last(struct fiber *f, struct qcow2 *q, u64 cluster)
{
	struct table *t;

	return refblock_get(f, q, cluster >> q->refblock_bits, &t) == 0 && t &&
	       refcount_load(q, t->data, (u32)(cluster & (q->refblock_entries - 1))) == 1;
}

static void punch(struct fiber *f, struct qcow2 *q, u64 hoff, u64 clusters)
{
	u64 end = MIN(hoff + (clusters << q->cluster_bits), q->img.below->bytes);

	if (hoff < end) /* the last one may be there in part */
		(void)image_discard(f, q->img.below, hoff, end - hoff);
}

/* Give the space back to the host, before anyone can use it again. */
static void discard_run(struct fiber *f, struct qcow2 *q, const struct freed_run *run)
{
	u64 start = run->hoff >> q->cluster_bits, end = start + run->clusters;

	for (u64 c = start; c < end; c++) {
		if (is_last(f, q, c))
			continue;
		punch(f, q, start << q->cluster_bits, c - start);
		start = c + 1;
	}
	punch(f, q, start << q->cluster_bits, end - start);
}

int refcount_release(struct fiber *f, struct qcow2 *q)
{
	while (!list_empty(&q->durable)) {
		struct freed_run *run = list_entry(q->durable.next, struct freed_run, link);
		struct io_track *oldest = list_entry(q->ios.next, struct io_track, link);
		int ret;

		if (!list_empty(&q->ios) && oldest->seq <= run->seq)
			return 0;
		pack_close(q, run->hoff, run->clusters);
		if (q->discard_host && !q->corrupt)
			discard_run(f, q, run);
		ret = release_run(f, q, run);
		if (ret < 0)
			return ret;
		list_del(&run->link);
		free(run);
		q->freed_runs--;
		q->durable_runs--;
	}
	return 0;
}
