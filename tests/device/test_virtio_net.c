/* virtio-net: frames both ways, offloads, the control queue and its filters, links; a
 * hostile driver. */
#include "devices/virtio/net.h"

#include "base/bytes.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/thread.h"
#include "devices/virtio/net_int.h"
#include "tests/lib/net_rig.h"
#include "tests/lib/vring_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define RING(n)	 (0x10000 + 0x10000ull * (n))
#define DATA	 0x80000
#define BUFFERS	 0x100000
#define SIZE	 256
#define RX_BYTES 512 /* of each receive buffer */

struct driver {
	struct net_rig r;
	struct vring_driver q[2 * VNET_PAIRS + 1];
	unsigned ctrl; /* the control queue */
	u64 features;
};

static u64 common(struct driver *d, u32 off, unsigned size)
{
	return mmio_read(&d->r.fm, RIG_MEM + off, size);
}

static void set_common(struct driver *d, u32 off, unsigned size, u64 value)
{
	mmio_write(&d->r.fm, RIG_MEM + off, size, value);
}

static u8 *ram(struct driver *d, u64 gpa)
{
	return mem_ptr_rw(d->r.fm.m.mem, gpa, 1);
}

static void kick(struct driver *d, unsigned queue)
{
	mmio_write(&d->r.fm, RIG_MEM + 0x3000 + 4 * queue, 2, queue);
	net_rig_run(&d->r);
}

static u64 offered(struct driver *d)
{
	u64 low;

	set_common(d, 0, 4, 0);
	low = common(d, 4, 4);
	set_common(d, 0, 4, 1);
	return common(d, 4, 4) << 32 | low;
}

static void negotiate(struct driver *d, u64 wanted)
{
	set_common(d, 20, 1, 0);
	d->features = offered(d) & (wanted | (u64)1 << VIRTIO_F_VERSION_1);
	for (unsigned i = 0; i < 2; i++) {
		set_common(d, 8, 4, i);
		set_common(d, 12, 4, (u32)(d->features >> 32 * i));
	}
	set_common(d, 20, 1, 0xb);
	for (unsigned i = 0; i <= d->ctrl; i++) {
		u16 size = i == d->ctrl ? 64 : SIZE;

		vring_init(&d->q[i], d->r.fm.m.mem, RING(i), size);
		d->q[i].event_idx = d->features >> VIRTIO_F_EVENT_IDX & 1;
		set_common(d, 22, 2, i);
		set_common(d, 24, 2, size);
		set_common(d, 32, 4, d->q[i].desc);
		set_common(d, 40, 4, d->q[i].avail);
		set_common(d, 48, 4, d->q[i].used);
		set_common(d, 28, 2, 1);
	}
	set_common(d, 20, 1, 0xf);
	net_rig_run(&d->r);
}

static void start_pairs(struct driver *d, u16 pairs, bool offloads, u64 wanted)
{
	memset(d, 0, sizeof(*d));
	d->ctrl = pairs > 1 && wanted & (u64)1 << NET_F_MQ ? 2u * pairs : VNET_CTRL;
	net_rig_init_queues(&d->r, &virtio_net_class, offloads, pairs);
	pci_write(&d->r.fm, d->r.devfn, 0x10, 4, RIG_IO);
	pci_write(&d->r.fm, d->r.devfn, 0x14, 4, RIG_MSIX);
	pci_write(&d->r.fm, d->r.devfn, 0x20, 4, RIG_MEM);
	pci_write(&d->r.fm, d->r.devfn, 0x24, 4, 0);
	pci_write(&d->r.fm, d->r.devfn, 0x04, 2, 7);
	negotiate(d, wanted);
}

static void start(struct driver *d, bool offloads, u64 wanted)
{
	start_pairs(d, 1, offloads, wanted);
}

static void stop(struct driver *d)
{
	net_rig_fini(&d->r);
}

#define BIT(n) ((u64)1 << (n))

