/* e1000's transmit ring: Software Developer's Manual, sections 3.3 (descriptors), 3.4
 * (ring), 3.5 (segmentation), 3.6 (checksums), 9.2 (VLAN tags).
 *
 * Thread: main, or a vCPU's where e->direct allows it; dev.lock held.  A packet is worked on only
 * when its last descriptor is in the ring, so nothing of it has to be kept from one time to the
 * next but the context that its driver set for this and later packets.  Data goes to one linear
 * buffer, which holds the headers and, with segmentation, one segment at a time. */
#include "devices/net/e1000_int.h"

#include "base/bytes.h"
#include "devices/net/checksum.h"

#define TURN_FRAMES 256 /* packets in one go, before others have their turn */

/* The third dword of a descriptor. */
#define DESC_LEGACY_LENGTH 0xffff
#define DESC_LENGTH	   0xfffff
#define DESC_TYPE_DATA	   (1u << 20)
#define DESC_TYPE	   (15u << 20)
#define CMD_EOP		   (1u << 24)
#define CMD_IC		   (1u << 26) /* legacy: insert a checksum */
#define CMD_TSE		   (1u << 26) /* data, context: segmentation */
#define CMD_RS		   (1u << 27)
#define CMD_RPS		   (1u << 28)
#define CMD_DEXT	   (1u << 29)
#define CMD_VLE		   (1u << 30)
#define STATUS_DD	   1
#define POPTS_IXSM	   1
#define POPTS_TXSM	   2
#define TUCMD_TCP	   1
#define TUCMD_IP4	   2

struct desc {
	u64 addr;
	u32 lower, upper; /* length and command; status, options, special */
};

/* A packet on its way out. */
struct packet {
	u32 bytes;	/* in e->frame */
	bool segmented; /* by e->tso */
	bool bad;	/* longer than anything that may be sent */
	bool vlan;
	bool direct;  /* sent to e->direct, or not at all: this may be a vCPU's thread */
	u8 popts;     /* POPTS_... of its first data descriptor */
	u16 tag;      /* of VLAN */
	u32 sent;     /* payload bytes of earlier segments */
	u32 left;     /* payload bytes that the context still announces */
	u8 tcp_flags; /* of the whole */
	u16 count;    /* segments so far */
};

static bool read_desc(const struct e1000 *e, u32 index, struct desc *d)
{
	u8 raw[E1000_DESC_BYTES];
	u64 at = e1000_ring(e, R_TDBAL) + (u64)index * E1000_DESC_BYTES;

	if (mem_read(e->pd.dev.machine->mem, at, raw, sizeof(raw)) < 0)
		return false;
	*d = (struct desc){
		.addr = load_le64(raw), .lower = load_le32(raw + 8), .upper = load_le32(raw + 12)};
	return true;
}

static void write_back(struct e1000 *e, u32 index, const struct desc *d)
{
	u64 at = e1000_ring(e, R_TDBAL) + (u64)index * E1000_DESC_BYTES;
	u8 status = (u8)(d->upper | STATUS_DD);

	if (!(d->lower & (CMD_RS | CMD_RPS)))
		return;
	mem_write(e->pd.dev.machine->mem, at + 12, &status, 1);
	e1000_cause(e, ICR_TXDW);
}

static bool is_context(const struct desc *d)
{
	return d->lower & CMD_DEXT && !(d->lower & DESC_TYPE);
}

static void set_context(struct e1000 *e, const struct desc *d)
{
	struct e1000_context c = {
		.ipcss = (u8)d->addr,
		.ipcso = (u8)(d->addr >> 8),
		.ipcse = (u16)(d->addr >> 16),
		.tucss = (u8)(d->addr >> 32),
		.tucso = (u8)(d->addr >> 40),
		.tucse = (u16)(d->addr >> 48),
		.paylen = d->lower & DESC_LENGTH,
		.tucmd = (u8)(d->lower >> 24),
		.hdrlen = (u8)(d->upper >> 8),
		.mss = (u16)(d->upper >> 16),
	};

	if (d->lower & CMD_TSE)
		e->tso = c;
	else
		e->plain = c;
}

/* --- one frame ------------------------------------------------------------------------- */

/* The checksum of [start, end] at `at`; end 0: to the end of the frame. */
static void insert_sum(u8 *frame, u32 bytes, u32 start, u32 at, u32 end)
{
	u32 stop = end && end < bytes ? end + 1 : bytes;

	if (at + 2 > bytes || start >= stop)
		return;
	store_be16(frame + at, (u16)~net_fold(net_sum(frame + start, stop - start)));
}

static void add16(u8 *frame, u32 bytes, u32 at, u32 add)
{
	if (at + 2 <= bytes)
		store_be16(frame + at, (u16)(load_be16(frame + at) + add));
}

static void put16(u8 *frame, u32 bytes, u32 at, u32 value)
{
	if (at + 2 <= bytes)
		store_be16(frame + at, (u16)value);
}

