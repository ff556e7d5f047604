/* What to copy next: the maps of the sources' chains, walked once.
 *
 * Every image of a chain has a cursor with the extent it was last asked for, so
 * that a map is not asked again for what a neighbour has cut into pieces, and the
 * length of a chain costs nothing.  Chunks of data end at the target's granules:
 * no cluster is written twice.  Thread: the loop's; c->plan_lock is held. */
#include "block/img/copy.h"

#include "base/log.h"
#include "block/img/progress.h"

#include <errno.h>

#define PLAIN_CHUNK (512 * KiB)
#define ZERO_STRIDE (1 * GiB) /* zeros that have to be written, between two looks around */

struct copy_layer {
	struct image *img;
	u64 start, end; /* what `map` says, source offsets */
	struct map_extent map;
};

static u64 source_end(const struct copy *c, unsigned i)
{
	return i + 1 < c->n_sources ? c->sources[i + 1].start : c->bytes;
}

void copy_plan_fini(struct copy *c)
{
	free(c->layers);
	c->layers = NULL;
	c->n_layers = 0;
}

/* Cursors for the source that pos lies in. */
static int enter_source(struct copy *c, u64 pos)
{
	struct image *img;
	unsigned i = 0;

	if (c->layers && pos >= c->sources[c->source].start && pos < source_end(c, c->source))
		return 0;
	copy_plan_fini(c);
	c->source = 0;
	while (pos >= source_end(c, c->source))
		c->source++;
	img = c->sources[c->source].img;
	c->n_layers = image_depth(img) + 1;
	c->layers = try_alloc(c->n_layers * sizeof(*c->layers));
	if (!c->layers)
		return -ENOMEM;
	for (; img; img = img->backing)
		c->layers[i++].img = img;
	return 0;
}

/* With salvage, what cannot be mapped is read, and that fails again or not. */
static int layer_seek(struct fiber *f, struct copy *c, struct copy_layer *l, u64 goff)
{
	int ret;

	if (l->map.bytes && goff >= l->start && goff < l->end)
		return 0;
	ret = image_map(f, l->img, goff, l->img->bytes - goff, &l->map);
	if (ret < 0 && c->salvage) {
		if (!c->ctx->quiet)
			log_warn("error while reading block status at offset %llu: %s",
				 (unsigned long long)goff, strerror(-ret));
		l->map = (struct map_extent){.bytes = MIN((u64)512, l->img->bytes - goff),
					     .kind = MAP_DATA | MAP_ALLOC};
		ret = 0;
	}
	l->start = goff;
	l->end = goff + l->map.bytes;
	return ret;
}

/* The decider of goff, an offset of the source; *end is how far it goes. */
static int find_owner(struct fiber *f, struct copy *c, u64 goff, struct copy_layer **out, u64 *end)
{
	for (unsigned i = 0; i < c->n_layers; i++) {
		struct copy_layer *l = &c->layers[i];
		int ret;

		if (goff >= l->img->bytes)
			break; /* a short backing image: zeros behind it */
		ret = layer_seek(f, c, l, goff);
		if (ret < 0)
			return ret;
		*end = MIN(*end, l->end);
		*out = l;
		if (l->map.kind & MAP_ALLOC)
			return 0;
		if (c->backed) /* the target's backing image answers for the others */
			break;
	}
	*out = NULL;
	return 0;
}

/* What lies at pos, up to the end of its source. */
static int segment_at(struct fiber *f, struct copy *c, u64 pos, struct copy_segment *s)
{
	u64 start, end;
	struct copy_layer *l;
	int ret = enter_source(c, pos);

	if (ret < 0)
		return ret;
	start = c->sources[c->source].start;
	end = source_end(c, c->source) - start;
	ret = find_owner(f, c, pos - start, &l, &end);
	if (ret < 0)
		return ret;
	*s = (struct copy_segment){.kind = COPY_ZERO, .goff = pos - start};
	if (l && !(l->map.kind & MAP_ZERO)) {
		s->kind = COPY_DATA;
		s->owner = l->img;
		if (l->map.kind & MAP_HOFF && !(l->map.kind & MAP_COMPRESSED)) {
			s->file = l->map.file;
			s->hoff = l->map.hoff + (s->goff - l->start);
		}
	} else if (!l && c->backed && pos < c->backed_bytes) {
		s->kind = COPY_SKIP;
		end = MIN(end, c->backed_bytes - start);
	}
	s->bytes = MIN(end - s->goff, c->end - pos);
	assert(s->bytes > 0);
	return 0;
}

/* How far what is at pos goes on in the same way, at most to `most`. */
static int run_end(struct fiber *f, struct copy *c, u64 pos, u64 most, u64 *end)
{
	struct copy_segment first, s;
	int ret = segment_at(f, c, pos, &first);

	*end = pos + first.bytes;
	while (ret == 0 && *end < most) {
		ret = segment_at(f, c, *end, &s);
		if (ret < 0 || s.kind != first.kind)
			break;
		*end += s.bytes;
	}
	*end = MIN(*end, most);
	return ret;
}

