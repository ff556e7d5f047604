/* guestfwd= of a `user` network: an address there that leads to a command, a unix socket
 * (libslirp makes a new one for each connection of the guest) or a TCP connection, made
 * at the start, which all connections of the guest share, as the reference has it.
 * Thread: main.
 *
 * libslirp hands over what the guest sends and keeps nothing: what the other side does not
 * take waits in `out`.  In the other direction nothing is read but what libslirp has room
 * for, so TCP tells the sender. */
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "devices/net/user.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>

#define OUT_MOST    (4 * MiB) /* that wait for a slow peer */
#define PATIENCE_MS 2000      /* with one that takes nothing, when that is full */
#define READ_BYTES  (8 * KiB)

struct forward {
	struct list link;
	struct user_place *place;
	struct in_addr addr;
	u16 port;
	struct loop_watch watch;
	int fd;	   /* -1: the peer has gone */
	bool deaf; /* the peer takes nothing */
	char *name;
	u8 *out;
	size_t out_bytes;
};

static void forget_out(struct forward *f)
{
	free(f->out);
	f->out = NULL;
	f->out_bytes = 0;
}

static void hang_up(struct forward *f, const char *why)
{
	log_warn("guestfwd to %s: %s", f->name, why);
	loop_watch_del(&f->watch);
	sys_close(f->fd);
	f->fd = -1;
	forget_out(f);
}

/* The peer takes nothing more; what it has sent may still be read. */
static void give_up_sending(struct forward *f, int error)
{
	log_warn("guestfwd to %s: %s", f->name, strerror(-error));
	f->deaf = true;
	forget_out(f);
}

static void update_watch(struct forward *f)
{
	bool room = slirp_socket_can_recv(f->place->slirp, f->addr, f->port) > 0;
	u32 events = (room ? POLLIN : 0) | (f->out_bytes ? POLLOUT : 0);

	if (f->fd >= 0 && f->watch.events != events)
		loop_watch_set(&f->watch, events);
}

/* --- from the guest ------------------------------------------------------------------------ */

/* How much the peer takes at once; -errno but for "later". */
static s64 send_some(const struct forward *f, const u8 *data, size_t bytes)
{
	ssize_t n = send(f->fd, data, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static int push_out(struct forward *f)
{
	s64 n = f->out_bytes ? send_some(f, f->out, f->out_bytes) : 0;

	if (n < 0)
		return (int)n;
	f->out_bytes -= (size_t)n;
	memmove(f->out, f->out + n, f->out_bytes);
	return 0;
}

/* libslirp cannot be told to wait: the peer gets a last chance. */
static int make_room(struct forward *f, size_t bytes)
{
	struct pollfd p = {.fd = f->fd, .events = POLLOUT};
	int ret = 0;

	while (ret == 0 && f->out_bytes + bytes > OUT_MOST) {
		if (poll(&p, 1, PATIENCE_MS) <= 0)
			return -ETIMEDOUT;
		ret = push_out(f);
	}
	return ret;
}

static ssize_t guest_sends(const void *data, size_t bytes, void *opaque)
{
	struct forward *f = opaque;
	s64 n = 0;
	int ret;

	if (f->fd < 0 || f->deaf)
		return (ssize_t)bytes; /* as a cable with no end */
	if (!f->out_bytes)
		n = send_some(f, data, bytes);
	ret = n < 0 ? (int)n : make_room(f, bytes - (size_t)n);
	if (ret < 0) {
		give_up_sending(f, ret);
		return (ssize_t)bytes;
	}
	if ((size_t)n < bytes) {
		f->out = xrealloc(f->out, f->out_bytes + bytes - (size_t)n);
		memcpy(f->out + f->out_bytes, (const u8 *)data + n, bytes - (size_t)n);
		f->out_bytes += bytes - (size_t)n;
	}
	update_watch(f);
	return (ssize_t)bytes;
}

/* --- to the guest -------------------------------------------------------------------------- */

static void read_some(struct forward *f)
{
	u8 buf[READ_BYTES];
	size_t room = slirp_socket_can_recv(f->place->slirp, f->addr, f->port);
	ssize_t n;

	if (!room)
		return;
	n = recv(f->fd, buf, MIN(room, sizeof(buf)), MSG_DONTWAIT);
	if (n > 0)
		slirp_socket_recv(f->place->slirp, f->addr, f->port, buf, (int)n);
	else if (n == 0)
		hang_up(f, "the other side has ended the connection");
	else if (errno != EAGAIN && errno != EINTR)
		hang_up(f, strerror(errno));
}

static void ready(struct loop_watch *watch, u32 revents)
{
	struct forward *f = container_of(watch, struct forward, watch);
	int ret = revents & POLLOUT ? push_out(f) : 0;

	if (ret < 0)
		give_up_sending(f, ret);
	if (revents & (POLLIN | POLLHUP | POLLERR))
		read_some(f);
	update_watch(f);
}

void user_guestfwd_update(struct user_place *p)
{
	list_for_each (pos, &p->forwards)
		update_watch(list_entry(pos, struct forward, link));
}

/* --- making -------------------------------------------------------------------------------- */

static int bad_rule(const char *rule, struct error *err)
{
	return err_set(err, -EINVAL, "Invalid guest forwarding rule '%s'", rule);
}

/* "host:port" */
static int connect_to(const char *text, struct error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list;
	AUTO_FREE char *host = xstrdup(text);
	char *port = strrchr(host, ':');
	int fd, ret;

	if (!port)
		return err_set(err, -EINVAL, "address '%s' has no port", text);
	*port++ = 0;
	ret = getaddrinfo(*host ? host : NULL, port, &hints, &list);
	if (ret)
		return err_set(err, -EINVAL, "address resolution failed for %s: %s", text,
			       gai_strerror(ret));
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, list->ai_addr, list->ai_addrlen) < 0) {
		ret = err_set_errno(err, -errno, "Failed to connect to '%s'", text);
		if (fd >= 0)
			sys_close(fd);
	}
	freeaddrinfo(list);
	return ret < 0 ? ret : fd;
}

