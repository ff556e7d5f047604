/* What a pivot changes: references counted per cluster, tables that must move.
 *
 * A cluster has as many references as there are ways to it from L1 tables, so a
 * root that comes or goes changes every cluster below it.  Deltas are counted in
 * memory, a window of clusters at a time, and judged against the refcounts.
 * Thread: the image's loop. */
#include "block/qcow2/pivot.h"

#include "base/io.h"
#include "base/log.h"
#include "block/group.h"

#include <errno.h>

#define BATCH_BYTES (1 * MiB)
#define MAX_DELTA   (1 << 30)

/* --- reading tables --- */

struct batch_read {
	struct image_group group;
	u8 *data;
	u32 n, room;
	u32 *index;
	u64 *hoff;
};

static int file_read(struct fiber *f, struct image *img, u64 hoff, const struct iovec *iov,
		     unsigned n)
{
	return qcow2_pread(f, img, hoff, iov[0].iov_base, iov_bytes(iov, n));
}

/* A table in the cache is as the file has it: nothing is dirty now. */
static bool from_cache(const struct pivot *p, u32 i, u64 hoff, u8 *to)
{
	const struct table *t = i < p->q->l2.n ? p->q->l2.tables[i] : NULL;

	if (!t || t->loading || t->hoff != hoff)
		return false;
	memcpy(to, t->data, p->q->cluster_bytes);
	return true;
}

/* Fill the batch; neighbours in the file take one request. */
static int batch_fill(struct fiber *f, struct pivot *p, struct batch_read *b)
{
	u32 bytes = p->q->cluster_bytes;

	image_group_init(&b->group);
	for (u32 k = 0, next; k < b->n; k = next) {
		u8 *to = b->data + (u64)k * bytes;
		struct iovec iov = {to, bytes};
		struct image_transfer t = {
			.fn = file_read, .img = p->q->img.below, .offset = b->hoff[k], .n = 1};

		next = k + 1;
		if (from_cache(p, b->index[k], b->hoff[k], to))
			continue;
		while (next < b->n && b->hoff[next] == b->hoff[k] + iov.iov_len) {
			iov.iov_len += bytes;
			next++;
		}
		t.iov = &iov;
		t.bytes = iov.iov_len;
		image_group_add(f, &b->group, &t);
	}
	return image_group_wait(f, &b->group);
}

static int batch_run(struct fiber *f, struct pivot *p, struct batch_read *b,
		     const struct pivot_walk *w)
{
	int ret = batch_fill(f, p, b);

	for (u32 k = 0; k < b->n && ret == 0; k++)
		ret = w->fn(f, p, b->index[k], b->data + (u64)k * p->q->cluster_bytes, w->arg);
	b->n = 0;
	return ret;
}

static int walk_tables(struct fiber *f, struct pivot *p, struct batch_read *b,
		       const struct pivot_walk *w)
{
	int ret = 0;

	for (u32 i = w->first; i < w->n && ret == 0; i++) {
		u64 hoff = w->l1[i] & ENTRY_HOFF;

		if (!hoff || (w->only && !bit_get(w->only, i)))
			continue;
		if (!is_aligned(hoff, p->q->cluster_bytes))
			return qcow2_corrupt(f, p->q,
					     "L2 table offset %#llx unaligned (L1 index: %#x)",
					     (unsigned long long)hoff, i);
		b->index[b->n] = i;
		b->hoff[b->n++] = hoff;
		if (b->n == b->room)
			ret = batch_run(f, p, b, w);
	}
	return ret == 0 && b->n ? batch_run(f, p, b, w) : ret;
}

/* Tables that are read at once: no more than there are, as memory costs time, too. */
static u32 batch_room(const struct pivot *p, const struct pivot_walk *w)
{
	u32 most = (u32)MAX(BATCH_BYTES >> p->q->cluster_bits, (u64)1), n = 0;

	for (u32 i = w->first; i < w->n && n < most; i++)
		n += w->l1[i] & ENTRY_HOFF && (!w->only || bit_get(w->only, i));
	return n;
}

int pivot_walk(struct fiber *f, struct pivot *p, const struct pivot_walk *w)
{
	struct batch_read b = {.room = batch_room(p, w)};
	int ret = -ENOMEM;

	if (!b.room)
		return 0;
	b.data = try_alloc_aligned((u64)b.room << p->q->cluster_bits,
				   MIN(p->q->cluster_bytes, 4096u));
	b.index = try_alloc(b.room * sizeof(*b.index));
	b.hoff = try_alloc(b.room * sizeof(*b.hoff));
	if (b.data && b.index && b.hoff)
		ret = walk_tables(f, p, &b, w);
	free(b.data);
	free(b.index);
	free(b.hoff);
	return ret;
}

