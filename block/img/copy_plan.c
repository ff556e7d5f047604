/* What to copy next: the maps of the sources' chains, walked once.
 *
 * Chunks of data end at the target's granules: no cluster is written twice.
 * Thread: the loop's; c->plan_lock is held. */
#include "block/img/copy.h"

#include "base/log.h"
#include "block/img/progress.h"

#include <errno.h>

#define PLAIN_CHUNK (512 * KiB)
#define ZERO_STRIDE (1 * GiB) /* zeros that have to be written, between two looks around */

static u64 source_end(const struct copy *c, unsigned i)
{
	return i + 1 < c->n_sources ? c->sources[i + 1].start : c->bytes;
}

void copy_plan_fini(struct copy *c)
{
	map_cursor_fini(&c->cursor);
}

/* Salvaging: it is read, and that fails again or not. */
static void say_unmapped(struct map_cursor *cursor, u64 goff, int err)
{
	const struct copy *c = container_of(cursor, struct copy, cursor);

	if (!c->ctx->quiet)
		log_warn("error while reading block status at offset %llu: %s",
			 (unsigned long long)goff, strerror(err));
}

/* A cursor for the source that pos lies in.  If the target is backed, its backing image
 * answers for the source's. */
static void enter_source(struct copy *c, u64 pos)
{
	struct image *img;

	if (c->cursor.n && pos >= c->sources[c->source].start && pos < source_end(c, c->source))
		return;
	copy_plan_fini(c);
	c->source = 0;
	while (pos >= source_end(c, c->source))
		c->source++;
	img = c->sources[c->source].img;
	map_cursor_init(&c->cursor, img, c->backed ? img->backing : NULL);
	c->cursor.unmapped = c->salvage ? say_unmapped : NULL;
}

/* What lies at pos, up to the end of its source. */
static int segment_at(struct fiber *f, struct copy *c, u64 pos, struct copy_segment *s)
{
	struct chain_extent e;
	u64 goff;
	int ret;

	enter_source(c, pos);
	goff = pos - c->sources[c->source].start;
	ret = map_cursor_at(f, &c->cursor, goff, source_end(c, c->source) - pos, &e);
	if (ret < 0)
		return ret;
	*s = (struct copy_segment){
		.kind = COPY_ZERO, .goff = goff, .bytes = MIN(e.map.bytes, c->end - pos)};
	if (!(e.map.kind & MAP_ALLOC)) {
		if (!c->backed || pos >= c->backed_bytes)
			return 0;
		s->kind = COPY_SKIP;
		s->bytes = MIN(s->bytes, c->backed_bytes - pos);
	} else if (!(e.map.kind & MAP_ZERO)) {
		s->kind = COPY_DATA;
		s->owner = e.image;
		if (e.map.kind & MAP_HOFF && !(e.map.kind & MAP_COMPRESSED)) {
			s->file = e.map.file;
			s->hoff = e.map.hoff;
		}
	}
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
