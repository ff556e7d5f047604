/* ATA data movement: DRQ blocks, the steps between them, requests to the drive.
 *
 * ATA/ATAPI-6 clause 9.5-9.7 (PIO in, PIO out, DMA).  PIO reads fetch up to 64 KiB
 * at once and hand out DRQ blocks from the buffer; PIO writes are gathered the
 * same way.  An error is reported with the first address of its request: all
 * sectors before it have been moved.  DMA goes between guest memory and blk
 * directly, as much at a time as 256 vectors hold.
 *
 * A request that a reset or a stopped bus master makes void runs to its end and
 * its completion is dropped; until then the drive stays busy.
 *
 * Threads: the channel's lock; io_done takes it on the blk's loop thread. */
#include "devices/ide/ata_int.h"

#include "base/bytes.h"
#include "base/log.h"

#include <errno.h>

bool ata_op_is_dma(u8 op)
{
	return op == ATA_OP_DMA_READ || op == ATA_OP_DMA_WRITE || op == ATA_OP_TRIM_DMA ||
	       op == ATA_OP_CD_DMA_BUF || op == ATA_OP_CD_DMA_READ;
}

static bool dma_to_memory(u8 op)
{
	return op != ATA_OP_DMA_WRITE && op != ATA_OP_TRIM_DMA;
}

static bool is_direct_dma(u8 op)
{
	return op == ATA_OP_DMA_READ || op == ATA_OP_DMA_WRITE || op == ATA_OP_CD_DMA_READ;
}

/* --- requests ----------------------------------------------------------------- */

static void io_moved(struct ata_channel *ch);

static void io_failed(struct ata_channel *ch, int ret)
{
	struct ata_drive *d = ata_active(ch);

	TRACE(TRACE_IDE, "%s: unit %u: op %u at %llu: %d", ch->id, ch->active, ch->op,
	      (unsigned long long)ch->lba, ret);
	switch (ch->op) {
	case ATA_OP_CD_READ:
	case ATA_OP_CD_DMA_READ:
		atapi_check(ch, 0x03, 0x11, 0x00); /* medium error, unrecovered read error */
		return;
	case ATA_OP_FLUSH:
	case ATA_OP_TRIM: ata_fail(ch, ATA_ABRT); return;
	}
	ata_set_address(d, ch->addressing, ch->lba);
	d->reg[REG_COUNT] = (u8)ch->left;
	d->hob[REG_COUNT] = (u8)(ch->left >> 8);
	if (ch->op == ATA_OP_WRITE || ch->op == ATA_OP_DMA_WRITE)
		ata_fail(ch, ATA_ABRT);
	else
		ata_fail(ch, ATA_UNC);
}

/* As the drive is told to: go on as if nothing had happened, or stop the machine with
 * the step still to be taken; else the host hears of it. */
static void io_error(struct ata_channel *ch, enum blk_op op, int ret)
{
	struct ata_drive *d = ata_active(ch);

	switch (blk_on_error(d->blk, op, ret)) {
	case BLK_IGNORE:
		if (is_direct_dma(ch->op))
			ch->ops->dma_moved(ch, op == BLK_READ, ch->io_sectors * ATA_SECTOR);
		io_moved(ch);
		return;
	case BLK_STOP:
		if (ch->op == ATA_OP_TRIM)
			ch->buf_at -= 8;
		ch->kept = true;
		ch->ops->io_error(ch);
		return;
	case BLK_REPORT: io_failed(ch, ret);
	}
}

static void io_over(struct ata_channel *ch, const struct blk_req *req, int ret)
{
	assert(ch->in_flight);
	ch->in_flight = false;
	if (is_direct_dma(ch->op) || ch->dropped) {
		bool counts = ret == 0 && !ch->dropped;

		/* Even a dropped or failed read may have written there. */
		if (req->op == BLK_READ && ch->niov)
			ch->ops->dma_moved(ch, true, counts ? ch->io_sectors * ATA_SECTOR : 0);
		else if (counts)
			ch->ops->dma_moved(ch, false, ch->io_sectors * ATA_SECTOR);
	}
	if (ch->dropped) {
		ch->dropped = false;
		ata_run(ch);
	} else if (ret < 0) {
		io_error(ch, req->op, ret);
	} else {
		io_moved(ch);
	}
	cond_broadcast(&ch->idle);
}

