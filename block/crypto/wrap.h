/* A secret that is itself encrypted: AES-256-CBC with PKCS#7 padding. */
#ifndef BLOCK_CRYPTO_WRAP_H
#define BLOCK_CRYPTO_WRAP_H

#include "base/error.h"
#include "block/crypto/key.h"

#define WRAP_KEY_BYTES 32
#define WRAP_IV_BYTES  16

/* Fills err: lengths, padding. */
int wrap_open(const struct key *wrapped, const struct key *key, const u8 *iv, struct key *out,
	      struct error *err);

#endif
