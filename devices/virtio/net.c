/* virtio-net: a NIC on virtqueues.  virtio 1.2, section 5.1.
 *
 * Queues are served on the main thread (net_io.c), where backends live; doorbells ring
 * eventfds that its loop watches.  A vCPU that starts or stops the queues only takes
 * v->lock: it never waits for the main thread, which may be waiting for the vCPU.
 * Frames with checksums left out and segments to be cut are offered when the backend
 * understands them (a tap with vnet headers). */
#include "devices/virtio/net.h"

#include "base/bytes.h"
#include "base/io.h"
#include "devices/virtio/net_int.h"

#include <errno.h>

#define VIRTIO_TYPE_NET	  1
#define LEGACY_DEVICE_ID  0x1000
#define PCI_CLASS_NETWORK 0x020000
#define CONFIG_BYTES	  12
#define VNET_CTRL_SIZE	  64

static struct virtio_net *vnet_of(struct virtio_pci *vp)
{
	return container_of(vp, struct virtio_net, vp);
}

static struct loop *loop_of(const struct virtio_net *v)
{
	return v->vp.pd.dev.machine->loop;
}

/* --- offloads --------------------------------------------------------------------------- */

static u32 takes(u64 offloads)
{
	static const struct {
		unsigned feature;
		u32 takes;
	} map[] = {{NET_F_GUEST_CSUM, NET_TAKES_CSUM},
		   {NET_F_GUEST_TSO4, NET_TAKES_TCP4},
		   {NET_F_GUEST_TSO6, NET_TAKES_TCP6},
		   {NET_F_GUEST_ECN, NET_TAKES_ECN},
		   {NET_F_GUEST_UFO, NET_TAKES_UDP}};
	u32 sum = 0;

	for (unsigned i = 0; i < ARRAY_LEN(map); i++)
		if (offloads >> map[i].feature & 1)
			sum |= map[i].takes;
	return sum;
}

static void set_offloads(struct loop_call *call)
{
	struct virtio_net *v = container_of(call, struct virtio_net, offload_call);
	u32 now;

	mutex_lock(&v->lock);
	now = v->takes;
	v->offload_posted = false;
	mutex_unlock(&v->lock);
	net_set_takes(&v->nic.end, now);
	net_flush(&v->nic.end);
}

void vnet_offloads_changed(struct virtio_net *v)
{
	lock_assert(&v->lock);
	v->takes = takes(v->guest_offloads & v->vp.driver_features);
	if (v->offload_posted || !loop_of(v))
		return;
	v->offload_posted = true;
	loop_post(loop_of(v), &v->offload_call);
}

/* --- start and stop --------------------------------------------------------------------- */

static void announce(struct virtio_net *v)
{
	if (!v->announce_due)
		return;
	v->announce_due = false;
	if (!virtio_has(&v->vp, NET_F_GUEST_ANNOUNCE) || !virtio_has(&v->vp, NET_F_CTRL_VQ))
		return;
	v->status |= NET_S_ANNOUNCE;
	virtio_pci_config_changed(&v->vp);
}

static void vnet_start(struct virtio_pci *vp)
{
	static const u64 one = 1;
	struct virtio_net *v = vnet_of(vp);
	LOCK_SCOPE(&v->lock);

	v->running = true;
	vnet_offloads_changed(v);
	announce(v);
	for (unsigned i = 0; i < vp->n_queues; i++)
		if (vp->queues[i].vq.running)
			sys_write(vp->queues[i].kick_fd, &one, sizeof(one));
}

static void vnet_stop(struct virtio_pci *vp)
{
	struct virtio_net *v = vnet_of(vp);
	LOCK_SCOPE(&v->lock);

	v->running = false;
	for (unsigned i = 0; i < vp->n_queues; i++) {
		v->flush[i] = false;
		if (vp->queues[i].vq.running && virtq_flush(&vp->queues[i].vq))
			virtio_pci_interrupt(vp, i);
	}
}

/* What a driver has set is forgotten; its features are gone. */
static void vnet_driver_reset(struct virtio_pci *vp)
{
	struct virtio_net *v = vnet_of(vp);
	LOCK_SCOPE(&v->lock);

	v->announce_due = false;
	v->active_pairs = 1;
	v->guest_offloads = VNET_GUEST_OFFLOADS;
	v->status &= (u16)~NET_S_ANNOUNCE;
	memcpy(v->mac, v->nic.mac, sizeof(v->mac));
	vnet_reset_filters(v);
	vnet_offloads_changed(v);
}

