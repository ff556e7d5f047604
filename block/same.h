/* Are two ranges of images equal?
 *
 * Where both lie in host files as they are, a pool thread reads and compares them
 * in pieces that stay in its processor's cache. */
#ifndef BLOCK_SAME_H
#define BLOCK_SAME_H

#include "block/image.h"
#include "block/map_chain.h"

#define SAME_PIECE  (128 * KiB)
#define SAME_SECTOR 512

/* One side: a range of an image as `map` describes it, or zeros (img NULL). */
struct same_side {
	struct image *img;
	u64 goff;
	struct map_extent map; /* of goff, at least as long as what is compared */
	u8 *buf;	       /* SAME_PIECE bytes */
	int error;	       /* of reading this side */
};
struct same {
	struct same_side a, b;
	u64 bytes;
	u64 differs; /* offset in the range of the first different sector, or `bytes` */
};

/* 0, or the error that one of the sides has.  Suspends. */
int same_compare(struct fiber *f, struct same *s);

/* Bytes from the start that are equal, or zero, in whole sectors. */
size_t same_bytes(const u8 *a, const u8 *b, size_t bytes);
size_t zero_bytes(const u8 *a, size_t bytes);

#endif
