/* Counting the references of an image: header, L1 and L2 tables, clusters of the
 * active state and of every snapshot, snapshot table, refcount structure.
 * Thread: the image's loop. */
#include "block/qcow2/check.h"
#include "block/qcow2/subcluster.h"

#include <errno.h>

#define L1_PART 8192u /* entries that are read at once */

/* Count the clusters that [hoff, hoff + bytes) touches. */
void check_ref(struct check *c, u64 hoff, u64 bytes)
{
	const struct qcow2 *q = c->q;
	u64 from, to, file = q->img.below->bytes, end;

	if (!bytes)
		return;
	if (!add_ok(hoff, bytes, &end) || (end > file && end - file > q->cluster_bytes)) {
		check_corrupt(c,
			      "ERROR: counting reference for region exceeding the end of the file "
			      "by one cluster or more: offset 0x%llx size 0x%llx",
			      (unsigned long long)hoff, (unsigned long long)bytes);
		return;
	}
	from = MAX(hoff >> q->cluster_bits, c->first);
	to = MIN(((end - 1) >> q->cluster_bits) + 1, c->first + c->n);
	for (u64 i = from; i < to; i++)
		if (c->counts[i - c->first] != UINT32_MAX)
			c->counts[i - c->first]++;
}

/* --- L2 tables --- */

static void count_compressed(struct check *c, u64 entry)
{
	struct compressed at = compressed_decode(c->q, entry);

	if (entry & ENTRY_COPIED)
		check_corrupt(c,
			      "ERROR: coffset=0x%llx: copied flag must never be set for "
			      "compressed clusters",
			      (unsigned long long)at.hoff);
	check_ref(c, at.hoff, at.bytes);
}

static void note_fragment(struct check *c, u64 entry, u64 *next)
{
	struct check_result *r = &c->req->result;
	u64 hoff = entry & ENTRY_HOFF;

	if (c->quiet)
		return;
	r->allocated_clusters++;
	if (entry & ENTRY_COMPRESSED) {
		r->compressed_clusters++;
		r->fragmented_clusters++; /* by nature */
		return;
	}
	if (*next && *next != hoff)
		r->fragmented_clusters++;
	*next = hoff + c->q->cluster_bytes;
}

/* What extended entries must not be; 1: it does not count as a cluster. */
static int judge_bitmap(struct check *c, u64 entry, u64 bitmap, u32 i)
{
	if (sub_is_sound(c->q, entry, bitmap))
		return 0;
	if (entry & ENTRY_COMPRESSED) {
		check_corrupt(c,
			      "ERROR compressed cluster %u with non-zero subcluster allocation "
			      "bitmap, entry=0x%llx",
			      i, (unsigned long long)entry);
		return 1;
	}
	if (l2_is_placed(c->q, entry))
		check_corrupt(c,
			      "ERROR offset=%llx: Allocated cluster has corrupted subcluster "
			      "allocation bitmap",
			      (unsigned long long)(entry & ENTRY_HOFF));
	else
		check_corrupt(c, "ERROR: Unallocated cluster has non-zero subcluster allocation "
				 "map");
	return 0;
}

/* An entry whose cluster lies in an external data file: not counted. */
static void note_external(struct check *c, u64 entry, bool active, u64 *next, u32 i)
{
	if (entry & ENTRY_COMPRESSED)
		check_corrupt(c, "ERROR compressed cluster %u with data file, entry=0x%llx", i,
			      (unsigned long long)entry);
	else if (!l2_is_placed(c->q, entry) || (entry & ENTRY_ZERO && !(entry & ENTRY_HOFF)))
		return; /* zeros at the very start count as having no place */
	else if (!is_aligned(entry & ENTRY_HOFF, c->q->cluster_bytes))
		check_corrupt(c,
			      "ERROR offset=%llx: Data cluster is not properly aligned; L2 entry "
			      "corrupted.",
			      (unsigned long long)(entry & ENTRY_HOFF));
	else if (active)
		note_fragment(c, entry, next);
}

/* A place that is none.  What a zero cluster keeps is not needed: a repair forgets
 * it.  Of data the clusters that it touches are counted. */
