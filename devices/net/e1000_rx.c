/* e1000's receive ring: Software Developer's Manual, sections 3.2 (descriptors, filters),
 * 9.2 (VLAN), 13.5 (multicast table).
 *
 * Thread: main.  dev.lock is taken here unless this thread holds it (a frame of ours that
 * came back).  The CRC that drivers cut off is not computed: zeros stand for it. */
#include "devices/net/e1000_int.h"

#include "base/bytes.h"
#include "devices/net/checksum.h"

#define MIN_FRAME   60
#define MAX_FRAME   1518 /* without CRC, with a VLAN tag */
#define MAX_LONG    16380
#define CRC_BYTES   4
#define RX_MACS	    16
#define VFTA_IDS    4096
#define RAH_VALID   0x80000000u
#define STATUS_DD   0x01
#define STATUS_EOP  0x02
#define STATUS_IXSM 0x04
#define STATUS_VP   0x08

static struct e1000 *e1000_of(struct net_end *end)
{
	return container_of(end, struct e1000, nic.end);
}

/* --- filters ----------------------------------------------------------------------------- */

static bool is_ours(const struct e1000 *e, const u8 *addr)
{
	u32 low = load_le32(addr), high = load_le16(addr + 4);

	for (unsigned i = 0; i < RX_MACS; i++) {
		u32 rah = e1000_get(e, R_RAH + 8 * i);

		if (rah & RAH_VALID && e1000_get(e, R_RAL + 8 * i) == low && (rah & 0xffff) == high)
			return true;
	}
	return false;
}

/* Twelve bits of the address's end, chosen by MO, pick a bit of the table. */
static bool in_multicast_table(const struct e1000 *e, const u8 *addr)
{
	static const u8 shifts[] = {4, 3, 2, 0};
	u32 shift = shifts[e1000_get(e, R_RCTL) >> 12 & 3];
	u32 hash = ((u32)addr[5] << 8 | addr[4]) >> shift & 0xfff;

	return e1000_get(e, R_MTA + 4 * (hash >> 5)) >> (hash & 31) & 1;
}

static bool passes_vlan(const struct e1000 *e, const u8 *start)
{
	u32 id = load_be16(start + 14) & (VFTA_IDS - 1);

	if (!(e1000_get(e, R_RCTL) & RCTL_VFE) || load_be16(start + 12) != e1000_get(e, R_VET))
		return true;
	return e1000_get(e, R_VFTA + 4 * (id >> 5)) >> (id & 31) & 1;
}

static bool wants(const struct e1000 *e, const u8 *start)
{
	u32 rctl = e1000_get(e, R_RCTL);

	if (!passes_vlan(e, start))
		return false;
	if (eth_is_broadcast(start))
		return rctl & (RCTL_BAM | RCTL_MPE) || is_ours(e, start);
	if (eth_is_group(start))
		return rctl & RCTL_MPE || is_ours(e, start) || in_multicast_table(e, start);
	return rctl & RCTL_UPE || is_ours(e, start);
}

/* --- the ring ------------------------------------------------------------------------------ */

static u32 buffer_bytes(const struct e1000 *e)
{
	u32 rctl = e1000_get(e, R_RCTL), bytes = 2048u >> (rctl >> 16 & 3);

	/* With BSEX sixteen times as long, but for 2048, which is reserved. */
	return rctl & RCTL_BSEX && rctl >> 16 & 3 ? bytes * 16 : bytes;
}

static u32 free_buffers(const struct e1000 *e)
{
	u32 size = e1000_ring_size(e, R_RDBAL), head = e1000_get(e, R_RDH);
	u32 tail = e1000_get(e, R_RDT);

	if (!size || head >= size || tail >= size)
		return 0;
	return (tail + size - head) % size;
}

/* With all of the ring: one buffer stays empty between head and tail. */
static bool could_have_room(const struct e1000 *e, u32 bytes)
{
	u32 size = e1000_ring_size(e, R_RDBAL);

	return size && (u64)(size - 1) * buffer_bytes(e) >= bytes;
}

static bool has_room(const struct e1000 *e, u32 bytes)
{
	return (u64)free_buffers(e) * buffer_bytes(e) >= bytes;
}

/* Padding and CRC are zeros behind the frame. */
static void store_piece(struct e1000 *e, const struct net_frame *f, u64 addr, u32 at, u32 bytes)
{
	u8 piece[2048];

	while (bytes) {
		u32 n = MIN(bytes, (u32)sizeof(piece)), real = at < f->bytes ? f->bytes - at : 0;

		real = MIN(real, n);
		net_frame_copy(f, at, piece, real);
		memset(piece + real, 0, n - real);
		mem_write(e->pd.dev.machine->mem, addr, piece, n);
		addr += n;
		at += n;
		bytes -= n;
	}
}

struct tagged {
	bool stripped;
	u16 tag;
};

