/* i8042 controller: ports 0x60 and 0x64, keyboard on IRQ 1, mouse on IRQ 12.
 * IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
 * Controller".
 *
 * The output buffer holds one byte; the next one of whoever waits (the controller
 * itself, the keyboard, the mouse: in this order) is put there as soon as the guest
 * has read it.  With translation on, the keyboard's set-2 codes become set 1 on the
 * way, F0 prefixes becoming bit 7.
 * Thread: handlers, and keys and movements from outside, under the device's lock. */
#include "devices/ps2.h"

#include "base/log.h"
#include "devices/ps2_internal.h"

#include <errno.h>

#define STATUS_OBF     0x01
#define STATUS_SYSTEM  0x04 /* self test passed */
#define STATUS_COMMAND 0x08 /* the last write was to port 0x64 */
#define STATUS_UNLOCK  0x10 /* keyboard lock switch: open */
#define STATUS_AUX     0x20 /* the byte in the output buffer is the mouse's */

#define MODE_KBD_IRQ   0x01
#define MODE_AUX_IRQ   0x02
#define MODE_SYSTEM    0x04
#define MODE_NO_KBD    0x10
#define MODE_NO_AUX    0x20
#define MODE_TRANSLATE 0x40

#define OUT_RESET 0x01 /* low: reset */
#define OUT_A20	  0x02

enum {
	CMD_READ_RAM = 0x20,  /* to 3f */
	CMD_WRITE_RAM = 0x60, /* to 7f */
	CMD_DISABLE_AUX = 0xa7,
	CMD_ENABLE_AUX = 0xa8,
	CMD_TEST_AUX = 0xa9,
	CMD_SELF_TEST = 0xaa,
	CMD_TEST_KBD = 0xab,
	CMD_DISABLE_KBD = 0xad,
	CMD_ENABLE_KBD = 0xae,
	CMD_READ_INPUT = 0xc0,
	CMD_READ_OUTPUT = 0xd0,
	CMD_WRITE_OUTPUT = 0xd1,
	CMD_WRITE_KBD_BUFFER = 0xd2,
	CMD_WRITE_AUX_BUFFER = 0xd3,
	CMD_WRITE_AUX = 0xd4,
	CMD_A20_OFF = 0xdd,
	CMD_A20_ON = 0xdf,
	CMD_PULSE = 0xf0, /* to ff: bits 0-3 that are clear pulse low */
};

enum { FROM_CONTROLLER, FROM_KEYBOARD, FROM_MOUSE };

struct i8042 {
	struct device dev;
	struct bus_region *data_port, *command_port; /* [const] */
	struct irq_line kbd_line, aux_line;	     /* level under [dev.lock] */

	/* [dev.lock] */
	struct ps2_keyboard keyboard;
	struct ps2_mouse mouse;
	u8 ram[32]; /* byte 0 is the mode, also called command byte */
	u8 output_port;
	u8 status;  /* without STATUS_OBF and STATUS_AUX */
	u8 command; /* waits for its byte on port 0x60; 0: none */
	bool full;  /* output buffer */
	u8 buffer;  /* the byte in it, or the last one that was */
	u8 source;  /* where it came from */
	u8 reply;   /* of the controller, and whose line it is to raise */
	bool has_reply, reply_is_aux;
	u8 held; /* a device's byte that a reply took the buffer from */
	u8 held_source;
	bool has_held;
	bool broke; /* an F0 was swallowed: the next code gets bit 7 */
};

/* --- queues --------------------------------------------------------------------- */

void ps2_queue_clear(struct ps2_queue *q)
{
	q->n_answers = 0;
	q->n_events = 0;
	/* What lies behind the end is saved, too: let it be the same everywhere. */
	memset(q->answers, 0, sizeof(q->answers));
	memset(q->events, 0, sizeof(q->events));
}

/* A guest that never reads its answers loses the newest. */
void ps2_answer(struct ps2_queue *q, u8 byte)
{
	if (q->n_answers < PS2_ANSWER_BYTES)
		q->answers[q->n_answers++] = byte;
}

bool ps2_event(struct ps2_queue *q, const u8 *bytes, u32 n)
{
	if (q->n_events + n > PS2_EVENT_BYTES)
		return false;
	if (n)
		memcpy(q->events + q->n_events, bytes, n);
	q->n_events += n;
	return true;
}

bool ps2_queue_is_empty(const struct ps2_queue *q)
{
	return !q->n_answers && !q->n_events;
}

static u8 shift(u8 *bytes, u32 *n)
{
	u8 first = bytes[0];

	memmove(bytes, bytes + 1, --*n);
	bytes[*n] = 0;
	return first;
}

u8 ps2_queue_take(struct ps2_queue *q)
{
	assert(!ps2_queue_is_empty(q));
	q->last = q->n_answers ? shift(q->answers, &q->n_answers) : shift(q->events, &q->n_events);
	return q->last;
}

