/* Memory for keys; see key.h.  Thread: any. */
#define _GNU_SOURCE
#include "block/crypto/key.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t room_of(size_t bytes)
{
	return align_up(MAX(bytes, (size_t)1), (u64)sysconf(_SC_PAGESIZE));
}

int key_new(struct key *k, size_t bytes)
{
	void *p;

	if (bytes > KEY_MOST)
		return -ENOMEM;
	p = mmap(NULL, room_of(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		return -ENOMEM;
	/* Neither is worth failing for: limits differ, and so do kernels. */
	(void)!mlock(p, room_of(bytes));
	(void)!madvise(p, room_of(bytes), MADV_DONTDUMP);
	*k = (struct key){p, bytes};
	return 0;
}

int key_set(struct key *k, const void *data, size_t bytes)
{
	int ret = key_new(k, bytes);

	if (ret == 0 && bytes)
		memcpy(k->data, data, bytes);
	return ret;
}

void key_wipe(struct key *k)
{
	if (k->data) {
		wipe(k->data, room_of(k->bytes));
		munmap(k->data, room_of(k->bytes));
	}
	*k = (struct key){0};
}

void wipe(void *p, size_t bytes)
{
	explicit_bzero(p, bytes);
}

bool key_equal(const void *a, const void *b, size_t bytes)
{
	const volatile u8 *x = a, *y = b;
	u8 differ = 0;

	for (size_t i = 0; i < bytes; i++)
		differ |= x[i] ^ y[i];
	return !differ;
}
