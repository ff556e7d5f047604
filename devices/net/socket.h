/* `socket`: frames to another machine monitor over a TCP connection. */
#ifndef DEVICES_NET_SOCKET_H
#define DEVICES_NET_SOCKET_H

#include "base/opts.h"
#include "devices/net/net.h"

#define SOCKET_KEYS "listen connect mcast udp localaddr"

int net_socket_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
		   struct error *err);

#endif
