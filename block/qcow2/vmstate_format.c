/* The VM-state area of a snapshot; see vmstate_format.h.
 *
 *	header: magic[8] version[4] crc[4] units[8] ram[8] area[8]
 *	        parts: off[8] bytes[8] crc[4] pad[4], SNAP_PARTS times; zeros */
#include "block/qcow2/vmstate_format.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <errno.h>

#define CRCS_OFF   (64 * KiB)
#define ALIGN	   (2 * MiB) /* whole clusters of any size */
#define AT_VERSION 8
#define AT_CRC	   12
#define AT_UNITS   16
#define AT_PARTS   40
#define PART_BYTES 24

static const char magic[8] = {'c', 'o', 'w', 'v', 'm', '-', 'v', 'm'};

void snap_layout(struct snap_header *h, u64 units, const u64 bytes[SNAP_PARTS])
{
	u64 at;

	*h = (struct snap_header){.units = units};
	h->parts[SNAP_CRCS].off = CRCS_OFF;
	h->parts[SNAP_CRCS].bytes = units * sizeof(u32);
	h->ram_off = align_up(CRCS_OFF + h->parts[SNAP_CRCS].bytes, ALIGN);
	at = align_up(h->ram_off + units * SNAP_UNIT, ALIGN);
	for (unsigned i = SNAP_CRCS + 1; i < SNAP_PARTS; i++) {
		h->parts[i].off = at;
		h->parts[i].bytes = bytes[i];
		at = align_up(at + bytes[i], SNAP_UNIT);
	}
	h->area_bytes = at;
}

u32 snap_unit_crc(const void *data)
{
	u32 crc = crc32c(0, data, SNAP_UNIT);

	return crc ? crc : 1;
}

void snap_header_encode(const struct snap_header *h, u8 out[SNAP_HEADER_BYTES])
{
	memset(out, 0, SNAP_HEADER_BYTES);
	memcpy(out, magic, sizeof(magic));
	store_le32(out + AT_VERSION, SNAP_VERSION);
	store_le64(out + AT_UNITS, h->units);
	store_le64(out + AT_UNITS + 8, h->ram_off);
	store_le64(out + AT_UNITS + 16, h->area_bytes);
	for (unsigned i = 0; i < SNAP_PARTS; i++) {
		u8 *part = out + AT_PARTS + i * PART_BYTES;

		store_le64(part, h->parts[i].off);
		store_le64(part + 8, h->parts[i].bytes);
		store_le32(part + 16, h->parts[i].crc);
	}
	store_le32(out + AT_CRC, crc32c(0, out, SNAP_HEADER_BYTES));
}

static u32 crc_of(const u8 in[SNAP_HEADER_BYTES])
{
	static const u8 no_crc[4];
	u32 crc = crc32c(0, in, AT_CRC);

	crc = crc32c(crc, no_crc, sizeof(no_crc));
	return crc32c(crc, in + AT_CRC + 4, SNAP_HEADER_BYTES - AT_CRC - 4);
}

/* A header of ours that was damaged in the magic number is no stranger's. */
static int judge_magic(const u8 in[SNAP_HEADER_BYTES], struct error *err)
{
	u8 copy[SNAP_HEADER_BYTES];

	if (!memcmp(in, magic, sizeof(magic)))
		return 0;
	memcpy(copy, in, sizeof(copy));
	memcpy(copy, magic, sizeof(magic));
	if (load_le32(in + AT_CRC) == crc_of(copy))
		return err_set(err, -EBADMSG, "the header of the VM state is damaged");
	return err_set(err, -ENOTSUP, "the VM state is not one of cowvm");
}

/* Whatever wrote the header, places must be those that the sizes lead to. */
static int judge(const struct snap_header *h, struct error *err)
{
	u64 bytes[SNAP_PARTS];
	struct snap_header expected;

	if (h->units > SNAP_MAX_UNITS)
		return err_set(err, -EINVAL,
			       "snapshot has %llu units of memory, expected at most "
			       "%llu",
			       (unsigned long long)h->units, (unsigned long long)SNAP_MAX_UNITS);
	for (unsigned i = 0; i < SNAP_PARTS; i++) {
		bytes[i] = h->parts[i].bytes;
		if (i != SNAP_CRCS && bytes[i] > SNAP_MAX_PART)
			return err_set(err, -EINVAL,
				       "part %u of the VM state has %llu bytes, "
				       "expected at most %llu",
				       i, (unsigned long long)bytes[i],
				       (unsigned long long)SNAP_MAX_PART);
	}
	snap_layout(&expected, h->units, bytes);
	for (unsigned i = 0; i < SNAP_PARTS; i++)
		if (h->parts[i].off != expected.parts[i].off ||
		    h->parts[i].bytes != expected.parts[i].bytes)
			return err_set(err, -EINVAL, "part %u of the VM state is not in its place",
				       i);
	if (h->ram_off != expected.ram_off || h->area_bytes != expected.area_bytes)
		return err_set(err, -EINVAL, "memory in the VM state is not in its place");
	return 0;
}

int snap_header_decode(struct snap_header *h, const u8 in[SNAP_HEADER_BYTES], struct error *err)
{
	int ret = judge_magic(in, err);

	*h = (struct snap_header){0};
	if (ret < 0)
		return ret;
	if (load_le32(in + AT_CRC) != crc_of(in))
		return err_set(err, -EBADMSG, "the header of the VM state is damaged");
	if (load_le32(in + AT_VERSION) != SNAP_VERSION)
		return err_set(err, -EINVAL, "the VM state has version %u, expected %u",
			       load_le32(in + AT_VERSION), SNAP_VERSION);
	h->units = load_le64(in + AT_UNITS);
	h->ram_off = load_le64(in + AT_UNITS + 8);
	h->area_bytes = load_le64(in + AT_UNITS + 16);
	for (unsigned i = 0; i < SNAP_PARTS; i++) {
		const u8 *part = in + AT_PARTS + i * PART_BYTES;

		h->parts[i].off = load_le64(part);
		h->parts[i].bytes = load_le64(part + 8);
		h->parts[i].crc = load_le32(part + 16);
	}
	return judge(h, err);
}
