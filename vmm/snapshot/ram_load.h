/* Guest memory that comes in on demand.
 *
 * What is not as it is to be is thrown away; what the guest or a device touches is
 * fetched first, a loader fetches the rest in the background, the working set first.
 * Units are checked as they come in.  Without userfaultfd everything is fetched before
 * ram_load_start returns.
 * The source must not need any thread that may touch guest memory. */
#ifndef VMM_SNAPSHOT_RAM_LOAD_H
#define VMM_SNAPSHOT_RAM_LOAD_H

#include "vmm/snapshot/ram.h"

struct ram_load;

struct ram_load_options {
	const struct ram_map *map;
	/* Read n units that lie one after the other.  [fault thread, loader] */
	int (*source)(void *arg, u64 unit, u64 n, u8 *data);
	/* A unit cannot be had (-EIO), or is not what was saved (-EBADMSG).  The guest
	 * has to be kept from going on before this returns: the unit becomes zeros. */
	void (*failed)(void *arg, u64 unit, int ret);
	/* Everything is there; ram_load_free is next.  [loader] */
	void (*done)(void *arg);
	void *arg;
	const u32 *crcs;	/* of each unit, 0: zeros; kept until ram_load_free */
	const u64 *keep;	/* bits of units that are right as they are; NULL: none */
	const u32 *first_units; /* the working set, in the order of its use; kept */
	u32 n_first;
	bool live;
};

/* The guest stands still.  On an error memory is as it was, unless -EIO or -EBADMSG
 * (not live): then part of it is lost.  -ENOSYS, -EPERM: there is no userfaultfd. */
int ram_load_start(struct ram_load **out, const struct ram_load_options *opt, struct error *err);
/* Fetch what is missing at once and wait for it: 0, or the first error. */
int ram_load_finish(struct ram_load *l);
int ram_load_result(struct ram_load *l); /* so far: 0, or the first error */
/* Gives up what is missing, which becomes zeros: the guest is not to go on. */
void ram_load_free(struct ram_load *l);
/* Set the bits of units that are not there, now that nobody fetches any more. */
void ram_load_give_up(struct ram_load *l, u64 *missing);

struct ram_load_progress {
	u64 units, there;
	u64 read, kept; /* of those there: from the source; right as they were */
	u64 faults;
};
void ram_load_progress(struct ram_load *l, struct ram_load_progress *out); /* [any thread] */
/* Units in the order in which they were asked for by faults, up to `room`: the working
 * set of what was loaded. */
u32 ram_load_working_set(struct ram_load *l, u32 *units, u32 room);

#endif
