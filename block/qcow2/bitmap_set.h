/* The bitmap directory in memory, and changing it.  For bitmap*.c, and what the
 * rest of block/qcow2 calls.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_BITMAP_SET_H
#define BLOCK_QCOW2_BITMAP_SET_H

#include "block/dirty_map.h"
#include "block/qcow2/parts.h"

#define BITMAP_IN_USE	1u
#define BITMAP_AUTO	2u
#define BITMAP_RESERVED (~(BITMAP_IN_USE | BITMAP_AUTO)) /* extra data: not supported */

#define BITMAP_MIN_GRANULARITY_BITS 9
#define BITMAP_MAX_GRANULARITY_BITS 31
#define BITMAP_MAX_NAME		    1023
#define BITMAP_MAX_BYTES	    (512 * MiB) /* of one bitmap's clusters */
#define BITMAP_MAX_DIRECTORY_BYTES  (1024ull * 65535)

/* An entry of a table: 0 all zeros, 1 all ones, else where the bits are. */
#define BITMAP_ENTRY_ONES     1ull
#define BITMAP_ENTRY_RESERVED 0xff000000000001feull

struct bitmap {
	char *name;
	u64 table_hoff;
	u32 table_entries;
	u32 flags;
	u32 granularity_bits;
	bool busy; /* marked in use in the file by us, and to be stored at close */
};

struct bitmap_set {
	struct bitmap *v;
	u32 n;
	u64 directory_hoff, directory_bytes; /* in the file; 0: none */
	bool lost;			     /* the map of what was written has holes */
};

/* --- bitmap_set.c --- */
/* Read and judge the directory.  *out is NULL if there are no bitmaps. */
int bitmap_set_load(struct fiber *f, struct qcow2 *q, struct bitmap_set **out, struct error *err);
struct bitmap_set *bitmap_set_copy(const struct bitmap_set *s);
void bitmap_set_free(struct bitmap_set *s);
struct bitmap *bitmap_find(const struct bitmap_set *s, const char *name);
/* As above, with what to say if it is not there or in use. */
int bitmap_find_usable(const struct bitmap_set *s, const char *name, struct bitmap **out,
		       struct error *err);
u64 bitmap_directory_bytes(const struct bitmap_set *s);
/* Fill `to` with the directory as it lies on disk. */
void bitmap_directory_fill(const struct bitmap_set *s, u8 *to);
/* Entries that a table needs for a disk of this size. */
u64 bitmap_entries(const struct qcow2 *q, u64 bytes, u32 granularity_bits);
/* The table, host byte order (free() it), with room for at least n entries. */
int bitmap_table_read(struct fiber *f, struct qcow2 *q, const struct bitmap *b, u64 room,
		      u64 **out);
/* Is there a cluster of its own behind the entry? */
static inline u64 bitmap_entry_hoff(u64 entry)
{
	return entry & ENTRY_HOFF;
}
/* Set in the map what is set in the bitmap.  Suspends. */
int bitmap_read(struct fiber *f, struct qcow2 *q, const struct bitmap *b, struct dirty_map *to);

/* --- bitmap_store.c: changes of all bitmaps together --- */
struct host_run {
	u64 hoff, clusters;
};
struct host_runs {
	struct host_run *v;
	size_t n, room;
};
struct bitmap_change {
	struct qcow2 *q;
	struct bitmap_set *set; /* a copy, to be changed */
	u64 bytes;		/* of the disk that tables are made for */
	struct host_runs fresh, old;
	struct dirty_map *taken; /* folded, or to be given back */
};
/* Begin with what is there and what was written since the session began. */
int bitmap_change_begin(struct fiber *f, struct qcow2 *q, struct bitmap_change *c);
/* Give it an empty table of the size the disk needs. */
int bitmap_table_empty(struct fiber *f, struct bitmap_change *c, struct bitmap *b);
/* Its table and clusters go away when the change is durable. */
int bitmap_table_drop(struct fiber *f, struct bitmap_change *c, struct bitmap *b);
/* Set what is set in the map. */
int bitmap_fold(struct fiber *f, struct bitmap_change *c, struct bitmap *b,
		const struct dirty_map *map);
/* Make the table fit c->bytes. */
int bitmap_table_resize(struct fiber *f, struct bitmap_change *c, struct bitmap *b);
/* Switch the image to the changed set, durably; with ret < 0 forget it all.
 * last: nothing is going to be written after this, so no bitmap is in use. */
int bitmap_change_end(struct fiber *f, struct bitmap_change *c, bool last, int ret);

/* --- bitmap_session.c: called by the rest of block/qcow2 --- */
/* At open. */
int bitmaps_open(struct fiber *f, struct qcow2 *q, struct error *err);
/* Before the first write of a session: mark in use what writes make stale. */
int bitmaps_begin(struct fiber *f, struct qcow2 *q);
/* Store what was written, at close. */
int bitmaps_end(struct fiber *f, struct qcow2 *q);
void bitmaps_fini(struct qcow2 *q);
/* The clusters of the directory, in the set of metadata and out of it. */
int bitmaps_enter(struct qcow2 *q);
void bitmaps_leave(struct qcow2 *q);
/* May the disk be resized? */
int bitmaps_may_resize(const struct qcow2 *q, struct error *err);
/* Tables for a disk of that size: before it grows, after it shrank. */
int bitmaps_resize(struct fiber *f, struct qcow2 *q, u64 bytes);
/* A map of what is written from now on, at the finest granularity of the set. */
int bitmaps_track(struct qcow2 *q, const struct bitmap_set *s, u64 bytes);

#endif