/* Called within blk_submit when the drive could not even start: locked already. */
static void io_done(struct blk_req *req, int ret)
{
	struct ata_channel *ch = container_of(req, struct ata_channel, req);
	bool held = mutex_held(ch->lock);

	if (!held)
		mutex_lock(ch->lock);
	io_over(ch, req, ret);
	if (!held)
		mutex_unlock(ch->lock);
}

static void submit(struct ata_channel *ch, enum blk_op op, const struct iovec *iov, unsigned niov)
{
	assert(!ch->in_flight && !ch->paused);
	ch->in_flight = true;
	ch->req.op = op;
	ch->req.flags = op == BLK_WRITE && ch->fua ? BLK_FUA : 0;
	ch->req.goff = ch->lba * ATA_SECTOR;
	ch->req.iov = iov;
	ch->req.niov = niov;
	ch->req.bytes = (u64)ch->io_sectors * ATA_SECTOR;
	ch->req.done = io_done;
	blk_submit(ata_active(ch)->blk, &ch->req);
}

/* Between the buffer and the drive. */
static void submit_buf(struct ata_channel *ch, enum blk_op op, u32 sectors)
{
	assert(sectors && sectors <= ATA_BUF_SECTORS);
	ch->io_sectors = sectors;
	ch->niov = 0; /* not guest memory */
	ch->iov[0] = (struct iovec){.iov_base = ch->buf, .iov_len = sectors * ATA_SECTOR};
	submit(ch, op, ch->iov, 1);
}

static void submit_dma(struct ata_channel *ch)
{
	u32 max = MIN(ch->left, 65536u) * ATA_SECTOR;
	s64 bytes = ch->ops->dma_map(ch, dma_to_memory(ch->op), max, ATA_SECTOR);

	if (bytes == -EAGAIN)
		return; /* until the bus master starts */
	if (bytes < 0) {
		if (ch->op == ATA_OP_CD_DMA_READ)
			atapi_check(ch, 0x0b, 0x4b, 0x00); /* aborted, data phase error */
		else
			ata_fail(ch, ATA_ABRT);
		return;
	}
	assert(bytes > 0 && is_aligned((u64)bytes, ATA_SECTOR));
	ch->io_sectors = (u32)bytes / ATA_SECTOR;
	submit(ch, ch->op == ATA_OP_DMA_WRITE ? BLK_WRITE : BLK_READ, ch->iov, ch->niov);
}

/* The rest of the buffer, to or from guest memory: true when all of it went. */
static bool dma_buf(struct ata_channel *ch, bool to_memory)
{
	while (ch->buf_at < ch->buf_end) {
		s64 bytes = ch->ops->dma_map(ch, to_memory, ch->buf_end - ch->buf_at, 1);

		if (bytes == -EAGAIN)
			return false;
		if (bytes < 0) {
			if (to_memory)
				atapi_check(ch, 0x0b, 0x4b, 0x00);
			else
				ata_fail(ch, ATA_ABRT);
			return false;
		}
		for (unsigned i = 0; i < ch->niov; i++) {
			struct iovec *v = &ch->iov[i];

			if (to_memory)
				memcpy(v->iov_base, ch->buf + ch->buf_at, v->iov_len);
			else
				memcpy(ch->buf + ch->buf_at, v->iov_base, v->iov_len);
			ch->buf_at += (u32)v->iov_len;
		}
		ch->ops->dma_moved(ch, to_memory, (u32)bytes);
	}
	return true;
}

/* --- TRIM: entries of 48 bits of address, 16 bits of count --------------------- */

