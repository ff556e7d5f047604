/* Who refers to what: the states of an image (its snapshots by date, the active one
 * last) and the clusters each holds alone or shares.
 *
 * L1 tables are read side by side, a slice at a time.  An L2 table that several
 * states name is walked once, for all of them: a group is a table and the set of
 * states that name it.  Every cluster of the window has such a set too, to which a
 * walk adds the group's; clusters with equal sets are then tallied in runs.
 *
 * Memory: MASK_BYTES for the sets of a window of clusters (a byte each per 8 states,
 * at least 8), SLICE_BYTES for L1 tables, a batch of L2 tables.  A file with more
 * clusters takes another pass over the tables per window; windows that nothing
 * refers to are skipped.  Places beyond the file or not aligned are counted, not
 * followed.  QEMU's docs/interop/qcow2, "Cluster mapping", "Snapshots".
 * Thread: the image's loop. */
#define _GNU_SOURCE /* qsort_r */
#include "block/qcow2/snapshot_tree.h"

#include "block/qcow2/pivot.h"
#include "block/qcow2/snapshot_int.h"

#include <errno.h>

#define MASK_BYTES  (64 * MiB)
#define SLICE_BYTES (4 * MiB)
#define GROUPS	    64u

/* A table that these states name. */
struct group {
	u64 hoff;
	bool vm;
	u64 *mask;
};

struct tree {
	struct qcow2 *q;
	struct qcow2_tree *out;
	u32 n, words;	       /* states; of a set */
	u64 total, first, len; /* clusters there are; the window */
	u64 next;	       /* lowest cluster behind the window that is referred to */
	u64 *masks;	       /* per cluster of the window */
	u64 *slice;	       /* per state, slice_n entries of L1 */
	u32 slice_n;
	struct group groups[GROUPS];
	u64 *group_masks;
	u64 hoffs[GROUPS];
	u32 group_n;
	bool once; /* in the first window: what is counted once */
};

/* --- sets of states --- */

static bool has(const u64 *mask, u32 s)
{
	return mask[s / 64] >> (s % 64) & 1;
}

static void add(u64 *mask, u32 s)
{
	mask[s / 64] |= (u64)1 << (s % 64);
}

/* n clusters, for the states of this set. */
static void mark(struct tree *t, u64 cluster, u64 n, const struct group *g)
{
	u64 *m;

	if (cluster >= t->total || n > t->total - cluster) {
		t->out->damaged += t->once;
		return;
	}
	for (u64 c = cluster; c < cluster + n; c++) {
		if (c >= t->first + t->len)
			t->next = MIN(t->next, c);
		if (c < t->first || c - t->first >= t->len)
			continue;
		m = t->masks + (c - t->first) * t->words;
		for (u32 w = 0; w < t->words; w++)
			m[w] |= g->mask[w];
	}
}

/* --- walking --- */

static void mark_vm(struct tree *t, const struct group *g, u64 clusters)
{
	for (u32 s = 0; g->vm && t->once && s < t->n; s++)
		if (has(g->mask, s))
			t->out->states[s].vm += clusters << t->q->cluster_bits;
}

static u64 mark_entry(struct tree *t, const struct group *g, u64 entry)
{
	struct qcow2 *q = t->q;
	u64 hoff = entry & ENTRY_HOFF, n = 1;

	if (entry & ENTRY_COMPRESSED) {
		compressed_span(q, entry, &hoff, &n);
	} else if (!hoff) {
		return 0;
	} else if (!is_aligned(hoff, q->cluster_bytes)) {
		t->out->damaged += t->once;
		return 0;
	}
	if (n)
		mark(t, hoff >> q->cluster_bits, n, g);
	return n;
}

static int walk_table(struct fiber *f, struct pivot *p, u32 i, u8 *data, void *arg)
{
	struct tree *t = arg;
	const struct group *g = &t->groups[i];
	u64 n = 1, entry;

	mark(t, g->hoff >> t->q->cluster_bits, 1, g);
	for (u32 k = 0; k < t->q->l2_entries; k++) {
		entry = load_be64(data + ((u64)k << t->q->l2.entry_shift));
		if (entry)
			n += mark_entry(t, g, entry);
	}
	mark_vm(t, g, n);
	return 0;
}

static int flush_groups(struct fiber *f, struct tree *t)
{
	struct pivot p = {.q = t->q};
	const struct pivot_walk w = {.l1 = t->hoffs, .n = t->group_n, .fn = walk_table, .arg = t};
	int ret = t->group_n ? pivot_walk(f, &p, &w) : 0;

	t->group_n = 0;
	return ret;
}

