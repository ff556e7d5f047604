/* libcrypto, loaded by the first thing that encrypts.
 *
 * Linked to the programs, it took half of the time in which a command on a small image
 * was done: 17000 addresses of its tables to be set right. */
#ifndef BLOCK_CRYPTO_LIB_H
#define BLOCK_CRYPTO_LIB_H

#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#define CRYPTO_LIB_FUNCTIONS(X)                                                                    \
	X(EVP_CIPHER_CTX_copy)                                                                     \
	X(EVP_CIPHER_CTX_free)                                                                     \
	X(EVP_CIPHER_CTX_new)                                                                      \
	X(EVP_CIPHER_CTX_set_padding)                                                              \
	X(EVP_CipherInit_ex)                                                                       \
	X(EVP_CipherUpdate)                                                                        \
	X(EVP_DigestFinal_ex)                                                                      \
	X(EVP_DigestInit_ex)                                                                       \
	X(EVP_DigestUpdate)                                                                        \
	X(EVP_MD_CTX_free)                                                                         \
	X(EVP_MD_CTX_new)                                                                          \
	X(EVP_MD_get0_name)                                                                        \
	X(EVP_Q_mac)                                                                               \
	X(EVP_aes_128_cbc)                                                                         \
	X(EVP_aes_128_ctr)                                                                         \
	X(EVP_aes_128_ecb)                                                                         \
	X(EVP_aes_128_xts)                                                                         \
	X(EVP_aes_192_cbc)                                                                         \
	X(EVP_aes_192_ctr)                                                                         \
	X(EVP_aes_192_ecb)                                                                         \
	X(EVP_aes_256_cbc)                                                                         \
	X(EVP_aes_256_ctr)                                                                         \
	X(EVP_aes_256_ecb)                                                                         \
	X(EVP_aes_256_xts)                                                                         \
	X(EVP_md5)                                                                                 \
	X(EVP_ripemd160)                                                                           \
	X(EVP_sha1)                                                                                \
	X(EVP_sha224)                                                                              \
	X(EVP_sha256)                                                                              \
	X(EVP_sha384)                                                                              \
	X(EVP_sha512)                                                                              \
	X(PKCS5_PBKDF2_HMAC)                                                                       \
	X(RAND_bytes)                                                                              \
	X(RAND_priv_bytes)                                                                         \
	X(SHA1_Init)                                                                               \
	X(SHA1_Transform)                                                                          \
	X(SHA256_Init)                                                                             \
	X(SHA256_Transform)                                                                        \
	X(SHA512_Init)                                                                             \
	X(SHA512_Transform)

struct crypto_lib {
#define CRYPTO_LIB_FIELD(name) __typeof__(name) *name;
	CRYPTO_LIB_FUNCTIONS(CRYPTO_LIB_FIELD)
#undef CRYPTO_LIB_FIELD
};

/* Its functions.  Where it is not installed, the program says so and ends, as it would
 * have at its start.  Thread: any. */
const struct crypto_lib *crypto_lib(void);

#endif
