/* ATA commands: one table row per opcode.
 *
 * ATA/ATAPI-6 clause 8 and, for older opcodes and DATA SET MANAGEMENT, ATA-3 and
 * ACS-2.  A handler checks, then starts an operation, finishes or fails the
 * command.  Thread: the channel's lock. */
#include "devices/ide/ata_int.h"

enum cmd_flags {
	DISK = 1,   /* for disks */
	PACKET = 2, /* for packet devices */
	EXT = 4,    /* 48-bit address and 16-bit count */
	MULTI = 8,  /* DRQ blocks of SET MULTIPLE's size */
	FUA = 16,
	MEDIUM = 32, /* touches the medium: spins up */
};

struct ata_cmd {
	void (*fn)(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd);
	u8 flags;
	u8 op; /* of transfers */
};

static void abort_cmd(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	ata_fail(ch, ATA_ABRT);
}

/* A packet device aborts these with its signature in the registers. */
static void abort_signature(struct ata_channel *ch, struct ata_drive *d)
{
	ata_signature(d);
	ata_fail(ch, ATA_ABRT);
}

static void cmd_transfer(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	u64 total = ata_sectors(d);

	ch->addressing = cmd->flags & EXT		? ATA_LBA48
			 : d->reg[REG_DEVICE] & ATA_LBA ? ATA_LBA28
							: ATA_CHS;
	ch->left = d->reg[REG_COUNT];
	if (cmd->flags & EXT)
		ch->left |= (u32)d->hob[REG_COUNT] << 8;
	if (ch->left == 0)
		ch->left = cmd->flags & EXT ? 65536 : 256;
	if (!ata_get_address(d, ch->addressing, &ch->lba) || ch->lba >= total ||
	    ch->left > total - ch->lba) {
		ata_fail(ch, ATA_IDNF);
		return;
	}
	if (cmd->flags & MULTI && d->multiple == 0) {
		ata_fail(ch, ATA_ABRT);
		return;
	}
	ch->block = (cmd->flags & MULTI ? d->multiple : 1) * ATA_SECTOR;
	ch->fua = cmd->flags & FUA || !d->write_cache;
	if (cmd->op == ATA_OP_WRITE)
		ata_start_write(ch);
	else
		ata_start(ch, cmd->op);
}

static void cmd_flush(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	ata_start(ch, ATA_OP_FLUSH);
}

static void cmd_trim(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	u32 blocks = d->reg[REG_COUNT] | (u32)d->hob[REG_COUNT] << 8;

	if (!(d->reg[REG_FEATURE] & 1) || blocks == 0 || blocks > ATA_BUF_SECTORS ||
	    blk_is_readonly(d->blk)) {
		ata_fail(ch, ATA_ABRT);
		return;
	}
	ch->buf_at = 0;
	ch->buf_end = blocks * ATA_SECTOR;
	ata_start(ch, ATA_OP_TRIM_DMA);
}

static void cmd_identify(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	if (d->kind == ATA_CDROM) {
		abort_signature(ch, d);
		return;
	}
	ata_identify_disk(d, ch->active, ch->buf);
	ata_start_buf_in(ch, ATA_SECTOR);
}

static void cmd_identify_packet(struct ata_channel *ch, struct ata_drive *d,
				const struct ata_cmd *cmd)
{
	ata_identify_packet(d, ch->active, ch->buf);
	ata_start_buf_in(ch, ATA_SECTOR);
}

/* READ SECTORS to a packet device is how old hosts tell them apart. */
static void cmd_read_sectors(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	if (d->kind == ATA_CDROM)
		abort_signature(ch, d);
	else
		cmd_transfer(ch, d, cmd);
}

static void cmd_set_multiple(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	u8 n = d->reg[REG_COUNT];

	if (n > ATA_MULTIPLE || (n && !is_pow2(n))) {
		d->multiple = 0;
		ata_fail(ch, ATA_ABRT);
		return;
	}
	d->multiple = n;
	ata_finish(ch, true);
}

