/* What ps2.c, ps2_keyboard.c and ps2_mouse.c share.
 *
 * Keyboard and mouse are devices behind the controller's two serial lines: they take
 * bytes and have a queue of bytes to say.  All under the i8042 device's lock. */
#ifndef DEVICES_PS2_INTERNAL_H
#define DEVICES_PS2_INTERNAL_H

#include "devices/ps2.h"

#define PS2_ACK	      0xfa
#define PS2_RESEND    0xfe
#define PS2_SELF_TEST 0xaa /* passed */

/* Bytes to the controller: answers go before events, as on the real line, where a
 * device sends nothing of its own between a command and its answer. */
#define PS2_EVENT_BYTES	 64
#define PS2_ANSWER_BYTES 8
struct ps2_queue {
	u8 answers[PS2_ANSWER_BYTES], events[PS2_EVENT_BYTES]; /* oldest first */
	u32 n_answers, n_events;
	u8 last; /* what "resend" sends again */
};
void ps2_queue_clear(struct ps2_queue *q);
void ps2_answer(struct ps2_queue *q, u8 byte);
/* All of the bytes or none; false: no room. */
bool ps2_event(struct ps2_queue *q, const u8 *bytes, u32 n);
bool ps2_queue_is_empty(const struct ps2_queue *q);
u8 ps2_queue_take(struct ps2_queue *q);
int ps2_queue_check(const struct ps2_queue *q, const char *name, struct error *err);
extern const struct state_field ps2_queue_state[];

struct ps2_keyboard {
	struct ps2_queue queue;
	u8 command; /* waits for its parameter; 0: none */
	u8 leds, rate, scan_set;
	bool scanning;
};
void ps2_keyboard_reset(struct ps2_keyboard *k); /* power-on */
void ps2_keyboard_write(struct ps2_keyboard *k, u8 byte);
int ps2_keyboard_check(const struct ps2_keyboard *k, struct error *err); /* loaded state */
int ps2_keyboard_key(struct ps2_keyboard *k, u32 keycode, bool pressed);
/* The controller's translation of set 2 to set 1, of one byte that is not F0. */
u8 ps2_translate(u8 byte);
extern const struct state_field ps2_keyboard_state[];

struct ps2_mouse {
	struct ps2_queue queue;
	u8 command; /* waits for its parameter; 0: none */
	u8 id;	    /* 0: plain, 3: wheel, 4: wheel and five buttons */
	u8 knocks;  /* how far into a magic sequence of sample rates */
	u8 sample_rate, resolution;
	bool enabled, remote, wrap, scale_2_1;
	u8 buttons, sent_buttons;
	s32 dx, dy, wheel; /* not yet sent; up is positive in dy */
};
void ps2_mouse_reset(struct ps2_mouse *m); /* power-on */
void ps2_mouse_write(struct ps2_mouse *m, u8 byte);
int ps2_mouse_check(const struct ps2_mouse *m, struct error *err); /* loaded state */
void ps2_mouse_move(struct ps2_mouse *m, s32 dx, s32 dy, s32 wheel, u32 buttons);
/* Put what has not been sent into the queue, as far as there is room. */
void ps2_mouse_report(struct ps2_mouse *m);
extern const struct state_field ps2_mouse_state[];

#endif
