/* Changing what the file holds of bitmaps, all at once.
 *
 * Nothing that the header can reach is written in place.  A change works on a copy
 * of the set in memory; changed clusters of bits, their tables and the directory
 * go to fresh clusters.  When these and their refcounts are durable (a commit with
 * refcounts: I1, I3), the bitmaps extension is switched by a header update, which
 * a power cut leaves done or undone (header_update.c).  Only then the old clusters
 * are freed, and reused as all freed ones are (I2).  So at any moment the file has
 * the old bitmaps or the new ones; a cut in between leaks clusters.
 *
 * Whether bits may be relied on is another matter, see bitmap_session.c.
 * Thread: the image's loop. */
#include "block/qcow2/bitmap_set.h"
#include "block/qcow2/header_update.h"

#include <errno.h>

static int runs_add(struct host_runs *r, u64 hoff, u64 clusters)
{
	if (r->n == r->room) {
		size_t room = MAX(r->room * 2, (size_t)16);
		struct host_run *v = try_alloc(room * sizeof(*v));

		if (!v)
			return -ENOMEM;
		if (r->n)
			memcpy(v, r->v, r->n * sizeof(*v));
		free(r->v);
		r->v = v;
		r->room = room;
	}
	r->v[r->n++] = (struct host_run){hoff, clusters};
	return 0;
}

/* Claim n clusters in a row for this change. */
static int alloc_fresh(struct fiber *f, struct bitmap_change *c, u64 n, u64 *hoff)
{
	int ret = cluster_alloc_run(f, c->q, n, hoff);

	if (ret < 0)
		return ret;
	ret = runs_add(&c->fresh, *hoff, n);
	if (ret < 0)
		cluster_free(c->q, *hoff, n);
	return ret;
}

static int write_fresh(struct fiber *f, struct bitmap_change *c, void *data, u64 bytes, u64 *hoff)
{
	int ret = alloc_fresh(f, c, clusters_of(c->q, bytes), hoff);

	return ret < 0 ? ret : qcow2_pwrite(f, c->q, *hoff, data, cluster_ceil(c->q, bytes));
}

/* --- tables --- */

/* Write the table (its first n entries) anew. */
static int table_write(struct fiber *f, struct bitmap_change *c, struct bitmap *b, const u64 *table,
		       u64 n)
{
	u64 bytes = cluster_ceil(c->q, n * 8), hoff = 0;
	AUTO_FREE u8 *raw = try_alloc_aligned(bytes, MIN(c->q->cluster_bytes, 4096u));
	int ret = raw ? 0 : -ENOMEM;

	for (u64 i = 0; i < n && ret == 0; i++)
		store_be64(raw + i * 8, table[i]);
	if (ret == 0)
		ret = write_fresh(f, c, raw, n * 8, &hoff);
	if (ret == 0 && b->table_hoff)
		ret = runs_add(&c->old, b->table_hoff, clusters_of(c->q, b->table_entries * 8ull));
	if (ret < 0)
		return ret;
	b->table_hoff = hoff;
	b->table_entries = (u32)n;
	return 0;
}

int bitmap_table_empty(struct fiber *f, struct bitmap_change *c, struct bitmap *b)
{
	u64 n = bitmap_entries(c->q, c->bytes, b->granularity_bits);
	AUTO_FREE u64 *table = try_alloc(n * 8);

	return table ? table_write(f, c, b, table, n) : -ENOMEM;
}

int bitmap_table_drop(struct fiber *f, struct bitmap_change *c, struct bitmap *b)
{
	AUTO_FREE u64 *table = NULL;
	int ret = bitmap_table_read(f, c->q, b, 0, &table);

	if (ret == -EINVAL) /* nonsense: at worst a leak */
		ret = 0;
	for (u32 i = 0; table && i < b->table_entries && ret == 0; i++)
		if (bitmap_entry_hoff(table[i]))
			ret = runs_add(&c->old, bitmap_entry_hoff(table[i]), 1);
	if (ret == 0 && b->table_hoff)
		ret = runs_add(&c->old, b->table_hoff, clusters_of(c->q, b->table_entries * 8ull));
	b->table_hoff = 0;
	return ret;
}

/* --- bits --- */