static bool judge_place(struct check *c, u64 entry, bool zero)
{
	bool fix = zero && c->req->fix_errors && !c->q->extended;

	if (!fix) {
		check_corrupt(c,
			      "ERROR offset=%llx: %s cluster is not properly aligned; L2 entry "
			      "corrupted.",
			      (unsigned long long)(entry & ENTRY_HOFF),
			      zero ? "Preallocated" : "Data");
		return false;
	}
	check_line(c,
		   "Repairing offset=%llx: Preallocated cluster is not properly aligned; L2 entry "
		   "corrupted.",
		   (unsigned long long)(entry & ENTRY_HOFF));
	c->req->result.corruptions_fixed++;
	return true;
}

/* True: the entry shall be a zero cluster without a place. */
static bool count_entry(struct check *c, u64 entry, bool active, u64 *next)
{
	const struct qcow2 *q = c->q;
	u64 hoff = entry & ENTRY_HOFF;
	enum extent_kind kind = l2_kind(q, entry);

	if (kind != EXTENT_COMPRESSED && entry & L2_RESERVED)
		check_corrupt(c, "ERROR found l2 entry with reserved bits set: %llx",
			      (unsigned long long)entry);
	if (kind == EXTENT_COMPRESSED)
		count_compressed(c, entry);
	else if (kind == EXTENT_HOLE || !hoff)
		return false;
	else if (!is_aligned(hoff, q->cluster_bytes) && judge_place(c, entry, kind == EXTENT_ZERO))
		return true;
	else
		check_ref(c, hoff, q->cluster_bytes);
	if (active)
		note_fragment(c, entry, next);
	return false;
}

static int count_l2(struct fiber *f, struct check *c, u64 hoff, bool active)
{
	const struct qcow2 *q = c->q;
	bool dirty = false;
	u64 next = 0;
	int ret = qcow2_pread(f, q->img.below, hoff, c->l2, q->cluster_bytes);

	if (ret < 0) {
		check_line(c, "ERROR: I/O error in check_refcounts_l2");
		c->req->result.check_errors++;
		return ret;
	}
	for (u32 i = 0; i < q->l2_entries; i++) {
		u8 *at = c->l2 + ((u64)i << q->l2.entry_shift);
		u64 entry = load_be64(at);

		if (q->extended && judge_bitmap(c, entry, load_be64(at + 8), i))
			continue;
		if (q->data_external)
			note_external(c, entry, active, &next, i);
		else if (count_entry(c, entry, active, &next)) {
			store_be64(at, ENTRY_ZERO);
			dirty = true;
		}
	}
	if (!dirty || !l2_place_is_sound(q, hoff))
		return 0;
	c->changed = true;
	return qcow2_pwrite(f, c->q, hoff, c->l2, q->cluster_bytes);
}

/* --- L1 tables --- */

static int count_l1_entry(struct fiber *f, struct check *c, u64 entry, bool active)
{
	const struct qcow2 *q = c->q;
	u64 hoff = entry & ENTRY_HOFF;

	if (!hoff)
		return 0;
	if (entry & L1_RESERVED)
		check_corrupt(c, "ERROR found L1 entry with reserved bits set: %llx",
			      (unsigned long long)entry);
	if (!is_aligned(hoff, q->cluster_bytes))
		check_corrupt(c,
			      "ERROR l2_offset=%llx: Table is not cluster aligned; L1 entry "
			      "corrupted",
			      (unsigned long long)hoff);
	check_ref(c, hoff, q->cluster_bytes);
	if (hoff >= q->img.below->bytes)
		return 0; /* reads as zeros: nothing in it */
	return count_l2(f, c, hoff, active);
}

