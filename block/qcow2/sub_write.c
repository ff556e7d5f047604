/* Writes that allocate, with extended L2 entries: what is copied is the rest of the
 * touched subclusters, not of the clusters; see subcluster.h and write.c.
 *
 * A cluster that is ours alone (I4) but lacks subclusters is filled where it is.
 * Another one gets a fresh place, and takes along what its old place holds: then
 * everything between the first and the last such subcluster is written, in one
 * request.  Thread: the image's loop. */
#include "block/qcow2/subcluster.h"

#include "base/io.h"
#include "block/group.h"

#include <errno.h>

struct sub_cow {
	struct qcow2 *q;
	u64 goff, bytes; /* what the guest writes */
	u64 start, end;	 /* the subclusters that are allocated: copied or written */
	u32 l1_index, first;
	u64 n;		/* clusters */
	u64 hoff;	/* of the first one, new or kept */
	bool keep;	/* where they are */
	bool head_zero; /* the old content before goff and behind the end is zeros */
	bool tail_zero;
	bool zeroed; /* the new clusters are known to read as zeros */
};

static u64 sub_floor(const struct qcow2 *q, u64 goff)
{
	return align_down(goff, 1u << q->sub_bits);
}

static u64 sub_ceil(const struct qcow2 *q, u64 goff)
{
	return align_up(goff, 1u << q->sub_bits);
}

static u32 sub_of(const struct qcow2 *q, u64 goff)
{
	return (u32)(goff & (q->cluster_bytes - 1)) >> q->sub_bits;
}

static u32 index_of(const struct qcow2 *q, u64 goff)
{
	return (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);
}

/* --- the plan; nothing in here suspends but to report corruption --- */

static bool is_ours(const struct qcow2 *q, u64 entry)
{
	return !(entry & ENTRY_COMPRESSED) && entry & ENTRY_COPIED && l2_is_placed(q, entry);
}

static int judge_entry(struct fiber *f, struct qcow2 *q, const struct table *t, u32 i)
{
	u64 entry = l2_entry(t, i);

	if (!sub_is_sound(q, entry, l2_bitmap(t, i)))
		return sub_invalid(f, q, t, i);
	if (!(entry & ENTRY_COMPRESSED) && !is_aligned(entry & ENTRY_HOFF, q->cluster_bytes))
		return qcow2_corrupt(f, q, "Cluster allocation offset %#llx unaligned",
				     (unsigned long long)(entry & ENTRY_HOFF));
	return 0;
}

/* Subclusters of our own clusters, up to one that has data. */
static int plan_kept(struct fiber *f, struct sub_cow *c, const struct table *t)
{
	struct qcow2 *q = c->q;
	u64 at = c->start, end = sub_ceil(q, c->goff + c->bytes), first = l2_entry(t, c->first);
	int ret = 0;

	c->keep = true;
	c->hoff = first & ENTRY_HOFF;
	while (at < end && ret == 0) {
		u32 i = index_of(q, at), sub = sub_of(q, at), run;
		u64 entry = l2_entry(t, i), k = i - c->first;

		if (k)
			ret = judge_entry(f, q, t, i);
		if (ret < 0 || entry != first + (k << q->cluster_bits) ||
		    sub_kind(entry, l2_bitmap(t, i), sub) == EXTENT_DATA)
			break;
		run = sub_run(entry, l2_bitmap(t, i), sub);
		at = MIN(at + ((u64)run << q->sub_bits), end);
		c->n = k + 1;
	}
	c->end = at;
	if (c->n)
		c->bytes = MIN(c->bytes, at - c->goff);
	return ret;
}

