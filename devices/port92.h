/* System control port A; see port92.c. */
#ifndef DEVICES_PORT92_H
#define DEVICES_PORT92_H

#include "devices/device.h"

extern const struct device_class port92_class;

#endif
