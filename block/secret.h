/* Secrets by id: what `--object secret,id=...` and `-object` give.
 *
 * Their content lies in memory of its own (block/crypto/key.h) and reaches no
 * message.  Thread: filled by one, then read by any. */
#ifndef BLOCK_SECRET_H
#define BLOCK_SECRET_H

#include "base/opts.h"
#include "block/crypto/key.h"

struct secrets {
	struct secret *v;
	unsigned n;
};

/* From id, data or file, format=raw|base64, keyid and iv of one that is encrypted
 * with another.  Fills err with the reference's words. */
int secrets_add(struct secrets *s, const struct opts *o, struct error *err);
const struct key *secrets_find(const struct secrets *s, const char *id); /* NULL: none */
/* The same; fills err. */
int secrets_get(const struct secrets *s, const char *id, const struct key **out, struct error *err);
void secrets_fini(struct secrets *s); /* wipes */

#endif