static bool is_all(const u8 *bits, u32 bytes, u8 value)
{
	return bits[0] == value && !memcmp(bits, bits + 1, bytes - 1);
}

/* Let the entry stand for these bits. */
static int put_bits(struct fiber *f, struct bitmap_change *c, u64 *entry, u8 *bits)
{
	u32 bytes = c->q->cluster_bytes;
	u64 hoff = 0;
	int ret = 0;

	if (bitmap_entry_hoff(*entry))
		ret = runs_add(&c->old, bitmap_entry_hoff(*entry), 1);
	if (is_all(bits, bytes, 0xff))
		hoff = BITMAP_ENTRY_ONES;
	else if (ret == 0 && !is_all(bits, bytes, 0))
		ret = write_fresh(f, c, bits, bytes, &hoff);
	if (ret == 0)
		*entry = hoff;
	return ret;
}

static int get_bits(struct fiber *f, struct bitmap_change *c, u64 entry, u8 *bits)
{
	u32 bytes = c->q->cluster_bytes;

	memset(bits, entry == BITMAP_ENTRY_ONES ? 0xff : 0, bytes);
	if (!bitmap_entry_hoff(entry))
		return 0;
	return qcow2_pread(f, c->q->img.below, bitmap_entry_hoff(entry), bits, bytes);
}

/* Set bits [from, to); true if one was not set. */
static bool set_bits(u8 *bits, u64 from, u64 to)
{
	bool changed = false;

	while (from < to) {
		if (from % 8 == 0 && to - from >= 8) {
			changed |= bits[from / 8] != 0xff;
			bits[from / 8] = 0xff;
			from += 8;
			continue;
		}
		changed |= !(bits[from / 8] >> (from % 8) & 1);
		bits[from / 8] |= (u8)(1u << (from % 8));
		from++;
	}
	return changed;
}

/* Set in the cluster of guest range [goff, end) what the map has there. */
static int fold_cluster(struct fiber *f, struct bitmap_change *c, const struct bitmap *b,
			const struct dirty_map *map, u64 goff, u64 *entry)
{
	u64 end = goff + (((u64)c->q->cluster_bytes * 8) << b->granularity_bits);
	u64 at = goff, bytes;
	AUTO_FREE u8 *bits = NULL;
	bool changed = false;
	int ret = 0;

	if (*entry == BITMAP_ENTRY_ONES)
		return 0;
	while (ret == 0 && dirty_map_next(map, &at, &bytes) && at < end) {
		u64 stop = MIN(at + bytes, end);

		if (!bits) {
			bits = try_alloc_aligned(c->q->cluster_bytes,
						 MIN(c->q->cluster_bytes, 4096u));
			ret = bits ? get_bits(f, c, *entry, bits) : -ENOMEM;
		}
		if (ret == 0)
			changed |= set_bits(bits, (at - goff) >> b->granularity_bits,
					    ((stop - 1 - goff) >> b->granularity_bits) + 1);
		at = stop;
	}
	if (ret < 0)
		return ret;
	return changed ? (ret = put_bits(f, c, entry, bits)) < 0 ? ret : 1 : 0;
}

int bitmap_fold(struct fiber *f, struct bitmap_change *c, struct bitmap *b,
		const struct dirty_map *map)
{
	u64 span = ((u64)c->q->cluster_bytes * 8) << b->granularity_bits, at = 0, bytes;
	AUTO_FREE u64 *table = NULL;
	bool changed = false;
	int ret;

	if (!dirty_map_next(map, &at, &bytes))
		return 0;
	ret = bitmap_table_read(f, c->q, b, 0, &table);
	while (ret >= 0 && dirty_map_next(map, &at, &bytes) && at / span < b->table_entries) {
		u64 i = at / span;

		ret = fold_cluster(f, c, b, map, i * span, &table[i]);
		changed |= ret > 0;
		at = (i + 1) * span;
	}
	if (ret >= 0 && changed)
		ret = table_write(f, c, b, table, b->table_entries);
	return ret < 0 ? ret : 0;
}

/* --- another size --- */

