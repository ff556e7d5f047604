/* Writing: in place where the cluster is ours alone (I4), else to a fresh one.
 *
 * Writes in place take no lock.  Those that allocate hold their guest clusters
 * in q->cluster_locks, write data and the copied rest of the clusters in one
 * request, and only then link them, in memory (I3): a second write to the same
 * cluster waits, and finds it in place.  Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include "base/io.h"
#include "base/log.h"
#include "block/aligned.h"
#include "block/group.h"
#include "block/qcow2/subcluster.h"

#include <errno.h>

#define MAX_FREED_RUNS 16384

int write_begin(struct fiber *f, struct qcow2 *q)
{
	int ret = 0;

	if (unlikely(q->corrupt))
		return -EIO;
	if (unlikely(!q->writing))
		ret = header_begin_writing(f, q);
	if (ret == 0 && unlikely(cache_is_full(&q->l2) || cache_is_full(&q->blocks) ||
				 q->freed_runs - q->durable_runs > MAX_FREED_RUNS)) {
		q->commit_refcounts |= cache_is_full(&q->blocks);
		ret = qcow2_commit(f, q);
	}
	return ret;
}

int data_write(struct fiber *f, struct image *img, u64 hoff, const struct iovec *iov, unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = image_write(f, q->data, hoff, iov, n);

	q->written++;
	return ret;
}

/* No metadata lies in a file of data. */
static int check_place(struct fiber *f, struct qcow2 *q, u64 hoff, u64 bytes)
{
	return likely(!q->data_external) ? overlap_check(f, q, hoff, bytes) : 0;
}

/* --- allocating writes --- */

/* A run of guest clusters in one L2 table that get fresh host clusters. */
struct cow {
	struct qcow2 *q;
	u64 goff, bytes;	 /* what the guest writes, whole clusters but for the ends */
	u32 l1_index, first;	 /* first entry */
	u64 n;			 /* clusters */
	u64 old_first, old_last; /* their entries before */
	u64 hoff;		 /* of the first new cluster */
	bool zeroed;		 /* the new clusters are known to read as zeros */
	bool keep;		 /* a zero cluster that has its host cluster already */
};

static u64 head_bytes(const struct cow *c)
{
	return c->goff & (c->q->cluster_bytes - 1);
}

static u64 tail_bytes(const struct cow *c)
{
	return (c->n << c->q->cluster_bits) - head_bytes(c) - c->bytes;
}

/* Does this part of a cluster read as zeros, as far as the map can tell? */
static bool old_is_zero(const struct qcow2 *q, u64 entry, u64 goff)
{
	enum extent_kind kind = l2_kind(q, entry);

	return kind == EXTENT_ZERO ||
	       (kind == EXTENT_HOLE && (!q->img.backing || goff >= q->img.backing->bytes));
}

/* The rest of a cluster as it was, from goff on; buf comes zeroed. */
static int read_old(struct fiber *f, struct qcow2 *q, u64 entry, u64 goff, struct iovec *buf)
{
	u64 in_cluster = goff & (q->cluster_bytes - 1);

	if (!buf->iov_len || old_is_zero(q, entry, goff))
		return 0;
	if (l2_kind(q, entry) == EXTENT_HOLE)
		return image_read_backing(f, &q->img, goff, buf, 1);
	if (l2_kind(q, entry) == EXTENT_COMPRESSED)
		return compressed_read(f, &q->img, goff, buf, 1);
	assert(l2_kind(q, entry) == EXTENT_DATA);
	if (q->crypt.method)
		return qcow2_crypt_read(f, q, goff, (entry & ENTRY_HOFF) + in_cluster, buf);
	return qcow2_pread(f, q->data, (entry & ENTRY_HOFF) + in_cluster, buf->iov_base,
			   buf->iov_len);
}

/* Old head, new data, old tail in one write. */
static int write_merged(struct fiber *f, const struct cow *c, const struct image_transfer *data,
			u64 head, u64 tail)
{
	struct qcow2 *q = c->q;
	AUTO_FREE struct iovec *iov = try_alloc((data->n + 2) * sizeof(*iov));
	AUTO_FREE u8 *rest = try_alloc_aligned(head + tail, 4096);
	struct iovec old_head = {rest, head}, old_tail = {rest + head, tail};
	unsigned n = 0;
	int ret;

	if (!iov || !rest)
		return -ENOMEM;
	ret = read_old(f, q, c->old_first, c->goff - head, &old_head);
	if (ret == 0)
		ret = read_old(f, q, c->old_last, c->goff + c->bytes, &old_tail);
	if (ret < 0)
		return ret;
	if (head)
		iov[n++] = old_head;
	n += iov_slice(iov + n, data->iov, data->n, data->skip, c->bytes);
	if (tail)
		iov[n++] = old_tail;
	if (q->crypt.method)
		return qcow2_crypt_write(f, q, c->goff - head, c->hoff + head_bytes(c) - head, iov,
					 n);
	return data_write(f, &q->img, c->hoff + head_bytes(c) - head, iov, n);
}