static void put_buffers(struct driver *d, unsigned queue, unsigned n, u32 bytes)
{
	struct vring_driver *q = &d->q[queue];

	for (unsigned i = 0; i < n; i++) {
		u16 slot = q->next_avail % SIZE;

		vring_set_desc(q, slot, BUFFERS + 4096 * slot, bytes, VRING_WRITE);
		vring_offer(q, slot);
	}
}

static void give_buffers_to(struct driver *d, unsigned queue, unsigned n, u32 bytes)
{
	put_buffers(d, queue, n, bytes);
	kick(d, queue);
}

/* As drivers do: kick if the device asked for it. */
static void add_buffers(struct driver *d, unsigned n, u32 bytes)
{
	put_buffers(d, VNET_RX, n, bytes);
	if (vring_wants_kick(&d->q[VNET_RX], (u16)n))
		kick(d, VNET_RX);
}

static void give_buffers(struct driver *d, unsigned n, u32 bytes)
{
	give_buffers_to(d, VNET_RX, n, bytes);
}

/* How many buffers came back since the last call; bytes of the last one. */
static unsigned take_used(struct driver *d, unsigned queue, u32 *bytes)
{
	struct vring_driver *q = &d->q[queue];
	u16 now = vring_get(q, q->used + 2);
	unsigned n = (u16)(now - q->next_used);

	q->next_used = now;
	if (n && bytes)
		*bytes = load_le32(ram(d, q->used + 4 + 8u * ((now - 1u) % q->size) + 4));
	return n;
}

static void a_frame_in_pieces_goes_out_whole(void **state)
{
	struct driver d;

	start(&d, false, 0);
	memset(ram(&d, DATA), 0, 12);
	memset(ram(&d, DATA + 12), 0x42, 600);
	vring_set_desc(&d.q[VNET_TX], 0, DATA, 20, VRING_NEXT | 1 << 16);
	vring_set_desc(&d.q[VNET_TX], 1, DATA + 20, 592, 0);
	vring_offer(&d.q[VNET_TX], 0);
	kick(&d, VNET_TX);
	assert_int_equal(d.r.got, 1);
	assert_int_equal(d.r.frames[0].bytes, 600);
	assert_int_equal(d.r.frames[0].data[599], 0x42);
	assert_int_equal(take_used(&d, VNET_TX, NULL), 1);
	assert_true(d.r.fm.gsi[RIG_GSI]);
	stop(&d);
}

static void a_busy_wire_holds_the_queue(void **state)
{
	struct driver d;

	start(&d, false, 0);
	d.r.busy = true;
	for (u16 i = 0; i < 5; i++) {
		vring_set_desc(&d.q[VNET_TX], i, DATA, 112, 0);
		vring_offer(&d.q[VNET_TX], i);
	}
	kick(&d, VNET_TX);
	assert_int_equal(take_used(&d, VNET_TX, NULL), 0);
	d.r.busy = false;
	net_flush(&d.r.peer);
	net_rig_run(&d.r);
	assert_int_equal(take_used(&d, VNET_TX, NULL), 5);
	assert_int_equal(d.r.got, 5);
	stop(&d);
}

static void a_frame_comes_in_behind_its_header(void **state)
{
	struct driver d;
	u32 bytes;

	start(&d, false, 0);
	give_buffers(&d, 4, RX_BYTES);
	net_rig_send(&d.r, NULL, 100, 0x33);
	net_rig_run(&d.r);
	assert_int_equal(take_used(&d, VNET_RX, &bytes), 1);
	assert_int_equal(bytes, 112);
	assert_int_equal(load_le16(ram(&d, BUFFERS + 10)), 1);
	assert_int_equal(ram(&d, BUFFERS + 111)[0], 0x33);
	net_rig_send(&d.r, NULL, RX_BYTES, 1); /* does not fit: lost, the buffer stays */
	net_rig_run(&d.r);
	assert_int_equal(take_used(&d, VNET_RX, &bytes), 0);
	net_rig_send(&d.r, NULL, 100, 0x34);
	net_rig_run(&d.r);
	assert_int_equal(take_used(&d, VNET_RX, &bytes), 1);
	assert_int_equal(ram(&d, BUFFERS + 4096 + 111)[0], 0x34);
	stop(&d);
}