static void cmd_init_params(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	if (d->reg[REG_COUNT] == 0) {
		ata_fail(ch, ATA_ABRT);
		return;
	}
	ata_set_translation(d, (u8)((d->reg[REG_DEVICE] & 0x0f) + 1), d->reg[REG_COUNT]);
	ata_finish(ch, true);
}

static void cmd_done(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	ata_finish(ch, true);
}

static void cmd_seek(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	enum ata_addressing how = d->reg[REG_DEVICE] & ATA_LBA ? ATA_LBA28 : ATA_CHS;
	u64 lba;

	if (!ata_get_address(d, how, &lba) || lba >= ata_sectors(d))
		ata_fail(ch, ATA_IDNF);
	else
		ata_finish(ch, true);
}

static void cmd_set_features(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	bool flush = d->kind == ATA_DISK && d->reg[REG_FEATURE] == 0x82;

	if (!ata_set_features(d))
		ata_fail(ch, ATA_ABRT);
	else if (flush) /* what the cache holds becomes durable when it is switched off */
		ata_start(ch, ATA_OP_FLUSH);
	else
		ata_finish(ch, true);
}

static void cmd_smart(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	if (!ata_smart(ch, d))
		ata_fail(ch, ATA_ABRT);
}

static void cmd_active(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	d->power = ATA_ACTIVE;
	ata_finish(ch, true);
}

/* STANDBY and SLEEP stop the spindle: the write cache goes to the medium first. */
static void spin_down(struct ata_channel *ch, struct ata_drive *d, enum ata_power power)
{
	d->power = (u8)power;
	if (d->kind == ATA_DISK)
		ata_start(ch, ATA_OP_FLUSH);
	else
		ata_finish(ch, true);
}

static void cmd_standby(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	spin_down(ch, d, ATA_STANDBY);
}

static void cmd_sleep(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	spin_down(ch, d, ATA_SLEEPING);
}

static void cmd_check_power(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	d->reg[REG_COUNT] = d->power == ATA_STANDBY ? 0x00 : 0xff;
	ata_finish(ch, true);
}

static void cmd_native_max(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	bool ext = cmd->flags & EXT;
	u64 last = ata_sectors(d) - 1;

	if (!ext && !(d->reg[REG_DEVICE] & ATA_LBA)) {
		ata_fail(ch, ATA_ABRT);
		return;
	}
	if (!ext)
		last = MIN(last, (u64)0x0fffffff);
	ata_set_address(d, ext ? ATA_LBA48 : ATA_LBA28, last);
	ata_finish(ch, true);
}

/* Both drives test themselves; drive 0 reports and interrupts, clause 9.9. */
static void cmd_diagnostic(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	for (unsigned i = 0; i < 2; i++) {
		if (ch->drives[i])
			ch->drives[i]->reg[REG_DEVICE] = 0;
	}
	ata_reset_drives(ch, 3);
	ch->selected = ch->active = ch->drives[0] ? 0 : 1;
	ata_raise_irq(ch);
}

static void cmd_packet(struct ata_channel *ch, struct ata_drive *d, const struct ata_cmd *cmd)
{
	d->reg[REG_COUNT] = ATAPI_COD;
	ata_start_packet(ch);
}

