/* Stream sockets for fibers: whole transfers that suspend instead of blocking.
 *
 * Served by the loop's descriptor watches, so alike on both backends.  One fiber
 * at a time receives and one sends; others must be kept out by their caller. */
#ifndef BASE_SOCK_H
#define BASE_SOCK_H

#include "base/fiber.h"
#include "base/loop.h"

#include <sys/uio.h>

struct sock {
	int fd;			 /* [const] non-blocking; closed by sock_fini */
	struct loop_watch watch; /* [loop] for what somebody waits for */
	struct fiber_queue receiver, sender;
	struct loop_timer timer; /* cuts the connection when it fires */
};

/* Takes fd and makes it non-blocking. */
void sock_init(struct sock *s, struct loop *loop, int fd);
/* Nobody may be suspended in it. */
void sock_fini(struct sock *s);

/* All bytes, or -ECONNRESET when the peer is gone; another error of the host.
 * Suspends. */
int sock_recv(struct fiber *f, struct sock *s, void *buf, size_t bytes);
int sock_send(struct fiber *f, struct sock *s, const struct iovec *iov, unsigned n);
/* Until there is something to receive, or the peer is gone.  Suspends. */
void sock_wait_readable(struct fiber *f, struct sock *s);

/* Cut the connection at this time (CLOCK_MONOTONIC) unless told otherwise; 0: never. */
void sock_set_deadline(struct sock *s, u64 due_ns);
/* Nothing is received any more; sock_cut: nor sent.  Who is suspended gets errors. */
void sock_stop_receiving(struct sock *s);
void sock_cut(struct sock *s);

#endif
