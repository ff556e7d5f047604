/* An image as an NBD export; see server.c. */
#ifndef BLOCK_NBD_SERVER_H
#define BLOCK_NBD_SERVER_H

#include "block/image.h"

struct nbd_export {
	struct image *img;
	const char *name, *description;
	bool readonly;
	bool discard;	      /* TRIM does something */
	bool persistent;      /* goes on when the last client has left */
	unsigned max_clients; /* 0: no limit of ours */
};

/* Serve clients of this listening socket, until the last one has left or stop_fd
 * is readable.  Then what is in flight is finished and the image flushed: the
 * result.  Suspends. */
int nbd_serve(struct fiber *f, const struct nbd_export *e, int listen_fd, int stop_fd);

#endif