static void trim_next(struct ata_channel *ch)
{
	u64 total = ata_sectors(ata_active(ch));

	for (; ch->buf_at < ch->buf_end; ch->buf_at += 8) {
		u64 entry = load_le64(ch->buf + ch->buf_at);
		u64 lba = entry & 0xffffffffffffull, count = entry >> 48;

		if (count == 0)
			continue;
		if (lba + count > total) {
			ata_fail(ch, ATA_IDNF | ATA_ABRT);
			return;
		}
		ch->lba = lba;
		ch->io_sectors = (u32)count;
		ch->niov = 0;
		ch->buf_at += 8;
		submit(ch, BLK_DISCARD, NULL, 0);
		return;
	}
	ata_finish(ch, true);
}

/* --- steps -------------------------------------------------------------------- */

void ata_run(struct ata_channel *ch)
{
	lock_assert(ch->lock);
	if (ch->op == ATA_OP_RESET)
		ata_try_end_reset(ch); /* even when paused: starts nothing */
	if (ch->in_flight || ch->paused || ch->kept || ch->op == ATA_OP_NONE ||
	    ch->op == ATA_OP_RESET)
		return;
	if (!(ata_active(ch)->status & ATA_BSY))
		return; /* the host's turn */
	switch (ch->op) {
	case ATA_OP_READ:
	case ATA_OP_VERIFY:
	case ATA_OP_CD_READ: submit_buf(ch, BLK_READ, MIN(ch->left, ATA_BUF_SECTORS)); break;
	case ATA_OP_WRITE: submit_buf(ch, BLK_WRITE, ch->buf_end / ATA_SECTOR); break;
	case ATA_OP_FLUSH:
		ch->io_sectors = ch->niov = 0;
		submit(ch, BLK_FLUSH, NULL, 0);
		break;
	case ATA_OP_DMA_READ:
	case ATA_OP_DMA_WRITE:
	case ATA_OP_CD_DMA_READ: submit_dma(ch); break;
	case ATA_OP_TRIM_DMA:
		if (!dma_buf(ch, false))
			break;
		ch->op = ATA_OP_TRIM;
		ch->buf_at = 0;
		trim_next(ch);
		break;
	case ATA_OP_TRIM: trim_next(ch); break;
	case ATA_OP_CD_DMA_BUF:
		if (dma_buf(ch, true))
			atapi_good(ch);
		break;
	default: break;
	}
}

void ata_start(struct ata_channel *ch, u8 op)
{
	ch->op = op;
	ata_active(ch)->status = ATA_DRDY | ATA_BSY;
	ata_run(ch);
}

static void next_block(struct ata_channel *ch, bool irq)
{
	ch->drq_end = MIN(ch->buf_at + ch->block, ch->buf_end);
	ata_active(ch)->status = ATA_READY | ATA_DRQ;
	if (irq)
		ata_raise_irq(ch);
}

void ata_start_buf_in(struct ata_channel *ch, u32 bytes)
{
	ch->op = ATA_OP_BUF_IN;
	ch->block = bytes;
	ch->buf_at = 0;
	ch->buf_end = bytes;
	next_block(ch, true);
}

/* The first block of a PIO write is asked for without an interrupt. */
void ata_start_write(struct ata_channel *ch)
{
	ch->op = ATA_OP_WRITE;
	ch->buf_at = 0;
	ch->buf_end = MIN(ch->left, ATA_BUF_SECTORS) * ATA_SECTOR;
	next_block(ch, false);
}

void ata_start_packet(struct ata_channel *ch)
{
	ch->op = ATA_OP_PACKET;
	ch->block = 12;
	ch->buf_at = 0;
	ch->buf_end = 12;
	next_block(ch, false);
}

/* All sectors are through: the registers name the last one. */
static void end_transfer(struct ata_channel *ch, bool irq)
{
	struct ata_drive *d = ata_active(ch);

	ata_set_address(d, ch->addressing, ch->lba ? ch->lba - 1 : 0);
	d->reg[REG_COUNT] = d->hob[REG_COUNT] = 0;
	ata_finish(ch, irq);
}

