/* virtio-serial: the controller, and the ports on it. */
#ifndef DEVICES_VIRTIO_SERIAL_H
#define DEVICES_VIRTIO_SERIAL_H

#include "devices/device.h"

extern const struct device_class virtio_serial_class, virtserialport_class, virtconsole_class;

#endif
