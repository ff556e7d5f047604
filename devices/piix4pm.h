/* Power management, class "PIIX4_PM"; see piix4pm.c. */
#ifndef DEVICES_PIIX4PM_H
#define DEVICES_PIIX4PM_H

#include "devices/pci.h"

extern const struct device_class piix4pm_class;

/* The user pressed the power button: an event for the guest, no more.  Takes the
 * device's lock.  [any thread] */
void piix4pm_power_button(struct device *dev);

#endif
