/* Growing the refcount tree on disk: the first step of a commit.
 *
 * Fresh refcount blocks are written whole, with every raised refcount; then, when
 * they are durable, the refcount table is told about them, or a larger table that
 * was written beside them is put in the header (I1, I3).  commit.c makes these
 * pointers durable with its stage A, before anything relies on them.
 * Thread: the image's loop, from the running commit. */
#include "block/qcow2/batch.h"
#include "block/qcow2/parts.h"

#include <errno.h>

/* Find a place for the table that has outgrown the one on disk. */
static int place_table(struct fiber *f, struct qcow2 *q)
{
	u64 n = clusters_of(q, q->reftable_n * 8ull), hoff, i;
	int ret = cluster_alloc_run(f, q, n, &hoff);

	if (ret < 0)
		return ret;
	for (i = 0; i < n && ret == 0; i++)
		ret = overlap_add(&q->metadata, (hoff >> q->cluster_bits) + i, OVERLAP_REFTABLE,
				  NULL);
	if (ret < 0) {
		while (i--)
			overlap_remove(&q->metadata, (hoff >> q->cluster_bits) + i);
		cluster_free(q, hoff, n);
		return ret;
	}
	for (i = 0; i < q->reftable_clusters; i++)
		overlap_remove(&q->metadata, (q->reftable_hoff >> q->cluster_bits) + i);
	if (q->reftable_clusters)
		cluster_free(q, q->reftable_hoff, q->reftable_clusters);
	q->reftable_hoff = hoff;
	q->reftable_clusters = (u32)n;
	q->reftable_fresh = q->reftable_moved = true;
	return 0;
}

/* Allocating the place may take more blocks, which may need a larger table. */
static int make_place(struct fiber *f, struct qcow2 *q)
{
	int ret = 0;

	while (ret == 0 && q->reftable_n > (u64)q->reftable_clusters * (q->cluster_bytes / 8))
		ret = place_table(f, q);
	return ret;
}

/* Entries [first, first + n) as the file may have them: no fresh blocks, but for
 * those of the commit at hand. */
static void fill_entries(const struct qcow2 *q, u8 *to, u32 first, u32 n)
{
	for (u32 i = 0; i < n && first + i < q->reftable_n; i++) {
		const struct table *t = q->blocks.tables[first + i];
		bool there = !t || !t->fresh || t->committing;

		store_be64(to + i * 8ull, there ? q->reftable[first + i] : 0);
	}
}

static int copy_range(const struct qcow2 *q, struct batch *b, u64 lo, u32 bytes)
{
	struct piece *p;
	int ret = batch_add(b, q->reftable_hoff + lo, bytes, &p);

	if (ret == 0)
		fill_entries(q, p->data, (u32)(lo / 8), bytes / 8);
	return ret;
}

int grow_copy_blocks(struct qcow2 *q, struct batch *b, struct list *committing, bool fresh)
{
	list_for_each_safe (pos, &q->blocks.dirty) {
		struct table *t = list_entry(pos, struct table, link);
		int ret = 0;

		if (fresh || !t->fresh)
			ret = batch_add_table(b, q, &q->blocks, t, committing);
		if (ret < 0)
			return ret;
	}
	return 0;
}

void grow_settle_blocks(struct qcow2 *q, const struct batch *b, struct list *committing, int ret)
{
	if (ret < 0)
		batch_undo(b, &q->blocks);
	list_for_each_safe (pos, committing) {
		struct table *t = list_entry(pos, struct table, link);

		if (ret == 0 && t->fresh) {
			t->fresh = false;
			q->reftable_dirty[t->index * 8ull / q->granule] = 1;
			q->reftable_any_dirty = true;
		}
		cache_commit_end(&q->blocks, t);
	}
}

/* Write what nothing points at yet, and make it durable. */
static int write_blocks(struct fiber *f, struct qcow2 *q)
{
	bool whole = q->reftable_fresh;
	struct batch b = {0};
	struct list committing;
	int ret;

	list_init(&committing);
	ret = grow_copy_blocks(q, &b, &committing, true);
	if (ret == 0 && whole)
		ret = copy_range(q, &b, 0, q->reftable_clusters << q->cluster_bits);
	if (ret == 0)
		ret = batch_write(f, q, &b);
	if (ret == 0)
		ret = file_sync(f, q);
	grow_settle_blocks(q, &b, &committing, ret);
	if (ret == 0 && whole)
		q->reftable_fresh = false;
	batch_fini(&b);
	return ret;
}

/* Write the entries of blocks that are durable, and the header if it must know
 * of another table. */
static int write_pointers(struct fiber *f, struct qcow2 *q)
{
	u32 granules = (u32)DIV_ROUND_UP(q->reftable_n * 8ull, q->granule);
	struct batch b = {0};
	int ret = 0;

	for (u32 g = 0; g < granules && ret == 0; g++)
		if (q->reftable_dirty[g])
			ret = copy_range(q, &b, (u64)g * q->granule, q->granule);
	if (ret == 0)
		ret = batch_write(f, q, &b);
	if (ret == 0 && q->reftable_moved) {
		q->head.reftable_hoff = be64_of(q->reftable_hoff);
		q->head.reftable_clusters = be32_of(q->reftable_clusters);
		ret = header_write(f, q);
	}
	batch_fini(&b);
	if (ret < 0)
		return ret;
	memset(q->reftable_dirty, 0, granules);
	q->reftable_any_dirty = false;
	q->reftable_moved = false;
	return 0;
}

static bool has_fresh_block(const struct qcow2 *q)
{
	list_for_each (pos, &q->blocks.dirty) {
		if (list_entry(pos, struct table, link)->fresh)
			return true;
	}
	return false;
}

bool grow_is_needed(const struct qcow2 *q)
{
	return q->reftable_any_dirty || q->reftable_moved || has_fresh_block(q);
}

int grow_refcount_tree(struct fiber *f, struct qcow2 *q)
{
	int ret;

	if (!grow_is_needed(q))
		return 0;
	ret = make_place(f, q);
	if (ret == 0 && (q->reftable_fresh || has_fresh_block(q)))
		ret = write_blocks(f, q);
	if (ret == 0)
		ret = write_pointers(f, q);
	return ret;
}
