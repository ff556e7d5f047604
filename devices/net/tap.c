/* `tap`: frames to and from the host's kernel by /dev/net/tun; Linux, Documentation/
 * networking/tuntap.rst.  Thread: main.
 *
 * With vnet headers, checksums are left out and large segments stay whole in either
 * direction, as far as the card's driver agreed to.  A peer that takes nothing stops the
 * reading: then the kernel's queue of the device is the one that is bounded. */
#define _GNU_SOURCE
#include "devices/net/tap.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "base/loop.h"
#include "devices/net/checksum.h"
#include "devices/net/script.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>

#define HEADER_BYTES 10
#define TURN_FRAMES  64 /* read in one go, before others have their turn */
#define IOV_DIRECT   64 /* frames in more pieces are copied */
#define UP_SCRIPT    "/etc/qemu-ifup"
#define DOWN_SCRIPT  "/etc/qemu-ifdown"

#define QUEUES_MAX 8

struct tap;
/* One of the interface's queues: Linux keeps a connection's frames on one. */
struct tap_queue {
	struct tap *tap;
	struct loop_watch watch;
	int fd; /* -1: none */
	bool blocked;
	bool gone; /* somebody took the interface away */
};

struct tap {
	struct net_end end;
	struct tap_queue queues[QUEUES_MAX];
	unsigned n;
	bool vnet, reading;
	char ifname[IFNAMSIZ];
	char *down_script; /* NULL: none */
	u8 buf[NET_FRAME_MAX];
};

static struct tap *tap_of(struct net_end *end)
{
	return container_of(end, struct tap, end);
}

static void update_watch(struct tap_queue *q)
{
	u32 events = (q->tap->reading ? POLLIN : 0) | (q->blocked ? POLLOUT : 0);

	if (q->gone)
		events = 0;
	if (q->watch.events != events)
		loop_watch_set(&q->watch, events);
}

static void set_reading(struct tap *t, bool on)
{
	t->reading = on;
	for (unsigned i = 0; i < t->n; i++)
		update_watch(&t->queues[i]);
}

/* --- from the host to the guest ---------------------------------------------------------- */

static struct net_offload decode(const u8 *h)
{
	return (struct net_offload){.flags = h[0],
				    .gso = h[1],
				    .header_bytes = load_le16(h + 2),
				    .gso_bytes = load_le16(h + 4),
				    .csum_start = load_le16(h + 6),
				    .csum_offset = load_le16(h + 8)};
}

static bool read_one(struct tap_queue *q)
{
	struct tap *t = q->tap;
	u8 header[HEADER_BYTES] = {0};
	u32 head = t->vnet ? HEADER_BYTES : 0;
	struct iovec iov[2] = {{header, head}, {t->buf, sizeof(t->buf)}};
	struct net_frame f = {.queue = (u16)(q - t->queues), .iov = &iov[1], .n = 1};
	s64 got = sys_readv(q->fd, iov + !head, 1 + !!head);

	if (got == -EBADFD) {
		q->gone = true;
		log_warn("%s: there is no interface %s any more", t->end.name, t->ifname);
		update_watch(q);
	}
	if (got < (s64)head || got <= 0)
		return false;
	f.bytes = (u32)(got - head);
	iov[1].iov_len = f.bytes;
	if (head)
		f.offload = decode(header);
	net_send(&t->end, &f);
	return true;
}

static void tap_writable(struct net_end *end)
{
	set_reading(tap_of(end), true);
}

static void tap_ready(struct loop_watch *watch, u32 revents)
{
	struct tap_queue *q = container_of(watch, struct tap_queue, watch);
	struct tap *t = q->tap;

	if (revents & POLLOUT && q->blocked) {
		q->blocked = false;
		update_watch(q);
		net_flush(&t->end);
	}
	if (!(revents & (POLLIN | POLLERR)) || !t->reading)
		return;
	for (unsigned i = 0; i < TURN_FRAMES; i++) {
		if (!net_can_send(&t->end)) {
			set_reading(t, false);
			return;
		}
		if (!read_one(q))
			return;
	}
}

/* --- from the guest to the host ----------------------------------------------------------- */

static void encode(u8 *h, const struct net_offload *o)
{
	h[0] = o->flags & NET_NEEDS_CSUM;
	h[1] = o->gso;
	store_le16(h + 2, o->header_bytes);
	store_le16(h + 4, o->gso_bytes);
	store_le16(h + 6, o->csum_start);
	store_le16(h + 8, o->csum_offset);
}

