/* What VNC clients do: keys, pointer, asking for pictures, showing a password.
 *
 * Keys come as X keysyms (RFC 6143, 7.5.4), or, from clients that know the QEMU
 * extended key event (pseudo-encoding -258, message 255.0), as key codes too, which
 * then count.  A character that needs another state of the shift keys than the client
 * holds gets it for the moment of its press, so that clients with another keyboard
 * than the guest's, and programs that never press shift, type what they mean.
 * Thread: the connection's. */
#include "devices/display/vnc_int.h"

#include "base/bytes.h"

#include <sys/socket.h>
#include <time.h>

#define ENC_QEMU_KEY   (-258)
#define MSG_QEMU       255
#define QEMU_KEY_BYTES 12 /* 255, 0, u16 down, u32 keysym, u32 code */
#define SHIFT_LEFT     0x2a
#define SHIFT_RIGHT    0x36

static struct vnc *vnc_of(rfbClientPtr cl)
{
	return cl->screen->screenData;
}

/* --- keys ------------------------------------------------------------------------- */

static void press(struct vnc *v, struct vnc_client *c, u8 code, bool down)
{
	if (!down && !c->held[code])
		return;
	c->held[code] = down;
	(void)input_key(v->input, code, down); /* one that the keyboard lacks is none */
	display_poke(v->display);
}

void vnc_release_keys(struct vnc_client *c)
{
	struct vnc *v = vnc_of(c->cl);

	for (unsigned code = 0; code < VNC_KEYS; code++)
		press(v, c, (u8)code, false);
	if (c->buttons) {
		const struct input_move m = {.absolute = input_is_absolute(v->input)};

		if (!m.absolute)
			input_move(v->input, &m);
	}
}

/* Press a character's key with the shift state that it needs. */
static void press_character(struct vnc *v, struct vnc_client *c, struct vnc_key key)
{
	bool caps = key.letter && input_leds(v->input) & INPUT_LED_CAPS;
	bool left = c->held[SHIFT_LEFT], right = c->held[SHIFT_RIGHT];
	bool want = key.shift != caps;

	if (want == (left || right)) {
		press(v, c, key.code, true);
		return;
	}
	if (want)
		press(v, c, SHIFT_LEFT, true);
	if (left)
		press(v, c, SHIFT_LEFT, false);
	if (right)
		press(v, c, SHIFT_RIGHT, false);
	press(v, c, key.code, true);
	if (want)
		press(v, c, SHIFT_LEFT, false);
	if (left)
		press(v, c, SHIFT_LEFT, true);
	if (right)
		press(v, c, SHIFT_RIGHT, true);
}

static void keysym(rfbBool down, rfbKeySym sym, rfbClientPtr cl)
{
	struct vnc_client *c = cl->clientData;
	struct vnc_key key = vnc_key_of(sym);

	if (!key.code)
		return;
	if (down && key.printable)
		press_character(vnc_of(cl), c, key);
	else
		press(vnc_of(cl), c, key.code, down);
}

static void release_all(rfbClientPtr cl)
{
	vnc_release_keys(cl->clientData);
}

static int leds(rfbScreenInfoPtr screen)
{
	struct vnc *v = screen->screenData;

	return (int)input_leds(v->input); /* the same bits */
}

/* --- QEMU's extended key event ------------------------------------------------------ */

static rfbBool extension_new(rfbClientPtr cl, void **data)
{
	return TRUE;
}

/* The library has one list of security types for all servers: who is asked for a password
 * here may choose to go in without one while somebody is greeted elsewhere.  That
 * connection ends here: what is in its buffer still is read, and does nothing. */
static rfbBool extension_init(rfbClientPtr cl, void *data)
{
	const struct vnc_client *c = cl->clientData;

	if (!vnc_of(cl)->wants_password || c->showed_password)
		return TRUE;
	cl->viewOnly = TRUE;
	cl->reverseConnection = TRUE; /* nor does it send others away */
	shutdown(cl->sock, SHUT_RDWR);
	return TRUE;
}

/* The answer that says we know it: an update with an empty rectangle of this kind. */
static rfbBool extension_encoding(rfbClientPtr cl, void **data, int encoding)
{
	u8 update[16] = {0, 0, 0, 1};
	int ret;

	if (encoding != ENC_QEMU_KEY)
		return FALSE;
	store_be32(update + 12, (u32)ENC_QEMU_KEY);
	pthread_mutex_lock(&cl->sendMutex);
	ret = vnc_of(cl)->lib.rfbWriteExact(cl, (const char *)update, sizeof(update));
	pthread_mutex_unlock(&cl->sendMutex);
	if (ret < 0)
		vnc_of(cl)->lib.rfbCloseClient(cl);
	return TRUE;
}

