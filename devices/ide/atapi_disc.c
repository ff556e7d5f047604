/* ATAPI: what a CD/DVD-ROM drive says of itself and of its medium.
 *
 * MMC-3: READ TOC 6.25, GET CONFIGURATION 6.6, GET EVENT STATUS 6.7, MECHANISM
 * STATUS 6.11, READ DISC INFORMATION 6.22, READ TRACK INFORMATION 6.27, READ DVD
 * STRUCTURE 6.23, mode pages 5.3; INQUIRY and MODE SENSE from SPC-2.  The medium
 * is one data track in one closed session.  Thread: the channel's lock. */
#include "devices/ide/atapi.h"

#include "base/bytes.h"

#define CD_MAX_BLOCKS (80 * 60 * 75) /* larger images are DVDs */
#define LEAD_OUT      0xaa

enum profile { PROFILE_NONE = 0, PROFILE_CD_ROM = 0x08, PROFILE_DVD_ROM = 0x10 };

static u16 profile(const struct ata_drive *d)
{
	u32 blocks = atapi_blocks(d);

	if (blocks == 0)
		return PROFILE_NONE;
	return blocks > CD_MAX_BLOCKS ? PROFILE_DVD_ROM : PROFILE_CD_ROM;
}

static void put_text(u8 *out, unsigned bytes, const char *s)
{
	size_t n = strlen(s);

	for (unsigned i = 0; i < bytes; i++)
		out[i] = (u8)(i < n ? s[i] : ' ');
}

u32 atapi_inquiry(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	if (cdb[1] & 3 || cdb[2]) /* no vital product data */
		return 0;
	out[0] = 0x05; /* CD/DVD */
	out[1] = 0x80; /* removable */
	out[3] = 0x21; /* ATAPI, response format 1 */
	out[4] = 31;
	put_text(out + 8, 8, "COWVM");
	put_text(out + 16, 16, d->model);
	put_text(out + 32, 4, d->version);
	return 36;
}

/* An address as the packet asked for it: blocks, or minutes, seconds, frames. */
static void put_address(u8 *out, u32 block, bool msf)
{
	u32 frames = block + 150;

	if (!msf) {
		store_be32(out, block);
		return;
	}
	out[0] = 0;
	out[1] = (u8)(frames / 75 / 60);
	out[2] = (u8)(frames / 75 % 60);
	out[3] = (u8)(frames % 75);
}

static u32 toc_tracks(const struct ata_drive *d, u8 first, bool msf, u8 *out)
{
	u32 n = 4;

	if (first > 1 && first != LEAD_OUT)
		return 0;
	out[2] = out[3] = 1;
	if (first <= 1) {
		out[n + 1] = 0x14; /* data, Q channel holds the position */
		out[n + 2] = 1;
		put_address(out + n + 4, 0, msf);
		n += 8;
	}
	out[n + 1] = 0x14;
	out[n + 2] = LEAD_OUT;
	put_address(out + n + 4, atapi_blocks(d), msf);
	n += 8;
	store_be16(out, (u16)(n - 2));
	return n;
}

static u32 toc_sessions(bool msf, u8 *out)
{
	store_be16(out, 10);
	out[2] = out[3] = 1;
	out[5] = 0x14;
	out[6] = 1;
	put_address(out + 8, 0, msf);
	return 12;
}

/* Format 2: the lead-in's points, addresses in minutes, seconds, frames always. */
static u32 toc_raw(const struct ata_drive *d, u8 *out)
{
	static const u8 points[4] = {0xa0, 0xa1, 0xa2, 1};

	store_be16(out, 2 + 4 * 11);
	out[2] = out[3] = 1;
	for (unsigned i = 0; i < 4; i++) {
		u8 *p = out + 4 + 11 * i;

		p[0] = 1; /* session */
		p[1] = 0x14;
		p[3] = points[i];
		if (points[i] == 0xa2)
			put_address(p + 7, atapi_blocks(d), true);
		else if (points[i] == 1)
			put_address(p + 7, 0, true);
		else
			p[8] = 1; /* number of the first, the last track */
	}
	return 4 + 4 * 11;
}

