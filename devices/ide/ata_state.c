/* ATA: what is saved of drives and channels, and what a saved state may say. */
#include "devices/ide/ata_int.h"

#include "base/log.h"

#include <errno.h>

const struct state_field ata_drive_state[] = {
	STATE(struct ata_drive, status),      STATE(struct ata_drive, error),
	STATE_ARRAY(struct ata_drive, reg),   STATE_ARRAY(struct ata_drive, hob),
	STATE(struct ata_drive, intrq),	      STATE(struct ata_drive, cur_cylinders),
	STATE(struct ata_drive, cur_heads),   STATE(struct ata_drive, cur_spt),
	STATE(struct ata_drive, multiple),    STATE(struct ata_drive, transfer_mode),
	STATE(struct ata_drive, write_cache), STATE(struct ata_drive, look_ahead),
	STATE(struct ata_drive, smart),	      STATE(struct ata_drive, power),
	STATE(struct ata_drive, sense_key),   STATE(struct ata_drive, asc),
	STATE(struct ata_drive, ascq),	      STATE(struct ata_drive, attention),
	STATE(struct ata_drive, media_event), STATE(struct ata_drive, tray_open),
	STATE(struct ata_drive, locked),      STATE_END,
};

const struct state_field ata_channel_state[] = {
	STATE(struct ata_channel, control),
	STATE(struct ata_channel, selected),
	STATE(struct ata_channel, active),
	STATE(struct ata_channel, op),
	STATE(struct ata_channel, addressing),
	STATE(struct ata_channel, fua),
	STATE(struct ata_channel, reset_mask),
	STATE(struct ata_channel, lba),
	STATE(struct ata_channel, left),
	STATE(struct ata_channel, block),
	STATE(struct ata_channel, buf_at),
	STATE(struct ata_channel, drq_end),
	STATE(struct ata_channel, buf_end),
	STATE_ARRAY(struct ata_channel, buf),
	STATE_END,
};

int ata_drive_check(const struct ata_drive *d, struct error *err)
{
	if (d->cur_heads < 1 || d->cur_heads > 16 || d->cur_spt < 1)
		return err_set(err, -EINVAL,
			       "translation is %u heads, %u sectors, expected 1..16 "
			       "and 1..255",
			       d->cur_heads, d->cur_spt);
	if (d->multiple > ATA_MULTIPLE || (d->multiple && !is_pow2(d->multiple)))
		return err_set(err, -EINVAL, "multiple is %u, expected a power of two up to %u",
			       d->multiple, ATA_MULTIPLE);
	if (d->power > ATA_SLEEPING)
		return err_set(err, -EINVAL, "power is %u, expected 0..%u", d->power, ATA_SLEEPING);
	if (d->sense_key > 0x0f || d->media_event > 3)
		return err_set(err, -EINVAL,
			       "sense key is %u, media event %u, expected 0..15 "
			       "and 0..3",
			       d->sense_key, d->media_event);
	return 0;
}

static int check_buffer(const struct ata_channel *c, struct error *err)
{
	if (c->buf_end > ATA_BUF_BYTES || c->drq_end > ATA_BUF_BYTES || c->buf_at > c->buf_end)
		return err_set(err, -EINVAL, "buffer is at %u, block ends at %u, all at %u",
			       c->buf_at, c->drq_end, c->buf_end);
	if (c->block > ATA_BUF_BYTES)
		return err_set(err, -EINVAL, "block is %u bytes, expected up to %u", c->block,
			       ATA_BUF_BYTES);
	return 0;
}

int ata_channel_check(const struct ata_channel *c, struct error *err)
{
	if (c->selected > 1 || c->active > 1 || c->reset_mask > 3)
		return err_set(err, -EINVAL, "unit is %u (active %u), expected 0 or 1", c->selected,
			       c->active);
	if (c->op >= ATA_OPS || c->addressing > ATA_LBA48)
		return err_set(err, -EINVAL,
			       "operation is %u, addressing %u, expected 0..%u and "
			       "0..2",
			       c->op, c->addressing, ATA_OPS - 1);
	if (c->lba >= (u64)1 << 48)
		return err_set(err, -EINVAL, "address is %llu, expected below 2^48",
			       (unsigned long long)c->lba);
	return check_buffer(c, err);
}

