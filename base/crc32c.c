/* CRC32C, by the processor's instruction where it has one (SSE4.2): 8 bytes in
 * three cycles. */
#include "base/crc32c.h"

#include <nmmintrin.h>

#define POLYNOMIAL 0x82f63b78u

static u32 bit_by_bit(u32 state, const u8 *p, size_t bytes)
{
	while (bytes--) {
		state ^= *p++;
		for (int i = 0; i < 8; i++)
			state = state >> 1 ^ (POLYNOMIAL & (0u - (state & 1)));
	}
	return state;
}

__attribute__((target("sse4.2"))) static u32 by_instruction(u32 state, const u8 *p, size_t bytes)
{
	u64 wide = state, word;

	for (; bytes >= 8; p += 8, bytes -= 8) {
		memcpy(&word, p, 8);
		wide = _mm_crc32_u64(wide, word);
	}
	state = (u32)wide;
	while (bytes--)
		state = _mm_crc32_u8(state, *p++);
	return state;
}

u32 crc32c(u32 crc, const void *data, size_t bytes)
{
	if (likely(__builtin_cpu_supports("sse4.2")))
		return ~by_instruction(~crc, data, bytes);
	return ~bit_by_bit(~crc, data, bytes);
}
