/* Shared by server.c (connections), options.c (handshake) and requests.c. */
#ifndef BLOCK_NBD_SERVER_INT_H
#define BLOCK_NBD_SERVER_INT_H

#include "base/bytes.h"
#include "base/list.h"
#include "base/sock.h"
#include "block/nbd/proto.h"
#include "block/nbd/server.h"

#define MAX_IN_FLIGHT	 128	     /* requests of one connection */
#define MAX_BUFFER_BYTES (64 * MiB)  /* of all connections */
#define FREE_BUFFER_MOST (128 * KiB) /* larger ones are not kept */
#define FREE_REQUESTS	 64

struct nbd_server {
	const struct nbd_export *export; /* [const] */
	struct loop *loop;		 /* [const] */
	struct list conns;
	unsigned n_conns;
	bool stopping;
	u64 buffer_bytes;	   /* of requests in flight */
	struct fiber_queue memory; /* waits for buffer_bytes to shrink */
	struct list free_requests;
	unsigned n_free_requests;
	struct loop_watch listen, stop;
	int listen_fd;
	struct loop_timer grace;
	struct fiber_queue ended;
};

/* One client.  Its fiber reads requests; each request runs on a fiber of its own. */
struct nbd_conn {
	struct list link;
	struct nbd_server *server;
	struct sock sock;
	bool no_zeroes, structured, allocation; /* negotiated */
	bool broken;				/* sending failed: nobody listens */
	unsigned in_flight;
	struct fiber_queue room; /* waits for in_flight to shrink */
	struct fiber_mutex send_lock;
};

struct nbd_request {
	struct list link;
	struct nbd_conn *conn;
	u16 flags, type;
	u64 cookie, goff;
	u32 bytes;
	u8 *buf; /* of `room` bytes, kept between requests */
	u32 room;
	u32 charged; /* of it, in the server's buffer_bytes */
};

/* --- options.c --- */
/* The handshake: 0 when transmission begins.  Suspends. */
int nbd_handshake(struct fiber *f, struct nbd_conn *c);
u16 nbd_export_flags(const struct nbd_conn *c);

/* --- requests.c --- */
/* Serve requests until the client leaves or breaks the rules.  Suspends. */
void nbd_transmission(struct fiber *f, struct nbd_conn *c);
void nbd_request_free(struct nbd_request *r);

#endif
