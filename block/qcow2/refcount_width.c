/* Another width of refcounts: a whole new refcount structure.
 *
 * Everything pending is committed, so the old structure is right.  The new table
 * and its blocks go behind everything that is in use, where nothing points; they
 * count what there will be once they are in place: themselves, and not the old
 * structure.  When they are durable, one sector of the header switches width, place
 * and size of the table together.  A cut before leaves the old structure, which
 * nobody touched, a cut after it the new one (I1, I3); nothing is leaked either
 * way.  Blocks that would be all zeros are left out.
 * Thread: the image's loop; no other request may run meanwhile. */
#include "block/qcow2/amend.h"

#include <errno.h>

struct width {
	struct qcow2 *q;
	const struct amend_request *req;
	struct qcow2 as; /* geometry of the new structure; nothing else of it is used */
	u64 used;	 /* clusters, up to the last one in use */
	u8 *needed;	 /* per new block */
	u64 all;	 /* blocks that the table has entries for */
	u64 blocks, blocks_n, table, table_n, end; /* in clusters */
	u8 *buf;
};

/* The refcount that a cluster will have. */
static int future(struct fiber *f, const struct width *w, u64 cluster, u64 *out)
{
	struct qcow2 *q = w->q;
	u64 first = q->reftable_hoff >> q->cluster_bits;
	struct table *t;
	int ret;

	*out = 0;
	if (cluster >= w->blocks && cluster < w->end)
		*out = 1;
	if (cluster >= w->used || (cluster >= first && cluster < first + q->reftable_clusters))
		return 0;
	ret = refblock_get(f, q, cluster >> q->refblock_bits, &t);
	if (ret < 0 || !t)
		return ret;
	if (overlap_find(&q->metadata, cluster) == OVERLAP_REFBLOCK)
		return 0; /* of the old structure */
	*out = refcount_load(q, t->data, (u32)(cluster & (q->refblock_entries - 1)));
	return 0;
}

static int find_used(struct fiber *f, struct width *w)
{
	struct qcow2 *q = w->q;

	for (u32 b = q->reftable_n; b--;) {
		struct table *t;
		int ret = refblock_get(f, q, b, &t);

		if (ret < 0)
			return ret;
		for (u32 i = t ? q->refblock_entries : 0; i--;) {
			if (refcount_load(q, t->data, i) == 0)
				continue;
			w->used = ((u64)b << q->refblock_bits) + i + 1;
			return 0;
		}
	}
	return 0;
}

static int refuse(const struct width *w, u64 cluster, u64 refcount, struct error *err)
{
	return err_set(err, -EINVAL,
		       "Cannot decrease refcount entry width to %u bits: Cluster at offset %#llx "
		       "has a refcount of %llu",
		       1u << w->as.refcount_order,
		       (unsigned long long)(cluster << w->q->cluster_bits),
		       (unsigned long long)refcount);
}

/* Which blocks are not all zeros, and does everything fit? */
static int survey(struct fiber *f, struct width *w, struct error *err)
{
	u64 most = refcount_max(&w->as);

	w->needed = try_alloc((w->used >> w->as.refblock_bits) + 1);
	if (!w->needed)
		return -ENOMEM;
	for (u64 k = 0; k < w->used; k++) {
		struct qcow2 *q = w->q;
		u64 b = k >> q->refblock_bits, value;
		int ret;

		if (b >= q->reftable_n || !(q->reftable[b] & REFTABLE_HOFF)) {
			k |= q->refblock_entries - 1;
			continue;
		}
		ret = future(f, w, k, &value);
		if (ret < 0)
			return ret;
		if (value > most)
			return refuse(w, k, value, err);
		w->needed[k >> w->as.refblock_bits] |= value != 0;
		if (!(k & 0xffff))
			amend_progress(w->req, k, 2 * w->used);
	}
	return 0;
}

