/* Pictures in memory; see surface.h.  Thread: any. */
#include "devices/display/surface.h"

struct surface *surface_new(u32 width, u32 height)
{
	struct surface *s;
	u32 *pixels;

	assert(width && height && width <= UINT16_MAX && height <= UINT16_MAX);
	pixels = try_alloc((u64)width * height * sizeof(*pixels));
	if (!pixels)
		return NULL;
	s = xnew(struct surface);
	s->width = width;
	s->height = height;
	s->refs = 1;
	s->pixels = pixels;
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
	free(s->pixels);
	free(s);
}
