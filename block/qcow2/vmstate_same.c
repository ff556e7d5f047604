/* Which parts of two snapshots' VM state lie in the very same clusters.
 *
 * A cluster that both refer to has not been written since the older of them was taken
 * (its refcount is at least 2, I4): what it shows is the same, whatever that is.  Only
 * tables are read, two at a time; tables that are shared themselves are not.
 * QEMU's docs/interop/qcow2, "Cluster mapping".  Thread: the image's loop. */
#include "block/qcow2/snapshot_int.h"

#include "base/bytes.h"
#include "block/qcow2/parts.h"

#include <errno.h>

/* Of small clusters there are so many that comparing them takes longer than reading. */
#define MOST_TABLES 256u

struct side {
	const u64 *l1;
	u32 entries, first; /* of the table; where the area begins */
	u8 *table;	    /* one of L2 */
};

static u64 table_hoff(const struct side *s, u64 k)
{
	u64 i = s->first + k;

	return i < s->entries ? s->l1[i] & ENTRY_HOFF : 0;
}

static int load_table(struct fiber *f, struct qcow2 *q, const struct side *s, u64 hoff)
{
	if (!is_aligned(hoff, q->cluster_bytes))
		return -EIO;
	if (hoff)
		return qcow2_pread(f, q->img.below, hoff, s->table, q->cluster_bytes);
	memset(s->table, 0, q->cluster_bytes);
	return 0;
}

/* Does entry i say the same on both sides?  Flags of ownership apart. */
static bool is_same(const struct qcow2 *q, const struct side sides[2], u32 i)
{
	const u8 *a = sides[0].table + ((u64)i << q->l2.entry_shift);
	const u8 *b = sides[1].table + ((u64)i << q->l2.entry_shift);

	if ((load_be64(a) ^ load_be64(b)) & ~ENTRY_COPIED)
		return false;
	return !q->extended || load_be64(a + 8) == load_be64(b + 8);
}

/* Bytes [start, end) of the area may differ. */
static void clear(const struct qcow2_vmstate_pieces *p, u64 start, u64 end)
{
	start = MAX(start, p->off) - p->off;
	end = MIN(end, p->off + p->n * p->bytes_each) - p->off;
	for (u64 i = start / p->bytes_each; i * p->bytes_each < end; i++)
		p->bits[i / 64] &= ~((u64)1 << (i % 64));
}

/* What L1 entry k of the area shows. */
static int compare_tables(struct fiber *f, struct qcow2 *q, const struct side sides[2], u64 k,
			  const struct qcow2_vmstate_pieces *p)
{
	u64 hoff[2] = {table_hoff(&sides[0], k), table_hoff(&sides[1], k)};
	u64 end = p->off + p->n * p->bytes_each;
	int ret;

	if (hoff[0] == hoff[1])
		return 0;
	ret = load_table(f, q, &sides[0], hoff[0]);
	if (ret == 0)
		ret = load_table(f, q, &sides[1], hoff[1]);
	for (u32 i = 0; ret == 0 && i < q->l2_entries; i++) {
		u64 at = k * l2_span(q) + (u64)i * q->cluster_bytes;

		if (at < end && at + q->cluster_bytes > p->off && !is_same(q, sides, i))
			clear(p, at, at + q->cluster_bytes);
	}
	return ret;
}

static int compare(struct fiber *f, struct qcow2 *q, const struct side sides[2],
		   const struct qcow2_vmstate_pieces *p)
{
	u64 first = p->off / l2_span(q), last = (p->off + p->n * p->bytes_each - 1) / l2_span(q);
	int ret = 0;

	if (last - first >= MOST_TABLES)
		return -E2BIG;
	for (u64 k = first; ret == 0 && k <= last; k++)
		ret = compare_tables(f, q, sides, k, p);
	return ret;
}

int qcow2_vmstate_compare(struct fiber *f, struct image *img, u32 index,
			  const struct qcow2_vmstate_pieces *p)
{
	struct qcow2 *q = to_qcow2(img);
	const struct qcow2_snapshot *s;
	struct side sides[2] = {{0}};
	struct error ignored;
	u64 *l1 = NULL, end;
	int ret;

	assert(p->n && p->bytes_each && !img->writable);
	if (index >= q->snapshot_count || !mul_ok(p->n, p->bytes_each, &end) ||
	    !add_ok(end, p->off, &end) || end > INT64_MAX / 2)
		return -EINVAL;
	s = &q->snapshots[index];
	ret = snapshot_judge_size(q, s, &ignored);
	if (ret == 0)
		ret = snapshot_load_l1(f, q, s, 0, &l1, &ignored);
	if (ret < 0)
		return ret;
	sides[0] = (struct side){q->l1, q->l1_entries, snapshot_disk_entries(q, q->img.bytes),
				 try_alloc_aligned(q->cluster_bytes, 4096)};
	sides[1] = (struct side){l1, s->l1_entries, snapshot_disk_entries(q, s->disk_bytes),
				 try_alloc_aligned(q->cluster_bytes, 4096)};
	if (!sides[0].table || !sides[1].table)
		ret = -ENOMEM;
	else if (q->crypt.method == CRYPT_AES && sides[0].first != sides[1].first)
		ret = -ENOTSUP; /* the key stream depends on the place */
	else
		ret = compare(f, q, sides, p);
	free(sides[0].table);
	free(sides[1].table);
	free(l1);
	return ret;
}