/* --- counting --- */

static int beyond(struct pivot *p, u64 cluster)
{
	log_guest("%s: cluster %llu is referenced, but lies beyond the end of the image file",
		  p->q->img.name, (unsigned long long)cluster);
	return -EIO;
}

static int count(struct pivot *p, u64 cluster, u64 n, int sign)
{
	if (cluster + n > p->total)
		return beyond(p, cluster + n - 1);
	for (u64 c = cluster; c < cluster + n; c++) {
		s32 *d = &p->delta[c - p->first];

		if (c < p->first || c - p->first >= p->n)
			continue;
		if (*d >= MAX_DELTA || *d <= -MAX_DELTA)
			return -EINVAL;
		*d += sign;
	}
	return 0;
}

/* Clusters that an L2 entry refers to: how many, the first in *first. */
static u64 entry_clusters(const struct qcow2 *q, u64 entry, u64 *first)
{
	u64 hoff, n = entry & ENTRY_HOFF ? 1 : 0;

	if (entry & ENTRY_COMPRESSED)
		compressed_span(q, entry, &hoff, &n);
	else
		hoff = entry & ENTRY_HOFF;
	*first = hoff >> q->cluster_bits;
	return n;
}

static int count_entry(struct fiber *f, struct pivot *p, u64 entry, int sign)
{
	struct qcow2 *q = p->q;
	u64 first, n;

	if (!entry)
		return 0;
	if (!(entry & ENTRY_COMPRESSED) && !is_aligned(entry & ENTRY_HOFF, q->cluster_bytes))
		return qcow2_corrupt(f, q, "Cluster allocation offset %#llx unaligned",
				     (unsigned long long)(entry & ENTRY_HOFF));
	n = entry_clusters(q, entry, &first);
	return n ? count(p, first, n, sign) : 0;
}

static bool has_flags(const struct qcow2 *q, const u8 *data)
{
	for (u32 i = 0; i < q->l2_entries; i++)
		if (load_be64(data + ((u64)i << q->l2.entry_shift)) & ENTRY_COPIED)
			return true;
	return false;
}

static int count_table(struct fiber *f, struct pivot *p, u32 i, u8 *data, void *arg)
{
	const struct pivot_root *r = arg;
	int ret = 0;

	for (u32 k = 0; k < p->q->l2_entries && ret == 0; k++)
		ret = count_entry(f, p, load_be64(data + ((u64)k << p->q->l2.entry_shift)),
				  r->sign);
	if (ret < 0)
		return ret;
	if (r->follows && p->flags == FLAGS_CLEAR && has_flags(p->q, data))
		bit_set(p->l2_bits, i);
	if (r->follows && bit_get(p->l2_bits, i))
		return 0; /* the reference is to the table that takes its place */
	return count(p, (r->l1[i] & ENTRY_HOFF) >> p->q->cluster_bits, 1, r->sign);
}

/* --- judging --- */

/* One cluster with a delta; base is its refcount. */
static int judge(struct pivot *p, u64 cluster, u64 base)
{
	struct qcow2 *q = p->q;
	s64 delta = p->delta[cluster - p->first];

	if (base == 0 || (delta < 0 && (u64)-delta > base)) {
		log_guest("%s: cluster %llu has refcount %llu, and more references: the image "
			  "needs a check",
			  q->img.name, (unsigned long long)cluster, (unsigned long long)base);
		return -EIO;
	}
	if (delta > 0 && (u64)delta > refcount_max(q) - base)
		return -EINVAL;
	base += (u64)delta;
	p->frees |= !base;
	if (base == 1)
		bit_set(p->single, cluster - p->first);
	return 0;
}

static bool any_delta(const struct pivot *p, u64 from, u64 to)
{
	for (u64 c = from; c < to; c++)
		if (p->delta[c - p->first])
			return true;
	return false;
}

/* The clusters [from, to) of refcount block b. */
static int judge_block(struct fiber *f, struct pivot *p, u64 b, u64 from, u64 to)
{
	struct qcow2 *q = p->q;
	struct table *t;
	int ret = refblock_get(f, q, b, &t);

	if (ret < 0)
		return ret;
	for (u64 c = from; c < to && ret == 0; c++)
		if (p->delta[c - p->first])
			ret = judge(p, c,
				    t ? refcount_load(q, t->data,
						      (u32)(c & (q->refblock_entries - 1)))
				      : 0);
	if (ret == 0 && !bit_get(p->block_bits, b)) {
		bit_set(p->block_bits, b);
		p->block_count++;
	}
	return ret;
}