static void a_long_frame_is_spread_over_buffers(void **state)
{
	struct driver d;
	u32 bytes;

	start(&d, false, BIT(NET_F_MRG_RXBUF));
	give_buffers(&d, 2, RX_BYTES);
	net_rig_send(&d.r, NULL, 1300, 0x44); /* three buffers: it waits for the third */
	net_rig_run(&d.r);
	assert_int_equal(take_used(&d, VNET_RX, NULL), 0);
	give_buffers(&d, 4, RX_BYTES);
	assert_int_equal(take_used(&d, VNET_RX, &bytes), 3);
	assert_int_equal(bytes, 1312 - 2 * RX_BYTES);
	assert_int_equal(load_le16(ram(&d, BUFFERS + 10)), 3);
	assert_int_equal(ram(&d, BUFFERS + 2 * 4096 + bytes - 1)[0], 0x44);
	stop(&d);
}

static void a_driver_kicks_when_there_was_too_little_for_a_frame(void **state)
{
	static const u64 wanted[] = {0, BIT(VIRTIO_F_EVENT_IDX)};

	for (unsigned i = 0; i < ARRAY_LEN(wanted); i++) {
		struct driver d;

		start(&d, false, BIT(NET_F_MRG_RXBUF) | wanted[i]);
		give_buffers(&d, 2, RX_BYTES);
		net_rig_send(&d.r, NULL, 2000, 0x44); /* four buffers */
		net_rig_run(&d.r);
		add_buffers(&d, 1, RX_BYTES); /* still too little */
		assert_int_equal(take_used(&d, VNET_RX, NULL), 0);
		add_buffers(&d, 1, RX_BYTES);
		assert_int_equal(take_used(&d, VNET_RX, NULL), 4);
		stop(&d);
	}
}

/* A backend that works in an idle hook, as the user network does, behind the card's own. */
struct late_sender {
	struct loop_idle idle;
	struct loop_timer timer;
	struct driver *d;
	bool sent;
	unsigned shown;
};

/* Timers come before the hooks in a turn: this one is looked at in the next. */
static void send_late(struct loop_idle *idle)
{
	struct late_sender *l = container_of(idle, struct late_sender, idle);

	if (l->sent)
		return;
	net_rig_send(&l->d->r, NULL, 100, 0x55);
	loop_timer_set(&l->timer, now_ns() + 50 * NS_PER_MS);
	l->sent = true;
}

static void look(struct loop_timer *timer)
{
	struct late_sender *l = container_of(timer, struct late_sender, timer);

	l->shown = take_used(l->d, VNET_RX, NULL);
	loop_stop(timer->loop);
}

static void a_frame_from_an_idle_hook_does_not_wait_for_the_next_turn(void **state)
{
	struct driver d;
	struct late_sender l = {.d = &d};

	start(&d, false, 0);
	give_buffers(&d, 4, RX_BYTES);
	loop_idle_add(d.r.loop, &l.idle, send_late);
	loop_timer_init(d.r.loop, &l.timer, look);
	loop_run(d.r.loop);
	assert_int_equal(l.shown, 1);
	loop_idle_del(&l.idle);
	stop(&d);
}

static void frames_wait_for_buffers_and_pauses(void **state)
{
	struct driver d;

	start(&d, false, BIT(NET_F_MRG_RXBUF));
	assert_false(net_can_send(&d.r.peer));
	give_buffers(&d, 4, RX_BYTES);
	assert_true(net_can_send(&d.r.peer));
	d.r.dev->cls->pause(d.r.dev);
	assert_false(net_can_send(&d.r.peer));
	net_rig_send(&d.r, NULL, 60, 1);
	d.r.dev->cls->resume(d.r.dev);
	net_rig_run(&d.r);
	assert_int_equal(take_used(&d, VNET_RX, NULL), 1);
	set_common(&d, 20, 1, 0); /* no driver: everything is taken, into nothing */
	assert_true(net_can_send(&d.r.peer));
	stop(&d);
}

