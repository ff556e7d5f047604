/* What the parts of the ATA core share: register bits, operations, helpers.
 * Everything here is called with the channel's lock held. */
#ifndef DEVICES_IDE_ATA_INT_H
#define DEVICES_IDE_ATA_INT_H

#include "devices/ide/ata.h"

enum ata_status {
	ATA_ERR = 0x01,
	ATA_DRQ = 0x08,
	ATA_DSC = 0x10,
	ATA_DF = 0x20,
	ATA_DRDY = 0x40,
	ATA_BSY = 0x80,
	ATA_READY = ATA_DRDY | ATA_DSC,
};
enum ata_error { ATA_ABRT = 0x04, ATA_IDNF = 0x10, ATA_UNC = 0x40 };
enum ata_control { ATA_NIEN = 0x02, ATA_SRST = 0x04, ATA_HOB = 0x80 };
/* Interrupt reason, in the sector count register of packet devices. */
enum atapi_reason { ATAPI_COD = 0x01, ATAPI_IO = 0x02 };

/* Command block registers; the number is the port's. */
enum ata_reg { REG_DATA, REG_FEATURE, REG_COUNT, REG_LOW, REG_MID, REG_HIGH, REG_DEVICE, REG_CMD };
enum ata_device_bits { ATA_DEV = 0x10, ATA_LBA = 0x40 };

enum ata_power { ATA_ACTIVE, ATA_STANDBY, ATA_SLEEPING };
enum ata_addressing { ATA_CHS, ATA_LBA28, ATA_LBA48 };

enum ata_op {
	ATA_OP_NONE,
	ATA_OP_BUF_IN, /* host reads a prepared buffer */
	ATA_OP_READ,   /* host reads sectors, 64 KiB read ahead */
	ATA_OP_WRITE,  /* host writes sectors, gathered up to 64 KiB */
	ATA_OP_VERIFY, /* read and forget */
	ATA_OP_FLUSH,
	ATA_OP_DMA_READ,
	ATA_OP_DMA_WRITE,
	ATA_OP_TRIM_DMA, /* the ranges come by DMA */
	ATA_OP_TRIM,
	ATA_OP_PACKET, /* host writes the command packet */
	ATA_OP_CD_BUF, /* as BUF_IN, with byte counts and a status phase */
	ATA_OP_CD_READ,
	ATA_OP_CD_DMA_BUF,
	ATA_OP_CD_DMA_READ,
	ATA_OP_RESET, /* waits for the request in flight */
	ATA_OPS
};

static inline struct ata_drive *ata_active(struct ata_channel *ch)
{
	return ch->drives[ch->active];
}
static inline struct ata_drive *ata_selected(const struct ata_channel *ch)
{
	return ch->drives[ch->selected];
}
static inline u64 ata_sectors(const struct ata_drive *d)
{
	return blk_bytes(d->blk) / ATA_SECTOR;
}

/* ata.c: how a command ends or asks for the host. */
void ata_update_irq(struct ata_channel *ch);
void ata_raise_irq(struct ata_channel *ch);
void ata_finish(struct ata_channel *ch, bool irq);
void ata_fail(struct ata_channel *ch, u8 error);
void ata_signature(struct ata_drive *d);
void ata_reset_drives(struct ata_channel *ch, u8 mask);
void ata_try_end_reset(struct ata_channel *ch);

/* ata_state.c */
void ata_channel_validate(struct ata_channel *ch);

/* ata_addr.c */
/* Reads the address registers; false: no such CHS address. */
bool ata_get_address(const struct ata_drive *d, enum ata_addressing how, u64 *lba);
void ata_set_address(struct ata_drive *d, enum ata_addressing how, u64 lba);
void ata_set_translation(struct ata_drive *d, u8 heads, u8 spt);

/* ata_io.c: data. */
void ata_run(struct ata_channel *ch);			  /* take the next step, if it is ours */
void ata_start(struct ata_channel *ch, u8 op);		  /* BSY, op, run */
void ata_start_buf_in(struct ata_channel *ch, u32 bytes); /* buf is filled */
void ata_start_write(struct ata_channel *ch);
void ata_start_packet(struct ata_channel *ch);
u32 ata_data_read(struct ata_channel *ch, unsigned size);
void ata_data_write(struct ata_channel *ch, unsigned size, u32 value);
bool ata_op_is_dma(u8 op);

/* ata_cmd.c */
void ata_command(struct ata_channel *ch, struct ata_drive *d, u8 opcode);

/* ata_identify.c: 512 bytes each. */
void ata_identify_disk(const struct ata_drive *d, unsigned unit, u8 *page);
void ata_identify_packet(const struct ata_drive *d, unsigned unit, u8 *page);
bool ata_set_features(struct ata_drive *d);
bool ata_smart(struct ata_channel *ch, struct ata_drive *d);

/* atapi.c */
void atapi_packet(struct ata_channel *ch, struct ata_drive *d); /* buf holds it */
void atapi_next_block(struct ata_channel *ch);
void atapi_good(struct ata_channel *ch);
void atapi_check(struct ata_channel *ch, u8 key, u8 asc, u8 ascq); /* CHECK CONDITION */
void atapi_reset(struct ata_drive *d);
void atapi_medium_changed(struct ata_drive *d);
void atapi_tray_opened(struct ata_drive *d); /* by the host */
void atapi_eject_asked(struct ata_drive *d);

#endif
