/* For drivers and filters: making images, and the list of formats. */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "block/image.h"

/* Formats; image.c lists them in the order of probing. */
extern const struct image_driver raw_driver;
extern const struct image_driver qcow2_driver;

/* For drivers that make images themselves (file, filters): zeroed state with
 * driver, loop, name and request_align set.  image_close frees it. */
struct image *image_new(const struct image_driver *driver, struct loop *loop, const char *name);
/* The same over `below`, which it takes: its name, size and what may be done. */
struct image *image_new_filter(const struct image_driver *driver, struct image *below);

#endif
