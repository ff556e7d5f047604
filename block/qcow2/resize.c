/* Changing the guest size: a longer L1 table, or less of everything.
 *
 * A longer L1 table goes to a fresh place and is switched by the header (stage
 * B).  Thread: the image's loop. */
#include "block/qcow2/parts.h"
#include "block/qcow2/prealloc.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/qcow2/change.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/bitmap_set.h"

#include <errno.h>

static u32 l1_need(const struct qcow2 *q, u64 bytes)
{
	return (u32)MAX((bytes + l2_span(q) - 1) / l2_span(q), (u64)1);
}

/* The arrays in memory for n entries, whole granules. */
int l1_reserve_memory(struct qcow2 *q, u32 n)
{
	u64 bytes = align_up(n * 8ull, q->granule);
	u64 *l1 = try_alloc(bytes);
	u8 *dirty = try_alloc(bytes / q->granule);

	if (!l1 || !dirty || (n > q->l2.n && cache_set_n(&q->l2, n) < 0)) {
		free(l1);
		free(dirty);
		return -ENOMEM;
	}
	memcpy(l1, q->l1, q->l1_entries * 8ull);
	free(q->l1);
	free(q->l1_dirty);
	q->l1 = l1;
	q->l1_dirty = dirty;
	q->l1_room = (u32)(bytes / 8);
	return 0;
}

/* From here on the table is at hoff; the old place is free once that is durable. */
static void l1_switch(struct qcow2 *q, u32 n, u64 hoff, u32 clusters)
{
	u64 first = q->l1_hoff >> q->cluster_bits;

	for (u32 i = 0; i < q->l1_clusters; i++)
		overlap_remove(&q->metadata, first + i);
	if (q->l1_clusters)
		cluster_free(q, q->l1_hoff, q->l1_clusters);
	q->l1_hoff = hoff;
	q->l1_clusters = clusters;
	q->l1_entries = n;
	q->l1_fresh = q->layout_dirty = true;
}

int l1_extend(struct fiber *f, struct qcow2 *q, u32 n)
{
	u32 clusters = (u32)clusters_of(q, n * 8ull), i;
	u64 hoff;
	int ret;

	if (n <= q->l1_entries)
		return 0;
	ret = cluster_alloc_run(f, q, clusters, &hoff);
	if (ret < 0)
		return ret;
	for (i = 0; i < clusters && ret == 0; i++)
		ret = overlap_add(&q->metadata, (hoff >> q->cluster_bits) + i, OVERLAP_L1, NULL);
	if (ret == 0)
		ret = l1_reserve_memory(q, n);
	if (ret < 0) {
		while (i--)
			overlap_remove(&q->metadata, (hoff >> q->cluster_bits) + i);
		cluster_free(q, hoff, clusters);
		return ret;
	}
	l1_switch(q, n, hoff, clusters);
	return 0;
}

/* What the guest sees of the new area must be zeros: the rest of the last
 * cluster, and whatever a longer backing image has there. */
static int zero_new_area(struct fiber *f, struct qcow2 *q, u64 old)
{
	u64 end = MIN(cluster_ceil(q, old), q->img.bytes);

	if (q->img.backing)
		end = MAX(end, MIN(q->img.bytes, q->img.backing->bytes));
	return old < end ? zero_or_write(f, q, old, end - old) : 0;
}

/* The header names the new size when all it shows is durable: after a power loss
 * a guest must not see the end of a longer backing image. */
static int grow(struct fiber *f, struct qcow2 *q, u64 bytes, enum prealloc mode, struct error *err)
{
	u64 old = q->img.bytes;
	int ret = l1_extend(f, q, l1_need(q, bytes));

	if (ret < 0)
		return err_set_errno(err, ret, "Failed to grow the L1 table");
	ret = qcow2_commit(f, q); /* the L1 table, with the old size */
	if (ret == 0)
		ret = prealloc_data_file(f, q, bytes, mode, err);
	if (ret < 0)
		return ret;
	q->img.bytes = bytes;
	ret = zero_new_area(f, q, old);
	if (q->data_raw && mode == PREALLOC_OFF)
		mode = PREALLOC_METADATA; /* its offsets are fixed from the start */
	if (ret == 0 && mode != PREALLOC_OFF)
		ret = prealloc_area(f, q, old, bytes, mode, err);
	if (ret == 0)
		ret = qcow2_commit(f, q);
	q->layout_dirty = true;
	if (ret == 0)
		ret = qcow2_commit(f, q);
	if (ret < 0) {
		(void)clusters_drop(f, q, cluster_ceil(q, old),
				    cluster_ceil(q, bytes) - cluster_ceil(q, old));
		q->img.bytes = old;
	}
	return ret;
}

