/* Changing many references at once, atomically: what snapshots are made of.
 * See pivot.c for how, and why it is safe.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_PIVOT_H
#define BLOCK_QCOW2_PIVOT_H

#include "block/qcow2/parts.h"

/* Deltas are counted for so many clusters at a time, 4 bytes each: a larger file
 * takes more passes over its tables. */
#define PIVOT_WINDOW (64 * MiB)

/* What becomes of COPIED flags of the active state. */
enum pivot_flags {
	FLAGS_CLEAR, /* everything is shared now */
	FLAGS_COUNT, /* as the refcounts say */
};

/* Everything below this L1 table is referenced once more, or less. */
struct pivot_root {
	const u64 *l1; /* host byte order; lent */
	u32 first, n;  /* entries [first, n) count */
	int sign;
	/* It is what `l1` of the pivot shows: a table that is replaced there is
	 * replaced here. */
	bool follows;
};

/* A place for `n` clusters. */
struct pivot_place {
	u64 hoff, n;
};

struct pivot {
	struct qcow2 *q;

	/* Given.  Roots with lowered counts come first. */
	struct pivot_root roots[3];
	u32 root_n;
	enum pivot_flags flags;
	u32 clear_first, clear_end; /* FLAGS_CLEAR: of these L1 entries */
	u64 *l1;		    /* the active table to be, `l1_entries`; taken */
	u32 l1_entries;
	u64 bytes;	  /* guest size to be */
	bool from_active; /* l1 is the active one of now: its tables lose a reference
			   * when they are replaced */
	struct qcow2_snapshot *snapshots; /* the list to be, NULL: as it is; taken on success */
	u32 snapshot_n;
	/* Entries of somebody who shares what l1 shows: replaced alike.  Lent. */
	u64 *kept;
	u32 kept_n;
	struct qcow2_snapshot *fresh; /* one of the list: `kept` becomes its L1 table */

	/* Worked out. */
	u64 total;		  /* clusters there are */
	u64 first, n;		  /* the window */
	s32 *delta;		  /* per cluster of it */
	u8 *single;		  /* per cluster, bits: refcount 1 from now on */
	u8 *l2_bits, *block_bits; /* by index: moves */
	u64 *l2_new, *block_new;  /* where to */
	u64 l2_count, block_count;
	bool l1_moves, frees;

	/* Places taken, for going back. */
	struct pivot_place *places;
	u32 place_n, place_room;
	struct pivot_place l1_place, table_place, kept_place, reftable_place;
};

static inline bool bit_get(const u8 *bits, u64 i)
{
	return bits[i / 8] >> (i % 8) & 1;
}

static inline void bit_set(u8 *bits, u64 i)
{
	bits[i / 8] |= (u8)(1u << (i % 8));
}

/* --- pivot.c --- */
/* Do it.  The image is frozen and healthy.  Takes l1, and the list if that
 * succeeds; p->fresh names its L1 table then.  Suspends. */
int pivot_run(struct fiber *f, struct pivot *p);

/* --- pivot_count.c: what changes --- */
int pivot_survey(struct fiber *f, struct pivot *p);
/* The deltas of the window that starts at p->first, judged. */
int pivot_window(struct fiber *f, struct pivot *p);
/* The flags of one table, as they shall be, in place; true if any changed. */
bool pivot_fix_flags(const struct pivot *p, u8 *table);

/* Call fn for the tables that l1[first..n) names, in order; data is the table,
 * which fn may change.  `only`: bits of the indices wanted, NULL: all.  Suspends. */
typedef int pivot_table_fn(struct fiber *f, struct pivot *p, u32 i, u8 *data, void *arg);
struct pivot_walk {
	const u64 *l1;
	u32 first, n;
	const u8 *only;
	pivot_table_fn *fn;
	void *arg;
};
int pivot_walk(struct fiber *f, struct pivot *p, const struct pivot_walk *w);

/* --- pivot_place.c: where it goes --- */
int pivot_place(struct fiber *f, struct pivot *p);
void pivot_unplace(struct fiber *f, struct pivot *p);
/* After the turn: memory and the sets of places follow. */
void pivot_settle(struct pivot *p, const struct disk_header *old);

/* --- pivot_write.c --- */
/* Everything that the header does not name yet; durable. */
int pivot_write(struct fiber *f, struct pivot *p);
/* Give what was freed back to the host. */
void pivot_punch(struct fiber *f, struct pivot *p);

#endif
