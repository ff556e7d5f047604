/* virtio-net-pci: a NIC on virtqueues, served on the main thread. */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

#include "devices/device.h"

extern const struct device_class virtio_net_class;

#endif