/* Clusters that are not ours, with what they hold before goff and behind the end. */
static int plan_moved(struct fiber *f, struct sub_cow *c, const struct table *t)
{
	struct qcow2 *q = c->q;
	u64 gstart = cluster_floor(q, c->goff), most, last, used;
	int ret = 0;

	most = clusters_of(q, c->goff + c->bytes - gstart);
	while (c->n < most) {
		u32 i = c->first + (u32)c->n;

		ret = judge_entry(f, q, t, i);
		if (ret < 0 || is_ours(q, l2_entry(t, i)))
			break;
		c->n++;
	}
	if (ret < 0)
		return ret;
	c->bytes = MIN(c->bytes, gstart + (c->n << q->cluster_bits) - c->goff);
	last = gstart + ((c->n - 1) << q->cluster_bits);
	c->end = sub_ceil(q, c->goff + c->bytes);
	used = l2_entry(t, c->first) & ENTRY_COMPRESSED ? 1 : (u32)l2_bitmap(t, c->first);
	if (used)
		c->start = MIN(c->start, gstart + ((u64)__builtin_ctz((u32)used) << q->sub_bits));
	used = (u32)l2_bitmap(t, index_of(q, last));
	if (l2_entry(t, index_of(q, last)) & ENTRY_COMPRESSED)
		used = (u64)1 << (SUBCLUSTERS - 1);
	if (used)
		c->end = MAX(c->end, last + ((u64)(SUBCLUSTERS - (u32)__builtin_clz((u32)used))
					     << q->sub_bits));
	return 0;
}

/* Is [from, to), within one cluster, known to read as zeros? */
static bool is_zero(const struct qcow2 *q, const struct table *t, u64 from, u64 to)
{
	u32 i = index_of(q, from);
	u64 entry = l2_entry(t, i), bitmap = l2_bitmap(t, i);

	for (u64 at = from; at < to; at = sub_floor(q, at) + (1u << q->sub_bits)) {
		enum extent_kind kind = sub_kind(entry, bitmap, sub_of(q, at));

		if (kind == EXTENT_ZERO)
			continue;
		if (kind != EXTENT_HOLE || (q->img.backing && at < q->img.backing->bytes))
			return false;
	}
	return true;
}

/* Sets c->n, 0 if the first subcluster may be written in place. */
static int plan(struct fiber *f, struct sub_cow *c, const struct table *t)
{
	struct qcow2 *q = c->q;
	u64 stop;
	int ret = judge_entry(f, q, t, c->first);

	if (ret < 0)
		return ret;
	c->n = 0;
	c->start = sub_floor(q, c->goff);
	if (is_ours(q, l2_entry(t, c->first)))
		ret = plan_kept(f, c, t);
	else
		ret = plan_moved(f, c, t);
	if (ret < 0 || !c->n)
		return ret;
	stop = c->goff + c->bytes;
	c->head_zero = is_zero(q, t, c->start, c->goff);
	c->tail_zero = is_zero(q, t, stop, c->end);
	return 0;
}

/* --- the write --- */

static int allocate(struct fiber *f, struct sub_cow *c)
{
	struct qcow2 *q = c->q;
	u64 gstart = cluster_floor(q, c->goff);
	struct alloc a;
	int ret;

	if (c->keep)
		return q->data_external ? 0 : overlap_check(f, q, c->hoff, c->n << q->cluster_bits);
	if (q->data_external) {
		c->hoff = gstart;
		return 0;
	}
	ret = cluster_alloc(f, q, c->n, &a);
	if (ret < 0)
		return ret;
	c->hoff = a.hoff;
	c->zeroed = a.zeroed && !q->crypt.method; /* zeros decrypt to something else */
	if (a.clusters < c->n) {		  /* written to the end of the last one: no tail */
		c->n = a.clusters;
		c->end = gstart + (c->n << q->cluster_bits);
		c->bytes = c->end - c->goff;
	}
	return 0;
}

/* Old content around the new data, in one write. */
static int write_merged(struct fiber *f, const struct sub_cow *c, const struct image_transfer *data,
			u64 head, u64 tail)
{
	struct qcow2 *q = c->q;
	AUTO_FREE struct iovec *iov = try_alloc((data->n + 2) * sizeof(*iov));
	AUTO_FREE u8 *rest = try_alloc_aligned(head + tail, 4096);
	struct iovec before = {rest, head}, behind = {rest + head, tail};
	u64 at = c->goff - head;
	unsigned n = 0;
	int ret = 0;

	if (!iov || !rest)
		return -ENOMEM;
	/* The guest's view of it: the entries have not changed yet. */
	if (head && !c->head_zero)
		ret = qcow2_read(f, &q->img, at, &before, 1);
	if (ret == 0 && tail && !c->tail_zero)
		ret = qcow2_read(f, &q->img, c->goff + c->bytes, &behind, 1);
	if (ret < 0)
		return ret;
	if (head)
		iov[n++] = before;
	n += iov_slice(iov + n, data->iov, data->n, data->skip, c->bytes);
	if (tail)
		iov[n++] = behind;
	if (q->crypt.method)
		return qcow2_crypt_write(f, q, at, c->hoff + (at - cluster_floor(q, c->goff)), iov,
					 n);
	return data_write(f, &q->img, c->hoff + (at - cluster_floor(q, c->goff)), iov, n);
}

