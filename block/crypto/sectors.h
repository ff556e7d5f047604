/* Encrypting and decrypting what a disk request carries: vectors, on all cores. */
#ifndef BLOCK_CRYPTO_SECTORS_H
#define BLOCK_CRYPTO_SECTORS_H

#include "base/fiber.h"
#include "block/crypto/cipher.h"

#include <sys/uio.h>

/* The vector's bytes, whole sectors from number `sector` on: decrypt in place, or
 * encrypt into `out`.  Up to 64 KiB at once, more on pool threads.  Elements may
 * be cut anywhere.  Suspends. */
int sectors_decrypt(struct fiber *f, struct cipher *c, u64 sector, const struct iovec *iov,
		    unsigned n);
int sectors_encrypt(struct fiber *f, struct cipher *c, u64 sector, const struct iovec *iov,
		    unsigned n, void *out);

#endif
