/* `user`: libslirp on the main loop; see user.h.  Thread: main.
 *
 * libslirp says before every wait which descriptors it wants to hear of: watches are
 * kept by descriptor and only changed where its wish changed, and it is asked only
 * after something has happened to it, so an idle network costs nothing.
 * Invariant: U1 a watch exists only for a descriptor that libslirp has open. */
#include "devices/net/user.h"

#include "base/log.h"
#include "base/loop.h"
#include "base/thread.h"
#include "devices/net/checksum.h"
#include "vmm/core/clock.h"
#include "vmm/core/state.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>

struct user_net;

struct poll_slot {
	struct loop_watch watch;
	struct user_net *user;
	int fd;
	u32 revents;
	u32 round; /* of the last wish */
};

struct user_net {
	struct net_end end;
	Slirp *slirp;
	struct clock *clock;
	struct loop *loop;
	struct loop_idle idle;
	struct loop_timer timeout;
	struct poll_slot **slots; /* by descriptor; NULL: not watched */
	int n_slots;
	u32 round;
	bool fired, stale;
	u8 *linear; /* for frames in pieces */
	struct user_place place;
};

/* A timer of libslirp, in the guest's time. */
struct user_timer {
	struct timer timer;
	struct user_net *user;
	SlirpTimerId id;
	void *arg;
};

static const struct net_ops user_ops;

static struct user_net *user_of(struct net_end *end)
{
	assert(end->ops == &user_ops);
	return container_of(end, struct user_net, end);
}

bool net_is_user(const struct net_end *end)
{
	return end->ops == &user_ops;
}

/* --- descriptors --------------------------------------------------------------------- */

static void drop_slot(struct user_net *u, int fd)
{
	if (fd < 0 || fd >= u->n_slots || !u->slots[fd])
		return;
	loop_watch_del(&u->slots[fd]->watch);
	free(u->slots[fd]);
	u->slots[fd] = NULL;
}

static void fd_ready(struct loop_watch *watch, u32 revents)
{
	struct poll_slot *slot = container_of(watch, struct poll_slot, watch);

	slot->revents |= revents;
	slot->user->fired = true;
}

static void timed_out(struct loop_timer *timer)
{
	container_of(timer, struct user_net, timeout)->fired = true;
}

static void make_room(struct user_net *u, int fd)
{
	int n = u->n_slots ? u->n_slots : 64;

	while (n <= fd)
		n *= 2;
	if (n == u->n_slots)
		return;
	u->slots = xrealloc(u->slots, (size_t)n * sizeof(*u->slots));
	memset(u->slots + u->n_slots, 0, (size_t)(n - u->n_slots) * sizeof(*u->slots));
	u->n_slots = n;
}

static int add_poll(int fd, int events, void *opaque)
{
	static const struct {
		int ours;
		u32 host;
	} map[] = {{SLIRP_POLL_IN, POLLIN}, {SLIRP_POLL_OUT, POLLOUT}, {SLIRP_POLL_PRI, POLLPRI}};
	struct user_net *u = opaque;
	struct poll_slot *slot;
	u32 want = 0;

	for (unsigned i = 0; i < ARRAY_LEN(map); i++)
		if (events & map[i].ours)
			want |= map[i].host;
	make_room(u, fd);
	slot = u->slots[fd];
	if (!slot) {
		slot = u->slots[fd] = xnew(struct poll_slot);
		slot->user = u;
		slot->fd = fd;
		loop_watch_add(u->loop, &slot->watch, fd, want, fd_ready);
	} else if (slot->watch.events != want) {
		loop_watch_set(&slot->watch, want);
	}
	slot->round = u->round;
	return fd;
}

static int get_revents(int fd, void *opaque)
{
	struct user_net *u = opaque;
	u32 got = fd >= 0 && fd < u->n_slots && u->slots[fd] ? u->slots[fd]->revents : 0;
	int events = 0;

	if (got & POLLIN)
		events |= SLIRP_POLL_IN;
	if (got & POLLOUT)
		events |= SLIRP_POLL_OUT;
	if (got & POLLPRI)
		events |= SLIRP_POLL_PRI;
	if (got & POLLERR)
		events |= SLIRP_POLL_ERR;
	if (got & POLLHUP)
		events |= SLIRP_POLL_HUP;
	return events;
}

