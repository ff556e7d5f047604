/* VNC connections: accepting, ending, telling them of another size.
 *
 * The library runs two threads a connection, so that one that is slow, or stops in the
 * middle of a message, holds up nobody but itself.  It does not wait for threads of
 * connections that ended: vnc_reap does.
 * Thread: vnc, but for the hooks, which run on the connection's. */
#include "devices/display/vnc_int.h"

#include "base/io.h"
#include "base/log.h"

#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANDSHAKE_NS   30000000000ull /* who takes longer may be cut off */
#define SWITCH_WAIT_NS 1000000000ull
#define SPARE_FDS      8

/* --- the end ---------------------------------------------------------------------- */

/* The library notes what extensions a client uses, and forgets the notes. */
static void free_notes(rfbClientPtr cl)
{
	while (cl->extensions) {
		rfbExtensionData *note = cl->extensions;

		cl->extensions = note->next;
		free(note);
	}
}

/* The last the library does with a connection, on its own thread. */
static void gone(rfbClientPtr cl)
{
	struct vnc_client *c = cl->clientData;
	struct vnc *v = cl->screen->screenData;

	free_notes(cl);
	if (!c)
		return;
	vnc_release_keys(c);
	LOCK_SCOPE(&v->lock);
	list_del(&c->link);
	v->n_clients--;
	c->cl = NULL;
	c->thread = pthread_self();
	list_append(&v->gone, &c->link);
	vnc_count_looks(v);
	cond_broadcast(&v->left);
}

void vnc_reap(struct vnc *v)
{
	for (;;) {
		struct vnc_client *c;
		struct list *item;

		mutex_lock(&v->lock);
		item = list_pop(&v->gone);
		mutex_unlock(&v->lock);
		if (!item)
			return;
		c = list_entry(item, struct vnc_client, link);
		if (c->started)
			pthread_join(c->thread, NULL);
		free(c);
	}
}

void vnc_end_clients(struct vnc *v)
{
	mutex_lock(&v->lock);
	v->closing = true;
	list_for_each (pos, &v->clients)
		shutdown(list_entry(pos, struct vnc_client, link)->cl->sock, SHUT_RDWR);
	while (v->n_clients)
		cond_wait(&v->left, &v->lock);
	mutex_unlock(&v->lock);
	vnc_reap(v);
}

/* --- the beginning ------------------------------------------------------------------ */

static enum rfbNewClientAction arrived(rfbClientPtr cl)
{
	struct vnc *v = cl->screen->screenData;
	struct vnc_client *c = v->arriving;

	v->arriving = NULL;
	cl->clientData = c;
	cl->clientGoneHook = gone;
	cl->clientFramebufferUpdateRequestHook = vnc_asked;
	c->cl = cl;
	LOCK_SCOPE(&v->lock);
	list_append(&v->clients, &c->link);
	v->n_clients++;
	return RFB_CLIENT_ACCEPT;
}

/* The library cuts a request by the size of now and notes it a moment later; if the
 * size has changed in between, it would send what lies outside of the picture.  Here
 * sendMutex is held, and the size stays. */
static void before_sending(rfbClientPtr cl)
{
	const struct vnc *v = cl->screen->screenData;
	sraRegionPtr all = v->lib.sraRgnCreateRect(0, 0, v->screen->width, v->screen->height);

	pthread_mutex_lock(&cl->updateMutex);
	v->lib.sraRgnAnd(cl->requestedRegion, all);
	v->lib.sraRgnAnd(cl->modifiedRegion, all);
	pthread_mutex_unlock(&cl->updateMutex);
	v->lib.sraRgnDestroy(all);
}

void vnc_setup_clients(struct vnc *v)
{
	v->screen->newClientHook = arrived;
	v->screen->displayHook = before_sending;
}

