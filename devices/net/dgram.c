/* `socket` with mcast= or udp=: frames to other machine monitors, one in a datagram.
 * RFC 768, RFC 1112.  Thread: main.
 *
 * With mcast= all that have joined the group are on one wire, this host's among them, and
 * what comes back of one's own is not shown to the card.  Frames longer than a datagram
 * can be are lost, as on a wire. */
#include "devices/net/dgram.h"

#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "devices/net/checksum.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define TURN_FRAMES   64    /* read in one go, before others have their turn */
#define LONGEST_FRAME 65507 /* in a datagram by IPv4 */
#define IOV_DIRECT    64    /* frames in more pieces are copied */

struct net_dgram {
	struct net_end end;
	struct loop_watch watch;
	int fd, out_fd; /* out_fd -1: the same */
	bool reading, group;
	struct sockaddr_in to, own; /* own: of out_fd */
	u8 buf[NET_FRAME_MAX];
};

static struct net_dgram *dgram_of(struct net_end *end)
{
	return container_of(end, struct net_dgram, end);
}

static void update_watch(struct net_dgram *d)
{
	u32 events = d->reading ? POLLIN : 0;

	if (d->watch.events != events)
		loop_watch_set(&d->watch, events);
}

/* --- frames ---------------------------------------------------------------------------- */

static bool dgram_receive(struct net_end *end, const struct net_frame *f)
{
	struct net_dgram *d = dgram_of(end);
	struct iovec iov[IOV_DIRECT];
	struct msghdr msg = {.msg_name = &d->to,
			     .msg_namelen = sizeof(d->to),
			     .msg_iov = iov,
			     .msg_iovlen = f->n};

	if (f->bytes > LONGEST_FRAME)
		return true;
	if (f->n <= IOV_DIRECT) {
		memcpy(iov, f->iov, f->n * sizeof(*iov));
	} else {
		net_frame_copy(f, 0, d->buf, f->bytes);
		iov[0] = (struct iovec){d->buf, f->bytes};
		msg.msg_iovlen = 1;
	}
	/* A full queue or nobody there: it is lost. */
	(void)sendmsg(d->out_fd < 0 ? d->fd : d->out_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	return true;
}

static bool is_own(const struct net_dgram *d, const struct sockaddr_in *from)
{
	return d->group && from->sin_port == d->own.sin_port &&
	       from->sin_addr.s_addr == d->own.sin_addr.s_addr;
}

static bool read_one(struct net_dgram *d)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(d->fd, d->buf, sizeof(d->buf), MSG_DONTWAIT, (void *)&from, &len);
	struct iovec iov = {d->buf, (size_t)MAX(n, 0)};
	struct net_frame f = {.iov = &iov, .n = 1, .bytes = (u32)MAX(n, 0)};

	if (n < 0)
		return errno == EINTR || errno == ECONNREFUSED;
	if (len != sizeof(from) || !is_own(d, &from))
		net_send(&d->end, &f);
	return true;
}

static void dgram_ready(struct loop_watch *watch, u32 revents)
{
	struct net_dgram *d = container_of(watch, struct net_dgram, watch);

	for (unsigned i = 0; i < TURN_FRAMES; i++) {
		if (!net_can_send(&d->end)) {
			d->reading = false;
			update_watch(d);
			return;
		}
		if (!read_one(d))
			return;
	}
}

static void dgram_writable(struct net_end *end)
{
	struct net_dgram *d = dgram_of(end);

	d->reading = true;
	update_watch(d);
}

/* --- making ----------------------------------------------------------------------------- */

/* "host:port" */
static int resolve(const char *text, struct sockaddr_in *out, struct error *err)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM}, *list;
	AUTO_FREE char *host = xstrdup(text);
	char *port = strrchr(host, ':');

	if (!port)
		return err_set(err, -EINVAL,
			       "host address '%s' doesn't contain ':' separating host from port",
			       text);
	*port++ = 0;
	if (getaddrinfo(*host ? host : NULL, port, &hints, &list))
		return err_set(err, -EINVAL, "can't resolve host address '%s'", host);
	memcpy(out, list->ai_addr, sizeof(*out));
	freeaddrinfo(list);
	return 0;
}

static int bind_to(struct net_dgram *d, const struct sockaddr_in *at, struct error *err)
{
	char text[INET_ADDRSTRLEN];
	int on = 1;

	d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->fd < 0)
		return err_set(err, -errno, "can't create datagram socket: %s", strerror(errno));
	setsockopt(d->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(d->fd, (const void *)at, sizeof(*at)) == 0)
		return 0;
	return err_set(err, -errno, "can't bind ip=%s to socket: %s",
		       inet_ntop(AF_INET, &at->sin_addr, text, sizeof(text)), strerror(errno));
}

