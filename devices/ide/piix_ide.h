/* The PIIX3 IDE function as its drives see it.  Internal to ide/. */
#ifndef DEVICES_IDE_PIIX_IDE_H
#define DEVICES_IDE_PIIX_IDE_H

#include "devices/ide/bmdma.h"
#include "devices/pci.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"

struct piix_channel {
	struct piix_ide *ide; /* [const] */
	struct ata_channel ata;
	struct bmdma bm;
	struct irq_line line;
	struct bus_region *command, *control; /* [const] */
	char id[40];			      /* [const] */
};

struct piix_ide {
	struct pci_dev pci;
	struct piix_channel channels[2];
};

struct piix_ide *piix_ide_of(struct device *dev); /* asserts the class */

#endif
