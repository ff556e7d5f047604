/* Pictures in memory; see surface.h.  Thread: any. */
#include "devices/display/surface.h"

#include <sys/mman.h>

struct surface *surface_new(u32 width, u32 height)
{
	/* Behind the lines, the end of a longer one. */
	u64 bytes = ((u64)width * MAX(height, SURFACE_ROOM) + UINT16_MAX) * sizeof(u32);
	struct surface *s;
	void *pixels;

	assert(width && height && width <= UINT16_MAX && height <= UINT16_MAX);
	/* Never touched, the room costs nothing. */
	pixels = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (pixels == MAP_FAILED)
		return NULL;
	s = xnew(struct surface);
	s->width = width;
	s->height = height;
	s->refs = 1;
	s->pixels = pixels;
	s->map_bytes = bytes;
	return s;
}

struct surface *surface_get(struct surface *s)
{
	__atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
	return s;
}

void surface_put(struct surface *s)
{
	/* Partners: each other.  The last one sees what all others did to it. */
	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		return;
	munmap(s->pixels, s->map_bytes);
	free(s);
}