/* Tell libslirp what happened, then ask what it waits for. */
static void turn_ends(struct loop_idle *idle)
{
	struct user_net *u = container_of(idle, struct user_net, idle);
	u32 ms = UINT32_MAX;

	if (u->fired) {
		u->fired = false;
		u->stale = true;
		slirp_pollfds_poll(u->slirp, 0, get_revents, u);
	}
	if (!u->stale)
		return;
	u->stale = false;
	u->round++;
	user_guestfwd_update(&u->place);
	slirp_pollfds_fill(u->slirp, &ms, add_poll, u);
	for (int fd = 0; fd < u->n_slots; fd++) {
		if (!u->slots[fd])
			continue;
		u->slots[fd]->revents = 0;
		if (u->slots[fd]->round != u->round)
			drop_slot(u, fd);
	}
	loop_timer_del(&u->timeout);
	if (ms != UINT32_MAX)
		loop_timer_set(&u->timeout, now_ns() + ms * (u64)NS_PER_MS);
}

/* --- what libslirp calls ---------------------------------------------------------------- */

static ssize_t send_packet(const void *data, size_t bytes, void *opaque)
{
	struct user_net *u = opaque;
	struct iovec iov = {(void *)(uintptr_t)data, bytes};
	struct net_frame f = {.iov = &iov, .n = 1, .bytes = (u32)MIN(bytes, (size_t)UINT32_MAX)};

	net_send(&u->end, &f);
	return (ssize_t)bytes;
}

static void guest_error(const char *text, void *opaque)
{
	struct user_net *u = opaque;

	log_guest("%s: %s", u->end.name, text);
}

static int64_t clock_ns(void *opaque)
{
	struct user_net *u = opaque;

	return (int64_t)clock_now(u->clock);
}

static void timer_fires(struct timer *timer)
{
	struct user_timer *t = container_of(timer, struct user_timer, timer);

	slirp_handle_timer(t->user->slirp, t->id, t->arg);
	t->user->stale = true;
}

static void *new_timer(SlirpTimerId id, void *arg, void *opaque)
{
	struct user_timer *t = xnew(struct user_timer);

	t->user = opaque;
	t->id = id;
	t->arg = arg;
	timer_init(&t->timer, t->user->clock, timer_fires);
	return t;
}

static void free_timer(void *timer, void *opaque)
{
	struct user_timer *t = timer;

	timer_del(&t->timer);
	free(t);
}

static void set_timer(void *timer, int64_t ms, void *opaque)
{
	struct user_timer *t = timer;

	timer_set(&t->timer, (u64)ms * NS_PER_MS);
}

/* A number that comes again belongs to another descriptor: U1. */
static void forget_fd(int fd, void *opaque)
{
	struct user_net *u = opaque;

	drop_slot(u, fd);
	u->stale = true;
}

static void notify(void *opaque)
{
	struct user_net *u = opaque;

	u->stale = true;
}

static const SlirpCb callbacks = {.send_packet = send_packet,
				  .guest_error = guest_error,
				  .clock_get_ns = clock_ns,
				  .timer_new_opaque = new_timer,
				  .timer_free = free_timer,
				  .timer_mod = set_timer,
				  .register_poll_fd = forget_fd,
				  .unregister_poll_fd = forget_fd,
				  .notify = notify};

/* --- the end of the wire ---------------------------------------------------------------- */

static bool user_receive(struct net_end *end, const struct net_frame *f)
{
	struct user_net *u = user_of(end);
	const u8 *data = f->iov[0].iov_base;

	if (f->n > 1) {
		if (!u->linear)
			u->linear = try_alloc(NET_FRAME_MAX);
		if (!u->linear || !net_frame_copy(f, 0, u->linear, f->bytes))
			return true;
		data = u->linear;
	}
	slirp_input(u->slirp, data, (int)f->bytes);
	u->stale = true;
	return true;
}

static void user_free(struct net_end *end)
{
	struct user_net *u = user_of(end);

	net_end_fini(end);
	if (u->slirp)
		slirp_cleanup(u->slirp);
	user_guestfwd_free(&u->place);
	loop_idle_del(&u->idle);
	loop_timer_del(&u->timeout);
	for (int fd = 0; fd < u->n_slots; fd++)
		drop_slot(u, fd);
	free(u->slots);
	free(u->linear);
	free(u);
}

static ssize_t save_piece(const void *data, size_t bytes, void *opaque)
{
	state_put_bytes(opaque, data, bytes);
	return (ssize_t)bytes;
}