/* Fill the new clusters.  What was zero needs no writing where the file is new. */
static int cow_write(struct fiber *f, const struct cow *c, const struct image_transfer *data)
{
	struct qcow2 *q = c->q;
	u64 head = head_bytes(c), tail = tail_bytes(c);
	bool zeroed = c->zeroed && !q->crypt.method; /* zeros decrypt to something else */
	int ret;

	if (zeroed && old_is_zero(q, c->old_first, c->goff - head))
		head = 0;
	if (zeroed && old_is_zero(q, c->old_last, c->goff + c->bytes))
		tail = 0;
	if (!head && !tail && c->bytes < c->n << q->cluster_bits)
		cluster_reserve(q, c->hoff);
	if (head || tail) {
		ret = write_merged(f, c, data, head, tail);
	} else {
		struct image_transfer t = *data;

		t.fn = data_write;
		t.img = &q->img;
		t.offset = c->hoff + head_bytes(c);
		t.bytes = c->bytes;
		if (q->crypt.method)
			qcow2_crypt_transfer(&q->crypt, c->goff, &t);
		ret = image_transfer(f, &t);
	}
	return ret < 0 ? ret : 0;
}

/* Point the entries at the new clusters and free what they pointed at. */
static void cow_link(const struct cow *c, struct table *t)
{
	struct qcow2 *q = c->q;

	for (u64 i = 0; i < c->n; i++) {
		u64 old = l2_entry(t, c->first + (u32)i);
		u64 hoff = c->hoff + (i << q->cluster_bits);

		l2_set(q, t, c->first + (u32)i, hoff | ENTRY_COPIED);
		if (l2_kind(q, old) == EXTENT_COMPRESSED || (old & ENTRY_HOFF) != hoff)
			entry_free(q, old);
	}
}

static bool needs_new(const struct qcow2 *q, u64 entry)
{
	return l2_kind(q, entry) != EXTENT_DATA || !(entry & ENTRY_COPIED);
}

/* A zero cluster that kept its host cluster takes the data there: until the
 * entry changes, nobody reads it. */
static bool is_kept_zero(const struct qcow2 *q, u64 entry)
{
	return l2_kind(q, entry) == EXTENT_ZERO && entry & ENTRY_COPIED && l2_is_placed(q, entry);
}

/* How many clusters from c->first on need one; sets c->n, 0 if the first may be
 * written in place. */
static int cow_plan(struct fiber *f, struct cow *c, const struct table *t)
{
	struct qcow2 *q = c->q;
	u64 most = clusters_of(q, head_bytes(c) + c->bytes), n = 0;

	c->keep = is_kept_zero(q, l2_entry(t, c->first));
	while (n < most) {
		u64 entry = l2_entry(t, c->first + (u32)n);

		if (l2_kind(q, entry) != EXTENT_COMPRESSED &&
		    !is_aligned(entry & ENTRY_HOFF, q->cluster_bytes))
			return qcow2_corrupt(f, q, "Cluster allocation offset %#llx unaligned",
					     (unsigned long long)(entry & ENTRY_HOFF));
		if (!needs_new(q, entry) || (n && (c->keep || is_kept_zero(q, entry))))
			break;
		c->n = ++n;
	}
	return 0;
}

/* Cut the run to the clusters there are. */
static void cow_cut(struct cow *c, const struct table *t, u64 n)
{
	u64 most = (n << c->q->cluster_bits) - head_bytes(c);

	c->n = n;
	c->bytes = MIN(c->bytes, most);
	c->old_first = l2_entry(t, c->first);
	c->old_last = l2_entry(t, c->first + (u32)n - 1);
}

static int cow_allocate(struct fiber *f, struct cow *c, struct table *t)
{
	struct alloc a;
	int ret;

	/* Before the allocation suspends: the lock keeps the entries as they are,
	 * but not the table in memory. */
	cow_cut(c, t, c->n);
	if (c->keep) {
		c->hoff = c->old_first & ENTRY_HOFF;
		return check_place(f, c->q, c->hoff, c->q->cluster_bytes);
	}
	if (c->q->data_external) {
		c->hoff = cluster_floor(c->q, c->goff);
		return 0;
	}
	ret = cluster_alloc(f, c->q, c->n, &a);
	if (ret < 0)
		return ret;
	c->hoff = a.hoff;
	c->zeroed = a.zeroed;
	if (a.clusters == c->n)
		return 0;
	c->n = a.clusters;
	c->bytes = (c->n << c->q->cluster_bits) - head_bytes(c);
	return 0; /* no tail now: old_last is not needed */
}