u32 atapi_toc(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	bool msf = cdb[1] & 2;
	u8 format = cdb[2] & 0x0f;

	if (format == 0) /* older packets have it in byte 9 */
		format = cdb[9] >> 6;
	switch (format) {
	case 0: return toc_tracks(d, cdb[6], msf, out);
	case 1: return toc_sessions(msf, out);
	case 2: return toc_raw(d, out);
	default: return 0;
	}
}

struct feature {
	u16 code;
	u8 version_flags; /* version << 2 | persistent << 1 */
	u8 bytes, data[8];
};

static const struct feature features[] = {
	{0x0000, 0x03, 8, {0x00, PROFILE_DVD_ROM, 0, 0, 0x00, PROFILE_CD_ROM, 0, 0}},
	{0x0001, 0x07, 4, {0, 0, 0, 2}},	     /* core: ATAPI */
	{0x0003, 0x03, 4, {0x29, 0, 0, 0}},	     /* removable: tray, eject, lock */
	{0x0010, 0x00, 8, {0, 0, 8, 0, 0, 1, 0, 0}}, /* random readable, blocks of 2048 */
	{0x001e, 0x00, 4, {0}},			     /* CD read */
	{0x001f, 0x00, 0, {0}},			     /* DVD read */
};

static bool feature_is_current(const struct feature *f, u16 prof)
{
	switch (f->code) {
	case 0x0010: return prof != PROFILE_NONE;
	case 0x001e: return prof == PROFILE_CD_ROM;
	case 0x001f: return prof == PROFILE_DVD_ROM;
	default: return true;
	}
}

u32 atapi_configuration(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	u16 prof = profile(d), from = load_be16(cdb + 2);
	u8 which = cdb[1] & 3; /* all, current ones, one */
	u32 n = 8;

	if (which == 3)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(features); i++) {
		const struct feature *f = &features[i];
		bool current = feature_is_current(f, prof);

		if ((which == 2 ? f->code != from : f->code < from) || (which == 1 && !current))
			continue;
		store_be16(out + n, f->code);
		out[n + 2] = f->version_flags | current;
		out[n + 3] = f->bytes;
		memcpy(out + n + 4, f->data, f->bytes);
		if (f->code == 0x0000) { /* each profile's own current bit */
			out[n + 6] = prof == PROFILE_DVD_ROM;
			out[n + 10] = prof == PROFILE_CD_ROM;
		}
		n += 4u + f->bytes;
	}
	store_be32(out, n - 4);
	store_be16(out + 6, prof);
	return n;
}

u32 atapi_event_status(struct ata_drive *d, const u8 *cdb, u8 *out)
{
	if (!(cdb[1] & 1)) /* asynchronous notification: not here */
		return 0;
	out[3] = 1 << 4; /* the classes that there are: media */
	if (!(cdb[4] & 1 << 4)) {
		store_be16(out, 2);
		out[2] = 0x80; /* no event of a class asked for */
		return 4;
	}
	store_be16(out, 6);
	out[2] = 4;
	out[4] = d->media_event;
	out[5] = (u8)((atapi_has_medium(d) ? 2 : 0) | (d->tray_open ? 1 : 0));
	d->media_event = MEDIA_NONE;
	return 8;
}

u32 atapi_mechanism(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	out[1] = d->tray_open ? 0x10 : 0;
	out[5] = 1; /* slots in the changer */
	return 8;
}

u32 atapi_disc_info(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	if (cdb[1] & 7)
		return 0;
	store_be16(out, 32);
	out[2] = 0x0e; /* complete session, finalised disc */
	out[3] = out[4] = out[5] = out[6] = 1;
	out[7] = 0x20; /* unrestricted use */
	memset(out + 16, 0xff, 8);
	return 34;
}