static int fill(struct fiber *f, const struct sub_cow *c, const struct image_transfer *data)
{
	struct qcow2 *q = c->q;
	u64 head = c->goff - c->start, tail = c->end - c->goff - c->bytes;
	struct image_transfer t = *data;

	if (c->zeroed && c->head_zero)
		head = 0;
	if (c->zeroed && c->tail_zero)
		tail = 0;
	if (head || tail)
		return write_merged(f, c, data, head, tail);
	if (c->zeroed && c->bytes < c->n << q->cluster_bits)
		cluster_reserve(q, c->hoff);
	t.fn = data_write;
	t.img = &q->img;
	t.offset = c->hoff + (c->goff - cluster_floor(q, c->goff));
	t.bytes = c->bytes;
	if (q->crypt.method)
		qcow2_crypt_transfer(&q->crypt, c->goff, &t);
	return image_transfer(f, &t);
}

static void link_clusters(const struct sub_cow *c, struct table *t)
{
	struct qcow2 *q = c->q;
	u64 gstart = cluster_floor(q, c->goff);

	for (u64 k = 0; k < c->n; k++) {
		u32 i = c->first + (u32)k;
		u64 from = gstart + (k << q->cluster_bits), to = from + q->cluster_bytes;
		u64 old = l2_entry(t, i), bitmap = l2_bitmap(t, i);
		u64 hoff = c->hoff + (k << q->cluster_bits);
		u64 mask = sub_mask((u32)((MAX(from, c->start) - from) >> q->sub_bits),
				    (u32)((MIN(to, c->end) - from) >> q->sub_bits));

		assert(c->keep || !((u32)bitmap & ~mask));
		bitmap = (bitmap & ~(mask << 32)) | mask;
		l2_set_extended(q, t, i, hoff | ENTRY_COPIED, bitmap);
		if (!c->keep)
			entry_free(q, old);
	}
}

static int run(struct fiber *f, struct sub_cow *c, const struct image_transfer *data, u64 *done)
{
	struct qcow2 *q = c->q;
	struct table *t;
	int ret = l2_get_writable(f, q, c->l1_index, &t);

	if (ret == 0)
		ret = plan(f, c, t);
	if (ret < 0 || !c->n)
		return ret;
	ret = allocate(f, c);
	if (ret < 0)
		return ret;
	ret = fill(f, c, data);
	if (ret == 0)
		ret = l2_get_writable(f, q, c->l1_index, &t);
	if (ret == 0 && q->corrupt)
		ret = -EIO;
	if (ret == 0) {
		link_clusters(c, t);
		*done = c->bytes;
	} else if (!c->keep && !q->data_external) {
		cluster_free(q, c->hoff, c->n); /* nothing points at it yet */
	}
	return ret;
}

int sub_write_alloc(struct fiber *f, struct qcow2 *q, const struct image_transfer *data, u64 *done)
{
	u64 goff = data->offset, span = l2_span(q), start = cluster_floor(q, goff);
	struct sub_cow c = {
		.q = q,
		.goff = goff,
		.bytes = MIN(data->bytes, span - (goff & (span - 1))),
		.l1_index = (u32)(goff >> (q->cluster_bits + q->l2_bits)),
		.first = index_of(q, goff),
	};
	struct range_lock lock;
	int ret;

	*done = 0;
	range_lock(f, &q->cluster_locks, &lock, start, cluster_ceil(q, goff + c.bytes) - start,
		   true);
	ret = run(f, &c, data, done);
	range_unlock(&q->cluster_locks, &lock);
	return ret;
}
