/* Bitmaps while an image is in use: they follow what the guest writes.
 *
 * Before the first write of a session the automatic bitmaps are marked in use in
 * the file, durably: from then on their bits there are stale, and after a crash
 * they are known to be.  What is written is entered in one map in memory, at the
 * finest granularity of them all; at close it is added to each of them and the
 * marks go away, in one change (bitmap_store.c).  If nothing was written, only the
 * marks go away, in place: a flag lies within one sector, and each bitmap is right
 * with or without it.  If the map could not be kept (no memory), or could not be
 * stored, the marks stay.
 *
 * Disabled bitmaps are not touched by writes and survive a crash.  A program that
 * knows nothing of bitmaps clears autoclear bit 0: then none counts any more.
 * Thread: the image's loop. */
#include "block/qcow2/bitmap_set.h"

#include "base/log.h"

#include <errno.h>

/* --- the overlap set --- */

static int each_directory_cluster(struct qcow2 *q, bool enter)
{
	const struct bitmap_set *s = q->bitmap_set;
	u64 first, n;
	int ret = 0;

	if (!s || !s->directory_hoff)
		return 0;
	first = s->directory_hoff >> q->cluster_bits;
	n = clusters_of(q, s->directory_bytes);
	for (u64 i = 0; i < n && ret == 0; i++)
		if (enter)
			ret = overlap_add(&q->metadata, first + i, OVERLAP_BITMAPS, NULL);
		else if (overlap_find(&q->metadata, first + i) == OVERLAP_BITMAPS)
			overlap_remove(&q->metadata, first + i);
	return ret;
}

int bitmaps_enter(struct qcow2 *q)
{
	return each_directory_cluster(q, true);
}

void bitmaps_leave(struct qcow2 *q)
{
	(void)each_directory_cluster(q, false);
}

/* --- open --- */

static void warn_stale(const struct qcow2 *q)
{
	log_warn(
		"%s\nSome clusters may be leaked, run 'qemu-img check -r' on the image file to "
		"fix.",
		q->version < 3
			? "This qcow2 v2 image contains bitmaps, but they may have been modified "
			  "by a program without persistent bitmap support; so now they must all be "
			  "considered inconsistent"
			: "a program lacking bitmap support modified this file, so all bitmaps are "
			  "now considered inconsistent");
}

int bitmaps_open(struct fiber *f, struct qcow2 *q, struct error *err)
{
	int ret;

	if (!q->has_bitmaps)
		return 0;
	if (q->version < 3 || !(be64_get(q->head.autoclear) & AUTOCLEAR_BITMAPS)) {
		warn_stale(q);
		q->has_bitmaps = false;
		q->bitmaps = (struct disk_bitmaps){0};
		return 0;
	}
	ret = bitmap_set_load(f, q, &q->bitmap_set, err);
	if (ret < 0)
		return ret;
	if (bitmaps_enter(q) < 0) {
		bitmap_set_free(q->bitmap_set);
		q->bitmap_set = NULL;
		return err_set(err, -EINVAL, "bitmaps_ext: invalid bitmap directory offset");
	}
	return 0;
}

void bitmaps_fini(struct qcow2 *q)
{
	bitmap_set_free(q->bitmap_set);
	q->bitmap_set = NULL;
	dirty_map_free(q->tracking);
	q->tracking = NULL;
}

/* --- following writes --- */

int bitmaps_track(struct qcow2 *q, const struct bitmap_set *s, u64 bytes)
{
	struct dirty_map *was = q->tracking, *now = NULL;
	u32 finest = BITMAP_MAX_GRANULARITY_BITS + 1;
	u64 at = 0, n;
	int ret;

	for (u32 i = 0; s && i < s->n; i++)
		if (s->v[i].busy)
			finest = MIN(finest, s->v[i].granularity_bits);
	q->tracking = NULL;
	if (finest > BITMAP_MAX_GRANULARITY_BITS) {
		dirty_map_free(was);
		return 0;
	}
	ret = dirty_map_new(&now, bytes, finest);
	for (; ret == 0 && was && dirty_map_next(was, &at, &n); at += n)
		ret = dirty_map_set(now, at, n);
	dirty_map_free(was);
	q->tracking = now;
	return ret;
}

void bitmaps_mark_slow(struct qcow2 *q, u64 goff, u64 bytes)
{
	if (dirty_map_set(q->tracking, goff, bytes) < 0)
		q->bitmap_set->lost = true;
}

