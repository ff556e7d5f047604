/* 16550A serial port; see serial.c.  Class "isa-serial": iobase, irq, chardev. */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include "devices/device.h"

extern const struct device_class serial_class;

#endif
