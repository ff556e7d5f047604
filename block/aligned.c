/* Requests at any byte; see aligned.h.
 *
 * What begins or ends within a sector is rare (tools, not guests) and goes through
 * memory of its own: read, changed, written.  Thread: the image's loop. */
#include "block/aligned.h"

#include "base/io.h"

#include <errno.h>

#define SECTOR 512u

static bool is_whole(u64 goff, u64 bytes)
{
	return is_aligned(goff | bytes, SECTOR);
}

/* The whole sectors around a range, in memory. */
struct around {
	u64 start;
	struct iovec iov;
};

static int around_init(struct around *w, u64 goff, u64 bytes)
{
	w->start = align_down(goff, SECTOR);
	w->iov.iov_len = align_up(goff + bytes, SECTOR) - w->start;
	w->iov.iov_base = try_alloc_aligned(w->iov.iov_len, 4096);
	return w->iov.iov_base ? 0 : -ENOMEM;
}

int aligned_read(struct fiber *f, const struct aligned *a, u64 goff, const struct iovec *iov,
		 unsigned n)
{
	u64 bytes = iov_bytes(iov, n);
	struct around w;
	int ret;

	if (likely(is_whole(goff, bytes)))
		return a->read(f, a->img, goff, iov, n);
	ret = around_init(&w, goff, bytes);
	if (ret < 0)
		return ret;
	ret = a->read(f, a->img, w.start, &w.iov, 1);
	if (ret == 0)
		iov_copy_to(iov, n, 0, (u8 *)w.iov.iov_base + (goff - w.start), bytes);
	free(w.iov.iov_base);
	return ret;
}

static int write_around(struct fiber *f, const struct aligned *a, u64 goff, const struct iovec *iov,
			unsigned n)
{
	u64 bytes = iov_bytes(iov, n);
	struct around w;
	int ret = around_init(&w, goff, bytes);

	if (ret < 0)
		return ret;
	ret = a->read(f, a->img, w.start, &w.iov, 1);
	if (ret == 0) {
		iov_copy_from(iov, n, 0, (u8 *)w.iov.iov_base + (goff - w.start), bytes);
		ret = a->write(f, a->img, w.start, &w.iov, 1);
	}
	free(w.iov.iov_base);
	return ret;
}

int aligned_write(struct fiber *f, const struct aligned *a, u64 goff, const struct iovec *iov,
		  unsigned n)
{
	u64 bytes = iov_bytes(iov, n), start = align_down(goff, SECTOR);
	bool whole = is_whole(goff, bytes);
	struct range_lock lock;
	int ret;

	range_lock(f, a->locks, &lock, start, align_up(goff + bytes, SECTOR) - start, !whole);
	ret = whole ? a->write(f, a->img, goff, iov, n) : write_around(f, a, goff, iov, n);
	range_unlock(a->locks, &lock);
	return ret;
}
