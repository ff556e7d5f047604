/* What the files of block/qcow2/ offer one another, by file. */
#ifndef BLOCK_QCOW2_PARTS_H
#define BLOCK_QCOW2_PARTS_H

#include "block/qcow2/alloc.h"
#include "block/qcow2/compress.h" /* compressed_span, entry_free */
#include "block/qcow2/state.h"

/* --- header.c --- */
/* Read and judge the header and its extensions: geometry, names, features. */
int header_open(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
		struct error *err);
void header_fini(struct qcow2 *q);
/* Write q->head.  Suspends. */
int header_write(struct fiber *f, struct qcow2 *q);
/* Clear autoclear bits before the first write of a session; durable.  Suspends. */
int header_begin_writing(struct fiber *f, struct qcow2 *q);
int header_begin_bitmaps(struct fiber *f, struct qcow2 *q);
/* Clear autoclear bits but those to keep; durable.  Suspends. */
int header_clear_autoclear(struct fiber *f, struct qcow2 *q, u64 keep);
/* Set or clear an incompatible feature bit, durably.  Suspends. */
int header_set_incompatible(struct fiber *f, struct qcow2 *q, u64 bit, bool on);
/* Report damaged metadata once, mark the image corrupt, refuse writes from now
 * on.  Returns -EIO.  Suspends. */
int qcow2_corrupt(struct fiber *f, struct qcow2 *q, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* --- qcow2.c --- */
/* Read L1, refcount table and snapshot list; again after a repair. */
int qcow2_load(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
	       struct error *err);
void qcow2_unload(struct qcow2 *q);
void io_begin(struct qcow2 *q, struct io_track *io);
void io_end(struct io_track *io);
int qcow2_flush(struct fiber *f, struct image *img);

/* --- options.c --- */
/* What policy->options say of this image, once the header is known. */
int qcow2_take_options(struct qcow2 *q, struct open_policy *policy, struct error *err);

/* --- l2.c --- */
enum extent_kind { EXTENT_HOLE, EXTENT_ZERO, EXTENT_DATA, EXTENT_COMPRESSED };
struct extent {
	enum extent_kind kind;
	bool in_place; /* I4: refcount is 1, may be written */
	bool placed;   /* hoff is valid: DATA, or a cluster kept for what is not */
	u64 hoff;      /* COMPRESSED: the entry */
	u64 bytes;
};
enum extent_kind l2_kind(const struct qcow2 *q, u64 entry);
/* What lies at goff, up to `bytes` and the end of its L2 table.  Suspends if the
 * table is not cached. */
int l2_map(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes, struct extent *out);
/* The table of l1_index, NULL if there is none. */
int l2_get(struct fiber *f, struct qcow2 *q, u32 l1_index, struct table **out);
/* One that may be changed: made, or copied from a shared one, if need be. */
int l2_get_writable(struct fiber *f, struct qcow2 *q, u32 l1_index, struct table **out);
static inline u64 l2_entry(const struct table *t, u32 i)
{
	return load_be64(t->data + ((u64)i << t->entry_shift));
}
/* Has the entry, which is not compressed, a host cluster?  Offset 0 is one in an
 * external data file. */
static inline bool l2_is_placed(const struct qcow2 *q, u64 entry)
{
	return entry & q->placed_bits;
}
/* The end of l2_map: where an entry's extent, whose kind and bytes are set, lies. */
int l2_place_extent(struct fiber *f, struct qcow2 *q, const struct table *t, u64 goff, u64 entry,
		    struct extent *out);
/* Change n entries from i on: to entry, entry + step, ... in memory; stage B
 * writes them.  The clusters they pointed at are freed, unless kept. */
void l2_set(struct qcow2 *q, struct table *t, u32 i, u64 entry);
void l1_set(struct qcow2 *q, u32 l1_index, u64 entry);
/* May the place an L1 entry names be freed?  Not if other metadata lies there. */
bool l2_place_is_sound(const struct qcow2 *q, u64 hoff);

/* --- refcount.c --- */
u64 refcount_load(const struct qcow2 *q, const u8 *block, u32 i);
void refcount_store(const struct qcow2 *q, u8 *block, u32 i, u64 value);
u64 refcount_max(const struct qcow2 *q);
/* A block of the refcount tree, NULL if there is none; any index, as entries may
 * name places far away.  Suspends. */
int refblock_get(struct fiber *f, struct qcow2 *q, u64 index, struct table **out);
void refblock_set(struct qcow2 *q, struct table *t, u32 i, u64 value);
/* Make room for block b in the table in memory, and make the block in this free
 * cluster, which it describes itself or a block in the cache does.  -EFBIG. */
int refblock_add(struct fiber *f, struct qcow2 *q, u32 b, u64 cluster, struct table **out);
/* Lower the refcounts of freed clusters that nobody can reach any more.  Suspends. */
int refcount_release(struct fiber *f, struct qcow2 *q);

/* --- read.c, write.c, resize.c, check.c: the driver's calls --- */
int qcow2_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n);
int qcow2_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n);
int qcow2_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags);
int qcow2_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes);
int qcow2_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out);
int qcow2_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		 struct error *err);
int qcow2_check(struct fiber *f, struct image *img, struct check_request *req, struct error *err);
/* Before anything is written: healthy, autoclear bits gone, caches not full. */
int write_begin(struct fiber *f, struct qcow2 *q);
/* Write guest data to these bytes of the data file; an image_transfer_fn.  Suspends. */
int data_write(struct fiber *f, struct image *img, u64 hoff, const struct iovec *iov, unsigned n);
/* Take the clusters of [goff, goff + bytes) (whole clusters) out of the map. */
int clusters_drop(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes);
/* As qcow2_zero, with written zeros where there is no other way. */
int zero_or_write(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes);