/* --- configuration ------------------------------------------------------------------------ */

/* Section 5.1.4. */
static void vnet_config_get(struct virtio_pci *vp, u8 *c)
{
	struct virtio_net *v = vnet_of(vp);
	LOCK_SCOPE(&v->lock);

	memcpy(c, v->mac, ETH_ADDR_BYTES);
	store_le16(c + 6, v->status);
	store_le16(c + 8, v->pairs);
	store_le16(c + 10, (u16)v->prop_mtu);
}

/* Old drivers set the address here: section 5.1.4.1. */
static void vnet_config_set(struct virtio_pci *vp, u32 off, u8 value)
{
	struct virtio_net *v = vnet_of(vp);
	LOCK_SCOPE(&v->lock);

	if (off < ETH_ADDR_BYTES && !virtio_has(vp, VIRTIO_F_VERSION_1) &&
	    !virtio_has(vp, NET_F_CTRL_MAC_ADDR))
		v->mac[off] = value;
}

static void update_link(struct virtio_net *v)
{
	v->status &= (u16)~NET_S_LINK_UP;
	if (net_link_is_up(&v->nic.end))
		v->status |= NET_S_LINK_UP;
}

void vnet_link_changed(struct net_end *end)
{
	struct virtio_net *v = container_of(end, struct virtio_net, nic.end);
	LOCK_SCOPE(&v->lock);
	u16 was = v->status;

	nic_link_changed(&v->nic);
	update_link(v);
	if (v->status != was)
		virtio_pci_config_changed(&v->vp);
}

static const struct virtio_ops vnet_ops = {.config_get = vnet_config_get,
					   .config_set = vnet_config_set,
					   .start = vnet_start,
					   .reset = vnet_driver_reset,
					   .stop = vnet_stop};

/* --- life cycle ------------------------------------------------------------------------------ */

static u64 features(const struct virtio_net *v)
{
	const struct {
		bool on, needs_offloads;
		unsigned bit;
	} map[] = {
		{v->prop_csum, true, NET_F_CSUM},
		{v->prop_guest_csum, true, NET_F_GUEST_CSUM},
		{v->prop_ctrl_vq && v->prop_ctrl_offloads, true, NET_F_CTRL_GUEST_OFFLOADS},
		{v->prop_mtu != 0, false, NET_F_MTU},
		{true, false, NET_F_MAC},
		{v->prop_gso && v->prop_csum, true, NET_F_GSO},
		{v->prop_guest_tso4 && v->prop_guest_csum, true, NET_F_GUEST_TSO4},
		{v->prop_guest_tso6 && v->prop_guest_csum, true, NET_F_GUEST_TSO6},
		{v->prop_guest_ecn && v->prop_guest_csum, true, NET_F_GUEST_ECN},
		{v->prop_guest_ufo && v->prop_guest_csum, true, NET_F_GUEST_UFO},
		{v->prop_host_tso4 && v->prop_csum, true, NET_F_HOST_TSO4},
		{v->prop_host_tso6 && v->prop_csum, true, NET_F_HOST_TSO6},
		{v->prop_host_ecn && v->prop_csum, true, NET_F_HOST_ECN},
		{v->prop_host_ufo && v->prop_csum, true, NET_F_HOST_UFO},
		{v->prop_mrg, false, NET_F_MRG_RXBUF},
		{v->prop_status, false, NET_F_STATUS},
		{v->prop_ctrl_vq, false, NET_F_CTRL_VQ},
		{v->prop_ctrl_vq && v->prop_ctrl_rx, false, NET_F_CTRL_RX},
		{v->prop_ctrl_vq && v->prop_ctrl_vlan, false, NET_F_CTRL_VLAN},
		{v->prop_ctrl_vq && v->prop_ctrl_rx_extra, false, NET_F_CTRL_RX_EXTRA},
		{v->prop_ctrl_vq && v->prop_announce, false, NET_F_GUEST_ANNOUNCE},
		{v->prop_ctrl_vq && v->prop_ctrl_mac, false, NET_F_CTRL_MAC_ADDR},
		{v->prop_ctrl_vq && v->pairs > 1, false, NET_F_MQ},
	};
	bool offloads = net_peer_offloads(&v->nic.end);
	u64 sum = 0;

	for (unsigned i = 0; i < ARRAY_LEN(map); i++)
		if (map[i].on && (offloads || !map[i].needs_offloads))
			sum |= (u64)1 << map[i].bit;
	return sum;
}

