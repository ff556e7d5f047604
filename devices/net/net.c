/* Ends of Ethernet wires: joining, sending, waiting, links; see net.h.  Thread: main. */
#include "devices/net/net.h"

#include "devices/net/checksum.h"
#include "devices/net/dump.h"

#include <stdio.h>

struct net {
	struct loop *loop;   /* [const] */
	struct clock *clock; /* [const] */
	struct list ends;
	bool mac_used[256]; /* last bytes of addresses of ours */
};

struct waiting {
	struct list link;
	struct net_offload offload;
	u16 queue;
	u32 bytes;
	u8 data[];
};

/* --- the list of ends ------------------------------------------------------------ */

int net_new(struct net **out, struct loop *loop, struct clock *clock)
{
	struct net *net = xnew(struct net);

	net->loop = loop;
	net->clock = clock;
	list_init(&net->ends);
	*out = net;
	return 0;
}

void net_free(struct net *net)
{
	if (!net)
		return;
	while (!list_empty(&net->ends)) {
		struct net_end *end = list_entry(net->ends.next, struct net_end, link);

		assert(end->ops->free);
		end->ops->free(end);
	}
	free(net);
}

struct loop *net_loop(struct net *net)
{
	return net->loop;
}

struct clock *net_clock(struct net *net)
{
	return net->clock;
}

struct list *net_ends(struct net *net)
{
	return &net->ends;
}

struct net_end *net_find(struct net *net, const char *name)
{
	if (!net)
		return NULL;
	list_for_each (pos, &net->ends) {
		struct net_end *end = list_entry(pos, struct net_end, link);

		if (!strcmp(end->name, name))
			return end;
	}
	return NULL;
}

void net_make_name(struct net *net, char *to, const char *stem)
{
	size_t room = sizeof(((struct net_end *)0)->name);
	unsigned n = 0;

	do
		snprintf(to, room, "%.40s.%u", stem, n++);
	while (net_find(net, to));
}

void net_give_mac(struct net *net, u8 mac[ETH_ADDR_BYTES], bool given)
{
	static const u8 first[ETH_ADDR_BYTES] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
	unsigned last = first[5];

	if (!given) {
		while (net && last < 0xff && net->mac_used[last])
			last++;
		memcpy(mac, first, sizeof(first));
		mac[5] = (u8)last;
	}
	if (net && !memcmp(mac, first, sizeof(first) - 1))
		net->mac_used[mac[5]] = true;
}

void net_end_init(struct net_end *end, struct net *net, const struct net_ops *ops, const char *name)
{
	*end = (struct net_end){.ops = ops, .net = net};
	list_init(&end->queue);
	list_init(&end->dumps);
	list_init(&end->link);
	if (name)
		snprintf(end->name, sizeof(end->name), "%s", name);
	else
		net_make_name(net, end->name, ops->type);
	if (net)
		list_append(&net->ends, &end->link);
}

void net_end_fini(struct net_end *end)
{
	net_part(end);
	net_purge(end);
	net_dump_free_all(end);
	list_del(&end->link);
}

void net_join(struct net_end *a, struct net_end *b)
{
	assert(!a->peer && !b->peer && a != b);
	a->link_down = b->link_down = false;
	a->peer = b;
	b->peer = a;
	net_set_takes(a, a->takes);
	net_set_takes(b, b->takes);
}

void net_part(struct net_end *end)
{
	struct net_end *peer = end->peer;
	bool peer_waits = end->keeps_off;

	if (!peer)
		return;
	net_purge(end);
	net_purge(peer);
	end->keeps_off = peer->keeps_off = false;
	end->peer = peer->peer = NULL;
	peer->link_down = true; /* the wire is cut */
	if (peer->ops->link_changed)
		peer->ops->link_changed(peer);
	if (peer_waits && peer->ops->writable)
		peer->ops->writable(peer); /* into nothing */
}

/* --- links ------------------------------------------------------------------------ */

bool net_link_is_up(const struct net_end *end)
{
	return !end->link_down && (!end->peer || !end->peer->link_down);
}

void net_set_link(struct net_end *end, bool up)
{
	struct net_end *peer = end->peer;

	if (end->link_down == !up)
		return;
	end->link_down = !up;
	if (end->ops->link_changed)
		end->ops->link_changed(end);
	if (peer && peer->ops->link_changed)
		peer->ops->link_changed(peer);
	if (up)
		return;
	/* Who waits to send goes on, into nothing. */
	net_purge(end);
	net_flush(end);
	if (peer) {
		net_purge(peer);
		net_flush(peer);
	}
}

/* --- offloads --------------------------------------------------------------------- */

bool net_peer_offloads(const struct net_end *end)
{
	return end->peer && end->peer->offloads;
}

