/* The anti-forensic splitter of LUKS1: a key spread over so much data that losing
 * any part of it loses the key. */
#ifndef BLOCK_CRYPTO_AF_H
#define BLOCK_CRYPTO_AF_H

#include "block/crypto/kdf.h"

/* split has `stripes` times the key's bytes.  -EIO if no random bytes or no
 * digest can be had. */
int af_split(const struct hash *h, const struct key *key, u32 stripes, struct key *split);
int af_merge(const struct hash *h, const struct key *split, u32 stripes, struct key *key);

#endif
