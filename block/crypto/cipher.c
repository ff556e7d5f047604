/* Encryption of sectors; see cipher.h.
 *
 * AES by libcrypto's EVP.  Setting up a key costs far more than a sector does, so
 * contexts are kept, each used by one thread at a time; a further one is copied
 * from the first.  IV generators: LUKS1 on-disk format, "plain", "plain64",
 * "essiv" (sector number little-endian; ESSIV encrypts it under the hash of the
 * key).  Thread: any. */
#include "block/crypto/cipher_internal.h"

#include "base/bytes.h"
#include "base/thread.h"
#include "block/crypto/kdf.h"

#include <errno.h>

struct cipher {
	unsigned owners;		 /* [atomic] the last one frees; all equal partners */
	struct cipher_spec spec;	 /* [const] */
	struct cipher_context prototype; /* [const] copied, never run */
	struct mutex lock;
	struct cipher_context *idle; /* [lock] */
};

static bool is_aes(size_t key_bytes)
{
	return key_bytes == 16 || key_bytes == 24 || key_bytes == 32;
}

const EVP_CIPHER *evp_aes(enum cipher_mode mode, size_t bytes)
{
	const struct crypto_lib *lib = crypto_lib();
	const EVP_CIPHER *const by_mode[][3] = {
		[CIPHER_ECB] = {lib->EVP_aes_128_ecb(), lib->EVP_aes_192_ecb(),
				lib->EVP_aes_256_ecb()},
		[CIPHER_CBC] = {lib->EVP_aes_128_cbc(), lib->EVP_aes_192_cbc(),
				lib->EVP_aes_256_cbc()},
		[CIPHER_CTR] = {lib->EVP_aes_128_ctr(), lib->EVP_aes_192_ctr(),
				lib->EVP_aes_256_ctr()},
		[CIPHER_XTS] = {lib->EVP_aes_128_xts(), NULL, lib->EVP_aes_256_xts()},
	};

	if (mode == CIPHER_XTS)
		bytes = bytes % 2 ? 0 : bytes / 2;
	return is_aes(bytes) ? by_mode[mode][bytes / 8 - 2] : NULL;
}

bool cipher_key_fits(enum cipher_mode mode, size_t bytes)
{
	return mode == CIPHER_XTS ? bytes % 2 == 0 && is_aes(bytes / 2) : is_aes(bytes);
}

EVP_CIPHER_CTX *evp_context(const EVP_CIPHER *cipher, const u8 *key, bool encrypt)
{
	const struct crypto_lib *lib = crypto_lib();
	EVP_CIPHER_CTX *x = lib->EVP_CIPHER_CTX_new();

	if (x && lib->EVP_CipherInit_ex(x, cipher, NULL, key, NULL, encrypt) &&
	    lib->EVP_CIPHER_CTX_set_padding(x, 0))
		return x;
	lib->EVP_CIPHER_CTX_free(x);
	return NULL;
}

int evp_blocks(EVP_CIPHER_CTX *x, const u8 *in, u8 *out, size_t bytes)
{
	int n = 0;

	assert(bytes <= INT32_MAX);
	return crypto_lib()->EVP_CipherUpdate(x, out, &n, in, (int)bytes) && n == (int)bytes ? 0
											     : -EIO;
}

/* --- contexts ----------------------------------------------------------------- */

static void context_fini(struct cipher_context *x)
{
	const struct crypto_lib *lib = crypto_lib();

	lib->EVP_CIPHER_CTX_free(x->crypt[0]);
	lib->EVP_CIPHER_CTX_free(x->crypt[1]);
	lib->EVP_CIPHER_CTX_free(x->aux);
}

/* CTR runs one way only; harmless for it to have two alike. */
static int context_init(struct cipher_context *x, const struct key *key)
{
	const EVP_CIPHER *evp = evp_aes(x->spec->mode, key->bytes);

	if (!evp)
		return xts_by_hand_init(x, key->data, key->bytes);
	x->crypt[0] = evp_context(evp, key->data, false);
	x->crypt[1] = evp_context(evp, key->data, true);
	return x->crypt[0] && x->crypt[1] ? 0 : -ENOMEM;
}

/* ESSIV: the hash of the key is a key, and must be as long as one. */
static int essiv_init(struct cipher_context *x, const struct key *key, struct error *err)
{
	const struct hash *hash = hash_find(x->spec->essiv_hash);
	u8 digest[HASH_MOST];
	const EVP_CIPHER *evp;

	if (!hash)
		return err_set(err, -ENOTSUP, "Hash algorithm '%s' not supported",
			       x->spec->essiv_hash);
	evp = evp_aes(CIPHER_ECB, hash_bytes(hash));
	if (!evp)
		return err_set(err, -EINVAL, "No AES cipher with key size %zu available",
			       hash_bytes(hash));
	if (hash_run(hash, NULL, 0, key->data, key->bytes, digest) == 0)
		x->aux = evp_context(evp, digest, true);
	wipe(digest, sizeof(digest));
	return x->aux ? 0 : err_set(err, -ENOMEM, "Could not set up the IV generator");
}

