/* ATA channel: registers, interrupt, resets, attachment.
 *
 * ATA/ATAPI-6 clauses 7 (registers) and 9 (protocols).  Register writes reach both
 * drives; an absent drive 1 is answered for by drive 0 with status 00h, a channel
 * without drives reads as zeros, so that probing firmware gives up at once.
 * Thread: the controller's lock. */
#include "devices/ide/ata_int.h"

#include "base/log.h"

void ata_channel_init(struct ata_channel *ch, const struct ata_ops *ops, struct mutex *lock,
		      const char *id)
{
	memset(ch, 0, sizeof(*ch));
	ch->ops = ops;
	ch->lock = lock;
	ch->id = id;
	ch->block = ATA_SECTOR;
	cond_init(&ch->idle);
}

static void wait_idle(struct ata_channel *ch)
{
	lock_assert(ch->lock);
	while (ch->in_flight)
		cond_wait(&ch->idle, ch->lock);
}

void ata_channel_fini(struct ata_channel *ch)
{
	ata_channel_pause(ch);
	cond_fini(&ch->idle);
}

void ata_channel_pause(struct ata_channel *ch)
{
	LOCK_SCOPE(ch->lock);
	ch->paused++;
	wait_idle(ch);
}

void ata_channel_resume(struct ata_channel *ch)
{
	LOCK_SCOPE(ch->lock);
	assert(ch->paused);
	if (--ch->paused)
		return;
	if (ch->unchecked)
		ata_channel_validate(ch);
	ch->kept = false;
	ata_run(ch);
}

/* Another medium or size.  [blk's loop thread] */
static void medium_changed(struct blk_watcher *w)
{
	struct ata_drive *d = container_of(w, struct ata_drive, watcher);

	LOCK_SCOPE(d->channel->lock);
	if (d->kind == ATA_CDROM)
		atapi_medium_changed(d);
}

void ata_attach(struct ata_channel *ch, unsigned unit, struct ata_drive *d)
{
	lock_assert(ch->lock);
	assert(unit < 2 && !ch->drives[unit] && ch->op == ATA_OP_NONE);
	d->channel = ch;
	ch->drives[unit] = d;
	d->watcher.changed = medium_changed;
	ata_drive_reset(d);
}

void ata_detach(struct ata_drive *d)
{
	struct ata_channel *ch = d->channel;
	unsigned unit = ch->drives[1] == d;

	lock_assert(ch->lock);
	assert(ch->drives[unit] == d);
	ata_channel_reset(ch);
	wait_idle(ch);
	ch->drives[unit] = NULL;
	d->channel = NULL;
	ata_update_irq(ch);
}

void ata_update_irq(struct ata_channel *ch)
{
	struct ata_drive *d = ata_selected(ch);
	bool level = d && d->intrq && !(ch->control & ATA_NIEN);

	if (level == ch->irq_level)
		return;
	ch->irq_level = level;
	ch->ops->set_irq(ch, level);
}

void ata_raise_irq(struct ata_channel *ch)
{
	ata_active(ch)->intrq = true;
	ata_update_irq(ch);
}

void ata_finish(struct ata_channel *ch, bool irq)
{
	struct ata_drive *d = ata_active(ch);

	ch->op = ATA_OP_NONE;
	d->status = ATA_READY;
	if (irq)
		ata_raise_irq(ch);
}

void ata_fail(struct ata_channel *ch, u8 error)
{
	struct ata_drive *d = ata_active(ch);

	TRACE(TRACE_IDE, "%s: unit %u: command %02x fails, error %02x", ch->id, ch->active,
	      d->reg[REG_CMD], error);
	ch->op = ATA_OP_NONE;
	d->error = error;
	d->status = ATA_READY | ATA_ERR;
	ata_raise_irq(ch);
}

