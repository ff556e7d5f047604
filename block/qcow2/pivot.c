/* Changing many references at once, atomically.
 *
 * A snapshot that comes or goes changes the refcount of every cluster, and COPIED
 * flags, which must agree with the refcounts, in every L2 table.  Done in place,
 * a power cut in between would leave them at odds.  So nothing is changed in place:
 * refcount blocks and L2 tables that must differ are written to new places, with a
 * new refcount table, L1 table and snapshot table that name them, and then one
 * sector, the header's, turns from the old set to the new one.
 *
 * 1. The image is frozen (change.c) and what is pending is committed, so the file
 *    is as memory has it, and nothing but this changes refcounts.
 * 2. Survey: references are counted and judged; which tables must move is known.
 * 3. Places: claimed, and counted in the refcounts in use; the sync of 4 makes that
 *    durable, too.  Stopping here, or anywhere before 5, leaves leaks (I1).
 * 4. Stage A: everything is written to those places; sync (I3).
 * 5. Stage B: the header; sync.  Before it the file shows the old state whole,
 *    after it the new one: refcounts as high as the references of each (I1), flags
 *    agreeing with them (I4), and no place in both that differs.
 * 6. Memory follows; places that only the old state had are freed, and are counted
 *    until a later commit (I2).  Clusters that went to refcount 0 with the turn
 *    have no reference on disk any more, and may be used at once.
 *
 * Should the header's write or its sync fail, it is not known which of the two
 * states is on disk: the old header is written again, and if that fails too the
 * image takes no more writes in this session.  Either state is whole.
 * Thread: the image's loop. */
#include "block/qcow2/pivot.h"

#include "base/log.h"

#include <errno.h>

/* The header of now, with the new set; the old one is left in *old. */
static void head_turn(struct pivot *p, struct disk_header *old)
{
	struct qcow2 *q = p->q;
	struct disk_header *h = &q->head;

	*old = *h;
	h->bytes = be64_of(p->bytes);
	if (p->l1_moves) {
		h->l1_hoff = be64_of(p->l1_place.hoff);
		h->l1_entries = be32_of(p->l1_entries);
	}
	if (p->block_count) {
		h->reftable_hoff = be64_of(p->reftable_place.hoff);
		h->reftable_clusters = be32_of((u32)p->reftable_place.n);
	}
	if (p->snapshots) {
		h->snapshots = be32_of(p->snapshot_n);
		h->snapshots_hoff = be64_of(p->table_place.hoff);
	}
}

/* Only these fields: others may have changed meanwhile. */
static void head_return(struct qcow2 *q, const struct disk_header *old)
{
	struct disk_header *h = &q->head;

	h->bytes = old->bytes;
	h->l1_hoff = old->l1_hoff;
	h->l1_entries = old->l1_entries;
	h->reftable_hoff = old->reftable_hoff;
	h->reftable_clusters = old->reftable_clusters;
	h->snapshots = old->snapshots;
	h->snapshots_hoff = old->snapshots_hoff;
}

static int write_head(struct fiber *f, struct qcow2 *q)
{
	int ret = header_write(f, q);

	return ret == 0 ? file_sync(f, q) : ret;
}

static int turn(struct fiber *f, struct pivot *p, struct disk_header *old)
{
	struct qcow2 *q = p->q;
	int ret;

	if (q->corrupt)
		return -EIO;
	head_turn(p, old);
	ret = write_head(f, q);
	if (ret == 0)
		return 0;
	head_return(q, old);
	if (write_head(f, q) < 0) {
		log_error("%s: the header could not be written: no more changes to this image",
			  q->img.name);
		q->corrupt = true; /* in memory only: the file is whole */
	}
	return ret;
}

static bool is_loading(const struct table_cache *c)
{
	for (u32 i = 0; i < c->n; i++)
		if (c->tables[i] && c->tables[i]->loading)
			return true;
	return false;
}

/* No table may be taken away while it is being read, and no cluster that the turn
 * has freed may be used again while a reader is on its way to it.  Nobody waits
 * for readers elsewhere, so there is no queue. */
static void wait_for_reads(struct fiber *f, struct pivot *p)
{
	struct qcow2 *q = p->q;

	while (is_loading(&q->l2) || is_loading(&q->blocks) || (p->frees && !list_empty(&q->ios)))
		fiber_yield(f);
}

static bool is_clean(const struct qcow2 *q)
{
	return list_empty(&q->l2.dirty) && !q->l1_any_dirty && !q->l1_fresh && !q->layout_dirty &&
	       !grow_is_needed(q);
}

static void pivot_fini(struct pivot *p)
{
	free(p->delta);
	free(p->single);
	free(p->l2_bits);
	free(p->block_bits);
	free(p->l2_new);
	free(p->block_new);
	free(p->places);
	free(p->l1);
}

/* Memory for a longer L1 table, before there is no way back. */
static int reserve_l1(struct pivot *p)
{
	struct qcow2 *q = p->q;
	const u64 *old = q->l1;
	int ret = p->l1_entries > q->l1_entries ? l1_reserve_memory(q, p->l1_entries) : 0;

	for (u32 i = 0; i < p->root_n; i++)
		if (p->roots[i].l1 == old)
			p->roots[i].l1 = q->l1;
	return ret;
}

static int prepare(struct fiber *f, struct pivot *p)
{
	struct qcow2 *q = p->q;
	int ret;

	assert(q->frozen && p->l1);
	q->commit_refcounts = true;
	ret = qcow2_commit(f, q);
	if (ret == 0)
		ret = pivot_survey(f, p);
	if (ret == 0)
		ret = reserve_l1(p);
	if (ret == 0)
		ret = pivot_place(f, p);
	if (ret == 0 && !is_clean(q))
		ret = -EBUSY; /* somebody does not know that it is frozen */
	return ret == 0 ? pivot_write(f, p) : ret;
}

int pivot_run(struct fiber *f, struct pivot *p)
{
	struct disk_header old;
	int ret = prepare(f, p);

	if (ret == 0)
		ret = turn(f, p, &old);
	if (ret < 0) {
		pivot_unplace(f, p);
		pivot_fini(p);
		return ret;
	}
	wait_for_reads(f, p);
	NOSUSPEND(f)
	{
		pivot_settle(p, &old);
	}
	if (p->frees && p->total <= PIVOT_WINDOW)
		pivot_punch(f, p);
	pivot_fini(p);
	return 0;
}