/* The locked part; *done is what was written, 0: look again. */
static int cow_run(struct fiber *f, struct cow *c, const struct image_transfer *data, u64 *done)
{
	struct qcow2 *q = c->q;
	struct table *t;
	int ret = l2_get_writable(f, q, c->l1_index, &t);

	if (ret == 0)
		ret = cow_plan(f, c, t);
	if (ret < 0 || !c->n)
		return ret;
	ret = cow_allocate(f, c, t);
	if (ret < 0)
		return ret;
	ret = cow_write(f, c, data);
	if (ret == 0)
		ret = l2_get_writable(f, q, c->l1_index, &t);
	if (ret == 0 && q->corrupt)
		ret = -EIO;
	if (ret == 0) {
		cow_link(c, t);
		*done = c->bytes;
	} else if (!c->keep && !q->data_external) {
		cluster_free(q, c->hoff, c->n); /* nothing points at it yet */
	}
	return ret;
}

/* Write the first clusters of the transfer that cannot be written in place.
 * Suspends. */
static int write_alloc(struct fiber *f, struct qcow2 *q, const struct image_transfer *data,
		       u64 *done)
{
	u64 goff = data->offset, span = l2_span(q);
	struct cow c = {
		.q = q,
		.goff = goff,
		.bytes = MIN(data->bytes, span - (goff & (span - 1))),
		.l1_index = (u32)(goff >> (q->cluster_bits + q->l2_bits)),
		.first = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1),
	};
	u64 start = cluster_floor(q, goff);
	struct range_lock lock;
	int ret;

	if (q->extended)
		return sub_write_alloc(f, q, data, done);
	*done = 0;
	range_lock(f, &q->cluster_locks, &lock, start, cluster_ceil(q, goff + c.bytes) - start,
		   true);
	ret = cow_run(f, &c, data, done);
	range_unlock(&q->cluster_locks, &lock);
	return ret;
}

/* --- the whole request --- */

static int write_in_place(struct fiber *f, struct image *img, u64 hoff, const struct iovec *iov,
			  unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = check_place(f, q, hoff, iov_bytes(iov, n));

	return likely(ret == 0) ? data_write(f, img, hoff, iov, n) : ret;
}

/* Extents in place go in parallel, those that allocate one after the other. */
static int write_parts(struct fiber *f, struct qcow2 *q, u64 goff, const struct image_transfer *all)
{
	struct image_group group;
	int ret = 0, group_ret;
	u64 at = 0, done;

	image_group_init(&group);
	while (at < all->bytes && ret == 0) {
		struct image_transfer t = *all;
		struct extent e;

		ret = write_begin(f, q);
		if (ret == 0)
			ret = l2_map(f, q, goff + at, all->bytes - at, &e);
		if (ret < 0)
			break;
		t.skip = all->skip + at;
		t.bytes = done = e.bytes;
		if (e.kind == EXTENT_DATA && e.in_place) {
			t.offset = e.hoff;
			if (q->crypt.method)
				qcow2_crypt_transfer(&q->crypt, goff + at, &t);
			image_group_add(f, &group, &t);
		} else {
			t.offset = goff + at;
			t.bytes = all->bytes - at;
			ret = write_alloc(f, q, &t, &done);
		}
		at += done;
	}
	group_ret = image_group_wait(f, &group);
	return ret < 0 ? ret : group_ret;
}

static int write_sectors(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			 unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	u64 bytes = iov_bytes(iov, n);
	struct io_track io;
	struct extent e;
	int ret = write_begin(f, q);

	if (ret < 0 || !bytes)
		return ret;
	bitmaps_mark(q, goff, bytes);
	io_begin(q, &io);
	ret = l2_map(f, q, goff, bytes, &e);
	if (ret == 0 && e.kind == EXTENT_DATA && e.in_place && e.bytes == bytes &&
	    !q->crypt.method) {
		ret = write_in_place(f, img, e.hoff, iov, n);
	} else if (ret == 0) {
		struct image_transfer all = {.fn = write_in_place,
					     .img = img,
					     .iov = iov,
					     .n = n,
					     .bytes = bytes,
					     .encrypt = true};

		ret = write_parts(f, q, goff, &all);
	}
	io_end(&io);
	return ret;
}

int qcow2_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	const struct aligned a = {.img = img,
				  .read = qcow2_read,
				  .write = write_sectors,
				  .locks = &q->crypt.io.locks};

	if (q->crypt.method)
		return aligned_write(f, &a, goff, iov, n);
	return write_sectors(f, img, goff, iov, n);
}
