/* The table of internal snapshots, as far as allocation and check need it: which
 * clusters it takes and where the snapshots' L1 tables are.
 * Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include <errno.h>

/* One entry at byte `at` of the table; moves `at` behind it. */
static int load_one(struct fiber *f, struct qcow2 *q, u64 *at, struct snapshot_info *out,
		    struct error *err)
{
	u64 hoff = be64_get(q->head.snapshots_hoff);
	struct disk_snapshot d;
	u64 bytes;
	int ret = qcow2_pread(f, q->img.below, hoff + *at, &d, sizeof(d));

	if (ret < 0)
		return err_set_errno(err, ret, "Could not read the snapshot table");
	if (be32_get(d.extra_bytes) > QCOW2_MAX_SNAPSHOT_EXTRA)
		return err_set(err, -EFBIG, "Too much extra metadata in snapshot table entry");
	if (be32_get(d.l1_entries) > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "Snapshot L1 table too large");
	out->l1_hoff = be64_get(d.l1_hoff);
	out->l1_entries = be32_get(d.l1_entries);
	if (!is_aligned(out->l1_hoff, q->cluster_bytes) || out->l1_hoff > QCOW2_MAX_HOFF)
		return err_set(err, -EINVAL, "Snapshot L1 table offset invalid");
	bytes = sizeof(d) + be32_get(d.extra_bytes) + be16_get(d.id_bytes) + be16_get(d.name_bytes);
	*at += align_up(bytes, 8);
	if (*at > QCOW2_MAX_SNAPSHOT_BYTES)
		return err_set(err, -EFBIG, "Snapshot table is too large");
	return 0;
}

int snapshots_load(struct fiber *f, struct qcow2 *q, struct error *err)
{
	u64 at = 0;

	q->snapshot_bytes = 0;
	if (!q->snapshot_count)
		return 0;
	q->snapshots = try_alloc(q->snapshot_count * sizeof(*q->snapshots));
	if (!q->snapshots)
		return err_set(err, -ENOMEM, "Could not allocate the snapshot list");
	for (u32 i = 0; i < q->snapshot_count; i++) {
		int ret = load_one(f, q, &at, &q->snapshots[i], err);

		if (ret < 0)
			return ret;
	}
	q->snapshot_bytes = at;
	return 0;
}
