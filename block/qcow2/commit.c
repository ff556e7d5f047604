/* Bringing the file up to date: the order of metadata writes, and nothing else.
 *
 * I1 On disk, nothing points at a cluster whose on-disk refcount is 0.  Leaks are
 *    allowed, dangling never.
 * I2 A freed cluster is reused only after the removal of its last pointer is
 *    durable (q->freed, then q->durable, then refcount 0: free).
 * I3 A cluster's whole content is durable before a pointer to it can be.
 * I4 Written in place only if its refcount is 1.
 * I5 A flush returns only when every write completed before it was issued is
 *    durable.
 *
 * A commit first copies what has to be written as it stands: a link made later
 * waits for the next commit.  Then
 *   growth   (grow.c) fresh refcount blocks; sync; the pointers to them;
 *   stage A  raised refcounts, fresh L2 tables, a fresh L1 table; sync;
 *   stage B  L2 and L1 entries, header fields; sync;
 * and refcounts of what was freed are lowered in memory, for the next stage A.
 * With lazy refcounts the dirty bit goes out in stage A instead of them.
 *
 * What was copied is dirty again if its stage fails, so a commit can be retried.
 * A table stops being fresh when stage A is durable: from then on it may be
 * reachable.  Thread: the image's loop; one commit at a time. */
#include "block/qcow2/batch.h"
#include "block/qcow2/parts.h"

#include <errno.h>

struct commit {
	struct qcow2 *q;
	struct batch a, b;
	struct list l2_tables; /* committing */
	struct list freed;
	u64 freed_runs;
	struct layout layout;
	bool has_layout, has_l1;
};

int file_sync(struct fiber *f, struct qcow2 *q)
{
	u64 written = q->written;
	int ret;

	if (written == q->synced)
		return 0;
	ret = q->data_external ? image_flush(f, q->data) : 0;
	if (ret == 0)
		ret = image_flush(f, q->img.below);
	if (ret == 0)
		q->synced = MAX(q->synced, written);
	return ret;
}

/* --- the copy --- */

static int copy_l2_tables(struct commit *c)
{
	struct qcow2 *q = c->q;

	list_for_each_safe (pos, &q->l2.dirty) {
		struct table *t = list_entry(pos, struct table, link);
		struct batch *to = t->fresh ? &c->a : &c->b;
		int ret = batch_add_table(to, q, &q->l2, t, &c->l2_tables);

		if (ret < 0)
			return ret;
	}
	return 0;
}

/* L1 granules [from, to) as the file shall have them. */
static int copy_l1_range(struct qcow2 *q, struct batch *b, u32 from, u32 to)
{
	u32 lo = from * q->granule;
	struct piece *p;
	int ret = batch_add(b, q->l1_hoff + lo, (to - from) * q->granule, &p);

	if (ret < 0)
		return ret;
	for (u32 i = 0; i < p->bytes / 8; i++)
		store_be64(p->data + i * 8ull, q->l1[lo / 8 + i]);
	p->lo = lo;
	memset(q->l1_dirty + from, 0, to - from);
	return 0;
}

