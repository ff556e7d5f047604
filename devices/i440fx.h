/* The chipset's host bridge, class "i440FX": made first, parent of PCI devices. */
#ifndef DEVICES_I440FX_H
#define DEVICES_I440FX_H

#include "devices/pci.h"

extern const struct device_class i440fx_class;

#endif
