/* `tap`: frames to and from the host's kernel. */
#ifndef DEVICES_NET_TAP_H
#define DEVICES_NET_TAP_H

#include "base/opts.h"
#include "devices/net/net.h"

#define TAP_KEYS                                                                                   \
	"ifname script downscript fd fds vhost vhostforce vhostfd vhostfds vnet_hdr sndbuf "       \
	"queues "                                                                                  \
	"br helper"

int tap_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
	    struct error *err);

#endif
