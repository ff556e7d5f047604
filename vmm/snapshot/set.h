/* Snapshots across the drives of a machine.
 *
 * A snapshot is a set: one entry in every writable drive, with the same name, date and
 * virtual clock, which together are its identity.  The first drive of the set holds
 * the VM state.  A set that is not in every drive does not exist; after a crash
 * parts of one may be left over.
 * Thread: control; calls wait for the drives. */
#ifndef VMM_SNAPSHOT_SET_H
#define VMM_SNAPSHOT_SET_H

#include "base/error.h"
#include "base/printer.h"
#include "block/qcow2/snapshot.h"

struct drive;
struct vm;

#define SET_MAX_DRIVES 64

/* The drives that a snapshot of this machine takes part of, in order. */
struct drive_set {
	struct drive *drives[SET_MAX_DRIVES];
	u32 n;
};

bool drive_has_snapshots(struct drive *d); /* may its image keep some? */
/* Refuses a machine that has a writable drive without snapshots, or no drive for
 * the VM state. */
int drive_set_init(struct drive_set *set, struct vm *vm, struct error *err);

/* The entries of one drive: copies, to be freed by entries_fini. */
struct entries {
	struct qcow2_snapshot *v;
	u32 n;
};
int entries_get(struct entries *e, struct drive *d);
void entries_fini(struct entries *e);
/* The last entry of that name, or of that identity; -ENOENT. */
int entries_find(const struct entries *e, const char *name);
int entries_find_same(const struct entries *e, const struct qcow2_snapshot *s);

/* The same moment of the same machine? */
bool snapshot_is_same(const struct qcow2_snapshot *a, const struct qcow2_snapshot *b);
/* Place of that identity in the image's list, -ENOENT.  [the drive's loop] */
int snapshot_index(struct image *img, const struct qcow2_snapshot *s);

/* The newest complete set of this name, as the entry of the first drive (free with
 * snapshot_entry_fini).  -ENOENT with the reference's message. */
int set_find(const struct drive_set *set, const char *name, struct qcow2_snapshot *out,
	     struct error *err);
void snapshot_entry_fini(struct qcow2_snapshot *s);
/* Delete from every drive the entries of this name but those of `keep`'s identity (NULL: all);
 * *count is how many there were. */
int set_delete(const struct drive_set *set, const char *name, const struct qcow2_snapshot *keep,
	       u32 *count, struct error *err);

#endif
