/* ATA sector addresses: CHS with translation, 28 and 48 bit LBA.
 * ATA/ATAPI-6 clause 6.2 and ATA-3 clause 6.2 (CHS).  Thread: the channel's lock. */
#include "devices/ide/ata_int.h"

static bool get_chs(const struct ata_drive *d, u64 *lba)
{
	u32 cylinder = (u32)d->reg[REG_MID] | (u32)d->reg[REG_HIGH] << 8;
	u32 head = d->reg[REG_DEVICE] & 0x0f, sector = d->reg[REG_LOW];

	if (sector == 0 || sector > d->cur_spt || head >= d->cur_heads ||
	    cylinder >= d->cur_cylinders)
		return false;
	*lba = ((u64)cylinder * d->cur_heads + head) * d->cur_spt + sector - 1;
	return true;
}

bool ata_get_address(const struct ata_drive *d, enum ata_addressing how, u64 *lba)
{
	u64 low24 = (u64)d->reg[REG_LOW] | (u64)d->reg[REG_MID] << 8 | (u64)d->reg[REG_HIGH] << 16;

	if (how == ATA_CHS)
		return get_chs(d, lba);
	if (how == ATA_LBA28)
		*lba = low24 | (u64)(d->reg[REG_DEVICE] & 0x0f) << 24;
	else
		*lba = low24 | (u64)d->hob[REG_LOW] << 24 | (u64)d->hob[REG_MID] << 32 |
		       (u64)d->hob[REG_HIGH] << 40;
	return true;
}

static void set_chs(struct ata_drive *d, u64 lba)
{
	u64 track = lba / d->cur_spt, cylinder = track / d->cur_heads;

	d->reg[REG_LOW] = (u8)(lba % d->cur_spt + 1);
	d->reg[REG_MID] = (u8)cylinder;
	d->reg[REG_HIGH] = (u8)(cylinder >> 8);
	d->reg[REG_DEVICE] = (u8)((d->reg[REG_DEVICE] & 0xf0) | (track % d->cur_heads));
}

void ata_set_address(struct ata_drive *d, enum ata_addressing how, u64 lba)
{
	if (how == ATA_CHS) {
		set_chs(d, lba);
		return;
	}
	d->reg[REG_LOW] = (u8)lba;
	d->reg[REG_MID] = (u8)(lba >> 8);
	d->reg[REG_HIGH] = (u8)(lba >> 16);
	if (how == ATA_LBA28) {
		d->reg[REG_DEVICE] = (u8)((d->reg[REG_DEVICE] & 0xf0) | (lba >> 24 & 0x0f));
		return;
	}
	d->hob[REG_LOW] = (u8)(lba >> 24);
	d->hob[REG_MID] = (u8)(lba >> 32);
	d->hob[REG_HIGH] = (u8)(lba >> 40);
}

void ata_set_translation(struct ata_drive *d, u8 heads, u8 spt)
{
	u64 cylinders = ata_sectors(d) / ((u64)heads * spt);

	assert(heads >= 1 && heads <= 16 && spt >= 1);
	d->cur_heads = heads;
	d->cur_spt = spt;
	d->cur_cylinders = (u16)(cylinders > 65535 ? 65535 : cylinders ? cylinders : 1);
}
