/* Taking clusters out of the map: zero, discard, and what resize cuts off.
 *
 * Works one L2 table at a time, under the locks that allocating writes take.
 * The clusters are freed when a commit has made the change durable (I2).
 * Thread: the image's loop. */
#include "block/qcow2/data_file.h"
#include "block/qcow2/subcluster.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>

#define ZERO_CHUNK (64 * KiB)
static const u8 zeros[ZERO_CHUNK];

/* What a whole cluster becomes. */
enum drop_mode {
	DROP_ZERO,	/* reads as zeros, host cluster kept if it is ours alone */
	DROP_ZERO_FREE, /* reads as zeros, host cluster freed */
	DROP_HOLE,	/* unallocated */
};

struct drop {
	struct qcow2 *q;
	enum drop_mode mode;
	bool holes_stay; /* nothing is below: what has no host cluster is left alone */
	u64 goff, bytes; /* whole clusters of one L2 table */
};

static bool backing_covers(const struct qcow2 *q, u64 goff)
{
	return q->img.backing && goff < q->img.backing->bytes;
}

/* The extended entry that takes the place of `old`. */
static u64 new_extended(const struct drop *d, u64 old, u64 *bitmap)
{
	struct qcow2 *q = d->q;
	bool placed = !(old & ENTRY_COMPRESSED) && l2_is_placed(q, old);

	if (d->holes_stay && !placed && !(old & ENTRY_COMPRESSED))
		return old;
	if (d->mode == DROP_HOLE) {
		*bitmap = 0;
		return 0;
	}
	*bitmap = SUB_ALL_ZERO;
	return d->mode == DROP_ZERO && placed && old & ENTRY_COPIED ? old : 0;
}

/* The entry that takes the place of `old`; bitmap: if they are extended ones. */
static u64 new_entry(const struct drop *d, u64 old, u64 *bitmap)
{
	struct qcow2 *q = d->q;
	bool packed = l2_kind(q, old) == EXTENT_COMPRESSED;

	if (q->extended)
		return new_extended(d, old, bitmap);
	if (d->mode == DROP_HOLE)
		return 0;
	if (d->holes_stay && !packed && !l2_is_placed(q, old))
		return old;
	if (d->mode == DROP_ZERO && l2_is_placed(q, old) && old & ENTRY_COPIED && !packed)
		return old | ENTRY_ZERO;
	if (q->version < 3)
		return 0; /* the caller saw to it that this reads as zeros */
	return ENTRY_ZERO;
}

/* Refuses what must not be changed; 1 if there is anything to change. */
static int judge(struct fiber *f, const struct drop *d, const struct table *t)
{
	struct qcow2 *q = d->q;
	u32 first = (u32)(d->goff >> q->cluster_bits) & (q->l2_entries - 1);
	bool change = false;

	for (u64 i = 0; i < d->bytes >> q->cluster_bits; i++) {
		u64 old = t ? l2_entry(t, first + (u32)i) : 0, bitmap, now;

		if (l2_kind(q, old) != EXTENT_COMPRESSED &&
		    !is_aligned(old & ENTRY_HOFF, q->cluster_bytes))
			return qcow2_corrupt(f, q, "Cluster allocation offset %#llx unaligned",
					     (unsigned long long)(old & ENTRY_HOFF));
		bitmap = now = t && q->extended ? l2_bitmap(t, first + (u32)i) : 0;
		change |= new_entry(d, old, &now) != old || now != bitmap;
	}
	return change;
}

static void change(const struct drop *d, struct table *t)
{
	struct qcow2 *q = d->q;
	u32 first = (u32)(d->goff >> q->cluster_bits) & (q->l2_entries - 1);

	for (u64 i = 0; i < d->bytes >> q->cluster_bits; i++) {
		u64 old = l2_entry(t, first + (u32)i);
		u64 bitmap = q->extended ? l2_bitmap(t, first + (u32)i) : 0, now = bitmap;
		u64 entry = new_entry(d, old, &now);

		if (entry == old && now == bitmap)
			continue;
		if (q->extended)
			l2_set_extended(q, t, first + (u32)i, entry, now);
		else
			l2_set(q, t, first + (u32)i, entry);
		if (!(entry & ENTRY_HOFF))
			entry_free(q, old);
	}
}

/* The data file first: until the map has changed, either answer is right. */
static int drop_data(struct fiber *f, const struct drop *d, int ret)
{
	int dropped = data_file_drop(f, d->q, d->goff, d->bytes, d->mode != DROP_ZERO);

	return dropped < 0 ? dropped : ret;
}

static int drop_locked(struct fiber *f, const struct drop *d)
{
	struct qcow2 *q = d->q;
	u32 l1_index = (u32)(d->goff >> (q->cluster_bits + q->l2_bits));
	struct table *t;
	int ret = l2_get(f, q, l1_index, &t);

	if (ret < 0)
		return ret;
	if (!t && (d->mode == DROP_HOLE || d->holes_stay))
		return 0; /* quickly over what a giant image never had */
	ret = judge(f, d, t);
	if (ret > 0 && q->data_external)
		ret = drop_data(f, d, ret);
	if (ret <= 0)
		return ret;
	ret = l2_get_writable(f, q, l1_index, &t);
	if (ret < 0)
		return ret;
	if (q->corrupt)
		return -EIO;
	change(d, t);
	return 0;
}

