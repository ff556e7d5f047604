/* ATAPI CD/DVD-ROM: the PACKET protocol, sense, and commands that move or do things.
 *
 * ATA/ATAPI-6 clauses 8.24 and 9.8 (PACKET, PIO and DMA), MMC-3 (commands), SPC-2
 * (sense, unit attention).  The interrupt reason is in the count register, the
 * size of a DRQ block in mid and high.  Thread: the channel's lock. */
#include "devices/ide/atapi.h"

#include "base/bytes.h"
#include "base/log.h"

enum packet_flags {
	NEEDS_MEDIUM = 1,
	UNDER_ATTENTION = 2, /* runs while a unit attention is pending */
	KEEPS_SENSE = 4,
};

struct packet_cmd {
	void (*fn)(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb);
	u8 flags;
};

bool atapi_has_medium(const struct ata_drive *d)
{
	return !d->tray_open && blk_has_medium(d->blk) && blk_bytes(d->blk) >= CD_BLOCK;
}

u32 atapi_blocks(const struct ata_drive *d)
{
	u64 blocks = blk_bytes(d->blk) / CD_BLOCK;

	if (!atapi_has_medium(d))
		return 0;
	return (u32)MIN(blocks, (u64)UINT32_MAX / (CD_BLOCK / ATA_SECTOR));
}

void atapi_reset(struct ata_drive *d)
{
	d->sense_key = d->asc = d->ascq = 0;
	d->attention = ASC_RESET;
	d->media_event = MEDIA_NONE;
	d->locked = false;
}

/* A new medium needs a closed tray: what puts one in closes it. */
void atapi_medium_changed(struct ata_drive *d)
{
	if (blk_has_medium(d->blk))
		d->tray_open = false;
	d->attention = ASC_MEDIUM_CHANGED;
	d->media_event = atapi_has_medium(d) ? MEDIA_NEW : MEDIA_REMOVED;
}

void atapi_tray_opened(struct ata_drive *d)
{
	if (d->tray_open)
		return;
	d->tray_open = true;
	d->media_event = MEDIA_REMOVED;
}

void atapi_eject_asked(struct ata_drive *d)
{
	d->media_event = MEDIA_EJECT_REQUEST;
}

/* --- ends of a command ------------------------------------------------------------ */

static void status_phase(struct ata_channel *ch, u8 status, u8 error)
{
	struct ata_drive *d = ata_active(ch);

	ch->op = ATA_OP_NONE;
	d->reg[REG_COUNT] = ATAPI_IO | ATAPI_COD;
	d->error = error;
	d->status = status;
	ata_raise_irq(ch);
}

void atapi_good(struct ata_channel *ch)
{
	status_phase(ch, ATA_READY, 0);
}

void atapi_check(struct ata_channel *ch, u8 key, u8 asc, u8 ascq)
{
	struct ata_drive *d = ata_active(ch);

	d->sense_key = key;
	d->asc = asc;
	d->ascq = ascq;
	status_phase(ch, ATA_READY | ATA_ERR, (u8)(key << 4 | ATA_ABRT));
}

void atapi_next_block(struct ata_channel *ch)
{
	struct ata_drive *d = ata_active(ch);
	u32 bytes = MIN(ch->block, ch->buf_end - ch->buf_at);

	assert(bytes);
	ch->drq_end = ch->buf_at + bytes;
	d->reg[REG_COUNT] = ATAPI_IO;
	d->reg[REG_MID] = (u8)bytes;
	d->reg[REG_HIGH] = (u8)(bytes >> 8);
	d->status = ATA_READY | ATA_DRQ;
	ata_raise_irq(ch);
}

static bool wants_dma(const struct ata_drive *d)
{
	return d->reg[REG_FEATURE] & 1;
}

/* The host's byte count limit; even, since only a last block may be odd. */
static bool take_byte_limit(struct ata_channel *ch, struct ata_drive *d)
{
	ch->block = (d->reg[REG_MID] | (u32)d->reg[REG_HIGH] << 8) & 0xfffe;
	if (ch->block || wants_dma(d))
		return true;
	atapi_check(ch, SENSE_BAD_FIELD);
	return false;
}

