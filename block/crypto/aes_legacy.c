/* crypt_method 1 of QEMU's docs/interop/qcow2: AES-128-CBC for each 512-byte
 * sector, key: the passphrase's first 16 bytes, zero padded; IV: the guest sector
 * number as 64 bits little-endian, then zeros.  Weak, and there for old images.
 * Thread: any. */
#include "block/crypto/aes_legacy.h"

#define KEY_BYTES 16

int aes_legacy_new(struct cipher **out, const struct key *passphrase, struct error *err)
{
	static const struct cipher_spec spec = {.mode = CIPHER_CBC, .iv = IV_PLAIN64};
	struct key key;
	int ret = key_new(&key, KEY_BYTES);

	if (ret < 0)
		return err_set(err, ret, "Could not allocate the key");
	if (passphrase->bytes)
		memcpy(key.data, passphrase->data, MIN(passphrase->bytes, (size_t)KEY_BYTES));
	ret = cipher_new(out, &spec, &key, err);
	key_wipe(&key);
	return ret;
}
