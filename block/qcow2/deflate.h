/* Deflate (RFC 1951) for clusters: distances stay below 4 KiB, because readers of
 * qcow2 inflate with such a window.  As small as zlib's level 6 within that window,
 * in less than half of its time.
 *
 * What comes out depends on what goes in, and on nothing else.  Thread: any, one at
 * a time for each deflater. */
#ifndef BLOCK_QCOW2_DEFLATE_H
#define BLOCK_QCOW2_DEFLATE_H

#include "base/base.h"

struct deflater;

struct deflater *deflater_new(void); /* NULL: no memory */
void deflater_free(struct deflater *d);
/* Bytes of `out` that hold all of `in`; -ENOSPC if it does not fit into the room. */
s64 deflater_run(struct deflater *d, const u8 *in, u64 bytes, u8 *out, u64 room);

#endif