int ps2_queue_check(const struct ps2_queue *q, const char *name, struct error *err)
{
	if (q->n_answers > PS2_ANSWER_BYTES || q->n_events > PS2_EVENT_BYTES)
		return err_set(err, -EINVAL,
			       "i8042: %s's queue holds %u and %u bytes, at most %u "
			       "and %u fit",
			       name, q->n_answers, q->n_events, PS2_ANSWER_BYTES, PS2_EVENT_BYTES);
	return 0;
}

const struct state_field ps2_queue_state[] = {
	STATE_ARRAY(struct ps2_queue, answers), STATE_ARRAY(struct ps2_queue, events),
	STATE(struct ps2_queue, n_answers),	STATE(struct ps2_queue, n_events),
	STATE(struct ps2_queue, last),		STATE_END,
};

/* --- the output buffer ---------------------------------------------------------- */

static u8 mode(const struct i8042 *c)
{
	return c->ram[0];
}

static bool buffer_is_aux(const struct i8042 *c)
{
	return c->source == FROM_MOUSE || (c->source == FROM_CONTROLLER && c->reply_is_aux);
}

static void update_irqs(struct i8042 *c)
{
	bool aux = buffer_is_aux(c);

	irq_line_set(&c->kbd_line, c->full && !aux && (mode(c) & MODE_KBD_IRQ));
	irq_line_set(&c->aux_line, c->full && aux && (mode(c) & MODE_AUX_IRQ));
}

static void put_buffer(struct i8042 *c, u8 byte, u8 source)
{
	c->full = true;
	c->buffer = byte;
	c->source = source;
}

/* The keyboard's next byte, translated; false: it was a prefix, or there is none. */
static bool take_keyboard(struct i8042 *c, u8 *byte)
{
	while (!ps2_queue_is_empty(&c->keyboard.queue)) {
		*byte = ps2_queue_take(&c->keyboard.queue);
		if (!(mode(c) & MODE_TRANSLATE)) {
			c->broke = false;
			return true;
		}
		if (*byte == 0xf0) {
			c->broke = true;
			continue;
		}
		*byte = ps2_translate(*byte);
		if (c->broke)
			*byte |= 0x80;
		c->broke = false;
		return true;
	}
	return false;
}

static void fill_buffer(struct i8042 *c)
{
	u8 byte;

	if (!c->full && c->has_reply) {
		c->has_reply = false;
		put_buffer(c, c->reply, FROM_CONTROLLER);
	}
	if (!c->full && c->has_held) {
		c->has_held = false;
		put_buffer(c, c->held, c->held_source);
	}
	if (!c->full && !(mode(c) & MODE_NO_KBD) && take_keyboard(c, &byte))
		put_buffer(c, byte, FROM_KEYBOARD);
	ps2_mouse_report(&c->mouse);
	if (!c->full && !(mode(c) & MODE_NO_AUX) && !ps2_queue_is_empty(&c->mouse.queue))
		put_buffer(c, ps2_queue_take(&c->mouse.queue), FROM_MOUSE);
	update_irqs(c);
}

/* The guest that asked the controller waits for its answer: a device's byte that is
 * in the buffer comes again afterwards. */
static void reply(struct i8042 *c, u8 byte, bool aux)
{
	if (c->full && c->source != FROM_CONTROLLER) {
		c->held = c->buffer;
		c->held_source = c->source;
		c->has_held = true;
	}
	c->reply = byte;
	c->reply_is_aux = aux;
	c->has_reply = true;
	c->full = false;
	update_irqs(c);
	fill_buffer(c);
}

/* --- commands ------------------------------------------------------------------- */

static void write_output_port(struct i8042 *c, u8 value)
{
	c->output_port = value;
	__atomic_store_n(&c->dev.machine->a20, (value & OUT_A20) != 0, __ATOMIC_RELAXED);
	if (!(value & OUT_RESET))
		machine_request(c->dev.machine, MACHINE_RESET, 0);
}

static u8 read_output_port(const struct i8042 *c)
{
	u8 value = c->output_port & 0x0f;

	if (c->full)
		value |= buffer_is_aux(c) ? 0x20 : 0x10;
	return value;
}

static void set_mode_bit(struct i8042 *c, u8 bit, bool on)
{
	c->ram[0] = on ? c->ram[0] | bit : c->ram[0] & (u8)~bit;
	fill_buffer(c);
}

static void self_test(struct i8042 *c)
{
	c->status |= STATUS_SYSTEM;
	c->ram[0] |= MODE_SYSTEM;
	reply(c, 0x55, false);
}

