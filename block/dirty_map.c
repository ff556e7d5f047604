/* See dirty_map.h: an array of pointers to pages of bits. */
#include "block/dirty_map.h"

#include <errno.h>

#define PAGE_BITS  32768u
#define PAGE_WORDS (PAGE_BITS / 64)
#define MAX_BITS   ((u64)1 << 32)

struct dirty_map {
	u64 bytes, bits;
	u32 granularity_bits;
	bool any;
	u64 pages_n;
	u64 **pages; /* NULL: no bit is set there */
};

int dirty_map_new(struct dirty_map **out, u64 bytes, u32 granularity_bits)
{
	u64 bits = (bytes >> granularity_bits) + !is_aligned(bytes, (u64)1 << granularity_bits);
	struct dirty_map *m;

	if (bits > MAX_BITS)
		return -EFBIG;
	m = try_alloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->bytes = bytes;
	m->bits = bits;
	m->granularity_bits = granularity_bits;
	m->pages_n = DIV_ROUND_UP(bits, PAGE_BITS);
	m->pages = try_alloc(MAX(m->pages_n, (u64)1) * sizeof(*m->pages));
	if (!m->pages) {
		free(m);
		return -ENOMEM;
	}
	*out = m;
	return 0;
}

void dirty_map_free(struct dirty_map *m)
{
	if (!m)
		return;
	for (u64 i = 0; i < m->pages_n; i++)
		free(m->pages[i]);
	free(m->pages);
	free(m);
}

/* Bits [from, to) of a word. */
static u64 word_mask(u32 from, u32 to)
{
	return (to == 64 ? ~0ull : (1ull << to) - 1) & ~((1ull << from) - 1);
}

static int set_in_page(struct dirty_map *m, u64 page, u32 from, u32 to)
{
	u64 *words = m->pages[page];

	if (!words) {
		words = m->pages[page] = try_alloc(PAGE_WORDS * sizeof(*words));
		if (!words)
			return -ENOMEM;
	}
	while (from < to) {
		u32 end = MIN(to, (from & ~63u) + 64);

		words[from / 64] |= word_mask(from & 63, end - (from & ~63u));
		from = end;
	}
	return 0;
}

int dirty_map_set(struct dirty_map *m, u64 goff, u64 bytes)
{
	u64 bit, end;
	int ret = 0;

	if (!bytes || goff >= m->bytes)
		return 0;
	bytes = MIN(bytes, m->bytes - goff);
	bit = goff >> m->granularity_bits;
	end = ((goff + bytes - 1) >> m->granularity_bits) + 1;
	m->any = true;
	while (bit < end) {
		u64 page = bit / PAGE_BITS, stop = MIN(end, (page + 1) * PAGE_BITS);
		int one = set_in_page(m, page, (u32)(bit - page * PAGE_BITS),
				      (u32)(stop - page * PAGE_BITS));

		ret = ret ? ret : one;
		bit = stop;
	}
	return ret;
}

void dirty_map_clear(struct dirty_map *m, u64 goff, u64 bytes)
{
	u64 unit = (u64)1 << m->granularity_bits;
	u64 bit = goff >> m->granularity_bits, end = align_up(goff + bytes, unit) / unit;

	assert(is_aligned(goff, unit) && goff + bytes <= m->bytes &&
	       (is_aligned(bytes, unit) || goff + bytes == m->bytes));
	for (; bit < end; bit++) {
		u64 *words = m->pages[bit / PAGE_BITS];

		if (words)
			words[bit % PAGE_BITS / 64] &= ~(1ull << (bit & 63));
	}
}

u64 dirty_map_bytes(const struct dirty_map *m)
{
	u64 goff = 0, bytes, sum = 0;

	for (; dirty_map_next(m, &goff, &bytes); goff += bytes)
		sum += bytes;
	return sum;
}

bool dirty_map_is_empty(const struct dirty_map *m)
{
	return !m->any;
}

/* The first bit from `bit` on that has this value; m->bits if there is none. */
static u64 find(const struct dirty_map *m, u64 bit, bool value)
{
	while (bit < m->bits) {
		const u64 *words = m->pages[bit / PAGE_BITS];
		u64 word;

		if (!words && value) {
			bit = (bit / PAGE_BITS + 1) * PAGE_BITS;
			continue;
		}
		if (!words)
			return bit;
		word = words[bit % PAGE_BITS / 64];
		word = (value ? word : ~word) & ~((1ull << (bit & 63)) - 1);
		if (word)
			return MIN((bit & ~63ull) + (u64)__builtin_ctzll(word), m->bits);
		bit = (bit | 63) + 1;
	}
	return m->bits;
}

bool dirty_map_next(const struct dirty_map *m, u64 *goff, u64 *bytes)
{
	u64 from, to, start;

	if (!m->any || *goff >= m->bytes)
		return false;
	from = find(m, *goff >> m->granularity_bits, true);
	if (from >= m->bits)
		return false;
	to = find(m, from, false);
	start = MAX(from << m->granularity_bits, *goff);
	*bytes = MIN(to << m->granularity_bits, m->bytes) - start;
	*goff = start;
	return true;
}