static rfbBool extension_message(rfbClientPtr cl, void *data, const rfbClientToServerMsg *msg)
{
	u8 rest[QEMU_KEY_BYTES - 1];
	u32 code;

	if (msg->type != MSG_QEMU)
		return FALSE;
	if (vnc_of(cl)->lib.rfbReadExact(cl, (char *)rest, sizeof(rest)) <= 0 || rest[0] != 0) {
		vnc_of(cl)->lib.rfbCloseClient(cl);
		return TRUE;
	}
	if (cl->viewOnly)
		return TRUE;
	code = load_be32(rest + 7);
	if (code > 0 && code < VNC_KEYS)
		press(vnc_of(cl), cl->clientData, (u8)code, rest[2] != 0);
	else
		keysym(rest[2] != 0, load_be32(rest + 3), cl);
	return TRUE;
}

/* --- the pointer ------------------------------------------------------------------- */

/* RFB: left, middle, right, wheel up, wheel down, from bit 0 on. */
static u32 buttons_of(int mask)
{
	return (mask & 1 ? INPUT_LEFT : 0u) | (mask & 2 ? INPUT_MIDDLE : 0u) |
	       (mask & 4 ? INPUT_RIGHT : 0u);
}

static s32 scaled(int at, int size)
{
	return size > 1 ? (s32)((s64)at * INPUT_RANGE / (size - 1)) : 0;
}

/* A mouse moves by what the pointer did since its last place; the first place is the
 * start of a movement only. */
static void pointer(int mask, int x, int y, rfbClientPtr cl)
{
	struct vnc_client *c = cl->clientData;
	struct vnc *v = vnc_of(cl);
	struct input_move m = {.absolute = input_is_absolute(v->input),
			       .buttons = buttons_of(mask)};

	x = MIN(MAX(x, 0), MAX(cl->screen->width - 1, 0));
	y = MIN(MAX(y, 0), MAX(cl->screen->height - 1, 0));
	if (m.absolute) {
		m.x = scaled(x, cl->screen->width);
		m.y = scaled(y, cl->screen->height);
	} else if (c->has_place) {
		m.x = x - c->x;
		m.y = y - c->y;
	}
	/* A turn of the wheel is a press and a release; the press counts. */
	m.wheel = (mask & 16 && !(c->buttons & 16)) - (mask & 8 && !(c->buttons & 8));
	c->has_place = true;
	c->x = x;
	c->y = y;
	c->buttons = (u32)mask;
	input_move(v->input, &m);
	display_poke(v->display);
}

/* --- pictures, passwords -------------------------------------------------------------- */

void vnc_asked(rfbClientPtr cl, rfbFramebufferUpdateRequestMsg *msg)
{
	struct vnc_client *c = cl->clientData;
	struct vnc *v = vnc_of(cl);

	LOCK_SCOPE(&v->lock);
	if (c->looks)
		return;
	c->looks = true;
	/* The size may have changed since the handshake. */
	if (cl->useNewFBSize)
		cl->newFBSizePending = TRUE;
	vnc_count_looks(v);
}

static rfbBool password_is_right(rfbClientPtr cl, const char *response, int bytes)
{
	struct vnc *v = vnc_of(cl);
	struct vnc_client *c = cl->clientData;
	char password[VNC_PASSWORD_BYTES + 1];
	u8 right[CHALLENGESIZE], differs = 0;
	bool open;

	if (!v->wants_password) /* asked in another server's place */
		return TRUE;
	mutex_lock(&v->lock);
	memcpy(password, v->password, sizeof(password));
	open = v->has_password && (!v->expiry || time(NULL) < v->expiry);
	mutex_unlock(&v->lock);
	memcpy(right, cl->authChallenge, sizeof(right));
	vnc_of(cl)->lib.rfbEncryptBytes(right, password);
	explicit_bzero(password, sizeof(password));
	if (!open || bytes != CHALLENGESIZE)
		return FALSE;
	for (int i = 0; i < CHALLENGESIZE; i++) /* in the same time, right or wrong */
		differs |= (u8)(right[i] ^ (u8)response[i]);
	c->showed_password = differs == 0;
	return c->showed_password;
}

void vnc_setup_events(struct vnc *v)
{
	rfbScreenInfoPtr s = v->screen;

	s->kbdAddEvent = keysym;
	s->kbdReleaseAllKeys = release_all;
	s->ptrAddEvent = pointer;
	s->getKeyboardLedStateHook = leds;
	s->passwordCheck = password_is_right;
	v->extension.newClient = extension_new;
	v->extension.init = extension_init;
	v->extension.pseudoEncodings = v->pseudo_encodings;
	v->pseudo_encodings[0] = ENC_QEMU_KEY;
	v->extension.enablePseudoEncoding = extension_encoding;
	v->extension.handleMessage = extension_message;
}
