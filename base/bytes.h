/* Integers of fixed byte order as they lie on disk or in guest memory.
 *
 * beN and leN are one-member structs: assigning one to the other, or to a plain
 * integer, does not compile.  The load/store forms take unaligned pointers. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include "base/base.h"

#include <endian.h>

#define BYTES_TYPE(order, bits)                                                                    \
	struct order##bits##_ {                                                                    \
		u##bits raw;                                                                       \
	};                                                                                         \
	typedef struct order##bits##_ order##bits;                                                 \
	static inline u##bits order##bits##_get(order##bits x)                                     \
	{                                                                                          \
		return order##bits##toh(x.raw);                                                    \
	}                                                                                          \
	static inline order##bits order##bits##_of(u##bits v)                                      \
	{                                                                                          \
		return (order##bits){hto##order##bits(v)};                                         \
	}                                                                                          \
	static inline u##bits load_##order##bits(const void *p)                                    \
	{                                                                                          \
		u##bits raw;                                                                       \
		memcpy(&raw, p, sizeof(raw));                                                      \
		return order##bits##toh(raw);                                                      \
	}                                                                                          \
	static inline void store_##order##bits(void *p, u##bits v)                                 \
	{                                                                                          \
		u##bits raw = hto##order##bits(v);                                                 \
		memcpy(p, &raw, sizeof(raw));                                                      \
	}

BYTES_TYPE(be, 16)
BYTES_TYPE(be, 32)
BYTES_TYPE(be, 64)
BYTES_TYPE(le, 16)
BYTES_TYPE(le, 32)
BYTES_TYPE(le, 64)

#undef BYTES_TYPE

#endif
