/* Persistent dirty bitmaps of a qcow2 image: names, flags and bits in the file. */
#ifndef BLOCK_QCOW2_BITMAP_H
#define BLOCK_QCOW2_BITMAP_H

#include "block/image.h"

struct qcow2_bitmap {
	const char *name; /* lent until the image's bitmaps change */
	u64 granularity_bytes;
	bool in_use;	/* inconsistent: not stored by who changed the image; may only be removed */
	bool automatic; /* follows what is written */
};

/* The bitmaps of an image, in their order: how many.  *out (free() it) may be NULL
 * if there are none; an image of another format has none. */
u32 qcow2_bitmaps_list(struct image *img, struct qcow2_bitmap **out);

/* Each of these is durable on return, whole or not at all.  Errors are in the
 * reference's words.  All suspend. */
/* granularity 0: the default for the image. */
int qcow2_bitmap_add(struct fiber *f, struct image *img, const struct qcow2_bitmap *what,
		     struct error *err);
int qcow2_bitmap_remove(struct fiber *f, struct image *img, const char *name, struct error *err);
int qcow2_bitmap_clear(struct fiber *f, struct image *img, const char *name, struct error *err);
int qcow2_bitmap_enable(struct fiber *f, struct image *img, const char *name, bool on,
			struct error *err);
/* Set in `name` of img what is set in `from` of source, which may be the same. */
int qcow2_bitmap_merge(struct fiber *f, struct image *img, const char *name, struct image *source,
		       const char *from, struct error *err);
/* convert --bitmaps: all of source's that are not in_use. */
int qcow2_bitmaps_copy(struct fiber *f, struct image *img, struct image *source, struct error *err);
/* What the bitmaps would take at most in an image of this cluster size (measure). */
u64 qcow2_bitmaps_measure(struct image *img, u64 cluster_bytes);

#endif
