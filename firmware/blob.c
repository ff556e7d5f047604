/* A growing piece of memory, of which tables are made; see internal.h. */
#include "firmware/internal.h"

void blob_fini(struct blob *b)
{
	free(b->data);
	*b = (struct blob){.data = NULL};
}

size_t blob_put_zeros(struct blob *b, size_t bytes)
{
	size_t at = b->bytes;

	if (at + bytes > b->room) {
		b->room = 2 * (at + bytes) + 256;
		b->data = xrealloc(b->data, b->room);
	}
	memset(b->data + at, 0, bytes);
	b->bytes = at + bytes;
	return at;
}

size_t blob_put(struct blob *b, const void *data, size_t bytes)
{
	size_t at = blob_put_zeros(b, bytes);

	memcpy(b->data + at, data, bytes);
	return at;
}

void blob_align(struct blob *b, size_t align)
{
	blob_put_zeros(b, align_up(b->bytes, align) - b->bytes);
}

u8 firmware_sum(const void *data, size_t bytes)
{
	const u8 *p = data;
	u8 sum = 0;

	for (size_t i = 0; i < bytes; i++)
		sum = (u8)(sum + p[i]);
	return sum;
}