static void name_peer(struct vnc_client *c, int fd)
{
	struct sockaddr_storage addr;
	socklen_t bytes = sizeof(addr);
	char host[NI_MAXHOST], port[NI_MAXSERV];

	snprintf(c->peer, sizeof(c->peer), "(unix)");
	if (getpeername(fd, (struct sockaddr *)&addr, &bytes) < 0 || addr.ss_family == AF_UNIX)
		return;
	if (!getnameinfo((struct sockaddr *)&addr, bytes, host, sizeof(host), port, sizeof(port),
			 NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(c->peer, sizeof(c->peer), "%.80s:%.8s (%s)", host, port,
			 addr.ss_family == AF_INET6 ? "ipv6" : "ipv4");
}

/* The library waits with select: every descriptor that it makes must fit its sets. */
static bool descriptors_fit(int fd)
{
	int probe[SPARE_FDS], n = 0;
	bool fit = fd < FD_SETSIZE;

	for (; fit && n < SPARE_FDS; n++) {
		probe[n] = dup(fd);
		fit = probe[n] >= 0 && probe[n] < FD_SETSIZE;
	}
	while (n-- > 0)
		if (probe[n] >= 0)
			sys_close(probe[n]);
	return fit;
}

/* Make room: cut off who has been here for a while without getting in. */
static bool has_room(struct vnc *v)
{
	u64 now = now_ns();

	vnc_reap(v);
	LOCK_SCOPE(&v->lock);
	list_for_each (pos, &v->clients) {
		struct vnc_client *c = list_entry(pos, struct vnc_client, link);

		if (c->cl->state != RFB_NORMAL && now - c->since_ns > HANDSHAKE_NS)
			shutdown(c->cl->sock, SHUT_RDWR);
	}
	return v->n_clients < VNC_MAX_CLIENTS && !v->closing;
}

void vnc_accept(struct vnc *v, int fd)
{
	struct vnc_client *c;
	rfbClientPtr cl;

	if (!has_room(v) || !descriptors_fit(fd)) {
		sys_close(fd);
		return;
	}
	c = xnew(struct vnc_client);
	c->since_ns = now_ns();
	name_peer(c, fd);
	v->arriving = c;
	cl = v->lib.rfbNewClient(v->screen, fd);
	free(v->arriving); /* it did not get as far as the hook */
	v->arriving = NULL;
	if (!cl)
		return;
	c->started = true;
	v->lib.rfbStartOnHoldClient(cl);
}

/* --- another size --------------------------------------------------------------------- */

/* Until it sends nothing.  The mutex is the library's, held while it sends. */
static void lock_sending(rfbClientPtr cl)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += SWITCH_WAIT_NS / 1000000000ull;
	if (pthread_mutex_timedlock(&cl->sendMutex, &until) == 0)
		return;
	shutdown(cl->sock, SHUT_RDWR); /* its write ends now */
	pthread_mutex_lock(&cl->sendMutex);
}

static void tell_size(struct vnc *v, rfbClientPtr cl, const struct surface *s)
{
	/* A picture made smaller for the client is of the old one. */
	if (cl->scaledScreen != cl->screen)
		shutdown(cl->sock, SHUT_RDWR);
	pthread_mutex_lock(&cl->updateMutex);
	v->lib.sraRgnDestroy(cl->modifiedRegion);
	cl->modifiedRegion = v->lib.sraRgnCreateRect(0, 0, (int)s->width, (int)s->height);
	v->lib.sraRgnMakeEmpty(cl->copyRegion);
	if (cl->useNewFBSize)
		cl->newFBSizePending = TRUE;
	pthread_cond_signal(&cl->updateCond);
	pthread_mutex_unlock(&cl->updateMutex);
}

/* The library's own function for this keeps a client locked for ever that leaves at
 * the wrong moment; so here is another, which counts references. */
void vnc_switch_surface(struct vnc *v, struct surface *s)
{
	rfbClientPtr clients[VNC_MAX_CLIENTS];
	unsigned n = 0;

	mutex_lock(&v->lock);
	list_for_each (pos, &v->clients) {
		clients[n] = list_entry(pos, struct vnc_client, link)->cl;
		v->lib.rfbIncrClientRef(clients[n++]);
	}
	mutex_unlock(&v->lock);
	for (unsigned i = 0; i < n; i++)
		lock_sending(clients[i]);
	v->screen->width = (int)s->width;
	v->screen->height = (int)s->height;
	v->screen->paddedWidthInBytes = (int)s->width * 4;
	v->screen->frameBuffer = (char *)s->pixels;
	for (unsigned i = 0; i < n; i++) {
		tell_size(v, clients[i], s);
		pthread_mutex_unlock(&clients[i]->sendMutex);
		v->lib.rfbDecrClientRef(clients[i]);
	}
	surface_put(v->surface);
	v->surface = s;
}
