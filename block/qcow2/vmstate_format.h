/* The VM-state area of a snapshot: what lies where.
 *
 *	0		header, one page
 *	64 KiB		CRC32C of each unit of memory, le32, 0 for one of zeros
 *	ram		memory, a unit after the other (vmm/snapshot/ram.h), zeros
 *			as holes
 *	behind it	manifest (text), state (vmm/vmstate.h), working set (le32 units)
 *
 * Places of the CRCs and of memory follow from the amount of memory alone, so a
 * unit lies at the same place in every snapshot of a machine.  All integers are
 * little-endian.  Every part has its CRC32C in the header, the header has its own:
 * one flipped bit anywhere is found. */
#ifndef BLOCK_QCOW2_VMSTATE_FORMAT_H
#define BLOCK_QCOW2_VMSTATE_FORMAT_H

#include "base/base.h"
#include "base/error.h"

#define SNAP_UNIT_BITS	  16
#define SNAP_UNIT	  ((u64)1 << SNAP_UNIT_BITS)
#define SNAP_HEADER_BYTES 4096u
#define SNAP_VERSION	  1u
#define SNAP_MAX_PART	  (256 * MiB)	 /* of manifest, state and working set */
#define SNAP_MAX_UNITS	  ((u64)1 << 28) /* 16 TiB */

enum snap_part { SNAP_CRCS, SNAP_MANIFEST, SNAP_STATE, SNAP_WORKING_SET, SNAP_PARTS };

struct snap_header {
	u64 units, ram_off; /* bytes from the start of the area */
	struct {
		u64 off, bytes;
		u32 crc;
	} parts[SNAP_PARTS];
	u64 area_bytes; /* all of it */
};

/* What stands for a unit that is not all zeros: its CRC32C, but never 0. */
u32 snap_unit_crc(const void *data);
/* Places for this much memory and parts of these sizes (CRCs follow from units). */
void snap_layout(struct snap_header *h, u64 units, const u64 bytes[SNAP_PARTS]);
void snap_header_encode(const struct snap_header *h, u8 out[SNAP_HEADER_BYTES]);
/* -EINVAL: of a version that we do not know; -ENOTSUP: not one of ours; -EBADMSG: damaged. */
int snap_header_decode(struct snap_header *h, const u8 in[SNAP_HEADER_BYTES], struct error *err);

#endif