int pivot_window(struct fiber *f, struct pivot *p)
{
	u64 per = p->q->refblock_entries, end = p->first + p->n;
	int ret = 0;

	memset(p->delta, 0, p->n * sizeof(*p->delta));
	memset(p->single, 0, p->n / 8 + 1);
	for (u32 r = 0; r < p->root_n && ret == 0; r++) {
		const struct pivot_walk w = {.l1 = p->roots[r].l1,
					     .first = p->roots[r].first,
					     .n = p->roots[r].n,
					     .fn = count_table,
					     .arg = &p->roots[r]};

		ret = pivot_walk(f, p, &w);
	}
	for (u64 from = p->first, to; from < end && ret == 0; from = to) {
		to = MIN(align_down(from, per) + per, end);
		if (any_delta(p, from, to))
			ret = judge_block(f, p, from >> p->q->refblock_bits, from, to);
	}
	return ret;
}

/* --- flags --- */

/* The flag for a reference to this cluster; `old` is what it was. */
static bool flag_of(const struct pivot *p, u64 hoff, bool old)
{
	u64 c = hoff >> p->q->cluster_bits;

	if (p->flags == FLAGS_CLEAR)
		return false;
	if (c < p->first || c - p->first >= p->n || !p->delta[c - p->first])
		return old; /* of another window, or as it was */
	return bit_get(p->single, c - p->first);
}

bool pivot_fix_flags(const struct pivot *p, u8 *data)
{
	const struct qcow2 *q = p->q;
	bool changed = false;

	for (u32 i = 0; i < q->l2_entries; i++) {
		u64 entry = load_be64(data + ((u64)i << p->q->l2.entry_shift)),
		    now = entry & ~ENTRY_COPIED;
		bool old = entry & ENTRY_COPIED;

		if (!(entry & ENTRY_COMPRESSED) && entry & ENTRY_HOFF &&
		    flag_of(p, entry & ENTRY_HOFF, old))
			now |= ENTRY_COPIED;
		if (now == entry)
			continue;
		store_be64(data + ((u64)i << p->q->l2.entry_shift), now);
		changed = true;
	}
	return changed;
}

static int test_table(struct fiber *f, struct pivot *p, u32 i, u8 *data, void *arg)
{
	if (pivot_fix_flags(p, data))
		bit_set(p->l2_bits, i);
	return 0;
}

/* Flags of the L1 entries, and which tables must have others. */
static int survey_flags(struct fiber *f, struct pivot *p)
{
	const struct pivot_walk w = {.l1 = p->l1, .n = p->l1_entries, .fn = test_table};

	for (u32 i = 0; i < p->l1_entries; i++) {
		u64 hoff = p->l1[i] & ENTRY_HOFF;
		bool flag = hoff && p->l1[i] & ENTRY_COPIED;

		if (hoff && (p->flags != FLAGS_CLEAR || (i >= p->clear_first && i < p->clear_end)))
			flag = flag_of(p, hoff, flag);

		p->l1[i] = flag ? hoff | ENTRY_COPIED : hoff;
	}
	return p->flags == FLAGS_COUNT && p->root_n ? pivot_walk(f, p, &w) : 0;
}

int pivot_survey(struct fiber *f, struct pivot *p)
{
	u64 most = PIVOT_WINDOW;
	int ret = 0;

	p->total = MAX(clusters_of(p->q, p->q->img.below->bytes),
		       p->q->fresh_hoff >> p->q->cluster_bits) +
		   1;
	p->n = MIN(p->total, most);
	p->delta = try_alloc(p->n * sizeof(*p->delta));
	p->single = try_alloc(p->n / 8 + 1);
	p->l2_bits = try_alloc(p->l1_entries / 8 + 1);
	p->block_bits = try_alloc((p->total >> p->q->refblock_bits) / 8 + 1);
	if (!p->delta || !p->single || !p->l2_bits || !p->block_bits)
		return -ENOMEM;
	for (p->first = 0; p->first < p->total && ret == 0; p->first += most) {
		p->n = MIN(p->total - p->first, most);
		if (p->root_n)
			ret = pivot_window(f, p);
		if (ret == 0)
			ret = survey_flags(f, p);
	}
	p->first -= most;
	for (u32 i = 0; i < p->l1_entries; i++)
		p->l2_count += bit_get(p->l2_bits, i);
	return ret;
}