static void offloads_are_offered_with_a_peer_that_has_them(void **state)
{
	u64 all = BIT(NET_F_CSUM) | BIT(NET_F_HOST_TSO4) | BIT(NET_F_HOST_TSO6) |
		  BIT(NET_F_HOST_ECN) | BIT(NET_F_HOST_UFO) | VNET_GUEST_OFFLOADS;
	struct driver d;

	start(&d, false, 0);
	assert_int_equal(offered(&d) & all, 0);
	stop(&d);
	start(&d, true, UINT64_MAX);
	assert_int_equal(offered(&d) & all, all);
	assert_int_equal(((struct virtio_net *)d.r.dev)->nic.end.takes, NET_TAKES_ALL);
	store_le16(ram(&d, DATA + 4), 1000);
	ram(&d, DATA)[0] = 1;
	ram(&d, DATA)[1] = NET_GSO_TCP4;
	store_le16(ram(&d, DATA + 6), 34);
	store_le16(ram(&d, DATA + 8), 16);
	vring_set_desc(&d.q[VNET_TX], 0, DATA, 5012, 0);
	vring_offer(&d.q[VNET_TX], 0);
	kick(&d, VNET_TX);
	assert_int_equal(d.r.frames[0].bytes, 5000);
	assert_int_equal(d.r.frames[0].offload.gso, NET_GSO_TCP4);
	assert_int_equal(d.r.frames[0].offload.gso_bytes, 1000);
	assert_int_equal(d.r.frames[0].offload.csum_start, 34);
	stop(&d);
}

/* A command: its acknowledgement. */
static u8 command(struct driver *d, u8 class, u8 what, const void *data, u32 bytes)
{
	ram(d, DATA)[0] = class;
	ram(d, DATA)[1] = what;
	memcpy(ram(d, DATA + 2), data, bytes);
	ram(d, DATA + 4096)[0] = 0xee;
	vring_set_desc(&d->q[d->ctrl], 0, DATA, 2 + bytes, VRING_NEXT | 1 << 16);
	vring_set_desc(&d->q[d->ctrl], 1, DATA + 4096, 1, VRING_WRITE);
	vring_offer(&d->q[d->ctrl], 0);
	kick(d, d->ctrl);
	return ram(d, DATA + 4096)[0];
}

static bool arrives(struct driver *d, const u8 *to)
{
	net_rig_send(&d->r, to, 60, 1);
	net_rig_run(&d->r);
	return take_used(d, VNET_RX, NULL) == 1;
}

static void the_control_queue_sets_the_filter(void **state)
{
	static const u8 off = 0, on = 1, one[6] = {2, 1, 1, 1, 1, 1}, two[6] = {2, 2, 2, 2, 2, 2},
			group[6] = {1, 0, 0x5e, 1, 1, 1};
	u8 table[] = {1, 0, 0, 0, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0x5e, 1, 1, 1};
	u8 many[4 + 100 * 6 + 4] = {100};
	struct driver d;

	start(&d, false, UINT64_MAX);
	give_buffers(&d, 100, RX_BYTES);
	assert_true(arrives(&d, two));
	assert_int_equal(command(&d, 0, 0, &off, 1), 0);
	assert_false(arrives(&d, two));
	assert_false(arrives(&d, group));
	assert_true(arrives(&d, NULL));
	assert_int_equal(command(&d, 1, 0, table, sizeof(table)), 0);
	assert_true(arrives(&d, one) && arrives(&d, group));
	assert_false(arrives(&d, two));
	assert_int_equal(command(&d, 1, 0, many, sizeof(many)), 0);
	assert_true(arrives(&d, two)); /* more than we keep: all of them */
	assert_int_equal(command(&d, 1, 1, two, 6), 0);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x2000, 4), 0x02020202);
	assert_int_equal(command(&d, 0, 5, &on, 1), 0);
	assert_false(arrives(&d, NULL));
	stop(&d);
}

