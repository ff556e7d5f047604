/* Going over a whole chain from a low to a high offset, one look at each map.
 *
 * What a layer answered is kept until the walk has left it behind: a layer with
 * large holes is not asked again for every extent of the layers below it. */
#ifndef BLOCK_MAP_CURSOR_H
#define BLOCK_MAP_CURSOR_H

#include "block/image.h"
#include "block/map_chain.h"

struct map_layer;
struct map_cursor {
	struct map_layer *layers; /* the top first */
	unsigned n;
	bool look_below; /* find holes in the file under preallocated clusters */
	/* Set: what cannot be mapped is said here and counts as data.  NULL: it fails. */
	void (*unmapped)(struct map_cursor *c, u64 goff, int err);
};

/* Over `top` and what is behind it, down to `end` without it (NULL: all).  The
 * images must not change while the cursor is in use, but for those whose answers
 * map_cursor_forget drops. */
void map_cursor_init(struct map_cursor *c, struct image *top, const struct image *end);
void map_cursor_fini(struct map_cursor *c);
void map_cursor_forget(struct map_cursor *c);
/* As image_map_chain; the depth counts from `top`.  An extent that neither layer
 * has: MAP_ZERO without MAP_ALLOC if the chain ends here, no kind at all if `end`
 * would decide.  Suspends. */
int map_cursor_at(struct fiber *f, struct map_cursor *c, u64 goff, u64 bytes,
		  struct chain_extent *out);
/* From goff on, joined as long as `kind & mask` stays the same.  Suspends. */
int map_cursor_run(struct fiber *f, struct map_cursor *c, u64 goff, u64 bytes, u32 mask,
		   struct chain_extent *out);

#endif
