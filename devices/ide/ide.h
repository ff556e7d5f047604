/* IDE as the machine sees it: the PIIX3 function and the drives on it.
 *
 * Classes "piix3-ide" (on the PCI bus, parent: the host bridge), "ide-hd" and
 * "ide-cd" (parent: the IDE function). */
#ifndef DEVICES_IDE_IDE_H
#define DEVICES_IDE_IDE_H

#include "devices/device.h"

extern const struct device_class piix_ide_class, ide_hd_class, ide_cd_class;

/* Put a drive on channel 0 or 1 as unit 0 or 1, as -hda..-hdd and -cdrom do; its
 * device is named ide0-hd0, ide1-cd0, ...  The blk stays the caller's and must
 * outlive the device.  serial may be NULL.  -EBUSY: the place is taken. */
struct ide_place {
	unsigned channel, unit;
	bool cdrom;
	const char *serial;
	s32 bootindex; /* -1: none */
};
int piix_ide_attach(struct device *ide, const struct ide_place *place, struct blk *blk,
		    struct device **out, struct error *err);

/* For boot order and `info block`: where a drive device sits; false: not a drive. */
bool ide_drive_place(const struct device *dev, unsigned *channel, unsigned *unit);
/* Tray and lock of an ide-cd device (takes its controller's lock); false: no CD. */
bool ide_cd_tray(struct device *dev, bool *open, bool *locked);
/* The host opens it, locked or not; or asks the guest to (as the drive's button does). */
void ide_cd_open_tray(struct device *dev);
void ide_cd_ask_for_eject(struct device *dev);

#endif
