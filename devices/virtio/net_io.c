/* virtio-net's frames: virtio 1.2, sections 5.1.6.2 (sending) and 5.1.6.3 (receiving).
 *
 * Thread: main.  v->lock is held from popping a request to pushing it (see net_int.h).
 * A frame that the guest sends may come back in the same call (an answer of the user
 * network, a hub): then this thread holds the lock already.  Data moves straight between
 * guest memory and the backend; used entries are shown, and interrupts raised, once a
 * turn of the loop. */
#include "devices/virtio/net_int.h"

#include "base/bytes.h"
#include "base/io.h"
#include "devices/net/checksum.h"

#include <errno.h>
#include <stdio.h>

#define TURN_FRAMES 256 /* sent in one go, before others have their turn */

static struct virtio_net *vnet_of(struct net_end *end)
{
	return container_of(end, struct virtio_net, nic.end);
}

u32 vnet_header_bytes(const struct virtio_net *v)
{
	bool long_one =
		virtio_has(&v->vp, NET_F_MRG_RXBUF) || virtio_has(&v->vp, VIRTIO_F_VERSION_1);

	return long_one ? VNET_HEADER : VNET_HEADER_SHORT;
}

void vnet_queue_broke(struct virtio_net *v, unsigned queue)
{
	virtio_pci_queue_broke(&v->vp, queue);
}

/* Shown to the driver when the turn ends.  What sent the frame may be at work there
 * itself, behind us. */
void vnet_pushed(struct virtio_net *v, unsigned queue)
{
	v->flush[queue] = true;
	if (v->vp.pd.dev.machine->loop)
		loop_idle_again(v->vp.pd.dev.machine->loop);
}

static struct virtq *queue_of(struct virtio_net *v, unsigned pair, unsigned which)
{
	return &v->vp.queues[2 * pair + which].vq;
}

/* --- the guest sends ------------------------------------------------------------------ */

static struct net_offload decode_header(const u8 *h)
{
	return (struct net_offload){.flags = h[0] & NET_NEEDS_CSUM,
				    .gso = h[1],
				    .header_bytes = load_le16(h + 2),
				    .gso_bytes = load_le16(h + 4),
				    .csum_start = load_le16(h + 6),
				    .csum_offset = load_le16(h + 8)};
}

/* Send what was popped; odd lengths are dropped, not punished, as a wire would. */
static void send_chain(struct virtio_net *v, unsigned pair, const struct virtq_chain *c)
{
	struct iovec *iov = c->out.iov;
	unsigned n = c->out.n;
	u32 header_bytes = vnet_header_bytes(v);
	u8 header[VNET_HEADER];
	struct net_frame f;

	iov_copy_from(iov, n, 0, header, header_bytes);
	while (n && header_bytes >= iov->iov_len) {
		header_bytes -= (u32)iov->iov_len;
		iov++;
		n--;
	}
	if (!n)
		return;
	iov->iov_base = (u8 *)iov->iov_base + header_bytes;
	iov->iov_len -= header_bytes;
	f = (struct net_frame){.offload = decode_header(header),
			       .queue = (u16)pair,
			       .iov = iov,
			       .n = n,
			       .bytes = (u32)(c->out_bytes - vnet_header_bytes(v))};
	net_send(&v->nic.end, &f);
}

static int send_one(struct virtio_net *v, unsigned pair)
{
	struct virtq *q = queue_of(v, pair, VNET_TX);
	struct virtq_chain c = {.iov = v->out_iov, .room = ARRAY_LEN(v->out_iov)};
	int ret = virtq_pop(q, &c);

	if (ret <= 0)
		return ret;
	if (c.out_bytes < vnet_header_bytes(v)) {
		virtq_refuse(q, "frame without its header");
		return -EINVAL;
	}
	if (c.out_bytes - vnet_header_bytes(v) <= NET_FRAME_MAX)
		send_chain(v, pair, &c);
	virtq_push(q, c.head, 0);
	vnet_pushed(v, 2 * pair + VNET_TX);
	return 1;
}

static void serve_tx(struct virtio_net *v, unsigned pair)
{
	static const u64 one = 1;
	struct virtq *q = queue_of(v, pair, VNET_TX);
	unsigned left = TURN_FRAMES;
	u32 bit = 1u << pair;
	int ret = 1;

	lock_assert(&v->lock);
	v->stalled &= ~bit;
	if (!v->running || !q->running || q->broken)
		return;
	do {
		virtq_quiet(q);
		ret = 1;
		while (ret > 0 && left && !(v->stalled & bit)) {
			if (net_can_send(&v->nic.end))
				ret = send_one(v, pair);
			else
				v->stalled |= bit;
			left--;
		}
		if (ret < 0) {
			vnet_queue_broke(v, 2 * pair + VNET_TX);
			return;
		}
		if (v->stalled & bit)
			return; /* kicks stay off until the peer says that it is ready */
		if (!left) {
			sys_write(v->vp.queues[2 * pair + VNET_TX].kick_fd, &one, sizeof(one));
			return;
		}
	} while (virtq_listen(q));
}