/* At most IOV_DIRECT pieces; false: no room.  What the kernel refuses is lost, as on a
 * wire.  [any thread] */
static bool put_frame(const struct tap *t, const struct net_frame *f)
{
	const struct tap_queue *q = &t->queues[f->queue % t->n];
	u8 header[HEADER_BYTES];
	struct iovec iov[IOV_DIRECT + 1];
	unsigned n = 0;

	if (t->vnet) {
		encode(header, &f->offload);
		iov[n++] = (struct iovec){header, sizeof(header)};
	}
	memcpy(iov + n, f->iov, f->n * sizeof(*iov));
	return sys_writev(q->fd, iov, n + f->n) != -EAGAIN;
}

static bool tap_receive(struct net_end *end, const struct net_frame *f)
{
	struct tap *t = tap_of(end);
	struct tap_queue *q = &t->queues[f->queue % t->n];
	struct iovec whole = {t->buf, f->bytes};
	struct net_frame joined = *f;

	if (f->n > IOV_DIRECT) {
		net_frame_copy(f, 0, t->buf, f->bytes);
		joined.iov = &whole;
		joined.n = 1;
	}
	if (put_frame(t, &joined))
		return true;
	q->blocked = true;
	update_watch(q);
	return false;
}

/* Whether it is blocked is main's to know, and a queue without a limit never is. */
static bool tap_receive_direct(struct net_end *end, const struct net_frame *f)
{
	return f->n <= IOV_DIRECT && put_frame(tap_of(end), f);
}

/* Kernels that know no UFO refuse the flag. */
static int set_offload_of(const struct tap_queue *q, unsigned long flags)
{
	int ret = sys_ioctl(q->fd, TUNSETOFFLOAD, (void *)flags);

	return ret < 0 ? sys_ioctl(q->fd, TUNSETOFFLOAD,
				   (void *)(flags & ~(unsigned long)TUN_F_UFO))
		       : ret;
}

static void tap_set_offload(struct net_end *end, u32 takes)
{
	static const struct {
		u32 takes;
		unsigned long flag;
	} map[] = {{NET_TAKES_TCP4, TUN_F_TSO4},
		   {NET_TAKES_TCP6, TUN_F_TSO6},
		   {NET_TAKES_ECN, TUN_F_TSO_ECN},
		   {NET_TAKES_UDP, TUN_F_UFO}};
	struct tap *t = tap_of(end);
	unsigned long flags = 0;

	if (!t->vnet)
		return;
	if (takes & NET_TAKES_CSUM) {
		flags = TUN_F_CSUM;
		for (unsigned i = 0; i < ARRAY_LEN(map); i++)
			if (takes & map[i].takes)
				flags |= map[i].flag;
	}
	for (unsigned i = 0; i < t->n; i++)
		if (set_offload_of(&t->queues[i], flags) < 0)
			log_warn("%s: the host does not set offloads", t->end.name);
}

/* --- making -------------------------------------------------------------------------------- */

static void tap_free(struct net_end *end)
{
	struct tap *t = tap_of(end);
	struct error err;

	net_end_fini(end);
	for (unsigned i = 0; i < t->n; i++)
		if (t->queues[i].watch.loop)
			loop_watch_del(&t->queues[i].watch);
	if (t->down_script && script_run(t->down_script, t->ifname, &err) < 0)
		log_warn("%s", err.text);
	for (unsigned i = 0; i < t->n; i++)
		if (t->queues[i].fd >= 0)
			sys_close(t->queues[i].fd);
	free(t->down_script);
	free(t);
}

static const struct net_ops tap_ops = {.type = "tap",
				       .receive = tap_receive,
				       .receive_direct = tap_receive_direct,
				       .writable = tap_writable,
				       .set_offload = tap_set_offload,
				       .free = tap_free};

static int refuse_with(const struct opts *o, const char *key, const char *const *others,
		       struct error *err)
{
	for (; opts_has(o, key) && *others; others++)
		if (opts_has(o, *others))
			return err_set(
				err, -EINVAL,
				"ifname=, script=, downscript=, vnet_hdr=, helper=, "
				"queues=, %s are invalid with %s=",
				strcmp(key, "fd") ? "and vhostfd=" : "fds=, and vhostfds=", key);
	return 0;
}

