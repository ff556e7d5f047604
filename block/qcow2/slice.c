/* Parts of L2 tables; see slice.h.
 *
 * Found by their place in the file, in a hash table; thrown out by second chance as
 * tables are.  Tables and parts together stay within what the cache of tables may take,
 * and neither drives the other below half of that.
 * Invariant: no part of a table that is in q->l2.  One that was being read when its
 * table came is `stale`: it is in no bucket any more, and whoever reads it drops it. */
#include "block/qcow2/slice.h"

#include "block/qcow2/parts.h"

#include <errno.h>

struct slice {
	struct table view; /* its link is on `here` */
	struct slice *next;
	u64 hoff; /* of the part */
	bool stale;
};

void slices_init(struct slices *s)
{
	*s = (struct slices){.count = 0};
	list_init(&s->here);
	fiber_queue_init(&s->loaded);
}

static struct slice *slice_of(struct list *link)
{
	struct table *view = list_entry(link, struct table, link);

	return container_of(view, struct slice, view);
}

static void slice_free(struct slice *p)
{
	if (p)
		free(p->view.data);
	free(p);
}

void slices_fini(struct slices *s)
{
	while (!list_empty(&s->here)) {
		struct slice *p = slice_of(s->here.next);

		list_del(&p->view.link);
		s->count--;
		slice_free(p);
	}
	assert(!s->count);
	free(s->buckets);
	s->buckets = NULL;
}

/* --- the hash table ---------------------------------------------------------------- */

static struct slice **bucket_of(struct slices *s, u64 hoff)
{
	/* Tables lie in a pattern, parts in each in another. */
	u64 mixed = hoff / L2_SLICE_BYTES * 0x9e3779b97f4a7c15ull;

	return &s->buckets[(u32)(mixed >> 32) % s->n_buckets];
}

static struct slice *find(struct slices *s, u64 hoff)
{
	struct slice *p = s->count ? *bucket_of(s, hoff) : NULL;

	while (p && p->hoff != hoff)
		p = p->next;
	return p;
}

static void take_out(struct slices *s, struct slice *p)
{
	struct slice **at = bucket_of(s, p->hoff);

	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	list_del(&p->view.link);
	s->count--;
}

bool l2_has_slices(const struct qcow2 *q)
{
	return q->l2.max < q->l2.n && q->cluster_bytes > L2_SLICE_BYTES && !q->extended;
}

u32 l2_slice_entries(const struct qcow2 *q)
{
	return L2_SLICE_BYTES >> q->l2.entry_shift;
}

/* --- room ---------------------------------------------------------------------------- */

static u64 limit_bytes(const struct qcow2 *q)
{
	return (u64)q->l2.max * q->cluster_bytes;
}

static bool is_full(const struct qcow2 *q, u32 more)
{
	return (u64)q->slices.count * L2_SLICE_BYTES + (u64)q->l2.count * q->cluster_bytes + more >
	       limit_bytes(q);
}

static bool has_half(const struct qcow2 *q)
{
	return (u64)q->slices.count * L2_SLICE_BYTES * 2 >= limit_bytes(q);
}

/* The oldest that was not used lately, out of everything; NULL: there is none. */
static struct slice *evict(struct slices *s)
{
	struct slice *p;

	if (list_empty(&s->here))
		return NULL;
	while ((p = slice_of(s->here.next))->view.used) {
		p->view.used = false;
		list_del(&p->view.link);
		list_append(&s->here, &p->view.link);
	}
	take_out(s, p);
	return p;
}

/* An old one whose memory is used again, or a new one: NULL, no memory. */
static struct slice *slice_new(struct qcow2 *q)
{
	struct slices *s = &q->slices;
	struct slice *p = NULL;
	u8 *data;

	if (is_full(q, L2_SLICE_BYTES) && (has_half(q) || !cache_evict(&q->l2)))
		p = evict(s);
	if (p)
		return p;
	p = try_alloc(sizeof(*p));
	data = try_alloc_aligned(L2_SLICE_BYTES, 512); /* more would cost as much again */
	if (p && data) {
		p->view.data = data;
		return p;
	}
	free(p);
	free(data);
	return NULL;
}

