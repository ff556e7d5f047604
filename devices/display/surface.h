/* A picture in memory: 32 bits a pixel, red in bits 16-23, green in 8-15, blue in 0-7,
 * the rest 0; lines follow each other without gaps.  Counted, so that who still shows
 * one may keep it when the screen has changed its size. */
#ifndef DEVICES_DISPLAY_SURFACE_H
#define DEVICES_DISPLAY_SURFACE_H

#include "base/base.h"
#include "base/error.h"

struct surface {
	u32 width, height; /* [const] */
	u32 refs;	   /* [atomic] */
	u32 *pixels;	   /* [const] width * height of them */
	u64 map_bytes;	   /* [const] from there on can be read: SURFACE_ROOM lines at least */
};
/* A VNC client that asked for a part of the screen of before may be sent that part of
 * the new one, which is smaller (vnc_client.c): it reads blacks. */
#define SURFACE_ROOM 4096u

struct rect {
	u32 x, y, width, height;
};

struct surface *surface_new(u32 width, u32 height); /* black; NULL: no memory */
struct surface *surface_get(struct surface *s);	    /* [any thread] */
void surface_put(struct surface *s);		    /* [any thread]; NULL is fine */

static inline u32 *surface_line(const struct surface *s, u32 y)
{
	return s->pixels + (u64)y * s->width;
}

/* Write it to a file, as binary PPM or as PNG.  An unfinished file is removed. */
enum picture_format { PICTURE_PPM, PICTURE_PNG };
int surface_write(const struct surface *s, const char *path, enum picture_format format,
		  struct error *err);

#endif