static const struct ata_cmd commands[256] = {
	[0x00] = {abort_cmd, DISK | PACKET, 0}, /* NOP ends so by definition */
	[0x06] = {cmd_trim, DISK | EXT | MEDIUM, 0},
	[0x10] = {cmd_done, DISK, 0}, /* RECALIBRATE */
	[0x20] = {cmd_read_sectors, DISK | PACKET | MEDIUM, ATA_OP_READ},
	[0x21] = {cmd_read_sectors, DISK | PACKET | MEDIUM, ATA_OP_READ},
	[0x24] = {cmd_transfer, DISK | EXT | MEDIUM, ATA_OP_READ},
	[0x25] = {cmd_transfer, DISK | EXT | MEDIUM, ATA_OP_DMA_READ},
	[0x27] = {cmd_native_max, DISK | EXT, 0},
	[0x29] = {cmd_transfer, DISK | EXT | MULTI | MEDIUM, ATA_OP_READ},
	[0x30] = {cmd_transfer, DISK | MEDIUM, ATA_OP_WRITE},
	[0x31] = {cmd_transfer, DISK | MEDIUM, ATA_OP_WRITE},
	[0x34] = {cmd_transfer, DISK | EXT | MEDIUM, ATA_OP_WRITE},
	[0x35] = {cmd_transfer, DISK | EXT | MEDIUM, ATA_OP_DMA_WRITE},
	[0x39] = {cmd_transfer, DISK | EXT | MULTI | MEDIUM, ATA_OP_WRITE},
	[0x3d] = {cmd_transfer, DISK | EXT | FUA | MEDIUM, ATA_OP_DMA_WRITE},
	[0x40] = {cmd_transfer, DISK | MEDIUM, ATA_OP_VERIFY},
	[0x41] = {cmd_transfer, DISK | MEDIUM, ATA_OP_VERIFY},
	[0x42] = {cmd_transfer, DISK | EXT | MEDIUM, ATA_OP_VERIFY},
	[0x70] = {cmd_seek, DISK | MEDIUM, 0},
	[0x90] = {cmd_diagnostic, DISK | PACKET, 0},
	[0x91] = {cmd_init_params, DISK, 0},
	[0x94] = {cmd_standby, DISK | PACKET, 0},
	[0x95] = {cmd_active, DISK | PACKET, 0},
	[0x96] = {cmd_standby, DISK | PACKET, 0},
	[0x97] = {cmd_active, DISK | PACKET, 0},
	[0x98] = {cmd_check_power, DISK | PACKET, 0},
	[0x99] = {cmd_sleep, DISK | PACKET, 0},
	[0xa0] = {cmd_packet, PACKET | MEDIUM, 0},
	[0xa1] = {cmd_identify_packet, PACKET, 0},
	[0xb0] = {cmd_smart, DISK, 0},
	[0xc4] = {cmd_transfer, DISK | MULTI | MEDIUM, ATA_OP_READ},
	[0xc5] = {cmd_transfer, DISK | MULTI | MEDIUM, ATA_OP_WRITE},
	[0xc6] = {cmd_set_multiple, DISK, 0},
	[0xc8] = {cmd_transfer, DISK | MEDIUM, ATA_OP_DMA_READ},
	[0xc9] = {cmd_transfer, DISK | MEDIUM, ATA_OP_DMA_READ},
	[0xca] = {cmd_transfer, DISK | MEDIUM, ATA_OP_DMA_WRITE},
	[0xcb] = {cmd_transfer, DISK | MEDIUM, ATA_OP_DMA_WRITE},
	[0xce] = {cmd_transfer, DISK | EXT | MULTI | FUA | MEDIUM, ATA_OP_WRITE},
	[0xe0] = {cmd_standby, DISK | PACKET, 0},
	[0xe1] = {cmd_active, DISK | PACKET, 0},
	[0xe2] = {cmd_standby, DISK | PACKET, 0},
	[0xe3] = {cmd_active, DISK | PACKET, 0},
	[0xe5] = {cmd_check_power, DISK | PACKET, 0},
	[0xe6] = {cmd_sleep, DISK | PACKET, 0},
	[0xe7] = {cmd_flush, DISK | MEDIUM, 0},
	[0xea] = {cmd_flush, DISK | EXT | MEDIUM, 0},
	[0xec] = {cmd_identify, DISK | PACKET, 0},
	[0xef] = {cmd_set_features, DISK | PACKET, 0},
	[0xf8] = {cmd_native_max, DISK, 0},
};

void ata_command(struct ata_channel *ch, struct ata_drive *d, u8 opcode)
{
	const struct ata_cmd *cmd = &commands[opcode];
	u8 kind = d->kind == ATA_DISK ? DISK : PACKET;

	if (!cmd->fn || !(cmd->flags & kind)) {
		ata_fail(ch, ATA_ABRT);
		return;
	}
	if (cmd->flags & MEDIUM && d->power == ATA_STANDBY)
		d->power = ATA_ACTIVE;
	cmd->fn(ch, d, cmd);
}
