/* Blocks of a deflate stream; see deflate.h.
 *
 * Parts that have the same statistics become one block: they are joined as long as
 * one set of codes costs less than two.  A block has codes of its own, the fixed ones,
 * or is stored, whatever is shortest.  Thread: any. */
#include "block/qcow2/deflate_internal.h"

#include "base/bytes.h"

#include <errno.h>

#define MOST_BITS	 15u
#define MOST_BITS_LENGTH 7u
#define STORED_MOST	 65535u
#define SLACK		 8u /* bits are written eight bytes at a time */
#define LOG_BITS	 10
#define SYMBOL_BITS	 4ull /* of the preamble, about */
#define BLOCK_BITS	 80ull
#define FIXED_BYTES	 1024u /* larger blocks never do with the fixed codes */

struct code {
	u16 bits;
	u8 n;
};

struct codes {
	struct code litlen[DEFLATE_LITLENS];
	struct code distance[DEFLATE_DISTANCES];
};

/* How the lengths of the codes are told. */
struct preamble {
	u8 lengths[DEFLATE_LITLENS + DEFLATE_DISTANCES];
	u32 n_litlen, n_distance;
	u8 symbols[DEFLATE_LITLENS + DEFLATE_DISTANCES], extra[DEFLATE_LITLENS + DEFLATE_DISTANCES];
	u32 n;
	struct code codes[19];
	u32 n_codes;
};

struct block {
	const struct deflate_part *parts;
	u32 n;
	bool last;
	u32 bytes;
	struct deflate_counts counts;
};

/* --- codes ------------------------------------------------------------------------ */

/* A symbol with how often it is needed. */
struct leaf {
	u32 weight;
	u16 symbol;
};

/* Those that are needed, rarest first. */
static u32 sort_leaves(const u32 *counts, u32 n, struct leaf *leaves)
{
	struct leaf other[DEFLATE_LITLENS], *from = leaves, *to = other;
	u32 used = 0, most = 0;

	for (u32 i = 0; i < n; i++) {
		if (!counts[i])
			continue;
		leaves[used++] = (struct leaf){counts[i], (u16)i};
		most = MAX(most, counts[i]);
	}
	for (u32 shift = 0; most >> shift; shift += 6) {
		u32 starts[65] = {0};
		struct leaf *t = from;

		for (u32 i = 0; i < used; i++)
			starts[(from[i].weight >> shift & 63) + 1]++;
		for (u32 i = 0; i < 63; i++)
			starts[i + 1] += starts[i];
		for (u32 i = 0; i < used; i++)
			to[starts[from[i].weight >> shift & 63]++] = from[i];
		from = to;
		to = t;
	}
	if (from != leaves)
		memcpy(leaves, from, used * sizeof(*leaves));
	return used;
}

/* How many leaves of Huffman's tree lie at each depth; what is too deep, at `most`. */
static void count_depths(const struct leaf *leaves, u32 n, u32 most, u32 *depths)
{
	u32 weight[DEFLATE_LITLENS];
	u16 parent[2 * DEFLATE_LITLENS];
	u8 depth[DEFLATE_LITLENS];
	u32 leaf = 0, node = 0;

	for (u32 made = 0; made + 1 < n; made++) {
		weight[made] = 0;
		for (int side = 0; side < 2; side++) {
			if (leaf < n && (node >= made || leaves[leaf].weight <= weight[node])) {
				parent[leaf] = (u16)made;
				weight[made] += leaves[leaf++].weight;
			} else {
				parent[n + node] = (u16)made;
				weight[made] += weight[node++];
			}
		}
	}
	depth[n - 2] = 0;
	for (u32 i = n - 2; i-- > 0;)
		depth[i] = (u8)MIN(depth[parent[n + i]] + 1u, 200u);
	for (u32 i = 0; i < n; i++)
		depths[MIN(depth[parent[i]] + 1u, most)]++;
}

/* Make room for leaves that were put where there is none: a leaf higher up takes one
 * of them as its neighbour, one step down. */
static void fit_depths(u32 *depths, u32 most)
{
	u32 taken = 0;

	for (u32 d = 1; d <= most; d++)
		taken += depths[d] << (most - d);
	for (; taken > 1u << most; taken--) {
		u32 d = most - 1;

		while (!depths[d])
			d--;
		depths[d]--;
		depths[d + 1] += 2;
		depths[most]--;
	}
}

