/* For drivers and filters: making images, and the list of formats. */
#ifndef BLOCK_DRIVER_H
#define BLOCK_DRIVER_H

#include "block/image.h"

/* Formats; image.c lists them in the order of probing. */
extern const struct image_driver raw_driver;
extern const struct image_driver qcow2_driver;
extern const struct image_driver luks_driver;

/* Host files and what can stand in their place, by the names of "driver" and of
 * "NAME:..." */
struct image_protocol {
	const char *name;    /* "file" */
	const char *options; /* names of its options, as in struct image_driver */
	/* NAME as it was given, or NULL: policy->options say it ("filename"). */
	int (*open)(struct fiber *f, struct image **out, const char *name,
		    const struct open_policy *policy, struct error *err);
};
extern const struct image_protocol file_protocol;
extern const struct image_protocol host_device_protocol;
extern const struct image_protocol null_aio_protocol, null_co_protocol;
extern const struct image_protocol nbd_protocol, nbd_tcp_protocol, nbd_unix_protocol;

bool image_is_null(const struct image *img); /* takes no space anywhere */

/* "file", "nbd", ...: what names a place and no format. */
bool image_is_protocol(const char *name);

/* What an image keeps in another file: open the one that policy->options under
 * `prefix` ("file.", "data-file.") describe, else NAME.  A host file or, as the
 * options say, a format over one.  Suspends. */
int image_open_child(struct fiber *f, struct image **out, const char *prefix, const char *name,
		     const struct open_policy *policy, struct error *err);

/* For drivers that make images themselves (file, filters): zeroed state with
 * driver, loop, name and request_align set.  image_close frees it. */
struct image *image_new(const struct image_driver *driver, struct loop *loop, const char *name);
/* The same over `below`, which it takes: its name, size and what may be done. */
struct image *image_new_filter(const struct image_driver *driver, struct image *below);

/* What lies behind an image, in memory; NULL: nothing.  Its former backing image is the
 * caller's. */
void image_set_backing(struct image *img, struct image *backing);

/* The memory alone. */
void image_free(struct image *img);

#endif
