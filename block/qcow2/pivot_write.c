/* Writing what a pivot needs, all of it to places that nothing refers to yet; so
 * the order does not matter, and memory is bounded by one buffer.
 * Thread: the image's loop. */
#include "block/qcow2/pivot.h"

#include <errno.h>

#define OUT_BYTES (1 * MiB)

/* Neighbouring clusters go out in one write. */
struct out {
	struct qcow2 *q;
	u8 *data;
	u64 hoff;
	u32 bytes, room;
};

static int out_init(struct out *o, const struct pivot *p)
{
	u64 bytes = MAX(p->l2_count, p->block_count) << p->q->cluster_bits;

	bytes = MIN(MAX(bytes, 4ull << p->q->cluster_bits), OUT_BYTES);
	*o = (struct out){.q = p->q, .room = (u32)MAX(bytes, (u64)p->q->cluster_bytes)};
	o->data = try_alloc_aligned(o->room, 4096);
	return o->data ? 0 : -ENOMEM;
}

static int out_flush(struct fiber *f, struct out *o)
{
	int ret = o->bytes ? qcow2_pwrite(f, o->q, o->hoff, o->data, o->bytes) : 0;

	o->bytes = 0;
	return ret;
}

/* Room for one cluster at hoff, zeroed. */
static int out_cluster(struct fiber *f, struct out *o, u64 hoff, u8 **to)
{
	int ret = 0;

	if (o->bytes + o->q->cluster_bytes > o->room || o->hoff + o->bytes != hoff)
		ret = out_flush(f, o);
	if (ret < 0)
		return ret;
	if (!o->bytes)
		o->hoff = hoff;
	*to = o->data + o->bytes;
	memset(*to, 0, o->q->cluster_bytes);
	o->bytes += o->q->cluster_bytes;
	return 0;
}

/* --- refcount blocks --- */

static int write_block(struct fiber *f, struct pivot *p, struct out *o, u64 b)
{
	struct qcow2 *q = p->q;
	u64 from = MAX(b << q->refblock_bits, p->first);
	u64 to = MIN((b + 1) << q->refblock_bits, p->first + p->n);
	struct table *t;
	u8 *data;
	int ret = out_cluster(f, o, p->block_new[b], &data);

	if (ret == 0)
		ret = refblock_get(f, q, b, &t);
	if (ret < 0)
		return ret;
	if (!t) /* it was there when it was judged */
		return -EIO;
	memcpy(data, t->data, q->cluster_bytes);
	for (u64 c = from; c < to; c++) {
		u32 i = (u32)(c & (q->refblock_entries - 1));
		s32 delta = p->delta[c - p->first];

		if (delta)
			refcount_store(q, data, i, refcount_load(q, data, i) + (u64)(s64)delta);
	}
	return 0;
}

static int write_blocks(struct fiber *f, struct pivot *p, struct out *o)
{
	u64 end = (p->first + p->n - 1) >> p->q->refblock_bits;
	int ret = 0;

	for (u64 b = p->first >> p->q->refblock_bits; b <= end && ret == 0; b++)
		if (bit_get(p->block_bits, b))
			ret = write_block(f, p, o, b);
	return ret == 0 ? out_flush(f, o) : ret;
}

/* --- L2 tables --- */

static int write_table(struct fiber *f, struct pivot *p, u32 i, u8 *data, void *arg)
{
	u8 *to;
	int ret;

	(void)pivot_fix_flags(p, data);
	ret = out_cluster(f, arg, p->l2_new[i], &to);
	if (ret == 0)
		memcpy(to, data, p->q->cluster_bytes);
	return ret;
}

/* In the first window tables come from where they are, in later ones from where
 * the window before has put them. */
static int write_tables(struct fiber *f, struct pivot *p, struct out *o, bool first)
{
	const struct pivot_walk w = {.l1 = first ? p->l1 : p->l2_new,
				     .n = p->l1_entries,
				     .only = p->l2_bits,
				     .fn = write_table,
				     .arg = o};
	int ret;

	if (!p->l2_count || (!first && p->flags == FLAGS_CLEAR))
		return 0;
	ret = pivot_walk(f, p, &w);
	return ret == 0 ? out_flush(f, o) : ret;
}

