/* Reads that are written into the top of the chain (copy-on-read).
 *
 * What a read needs from behind the top is first put into it, whole grains at a time, by
 * its ordinary write path, so a crash leaves what any write may leave.  Invariants: R1
 * nothing is put where the top has anything; R2 between looking and writing no change of
 * the guest's gets into the grain (guest changes share its range, a copy excludes).  When
 * the copy fails the guest still reads what is behind.
 * Thread: the drive's loop. */
#include "block/copy_on_read.h"

#include "base/io.h"
#include "base/log.h"
#include "block/blk_internal.h"

#include <errno.h>

#define GRAIN	   (64 * KiB)
#define COPY_BYTES (512 * KiB) /* most that is held in memory for one read */

/* The first part of the range that the top leaves to what is behind; 0 bytes: none. */
static int find_gap(struct fiber *f, struct image *top, u64 *goff, u64 end, u64 *bytes)
{
	struct map_extent e;
	int ret = 0;

	for (*bytes = 0; *goff < end; *goff += e.bytes) {
		ret = image_map(f, top, *goff, end - *goff, &e);
		if (ret < 0)
			return ret;
		if (e.kind & MAP_ALLOC)
			continue;
		*bytes = MIN(e.bytes, end - *goff);
		return 0;
	}
	return 0;
}

static int copy_gap(struct fiber *f, struct image *top, u64 goff, u64 bytes, u8 *buf)
{
	int ret = 0;

	for (u64 part; bytes && ret == 0; goff += part, bytes -= part) {
		struct iovec iov = {buf, MIN(bytes, COPY_BYTES)};

		part = iov.iov_len;
		ret = image_read_backing(f, top, goff, &iov, 1);
		if (ret == 0)
			ret = iov_is_zero(&iov, 1) ? image_zero(f, top, goff, part, 0)
						   : image_write(f, top, goff, &iov, 1);
	}
	return ret;
}

static int copy_locked(struct fiber *f, struct image *top, u64 goff, u64 end)
{
	u8 *buf = try_alloc_aligned(COPY_BYTES, 4096);
	u64 bytes;
	int ret = buf ? find_gap(f, top, &goff, end, &bytes) : -ENOMEM;

	while (ret == 0 && bytes) {
		ret = copy_gap(f, top, goff, bytes, buf);
		goff += bytes;
		if (ret == 0)
			ret = find_gap(f, top, &goff, end, &bytes);
	}
	free(buf);
	return ret;
}

void copy_on_read(struct fiber *f, struct blk *blk, const struct blk_req *req)
{
	struct image *top = blk->img;
	u64 goff = align_down(req->goff, GRAIN), bytes, at;
	u64 end = MIN(align_up(req->goff + req->bytes, GRAIN), top->bytes);
	struct range_lock lock;
	int ret;

	if (!top->backing || !top->writable || top->locked)
		return;
	at = req->goff;
	if (find_gap(f, top, &at, req->goff + req->bytes, &bytes) < 0 || !bytes)
		return; /* nothing of it is behind: the usual case after a while */
	range_lock(f, &blk->copy_locks, &lock, goff, end - goff, true);
	ret = copy_locked(f, top, goff, end);
	range_unlock(&blk->copy_locks, &lock);
	if (ret < 0 && !blk->copy_failed)
		log_warn("%s: what is read cannot be copied into '%s': %s", blk->id, blk->file,
			 strerror(-ret));
	blk->copy_failed = ret < 0;
}
