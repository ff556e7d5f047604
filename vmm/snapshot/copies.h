/* Copies of memory units that wait for the disk.
 *
 * Their memory comes in slabs, of huge pages where the host has some: a guest waits
 * while a unit is copied, and fresh small pages cost more than the copying.  It is kept
 * until the end.  Thread: calls are the caller's to lock; a copy is its holder's. */
#ifndef VMM_SNAPSHOT_COPIES_H
#define VMM_SNAPSHOT_COPIES_H

#include "base/base.h"
#include "base/list.h"

struct unit_copy {
	struct list link; /* its holder's */
	u64 unit;
	u8 *data; /* RAM_UNIT bytes */
};

struct copies {
	struct list free, slabs;
	u32 out; /* copies that somebody has */
};

void copies_init(struct copies *c);
void copies_fini(struct copies *c); /* all have been put back */
struct unit_copy *copies_get(struct copies *c);
void copies_put(struct copies *c, struct unit_copy *copy);

/* How many of them this host can spare for memory of so many units. */
u32 copies_budget(u64 units);

#endif
