/* PS/2 keyboard: commands, scan code sets 1, 2 and 3.
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-key)".
 *
 * Keys repeat on the host, so there is no typematic delay here.  Set 3's types of
 * keys (make only, typematic) are acknowledged; every key says both make and break.
 * Thread: under the i8042's lock. */
#include "devices/ps2_internal.h"

#include <errno.h>

enum {
	KBD_SET_LEDS = 0xed,
	KBD_ECHO = 0xee,
	KBD_SCAN_SET = 0xf0,
	KBD_IDENTIFY = 0xf2,
	KBD_SET_RATE = 0xf3,
	KBD_ENABLE = 0xf4,
	KBD_DISABLE = 0xf5,
	KBD_DEFAULTS = 0xf6,
	KBD_ALL_FIRST = 0xf7, /* to fa: type of all keys */
	KBD_ALL_LAST = 0xfa,
	KBD_KEY_FIRST = 0xfb, /* to fd: type of the key that follows */
	KBD_KEY_LAST = 0xfd,
	KBD_RESEND = 0xfe,
	KBD_RESET = 0xff,
};

#define DEFAULT_RATE 0x2b /* 10.9 characters a second after half a second */
#define BREAK	     0xf0
#define EXTENDED     0xe0

#define KEY_E0		 0x80 /* flag in key codes */
#define KEY_PRINT_SCREEN 0xb7
#define KEY_PAUSE	 0xc6

/* Set-2 code to set-1 code, as the 8042 translates; from 0x80 on only the two named
 * in ps2_translate differ. */
static const u8 to_set1[128] = {
	0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29,
	0x59, 0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11,
	0x03, 0x5b, 0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14,
	0x13, 0x06, 0x5d, 0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24,
	0x16, 0x08, 0x09, 0x5f, 0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35,
	0x26, 0x27, 0x19, 0x0c, 0x61, 0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36,
	0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76, 0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c,
	0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f, 0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45,
	0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
};

/* Keys whose set-3 code is not their set-2 code, by key code. */
static const struct {
	u8 key, set3;
} set3_codes[] = {
	{0x01, 0x08}, {0x3b, 0x07}, {0x3c, 0x0f}, {0x3d, 0x17}, {0x3e, 0x1f}, {0x3f, 0x27},
	{0x40, 0x2f}, {0x41, 0x37}, {0x42, 0x3f}, {0x43, 0x47}, {0x44, 0x4f}, {0x57, 0x56},
	{0x58, 0x5e}, {0xb7, 0x57}, {0x46, 0x5f}, {0xc6, 0x62}, {0x2b, 0x5c}, {0x3a, 0x14},
	{0x1d, 0x11}, {0x38, 0x19}, {0xb8, 0x39}, {0x9d, 0x58}, {0xd2, 0x67}, {0xd3, 0x64},
	{0xc7, 0x6e}, {0xcf, 0x65}, {0xc9, 0x6f}, {0xd1, 0x6d}, {0xc8, 0x63}, {0xcb, 0x61},
	{0xd0, 0x60}, {0xcd, 0x6a}, {0x45, 0x76}, {0xb5, 0x77}, {0x37, 0x7e}, {0x4a, 0x84},
	{0x4e, 0x7c}, {0x9c, 0x79}, {0x56, 0x13}, {0xdb, 0x8b}, {0xdc, 0x8c}, {0xdd, 0x8d},
};

u8 ps2_translate(u8 byte)
{
	if (byte < 0x80)
		return to_set1[byte];
	return byte == 0x83 ? 0x41 : byte == 0x84 ? 0x54 : byte; /* F7, SysRq */
}

/* --- key codes ------------------------------------------------------------------ */

/* Set-2 code of a set-1 code below 0x80; 0: there is none. */
static u8 set2_of(u8 set1)
{
	if (set1 == 0x41)
		return 0x83;
	if (set1 == 0x54)
		return 0x84;
	for (unsigned i = 1; i < ARRAY_LEN(to_set1); i++)
		if (to_set1[i] == set1)
			return (u8)i;
	return 0;
}

static u8 set3_of(u8 key)
{
	for (unsigned i = 0; i < ARRAY_LEN(set3_codes); i++)
		if (set3_codes[i].key == key)
			return set3_codes[i].set3;
	return key & KEY_E0 ? 0 : set2_of(key);
}

/* A growing sequence of bytes for one key event. */
struct sequence {
	u8 bytes[16];
	u32 n;
};

static void add(struct sequence *s, u8 byte)
{
	assert(s->n < sizeof(s->bytes));
	s->bytes[s->n++] = byte;
}

static void add_code(struct sequence *s, u8 scan_set, u8 set1, bool extended, bool pressed)
{
	if (extended)
		add(s, EXTENDED);
	if (scan_set == 1) {
		add(s, pressed ? set1 : set1 | 0x80);
		return;
	}
	if (!pressed)
		add(s, BREAK);
	add(s, set2_of(set1));
}

/* Pause says both make and break when it goes down, and nothing when it goes up. */
static void add_pause(struct sequence *s, u8 scan_set, bool pressed)
{
	static const u8 set1[] = {0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5};
	static const u8 set2[] = {0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77};

	for (unsigned i = 0; pressed && i < (scan_set == 1 ? sizeof(set1) : sizeof(set2)); i++)
		add(s, scan_set == 1 ? set1[i] : set2[i]);
}

