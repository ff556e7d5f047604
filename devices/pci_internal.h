/* What the files of the PCI core share: pci.c, pci_bar.c, pci_bus.c, pci_msix.c. */
#ifndef DEVICES_PCI_INTERNAL_H
#define DEVICES_PCI_INTERNAL_H

#include "devices/pci.h"

/* Header of type 0, PCI Local Bus 3.0, figure 6-1. */
enum {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CACHE_LINE = 0x0c,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_ROM_ADDRESS = 0x30,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_FIRST_CAPABILITY = 0x40,
};

#define PCI_COMMAND_IO	     0x0001
#define PCI_COMMAND_MEMORY   0x0002
#define PCI_COMMAND_MASTER   0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_COMMAND_WRITABLE 0x0547 /* these, parity response and SERR */

#define PCI_STATUS_INTERRUPT	0x08
#define PCI_STATUS_CAPABILITIES 0x10
#define PCI_STATUS_CLEARABLE	0xf900

#define PCI_MULTIFUNCTION 0x80
#define PCI_UNMAPPED	  UINT64_MAX

/* Make what is mapped agree with command and BAR registers.  Function's lock held. */
void pci_update_bars(struct pci_dev *pd);
void pci_unmap_bars(struct pci_dev *pd);

/* Configuration cycles of one function, with its lock held; off + size <= 256. */
u32 pci_dev_config_read(struct pci_dev *pd, u8 off, unsigned size);
void pci_dev_config_write(struct pci_dev *pd, u8 off, unsigned size, u32 value);

int pci_bus_add(struct pci_bus *bus, struct pci_dev *pd, struct error *err);
void pci_bus_remove(struct pci_bus *bus, struct pci_dev *pd);

/* Vectors disabled, masked and not pending; make enable and mask agree with the
 * capability and send what is no longer held back.  No-ops without MSI-X. */
void pci_msix_reset(struct pci_dev *pd);
void pci_msix_update(struct pci_dev *pd);
void pci_msix_fini(struct pci_dev *pd);

#endif
