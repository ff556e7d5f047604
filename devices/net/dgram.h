/* Frames in datagrams: the forms mcast= and udp= of `socket`. */
#ifndef DEVICES_NET_DGRAM_H
#define DEVICES_NET_DGRAM_H

#include "base/opts.h"
#include "devices/net/net.h"

int net_dgram_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
		  struct error *err);

#endif