u32 atapi_track_info(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	u32 at = load_be32(cdb + 2);
	bool by_block = (cdb[1] & 3) == 0;

	if (by_block ? at >= atapi_blocks(d) : at != 1)
		return 0;
	store_be16(out, 34);
	out[2] = out[3] = 1;
	out[5] = 0x04; /* data track */
	out[6] = 0x01; /* mode 1 */
	store_be32(out + 24, atapi_blocks(d));
	return 36;
}

u32 atapi_dvd_structure(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	u32 last = 0x30000 + atapi_blocks(d) - 1; /* data area starts at 30000h */

	if (profile(d) != PROFILE_DVD_ROM || cdb[6])
		return 0;
	switch (cdb[7]) {
	case 0x00: /* physical format */
		store_be16(out, 18);
		out[4] = 0x01; /* DVD-ROM, version 1 */
		out[5] = 0x0f; /* 120 mm, no maximum rate given */
		out[6] = 0x01; /* one layer, embossed */
		store_be32(out + 8, 0x30000);
		store_be32(out + 12, last);
		return 20;
	case 0x01: /* copyright: none */ store_be16(out, 6); return 8;
	case 0xff: { /* the formats there are */
		static const u8 list[2] = {0x00, 0x01};

		store_be16(out, 2 + 4 * ARRAY_LEN(list));
		for (unsigned i = 0; i < ARRAY_LEN(list); i++) {
			out[4 + 4 * i] = list[i];
			out[5 + 4 * i] = 0x40; /* readable */
			store_be16(out + 6 + 4 * i, list[i] ? 8 : 20);
		}
		return 4 + 4 * ARRAY_LEN(list);
	}
	default: return 0;
	}
}

/* --- mode pages ------------------------------------------------------------------ */

static u32 page_error_recovery(u8 *out)
{
	out[0] = 0x01;
	out[1] = 6;
	out[3] = 5; /* retries */
	return 8;
}

static u32 page_power(u8 *out)
{
	out[0] = 0x1a;
	out[1] = 10;
	return 12;
}

static u32 page_capabilities(const struct ata_drive *d, u8 *out)
{
	out[0] = 0x2a;
	out[1] = 20;
	out[2] = 0x3b;				   /* reads CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM */
	out[4] = 0x70;				   /* mode 2 forms 1 and 2, multisession */
	out[6] = (u8)(0x29 | (d->locked ? 2 : 0)); /* tray, eject, lock */
	store_be16(out + 8, 706 * 8);		   /* kB/s */
	store_be16(out + 10, 2);		   /* volume levels */
	store_be16(out + 12, 512);		   /* KiB of buffer */
	store_be16(out + 14, 706 * 8);
	return 22;
}

static u8 medium_type(const struct ata_drive *d)
{
	if (d->tray_open)
		return 0x71;
	return atapi_has_medium(d) ? 0x01 : 0x70;
}

/* Pages wanted at out; 0: no such page.  Changeable values: none. */
static u32 put_pages(const struct ata_drive *d, u8 page, bool changeable, u8 *out)
{
	u32 n = 0;

	if (page == 0x01 || page == 0x3f)
		n += page_error_recovery(out + n);
	if (page == 0x1a || page == 0x3f)
		n += page_power(out + n);
	if (page == 0x2a || page == 0x3f)
		n += page_capabilities(d, out + n);
	for (u32 at = 0; changeable && at < n; at += 2u + out[at + 1])
		memset(out + at + 2, 0, out[at + 1]);
	return n;
}

u32 atapi_mode_sense(const struct ata_drive *d, const u8 *cdb, u8 *out)
{
	bool six = cdb[0] == 0x1a;
	u32 head = six ? 4 : 8;
	u32 n = put_pages(d, cdb[2] & 0x3f, cdb[2] >> 6 == 1, out + head);

	if (n == 0)
		return 0;
	n += head;
	if (six) {
		out[0] = (u8)(n - 1);
		out[1] = medium_type(d);
	} else {
		store_be16(out, (u16)(n - 2));
		out[2] = medium_type(d);
	}
	return n;
}
