/* Ports for debug messages and for ending a test; see debug.c. */
#ifndef DEVICES_DEBUG_H
#define DEVICES_DEBUG_H

#include "devices/device.h"

extern const struct device_class debugcon_class, debug_exit_class;

#endif