/* Forget the L2 tables of entries [n, end).  No commit is running. */
static void forget_tables(struct qcow2 *q, u32 n, u32 end)
{
	for (u32 i = n; i < end; i++) {
		u64 hoff = q->l1[i] & ENTRY_HOFF;

		if (q->l2.tables[i])
			cache_drop(&q->l2, q->l2.tables[i]);
		if (hoff && l2_place_is_sound(q, hoff)) { /* else at worst a leak */
			overlap_remove(&q->metadata, hoff >> q->cluster_bits);
			cluster_free(q, hoff, 1);
		}
		if (q->l1[i])
			l1_set(q, i, 0);
	}
}

/* The same to the end, and of the table itself.  No commit is running. */
static void cut_l1(struct qcow2 *q, u32 n)
{
	u32 clusters = (u32)clusters_of(q, n * 8ull);

	forget_tables(q, n, q->l1_entries);
	for (u32 i = clusters; i < q->l1_clusters; i++) {
		u64 hoff = q->l1_hoff + ((u64)i << q->cluster_bits);

		overlap_remove(&q->metadata, hoff >> q->cluster_bits);
		cluster_free(q, hoff, 1);
	}
	q->l1_clusters = clusters;
	q->l1_entries = n;
	q->l1_room = (u32)(align_up(n * 8ull, q->granule) / 8);
	q->layout_dirty = true;
}

/* The end of the last cluster in use. */
static int used_end(struct fiber *f, struct qcow2 *q, u64 *out)
{
	*out = 0;
	for (u32 b = q->reftable_n; b--;) {
		struct table *t;
		int ret = refblock_get(f, q, b, &t);

		if (ret < 0)
			return ret;
		for (u32 i = t ? q->refblock_entries : 0; i--;) {
			if (refcount_load(q, t->data, i) == 0)
				continue;
			*out = (((u64)b << q->refblock_bits) + i + 1) << q->cluster_bits;
			return 0;
		}
	}
	return 0;
}

/* Does the block that counts the block's own cluster lie elsewhere? */
static bool counted_elsewhere(const struct qcow2 *q, const struct table *t)
{
	return t->hoff >> q->cluster_bits >> q->refblock_bits != t->index;
}

/* Does the block describe at most itself?  One that lies inside its own range, but
 * not first, stays: made again after a failed commit it would lie elsewhere, and
 * the cluster that the file still names would look free. */
static bool is_idle(const struct qcow2 *q, const struct table *t)
{
	u64 first = (u64)t->index << q->refblock_bits << q->cluster_bits;

	if (t->hoff != first && !counted_elsewhere(q, t))
		return false;
	for (u32 i = 0; i < q->refblock_entries; i++)
		if (refcount_load(q, t->data, i) != (i == 0 && t->hoff == first))
			return false;
	return true;
}

/* Take such blocks out of the refcount table: how many.  Holds alloc_lock. */
static int drop_idle_once(struct fiber *f, struct qcow2 *q)
{
	int dropped = 0, ret;

	for (u32 b = 1; b < q->reftable_n; b++) {
		struct table *t;

		ret = refblock_get(f, q, b, &t);
		if (ret < 0)
			return ret;
		if (!t || t->committing || t->fresh || !is_idle(q, t))
			continue;
		overlap_remove(&q->metadata, t->hoff >> q->cluster_bits);
		if (counted_elsewhere(q, t)) /* as before long runs */
			cluster_free(q, t->hoff, 1);
		cache_drop(&q->blocks, t);
		dropped++;
		q->reftable[b] = 0;
		q->first_free[b] = 0;
		q->reftable_dirty[b * 8ull / q->granule] = 1;
		q->reftable_any_dirty = true;
	}
	if (!dropped)
		return 0;
	/* Should this fail, blocks made again lie where these are. */
	ret = qcow2_commit(f, q);
	q->commit_refcounts = true; /* what counted their clusters */
	if (ret == 0)
		ret = qcow2_commit(f, q);
	return ret < 0 ? ret : dropped;
}

/* A block may have counted nothing but other idle ones: until there are none. */
static int drop_idle_blocks(struct fiber *f, struct qcow2 *q)
{
	int ret;

	do
		ret = drop_idle_once(f, q);
	while (ret > 0);
	return ret;
}

/* Take alloc_lock while no growth of the refcount tree is pending: commits under
 * it must not have to allocate. */
static int lock_settled(struct fiber *f, struct qcow2 *q)
{
	for (int round = 0; round < 8; round++) {
		int ret;

		fiber_mutex_lock(f, &q->alloc_lock);
		if (!grow_is_needed(q))
			return 0;
		fiber_mutex_unlock(f, &q->alloc_lock);
		q->commit_refcounts = true;
		ret = qcow2_commit(f, q);
		if (ret < 0)
			return ret;
	}
	return -EAGAIN;
}

/* Give the end of the file back.  Nothing is lost if that fails. */
static void truncate_file(struct fiber *f, struct qcow2 *q)
{
	struct image *file = q->img.below;
	struct error ignored = {0};
	u64 end;

	if (lock_settled(f, q) < 0)
		return;
	if (file->grows && drop_idle_blocks(f, q) == 0 && used_end(f, q, &end) == 0 && end &&
	    end < file->bytes && image_resize(f, file, end, &ignored) == 0)
		q->fresh_hoff = end;
	fiber_mutex_unlock(f, &q->alloc_lock);
}