/* Room in memory for n > l1_entries of L1, and as many L2 tables. */
int l1_reserve_memory(struct qcow2 *q, u32 n);
int l1_extend(struct fiber *f, struct qcow2 *q, u32 n); /* on disk too, if longer */

/* --- commit.c --- */
/* Make everything written and linked so far durable.  Suspends. */
int qcow2_commit(struct fiber *f, struct qcow2 *q);
/* The same for all there is: lazy and lowered refcounts too. */
int qcow2_commit_all(struct fiber *f, struct qcow2 *q);
bool commit_is_needed(const struct qcow2 *q);
void commit_forget(struct qcow2 *q); /* drop what is pending, after corruption */
int file_sync(struct fiber *f, struct qcow2 *q);

/* --- grow.c: for commit.c --- */
struct batch;
/* Make fresh refcount blocks part of the file; the pointers are not synced. */
int grow_refcount_tree(struct fiber *f, struct qcow2 *q);
bool grow_is_needed(const struct qcow2 *q);
int grow_copy_blocks(struct qcow2 *q, struct batch *b, struct list *committing, bool fresh);
void grow_settle_blocks(struct qcow2 *q, const struct batch *b, struct list *committing, int ret);

/* --- bitmap_session.c --- */
void bitmaps_mark_slow(struct qcow2 *q, u64 goff, u64 bytes);
/* The guest changes this range. */
static inline void bitmaps_mark(struct qcow2 *q, u64 goff, u64 bytes)
{
	if (unlikely(q->tracking))
		bitmaps_mark_slow(q, goff, bytes);
}

/* --- snapshot.c --- */
int snapshots_load(struct fiber *f, struct qcow2 *q, struct error *err);
void snapshots_free(struct qcow2_snapshot *s, u32 n); /* what they hold, not s */
/* May its L1 table be looked at? */
bool snapshot_l1_is_sound(const struct qcow2 *q, const struct qcow2_snapshot *s);
/* The table of this list: its size, its bytes. */
u64 snapshots_bytes(const struct qcow2_snapshot *s, u32 n);
void snapshots_put(u8 *to, const struct qcow2_snapshot *s, u32 n);
/* After qcow2_load, read-only: show this one (policy->snapshot). */
int snapshot_show(struct fiber *f, struct qcow2 *q, const char *text, struct error *err);

#endif
