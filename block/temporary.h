/* Drives whose writes are thrown away (-snapshot). */
#ifndef BLOCK_TEMPORARY_H
#define BLOCK_TEMPORARY_H

#include "base/error.h"
#include "block/image.h"

/* Open the image below an overlay without a name, which goes with its descriptor; the
 * options of the policy are of the image.  If one of its chain is encrypted, so is the
 * overlay, with a key that nobody knows.  Suspends. */
int temporary_open(struct fiber *f, struct image **out, const char *file,
		   const struct open_policy *policy, struct error *err);

#endif