static int join(struct net_dgram *d, const char *local, struct error *err)
{
	struct ip_mreq group = {.imr_multiaddr = d->to.sin_addr};

	if (local && inet_pton(AF_INET, local, &group.imr_interface) != 1)
		return err_set(err, -EINVAL, "localaddr '%s' is not a valid IPv4 address", local);
	if (setsockopt(d->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof(group)) < 0)
		return err_set(err, -errno, "can't add socket to multicast group: %s",
			       strerror(errno));
	if (local && setsockopt(d->fd, IPPROTO_IP, IP_MULTICAST_IF, &group.imr_interface,
				sizeof(group.imr_interface)) < 0)
		return err_set(err, -errno, "can't set the default network send interface: %s",
			       strerror(errno));
	return 0;
}

/* Frames go out by a socket with a port of its own: that tells them from those of other
 * machines on this host. */
static int open_sender(struct net_dgram *d, struct error *err)
{
	socklen_t len = sizeof(d->own);
	struct in_addr via;
	socklen_t via_len = sizeof(via);

	d->out_fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (d->out_fd >= 0 && getsockopt(d->fd, IPPROTO_IP, IP_MULTICAST_IF, &via, &via_len) == 0)
		setsockopt(d->out_fd, IPPROTO_IP, IP_MULTICAST_IF, &via, sizeof(via));
	if (d->out_fd < 0 || connect(d->out_fd, (void *)&d->to, sizeof(d->to)) < 0 ||
	    getsockname(d->out_fd, (void *)&d->own, &len) < 0)
		return err_set(err, -errno, "can't create datagram socket: %s", strerror(errno));
	return 0;
}

static int open_group(struct net_dgram *d, const char *name, const char *local, struct error *err)
{
	char text[INET_ADDRSTRLEN];
	int ret = resolve(name, &d->to, err);

	if (ret < 0)
		return ret;
	if (!IN_MULTICAST(ntohl(d->to.sin_addr.s_addr)))
		return err_set(err, -EINVAL,
			       "specified mcastaddr %s (0x%08x) does not contain a multicast "
			       "address",
			       inet_ntop(AF_INET, &d->to.sin_addr, text, sizeof(text)),
			       ntohl(d->to.sin_addr.s_addr));
	d->group = true;
	ret = bind_to(d, &d->to, err);
	if (ret == 0)
		ret = join(d, local, err);
	if (ret == 0)
		ret = open_sender(d, err);
	snprintf(d->end.info, sizeof(d->end.info), "socket: mcast=%s:%d",
		 inet_ntop(AF_INET, &d->to.sin_addr, text, sizeof(text)), ntohs(d->to.sin_port));
	return ret;
}

static int open_udp(struct net_dgram *d, const char *name, const char *local, struct error *err)
{
	char text[INET_ADDRSTRLEN];
	struct sockaddr_in at;
	int ret;

	if (!local)
		return err_set(err, -EINVAL, "localaddr= is mandatory with udp=");
	ret = resolve(local, &at, err);
	if (ret == 0)
		ret = resolve(name, &d->to, err);
	if (ret == 0)
		ret = bind_to(d, &at, err);
	if (ret == 0)
		snprintf(d->end.info, sizeof(d->end.info), "socket: udp=%s:%d",
			 inet_ntop(AF_INET, &d->to.sin_addr, text, sizeof(text)),
			 ntohs(d->to.sin_port));
	return ret;
}

static void dgram_free(struct net_end *end)
{
	struct net_dgram *d = dgram_of(end);

	net_end_fini(end);
	if (d->watch.loop)
		loop_watch_del(&d->watch);
	if (d->fd >= 0)
		sys_close(d->fd);
	if (d->out_fd >= 0)
		sys_close(d->out_fd);
	free(d);
}

static const struct net_ops dgram_ops = {
	.type = "socket", .receive = dgram_receive, .writable = dgram_writable, .free = dgram_free};

int net_dgram_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
		  struct error *err)
{
	const char *mcast = opts_get(opts, "mcast"), *local = opts_get(opts, "localaddr");
	struct net_dgram *d = xnew(struct net_dgram);
	int ret;

	d->fd = d->out_fd = -1;
	net_end_init(&d->end, net, &dgram_ops, name);
	ret = mcast ? open_group(d, mcast, local, err)
		    : open_udp(d, opts_get(opts, "udp"), local, err);
	if (ret < 0) {
		dgram_free(&d->end);
		return ret;
	}
	d->reading = true;
	loop_watch_add(net_loop(net), &d->watch, d->fd, POLLIN, dgram_ready);
	*out = &d->end;
	return 0;
}
