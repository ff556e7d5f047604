/* The display over VNC (RFB 3.8, RFC 6143), by libvncserver. */
#ifndef DEVICES_DISPLAY_VNC_H
#define DEVICES_DISPLAY_VNC_H

#include "base/base.h"
#include "base/error.h"
#include "base/printer.h"

struct display;
struct input;
struct loop;
struct vnc;

enum vnc_share { VNC_SHARE_EXCLUSIVE, VNC_SHARE_FORCE, VNC_SHARE_IGNORE };

struct vnc_options {
	const char *name;    /* of the desktop */
	const char *path;    /* a unix socket instead of host and port; NULL: none */
	const char *host;    /* NULL: this machine only */
	u32 port, port_last; /* the first free one of these */
	const char *ws_host;
	u32 ws_port;   /* of WebSocket connections, 0: none */
	bool password; /* nobody gets in without one */
	bool no_ipv4, no_ipv6;
	enum vnc_share share;
	struct vnc *first; /* another server that will be freed after this one, or NULL */
};

/* Listen.  display, input and main (the loop that both live on) are lent. */
int vnc_new(struct vnc **out, const struct vnc_options *opt, struct display *display,
	    struct input *input, struct loop *main, struct error *err);
void vnc_free(struct vnc *v); /* NULL is fine; ends every connection */

/* NULL: nobody gets in until there is one.  -EINVAL: the server takes no passwords. */
int vnc_set_password(struct vnc *v, const char *password);
/* Wall clock seconds; 0: it lasts for ever. */
void vnc_set_expiry(struct vnc *v, s64 when);
void vnc_print_info(struct vnc *v, struct printer *p);

#endif
