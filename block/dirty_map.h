/* A sparse bitmap of guest bytes in memory: what was written since it was made.
 * Takes memory for what is set only.  Thread: the image's loop. */
#ifndef BLOCK_DIRTY_MAP_H
#define BLOCK_DIRTY_MAP_H

#include "base/base.h"

struct dirty_map;

/* -EFBIG: more than 2^32 bits; -ENOMEM. */
int dirty_map_new(struct dirty_map **out, u64 bytes, u32 granularity_bits);
void dirty_map_free(struct dirty_map *m); /* NULL is fine */
/* Set every bit that the range touches; what is beyond the end is nothing.
 * -ENOMEM: some bits may be missing. */
int dirty_map_set(struct dirty_map *m, u64 goff, u64 bytes);
bool dirty_map_is_empty(const struct dirty_map *m);
/* Clear the bits of this range, which starts and ends with one. */
void dirty_map_clear(struct dirty_map *m, u64 goff, u64 bytes);
/* Bytes whose bits are set; goes over the whole map. */
u64 dirty_map_bytes(const struct dirty_map *m);
/* The first run of set bits that ends after *goff, as a range of bytes within the
 * disk that starts at or after *goff; false: there is none. */
bool dirty_map_next(const struct dirty_map *m, u64 *goff, u64 *bytes);

#endif
