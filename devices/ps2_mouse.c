/* PS/2 mouse: commands, the plain, wheel and five-button packets.
 * IBM PS/2 Hardware Interface Technical Reference, "Mouse"; Microsoft's IntelliMouse
 * extension: sample rates 200, 100, 80 in a row make it a wheel mouse (ID 3), 200,
 * 200, 80 then one with five buttons (ID 4).
 *
 * Movement is summed up until there is room to send it, so that a slow guest gets
 * fewer and longer steps.  Thread: under the i8042's lock. */
#include "devices/ps2_internal.h"

#include <errno.h>

enum {
	MOUSE_SCALE_1_1 = 0xe6,
	MOUSE_SCALE_2_1 = 0xe7,
	MOUSE_RESOLUTION = 0xe8,
	MOUSE_STATUS = 0xe9,
	MOUSE_STREAM = 0xea,
	MOUSE_READ = 0xeb,
	MOUSE_END_WRAP = 0xec,
	MOUSE_WRAP = 0xee,
	MOUSE_REMOTE = 0xf0,
	MOUSE_IDENTIFY = 0xf2,
	MOUSE_SAMPLE_RATE = 0xf3,
	MOUSE_ENABLE = 0xf4,
	MOUSE_DISABLE = 0xf5,
	MOUSE_DEFAULTS = 0xf6,
	MOUSE_RESEND = 0xfe,
	MOUSE_RESET = 0xff,
};

#define PACKET_ONE	0x08 /* always set: finds the start of a packet */
#define PACKET_LEFT_BIT 0x10
#define PACKET_DOWN_BIT 0x20
#define MAX_STEP	255
#define MAX_WHEEL	64
#define MAX_SUM		(1 << 20) /* a guest that never reads must not overflow sums */

static void set_defaults(struct ps2_mouse *m)
{
	ps2_queue_clear(&m->queue);
	m->command = 0;
	m->sample_rate = 100;
	m->resolution = 2;
	m->enabled = false;
	m->remote = false;
	m->wrap = false;
	m->scale_2_1 = false;
	m->knocks = 0;
	m->dx = m->dy = m->wheel = 0;
}

void ps2_mouse_reset(struct ps2_mouse *m)
{
	set_defaults(m);
	m->queue.last = 0;
	m->id = 0;
	m->buttons = m->sent_buttons = 0;
}

/* --- packets -------------------------------------------------------------------- */

static s32 clamp(s32 value, s32 least, s32 most)
{
	return MIN(MAX(value, least), most);
}

static u32 make_packet(struct ps2_mouse *m, u8 packet[4])
{
	s32 dx = clamp(m->dx, -MAX_STEP, MAX_STEP), dy = clamp(m->dy, -MAX_STEP, MAX_STEP);
	s32 wheel = clamp(m->wheel, -8, 7);

	m->dx -= dx;
	m->dy -= dy;
	m->sent_buttons = m->buttons;
	packet[0] = (u8)(PACKET_ONE | (m->buttons & 7) | (dx < 0 ? PACKET_LEFT_BIT : 0) |
			 (dy < 0 ? PACKET_DOWN_BIT : 0));
	packet[1] = (u8)dx;
	packet[2] = (u8)dy;
	if (m->id == 0) {
		m->wheel = 0;
		return 3;
	}
	m->wheel -= wheel;
	packet[3] = (u8)wheel;
	if (m->id == 4) /* four bits of wheel, then buttons four and five */
		packet[3] = (u8)((wheel & 0xf) | (m->buttons & (PS2_SIDE | PS2_EXTRA)) << 1);
	return 4;
}

static bool has_news(const struct ps2_mouse *m)
{
	return m->dx || m->dy || m->wheel || m->buttons != m->sent_buttons;
}

void ps2_mouse_report(struct ps2_mouse *m)
{
	while (m->enabled && !m->remote && has_news(m) &&
	       m->queue.n_events + 4 <= PS2_EVENT_BYTES / 2) {
		u8 packet[4];
		u32 n = make_packet(m, packet);
		bool done = ps2_event(&m->queue, packet, n);

		assert(done);
	}
}

void ps2_mouse_move(struct ps2_mouse *m, s32 dx, s32 dy, s32 wheel, u32 buttons)
{
	m->dx = clamp(m->dx + clamp(dx, -MAX_SUM, MAX_SUM), -MAX_SUM, MAX_SUM);
	m->dy = clamp(m->dy - clamp(dy, -MAX_SUM, MAX_SUM), -MAX_SUM, MAX_SUM);
	m->wheel = clamp(m->wheel + clamp(wheel, -MAX_SUM, MAX_SUM), -MAX_WHEEL, MAX_WHEEL);
	m->buttons = buttons & 0x1f;
	if (m->id == 0)
		m->wheel = 0;
	ps2_mouse_report(m);
}

/* --- commands ------------------------------------------------------------------- */

/* Follow the two magic sequences: 200 100 80 and 200 200 80. */
static void knock(struct ps2_mouse *m, u8 rate)
{
	if (rate == 200 && m->knocks == 1)
		m->knocks = 3;
	else if (rate == 200)
		m->knocks = m->knocks == 3 ? 3 : 1;
	else if (rate == 100 && m->knocks == 1)
		m->knocks = 2;
	else if (rate == 80 && (m->knocks == 2 || m->knocks == 3)) {
		/* Five buttons are for those who have asked for the wheel already. */
		if (m->knocks == 2)
			m->id = 3;
		else if (m->id)
			m->id = 4;
		m->knocks = 0;
	} else
		m->knocks = 0;
}

