/* Memory for keys and passphrases: not swapped, not in core dumps, wiped. */
#ifndef BLOCK_CRYPTO_KEY_H
#define BLOCK_CRYPTO_KEY_H

#include "base/base.h"

/* Bytes that nobody else is to see.  data is NULL or from key_set. */
struct key {
	u8 *data;
	size_t bytes;
};

/* Zeroed pages of their own, at most KEY_MOST bytes; -ENOMEM.  Locked in memory
 * as far as the host lets us. */
#define KEY_MOST (1 * MiB)
int key_new(struct key *k, size_t bytes);
/* The same with these bytes in it. */
int key_set(struct key *k, const void *data, size_t bytes);
void key_wipe(struct key *k); /* and release; {NULL, 0} is fine */
/* Wipe memory that is about to go out of use, in a way compilers keep. */
void wipe(void *p, size_t bytes);
/* Takes as long for any content of equal length. */
bool key_equal(const void *a, const void *b, size_t bytes);

#endif
