/* What the files about snapshots share.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_SNAPSHOT_INT_H
#define BLOCK_QCOW2_SNAPSHOT_INT_H

#include "block/qcow2/state.h"

struct qcow2_snapshot_job {
	struct qcow2 *q;
	u64 *l1; /* the disk that it keeps: that many entries */
	u32 entries;
	bool kept, thawed;
};

/* --- snapshot_ops.c --- */
/* L1 entries that the guest's disk takes; behind them lies VM state. */
u32 snapshot_disk_entries(const struct qcow2 *q, u64 bytes);
u64 *snapshot_copy_l1(const u64 *l1, u32 have, u32 n);
/* Healthy, writable, and frozen until snapshot_ops_end. */
int snapshot_ops_begin(struct fiber *f, struct qcow2 *q);
/* Commits what a success has freed, and thaws; returns ret. */
int snapshot_ops_end(struct fiber *f, struct qcow2 *q, int ret);
/* The L1 table of a snapshot, in host byte order, with zeros up to n entries. */
int snapshot_load_l1(struct fiber *f, struct qcow2 *q, const struct qcow2_snapshot *s, u32 n,
		     u64 **out, struct error *err);
int snapshot_judge_size(const struct qcow2 *q, const struct qcow2_snapshot *s, struct error *err);
/* The entry appears.  With a job it shows the disk that the job keeps, else the one
 * of now.  VM state of the active state goes with it, or away. */
int snapshot_add(struct fiber *f, struct qcow2 *q, const struct qcow2_new_snapshot *from,
		 const struct qcow2_snapshot_job *job);

#endif
