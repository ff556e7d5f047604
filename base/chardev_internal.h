/* Shared by chardev.c (streams and the mux) and chardev_open.c (host ends). */
#ifndef BASE_CHARDEV_INTERNAL_H
#define BASE_CHARDEV_INTERNAL_H

#include "base/chardev.h"
#include "base/thread.h"

#include <termios.h>

#define CHARDEV_USERS	  4
#define CHARDEV_OUT_BYTES (1 * MiB)
#define CHARDEV_IN_BYTES  4096

/* Threads: [loop] the main loop's; [out.lock] any thread. */
struct chardev {
	struct loop *loop;	      /* [const] */
	char *id, *spec;	      /* [const] */
	char *description;	      /* [loop] */
	int in_fd, out_fd;	      /* [loop] -1: none; out_fd also under out.lock */
	int listen_fd;		      /* [const] server socket, -1: none */
	int keep_fd;		      /* [const] a pty's other end, kept open against hang-ups */
	char *unlink_path;	      /* [const] socket to remove at the end */
	bool out_is_socket;	      /* [const] send without SIGPIPE */
	bool out_blocking;	      /* [const] a file: written at once */
	bool is_terminal;	      /* [const] */
	bool signals;		      /* [const] Ctrl-c on it is a signal */
	struct termios saved_termios; /* [const] valid if is_terminal */
	struct loop_watch in_watch, out_watch, listen_watch; /* [loop] */
	bool in_watched, out_watched;			     /* [loop] */

	struct chardev_user *users[CHARDEV_USERS]; /* [loop] */
	u32 n_users, focus;			   /* [loop] */
	bool mux, got_escape;			   /* [loop] */
	u8 escape;				   /* [const] */
	void (*on_quit)(void *arg);		   /* [const] */
	void *on_quit_arg;
	/* What was read for a user that did not take it yet. */
	u8 pending[CHARDEV_USERS][CHARDEV_IN_BYTES]; /* [loop] */
	size_t n_pending[CHARDEV_USERS];

	struct loop_call accept_call; /* posted by chardev_accept_input */
	u32 accept_posted;	      /* [atomic] */
	struct loop_call out_call;    /* posted when output waits for the descriptor */
	u32 out_posted;		      /* [atomic] */

	struct mutex lock; /* "out.lock" */
	u8 *out;	   /* [out.lock] ring, made when the host first did not take all */
	size_t out_at, out_used;
	u64 out_lost;	 /* [out.lock] bytes dropped */
	bool out_wanted; /* [out.lock] somebody waits for room */
};

struct chardev *chardev_alloc(struct loop *loop, const char *id, const char *spec);
/* Take over descriptors of a peer that is there now. */
void chardev_connect(struct chardev *c, int in_fd, int out_fd);
void chardev_disconnect(struct chardev *c);
void chardev_listen(struct chardev *c, int fd);

#endif
