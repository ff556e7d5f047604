/* Requests at any byte for drivers that can do whole sectors only. */
#ifndef BLOCK_ALIGNED_H
#define BLOCK_ALIGNED_H

#include "block/group.h"

/* Writes of whole sectors share the lock, those that change part of one hold it
 * alone: `locks` is the image's. */
struct aligned {
	struct image *img;
	image_transfer_fn *read, *write; /* whole sectors */
	struct range_locks *locks;
};

/* goff and the vector's bytes may be anything within the image.  Suspends. */
int aligned_read(struct fiber *f, const struct aligned *a, u64 goff, const struct iovec *iov,
		 unsigned n);
int aligned_write(struct fiber *f, const struct aligned *a, u64 goff, const struct iovec *iov,
		  unsigned n);

#endif
