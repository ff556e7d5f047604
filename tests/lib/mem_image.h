/* A disk in memory, as the lowest image: fast, and it suspends at random, so that
 * requests on it interleave in many ways.  The storage outlives the image. */
#ifndef TESTS_LIB_MEM_IMAGE_H
#define TESTS_LIB_MEM_IMAGE_H

#include "block/image.h"

struct mem_disk {
	u8 *data;
	u64 bytes, room;
	u64 limit;  /* writes beyond give -ENOSPC; 0: none */
	bool fixed; /* like a block device: does not grow */
	u64 seed;   /* of the suspensions; 0: none */
	u64 reads, writes, syncs;
	bool hold_next; /* the next request waits before it touches the data */
	bool held;	/* it does so now */
	struct fiber_queue gate;
};

void mem_disk_fini(struct mem_disk *d);
/* The disk is lent until the image is closed. */
struct image *mem_image_new(struct loop *loop, struct mem_disk *d);

/* Open a format over `below`, which it takes, also on failure. */
int image_open_over(struct fiber *f, struct image **out, const char *format, struct image *below,
		    const struct open_policy *policy, struct error *err);

/* Let the request go that is held. */
void mem_disk_release(struct mem_disk *d);

/* xorshift: the next number of a seed that is not 0. */
u64 next_random(u64 *seed);

#endif
