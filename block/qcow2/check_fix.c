/* Comparing refcounts and COPIED flags with what was counted, and repairing.
 *
 * Repairs in place change single entries.  When the refcount structure itself is
 * damaged, a new one is written behind everything else and the header switched to
 * it: until then the image is as it was.  Thread: the image's loop. */
#include "block/qcow2/check.h"

#include <errno.h>

/* --- refcounts --- */

/* One cluster whose refcount differs; true if its entry was changed. */
static bool settle(struct check *c, u64 cluster, u64 have, u32 want, u32 i)
{
	struct check_result *r = &c->req->result;
	bool low = have < want, fix = low ? c->req->fix_errors : c->req->fix_leaks;

	if (!c->fixing || c->rebuild || want > refcount_max(c->q))
		fix = false;
	c->zero_seen |= !have;
	*(low ? &c->low : &c->high) += 1;
	check_line(c, "%s cluster %llu refcount=%llu reference=%u",
		   fix	 ? "Repairing"
		   : low ? "ERROR"
			 : "Leaked",
		   (unsigned long long)cluster, (unsigned long long)have, want);
	if (fix) {
		refcount_store(c->q, c->block, i, want);
		*(low ? &r->corruptions_fixed : &r->leaks_fixed) += 1;
	} else {
		*(low ? &r->corruptions : &r->leaks) += 1;
	}
	return fix;
}

/* Where block b lies, 0: nowhere usable. */
static u64 block_hoff(const struct qcow2 *q, u64 b)
{
	u64 hoff = b < q->reftable_n ? q->reftable[b] & REFTABLE_HOFF : 0;

	return is_aligned(hoff, q->cluster_bytes) && hoff < q->img.below->bytes ? hoff : 0;
}

/* Clusters [from, to) lie in one block. */
static int compare_block(struct fiber *f, struct check *c, u64 from, u64 to)
{
	struct qcow2 *q = c->q;
	u64 hoff = block_hoff(q, from >> q->refblock_bits);
	bool dirty = false;
	int ret = 0;

	memset(c->block, 0, q->cluster_bytes);
	if (hoff)
		ret = qcow2_pread(f, q->img.below, hoff, c->block, q->cluster_bytes);
	if (ret < 0) {
		check_line(c, "Can't get refcount for cluster %llu", (unsigned long long)from);
		c->req->result.check_errors++;
		c->rebuild = true;
		return 0;
	}
	for (u64 k = from; k < to; k++) {
		u32 i = (u32)(k & (q->refblock_entries - 1)), want = c->counts[k - c->first];
		u64 have = refcount_load(q, c->block, i);

		if (have || want)
			c->highest = k;
		if (have == want)
			continue;
		if (!hoff) /* there is no entry to put it in */
			c->rebuild = true;
		dirty |= settle(c, k, have, want, i);
	}
	if (!dirty)
		return 0;
	c->changed = true;
	return qcow2_pwrite(f, q, hoff, c->block, q->cluster_bytes);
}

int check_compare(struct fiber *f, struct check *c)
{
	u64 end = MIN(c->first + c->n, c->clusters), per = c->q->refblock_entries;
	int ret = 0;

	for (u64 from = c->first, to; from < end && ret == 0; from = to) {
		to = MIN(align_down(from, per) + per, end);
		ret = compare_block(f, c, from, to);
	}
	return ret;
}

/* --- COPIED flags --- */

static int stored_refcount(struct fiber *f, struct qcow2 *q, u64 hoff, u64 *out)
{
	u64 cluster = hoff >> q->cluster_bits, b = cluster >> q->refblock_bits;
	struct table *t = NULL;
	int ret = 0;

	*out = 0;
	if (block_hoff(q, b))
		ret = refblock_get(f, q, b, &t);
	if (t)
		*out = refcount_load(q, t->data, (u32)(cluster & (q->refblock_entries - 1)));
	return ret;
}

/* The flag as it should be, with what that takes of lines and figures. */
static u64 judge_flag(struct check *c, u64 entry, u64 refcount, u32 l1_index, bool l1)
{
	struct check_result *r = &c->req->result;
	const char *say = c->fix_flags ? "Repairing" : "ERROR";

	if ((refcount == 1) == !!(entry & ENTRY_COPIED))
		return entry;
	if (l1)
		check_line(c, "%s OFLAG_COPIED L2 cluster: l1_index=%u l1_entry=%llx refcount=%llu",
			   say, l1_index, (unsigned long long)entry, (unsigned long long)refcount);
	else
		check_line(c, "%s OFLAG_COPIED data cluster: l2_entry=%llx refcount=%llu", say,
			   (unsigned long long)entry, (unsigned long long)refcount);
	if (!c->fix_flags) {
		r->corruptions++;
		return entry;
	}
	r->corruptions_fixed++;
	return entry ^ ENTRY_COPIED;
}

static int copied_in_l2(struct fiber *f, struct check *c, u64 hoff)
{
	struct qcow2 *q = c->q;
	bool dirty = false;
	int ret = qcow2_pread(f, q->img.below, hoff, c->l2, q->cluster_bytes);

	for (u32 i = 0; i < q->l2_entries && ret == 0; i++) {
		u8 *place = c->l2 + ((u64)i << q->l2.entry_shift);
		u64 entry = load_be64(place), at = entry & ENTRY_HOFF, now, refcount;

		if (entry & ENTRY_COMPRESSED || !at)
			continue;
		ret = stored_refcount(f, q, at, &refcount);
		if (ret < 0)
			break;
		now = judge_flag(c, entry, refcount, 0, false);
		store_be64(place, now);
		dirty |= now != entry;
	}
	if (ret == 0 && dirty) {
		c->changed = true;
		ret = qcow2_pwrite(f, q, hoff, c->l2, q->cluster_bytes);
	}
	return ret;
}

