/* External snapshots of drives that are in use: a new image on top of each, in
 * which all later writes end up, and which has the old one behind it.
 *
 * Several drives switch at one moment: requests of all are held, those under way
 * have ended, what they wrote is durable.  All of them switch, or none. */
#ifndef BLOCK_OVERLAY_H
#define BLOCK_OVERLAY_H

#include "block/blk_task.h"
#include "block/crypto/key.h"

struct overlay_change {
	struct blk *blk;
	const char *file;   /* of the new image; lent */
	const char *format; /* NULL: qcow2 */
	bool reuse;	    /* the image is there, and shows what the drive shows */
	/* What overlays_put says of it; overlay_change_fini. */
	char *text;    /* "Formatting ...": an image was made, or tried; else NULL */
	char *warning; /* what people should know; else NULL */
	bool locked;   /* the image that is there waits for its passphrase: -EACCES */
	struct image *img, *old;
	const struct key *passphrase;
	bool made, drained, settled;
};

/* -ENOMEDIUM, -EBUSY, ...: with the reference's words; images that were made are
 * removed.  [any thread but the loops] */
int overlays_put(struct overlay_change *v, unsigned n, struct error *err);
/* The same for one drive whose new image (reuse) waits for this passphrase.  Finding out
 * whether it is right takes its time: begin, and the end when `ended` was called, or
 * whenever one likes to wait for it.  -EACCES: it is wrong. */
struct overlay_unlocking {
	struct overlay_change c;		    /* of the caller, who calls its fini */
	struct key passphrase;			    /* of the caller, wiped at the end */
	void (*ended)(struct overlay_unlocking *u); /* [loop] */
	struct blk_task task;
	struct error err;
};
void overlay_unlock_begin(struct overlay_unlocking *u);
int overlay_unlock_end(struct overlay_unlocking *u, bool use); /* use false: nothing changes */
/* Throw away what the top has: the drive shows the image behind it again, which
 * stays behind.  A crash leaves one or the other.  [any thread but the loop] */
int overlay_revert(struct blk *blk, struct error *err);
void overlay_change_fini(struct overlay_change *c);

#endif
