/* e1000: Intel's 82540EM gigabit Ethernet controller. */
#ifndef DEVICES_NET_E1000_H
#define DEVICES_NET_E1000_H

#include "devices/device.h"

extern const struct device_class e1000_class;

#endif