static int copied_in_l1(struct fiber *f, struct check *c, u32 i)
{
	struct qcow2 *q = c->q;
	u64 entry = q->l1[i], hoff = entry & ENTRY_HOFF, refcount, now;
	int ret;
	be64 raw;

	if (!hoff)
		return 0;
	ret = stored_refcount(f, q, hoff, &refcount);
	if (ret < 0)
		return ret;
	now = judge_flag(c, entry, refcount, i, true);
	if (now != entry) {
		c->changed = true;
		q->l1[i] = now;
		raw = be64_of(now);
		ret = qcow2_pwrite(f, q, q->l1_hoff + i * 8ull, &raw, sizeof(raw));
	}
	if (hoff >= q->img.below->bytes || !l2_place_is_sound(q, hoff))
		return ret;
	/* Clusters of a data file have no refcounts. */
	return ret < 0 || q->data_external ? ret : copied_in_l2(f, c, hoff);
}

int check_copied(struct fiber *f, struct check *c)
{
	const struct check_result *r = &c->req->result;
	int ret = 0;

	/* The flags follow the refcounts: who fixes leaks only may fix them where
	 * these are right. */
	c->fix_flags = c->req->fix_errors ||
		       (c->req->fix_leaks && !r->corruptions && !r->leaks && !r->check_errors);

	for (u32 i = 0; i < c->q->l1_entries && ret == 0; i++)
		ret = copied_in_l1(f, c, i);
	if (ret < 0)
		c->req->result.check_errors++;
	return ret;
}

/* --- a new refcount structure --- */

struct rebuild {
	u64 table, table_n; /* first cluster, count */
	u64 blocks, blocks_n;
	u64 end;
};

static int plan(const struct check *c, struct rebuild *r, struct error *err)
{
	const struct qcow2 *q = c->q;
	u64 used = 0, before;

	for (u64 i = 0; i < c->n; i++)
		if (c->counts[i])
			used = i + 1;
	r->table_n = r->blocks_n = 1;
	do {
		before = r->table_n + r->blocks_n;
		r->end = used + before;
		r->blocks_n = (r->end + q->refblock_entries - 1) >> q->refblock_bits;
		r->table_n = clusters_of(q, r->blocks_n * 8);
	} while (r->table_n + r->blocks_n != before);
	r->blocks = used;
	r->table = used + r->blocks_n;
	if (r->table_n << q->cluster_bits > QCOW2_MAX_REFTABLE_BYTES)
		return err_set(err, -EFBIG, "The new refcount table would be too large");
	if (!q->img.below->grows && r->end << q->cluster_bits > q->img.below->bytes)
		return err_set(err, -ENOSPC, "No room for a new refcount structure");
	return 0;
}

static int write_new_blocks(struct fiber *f, struct check *c, const struct rebuild *r)
{
	struct qcow2 *q = c->q;
	int ret = 0;

	for (u64 b = 0; b < r->blocks_n && ret == 0; b++) {
		memset(c->block, 0, q->cluster_bytes);
		for (u32 i = 0; i < q->refblock_entries; i++) {
			u64 k = (b << q->refblock_bits) + i;
			u64 value = k >= r->blocks && k < r->end ? 1 : 0;

			if (k < r->blocks)
				value = MIN((u64)c->counts[k], refcount_max(q));
			refcount_store(q, c->block, i, value);
		}
		ret = qcow2_pwrite(f, q, (r->blocks + b) << q->cluster_bits, c->block,
				   q->cluster_bytes);
	}
	return ret;
}

static int write_new_table(struct fiber *f, struct check *c, const struct rebuild *r)
{
	struct qcow2 *q = c->q;
	u64 per = q->cluster_bytes / 8;
	int ret = 0;

	for (u64 t = 0; t < r->table_n && ret == 0; t++) {
		memset(c->block, 0, q->cluster_bytes);
		for (u64 i = 0; i < per && t * per + i < r->blocks_n; i++)
			store_be64(c->block + i * 8, (r->blocks + t * per + i) << q->cluster_bits);
		ret = qcow2_pwrite(f, q, (r->table + t) << q->cluster_bits, c->block,
				   q->cluster_bytes);
	}
	return ret;
}

int check_rebuild(struct fiber *f, struct check *c, struct error *err)
{
	struct qcow2 *q = c->q;
	struct rebuild r;
	int ret = plan(c, &r, err);

	if (ret < 0)
		return ret;
	check_line(c, "Rebuilding refcount structure");
	ret = write_new_blocks(f, c, &r);
	if (ret == 0)
		ret = write_new_table(f, c, &r);
	if (ret == 0)
		ret = file_sync(f, q);
	if (ret == 0) {
		q->head.reftable_hoff = be64_of(r.table << q->cluster_bits);
		q->head.reftable_clusters = be32_of((u32)r.table_n);
		ret = header_write(f, q);
	}
	if (ret == 0)
		ret = file_sync(f, q);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not write a new refcount structure");
	q->reftable_hoff = r.table << q->cluster_bits;
	q->reftable_clusters = (u32)r.table_n;
	q->reftable_bad = false;
	c->changed = true;
	return 0;
}
