/* What the modes need of one another's contexts; cipher.c, xts.c. */
#ifndef BLOCK_CRYPTO_CIPHER_INTERNAL_H
#define BLOCK_CRYPTO_CIPHER_INTERNAL_H

#include "block/crypto/cipher.h"
#include "block/crypto/lib.h"

#define IV_BYTES 16

struct cipher_context {
	struct cipher_context *next; /* [cipher.lock] while idle */
	const struct cipher_spec *spec;
	EVP_CIPHER_CTX *crypt[2]; /* decrypt, encrypt */
	EVP_CIPHER_CTX *aux;	  /* ESSIV's cipher, or the second key of XTS by hand */
};

/* A context with its key; no padding.  NULL: no memory. */
EVP_CIPHER_CTX *evp_context(const EVP_CIPHER *cipher, const u8 *key, bool encrypt);
const EVP_CIPHER *evp_aes(enum cipher_mode mode, size_t key_bytes); /* NULL: none */
int evp_blocks(EVP_CIPHER_CTX *x, const u8 *in, u8 *out, size_t bytes);

/* --- xts.c: key lengths that the library has no XTS for --- */
int xts_by_hand_init(struct cipher_context *x, const u8 *key, size_t bytes);
int xts_by_hand(struct cipher_context *x, bool encrypt, const u8 *iv, const u8 *in, u8 *out);

#endif
