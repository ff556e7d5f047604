/* ATA: what a drive says of itself, SET FEATURES and SMART.
 *
 * ATA/ATAPI-6 8.15 (IDENTIFY DEVICE), 8.16 (IDENTIFY PACKET DEVICE), 8.46 (SET
 * FEATURES), 8.54 (SMART); word 105 and 169 from ACS-2.  Thread: channel's lock. */
#include "devices/ide/ata_int.h"

#include "base/bytes.h"

#define TRIM_BLOCKS 64 /* of 512 bytes in one DATA SET MANAGEMENT; we take 128 */

enum transfer_class { MODE_PIO = 0x08, MODE_MWDMA = 0x20, MODE_UDMA = 0x40 };

static void put(u8 *page, unsigned word, u16 value)
{
	store_le16(page + 2 * word, value);
}

static void put32(u8 *page, unsigned word, u32 value)
{
	store_le32(page + 2 * word, value);
}

/* ATA strings: space padded, the first character in the high byte. */
static void put_string(u8 *page, unsigned word, unsigned chars, const char *s)
{
	size_t n = strlen(s);

	for (unsigned i = 0; i < chars; i++)
		page[2 * word + (i ^ 1)] = (u8)(i < n ? s[i] : ' ');
}

/* Bits 0-7 what is supported, 8-15 what is selected. */
static u16 mode_word(u8 mode, u8 class, u8 class_mask, u8 supported)
{
	if ((mode & class_mask) != class)
		return supported;
	return (u16)(supported | 0x100 << (mode & 7));
}

static void put_common(const struct ata_drive *d, unsigned unit, u8 *page)
{
	put_string(page, 10, 20, d->serial);
	put_string(page, 23, 8, d->version);
	put_string(page, 27, 40, d->model);
	put(page, 48, 1);      /* 32-bit data port accesses */
	put(page, 49, 0x0b00); /* IORDY, LBA, DMA */
	put(page, 50, 0x4000);
	put(page, 51, 0x0200);
	put(page, 52, 0x0200);
	put(page, 53, 7); /* words 54-58, 64-70 and 88 are valid */
	put(page, 63, mode_word(d->transfer_mode, MODE_MWDMA, 0xf8, 0x07));
	put(page, 64, 3); /* PIO 3 and 4 */
	for (unsigned word = 65; word <= 68; word++)
		put(page, word, 120); /* ns */
	put(page, 80, 0x00f0);	      /* ATA-4 to ATA/ATAPI-7 */
	put(page, 88, mode_word(d->transfer_mode, MODE_UDMA, 0xf8, 0x3f));
	/* 80-conductor cable, and how the drive number was found. */
	put(page, 93, unit ? 0x6100 : 0x6001);
}

static void put_checksum(u8 *page)
{
	u8 sum = 0;

	page[510] = 0xa5;
	for (unsigned i = 0; i < 511; i++)
		sum = (u8)(sum + page[i]);
	page[511] = (u8)-sum;
}

static void put_geometry(const struct ata_drive *d, u8 *page)
{
	u64 total = ata_sectors(d);
	u64 chs = (u64)d->cur_cylinders * d->cur_heads * d->cur_spt;

	put(page, 1, d->cylinders);
	put(page, 3, d->heads);
	put(page, 6, d->spt);
	put(page, 54, d->cur_cylinders);
	put(page, 55, d->cur_heads);
	put(page, 56, d->cur_spt);
	put32(page, 57, (u32)MIN(chs, total)); /* chs fits 32 bits: 65535 * 16 * 255 */
	put32(page, 60, (u32)MIN(total, (u64)0x0fffffff));
	store_le64(page + 2 * 100, total);
}