static int copy_l1(struct commit *c)
{
	struct qcow2 *q = c->q;
	u32 granules = (u32)(q->l1_room * 8ull / q->granule);

	c->has_l1 = q->l1_fresh;
	if (q->l1_fresh)
		return granules ? copy_l1_range(q, &c->a, 0, granules) : 0;
	for (u32 g = 0; q->l1_any_dirty && g < granules; g++) {
		u32 from = g;
		int ret;

		while (g < granules && q->l1_dirty[g])
			g++;
		ret = g > from ? copy_l1_range(q, &c->b, from, g) : 0;
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* Everything as it stands; nothing in here suspends. */
static int commit_copy(struct commit *c)
{
	struct qcow2 *q = c->q;
	int ret = copy_l2_tables(c);

	if (ret == 0)
		ret = copy_l1(c);
	c->has_layout = q->layout_dirty;
	c->layout = (struct layout){q->img.bytes, q->l1_hoff, q->l1_entries};
	list_splice(&c->freed, &q->freed);
	c->freed_runs = q->freed_runs - q->durable_runs;
	q->layout_dirty = false;
	if (ret == 0) /* else some granules were not copied */
		q->l1_any_dirty = false;
	return ret;
}

/* --- the stages --- */

static int write_refcounts(struct fiber *f, struct qcow2 *q, bool may_be_lost)
{
	struct batch b = {.may_be_lost = may_be_lost};
	struct list committing;
	int ret;

	list_init(&committing);
	ret = grow_copy_blocks(q, &b, &committing, false);
	if (ret == 0)
		ret = batch_write(f, q, &b);
	grow_settle_blocks(q, &b, &committing, ret);
	batch_fini(&b);
	return ret;
}

/* What nothing points at yet. */
static int stage_a(struct fiber *f, struct commit *c)
{
	struct qcow2 *q = c->q;
	bool pointers = c->a.n || c->b.n || c->has_layout;
	int ret = 0;

	if (!q->lazy || q->commit_refcounts) {
		ret = grow_refcount_tree(f, q);
		if (ret == 0)
			ret = write_refcounts(f, q, false);
	}
	if (ret == 0 && q->lazy && pointers)
		ret = header_set_incompatible(f, q, INCOMPAT_DIRTY, true);
	if (ret == 0)
		ret = batch_write(f, q, &c->a);
	if (ret == 0)
		ret = file_sync(f, q);
	return ret;
}

/* Stage A is durable: what it wrote may be reachable from now on. */
static void leave_fresh(struct commit *c)
{
	struct qcow2 *q = c->q;

	for (size_t i = 0; i < c->a.n; i++)
		if (c->a.pieces[i].table)
			c->a.pieces[i].table->fresh = false;
	if (c->has_l1 && q->l1_hoff == c->layout.l1_hoff)
		q->l1_fresh = false;
}

/* The pointers. */
static int stage_b(struct fiber *f, struct commit *c)
{
	struct qcow2 *q = c->q;
	int ret = batch_write(f, q, &c->b);

	if (ret == 0 && c->has_layout) {
		q->head.bytes = be64_of(c->layout.bytes);
		q->head.l1_hoff = be64_of(c->layout.l1_hoff);
		q->head.l1_entries = be32_of(c->layout.l1_entries);
		ret = header_write(f, q);
	}
	if (ret == 0)
		ret = file_sync(f, q);
	return ret;
}

/* --- the end --- */

static void redirty_l1(struct qcow2 *q, const struct batch *b)
{
	u32 granules = (u32)(q->l1_room * 8ull / q->granule);

	for (size_t i = 0; i < b->n; i++) {
		u32 from = b->pieces[i].lo / q->granule;
		u32 to = from + b->pieces[i].bytes / q->granule;

		if (b->pieces[i].table || from >= granules)
			continue;
		memset(q->l1_dirty + from, 1, MIN(to, granules) - from);
		q->l1_any_dirty = true;
	}
}

static void commit_end(struct commit *c, bool a_done, int ret)
{
	struct qcow2 *q = c->q;

	if (ret < 0) {
		if (!a_done)
			batch_undo(&c->a, &q->l2);
		batch_undo(&c->b, &q->l2);
		redirty_l1(q, &c->b);
		q->layout_dirty |= c->has_layout;
		list_splice(&c->freed, &q->freed); /* older ones first */
		list_splice(&q->freed, &c->freed);
	} else {
		list_splice(&q->durable, &c->freed);
		q->durable_runs += c->freed_runs;
	}
	list_for_each_safe (pos, &c->l2_tables)
		cache_commit_end(&q->l2, list_entry(pos, struct table, link));
	batch_fini(&c->a);
	batch_fini(&c->b);
}

static int commit_run(struct fiber *f, struct qcow2 *q)
{
	struct commit c = {.q = q};
	bool a_done = false;
	int ret;

	if (q->corrupt)
		return -EIO;
	list_init(&c.l2_tables);
	list_init(&c.freed);
	(void)refcount_release(f, q); /* what is left is tried again next time */
	NOSUSPEND(f)
	{
		ret = commit_copy(&c);
	}
	if (ret == 0)
		ret = stage_a(f, &c);
	if (ret == 0 && q->corrupt)
		ret = -EIO;
	if (ret == 0) {
		a_done = true;
		leave_fresh(&c);
		ret = stage_b(f, &c);
	}
	commit_end(&c, a_done, ret);
	if (ret == 0) {
		q->commit_refcounts = false;
		(void)refcount_release(f, q);
	}
	return ret;
}

bool commit_is_needed(const struct qcow2 *q)
{
	bool refcounts = !q->lazy || q->closing || q->commit_refcounts;

	if (!list_empty(&q->l2.dirty) || q->l1_any_dirty || q->l1_fresh || q->layout_dirty ||
	    !list_empty(&q->freed) || q->committing)
		return true;
	if (q->closing && !list_empty(&q->durable))
		return true;
	return refcounts && (!list_empty(&q->blocks.dirty) || grow_is_needed(q));
}

int qcow2_commit(struct fiber *f, struct qcow2 *q)
{
	u64 want = q->commits_begun + 1; /* one that begins after this call */

	if (!commit_is_needed(q))
		return file_sync(f, q);
	while (q->commits_done < want) {
		if (q->committing) {
			fiber_queue_wait(f, &q->commit_queue);
			continue;
		}
		q->committing = true;
		q->commits_begun++;
		q->commit_result = commit_run(f, q);
		q->commits_done = q->commits_begun;
		q->committing = false;
		fiber_queue_wake_all(&q->commit_queue);
	}
	return q->commit_result;
}

int qcow2_commit_all(struct fiber *f, struct qcow2 *q)
{
	int ret = 0;

	/* Freed clusters take a second round for their lowered refcounts, an old
	 * refcount table a third. */
	q->closing = true;
	for (int round = 0; round < 8 && ret == 0; round++) {
		q->commit_refcounts = true;
		ret = qcow2_commit(f, q);
		if (!commit_is_needed(q))
			break;
	}
	if (ret == 0 && commit_is_needed(q)) /* refcounts could not be lowered */
		ret = -EIO;
	q->closing = false;
	return ret;
}

/* Not counted as a commit: those who wait for one wait for a sync. */
int qcow2_commit_refcounts(struct fiber *f, struct qcow2 *q, bool may_be_lost)
{
	int ret;

	while (q->committing)
		fiber_queue_wait(f, &q->commit_queue);
	if (!list_empty(&q->l2.dirty) || q->l1_any_dirty || q->l1_fresh || q->layout_dirty ||
	    grow_is_needed(q)) {
		q->commit_refcounts = true;
		return qcow2_commit(f, q);
	}
	q->committing = true;
	ret = q->corrupt ? -EIO : write_refcounts(f, q, may_be_lost);
	q->committing = false;
	fiber_queue_wake_all(&q->commit_queue);
	return ret;
}

static void forget_runs(struct list *runs)
{
	struct list *pos;

	while ((pos = list_pop(runs)))
		free(list_entry(pos, struct freed_run, link));
}

void commit_forget(struct qcow2 *q)
{
	forget_runs(&q->freed);
	forget_runs(&q->durable);
	q->freed_runs = q->durable_runs = 0;
	q->l1_any_dirty = q->l1_fresh = q->layout_dirty = false;
	q->reftable_any_dirty = q->reftable_fresh = q->reftable_moved = false;
}
