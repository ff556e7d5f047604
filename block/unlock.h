/* Encrypted images: where passphrases come from, and images that wait for one.
 *
 * An encrypted image is locked until its passphrase was given: image.h refuses
 * every request for its data with -EACCES; what is metadata (info, check, the map)
 * works.  Thread: the image's loop. */
#ifndef BLOCK_UNLOCK_H
#define BLOCK_UNLOCK_H

#include "base/error.h"
#include "base/fiber.h"
#include "block/crypto/key.h"
#include "block/image.h"

struct secrets;
struct opts;

enum unlock_when {
	UNLOCK_NOW,   /* opening fails unless the passphrase is to be had */
	UNLOCK_LATER, /* without a secret it is opened locked: image_unlock */
	UNLOCK_NEVER, /* for metadata only: opened locked, nobody is asked */
};

struct unlock_question {
	const char *image; /* whose passphrase */
	unsigned tries;	   /* wrong answers so far */
	const char *why;   /* what the last one led to; NULL: none */
};

/* How open_policy and create_request find passphrases: the secret that the options
 * name ("encrypt.key-secret", "key-secret"), else whoever answers `ask`. */
struct unlock_policy {
	enum unlock_when when;
	const struct secrets *secrets; /* NULL: none */
	/* Fills *out (key_wipe it) or returns a negative errno: -ENOTTY if there is
	 * nobody to ask, else with err filled.  NULL: nobody.  Suspends. */
	int (*ask)(struct fiber *f, void *arg, const struct unlock_question *q, struct key *out,
		   struct error *err);
	void *arg;
};

/* Unlock with this passphrase.  -EACCES: it is wrong.  -EINVAL: not locked.  For
 * legacy AES any is taken; a warning says if nothing known shows up.  Suspends. */
int image_unlock(struct fiber *f, struct image *img, const struct key *passphrase,
		 struct error *err);
/* The first locked image from here down the backing chain, or NULL. */
struct image *image_first_locked(struct image *top);

/* --- for drivers --- */
/* At the end of a driver's open, with img->locked set: unlock as the policy says.
 * `name` is the option that names the secret.  Suspends. */
int image_unlock_open(struct fiber *f, struct image *img, const struct open_policy *policy,
		      const char *name, struct error *err);
/* For creation: the passphrase of a new image, of the secret with this id (NULL:
 * none named, by `option`) or asked for.  key_wipe it.  Suspends. */
struct unlock_wanted {
	const char *image, *id, *option;
};
int unlock_passphrase(struct fiber *f, const struct unlock_policy *u, const struct unlock_wanted *w,
		      struct key *out, struct error *err);

#endif
