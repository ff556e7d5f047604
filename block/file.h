/* A host file or block device as the lowest image: locks, cache modes, holes.
 *
 * With O_DIRECT (cache none, directsync) buffers that are not aligned are
 * bounced and partial blocks are read, changed and written.  Locks are the
 * reference's byte locks, so the two programs keep out of each other's images. */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include "block/image.h"

extern const struct image_driver file_driver;

/* Open an existing file or device.  policy->writable asks for read-write; the
 * messages are the reference's ("Could not open 'x': No such file or directory",
 * "Failed to get \"write\" lock").  Suspends. */
int file_open(struct fiber *f, struct image **out, const char *path,
	      const struct open_policy *policy, struct error *err);
/* Create (or empty) a regular file of this size, all holes, and open it writable. */
int file_create(struct fiber *f, struct image **out, const char *path, u64 bytes,
		const struct open_policy *policy, struct error *err);
/* Take the name of a regular file away, which could not be made whole. */
void file_remove(const struct image *img);
/* Writing zeros for preallocation ends with -EINTR when *stop is set, by the loop's
 * thread; NULL: nobody will. */
void file_set_stop(struct image *img, const bool *stop);
/* Tell the file system how the file will be used. */
void file_set_hints(struct image *img, bool nocow, u64 extent_bytes);
/* Copy between two host files in the kernel, sharing blocks where it can; any error:
 * nothing is known of the target's range, read and write instead.  Suspends. */
int file_copy_range(struct fiber *f, struct image *from, u64 from_hoff, struct image *to,
		    u64 to_hoff, u64 bytes);
/* Have the host find room for [from, to), which is going to be written in small pieces,
 * at once.  A hint: the image is no larger for it, and what was not written is given
 * back when the file is closed. */
int file_reserve(struct image *img, u64 from, u64 to);
/* Bytes that the file takes on the host (st_blocks). */
int file_allocated_bytes(struct image *img, u64 *out);
/* Do reads go through the host's cache, so that any thread may pread as it likes? */
bool file_is_buffered(const struct image *img);
/* For image_set_writable: other locks, and a descriptor that may write. */
int file_set_writable(struct fiber *f, struct image *img, bool writable, struct error *err);
/* Is it this one? */
bool file_is(const struct image *img, u64 dev, u64 ino);
/* Host descriptor, for diagnostics and tests; belongs to the image. */
int file_fd(const struct image *img);

#endif
