/* `sendkey`: chords of named keys, held for a time, one after the other.
 * Key codes: IBM PC scan code set 1, 0x80 added for keys with the E0 prefix. */
#include "monitor/internal.h"

#include "base/thread.h"

#include <errno.h>

#define CHORD_KEYS  16
#define CHORDS_MOST 256

static const struct {
	const char *name;
	u8 code;
} keys[] = {
	{"shift", 0x2a},
	{"shift_r", 0x36},
	{"alt", 0x38},
	{"alt_r", 0xb8},
	{"ctrl", 0x1d},
	{"ctrl_r", 0x9d},
	{"menu", 0xdd},
	{"esc", 0x01},
	{"1", 0x02},
	{"2", 0x03},
	{"3", 0x04},
	{"4", 0x05},
	{"5", 0x06},
	{"6", 0x07},
	{"7", 0x08},
	{"8", 0x09},
	{"9", 0x0a},
	{"0", 0x0b},
	{"minus", 0x0c},
	{"equal", 0x0d},
	{"backspace", 0x0e},
	{"tab", 0x0f},
	{"q", 0x10},
	{"w", 0x11},
	{"e", 0x12},
	{"r", 0x13},
	{"t", 0x14},
	{"y", 0x15},
	{"u", 0x16},
	{"i", 0x17},
	{"o", 0x18},
	{"p", 0x19},
	{"bracket_left", 0x1a},
	{"bracket_right", 0x1b},
	{"ret", 0x1c},
	{"a", 0x1e},
	{"s", 0x1f},
	{"d", 0x20},
	{"f", 0x21},
	{"g", 0x22},
	{"h", 0x23},
	{"j", 0x24},
	{"k", 0x25},
	{"l", 0x26},
	{"semicolon", 0x27},
	{"apostrophe", 0x28},
	{"grave_accent", 0x29},
	{"backslash", 0x2b},
	{"z", 0x2c},
	{"x", 0x2d},
	{"c", 0x2e},
	{"v", 0x2f},
	{"b", 0x30},
	{"n", 0x31},
	{"m", 0x32},
	{"comma", 0x33},
	{"dot", 0x34},
	{"slash", 0x35},
	{"asterisk", 0x37},
	{"spc", 0x39},
	{"caps_lock", 0x3a},
	{"f1", 0x3b},
	{"f2", 0x3c},
	{"f3", 0x3d},
	{"f4", 0x3e},
	{"f5", 0x3f},
	{"f6", 0x40},
	{"f7", 0x41},
	{"f8", 0x42},
	{"f9", 0x43},
	{"f10", 0x44},
	{"num_lock", 0x45},
	{"scroll_lock", 0x46},
	{"kp_divide", 0xb5},
	{"kp_multiply", 0x37},
	{"kp_subtract", 0x4a},
	{"kp_add", 0x4e},
	{"kp_enter", 0x9c},
	{"kp_decimal", 0x53},
	{"sysrq", 0x54},
	{"kp_0", 0x52},
	{"kp_1", 0x4f},
	{"kp_2", 0x50},
	{"kp_3", 0x51},
	{"kp_4", 0x4b},
	{"kp_5", 0x4c},
	{"kp_6", 0x4d},
	{"kp_7", 0x47},
	{"kp_8", 0x48},
	{"kp_9", 0x49},
	{"less", 0x56},
	{"f11", 0x57},
	{"f12", 0x58},
	{"print", 0xb7},
	{"home", 0xc7},
	{"pgup", 0xc9},
	{"pgdn", 0xd1},
	{"end", 0xcf},
	{"left", 0xcb},
	{"up", 0xc8},
	{"down", 0xd0},
	{"right", 0xcd},
	{"insert", 0xd2},
	{"delete", 0xd3},
	{"meta_l", 0xdb},
	{"meta_r", 0xdc},
	{"pause", 0xc6},
	{"ro", 0x73},
	{"compose", 0xdd},
	{"power", 0xde},
};

struct chord {
	struct list link;
	u8 codes[CHORD_KEYS];
	u32 n, hold_ms;
};

const char *key_name_match(const char *prefix, unsigned nth)
{
	for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
		if (!strncmp(keys[i].name, prefix, strlen(prefix)) && !nth--)
			return keys[i].name;
	return NULL;
}

static int key_code(const char *name, size_t bytes)
{
	char text[24];
	char *end;
	unsigned long code;

	for (unsigned i = 0; i < ARRAY_LEN(keys); i++)
		if (strlen(keys[i].name) == bytes && !memcmp(keys[i].name, name, bytes))
			return keys[i].code;
	if (bytes < 3 || bytes >= sizeof(text) || memcmp(name, "0x", 2))
		return -EINVAL;
	memcpy(text, name, bytes);
	text[bytes] = 0;
	code = strtoul(text, &end, 16);
	return *end || !code || code > 0xff ? -EINVAL : (int)code;
}

static int parse_chord(struct chord *c, const char *text, struct error *err)
{
	for (;;) {
		/* A lone "-" is the minus key, as in "ctrl--". */
		size_t n = *text == '-' ? 1 : strcspn(text, "-");
		int code = *text == '-' ? 0x0c : key_code(text, n);

		if (!strncmp(text, "<", 1) && n == 1)
			code = 0x56;
		if (code < 0)
			return err_set(err, -EINVAL, "invalid parameter: %.*s", (int)n, text);
		if (c->n == CHORD_KEYS)
			return err_set(err, -EINVAL, "too many keys in a chord, at most %u",
				       CHORD_KEYS);
		c->codes[c->n++] = (u8)code;
		text += n;
		if (!*text)
			return 0;
		text++;
	}
}

static void press_first(struct key_sender *k)
{
	struct chord *c = list_entry(k->chords.next, struct chord, link);
	struct error err;

	for (u32 i = 0; i < c->n; i++)
		vm_key(k->vm, c->codes[i], true, &err);
	loop_timer_set(&k->timer, now_ns() + (u64)c->hold_ms * NS_PER_MS);
}

static void release_first(struct key_sender *k)
{
	struct chord *c = list_entry(list_pop(&k->chords), struct chord, link);
	struct error err;

	for (u32 i = c->n; i-- > 0;)
		vm_key(k->vm, c->codes[i], false, &err);
	k->n_chords--;
	free(c);
}

static void hold_over(struct loop_timer *timer)
{
	struct key_sender *k = container_of(timer, struct key_sender, timer);

	release_first(k);
	if (!list_empty(&k->chords))
		press_first(k);
}

void key_sender_init(struct key_sender *k, struct vm *vm)
{
	k->vm = vm;
	k->n_chords = 0;
	list_init(&k->chords);
	loop_timer_init(vm_loop(vm), &k->timer, hold_over);
}

void key_sender_fini(struct key_sender *k)
{
	struct list *item;

	loop_timer_del(&k->timer);
	if (!list_empty(&k->chords))
		release_first(k);
	while ((item = list_pop(&k->chords)))
		free(list_entry(item, struct chord, link));
}

int key_sender_send(struct key_sender *k, const char *text, u32 hold_ms, struct error *err)
{
	struct chord *c;
	int ret;

	if (k->n_chords == CHORDS_MOST)
		return err_set(err, -EBUSY, "%u key presses are waiting already", CHORDS_MOST);
	c = xnew(struct chord);
	c->hold_ms = hold_ms;
	ret = parse_chord(c, text, err);
	if (ret < 0) {
		free(c);
		return ret;
	}
	list_append(&k->chords, &c->link);
	if (k->n_chords++ == 0)
		press_first(k);
	return 0;
}
