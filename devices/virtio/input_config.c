/* What a virtio-input device says of itself: virtio 1.2, section 5.8.4, and its codes
 * of keys (Linux's, which are scan codes of set 1 as far as that goes).
 * Thread: any with the device's lock. */
#include "devices/virtio/input_int.h"

#include "base/bytes.h"

#define BUS_VIRTUAL 6
#define VENDOR	    0x1af4
#define DATA_BYTES  128

enum {
	CFG_ID_NAME = 0x01,
	CFG_ID_SERIAL = 0x02,
	CFG_ID_DEVIDS = 0x03,
	CFG_PROP_BITS = 0x10,
	CFG_EV_BITS = 0x11,
	CFG_ABS_INFO = 0x12,
};

/* Keys with the E0 prefix, and two whose codes differ. */
static const struct {
	u8 key, code;
} extended[] = {
	{0x54, 99},  {0x9c, 96},  {0x9d, 97},  {0xa0, 113}, {0xae, 114}, {0xb0, 115}, {0xb5, 98},
	{0xb7, 99},  {0xb8, 100}, {0xc6, 119}, {0xc7, 102}, {0xc8, 103}, {0xc9, 104}, {0xcb, 105},
	{0xcd, 106}, {0xcf, 107}, {0xd0, 108}, {0xd1, 109}, {0xd2, 110}, {0xd3, 111}, {0xdb, 125},
	{0xdc, 126}, {0xdd, 127}, {0xde, 116}, {0xdf, 142}, {0xe3, 143},
};

#define LAST_PLAIN_KEY 0x58 /* F12 */

u16 vinput_key_code(u32 keycode)
{
	for (unsigned i = 0; i < ARRAY_LEN(extended); i++)
		if (extended[i].key == keycode)
			return extended[i].code;
	return keycode <= LAST_PLAIN_KEY && keycode != 0x55 ? (u16)keycode : 0;
}

/* --- bitmaps ------------------------------------------------------------------------ */

static void set(u8 *bits, unsigned bit)
{
	assert(bit / 8 < DATA_BYTES);
	bits[bit / 8] |= (u8)(1u << bit % 8);
}

static void set_keys(u8 *bits)
{
	for (u32 key = 1; key < 0x100; key++)
		if (vinput_key_code(key))
			set(bits, vinput_key_code(key));
}

static void event_bits(const struct vinput_kind *kind, u8 type, u8 *bits)
{
	if (kind->keys && type == EV_KEY)
		set_keys(bits);
	if (kind->keys && type == EV_LED)
		bits[0] = 1 << LED_NUM | 1 << LED_CAPS | 1 << LED_SCROLL;
	if (kind->keys && type == EV_REP) /* the driver repeats: there is nothing to set */
		bits[0] = 1 << 0 | 1 << 1;
	if (kind->keys)
		return;
	for (unsigned i = 0; type == EV_KEY && i < 5; i++)
		set(bits, BTN_LEFT + i);
	if (type == EV_REL)
		set(bits, REL_WHEEL);
	if (type == (kind->absolute ? EV_ABS : EV_REL))
		bits[0] |= 1 << AXIS_X | 1 << AXIS_Y;
}

/* Bytes up to the last one that is not 0. */
static u8 used_bytes(const u8 *bits)
{
	u8 n = DATA_BYTES;

	while (n && !bits[n - 1])
		n--;
	return n;
}

/* --- the configuration ----------------------------------------------------------------- */

static u8 put_text(u8 *data, const char *text)
{
	size_t n = text ? strnlen(text, DATA_BYTES) : 0;

	if (n)
		memcpy(data, text, n);
	return (u8)n;
}

static u8 put_ids(const struct vinput_kind *kind, u8 *data)
{
	store_le16(data, BUS_VIRTUAL);
	store_le16(data + 2, VENDOR);
	store_le16(data + 4, kind->product);
	store_le16(data + 6, 1);
	return 8;
}

/* min, max, fuzz, flat, resolution */
static u8 put_axis(u8 *data)
{
	memset(data, 0, 20);
	store_le32(data + 4, INPUT_RANGE);
	return 20;
}

void vinput_config(const struct virtio_input *v, u8 *config)
{
	const struct vinput_kind *kind = vinput_kind_of(&v->vp.pd.dev);
	u8 *data = config + 8, bytes = 0;

	memset(config, 0, VINPUT_CONFIG_BYTES);
	config[0] = v->select;
	config[1] = v->subsel;
	if (v->select == CFG_EV_BITS) {
		event_bits(kind, v->subsel, data);
		bytes = used_bytes(data);
	} else if (v->select == CFG_ABS_INFO && kind->absolute && v->subsel <= AXIS_Y) {
		bytes = put_axis(data);
	} else if (v->subsel) { /* only the two above know others */
		bytes = 0;
	} else if (v->select == CFG_ID_NAME) {
		bytes = put_text(data, kind->name);
	} else if (v->select == CFG_ID_SERIAL) {
		bytes = put_text(data, v->prop_serial);
	} else if (v->select == CFG_ID_DEVIDS) {
		bytes = put_ids(kind, data);
	}
	config[2] = bytes;
}
