/* Who gets what people type and point at.
 *
 * Displays and the monitor put events in; devices that take them (PS/2, virtio) are
 * entered while the machine is built.  Events go to the newest device of their kind
 * whose driver listens, a chosen mouse first.  While the machine stands still events
 * are dropped, as a guest would lose them.  [any thread] after building */
#ifndef DEVICES_INPUT_INPUT_H
#define DEVICES_INPUT_INPUT_H

#include "base/base.h"
#include "base/list.h"

struct device;
struct input;

/* Buttons, as in ps2.h. */
#define INPUT_LEFT   0x01
#define INPUT_RIGHT  0x02
#define INPUT_MIDDLE 0x04
#define INPUT_SIDE   0x08
#define INPUT_EXTRA  0x10

#define INPUT_LED_SCROLL 0x01
#define INPUT_LED_NUM	 0x02
#define INPUT_LED_CAPS	 0x04

/* Absolute places count from 0 to this on both axes. */
#define INPUT_RANGE 0x7fff

struct input_move {
	bool absolute;
	s32 x, y;    /* a place, or steps: right and down are positive */
	s32 wheel;   /* towards the user is positive */
	u32 buttons; /* held now */
};

/* What a device can take; NULL: not that. */
struct input_ops {
	const char *name; /* as `info mice` shows it */
	bool absolute;	  /* its move takes places */
	/* keycode: the set-1 code, with 0x80 for E0 keys; -EINVAL: no such key. */
	int (*key)(struct device *dev, u32 keycode, bool pressed);
	int (*move)(struct device *dev, const struct input_move *m);
	bool (*is_on)(struct device *dev); /* a driver listens */
	u32 (*leds)(struct device *dev);   /* of a keyboard */
};

struct input *input_new(void);
void input_free(struct input *in);
/* Both are kept; numbered from 1 in this order. */
void input_add(struct input *in, struct device *dev, const struct input_ops *ops);
/* Let events through, or drop them: while the machine runs, and while not. */
void input_enable(struct input *in, bool on);

int input_key(struct input *in, u32 keycode, bool pressed);
/* Would a place go to a device that takes it?  Steps go to one that takes those. */
bool input_is_absolute(struct input *in);
void input_move(struct input *in, const struct input_move *m);
u32 input_leds(struct input *in);

/* For the monitor.  -ENOENT: there is no such device, -EINVAL: it is no mouse, but
 * this. */
int input_choose_mouse(struct input *in, unsigned number, const struct input_ops **ops);
void input_each_mouse(struct input *in,
		      void (*fn)(void *arg, unsigned number, const struct input_ops *ops,
				 bool chosen),
		      void *arg);

#endif