static void bad_commands_are_refused(void **state)
{
	static const u8 zeros[32] = {0}, high[2] = {0x00, 0x10}, count[4] = {9};
	struct driver d;

	start(&d, false, UINT64_MAX);
	assert_int_equal(command(&d, 0, 6, zeros, 1), 1);
	assert_int_equal(command(&d, 0, 0, zeros, 0), 1);
	assert_int_equal(command(&d, 1, 0, count, 4), 1);
	assert_int_equal(command(&d, 1, 1, zeros, 5), 1);
	assert_int_equal(command(&d, 2, 0, high, 2), 1);
	assert_int_equal(command(&d, 3, 0, zeros, 0), 1); /* nothing was announced */
	assert_int_equal(command(&d, 4, 0, zeros, 2), 1); /* one pair of queues only */
	assert_int_equal(command(&d, 5, 0, "\xff\xff\xff\xff\xff\xff\xff\xff", 8), 1);
	assert_int_equal(command(&d, 99, 0, zeros, 9), 1);
	assert_int_equal(command(&d, 2, 0, zeros, 2), 0);
	stop(&d);
}

/* A frame from this queue of the backend: the queue of the card that it came to. */
static int comes_to(struct driver *d, u16 from)
{
	d->r.send_queue = from;
	net_rig_send(&d->r, NULL, 60, 1);
	net_rig_run(&d->r);
	for (unsigned i = 0; i < d->ctrl; i += 2)
		if (take_used(d, i, NULL))
			return (int)i;
	return -1;
}

static void pairs_of_queues_share_the_work(void **state)
{
	static const u8 two[2] = {2}, three[2] = {3}, none[2] = {0};
	struct driver d;

	start_pairs(&d, 2, false, UINT64_MAX);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x2008, 2), 2);
	assert_int_equal(common(&d, 18, 2), 5); /* queues */
	give_buffers_to(&d, 0, 20, RX_BYTES);
	give_buffers_to(&d, 2, 20, RX_BYTES);
	assert_int_equal(comes_to(&d, 1), 0); /* until the driver says otherwise */
	assert_int_equal(command(&d, 4, 0, three, 2), 1);
	assert_int_equal(command(&d, 4, 0, none, 2), 1);
	assert_int_equal(command(&d, 4, 0, two, 2), 0);
	assert_int_equal(comes_to(&d, 0), 0);
	assert_int_equal(comes_to(&d, 1), 2);
	assert_int_equal(comes_to(&d, 2), 0); /* a backend with more than we have */
	vring_set_desc(&d.q[3], 0, DATA, 112, 0);
	vring_offer(&d.q[3], 0);
	kick(&d, 3);
	assert_int_equal(d.r.got, 1);
	assert_int_equal(d.r.frames[0].queue, 1);
	assert_int_equal(take_used(&d, 3, NULL), 1);
	negotiate(&d, UINT64_MAX); /* another driver begins with one */
	give_buffers_to(&d, 0, 4, RX_BYTES);
	assert_int_equal(comes_to(&d, 1), 0);
	stop(&d);
}

static void a_driver_that_knows_no_pairs_finds_the_control_queue(void **state)
{
	static const u8 two[2] = {2}, zeros[2] = {0};
	struct driver d;

	start_pairs(&d, 3, false, ~BIT(NET_F_MQ));
	assert_int_equal(command(&d, 2, 0, zeros, 2), 0);
	assert_int_equal(command(&d, 4, 0, two, 2), 1);
	give_buffers(&d, 4, RX_BYTES);
	assert_int_equal(comes_to(&d, 2), 0);
	stop(&d);
}

