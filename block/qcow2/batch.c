/* Metadata writes that go out together; see batch.h. */
#include "block/qcow2/batch.h"

#include "base/io.h"
#include "block/group.h"

#include <errno.h>

#define HOST_BLOCK  4096u
#define WHOLE_BYTES (64 * KiB) /* tables up to here are written whole */

static int make_room(struct batch *b)
{
	size_t room = b->room ? 2 * b->room : 16;
	struct piece *pieces;

	if (b->n < b->room)
		return 0;
	pieces = try_alloc(room * sizeof(*pieces));
	if (!pieces)
		return -ENOMEM;
	if (b->n)
		memcpy(pieces, b->pieces, b->n * sizeof(*pieces));
	free(b->pieces);
	b->pieces = pieces;
	b->room = room;
	return 0;
}

int batch_add(struct batch *b, u64 hoff, u32 bytes, struct piece **out)
{
	int ret = make_room(b);
	struct piece *p;

	if (ret < 0)
		return ret;
	p = &b->pieces[b->n];
	*p = (struct piece){.hoff = hoff, .bytes = bytes};
	p->data = try_alloc_aligned(bytes, bytes < 4096 ? 512 : 4096);
	if (!p->data)
		return -ENOMEM;
	b->n++;
	*out = p;
	return 0;
}

int batch_add_table(struct batch *b, struct qcow2 *q, struct table_cache *c, struct table *t,
		    struct list *committing)
{
	u32 lo = (u32)align_down(t->dirty_lo, q->granule);
	u32 hi = (u32)align_up(t->dirty_hi, q->granule);
	struct piece *p;
	int ret = batch_add(b, t->hoff + lo, hi - lo, &p);

	if (ret < 0)
		return ret;
	assert(!t->fresh || (lo == 0 && hi == c->table_bytes));
	memcpy(p->data, t->data + lo, hi - lo);
	p->table = t;
	p->lo = lo;
	p->blank = t->blank && c->table_bytes > WHOLE_BYTES;
	t->blank = false; /* if this fails, a part of it may be there */
	cache_commit_begin(c, t, committing);
	return 0;
}

static void write_part(struct fiber *f, struct image_group *group, struct qcow2 *q,
		       const struct piece *p, u32 from, u32 to)
{
	struct iovec iov = {p->data + from, to - from};
	struct image_transfer t = {
		.fn = image_write,
		.img = q->img.below,
		.offset = p->hoff + from,
		.iov = &iov,
		.n = 1,
		.bytes = iov.iov_len,
	};

	if (from < to)
		image_group_add(f, group, &t);
}

/* What is not zeros, and the last granule, so that the file reaches as far as the
 * table: a large table of a small disk takes a block of the host, not a cluster.  Not
 * so with small ones: a file with much less room than clusters looks like one whose
 * metadata were made ahead, and readers then look for holes in its data. */
static void write_blank(struct fiber *f, struct image_group *group, struct qcow2 *q,
			const struct piece *p)
{
	u32 step = MAX(q->granule, HOST_BLOCK), start = 0;

	for (u32 at = 0; at < p->bytes; at += step) {
		u32 end = MIN(at + step, p->bytes);
		struct iovec iov = {p->data + at, end - at};

		if (end == p->bytes || !iov_is_zero(&iov, 1))
			continue;
		write_part(f, group, q, p, start, at);
		start = end;
	}
	write_part(f, group, q, p, start, p->bytes);
}

int batch_write(struct fiber *f, struct qcow2 *q, const struct batch *b)
{
	struct image_group group;
	int ret;

	image_group_init(&group);
	for (size_t i = 0; i < b->n; i++) {
		const struct piece *p = &b->pieces[i];

		if (p->blank)
			write_blank(f, &group, q, p);
		else
			write_part(f, &group, q, p, 0, p->bytes);
	}
	ret = image_group_wait(f, &group);
	if (!b->may_be_lost)
		q->written += b->n;
	return ret;
}

void batch_undo(const struct batch *b, struct table_cache *c)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct piece *p = &b->pieces[i];

		if (p->table)
			cache_mark_dirty(c, p->table, p->lo, p->lo + p->bytes);
	}
}

void batch_fini(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++)
		free(b->pieces[i].data);
	free(b->pieces);
	*b = (struct batch){0};
}
