/* A host file or block device as the lowest image; see file.h.
 *
 * Guest memory goes straight to the file; only what O_DIRECT refuses is bounced
 * (file_direct.c).  Who does the transfers: with O_DIRECT the loop's backend, else
 * io_cached.c, by the rule at its head.  Locks are in file_lock.c.
 * Thread: the loop's.  Opening and closing call the host synchronously. */
#define _GNU_SOURCE
#include "block/file.h"

#include "base/io.h"
#include "base/pool.h"
#include "block/driver.h"
#include "block/file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct host_file *host_file_of(const struct image *img)
{
	assert(img->driver == &file_driver);
	return container_of(img, struct host_file, img);
}

/* --- data ------------------------------------------------------------------ */

static int file_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n)
{
	struct host_file *file = host_file_of(img);
	u64 bytes = iov_bytes(iov, n);
	s64 got;

	if (file->direct && !file_is_aligned(file, goff, iov, n))
		return file_bounce_read(f, file, goff, iov, n);
	if (file->direct)
		got = io_readv(f, file->fd, iov, n, goff);
	else
		got = io_cached_readv(f, &file->cached, iov, n, goff);
	if (got < 0)
		return (int)got;
	if ((u64)got < bytes)
		iov_zero(iov, n, (u64)got, bytes - (u64)got);
	return 0;
}

static int write_direct(struct fiber *f, struct host_file *file, u64 goff, const struct iovec *iov,
			unsigned n)
{
	struct range_lock lock;
	int ret;

	if (!file_is_aligned(file, goff, iov, n))
		return file_bounce_write(f, file, goff, iov, n);
	/* Not into a block that a bounced write is changing a part of. */
	range_lock(f, &file->blocks, &lock, goff, iov_bytes(iov, n), false);
	ret = (int)MIN(io_writev(f, file->fd, iov, n, goff), 0);
	range_unlock(&file->blocks, &lock);
	return ret;
}

static int file_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		      unsigned n)
{
	struct host_file *file = host_file_of(img);
	int ret;

	if (file->direct)
		ret = write_direct(f, file, goff, iov, n);
	else
		ret = (int)MIN(io_cached_writev(f, &file->cached, iov, n, goff), 0);
	file->writes_done++; /* a failed one may have written a part */
	return ret;
}

static int file_flush(struct fiber *f, struct image *img)
{
	struct host_file *file = host_file_of(img);
	u64 wanted = file->writes_done, covers;

	if (file->unsafe)
		return 0;
	while (file->writes_synced < wanted && !file->sync_error) {
		if (file->syncing) {
			fiber_queue_wait(f, &file->sync_waiters);
			continue;
		}
		covers = file->writes_done;
		file->syncing = true;
		file->sync_error = io_datasync(f, file->fd);
		file->syncing = false;
		if (!file->sync_error)
			file->writes_synced = covers;
		fiber_queue_wake_all(&file->sync_waiters);
	}
	return file->sync_error;
}

/* --- holes ----------------------------------------------------------------- */

static bool is_refusal(int ret)
{
	return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENOTTY || ret == -EINVAL;
}

static int set_size(struct fiber *f, struct host_file *file, u64 bytes);

static int fallocate_blocks(struct fiber *f, struct host_file *file, int mode, u64 goff, u64 bytes)
{
	struct range_lock lock;
	int ret;

	if (!file->direct)
		return io_fallocate(f, file->fd, mode, goff, bytes);
	/* A bounced write beside it would put back what it has read before. */
	range_lock(f, &file->blocks, &lock, goff, bytes, false);
	ret = io_fallocate(f, file->fd, mode, goff, bytes);
	range_unlock(&file->blocks, &lock);
	return ret;
}

static int punch(struct fiber *f, struct host_file *file, u64 goff, u64 bytes)
{
	int ret;

	if (file->cannot_punch)
		return -ENOTSUP;
	ret = fallocate_blocks(f, file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, goff, bytes);
	file->writes_done++;
	if (is_refusal(ret)) {
		/* A block device also refuses what is not aligned to its blocks. */
		file->cannot_punch = !file->is_device || is_aligned(goff | bytes, 4096);
		ret = -ENOTSUP;
	}
	return ret;
}

static int zero_range(struct fiber *f, struct host_file *file, u64 goff, u64 bytes)
{
	int ret;

	if (file->cannot_zero)
		return -ENOTSUP;
	ret = fallocate_blocks(f, file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, goff, bytes);
	file->writes_done++;
	if (is_refusal(ret)) {
		file->cannot_zero = !file->is_device || is_aligned(goff | bytes, 4096);
		ret = -ENOTSUP;
	}
	return ret;
}

