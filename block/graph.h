/* Images that change their place in an open chain, and what drivers do for it.
 * Thread: the images' loop; no other request for them is under way. */
#ifndef BLOCK_GRAPH_H
#define BLOCK_GRAPH_H

#include "block/image.h"

/* Of drivers.  All but is_encrypted suspend. */
struct image_graph_ops {
	/* Bring the file up to date, as closing does: read-only from here on. */
	int (*settle)(struct fiber *f, struct image *img);
	/* Writable from here on; what is below is already.  NULL: nothing to do. */
	int (*begin_writing)(struct fiber *f, struct image *img, struct error *err);
	/* Name another backing file, durably; NULL name: none. */
	int (*set_backing)(struct fiber *f, struct image *img, const char *name, const char *format,
			   struct error *err);
	/* Show what is behind everywhere, durably. */
	int (*make_empty)(struct fiber *f, struct image *img,
			  bool same); /* same: it did so before */
	bool (*is_encrypted)(const struct image *img);
};

/* Let writes through, or no more; the locks on its file go along, and with `false`
 * everything is durable and closed for others to read.  No request for it may be
 * under way.  Suspends. */
int image_set_writable(struct fiber *f, struct image *img, bool writable, struct error *err);

#define NODE_NAME_ROOM 32
/* As a node among all images: as options named it, or "#block" and a number. */
void image_node_name(const struct image *img, char name[NODE_NAME_ROOM]);
/* "writeback, direct": a mode in the words of `info block` (free() it). */
char *image_cache_words(enum cache_mode mode, bool write_cache);
/* Name of the host file or the like at the bottom of one image. */
const char *image_host_name(const struct image *img);
/* Does `name` mean this image: as it is called, as `over`, whose backing image it
 * is, calls it, or as the same file?  over NULL: seen from where we are. */
bool image_has_name(const struct image *img, const struct image *over, const char *name);
/* The image of top's chain whose backing image has this name, or NULL. */
struct image *image_find_over(struct image *top, const char *name);
/* How an image in `file` is to name its backing image: as that is named here; where
 * this would be another file, seen from the folder of `file`, by its name alone if
 * they share that, else by its absolute path (free() it). */
char *image_backing_name(const struct image *backing, const char *file);
/* Take what lies between the two out of the chain, base NULL: all behind `over`, and
 * close it.  Suspends. */
int image_cut_chain(struct fiber *f, struct image *over, struct image *base);

#endif