/* Behind `used`: blocks, then the table. */
static int plan(struct width *w, struct error *err)
{
	u32 bits = w->as.refblock_bits;
	u64 old = 0, before, own;

	for (u64 b = 0; b <= w->used >> bits; b++)
		old += w->needed[b];
	w->blocks = w->used;
	w->blocks_n = old + 1;
	w->table_n = 1;
	do {
		before = w->blocks_n + w->table_n;
		w->end = w->used + before;
		own = ((w->end - 1) >> bits) - (w->used >> bits) + 1;
		w->blocks_n = old + own - w->needed[w->used >> bits];
		w->all = ((w->end - 1) >> bits) + 1;
		w->table_n = clusters_of(w->q, w->all * 8);
	} while (w->blocks_n + w->table_n != before);
	w->table = w->blocks + w->blocks_n;
	if (w->table_n << w->q->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
		return err_set(err, -EFBIG, "The new refcount table would be too large");
	if (w->end << w->q->cluster_bits > w->q->max_hoff)
		return err_set(err, -ENOSPC, "No room for a new refcount structure");
	return 0;
}

static bool is_needed(const struct width *w, u64 b)
{
	return b >= w->used >> w->as.refblock_bits || w->needed[b];
}

static int write_block(struct fiber *f, struct width *w, u64 b, u64 cluster)
{
	u32 n = w->as.refblock_entries;

	memset(w->buf, 0, w->q->cluster_bytes);
	for (u32 i = 0; i < n; i++) {
		u64 value;
		int ret = future(f, w, b * n + i, &value);

		if (ret < 0)
			return ret;
		refcount_store(&w->as, w->buf, i, value);
	}
	return qcow2_pwrite(f, w->q, cluster << w->q->cluster_bits, w->buf, w->q->cluster_bytes);
}

static int write_all(struct fiber *f, struct width *w)
{
	u64 per = w->q->cluster_bytes / 8, next = w->blocks;
	AUTO_FREE u8 *table =
		try_alloc_aligned(w->q->cluster_bytes, MIN(w->q->cluster_bytes, 4096u));
	int ret = table ? 0 : -ENOMEM;

	for (u64 t = 0; t < w->table_n && ret == 0; t++) {
		memset(table, 0, w->q->cluster_bytes);
		for (u64 i = 0; i < per && t * per + i < w->all && ret == 0; i++) {
			u64 b = t * per + i;

			if (!is_needed(w, b))
				continue;
			store_be64(table + i * 8, next << w->q->cluster_bits);
			ret = write_block(f, w, b, next++);
			amend_progress(w->req, w->all + b, 2 * w->all);
		}
		if (ret == 0)
			ret = qcow2_pwrite(f, w->q, (w->table + t) << w->q->cluster_bits, table,
					   w->q->cluster_bytes);
	}
	assert(ret < 0 || next == w->table);
	return ret == 0 ? file_sync(f, w->q) : ret;
}

/* The one sector. */
static int turn(struct fiber *f, struct width *w)
{
	struct qcow2 *q = w->q;
	struct disk_header before = q->head;
	int ret;

	q->head.refcount_order = be32_of(w->as.refcount_order);
	q->head.reftable_hoff = be64_of(w->table << q->cluster_bits);
	q->head.reftable_clusters = be32_of((u32)w->table_n);
	ret = header_write(f, q);
	if (ret == 0)
		ret = file_sync(f, q);
	if (ret < 0) {
		q->head = before;
		q->corrupt = true; /* who knows which one the file has: touch nothing */
	}
	return ret;
}

static int reload(struct fiber *f, struct width *w, struct error *err)
{
	struct open_policy policy = {.writable = false};
	struct qcow2 *q = w->q;
	int ret;

	qcow2_unload(q);
	q->refcount_order = w->as.refcount_order;
	q->refblock_bits = w->as.refblock_bits;
	q->refblock_entries = w->as.refblock_entries;
	q->reftable_hoff = w->table << q->cluster_bits;
	q->reftable_clusters = (u32)w->table_n;
	ret = qcow2_load(f, q, &policy, err);
	if (ret < 0)
		q->corrupt = true; /* in memory: nothing can be written any more */
	return ret;
}

static int run(struct fiber *f, struct width *w, struct error *err)
{
	int ret = qcow2_commit_all(f, w->q);

	w->buf = try_alloc_aligned(w->q->cluster_bytes, MIN(w->q->cluster_bytes, 4096u));
	if (ret == 0 && !w->buf)
		ret = -ENOMEM;
	if (ret == 0)
		ret = find_used(f, w);
	if (ret == 0)
		ret = survey(f, w, err);
	if (ret == 0)
		ret = plan(w, err);
	if (ret == 0)
		ret = write_all(f, w);
	return ret == 0 ? turn(f, w) : ret;
}

int refcount_set_width(struct fiber *f, struct qcow2 *q, u32 order, const struct amend_request *req,
		       struct error *err)
{
	struct width *w = xnew(struct width);
	int ret;

	w->q = q;
	w->req = req;
	w->as.refcount_order = order;
	w->as.refblock_bits = q->cluster_bits + 3 - order;
	w->as.refblock_entries = 1u << w->as.refblock_bits;
	ret = run(f, w, err);
	if (ret == 0)
		ret = reload(f, w, err);
	if (ret < 0 && !err->code)
		err_set(err, ret, "Failed to change the refcount width: %s", strerror(-ret));
	free(w->needed);
	free(w->buf);
	free(w);
	return ret;
}