/* --- channel and drives together -------------------------------------------------- */

static bool op_fits_kind(u8 op, enum ata_kind kind)
{
	if (op == ATA_OP_BUF_IN)
		return true;
	return (op >= ATA_OP_PACKET && op <= ATA_OP_CD_DMA_READ) == (kind == ATA_CDROM);
}

/* The host is to move a DRQ block. */
static bool host_turn_fits(const struct ata_channel *c)
{
	if (c->buf_at >= c->drq_end || c->drq_end > c->buf_end || c->block == 0)
		return false;
	switch (c->op) {
	case ATA_OP_BUF_IN:
	case ATA_OP_READ:
	case ATA_OP_CD_BUF:
	case ATA_OP_CD_READ: return true;
	case ATA_OP_WRITE:
		return is_aligned(c->buf_end, ATA_SECTOR) && c->buf_end / ATA_SECTOR <= c->left;
	case ATA_OP_PACKET: return c->buf_end == 12;
	default: return false;
	}
}

/* The next step is ours. */
static bool our_turn_fits(const struct ata_channel *c)
{
	switch (c->op) {
	case ATA_OP_FLUSH: return true;
	case ATA_OP_READ:
	case ATA_OP_CD_READ:
	case ATA_OP_VERIFY:
	case ATA_OP_DMA_READ:
	case ATA_OP_DMA_WRITE:
	case ATA_OP_CD_DMA_READ: return c->left > 0 && c->block > 0;
	case ATA_OP_WRITE:
		return c->buf_end && is_aligned(c->buf_end, ATA_SECTOR) &&
		       c->buf_end / ATA_SECTOR <= c->left;
	case ATA_OP_TRIM_DMA: return is_aligned(c->buf_end, ATA_SECTOR);
	case ATA_OP_TRIM: return is_aligned(c->buf_at, 8) && is_aligned(c->buf_end, 8);
	case ATA_OP_CD_DMA_BUF: return true;
	default: return false;
	}
}

static bool fits(const struct ata_channel *c)
{
	const struct ata_drive *d = c->drives[c->active];
	u8 turn;

	if (c->op == ATA_OP_NONE || c->op == ATA_OP_RESET)
		return true;
	if (!d || !op_fits_kind(c->op, d->kind))
		return false;
	turn = d->status & (ATA_BSY | ATA_DRQ);
	if (turn == ATA_DRQ)
		return host_turn_fits(c);
	return turn == ATA_BSY && our_turn_fits(c);
}

/* A command of a drive that is not here, or no command of ours: the guest finds a
 * channel after a reset. */
void ata_channel_validate(struct ata_channel *ch)
{
	struct ata_drive *d = ata_active(ch);

	ch->unchecked = false;
	if (!fits(ch)) {
		log_warn("%s: saved command does not fit the drives: channel is reset", ch->id);
		ata_channel_reset(ch);
	}
	if (ch->op == ATA_OP_NONE && d && d->status & (ATA_BSY | ATA_DRQ))
		d->status = ATA_READY;
	ata_update_irq(ch);
}

/* Channel and drives are loaded one by one, in any order: judged together when the
 * machine goes on. */
void ata_channel_post_load(struct ata_channel *ch)
{
	lock_assert(ch->lock);
	ch->unchecked = true;
	ch->irq_level = false;
	ch->ops->set_irq(ch, false);
	ata_update_irq(ch);
	if (!ch->paused)
		ata_channel_validate(ch);
}

void ata_drive_post_load(struct ata_drive *d)
{
	lock_assert(d->channel->lock);
	ata_update_irq(d->channel);
}