/* Lengths of the codes, at least two of them. */
static void make_lengths(const u32 *counts, u32 n, u32 most, u8 *lengths)
{
	struct leaf leaves[DEFLATE_LITLENS];
	u32 depths[MOST_BITS + 1] = {0};
	u32 used = sort_leaves(counts, n, leaves), at = 0;

	memset(lengths, 0, n);
	if (used < 2) {
		lengths[0] = 1;
		lengths[used && leaves[0].symbol ? leaves[0].symbol : 1] = 1;
		return;
	}
	count_depths(leaves, used, most, depths);
	fit_depths(depths, most);
	for (u32 d = most; d > 0; d--)
		for (u32 i = 0; i < depths[d]; i++)
			lengths[leaves[at++].symbol] = (u8)d;
	assert(at == used);
}

static u16 reverse(u32 bits, u32 n)
{
	u32 r = 0;

	for (u32 i = 0; i < n; i++)
		r |= (bits >> i & 1) << (n - 1 - i);
	return (u16)r;
}

/* RFC 1951, 3.2.2. */
static void make_codes(const u8 *lengths, u32 n, struct code *codes)
{
	u32 count[MOST_BITS + 1] = {0}, next[MOST_BITS + 1] = {0};

	for (u32 i = 0; i < n; i++)
		count[lengths[i]]++;
	count[0] = 0;
	for (u32 d = 1; d <= MOST_BITS; d++)
		next[d] = (next[d - 1] + count[d - 1]) << 1;
	for (u32 i = 0; i < n; i++) {
		codes[i] = (struct code){0, lengths[i]};
		if (lengths[i])
			codes[i].bits = reverse(next[lengths[i]]++, lengths[i]);
	}
}

static u32 length_extra(u32 symbol)
{
	return symbol < 265 || symbol == 285 ? 0 : (symbol - 261) / 4;
}

static u32 distance_extra(u32 symbol)
{
	return symbol < 4 ? 0 : symbol / 2 - 1;
}

/* --- bits ------------------------------------------------------------------------- */

static inline void put(struct deflate_out *o, u32 bits, u32 n)
{
	o->bits |= (u64)bits << o->n;
	o->n += n;
}

/* Up to 56 bits can be put between two of these. */
static inline void flush(struct deflate_out *o)
{
	store_le64(o->at, o->bits);
	o->at += o->n / 8;
	o->bits >>= o->n & ~7u;
	o->n &= 7;
}

static inline void put_code(struct deflate_out *o, struct code c)
{
	put(o, c.bits, c.n);
}

static bool has_room(const struct deflate_out *o, u64 bits)
{
	return (o->n + bits + 7) / 8 + SLACK <= (u64)(o->end - o->at);
}

/* --- the preamble ------------------------------------------------------------------ */

static void say(struct preamble *p, u32 symbol, u32 extra)
{
	p->symbols[p->n] = (u8)symbol;
	p->extra[p->n++] = (u8)extra;
}

/* `run` times the same length. */
static void say_run(struct preamble *p, u8 length, u32 run)
{
	if (length && run) {
		say(p, length, 0);
		run--;
	}
	while (run >= 3) {
		u32 most = length ? 6 : 138, part = MIN(run, most);

		if (length)
			say(p, 16, part - 3);
		else
			say(p, part > 10 ? 18 : 17, part > 10 ? part - 11 : part - 3);
		run -= part;
	}
	while (run--)
		say(p, length, 0);
}

static u32 extra_bits(u32 symbol)
{
	return symbol < 16 ? 0 : symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
}

static const u8 code_order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

/* Bits that the preamble takes. */
static u64 make_preamble(struct preamble *p, const u8 *litlen, const u8 *distance)
{
	u32 counts[19] = {0}, total;
	u8 lengths[19];
	u64 bits;

	for (p->n_litlen = 286; !litlen[p->n_litlen - 1] && p->n_litlen > 257;)
		p->n_litlen--;
	for (p->n_distance = DEFLATE_DISTANCES; !distance[p->n_distance - 1] && p->n_distance > 1;)
		p->n_distance--;
	total = p->n_litlen + p->n_distance;
	memcpy(p->lengths, litlen, p->n_litlen);
	memcpy(p->lengths + p->n_litlen, distance, p->n_distance);
	p->n = 0;
	for (u32 i = 0, end; i < total; i = end) {
		for (end = i + 1; end < total && p->lengths[end] == p->lengths[i];)
			end++;
		say_run(p, p->lengths[i], end - i);
	}
	for (u32 i = 0; i < p->n; i++)
		counts[p->symbols[i]]++;
	make_lengths(counts, 19, MOST_BITS_LENGTH, lengths);
	make_codes(lengths, 19, p->codes);
	for (p->n_codes = 19; !lengths[code_order[p->n_codes - 1]] && p->n_codes > 4;)
		p->n_codes--;
	bits = 14 + 3 * p->n_codes;
	for (u32 i = 0; i < 19; i++)
		bits += counts[i] * (lengths[i] + extra_bits(i));
	return bits;
}