void net_set_takes(struct net_end *end, u32 takes)
{
	end->takes = takes;
	if (end->peer && end->peer->ops->set_offload)
		end->peer->ops->set_offload(end->peer, takes);
}

static u32 needed(const struct net_offload *o)
{
	u32 need = o->flags & NET_NEEDS_CSUM ? NET_TAKES_CSUM : 0;

	switch (o->gso & ~NET_GSO_ECN) {
	case NET_GSO_NONE: return need;
	case NET_GSO_TCP4: need |= NET_TAKES_TCP4; break;
	case NET_GSO_TCP6: need |= NET_TAKES_TCP6; break;
	case NET_GSO_UDP: need |= NET_TAKES_UDP; break;
	default: return UINT32_MAX;
	}
	return need | (o->gso & NET_GSO_ECN ? NET_TAKES_ECN : 0);
}

/* --- frames ----------------------------------------------------------------------- */

static bool passes(const struct net_end *from)
{
	return from->peer && net_link_is_up(from);
}

static void enqueue(struct net_end *to, const struct net_frame *f)
{
	struct waiting *w;

	if (to->queued_bytes + f->bytes > NET_QUEUE_MAX_BYTES) {
		to->dropped++;
		return;
	}
	w = try_alloc(sizeof(*w) + f->bytes);
	if (!w) {
		to->dropped++;
		return;
	}
	w->offload = f->offload;
	w->queue = f->queue;
	w->bytes = f->bytes;
	net_frame_copy(f, 0, w->data, f->bytes);
	list_append(&to->queue, &w->link);
	to->queued_bytes += f->bytes;
}

static void deliver(struct net_end *to, const struct net_frame *f)
{
	if (list_empty(&to->queue) && to->ops->receive(to, f))
		return;
	to->keeps_off = true;
	enqueue(to, f);
}

/* Do what the receiver leaves to us: N3. */
static void deliver_plain(struct net_end *to, const struct net_frame *f)
{
	struct iovec iov;
	struct net_frame plain = {.queue = f->queue, .iov = &iov, .n = 1, .bytes = f->bytes};
	AUTO_FREE u8 *data = NULL;

	if (f->offload.gso != NET_GSO_NONE) {
		to->dropped++;
		return;
	}
	data = try_alloc(f->bytes);
	if (!data || !net_frame_copy(f, 0, data, f->bytes) ||
	    !net_checksum_finish(data, f->bytes, &f->offload)) {
		to->dropped++;
		return;
	}
	iov = (struct iovec){data, f->bytes};
	deliver(to, &plain);
}

bool net_can_send(struct net_end *from)
{
	struct net_end *to = from->peer;

	if (!passes(from))
		return true; /* into nothing */
	if (list_empty(&to->queue) && (!to->ops->can_receive || to->ops->can_receive(to)))
		return true;
	to->keeps_off = true;
	return false;
}

void net_send(struct net_end *from, const struct net_frame *f)
{
	if (!passes(from) || f->bytes < ETH_HEADER_BYTES || f->bytes > NET_FRAME_MAX)
		return;
	if (!list_empty(&from->dumps))
		net_dump_frame(from, f, NET_DUMP_TX);
	if (!list_empty(&from->peer->dumps))
		net_dump_frame(from->peer, f, NET_DUMP_RX);
	if (needed(&f->offload) & ~from->peer->takes)
		deliver_plain(from->peer, f);
	else
		deliver(from->peer, f);
}

struct net_end *net_direct(struct net_end *from)
{
	struct net_end *to = from->peer;

	if (!passes(from) || !to->ops->receive_direct || to->limited)
		return NULL;
	if (!list_empty(&to->queue) || to->keeps_off)
		return NULL;
	/* Dumps are written by main, from net_send. */
	return list_empty(&from->dumps) && list_empty(&to->dumps) ? to : NULL;
}

static bool deliver_first(struct net_end *to)
{
	struct waiting *w = list_entry(to->queue.next, struct waiting, link);
	struct iovec iov = {w->data, w->bytes};
	struct net_frame f = {
		.offload = w->offload, .queue = w->queue, .iov = &iov, .n = 1, .bytes = w->bytes};

	if (!to->ops->receive(to, &f))
		return false;
	list_del(&w->link);
	to->queued_bytes -= w->bytes;
	free(w);
	return true;
}

void net_flush(struct net_end *to)
{
	while (!list_empty(&to->queue))
		if (!deliver_first(to))
			return;
	if (!to->keeps_off)
		return;
	to->keeps_off = false;
	if (to->peer && to->peer->ops->writable)
		to->peer->ops->writable(to->peer);
}

void net_purge(struct net_end *to)
{
	struct list *item;

	while ((item = list_pop(&to->queue)))
		free(list_entry(item, struct waiting, link));
	to->queued_bytes = 0;
}