static int file_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	struct host_file *file = host_file_of(img);
	u64 end = goff + bytes;
	int ret = 0;

	/* What lies beyond the end becomes zeros by growing. */
	if (end > img->bytes) {
		ret = set_size(f, file, end);
		if (ret < 0)
			return ret;
	}
	ret = flags & ZERO_MAY_UNMAP ? punch(f, file, goff, bytes) : -ENOTSUP;
	if (ret == -ENOTSUP)
		ret = zero_range(f, file, goff, bytes);
	return ret;
}

static int file_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	struct host_file *file = host_file_of(img);
	int ret;

	if (!file->discard)
		return 0;
	ret = punch(f, file, goff, bytes);
	return ret == -ENOTSUP ? 0 : ret; /* a hint only */
}

/* Where data (SEEK_DATA) or a hole (SEEK_HOLE) is next; the end if nowhere. */
static u64 seek_to(const struct host_file *file, u64 goff, int whence)
{
	off_t at = lseek(file->fd, (off_t)goff, whence);

	if (at >= 0)
		return (u64)at;
	/* ENXIO: none to the end.  Anything else: the host cannot tell. */
	return errno == ENXIO ? file->img.bytes : whence == SEEK_DATA ? goff : file->img.bytes;
}

static int file_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	struct host_file *file = host_file_of(img);
	u64 data = file->is_device ? goff : seek_to(file, goff, SEEK_DATA), next;

	out->hoff = goff;
	out->kind = MAP_ALLOC | MAP_HOFF;
	if (data > goff) {
		out->kind |= MAP_ZERO;
		next = data;
	} else {
		out->kind |= MAP_DATA;
		next = file->is_device ? img->bytes : seek_to(file, goff, SEEK_HOLE);
	}
	out->bytes = MIN(bytes, next > goff ? next - goff : bytes);
	return 0;
}

/* --- size ------------------------------------------------------------------ */

struct truncation {
	int fd;
	u64 bytes;
};

static int truncate_call(void *arg)
{
	struct truncation *t = arg;

	return ftruncate(t->fd, (off_t)t->bytes) ? -errno : 0;
}

static int set_size(struct fiber *f, struct host_file *file, u64 bytes)
{
	struct truncation t = {.fd = file->fd, .bytes = bytes};
	int ret = pool_call(f, truncate_call, &t);

	file->writes_done++;
	if (ret == 0)
		file->img.bytes = bytes;
	return ret;
}

static int file_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		       struct error *err)
{
	struct host_file *file = host_file_of(img);
	u64 old = img->bytes;
	int ret;

	if (file->is_device) {
		if (bytes <= img->bytes)
			return 0; /* the format above may use less than there is */
		return err_set(err, -EINVAL, "Cannot grow device files");
	}
	if (mode == PREALLOC_METADATA)
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode: metadata");
	ret = set_size(f, file, bytes);
	if (ret < 0)
		return err_set_errno(err, ret, "Failed to resize the file");
	ret = file_preallocate(f, file, old, bytes, mode, err);
	if (ret < 0)
		(void)set_size(f, file, old);
	return ret;
}

int file_allocated_bytes(struct image *img, u64 *out)
{
	struct stat st;

	if (fstat(file_fd(img), &st))
		return -errno;
	*out = (u64)st.st_blocks * 512;
	return 0;
}

bool file_is_buffered(const struct image *img)
{
	return !host_file_of(img)->direct;
}

bool file_is(const struct image *img, u64 dev, u64 ino)
{
	const struct host_file *file = host_file_of(img);

	return file->dev == dev && file->ino == ino;
}

int file_fd(const struct image *img)
{
	return host_file_of(img)->fd;
}

/* --- open and close -------------------------------------------------------- */

static bool cache_is_direct(enum cache_mode cache)
{
	return cache == CACHE_NONE || cache == CACHE_DIRECTSYNC;
}

static int open_fd(const char *path, int flags, const struct open_policy *policy, struct error *err)
{
	int fd;

	flags |= policy->writable ? O_RDWR : O_RDONLY;
	if (cache_is_direct(policy->cache))
		flags |= O_DIRECT;
	/* Non-blocking, so that a FIFO by mistake is refused instead of waited for. */
	fd = sys_open(path, flags | O_NOCTTY | O_NONBLOCK, 0644);
	if (fd == -EINVAL && flags & O_DIRECT)
		return err_set(err, fd, "Could not open '%s': filesystem does not support O_DIRECT",
			       path);
	if (fd < 0)
		return err_set_errno(
			err, fd, flags & O_CREAT ? "Could not create '%s'" : "Could not open '%s'",
			path);
	return fd;
}

