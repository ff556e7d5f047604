/* Byte-stream ends: queues, the multiplexer, connection changes; see chardev.h.
 *
 * Input is read on the loop only while the front end in focus has room, so a
 * slow guest holds the sender back instead of losing bytes.  Output is tried at
 * once from the calling thread; the rest waits in a bounded ring. */
#define _GNU_SOURCE
#include "base/chardev_internal.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- output ------------------------------------------------------------------ */

/* Bytes taken by the host, 0 when it would block, or an error. */
static s64 put(struct chardev *c, const u8 *data, size_t bytes)
{
	s64 n;

	if (c->out_fd < 0)
		return -ENOTCONN;
	if (c->out_is_socket) {
		n = send(c->out_fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
		n = n < 0 ? -errno : n;
	} else {
		n = sys_write(c->out_fd, data, bytes);
	}
	return n == -EAGAIN ? 0 : n;
}

static void out_queue(struct chardev *c, const u8 *data, size_t bytes)
{
	lock_assert(&c->lock);
	if (!c->out)
		c->out = xalloc(CHARDEV_OUT_BYTES);
	for (size_t i = 0; i < bytes; i++) {
		c->out[(c->out_at + c->out_used) % CHARDEV_OUT_BYTES] = data[i];
		if (c->out_used < CHARDEV_OUT_BYTES) {
			c->out_used++;
		} else { /* full: the oldest byte goes */
			c->out_at = (c->out_at + 1) % CHARDEV_OUT_BYTES;
			c->out_lost++;
		}
	}
}

/* Some bytes have to wait for the host, and the loop has to hear of it. */
static void out_later(struct chardev *c, const u8 *data, size_t bytes)
{
	out_queue(c, data, bytes);
	if (!__atomic_exchange_n(&c->out_posted, 1, __ATOMIC_ACQ_REL))
		loop_post(c->loop, &c->out_call);
}

/* Write queued bytes as far as the host takes them. */
static void out_drain(struct chardev *c)
{
	size_t part;
	s64 n;

	lock_assert(&c->lock);
	while (c->out_used) {
		part = MIN(c->out_used, CHARDEV_OUT_BYTES - c->out_at);
		n = put(c, c->out + c->out_at, part);
		if (n == 0)
			return;
		if (n < 0) /* the reader went away: nobody will ever want it */
			n = (s64)part;
		c->out_at = (c->out_at + (size_t)n) % CHARDEV_OUT_BYTES;
		c->out_used -= (size_t)n;
	}
	if (c->out_lost) {
		log_warn("%s: %llu bytes of output were dropped: nobody reads them", c->id,
			 (unsigned long long)c->out_lost);
		c->out_lost = 0;
	}
}

static void tell_of_room(struct chardev *c)
{
	for (u32 i = 0; i < c->n_users; i++)
		if (c->users[i] && c->users[i]->has_room)
			c->users[i]->has_room(c->users[i]);
}

static void out_ready(struct loop_watch *watch, u32 revents)
{
	struct chardev *c = container_of(watch, struct chardev, out_watch);
	bool tell;

	mutex_lock(&c->lock);
	out_drain(c);
	if (!c->out_used)
		loop_watch_set(watch, 0);
	tell = c->out_wanted && c->out_used <= CHARDEV_OUT_BYTES / 2;
	c->out_wanted = c->out_wanted && !tell;
	mutex_unlock(&c->lock);
	if (tell)
		tell_of_room(c);
}

/* On the loop: something waits in the ring. */
static void out_wait(struct loop_call *call)
{
	struct chardev *c = container_of(call, struct chardev, out_call);

	__atomic_store_n(&c->out_posted, 0, __ATOMIC_RELEASE);
	if (c->out_fd < 0)
		return;
	if (!c->out_watched) {
		loop_watch_add(c->loop, &c->out_watch, c->out_fd, POLLOUT, out_ready);
		c->out_watched = true;
	} else {
		loop_watch_set(&c->out_watch, POLLOUT);
	}
}

size_t chardev_write(struct chardev_user *u, const void *data, size_t bytes)
{
	struct chardev *c = u->chardev;
	s64 n = 0;

	if (!c || !bytes)
		return bytes;
	LOCK_SCOPE(&c->lock);
	if (!c->out_used)
		n = put(c, data, bytes);
	if (n < 0) /* nobody there: as a cable with no end */
		return bytes;
	if ((size_t)n < bytes)
		out_later(c, (const u8 *)data + n, bytes - (size_t)n);
	return bytes;
}

bool chardev_has_room(struct chardev_user *u, size_t bytes)
{
	struct chardev *c = u->chardev;

	assert(bytes <= CHARDEV_OUT_BYTES / 2);
	if (!c || c->keep_fd >= 0)
		return true;
	LOCK_SCOPE(&c->lock);
	if (c->out_fd < 0 || CHARDEV_OUT_BYTES - c->out_used >= bytes)
		return true;
	c->out_wanted = true;
	return false;
}

void chardev_flush(struct chardev *c)
{
	u64 end = now_ns() + NS_PER_SEC;
	LOCK_SCOPE(&c->lock);

	out_drain(c);
	while (c->out_used && now_ns() < end) {
		struct pollfd p = {.fd = c->out_fd, .events = POLLOUT};

		poll(&p, 1, 100);
		out_drain(c);
	}
}

/* --- input and the multiplexer ------------------------------------------------- */

static void say(struct chardev *c, const char *text)
{
	LOCK_SCOPE(&c->lock);
	size_t bytes = strlen(text);
	s64 n = c->out_used ? 0 : put(c, (const u8 *)text, bytes);

	if (n >= 0 && (size_t)n < bytes)
		out_later(c, (const u8 *)text + n, bytes - (size_t)n);
}

static void send_event(struct chardev *c, u32 user, enum chardev_event event)
{
	if (user < c->n_users && c->users[user] && c->users[user]->event)
		c->users[user]->event(c->users[user], event);
}

static void move_focus(struct chardev *c)
{
	u32 old = c->focus;

	for (u32 i = 0; i < c->n_users; i++) {
		c->focus = (c->focus + 1) % c->n_users;
		if (c->users[c->focus])
			break;
	}
	if (c->focus == old)
		return;
	send_event(c, old, CHARDEV_UNFOCUS);
	send_event(c, c->focus, CHARDEV_FOCUS);
}

static void mux_help(struct chardev *c)
{
	char text[512], key[8] = "C-a";

	if (c->escape != 1)
		snprintf(key, sizeof(key), c->escape < 27 ? "C-%c" : "%c",
			 c->escape < 27 ? c->escape + 'a' - 1 : c->escape);
	snprintf(text, sizeof(text),
		 "\r\n%s h    print this help\r\n%s x    exit emulator\r\n"
		 "%s s    save disk data back to file (if -snapshot)\r\n%s b    send break\r\n"
		 "%s c    switch between console and monitor\r\n%s %s  sends %s\r\n",
		 key, key, key, key, key, key, key, key);
	say(c, text);
}

/* A byte from the host side of a mux: true if it is for the user in focus. */
static bool mux_byte(struct chardev *c, u8 byte)
{
	if (!c->got_escape) {
		c->got_escape = byte == c->escape;
		return !c->got_escape;
	}
	c->got_escape = false;
	if (byte == c->escape)
		return true;
	switch (byte) {
	case 'h':
	case '?': mux_help(c); break;
	case 'x':
		say(c, "cowvm: Terminated\r\n");
		if (c->on_quit)
			c->on_quit(c->on_quit_arg);
		break;
	case 'b': send_event(c, c->focus, CHARDEV_BREAK); break;
	case 'c': move_focus(c); break;
	default: break;
	}
	return false;
}

/* Hand pending input to the user in focus as far as it takes it. */
static void deliver(struct chardev *c)
{
	u32 focus = c->focus;
	struct chardev_user *u = c->n_users ? c->users[focus] : NULL;
	size_t n;

	while (u && c->n_pending[focus]) {
		n = u->can_receive ? u->can_receive(u) : c->n_pending[focus];
		n = MIN(n, c->n_pending[focus]);
		if (!n)
			return;
		u8 part[CHARDEV_IN_BYTES];

		/* The user may detach or move the focus while it gets its bytes. */
		memcpy(part, c->pending[focus], n);
		c->n_pending[focus] -= n;
		memmove(c->pending[focus], c->pending[focus] + n, c->n_pending[focus]);
		u->receive(u, part, n);
		if (c->users[focus] != u)
			return;
	}
}

static size_t input_room(struct chardev *c)
{
	if (!c->n_users || !c->users[c->focus])
		return 0;
	return CHARDEV_IN_BYTES - c->n_pending[c->focus];
}

static void watch_input(struct chardev *c)
{
	if (c->in_watched)
		loop_watch_set(&c->in_watch, input_room(c) ? POLLIN : 0);
}

static void in_ready(struct loop_watch *watch, u32 revents)
{
	struct chardev *c = container_of(watch, struct chardev, in_watch);
	u8 data[CHARDEV_IN_BYTES];
	s64 n = (s64)input_room(c);

	if (n) {
		n = sys_read(c->in_fd, data, (size_t)n);
		if (n == -EAGAIN)
			return;
		if (n <= 0) {
			chardev_disconnect(c);
			return;
		}
	} else if (revents & (POLLHUP | POLLERR)) {
		chardev_disconnect(c);
		return;
	}
	for (s64 i = 0; i < n; i++) {
		if (c->mux && !mux_byte(c, data[i]))
			continue;
		if (c->n_pending[c->focus] < CHARDEV_IN_BYTES)
			c->pending[c->focus][c->n_pending[c->focus]++] = data[i];
		if (c->mux) /* in order with what the escape keys do */
			deliver(c);
	}
	deliver(c);
	watch_input(c);
}

static void accept_input(struct loop_call *call)
{
	struct chardev *c = container_of(call, struct chardev, accept_call);

	__atomic_store_n(&c->accept_posted, 0, __ATOMIC_RELEASE);
	deliver(c);
	watch_input(c);
}

void chardev_accept_input(struct chardev_user *u)
{
	struct chardev *c = u->chardev;

	if (c && !__atomic_exchange_n(&c->accept_posted, 1, __ATOMIC_ACQ_REL))
		loop_post(c->loop, &c->accept_call);
}

/* --- connections ----------------------------------------------------------------- */

void chardev_connect(struct chardev *c, int in_fd, int out_fd)
{
	mutex_lock(&c->lock);
	c->in_fd = in_fd;
	c->out_fd = out_fd;
	mutex_unlock(&c->lock);
	if (in_fd >= 0) {
		loop_watch_add(c->loop, &c->in_watch, in_fd, input_room(c) ? POLLIN : 0, in_ready);
		c->in_watched = true;
	}
	for (u32 i = 0; i < c->n_users; i++)
		send_event(c, i, CHARDEV_OPENED);
}

void chardev_disconnect(struct chardev *c)
{
	int in_fd = c->in_fd, out_fd = c->out_fd;

	if (c->in_watched)
		loop_watch_del(&c->in_watch);
	if (c->listen_fd < 0) { /* end of input for ever; output may go on */
		c->in_watched = false;
		if (!c->out_is_socket)
			return;
	}
	if (c->out_watched)
		loop_watch_del(&c->out_watch);
	c->in_watched = c->out_watched = false;
	mutex_lock(&c->lock);
	c->in_fd = c->out_fd = -1;
	c->out_used = 0;
	c->out_wanted = false;
	mutex_unlock(&c->lock);
	sys_close(in_fd);
	if (out_fd != in_fd)
		sys_close(out_fd);
	memset(c->n_pending, 0, sizeof(c->n_pending));
	c->got_escape = false;
	for (u32 i = 0; i < c->n_users; i++)
		send_event(c, i, CHARDEV_CLOSED);
	tell_of_room(c); /* for what is lost */
	if (c->listen_fd >= 0)
		loop_watch_set(&c->listen_watch, POLLIN);
}

static void peer_waits(struct loop_watch *watch, u32 revents)
{
	struct chardev *c = container_of(watch, struct chardev, listen_watch);
	int fd = accept4(c->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	loop_watch_set(watch, 0); /* one peer at a time; the next one waits */
	chardev_connect(c, fd, fd);
}

void chardev_listen(struct chardev *c, int fd)
{
	c->listen_fd = fd;
	loop_watch_add(c->loop, &c->listen_watch, fd, c->in_fd < 0 ? POLLIN : 0, peer_waits);
}

/* --- front ends ---------------------------------------------------------------------- */

int chardev_make_mux(struct chardev *c, void (*on_quit)(void *arg), void *arg, struct error *err)
{
	if (c->n_users)
		return err_set(err, -EBUSY, "chardev '%s' is in use, cannot become a multiplexer",
			       c->id);
	c->mux = true;
	c->on_quit = on_quit;
	c->on_quit_arg = arg;
	return 0;
}

bool chardev_is_mux(const struct chardev *c)
{
	return c->mux;
}

void chardev_set_escape(struct chardev *c, u8 escape)
{
	c->escape = escape;
}

int chardev_attach(struct chardev *c, struct chardev_user *u, struct error *err)
{
	u32 limit = c->mux ? CHARDEV_USERS : 1, place = 0;

	while (place < c->n_users && c->users[place])
		place++;
	if (place >= limit)
		return err_set(err, -EBUSY, "chardev '%s' is already in use", c->id);
	c->users[place] = u;
	c->n_users = MAX(c->n_users, place + 1);
	c->n_pending[place] = 0;
	u->chardev = c;
	u->tag = place;
	if (c->out_fd >= 0)
		send_event(c, place, CHARDEV_OPENED);
	if (place == c->focus)
		send_event(c, place, CHARDEV_FOCUS);
	watch_input(c);
	return 0;
}

void chardev_detach(struct chardev_user *u)
{
	struct chardev *c = u->chardev;

	if (!c)
		return;
	assert(c->users[u->tag] == u);
	c->users[u->tag] = NULL;
	u->chardev = NULL;
	if (c->mux && c->focus == u->tag)
		move_focus(c);
	watch_input(c);
}

const char *chardev_id(const struct chardev *c)
{
	return c->id;
}

const char *chardev_describe(const struct chardev *c)
{
	return c->description ? c->description : c->spec;
}

bool chardev_is_terminal(const struct chardev *c)
{
	return c->is_terminal;
}

/* --- life ------------------------------------------------------------------------- */

struct chardev *chardev_alloc(struct loop *loop, const char *id, const char *spec)
{
	struct chardev *c = xnew(struct chardev);

	c->loop = loop;
	c->id = xstrdup(id);
	c->spec = xstrdup(spec);
	c->in_fd = c->out_fd = c->listen_fd = c->keep_fd = -1;
	c->escape = 1;
	c->accept_call.fn = accept_input;
	c->out_call.fn = out_wait;
	mutex_init(&c->lock);
	return c;
}

int chardev_from_fds(struct chardev **out, struct loop *loop, const char *id, int in_fd, int out_fd,
		     struct error *err)
{
	struct chardev *c = chardev_alloc(loop, id, "fd");
	int type;
	socklen_t len = sizeof(type);

	c->out_is_socket = getsockopt(out_fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
	chardev_connect(c, in_fd, out_fd);
	*out = c;
	return 0;
}

void chardev_close(struct chardev *c)
{
	if (!c)
		return;
	for (u32 i = 0; i < c->n_users; i++)
		if (c->users[i])
			chardev_detach(c->users[i]);
	chardev_flush(c);
	if (c->out_used)
		log_warn("%s: the last %zu bytes of output were dropped: nobody reads them", c->id,
			 c->out_used);
	/* Calls of ours that other threads posted must have run. */
	loop_run_posted(c->loop);
	if (c->in_watched)
		loop_watch_del(&c->in_watch);
	if (c->out_watched)
		loop_watch_del(&c->out_watch);
	if (c->listen_fd >= 0) {
		loop_watch_del(&c->listen_watch);
		sys_close(c->listen_fd);
	}
	if (c->is_terminal)
		tcsetattr(c->in_fd, TCSANOW, &c->saved_termios);
	if (c->in_fd > STDERR_FILENO)
		sys_close(c->in_fd);
	if (c->out_fd != c->in_fd && c->out_fd > STDERR_FILENO)
		sys_close(c->out_fd);
	if (c->keep_fd >= 0)
		sys_close(c->keep_fd);
	if (c->unlink_path)
		unlink(c->unlink_path);
	free(c->unlink_path);
	free(c->description);
	free(c->out);
	free(c->id);
	free(c->spec);
	mutex_fini(&c->lock);
	free(c);
}
