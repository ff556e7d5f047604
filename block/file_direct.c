/* Requests that O_DIRECT does not take as they are: buffers, offsets or lengths
 * that are not aligned.  They go through an aligned buffer; blocks of which only
 * a part is written are read first, while nobody else writes them.
 *
 * Thread: the loop's. */
#define _GNU_SOURCE
#include "block/file_internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <sys/stat.h>

#define BOUNCE_BYTES (256 * KiB)
#define SAFE_ALIGN   4096 /* where the kernel does not tell */

void file_find_alignment(struct host_file *file)
{
	struct statx st = {0};
	int sector;

	file->memory_align = file->io_align = SAFE_ALIGN;
	if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) == 0 &&
	    st.stx_mask & STATX_DIOALIGN && st.stx_dio_offset_align &&
	    is_pow2(st.stx_dio_mem_align) && is_pow2(st.stx_dio_offset_align)) {
		file->memory_align = MAX(st.stx_dio_mem_align, 8u);
		file->io_align = MAX(st.stx_dio_offset_align, 512u);
	} else if (file->is_device && sys_ioctl(file->fd, BLKSSZGET, &sector) == 0 &&
		   sector >= 512 && is_pow2((u64)sector)) {
		file->memory_align = file->io_align = (u32)sector;
	}
}

bool file_is_aligned(const struct host_file *file, u64 hoff, const struct iovec *iov, unsigned n)
{
	u64 memory = 0, io = hoff;

	for (unsigned i = 0; i < n; i++) {
		memory |= (u64)(uintptr_t)iov[i].iov_base;
		io |= iov[i].iov_len;
	}
	return is_aligned(memory, file->memory_align) && is_aligned(io, file->io_align);
}

/* Whole blocks; zeros beyond the end of the file. */
static int read_blocks(struct fiber *f, struct host_file *file, u64 hoff, u8 *buf, u64 bytes)
{
	struct iovec iov = {buf, bytes};
	s64 got = io_readv(f, file->fd, &iov, 1, hoff);

	if (got < 0)
		return (int)got;
	memset(buf + got, 0, bytes - (u64)got);
	return 0;
}

static u8 *bounce_new(const struct host_file *file, u64 bytes)
{
	return try_alloc_aligned(MIN(bytes + 2 * file->io_align, BOUNCE_BYTES),
				 MAX(file->memory_align, file->io_align));
}

/* The part of [hoff, hoff + bytes) for one buffer: ends on a block unless it is the last. */
static u64 bounce_part(u64 hoff, u64 bytes, u32 io_align)
{
	return MIN(bytes, align_down(hoff, io_align) + BOUNCE_BYTES - hoff);
}

int file_bounce_read(struct fiber *f, struct host_file *file, u64 hoff, const struct iovec *iov,
		     unsigned n)
{
	u64 bytes = iov_bytes(iov, n), done = 0, part;
	u8 *buf = bounce_new(file, bytes);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	for (; done < bytes && ret == 0; done += part) {
		u64 at = hoff + done, start = align_down(at, file->io_align);

		part = bounce_part(at, bytes - done, file->io_align);
		ret = read_blocks(f, file, start, buf, align_up(at + part, file->io_align) - start);
		if (ret == 0)
			iov_copy_to(iov, n, done, buf + (at - start), part);
	}
	free(buf);
	return ret;
}

/* Blocks [start, end) are ours; fill in the edges that `part` does not cover. */
static int read_edges(struct fiber *f, struct host_file *file, u64 at, u64 part, u8 *buf)
{
	u32 align = file->io_align;
	u64 start = align_down(at, align), end = align_up(at + part, align);
	int ret = 0;

	if (at > start)
		ret = read_blocks(f, file, start, buf, align);
	if (ret == 0 && at + part < end && (end - start > align || at == start))
		ret = read_blocks(f, file, end - align, buf + (end - align - start), align);
	return ret;
}

static int bounce_write_part(struct fiber *f, struct host_file *file, u64 at, u64 part, u8 *buf)
{
	u64 start = align_down(at, file->io_align), end = align_up(at + part, file->io_align);
	struct iovec out = {buf, end - start};

	return (int)MIN(io_writev(f, file->fd, &out, 1, start), 0);
}

int file_bounce_write(struct fiber *f, struct host_file *file, u64 hoff, const struct iovec *iov,
		      unsigned n)
{
	u64 bytes = iov_bytes(iov, n), done = 0, part;
	u8 *buf = bounce_new(file, bytes);
	struct range_lock lock;
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	for (; done < bytes && ret == 0; done += part) {
		u64 at = hoff + done, start = align_down(at, file->io_align), end;

		part = bounce_part(at, bytes - done, file->io_align);
		end = align_up(at + part, file->io_align);
		range_lock(f, &file->blocks, &lock, start, end - start,
			   at != start || at + part != end);
		ret = read_edges(f, file, at, part, buf);
		if (ret == 0) {
			iov_copy_from(iov, n, done, buf + (at - start), part);
			ret = bounce_write_part(f, file, at, part, buf);
		}
		range_unlock(&file->blocks, &lock);
	}
	free(buf);
	return ret;
}
