/* Between the files of virtio-net: net.c (device), net_io.c (frames), net_ctrl.c. */
#ifndef DEVICES_VIRTIO_NET_INT_H
#define DEVICES_VIRTIO_NET_INT_H

#include "base/loop.h"
#include "devices/net/nic.h"
#include "devices/virtio/pci.h"

/* Queue 2 n receives and 2 n + 1 sends, for each pair n; behind the last pair that the
 * driver knows of comes the control queue (section 5.1.2). */
enum { VNET_RX = 0, VNET_TX = 1, VNET_CTRL = 2, VNET_QUEUES = 3 };
#define VNET_PAIRS ((VIRTIO_MAX_QUEUES - 1) / 2)

#define VNET_MACS	  64 /* addresses that the filter knows */
#define VNET_VLANS	  4096
#define VNET_QUEUE_MAX	  1024 /* largest of the rings */
#define VNET_HEADER_SHORT 10   /* without the number of buffers */
#define VNET_HEADER	  12

/* Feature bits: virtio 1.2, section 5.1.3. */
enum {
	NET_F_CSUM = 0,
	NET_F_GUEST_CSUM = 1,
	NET_F_CTRL_GUEST_OFFLOADS = 2,
	NET_F_MTU = 3,
	NET_F_MAC = 5,
	NET_F_GSO = 6, /* legacy */
	NET_F_GUEST_TSO4 = 7,
	NET_F_GUEST_TSO6 = 8,
	NET_F_GUEST_ECN = 9,
	NET_F_GUEST_UFO = 10,
	NET_F_HOST_TSO4 = 11,
	NET_F_HOST_TSO6 = 12,
	NET_F_HOST_ECN = 13,
	NET_F_HOST_UFO = 14,
	NET_F_MRG_RXBUF = 15,
	NET_F_STATUS = 16,
	NET_F_CTRL_VQ = 17,
	NET_F_CTRL_RX = 18,
	NET_F_CTRL_VLAN = 19,
	NET_F_CTRL_RX_EXTRA = 20,
	NET_F_GUEST_ANNOUNCE = 21,
	NET_F_MQ = 22,
	NET_F_CTRL_MAC_ADDR = 23,
};

enum { NET_S_LINK_UP = 1, NET_S_ANNOUNCE = 2 };

struct virtio_net;
struct vnet_kick {
	struct loop_watch watch;
	struct virtio_net *v;
	unsigned queue;
};

/* Locks: dev.lock > lock.  Frames are handled on the main thread with `lock` held, from
 * popping to pushing, so that a vCPU that stops the queues finds nothing in flight. */
struct virtio_net {
	struct virtio_pci vp;
	struct nic nic;
	bool prop_mrg, prop_csum, prop_guest_csum, prop_gso;	/* [const] */
	bool prop_host_tso4, prop_host_tso6, prop_host_ufo;	/* [const] */
	bool prop_host_ecn, prop_guest_tso4, prop_guest_tso6;	/* [const] */
	bool prop_guest_ecn, prop_guest_ufo, prop_status;	/* [const] */
	bool prop_ctrl_vq, prop_ctrl_rx, prop_ctrl_rx_extra;	/* [const] */
	bool prop_ctrl_vlan, prop_ctrl_mac, prop_ctrl_offloads; /* [const] */
	bool prop_announce, prop_mq;				/* [const] */
	u16 pairs;						/* [const] of queues */
	u32 prop_mtu, prop_rx_size, prop_tx_size;		/* [const] */
	struct vnet_kick kicks[VIRTIO_MAX_QUEUES];		/* [main] */
	struct loop_idle idle;					/* [main] */
	struct loop_call offload_call;				/* [main] once posted */
	/* [main] Of one request; a frame sent may lead to one received. */
	struct iovec out_iov[VNET_QUEUE_MAX + VIRTQ_SPARE_IOV];
	struct iovec in_iov[VNET_QUEUE_MAX + VIRTQ_SPARE_IOV];
	struct mutex lock;
	bool offload_posted;		     /* [lock] frames wait until it has run */
	bool running;			     /* [lock] between start and stop */
	bool flush[VIRTIO_MAX_QUEUES];	     /* [lock] used entries not yet shown */
	u32 stalled;			     /* [lock] pairs: the peer takes nothing for now */
	u16 active_pairs;		     /* [lock] that the driver uses */
	bool announce_due;		     /* [dev.lock] a snapshot was loaded */
	u8 mac[ETH_ADDR_BYTES];		     /* [lock] as the driver set it */
	u16 status;			     /* [lock] */
	bool promisc, allmulti, alluni;	     /* [lock] */
	bool nomulti, nouni, nobcast;	     /* [lock] */
	u32 n_uni, n_multi;		     /* [lock] entries of macs: unicast first */
	bool uni_overflow, multi_overflow;   /* [lock] more than we keep: take all */
	u8 macs[VNET_MACS * ETH_ADDR_BYTES]; /* [lock] */
	u32 vlans[VNET_VLANS / 32];	     /* [lock] */
	u64 guest_offloads; /* [lock] feature bits that the driver wants, of its features */
	u32 takes;	    /* [lock] the same as the peer will hear it */
};

#define VNET_GUEST_OFFLOADS                                                                        \
	((u64)1 << NET_F_GUEST_CSUM | (u64)1 << NET_F_GUEST_TSO4 | (u64)1 << NET_F_GUEST_TSO6 |    \
	 (u64)1 << NET_F_GUEST_ECN | (u64)1 << NET_F_GUEST_UFO)

/* Where this driver has its control queue. */
static inline unsigned vnet_ctrl_queue(const struct virtio_net *v)
{
	return virtio_has(&v->vp, NET_F_MQ) ? 2u * v->pairs : VNET_CTRL;
}

/* net_io.c */
extern const struct net_ops vnet_end_ops;
void vnet_kicked(struct loop_watch *watch, u32 revents);
void vnet_turn_ends(struct loop_idle *idle);
u32 vnet_header_bytes(const struct virtio_net *v);
void vnet_queue_broke(struct virtio_net *v, unsigned queue);
void vnet_pushed(struct virtio_net *v, unsigned queue);

/* net_ctrl.c: serve the control queue; lock held. */
void vnet_serve_ctrl(struct virtio_net *v);
bool vnet_wants(const struct virtio_net *v, const u8 *frame, u32 bytes);
void vnet_reset_filters(struct virtio_net *v);

/* net.c: tell the peer what the driver understands now; lock held. */
void vnet_offloads_changed(struct virtio_net *v);
/* Its link went up or down. */
void vnet_link_changed(struct net_end *end);

#endif
