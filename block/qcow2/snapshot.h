/* Internal snapshots of a qcow2 image, for its users: list, find, create, apply,
 * delete.  Format: QEMU's docs/interop/qcow2, "Snapshots".
 *
 * What changes the image is atomic: after a power cut, or an error returned, all
 * of it has happened or nothing has, but for leaked clusters.  Requests on the
 * image may go on meanwhile: those that change it wait.  All suspend. */
#ifndef BLOCK_QCOW2_SNAPSHOT_H
#define BLOCK_QCOW2_SNAPSHOT_H

#include "block/image.h"

#define QCOW2_NO_ICOUNT UINT64_MAX

struct qcow2_snapshot {
	char *id, *name; /* as in the table, and a 0 behind */
	u32 id_bytes, name_bytes;
	u32 date_sec, date_nsec;
	u64 vm_clock_ns;
	u64 vm_state_bytes;
	u64 disk_bytes;
	u64 icount; /* QCOW2_NO_ICOUNT: not recorded */
	/* What only the driver looks at. */
	u64 l1_hoff;
	u32 l1_entries;
	u32 extra_bytes;   /* as found; rewritten entries have at least 24 */
	u32 unknown_bytes; /* of extra data that we do not know, kept as they are */
	u8 *unknown;
};

/* A row of `snapshot -l` and `info snapshots`, which show so many bytes of an id and of
 * a name; id: what to show for it. */
#define QCOW2_SNAPSHOT_ID   127
#define QCOW2_SNAPSHOT_NAME 255
#define QCOW2_SNAPSHOT_ROW  600
void qcow2_snapshot_row(const struct qcow2_snapshot *s, const char *id,
			char text[QCOW2_SNAPSHOT_ROW]);

/* The list, in the order of the table; good until the next change. */
u32 qcow2_snapshots(struct image *img, const struct qcow2_snapshot **out);

/* The first that fits: its place in the list, else -ENOENT. */
enum qcow2_find { FIND_NAME, FIND_ID, FIND_ID_OR_NAME };
int qcow2_snapshot_find(struct image *img, const char *text, enum qcow2_find how);

/* A snapshot of the disk as it is.  VM state that lies in the active image (see
 * below) is taken out of it, into the snapshot if vm_state_bytes says so.
 * -EINVAL: a refcount would overflow; -ENOTSUP: external data file. */
struct qcow2_new_snapshot {
	const char *name;
	u32 date_sec, date_nsec;
	u64 vm_clock_ns, vm_state_bytes, icount;
};
int qcow2_snapshot_create(struct fiber *f, struct image *img, const struct qcow2_new_snapshot *s);
/* Make the disk what it was, size and VM state too.  The snapshot stays. */
int qcow2_snapshot_apply(struct fiber *f, struct image *img, u32 index, struct error *err);
/* The same without its VM state, for who gets that elsewhere: what has as many clusters as
 * the machine has memory need not be counted. */
int qcow2_snapshot_apply_disk(struct fiber *f, struct image *img, u32 index, struct error *err);
/* Show it instead of the active state, or of the snapshot before: the disk, and its VM
 * state to qcow2_vmstate_read.  Of a read-only image that nobody else uses. */
int qcow2_snapshot_show(struct fiber *f, struct image *img, u32 index, struct error *err);
int qcow2_snapshot_delete(struct fiber *f, struct image *img, u32 index, struct error *err);

/* --- of a running machine, see snapshot_live.c --- */

struct qcow2_snapshot_job;
/* The moment: no change gets through from here on, until qcow2_snapshot_keep or
 * _cancel.  Waits for changes under way and takes no further I/O.  -EBUSY: one is
 * under way; meanwhile sizes stay and no other snapshot is applied. */
int qcow2_snapshot_begin(struct fiber *f, struct image *img, struct qcow2_snapshot_job **out);
/* The disk of that moment is kept, durably; changes go on.  Then finish or cancel;
 * after a failure, cancel. */
int qcow2_snapshot_keep(struct fiber *f, struct qcow2_snapshot_job *job);
/* The entry appears; with vm_state_bytes it takes the VM state along, else that goes
 * away.  Frees the job unless it fails: then try again, or cancel. */
int qcow2_snapshot_finish(struct fiber *f, struct qcow2_snapshot_job *job,
			  const struct qcow2_new_snapshot *s);
int qcow2_snapshot_cancel(struct fiber *f, struct qcow2_snapshot_job *job); /* frees it */

/* VM state of the active state (or of the snapshot that a read-only image shows):
 * offsets count from the first L1 entry behind the disk.  Writes and drops are of
 * whole clusters (-EINVAL); what was never written, or dropped, reads as zeros. */
int qcow2_vmstate_write(struct fiber *f, struct image *img, u64 off, const struct iovec *iov,
			unsigned n);
int qcow2_vmstate_drop(struct fiber *f, struct image *img, u64 off, u64 bytes);
int qcow2_vmstate_read(struct fiber *f, struct image *img, u64 off, const struct iovec *iov,
		       unsigned n);
/* Of a read-only image that shows one snapshot: clear the bits of those pieces of its VM
 * state that do not lie in the same clusters as those of another.  What is left is the
 * same.  After an error nothing is known. */
struct qcow2_vmstate_pieces {
	u64 off, bytes_each, n;
	u64 *bits;
};
int qcow2_vmstate_compare(struct fiber *f, struct image *img, u32 index,
			  const struct qcow2_vmstate_pieces *p);
/* Instead of what is there, show what this snapshot has; shared, until written. */
int qcow2_vmstate_adopt(struct fiber *f, struct image *img, u32 index, struct error *err);

#endif
