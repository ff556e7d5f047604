/* The table cache; see cache.h.  Replacement is by second chance: lookups only
 * set a mark, the eviction hand walks the list from the oldest table on. */
#include "block/qcow2/cache.h"

#include "block/qcow2/state.h"

#include <errno.h>

#define MIN_TABLES 8

int cache_init(struct table_cache *c, u32 n, u32 table_bytes, u64 limit_bytes)
{
	*c = (struct table_cache){.n = n, .table_bytes = table_bytes};
	c->max = (u32)MAX(limit_bytes / table_bytes, (u64)MIN_TABLES);
	list_init(&c->clean);
	list_init(&c->dirty);
	fiber_queue_init(&c->loaded);
	c->tables = try_alloc((size_t)MAX(n, 1u) * sizeof(*c->tables));
	return c->tables ? 0 : -ENOMEM;
}

static void table_free(struct table_cache *c, struct table *t)
{
	assert(c->tables[t->index] == t && c->count > 0);
	list_del(&t->link);
	c->tables[t->index] = NULL;
	c->count--;
	free(t->data);
	free(t);
}

void cache_fini(struct table_cache *c)
{
	for (u32 i = 0; c->tables && c->count && i < c->n; i++)
		if (c->tables[i])
			table_free(c, c->tables[i]);
	free(c->tables);
	c->tables = NULL;
}

int cache_set_n(struct table_cache *c, u32 n)
{
	struct table **tables = try_alloc((size_t)MAX(n, 1u) * sizeof(*tables));

	if (!tables)
		return -ENOMEM;
	for (u32 i = n; i < c->n; i++)
		assert(!c->tables[i]);
	memcpy(tables, c->tables, (size_t)MIN(n, c->n) * sizeof(*tables));
	free(c->tables);
	c->tables = tables;
	c->n = n;
	return 0;
}

/* Out of the list goes the first that was not used lately; NULL: none is clean. */
static struct table *oldest_clean(struct table_cache *c)
{
	struct table *t;

	if (list_empty(&c->clean))
		return NULL;
	while ((t = list_entry(c->clean.next, struct table, link))->used) {
		t->used = false;
		list_del(&t->link);
		list_append(&c->clean, &t->link);
	}
	return t;
}

bool cache_evict(struct table_cache *c)
{
	struct table *t = oldest_clean(c);

	if (t)
		table_free(c, t);
	return t != NULL;
}

/* Until one more fits, or all is in use. */
static void make_room(struct table_cache *c)
{
	while (c->count >= c->max && cache_evict(c))
		;
}

static int table_new(struct table_cache *c, u32 index, u64 hoff, struct table **out)
{
	struct table *t;

	assert(index < c->n && !c->tables[index]);
	make_room(c);
	t = try_alloc(sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->data = try_alloc_aligned(c->table_bytes, MIN(c->table_bytes, 4096u));
	if (!t->data) {
		free(t);
		return -ENOMEM;
	}
	list_init(&t->link);
	t->index = index;
	t->hoff = hoff;
	t->entry_shift = c->entry_shift;
	t->used = true;
	c->tables[index] = t;
	c->count++;
	*out = t;
	return 0;
}

int cache_load(struct fiber *f, struct table_cache *c, struct image *file, u32 index, u64 hoff)
{
	struct table *t;
	int ret = table_new(c, index, hoff, &t);

	if (ret < 0)
		return ret;
	t->loading = true;
	ret = qcow2_pread(f, file, hoff, t->data, c->table_bytes);
	t->loading = false;
	if (ret < 0)
		table_free(c, t);
	else
		list_append(&c->clean, &t->link);
	fiber_queue_wake_all(&c->loaded);
	return ret;
}

int cache_add_fresh(struct table_cache *c, u32 index, u64 hoff, bool blank, struct table **out)
{
	int ret = table_new(c, index, hoff, out);

	if (ret < 0)
		return ret;
	(*out)->fresh = true;
	(*out)->blank = blank;
	cache_mark_dirty(c, *out, 0, c->table_bytes);
	return 0;
}

void cache_drop(struct table_cache *c, struct table *t)
{
	assert(!t->loading && !t->committing);
	if (table_is_dirty(t))
		c->dirty_count--;
	table_free(c, t);
}

void cache_mark_dirty(struct table_cache *c, struct table *t, u32 lo, u32 hi)
{
	bool was_dirty = table_is_dirty(t);

	assert(lo < hi && hi <= c->table_bytes && !t->loading);
	t->dirty_lo = was_dirty ? MIN(t->dirty_lo, lo) : lo;
	t->dirty_hi = was_dirty ? MAX(t->dirty_hi, hi) : hi;
	if (was_dirty || t->committing)
		return;
	c->dirty_count++;
	list_del(&t->link);
	list_append(&c->dirty, &t->link);
}

void cache_commit_begin(struct table_cache *c, struct table *t, struct list *to)
{
	assert(table_is_dirty(t) && !t->committing);
	t->committing = true;
	t->dirty_lo = t->dirty_hi = 0;
	list_del(&t->link);
	list_append(to, &t->link);
}

void cache_commit_end(struct table_cache *c, struct table *t)
{
	assert(t->committing);
	t->committing = false;
	list_del(&t->link);
	if (table_is_dirty(t)) {
		list_append(&c->dirty, &t->link);
		return;
	}
	list_append(&c->clean, &t->link);
	c->dirty_count--;
}
