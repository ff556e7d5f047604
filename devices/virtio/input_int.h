/* virtio-input: the device and the tables of what each kind can say. */
#ifndef DEVICES_VIRTIO_INPUT_INT_H
#define DEVICES_VIRTIO_INPUT_INT_H

#include "devices/virtio/input.h"
#include "devices/virtio/served.h"

/* Types and codes of events, as Linux counts them. */
enum { EV_SYN = 0, EV_KEY = 1, EV_REL = 2, EV_ABS = 3, EV_LED = 0x11, EV_REP = 0x14 };
enum { AXIS_X = 0, AXIS_Y = 1, REL_WHEEL = 8 };
enum { LED_NUM = 0, LED_CAPS = 1, LED_SCROLL = 2 };
enum { BTN_LEFT = 0x110, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA };

#define VINPUT_QUEUE	    64 /* events that wait for the driver */
#define VINPUT_EVENT_BYTES  8
#define VINPUT_CONFIG_BYTES 136

struct vinput_event {
	u16 type, code;
	u32 value;
};

struct virtio_input {
	struct virtio_pci vp;
	struct virtio_served served;
	char *prop_serial; /* [const] */
	/* [dev.lock] all saved */
	u8 select, subsel; /* of the configuration */
	u8 leds;	   /* as INPUT_LED_* */
	u32 buttons;	   /* as the driver knows them */
	u32 n_events;
	struct vinput_event events[VINPUT_QUEUE]; /* oldest first */
};

/* What a kind of device is. */
struct vinput_kind {
	const char *name;
	u16 product;
	u32 class_code; /* PCI */
	bool keys;	/* of a keyboard, with lights */
	bool absolute;
};
const struct vinput_kind *vinput_kind_of(const struct device *dev);

/* input_config.c: fill in what `select` and `subsel` ask for. */
void vinput_config(const struct virtio_input *v, u8 *config);
/* The code of a key (set 1, 0x80 for E0 keys); 0: there is none. */
u16 vinput_key_code(u32 keycode);

#endif
