/* Hashes by name, PBKDF2 with them, and how fast it is here. */
#ifndef BLOCK_CRYPTO_KDF_H
#define BLOCK_CRYPTO_KDF_H

#include "base/fiber.h"
#include "block/crypto/key.h"

#define HASH_MOST 64 /* bytes of the largest digest */

struct hash; /* [const] */

/* sha256, sha1, sha512, ...: NULL if there is none of this name. */
const struct hash *hash_find(const char *name);
size_t hash_bytes(const struct hash *h);
/* Digest of a, then b; out has room for HASH_MOST.  -EIO. */
int hash_run(const struct hash *h, const void *a, size_t a_bytes, const void *b, size_t b_bytes,
	     u8 *out);

/* RFC 8018, 5.2.  Blocks of the key are made on pool threads, side by side. */
struct kdf {
	const struct hash *hash;
	const struct key *password;
	const u8 *salt;
	size_t salt_bytes;
	u32 iterations; /* > 0 */
};
int kdf_run(struct fiber *f, const struct kdf *k, u8 *out, size_t bytes); /* Suspends. */

/* Iterations in a second of one CPU for a key of so many bytes: measured by the
 * CPU time of a pool thread, so that a busy host does not make keys weaker.
 * Never fails; at least 1.  Suspends. */
u64 kdf_speed(struct fiber *f, const struct hash *h, size_t key_bytes);

#endif
