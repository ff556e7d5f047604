/* What a range is for a reader of the whole chain. */
#ifndef BLOCK_MAP_CHAIN_H
#define BLOCK_MAP_CHAIN_H

#include "block/image.h"

struct chain_extent {
	struct map_extent map; /* kind MAP_ZERO alone: nobody in the chain has it */
	struct image *image;   /* who decides; without MAP_ALLOC the last one asked */
	unsigned depth;	       /* its place below the image that was asked */
};
/* From goff on, at most `bytes`; one extent, not joined with the next.  Suspends. */
int image_map_chain(struct fiber *f, struct image *img, u64 goff, u64 bytes,
		    struct chain_extent *out);

#endif
