/* From version 3 to version 2: what version 2 cannot say is said in other ways.
 *
 * Zero clusters become holes where nothing is below them, else clusters of zeros:
 * those of the active state by the ways of every guest write; those of snapshots in
 * their tables, in place.  A table of a snapshot may be shared by several; each
 * entry reads the same before and after, and lies within a sector, so a cut leaves
 * tables of old and new entries, all right.  Fresh clusters are durable, with as
 * many references as the table has, before an entry names them (I1, I3); what old
 * entries kept is freed when the new ones are durable (I2).  The header turns last.
 * Thread: the image's loop; no other request may run meanwhile. */
#include "block/qcow2/amend.h"
#include "block/qcow2/bitmap_set.h"
#include "block/qcow2/header_update.h"
#include "block/qcow2/snapshot.h"

#include <errno.h>

#define ZERO_CHUNK (1 * MiB)

static int judge(const struct qcow2 *q, struct error *err)
{
	u64 bits = be64_get(q->head.incompatible);

	if (q->refcount_order != 4)
		return err_set(err, -ENOTSUP, "compat=0.10 requires refcount_bits=16");
	if (bits & INCOMPAT_DATA_FILE)
		return err_set(err, -ENOTSUP, "Cannot downgrade an image with a data file");
	for (u32 i = 0; i < q->snapshot_count; i++)
		if (q->snapshots[i].vm_state_bytes || q->snapshots[i].disk_bytes != q->img.bytes)
			return err_set(err, -ENOTSUP,
				       "Internal snapshots prevent downgrade of image");
	if (bits & ~INCOMPAT_DIRTY)
		return err_set(err, -ENOTSUP,
			       "Cannot downgrade an image with incompatible features %#llx set",
			       (unsigned long long)(bits & ~INCOMPAT_DIRTY));
	return 0;
}

static bool shows_backing(const struct qcow2 *q, u64 goff)
{
	return q->img.backing && goff < q->img.backing->bytes;
}

/* --- the active state --- */

static int write_zeros(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	u64 chunk = MAX((u64)q->cluster_bytes, ZERO_CHUNK);
	AUTO_FREE u8 *zeros = try_alloc_aligned(MIN(bytes, chunk), 4096);
	int ret = zeros ? 0 : -ENOMEM;

	for (u64 end = goff + bytes; goff < end && ret == 0;) {
		struct iovec iov = {zeros, MIN(end - goff, chunk)};

		ret = qcow2_write(f, &q->img, goff, &iov, 1);
		goff += iov.iov_len;
	}
	return ret;
}

static int expand_active(struct fiber *f, struct qcow2 *q, const struct amend_request *req)
{
	u64 end = q->l1_entries * l2_span(q), goff = 0;
	int ret = 0;

	while (goff < end && ret == 0) {
		struct extent e;

		ret = write_begin(f, q);
		if (ret == 0)
			ret = l2_map(f, q, goff, end - goff, &e);
		if (ret < 0)
			break;
		if (e.kind == EXTENT_ZERO && shows_backing(q, goff))
			ret = write_zeros(f, q, goff, e.bytes);
		else if (e.kind == EXTENT_ZERO)
			ret = clusters_drop(f, q, goff, e.bytes);
		goff += e.bytes;
		amend_progress(req, goff, end);
	}
	return ret;
}

/* --- snapshots --- */

struct expansion {
	struct qcow2 *q;
	u8 *table, *zeros;
	u64 *old; /* clusters that entries kept */
	u32 old_n;
};

static int refcount_at(struct fiber *f, struct qcow2 *q, u64 hoff, struct table **t, u64 *out)
{
	u64 cluster = hoff >> q->cluster_bits;
	int ret = refblock_get(f, q, cluster >> q->refblock_bits, t);

	*out = 0;
	if (ret == 0 && *t)
		*out = refcount_load(q, (*t)->data, (u32)(cluster & (q->refblock_entries - 1)));
	return ret;
}

/* A cluster of zeros with so many references. */
static int make_zeros(struct fiber *f, struct expansion *x, u64 references, u64 *hoff)
{
	struct qcow2 *q = x->q;
	struct table *t;
	u64 have;
	int ret = cluster_alloc_run(f, q, 1, hoff);

	if (ret == 0)
		ret = qcow2_pwrite(f, q, *hoff, x->zeros, q->cluster_bytes);
	if (ret == 0)
		ret = refcount_at(f, q, *hoff, &t, &have);
	if (ret == 0)
		refblock_set(q, t, (u32)(*hoff >> q->cluster_bits) & (q->refblock_entries - 1),
			     references);
	return ret;
}

