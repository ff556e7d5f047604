/* i8042 keyboard controller with a PS/2 keyboard and mouse; see ps2.c. */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include "devices/device.h"

extern const struct device_class i8042_class;

/* A key went down or up.  keycode: the set-1 make code, with 0x80 added for keys
 * that have an E0 prefix (0xc6 is Pause, 0xb7 Print Screen).  0, or -EINVAL: there is
 * no such key; -EBUSY: the guest does not take keys, or too many wait.  [any thread] */
int ps2_key(struct device *dev, u32 keycode, bool pressed);

/* The mouse moved (right and down are positive), its wheel turned (towards the user
 * is positive), or its buttons changed.  0, or -EBUSY: the guest has no use for it.
 * [any thread] */
#define PS2_LEFT   0x01
#define PS2_RIGHT  0x02
#define PS2_MIDDLE 0x04
#define PS2_SIDE   0x08
#define PS2_EXTRA  0x10
int ps2_mouse(struct device *dev, s32 dx, s32 dy, s32 wheel, u32 buttons);
/* Is there a driver for the mouse that has switched its reports on?  [any thread] */
bool ps2_mouse_is_on(struct device *dev);

#endif