/* An L1 table as it lies on disk, a part at a time. */
static int count_l1(struct fiber *f, struct check *c, u64 l1_hoff, u32 entries, bool active)
{
	u32 most = MIN(MAX(entries, 1u), L1_PART);
	AUTO_FREE u8 *part = try_alloc(most * 8ull);
	int ret = part ? 0 : -ENOMEM;

	check_ref(c, l1_hoff, entries * 8ull);
	for (u32 i = 0; i < entries && ret == 0; i += most) {
		u32 n = MIN(entries - i, most);

		ret = qcow2_pread(f, c->q->img.below, l1_hoff + i * 8ull, part, n * 8ull);
		if (ret < 0) {
			check_line(c, "ERROR: I/O error in check_refcounts_l1");
			c->req->result.check_errors++;
		}
		for (u32 k = 0; k < n && ret == 0; k++)
			ret = count_l1_entry(f, c, load_be64(part + k * 8ull), active);
	}
	return ret;
}

/* --- the refcount structure --- */

static void count_block(struct check *c, u32 b)
{
	const struct qcow2 *q = c->q;
	u64 hoff = q->reftable[b] & REFTABLE_HOFF;
	u64 cluster = hoff >> q->cluster_bits;

	if (q->reftable[b] & ~REFTABLE_HOFF) {
		check_corrupt(c, "ERROR refcount table entry %u has reserved bits set", b);
		c->rebuild = true;
		return;
	}
	if (!hoff)
		return;
	if (!is_aligned(hoff, q->cluster_bytes)) {
		check_corrupt(c,
			      "ERROR refcount block %u is not cluster aligned; refcount table "
			      "entry corrupted",
			      b);
		c->rebuild = true;
		return;
	}
	if (cluster >= c->clusters) {
		check_corrupt(c, "ERROR refcount block %u is outside image", b);
		c->rebuild = true;
		return;
	}
	check_ref(c, hoff, q->cluster_bytes);
	if (cluster >= c->first && cluster < c->first + c->n &&
	    c->counts[cluster - c->first] != 1) {
		check_corrupt(c, "ERROR refcount block %u refcount=%u", b,
			      c->counts[cluster - c->first]);
		c->rebuild = true;
	}
}

static void count_structure(struct check *c)
{
	struct qcow2 *q = c->q;

	if (q->reftable_bad) {
		check_corrupt(c, "ERROR refcount table is invalid");
		c->rebuild = true;
		return;
	}
	check_ref(c, q->reftable_hoff, (u64)q->reftable_clusters << q->cluster_bits);
	for (u32 b = 0; b < q->reftable_n; b++)
		count_block(c, b);
}

static int count_snapshot(struct fiber *f, struct check *c, const struct qcow2_snapshot *s)
{
	if (!is_aligned(s->l1_hoff, c->q->cluster_bytes)) {
		check_corrupt(c,
			      "ERROR snapshot %s (%s) l1_offset=0x%llx: L1 table is not cluster "
			      "aligned; snapshot table entry corrupted",
			      s->id, s->name, (unsigned long long)s->l1_hoff);
		return 0;
	}
	if (s->l1_entries > QCOW2_MAX_L1_BYTES / 8) {
		check_corrupt(
			c,
			"ERROR snapshot %s (%s) l1_size=0x%x: L1 table is too large; snapshot "
			"table entry corrupted",
			s->id, s->name, s->l1_entries);
		return 0;
	}
	/* As the reference does: what lies behind the end is not read either. */
	if (s->l1_hoff >= c->q->img.below->bytes) {
		check_ref(c, s->l1_hoff, s->l1_entries * 8ull);
		return 0;
	}
	return count_l1(f, c, s->l1_hoff, s->l1_entries, false);
}

int check_count(struct fiber *f, struct check *c)
{
	struct qcow2 *q = c->q;
	int ret;

	memset(c->counts, 0, c->n * sizeof(*c->counts));
	check_ref(c, 0, q->cluster_bytes);
	ret = count_l1(f, c, q->l1_hoff, q->l1_entries, true);
	for (u32 i = 0; i < q->snapshot_count && ret == 0; i++)
		ret = count_snapshot(f, c, &q->snapshots[i]);
	check_ref(c, be64_get(q->head.snapshots_hoff), q->snapshot_bytes);
	check_ref(c, q->crypt.head_hoff, q->crypt.head_bytes);
	if (ret == 0)
		ret = check_bitmaps(f, c);
	if (c->structure && ret == 0)
		count_structure(c);
	return ret;
}