/* Takes fd, also on failure. */
static int file_from_fd(struct fiber *f, struct image **out, int fd, const char *path,
			const struct open_policy *policy, struct error *err)
{
	struct host_file *file;
	struct image *img;
	struct stat st;
	u64 bytes = 0;
	int ret;

	ret = fstat(fd, &st) ? -errno : sys_file_bytes(fd, &bytes);
	if (ret < 0) {
		err_set_errno(err, ret, "Could not open '%s'", path);
		goto out_close;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		ret = err_set(err, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL,
			      "Could not open '%s': neither a regular file nor a block device",
			      path);
		goto out_close;
	}
	img = image_new(&file_driver, fiber_loop(f), path);
	img->bytes = bytes;
	img->writable = policy->writable;
	img->grows = S_ISREG(st.st_mode);
	file = host_file_of(img);
	file->fd = fd;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	io_cached_init(&file->cached, fd);
	file->is_device = S_ISBLK(st.st_mode);
	file->may_write = policy->writable;
	file->no_lock = policy->no_lock;
	file->share = policy->share_writers;
	file->discard = policy->discard;
	file->unsafe = policy->cache == CACHE_UNSAFE;
	file->direct = cache_is_direct(policy->cache);
	file->writes_done = 1; /* whoever wrote it before may not have synced it */
	fiber_queue_init(&file->sync_waiters);
	range_locks_init(&file->blocks);
	if (file->direct)
		file_find_alignment(file);
	*out = img;
	return 0;
out_close:
	sys_close(fd);
	return ret;
}

/* "file:x" is x; other protocols are refused by name. */
static int strip_protocol(const char **path, struct error *err)
{
	size_t len = strcspn(*path, ":/");

	if ((*path)[len] != ':')
		return 0;
	if (len != 4 || strncmp(*path, "file", 4) != 0)
		return err_set(err, -EINVAL, "Unknown protocol '%.*s'", (int)len, *path);
	*path += 5;
	return 0;
}

int file_open_path(struct fiber *f, struct image **out, const char *path,
		   const struct open_policy *policy, struct error *err)
{
	int fd = open_fd(path, 0, policy, err), ret;

	if (fd < 0)
		return fd;
	ret = file_lock(fd, path, policy, err);
	if (ret < 0) {
		sys_close(fd);
		return ret;
	}
	return file_from_fd(f, out, fd, path, policy, err);
}

/* Empty it, all holes; a device must be large enough. */
static int set_fresh_size(int fd, const char *path, u64 bytes, struct error *err)
{
	struct stat st = {0};
	u64 have;

	if (fstat(fd, &st) == 0 && S_ISBLK(st.st_mode)) {
		if (sys_file_bytes(fd, &have) < 0 || have >= bytes)
			return 0;
		return err_set(err, -ENOSPC, "Device is too small");
	}
	if (ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)bytes) == 0)
		return 0;
	err_set_errno(err, -errno, "Could not resize '%s'", path);
	if (S_ISREG(st.st_mode))
		(void)unlink(path); /* nothing is better than an empty image */
	return err->code;
}

int file_open(struct fiber *f, struct image **out, const char *path,
	      const struct open_policy *policy, struct error *err)
{
	int ret = strip_protocol(&path, err);

	return ret < 0 ? ret : file_open_path(f, out, path, policy, err);
}

int file_create(struct fiber *f, struct image **out, const char *path, u64 bytes,
		const struct open_policy *policy, struct error *err)
{
	struct open_policy writable = *policy;
	int fd, ret;

	writable.writable = true;
	ret = strip_protocol(&path, err);
	if (ret < 0)
		return ret;
	/* Emptied only after the locks are held: it may be somebody's image. */
	fd = open_fd(path, O_CREAT, &writable, err);
	if (fd < 0)
		return fd;
	ret = file_lock(fd, path, &writable, err);
	if (ret < 0)
		goto out_close;
	ret = set_fresh_size(fd, path, bytes, err);
	if (ret < 0)
		goto out_close;
	return file_from_fd(f, out, fd, path, &writable, err);
out_close:
	sys_close(fd);
	return ret;
}

bool file_is_too_long(const struct host_file *file)
{
	u64 bytes;

	return (file->direct || file->reserved) && file->img.grows &&
	       sys_file_bytes(file->fd, &bytes) == 0 && bytes > file->img.bytes;
}

static int file_close(struct fiber *f, struct image *img)
{
	struct host_file *file = host_file_of(img);
	int ret = 0;

	assert(!file->syncing && list_empty(&file->blocks.ranges));
	if (img->writable && file_is_too_long(file))
		ret = set_size(f, file, img->bytes);
	io_cached_fini(&file->cached);
	file_unlock(file->fd);
	sys_close(file->fd);
	return ret;
}

const struct image_driver file_driver = {
	.name = "file",
	.state_size = sizeof(struct host_file),
	.read = file_read,
	.write = file_write,
	.zero = file_zero,
	.discard = file_discard,
	.flush = file_flush,
	.map = file_map,
	.resize = file_resize,
	.close = file_close,
};