/* Until no table from entry n on is being loaded, and no commit is running. */
static void wait_for_tables(struct fiber *f, struct qcow2 *q, u32 n)
{
	for (;;) {
		struct table *t = NULL;

		for (u32 i = n; i < q->l1_entries && !t; i++)
			if (q->l2.tables[i] && q->l2.tables[i]->loading)
				t = q->l2.tables[i];
		if (!t && !q->committing)
			return;
		fiber_queue_wait(f, t ? &q->l2.loaded : &q->commit_queue);
	}
}

/* The old size stays, but what was dropped until then is gone. */
static int shrink_failed(struct qcow2 *q, u64 old, u64 bytes, int ret, struct error *err)
{
	q->img.bytes = old;
	q->layout_dirty = true;
	return err_set(err, ret,
		       "Failed to shrink the image: %s (it has its old size, but data beyond byte "
		       "%llu may be lost)",
		       strerror(-ret), (unsigned long long)bytes);
}

/* The end of L1, which the new size does not need, after that size is durable. */
static int cut_end(struct fiber *f, struct qcow2 *q)
{
	u32 need = l1_need(q, q->img.bytes);
	int ret;

	wait_for_tables(f, q, need);
	if (!q->snapshot_count) /* else it may hold VM state */
		cut_l1(q, MIN(q->l1_entries, need));
	q->commit_refcounts = true;
	ret = qcow2_commit(f, q); /* lowers refcounts of data */
	if (ret == 0 && commit_is_needed(q)) {
		q->commit_refcounts = true;
		ret = qcow2_commit(f, q); /* and of tables */
	}
	return ret;
}

/* Two steps: a size that may have to come back must not find L1 cut. */
static int shrink(struct fiber *f, struct qcow2 *q, u64 bytes, struct error *err)
{
	u64 old = q->img.bytes, start = cluster_ceil(q, bytes);
	int ret;

	q->img.bytes = bytes;
	q->layout_dirty = true;
	ret = clusters_drop(f, q, start, cluster_ceil(q, old) - start);
	if (ret == 0)
		ret = qcow2_commit(f, q);
	if (ret < 0)
		return shrink_failed(q, old, bytes, ret, err);
	ret = cut_end(f, q);
	if (ret == 0)
		ret = prealloc_data_file(f, q, bytes, PREALLOC_OFF, err);
	if (ret == 0)
		truncate_file(f, q);
	return ret;
}

int qcow2_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		 struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret;

	*err = (struct error){0};
	if (!is_aligned(bytes, 512))
		return err_set(err, -EINVAL, "The new size must be a multiple of 512");
	if (q->version < 3 && q->snapshot_count)
		return err_set(err, -ENOTSUP, "Can't resize a v2 image which has snapshots");
	if (bytes > (u64)INT64_MAX - q->cluster_bytes ||
	    (bytes + l2_span(q) - 1) / l2_span(q) > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "Failed to grow the L1 table: File too large");
	ret = bitmaps_may_resize(q, err);
	if (ret < 0)
		return ret;
	ret = write_begin(f, q);
	if (ret == 0 && bytes > img->bytes)
		ret = bitmaps_resize(f, q, bytes);
	if (ret == 0)
		ret = bytes < img->bytes ? shrink(f, q, bytes, err) : grow(f, q, bytes, mode, err);
	if (ret == 0) /* again after growing: the map of what is written grows too */
		ret = bitmaps_resize(f, q, bytes);
	if (ret < 0 && !err->code)
		return err_set_errno(err, ret, "Failed to resize the image");
	return ret;
}

/* What is pending when this stops goes out with later commits, in the same order. */
static int drop_everything(struct fiber *f, struct qcow2 *q)
{
	u32 n = MIN(q->l1_entries, l1_need(q, q->img.bytes));
	int ret = clusters_drop(f, q, 0, cluster_ceil(q, q->img.bytes));

	if (ret < 0)
		return ret;
	wait_for_tables(f, q, 0);
	forget_tables(q, 0, n);
	ret = qcow2_commit(f, q);
	if (ret < 0)
		return ret;
	q->commit_refcounts = true;
	ret = qcow2_commit(f, q); /* lowered refcounts */
	if (ret == 0)
		truncate_file(f, q);
	return ret;
}

int qcow2_make_empty(struct fiber *f, struct image *img)
{
	struct qcow2 *q = to_qcow2(img);
	int ret;

	assert(img->driver == &qcow2_driver);
	if (!img->writable)
		return -EROFS;
	change_begin(f, q);
	ret = write_begin(f, q);
	if (ret == 0)
		ret = drop_everything(f, q);
	change_end(q);
	return ret;
}