void ata_signature(struct ata_drive *d)
{
	bool packet = d->kind == ATA_CDROM;

	memset(d->hob, 0, sizeof(d->hob));
	d->reg[REG_COUNT] = 1;
	d->reg[REG_LOW] = 1;
	d->reg[REG_MID] = packet ? 0x14 : 0;
	d->reg[REG_HIGH] = packet ? 0xeb : 0;
}

/* A packet device shows DRDY only after its first command, clause 9.12. */
static void end_reset(struct ata_drive *d)
{
	ata_signature(d);
	d->error = 0x01; /* diagnostic code: passed */
	d->status = d->kind == ATA_CDROM ? 0 : ATA_READY;
	d->power = ATA_ACTIVE;
	d->multiple = 0;
	if (d->kind == ATA_CDROM)
		atapi_reset(d);
}

void ata_try_end_reset(struct ata_channel *ch)
{
	if (ch->op != ATA_OP_RESET || ch->in_flight || ch->control & ATA_SRST)
		return;
	ch->op = ATA_OP_NONE;
	ch->addressing = ATA_CHS;
	ch->fua = false;
	ch->lba = ch->left = 0;
	ch->block = ATA_SECTOR;
	ch->buf_at = ch->drq_end = ch->buf_end = 0;
	memset(ch->buf, 0, sizeof(ch->buf)); /* nobody else fills it any more */
	for (unsigned i = 0; i < 2; i++) {
		if (ch->drives[i] && ch->reset_mask & 1u << i)
			end_reset(ch->drives[i]);
	}
	ch->reset_mask = 0;
}

/* BSY holds until the request in flight is done, so a host that waits for it may
 * use its memory again. */
void ata_reset_drives(struct ata_channel *ch, u8 mask)
{
	for (unsigned i = 0; i < 2; i++) {
		struct ata_drive *d = ch->drives[i];

		if (!d || !(mask & 1u << i))
			continue;
		d->intrq = false;
		d->status = ATA_BSY;
	}
	ch->dropped = ch->in_flight;
	ch->kept = false;
	ch->op = ATA_OP_RESET;
	ch->reset_mask |= mask;
	ata_update_irq(ch);
	ata_try_end_reset(ch);
}

void ata_drive_init(struct ata_drive *d)
{
	u64 total = ata_sectors(d), cylinders = total / (16 * 63);

	d->heads = 16;
	d->spt = 63;
	d->cylinders = (u16)(cylinders > 16383 ? 16383 : cylinders ? cylinders : 1);
}

void ata_drive_reset(struct ata_drive *d)
{
	memset(d->reg, 0, sizeof(d->reg));
	d->intrq = false;
	d->transfer_mode = 0;
	d->write_cache = d->look_ahead = d->smart = true;
	ata_set_translation(d, d->heads, d->spt);
	d->tray_open = d->locked = false;
	end_reset(d);
}

void ata_channel_reset(struct ata_channel *ch)
{
	lock_assert(ch->lock);
	ch->control = ch->selected = ch->active = 0;
	ch->reset_mask = 0;
	for (unsigned i = 0; i < 2; i++) {
		if (ch->drives[i])
			ata_drive_reset(ch->drives[i]);
	}
	ata_reset_drives(ch, 3);
}

/* --- registers ---------------------------------------------------------------- */

/* The drive whose registers the host sees: drive 0 answers for an absent drive 1. */
static struct ata_drive *answering(const struct ata_channel *ch)
{
	return ata_selected(ch) ? ata_selected(ch) : ch->drives[0];
}

u8 ata_alt_status(const struct ata_channel *ch)
{
	lock_assert(ch->lock);
	return ata_selected(ch) ? ata_selected(ch)->status : 0;
}

static u8 read_status(struct ata_channel *ch)
{
	if (ata_selected(ch)) {
		ata_selected(ch)->intrq = false;
		ata_update_irq(ch);
	}
	return ata_alt_status(ch);
}

