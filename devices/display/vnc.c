/* The display over VNC: see vnc.h and vnc_int.h.
 *
 * A change of the picture goes from main to the vnc thread as a region that grows until
 * that thread has time for it, so a slow client costs main nothing.  The library reads
 * the surface while main draws into it: what it may send half-drawn is marked as
 * changed afterwards, and comes again. */
#include "devices/display/vnc_int.h"

#include "base/io.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#define CLIENT_WAIT_MS 10000 /* for the rest of a message, or to take what is sent */
#define DEFER_MS       5     /* to see what else changes */

static void no_log(const char *format, ...)
{
}

/* --- pictures ------------------------------------------------------------------------ */

static void do_work(struct loop_call *call)
{
	struct vnc *v = container_of(call, struct vnc, work);
	int fds[VNC_MAX_CLIENTS];
	unsigned n;
	struct surface *next;
	sraRegionPtr changed;

	mutex_lock(&v->lock);
	v->working = false;
	next = v->next;
	v->next = NULL;
	changed = v->changed;
	v->changed = v->lib.sraRgnCreate();
	n = v->n_waiting;
	memcpy(fds, v->waiting, n * sizeof(*fds));
	v->n_waiting = 0;
	mutex_unlock(&v->lock);
	if (next)
		vnc_switch_surface(v, next);
	if (!v->lib.sraRgnEmpty(changed))
		v->lib.rfbMarkRegionAsModified(v->screen, changed);
	v->lib.sraRgnDestroy(changed);
	for (unsigned i = 0; i < n; i++)
		vnc_accept(v, fds[i]);
	vnc_reap(v);
}

/* The lock is held. */
static void post_work(struct vnc *v)
{
	if (v->working)
		return;
	v->working = true;
	loop_post(v->loop, &v->work);
}

/* The size that a client hears of first is that of now; not all understand another. */
void vnc_connected(struct vnc *v, int fd)
{
	display_refresh(v->display);
	LOCK_SCOPE(&v->lock);
	if (v->n_waiting == VNC_MAX_CLIENTS) {
		sys_close(fd);
		return;
	}
	v->waiting[v->n_waiting++] = fd;
	post_work(v);
}

static void resized(struct display_listener *l, struct surface *s)
{
	struct vnc *v = container_of(l, struct vnc, listener);

	LOCK_SCOPE(&v->lock);
	surface_put(v->next);
	v->next = surface_get(s);
	v->lib.sraRgnMakeEmpty(v->changed); /* all of it is new anyway */
	post_work(v);
}

static void changed(struct display_listener *l, const struct rect *r)
{
	struct vnc *v = container_of(l, struct vnc, listener);
	sraRegionPtr region = v->lib.sraRgnCreateRect((int)r->x, (int)r->y, (int)(r->x + r->width),
						      (int)(r->y + r->height));

	mutex_lock(&v->lock);
	v->lib.sraRgnOr(v->changed, region);
	post_work(v);
	mutex_unlock(&v->lock);
	v->lib.sraRgnDestroy(region);
}

static void do_count(struct loop_call *call)
{
	struct vnc *v = container_of(call, struct vnc, count);
	bool looks = false;

	mutex_lock(&v->lock);
	v->counting = false;
	list_for_each (pos, &v->clients)
		looks = looks || list_entry(pos, struct vnc_client, link)->looks;
	mutex_unlock(&v->lock);
	display_look(v->display, &v->listener, looks);
}

void vnc_count_looks(struct vnc *v)
{
	lock_assert(&v->lock);
	if (v->counting || v->closing)
		return;
	v->counting = true;
	loop_post(v->main, &v->count);
}

/* --- passwords ------------------------------------------------------------------------ */

int vnc_set_password(struct vnc *v, const char *password)
{
	if (!v->wants_password)
		return -EINVAL;
	LOCK_SCOPE(&v->lock);
	v->has_password = password != NULL;
	explicit_bzero(v->password, sizeof(v->password));
	if (password) /* the protocol knows no more bytes than these */
		strncpy(v->password, password, VNC_PASSWORD_BYTES);
	return 0;
}

void vnc_set_expiry(struct vnc *v, s64 when)
{
	LOCK_SCOPE(&v->lock);
	v->expiry = when;
}

/* --- info ------------------------------------------------------------------------------- */