static int add_tcp(struct user_place *p, const char *target, struct in_addr *addr, u16 port,
		   struct error *err)
{
	int fd = connect_to(target, err);
	struct forward *f;

	if (fd < 0)
		return fd;
	f = xnew(struct forward);
	f->place = p;
	f->fd = fd;
	f->port = port;
	f->name = xstrdup(target);
	list_append(&p->forwards, &f->link);
	loop_watch_add(p->loop, &f->watch, fd, 0, ready);
	if (slirp_add_guestfwd(p->slirp, guest_sends, f, addr, port) < 0)
		return -1; /* what is in the list is freed with the network */
	f->addr = *addr;   /* as libslirp has completed it */
	return 0;
}

static int add_target(struct user_place *p, char *target, struct in_addr *addr, u16 port,
		      struct error *err)
{
	if (!strncmp(target, "cmd:", 4))
		return slirp_add_exec(p->slirp, target + 4, addr, port);
	if (!strncmp(target, "unix:", 5))
		return slirp_add_unix(p->slirp, target + 5, addr, port);
	if (!strncmp(target, "tcp:", 4))
		return add_tcp(p, target + 4, addr, port, err);
	return err_set(err, -ENOTSUP,
		       "Could not open guest forwarding device '%s', expected cmd:COMMAND, "
		       "tcp:HOST:PORT or unix:PATH",
		       target);
}

int user_guestfwd_add(struct user_place *p, const char *rule, struct error *err)
{
	AUTO_FREE char *copy = xstrdup(rule);
	char *rest = copy, *protocol = user_cut(&rest, ':'), *server, *port;
	struct in_addr addr = {.s_addr = 0};
	struct error why = {0};
	u16 number;

	if (!protocol || (*protocol && strcmp(protocol, "tcp")))
		return bad_rule(rule, err);
	server = user_cut(&rest, ':');
	if (!server || (*server && !inet_aton(server, &addr)))
		return bad_rule(rule, err);
	port = user_cut(&rest, '-');
	if (!port || !user_parse_port(port, false, &number))
		return bad_rule(rule, err);
	if (add_target(p, rest, &addr, number, &why) >= 0)
		return 0;
	if (why.code)
		return err_set(err, why.code, "%s", why.text);
	return err_set(err, -EINVAL, "Conflicting/invalid host:port in guest forwarding rule '%s'",
		       rule);
}

void user_guestfwd_free(struct user_place *p)
{
	struct list *item;

	while ((item = list_pop(&p->forwards))) {
		struct forward *f = list_entry(item, struct forward, link);

		if (f->fd >= 0) {
			loop_watch_del(&f->watch);
			sys_close(f->fd);
		}
		free(f->name);
		free(f->out);
		free(f);
	}
}
