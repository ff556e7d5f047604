/* The list of backends, one row each, in the order in which `-netdev help` shows them. */
#include "devices/net/backends.h"

#include "devices/net/socket.h"
#include "devices/net/tap.h"
#include "devices/net/user.h"

#include <errno.h>

static int open_hubport(struct net_end **out, struct net *net, const char *name,
			const struct opts *opts, struct error *err)
{
	struct net_end *inner, *outer = NULL;
	const char *peer = opts_get(opts, "netdev");
	u32 id = 0;

	if (!opts_has(opts, "hubid"))
		return err_set(err, -EINVAL, "Parameter 'hubid' is missing");
	if (opts_get_u32(opts, "hubid", &id, err) < 0)
		return err->code;
	if (peer) {
		outer = net_find(net, peer);
		if (!outer || outer->is_nic)
			return err_set(err, -ENOENT, "netdev '%s' not found", peer);
		if (outer->peer)
			return err_set(err, -EBUSY, "netdev '%s' is already in use", peer);
	}
	inner = net_hub_port(net, id, name);
	if (outer)
		net_join(inner, outer);
	*out = inner;
	return 0;
}

const struct net_backend net_backends[] = {
	{"socket", SOCKET_KEYS, net_socket_new},
	{"hubport", "hubid netdev", open_hubport},
	{"tap", TAP_KEYS, tap_new},
	{"user", USER_NET_KEYS, user_net_new},
	{NULL, NULL, NULL},
};

const struct net_backend *net_backend_find(const char *type)
{
	for (const struct net_backend *b = net_backends; b->type; b++)
		if (!strcmp(b->type, type))
			return b;
	return NULL;
}