/* The headers were made for the first segment: make them those of this one. */
static void adjust_headers(struct e1000 *e, struct packet *p)
{
	const struct e1000_context *c = &e->tso;
	u8 *frame = e->frame;
	u32 bytes = p->bytes, seq = c->tucss + 4u, flags = c->tucss + 13u;
	bool last = !p->left;

	if (c->tucmd & TUCMD_IP4) {
		put16(frame, bytes, c->ipcss + 2u, bytes - c->ipcss);
		add16(frame, bytes, c->ipcss + 4u, p->count ? 1 : 0);
	} else {
		put16(frame, bytes, c->ipcss + 4u, bytes - c->ipcss - 40);
	}
	if (!(c->tucmd & TUCMD_TCP)) {
		put16(frame, bytes, c->tucss + 4u, bytes - c->tucss);
	} else if (flags < bytes) {
		if (p->count)
			store_be32(frame + seq, load_be32(frame + seq) + c->mss);
		if (!p->count)
			p->tcp_flags = frame[flags];
		/* FIN and PSH are the last one's. */
		frame[flags] = last ? p->tcp_flags : p->tcp_flags & (u8)~9;
	}
}

/* The sum that the driver left there is of the pseudo header without its length. */
static void add_length(struct e1000 *e, u32 bytes)
{
	const struct e1000_context *c = &e->tso;
	u32 at = c->tucso;

	if (at + 2 <= bytes && c->tucss < bytes)
		store_be16(e->frame + at,
			   net_fold((u64)load_be16(e->frame + at) + (bytes - c->tucss)));
}

static void put_on_wire(struct e1000 *e, const struct packet *p)
{
	u8 tag[ETH_VLAN_BYTES];
	struct iovec iov[3] = {{e->frame, 12}, {tag, sizeof(tag)}, {e->frame + 12, p->bytes - 12}};
	struct iovec whole = {e->frame, p->bytes};
	struct net_frame f = {.iov = &whole, .n = 1, .bytes = p->bytes};

	if (p->bytes < ETH_HEADER_BYTES)
		return;
	e1000_count(e, R_TPT);
	e1000_count(e, R_GPTC);
	e1000_count64(e, R_TOTL, p->bytes + 4);
	e1000_count64(e, R_GOTCL, p->bytes + 4);
	if (eth_is_broadcast(e->frame))
		e1000_count(e, R_BPTC);
	else if (eth_is_group(e->frame))
		e1000_count(e, R_MPTC);
	if (p->vlan) {
		store_be16(tag, (u16)e1000_get(e, R_VET));
		store_be16(tag + 2, p->tag);
		f = (struct net_frame){.iov = iov, .n = 3, .bytes = p->bytes + ETH_VLAN_BYTES};
	}
	if (e1000_get(e, R_RCTL) & RCTL_LBM)
		e1000_receive(&e->nic.end, &f);
	else if (!p->direct)
		net_send(&e->nic.end, &f);
	else if (e->direct && !e->direct->ops->receive_direct(e->direct, &f))
		e->direct = NULL; /* main knows how to wait; the rest of the packet is lost */
}

static void send_frame(struct e1000 *e, const struct packet *p)
{
	const struct e1000_context *c = p->segmented ? &e->tso : &e->plain;

	if (p->popts & POPTS_TXSM)
		insert_sum(e->frame, p->bytes, c->tucss, c->tucso, c->tucse);
	if (p->popts & POPTS_IXSM)
		insert_sum(e->frame, p->bytes, c->ipcss, c->ipcso, c->ipcse);
	put_on_wire(e, p);
}

/* --- segmentation -------------------------------------------------------------------------- */

/* A segment is complete: send it, keep the headers.  What checksums cover is only there
 * while the frame is being sent, so their fields are put back for the next one. */
static void send_segment(struct e1000 *e, struct packet *p)
{
	const struct e1000_context *c = &e->tso;
	u8 sum[2] = {0}, ip_sum[2] = {0};
	bool has_sum = c->tucso + 2u <= c->hdrlen, has_ip = c->ipcso + 2u <= c->hdrlen;

	adjust_headers(e, p);
	if (has_sum)
		memcpy(sum, e->frame + c->tucso, 2);
	if (has_ip)
		memcpy(ip_sum, e->frame + c->ipcso, 2);
	if (p->popts & POPTS_TXSM)
		add_length(e, p->bytes);
	if (p->popts & POPTS_IXSM && has_ip)
		memset(e->frame + c->ipcso, 0, 2);
	send_frame(e, p);
	if (has_sum)
		memcpy(e->frame + c->tucso, sum, 2);
	if (has_ip)
		memcpy(e->frame + c->ipcso, ip_sum, 2);
	p->count++;
	p->bytes = c->hdrlen;
}

/* Take data into headers and segments; each full segment goes. */
static void add_segmented(struct e1000 *e, struct packet *p, u64 addr, u32 bytes)
{
	const struct e1000_context *c = &e->tso;
	struct mem *mem = e->pd.dev.machine->mem;

	while (bytes && !p->bad) {
		u32 header_left = p->bytes < c->hdrlen ? c->hdrlen - p->bytes : 0;
		u32 full = header_left ? header_left : c->hdrlen + c->mss - p->bytes;
		u32 n = MIN(bytes, full);

		p->bad = mem_read(mem, addr, e->frame + p->bytes, n) < 0;
		p->bytes += n;
		addr += n;
		bytes -= n;
		if (header_left)
			continue;
		p->left -= MIN(p->left, n);
		if (!p->bad && p->bytes == (u32)c->hdrlen + c->mss)
			send_segment(e, p);
	}
}

