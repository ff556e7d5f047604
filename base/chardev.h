/* Byte-stream ends on the host: stdio, file, pty, unix socket, null, ringbuf,
 * and the multiplexer that lets several front ends share one (Ctrl-a c).
 *
 * A chardev has one front end (a serial port, a monitor) or, if it is a mux,
 * several of which one has the focus.  All callbacks run on the loop given to
 * chardev_open; chardev_write may be called from any thread and never blocks:
 * what the host does not take at once is queued (bounded at 1 MiB; the oldest
 * queued bytes of a reader that does not read are dropped and counted, unless
 * the front end waits by chardev_has_room). */
#ifndef BASE_CHARDEV_H
#define BASE_CHARDEV_H

#include "base/base.h"
#include "base/error.h"
#include "base/loop.h"

struct chardev;

enum chardev_event {
	CHARDEV_OPENED, /* a peer connected (or: always open) */
	CHARDEV_CLOSED, /* peer went away */
	CHARDEV_BREAK,	/* serial break */
	CHARDEV_FOCUS,	/* mux: this front end has the focus now */
	CHARDEV_UNFOCUS,
};

/* A front end.  Storage is the front end's own. */
struct chardev_user {
	/* How many bytes it takes now; 0 stops reading until chardev_accept_input. */
	size_t (*can_receive)(struct chardev_user *u);
	void (*receive)(struct chardev_user *u, const u8 *data, size_t bytes);
	void (*event)(struct chardev_user *u, enum chardev_event event);
	/* There is room again after there was none.  NULL: nobody waits. */
	void (*has_room)(struct chardev_user *u);
	struct chardev *chardev; /* set by chardev_attach */
	u32 tag;		 /* place in a mux */
};

/* spec: "stdio" "mon:stdio" (a mux over stdio) "file:PATH" "pty" "null" "none"
 * "unix:PATH[,server][,nowait|wait=off]" "vc" (as null), or "chardev:ID" handled
 * by the caller.  id names it in messages and `info chardev`.  "none" gives NULL. */
int chardev_open(struct chardev **out, struct loop *loop, const char *id, const char *spec,
		 struct error *err);
/* Takes an open descriptor pair (may be equal); for tests and inherited fds. */
int chardev_from_fds(struct chardev **out, struct loop *loop, const char *id, int in_fd, int out_fd,
		     struct error *err);
void chardev_close(struct chardev *c);
/* Turn into a multiplexer: more than one user may attach, Ctrl-a c rotates the
 * focus, Ctrl-a x asks for quit, Ctrl-a h helps, Ctrl-a b breaks, Ctrl-a s is
 * ignored, Ctrl-a Ctrl-a sends one. */
int chardev_make_mux(struct chardev *c, void (*on_quit)(void *arg), void *arg, struct error *err);
bool chardev_is_mux(const struct chardev *c);
/* Another escape than Ctrl-a (-echr); before the first byte is read. */
void chardev_set_escape(struct chardev *c, u8 escape);

int chardev_attach(struct chardev *c, struct chardev_user *u, struct error *err); /* -EBUSY */
void chardev_detach(struct chardev_user *u);
size_t chardev_write(struct chardev_user *u, const void *data, size_t bytes); /* [any thread] */
/* Would so many bytes (half the queue at most) be kept?  If not, u->has_room is called
 * when they would.  A pty has always room: nobody may ever read it. */
bool chardev_has_room(struct chardev_user *u, size_t bytes); /* [any thread] */
void chardev_accept_input(struct chardev_user *u);	     /* [any thread] */
void chardev_flush(struct chardev *c); /* blocking, at exit; bounded to a second */

const char *chardev_id(const struct chardev *c);
/* "pty: /dev/pts/3", "stdio", "disconnected:unix:..." as `info chardev` shows it. */
const char *chardev_describe(const struct chardev *c);
/* True when it is the process's terminal, put in raw mode by the chardev. */
bool chardev_is_terminal(const struct chardev *c);
/* On a terminal whose Ctrl-c sends a signal: have it as a byte for a while. */
void chardev_take_interrupt(struct chardev *c, bool on);

#endif
