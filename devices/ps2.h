/* i8042 keyboard controller with a PS/2 keyboard and mouse; see ps2.c. */
#ifndef DEVICES_PS2_H
#define DEVICES_PS2_H

#include "devices/device.h"
#include "devices/input/input.h"

extern const struct device_class i8042_class;

/* A key went down or up.  keycode: the set-1 make code, with 0x80 added for keys
 * that have an E0 prefix (0xc6 is Pause, 0xb7 Print Screen).  0, or -EINVAL: there is
 * no such key; -EBUSY: the guest does not take keys, or too many wait.  [any thread] */
int ps2_key(struct device *dev, u32 keycode, bool pressed);

/* The mouse moved (right and down are positive), its wheel turned (towards the user
 * is positive), or its buttons changed.  0, or -EBUSY: the guest has no use for it.
 * [any thread] */
#define PS2_LEFT   INPUT_LEFT
#define PS2_RIGHT  INPUT_RIGHT
#define PS2_MIDDLE INPUT_MIDDLE
#define PS2_SIDE   INPUT_SIDE
#define PS2_EXTRA  INPUT_EXTRA
int ps2_mouse(struct device *dev, s32 dx, s32 dy, s32 wheel, u32 buttons);
/* Is there a driver for the mouse that has switched its reports on?  [any thread] */
bool ps2_mouse_is_on(struct device *dev);

/* Both as what people type and point at goes to them. */
extern const struct input_ops ps2_keyboard_input, ps2_mouse_input;

#endif
