/* A network card on a fake machine; see net_rig.h. */
#include "tests/lib/net_rig.h"

#include "base/loop.h"
#include "devices/i440fx.h"
#include "devices/net/checksum.h"
#include "devices/pci.h"

#include <stdio.h>

static struct net_rig *rig_of(struct net_end *end)
{
	return container_of(end, struct net_rig, peer);
}

static bool can_receive(struct net_end *end)
{
	return !rig_of(end)->busy;
}

static bool receive(struct net_end *end, const struct net_frame *f)
{
	struct net_rig *r = rig_of(end);
	unsigned at = r->got % RIG_KEPT;

	if (r->busy)
		return false;
	r->frames[at].bytes = f->bytes;
	r->frames[at].queue = f->queue;
	r->frames[at].offload = f->offload;
	net_frame_copy(f, 0, r->frames[at].data, MIN(f->bytes, (u32)sizeof(r->frames[at].data)));
	r->got++;
	return true;
}

static void writable(struct net_end *end)
{
	rig_of(end)->writable++;
}

static const struct net_ops peer_ops = {
	.type = "probe", .can_receive = can_receive, .receive = receive, .writable = writable};

void net_rig_init_queues(struct net_rig *r, const struct device_class *cls, bool offloads,
			 u16 queues)
{
	static const u32 routing[4] = {RIG_GSI, RIG_GSI, RIG_GSI, RIG_GSI};
	struct prop_value values[] = {{.name = "netdev", .ptr = &r->peer},
				      {.name = "mq", .text = "on"}};
	struct device_args args = {.values = values, .n_values = queues > 1 ? 2 : 1};
	struct error err;

	memset(r, 0, sizeof(*r));
	fake_machine_init(&r->fm, RIG_RAM);
	if (loop_new(&r->loop, "test", LOOP_AUTO, &err) < 0)
		abort();
	r->fm.m.loop = r->loop;
	net_end_init(&r->peer, NULL, &peer_ops, "probe");
	r->peer.offloads = offloads;
	r->peer.queues = queues;
	r->peer.takes = offloads ? NET_TAKES_ALL : 0;
	r->bridge = fake_device(&r->fm, &i440fx_class, NULL, NULL);
	args.parent = r->bridge;
	if (device_new(&r->dev, &r->fm.m, cls, &args, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	r->devfn = ((struct pci_dev *)r->dev)->devfn;
	pci_bus_set_routing(pci_bus_of(r->bridge), routing);
}

void net_rig_init(struct net_rig *r, const struct device_class *cls, bool offloads)
{
	net_rig_init_queues(r, cls, offloads, 1);
}

void net_rig_fini(struct net_rig *r)
{
	net_rig_run(r);
	fake_machine_fini(&r->fm);
	net_end_fini(&r->peer);
	loop_free(r->loop);
}

struct turns {
	struct loop_call call;
	struct net_rig *rig;
	unsigned left;
};

static void turn(struct loop_call *call)
{
	struct turns *t = container_of(call, struct turns, call);

	if (--t->left)
		loop_post(t->rig->loop, call);
	else
		loop_stop(t->rig->loop);
}

void net_rig_run(struct net_rig *r)
{
	struct turns t = {.call = {.fn = turn}, .rig = r, .left = 8};

	loop_post(r->loop, &t.call);
	loop_run(r->loop);
}

void net_rig_send(struct net_rig *r, const u8 *to, u32 bytes, u8 fill)
{
	u8 data[10000];
	struct iovec iov[2] = {{data, 13}, {data + 13, bytes - 13}};
	struct net_frame f = {.queue = r->send_queue, .iov = iov, .n = 2, .bytes = bytes};

	assert(bytes >= 14 && bytes <= sizeof(data));
	memset(data, fill, bytes);
	if (to)
		memcpy(data, to, 6);
	else
		memset(data, 0xff, 6);
	net_send(&r->peer, &f);
}