static int check_vhost(const struct opts *o, struct error *err)
{
	const char *asked = opts_has(o, "vhostfds") ? "vhostfds=" : "vhostfd=";
	bool on = false, force = false;

	if (opts_get_bool(o, "vhost", &on, err) < 0 ||
	    opts_get_bool(o, "vhostforce", &force, err) < 0)
		return err->code;
	if (on || force)
		asked = on ? "vhost=on" : "vhostforce=on";
	else if (!opts_has(o, "vhostfd") && !opts_has(o, "vhostfds"))
		return 0;
	return err_set(err, -ENOTSUP,
		       "%s is not available: snapshots would miss what the host's kernel writes "
		       "to guest memory",
		       asked);
}

static int check_options(const struct opts *o, u32 *queues, struct error *err)
{
	static const char *const not_with_fd[] = {"ifname", "script", "downscript", "vnet_hdr",
						  "helper", "queues", "fds",	    NULL};
	static const char *const not_with_fds[] = {"ifname", "script", "downscript", "vnet_hdr",
						   "helper", "queues", NULL};
	int ret = refuse_with(o, "fd", not_with_fd, err);

	if (ret == 0)
		ret = refuse_with(o, "fds", not_with_fds, err);
	if (ret < 0)
		return ret;
	if (opts_has(o, "br") || opts_has(o, "helper"))
		return err_set(err, -ENOTSUP,
			       "br= and helper= are not available: add the tap to a bridge by "
			       "script=");
	*queues = 1;
	if (check_vhost(o, err) < 0 || opts_get_u32(o, "queues", queues, err) < 0)
		return err->code;
	if (!*queues || *queues > QUEUES_MAX)
		return err_set(err, -EINVAL, "queues is %u, expected 1..%u", *queues, QUEUES_MAX);
	return 0;
}

static struct tap_queue *add_queue(struct tap *t)
{
	struct tap_queue *q = &t->queues[t->n++];

	*q = (struct tap_queue){.tap = t, .fd = -1};
	return q;
}

/* An open one that we were given: does it have headers? */
static int adopt_one(struct tap *t, const char *text, struct error *err)
{
	struct tap_queue *q = add_queue(t);
	struct ifreq ifr = {.ifr_flags = 0};
	u64 fd;
	int ret;

	if (parse_u64(text, &fd) < 0 || fd > INT_MAX)
		return err_set(err, -EINVAL, "Invalid file descriptor number '%s'", text);
	ret = fcntl((int)fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	if (ret < 0)
		return err_set(err, ret, "%s: Can't use file descriptor %d: %s", t->end.name,
			       (int)fd, strerror(-ret));
	q->fd = (int)fd;
	fcntl(q->fd, F_SETFD, FD_CLOEXEC);
	ret = sys_ioctl(q->fd, TUNGETIFF, &ifr);
	if (ret < 0)
		return err_set_errno(err, ret, "Unable to query TUNGETIFF on FD %d", q->fd);
	if (t->n > 1 && t->vnet != !!(ifr.ifr_flags & IFF_VNET_HDR))
		return err_set(err, -EINVAL, "vnet_hdr not consistent across given tap fds");
	t->vnet = ifr.ifr_flags & IFF_VNET_HDR;
	memcpy(t->ifname, ifr.ifr_name, sizeof(t->ifname));
	t->ifname[sizeof(t->ifname) - 1] = 0;
	return 0;
}

/* "3", or "3:4:5". */
static int adopt(struct tap *t, const char *list, struct error *err)
{
	AUTO_FREE char *copy = xstrdup(list);
	char *rest = copy, *text;
	int ret = 0;

	while (ret == 0 && (text = strsep(&rest, ":"))) {
		if (t->n == QUEUES_MAX)
			return err_set(err, -EINVAL, "more than %u descriptors", QUEUES_MAX);
		ret = adopt_one(t, text, err);
	}
	snprintf(t->end.info, sizeof(t->end.info), "fd=%.200s", list);
	return ret;
}

static int make_queue(struct tap *t, struct ifreq *ifr, struct error *err)
{
	struct tap_queue *q = add_queue(t);
	int ret;

	q->fd = sys_open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
	if (q->fd < 0)
		return err_set(err, q->fd, "could not open /dev/net/tun: %s", strerror(-q->fd));
	ret = sys_ioctl(q->fd, TUNSETIFF, ifr);
	if (ret < 0)
		return err_set(err, ret, "could not configure /dev/net/tun (%s): %s", ifr->ifr_name,
			       strerror(-ret));
	return 0;
}

/* Does the host know these? */
static bool has_features(unsigned wanted)
{
	unsigned features = 0;
	int fd = sys_open("/dev/net/tun", O_RDWR | O_CLOEXEC, 0);
	bool ok = fd >= 0 && sys_ioctl(fd, TUNGETFEATURES, &features) == 0;

	if (fd >= 0)
		sys_close(fd);
	return ok && (features & wanted) == wanted;
}

/* A name that the kernel cuts off would be another device's. */
static int make(struct tap *t, const struct opts *o, u32 queues, struct error *err)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	const char *ifname = opts_get(o, "ifname");
	bool vnet = true;
	int ret = 0;

	if (opts_get_bool(o, "vnet_hdr", &vnet, err) < 0)
		return err->code;
	if (ifname && strlen(ifname) >= IFNAMSIZ)
		return err_set(err, -EINVAL, "ifname '%s' has more than %d characters", ifname,
			       IFNAMSIZ - 1);
	t->vnet = vnet && has_features(IFF_VNET_HDR);
	if (vnet && opts_has(o, "vnet_hdr") && !t->vnet)
		return err_set(err, -ENOTSUP,
			       "vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR "
			       "available");
	if (queues > 1 && !has_features(IFF_MULTI_QUEUE))
		return err_set(err, -ENOTSUP,
			       "multiqueue required, but no kernel support for IFF_MULTI_QUEUE "
			       "available");
	ifr.ifr_flags |= (t->vnet ? IFF_VNET_HDR : 0) | (queues > 1 ? IFF_MULTI_QUEUE : 0);
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname ? ifname : "tap%d");
	while (ret == 0 && t->n < queues)
		ret = make_queue(t, &ifr, err); /* the first gives the name */
	memcpy(t->ifname, ifr.ifr_name, sizeof(t->ifname));
	t->ifname[sizeof(t->ifname) - 1] = 0;
	return ret;
}

