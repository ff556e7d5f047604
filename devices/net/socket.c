/* `socket`: frames to another machine monitor over one TCP connection, each led by its
 * length in 32 bits, big-endian, as the reference speaks it.  Thread: main.
 *
 * Who listens takes one peer at a time and waits for the next when it has gone; who
 * connects does so once.  Without a connection frames go nowhere.  Invariant: S1 a frame
 * that is partly sent is kept in `out` and nothing else is sent before its rest. */
#define _GNU_SOURCE
#include "devices/net/socket.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "devices/net/checksum.h"
#include "devices/net/dgram.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define LENGTH_BYTES 4

struct net_socket {
	struct net_end end;
	struct loop *loop;
	struct loop_watch listener, watch;
	int listen_fd, fd; /* -1: none */
	bool connecting, reading;
	u32 in_bytes, out_bytes, out_at;
	u8 in[LENGTH_BYTES + NET_FRAME_MAX];
	u8 out[LENGTH_BYTES + NET_FRAME_MAX];
};

static struct net_socket *socket_of(struct net_end *end)
{
	return container_of(end, struct net_socket, end);
}

static void update_watch(struct net_socket *s)
{
	bool blocked = s->connecting || s->out_bytes;
	u32 events = (s->reading && !s->connecting ? POLLIN : 0) | (blocked ? POLLOUT : 0);

	if (s->fd >= 0 && s->watch.events != events)
		loop_watch_set(&s->watch, events);
}

static void hang_up(struct net_socket *s)
{
	if (s->fd < 0)
		return;
	loop_watch_del(&s->watch);
	sys_close(s->fd);
	s->fd = -1;
	s->connecting = false;
	s->in_bytes = s->out_bytes = s->out_at = 0;
	if (s->listen_fd >= 0)
		loop_watch_set(&s->listener, POLLIN);
	net_flush(&s->end); /* into nothing */
}

/* --- sending ------------------------------------------------------------------------------ */

/* True when nothing is left of the frame. */
static bool push_out(struct net_socket *s)
{
	while (s->out_at < s->out_bytes) {
		ssize_t n = send(s->fd, s->out + s->out_at, s->out_bytes - s->out_at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		s->out_at += (u32)n;
	}
	s->out_at = s->out_bytes = 0;
	return true;
}

static bool socket_receive(struct net_end *end, const struct net_frame *f)
{
	struct net_socket *s = socket_of(end);

	if (s->fd < 0 || s->connecting)
		return true;
	if (s->out_bytes)
		return false; /* S1 */
	store_be32(s->out, f->bytes);
	net_frame_copy(f, 0, s->out + LENGTH_BYTES, f->bytes);
	s->out_bytes = LENGTH_BYTES + f->bytes;
	if (!push_out(s))
		update_watch(s);
	return true;
}

static bool socket_can_receive(struct net_end *end)
{
	return !socket_of(end)->out_bytes;
}

/* --- receiving ----------------------------------------------------------------------------- */

/* Whole frames at the front of `in`; false: the peer speaks something else. */
static bool take_frames(struct net_socket *s)
{
	u32 at = 0;

	while (s->in_bytes - at >= LENGTH_BYTES) {
		u32 bytes = load_be32(s->in + at);
		struct iovec iov = {s->in + at + LENGTH_BYTES, bytes};
		struct net_frame f = {.iov = &iov, .n = 1, .bytes = bytes};

		if (bytes > NET_FRAME_MAX)
			return false;
		if (s->in_bytes - at - LENGTH_BYTES < bytes || !net_can_send(&s->end))
			break;
		net_send(&s->end, &f);
		at += LENGTH_BYTES + bytes;
	}
	s->in_bytes -= at;
	memmove(s->in, s->in + at, s->in_bytes);
	return true;
}

static void go_on_reading(struct net_socket *s)
{
	s->reading = s->in_bytes < sizeof(s->in) && net_can_send(&s->end);
	update_watch(s);
}

/* Stop reading while the card takes nothing: TCP tells the other side. */
static void pull_in(struct net_socket *s)
{
	s64 n = sys_read(s->fd, s->in + s->in_bytes, sizeof(s->in) - s->in_bytes);

	assert(s->in_bytes < sizeof(s->in));
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		hang_up(s);
		return;
	}
	s->in_bytes += (u32)n;
	if (!take_frames(s)) {
		log_warn("%s: the peer sends no frames", s->end.name);
		hang_up(s);
		return;
	}
	go_on_reading(s);
}

static void socket_writable(struct net_end *end)
{
	struct net_socket *s = socket_of(end);

	if (s->fd >= 0 && !take_frames(s))
		hang_up(s);
	go_on_reading(s);
}

static bool connected(struct net_socket *s)
{
	socklen_t len = sizeof(int);
	int failed = 0;

	getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &failed, &len);
	if (failed)
		log_warn("%s: cannot connect: %s", s->end.name, strerror(failed));
	s->connecting = false;
	return !failed;
}