static void run_command(struct i8042 *c, u8 command)
{
	switch (command) {
	case CMD_WRITE_OUTPUT:
	case CMD_WRITE_KBD_BUFFER:
	case CMD_WRITE_AUX_BUFFER:
	case CMD_WRITE_AUX: c->command = command; break;
	case CMD_DISABLE_AUX: set_mode_bit(c, MODE_NO_AUX, true); break;
	case CMD_ENABLE_AUX: set_mode_bit(c, MODE_NO_AUX, false); break;
	case CMD_TEST_AUX:
	case CMD_TEST_KBD: reply(c, 0x00, false); break;
	case CMD_SELF_TEST: self_test(c); break;
	case CMD_DISABLE_KBD: set_mode_bit(c, MODE_NO_KBD, true); break;
	case CMD_ENABLE_KBD: set_mode_bit(c, MODE_NO_KBD, false); break;
	case CMD_READ_INPUT: reply(c, 0x80, false); break;
	case CMD_READ_OUTPUT: reply(c, read_output_port(c), false); break;
	case CMD_A20_OFF: write_output_port(c, (c->output_port & (u8)~OUT_A20) | OUT_RESET); break;
	case CMD_A20_ON: write_output_port(c, c->output_port | OUT_A20 | OUT_RESET); break;
	default: dev_guest_error(&c->dev, "unknown command 0x%02x", command); break;
	}
}

static void start_command(struct i8042 *c, u8 command)
{
	TRACE(TRACE_PS2, "command 0x%02x", command);
	c->command = 0;
	c->status |= STATUS_COMMAND;
	if (command >= CMD_PULSE) {
		if (!(command & OUT_RESET)) /* bit 0 pulses low: the reset line */
			machine_request(c->dev.machine, MACHINE_RESET, 0);
	} else if (command >= CMD_WRITE_RAM && command < CMD_WRITE_RAM + 32) {
		c->command = command;
	} else if (command >= CMD_READ_RAM && command < CMD_READ_RAM + 32) {
		reply(c, c->ram[command - CMD_READ_RAM], false);
	} else {
		run_command(c, command);
	}
}

static void write_data(struct i8042 *c, u8 byte)
{
	u8 command = c->command;

	TRACE(TRACE_PS2, "data 0x%02x for command 0x%02x", byte, command);
	c->command = 0;
	c->status &= (u8)~STATUS_COMMAND;
	switch (command) {
	case 0: /* talking to a device switches its line on */
		ps2_keyboard_write(&c->keyboard, byte);
		set_mode_bit(c, MODE_NO_KBD, false);
		break;
	case CMD_WRITE_AUX:
		ps2_mouse_write(&c->mouse, byte);
		set_mode_bit(c, MODE_NO_AUX, false);
		break;
	case CMD_WRITE_OUTPUT: write_output_port(c, byte); break;
	case CMD_WRITE_KBD_BUFFER: reply(c, byte, false); break;
	case CMD_WRITE_AUX_BUFFER: reply(c, byte, true); break;
	default:
		c->ram[(command - CMD_WRITE_RAM) % sizeof(c->ram)] = byte;
		if (command == CMD_WRITE_RAM)
			c->status = (u8)((c->status & ~STATUS_SYSTEM) | (byte & MODE_SYSTEM));
		fill_buffer(c);
		break;
	}
}

/* --- ports ---------------------------------------------------------------------- */

static u64 data_read(void *owner, u64 off, unsigned size)
{
	struct i8042 *c = owner;
	u8 byte = c->buffer;

	/* Down and up again, so that edge-triggered lines see each byte. */
	c->full = false;
	update_irqs(c);
	fill_buffer(c);
	return byte;
}

static void data_write(void *owner, u64 off, unsigned size, u64 value)
{
	write_data(owner, (u8)value);
}

static u64 command_read(void *owner, u64 off, unsigned size)
{
	const struct i8042 *c = owner;
	u8 status = c->status | STATUS_UNLOCK;

	if (c->full)
		status |= STATUS_OBF | (buffer_is_aux(c) ? STATUS_AUX : 0);
	return status;
}

static void command_write(void *owner, u64 off, unsigned size, u64 value)
{
	start_command(owner, (u8)value);
}

static const struct bus_ops data_ops = {data_read, data_write, 1, 1};
static const struct bus_ops command_ops = {command_read, command_write, 1, 1};

/* --- from outside --------------------------------------------------------------- */

static struct i8042 *i8042_of(struct device *dev)
{
	assert(dev->cls == &i8042_class);
	return container_of(dev, struct i8042, dev);
}

int ps2_key(struct device *dev, u32 keycode, bool pressed)
{
	struct i8042 *c = i8042_of(dev);
	int ret;

	LOCK_SCOPE(&dev->lock);
	ret = ps2_keyboard_key(&c->keyboard, keycode, pressed);
	fill_buffer(c);
	return ret;
}

