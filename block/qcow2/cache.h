/* A bounded cache of one-cluster tables (L2 tables, refcount blocks).
 *
 * Found by index in an array.  A table pointer is good until the caller next
 * suspends.  Dirty tables are never thrown out: commit.c writes them, and writers
 * run a commit before they make more than the cache should hold.
 * Thread: the image's loop. */
#ifndef BLOCK_QCOW2_CACHE_H
#define BLOCK_QCOW2_CACHE_H

#include "base/fiber.h"
#include "base/list.h"

struct image;

struct table {
	struct list link;	/* on clean or dirty, or with the commit that writes it */
	u64 hoff;		/* its place in the file */
	u32 index;		/* in the level above */
	u32 dirty_lo, dirty_hi; /* bytes that differ from the file; equal: none */
	u8 entry_shift;		/* L2: log2 of the bytes of an entry */
	bool fresh;		/* nothing on disk points at it yet */
	bool blank;		/* its place in the file was never written: zeros */
	bool loading;		/* being read: wait for cache->loaded */
	bool committing;	/* a commit is writing a copy of it */
	bool used;		/* since the eviction hand last passed */
	u8 *data;		/* as on disk */
};

struct table_cache {
	struct table **tables; /* by index, NULL: not here */
	u32 n;		       /* indices there are */
	u32 table_bytes;
	u8 entry_shift;	 /* of the tables to come */
	u32 count, max;	 /* tables here, and wanted at most */
	u32 dirty_count; /* dirty or committing */
	struct list clean, dirty;
	struct fiber_queue loaded;
};

int cache_init(struct table_cache *c, u32 n, u32 table_bytes, u64 limit_bytes);
void cache_fini(struct table_cache *c); /* drops dirty tables too */
/* Change the number of indices; tables beyond it must be gone.  -ENOMEM. */
int cache_set_n(struct table_cache *c, u32 n);

/* The table if it is here and whole, else NULL. */
static inline struct table *cache_peek(struct table_cache *c, u32 index)
{
	struct table *t = c->tables[index];

	if (unlikely(!t || t->loading))
		return NULL;
	t->used = true;
	return t;
}

/* Bring in the table, which is not here, from hoff of `file`.  Suspends. */
int cache_load(struct fiber *f, struct table_cache *c, struct image *file, u32 index, u64 hoff);
/* Throw out a clean table that was not used lately; false: there is none. */
bool cache_evict(struct table_cache *c);
/* A table of zeros that is not in the file yet: fresh, all dirty.  blank: neither is
 * anything else at its place.  -ENOMEM. */
int cache_add_fresh(struct table_cache *c, u32 index, u64 hoff, bool blank, struct table **out);
void cache_drop(struct table_cache *c, struct table *t); /* dirty or not, not committing */

void cache_mark_dirty(struct table_cache *c, struct table *t, u32 lo, u32 hi);
static inline bool table_is_dirty(const struct table *t)
{
	return t->dirty_lo < t->dirty_hi;
}
/* Should a commit run before more tables are dirtied?  Not where all tables that
 * can be are welcome: then only a flush needs one. */
static inline bool cache_is_full(const struct table_cache *c)
{
	return c->max < c->n && c->dirty_count > c->max / 2;
}
/* For commit.c: the table leaves the dirty list clean, and comes back when the
 * copy taken of it is written, or with its old range dirty if that failed. */
void cache_commit_begin(struct table_cache *c, struct table *t, struct list *to);
void cache_commit_end(struct table_cache *c, struct table *t);

#endif
