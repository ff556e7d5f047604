/* Finding what repeats; see deflate.h.  deflate_codes.c writes it.
 *
 * Positions of the last 4 KiB are chained by a hash of the four bytes there, and the
 * latest one is known for three bytes.  Positions are kept modulo 2^16 and proven by
 * comparing what lies there, so tables need no clearing as the window moves on.  A
 * match waits for a longer one at the next byte.  Everything stays in the first
 * cache: 28 KiB.  Thread: any. */
#include "block/qcow2/deflate.h"

#include "block/qcow2/deflate_internal.h"

#include <errno.h>

#define WINDOW	   4096u
#define REACH	   (WINDOW - 1)
#define HASH_BITS  13
#define SHORT_BITS 11
#define LOOK_AHEAD 8u /* bytes behind a position that are read at once */

#define ALWAYS_INLINE inline __attribute__((always_inline)) /* a tenth of the time */

#define DEPTH	    12u /* candidates looked at */
#define GOOD	    8u	/* with so much in hand, half as many */
#define PATIENCE    32u /* longer ones do not wait */
#define NICE	    128u
#define SHORT_REACH 1024u /* three bytes from farther away save nothing */

#define SPAN_BYTES (64 * KiB)
#define PART_BYTES (8 * KiB)
#define PARTS	   (SPAN_BYTES / PART_BYTES + 1)
#define SEQUENCES  ((SPAN_BYTES + DEFLATE_MAX) / DEFLATE_MIN + PARTS + 1)

struct deflater {
	u16 latest[1 << HASH_BITS];
	u16 latest_short[1 << SHORT_BITS];
	u16 before[WINDOW]; /* the position before this one with the same hash */
	struct deflate_sequence sequences[SEQUENCES];
	struct deflate_part parts[PARTS];
};

struct match {
	u32 length, distance; /* 0: none */
};

/* The input, and how far it was looked at. */
struct finder {
	struct deflater *d;
	const u8 *in;
	u32 pos, end, limit; /* from `limit` on no match begins */
};

struct deflater *deflater_new(void)
{
	return try_alloc(sizeof(struct deflater));
}

void deflater_free(struct deflater *d)
{
	free(d);
}

/* --- matches ---------------------------------------------------------------------- */

