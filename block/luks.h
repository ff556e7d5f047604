/* Raw LUKS containers for their users: what `info` shows, key slots. */
#ifndef BLOCK_LUKS_H
#define BLOCK_LUKS_H

#include "block/image.h"

struct luks;

/* The header of an open container; img->driver is luks_driver. */
struct luks *luks_image_header(struct image *img);

#endif
