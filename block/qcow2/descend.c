/* Going down a chain for a small read without a request to every layer.
 *
 * Between a writable top and the image that has the data may lie many that only say
 * "hole".  Images that are not writable say so for ever: the first of them remembers,
 * for clusters that were asked for, how many images from it on may be passed over, so
 * that a long chain costs a lookup, not a walk.
 *
 * What is remembered is a lower bound and never has to be complete: the memory is
 * bounded, a cluster's place in it is shared with others, and a table that is not in
 * memory ends the walk.  All is forgotten when the graph changes in any way
 * (loop_note_change): a chain is cut, an image becomes writable, one is closed.
 * Thread: the image's loop. */
#include "block/qcow2/descend.h"

#include "base/loop.h"
#include "block/driver.h"
#include "block/qcow2/parts.h"

#define DEPTHS_MIN  4		  /* shorter chains are walked */
#define DEPTHS_MOST 0xffffu	  /* images */
#define SLOTS_MOST  (128 * 1024u) /* of 8 bytes */
#define DEPTH_BITS  16

struct depths {
	u64 changes;   /* loop_changes when it was made */
	u32 n;	       /* images, of which only the last may be writable */
	u32 unit_bits; /* smallest cluster of them all */
	u64 mask;      /* of slots */
	u64 *slots;    /* unit + 1 in the upper bits, images to pass over in the lower */
	struct image *images[];
};

/* Is the range within one cluster of which a table in memory says that it is a
 * hole?  Takes nobody's word but the table's. */
static bool is_known_hole(struct qcow2 *q, u64 goff, u64 bytes)
{
	u32 l1_index = (u32)(goff >> (q->cluster_bits + q->l2_bits));
	u64 last = goff + bytes - 1;
	struct table *t;
	u32 i;

	if (unlikely((goff ^ last) >> q->cluster_bits || q->extended || q->crypt.method ||
		     l1_index >= q->l1_entries || !bytes))
		return false;
	i = (u32)(goff >> q->cluster_bits) & (q->l2_entries - 1);
	t = cache_peek(&q->l2, l1_index);
	if (!t && l2_has_slices(q)) {
		t = slice_peek(q, l1_index, i);
		i &= l2_slice_entries(q) - 1;
	}
	if (!t)
		return !q->l2.tables[l1_index] && !(q->l1[l1_index] & ENTRY_HOFF);
	return l2_kind(q, l2_entry(t, i)) == EXTENT_HOLE;
}

static bool may_pass(struct image *img, u64 goff, u64 bytes)
{
	return img->driver == &qcow2_driver && img->backing && goff < img->backing->bytes &&
	       bytes <= img->backing->bytes - goff && is_known_hole(to_qcow2(img), goff, bytes);
}

static struct image *walk(struct image *img, u64 goff, u64 bytes)
{
	while (may_pass(img, goff, bytes))
		img = img->backing;
	return img;
}

/* --- what is remembered ------------------------------------------------------- */

/* Images of the chain, from img on, that a memory can speak of. */
static u32 count_images(struct image *img, u32 *unit_bits)
{
	u32 n = 1;

	*unit_bits = 63;
	for (; img->backing && n < DEPTHS_MOST; img = img->backing, n++) {
		if (img->driver != &qcow2_driver || img->writable)
			break;
		*unit_bits = MIN(*unit_bits, to_qcow2(img)->cluster_bits);
	}
	return n;
}

/* NULL: there is no memory, or no need for it. */
static struct depths *depths_new(struct image *img, u64 changes)
{
	u32 unit_bits, n = count_images(img, &unit_bits);
	u64 slots = 1;
	struct depths *d;

	if (n < DEPTHS_MIN)
		return NULL;
	while (slots < SLOTS_MOST && slots << unit_bits < img->bytes)
		slots *= 2;
	d = try_alloc(sizeof(*d) + n * sizeof(struct image *));
	if (!d)
		return NULL;
	*d = (struct depths){.changes = changes, .n = n, .unit_bits = unit_bits, .mask = slots - 1};
	d->slots = try_alloc(slots * sizeof(u64));
	if (!d->slots) {
		free(d);
		return NULL;
	}
	for (u32 i = 0; i < n; i++, img = img->backing)
		d->images[i] = img;
	return d;
}

void depths_free(struct depths *d)
{
	if (d)
		free(d->slots);
	free(d);
}

static void set_depths(struct qcow2 *q, struct depths *d, u64 changes)
{
	depths_free(q->below.depths);
	q->below.depths = d;
	q->below.changes = changes;
}

static struct depths *depths_of(struct qcow2 *q)
{
	u64 changes = loop_changes(q->img.loop);

	if (likely(q->below.changes == changes))
		return q->below.depths;
	set_depths(q, depths_new(&q->img, changes), changes);
	/* One memory for all: reads that come from above pass the first. */
	for (u32 i = 1; q->below.depths && i < q->below.depths->n; i++)
		if (q->below.depths->images[i]->driver == &qcow2_driver)
			set_depths(to_qcow2(q->below.depths->images[i]), NULL, changes);
	return q->below.depths;
}

static struct image *recall(struct depths *d, u64 goff, u64 bytes)
{
	u64 unit = goff >> d->unit_bits, start = unit << d->unit_bits;
	u64 *slot = &d->slots[unit & d->mask];
	u32 known = *slot >> DEPTH_BITS == unit + 1 ? *slot & DEPTHS_MOST : 0, at = known;

	while (at + 1 < d->n && may_pass(d->images[at], start, 1ull << d->unit_bits))
		at++;
	if (at != known)
		*slot = (unit + 1) << DEPTH_BITS | at;
	return d->images[at];
}

struct image *descend(struct image *img, u64 goff, u64 bytes)
{
	struct depths *d;

	/* What may change is looked at each time. */
	while (img->writable && may_pass(img, goff, bytes))
		img = img->backing;
	if (img->writable || img->driver != &qcow2_driver || !img->backing)
		return img;
	d = depths_of(to_qcow2(img));
	if (d && goff >> d->unit_bits == (goff + bytes - 1) >> d->unit_bits)
		img = recall(d, goff, bytes);
	return walk(img, goff, bytes);
}
