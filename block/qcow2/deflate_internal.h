/* What the two halves of the deflater share: sequences that one finds and the other
 * writes as blocks. */
#ifndef BLOCK_QCOW2_DEFLATE_INTERNAL_H
#define BLOCK_QCOW2_DEFLATE_INTERNAL_H

#include "base/base.h"

#define DEFLATE_LITLENS	  288 /* symbols: bytes, the end, lengths */
#define DEFLATE_DISTANCES 30
#define DEFLATE_END	  256
#define DEFLATE_MIN	  3u
#define DEFLATE_MAX	  258u

/* Bytes as they are, and then a copy of what was `distance` before; the last one of
 * a part has no copy (length 0). */
struct deflate_sequence {
	u16 literals, length, distance;
};

/* How often each symbol is needed. */
struct deflate_counts {
	u32 litlen[DEFLATE_LITLENS];
	u32 distance[DEFLATE_DISTANCES];
};

/* Some KiB of the input. */
struct deflate_part {
	const u8 *data;
	u32 bytes;
	struct deflate_sequence *sequences;
	u32 n;
	struct deflate_counts counts;
};

/* Bits on their way to memory. */
struct deflate_out {
	u8 *at, *end;
	u64 bits;
	u32 n;
};

/* Extra bits of a length or distance follow its symbol. */
static inline u32 deflate_distance_symbol(u32 distance)
{
	u32 d = distance - 1, top;

	if (d < 4)
		return d;
	top = 31 - (u32)__builtin_clz(d);
	return 2 * top + (d >> (top - 1) & 1);
}

static inline u32 deflate_length_symbol(u32 length)
{
	u32 l = length - DEFLATE_MIN, top;

	if (l < 8)
		return 257 + l;
	if (length == DEFLATE_MAX)
		return 285;
	top = 31 - (u32)__builtin_clz(l);
	return 257 + 4 * (top - 1) + (l >> (top - 2) & 3);
}

/* Write the parts as one block or as several, whatever is shorter.  -ENOSPC. */
int deflate_write(struct deflate_out *o, const struct deflate_part *parts, u32 n, bool last);

#endif
