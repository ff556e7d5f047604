/* virtio-keyboard-pci, virtio-mouse-pci, virtio-tablet-pci: virtio-input devices. */
#ifndef DEVICES_VIRTIO_INPUT_H
#define DEVICES_VIRTIO_INPUT_H

#include "devices/device.h"
#include "devices/input/input.h"

extern const struct device_class virtio_keyboard_class, virtio_mouse_class, virtio_tablet_class;

/* How events get into a device of one of these classes; NULL: it is of another. */
const struct input_ops *virtio_input_ops(const struct device *dev);

#endif
