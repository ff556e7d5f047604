/* The parts of the VNC server among themselves.
 *
 * Threads: main listens, and gives pictures and passwords; "vnc" (a loop of its own)
 * greets clients and tells the library what changed, and may be held up by them for a
 * while; each connection has two threads of the library. */
#ifndef DEVICES_DISPLAY_VNC_INT_H
#define DEVICES_DISPLAY_VNC_INT_H

#include "base/list.h"
#include "base/loop.h"
#include "base/thread.h"
#include "devices/display/display.h"
#include "devices/display/vnc.h"
#include "devices/display/vnc_lib.h"
#include "devices/input/input.h"

#define VNC_PASSWORD_BYTES 8
#define VNC_MAX_CLIENTS	   32
#define VNC_MAX_LISTENERS  8
#define VNC_KEYS	   256

struct vnc_listener {
	struct loop_watch watch;
	struct vnc *vnc;
	char text[128]; /* as `info vnc` shows it */
	bool websocket;
};

/* One connection.  Its keys and buttons are its own threads' business. */
struct vnc_client {
	struct list link; /* [vnc.lock] */
	rfbClientPtr cl;
	char peer[128];	   /* [const] */
	const char *where; /* [const] "ipv4" ... */
	bool looks;	   /* [vnc.lock] has asked for a picture */
	u64 since_ns;	   /* [const] */
	bool started;	   /* [vnc] has threads */
	pthread_t thread;  /* [vnc.lock] once it is gone */
	bool held[VNC_KEYS];
	bool has_place, showed_password;
	int x, y;
	u32 buttons;
};

struct vnc {
	struct vnc_lib lib;	 /* [const] */
	struct display *display; /* [const] */
	struct display_listener listener;
	struct input *input;	 /* [const] */
	struct loop *main;	 /* [const] */
	struct loop *loop;	 /* [const] the vnc thread's */
	rfbScreenInfoPtr screen; /* [const] */
	/* The library has one list of extensions for all servers: one of them is in it, and
	 * serves the clients of all. */
	rfbProtocolExtension extension;
	bool owns_extension;	 /* [const] */
	int pseudo_encodings[2]; /* [const] of the extension, ends in 0 */
	char *name, *path;	 /* [const] */
	bool wants_password;	 /* [const] */
	struct vnc_listener listeners[VNC_MAX_LISTENERS];
	unsigned n_listeners;	 /* [const] */
	struct surface *surface; /* [vnc] what the library shows */

	struct mutex lock;	   /* a leaf */
	struct list clients, gone; /* gone: threads to wait for */
	struct cond left;	   /* a client has gone */
	unsigned n_clients;
	struct surface *next; /* to be shown, NULL: as before */
	sraRegionPtr changed;
	int waiting[VNC_MAX_CLIENTS]; /* connections that the vnc thread is to accept */
	unsigned n_waiting;
	bool working, counting; /* the calls are on their way */
	bool closing;
	struct loop_call work;	     /* to the vnc thread */
	struct loop_call count;	     /* to main */
	struct vnc_client *arriving; /* [vnc] */
	char password[VNC_PASSWORD_BYTES + 1];
	bool has_password;
	s64 expiry; /* 0: never */
};

/* vnc.c: somebody is at the door; takes fd. */
void vnc_connected(struct vnc *v, int fd);

/* vnc_listen.c: open listeners as opt says; -errno with a message. */
int vnc_listen(struct vnc *v, const struct vnc_options *opt, struct error *err);
void vnc_unlisten(struct vnc *v);

/* vnc_client.c: connections.  [vnc] */
void vnc_setup_clients(struct vnc *v);
void vnc_accept(struct vnc *v, int fd); /* takes fd */
void vnc_reap(struct vnc *v);		/* wait for threads that have ended or are about to */
void vnc_end_clients(struct vnc *v);
/* Show another surface; who cannot be told in good time is cut off. */
void vnc_switch_surface(struct vnc *v, struct surface *s);
void vnc_count_looks(struct vnc *v); /* lock held: have main do it */

/* vnc_events.c: what the library calls on a connection's threads. */
void vnc_setup_events(struct vnc *v);
void vnc_asked(rfbClientPtr cl, rfbFramebufferUpdateRequestMsg *msg);
void vnc_release_keys(struct vnc_client *c);

/* vnc_keys.c */
struct vnc_key {
	u8 code;    /* 0: there is none */
	bool shift; /* needed for this character */
	bool letter, printable;
};
struct vnc_key vnc_key_of(u32 keysym);

#endif
