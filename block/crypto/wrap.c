/* Decryption of wrapped secrets; see wrap.h.  Thread: any. */
#include "block/crypto/wrap.h"

#include "block/crypto/cipher_internal.h"

#include <errno.h>

static int decrypt(const struct key *in, const u8 *key, const u8 *iv, u8 *out)
{
	const struct crypto_lib *lib = crypto_lib();
	EVP_CIPHER_CTX *x = evp_context(lib->EVP_aes_256_cbc(), key, false);
	int ret = -EIO;

	if (x && lib->EVP_CipherInit_ex(x, NULL, NULL, NULL, iv, -1))
		ret = evp_blocks(x, in->data, out, in->bytes);
	lib->EVP_CIPHER_CTX_free(x);
	return ret;
}

int wrap_open(const struct key *wrapped, const struct key *key, const u8 *iv, struct key *out,
	      struct error *err)
{
	struct key plain;
	u8 padding;
	int ret;

	if (key->bytes != WRAP_KEY_BYTES)
		return err_set(err, -EINVAL, "Key should be %d bytes in length", WRAP_KEY_BYTES);
	if (!wrapped->bytes || wrapped->bytes % WRAP_IV_BYTES)
		return err_set(err, -EINVAL, "Length %zu must be a multiple of block size %d",
			       wrapped->bytes, WRAP_IV_BYTES);
	ret = key_new(&plain, wrapped->bytes);
	if (ret == 0)
		ret = decrypt(wrapped, key->data, iv, plain.data);
	if (ret < 0) {
		key_wipe(&plain);
		return err_set_errno(err, ret, "Could not decrypt the secret");
	}
	padding = plain.data[plain.bytes - 1];
	if (!padding || padding > WRAP_IV_BYTES)
		ret = err_set(err, -EINVAL,
			      "Incorrect number of padding bytes (%u) found on decrypted data",
			      padding);
	else
		ret = key_set(out, plain.data, plain.bytes - padding);
	key_wipe(&plain);
	return ret;
}
