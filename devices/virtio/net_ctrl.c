/* virtio-net's control queue, and the filter that it sets: virtio 1.2, section 5.1.6.5.
 * Thread: main, with v->lock held. */
#include "devices/virtio/net_int.h"

#include "base/bytes.h"
#include "base/io.h"

#include <errno.h>

enum { ACK_OK = 0, ACK_ERR = 1 };
enum {
	CLASS_RX = 0,
	CLASS_MAC = 1,
	CLASS_VLAN = 2,
	CLASS_ANNOUNCE = 3,
	CLASS_MQ = 4,
	CLASS_OFFLOADS = 5
};
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST };
enum { MAC_TABLE_SET, MAC_ADDR_SET };
enum { VLAN_ADD, VLAN_DEL };

#define ETHERTYPE_VLAN 0x8100
#define TURN_COMMANDS  64 /* in one go, before others have their turn */

/* Reads the readable part of a command piece by piece. */
struct reader {
	const struct iovec *iov;
	unsigned n;
	u64 at, bytes;
};

static bool take(struct reader *r, void *to, u64 bytes)
{
	if (bytes > r->bytes - r->at)
		return false;
	iov_copy_from(r->iov, r->n, r->at, to, bytes);
	r->at += bytes;
	return true;
}

static u8 set_rx_mode(struct virtio_net *v, u8 command, struct reader *r)
{
	bool *modes[] = {&v->promisc, &v->allmulti, &v->alluni,
			 &v->nomulti, &v->nouni,    &v->nobcast};
	bool extra = command > RX_ALLMULTI;
	u8 on;

	if (command >= ARRAY_LEN(modes) || !take(r, &on, 1))
		return ACK_ERR;
	if (!virtio_has(&v->vp, extra ? NET_F_CTRL_RX_EXTRA : NET_F_CTRL_RX))
		return ACK_ERR;
	*modes[command] = on;
	return ACK_OK;
}

/* One of the two lists of MAC_TABLE_SET; what does not fit switches to "take all". */
static bool read_list(struct virtio_net *v, struct reader *r, u32 first, u32 *n, bool *overflow)
{
	u8 raw[4];
	u32 count;

	if (!take(r, raw, sizeof(raw)))
		return false;
	count = load_le32(raw);
	if (count > (r->bytes - r->at) / ETH_ADDR_BYTES)
		return false;
	*overflow = count > VNET_MACS - first;
	*n = *overflow ? 0 : count;
	if (*overflow)
		r->at += (u64)count * ETH_ADDR_BYTES;
	else
		take(r, v->macs + (size_t)first * ETH_ADDR_BYTES, (u64)count * ETH_ADDR_BYTES);
	return true;
}

static u8 set_table(struct virtio_net *v, struct reader *r)
{
	v->n_multi = 0;
	if (read_list(v, r, 0, &v->n_uni, &v->uni_overflow) &&
	    read_list(v, r, v->n_uni, &v->n_multi, &v->multi_overflow))
		return ACK_OK;
	v->n_uni = v->n_multi = 0;
	return ACK_ERR;
}

static u8 set_mac(struct virtio_net *v, u8 command, struct reader *r)
{
	u8 mac[ETH_ADDR_BYTES];

	if (command == MAC_TABLE_SET)
		return virtio_has(&v->vp, NET_F_CTRL_RX) ? set_table(v, r) : ACK_ERR;
	if (command != MAC_ADDR_SET || !virtio_has(&v->vp, NET_F_CTRL_MAC_ADDR) ||
	    !take(r, mac, sizeof(mac)))
		return ACK_ERR;
	memcpy(v->mac, mac, sizeof(mac));
	return ACK_OK;
}

static u8 set_vlan(struct virtio_net *v, u8 command, struct reader *r)
{
	u8 raw[2];
	u16 id;

	if (command > VLAN_DEL || !virtio_has(&v->vp, NET_F_CTRL_VLAN) ||
	    !take(r, raw, sizeof(raw)))
		return ACK_ERR;
	id = load_le16(raw);
	if (id >= VNET_VLANS)
		return ACK_ERR;
	if (command == VLAN_ADD)
		v->vlans[id / 32] |= 1u << id % 32;
	else
		v->vlans[id / 32] &= ~(1u << id % 32);
	return ACK_OK;
}

static u8 set_offloads(struct virtio_net *v, u8 command, struct reader *r)
{
	u8 raw[8];
	u64 bits;

	if (command || !virtio_has(&v->vp, NET_F_CTRL_GUEST_OFFLOADS) || !take(r, raw, sizeof(raw)))
		return ACK_ERR;
	bits = load_le64(raw);
	if (bits & ~(v->vp.driver_features & VNET_GUEST_OFFLOADS))
		return ACK_ERR;
	v->guest_offloads = bits;
	vnet_offloads_changed(v);
	return ACK_OK;
}

