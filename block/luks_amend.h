/* Key slots of an image as `amend` changes them. */
#ifndef BLOCK_LUKS_AMEND_H
#define BLOCK_LUKS_AMEND_H

#include "block/amend.h"
#include "block/create.h"

struct luks;

/* The names that amend takes, behind a driver's prefix ("encrypt." or ""). */
extern const struct create_option luks_amend_table[];
/* Any option that starts so? */
bool luks_amend_asked(const struct opts *o, const char *prefix);
/* Do as the options say, durably.  -EINVAL with the reference's words; the image is
 * unlocked.  Suspends. */
int luks_amend(struct fiber *f, struct luks *l, const struct amend_request *req, const char *prefix,
	       struct error *err);

#endif