static void write_preamble(struct deflate_out *o, const struct preamble *p)
{
	put(o, p->n_litlen - 257, 5);
	put(o, p->n_distance - 1, 5);
	put(o, p->n_codes - 4, 4);
	flush(o);
	for (u32 i = 0; i < p->n_codes; i++) {
		put(o, p->codes[code_order[i]].n, 3);
		flush(o);
	}
	for (u32 i = 0; i < p->n; i++) {
		put_code(o, p->codes[p->symbols[i]]);
		put(o, p->extra[i], extra_bits(p->symbols[i]));
		flush(o);
	}
}

/* --- blocks ------------------------------------------------------------------------ */

static inline void write_match(struct deflate_out *o, const struct codes *c,
			       const struct deflate_sequence *q)
{
	u32 l = deflate_length_symbol(q->length), d = deflate_distance_symbol(q->distance);
	u32 l_extra = length_extra(l), d_extra = distance_extra(d);

	put_code(o, c->litlen[l]);
	put(o, (q->length - DEFLATE_MIN) & ((1u << l_extra) - 1), l_extra);
	put_code(o, c->distance[d]);
	put(o, (q->distance - 1u) & ((1u << d_extra) - 1), d_extra);
	flush(o);
}

static void write_part(struct deflate_out *o, const struct codes *c, const struct deflate_part *p)
{
	const u8 *at = p->data;

	for (u32 i = 0; i < p->n; i++) {
		const struct deflate_sequence *q = &p->sequences[i];
		const u8 *end = at + q->literals;

		for (; at + 3 <= end; at += 3) {
			put_code(o, c->litlen[at[0]]);
			put_code(o, c->litlen[at[1]]);
			put_code(o, c->litlen[at[2]]);
			flush(o);
		}
		for (; at < end; at++)
			put_code(o, c->litlen[*at]);
		flush(o);
		if (q->length)
			write_match(o, c, q);
		at += q->length;
	}
}

static void write_coded(struct deflate_out *o, const struct block *b, const struct codes *c)
{
	for (u32 i = 0; i < b->n; i++)
		write_part(o, c, &b->parts[i]);
	put_code(o, c->litlen[DEFLATE_END]);
	flush(o);
}

/* Bits of everything behind the preamble. */
static u64 coded_bits(const struct block *b, const struct codes *c)
{
	const struct deflate_counts *k = &b->counts;
	u64 bits = 0;

	for (u32 i = 0; i < 286; i++)
		bits += (u64)k->litlen[i] * (c->litlen[i].n + length_extra(i));
	for (u32 i = 0; i < DEFLATE_DISTANCES; i++)
		bits += (u64)k->distance[i] * (c->distance[i].n + distance_extra(i));
	return bits;
}

static void make_fixed(struct codes *c)
{
	u8 litlen[DEFLATE_LITLENS], distance[DEFLATE_DISTANCES];

	memset(litlen, 8, 144);
	memset(litlen + 144, 9, 112);
	memset(litlen + 256, 7, 24);
	memset(litlen + 280, 8, 8);
	memset(distance, 5, sizeof(distance));
	make_codes(litlen, DEFLATE_LITLENS, c->litlen);
	make_codes(distance, DEFLATE_DISTANCES, c->distance);
}

static u64 make_own(const struct block *b, struct codes *c, struct preamble *p)
{
	u8 litlen[DEFLATE_LITLENS] = {0}, distance[DEFLATE_DISTANCES];

	make_lengths(b->counts.litlen, 286, MOST_BITS, litlen);
	make_lengths(b->counts.distance, DEFLATE_DISTANCES, MOST_BITS, distance);
	make_codes(litlen, DEFLATE_LITLENS, c->litlen);
	make_codes(distance, DEFLATE_DISTANCES, c->distance);
	return make_preamble(p, litlen, distance);
}