static void parameter(struct ps2_mouse *m, u8 byte)
{
	if (m->command == MOUSE_RESOLUTION)
		m->resolution = byte & 3;
	if (m->command == MOUSE_SAMPLE_RATE) {
		m->sample_rate = byte;
		knock(m, byte);
	}
	m->command = 0;
	ps2_answer(&m->queue, PS2_ACK);
}

static void answer_status(struct ps2_mouse *m)
{
	u8 buttons = (u8)((m->buttons & PS2_LEFT ? 4 : 0) | (m->buttons & PS2_MIDDLE ? 2 : 0) |
			  (m->buttons & PS2_RIGHT ? 1 : 0));

	ps2_answer(&m->queue, (u8)(buttons | (m->scale_2_1 ? 0x10 : 0) | (m->enabled ? 0x20 : 0) |
				   (m->remote ? 0x40 : 0)));
	ps2_answer(&m->queue, m->resolution);
	ps2_answer(&m->queue, m->sample_rate);
}

static void answer_packet(struct ps2_mouse *m)
{
	u8 packet[4];
	u32 n = make_packet(m, packet);

	for (u32 i = 0; i < n; i++)
		ps2_answer(&m->queue, packet[i]);
}

/* What a command changes, and what it answers after the acknowledgement. */
static void run_command(struct ps2_mouse *m, u8 byte)
{
	if (byte == MOUSE_RESET)
		ps2_mouse_reset(m);
	if (byte == MOUSE_DEFAULTS || byte == MOUSE_DISABLE) {
		ps2_queue_clear(&m->queue);
		m->enabled = false;
	}
	if (byte == MOUSE_DEFAULTS)
		set_defaults(m);
	ps2_answer(&m->queue, PS2_ACK);
	switch (byte) {
	case MOUSE_SCALE_1_1:
	case MOUSE_SCALE_2_1: m->scale_2_1 = byte == MOUSE_SCALE_2_1; break;
	case MOUSE_RESOLUTION:
	case MOUSE_SAMPLE_RATE: m->command = byte; break;
	case MOUSE_STATUS: answer_status(m); break;
	case MOUSE_STREAM:
	case MOUSE_REMOTE: m->remote = byte == MOUSE_REMOTE; break;
	case MOUSE_READ: answer_packet(m); break;
	case MOUSE_WRAP: m->wrap = true; break;
	case MOUSE_IDENTIFY: ps2_answer(&m->queue, m->id); break;
	case MOUSE_ENABLE: m->enabled = true; break;
	case MOUSE_RESET:
		ps2_answer(&m->queue, PS2_SELF_TEST);
		ps2_answer(&m->queue, m->id);
		break;
	default: break; /* no more than the acknowledgement */
	}
}

static bool is_command(u8 byte)
{
	return (byte >= MOUSE_SCALE_1_1 && byte <= MOUSE_END_WRAP) || byte == MOUSE_WRAP ||
	       byte == MOUSE_REMOTE || (byte >= MOUSE_IDENTIFY && byte <= MOUSE_DEFAULTS) ||
	       byte == MOUSE_RESET;
}

void ps2_mouse_write(struct ps2_mouse *m, u8 byte)
{
	if (m->wrap && byte != MOUSE_END_WRAP && byte != MOUSE_RESET) {
		ps2_answer(&m->queue, byte);
		return;
	}
	m->wrap = false;
	if (m->command && !is_command(byte))
		parameter(m, byte);
	else if (byte == MOUSE_RESEND)
		ps2_answer(&m->queue, m->queue.last);
	else if (is_command(byte)) {
		m->command = 0;
		run_command(m, byte);
	} else
		ps2_answer(&m->queue, PS2_RESEND);
}

int ps2_mouse_check(const struct ps2_mouse *m, struct error *err)
{
	if (m->id != 0 && m->id != 3 && m->id != 4)
		return err_set(err, -EINVAL, "i8042: mouse id is %u, expected 0, 3 or 4", m->id);
	if (m->dx != clamp(m->dx, -MAX_SUM, MAX_SUM) || m->dy != clamp(m->dy, -MAX_SUM, MAX_SUM) ||
	    m->wheel != clamp(m->wheel, -MAX_WHEEL, MAX_WHEEL))
		return err_set(err, -EINVAL, "i8042: mouse has moved by %d, %d, %d", m->dx, m->dy,
			       m->wheel);
	return ps2_queue_check(&m->queue, "the mouse", err);
}

const struct state_field ps2_mouse_state[] = {
	STATE_STRUCT(struct ps2_mouse, queue, ps2_queue_state),
	STATE(struct ps2_mouse, command),
	STATE(struct ps2_mouse, id),
	STATE(struct ps2_mouse, knocks),
	STATE(struct ps2_mouse, sample_rate),
	STATE(struct ps2_mouse, resolution),
	STATE(struct ps2_mouse, enabled),
	STATE(struct ps2_mouse, remote),
	STATE(struct ps2_mouse, wrap),
	STATE(struct ps2_mouse, scale_2_1),
	STATE(struct ps2_mouse, buttons),
	STATE(struct ps2_mouse, sent_buttons),
	STATE(struct ps2_mouse, dx),
	STATE(struct ps2_mouse, dy),
	STATE(struct ps2_mouse, wheel),
	STATE_END,
};
