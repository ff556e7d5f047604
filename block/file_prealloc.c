/* Host files that are to take space before it is written, and hints to the host's
 * file system about them.  Thread: the loop's. */
#define _GNU_SOURCE
#include "block/file_internal.h"

#include "base/io.h"
#include "block/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#define ZERO_CHUNK (64 * KiB)
#define ZERO_PAGE  4096

/* As image_zero, but written in any case. */
static int write_zeros(struct fiber *f, struct host_file *file, u64 goff, u64 end)
{
	static const u8 zeros[ZERO_PAGE] __attribute__((aligned(ZERO_PAGE)));
	struct iovec iov[ZERO_CHUNK / ZERO_PAGE];
	int ret = 0;

	while (goff < end && ret == 0) {
		u64 part = MIN(end - goff, ZERO_CHUNK);
		unsigned n = 0;

		for (u64 left = part; left; left -= iov[n++].iov_len) {
			iov[n].iov_base = (void *)(uintptr_t)zeros;
			iov[n].iov_len = MIN(left, (u64)ZERO_PAGE);
		}
		ret = file->stop && *file->stop ? -EINTR : 0;
		if (ret == 0)
			ret = image_write(f, &file->img, goff, iov, n);
		goff += part;
	}
	return ret;
}

int file_reserve(struct image *img, u64 from, u64 to)
{
	struct host_file *file = container_of(img, struct host_file, img);

	assert(img->driver == &file_driver && img->grows && from < to);
	file->reserved = true;
	file->writes_done++;
	/* On the spot: it takes no longer than a small write (4 MiB: 17 us), and those of
	 * others would wait for it, each in a thread.  Not with FALLOC_FL_KEEP_SIZE, or
	 * every write would still have to move the end. */
	return fallocate(file->fd, 0, (off_t)from, (off_t)(to - from)) ? -errno : 0;
}

int file_preallocate(struct fiber *f, struct host_file *file, u64 from, u64 to, enum prealloc mode,
		     struct error *err)
{
	int ret = 0;

	if (from >= to)
		return 0;
	switch (mode) {
	case PREALLOC_OFF: break;
	case PREALLOC_METADATA:
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode: metadata");
	case PREALLOC_FALLOC:
		ret = io_fallocate(f, file->fd, 0, from, to - from);
		file->writes_done++;
		if (ret == -EOPNOTSUPP || ret == -ENOSYS) /* as the C library would */
			ret = write_zeros(f, file, from, to);
		if (ret < 0)
			return err_set_errno(err, ret, "Could not preallocate new data");
		break;
	case PREALLOC_FULL:
		ret = write_zeros(f, file, from, to);
		if (ret < 0)
			return err_set_errno(err, ret, "Could not write zeros for preallocation");
		break;
	}
	return ret;
}

void file_set_stop(struct image *img, const bool *stop)
{
	container_of(img, struct host_file, img)->stop = stop;
}

/* Hints only: a file system that knows neither is as good. */
void file_set_hints(struct image *img, bool nocow, u64 extent_bytes)
{
	int fd = file_fd(img), flags = 0;
	struct fsxattr attr;

	if (nocow && sys_ioctl(fd, FS_IOC_GETFLAGS, &flags) >= 0) {
		flags |= FS_NOCOW_FL;
		(void)sys_ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
	if (!extent_bytes || extent_bytes > UINT32_MAX)
		return;
	if (sys_ioctl(fd, FS_IOC_FSGETXATTR, &attr) < 0)
		return;
	attr.fsx_xflags |= FS_XFLAG_EXTSIZE;
	attr.fsx_extsize = (u32)extent_bytes;
	(void)sys_ioctl(fd, FS_IOC_FSSETXATTR, &attr);
}

void file_remove(const struct image *img)
{
	while (img->below)
		img = img->below;
	if (img->driver == &file_driver && img->grows)
		(void)unlink(img->name);
}