void ata_identify_disk(const struct ata_drive *d, unsigned unit, u8 *page)
{
	u16 set82 = 0x4009 | 0x0060, enabled = 0x4008; /* NOP, power; cache, look-ahead, SMART */
	unsigned blocks = 0;

	if (d->smart)
		enabled |= 0x0001;
	if (d->write_cache)
		enabled |= 0x0020;
	if (d->look_ahead)
		enabled |= 0x0040;
	if (d->physical_bytes)
		blocks = (unsigned)__builtin_ctz(d->physical_bytes / ATA_SECTOR);
	memset(page, 0, ATA_SECTOR);
	put(page, 0, 0x0040); /* fixed disk */
	put_common(d, unit, page);
	put_geometry(d, page);
	put(page, 47, 0x8000 | ATA_MULTIPLE);
	put(page, 59, d->multiple ? 0x0100 | d->multiple : 0);
	put(page, 82, set82);
	put(page, 83, 0x7400); /* FLUSH CACHE (EXT), 48 bits */
	put(page, 84, 0x4040); /* FUA */
	put(page, 85, enabled);
	put(page, 86, 0x3400);
	put(page, 87, 0x4040);
	put(page, 105, TRIM_BLOCKS);
	/* 2^n logical sectors in a physical one. */
	put(page, 106, d->physical_bytes > ATA_SECTOR ? (u16)(0x6000 | blocks) : 0x4000);
	put(page, 169, 1); /* TRIM */
	put_checksum(page);
}

void ata_identify_packet(const struct ata_drive *d, unsigned unit, u8 *page)
{
	memset(page, 0, ATA_SECTOR);
	put(page, 0, 0x85c0); /* CD/DVD, removable, DRQ within 50 us, 12-byte packets */
	put_common(d, unit, page);
	put(page, 82, 0x4218); /* NOP, DEVICE RESET, PACKET, power management */
	put(page, 83, 0x4000);
	put(page, 84, 0x4000);
	put(page, 85, 0x4218);
	put(page, 87, 0x4000);
	put_checksum(page);
}

static bool set_transfer_mode(struct ata_drive *d)
{
	u8 mode = d->reg[REG_COUNT], n = mode & 7;
	bool ok;

	switch (mode & 0xf8) {
	case 0x00: ok = n <= 1; break; /* PIO default, with or without IORDY */
	case MODE_PIO: ok = n <= 4; break;
	case MODE_MWDMA: ok = n <= 2; break;
	case MODE_UDMA: ok = n <= 5; break;
	default: ok = false;
	}
	/* PIO modes say how the task file is used; the DMA mode chosen before stays. */
	if (ok && mode >= MODE_MWDMA)
		d->transfer_mode = mode;
	return ok;
}

bool ata_set_features(struct ata_drive *d)
{
	bool disk = d->kind == ATA_DISK;

	switch (d->reg[REG_FEATURE]) {
	case 0x03: return set_transfer_mode(d);
	case 0x02: d->write_cache = true; return disk;
	case 0x82: d->write_cache = false; return disk;
	case 0x55: d->look_ahead = false; return disk;
	case 0xaa: d->look_ahead = true; return disk;
	case 0x66: /* keep, or revert to, power-on defaults at a soft reset */
	case 0xcc: return true;
	default: return false;
	}
}

/* A drive that has nothing to complain about and keeps no attributes. */
static void smart_data(u8 *page, bool thresholds)
{
	u8 sum = 0;

	memset(page, 0, ATA_SECTOR);
	page[0] = 0x10; /* structure revision */
	if (!thresholds) {
		page[362] = 0x02; /* off-line collection done without error */
		page[368] = 0x03; /* saves before power mode changes; autosave */
	}
	for (unsigned i = 0; i < 511; i++)
		sum = (u8)(sum + page[i]);
	page[511] = (u8)-sum;
}

/* False: abort. */
bool ata_smart(struct ata_channel *ch, struct ata_drive *d)
{
	u8 sub = d->reg[REG_FEATURE];

	if (d->reg[REG_MID] != 0x4f || d->reg[REG_HIGH] != 0xc2 || (!d->smart && sub != 0xd8))
		return false;
	switch (sub) {
	case 0xd0: /* READ DATA */
	case 0xd1: /* READ ATTRIBUTE THRESHOLDS */
		smart_data(ch->buf, sub == 0xd1);
		ata_start_buf_in(ch, ATA_SECTOR);
		return true;
	case 0xd8: d->smart = true; break;
	case 0xd9: d->smart = false; break;
	case 0xd2: /* autosave */
	case 0xd3: /* save attributes */
	case 0xd4: /* off-line test: done at once */
	case 0xda: /* RETURN STATUS: mid and high as they are mean healthy */ break;
	default: return false;
	}
	ata_finish(ch, true);
	return true;
}