static bool wanted(const char *script)
{
	return *script && strcmp(script, "no") != 0;
}

static int set_up(struct tap *t, const struct opts *o, u32 queues, struct error *err)
{
	const char *up = opts_get(o, "script"), *down = opts_get(o, "downscript");
	int ret = make(t, o, queues, err);

	if (ret < 0)
		return ret;
	up = up ? up : UP_SCRIPT;
	down = down ? down : DOWN_SCRIPT;
	if (wanted(up))
		ret = script_run(up, t->ifname, err);
	if (ret == 0 && wanted(down))
		t->down_script = xstrdup(down);
	snprintf(t->end.info, sizeof(t->end.info), "ifname=%s,script=%.80s,downscript=%.80s",
		 t->ifname, up, down);
	return ret;
}

static int tune(struct tap *t, const struct opts *o, struct error *err)
{
	int header_bytes = HEADER_BYTES, bytes;
	u64 sndbuf = 0;

	if (opts_get_size(o, "sndbuf", 1, &sndbuf, err) < 0)
		return err->code;
	bytes = sndbuf && sndbuf < INT_MAX ? (int)sndbuf : INT_MAX;
	t->end.limited = bytes < INT_MAX;
	for (unsigned i = 0; i < t->n; i++) {
		if (t->vnet && sys_ioctl(t->queues[i].fd, TUNSETVNETHDRSZ, &header_bytes) < 0)
			return err_set(err, -ENOTSUP, "%s: the host's headers have another size",
				       t->end.name);
		sys_ioctl(t->queues[i].fd, TUNSETSNDBUF, &bytes); /* the default does, too */
	}
	return 0;
}

static int open_queues(struct tap *t, const struct opts *o, u32 queues, struct error *err)
{
	if (opts_has(o, "fd"))
		return adopt(t, opts_get(o, "fd"), err);
	return opts_has(o, "fds") ? adopt(t, opts_get(o, "fds"), err) : set_up(t, o, queues, err);
}

int tap_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
	    struct error *err)
{
	struct tap *t;
	u32 queues;
	int ret = check_options(opts, &queues, err);

	if (ret < 0)
		return ret;
	t = xnew(struct tap);
	net_end_init(&t->end, net, &tap_ops, name);
	ret = open_queues(t, opts, queues, err);
	if (ret == 0)
		ret = tune(t, opts, err);
	if (ret < 0) {
		tap_free(&t->end);
		return ret;
	}
	t->end.offloads = t->vnet;
	t->end.takes = t->vnet ? NET_TAKES_ALL : 0;
	t->end.queues = (u16)t->n;
	tap_set_offload(&t->end, 0);
	t->reading = true;
	for (unsigned i = 0; i < t->n; i++)
		loop_watch_add(net_loop(net), &t->queues[i].watch, t->queues[i].fd, POLLIN,
			       tap_ready);
	*out = &t->end;
	return 0;
}