int ps2_mouse(struct device *dev, s32 dx, s32 dy, s32 wheel, u32 buttons)
{
	struct i8042 *c = i8042_of(dev);

	LOCK_SCOPE(&dev->lock);
	if (!c->mouse.enabled)
		return -EBUSY;
	ps2_mouse_move(&c->mouse, dx, dy, wheel, buttons);
	fill_buffer(c);
	return 0;
}

bool ps2_mouse_is_on(struct device *dev)
{
	LOCK_SCOPE(&dev->lock);
	return i8042_of(dev)->mouse.enabled;
}

static int move(struct device *dev, const struct input_move *m)
{
	return ps2_mouse(dev, m->x, m->y, m->wheel, m->buttons);
}

/* As the keyboard has them: scroll, number, capitals, from bit 0 on. */
static u32 leds(struct device *dev)
{
	LOCK_SCOPE(&dev->lock);
	return i8042_of(dev)->keyboard.leds;
}

static bool keyboard_is_on(struct device *dev)
{
	LOCK_SCOPE(&dev->lock);
	return i8042_of(dev)->keyboard.scanning;
}

const struct input_ops ps2_keyboard_input = {
	.name = "PS/2 Keyboard", .key = ps2_key, .is_on = keyboard_is_on, .leds = leds};
const struct input_ops ps2_mouse_input = {
	.name = "PS/2 Mouse", .move = move, .is_on = ps2_mouse_is_on};

/* --- the device ------------------------------------------------------------------ */

static int i8042_init(struct device *dev, struct error *err)
{
	struct i8042 *c = i8042_of(dev);
	int ret;

	irq_line_init(&c->kbd_line, dev->machine->irq, 1);
	irq_line_init(&c->aux_line, dev->machine->irq, 12);
	ret = dev_map_pio(dev, &c->data_port, 0x60, 1, &data_ops, err);
	if (ret == 0)
		ret = dev_map_pio(dev, &c->command_port, 0x64, 1, &command_ops, err);
	if (ret < 0)
		bus_unmap(c->data_port);
	return ret;
}

static void i8042_reset(struct device *dev)
{
	struct i8042 *c = i8042_of(dev);

	ps2_keyboard_reset(&c->keyboard);
	ps2_mouse_reset(&c->mouse);
	memset(c->ram, 0, sizeof(c->ram));
	c->ram[0] = MODE_KBD_IRQ | MODE_AUX_IRQ;
	c->output_port = OUT_RESET | OUT_A20 | 0x0c;
	c->status = 0;
	c->command = 0;
	c->buffer = c->source = c->reply = c->held = c->held_source = 0;
	c->full = c->has_reply = c->reply_is_aux = c->has_held = c->broke = false;
	update_irqs(c);
}

static void i8042_fini(struct device *dev)
{
	struct i8042 *c = i8042_of(dev);

	irq_line_set(&c->kbd_line, false);
	irq_line_set(&c->aux_line, false);
	bus_unmap(c->data_port);
	bus_unmap(c->command_port);
}

static int i8042_state_check(const void *loaded, struct error *err)
{
	const struct i8042 *c = loaded;
	int ret = ps2_keyboard_check(&c->keyboard, err);

	if (ret == 0)
		ret = ps2_mouse_check(&c->mouse, err);
	if (ret < 0)
		return ret;
	if (c->source > FROM_MOUSE || c->held_source > FROM_MOUSE)
		return err_set(err, -EINVAL, "i8042: sources are %u and %u, expected 0..2",
			       c->source, c->held_source);
	return 0;
}

static void i8042_post_load(struct device *dev)
{
	update_irqs(i8042_of(dev));
}

static const struct state_field i8042_state[] = {
	STATE_STRUCT(struct i8042, keyboard, ps2_keyboard_state),
	STATE_STRUCT(struct i8042, mouse, ps2_mouse_state),
	STATE_ARRAY(struct i8042, ram),
	STATE(struct i8042, output_port),
	STATE(struct i8042, status),
	STATE(struct i8042, command),
	STATE(struct i8042, full),
	STATE(struct i8042, buffer),
	STATE(struct i8042, source),
	STATE(struct i8042, reply),
	STATE(struct i8042, has_reply),
	STATE(struct i8042, reply_is_aux),
	STATE(struct i8042, held),
	STATE(struct i8042, held_source),
	STATE(struct i8042, has_held),
	STATE(struct i8042, broke),
	STATE_END,
};

const struct device_class i8042_class = {
	.name = "i8042",
	.help = "keyboard controller with PS/2 keyboard and mouse",
	.size = sizeof(struct i8042),
	.bus = DEVICE_ON_BOARD,
	.init = i8042_init,
	.reset = i8042_reset,
	.fini = i8042_fini,
	.state = i8042_state,
	.state_check = i8042_state_check,
	.post_load = i8042_post_load,
};
