/* Clusters for a disk's new area before anyone writes there: `resize` with
 * --preallocation, and raw external data files, whose map is complete.
 *
 * The map is filled a table at a time.  Clusters behind the end of the file are
 * allocated by making it longer, those inside, which were used before, are written
 * with zeros.  Thread: the image's loop. */
#include "block/qcow2/prealloc.h"

#include "base/io.h"
#include "block/qcow2/subcluster.h"

#include <errno.h>

struct ahead {
	struct qcow2 *q;
	enum prealloc mode;
	u64 goff, end; /* whole clusters */
	struct error *err;
};

static bool is_hole(const struct qcow2 *q, const struct table *t, u32 i)
{
	return !l2_entry(t, i) && (!q->extended || !l2_bitmap(t, i));
}

/* Holes from entry i on, in this table and before the end. */
static u64 count_holes(const struct ahead *a, const struct table *t, u32 i)
{
	u64 most = (a->end - a->goff) >> a->q->cluster_bits, n = 0;

	most = MIN(most, (u64)a->q->l2_entries - i);
	while (n < most && is_hole(a->q, t, i + (u32)n))
		n++;
	return n;
}

static int no_room(const struct ahead *a, int ret)
{
	return ret < 0 ? err_prefix(a->err, "Failed to resize underlying file") : 0;
}

/* Make the file reach to `end`, with blocks as the mode says. */
static int extend(struct fiber *f, const struct ahead *a, u64 end)
{
	enum prealloc mode = a->mode == PREALLOC_METADATA ? PREALLOC_OFF : a->mode;
	struct image *file = a->q->img.below;
	int ret = 0;

	if (file->grows && end > file->bytes)
		ret = image_resize_alloc(f, file, end, mode, a->err);
	a->q->written++;
	return no_room(a, ret);
}

/* The clusters of the allocation read as zeros, and have their blocks. */
static int clear(struct fiber *f, const struct ahead *a, const struct alloc *c)
{
	struct image *file = a->q->img.below;
	u64 bytes = c->clusters << a->q->cluster_bits;
	int ret;

	if (c->hoff >= file->bytes)
		return extend(f, a, c->hoff + bytes);
	/* Without unmapping: a zeroed range keeps its blocks. */
	ret = image_zero(f, file, c->hoff, bytes, 0);
	a->q->written++;
	return ret < 0 ? err_set_errno(a->err, ret, "Could not write zeros for preallocation") : 0;
}

/* Give the n holes from entry i on their clusters; *done of them got one. */
static int fill(struct fiber *f, const struct ahead *a, u32 l1_index, u32 i, u64 n, u64 *done)
{
	struct qcow2 *q = a->q;
	struct alloc c = {.hoff = a->goff, .clusters = n};
	struct table *t;
	int ret = q->data_external ? 0 : cluster_alloc(f, q, n, &c);

	if (ret < 0)
		return err_set_errno(a->err, ret, "Could not allocate clusters");
	if (!q->data_external)
		ret = clear(f, a, &c);
	if (ret == 0)
		ret = l2_get_writable(f, q, l1_index, &t);
	if (ret < 0 || q->corrupt) {
		if (!q->data_external)
			cluster_free(q, c.hoff, c.clusters);
		return ret < 0 ? ret : -EIO;
	}
	for (u64 k = 0; k < c.clusters; k++)
		l2_set(q, t, i + (u32)k, (c.hoff + (k << q->cluster_bits)) | ENTRY_COPIED);
	*done = c.clusters;
	return 0;
}

/* From a->goff on: what is allocated is passed over.  Holds the clusters' lock. */
static int some(struct fiber *f, const struct ahead *a, u64 *done)
{
	struct qcow2 *q = a->q;
	u32 l1_index = (u32)(a->goff >> (q->cluster_bits + q->l2_bits));
	u32 i = (u32)(a->goff >> q->cluster_bits) & (q->l2_entries - 1);
	struct table *t;
	int ret = l2_get_writable(f, q, l1_index, &t);
	u64 n;

	if (ret < 0)
		return ret;
	n = count_holes(a, t, i);
	*done = 1;
	return n ? fill(f, a, l1_index, i, n, done) : 0;
}

int prealloc_area(struct fiber *f, struct qcow2 *q, u64 from, u64 to, enum prealloc mode,
		  struct error *err)
{
	struct ahead a = {.q = q,
			  .mode = mode,
			  .goff = cluster_floor(q, from),
			  .end = cluster_ceil(q, to),
			  .err = err};
	struct range_lock lock;
	int ret = 0;

	range_lock(f, &q->cluster_locks, &lock, a.goff, a.end - a.goff, true);
	while (a.goff < a.end && ret == 0) {
		u64 done = 0;

		ret = write_begin(f, q);
		if (ret == 0)
			ret = some(f, &a, &done);
		a.goff += done << q->cluster_bits;
	}
	range_unlock(&q->cluster_locks, &lock);
	return ret;
}

int prealloc_data_file(struct fiber *f, struct qcow2 *q, u64 bytes, enum prealloc mode,
		       struct error *err)
{
	int ret = 0;

	if (!q->data_external || !q->data->grows || bytes == q->data->bytes)
		return 0;
	if (mode == PREALLOC_METADATA || bytes < q->data->bytes)
		mode = PREALLOC_OFF;
	ret = image_resize_alloc(f, q->data, bytes, mode, err);
	q->written++;
	return ret < 0 ? err_prefix(err, "Failed to resize underlying file") : 0;
}