static int drop_table(struct fiber *f, const struct drop *d)
{
	struct range_lock lock;
	int ret = write_begin(f, d->q);

	if (ret < 0)
		return ret;
	range_lock(f, &d->q->cluster_locks, &lock, d->goff, d->bytes, true);
	ret = drop_locked(f, d);
	range_unlock(&d->q->cluster_locks, &lock);
	return ret;
}

static int drop_clusters(struct fiber *f, struct drop d)
{
	u64 goff = d.goff, end = goff + d.bytes, span = l2_span(d.q);
	int ret = 0;

	assert(is_aligned(goff | end, d.q->cluster_bytes));
	while (goff < end && ret == 0) {
		d.goff = goff;
		d.bytes = MIN(end - goff, span - (goff & (span - 1)));
		ret = drop_table(f, &d);
		goff += d.bytes;
	}
	return ret;
}

int clusters_drop(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	return drop_clusters(f, (struct drop){q, DROP_HOLE, .goff = goff, .bytes = bytes});
}

/* --- zero --- */

/* Write zeros over part of a cluster, unless it reads as zeros. */
static int zero_bytes(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	struct extent e;
	int ret = 0;

	for (; bytes && ret == 0; goff += e.bytes, bytes -= e.bytes) {
		ret = l2_map(f, q, goff, bytes, &e);
		if (ret < 0 || e.kind == EXTENT_ZERO ||
		    (e.kind == EXTENT_HOLE && !backing_covers(q, goff)))
			continue;
		e.bytes = MIN(e.bytes, ZERO_CHUNK);
		ret = qcow2_write(f, &q->img, goff,
				  &(struct iovec){(void *)(uintptr_t)zeros, e.bytes}, 1);
	}
	return ret;
}

/* Whole subclusters can be zero without being written; the ends are written. */
static int zero_subclusters(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	u64 unit = (u64)1 << q->sub_bits, end = goff + bytes;
	u64 from = align_up(goff, unit), to = align_down(end, unit);
	int ret;

	if (end == q->img.bytes) /* the guest sees no more of the last one */
		end = to = align_up(end, unit);

	if (from >= to)
		return zero_bytes(f, q, goff, bytes);
	ret = zero_bytes(f, q, goff, from - goff);
	if (ret == 0)
		ret = data_file_drop(f, q, from, to - from, false);
	if (ret == 0)
		ret = sub_zero(f, q, from, to - from);
	if (ret > 0) /* compressed */
		ret = zero_bytes(f, q, from, to - from);
	return ret == 0 ? zero_bytes(f, q, to, end - to) : ret;
}

/* Part of one cluster. */
static int zero_part(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	if (!bytes)
		return 0;
	return q->extended ? zero_subclusters(f, q, goff, bytes) : zero_bytes(f, q, goff, bytes);
}

/* Whole clusters in a range: the last one of the disk counts as whole. */
static void whole_clusters(const struct qcow2 *q, u64 goff, u64 bytes, u64 *start, u64 *end)
{
	bool to_end = goff + bytes == q->img.bytes;

	*start = cluster_ceil(q, goff);
	*end = to_end ? cluster_ceil(q, goff + bytes) : cluster_floor(q, goff + bytes);
	if (*end < *start)
		*end = *start;
}

int qcow2_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	struct qcow2 *q = to_qcow2(img);
	enum drop_mode mode = flags & ZERO_MAY_UNMAP ? DROP_ZERO_FREE : DROP_ZERO;
	u64 start, end, stop = goff + bytes;
	int ret;

	whole_clusters(q, goff, bytes, &start, &end);
	if (q->version < 3) {
		/* Without zero clusters only a hole reads as zeros, and only
		 * where nothing is below it. */
		if (img->backing || (end > start && !(flags & ZERO_MAY_UNMAP)))
			return -ENOTSUP;
		mode = DROP_HOLE;
	}
	ret = write_begin(f, q);
	if (ret < 0)
		return ret;
	bitmaps_mark(q, goff, bytes);
	if (start == end) { /* within one cluster, or astride two */
		u64 middle = MIN(start, stop);

		ret = zero_part(f, q, goff, MAX(middle, goff) - goff);
		if (ret == 0)
			ret = zero_part(f, q, middle, stop - middle);
	} else {
		ret = zero_part(f, q, goff, start - goff);
		if (ret == 0)
			ret = drop_clusters(f, (struct drop){q, mode, .goff = start,
							     .bytes = end - start});
		if (ret == 0 && stop > end)
			ret = zero_part(f, q, end, stop - end);
	}
	return ret;
}

int zero_or_write(struct fiber *f, struct qcow2 *q, u64 goff, u64 bytes)
{
	int ret = qcow2_zero(f, &q->img, goff, bytes, 0);

	if (ret != -ENOTSUP)
		return ret;
	ret = 0;
	for (u64 end = goff + bytes; goff < end && ret == 0;) {
		u64 part = MIN(end - goff, q->cluster_bytes - (goff & (q->cluster_bytes - 1)));

		ret = zero_part(f, q, goff, part);
		goff += part;
	}
	return ret;
}

int qcow2_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	struct qcow2 *q = to_qcow2(img);
	struct drop d = {q, DROP_ZERO_FREE, .holes_stay = !img->backing};
	u64 end;
	int ret = write_begin(f, q);

	if (ret < 0)
		return ret;
	bitmaps_mark(q, goff, bytes);
	whole_clusters(q, goff, bytes, &d.goff, &end);
	if (q->version < 3) {
		if (img->backing)
			return 0; /* a hole would show the backing image's data */
		d.mode = DROP_HOLE;
	}
	d.bytes = end - d.goff;
	return d.bytes ? drop_clusters(f, d) : 0;
}
