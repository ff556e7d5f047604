/* The legacy window A0000-BFFFF onto video memory.
 *
 * IBM VGA XGA Technical Reference, chapter 2 (sequencer memory mode, graphics mode,
 * read map select, latches, write modes 0-3, read modes 0-1).  The four planes of
 * 64 KiB lie interleaved: byte n of plane p is vram[4 * n + p].  Chain-4 and
 * odd/even take plane and offset from the address as the chip does: the low bits
 * that select the plane are zero in the offset.
 * While the Bochs extension is on, the first 64 KiB are a bank of linear memory.
 * Thread: any vCPU with the device's lock. */
#include "devices/vga/vga_int.h"

#define BANK_BYTES 0x10000u

void vga_mark_dirty(struct vga *v, u32 at, u32 bytes)
{
	struct iovec iov = {.iov_base = v->vram + at, .iov_len = bytes};

	mem_mark_dirty_iov(v->pci.dev.machine->mem, &iov, 1, bytes);
}

/* Offset in the part of the window that the memory map selects; false: not there. */
static bool window_offset(const struct vga *v, u32 *addr)
{
	static const struct {
		u32 start, bytes;
	} maps[4] = {{0, 0x20000}, {0, 0x10000}, {0x10000, 0x8000}, {0x18000, 0x8000}};
	unsigned map = v->gr[GR_MISC] >> 2 & 3;

	if (*addr < maps[map].start || *addr - maps[map].start >= maps[map].bytes)
		return false;
	*addr -= maps[map].start;
	return true;
}

static bool linear_offset(const struct vga *v, u32 *addr)
{
	if (*addr >= BANK_BYTES)
		return false;
	*addr += v->dispi[DISPI_BANK] * BANK_BYTES;
	return *addr < v->vram_bytes;
}

/* The extension's modes of four bits have larger planes, and a bank in the window. */
static u8 *planes_at(struct vga *v, u32 offset)
{
	u32 bank = v->dispi[DISPI_BANK] % (v->vram_bytes / 4 / VGA_PLANE_BYTES);

	return v->vram + 4 * (bank * VGA_PLANE_BYTES + offset % VGA_PLANE_BYTES);
}

/* A nibble with a bit for each plane as a mask of whole bytes. */
static u32 spread(u8 planes)
{
	u32 mask = 0;

	for (unsigned p = 0; p < 4; p++)
		mask |= planes & 1u << p ? 0xffu << 8 * p : 0;
	return mask;
}

/* --- reading -------------------------------------------------------------------- */

static u32 load_planes(const u8 *at)
{
	return at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24;
}

/* Read mode 1: a bit is set where all planes cared for have the compared colour. */
static u8 compare(const struct vga *v)
{
	u32 differs = (v->latch ^ spread(v->gr[GR_COLOR_COMPARE])) & spread(v->gr[GR_COLOR_CARE]);

	return (u8) ~(differs | differs >> 8 | differs >> 16 | differs >> 24);
}

static u8 read_byte(struct vga *v, u32 addr)
{
	unsigned plane = v->gr[GR_READ_MAP];
	u32 offset = addr;

	if (vga_is_linear(v))
		return linear_offset(v, &addr) ? v->vram[addr] : 0xff;
	if (!window_offset(v, &addr))
		return 0xff;
	offset = addr;
	if (v->seq[SEQ_MEMORY_MODE] & SEQ_CHAIN_4) {
		plane = addr & 3;
		offset = addr & ~3u;
	} else if (v->gr[GR_MODE] & 0x10) {
		plane = (plane & 2) | (addr & 1);
		offset = addr & ~1u;
	}
	v->latch = load_planes(planes_at(v, offset));
	if (v->gr[GR_MODE] & 0x08 && !(v->seq[SEQ_MEMORY_MODE] & SEQ_CHAIN_4))
		return compare(v);
	return (u8)(v->latch >> 8 * plane);
}

/* --- writing -------------------------------------------------------------------- */

static u32 all_planes(u8 value)
{
	return value * 0x01010101u;
}

static u8 rotate(const struct vga *v, u8 value)
{
	unsigned n = v->gr[GR_ROTATE] & 7;

	return (u8)(value >> n | value << (8 - n));
}

static u32 with_latch(const struct vga *v, u32 value)
{
	switch (v->gr[GR_ROTATE] >> 3 & 3) {
	case 1: return value & v->latch;
	case 2: return value | v->latch;
	case 3: return value ^ v->latch;
	default: return value;
	}
}

/* What the planes get, before the map mask. */
static u32 written(const struct vga *v, u8 value)
{
	u32 set_reset = spread(v->gr[GR_SET_RESET]), enable = spread(v->gr[GR_ENABLE_SET_RESET]);
	u32 bits = all_planes(v->gr[GR_BIT_MASK]), new;

	switch (v->gr[GR_MODE] & 3) {
	case 1: return v->latch;
	case 0: new = (all_planes(rotate(v, value)) & ~enable) | (set_reset & enable); break;
	case 2: new = spread(value & 0x0f); break;
	default: /* 3: the rotated value is a further bit mask for set/reset */
		bits &= all_planes(rotate(v, value));
		new = set_reset;
	}
	return (with_latch(v, new) & bits) | (v->latch & ~bits);
}

static void store_planes(struct vga *v, u32 offset, u8 planes, u32 value)
{
	u8 *at = planes_at(v, offset);

	for (unsigned p = 0; p < 4; p++) {
		if (planes & 1u << p)
			at[p] = (u8)(value >> 8 * p);
	}
	if (planes)
		vga_mark_dirty(v, (u32)(at - v->vram), 4);
}

static void write_byte(struct vga *v, u32 addr, u8 value)
{
	u8 planes = v->seq[SEQ_MAP_MASK];

	if (vga_is_linear(v)) {
		if (!linear_offset(v, &addr))
			return;
		v->vram[addr] = value;
		vga_mark_dirty(v, addr, 1);
		return;
	}
	if (!window_offset(v, &addr))
		return;
	if (v->seq[SEQ_MEMORY_MODE] & SEQ_CHAIN_4) {
		store_planes(v, addr & ~3u, planes & 1u << (addr & 3), all_planes(value));
		return;
	}
	if (!(v->seq[SEQ_MEMORY_MODE] & SEQ_NO_ODD_EVEN)) {
		planes &= addr & 1 ? 0x0a : 0x05;
		addr &= ~1u;
	}
	store_planes(v, addr, planes, written(v, value));
}

/* --- the region ------------------------------------------------------------------- */

static u64 window_read(void *owner, u64 off, unsigned size)
{
	struct vga *v = vga_of(owner);
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)read_byte(v, (u32)off + i) << 8 * i;
	return value;
}

static void window_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct vga *v = vga_of(owner);

	for (unsigned i = 0; i < size; i++)
		write_byte(v, (u32)off + i, (u8)(value >> 8 * i));
}

const struct bus_ops vga_window_ops = {window_read, window_write, 1, 8};
