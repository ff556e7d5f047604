/* Requests through a cipher: reads are decrypted where they landed, writes are
 * encrypted into memory of their own, as the caller's must not change. */
#ifndef BLOCK_CRYPT_IO_H
#define BLOCK_CRYPT_IO_H

#include "block/group.h"

struct cipher;

#define CRYPT_IDLE_MOST 4

/* What an image with a cipher keeps. */
struct image_crypt {
	struct cipher *cipher;	     /* [loop] NULL while locked */
	struct range_locks locks;    /* for block/aligned.h */
	void *idle[CRYPT_IDLE_MOST]; /* [loop] buffers for encrypted data */
	unsigned idle_n;
};
void image_crypt_init(struct image_crypt *c);
void image_crypt_fini(struct image_crypt *c); /* frees the cipher too */

/* Transfer t with this vector, whole sectors; t->crypt and what belongs to it are
 * set.  -EACCES while locked.  Suspends. */
int crypt_transfer(struct fiber *f, const struct image_transfer *t, const struct iovec *iov,
		   unsigned n);

#endif