static void vnet_writable(struct net_end *end)
{
	struct virtio_net *v = vnet_of(end);
	bool nested = mutex_held(&v->lock);

	/* Within our own sending, the loop that sends goes on by itself. */
	if (nested)
		return;
	LOCK_SCOPE(&v->lock);
	for (unsigned i = 0; i < v->pairs; i++)
		if (v->stalled & 1u << i)
			serve_tx(v, i);
}

/* --- the guest receives ----------------------------------------------------------------- */

static void encode_header(u8 *h, const struct net_offload *o, u16 buffers)
{
	h[0] = o->flags;
	h[1] = o->gso;
	store_le16(h + 2, o->header_bytes);
	store_le16(h + 4, o->gso_bytes);
	store_le16(h + 6, o->csum_start);
	store_le16(h + 8, o->csum_offset);
	store_le16(h + 10, buffers);
}

/* Buffers that one frame went to: what to tell the driver when it is whole. */
struct filled {
	u16 head;
	u32 bytes;
	struct iovec count[2]; /* of the first, if it has a long header */
};
#define MAX_BUFFERS 64

/* Copy frame bytes from *at on behind `skip` bytes of the vectors. */
static u32 fill(const struct virtq_chain *c, u32 skip, const struct net_frame *f, u32 at)
{
	u64 room = c->in_bytes - skip;
	u32 done = 0, left = f->bytes - at;

	for (unsigned i = 0; i < f->n && room && left; i++) {
		const struct iovec *from = &f->iov[i];
		u64 n;

		if (at >= from->iov_len) {
			at -= (u32)from->iov_len;
			continue;
		}
		n = MIN((u64)from->iov_len - at, room);
		n = MIN(n, (u64)left);
		iov_copy_to(c->in.iov, c->in.n, skip + done, (const u8 *)from->iov_base + at, n);
		at = 0;
		done += (u32)n;
		room -= n;
		left -= (u32)n;
	}
	return done;
}

/* Where the number of buffers goes when it is known: bytes 10 and 11 of the header. */
static void find_count(const struct virtq_chain *c, struct iovec count[2])
{
	u64 at = 10;

	for (unsigned i = 0, found = 0; i < c->in.n && found < 2; i++) {
		const struct iovec *iov = &c->in.iov[i];

		for (; at < iov->iov_len && found < 2; at++)
			count[found++] = (struct iovec){(u8 *)iov->iov_base + at, 1};
		at = at > iov->iov_len ? at - iov->iov_len : 0;
	}
}

/* One buffer: 1 when the frame is whole, 0 when more is to come, or as virtq_pop. */
static int fill_one(struct virtio_net *v, struct virtq *q, const struct net_frame *f,
		    struct filled *to, u32 *at)
{
	struct virtq_chain c = {.iov = v->in_iov, .room = ARRAY_LEN(v->in_iov)};
	u32 header_bytes = *at ? 0 : vnet_header_bytes(v), n;
	u8 header[VNET_HEADER];
	int ret = virtq_pop(q, &c);

	if (ret <= 0)
		return ret < 0 ? ret : -EAGAIN;
	if (c.in_bytes < header_bytes || !c.in_bytes) {
		virtq_refuse(q, "receive buffer without room for the header");
		return -EINVAL;
	}
	if (header_bytes == VNET_HEADER)
		find_count(&c, to->count);
	if (header_bytes) {
		encode_header(header, &f->offload, 1);
		if (!(v->nic.end.takes & NET_TAKES_CSUM))
			header[0] = 0; /* not even that it is right */
		iov_copy_to(c.in.iov, c.in.n, 0, header, header_bytes);
	}
	n = fill(&c, header_bytes, f, *at);
	mem_mark_dirty_iov(q->mem, c.in.iov, c.in.n, header_bytes + n);
	*at += n;
	to->head = c.head;
	to->bytes = header_bytes + n;
	return *at == f->bytes;
}

