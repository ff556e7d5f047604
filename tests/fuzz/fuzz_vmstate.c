/* Fuzz target: the header of a snapshot's VM state.  What is accepted must be what
 * encoding it again gives, with every part inside of the area. */
#include "tests/fuzz/rig.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "block/qcow2/vmstate_format.h"

#define AT_CRC 12

/* The right checksum, or nothing behind it is ever looked at. */
static void sign(u8 *header)
{
	store_le32(header + AT_CRC, 0);
	store_le32(header + AT_CRC, crc32c(0, header, SNAP_HEADER_BYTES));
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t bytes)
{
	u8 header[SNAP_HEADER_BYTES] = {0}, again[SNAP_HEADER_BYTES];
	struct error err = {0};
	struct snap_header h;

	memcpy(header, data, MIN(bytes, sizeof(header)));
	if (snap_header_decode(&h, header, &err) < 0 && !err.text[0])
		abort();
	sign(header);
	if (snap_header_decode(&h, header, &err) < 0)
		return 0;
	for (unsigned i = 0; i < SNAP_PARTS; i++)
		if (h.parts[i].off > h.area_bytes ||
		    h.parts[i].bytes > h.area_bytes - h.parts[i].off)
			abort();
	if (h.ram_off > h.area_bytes || h.units > SNAP_MAX_UNITS)
		abort();
	snap_header_encode(&h, again);
	if (snap_header_decode(&h, again, &err) < 0)
		abort();
	return 0;
}
