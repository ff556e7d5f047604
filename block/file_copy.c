/* Copying between host files without the bytes coming through here.
 * Thread: the loop's; the system calls run on the pool. */
#define _GNU_SOURCE
#include "block/file.h"

#include "base/pool.h"
#include "block/file_internal.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/fs.h>

struct file_copy {
	int from, to;
	u64 from_hoff, to_hoff, bytes;
};

static int copy_call(void *arg)
{
	struct file_copy *c = arg;
	struct file_clone_range clone = {.src_fd = c->from,
					 .src_offset = c->from_hoff,
					 .src_length = c->bytes,
					 .dest_offset = c->to_hoff};
	off_t from = (off_t)c->from_hoff, to = (off_t)c->to_hoff;

	/* Sharing the blocks costs nothing, where the file system can. */
	if (ioctl(c->to, FICLONERANGE, &clone) == 0)
		return 0;
	while (c->bytes) {
		ssize_t n = copy_file_range(c->from, &from, c->to, &to, c->bytes, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* 0: beyond the end of the file */
			return n ? -errno : -ENOTSUP;
		c->bytes -= (u64)n;
	}
	return 0;
}

int file_copy_range(struct fiber *f, struct image *from, u64 from_hoff, struct image *to,
		    u64 to_hoff, u64 bytes)
{
	struct file_copy c = {.from_hoff = from_hoff, .to_hoff = to_hoff, .bytes = bytes};
	struct host_file *file;
	int ret;

	if (from->driver != &file_driver || to->driver != &file_driver)
		return -ENOTSUP;
	file = container_of(to, struct host_file, img);
	if (!to->writable || file->direct)
		return -ENOTSUP;
	c.from = file_fd(from);
	c.to = file->fd;
	ret = pool_call(f, copy_call, &c);
	file->writes_done++;
	if (ret == 0 && to->grows)
		to->bytes = MAX(to->bytes, to_hoff + bytes);
	return ret;
}