/* All or nothing: true when the frame went into buffers, or never will. */
static bool fill_buffers(struct virtio_net *v, unsigned pair, const struct net_frame *f)
{
	struct virtq *q = queue_of(v, pair, VNET_RX);
	struct filled filled[MAX_BUFFERS];
	bool mergeable = virtio_has(&v->vp, NET_F_MRG_RXBUF);
	unsigned n = 0, max = mergeable ? MAX_BUFFERS : 1;
	u8 raw[2];
	u32 at = 0;
	int ret = 0;

	while (ret == 0 && n < max) {
		ret = fill_one(v, q, f, &filled[n], &at);
		n += ret >= 0;
	}
	if (ret < 0) {
		virtq_unpop(q, n);
		if (ret == -EAGAIN)
			return false;
		vnet_queue_broke(v, 2 * pair + VNET_RX);
		return true;
	}
	if (ret == 0) { /* too long for what the driver gave us: dropped */
		virtq_unpop(q, n);
		return true;
	}
	if (n > 1) {
		store_le16(raw, (u16)n);
		iov_copy_to(filled[0].count, 2, 0, raw, sizeof(raw));
		mem_mark_dirty_iov(q->mem, filled[0].count, 2, sizeof(raw));
	}
	for (unsigned i = 0; i < n; i++)
		virtq_push(q, filled[i].head, filled[i].bytes);
	vnet_pushed(v, 2 * pair + VNET_RX);
	return true;
}

static bool is_ready(const struct virtio_net *v, const struct virtq *q)
{
	return v->running && q->running && !q->broken && !v->offload_posted;
}

/* Nobody is there to ever take a frame: it is dropped.  A paused guest's waits. */
static bool is_gone(struct virtio_net *v, const struct virtq *q)
{
	return !__atomic_load_n(&v->vp.live, __ATOMIC_RELAXED) || q->broken;
}

/* The pair of the backend's queue, as far as the driver uses so many. */
static unsigned pair_for(struct virtio_net *v, const struct net_frame *f)
{
	unsigned pair = f->queue % v->active_pairs;

	return queue_of(v, pair, VNET_RX)->running ? pair : 0;
}

static bool receive_locked(struct virtio_net *v, const struct net_frame *f)
{
	unsigned pair = pair_for(v, f);
	struct virtq *q = queue_of(v, pair, VNET_RX);
	u8 start[18] = {0};
	bool taken;
	u16 seen;

	lock_assert(&v->lock);
	if (!is_ready(v, q))
		return is_gone(v, q);
	net_frame_copy(f, 0, start, MIN(f->bytes, (u32)sizeof(start)));
	if (!vnet_wants(v, start, f->bytes))
		return true;
	do {
		virtq_quiet(q);
		seen = virtq_waiting(q);
		taken = fill_buffers(v, pair, f);
		/* Too few buffers: the driver kicks when it has put in more. */
	} while (!taken && virtq_listen_beyond(q, seen));
	return taken;
}

static bool vnet_receive(struct net_end *end, const struct net_frame *f)
{
	struct virtio_net *v = vnet_of(end);
	bool nested = mutex_held(&v->lock), taken;

	if (!nested)
		mutex_lock(&v->lock);
	taken = receive_locked(v, f);
	if (!nested)
		mutex_unlock(&v->lock);
	return taken;
}

static bool pair_can_receive(struct virtio_net *v, unsigned pair)
{
	struct virtq *q = queue_of(v, pair, VNET_RX);

	if (pair && !q->running)
		return true; /* the first one gets its frames */
	return is_ready(v, q) ? virtq_has_more(q) || virtq_listen(q) : is_gone(v, q);
}

static bool vnet_can_receive(struct net_end *end)
{
	struct virtio_net *v = vnet_of(end);
	bool nested = mutex_held(&v->lock), can = true;

	if (!nested)
		mutex_lock(&v->lock);
	for (unsigned i = 0; i < v->active_pairs && can; i++)
		can = pair_can_receive(v, i);
	if (!nested)
		mutex_unlock(&v->lock);
	return can;
}

const struct net_ops vnet_end_ops = {.type = "nic",
				     .can_receive = vnet_can_receive,
				     .receive = vnet_receive,
				     .writable = vnet_writable,
				     .link_changed = vnet_link_changed};

/* --- the loop's side ---------------------------------------------------------------------- */

void vnet_kicked(struct loop_watch *watch, u32 revents)
{
	struct vnet_kick *k = container_of(watch, struct vnet_kick, watch);
	struct virtio_net *v = k->v;
	bool receives;

	mutex_lock(&v->lock);
	receives = k->queue != vnet_ctrl_queue(v) && k->queue % 2 == VNET_RX;
	if (k->queue == vnet_ctrl_queue(v))
		vnet_serve_ctrl(v);
	else if (!receives)
		serve_tx(v, k->queue / 2);
	mutex_unlock(&v->lock);
	if (receives)
		net_flush(&v->nic.end);
}

void vnet_turn_ends(struct loop_idle *idle)
{
	struct virtio_net *v = container_of(idle, struct virtio_net, idle);
	LOCK_SCOPE(&v->lock);

	for (unsigned i = 0; i < v->vp.n_queues; i++) {
		struct virtq *q = &v->vp.queues[i].vq;

		if (!v->flush[i])
			continue;
		v->flush[i] = false;
		if (v->running && q->running && virtq_flush(q))
			virtio_pci_interrupt(&v->vp, i);
	}
}