/* Print Screen comes with a shift key of its own around it. */
static void add_print_screen(struct sequence *s, u8 scan_set, bool pressed)
{
	if (pressed)
		add_code(s, scan_set, 0x2a, true, true);
	add_code(s, scan_set, 0x37, true, pressed);
	if (!pressed)
		add_code(s, scan_set, 0x2a, true, false);
}

int ps2_keyboard_key(struct ps2_keyboard *k, u32 keycode, bool pressed)
{
	struct sequence s = {.n = 0};
	u8 set1 = keycode & 0x7f;

	if (keycode > 0xff || !set1 || !set2_of(set1))
		return -EINVAL;
	if (!k->scanning)
		return -EBUSY;
	if (k->scan_set == 3) {
		u8 code = set3_of((u8)keycode);

		if (!code)
			return -EINVAL;
		if (!pressed)
			add(&s, BREAK);
		add(&s, code);
	} else if (keycode == KEY_PAUSE) {
		add_pause(&s, k->scan_set, pressed);
	} else if (keycode == KEY_PRINT_SCREEN) {
		add_print_screen(&s, k->scan_set, pressed);
	} else {
		add_code(&s, k->scan_set, set1, keycode & KEY_E0, pressed);
	}
	return ps2_event(&k->queue, s.bytes, s.n) ? 0 : -EBUSY;
}

/* --- commands ------------------------------------------------------------------- */

static void set_defaults(struct ps2_keyboard *k)
{
	ps2_queue_clear(&k->queue);
	k->command = 0;
	k->rate = DEFAULT_RATE;
	k->scan_set = 2;
}

void ps2_keyboard_reset(struct ps2_keyboard *k)
{
	set_defaults(k);
	k->queue.last = 0;
	k->leds = 0;
	k->scanning = true;
}

static void parameter(struct ps2_keyboard *k, u8 byte)
{
	u8 command = k->command;

	k->command = 0;
	if (command == KBD_SCAN_SET && byte > 3) {
		ps2_answer(&k->queue, PS2_RESEND);
		return;
	}
	ps2_answer(&k->queue, PS2_ACK);
	if (command == KBD_SET_LEDS)
		k->leds = byte & 7;
	else if (command == KBD_SET_RATE)
		k->rate = byte & 0x7f;
	else if (command == KBD_SCAN_SET && byte)
		k->scan_set = byte;
	else if (command == KBD_SCAN_SET)
		ps2_answer(&k->queue, k->scan_set);
}

static void start_command(struct ps2_keyboard *k, u8 byte)
{
	switch (byte) {
	case KBD_SET_LEDS:
	case KBD_SCAN_SET:
	case KBD_SET_RATE: k->command = byte; break;
	case KBD_ENABLE:
		ps2_queue_clear(&k->queue);
		k->scanning = true;
		break;
	case KBD_DISABLE:
	case KBD_DEFAULTS:
		set_defaults(k);
		k->scanning = byte == KBD_DEFAULTS;
		break;
	case KBD_RESET: ps2_keyboard_reset(k); break;
	default: break;
	}
	ps2_answer(&k->queue, PS2_ACK);
	if (byte == KBD_RESET)
		ps2_answer(&k->queue, PS2_SELF_TEST);
	if (byte == KBD_IDENTIFY) {
		ps2_answer(&k->queue, 0xab);
		ps2_answer(&k->queue, 0x83);
	}
}

void ps2_keyboard_write(struct ps2_keyboard *k, u8 byte)
{
	if (k->command && byte < KBD_SET_LEDS) {
		parameter(k, byte);
		return;
	}
	k->command = 0; /* a command in place of a parameter starts anew */
	if (byte == KBD_ECHO)
		ps2_answer(&k->queue, KBD_ECHO);
	else if (byte == KBD_RESEND)
		ps2_answer(&k->queue, k->queue.last);
	else if (byte >= KBD_KEY_FIRST && byte <= KBD_KEY_LAST) {
		k->command = byte;
		ps2_answer(&k->queue, PS2_ACK);
	} else if (byte >= KBD_SET_LEDS && byte != 0xef && byte != 0xf1)
		start_command(k, byte);
	else
		ps2_answer(&k->queue, PS2_RESEND);
}

int ps2_keyboard_check(const struct ps2_keyboard *k, struct error *err)
{
	if (k->scan_set < 1 || k->scan_set > 3)
		return err_set(err, -EINVAL, "i8042: scan_set is %u, expected 1..3", k->scan_set);
	return ps2_queue_check(&k->queue, "the keyboard", err);
}

const struct state_field ps2_keyboard_state[] = {
	STATE_STRUCT(struct ps2_keyboard, queue, ps2_queue_state),
	STATE(struct ps2_keyboard, command),
	STATE(struct ps2_keyboard, leds),
	STATE(struct ps2_keyboard, rate),
	STATE(struct ps2_keyboard, scan_set),
	STATE(struct ps2_keyboard, scanning),
	STATE_END,
};
