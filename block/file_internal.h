/* Shared by file.c, file_direct.c and file_lock.c: the state of an open host file. */
#ifndef BLOCK_FILE_INTERNAL_H
#define BLOCK_FILE_INTERNAL_H

#include "base/io_cached.h"
#include "block/file.h"

struct host_file {
	struct image img;
	int fd;			 /* [const] */
	struct io_cached cached; /* unless direct: what transfers go through */
	u64 dev, ino;		 /* [const] */
	bool is_device;		 /* [const] */
	bool may_write;		 /* [loop] of the descriptor */
	bool no_lock;		 /* [const] of the policy, as is the next */
	bool share;		 /* [const] */
	bool discard;		 /* [const] discard requests reach the host */
	bool unsafe;		 /* [const] flush does nothing */
	const bool *stop;	 /* [loop] file_set_stop */
	bool direct;		 /* [const] O_DIRECT: the two alignments below count */
	bool reserved;		 /* [loop] the host's file is longer than ours */
	u32 memory_align;	 /* [const] of buffers */
	u32 io_align;		 /* [const] of offsets and lengths */
	bool cannot_zero;	 /* [loop] the host refused */
	bool cannot_punch;	 /* [loop] */
	/* A flush must cover the writes completed before it was issued; one
	 * fdatasync serves all flushes that it covers.  After one failed, the
	 * kernel may have dropped the data: every later flush fails too. */
	u64 writes_done;   /* [loop] counts */
	u64 writes_synced; /* [loop] of them, known durable */
	bool syncing;	   /* [loop] */
	int sync_error;	   /* [loop] */
	struct fiber_queue sync_waiters;
	struct range_locks blocks; /* direct: writers share, partial blocks exclude */
};

/* How the request lies with respect to the alignments. */
bool file_is_aligned(const struct host_file *file, u64 hoff, const struct iovec *iov, unsigned n);
void file_find_alignment(struct host_file *file);
/* Through an aligned buffer.  Suspend. */
int file_bounce_read(struct fiber *f, struct host_file *file, u64 hoff, const struct iovec *iov,
		     unsigned n);
int file_bounce_write(struct fiber *f, struct host_file *file, u64 hoff, const struct iovec *iov,
		      unsigned n);

/* Give [from, to), which is new, its place as the mode says.  Suspends. */
int file_preallocate(struct fiber *f, struct host_file *file, u64 from, u64 to, enum prealloc mode,
		     struct error *err);
/* As file_open, by a path that is one, whatever colons it has.  Suspends. */
int file_open_path(struct fiber *f, struct image **out, const char *path,
		   const struct open_policy *policy, struct error *err);

/* Does it go on behind the image's end?  Whole blocks were written, or room reserved:
 * to be cut off when nobody writes any more. */
bool file_is_too_long(const struct host_file *file);

/* Take the locks that fit the policy, and look for those of others that do not
 * fit. */
int file_lock(int fd, const char *path, const struct open_policy *policy, struct error *err);
/* Closing the descriptor would do, but not at once: a ring's worker may hold the
 * file a little longer than its last completion. */
void file_unlock(int fd);

#endif
