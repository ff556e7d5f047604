/* Byte locks that keep programs out of each other's images.
 *
 * The scheme is the reference's, so that the two respect each other: a read lock
 * (open file description) on byte 100 + p says "I use permission p", one on byte
 * 200 + p says "I do not let others use p".  Locks are taken first and then the
 * opposite bytes are looked at, so of two that come at once at least one sees
 * the other.  File systems without locks are used without. */
#define _GNU_SOURCE
#include "block/file_internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>

enum permission { PERM_READ = 0, PERM_WRITE = 1, PERM_RESIZE = 3, PERM_COUNT = 4 };

#define USE_BASE    100
#define REFUSE_BASE 200

static const char *const permission_names[PERM_COUNT] = {
	[PERM_READ] = "consistent read", [PERM_WRITE] = "write", [PERM_RESIZE] = "resize"};

static struct flock byte_lock(short type, int byte)
{
	return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

static int take(int fd, int byte)
{
	struct flock lock = byte_lock(F_RDLCK, byte);

	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

/* Does anybody else hold the byte? */
static bool is_taken(int fd, int byte)
{
	struct flock lock = byte_lock(F_WRLCK, byte);

	return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int conflict(const char *path, const char *how, enum permission p, struct error *err)
{
	return err_set(err, -EAGAIN,
		       "Failed to get %s\"%s\" lock\nIs another process using the image [%s]?", how,
		       permission_names[p], path);
}

static int take_all(int fd, u32 use, u32 refuse)
{
	int ret = 0;

	for (int p = 0; p < PERM_COUNT && ret == 0; p++) {
		if (use & (1u << p))
			ret = take(fd, USE_BASE + p);
		if (ret == 0 && refuse & (1u << p))
			ret = take(fd, REFUSE_BASE + p);
	}
	return ret;
}

int file_lock(int fd, const char *path, const struct open_policy *policy, struct error *err)
{
	u32 use = 1u << PERM_READ, refuse = 1u << PERM_WRITE | 1u << PERM_RESIZE;
	int ret;

	if (policy->no_lock)
		return 0;
	if (policy->writable)
		use |= 1u << PERM_WRITE | 1u << PERM_RESIZE;
	if (policy->share_writers || policy->share_rw)
		refuse = 0;
	if (policy->share_rw)
		use &= ~(1u << PERM_RESIZE);
	ret = take_all(fd, use, refuse);
	if (ret == -EINVAL || ret == -ENOLCK || ret == -EOPNOTSUPP || ret == -ENOSYS)
		return 0;
	if (ret < 0)
		return err_set_errno(err, ret, "Could not lock '%s'", path);
	for (enum permission p = 0; p < PERM_COUNT; p++) {
		if (use & (1u << p) && is_taken(fd, REFUSE_BASE + (int)p))
			return conflict(path, "", p, err);
		if (refuse & (1u << p) && is_taken(fd, USE_BASE + (int)p))
			return conflict(path, "shared ", p, err);
	}
	return 0;
}

void file_unlock(int fd)
{
	struct flock lock = {.l_type = F_UNLCK,
			     .l_whence = SEEK_SET,
			     .l_start = USE_BASE,
			     .l_len = REFUSE_BASE - USE_BASE + PERM_COUNT};

	fcntl(fd, F_OFD_SETLK, &lock);
}
