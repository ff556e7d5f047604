/* The PCI-ISA bridge, class "PIIX3"; see piix3.c. */
#ifndef DEVICES_PIIX3_H
#define DEVICES_PIIX3_H

#include "devices/pci.h"

extern const struct device_class piix3_class;

#endif