static void set_chunk(struct copy_chunk *ck, enum copy_kind kind, u64 start, u64 bytes)
{
	ck->kind = kind;
	ck->start = start;
	ck->bytes = bytes;
	ck->n = 0;
}

/* Zeros, or what the target's backing image has: no reading, but for granules that
 * have data too.  In skipped parts the target's driver sees to that, unless it
 * compresses: that takes whole clusters only. */
static int plan_hole(struct fiber *f, struct copy *c, enum copy_kind kind, struct copy_chunk *out)
{
	bool free_of_cost = kind == COPY_SKIP || c->target_is_zero;
	u64 most = free_of_cost ? c->end : MIN(c->end, c->pos + ZERO_STRIDE), end;
	int ret;

	if (kind == COPY_ZERO && !c->sparse_bytes)
		return 0;
	ret = run_end(f, c, c->pos, most, &end);
	if (ret < 0)
		return ret;
	if (end < c->end && (kind == COPY_ZERO || c->compress))
		end = align_down(end, c->granule);
	if (end > c->pos)
		set_chunk(out, kind, c->pos, end - c->pos);
	return 0;
}

/* Append, or join with the last segment. */
static void add_segment(struct copy_chunk *ck, const struct copy_segment *s)
{
	struct copy_segment *last = ck->n ? &ck->segments[ck->n - 1] : NULL;

	ck->bytes += s->bytes;
	if (last && last->kind == s->kind && last->owner == s->owner &&
	    last->goff + last->bytes == s->goff &&
	    (s->kind == COPY_ZERO || (!last->file && !s->file) ||
	     (last->file == s->file && last->hoff + last->bytes == s->hoff))) {
		last->bytes += s->bytes;
		return;
	}
	if (ck->n == ck->room) {
		ck->room = ck->room ? 2 * ck->room : 16;
		ck->segments = xrealloc(ck->segments, ck->room * sizeof(*ck->segments));
	}
	ck->segments[ck->n++] = *s;
}

/* A hole in the middle of data: only what is left of the granule, if a whole
 * granule of it follows; bytes 0: the data ends here. */
static int cut_hole(struct fiber *f, struct copy *c, u64 pos, struct copy_segment *s)
{
	u64 rest = align_up(pos, c->granule) - pos, end;
	enum copy_kind kind = s->kind;
	int ret;

	if (kind == COPY_DATA || (kind == COPY_ZERO && !c->sparse_bytes))
		return 0;
	if (kind == COPY_SKIP && !c->compress) {
		s->bytes = 0;
		return 0;
	}
	ret = run_end(f, c, pos, MIN(c->end, pos + 2 * c->granule), &end);
	if (ret == 0)
		ret = segment_at(f, c, pos, s); /* the cursors went on */
	if (end >= pos + rest + c->granule || (end == c->end && !rest))
		s->bytes = MIN(s->bytes, rest);
	if (kind == COPY_SKIP) {
		s->kind = COPY_DATA;
		s->owner = c->sources[c->source].img;
	}
	return ret;
}

static int plan_data(struct fiber *f, struct copy *c, struct copy_chunk *ck, u64 chunk_bytes)
{
	u64 limit = MIN(c->end, align_down(c->pos, chunk_bytes) + chunk_bytes), pos = c->pos;
	struct copy_segment s;
	int ret = 0;

	set_chunk(ck, COPY_DATA, pos, 0);
	while ((pos = ck->start + ck->bytes) < limit) {
		if (ck->n >= COPY_SEGMENTS && is_aligned(pos, c->granule))
			break;
		ret = segment_at(f, c, pos, &s);
		if (ret == 0)
			ret = cut_hole(f, c, pos, &s);
		if (ret < 0 || !s.bytes)
			break;
		s.bytes = MIN(s.bytes, limit - pos);
		add_segment(ck, &s);
	}
	return ret;
}

/* What is copied by several hands stays in the processors' caches on its way; what is
 * compressed or left to the kernel gains by size.  A chunk of a rate limited copy is
 * what goes in an eighth of a second. */
static u64 chunk_limit(const struct copy *c)
{
	u64 bytes = c->compress || c->offload ? COPY_CHUNK : MAX(c->granule, PLAIN_CHUNK);

	while (c->rate && bytes > MAX(c->granule, 64 * KiB) && bytes > c->rate / 8)
		bytes /= 2;
	return bytes;
}

int copy_plan_next(struct fiber *f, struct copy *c, struct copy_chunk *out)
{
	struct copy_segment s;
	int ret = 0;

	out->bytes = 0;
	while (c->pos < c->end && !out->bytes && !c->progress->interrupted) {
		ret = segment_at(f, c, c->pos, &s);
		if (ret == 0 && s.kind != COPY_DATA)
			ret = plan_hole(f, c, s.kind, out);
		if (ret == 0 && !out->bytes)
			ret = plan_data(f, c, out, chunk_limit(c));
		if (ret < 0)
			return ret;
		assert(out->bytes > 0);
		c->pos += out->bytes;
		if (out->kind == COPY_SKIP || (out->kind == COPY_ZERO && c->target_is_zero)) {
			c->done_bytes += out->bytes;
			out->bytes = 0;
		}
	}
	return 0;
}
