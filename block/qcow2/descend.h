/* Where in a chain a small read begins; see descend.c.  Thread: the image's loop. */
#ifndef BLOCK_QCOW2_DESCEND_H
#define BLOCK_QCOW2_DESCEND_H

#include "block/image.h"

struct depths;

/* The first image from `img` on that has more to say about the range than that it is
 * a hole, as far as tables in memory tell.  Does not suspend. */
struct image *descend(struct image *img, u64 goff, u64 bytes);
void depths_free(struct depths *d);

#endif
