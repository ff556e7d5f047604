/* Disks are encrypted sector by sector: a cipher, how its blocks are chained in a
 * sector, and how a sector's number becomes the initialisation vector. */
#ifndef BLOCK_CRYPTO_CIPHER_H
#define BLOCK_CRYPTO_CIPHER_H

#include "base/error.h"
#include "block/crypto/key.h"

#define CIPHER_SECTOR 512u

enum cipher_mode { CIPHER_ECB, CIPHER_CBC, CIPHER_CTR, CIPHER_XTS };
enum cipher_iv { IV_PLAIN, IV_PLAIN64, IV_ESSIV };

/* AES is the only algorithm; the key's length (two keys for XTS) says the rest. */
struct cipher_spec {
	enum cipher_mode mode;
	enum cipher_iv iv;
	const char *essiv_hash; /* with IV_ESSIV: a name that hash_find knows */
};

struct cipher;

/* Is this length right for the mode? */
bool cipher_key_fits(enum cipher_mode mode, size_t key_bytes);
/* The key is not kept.  Fills err: lengths that do not fit, no memory. */
int cipher_new(struct cipher **out, const struct cipher_spec *spec, const struct key *key,
	       struct error *err);
struct cipher *cipher_ref(struct cipher *c); /* one more owner, of any thread */
void cipher_free(struct cipher *c);	     /* of one owner; NULL is fine */

/* A thread's own contexts, with the key in them: take, use, put back.  NULL: no
 * memory.  [any thread] */
struct cipher_context;
struct cipher_context *cipher_get(struct cipher *c);
void cipher_put(struct cipher *c, struct cipher_context *x);
/* Whole sectors from number `sector` on; in and out are equal or do not overlap.
 * -EIO if the library fails. */
int cipher_run(struct cipher_context *x, bool encrypt, u64 sector, const void *in, void *out,
	       size_t bytes);

#endif
