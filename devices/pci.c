/* PCI functions and their configuration space; see pci.h.
 *
 * Thread: any vCPU, with the function's lock held.  PCI Local Bus 3.0, chapter 6. */
#include "devices/pci.h"

const struct prop pci_common_props[] = {
	PROP(struct pci_dev, prop_addr, "addr", PROP_KIND_DEVFN, "auto", "slot, or slot.function"),
	PROP(struct pci_dev, prop_romfile, "romfile", PROP_KIND_STR, NULL, "expansion ROM"),
	PROP_END,
};