/* --- packets -------------------------------------------------------------------------------- */

static void add_data(struct e1000 *e, struct packet *p, const struct desc *d, bool first)
{
	bool dext = d->lower & CMD_DEXT;
	u32 bytes = d->lower & (dext ? DESC_LENGTH : DESC_LEGACY_LENGTH);

	if (first && dext) {
		p->popts = (u8)(d->upper >> 8);
		p->segmented = d->lower & CMD_TSE && e->tso.mss && e->tso.hdrlen;
		p->left = e->tso.paylen;
		if (p->segmented)
			e1000_count(e, R_TSCTC);
	}
	if (p->bad)
		return;
	if (p->segmented) {
		add_segmented(e, p, d->addr, bytes);
		return;
	}
	p->bad = p->bytes + bytes > NET_FRAME_MAX - ETH_VLAN_BYTES ||
		 mem_read(e->pd.dev.machine->mem, d->addr, e->frame + p->bytes, bytes) < 0;
	p->bytes += p->bad ? 0 : bytes;
}

static void finish(struct e1000 *e, struct packet *p, const struct desc *d)
{
	bool legacy = !(d->lower & CMD_DEXT);

	p->vlan = d->lower & CMD_VLE && e1000_get(e, R_CTRL) & CTRL_VME;
	p->tag = (u16)(d->upper >> 16);
	if (p->bad) {
		dev_guest_error(&e->pd.dev, "packet that is too long or not in memory");
	} else if (p->segmented) {
		p->left = 0;
		if (p->bytes > e->tso.hdrlen)
			send_segment(e, p);
	} else {
		if (legacy && d->lower & CMD_IC) /* section 3.3.3: from CSS, put at CSO */
			insert_sum(e->frame, p->bytes, d->upper >> 8 & 0xff, d->lower >> 16 & 0xff,
				   0);
		send_frame(e, p);
	}
}

/* Descriptors up to the next end of a packet; 0: it is not in the ring yet. */
static u32 packet_length(const struct e1000 *e, u32 head, u32 tail, u32 size)
{
	struct desc d;

	for (u32 n = 1, i = head; i != tail && n <= size; n++) {
		if (!read_desc(e, i, &d))
			return n; /* taken as a packet: it is skipped with the bad address */
		if (is_context(&d) || d.lower & CMD_EOP)
			return n;
		i = i + 1 == size ? 0 : i + 1;
	}
	return 0;
}

/* VLAN commands are in the first descriptor of segmented packets, too, but drivers set
 * them alike in all. */
static void run_packet(struct e1000 *e, u32 n, u32 size)
{
	struct packet p = {.direct = e->direct};
	struct desc d = {.lower = CMD_EOP};
	u32 head = e1000_get(e, R_TDH), last_size;

	for (u32 i = 0; i < n; i++) {
		if (!read_desc(e, head, &d)) {
			p.bad = true;
			d = (struct desc){.lower = CMD_EOP};
		} else if (is_context(&d)) {
			set_context(e, &d);
		} else {
			if (i == 0 && d.lower & CMD_VLE && e1000_get(e, R_CTRL) & CTRL_VME) {
				p.vlan = true;
				p.tag = (u16)(d.upper >> 16);
			}
			add_data(e, &p, &d, i == 0);
			if (d.lower & CMD_EOP)
				finish(e, &p, &d);
		}
		write_back(e, head, &d);
		/* What was sent may have led to a reset of the ring. */
		last_size = e1000_ring_size(e, R_TDBAL);
		if (last_size != size)
			return;
		head = head + 1 >= size ? 0 : head + 1;
		e1000_put(e, R_TDH, head);
	}
}

void e1000_transmit(struct e1000 *e)
{
	u32 size = e1000_ring_size(e, R_TDBAL), left = TURN_FRAMES, n;
	bool direct = e->direct;

	lock_assert(&e->pd.dev.lock);
	if (!e->frame)
		e->frame = try_alloc(NET_FRAME_MAX);
	while (e->frame && size && !e->paused && e1000_get(e, R_TCTL) & TCTL_EN) {
		u32 head = e1000_get(e, R_TDH), tail = e1000_get(e, R_TDT);

		if (head >= size || tail >= size) {
			dev_guest_error(&e->pd.dev, "transmit ring %u..%u of %u", head, tail, size);
			return;
		}
		n = packet_length(e, head, tail, size);
		if (!n) {
			if (head == tail)
				e1000_cause(e, ICR_TXQE);
			return;
		}
		if (!left-- || direct != !!e->direct) {
			e1000_kick(e);
			return;
		}
		if (!direct && !net_can_send(&e->nic.end))
			return;
		run_packet(e, n, size);
	}
}
