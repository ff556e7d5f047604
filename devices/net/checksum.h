/* Internet checksums (RFC 1071) and bytes of frames that lie in pieces.  Thread: any. */
#ifndef DEVICES_NET_CHECKSUM_H
#define DEVICES_NET_CHECKSUM_H

#include "devices/net/net.h"

/* Sum of 16-bit big-endian words, an odd last byte padded with zero; add up pieces of
 * even length, then fold.  A sum of up to 64 KiB cannot overflow u64. */
u64 net_sum(const u8 *data, size_t bytes);
u16 net_fold(u64 sum); /* to 16 bits, not inverted */

/* Copy out of a frame; false when it does not reach that far. */
bool net_frame_copy(const struct net_frame *f, u32 off, void *to, u32 bytes);
/* Fill in the checksum that offload->flags says is missing; false: offsets outside. */
bool net_checksum_finish(u8 *data, u32 bytes, const struct net_offload *offload);

/* "52:54:00:12:34:56": six bytes, or false. */
bool net_parse_mac(const char *text, u8 mac[6]);
void net_format_mac(char text[18], const u8 mac[6]);

#endif
