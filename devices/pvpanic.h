/* pvpanic port; see pvpanic.c.  Class "pvpanic": ioport, events. */
#ifndef DEVICES_PVPANIC_H
#define DEVICES_PVPANIC_H

#include "devices/device.h"

extern const struct device_class pvpanic_class;

#endif
