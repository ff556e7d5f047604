/* Files that go through the host's page cache: what the cache does at the speed of
 * memory is not worth a ring or a thread; see io_cached.c for the rule.
 *
 * Same promises as io_readv and io_writev of io.h, on both backends.  Files opened
 * with O_DIRECT go there. */
#ifndef BASE_IO_CACHED_H
#define BASE_IO_CACHED_H

#include "base/io.h"
#include "base/list.h"
#include "base/thread.h"

struct io_cached {
	int fd;		   /* [const] lent */
	bool cannot_peek;  /* [loop] the file system does not know RWF_NOWAIT */
	u64 slow_until_ns; /* [loop] writes are left to the writer until then */
	u32 watched;	   /* [loop] writes that are still to be watched for sleeping */
	struct mutex lock;
	struct list writes; /* [lock] struct io_op for the writer, oldest first */
	bool writing;	    /* [lock] a thread sees to them */
};
void io_cached_init(struct io_cached *c, int fd);
/* No transfer may be under way. */
void io_cached_fini(struct io_cached *c);

/* Suspend, if it takes longer. */
s64 io_cached_readv(struct fiber *f, struct io_cached *c, const struct iovec *iov, unsigned n,
		    u64 offset);
s64 io_cached_writev(struct fiber *f, struct io_cached *c, const struct iovec *iov, unsigned n,
		     u64 offset);

#endif
