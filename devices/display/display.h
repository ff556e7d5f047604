/* The machine's screen: who draws it and who looks at it.
 *
 * A source (a VGA) draws into the surface and says what changed; listeners (VNC) are
 * told.  The source is asked at most 30 times a second, and only while somebody looks:
 * without one there is no timer.  While nothing changes it is asked less and less
 * often.  Thread: main, but for display_poke. */
#ifndef DEVICES_DISPLAY_DISPLAY_H
#define DEVICES_DISPLAY_DISPLAY_H

#include "base/list.h"
#include "base/loop.h"
#include "devices/display/surface.h"

struct display;

struct display_source {
	/* Bring the surface up to date: display_resize when the size is another, then
	 * draw what changed since the last call (after display_resize: everything) and
	 * tell by display_changed. */
	void (*draw)(struct display_source *src, struct display *d);
};

struct display_listener {
	struct list link;
	/* Another surface, all black; s is lent. */
	void (*resized)(struct display_listener *l, struct surface *s);
	void (*changed)(struct display_listener *l, const struct rect *r);
	bool looks;
};

/* source is lent; NULL: there is no screen.  loop NULL: nobody ever looks (tests). */
struct display *display_new(struct loop *loop, struct display_source *source);
void display_free(struct display *d); /* listeners have left */
bool display_has_screen(const struct display *d);

void display_listen(struct display *d, struct display_listener *l);
void display_unlisten(struct display *d, struct display_listener *l);
void display_look(struct display *d, struct display_listener *l, bool looks);
/* A change is likely soon (somebody typed): look at once and often.  [any thread] */
void display_poke(struct display *d);

/* Ask the source now. */
void display_refresh(struct display *d);
/* What was drawn last; lent. */
struct surface *display_surface(struct display *d);

/* For sources.  The size as it is when there is no memory for another. */
struct surface *display_resize(struct display *d, u32 width, u32 height);
void display_changed(struct display *d, const struct rect *r);
/* What this call of draw has changed is time's doing: no sign of more. */
void display_blinked(struct display *d);

#endif