int cipher_new(struct cipher **out, const struct cipher_spec *spec, const struct key *key,
	       struct error *err)
{
	struct cipher *c;
	int ret = 0;

	if (!cipher_key_fits(spec->mode, key->bytes))
		return err_set(err, -EINVAL,
			       "Algorithm 'aes' with key size %zu bytes not supported",
			       spec->mode == CIPHER_XTS ? key->bytes / 2 : key->bytes);
	c = xnew(struct cipher);
	c->owners = 1;
	c->spec = *spec;
	c->prototype.spec = &c->spec;
	mutex_init(&c->lock);
	if (spec->iv == IV_ESSIV)
		ret = essiv_init(&c->prototype, key, err);
	/* OpenSSL refuses XTS with two equal keys, as FIPS wants it. */
	if (ret == 0 && context_init(&c->prototype, key) < 0)
		ret = err_set(err, -EIO, "Could not set up the cipher");
	if (ret < 0) {
		cipher_free(c);
		return ret;
	}
	*out = c;
	return 0;
}

struct cipher *cipher_ref(struct cipher *c)
{
	__atomic_fetch_add(&c->owners, 1, __ATOMIC_RELAXED);
	return c;
}

void cipher_free(struct cipher *c)
{
	struct cipher_context *x;

	if (!c || __atomic_sub_fetch(&c->owners, 1, __ATOMIC_ACQ_REL))
		return;
	while ((x = c->idle)) {
		c->idle = x->next;
		context_fini(x);
		free(x);
	}
	context_fini(&c->prototype);
	mutex_fini(&c->lock);
	free(c);
}

static EVP_CIPHER_CTX *evp_copy(const EVP_CIPHER_CTX *from)
{
	const struct crypto_lib *lib = crypto_lib();
	EVP_CIPHER_CTX *x = lib->EVP_CIPHER_CTX_new();

	if (x && lib->EVP_CIPHER_CTX_copy(x, from))
		return x;
	lib->EVP_CIPHER_CTX_free(x);
	return NULL;
}

static struct cipher_context *context_copy(const struct cipher_context *from)
{
	struct cipher_context *x = xnew(struct cipher_context);

	x->spec = from->spec;
	x->crypt[0] = evp_copy(from->crypt[0]);
	x->crypt[1] = evp_copy(from->crypt[1]);
	if (from->aux)
		x->aux = evp_copy(from->aux);
	if (x->crypt[0] && x->crypt[1] && !x->aux == !from->aux)
		return x;
	context_fini(x);
	free(x);
	return NULL;
}

struct cipher_context *cipher_get(struct cipher *c)
{
	struct cipher_context *x;
	LOCK_SCOPE(&c->lock);

	x = c->idle;
	if (!x)
		return context_copy(&c->prototype);
	c->idle = x->next;
	return x;
}

void cipher_put(struct cipher *c, struct cipher_context *x)
{
	LOCK_SCOPE(&c->lock);

	x->next = c->idle;
	c->idle = x;
}

/* --- sectors -------------------------------------------------------------------- */

static int make_iv(struct cipher_context *x, u64 sector, u8 *iv)
{
	memset(iv, 0, IV_BYTES);
	switch (x->spec->iv) {
	case IV_PLAIN: store_le32(iv, (u32)sector); return 0;
	case IV_PLAIN64: store_le64(iv, sector); return 0;
	case IV_ESSIV: store_le64(iv, sector); return evp_blocks(x->aux, iv, iv, IV_BYTES);
	}
	return -EIO;
}

static int run_sector(struct cipher_context *x, bool encrypt, const u8 *iv, const u8 *in, u8 *out)
{
	EVP_CIPHER_CTX *evp = x->crypt[encrypt];

	if (unlikely(x->spec->mode == CIPHER_XTS && x->aux))
		return xts_by_hand(x, encrypt, iv, in, out);
	if (unlikely(!crypto_lib()->EVP_CipherInit_ex(evp, NULL, NULL, NULL, iv, -1)))
		return -EIO;
	return evp_blocks(evp, in, out, CIPHER_SECTOR);
}

int cipher_run(struct cipher_context *x, bool encrypt, u64 sector, const void *in, void *out,
	       size_t bytes)
{
	const u8 *from = in;
	u8 *to = out, iv[IV_BYTES];
	int ret = 0;

	assert(is_aligned(bytes, CIPHER_SECTOR));
	if (x->spec->mode == CIPHER_ECB)
		return evp_blocks(x->crypt[encrypt], in, out, bytes);
	for (size_t at = 0; at < bytes && ret == 0; at += CIPHER_SECTOR, sector++) {
		ret = make_iv(x, sector, iv);
		if (ret == 0)
			ret = run_sector(x, encrypt, iv, from + at, to + at);
	}
	return ret;
}