static void user_save(struct net_end *end, struct state_buf *out)
{
	slirp_state_save(user_of(end)->slirp, save_piece, out);
}

static ssize_t load_piece(void *to, size_t bytes, void *opaque)
{
	struct state_buf *in = opaque;
	size_t n = MIN(bytes, in->bytes - in->at);

	/* The library reads whole fields: what is missing must not be chance. */
	memset(to, 0, bytes);
	memcpy(to, in->data + in->at, n);
	in->at += n;
	return (ssize_t)bytes;
}

static int user_load(struct net_end *end, u32 version, const u8 *data, size_t bytes)
{
	struct user_net *u = user_of(end);
	struct state_buf in = {.data = (u8 *)(uintptr_t)data, .bytes = bytes};

	u->stale = true;
	return slirp_state_load(u->slirp, (int)version, load_piece, &in) < 0 ? -EINVAL : 0;
}

static u32 user_state_version(struct net_end *end)
{
	return (u32)slirp_state_version();
}

static const struct net_ops user_ops = {.type = "user",
					.receive = user_receive,
					.save = user_save,
					.load = user_load,
					.state_version = user_state_version,
					.free = user_free};

/* --- commands --------------------------------------------------------------------------- */

int user_net_forward(struct net_end *end, const char *rule, struct error *err)
{
	struct user_net *u = user_of(end);
	struct user_forward f;
	int ret = user_forward_parse(&f, rule, true, err);

	if (ret < 0)
		return ret;
	if (slirp_add_hostfwd(u->slirp, f.udp, f.host, f.host_port, f.guest, f.guest_port) < 0)
		return err_set(err, -EADDRINUSE, "Could not set up host forwarding rule '%s'",
			       rule);
	u->stale = true;
	return 0;
}

int user_net_unforward(struct net_end *end, const char *rule, struct error *err)
{
	struct user_net *u = user_of(end);
	struct user_forward f;
	int ret = user_forward_parse(&f, rule, false, err);

	if (ret < 0)
		return ret;
	u->stale = true;
	return slirp_remove_hostfwd(u->slirp, f.udp, f.host, f.host_port) < 0 ? -ENOENT : 0;
}

void user_net_info(struct net_end *end, struct printer *p)
{
	AUTO_FREE char *text = slirp_connection_info(user_of(end)->slirp);
	int hub = end->peer ? net_hub_of(end->peer) : -1;

	print_to(p, "Hub %d (%s):\n%s", hub, end->name, text);
}

/* --- making ------------------------------------------------------------------------------- */

static int add_rules(struct user_net *u, const struct opts *opts, struct error *err)
{
	int ret = 0;

	for (unsigned i = 0; i < opts->n && ret == 0; i++) {
		const struct opt *o = &opts->v[i];

		if (!strcmp(o->name, "hostfwd"))
			ret = user_net_forward(&u->end, o->value, err);
		else if (!strcmp(o->name, "guestfwd"))
			ret = user_guestfwd_add(&u->place, o->value, err);
	}
	return ret;
}

static void describe(struct user_net *u, const SlirpConfig *s)
{
	char net[INET_ADDRSTRLEN];

	inet_ntop(AF_INET, &s->vnetwork, net, sizeof(net));
	snprintf(u->end.info, sizeof(u->end.info), "net=%s,restrict=%s", net,
		 s->restricted ? "on" : "off");
}

int user_net_new(struct net_end **out, struct net *net, const char *name, const struct opts *opts,
		 struct error *err)
{
	struct user_config c;
	struct user_net *u;
	int ret = user_config_parse(&c, opts, err);

	if (ret < 0)
		return ret;
	u = xnew(struct user_net);
	u->loop = net_loop(net);
	u->clock = net_clock(net);
	net_end_init(&u->end, net, &user_ops, name);
	loop_timer_init(u->loop, &u->timeout, timed_out);
	loop_idle_add(u->loop, &u->idle, turn_ends);
	u->stale = true;
	u->slirp = slirp_new(&c.slirp, &callbacks, u);
	u->place = (struct user_place){.slirp = u->slirp, .loop = u->loop};
	list_init(&u->place.forwards);
	if (u->slirp)
		ret = add_rules(u, opts, err);
	else
		ret = err_set(err, -EINVAL, "the user network cannot be set up");
	describe(u, &c.slirp);
	free(c.search);
	if (ret < 0) {
		user_free(&u->end);
		return ret;
	}
	*out = &u->end;
	return 0;
}
