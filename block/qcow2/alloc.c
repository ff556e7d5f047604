/* Host clusters: first fit from the lowest free one, and giving them back.
 *
 * An allocation raises refcounts in memory; what is allocated and then not used
 * goes through cluster_free like everything else.  Thread: the image's loop;
 * alloc_lock keeps a search and the claim that follows it together. */
#include "block/qcow2/parts.h"

#include "base/log.h"
#include "block/file.h"

#include <errno.h>

#define RESERVE_AFTER 16 /* writes of parts of fresh clusters */
#define RESERVE_MOST  (4 * MiB)

int overlap_check(struct fiber *f, struct qcow2 *q, u64 hoff, u64 bytes)
{
	u64 end = (hoff + bytes - 1) >> q->cluster_bits;

	for (u64 c = hoff >> q->cluster_bits; c <= end; c++) {
		enum overlap_kind kind = overlap_find(&q->metadata, c);

		if (unlikely(kind != OVERLAP_NONE))
			return qcow2_corrupt(f, q,
					     "Preventing invalid write on metadata (overlaps "
					     "with %s)",
					     overlap_name(kind));
	}
	return 0;
}

/* The first free entry of a block from i on, or refblock_entries. */
static u32 find_free(const struct qcow2 *q, const struct table *t, u32 i)
{
	while (i < q->refblock_entries && refcount_load(q, t->data, i) != 0)
		i++;
	return i;
}

/* Block b, made if there is none.  Holds alloc_lock. */
static int get_block(struct fiber *f, struct qcow2 *q, u32 b, struct table **t)
{
	int ret;

	if (((u64)b << q->refblock_bits) + 1 > q->max_hoff >> q->cluster_bits)
		return q->max_hoff == QCOW2_MAX_HOFF ? -EFBIG : -ENOSPC;
	ret = refblock_get(f, q, b, t);
	if (ret < 0 || *t)
		return ret;
	/* It takes the first cluster of those it describes. */
	return refblock_add(f, q, b, (u64)b << q->refblock_bits, t);
}

/* Claim up to `want` free clusters from entry i of the block on. */
static void claim(struct qcow2 *q, struct table *t, u32 i, u64 want, struct alloc *out)
{
	u64 cluster = ((u64)t->index << q->refblock_bits) + i, n = 0;
	u64 limit = q->max_hoff >> q->cluster_bits;

	while (n < want && i + n < q->refblock_entries && cluster + n < limit &&
	       refcount_load(q, t->data, i + (u32)n) == 0)
		refblock_set(q, t, i + (u32)n++, 1);
	out->hoff = cluster << q->cluster_bits;
	out->clusters = n;
	out->zeroed = out->hoff >= q->fresh_hoff;
	q->fresh_hoff = MAX(q->fresh_hoff, out->hoff + (n << q->cluster_bits));
	if (q->first_free[t->index] == i)
		q->first_free[t->index] = i + (u32)n;
}

static int alloc_locked(struct fiber *f, struct qcow2 *q, u64 want, struct alloc *out)
{
	for (u32 b = q->first_block;; b++) {
		struct table *t;
		int ret;
		u32 i;

		if (b < q->reftable_n && q->first_free[b] >= q->refblock_entries)
			continue;
		ret = get_block(f, q, b, &t);
		if (ret < 0)
			return ret;
		i = find_free(q, t, q->first_free[b]);
		q->first_free[b] = i;
		if (i == q->refblock_entries)
			continue;
		claim(q, t, i, want, out);
		return out->clusters ? 0 : -ENOSPC; /* the end of a device */
	}
}

/* Blocks that are known to be full need not be looked at again. */
static void advance_first_block(struct qcow2 *q)
{
	while (q->first_block < q->reftable_n &&
	       q->first_free[q->first_block] >= q->refblock_entries)
		q->first_block++;
}

static int give_back(struct qcow2 *q, const struct alloc *a, int ret)
{
	cluster_free(q, a->hoff, a->clusters);
	return ret;
}

int cluster_alloc(struct fiber *f, struct qcow2 *q, u64 want, struct alloc *out)
{
	int ret;

	assert(want > 0);
	fiber_mutex_lock(f, &q->alloc_lock);
	ret = alloc_locked(f, q, want, out);
	advance_first_block(q);
	fiber_mutex_unlock(f, &q->alloc_lock);
	if (ret < 0)
		return ret;
	ret = overlap_check(f, q, out->hoff, out->clusters << q->cluster_bits);
	return ret < 0 ? give_back(q, out, ret) : 0;
}

/* The host's file system has work with every piece that is written into a hole of its
 * own, and with every one that makes the file longer.  Both are done once for many, once
 * it is clear that there are many; a few small images need no room of megabytes. */