static int check_size(const struct virtio_net *v, const char *name, u32 size, struct error *err)
{
	if (is_pow2(size) && size >= 256 && size <= VNET_QUEUE_MAX)
		return 0;
	return err_set(err, -EINVAL, "Invalid %s (= %u), must be a power of 2 between 256 and %u.",
		       name, size, VNET_QUEUE_MAX);
}

static void watch_queues(struct virtio_net *v)
{
	struct loop *loop = loop_of(v);

	if (!loop)
		return; /* a test without frames */
	for (unsigned i = 0; i < v->vp.n_queues; i++) {
		v->kicks[i].v = v;
		v->kicks[i].queue = i;
		loop_watch_bell(loop, &v->kicks[i].watch, v->vp.queues[i].kick_fd, vnet_kicked);
	}
	loop_idle_add(loop, &v->idle, vnet_turn_ends);
}

static void unwatch_queues(struct virtio_net *v)
{
	struct loop *loop = loop_of(v);

	if (!loop)
		return;
	for (unsigned i = 0; i < v->vp.n_queues; i++)
		loop_watch_del(&v->kicks[i].watch);
	loop_idle_del(&v->idle);
	loop_run_posted(loop); /* offload_call, which is ours */
}

/* Each of the backend's queues gets a pair. */
static unsigned count_pairs(const struct virtio_net *v)
{
	unsigned queues = v->nic.netdev ? v->nic.netdev->queues : 0;

	return MAX(MIN(queues, (unsigned)VNET_PAIRS), 1u);
}

static int vnet_init(struct device *dev, struct error *err)
{
	struct virtio_net *v = container_of(dev, struct virtio_net, vp.pd.dev);
	struct virtio_setup setup = {
		.ops = &vnet_ops,
		.type = VIRTIO_TYPE_NET,
		.legacy_id = LEGACY_DEVICE_ID,
		.class_code = PCI_CLASS_NETWORK,
		.config_bytes = CONFIG_BYTES,
		.queue_size = (u16)v->prop_rx_size,
	};
	int ret = check_size(v, "rx_queue_size", v->prop_rx_size, err);

	if (ret == 0)
		ret = check_size(v, "tx_queue_size", v->prop_tx_size, err);
	if (ret == 0 && v->prop_mtu && (v->prop_mtu < 68 || v->prop_mtu > 65535))
		ret = err_set(err, -EINVAL, "%s: host_mtu is %u, expected 68..65535", dev->id,
			      v->prop_mtu);
	if (ret == 0)
		ret = nic_init(&v->nic, dev, &vnet_end_ops, err);
	if (ret < 0)
		return ret;
	mutex_init(&v->lock);
	v->offload_call.fn = set_offloads;
	v->nic.end.offloads = true;
	v->pairs = v->prop_mq ? (u16)count_pairs(v) : 1;
	v->active_pairs = 1;
	setup.n_queues = (u16)(2 * v->pairs + v->prop_ctrl_vq);
	setup.features = features(v);
	ret = virtio_pci_init(&v->vp, &setup, err);
	if (ret < 0) {
		mutex_fini(&v->lock);
		nic_fini(&v->nic);
		return ret;
	}
	for (unsigned i = 0; i < v->pairs; i++)
		v->vp.queues[2 * i + VNET_TX].vq.max_size = (u16)v->prop_tx_size;
	if (v->prop_ctrl_vq)
		v->vp.queues[2 * v->pairs].vq.max_size = VNET_CTRL_SIZE;
	watch_queues(v);
	return 0;
}

static void vnet_reset(struct device *dev)
{
	struct virtio_net *v = container_of(dev, struct virtio_net, vp.pd.dev);

	virtio_pci_reset(&v->vp);
	mutex_lock(&v->lock);
	update_link(v);
	mutex_unlock(&v->lock);
}

static void vnet_fini(struct device *dev)
{
	struct virtio_net *v = container_of(dev, struct virtio_net, vp.pd.dev);

	unwatch_queues(v);
	virtio_pci_fini(&v->vp);
	nic_fini(&v->nic);
	mutex_fini(&v->lock);
}

/* --- state --------------------------------------------------------------------------------------
 */