static int make_buckets(struct qcow2 *q)
{
	struct slices *s = &q->slices;

	if (s->buckets)
		return 0;
	s->n_buckets = (u32)(limit_bytes(q) / L2_SLICE_BYTES);
	s->buckets = try_alloc(s->n_buckets * sizeof(struct slice *));
	return s->buckets ? 0 : -ENOMEM;
}

/* --- lookups ------------------------------------------------------------------------- */

static int load(struct fiber *f, struct qcow2 *q, u64 table_hoff, u64 hoff)
{
	struct slices *s = &q->slices;
	struct slice *p, **bucket;
	int ret = make_buckets(q);

	p = ret == 0 ? slice_new(q) : NULL;
	if (!p)
		return -ENOMEM;
	p->view = (struct table){.hoff = table_hoff,
				 .entry_shift = q->l2.entry_shift,
				 .loading = true,
				 .used = true,
				 .data = p->view.data};
	list_init(&p->view.link);
	p->hoff = hoff;
	p->stale = false;
	bucket = bucket_of(s, hoff);
	p->next = *bucket;
	*bucket = p;
	s->count++;
	ret = qcow2_pread(f, q->img.below, hoff, p->view.data, L2_SLICE_BYTES);
	p->view.loading = false;
	fiber_queue_wake_all(&s->loaded);
	if (ret == 0 && !p->stale) {
		list_append(&s->here, &p->view.link);
		return 0;
	}
	if (!p->stale)
		take_out(s, p);
	slice_free(p);
	return ret;
}

static u64 part_hoff(const struct qcow2 *q, u64 table_hoff, u32 i)
{
	return table_hoff + align_down((u64)i << q->l2.entry_shift, L2_SLICE_BYTES);
}

/* Where its table is, if it is the file alone that has it; 0: not so. */
static u64 place_of(const struct qcow2 *q, u32 l1_index)
{
	u64 hoff = q->l1[l1_index] & ENTRY_HOFF;

	/* What is not aligned is for the whole table's reader to find. */
	return q->l2.tables[l1_index] || !is_aligned(hoff, q->cluster_bytes) ? 0 : hoff;
}

int slice_get(struct fiber *f, struct qcow2 *q, u32 l1_index, u32 i, struct table **out)
{
	int ret = 0;

	*out = NULL;
	/* Others may come first whenever this waits. */
	while (ret == 0 && l1_index < q->l1_entries) {
		u64 table_hoff = place_of(q, l1_index), hoff = part_hoff(q, table_hoff, i);
		struct slice *p = table_hoff ? find(&q->slices, hoff) : NULL;

		if (!table_hoff)
			return 0;
		if (!p) {
			ret = load(f, q, table_hoff, hoff);
		} else if (p->view.loading) {
			fiber_queue_wait(f, &q->slices.loaded);
		} else {
			p->view.used = true;
			p->view.index = l1_index;
			*out = &p->view;
			return 0;
		}
	}
	return ret;
}

struct table *slice_peek(struct qcow2 *q, u32 l1_index, u32 i)
{
	u64 table_hoff = place_of(q, l1_index);
	struct slice *p = table_hoff ? find(&q->slices, part_hoff(q, table_hoff, i)) : NULL;

	if (!p || p->view.loading)
		return NULL;
	p->view.used = true;
	p->view.index = l1_index;
	return &p->view;
}

/* --- what is not so any more ------------------------------------------------------------ */

static void forget(struct slices *s, struct slice *p)
{
	take_out(s, p);
	p->stale = p->view.loading;
	if (!p->stale)
		slice_free(p);
}

void slices_forget(struct qcow2 *q, u64 hoff)
{
	struct slices *s = &q->slices;

	for (u32 at = 0; s->count && at < q->cluster_bytes; at += L2_SLICE_BYTES) {
		struct slice *p = find(s, hoff + at);

		if (p)
			forget(s, p);
	}
}

void slices_make_room(struct qcow2 *q)
{
	struct slices *s = &q->slices;

	while (s->count && is_full(q, q->cluster_bytes)) {
		if (!has_half(q) && cache_evict(&q->l2))
			continue;
		if (list_empty(&s->here))
			return;
		slice_free(evict(s));
	}
}

void slices_forget_all(struct qcow2 *q)
{
	struct slices *s = &q->slices;

	for (u32 b = 0; s->count && b < s->n_buckets; b++)
		while (s->buckets[b])
			forget(s, s->buckets[b]);
}
