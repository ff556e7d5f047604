/* virtio-blk-pci: a drive on virtqueues, served on the drive's own thread. */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "devices/device.h"

extern const struct device_class virtio_blk_class;

#endif
