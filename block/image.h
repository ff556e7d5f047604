/* Inside of the block layer: an open image, its driver, its backing chain.
 *
 * Every image belongs to one loop thread and is touched by that thread alone;
 * `struct fiber *f` first means: may suspend.  image.c checks range, alignment
 * and writability once, drivers trust them.  Drivers and filters see the image
 * below only as `struct image *`; the lowest one is a host file (file.h).
 * Offsets: goff guest, hoff host, in bytes. */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include "base/base.h"
#include "base/error.h"
#include "base/fiber.h"
#include "block/check.h"
#include "block/policy.h"

#include <sys/uio.h>

struct image;
struct file;
struct image_graph_ops;
struct amend_request;
struct create_option;
struct create_request;
struct key;
struct unlock_policy;

/* What a byte range of an image is. */
enum map_kind {
	MAP_DATA = 1 << 0,  /* may hold other than zeros */
	MAP_ZERO = 1 << 1,  /* reads as zeros */
	MAP_ALLOC = 1 << 2, /* decided by this image, not by its backing */
	MAP_HOFF = 1 << 3,  /* `hoff` is valid in `file` */
	MAP_COMPRESSED = 1 << 4,
};
struct map_extent {
	u64 bytes; /* of the answer, from the asked goff on; > 0 */
	u64 hoff;
	u32 kind;	    /* enum map_kind bits */
	struct image *file; /* with MAP_HOFF: where `hoff` counts; set by image_map */
};

/* What is allocated ahead: nothing, the map, host blocks, blocks full of zeros. */
enum prealloc { PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_FALLOC, PREALLOC_FULL };

enum zero_flags { ZERO_MAY_UNMAP = 1, ZERO_NO_FALLBACK = 2 };

struct image_driver {
	const char *name;  /* "qcow2", "raw", "file", "record", ... */
	size_t state_size; /* of the driver's struct, which starts with struct image */
	/* Names of open options, by blanks; "x." is all that starts so.  Others
	 * than these and those of all images are refused. */
	const char *options;
	/* 0..100: how sure from the first bytes of the file. */
	int (*probe)(const u8 *head, size_t bytes);
	/* What creation takes (create.h); NULL: images cannot be made. */
	const struct create_option *create_options;
	/* Make the file(s) of an image of req->bytes; the options' names and types
	 * are right.  Durable on return. */
	int (*create)(struct fiber *f, const struct create_request *req, struct error *err);
	/* What may be changed of it (amend.h); NULL: nothing. */
	const struct create_option *amend_options;
	int (*amend)(struct fiber *f, struct image *img, const struct amend_request *req,
		     struct error *err);
	/* img->below is open; sets img->bytes.  Fills err. */
	int (*open)(struct fiber *f, struct image *img, const struct open_policy *policy,
		    struct error *err);
	int (*read)(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n);
	int (*write)(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n);
	/* Make the range read as zeros, cheaply; -ENOTSUP: the caller writes zeros. */
	int (*zero)(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags);
	int (*discard)(struct fiber *f, struct image *img, u64 goff, u64 bytes);
	int (*flush)(struct fiber *f, struct image *img);
	int (*map)(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out);
	int (*resize)(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		      struct error *err);
	int (*check)(struct fiber *f, struct image *img, struct check_request *req,
		     struct error *err);
	/* For encrypted images: see image_unlock (unlock.h). */
	int (*unlock)(struct fiber *f, struct image *img, const struct key *passphrase,
		      struct error *err);
	const struct image_graph_ops *graph; /* graph.h; NULL: no backing images */
	/* Writes out what is pending; the first error is returned, all is released. */
	int (*close)(struct fiber *f, struct image *img);
};

struct image {
	const struct image_driver *driver; /* [const] */
	struct loop *loop;		   /* [const] */
	char *name;			   /* [const] as given or as the overlay names it */
	char *node_name;		   /* [const] NULL: nobody named it (graph.h) */
	u64 bytes;			   /* [loop] guest size, multiple of 512 for disks */
	bool writable;			   /* [loop] else read-only */
	bool encrypted;			   /* [const] there is a passphrase (unlock.h) */
	bool locked;			   /* [loop] waits for its passphrase (unlock.h) */
	u32 request_align;		   /* [const] power of two; 1: any */
	/* [const] A regular host file, or a filter over one: writes beyond `bytes`
	 * extend it, reads beyond give zeros, image_resize truncates.  A block
	 * device is not: there `bytes` is a wall. */
	bool grows;
	u8 detect_zeroes;      /* [const] enum detect_zeroes */
	u8 cache;	       /* [const] enum cache_mode */
	struct image *below;   /* [loop] the file under a format or filter */
	struct image *backing; /* [loop] NULL: reads as zeros */
	char *backing_name;    /* [loop] as the image names it, even if not open */
	char *backing_format;  /* [loop] NULL: not named */
};

/* Open NAME and, as the policy allows, its backing chain.  NULL: the options say
 * what; a "json:{...}" name is options, too.  Suspends. */
int image_open(struct fiber *f, struct image **out, const char *name,
	       const struct open_policy *policy, struct error *err);
int image_close(struct fiber *f, struct image *img); /* takes img; NULL is fine */

/* iov bytes must lie in the image (-EINVAL) and writes need img->writable
 * (-EACCES, -EROFS).  read fills the vector, with zeros beyond a short backing. */
int image_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n);
int image_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n);
int image_pread(struct fiber *f, struct image *img, u64 goff, void *buf, u64 bytes);
int image_pwrite(struct fiber *f, struct image *img, u64 goff, const void *buf, u64 bytes);
int image_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags);
int image_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes);
int image_flush(struct fiber *f, struct image *img);
int image_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out);
int image_resize(struct fiber *f, struct image *img, u64 bytes, struct error *err);
/* The same; the new space is allocated as the mode says. */
int image_resize_alloc(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		       struct error *err);

/* Read [goff, goff + bytes) of the chain from img->backing downward: zeros beyond
 * its end or without a backing image. */
int image_read_backing(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		       unsigned n);

/* The drivers there are, by name; probing looks at them in this order. */
const struct image_driver *image_driver_find(const char *name);
const struct image_driver *image_driver_probe(const u8 *head, size_t bytes);
/* Name of a backing file as seen from the directory of its overlay (free() it). */
char *image_resolve_name(const char *overlay, const char *backing);
/* Depth of the backing chain: 0 without one. */
unsigned image_depth(const struct image *img);

#endif