static void the_driver_hears_of_links_and_loaded_snapshots(void **state)
{
	struct state_buf saved = {.data = NULL}, in;
	struct driver d;
	struct error err;

	start(&d, false, UINT64_MAX);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x2006, 2), NET_S_LINK_UP);
	net_set_link(&d.r.peer, false);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x2006, 2), 0);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x1000, 1), 3);
	net_set_link(&d.r.peer, true);
	d.r.dev->cls->pause(d.r.dev);
	fake_save(d.r.dev, &saved);
	in = (struct state_buf){.data = saved.data, .bytes = saved.bytes};
	assert_int_equal(device_load(d.r.dev, &in, &err), 0);
	d.r.dev->cls->resume(d.r.dev);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x2006, 2), NET_S_LINK_UP | NET_S_ANNOUNCE);
	assert_int_equal(command(&d, 3, 0, "", 0), 0);
	assert_int_equal(mmio_read(&d.r.fm, RIG_MEM + 0x2006, 2), NET_S_LINK_UP);
	state_buf_fini(&saved);
	stop(&d);
}

static void scribble(struct driver *d, struct rng *rng)
{
	struct vring_driver *q = &d->q[rng_below(rng, d->ctrl + 1)];

	for (unsigned i = 0; i < 16; i++)
		vring_set_desc(q, rng_below(rng, q->size),
			       rng_below(rng, 8) ? rng_below(rng, RIG_RAM) : rng_next(rng),
			       rng_below(rng, 4) ? rng_below(rng, 3000) : (u32)rng_next(rng),
			       rng_below(rng, 8) | rng_below(rng, q->size) << 16);
	for (unsigned i = rng_below(rng, 5); i; i--)
		vring_offer(q, (u16)rng_below(rng, q->size));
	if (!rng_below(rng, 50))
		vring_put(q, q->avail + 2, (u16)rng_next(rng));
}

static void any_ring_does_no_harm(void **state)
{
	struct rng rng = {.state = 5};
	struct driver d;

	assert_int_equal(log_set_file("/dev/null", &(struct error){0}), 0);
	start_pairs(&d, 2, true, UINT64_MAX);
	for (unsigned round = 0; round < 2000; round++) {
		d.r.send_queue = (u16)rng_below(&rng, 4);
		scribble(&d, &rng);
		kick(&d, rng_below(&rng, d.ctrl + 1));
		net_rig_send(&d.r, NULL, 14 + rng_below(&rng, 3000), 1);
		if (common(&d, 20, 1) & VIRTIO_S_NEEDS_RESET && rng_below(&rng, 4) == 0)
			negotiate(&d, rng_next(&rng));
	}
	negotiate(&d, BIT(NET_F_MRG_RXBUF));
	net_purge(&((struct virtio_net *)d.r.dev)->nic.end);
	give_buffers(&d, 8, RX_BYTES);
	assert_true(arrives(&d, NULL));
	stop(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_in_pieces_goes_out_whole),
		cmocka_unit_test(a_busy_wire_holds_the_queue),
		cmocka_unit_test(a_frame_comes_in_behind_its_header),
		cmocka_unit_test(a_long_frame_is_spread_over_buffers),
		cmocka_unit_test(a_driver_kicks_when_there_was_too_little_for_a_frame),
		cmocka_unit_test(a_frame_from_an_idle_hook_does_not_wait_for_the_next_turn),
		cmocka_unit_test(frames_wait_for_buffers_and_pauses),
		cmocka_unit_test(offloads_are_offered_with_a_peer_that_has_them),
		cmocka_unit_test(the_control_queue_sets_the_filter),
		cmocka_unit_test(bad_commands_are_refused),
		cmocka_unit_test(pairs_of_queues_share_the_work),
		cmocka_unit_test(a_driver_that_knows_no_pairs_finds_the_control_queue),
		cmocka_unit_test(the_driver_hears_of_links_and_loaded_snapshots),
		cmocka_unit_test(any_ring_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
