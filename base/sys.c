/* Wrappers of blocking system calls: a value or a negative errno; see io.h.
 * Thread: any that may block. */
#define _GNU_SOURCE
#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The call's value, or -errno; tried again after EINTR. */
#define RETRIED(call)                                                                              \
	__extension__({                                                                            \
		__typeof__(call) retried_;                                                         \
		do                                                                                 \
			retried_ = (call);                                                         \
		while (retried_ < 0 && errno == EINTR);                                            \
		retried_ < 0 ? (__typeof__(call))-errno : retried_;                                \
	})

int sys_open(const char *path, int flags, u32 mode)
{
	return RETRIED(open(path, flags | O_CLOEXEC, mode));
}

void sys_close(int fd)
{
	if (fd >= 0)
		close(fd); /* never retried: the descriptor is gone even after EINTR */
}

s64 sys_pread(int fd, void *buf, size_t bytes, u64 offset)
{
	size_t done = 0;

	while (done < bytes) {
		s64 n = RETRIED(
			pread(fd, (char *)buf + done, bytes - done, (off_t)(offset + done)));

		if (n < 0)
			return n;
		if (!n)
			break;
		done += (size_t)n;
	}
	return (s64)done;
}

s64 sys_pwrite(int fd, const void *buf, size_t bytes, u64 offset)
{
	size_t done = 0;

	while (done < bytes) {
		s64 n = RETRIED(
			pwrite(fd, (const char *)buf + done, bytes - done, (off_t)(offset + done)));

		if (n <= 0)
			return n ? n : -ENOSPC;
		done += (size_t)n;
	}
	return (s64)done;
}

s64 sys_read(int fd, void *buf, size_t bytes)
{
	return RETRIED(read(fd, buf, bytes));
}

s64 sys_readv(int fd, const struct iovec *iov, unsigned n)
{
	return RETRIED(readv(fd, iov, (int)n));
}

s64 sys_writev(int fd, const struct iovec *iov, unsigned n)
{
	return RETRIED(writev(fd, iov, (int)n));
}

s64 sys_write(int fd, const void *buf, size_t bytes)
{
	return RETRIED(write(fd, buf, bytes));
}

int sys_write_all(int fd, const void *buf, size_t bytes)
{
	while (bytes) {
		s64 n = sys_write(fd, buf, bytes);

		if (n <= 0)
			return n ? (int)n : -ENOSPC;
		buf = (const char *)buf + n;
		bytes -= (size_t)n;
	}
	return 0;
}

int sys_ioctl(int fd, unsigned long request, void *arg)
{
	return RETRIED(ioctl(fd, request, arg));
}

int sys_ioctl_once(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

int sys_eventfd(void)
{
	return RETRIED(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

int sys_file_bytes(int fd, u64 *out)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (S_ISBLK(st.st_mode))
		return MIN(sys_ioctl(fd, BLKGETSIZE64, out), 0);
	*out = (u64)st.st_size;
	return 0;
}

static int read_whole(int fd, const char *path, u64 max, u8 **out, u64 *bytes, struct error *err)
{
	u8 *buf = NULL;
	u64 room = 0, len = 0;
	s64 n;
	int ret;

	ret = sys_file_bytes(fd, &room);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot read '%s'", path);
	/* Sizes of /proc and pipes are 0: read to the end whatever the size says. */
	for (;;) {
		if (room > max || len > max) {
			ret = err_set(err, -EFBIG, "'%s' is too large: at most %llu bytes", path,
				      (unsigned long long)max);
			goto out_free;
		}
		room = MAX(room, len + 4096);
		buf = xrealloc(buf, room + 1);
		n = sys_read(fd, buf + len, room - len);
		if (n <= 0)
			break;
		len += (u64)n;
		room = len;
	}
	if (n < 0) {
		ret = err_set_errno(err, (int)n, "cannot read '%s'", path);
		goto out_free;
	}
	buf[len] = 0; /* text files: a string, for free */
	*out = buf;
	*bytes = len;
	return 0;
out_free:
	free(buf);
	return ret;
}

int sys_read_file(const char *path, u64 max, u8 **out, u64 *bytes, struct error *err)
{
	int fd = sys_open(path, O_RDONLY, 0), ret;

	if (fd < 0)
		return err_set_errno(err, fd, "cannot open '%s'", path);
	ret = read_whole(fd, path, max, out, bytes, err);
	sys_close(fd);
	return ret;
}
