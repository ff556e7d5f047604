/* A walk over the maps of a chain; see map_cursor.h.  Thread: the images' loop. */
#include "block/map_cursor.h"

#include "block/driver.h"
#include "block/file.h"

#include <errno.h>

#define UNMAPPED_BYTES 512 /* that count as data when their map is damaged */

struct map_layer {
	struct image *img;
	u64 start; /* of what it answered */
	struct map_extent last;
	enum { UNKNOWN, SOLID, SPARSE } file; /* are there holes under clusters? */
};

void map_cursor_init(struct map_cursor *c, struct image *top, const struct image *end)
{
	unsigned n = 0;

	*c = (struct map_cursor){0};
	for (const struct image *img = top; img && img != end; img = img->backing)
		n++;
	c->layers = xnew_n(struct map_layer, MAX(n, 1u));
	for (struct image *img = top; c->n < n; img = img->backing)
		c->layers[c->n++].img = img;
}

void map_cursor_fini(struct map_cursor *c)
{
	free(c->layers);
	*c = (struct map_cursor){0};
}

void map_cursor_forget(struct map_cursor *c)
{
	for (unsigned i = 0; i < c->n; i++)
		c->layers[i].last.bytes = 0;
}

/* What one layer says, from its last answer if that reaches so far. */
static int ask(struct fiber *f, struct map_cursor *c, struct map_layer *l, u64 goff,
	       struct map_extent *out)
{
	u64 skip, left = l->img->bytes - goff;
	int ret;

	if (goff < l->start || goff - l->start >= l->last.bytes) {
		ret = image_map(f, l->img, goff, left, &l->last);
		if (ret < 0)
			l->last.bytes = 0;
		if (ret < 0 && !c->unmapped)
			return ret;
		if (ret < 0) {
			c->unmapped(c, goff, -ret);
			l->last = (struct map_extent){.bytes = MIN((u64)UNMAPPED_BYTES, left),
						      .kind = MAP_DATA | MAP_ALLOC};
		}
		l->start = goff;
	}
	skip = goff - l->start;
	*out = l->last;
	out->bytes -= skip;
	if (out->kind & MAP_HOFF)
		out->hoff += skip;
	return 0;
}

/* Metadata that was made ahead gives clusters to data that was never written: then
 * the file takes much less room than it is long. */
static bool is_sparse(struct map_layer *l)
{
	struct image *file = l->img->below;
	u64 allocated;

	if (l->file == UNKNOWN) {
		while (file && file->below)
			file = file->below;
		l->file = SOLID;
		if (file && file->driver == &file_driver &&
		    file_allocated_bytes(file, &allocated) == 0 &&
		    file->bytes > allocated + allocated / 9 + 128 * KiB)
			l->file = SPARSE;
	}
	return l->file == SPARSE;
}

static int find_holes_below(struct fiber *f, struct map_layer *l, struct map_extent *e)
{
	struct map_extent below;
	int ret;

	if (!(e->kind & MAP_DATA) || !(e->kind & MAP_HOFF) || l->img->driver == &raw_driver ||
	    e->file != l->img->below || e->hoff >= e->file->bytes || !is_sparse(l))
		return 0;
	ret = image_map(f, e->file, e->hoff, e->bytes, &below);
	if (ret < 0)
		return ret;
	e->kind |= below.kind & MAP_ZERO;
	e->bytes = MIN(e->bytes, below.bytes);
	return 0;
}

int map_cursor_at(struct fiber *f, struct map_cursor *c, u64 goff, u64 bytes,
		  struct chain_extent *out)
{
	unsigned i;
	int ret;

	*out = (struct chain_extent){0};
	for (i = 0; i < c->n && goff < c->layers[i].img->bytes; i++) {
		struct map_layer *l = &c->layers[i];

		ret = ask(f, c, l, goff, &out->map);
		if (ret < 0)
			return ret;
		out->map.bytes = MIN(bytes, out->map.bytes);
		out->image = l->img;
		out->depth = i;
		bytes = out->map.bytes;
		if (out->map.kind & MAP_ALLOC)
			return c->look_below ? find_holes_below(f, l, &out->map) : 0;
	}
	if (!i)
		return -EINVAL;
	/* The last one asked is too short or has nothing behind it. */
	if (!out->image->backing || goff >= out->image->backing->bytes)
		out->map.kind = MAP_ZERO | (out->map.kind & MAP_HOFF);
	else
		out->map.kind = 0;
	return 0;
}

int map_cursor_run(struct fiber *f, struct map_cursor *c, u64 goff, u64 bytes, u32 mask,
		   struct chain_extent *out)
{
	struct chain_extent next;
	int ret = map_cursor_at(f, c, goff, bytes, out);

	while (ret == 0 && out->map.bytes < bytes) {
		u64 have = out->map.bytes;

		if (goff + have >= c->layers[0].img->bytes)
			break;
		ret = map_cursor_at(f, c, goff + have, bytes - have, &next);
		if (ret < 0 || (next.map.kind ^ out->map.kind) & mask)
			break;
		out->map.bytes += next.map.bytes;
	}
	return ret;
}