static inline u32 load32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u64 load64(const u8 *p)
{
	u64 v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline u32 hash(u32 v)
{
	return (v * 0x9e3779b1u) >> (32 - HASH_BITS);
}

static inline u32 hash_short(u32 v)
{
	return ((v << 8) * 0x9e3779b1u) >> (32 - SHORT_BITS);
}

static inline void insert(struct deflater *d, u32 v, u32 pos)
{
	u16 *latest = &d->latest[hash(v)];

	d->before[pos % WINDOW] = *latest;
	*latest = (u16)pos;
	d->latest_short[hash_short(v)] = (u16)pos;
}

/* Bytes that are the same, `have` of them known. */
static inline u32 same(const u8 *a, const u8 *b, u32 have, u32 most)
{
	while (have + 8 <= most) {
		u64 x = load64(a + have) ^ load64(b + have);

		if (x)
			return have + (u32)__builtin_ctzll(x) / 8;
		have += 8;
	}
	while (have < most && a[have] == b[have])
		have++;
	return have;
}

/* A match at `pos` that is longer than `than`, if there is one; the position is
 * entered. */
static ALWAYS_INLINE struct match find(struct finder *s, u32 pos, u32 than, u32 depth)
{
	struct deflater *d = s->d;
	const u8 *p = s->in + pos;
	u32 v = load32(p), reach = MIN(pos, REACH), most = MIN(s->end - pos, DEFLATE_MAX);
	u32 distance = (u16)(pos - d->latest[hash(v)]), last = 0;
	u32 near = (u16)(pos - d->latest_short[hash_short(v)]);
	struct match m = {MAX(than, DEFLATE_MIN), 0};

	insert(d, v, pos);
	if (than < DEFLATE_MIN && near && near <= MIN(reach, SHORT_REACH) &&
	    !((load32(p - near) ^ v) << 8))
		m.distance = near;
	for (; distance > last && distance <= reach && m.length < most && depth; depth--) {
		const u8 *c = p - distance;
		u32 length;

		if (load32(c + m.length - 3) == load32(p + m.length - 3) && load32(c) == v) {
			length = same(p, c, 4, most);
			if (length > m.length)
				m = (struct match){length, distance};
			if (length >= NICE)
				break;
		}
		last = distance;
		distance = (u16)(pos - d->before[(pos - distance) % WINDOW]);
	}
	return m;
}

/* Is n, found a byte later, worth that byte?  A longer one from far away may not be. */
static inline bool is_better(struct match n, struct match m)
{
	return n.distance && (n.length > m.length + 1 || n.distance < 64 * m.distance);
}

/* The best match at or behind s->pos, which moves on to its start; entered up to
 * *entered. */
static inline struct match take(struct finder *s, struct match m, u32 *entered)
{
	u32 depth = m.length >= GOOD ? DEPTH / 4 : DEPTH / 2;

	*entered = s->pos + 1;
	while (m.length < PATIENCE && s->pos + 1 < s->limit) {
		struct match n = find(s, s->pos + 1, m.length, depth);

		*entered = s->pos + 2;
		if (!is_better(n, m))
			break;
		m = n;
		s->pos++;
	}
	return m;
}

/* --- parts ------------------------------------------------------------------------ */

static inline void count_literals(struct deflate_counts *c, const u8 *p, u32 n)
{
	for (u32 i = 0; i < n; i++)
		c->litlen[p[i]]++;
}

static void add_sequence(struct finder *s, struct deflate_part *part, u32 start, struct match m)
{
	part->sequences[part->n++] =
		(struct deflate_sequence){(u16)(s->pos - start), (u16)m.length, (u16)m.distance};
	count_literals(&part->counts, s->in + start, s->pos - start);
	if (!m.length)
		return;
	part->counts.litlen[deflate_length_symbol(m.length)]++;
	part->counts.distance[deflate_distance_symbol(m.distance)]++;
}

static void find_part(struct finder *s, struct deflate_part *part, u32 stop)
{
	u32 begin = s->pos, start = s->pos, entered;

	while (s->pos < stop) {
		struct match m = {0, 0};

		if (s->pos < s->limit)
			m = find(s, s->pos, 0, DEPTH);
		if (!m.distance) {
			s->pos++;
			continue;
		}
		m = take(s, m, &entered);
		add_sequence(s, part, start, m);
		s->pos += m.length;
		for (u32 end = MIN(s->pos, s->limit); entered < end; entered++)
			insert(s->d, load32(s->in + entered), entered);
		start = s->pos;
	}
	add_sequence(s, part, start, (struct match){0, 0});
	part->bytes = s->pos - begin;
}

/* A span of the input. */
static int run_span(struct finder *s, struct deflate_out *o)
{
	struct deflater *d = s->d;
	u32 stop = MIN(s->end, s->pos + (u32)SPAN_BYTES), n = 0;
	struct deflate_sequence *next = d->sequences;

	while (s->pos < stop) {
		struct deflate_part *part = &d->parts[n++];

		*part = (struct deflate_part){.data = s->in + s->pos, .sequences = next};
		find_part(s, part, MIN(stop, s->pos + (u32)PART_BYTES));
		next += part->n;
	}
	assert(n <= PARTS && next <= d->sequences + SEQUENCES);
	return deflate_write(o, d->parts, n, s->pos == s->end);
}

s64 deflater_run(struct deflater *d, const u8 *in, u64 bytes, u8 *out, u64 room)
{
	struct finder s = {.d = d, .in = in, .end = (u32)bytes};
	struct deflate_out o = {.at = out, .end = out + room};
	int ret = 0;

	assert(bytes > LOOK_AHEAD && bytes < UINT32_MAX);
	s.limit = s.end - LOOK_AHEAD;
	memset(d->latest, 0, sizeof(d->latest));
	memset(d->latest_short, 0, sizeof(d->latest_short));
	memset(d->before, 0, sizeof(d->before));
	while (s.pos < s.end && ret == 0)
		ret = run_span(&s, &o);
	return ret < 0 ? ret : o.at - out;
}
