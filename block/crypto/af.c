/* AFsplit and AFmerge of the LUKS1 on-disk format, section 2.4.
 * Thread: any; takes milliseconds. */
#include "block/crypto/af.h"

#include "base/bytes.h"
#include "block/crypto/lib.h"

#include <errno.h>

/* Each piece of a digest's size becomes the digest of its number and itself. */
static int diffuse(const struct hash *h, u8 *data, size_t bytes)
{
	size_t each = hash_bytes(h);
	u8 digest[HASH_MOST], number[4];
	int ret = 0;

	for (size_t at = 0, i = 0; at < bytes && ret == 0; at += each, i++) {
		size_t n = MIN(each, bytes - at);

		store_be32(number, (u32)i);
		ret = hash_run(h, number, sizeof(number), data + at, n, digest);
		memcpy(data + at, digest, n);
	}
	wipe(digest, sizeof(digest));
	return ret;
}

static void mix(u8 *into, const u8 *from, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++)
		into[i] ^= from[i];
}

/* The sum of all stripes but the last, in `sum`, which comes zeroed. */
static int sum_up(const struct hash *h, const struct key *split, u32 stripes, struct key *sum)
{
	int ret = 0;

	for (u32 i = 0; i + 1 < stripes && ret == 0; i++) {
		mix(sum->data, split->data + (size_t)i * sum->bytes, sum->bytes);
		ret = diffuse(h, sum->data, sum->bytes);
	}
	return ret;
}

int af_split(const struct hash *h, const struct key *key, u32 stripes, struct key *split)
{
	size_t last = (stripes - 1) * key->bytes;
	struct key sum;
	int ret;

	assert(split->bytes == (size_t)stripes * key->bytes);
	ret = key_new(&sum, key->bytes);
	if (ret < 0)
		return ret;
	ret = crypto_lib()->RAND_priv_bytes(split->data, (int)last) == 1 ? 0 : -EIO;
	if (ret == 0)
		ret = sum_up(h, split, stripes, &sum);
	memcpy(split->data + last, sum.data, key->bytes);
	mix(split->data + last, key->data, key->bytes);
	key_wipe(&sum);
	return ret;
}

int af_merge(const struct hash *h, const struct key *split, u32 stripes, struct key *key)
{
	int ret;

	assert(split->bytes == (size_t)stripes * key->bytes);
	memset(key->data, 0, key->bytes);
	ret = sum_up(h, split, stripes, key);
	mix(key->data, split->data + (stripes - 1) * key->bytes, key->bytes);
	return ret;
}
