/* The VM-state area of a drive: bytes behind the guest's disk in its qcow2 image.
 *
 * What snapshot.h (block/qcow2) writes are whole clusters; here any bytes can be
 * written.  Calls wait for the drive; from any thread but its loop's. */
#ifndef VMM_SNAPSHOT_AREA_H
#define VMM_SNAPSHOT_AREA_H

#include "base/error.h"
#include "base/thread.h"
#include "block/qcow2/snapshot.h"

struct blk;

struct area {
	struct blk *blk;   /* [const] lent */
	u32 cluster_bytes; /* [const] */
	struct mutex lock; /* of clusters that are written in parts */
};

void area_init(struct area *a, struct blk *blk);
void area_fini(struct area *a);
/* Begin with nothing, or with what the snapshot of this identity has there, shared
 * with it; -ENOENT: it has gone. */
int area_clear(struct area *a, struct error *err);
int area_adopt(struct area *a, const struct qcow2_snapshot *s, struct error *err);
/* The drive was opened beside `same`, which shows the same file: the key of one is
 * good for the other. */
int area_unlock(struct area *a, struct blk *same);
int area_write(struct area *a, u64 off, const void *data, u64 bytes); /* data NULL: zeros */
int area_read(struct area *a, u64 off, void *data, u64 bytes);

#endif
