/* An address space of device registers: port I/O, or memory-mapped.
 *
 * Lookup copies the region out under a read lock that is dropped before the
 * handler runs, so handlers may map and unmap.  The handler is called with the
 * region's lock held (its device's).  [any thread] */
#ifndef VMM_CORE_BUS_H
#define VMM_CORE_BUS_H

#include "base/base.h"
#include "base/error.h"
#include "base/thread.h"

struct bus;
struct bus_region;

/* off is from the start of the region; size 1, 2, 4 or 8.  A handler narrower
 * than the access is called several times, little-endian, unless max_size says it
 * takes the width; below min_size it is called with min_size and the value cut. */
struct bus_ops {
	u64 (*read)(void *owner, u64 off, unsigned size);
	void (*write)(void *owner, u64 off, unsigned size, u64 value);
	u8 min_size, max_size; /* 0: 1 and 4 */
};

int bus_new(struct bus **out, const char *name, u64 limit); /* addresses below limit */
void bus_free(struct bus *bus);

/* Where a region lies.  priority decides overlaps (higher wins; equal: -EBUSY). */
struct bus_place {
	const char *name; /* kept */
	u64 addr, bytes;
	int priority;
};
/* Map; lock may be NULL.  owner, ops and lock are kept. */
int bus_map(struct bus *bus, struct bus_region **out, const struct bus_place *place,
	    const struct bus_ops *ops, void *owner, struct mutex *lock);
void bus_unmap(struct bus_region *r); /* frees it; NULL is fine */
int bus_move(struct bus_region *r, u64 addr);

/* Unclaimed reads give all ones, unclaimed writes vanish; false then. */
bool bus_read(struct bus *bus, u64 addr, unsigned size, u64 *value);
bool bus_write(struct bus *bus, u64 addr, unsigned size, u64 value);

/* Writes of `value` (or of anything) at addr signal fd without reaching the
 * handler: KVM's ioeventfd, or done in bus_write when there is no KVM. */
struct bus_doorbell {
	u64 addr;
	unsigned size; /* 1, 2, 4 or 8; 0: any (match must be false then) */
	bool match;    /* only writes of `value` */
	u64 value;
	int fd; /* lent until _del */
};
struct bus_doorbell_ops {
	int (*set)(void *arg, const struct bus_doorbell *bell, bool on);
};
void bus_set_doorbell_ops(struct bus *bus, const struct bus_doorbell_ops *ops, void *arg);
int bus_doorbell_add(struct bus *bus, const struct bus_doorbell *bell);
void bus_doorbell_del(struct bus *bus, const struct bus_doorbell *bell); /* same values */

/* For `info mtree`: calls fn for every region in order of address. */
void bus_each(struct bus *bus,
	      void (*fn)(void *arg, const char *name, u64 addr, u64 bytes, int priority),
	      void *arg);

#endif
