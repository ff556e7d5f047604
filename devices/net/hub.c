/* A hub: what comes in at one port goes out at all others, for `-net`.  Thread: main.
 *
 * A port is an end whose peer is a NIC or a backend.  It takes a frame when any other
 * port could send it on; the slower ones queue, within the bounds of net.h. */
#include "devices/net/net.h"

#include <stdio.h>

struct hub_port {
	struct net_end end;
	unsigned hub;
};

static const struct net_ops hub_ops;

static struct hub_port *port_of(struct net_end *end)
{
	return container_of(end, struct hub_port, end);
}

static struct hub_port *other_port(struct list *pos, const struct hub_port * not )
{
	struct net_end *end = list_entry(pos, struct net_end, link);
	struct hub_port *port;

	if (end->ops != &hub_ops)
		return NULL;
	port = port_of(end);
	return port != not &&port->hub == not ->hub ? port : NULL;
}

static bool hub_can_receive(struct net_end *end)
{
	struct hub_port *port = port_of(end);
	bool alone = true;

	list_for_each (pos, net_ends(end->net)) {
		struct hub_port *other = other_port(pos, port);

		if (!other)
			continue;
		alone = false;
		if (net_can_send(&other->end))
			return true;
	}
	return alone;
}

static bool hub_receive(struct net_end *end, const struct net_frame *f)
{
	struct hub_port *port = port_of(end);

	list_for_each (pos, net_ends(end->net)) {
		struct hub_port *other = other_port(pos, port);

		if (other)
			net_send(&other->end, f);
	}
	return true;
}

static void hub_writable(struct net_end *end)
{
	struct hub_port *port = port_of(end);

	list_for_each (pos, net_ends(end->net)) {
		struct hub_port *other = other_port(pos, port);

		if (other)
			net_flush(&other->end);
	}
}

static void hub_free(struct net_end *end)
{
	net_end_fini(end);
	free(port_of(end));
}

static const struct net_ops hub_ops = {.type = "hubport",
				       .can_receive = hub_can_receive,
				       .receive = hub_receive,
				       .writable = hub_writable,
				       .free = hub_free};

struct net_end *net_hub_port(struct net *net, unsigned id, const char *name)
{
	struct hub_port *port = xnew(struct hub_port);
	char made_up[40];
	unsigned n = 0;

	do
		snprintf(made_up, sizeof(made_up), "hub%uport%u", id, n++);
	while (net_find(net, made_up));
	port->hub = id;
	net_end_init(&port->end, net, &hub_ops, name ? name : made_up);
	return &port->end;
}

int net_hub_of(const struct net_end *end)
{
	return end->ops == &hub_ops ? (int)container_of(end, struct hub_port, end)->hub : -1;
}
