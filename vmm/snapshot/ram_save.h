/* Writing guest memory away while the guest runs: the state of one moment.
 *
 * The memory to save is write-protected (uffd.h) before that moment, by
 * ram_save_protect, and stays so until its units have been copied.  Workers copy a
 * unit, let writes to it through, and hand the copy to the sink; a unit that somebody
 * wants to write is copied first of all, so that he waits for a copy and not for the
 * disk.  Memory for copies of that kind is bounded; a vCPU that comes when it is used up
 * waits for its turn.  Other threads never wait for the disk: what the sink does may
 * need them.
 * Without userfaultfd units that are written meanwhile are to be saved again, until a last
 * time with the guest standing still. */
#ifndef VMM_SNAPSHOT_RAM_SAVE_H
#define VMM_SNAPSHOT_RAM_SAVE_H

#include "vmm/snapshot/ram.h"

struct ram_save;

/* Units that lie one after the other. */
struct ram_batch {
	u64 unit, n;
	const u8 *data; /* n * RAM_UNIT bytes; NULL: all zeros */
};

struct ram_save_options {
	const struct ram_map *map;
	/* Where units go; from the workers, several at a time.  0 or -errno, which
	 * ends it all. */
	int (*sink)(void *arg, const struct ram_batch *batch);
	bool (*may_wait)(void *arg, u32 thread); /* is that a vCPU? */
	void (*done)(void *arg);		 /* from the last worker; ram_save_wait is next */
	void *arg;
	u32 *crcs;	 /* filled in: CRC32C of each unit, 0 for one of zeros */
	u32 early_units; /* copies that may wait for the sink before vCPUs do (copies.h) */
	bool live;	 /* with userfaultfd */
};

/* -ENOSYS or -EPERM with live: this host has no userfaultfd for us. */
int ram_save_new(struct ram_save **out, const struct ram_save_options *opt, struct error *err);
void ram_save_free(struct ram_save *s); /* cancels what is going on */
/* Units to be saved: those of `bits`.  The guest may run; what it writes meanwhile is
 * to be protected again.  Repeatable. */
int ram_save_protect(struct ram_save *s, const u64 *bits);
/* The guest stands still: this is the moment.  Sets the bits of units that somebody was
 * allowed to write before it, whether he did or not: they are to be protected again and
 * saved. */
void ram_save_moment(struct ram_save *s, u64 *opened);
/* After the moment: save the units of `bits`, all of which are protected. */
int ram_save_start(struct ram_save *s, const u64 *bits, struct error *err);
void ram_save_cancel(struct ram_save *s);
/* Until all is with the sink: 0, its error, or -ECANCELED. */
int ram_save_wait(struct ram_save *s);

struct ram_progress {
	u64 units, done;    /* to save; saved */
	u64 zeros;	    /* of those */
	u64 faults, waited; /* writes that came early; of those, had to wait */
};
void ram_save_progress(struct ram_save *s, struct ram_progress *out); /* [any thread] */
/* Units in the order in which they were written after the moment, up to `room`: what the
 * guest needs first when it goes on from there. */
u32 ram_save_working_set(struct ram_save *s, u32 *units, u32 room);

#endif
