/* What atapi.c (protocol and transfers) and atapi_disc.c (descriptions of drive
 * and medium) share.  The channel's lock is held. */
#ifndef DEVICES_IDE_ATAPI_H
#define DEVICES_IDE_ATAPI_H

#include "devices/ide/ata_int.h"

/* SPC/MMC sense: key, additional code, qualifier. */
#define SENSE_NOT_READY	     0x02, 0x3a
#define SENSE_BAD_OPCODE     0x05, 0x20, 0x00
#define SENSE_BAD_LBA	     0x05, 0x21, 0x00
#define SENSE_BAD_FIELD	     0x05, 0x24, 0x00
#define SENSE_CANNOT_SAVE    0x05, 0x39, 0x00
#define SENSE_REMOVAL_BARRED 0x05, 0x53, 0x02
#define ASC_MEDIUM_CHANGED   0x28
#define ASC_RESET	     0x29

enum media_event { MEDIA_NONE, MEDIA_EJECT_REQUEST, MEDIA_NEW, MEDIA_REMOVED };

bool atapi_has_medium(const struct ata_drive *d);
u32 atapi_blocks(const struct ata_drive *d); /* 0 without medium */

/* Build the answer in out (room for 512 bytes, zeroed): its bytes, or 0 when a
 * field of the packet is wrong. */
u32 atapi_inquiry(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_toc(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_configuration(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_event_status(struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_mechanism(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_disc_info(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_track_info(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_dvd_structure(const struct ata_drive *d, const u8 *cdb, u8 *out);
u32 atapi_mode_sense(const struct ata_drive *d, const u8 *cdb, u8 *out);

#endif