/* What depends on deltas, a window at a time: the last one is still in memory. */
static int write_windows(struct fiber *f, struct pivot *p, struct out *o)
{
	u64 most = PIVOT_WINDOW;
	bool many = p->total > most;
	int ret = 0;

	for (u64 first = 0; first < p->total && ret == 0; first += most) {
		if (many) {
			p->first = first;
			p->n = MIN(p->total - first, most);
			ret = p->root_n ? pivot_window(f, p) : 0;
		}
		if (ret == 0 && p->block_count)
			ret = write_blocks(f, p, o);
		if (ret == 0)
			ret = write_tables(f, p, o, first == 0);
	}
	return ret;
}

/* --- tables of pointers --- */

static int write_pointers(struct fiber *f, struct out *o, const struct pivot_place *at,
			  const u64 *entries, u64 n)
{
	u64 per = o->q->cluster_bytes / 8;

	for (u64 k = 0; k < at->n; k++) {
		u8 *to;
		int ret = out_cluster(f, o, at->hoff + (k << o->q->cluster_bits), &to);

		if (ret < 0)
			return ret;
		for (u64 i = 0; i < per && k * per + i < n; i++)
			store_be64(to + i * 8, entries[k * per + i]);
	}
	return out_flush(f, o);
}

/* The refcount table as it is, with the new blocks. */
static int write_reftable(struct fiber *f, struct pivot *p, struct out *o)
{
	struct qcow2 *q = p->q;
	u64 blocks = (p->total >> q->refblock_bits) + 1;
	AUTO_FREE u64 *entries = try_alloc(q->reftable_n * sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	for (u64 b = 0; b < q->reftable_n; b++)
		entries[b] = b < blocks && p->block_new[b] ? p->block_new[b] : q->reftable[b];
	return write_pointers(f, o, &p->reftable_place, entries, q->reftable_n);
}

static int write_snapshots(struct fiber *f, struct pivot *p)
{
	u64 bytes = p->table_place.n << p->q->cluster_bits;
	AUTO_FREE u8 *data = try_alloc_aligned(bytes, 4096);

	if (!data)
		return -ENOMEM;
	if (p->fresh) {
		p->fresh->l1_hoff = p->kept_place.hoff;
		p->fresh->l1_entries = p->kept_n;
	}
	snapshots_put(data, p->snapshots, p->snapshot_n);
	return qcow2_pwrite(f, p->q, p->table_place.hoff, data, bytes);
}

/* Entries follow the tables that move. */
static void replace_entries(struct pivot *p)
{
	bool own = !(p->from_active && p->flags == FLAGS_CLEAR);

	for (u32 i = 0; i < p->l1_entries && p->l2_count; i++) {
		if (!p->l2_new[i])
			continue;
		p->l1[i] = p->l2_new[i] | (own ? ENTRY_COPIED : 0);
		if (!own && i < p->kept_n)
			p->kept[i] = p->l2_new[i];
	}
}

int pivot_write(struct fiber *f, struct pivot *p)
{
	struct out o;
	int ret = out_init(&o, p);

	if (ret == 0)
		ret = write_windows(f, p, &o);
	replace_entries(p);
	if (ret == 0 && p->block_count)
		ret = write_reftable(f, p, &o);
	if (ret == 0)
		ret = write_pointers(f, &o, &p->l1_place, p->l1, p->l1_entries);
	if (ret == 0)
		ret = write_pointers(f, &o, &p->kept_place, p->kept, p->kept_n);
	if (ret == 0 && p->table_place.n)
		ret = write_snapshots(f, p);
	free(o.data);
	return ret == 0 ? file_sync(f, p->q) : ret;
}

/* --- afterwards --- */

/* Runs of clusters that the deltas freed; only while they are in memory, which is
 * for files of up to a window. */
void pivot_punch(struct fiber *f, struct pivot *p)
{
	struct qcow2 *q = p->q;
	u64 end = MIN(p->first + p->n, q->img.below->bytes >> q->cluster_bits), from = p->first;
	struct table *t = NULL;

	while (p->frees && from < end) {
		u64 to = from;

		while (to < end && p->delta[to - p->first] < 0) {
			if (refblock_get(f, q, to >> q->refblock_bits, &t) < 0 || !t ||
			    refcount_load(q, t->data, (u32)(to & (q->refblock_entries - 1))))
				break;
			to++;
		}
		if (to > from)
			(void)image_discard(f, q->img.below, from << q->cluster_bits,
					    (to - from) << q->cluster_bits);
		from = MAX(to, from + 1);
	}
}