static bool has_busy(const struct bitmap_set *s)
{
	for (u32 i = 0; s && i < s->n; i++)
		if (s->v[i].busy)
			return true;
	return false;
}

static void set_busy(struct bitmap_set *s, bool on)
{
	for (u32 i = 0; i < s->n; i++)
		s->v[i].busy =
			on && s->v[i].flags & BITMAP_AUTO && !(s->v[i].flags & BITMAP_IN_USE);
}

/* Is the directory ours alone, and as we would write it (I4)? */
static int may_write_in_place(struct fiber *f, struct qcow2 *q)
{
	const struct bitmap_set *s = q->bitmap_set;
	u64 first = s->directory_hoff >> q->cluster_bits;
	u64 n = clusters_of(q, s->directory_bytes);

	if (bitmap_directory_bytes(s) != s->directory_bytes)
		return 0;
	for (u64 k = first; k < first + n; k++) {
		struct table *t;
		int ret = refblock_get(f, q, k >> q->refblock_bits, &t);

		if (ret < 0)
			return ret;
		if (!t || refcount_load(q, t->data, (u32)(k & (q->refblock_entries - 1))) != 1)
			return 0;
	}
	return 1;
}

/* Write the flags into the directory that is there, or write it all anew. */
static int write_marks(struct fiber *f, struct qcow2 *q, bool last)
{
	u64 bytes = q->bitmap_set->directory_bytes;
	AUTO_FREE u8 *raw = try_alloc(bytes);
	struct bitmap_change c;
	int ret = raw ? may_write_in_place(f, q) : -ENOMEM;

	if (ret < 0)
		return ret;
	if (!ret) {
		ret = bitmap_change_begin(f, q, &c);
		return bitmap_change_end(f, &c, last, ret);
	}
	bitmap_directory_fill(q->bitmap_set, raw);
	ret = qcow2_pwrite(f, q, q->bitmap_set->directory_hoff, raw, bytes);
	return ret == 0 ? file_sync(f, q) : ret;
}

int bitmaps_begin(struct fiber *f, struct qcow2 *q)
{
	struct bitmap_set *s = q->bitmap_set;
	int ret;

	if (!s)
		return 0;
	set_busy(s, true);
	if (!has_busy(s))
		return 0;
	/* Nobody may write yet: what is written now would not be followed. */
	q->beginning = true;
	ret = write_marks(f, q, false);
	q->beginning = false;
	if (ret == 0 && bitmaps_track(q, q->bitmap_set, q->img.bytes) < 0)
		q->bitmap_set->lost = true;
	if (ret < 0)
		set_busy(q->bitmap_set, false);
	return ret;
}

int bitmaps_end(struct fiber *f, struct qcow2 *q)
{
	struct bitmap_change c;
	int ret;

	if (!has_busy(q->bitmap_set))
		return 0;
	if (!q->bitmap_set->lost && q->tracking && dirty_map_is_empty(q->tracking)) {
		set_busy(q->bitmap_set, false);
		return write_marks(f, q, true);
	}
	if (q->bitmap_set->lost) {
		log_warn("%s: what was written could not be kept: bitmaps stay marked in use",
			 q->img.name);
		return 0;
	}
	ret = bitmap_change_begin(f, q, &c);
	return bitmap_change_end(f, &c, true, ret);
}

/* --- another size --- */

int bitmaps_may_resize(const struct qcow2 *q, struct error *err)
{
	struct bitmap *b;

	for (u32 i = 0; q->bitmap_set && i < q->bitmap_set->n; i++) {
		int ret = bitmap_find_usable(q->bitmap_set, q->bitmap_set->v[i].name, &b, err);

		if (ret < 0)
			return ret;
	}
	return 0;
}

int bitmaps_resize(struct fiber *f, struct qcow2 *q, u64 bytes)
{
	struct bitmap_change c;
	bool any = false;
	int ret;

	for (u32 i = 0; q->bitmap_set && i < q->bitmap_set->n; i++)
		any = true;
	if (!any)
		return 0;
	ret = bitmap_change_begin(f, q, &c);
	c.bytes = bytes;
	for (u32 i = 0; i < c.set->n && ret == 0; i++)
		ret = bitmap_table_resize(f, &c, &c.set->v[i]);
	ret = bitmap_change_end(f, &c, false, ret);
	if (ret == 0 && q->tracking && bitmaps_track(q, q->bitmap_set, bytes) < 0)
		q->bitmap_set->lost = true;
	return ret;
}