static void io_moved(struct ata_channel *ch)
{
	bool counted = ch->op != ATA_OP_TRIM && ch->op != ATA_OP_FLUSH;

	if (counted) {
		assert(ch->io_sectors <= ch->left);
		ch->lba += ch->io_sectors;
		ch->left -= ch->io_sectors;
	}
	switch (ch->op) {
	case ATA_OP_READ:
	case ATA_OP_CD_READ:
		ch->buf_at = 0;
		ch->buf_end = ch->io_sectors * ATA_SECTOR;
		if (ch->op == ATA_OP_READ)
			next_block(ch, true);
		else
			atapi_next_block(ch);
		break;
	case ATA_OP_WRITE:
		if (ch->left == 0) {
			end_transfer(ch, true);
			break;
		}
		ata_start_write(ch);
		ata_raise_irq(ch);
		break;
	case ATA_OP_FLUSH: ata_finish(ch, true); break;
	case ATA_OP_TRIM: ata_run(ch); break;
	default:
		if (ch->left)
			ata_run(ch);
		else if (ch->op == ATA_OP_CD_DMA_READ)
			atapi_good(ch);
		else
			end_transfer(ch, true);
	}
}

/* --- data port ------------------------------------------------------------------ */

/* The host has moved a DRQ block. */
static void block_through(struct ata_channel *ch)
{
	bool more = ch->buf_at < ch->buf_end;

	switch (ch->op) {
	case ATA_OP_BUF_IN: ata_finish(ch, false); break;
	case ATA_OP_READ:
		if (more)
			next_block(ch, true);
		else if (ch->left)
			ata_start(ch, ATA_OP_READ);
		else
			end_transfer(ch, false);
		break;
	case ATA_OP_WRITE:
		if (more)
			next_block(ch, true);
		else
			ata_start(ch, ATA_OP_WRITE);
		break;
	case ATA_OP_PACKET: atapi_packet(ch, ata_active(ch)); break;
	case ATA_OP_CD_BUF:
	case ATA_OP_CD_READ:
		if (more)
			atapi_next_block(ch);
		else if (ch->op == ATA_OP_CD_READ && ch->left)
			ata_start(ch, ATA_OP_CD_READ);
		else
			atapi_good(ch);
		break;
	}
}

static bool host_may_move(const struct ata_channel *ch, bool to_host)
{
	bool out = ch->op == ATA_OP_WRITE || ch->op == ATA_OP_PACKET;

	if (ch->op == ATA_OP_NONE || ch->op == ATA_OP_RESET || ch->selected != ch->active)
		return false;
	return ch->drives[ch->active]->status & ATA_DRQ && out != to_host;
}

/* An access across the end of a block gets what is there. */
u32 ata_data_read(struct ata_channel *ch, unsigned size)
{
	u32 value = 0, bytes;

	if (!host_may_move(ch, true))
		return UINT32_MAX;
	bytes = MIN((u32)size, ch->drq_end - ch->buf_at);
	memcpy(&value, ch->buf + ch->buf_at, bytes);
	ch->buf_at += bytes;
	if (ch->buf_at == ch->drq_end)
		block_through(ch);
	return le32toh(value);
}

void ata_data_write(struct ata_channel *ch, unsigned size, u32 value)
{
	u32 le = htole32(value), bytes;

	if (!host_may_move(ch, false))
		return;
	bytes = MIN((u32)size, ch->drq_end - ch->buf_at);
	memcpy(ch->buf + ch->buf_at, &le, bytes);
	ch->buf_at += bytes;
	if (ch->buf_at == ch->drq_end)
		block_through(ch);
}

void ata_dma_started(struct ata_channel *ch)
{
	ata_run(ch);
}

/* What is in flight does not count any more; the drive waits for another start. */
void ata_dma_stopped(struct ata_channel *ch)
{
	if (ch->in_flight && ata_op_is_dma(ch->op))
		ch->dropped = true;
}