/* Bits of the last cluster that stand for nothing any more. */
static int clear_tail(struct fiber *f, struct bitmap_change *c, const struct bitmap *b, u64 n,
		      u64 *entry)
{
	u64 bits_all = (c->bytes >> b->granularity_bits) +
		       !is_aligned(c->bytes, (u64)1 << b->granularity_bits);
	u64 keep = bits_all - (n - 1) * c->q->cluster_bytes * 8, at = keep;
	AUTO_FREE u8 *bits = NULL;
	int ret;

	if (!*entry || keep >= (u64)c->q->cluster_bytes * 8)
		return 0;
	bits = try_alloc_aligned(c->q->cluster_bytes, MIN(c->q->cluster_bytes, 4096u));
	ret = bits ? get_bits(f, c, *entry, bits) : -ENOMEM;
	if (ret < 0)
		return ret;
	for (; at % 8; at++)
		bits[at / 8] &= (u8) ~(1u << (at % 8));
	memset(bits + at / 8, 0, c->q->cluster_bytes - at / 8);
	return put_bits(f, c, entry, bits);
}

int bitmap_table_resize(struct fiber *f, struct bitmap_change *c, struct bitmap *b)
{
	u64 n = bitmap_entries(c->q, c->bytes, b->granularity_bits);
	AUTO_FREE u64 *table = NULL;
	u64 last;
	int ret;

	if (b->flags & BITMAP_IN_USE)
		return 0;
	if ((u64)n << c->q->cluster_bits > BITMAP_MAX_BYTES)
		return -EFBIG;
	ret = bitmap_table_read(f, c->q, b, n, &table);
	for (u64 i = n; ret == 0 && i < b->table_entries; i++)
		if (bitmap_entry_hoff(table[i]))
			ret = runs_add(&c->old, bitmap_entry_hoff(table[i]), 1);
	last = ret == 0 ? table[n - 1] : 0;
	if (ret == 0)
		ret = clear_tail(f, c, b, n, &table[n - 1]);
	if (ret < 0 || (n == b->table_entries && table[n - 1] == last))
		return ret;
	return table_write(f, c, b, table, n);
}

/* --- the switch --- */

int bitmap_change_begin(struct fiber *f, struct qcow2 *q, struct bitmap_change *c)
{
	int ret = 0;

	*c = (struct bitmap_change){.q = q, .bytes = q->img.bytes};
	c->set = bitmap_set_copy(q->bitmap_set);
	c->taken = q->tracking;
	if (!c->taken)
		return 0;
	q->tracking = NULL;
	ret = bitmaps_track(q, c->set, q->img.bytes);
	for (u32 i = 0; i < c->set->n && ret == 0; i++)
		if (c->set->v[i].busy)
			ret = bitmap_fold(f, c, &c->set->v[i], c->taken);
	return ret;
}

static void free_runs(struct qcow2 *q, const struct host_runs *r)
{
	for (size_t i = 0; i < r->n; i++)
		cluster_free(q, r->v[i].hoff, r->v[i].clusters);
}

static int compare_runs(const void *a, const void *b)
{
	u64 x = ((const struct host_run *)a)->hoff, y = ((const struct host_run *)b)->hoff;

	return x < y ? -1 : x > y;
}

/* What an image claims to be old may be in use elsewhere, or named twice: only
 * what has a refcount is freed, and only once. */
static void free_old(struct fiber *f, struct qcow2 *q, struct host_runs *r)
{
	u64 last = 0;

	if (r->n)
		qsort(r->v, r->n, sizeof(*r->v), compare_runs);
	for (size_t i = 0; i < r->n; i++) {
		u64 first = r->v[i].hoff >> q->cluster_bits;

		for (u64 k = MAX(first, last); k < first + r->v[i].clusters; k++) {
			struct table *t;

			if (k >= QCOW2_MAX_HOFF >> q->cluster_bits ||
			    overlap_find(&q->metadata, k) ||
			    refblock_get(f, q, k >> q->refblock_bits, &t) < 0 || !t ||
			    !refcount_load(q, t->data, (u32)(k & (q->refblock_entries - 1))))
				continue;
			cluster_free(q, k << q->cluster_bits, 1);
		}
		last = MAX(last, first + r->v[i].clusters);
	}
}