static void socket_ready(struct loop_watch *watch, u32 revents)
{
	struct net_socket *s = container_of(watch, struct net_socket, watch);

	if (s->connecting && !connected(s)) {
		hang_up(s);
		return;
	}
	if (revents & POLLOUT && s->out_bytes && push_out(s)) {
		update_watch(s);
		net_flush(&s->end);
	}
	if (s->fd >= 0 && revents & (POLLIN | POLLHUP | POLLERR)) {
		if (s->in_bytes < sizeof(s->in))
			pull_in(s);
		else if (revents & (POLLHUP | POLLERR))
			hang_up(s);
	}
	update_watch(s);
}

/* --- connections ------------------------------------------------------------------------------ */

static void watch_peer(struct net_socket *s, int fd)
{
	int on = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	s->fd = fd;
	s->reading = true;
	loop_watch_add(s->loop, &s->watch, fd, s->connecting ? POLLOUT : POLLIN, socket_ready);
}

static void accept_peer(struct loop_watch *watch, u32 revents)
{
	struct net_socket *s = container_of(watch, struct net_socket, listener);
	int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0)
		return;
	loop_watch_set(&s->listener, 0); /* one at a time */
	watch_peer(s, fd);
}

/* "[host]:port" */
static int resolve(const char *text, bool passive, struct addrinfo **list, struct error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = passive ? AI_PASSIVE : 0};
	AUTO_FREE char *host = xstrdup(text);
	char *port = strrchr(host, ':');
	int ret;

	if (!port)
		return err_set(err, -EINVAL,
			       "host address '%s' doesn't contain ':' separating host from port",
			       text);
	*port++ = 0;
	ret = getaddrinfo(*host ? host : NULL, port, &hints, list);
	if (ret)
		return err_set(err, -EINVAL, "can't resolve host address '%s': %s", text,
			       gai_strerror(ret));
	return 0;
}

static int open_listener(struct net_socket *s, const char *text, struct error *err)
{
	struct addrinfo *a;
	int on = 1, ret = resolve(text, true, &a, err);

	if (ret < 0)
		return ret;
	s->listen_fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->listen_fd >= 0)
		setsockopt(s->listen_fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (s->listen_fd < 0 || bind(s->listen_fd, a->ai_addr, a->ai_addrlen) < 0 ||
	    listen(s->listen_fd, 0) < 0)
		ret = err_set(err, -errno, "can't listen at '%s': %s", text, strerror(errno));
	freeaddrinfo(a);
	if (ret == 0)
		loop_watch_add(s->loop, &s->listener, s->listen_fd, POLLIN, accept_peer);
	return ret;
}

static int open_connection(struct net_socket *s, const char *text, struct error *err)
{
	struct addrinfo *a;
	int fd, ret = resolve(text, false, &a, err);

	if (ret < 0)
		return ret;
	fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS) {
		ret = err_set(err, -errno, "can't connect to '%s': %s", text, strerror(errno));
		sys_close(fd);
	} else if (fd < 0) {
		ret = err_set(err, -errno, "can't create a socket: %s", strerror(errno));
	}
	freeaddrinfo(a);
	if (ret < 0)
		return ret;
	s->connecting = true;
	watch_peer(s, fd);
	return 0;
}

static void socket_free(struct net_end *end)
{
	struct net_socket *s = socket_of(end);

	net_end_fini(end);
	if (s->listener.loop)
		loop_watch_del(&s->listener);
	if (s->fd >= 0) {
		loop_watch_del(&s->watch);
		sys_close(s->fd);
	}
	if (s->listen_fd >= 0)
		sys_close(s->listen_fd);
	free(s);
}

static const struct net_ops socket_ops = {.type = "socket",
					  .can_receive = socket_can_receive,
					  .receive = socket_receive,
					  .writable = socket_writable,
					  .free = socket_free};

int net_socket_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
		   struct error *err)
{
	const char *listens = opts_get(opts, "listen"), *connects = opts_get(opts, "connect");
	bool mcast = opts_has(opts, "mcast"), udp = opts_has(opts, "udp");
	struct net_socket *s;
	int ret;

	if (!!listens + !!connects + mcast + udp != 1)
		return err_set(err, -EINVAL,
			       "exactly one of listen=, connect=, mcast= or udp= is required");
	if (mcast || udp)
		return net_dgram_new(out, net, name, opts, err);
	if (opts_has(opts, "localaddr"))
		return err_set(err, -EINVAL, "localaddr= is only valid with mcast= or udp=");
	s = xnew(struct net_socket);
	s->loop = net_loop(net);
	s->fd = s->listen_fd = -1;
	net_end_init(&s->end, net, &socket_ops, name);
	ret = listens ? open_listener(s, listens, err) : open_connection(s, connects, err);
	if (ret < 0) {
		socket_free(&s->end);
		return ret;
	}
	*out = &s->end;
	return 0;
}
