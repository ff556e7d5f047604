/* Requests through a cipher; see crypt_io.h.
 *
 * Writes go in pieces of CHUNK_BYTES, so that the memory for them is bounded; a few
 * buffers are kept, as fresh ones would cost as much as the cipher.
 * Thread: the image's loop. */
#include "block/crypt_io.h"

#include "base/io.h"
#include "block/crypto/sectors.h"

#include <errno.h>

#define CHUNK_BYTES (1 * MiB)
#define FEW_ENTRIES 16

void image_crypt_init(struct image_crypt *c)
{
	*c = (struct image_crypt){0};
	range_locks_init(&c->locks);
}

void image_crypt_fini(struct image_crypt *c)
{
	cipher_free(c->cipher);
	c->cipher = NULL;
	while (c->idle_n)
		free(c->idle[--c->idle_n]);
}

static void *buffer_get(struct image_crypt *c)
{
	return c->idle_n ? c->idle[--c->idle_n] : try_alloc_aligned(CHUNK_BYTES, 4096);
}

static void buffer_put(struct image_crypt *c, void *p)
{
	if (c->idle_n < CRYPT_IDLE_MOST)
		c->idle[c->idle_n++] = p;
	else
		free(p);
}

static int write_chunk(struct fiber *f, const struct image_transfer *t, u64 at,
		       const struct iovec *iov, unsigned n)
{
	struct iovec out = {buffer_get(t->crypt), iov_bytes(iov, n)};
	int ret;

	if (!out.iov_base)
		return -ENOMEM;
	ret = sectors_encrypt(f, t->crypt->cipher, t->sector + at / CIPHER_SECTOR, iov, n,
			      out.iov_base);
	if (ret == 0)
		ret = t->fn(f, t->img, t->offset + at, &out, 1);
	buffer_put(t->crypt, out.iov_base);
	return ret;
}

static int write_chunks(struct fiber *f, const struct image_transfer *t, const struct iovec *iov,
			unsigned n)
{
	u64 bytes = iov_bytes(iov, n);
	struct iovec few[FEW_ENTRIES], *part = few;
	int ret = 0;

	if (bytes <= CHUNK_BYTES)
		return write_chunk(f, t, 0, iov, n);
	if (n > FEW_ENTRIES)
		part = try_alloc(n * sizeof(*part));
	if (!part)
		return -ENOMEM;
	for (u64 at = 0; at < bytes && ret == 0; at += CHUNK_BYTES)
		ret = write_chunk(f, t, at, part,
				  iov_slice(part, iov, n, at, MIN(CHUNK_BYTES, bytes - at)));
	if (part != few)
		free(part);
	return ret;
}

int crypt_transfer(struct fiber *f, const struct image_transfer *t, const struct iovec *iov,
		   unsigned n)
{
	int ret;

	if (!t->crypt->cipher)
		return -EACCES;
	if (t->encrypt)
		return write_chunks(f, t, iov, n);
	ret = t->fn(f, t->img, t->offset, iov, n);
	return ret < 0 ? ret : sectors_decrypt(f, t->crypt->cipher, t->sector, iov, n);
}
