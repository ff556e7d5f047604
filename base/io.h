/* File I/O that suspends the calling fiber instead of blocking its thread.
 *
 * The same calls are served by io_uring.c and io_threads.c.  All return 0 or a
 * non-negative result, else a negative errno; EINTR and EAGAIN never come out.
 * Also here: the only wrappers of blocking system calls that read errno. */
#ifndef BASE_IO_H
#define BASE_IO_H

#include "base/base.h"
#include "base/error.h"
#include "base/fiber.h"

#include <sys/uio.h>

/* Reads until the vector is full or the file ends: bytes read.  Suspends. */
s64 io_readv(struct fiber *f, int fd, const struct iovec *iov, unsigned n, u64 offset);
/* Writes the whole vector or fails: bytes written.  Suspends. */
s64 io_writev(struct fiber *f, int fd, const struct iovec *iov, unsigned n, u64 offset);
int io_datasync(struct fiber *f, int fd);
int io_fallocate(struct fiber *f, int fd, int mode, u64 offset, u64 bytes);

/* Several transfers at once: start any number, then wait for all of them.  The
 * vectors and memory are lent until the wait.  Result: 0 or the first error; a
 * read that meets the end of the file zero-fills the rest. */
struct io_group {
	struct fiber *f;
	u32 pending; /* [loop] */
	int error;
};
void io_group_init(struct fiber *f, struct io_group *g);
void io_group_readv(struct io_group *g, int fd, const struct iovec *iov, unsigned n, u64 offset);
void io_group_writev(struct io_group *g, int fd, const struct iovec *iov, unsigned n, u64 offset);
int io_group_wait(struct fiber *f, struct io_group *g);

/* Vector helpers.  iov_slice makes a vector of bytes [skip, skip + bytes) of
 * `from` in `to` (room for n entries) and returns the number of entries. */
u64 iov_bytes(const struct iovec *iov, unsigned n);
unsigned iov_slice(struct iovec *to, const struct iovec *from, unsigned n, u64 skip, u64 bytes);
bool iov_is_zero(const struct iovec *iov, unsigned n);
void iov_zero(const struct iovec *iov, unsigned n, u64 skip, u64 bytes);
u64 iov_copy_to(const struct iovec *iov, unsigned n, u64 skip, const void *buf, u64 bytes);
u64 iov_copy_from(const struct iovec *iov, unsigned n, u64 skip, void *buf, u64 bytes);

/* Blocking wrappers: value or negative errno, EINTR retried. */
int sys_open(const char *path, int flags, u32 mode);
void sys_close(int fd);
s64 sys_pread(int fd, void *buf, size_t bytes, u64 offset);	   /* whole or to the end of file */
s64 sys_pwrite(int fd, const void *buf, size_t bytes, u64 offset); /* whole */
s64 sys_read(int fd, void *buf, size_t bytes);			   /* one call */
s64 sys_readv(int fd, const struct iovec *iov, unsigned n);	   /* one call */
s64 sys_writev(int fd, const struct iovec *iov, unsigned n);	   /* one call */
s64 sys_write(int fd, const void *buf, size_t bytes);		   /* one call */
int sys_write_all(int fd, const void *buf, size_t bytes);
int sys_ioctl(int fd, unsigned long request, void *arg);
int sys_ioctl_once(int fd, unsigned long request, void *arg); /* one call: -EINTR, too */
int sys_eventfd(void);					      /* non-blocking, close-on-exec */
int sys_file_bytes(int fd, u64 *out);
/* Whole file into a fresh buffer (free() it); refuses more than max bytes. */
int sys_read_file(const char *path, u64 max, u8 **out, u64 *bytes, struct error *err);

#endif