/* State s names this table. */
static int take_entry(struct fiber *f, struct tree *t, u32 s, u64 hoff, bool vm)
{
	struct group *g;
	int ret = 0;

	if (!hoff)
		return 0;
	if (!is_aligned(hoff, t->q->cluster_bytes) || hoff >> t->q->cluster_bits >= t->total) {
		t->out->damaged += t->once;
		return 0;
	}
	for (u32 i = t->group_n; i-- > 0;)
		if (t->groups[i].hoff == hoff && t->groups[i].vm == vm) {
			add(t->groups[i].mask, s);
			return 0;
		}
	if (t->group_n == GROUPS)
		ret = flush_groups(f, t);
	g = &t->groups[t->group_n];
	g->hoff = t->hoffs[t->group_n] = hoff;
	g->vm = vm;
	g->mask = t->group_masks + (u64)t->group_n++ * t->words;
	memset(g->mask, 0, t->words * sizeof(*g->mask));
	add(g->mask, s);
	return ret;
}

/* --- L1 tables --- */

static const struct qcow2_snapshot *snapshot_of(const struct tree *t, u32 s)
{
	u32 index = t->out->states[s].index;

	return index == QCOW2_ACTIVE ? NULL : &t->q->snapshots[index];
}

static u32 l1_of(const struct tree *t, u32 s, u64 *hoff, u64 *disk_bytes)
{
	const struct qcow2_snapshot *snapshot = snapshot_of(t, s);

	*hoff = snapshot ? snapshot->l1_hoff : t->q->l1_hoff;
	*disk_bytes = snapshot ? snapshot->disk_bytes : t->q->img.bytes;
	if (snapshot && !snapshot_l1_is_sound(t->q, snapshot))
		return 0;
	return snapshot ? snapshot->l1_entries : t->q->l1_entries;
}

/* Entries [from, from + slice_n) of a state; what is not there is 0. */
static int load_slice(struct fiber *f, struct tree *t, u32 s, u32 from)
{
	u64 *to = t->slice + (u64)s * t->slice_n, hoff, disk_bytes;
	u32 have = l1_of(t, s, &hoff, &disk_bytes), n = have > from ? have - from : 0;
	int ret;

	n = MIN(n, t->slice_n);
	memset(to, 0, t->slice_n * sizeof(*to));
	if (!n)
		return 0;
	if (!snapshot_of(t, s)) {
		for (u32 i = 0; i < n; i++)
			to[i] = t->q->l1[from + i] & ENTRY_HOFF;
		return 0;
	}
	ret = qcow2_pread(f, t->q->img.below, hoff + from * 8ull, to, n * 8ull);
	for (u32 i = 0; i < n; i++)
		to[i] = load_be64(&to[i]) & ENTRY_HOFF;
	return ret;
}

static int take_slice(struct fiber *f, struct tree *t, u32 from)
{
	int ret = 0;

	for (u32 s = 0; s < t->n && ret == 0; s++)
		ret = load_slice(f, t, s, from);
	for (u32 i = 0; i < t->slice_n; i++)
		for (u32 s = 0; s < t->n && ret == 0; s++) {
			u64 entry = t->slice[(u64)s * t->slice_n + i], hoff, disk;

			if (!entry)
				continue;
			(void)l1_of(t, s, &hoff, &disk);
			ret = take_entry(f, t, s, entry,
					 (from + (u64)i) >=
						 disk / l2_span(t->q) + !!(disk % l2_span(t->q)));
		}
	return ret;
}

/* The clusters of the L1 tables themselves. */
static void mark_l1(struct tree *t)
{
	struct group g = {.mask = t->group_masks};

	for (u32 s = 0; s < t->n; s++) {
		u64 hoff, disk_bytes;
		u32 entries = l1_of(t, s, &hoff, &disk_bytes);

		memset(g.mask, 0, t->words * sizeof(*g.mask));
		add(g.mask, s);
		if (entries && hoff)
			mark(t, hoff >> t->q->cluster_bits, clusters_of(t->q, entries * 8ull), &g);
	}
}

/* --- tallying --- */

static void tally_pairs(struct tree *t, u32 s, const u64 *mask, u64 bytes)
{
	struct qcow2_tree *out = t->out;

	for (u32 e = out->shared || !s ? 0 : s - 1; e < s; e++)
		if (has(mask, e) && out->shared)
			out->shared[(u64)s * t->n + e] += bytes;
		else if (has(mask, e))
			out->states[s].from_bytes += bytes;
}

/* A run of clusters with this set. */
static void tally(struct tree *t, const u64 *mask, u64 clusters)
{
	u64 bytes = clusters << t->q->cluster_bits;
	u32 holders = 0, last = 0;

	for (u32 w = 0; w < t->words; w++) {
		for (u64 rest = mask[w]; rest; rest &= rest - 1) {
			last = w * 64 + (u32)__builtin_ctzll(rest);
			holders++;
			t->out->states[last].bytes += bytes;
			tally_pairs(t, last, mask, bytes);
		}
	}
	if (holders == 1)
		t->out->states[last].alone += bytes;
}