/* Put the directory into fresh clusters. */
static int write_directory(struct fiber *f, struct bitmap_change *c)
{
	u64 bytes = bitmap_directory_bytes(c->set), room = cluster_ceil(c->q, bytes), hoff;
	AUTO_FREE u8 *raw = NULL;
	int ret = 0;

	c->set->directory_hoff = c->set->directory_bytes = 0;
	if (!bytes)
		return 0;
	if (bytes > BITMAP_MAX_DIRECTORY_BYTES)
		return -ENOSPC;
	raw = try_alloc_aligned(room, MIN(c->q->cluster_bytes, 4096u));
	if (!raw)
		return -ENOMEM;
	bitmap_directory_fill(c->set, raw);
	ret = write_fresh(f, c, raw, bytes, &hoff);
	if (ret < 0)
		return ret;
	c->set->directory_hoff = hoff;
	c->set->directory_bytes = bytes;
	return 0;
}

static int switch_header(struct fiber *f, struct bitmap_change *c)
{
	struct qcow2 *q = c->q;
	struct disk_bitmaps ext = {.count = be32_of(c->set->n),
				   .directory_bytes = be64_of(c->set->directory_bytes),
				   .directory_hoff = be64_of(c->set->directory_hoff)};
	struct header_ext e = {EXT_BITMAPS, c->set->n ? &ext : NULL, sizeof(ext)};
	u64 set = c->set->n ? AUTOCLEAR_BITMAPS : 0;
	struct header_change change = {
		.exts = &e, .n = 1, .autoclear = {.set = set, .clear = AUTOCLEAR_BITMAPS}};
	int ret = header_update(f, q, &change);

	if (ret == 0)
		q->bitmaps = ext;
	return ret;
}

static void mark_busy(struct bitmap_change *c, bool last)
{
	for (u32 i = 0; i < c->set->n; i++) {
		struct bitmap *b = &c->set->v[i];

		b->busy = (c->set->lost && b->busy) ||
			  (!last && (c->q->writing || c->q->beginning) && b->flags & BITMAP_AUTO &&
			   !(b->flags & BITMAP_IN_USE));
	}
}

/* Memory follows the file. */
static void adopt(struct fiber *f, struct bitmap_change *c)
{
	struct qcow2 *q = c->q;
	struct bitmap_set *was = q->bitmap_set;

	bitmaps_leave(q);
	if (was && was->directory_hoff)
		(void)runs_add(&c->old, was->directory_hoff, clusters_of(q, was->directory_bytes));
	q->bitmap_set = c->set->n ? c->set : NULL;
	if (!c->set->n)
		bitmap_set_free(c->set);
	bitmap_set_free(was);
	(void)bitmaps_enter(q);
	free_old(f, q, &c->old);
}

/* The dirt that was taken goes back to the map. */
static void give_back(struct bitmap_change *c)
{
	struct qcow2 *q = c->q;
	u64 at = 0, bytes;
	int ret = 0;

	if (!c->taken)
		return;
	if (!q->tracking) {
		q->tracking = c->taken;
		return;
	}
	for (; ret == 0 && dirty_map_next(c->taken, &at, &bytes); at += bytes)
		ret = dirty_map_set(q->tracking, at, bytes);
	if (ret < 0 && q->bitmap_set)
		q->bitmap_set->lost = true;
	dirty_map_free(c->taken);
}

int bitmap_change_end(struct fiber *f, struct bitmap_change *c, bool last, int ret)
{
	struct qcow2 *q = c->q;
	bool switched = false;

	if (ret == 0)
		mark_busy(c, last);
	if (ret == 0)
		ret = write_directory(f, c);
	if (ret == 0) {
		q->commit_refcounts = true;
		ret = qcow2_commit(f, q);
	}
	if (ret == 0) {
		switched = true; /* or not, if this fails: both sets of clusters stay */
		ret = switch_header(f, c);
	}
	if (ret == 0) {
		adopt(f, c);
		dirty_map_free(c->taken);
		if ((q->writing || q->beginning) && !last &&
		    bitmaps_track(q, q->bitmap_set, q->img.bytes) < 0)
			q->bitmap_set->lost = true;
	} else {
		if (!switched)
			free_runs(q, &c->fresh);
		give_back(c);
		bitmap_set_free(c->set);
	}
	free(c->fresh.v);
	free(c->old.v);
	return ret;
}
