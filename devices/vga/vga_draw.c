/* The VGA as a display's source: what is new on the screen.
 *
 * A picture depends on the view (registers, and time as far as something blinks) and
 * on memory, whose pages have a dirty log.  Nothing is drawn while both stand still.
 * What is drawn is compared line by line with what the surface has, so that a listener
 * hears only of pixels that differ.
 * Thread: main.  VGA modes are drawn with the device's lock held; linear memory,
 * which the guest writes as it likes anyway, without. */
#include "devices/display/display.h"
#include "devices/vga/vga_view.h"

#include "vmm/core/clock.h"

#include <errno.h>

#define PAGE_BITS    12
#define PLANES_PAGES (4 * VGA_PLANE_BYTES >> PAGE_BITS)
#define JOIN_LINES   8 /* rectangles this close to each other become one */

/* [main] what the surface shows. */
struct vga_screen {
	struct display_source source;
	struct vga *vga; /* [const] */
	struct vga_view shown, now;
	struct vga_scan scan;
	u64 *dirty;	  /* [const] room for a bit a page */
	struct rect rect; /* changed lines not yet told; height 0: none */
	bool blinking;	  /* there are characters that do */
};

/* What differs from what is shown; memory apart. */
enum news { NEWS_NONE, NEWS_BLINK, NEWS_ALL };

static bool is_dirty(const u64 *bits, u64 first, u64 last)
{
	for (u64 page = first; page <= last; page++) {
		if (!bits[page / 64] && page % 64 == 0 && page + 63 <= last)
			page += 63;
		else if (bits[page / 64] >> (page % 64) & 1)
			return true;
	}
	return false;
}

/* --- telling what changed ----------------------------------------------------------- */

static void tell(struct vga_screen *s, struct display *d)
{
	if (s->rect.height)
		display_changed(d, &s->rect);
	s->rect.height = 0;
}

static void add_rect(struct vga_screen *s, struct display *d, u32 y, u32 first, u32 end)
{
	struct rect *r = &s->rect;
	u32 left, right;

	if (r->height && y > r->y + r->height + JOIN_LINES)
		tell(s, d);
	if (!r->height) {
		*r = (struct rect){first, y, end - first, 1};
		return;
	}
	left = MIN(r->x, first);
	right = MAX(r->x + r->width, end);
	*r = (struct rect){left, r->y, right - left, y + 1 - r->y};
}

/* Put a line in place, if it is another one. */
static void update_line(struct vga_screen *s, struct display *d, u32 y, const u32 *pixels)
{
	struct surface *surface = display_surface(d);
	u32 *line = surface_line(surface, y), first = 0, end = surface->width;

	while (first < end && line[first] == pixels[first])
		first++;
	if (first == end)
		return;
	while (line[end - 1] == pixels[end - 1])
		end--;
	memcpy(line + first, pixels + first, (end - first) * sizeof(*line));
	add_rect(s, d, y, first, end);
}

/* --- drawing -------------------------------------------------------------------------- */

static void draw_planes(struct vga_screen *s, struct display *d)
{
	vga_scan_begin(&s->scan, &s->now, s->vga->vram);
	for (u32 y = 0; y < s->now.height; y++) {
		vga_scan_line(&s->scan);
		update_line(s, d, y, s->scan.pixels);
	}
	s->blinking = s->scan.blinking;
}

/* The lines where the cursor is, or was. */
static void draw_cursor(struct vga_screen *s, struct display *d)
{
	vga_scan_begin(&s->scan, &s->now, s->vga->vram);
	for (u32 y = 0; y < s->now.height; y++) {
		if (!vga_scan_shows(&s->scan, s->now.cursor) &&
		    !vga_scan_shows(&s->scan, s->shown.cursor)) {
			vga_scan_skip(&s->scan);
			continue;
		}
		vga_scan_line(&s->scan);
		update_line(s, d, y, s->scan.pixels);
	}
}

static bool line_is_dirty(const struct vga_screen *s, u32 y)
{
	u64 first = s->now.offset + (u64)y * s->now.line_bytes;
	u64 last = first + (u64)s->now.width * DIV_ROUND_UP(s->now.bpp, 8) - 1;

	if (first >= s->vga->vram_bytes)
		return false;
	last = MIN(last, (u64)s->vga->vram_bytes - 1);
	return is_dirty(s->dirty, first >> PAGE_BITS, last >> PAGE_BITS);
}