/* As it is, in as many pieces as it takes. */
static int write_stored(struct deflate_out *o, const struct block *b)
{
	const u8 *data = b->parts[0].data;
	u32 left = b->bytes;

	if (!has_room(o, (u64)(left / STORED_MOST + 1) * 48 + left * 8ull))
		return -ENOSPC;
	while (left) {
		u32 bytes = MIN(left, STORED_MOST);

		left -= bytes;
		put(o, b->last && !left, 3);
		o->n = (u32)align_up(o->n, 8);
		put(o, bytes | (~bytes & 0xffff) << 16, 32);
		flush(o);
		memcpy(o->at, data, bytes);
		o->at += bytes;
		data += bytes;
	}
	return 0;
}

static int write_block(struct deflate_out *o, struct block *b)
{
	struct codes own, fixed;
	struct preamble p;
	u64 own_bits, fixed_bits, stored_bits = b->bytes * 8ull + 40;

	b->counts.litlen[DEFLATE_END] = 1;
	own_bits = make_own(b, &own, &p);
	own_bits += coded_bits(b, &own);
	fixed_bits = own_bits;
	if (b->bytes < FIXED_BYTES) {
		make_fixed(&fixed);
		fixed_bits = coded_bits(b, &fixed);
	}
	if (stored_bits <= MIN(own_bits, fixed_bits))
		return write_stored(o, b);
	if (!has_room(o, MIN(own_bits, fixed_bits) + 3))
		return -ENOSPC;
	put(o, b->last | (fixed_bits < own_bits ? 1u : 2u) << 1, 3);
	if (fixed_bits < own_bits) {
		write_coded(o, b, &fixed);
	} else {
		write_preamble(o, &p);
		write_coded(o, b, &own);
	}
	return 0;
}

/* --- which parts go together --------------------------------------------------------- */

/* The logarithm to the base 2, in 1/2^LOG_BITS; off by a hundredth at most. */
static inline u64 log2_of(u32 x)
{
	u32 top = 31 - (u32)__builtin_clz(x);
	u64 t = ((u64)x << LOG_BITS >> top) - (1 << LOG_BITS); /* 0 to 1 */

	return ((u64)top << LOG_BITS) + t + (t * ((1 << LOG_BITS) - t) * 348 >> 2 * LOG_BITS);
}

/* What n symbols cost as often as that, in 1/2^LOG_BITS bits, with their codes. */
static u64 cost_of_symbols(const u32 *counts, u32 n)
{
	u64 minus = 0;
	u32 total = 0, used = 0;

	for (u32 i = 0; i < n; i++) {
		if (!counts[i])
			continue;
		minus += counts[i] * log2_of(counts[i]);
		total += counts[i];
		used++;
	}
	return (total ? total * log2_of(total) - minus : 0) + (used * SYMBOL_BITS << LOG_BITS);
}

static u64 cost_of(const struct deflate_counts *c)
{
	return cost_of_symbols(c->litlen, 286) + cost_of_symbols(c->distance, DEFLATE_DISTANCES) +
	       (BLOCK_BITS << LOG_BITS);
}

static void add_counts(struct deflate_counts *to, const struct deflate_counts *c)
{
	for (u32 i = 0; i < 286; i++)
		to->litlen[i] += c->litlen[i];
	for (u32 i = 0; i < DEFLATE_DISTANCES; i++)
		to->distance[i] += c->distance[i];
}

int deflate_write(struct deflate_out *o, const struct deflate_part *parts, u32 n, bool last)
{
	int ret = 0;

	for (u32 i = 0; i < n && ret == 0;) {
		struct block b = {.parts = &parts[i], .n = 1, .counts = parts[i].counts};
		u64 cost = n > 1 ? cost_of(&b.counts) : 0;

		b.bytes = parts[i++].bytes;
		for (; i < n; i++) {
			struct deflate_counts both = b.counts;
			u64 both_cost;

			add_counts(&both, &parts[i].counts);
			both_cost = cost_of(&both);
			if (both_cost > cost + cost_of(&parts[i].counts))
				break;
			b.counts = both;
			b.n++;
			b.bytes += parts[i].bytes;
			cost = both_cost;
		}
		b.last = last && i == n;
		ret = write_block(o, &b);
	}
	if (ret == 0 && last && o->n) {
		o->n = (u32)align_up(o->n, 8);
		flush(o);
	}
	return ret;
}