static bool fill_buffer(struct e1000 *e, const struct net_frame *f, u32 at, u32 bytes,
			const struct tagged *t)
{
	u32 size = e1000_ring_size(e, R_RDBAL), head = e1000_get(e, R_RDH);
	u32 n = MIN(bytes - at, buffer_bytes(e));
	u64 desc = e1000_ring(e, R_RDBAL) + (u64)head * E1000_DESC_BYTES;
	u8 raw[E1000_DESC_BYTES];

	if (mem_read(e->pd.dev.machine->mem, desc, raw, sizeof(raw)) < 0)
		return false;
	store_piece(e, f, load_le64(raw), at, n);
	store_le16(raw + 8, (u16)n);
	store_le16(raw + 10, 0);
	raw[12] = STATUS_DD | STATUS_IXSM;
	if (at + n == bytes)
		raw[12] |= STATUS_EOP;
	if (t->stripped)
		raw[12] |= STATUS_VP;
	raw[13] = 0;
	store_le16(raw + 14, t->stripped ? t->tag : 0);
	/* The status last: it is what the driver looks at. */
	mem_write(e->pd.dev.machine->mem, desc + 8, raw + 8, 4);
	mem_write(e->pd.dev.machine->mem, desc + 13, raw + 13, 3);
	mem_write(e->pd.dev.machine->mem, desc + 12, raw + 12, 1);
	e1000_put(e, R_RDH, head + 1 >= size ? 0 : head + 1);
	return true;
}

static void count_frame(struct e1000 *e, const u8 *start, u32 bytes)
{
	e1000_count(e, R_TPR);
	e1000_count(e, R_GPRC);
	e1000_count64(e, R_TORL, bytes);
	e1000_count64(e, R_GORCL, bytes);
	if (eth_is_broadcast(start))
		e1000_count(e, R_BPRC);
	else if (eth_is_group(start))
		e1000_count(e, R_MPRC);
}

/* Few buffers are left: section 13.4.22, RDMTS. */
static bool is_low(const struct e1000 *e)
{
	u32 size = e1000_ring_size(e, R_RDBAL), shift = (e1000_get(e, R_RCTL) >> 8 & 3) + 1;

	return shift <= 3 && free_buffers(e) <= size >> shift;
}

/* --- one frame ------------------------------------------------------------------------------- */

static bool too_long(const struct e1000 *e, u32 bytes)
{
	return bytes > (e1000_get(e, R_RCTL) & RCTL_LPE ? MAX_LONG : MAX_FRAME);
}

static void deliver(struct e1000 *e, const struct net_frame *f, const struct tagged *t)
{
	u32 bytes = MAX(f->bytes, (u32)MIN_FRAME), causes = ICR_RXT0;

	if (!(e1000_get(e, R_RCTL) & RCTL_SECRC))
		bytes += CRC_BYTES;
	for (u32 at = 0; at < bytes; at += buffer_bytes(e))
		if (!fill_buffer(e, f, at, bytes, t)) {
			dev_guest_error(&e->pd.dev, "receive ring that is not in memory");
			return;
		}
	if (is_low(e))
		causes |= ICR_RXDMT0;
	e1000_cause(e, causes);
}

/* Without its VLAN tag, as a frame in three pieces at most. */
static void strip_and_deliver(struct e1000 *e, const struct net_frame *f, const u8 *start)
{
	struct tagged t = {.stripped = e1000_get(e, R_CTRL) & CTRL_VME && f->bytes >= 18 &&
				       load_be16(start + 12) == e1000_get(e, R_VET),
			   .tag = load_be16(start + 14)};
	AUTO_FREE u8 *data = NULL;
	struct iovec iov;
	struct net_frame plain = {.iov = &iov, .n = 1, .bytes = f->bytes - ETH_VLAN_BYTES};

	if (!t.stripped) {
		deliver(e, f, &t);
		return;
	}
	data = try_alloc(f->bytes);
	if (!data)
		return;
	net_frame_copy(f, 0, data, 12);
	net_frame_copy(f, 16, data + 12, f->bytes - 16);
	iov = (struct iovec){data, plain.bytes};
	deliver(e, &plain, &t);
}

static bool receive_locked(struct e1000 *e, const struct net_frame *f)
{
	u32 room = MAX(f->bytes, (u32)MIN_FRAME) + CRC_BYTES;
	u8 start[18] = {0};

	lock_assert(&e->pd.dev.lock);
	if (e->paused)
		return false;
	if (!(e1000_get(e, R_RCTL) & RCTL_EN) || !pci_bus_master(&e->pd))
		return true;
	net_frame_copy(f, 0, start, MIN(f->bytes, (u32)sizeof(start)));
	if (!wants(e, start))
		return true;
	if (too_long(e, f->bytes)) {
		e1000_count(e, R_ROC);
		return true;
	}
	if (!has_room(e, room)) {
		e1000_count(e, R_MPC);
		e1000_cause(e, ICR_RXO);
		return !could_have_room(e, room);
	}
	count_frame(e, start, f->bytes + CRC_BYTES);
	strip_and_deliver(e, f, start);
	return true;
}

bool e1000_receive(struct net_end *end, const struct net_frame *f)
{
	struct e1000 *e = e1000_of(end);
	bool nested = mutex_held(&e->pd.dev.lock), taken;

	if (!nested)
		mutex_lock(&e->pd.dev.lock);
	taken = receive_locked(e, f);
	if (!nested)
		mutex_unlock(&e->pd.dev.lock);
	return taken;
}

/* A card that is switched off takes everything, into nothing. */
bool e1000_can_receive(struct net_end *end)
{
	struct e1000 *e = e1000_of(end);
	bool nested = mutex_held(&e->pd.dev.lock), can;

	if (!nested)
		mutex_lock(&e->pd.dev.lock);
	can = !e->paused && (!(e1000_get(e, R_RCTL) & RCTL_EN) || free_buffers(e) ||
			     !e1000_ring_size(e, R_RDBAL));
	if (!nested)
		mutex_unlock(&e->pd.dev.lock);
	return can;
}
