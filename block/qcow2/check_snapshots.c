/* The snapshot table under check: entries that are too large, too many or, in
 * version 3, without the fields they must have.  A repair writes a fresh table, when
 * the refcounts are right again.  Thread: the image's loop. */
#include "block/qcow2/change.h"
#include "block/qcow2/check.h"
#include "block/qcow2/pivot.h"

#include <errno.h>

#define NEEDED_EXTRA 16 /* size of the VM state, of the disk */

/* What cannot be read as it is; only a repair goes on. */
static int judge_sizes(struct check *c, struct error *err)
{
	struct qcow2 *q = c->q;

	if (q->snapshots_cut)
		return err_set(err, -EFBIG,
			       "ERROR snapshot table too large\nYou can force-remove all %u "
			       "overhanging snapshots with cowimg check -r all",
			       q->snapshots_cut);
	for (u32 i = 0; i < q->snapshot_count; i++)
		if (q->snapshots[i].extra_bytes > QCOW2_MAX_SNAPSHOT_EXTRA)
			return err_set(err, -EFBIG,
				       "ERROR failed to read the snapshot table: Too much extra "
				       "metadata in snapshot table entry %u\nYou can force-remove "
				       "this extra metadata with cowimg check -r all",
				       i);
	return 0;
}

static void judge_entry(struct check *c, u32 i)
{
	u32 bytes = c->q->snapshots[i].extra_bytes;

	if (bytes > QCOW2_MAX_SNAPSHOT_EXTRA) {
		check_line(c,
			   "Discarding too much extra metadata in snapshot table entry %u (%u > "
			   "%u)",
			   i, bytes, QCOW2_MAX_SNAPSHOT_EXTRA);
		c->bad_snapshots++;
	} else if (c->q->version > 2 && bytes < NEEDED_EXTRA) {
		check_line(c, "%s snapshot table entry %u is incomplete",
			   c->req->fix_errors ? "Repairing" : "ERROR", i);
		c->bad_snapshots++;
	}
}

int check_snapshots(struct check *c, struct error *err)
{
	struct qcow2 *q = c->q;
	int ret = c->req->fix_errors ? 0 : judge_sizes(c, err);

	if (ret < 0)
		return ret;
	if (q->snapshots_cut) {
		check_line(c, "Discarding %u overhanging snapshots", q->snapshots_cut);
		c->bad_snapshots += q->snapshots_cut;
	}
	for (u32 i = 0; i < q->snapshot_count; i++)
		judge_entry(c, i);
	if (!c->req->fix_errors)
		c->req->result.corruptions += c->bad_snapshots;
	return 0;
}

/* The same list in a table of its own. */
static int rewrite(struct fiber *f, struct qcow2 *q)
{
	struct pivot p = {.q = q,
			  .flags = FLAGS_COUNT,
			  .l1_entries = q->l1_entries,
			  .bytes = q->img.bytes,
			  .from_active = true,
			  .snapshot_n = q->snapshot_count};
	int ret;

	p.l1 = try_alloc(MAX(q->l1_entries, 1u) * sizeof(*p.l1));
	p.snapshots = try_alloc(MAX(q->snapshot_count, 1u) * sizeof(*p.snapshots));
	if (!p.l1 || !p.snapshots) {
		free(p.l1);
		free(p.snapshots);
		return -ENOMEM;
	}
	memcpy(p.l1, q->l1, q->l1_entries * sizeof(*p.l1));
	if (q->snapshot_count)
		memcpy(p.snapshots, q->snapshots, q->snapshot_count * sizeof(*p.snapshots));
	changes_freeze(f, q);
	ret = pivot_run(f, &p);
	if (ret == 0)
		ret = qcow2_commit_all(f, q);
	else
		free(p.snapshots);
	changes_thaw(q);
	return ret;
}

int check_fix_snapshots(struct fiber *f, struct check *c, struct error *err)
{
	struct check_result *r = &c->req->result;
	struct qcow2 *q = c->q;
	int ret;

	if (!c->req->fix_errors || !c->bad_snapshots)
		return 0;
	ret = rewrite(f, q);
	if (ret < 0) {
		r->corruptions += c->bad_snapshots;
		return err_set_errno(err, ret, "Could not rewrite the snapshot table");
	}
	for (u32 i = 0; i < q->snapshot_count; i++)
		q->snapshots[i].extra_bytes = MAX(q->snapshots[i].unknown_bytes + 24, 24u);
	q->snapshots_cut = 0;
	r->corruptions_fixed += c->bad_snapshots;
	c->changed = true;
	return 0;
}