static u8 read_reg(struct ata_channel *ch, unsigned reg)
{
	struct ata_drive *d = answering(ch);

	if (reg == REG_CMD)
		return read_status(ch);
	if (!d)
		return 0;
	if (reg == REG_FEATURE)
		return ata_selected(ch) ? d->error : 0;
	if (reg == REG_DEVICE)
		return (u8)(d->reg[REG_DEVICE] | 0xa0); /* obsolete bits, always one */
	return ch->control & ATA_HOB ? d->hob[reg] : d->reg[reg];
}

u32 ata_read(struct ata_channel *ch, unsigned reg, unsigned size)
{
	u32 value = 0;

	lock_assert(ch->lock);
	if (reg == REG_DATA)
		return ata_data_read(ch, size);
	for (unsigned i = 0; i < size && reg + i < 8; i++)
		value |= (u32)read_reg(ch, reg + i) << 8 * i;
	return value;
}

static bool is_busy(const struct ata_channel *ch)
{
	return (ch->drives[0] && ch->drives[0]->status & ATA_BSY) ||
	       (ch->drives[1] && ch->drives[1]->status & ATA_BSY);
}

/* A drive that waited for the host when the other one got a command: given up. */
static void take_channel(struct ata_channel *ch)
{
	if (ch->op != ATA_OP_NONE && ch->active != ch->selected)
		ata_active(ch)->status = ATA_READY;
	ch->active = ch->selected;
}

static void write_command(struct ata_channel *ch, u8 opcode)
{
	struct ata_drive *d = ata_selected(ch);

	/* EXECUTE DEVICE DIAGNOSTIC is for both, whichever is selected. */
	if (!d && opcode == 0x90) {
		ch->selected ^= 1;
		d = ata_selected(ch);
	}
	if (!d)
		return;
	if (opcode == 0x08 && d->kind == ATA_CDROM) {
		take_channel(ch);
		ata_reset_drives(ch, (u8)(1u << ch->selected));
		return;
	}
	/* A sleeping drive wakes up for a reset only. */
	if (is_busy(ch) || d->status & ATA_DRQ || d->power == ATA_SLEEPING)
		return;
	take_channel(ch);
	ch->op = ATA_OP_NONE;
	d->intrq = false;
	d->error = 0;
	d->reg[REG_CMD] = opcode;
	ata_update_irq(ch);
	ata_command(ch, d, opcode);
}

static void write_reg(struct ata_channel *ch, unsigned reg, u8 value)
{
	ch->control &= (u8)~ATA_HOB;
	if (reg == REG_CMD) {
		write_command(ch, value);
		return;
	}
	if (is_busy(ch))
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct ata_drive *d = ch->drives[i];

		if (!d)
			continue;
		d->hob[reg] = d->reg[reg];
		d->reg[reg] = value;
	}
	if (reg == REG_DEVICE) {
		ch->selected = !!(value & ATA_DEV);
		ata_update_irq(ch);
	}
}

void ata_write(struct ata_channel *ch, unsigned reg, unsigned size, u32 value)
{
	lock_assert(ch->lock);
	if (reg == REG_DATA) {
		ata_data_write(ch, size, value);
		return;
	}
	for (unsigned i = 0; i < size && reg + i < 8; i++)
		write_reg(ch, reg + i, (u8)(value >> 8 * i));
}

void ata_control(struct ata_channel *ch, u8 value)
{
	u8 before = ch->control;

	lock_assert(ch->lock);
	ch->control = value & (ATA_NIEN | ATA_SRST | ATA_HOB);
	if (!(before & ATA_SRST) && value & ATA_SRST) {
		ch->selected = ch->active = 0;
		for (unsigned i = 0; i < 2; i++) {
			if (ch->drives[i])
				ch->drives[i]->reg[REG_DEVICE] = 0;
		}
		ata_reset_drives(ch, 3);
	}
	ata_try_end_reset(ch);
	ata_update_irq(ch);
}
