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
	int (*make_empty)(struct fiber *f, struct image *img);
	bool (*is_encrypted)(const struct image *img);
};

/* Let writes through, or no more; the locks on its file go along, and with `false`
 * everything is durable and closed for others to read.  No request for it may be
 * under way.  Suspends. */
int image_set_writable(struct fiber *f, struct image *img, bool writable, struct error *err);

#endif