/* Hand over bytes of buf, as many as the host has room for. */
static void reply(struct ata_channel *ch, u32 bytes, u32 room)
{
	ch->buf_at = 0;
	ch->buf_end = MIN(bytes, room);
	if (ch->buf_end == 0) {
		atapi_good(ch);
		return;
	}
	if (!take_byte_limit(ch, ata_active(ch)))
		return;
	if (wants_dma(ata_active(ch))) {
		ata_start(ch, ATA_OP_CD_DMA_BUF);
		return;
	}
	ch->op = ATA_OP_CD_BUF;
	atapi_next_block(ch);
}

/* An answer that one of the builders of atapi_disc.c has made. */
static void reply_built(struct ata_channel *ch, u32 bytes, u32 room)
{
	if (bytes == 0)
		atapi_check(ch, SENSE_BAD_FIELD);
	else
		reply(ch, bytes, room);
}

/* --- commands --------------------------------------------------------------------- */

static void test_unit_ready(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	atapi_good(ch);
}

static void request_sense(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	if (d->sense_key == 0 && d->attention) {
		d->sense_key = 0x06;
		d->asc = d->attention;
		d->attention = 0;
	}
	ch->buf[0] = 0x70; /* current error, fixed format */
	ch->buf[2] = d->sense_key;
	ch->buf[7] = 10;
	ch->buf[12] = d->asc;
	ch->buf[13] = d->ascq;
	d->sense_key = d->asc = d->ascq = 0;
	reply(ch, 18, cdb[4]);
}

static void inquiry(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_inquiry(d, cdb, ch->buf), load_be16(cdb + 3));
}

static void start_stop(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	bool start = cdb[4] & 1, load_eject = cdb[4] & 2;

	if (load_eject && !start && d->locked) {
		atapi_check(ch, SENSE_REMOVAL_BARRED);
		return;
	}
	if (load_eject && d->tray_open == start) {
		d->tray_open = !start;
		d->media_event = atapi_has_medium(d) ? MEDIA_NEW : MEDIA_REMOVED;
		if (atapi_has_medium(d))
			d->attention = ASC_MEDIUM_CHANGED;
	}
	atapi_good(ch);
}

static void prevent_allow(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	d->locked = cdb[4] & 1;
	atapi_good(ch);
}

static void read_capacity(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	store_be32(ch->buf, atapi_blocks(d) - 1);
	store_be32(ch->buf + 4, CD_BLOCK);
	reply(ch, 8, 8);
}

static void start_read(struct ata_channel *ch, struct ata_drive *d, u32 block, u32 count)
{
	u32 blocks = atapi_blocks(d);

	if (block > blocks || count > blocks - block) {
		atapi_check(ch, SENSE_BAD_LBA);
		return;
	}
	if (count == 0) {
		atapi_good(ch);
		return;
	}
	if (!take_byte_limit(ch, d))
		return;
	ch->lba = (u64)block * (CD_BLOCK / ATA_SECTOR);
	ch->left = count * (CD_BLOCK / ATA_SECTOR);
	ata_start(ch, wants_dma(d) ? ATA_OP_CD_DMA_READ : ATA_OP_CD_READ);
}

static void read_10(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	start_read(ch, d, load_be32(cdb + 2), load_be16(cdb + 7));
}

static void read_12(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	start_read(ch, d, load_be32(cdb + 2), load_be32(cdb + 6));
}

/* READ CD: the user data of mode 1 sectors, or nothing; the image has no more. */
static void read_cd(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	u8 type = cdb[1] >> 2 & 7, what = cdb[9] & 0xf8, subchannel = cdb[10] & 7;
	u32 count = (u32)cdb[6] << 16 | load_be16(cdb + 7);

	if ((type != 0 && type != 2) || subchannel || (what != 0 && what != 0x10))
		atapi_check(ch, SENSE_BAD_FIELD);
	else
		start_read(ch, d, load_be32(cdb + 2), what ? count : 0);
}

