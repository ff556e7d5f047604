/* Frames that pass a backend, written to a file as they pass. */
#ifndef DEVICES_NET_DUMP_H
#define DEVICES_NET_DUMP_H

#include "devices/net/net.h"

struct net_dump;

enum net_dump_way {
	NET_DUMP_RX = 1, /* what the backend gets: sent by the guest */
	NET_DUMP_TX = 2, /* what it sends */
	NET_DUMP_ALL = 3,
};

struct net_dump_options {
	const char *id, *file;
	u32 max_bytes; /* kept of a frame, 1 and up */
	enum net_dump_way way;
	bool off; /* the file has no frames */
};

/* Begin the file; it ends with the end. */
int net_dump_add(struct net_end *end, const struct net_dump_options *opt, struct error *err);
void net_dump_free_all(struct net_end *end);
/* A frame passes this end. */
void net_dump_frame(struct net_end *end, const struct net_frame *f, enum net_dump_way way);
/* `info network`: a line for each, behind "filters:". */
void net_dump_print(const struct net_end *end, void (*line)(void *arg, const char *text),
		    void *arg);

#endif
