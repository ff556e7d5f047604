/* XTS over plain AES, for AES-192, which the library has no XTS for.
 * IEEE 1619: each block is masked with the encrypted IV times alpha^i before and
 * after.  Slower than the library's own.  Thread: any. */
#include "block/crypto/cipher_internal.h"

#include "base/bytes.h"

#include <errno.h>

#define SECTOR_WORDS (CIPHER_SECTOR / 8)

int xts_by_hand_init(struct cipher_context *x, const u8 *key, size_t bytes)
{
	const EVP_CIPHER *evp = evp_aes(CIPHER_ECB, bytes / 2);

	x->crypt[0] = evp_context(evp, key, false);
	x->crypt[1] = evp_context(evp, key, true);
	x->aux = evp_context(evp, key + bytes / 2, true);
	return x->crypt[0] && x->crypt[1] && x->aux ? 0 : -ENOMEM;
}

/* The mask of the next block: times alpha in GF(2^128), x^128 = x^7 + x^2 + x + 1. */
static void next_mask(u64 mask[2])
{
	u64 carry = mask[1] >> 63;

	mask[1] = mask[1] << 1 | mask[0] >> 63;
	mask[0] = mask[0] << 1 ^ (carry ? 0x87 : 0);
}

static void apply(const u8 *in, u8 *out, const u64 *masks)
{
	for (unsigned i = 0; i < SECTOR_WORDS; i++)
		store_le64(out + i * 8, load_le64(in + i * 8) ^ masks[i]);
}

int xts_by_hand(struct cipher_context *x, bool encrypt, const u8 *iv, const u8 *in, u8 *out)
{
	u64 masks[SECTOR_WORDS], mask[2];
	u8 first[IV_BYTES];
	int ret = evp_blocks(x->aux, iv, first, sizeof(first));

	mask[0] = load_le64(first);
	mask[1] = load_le64(first + 8);
	for (unsigned i = 0; i < SECTOR_WORDS; i += 2) {
		masks[i] = mask[0];
		masks[i + 1] = mask[1];
		next_mask(mask);
	}
	if (ret == 0) {
		apply(in, out, masks);
		ret = evp_blocks(x->crypt[encrypt], out, out, CIPHER_SECTOR);
		apply(out, out, masks);
	}
	wipe(masks, sizeof(masks));
	return ret;
}
