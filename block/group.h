/* Several image requests at once: start any number, then wait for all of them.
 *
 * Each runs on a fiber of its own; at most GROUP_MAX are in flight.
 * Thread: the image's loop. */
#ifndef BLOCK_GROUP_H
#define BLOCK_GROUP_H

#include "block/image.h"

#define GROUP_MAX 32

struct image_crypt;

struct image_group {
	struct fiber_queue wait; /* the owner, for a place or the end */
	u32 pending;		 /* [loop] */
	int error;		 /* the first one */
};

/* image_read, image_write, image_read_backing or the like. */
typedef int image_transfer_fn(struct fiber *f, struct image *img, u64 offset,
			      const struct iovec *iov, unsigned n);

/* Bytes [skip, skip + bytes) of the vector, to or from `offset` of the image. */
struct image_transfer {
	image_transfer_fn *fn;
	struct image *img;
	u64 offset;
	const struct iovec *iov; /* lent for the call; the memory until the wait */
	unsigned n;
	u64 skip, bytes;
	/* [loop] NULL: as it is.  Else decrypted after a read, encrypted before a
	 * write; whole sectors, whose numbers begin with `sector`. */
	struct image_crypt *crypt;
	u64 sector;
	bool encrypt;
};

void image_group_init(struct image_group *g);
/* Start one; runs it on the spot when no fiber can be had.  Suspends if
 * GROUP_MAX are under way. */
void image_group_add(struct fiber *f, struct image_group *g, const struct image_transfer *t);
/* Wait for all: 0 or the first error.  Suspends. */
int image_group_wait(struct fiber *f, struct image_group *g);
/* Run one transfer here.  Suspends. */
int image_transfer(struct fiber *f, const struct image_transfer *t);

#endif
