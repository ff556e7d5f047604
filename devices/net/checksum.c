/* Internet checksums, and bytes of frames in pieces; see checksum.h.  Thread: any. */
#include "devices/net/checksum.h"

#include "base/bytes.h"

#include <stdio.h>

u64 net_sum(const u8 *data, size_t bytes)
{
	u64 sum = 0;

	/* Four bytes at a time in big-endian order: folding brings the halves together. */
	for (; bytes >= 4; data += 4, bytes -= 4)
		sum += load_be32(data);
	if (bytes >= 2) {
		sum += load_be16(data);
		data += 2;
		bytes -= 2;
	}
	return bytes ? sum + ((u64)data[0] << 8) : sum;
}

u16 net_fold(u64 sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (u16)sum;
}

bool net_frame_copy(const struct net_frame *f, u32 off, void *to, u32 bytes)
{
	u8 *at = to;

	if ((u64)off + bytes > f->bytes)
		return false;
	for (unsigned i = 0; i < f->n && bytes; i++) {
		size_t here = f->iov[i].iov_len, n;

		if (off >= here) {
			off -= (u32)here;
			continue;
		}
		n = MIN(here - off, (size_t)bytes);
		memcpy(at, (const u8 *)f->iov[i].iov_base + off, n);
		at += n;
		bytes -= (u32)n;
		off = 0;
	}
	return !bytes;
}

bool net_checksum_finish(u8 *data, u32 bytes, const struct net_offload *o)
{
	u32 at = (u32)o->csum_start + o->csum_offset;
	u16 sum;

	if (!(o->flags & NET_NEEDS_CSUM))
		return true;
	if (o->csum_start >= bytes || at + 2 > bytes)
		return false;
	/* The field holds the sum of the pseudo header, which belongs to it. */
	sum = (u16)~net_fold(net_sum(data + o->csum_start, bytes - o->csum_start));
	store_be16(data + at, sum ? sum : 0xffff);
	return true;
}

bool net_parse_mac(const char *text, u8 mac[6])
{
	u8 parsed[6];

	for (unsigned i = 0; i < 6; i++) {
		char *end;
		unsigned long byte;

		if (!strchr("0123456789abcdefABCDEF", *text) || !*text)
			return false;
		byte = strtoul(text, &end, 16);
		if (byte > 0xff || end - text > 2)
			return false;
		if (i < 5 ? (*end != ':' && *end != '-') : *end != 0)
			return false;
		parsed[i] = (u8)byte;
		text = end + 1;
	}
	memcpy(mac, parsed, sizeof(parsed));
	return true;
}

void net_format_mac(char text[18], const u8 mac[6])
{
	snprintf(text, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
}
