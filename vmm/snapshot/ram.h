/* Guest memory as a snapshot sees it: a row of units.
 *
 * Every region of memory that is no alias (RAM, firmware, display memory), in order
 * of their names, each from a whole unit on.  A unit's number times
 * RAM_UNIT is its place in the RAM area of a snapshot, for ever: what did not
 * change since the last snapshot need not be written again.
 * Dirty units are those that KVM's log or our own marks (mem.h) name.
 * Thread: control; but for lookups, which are of constants. */
#ifndef VMM_SNAPSHOT_RAM_H
#define VMM_SNAPSHOT_RAM_H

#include "block/qcow2/vmstate_format.h"
#include "vmm/core/mem.h"

#define RAM_UNIT_BITS  SNAP_UNIT_BITS
#define RAM_UNIT       SNAP_UNIT
#define RAM_MAX_RANGES 16
/* Units at most that are noted as needed first: 256 MiB. */
#define RAM_WORKING_SET 4096

struct ram_range {
	struct mem_region *region;
	u8 *host;
	u64 bytes, first; /* unit */
};

struct ram_map {
	struct mem *mem;			 /* [const] */
	struct ram_range ranges[RAM_MAX_RANGES]; /* [const] */
	u32 n;
	u64 units;
	/* [control] a bit a unit: may differ from the snapshot that we last saved or
	 * loaded.  All ones until there is one. */
	u64 *dirty;
	bool tracking;
	bool anonymous; /* [const] none of it lies in a file */
};

int ram_map_init(struct ram_map *map, struct mem *mem, struct error *err);
void ram_map_fini(struct ram_map *map);
/* The memory of a unit; *bytes is less than RAM_UNIT at the end of a range. */
u8 *ram_unit(const struct ram_map *map, u64 unit, u64 *bytes);
/* The unit of a host address; UINT64_MAX: not guest memory. */
u64 ram_unit_of(const struct ram_map *map, const u8 *host);

/* Make n units of one range zeros; -errno: they are what they were. */
int ram_empty(const struct ram_map *map, u64 unit, u64 n);
/* May userfaultfd watch it: 0, or -EINVAL and why not. */
int ram_can_be_watched(const struct ram_map *map, struct error *err);

/* Log writes from here on.  Until it has been on since a snapshot, everything is
 * dirty. */
int ram_track(struct ram_map *map, bool on);
/* Set the bits of units written since the last call, in `into` (units bits). */
int ram_collect(struct ram_map *map, u64 *into);
int ram_look(struct ram_map *map, u64 *into); /* the next ram_collect tells them again */

/* Set the bits, in `into`, of those units of `of` that nobody has ever touched, or that
 * were given up since: zeros, until somebody writes.  None where the host does not tell. */
void ram_untouched(const struct ram_map *map, const u64 *of, u64 *into);

static inline u64 ram_bitmap_bytes(const struct ram_map *map)
{
	return DIV_ROUND_UP(map->units, 64) * sizeof(u64);
}
static inline bool ram_bit(const u64 *bits, u64 i)
{
	return bits[i / 64] >> (i % 64) & 1;
}
static inline void ram_set_bit(u64 *bits, u64 i)
{
	bits[i / 64] |= (u64)1 << (i % 64);
}
static inline void ram_clear_bit(u64 *bits, u64 i)
{
	bits[i / 64] &= ~((u64)1 << (i % 64));
}
/* How many units from this one on lie in the same range, up to `most`. */
u64 ram_run_in_range(const struct ram_map *map, u64 unit, u64 most);
/* The next run of set bits from *at on, at most `most` long, within one range: its
 * length, 0: none. */
u64 ram_next_run(const struct ram_map *map, const u64 *bits, u64 *at, u64 most);

#endif