static void tally_window(struct tree *t)
{
	size_t bytes = t->words * sizeof(u64);

	for (u64 c = 0, end; c < t->len; c = end) {
		const u64 *mask = t->masks + c * t->words;

		end = c + 1;
		while (end < t->len && !memcmp(mask, t->masks + end * t->words, bytes))
			end++;
		tally(t, mask, end - c);
	}
}

static int run_window(struct fiber *f, struct tree *t)
{
	u64 hoff, disk_bytes;
	u32 most = 0;
	int ret = 0;

	memset(t->masks, 0, t->len * t->words * sizeof(*t->masks));
	t->next = UINT64_MAX;
	mark_l1(t);
	for (u32 s = 0; s < t->n; s++)
		most = MAX(most, l1_of(t, s, &hoff, &disk_bytes));
	for (u64 from = 0; from < most && ret == 0; from += t->slice_n)
		ret = take_slice(f, t, (u32)from);
	if (ret == 0)
		ret = flush_groups(f, t);
	if (ret == 0)
		tally_window(t);
	t->once = false;
	return ret;
}

static int run_windows(struct fiber *f, struct tree *t)
{
	u64 most = MAX(MASK_BYTES / (t->words * sizeof(u64)), (u64)1);
	int ret = 0;

	t->total = clusters_of(t->q, t->q->img.below->bytes);
	most = MIN(most, t->total);
	t->slice_n = (u32)MIN(MAX(SLICE_BYTES / 8 / t->n, (u64)8), (u64)4096);
	t->masks = try_alloc(MAX(most, (u64)1) * t->words * sizeof(*t->masks));
	t->slice = try_alloc((u64)t->n * t->slice_n * sizeof(*t->slice));
	t->group_masks = try_alloc((u64)GROUPS * t->words * sizeof(*t->group_masks));
	if (!t->masks || !t->slice || !t->group_masks)
		return -ENOMEM;
	t->once = true;
	for (u64 first = 0; first < t->total && ret == 0; first = t->next) {
		t->first = first;
		t->len = MIN(most, t->total - first);
		ret = run_window(f, t);
	}
	return ret;
}

/* --- the result --- */

static int by_date(const void *left, const void *right, void *arg)
{
	const struct qcow2_state_use *a = left, *b = right;
	const struct qcow2 *q = arg;
	const struct qcow2_snapshot *x = &q->snapshots[a->index], *y = &q->snapshots[b->index];

	if (x->date_sec != y->date_sec)
		return x->date_sec < y->date_sec ? -1 : 1;
	if (x->date_nsec != y->date_nsec)
		return x->date_nsec < y->date_nsec ? -1 : 1;
	return a->index < b->index ? -1 : a->index > b->index;
}

static int prepare(struct tree *t)
{
	struct qcow2_tree *out = t->out;

	out->n = t->n = t->q->snapshot_count + 1;
	t->words = (t->n + 63) / 64;
	out->states = try_alloc(t->n * sizeof(*out->states));
	if (t->n <= QCOW2_PAIR_STATES)
		out->shared = try_alloc((u64)t->n * t->n * sizeof(*out->shared));
	if (!out->states || (t->n <= QCOW2_PAIR_STATES && !out->shared))
		return -ENOMEM;
	for (u32 s = 0; s < t->n; s++)
		out->states[s] = (struct qcow2_state_use){.index = s, .from = -1};
	out->states[t->n - 1].index = QCOW2_ACTIVE;
	qsort_r(out->states, t->n - 1, sizeof(*out->states), by_date, t->q);
	return 0;
}

/* The later of those that share as much. */
static void find_origins(struct qcow2_tree *out)
{
	for (u32 s = 1; s < out->n; s++) {
		struct qcow2_state_use *u = &out->states[s];

		if (!out->shared && u->from_bytes)
			u->from = s - 1;
		for (u32 e = 0; out->shared && e < s; e++) {
			u64 bytes = out->shared[(u64)s * out->n + e];

			if (!bytes || bytes < u->from_bytes)
				continue;
			u->from = e;
			u->from_bytes = bytes;
		}
	}
}

int qcow2_tree(struct fiber *f, struct image *img, struct qcow2_tree *out, struct error *err)
{
	struct tree t = {.q = to_qcow2(img), .out = out};
	int ret;

	*out = (struct qcow2_tree){0};
	if (t.q->data_external)
		return err_set(err, -ENOTSUP, "Images with an external data file share nothing");
	ret = prepare(&t);
	if (ret == 0)
		ret = run_windows(f, &t);
	free(t.masks);
	free(t.slice);
	free(t.group_masks);
	if (ret < 0) {
		qcow2_tree_fini(out);
		return err_set_errno(err, ret, "Could not read the tables of the image");
	}
	find_origins(out);
	return 0;
}

void qcow2_tree_fini(struct qcow2_tree *t)
{
	free(t->states);
	free(t->shared);
	*t = (struct qcow2_tree){0};
}
