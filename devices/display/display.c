/* The machine's screen; see display.h.  Thread: main, but for display_poke.
 *
 * Invariant: the timer is armed exactly while a listener looks. */
#include "devices/display/display.h"

#include "base/log.h"
#include "base/thread.h"

#define SCAN_NS	     33333333ull  /* 30 a second */
#define SCAN_IDLE_NS 200000000ull /* the longest a change goes unseen */
#define FIRST_WIDTH  640	  /* until a mode is set */
#define FIRST_HEIGHT 480

struct display {
	struct loop *loop;	       /* [const] */
	struct display_source *source; /* [const] */
	struct surface *surface;
	struct list listeners;
	struct loop_timer timer;
	u64 pause_ns; /* until the next scan */
	bool changed; /* in this scan, by somebody */
	struct loop_call poke;
	bool poked; /* [atomic] the call is on its way */
};

/* --- scanning ------------------------------------------------------------------- */

static bool somebody_looks(const struct display *d)
{
	list_for_each (pos, &d->listeners)
		if (list_entry(pos, struct display_listener, link)->looks)
			return true;
	return false;
}

static void schedule(struct display *d)
{
	if (somebody_looks(d))
		loop_timer_set(&d->timer, now_ns() + d->pause_ns);
	else if (d->loop)
		loop_timer_del(&d->timer);
}

void display_refresh(struct display *d)
{
	d->changed = false;
	if (d->source)
		d->source->draw(d->source, d);
}

void display_blinked(struct display *d)
{
	d->changed = false;
}

static void scan(struct loop_timer *timer)
{
	struct display *d = container_of(timer, struct display, timer);

	display_refresh(d);
	d->pause_ns = d->changed ? SCAN_NS : MIN(d->pause_ns + SCAN_NS / 2, SCAN_IDLE_NS);
	schedule(d);
}

static void do_poke(struct loop_call *call)
{
	struct display *d = container_of(call, struct display, poke);

	/* Partner: display_poke. */
	__atomic_store_n(&d->poked, false, __ATOMIC_RELEASE);
	if (d->pause_ns == SCAN_NS)
		return;
	d->pause_ns = SCAN_NS;
	schedule(d);
}

void display_poke(struct display *d)
{
	/* Partner: do_poke.  One call at a time, as its storage is ours. */
	if (d->loop && !__atomic_exchange_n(&d->poked, true, __ATOMIC_ACQ_REL))
		loop_post(d->loop, &d->poke);
}

/* --- life ------------------------------------------------------------------------- */

struct display *display_new(struct loop *loop, struct display_source *source)
{
	struct display *d = xnew(struct display);

	d->loop = loop;
	d->source = source;
	d->pause_ns = SCAN_NS;
	d->poke.fn = do_poke;
	list_init(&d->listeners);
	if (loop)
		loop_timer_init(loop, &d->timer, scan);
	d->surface = surface_new(FIRST_WIDTH, FIRST_HEIGHT);
	assert(d->surface);
	return d;
}

void display_free(struct display *d)
{
	if (!d)
		return;
	assert(list_empty(&d->listeners));
	if (d->loop) {
		loop_run_posted(d->loop);
		loop_timer_del(&d->timer);
	}
	surface_put(d->surface);
	free(d);
}

bool display_has_screen(const struct display *d)
{
	return d->source != NULL;
}

struct surface *display_surface(struct display *d)
{
	return d->surface;
}

/* --- listeners ---------------------------------------------------------------------- */

void display_listen(struct display *d, struct display_listener *l)
{
	l->looks = false;
	list_append(&d->listeners, &l->link);
}

void display_unlisten(struct display *d, struct display_listener *l)
{
	list_del(&l->link);
	schedule(d);
}

void display_look(struct display *d, struct display_listener *l, bool looks)
{
	if (l->looks == looks)
		return;
	l->looks = looks;
	d->pause_ns = SCAN_NS;
	if (looks)
		display_refresh(d);
	schedule(d);
}

/* --- sources ------------------------------------------------------------------------- */

struct surface *display_resize(struct display *d, u32 width, u32 height)
{
	struct surface *s;

	if (d->surface->width == width && d->surface->height == height)
		return d->surface;
	s = surface_new(width, height);
	if (!s) {
		log_error("no memory for a screen of %ux%u", width, height);
		return d->surface;
	}
	surface_put(d->surface);
	d->surface = s;
	d->changed = true;
	list_for_each (pos, &d->listeners) {
		struct display_listener *l = list_entry(pos, struct display_listener, link);

		l->resized(l, s);
	}
	return s;
}

void display_changed(struct display *d, const struct rect *r)
{
	assert(r->width && r->height && r->x + r->width <= d->surface->width);
	assert(r->y + r->height <= d->surface->height);
	d->changed = true;
	list_for_each (pos, &d->listeners) {
		struct display_listener *l = list_entry(pos, struct display_listener, link);

		l->changed(l, r);
	}
}