static void seek(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	if (load_be32(cdb + 2) >= atapi_blocks(d))
		atapi_check(ch, SENSE_BAD_LBA);
	else
		atapi_good(ch);
}

static void read_toc(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_toc(d, cdb, ch->buf), load_be16(cdb + 7));
}

static void get_configuration(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_configuration(d, cdb, ch->buf), load_be16(cdb + 7));
}

static void get_event_status(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_event_status(d, cdb, ch->buf), load_be16(cdb + 7));
}

static void mechanism_status(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_mechanism(d, cdb, ch->buf), load_be16(cdb + 8));
}

static void read_disc_info(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_disc_info(d, cdb, ch->buf), load_be16(cdb + 7));
}

static void read_track_info(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_track_info(d, cdb, ch->buf), load_be16(cdb + 7));
}

static void read_dvd_structure(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	reply_built(ch, atapi_dvd_structure(d, cdb, ch->buf), load_be16(cdb + 8));
}

static void mode_sense(struct ata_channel *ch, struct ata_drive *d, const u8 *cdb)
{
	u32 room = cdb[0] == 0x1a ? cdb[4] : load_be16(cdb + 7);

	if (cdb[2] >> 6 == 3)
		atapi_check(ch, SENSE_CANNOT_SAVE);
	else
		reply_built(ch, atapi_mode_sense(d, cdb, ch->buf), room);
}

static const struct packet_cmd commands[256] = {
	[0x00] = {test_unit_ready, NEEDS_MEDIUM},
	[0x03] = {request_sense, UNDER_ATTENTION | KEEPS_SENSE},
	[0x12] = {inquiry, UNDER_ATTENTION},
	[0x1a] = {mode_sense, 0},
	[0x1b] = {start_stop, 0},
	[0x1e] = {prevent_allow, 0},
	[0x25] = {read_capacity, NEEDS_MEDIUM},
	[0x28] = {read_10, NEEDS_MEDIUM},
	[0x2b] = {seek, NEEDS_MEDIUM},
	[0x43] = {read_toc, NEEDS_MEDIUM},
	[0x46] = {get_configuration, UNDER_ATTENTION},
	[0x4a] = {get_event_status, UNDER_ATTENTION},
	[0x51] = {read_disc_info, NEEDS_MEDIUM},
	[0x52] = {read_track_info, NEEDS_MEDIUM},
	[0x5a] = {mode_sense, 0},
	[0xa8] = {read_12, NEEDS_MEDIUM},
	[0xad] = {read_dvd_structure, NEEDS_MEDIUM},
	[0xbb] = {test_unit_ready, 0}, /* SET CD SPEED: as fast as it goes anyway */
	[0xbd] = {mechanism_status, 0},
	[0xbe] = {read_cd, NEEDS_MEDIUM},
};

void atapi_packet(struct ata_channel *ch, struct ata_drive *d)
{
	const struct packet_cmd *cmd;
	u8 cdb[12];

	memcpy(cdb, ch->buf, sizeof(cdb));
	memset(ch->buf, 0, ATA_SECTOR);
	cmd = &commands[cdb[0]];
	TRACE(TRACE_IDE, "%s: unit %u: packet %02x %08x %08x", ch->id, ch->active, cdb[0],
	      load_be32(cdb + 2), load_be32(cdb + 6));
	if (cmd->fn && !(cmd->flags & KEEPS_SENSE))
		d->sense_key = d->asc = d->ascq = 0;
	if (d->attention && !(cmd->flags & UNDER_ATTENTION)) {
		u8 asc = d->attention;

		d->attention = 0;
		atapi_check(ch, 0x06, asc, 0x00);
	} else if (!cmd->fn) {
		atapi_check(ch, SENSE_BAD_OPCODE);
	} else if (cmd->flags & NEEDS_MEDIUM && !atapi_has_medium(d)) {
		atapi_check(ch, SENSE_NOT_READY, d->tray_open ? 0x02 : 0x01);
	} else {
		cmd->fn(ch, d, cdb);
	}
}