/* The entries of a table; true if any changed. */
static int expand_entries(struct fiber *f, struct expansion *x, u64 goff, u64 references)
{
	struct qcow2 *q = x->q;
	bool changed = false;

	for (u32 i = 0; i < q->l2_entries; i++, goff += q->cluster_bytes) {
		u64 entry = load_be64(x->table + i * 8ull), hoff = 0;
		int ret = 0;

		if (l2_kind(q, entry) != EXTENT_ZERO)
			continue;
		if (shows_backing(q, goff))
			ret = make_zeros(f, x, references, &hoff);
		if (ret < 0)
			return ret;
		if (entry & ENTRY_HOFF)
			x->old[x->old_n++] = entry & ENTRY_HOFF;
		store_be64(x->table + i * 8ull, hoff); /* no flags: it is not active */
		changed = true;
	}
	return changed;
}

static int expand_table(struct fiber *f, struct expansion *x, u64 hoff, u64 goff)
{
	struct qcow2 *q = x->q;
	struct table *t;
	u64 references;
	int ret = qcow2_pread(f, q->img.below, hoff, x->table, q->cluster_bytes);

	x->old_n = 0;
	if (ret == 0)
		ret = refcount_at(f, q, hoff, &t, &references);
	if (ret == 0)
		ret = expand_entries(f, x, goff, references);
	if (ret <= 0)
		return ret;
	q->commit_refcounts = true;
	ret = qcow2_commit(f, q);
	if (ret == 0)
		ret = file_sync(f, q);
	if (ret == 0)
		ret = qcow2_pwrite(f, q, hoff, x->table, q->cluster_bytes);
	if (ret == 0)
		ret = file_sync(f, q);
	for (u32 i = 0; ret == 0 && i < x->old_n; i++)
		for (u64 k = 0; k < references; k++)
			if (is_aligned(x->old[i], q->cluster_bytes))
				cluster_free(q, x->old[i], 1);
	return ret;
}

static int expand_snapshot(struct fiber *f, struct expansion *x, const struct qcow2_snapshot *s)
{
	struct qcow2 *q = x->q;
	u8 part[1024];
	int ret = 0;

	for (u32 i = 0; i < s->l1_entries && ret == 0; i += sizeof(part) / 8) {
		u32 n = MIN(s->l1_entries - i, (u32)(sizeof(part) / 8));

		ret = qcow2_pread(f, q->img.below, s->l1_hoff + i * 8ull, part, n * 8ull);
		for (u32 k = 0; k < n && ret == 0; k++) {
			u64 hoff = load_be64(part + k * 8ull) & ENTRY_HOFF;

			if (!is_aligned(hoff, q->cluster_bytes))
				return qcow2_corrupt(
					f, q, "L2 table offset %#llx of a snapshot unaligned",
					(unsigned long long)hoff);
			if (hoff)
				ret = expand_table(f, x, hoff, (i + k) * l2_span(q));
		}
	}
	return ret;
}

static int expand_snapshots(struct fiber *f, struct qcow2 *q)
{
	struct expansion x = {.q = q};
	int ret = 0;

	x.table = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	x.zeros = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	x.old = try_alloc(q->l2_entries * sizeof(u64));
	if (!x.table || !x.zeros || !x.old)
		ret = -ENOMEM;
	for (u32 i = 0; i < q->snapshot_count && ret == 0; i++)
		ret = expand_snapshot(f, &x, &q->snapshots[i]);
	free(x.table);
	free(x.zeros);
	free(x.old);
	return ret;
}

/* --- the header --- */

/* Bitmaps cannot be told from stale ones in version 2: they go. */
static int drop_bitmaps(struct fiber *f, struct qcow2 *q)
{
	struct bitmap_change c;
	int ret;

	if (!q->bitmap_set)
		return 0;
	ret = bitmap_change_begin(f, q, &c);
	for (u32 i = 0; i < c.set->n; i++) {
		if (ret == 0)
			ret = bitmap_table_drop(f, &c, &c.set->v[i]);
		free(c.set->v[i].name);
	}
	c.set->n = 0;
	return bitmap_change_end(f, &c, true, ret);
}

static int turn(struct fiber *f, struct qcow2 *q)
{
	struct header_change change = {.version = 2};
	int ret = qcow2_commit_all(f, q);

	if (ret == 0)
		ret = header_set_incompatible(f, q, INCOMPAT_DIRTY, false);
	if (ret == 0)
		ret = header_update(f, q, &change);
	if (ret == 0)
		q->lazy = false;
	return ret;
}

int qcow2_downgrade(struct fiber *f, struct qcow2 *q, const struct amend_request *req,
		    struct error *err)
{
	int ret = judge(q, err);

	if (ret < 0)
		return ret;
	ret = drop_bitmaps(f, q);
	if (ret == 0)
		ret = expand_active(f, q, req);
	if (ret == 0)
		ret = qcow2_commit(f, q); /* tables that were shared are snapshots' alone */
	if (ret == 0)
		ret = expand_snapshots(f, q);
	if (ret < 0)
		return err_set(err, ret, "Failed to turn zero into data clusters: %s",
			       strerror(-ret));
	ret = turn(f, q);
	return ret < 0 ? err_set(err, ret, "Failed to update the image header: %s", strerror(-ret))
		       : 0;
}