/* Section 5.1.6.5.5. */
static u8 set_pairs(struct virtio_net *v, u8 command, struct reader *r)
{
	u8 raw[2];
	u16 n;

	if (command || !virtio_has(&v->vp, NET_F_MQ) || !take(r, raw, sizeof(raw)))
		return ACK_ERR;
	n = load_le16(raw);
	if (!n || n > v->pairs)
		return ACK_ERR;
	v->active_pairs = n;
	return ACK_OK;
}

static u8 acknowledge(struct virtio_net *v, u8 command)
{
	if (command || !virtio_has(&v->vp, NET_F_GUEST_ANNOUNCE) || !(v->status & NET_S_ANNOUNCE))
		return ACK_ERR;
	v->status &= (u16)~NET_S_ANNOUNCE;
	return ACK_OK;
}

static u8 run(struct virtio_net *v, struct reader *r)
{
	u8 header[2];

	if (!take(r, header, sizeof(header)))
		return ACK_ERR;
	switch (header[0]) {
	case CLASS_RX: return set_rx_mode(v, header[1], r);
	case CLASS_MAC: return set_mac(v, header[1], r);
	case CLASS_VLAN: return set_vlan(v, header[1], r);
	case CLASS_ANNOUNCE: return acknowledge(v, header[1]);
	case CLASS_MQ: return set_pairs(v, header[1], r);
	case CLASS_OFFLOADS: return set_offloads(v, header[1], r);
	default: return ACK_ERR;
	}
}

static int serve_one(struct virtio_net *v, struct virtq *q)
{
	struct virtq_chain c = {.iov = v->out_iov, .room = ARRAY_LEN(v->out_iov)};
	int ret = virtq_pop(q, &c);
	struct reader r;
	u8 ack;

	if (ret <= 0)
		return ret;
	if (c.out_bytes < 2 || !c.in_bytes) {
		virtq_refuse(q, "command without header or acknowledgement");
		return -EINVAL;
	}
	r = (struct reader){.iov = c.out.iov, .n = c.out.n, .bytes = c.out_bytes};
	ack = run(v, &r);
	iov_copy_to(c.in.iov, c.in.n, 0, &ack, 1);
	mem_mark_dirty_iov(q->mem, c.in.iov, c.in.n, 1);
	virtq_push(q, c.head, 1);
	vnet_pushed(v, vnet_ctrl_queue(v));
	return 1;
}

void vnet_serve_ctrl(struct virtio_net *v)
{
	unsigned at = vnet_ctrl_queue(v);
	static const u64 one = 1;
	struct virtq *q = &v->vp.queues[at].vq;
	unsigned left = TURN_COMMANDS;
	int ret;

	lock_assert(&v->lock);
	if (!v->running || !q->running || q->broken)
		return;
	do {
		virtq_quiet(q);
		do
			ret = serve_one(v, q);
		while (ret > 0 && --left);
		if (ret < 0) {
			vnet_queue_broke(v, at);
			return;
		}
		if (!left) {
			sys_write(v->vp.queues[at].kick_fd, &one, sizeof(one));
			return;
		}
	} while (virtq_listen(q));
}

/* --- the filter --------------------------------------------------------------------- */

void vnet_reset_filters(struct virtio_net *v)
{
	v->promisc = true; /* until a driver says what it wants: section 5.1.6.5.1 */
	v->allmulti = v->alluni = v->nomulti = v->nouni = v->nobcast = false;
	v->n_uni = v->n_multi = 0;
	v->uni_overflow = v->multi_overflow = false;
	memset(v->macs, 0, sizeof(v->macs));
	memset(v->vlans, 0, sizeof(v->vlans));
}

static bool in_list(const struct virtio_net *v, const u8 *addr, u32 first, u32 n)
{
	for (u32 i = first; i < first + n; i++)
		if (!memcmp(v->macs + (size_t)i * ETH_ADDR_BYTES, addr, ETH_ADDR_BYTES))
			return true;
	return false;
}

static bool vlan_passes(const struct virtio_net *v, const u8 *frame, u32 bytes)
{
	u32 id;

	if (!virtio_has(&v->vp, NET_F_CTRL_VLAN) || bytes < 16 ||
	    load_be16(frame + 12) != ETHERTYPE_VLAN)
		return true;
	id = load_be16(frame + 14) & 0xfff;
	return v->vlans[id / 32] >> id % 32 & 1;
}

bool vnet_wants(const struct virtio_net *v, const u8 *frame, u32 bytes)
{
	if (v->promisc)
		return true;
	if (!vlan_passes(v, frame, bytes))
		return false;
	if (eth_is_broadcast(frame))
		return !v->nobcast;
	if (eth_is_group(frame))
		return !v->nomulti && (v->allmulti || v->multi_overflow ||
				       in_list(v, frame, v->n_uni, v->n_multi));
	return !v->nouni &&
	       (v->alluni || v->uni_overflow || !memcmp(frame, v->mac, ETH_ADDR_BYTES) ||
		in_list(v, frame, 0, v->n_uni));
}
