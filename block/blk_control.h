/* What the machine does with a drive, beside what devices do (blk.h): passphrases, media,
 * limits.  Thread: any but the drive's loop; calls wait, but for those that say otherwise. */
#ifndef BLOCK_BLK_CONTROL_H
#define BLOCK_BLK_CONTROL_H

#include "block/blk_task.h"
#include "block/crypto/key.h"
#include "block/throttle.h"

/* Encrypted images (blk_lock.c).
 * The first locked one of the chain by name (free() it); NULL: none, the drive works. */
char *blk_locked_image(struct blk *blk);
/* Unlock that one, which takes seconds where somebody wanted that: begin, and the end when
 * `ended` was called, or whenever one likes to wait for it.  Errors as image_unlock's. */
struct blk_unlocking {
	struct key passphrase;			/* of the caller, wiped at the end */
	void (*ended)(struct blk_unlocking *u); /* NULL: none.  [loop] */
	struct blk_task task;
	struct error err;
};
void blk_unlock_begin(struct blk *blk, struct blk_unlocking *u);
int blk_unlock_end(struct blk_unlocking *u);
bool blk_is_encrypted(struct blk *blk); /* the top image */

/* Put another image in, or (NULL) take it out; on an error nothing has changed. */
struct blk_medium {
	const char *file, *format; /* format NULL: probe */
};
int blk_change_medium(struct blk *blk, const struct blk_medium *m, struct error *err);

/* Limits (throttle.h): of this drive or of all of its group; none set takes the drive
 * out of it.  get: the group's name, free() it, NULL: no limits. */
void blk_set_limits(struct blk *blk, const struct throttle_limits *l);
char *blk_get_limits(struct blk *blk, struct throttle_limits *out);
/* Requests do not wait for them from now on, until `on` is false. */
void blk_hurry(struct blk *blk, bool on);

#endif