static int vnet_state_check(const void *loaded, struct error *err)
{
	const struct virtio_net *v = loaded;

	if (v->n_uni > VNET_MACS || v->n_multi > VNET_MACS - v->n_uni)
		return err_set(err, -EINVAL, "virtio-net: %u and %u addresses, expected up to %u",
			       v->n_uni, v->n_multi, VNET_MACS);
	if (v->status & ~(NET_S_LINK_UP | NET_S_ANNOUNCE))
		return err_set(err, -EINVAL, "virtio-net: status is 0x%x, expected 0..3",
			       v->status);
	if (v->active_pairs > VNET_PAIRS)
		return err_set(err, -EINVAL, "virtio-net: %u pairs of queues, expected up to %u",
			       v->active_pairs, VNET_PAIRS);
	return virtio_pci_state_check(&v->vp, err);
}

static void vnet_post_load(struct device *dev)
{
	struct virtio_net *v = container_of(dev, struct virtio_net, vp.pd.dev);

	virtio_pci_post_load(dev);
	/* The queues that this card has; 0: saved before there were several. */
	v->active_pairs = MAX(MIN(v->active_pairs, v->pairs), (u16)1);
	v->announce_due = true;
}

static const struct prop vnet_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_net, vp),
	NIC_PROPS(struct virtio_net, nic),
	PROP(struct virtio_net, prop_csum, "csum", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_guest_csum, "guest_csum", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_gso, "gso", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_guest_tso4, "guest_tso4", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_guest_tso6, "guest_tso6", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_guest_ecn, "guest_ecn", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_guest_ufo, "guest_ufo", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_announce, "guest_announce", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_host_tso4, "host_tso4", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_host_tso6, "host_tso6", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_host_ecn, "host_ecn", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_host_ufo, "host_ufo", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_mrg, "mrg_rxbuf", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_status, "status", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_ctrl_vq, "ctrl_vq", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_ctrl_rx, "ctrl_rx", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_ctrl_vlan, "ctrl_vlan", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_ctrl_rx_extra, "ctrl_rx_extra", PROP_KIND_BOOL, "on",
	     "on/off"),
	PROP(struct virtio_net, prop_ctrl_mac, "ctrl_mac_addr", PROP_KIND_BOOL, "on", "on/off"),
	PROP(struct virtio_net, prop_ctrl_offloads, "ctrl_guest_offloads", PROP_KIND_BOOL, "on",
	     "on/off"),
	PROP(struct virtio_net, prop_mq, "mq", PROP_KIND_BOOL, "off",
	     "a pair of queues for each of the backend's"),
	PROP(struct virtio_net, prop_mtu, "host_mtu", PROP_KIND_U32, "0",
	     "largest packet, told to the driver"),
	PROP(struct virtio_net, prop_rx_size, "rx_queue_size", PROP_KIND_U32, "256", "256..1024"),
	PROP(struct virtio_net, prop_tx_size, "tx_queue_size", PROP_KIND_U32, "256", "256..1024"),
	PROP_END,
};

static const struct state_field vnet_state[] = {
	STATE_STRUCT(struct virtio_net, vp, virtio_pci_state),
	STATE_ARRAY(struct virtio_net, mac),
	STATE(struct virtio_net, status),
	STATE(struct virtio_net, promisc),
	STATE(struct virtio_net, allmulti),
	STATE(struct virtio_net, alluni),
	STATE(struct virtio_net, nomulti),
	STATE(struct virtio_net, nouni),
	STATE(struct virtio_net, nobcast),
	STATE(struct virtio_net, n_uni),
	STATE(struct virtio_net, n_multi),
	STATE(struct virtio_net, uni_overflow),
	STATE(struct virtio_net, multi_overflow),
	STATE_ARRAY(struct virtio_net, macs),
	STATE_ARRAY(struct virtio_net, vlans),
	STATE(struct virtio_net, guest_offloads),
	STATE_OPTIONAL(struct virtio_net, active_pairs), /* absent: one */
	STATE_END,
};

const struct device_class virtio_net_class = {
	.name = "virtio-net-pci",
	.help = "virtio network device",
	.size = sizeof(struct virtio_net),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = vnet_props,
	.init = vnet_init,
	.reset = vnet_reset,
	.fini = vnet_fini,
	.state = vnet_state,
	.state_check = vnet_state_check,
	.post_load = vnet_post_load,
	.pause = virtio_pci_pause,
	.resume = virtio_pci_resume,
};