void cluster_reserve(struct qcow2 *q, u64 hoff)
{
	u64 from = MAX(hoff, q->room.hoff), bytes = ++q->room.partial_writes << q->cluster_bits;

	if (likely(hoff + q->cluster_bytes <= q->room.hoff || q->room.refused ||
		   q->room.partial_writes < RESERVE_AFTER))
		return;
	if (q->data != q->img.below || q->data->driver != &file_driver || !q->data->grows) {
		q->room.refused = true;
		return;
	}
	bytes = align_up(MIN(bytes, RESERVE_MOST), q->cluster_bytes);
	q->room.hoff = from + bytes;
	if (file_reserve(q->data, from, from + bytes) < 0)
		q->room.refused = true;
}

/* Is cluster free?  Makes its block if there is none. */
static int is_free(struct fiber *f, struct qcow2 *q, u64 cluster)
{
	struct table *t;
	int ret = get_block(f, q, (u32)(cluster >> q->refblock_bits), &t);

	if (ret < 0)
		return ret;
	return refcount_load(q, t->data, (u32)(cluster & (q->refblock_entries - 1))) == 0;
}

/* The first of n free clusters in a row. */
static int find_run(struct fiber *f, struct qcow2 *q, u64 n, u64 *first)
{
	u64 start = (u64)q->first_block << q->refblock_bits, c;

	if (q->first_block < q->reftable_n)
		start += q->first_free[q->first_block];
	c = start;
	while (c - start < n) {
		int ret;

		if (c + 1 > q->max_hoff >> q->cluster_bits)
			return q->max_hoff == QCOW2_MAX_HOFF ? -EFBIG : -ENOSPC;
		ret = is_free(f, q, c);
		if (ret < 0)
			return ret;
		c++;
		if (!ret)
			start = c;
	}
	*first = start;
	return 0;
}

/* Room for a run that no block alone could describe: behind everything that is
 * described, new blocks lie together in front of the run instead of inside it. */
static int open_region(struct fiber *f, struct qcow2 *q, u64 n, u64 *first)
{
	u32 b = q->reftable_n, blocks = 1;
	u64 start;

	while (b && !q->reftable[b - 1])
		b--;
	while ((u64)blocks << q->refblock_bits < blocks + n)
		blocks++;
	start = (u64)b << q->refblock_bits;
	if (start + blocks + n > q->max_hoff >> q->cluster_bits)
		return q->max_hoff == QCOW2_MAX_HOFF ? -EFBIG : -ENOSPC;
	for (u32 i = 0; i < blocks; i++) {
		struct table *t;
		int ret = refblock_add(f, q, b + i, start + i, &t);

		if (ret < 0)
			return ret;
	}
	*first = start + blocks;
	return 0;
}

static int run_locked(struct fiber *f, struct qcow2 *q, u64 n, u64 *hoff)
{
	u64 first = 0, done = 0;
	int ret =
		n < q->refblock_entries ? find_run(f, q, n, &first) : open_region(f, q, n, &first);

	/* Nobody else raises refcounts while alloc_lock is held. */
	while (ret == 0 && done < n) {
		u64 c = first + done;
		struct alloc a;
		struct table *t;

		ret = get_block(f, q, (u32)(c >> q->refblock_bits), &t);
		if (ret < 0)
			break;
		claim(q, t, (u32)(c & (q->refblock_entries - 1)), n - done, &a);
		assert(a.clusters > 0);
		done += a.clusters;
	}
	*hoff = first << q->cluster_bits;
	if (ret < 0 && done)
		cluster_free(q, *hoff, done);
	return ret;
}

int cluster_alloc_run(struct fiber *f, struct qcow2 *q, u64 n, u64 *hoff)
{
	int ret;

	fiber_mutex_lock(f, &q->alloc_lock);
	ret = run_locked(f, q, n, hoff);
	fiber_mutex_unlock(f, &q->alloc_lock);
	if (ret < 0)
		return ret;
	ret = overlap_check(f, q, *hoff, n << q->cluster_bits);
	if (ret < 0)
		cluster_free(q, *hoff, n);
	return ret;
}

void cluster_free(struct qcow2 *q, u64 hoff, u64 n)
{
	struct freed_run *last = list_entry(q->freed.prev, struct freed_run, link);

	assert(n > 0 && is_aligned(hoff, q->cluster_bytes));
	if (list_empty(&q->freed) || last->hoff + (last->clusters << q->cluster_bits) != hoff) {
		last = xnew(struct freed_run);
		last->hoff = hoff;
		list_append(&q->freed, &last->link);
		q->freed_runs++;
	}
	last->clusters += n;
	last->seq = q->io_seq;
}
