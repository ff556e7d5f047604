/* Bus master IDE: command, status, table address; the walk of the descriptors.
 *
 * SFF-8038i revision 1.0, sections 2 and 3; Intel 82371SB (PIIX3), 2.3 and 2.5.
 * A descriptor is an address, a count (0: 64 KiB; both even) and in bit 31 the end
 * of the table, which wraps within its 64 KiB.
 * - Active and no interrupt: works or waits for the drive.  Neither: the table
 *   described less than the drive had; the drive waits for a new start.
 * - A table that points at no memory sets Error and stops.
 * - Command bit 3 (direction) is the drive's to know; a mismatch is not an error.
 * Thread: the device's lock. */
#include "devices/ide/bmdma.h"

#include "base/bytes.h"
#include "vmm/core/mem.h"

#include <errno.h>

enum bm_cmd { BM_START = 0x01, BM_TO_MEMORY = 0x08 };
enum bm_status {
	BM_ACTIVE = 0x01,
	BM_ERROR = 0x02,
	BM_IRQ = 0x04,
	BM_CAPABLE = 0x60, /* scratch: firmware notes which drives do DMA */
};

const struct state_field bmdma_state[] = {
	STATE(struct bmdma, cmd),   STATE(struct bmdma, status),
	STATE(struct bmdma, table), STATE(struct bmdma, at),
	STATE(struct bmdma, addr),  STATE(struct bmdma, len),
	STATE(struct bmdma, last),  STATE_END,
};

int bmdma_check(const struct bmdma *bm, struct error *err)
{
	if (bm->len > 0x10000)
		return err_set(err, -EINVAL, "descriptor has %u bytes left, expected up to 65536",
			       bm->len);
	if ((bm->table | bm->at) & 3 || bm->addr & 1)
		return err_set(err, -EINVAL,
			       "bus master table at 0x%x, walked to 0x%x, data at "
			       "0x%x: not aligned",
			       bm->table, bm->at, bm->addr);
	return 0;
}

/* Where the walk is. */
struct cursor {
	u32 at, addr, len;
	bool last;
};

void bmdma_reset(struct bmdma *bm)
{
	bm->cmd = bm->status = 0;
	bm->table = bm->at = bm->addr = bm->len = 0;
	bm->last = false;
}

u8 bmdma_read(struct bmdma *bm, unsigned reg)
{
	switch (reg) {
	case 0: return bm->cmd;
	case 2: return bm->status;
	case 4:
	case 5:
	case 6:
	case 7: return (u8)(bm->table >> 8 * (reg - 4));
	default: return 0;
	}
}

static void write_cmd(struct bmdma *bm, u8 value)
{
	bool was = bm->cmd & BM_START;

	bm->cmd = value & (BM_START | BM_TO_MEMORY);
	if (!was && bm->cmd & BM_START) {
		bm->at = bm->table;
		bm->len = 0;
		bm->last = false;
		bm->status |= BM_ACTIVE;
		ata_dma_started(bm->ch);
	} else if (was && !(bm->cmd & BM_START)) {
		bm->status &= (u8)~BM_ACTIVE;
		ata_dma_stopped(bm->ch);
	}
}

void bmdma_write(struct bmdma *bm, unsigned reg, u8 value)
{
	unsigned shift = 8 * (reg - 4);

	switch (reg) {
	case 0: write_cmd(bm, value); break;
	case 2:
		bm->status = (u8)((bm->status & ~BM_CAPABLE & ~(value & (BM_ERROR | BM_IRQ))) |
				  (value & BM_CAPABLE));
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		bm->table = (bm->table & ~(0xffu << shift)) | (u32)value << shift;
		bm->table &= ~3u;
		break;
	default: break;
	}
}

void bmdma_irq(struct bmdma *bm)
{
	bm->status |= BM_IRQ;
}

static s64 fault(struct bmdma *bm)
{
	bm->status = (u8)((bm->status | BM_ERROR) & ~BM_ACTIVE);
	return -EFAULT;
}

/* Fetch the next descriptor if the current one is used up: 0, -EAGAIN at the end. */
static int fetch(struct bmdma *bm, struct cursor *c)
{
	u8 raw[8];

	if (c->len)
		return 0;
	if (c->last)
		return -EAGAIN;
	if (mem_read(bm->mem, c->at, raw, sizeof(raw)) < 0)
		return -EFAULT;
	c->at = (c->at & 0xffff0000) | ((c->at + 8) & 0xffff);
	c->addr = load_le32(raw) & ~1u;
	c->len = load_le16(raw + 4) & ~1u;
	if (c->len == 0)
		c->len = 0x10000;
	c->last = raw[7] & 0x80;
	return 0;
}

static struct cursor cursor_of(const struct bmdma *bm)
{
	return (struct cursor){bm->at, bm->addr, bm->len, bm->last};
}

static void trim(struct ata_channel *ch, u32 bytes)
{
	while (bytes) {
		struct iovec *v = &ch->iov[ch->niov - 1];
		u32 cut = (u32)MIN((size_t)bytes, v->iov_len);

		v->iov_len -= cut;
		bytes -= cut;
		if (v->iov_len == 0)
			ch->niov--;
	}
}

s64 bmdma_map(struct bmdma *bm, bool to_memory, u32 max, u32 unit)
{
	struct mem_iov to = {.iov = bm->ch->iov, .room = ATA_IOVECS};
	struct cursor c = cursor_of(bm);
	u32 total = 0;
	int ret = 0;

	bm->ch->niov = 0;
	if (!(bm->cmd & BM_START) || !(bm->status & BM_ACTIVE))
		return -EAGAIN;
	while (total < max) {
		u32 n, n_before = to.n;

		ret = fetch(bm, &c);
		if (ret < 0)
			break;
		n = MIN(c.len, max - total);
		ret = mem_map_iov(bm->mem, c.addr, n, to_memory, &to);
		if (ret < 0) {
			to.n = n_before;
			break;
		}
		c.addr += n;
		c.len -= n;
		total += n;
	}
	bm->ch->niov = to.n;
	if (ret == -EFAULT)
		return fault(bm);
	trim(bm->ch, total % unit);
	total -= total % unit;
	if (total == 0) { /* the rest of the table is of no use */
		bm->status &= (u8)~BM_ACTIVE;
		return -EAGAIN;
	}
	return total;
}

void bmdma_moved(struct bmdma *bm, bool to_memory, u32 bytes)
{
	struct cursor c = cursor_of(bm);
	u64 mapped = 0;

	for (unsigned i = 0; i < bm->ch->niov; i++)
		mapped += bm->ch->iov[i].iov_len;
	if (to_memory)
		mem_mark_dirty_iov(bm->mem, bm->ch->iov, bm->ch->niov, mapped);
	/* The guest may have rewritten the table meanwhile: walk what is there now. */
	while (bytes) {
		u32 n;

		if (fetch(bm, &c) < 0) {
			bm->status &= (u8)~BM_ACTIVE;
			break;
		}
		n = MIN(c.len, bytes);
		c.addr += n;
		c.len -= n;
		bytes -= n;
	}
	bm->at = c.at;
	bm->addr = c.addr;
	bm->len = c.len;
	bm->last = c.last;
	if (c.last && c.len == 0)
		bm->status &= (u8)~BM_ACTIVE;
}