void vnc_print_info(struct vnc *v, struct printer *p)
{
	const char *auth = v->wants_password ? "vnc" : "none";

	for (unsigned i = v->n_listeners; i-- > 0;) {
		const struct vnc_listener *l = &v->listeners[i];
		int bytes = (int)strlen(l->text) - 1; /* "127.0.0.1:5900 (ipv4)" */

		print_to(p, "  Server: %.*s%s)\n    Auth: %s (Sub: none)\n", bytes, l->text,
			 l->websocket ? " (Websocket)" : "", auth);
	}
	LOCK_SCOPE(&v->lock);
	list_for_each (pos, &v->clients)
		print_to(p, "  Client: %s\n    Auth: %s (Sub: none)\n",
			 list_entry(pos, struct vnc_client, link)->peer, auth);
}

/* --- life --------------------------------------------------------------------------------- */

static void setup_screen(struct vnc *v, const struct vnc_options *opt)
{
	rfbScreenInfoPtr s = v->screen;
	rfbPixelFormat *format = &s->serverFormat;

	format->redShift = 16; /* as a surface has it */
	format->greenShift = 8;
	format->blueShift = 0;
	format->depth = 24;
	s->screenData = v;
	s->frameBuffer = (char *)v->surface->pixels;
	s->desktopName = v->name;
	s->cursor = NULL; /* the guest draws it */
	s->port = s->ipv6port = -1;
	s->maxClientWait = CLIENT_WAIT_MS;
	s->deferUpdateTime = DEFER_MS;
	s->backgroundLoop = TRUE;
	s->alwaysShared = opt->share == VNC_SHARE_IGNORE;
	s->dontDisconnect = opt->share == VNC_SHARE_FORCE;
	s->authPasswdData = v->wants_password ? v : NULL; /* says that there is one */
	vnc_setup_events(v);
	vnc_setup_clients(v);
	v->lib.rfbInitServerWithPthreadsAndZRLE(s);
}

static int make_screen(struct vnc *v, const struct vnc_options *opt, struct error *err)
{
	int none = 0;

	v->surface = surface_get(display_surface(v->display));
	/* The library says on its own account what is no news to anybody here. */
	*v->lib.rfbLog = *v->lib.rfbErr = no_log;
	v->screen = v->lib.rfbGetScreen(&none, NULL, (int)v->surface->width,
					(int)v->surface->height, 8, 3, 4);
	if (!v->screen)
		return err_set(err, -ENOMEM, "cannot make a VNC server");
	setup_screen(v, opt);
	v->owns_extension = !opt->first;
	if (v->owns_extension)
		v->lib.rfbRegisterProtocolExtension(&v->extension);
	return 0;
}

static void free_parts(struct vnc *v)
{
	while (v->n_waiting)
		sys_close(v->waiting[--v->n_waiting]);
	if (v->screen) {
		if (v->owns_extension)
			v->lib.rfbUnregisterProtocolExtension(&v->extension);
		v->lib.rfbScreenCleanup(v->screen);
	}
	if (v->loop)
		loop_free(v->loop);
	if (v->changed)
		v->lib.sraRgnDestroy(v->changed);
	surface_put(v->surface);
	surface_put(v->next);
	cond_fini(&v->left);
	mutex_fini(&v->lock);
	explicit_bzero(v->password, sizeof(v->password));
	free(v->name);
	free(v);
}

int vnc_new(struct vnc **out, const struct vnc_options *opt, struct display *display,
	    struct input *input, struct loop *main, struct error *err)
{
	struct vnc *v = xnew(struct vnc);
	int ret;

	v->display = display;
	v->input = input;
	v->main = main;
	v->wants_password = opt->password;
	v->name = xstrdup(opt->name);
	v->listener.resized = resized;
	v->listener.changed = changed;
	v->work.fn = do_work;
	v->count.fn = do_count;
	mutex_init(&v->lock);
	cond_init(&v->left);
	list_init(&v->clients);
	list_init(&v->gone);
	ret = vnc_lib_load(&v->lib, err);
	if (ret < 0) {
		free_parts(v);
		return ret;
	}
	v->changed = v->lib.sraRgnCreate();
	ret = loop_new(&v->loop, "vnc", LOOP_AUTO, err);
	if (ret == 0)
		ret = make_screen(v, opt, err);
	if (ret == 0)
		ret = vnc_listen(v, opt, err);
	if (ret < 0) {
		free_parts(v);
		return ret;
	}
	ret = loop_start_thread(v->loop, err);
	if (ret < 0) {
		vnc_unlisten(v);
		free_parts(v);
		return ret;
	}
	display_listen(display, &v->listener);
	*out = v;
	return 0;
}

static void close_all(void *arg)
{
	vnc_end_clients(arg);
}

void vnc_free(struct vnc *v)
{
	if (!v)
		return;
	vnc_unlisten(v);
	display_unlisten(v->display, &v->listener);
	loop_call_wait(v->loop, close_all, v);
	loop_join(v->loop);
	loop_run_posted(v->main); /* a count that is on its way */
	free_parts(v);
}
