/* Backends by the name of their type. */
#ifndef DEVICES_NET_BACKENDS_H
#define DEVICES_NET_BACKENDS_H

#include "base/opts.h"
#include "devices/net/net.h"

struct net_backend {
	const char *type;
	const char *keys; /* of its options, besides "type" and "id" */
	int (*open)(struct net_end **out, struct net *net, const char *name,
		    const struct opts *opts, struct error *err);
};

extern const struct net_backend net_backends[]; /* ends in a row without type */
const struct net_backend *net_backend_find(const char *type);

#endif
