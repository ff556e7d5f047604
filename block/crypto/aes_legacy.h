/* qcow2's first encryption (crypt_method 1): AES-128-CBC by guest sectors. */
#ifndef BLOCK_CRYPTO_AES_LEGACY_H
#define BLOCK_CRYPTO_AES_LEGACY_H

#include "block/crypto/cipher.h"

/* Any passphrase gives a key; whether it is the right one nobody can tell. */
int aes_legacy_new(struct cipher **out, const struct key *passphrase, struct error *err);

#endif
