/* CRC32C (Castagnoli, reflected polynomial 0x82f63b78): RFC 3720, appendix B.4.
 * The check value of "123456789" is 0xe3069283. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include "base/base.h"

/* crc: 0 to begin with, or what an earlier part gave. */
u32 crc32c(u32 crc, const void *data, size_t bytes);

#endif
