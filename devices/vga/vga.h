/* VGA as others see it: the class "VGA", the text on the screen, the screen itself. */
#ifndef DEVICES_VGA_VGA_H
#define DEVICES_VGA_VGA_H

#include "devices/device.h"

extern const struct device_class vga_class;

/* The text screen as UTF-8, one line of text per row without trailing blanks, into
 * buf (cut to fit, NUL-terminated); returns the bytes.  -EINVAL: not a VGA, or it
 * shows graphics.  Takes the lock.  80x25 needs at most VGA_TEXT_BYTES. */
#define VGA_TEXT_BYTES 8192
int vga_text(struct device *dev, char *buf, size_t room);

/* What it shows, to be drawn on a display.  Lent as long as the device lives. */
struct display_source;
struct display_source *vga_display_source(struct device *dev);

#endif
