/* `tap`: frames to and from the host's kernel by /dev/net/tun; Linux, Documentation/
 * networking/tuntap.rst.  Thread: main.
 *
 * With vnet headers, checksums are left out and large segments stay whole in either
 * direction, as far as the card's driver agreed to.  A peer that takes nothing stops the
 * reading: then the kernel's queue of the device is the one that is bounded. */
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

struct tap {
	struct net_end end;
	int fd;
	bool vnet, reading, blocked;
	char ifname[IFNAMSIZ];
	char *down_script; /* NULL: none */
	struct loop_watch watch;
	u8 buf[NET_FRAME_MAX];
};

static struct tap *tap_of(struct net_end *end)
{
	return container_of(end, struct tap, end);
}

static void update_watch(struct tap *t)
{
	u32 events = (t->reading ? POLLIN : 0) | (t->blocked ? POLLOUT : 0);

	if (t->watch.events != events)
		loop_watch_set(&t->watch, events);
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

static bool read_one(struct tap *t)
{
	u8 header[HEADER_BYTES] = {0};
	u32 head = t->vnet ? HEADER_BYTES : 0;
	struct iovec iov[2] = {{header, head}, {t->buf, sizeof(t->buf)}};
	struct net_frame f = {.iov = &iov[1], .n = 1};
	s64 got = sys_readv(t->fd, iov + !head, 1 + !!head);

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
	struct tap *t = tap_of(end);

	t->reading = true;
	update_watch(t);
}

static void tap_ready(struct loop_watch *watch, u32 revents)
{
	struct tap *t = container_of(watch, struct tap, watch);

	if (revents & POLLOUT && t->blocked) {
		t->blocked = false;
		update_watch(t);
		net_flush(&t->end);
	}
	if (!(revents & (POLLIN | POLLERR)) || !t->reading)
		return;
	for (unsigned i = 0; i < TURN_FRAMES; i++) {
		if (!net_can_send(&t->end)) {
			t->reading = false;
			update_watch(t);
			return;
		}
		if (!read_one(t))
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

static bool tap_receive(struct net_end *end, const struct net_frame *f)
{
	struct tap *t = tap_of(end);
	u8 header[HEADER_BYTES];
	struct iovec iov[IOV_DIRECT + 1];
	unsigned n = 0;
	s64 ret;

	if (t->vnet) {
		encode(header, &f->offload);
		iov[n++] = (struct iovec){header, sizeof(header)};
	}
	if (f->n <= IOV_DIRECT) {
		memcpy(iov + n, f->iov, f->n * sizeof(*iov));
		n += f->n;
	} else {
		net_frame_copy(f, 0, t->buf, f->bytes);
		iov[n++] = (struct iovec){t->buf, f->bytes};
	}
	ret = sys_writev(t->fd, iov, n);
	if (ret != -EAGAIN)
		return true; /* what the kernel refuses is lost, as on a wire */
	t->blocked = true;
	update_watch(t);
	return false;
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
	/* Kernels that know no UFO refuse the flag. */
	if (sys_ioctl(t->fd, TUNSETOFFLOAD, (void *)flags) < 0 &&
	    sys_ioctl(t->fd, TUNSETOFFLOAD, (void *)(flags & ~(unsigned long)TUN_F_UFO)) < 0)
		log_warn("%s: the host does not set offloads", t->end.name);
}

/* --- making -------------------------------------------------------------------------------- */

static void tap_free(struct net_end *end)
{
	struct tap *t = tap_of(end);
	struct error err;

	net_end_fini(end);
	if (t->watch.loop)
		loop_watch_del(&t->watch);
	if (t->down_script && script_run(t->down_script, t->ifname, &err) < 0)
		log_warn("%s", err.text);
	if (t->fd >= 0)
		sys_close(t->fd);
	free(t->down_script);
	free(t);
}

static const struct net_ops tap_ops = {.type = "tap",
				       .receive = tap_receive,
				       .writable = tap_writable,
				       .set_offload = tap_set_offload,
				       .free = tap_free};

static int check_options(const struct opts *o, struct error *err)
{
	static const char *const not_with_fd[] = {"ifname",   "script", "downscript",
						  "vnet_hdr", "helper", "queues"};
	bool on = false;
	u32 queues = 1;

	for (unsigned i = 0; opts_has(o, "fd") && i < ARRAY_LEN(not_with_fd); i++)
		if (opts_has(o, not_with_fd[i]))
			return err_set(err, -EINVAL,
				       "ifname=, script=, downscript=, vnet_hdr=, helper=, "
				       "queues=, fds=, and vhostfds= are invalid with fd=");
	if (opts_has(o, "br") || opts_has(o, "helper"))
		return err_set(err, -ENOTSUP,
			       "br= and helper= are not available: add the tap to a bridge by "
			       "script=");
	if (opts_get_bool(o, "vhost", &on, err) < 0)
		return err->code;
	if (!on && opts_get_bool(o, "vhostforce", &on, err) < 0)
		return err->code;
	if (on)
		return err_set(err, -ENOTSUP, "vhost is not available, only vhost=off");
	if (opts_get_u32(o, "queues", &queues, err) < 0)
		return err->code;
	if (queues != 1)
		return err_set(err, -ENOTSUP, "queues is %u, expected 1", queues);
	return 0;
}

/* An open one that we were given: does it have headers? */
static int adopt(struct tap *t, const char *text, struct error *err)
{
	struct ifreq ifr = {.ifr_flags = 0};
	u64 fd;
	int ret;

	if (parse_u64(text, &fd) < 0 || fd > INT_MAX)
		return err_set(err, -EINVAL, "Parameter 'fd' expects a number");
	t->fd = (int)fd;
	ret = fcntl(t->fd, F_SETFL, O_NONBLOCK) < 0 ? -errno : 0;
	if (ret < 0) {
		t->fd = -1;
		return err_set(err, ret, "%s: Can't use file descriptor %d: %s", t->end.name,
			       (int)fd, strerror(-ret));
	}
	fcntl(t->fd, F_SETFD, FD_CLOEXEC);
	ret = sys_ioctl(t->fd, TUNGETIFF, &ifr);
	if (ret < 0)
		return err_set_errno(err, ret, "%s: file descriptor %d is no tap", t->end.name,
				     (int)fd);
	t->vnet = ifr.ifr_flags & IFF_VNET_HDR;
	memcpy(t->ifname, ifr.ifr_name, sizeof(t->ifname));
	t->ifname[sizeof(t->ifname) - 1] = 0;
	snprintf(t->end.info, sizeof(t->end.info), "fd=%d", t->fd);
	return 0;
}

/* A name that the kernel cuts off would be another device's. */
static int make(struct tap *t, const struct opts *o, struct error *err)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
	const char *ifname = opts_get(o, "ifname");
	bool vnet = true, must = false;
	unsigned features = 0;
	int ret;

	if (opts_get_bool(o, "vnet_hdr", &vnet, err) < 0)
		return err->code;
	must = vnet && opts_has(o, "vnet_hdr");
	if (ifname && strlen(ifname) >= IFNAMSIZ)
		return err_set(err, -EINVAL, "ifname '%s' has more than %d characters", ifname,
			       IFNAMSIZ - 1);
	t->fd = sys_open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
	if (t->fd < 0)
		return err_set(err, t->fd, "could not open /dev/net/tun: %s", strerror(-t->fd));
	ret = sys_ioctl(t->fd, TUNGETFEATURES, &features);
	t->vnet = vnet && ret == 0 && features & IFF_VNET_HDR;
	if (must && !t->vnet)
		return err_set(err, -ENOTSUP,
			       "vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR "
			       "available");
	if (t->vnet)
		ifr.ifr_flags |= IFF_VNET_HDR;
	if (ifname)
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	else
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "tap%%d");
	ret = sys_ioctl(t->fd, TUNSETIFF, &ifr);
	if (ret < 0)
		return err_set(err, ret, "could not configure /dev/net/tun (%s): %s", ifr.ifr_name,
			       strerror(-ret));
	memcpy(t->ifname, ifr.ifr_name, sizeof(t->ifname));
	t->ifname[sizeof(t->ifname) - 1] = 0;
	return 0;
}

static bool wanted(const char *script)
{
	return *script && strcmp(script, "no") != 0;
}

static int set_up(struct tap *t, const struct opts *o, struct error *err)
{
	const char *up = opts_get(o, "script"), *down = opts_get(o, "downscript");
	int ret = make(t, o, err);

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
	u64 sndbuf = 0;
	int bytes = HEADER_BYTES;

	if (opts_get_size(o, "sndbuf", 1, &sndbuf, err) < 0)
		return err->code;
	if (t->vnet && sys_ioctl(t->fd, TUNSETVNETHDRSZ, &bytes) < 0)
		return err_set(err, -ENOTSUP, "%s: the host's headers have another size",
			       t->end.name);
	bytes = sndbuf && sndbuf < INT_MAX ? (int)sndbuf : INT_MAX;
	sys_ioctl(t->fd, TUNSETSNDBUF, &bytes); /* the default does, too */
	return 0;
}

int tap_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
	    struct error *err)
{
	struct tap *t;
	int ret = check_options(opts, err);

	if (ret < 0)
		return ret;
	t = xnew(struct tap);
	t->fd = -1;
	net_end_init(&t->end, net, &tap_ops, name);
	ret = opts_has(opts, "fd") ? adopt(t, opts_get(opts, "fd"), err) : set_up(t, opts, err);
	if (ret == 0)
		ret = tune(t, opts, err);
	if (ret < 0) {
		tap_free(&t->end);
		return ret;
	}
	t->end.offloads = t->vnet;
	t->end.takes = t->vnet ? NET_TAKES_ALL : 0;
	tap_set_offload(&t->end, 0);
	t->reading = true;
	loop_watch_add(net_loop(net), &t->watch, t->fd, POLLIN, tap_ready);
	*out = &t->end;
	return 0;
}