static void draw_linear(struct vga_screen *s, struct display *d, bool all)
{
	for (u32 y = 0; y < s->now.height; y++) {
		if (!all && !line_is_dirty(s, y))
			continue;
		vga_linear_line(&s->now, s->vga->vram, s->vga->vram_bytes, y, s->scan.line);
		update_line(s, d, y, s->scan.line);
	}
}

/* Pages that a picture of planes may be made of. */
static bool planes_are_dirty(const struct vga_screen *s)
{
	u64 pages = s->now.plane_bytes == VGA_PLANE_BYTES ? PLANES_PAGES
							  : s->vga->vram_bytes >> PAGE_BITS;

	return is_dirty(s->dirty, 0, pages - 1);
}

/* Has time alone made the view another one? */
static bool only_blinks(struct vga_screen *s)
{
	struct vga_view *now = &s->now;
	u32 cursor = now->cursor;
	bool blinked_off = now->blinked_off, same;

	if (cursor != s->shown.cursor && cursor != UINT32_MAX && s->shown.cursor != UINT32_MAX)
		return false; /* it has moved */
	now->cursor = s->shown.cursor;
	now->blinked_off = s->shown.blinked_off;
	same = memcmp(now, &s->shown, sizeof(*now)) == 0;
	now->cursor = cursor;
	now->blinked_off = blinked_off;
	return same;
}

/* What is new since the last call. */
static enum news look(struct vga_screen *s)
{
	struct vga *v = s->vga;
	bool all = v->redraw;

	lock_assert(&v->pci.dev.lock);
	v->redraw = false;
	memset(s->dirty, 0, v->vram_bytes >> PAGE_BITS >> 3);
	/* Before memory is read: a write after this is in the next log. */
	if (mem_dirty_collect(v->vram_region, MEM_DIRTY_DISPLAY, s->dirty) < 0)
		all = true;
	vga_view_get(v, clock_now(v->pci.dev.machine->clock), &s->now);
	if (!all && memcmp(&s->now, &s->shown, sizeof(s->now)) == 0)
		return NEWS_NONE;
	return !all && only_blinks(s) ? NEWS_BLINK : NEWS_ALL;
}

/* With the lock held.  True: something blinked, and nothing else was new. */
static bool draw_vga(struct vga_screen *s, struct display *d, enum news news)
{
	bool dirty = planes_are_dirty(s);

	if (news == NEWS_ALL || dirty || (news == NEWS_BLINK && s->blinking))
		draw_planes(s, d);
	else if (news == NEWS_BLINK)
		draw_cursor(s, d);
	return news == NEWS_BLINK && !dirty;
}

static void draw(struct display_source *source, struct display *d)
{
	struct vga_screen *s = container_of(source, struct vga_screen, source);
	struct mutex *lock = &s->vga->pci.dev.lock;
	struct surface *surface = display_surface(d);
	enum news news;
	bool blinked = false;

	mutex_lock(lock);
	news = look(s);
	if (s->now.width)
		surface = display_resize(d, s->now.width, s->now.height);
	/* No mode is set yet, or no memory for a screen of this size. */
	if (surface->width == s->now.width && surface->height == s->now.height) {
		if (s->now.kind != VGA_LINEAR)
			blinked = draw_vga(s, d, news);
		s->shown = s->now;
	}
	mutex_unlock(lock);
	if (s->now.kind == VGA_LINEAR && surface->width == s->now.width)
		draw_linear(s, d, news != NEWS_NONE);
	tell(s, d);
	if (blinked)
		display_blinked(d);
}

/* --- life ----------------------------------------------------------------------------- */

int vga_screen_init(struct vga *v, struct error *err)
{
	struct vga_screen *s = xnew(struct vga_screen);

	s->dirty = try_alloc(v->vram_bytes >> PAGE_BITS >> 3);
	if (!s->dirty) {
		free(s);
		return err_set(err, -ENOMEM, "%s: no memory", v->pci.dev.id);
	}
	s->source.draw = draw;
	s->vga = v;
	v->screen = s;
	return 0;
}

void vga_screen_fini(struct vga *v)
{
	free(v->screen->dirty);
	free(v->screen);
}

struct display_source *vga_display_source(struct device *dev)
{
	return &vga_of(dev)->screen->source;
}
