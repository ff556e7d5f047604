/* virtio-rng: entropy from the host. */
#ifndef DEVICES_VIRTIO_RNG_H
#define DEVICES_VIRTIO_RNG_H

#include "devices/device.h"

extern const struct device_class virtio_rng_class;

#endif
