/* Ends of Ethernet wires: queues, links, hubs, checksums, rules of user networks. */
#include "base/bytes.h"
#include "base/loop.h"
#include "base/thread.h"
#include "devices/net/checksum.h"
#include "devices/net/net.h"
#include "devices/net/socket.h"
#include "devices/net/user.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

/* An end that writes down what it gets. */
struct probe {
	struct net_end end;
	bool busy;
	unsigned got, writable, link_changes;
	u8 last[4000];
	u32 last_bytes;
	struct net_offload offload;
};

static struct probe *probe_of(struct net_end *end)
{
	return container_of(end, struct probe, end);
}

static bool can_receive(struct net_end *end)
{
	return !probe_of(end)->busy;
}

static bool receive(struct net_end *end, const struct net_frame *f)
{
	struct probe *p = probe_of(end);

	if (p->busy)
		return false;
	assert_true(net_frame_copy(f, 0, p->last, f->bytes));
	p->last_bytes = f->bytes;
	p->offload = f->offload;
	p->got++;
	return true;
}

static void writable(struct net_end *end)
{
	probe_of(end)->writable++;
}

static void link_changed(struct net_end *end)
{
	probe_of(end)->link_changes++;
}

static const struct net_ops probe_ops = {.type = "probe",
					 .can_receive = can_receive,
					 .receive = receive,
					 .writable = writable,
					 .link_changed = link_changed};

struct pair {
	struct net *net;
	struct probe a, b;
};

static void pair_init(struct pair *p)
{
	memset(p, 0, sizeof(*p));
	assert_int_equal(net_new(&p->net, NULL, NULL), 0);
	net_end_init(&p->a.end, p->net, &probe_ops, "a");
	net_end_init(&p->b.end, p->net, &probe_ops, NULL);
}

static void pair_fini(struct pair *p)
{
	net_end_fini(&p->a.end);
	net_end_fini(&p->b.end);
	net_free(p->net);
}

static void send_fill(struct net_end *from, u32 bytes, u8 fill, const struct net_offload *o)
{
	u8 data[2000];
	struct iovec iov[2] = {{data, 10}, {data + 10, bytes - 10}};
	struct net_frame f = {.iov = iov, .n = 2, .bytes = bytes};

	memset(data, fill, sizeof(data));
	if (o)
		f.offload = *o;
	net_send(from, &f);
}

static void frames_wait_for_a_peer_that_takes_none_and_keep_their_order(void **state)
{
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	assert_true(net_can_send(&p.a.end));
	p.b.busy = true;
	assert_false(net_can_send(&p.a.end));
	send_fill(&p.a.end, 60, 1, NULL);
	send_fill(&p.a.end, 61, 2, NULL);
	assert_int_equal(p.b.got, 0);
	p.b.busy = false;
	assert_false(net_can_send(&p.a.end)); /* those that wait go first */
	send_fill(&p.a.end, 62, 3, NULL);
	net_flush(&p.b.end);
	assert_int_equal(p.b.got, 3);
	assert_int_equal(p.b.last_bytes, 62);
	assert_int_equal(p.b.last[61], 3);
	assert_int_equal(p.a.writable, 1);
	net_flush(&p.b.end);
	assert_int_equal(p.a.writable, 1);
	pair_fini(&p);
}

static void what_waits_is_bounded(void **state)
{
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	p.b.busy = true;
	for (unsigned i = 0; i < 5000; i++)
		send_fill(&p.a.end, 1000, 1, NULL);
	assert_true(p.b.end.queued_bytes <= NET_QUEUE_MAX_BYTES);
	assert_true(p.b.end.dropped > 2000);
	p.b.busy = false;
	net_flush(&p.b.end);
	assert_int_equal(p.b.got, NET_QUEUE_MAX_BYTES / 1000);
	pair_fini(&p);
}

static void nothing_passes_while_either_link_is_down(void **state)
{
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	net_set_link(&p.a.end, false);
	assert_false(net_link_is_up(&p.b.end));
	assert_int_equal(p.a.link_changes, 1);
	assert_int_equal(p.b.link_changes, 1);
	assert_true(net_can_send(&p.a.end)); /* into nothing */
	send_fill(&p.a.end, 60, 1, NULL);
	send_fill(&p.b.end, 60, 1, NULL);
	net_set_link(&p.a.end, true);
	net_set_link(&p.a.end, true);
	assert_int_equal(p.a.link_changes, 2);
	assert_int_equal(p.a.got + p.b.got, 0);
	send_fill(&p.b.end, 60, 1, NULL);
	assert_int_equal(p.a.got, 1);
	pair_fini(&p);
}

static void a_sender_that_waits_goes_on_when_the_link_goes_down(void **state)
{
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	p.b.busy = true;
	send_fill(&p.a.end, 60, 1, NULL);
	assert_false(net_can_send(&p.a.end));
	net_set_link(&p.b.end, false);
	assert_int_equal(p.a.writable, 1);
	assert_true(net_can_send(&p.a.end));
	net_set_link(&p.b.end, true);
	assert_false(net_can_send(&p.a.end));
	net_set_link(&p.a.end, false);
	assert_int_equal(p.a.writable, 2);
	pair_fini(&p);
}

static void a_sender_that_waits_goes_on_when_its_peer_goes(void **state)
{
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	p.b.busy = true;
	assert_false(net_can_send(&p.a.end));
	net_end_fini(&p.b.end);
	assert_int_equal(p.a.writable, 1);
	assert_true(net_can_send(&p.a.end));
	net_end_init(&p.b.end, p.net, &probe_ops, NULL);
	pair_fini(&p);
}

static void odd_frames_are_dropped(void **state)
{
	struct pair p;
	struct net_frame f = {.n = 0};

	pair_init(&p);
	send_fill(&p.a.end, 60, 1, NULL); /* nobody is there */
	net_join(&p.a.end, &p.b.end);
	net_send(&p.a.end, &f);
	send_fill(&p.a.end, ETH_HEADER_BYTES - 1, 1, NULL);
	f.bytes = NET_FRAME_MAX + 1;
	net_send(&p.a.end, &f);
	assert_int_equal(p.b.got, 0);
	pair_fini(&p);
}

static void a_missing_checksum_is_filled_in_for_who_does_not_do_it(void **state)
{
	struct net_offload o = {.flags = NET_NEEDS_CSUM, .csum_start = 34, .csum_offset = 16};
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	send_fill(&p.a.end, 101, 0x11, &o);
	assert_int_equal(p.b.got, 1);
	assert_int_equal(p.b.offload.flags, 0);
	/* With its checksum, what it covers but for the sum of the pseudo header, which lay
	 * in its place, adds up. */
	assert_int_equal(net_fold(net_sum(p.b.last + 34, 101 - 34) + 0x1111), 0xffff);
	net_set_takes(&p.b.end, NET_TAKES_CSUM);
	send_fill(&p.a.end, 101, 0x11, &o);
	assert_int_equal(p.b.offload.flags, NET_NEEDS_CSUM);
	assert_int_equal(p.b.last[50], 0x11);
	pair_fini(&p);
}

static void offloads_outside_the_frame_or_unknown_are_dropped(void **state)
{
	static const struct net_offload bad[] = {
		{.flags = NET_NEEDS_CSUM, .csum_start = 101},
		{.flags = NET_NEEDS_CSUM, .csum_start = 99, .csum_offset = 1},
		{.flags = NET_NEEDS_CSUM, .csum_start = 65535, .csum_offset = 65535},
		{.gso = NET_GSO_TCP4, .gso_bytes = 1000},
		{.gso = 77},
	};
	struct pair p;

	pair_init(&p);
	net_join(&p.a.end, &p.b.end);
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		send_fill(&p.a.end, 101, 0x11, &bad[i]);
	assert_int_equal(p.b.got, 0);
	net_set_takes(&p.b.end, NET_TAKES_ALL);
	send_fill(&p.a.end, 101, 0x11, &bad[3]);
	send_fill(&p.a.end, 101, 0x11, &bad[4]);
	assert_int_equal(p.b.got, 1);
	pair_fini(&p);
}

static void a_hub_sends_to_all_others(void **state)
{
	struct pair p;
	struct probe c = {.got = 0};

	pair_init(&p);
	net_end_init(&c.end, p.net, &probe_ops, "c");
	net_join(&p.a.end, net_hub_port(p.net, 3, NULL));
	net_join(&p.b.end, net_hub_port(p.net, 3, NULL));
	net_join(&c.end, net_hub_port(p.net, 4, NULL)); /* another hub */
	send_fill(&p.a.end, 60, 1, NULL);
	assert_int_equal(p.b.got, 1);
	assert_int_equal(p.a.got + c.got, 0);
	p.b.busy = true;
	assert_false(net_can_send(&p.a.end));
	send_fill(&p.a.end, 60, 1, NULL);
	p.b.busy = false;
	net_flush(&p.b.end);
	assert_int_equal(p.b.got, 2);
	assert_true(p.a.writable > 0);
	assert_int_equal(net_hub_of(p.a.end.peer), 3);
	assert_int_equal(net_hub_of(&p.a.end), -1);
	net_end_fini(&c.end);
	pair_fini(&p);
}

static void names_and_addresses_are_given_once(void **state)
{
	struct pair p;
	u8 mac[6], other[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x57};
	char text[18];

	pair_init(&p);
	assert_string_equal(p.b.end.name, "probe.0");
	assert_ptr_equal(net_find(p.net, "a"), &p.a.end);
	assert_null(net_find(p.net, "x"));
	net_give_mac(p.net, other, true);
	net_give_mac(p.net, mac, false);
	net_format_mac(text, mac);
	assert_string_equal(text, "52:54:00:12:34:56");
	net_give_mac(p.net, mac, false);
	assert_int_equal(mac[5], 0x58);
	pair_fini(&p);
}

static void addresses_are_read_as_people_write_them(void **state)
{
	static const char *const bad[] = {"",
					  "1:2:3:4:5",
					  "1:2:3:4:5:6:7",
					  "1:2:3:4:5:100",
					  "zz:0:0:0:0:0",
					  "1:2:3:4:5:6 ",
					  "52:54:00:12:34:-1",
					  "52:54:00:12:34::"};
	u8 mac[6];

	assert_true(net_parse_mac("52:54:00:12:34:5a", mac));
	assert_int_equal(mac[5], 0x5a);
	assert_true(net_parse_mac("1-2-3-A-b-C", mac));
	for (unsigned i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(net_parse_mac(bad[i], mac));
}

/* RFC 1071, section 3, and every length against adding words up one by one. */
static void checksums_are_those_of_rfc_1071(void **state)
{
	static const u8 example[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
	u8 data[67];

	assert_int_equal(net_fold(net_sum(example, sizeof(example))), 0xddf2);
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (u8)(i * 37 + 200);
	for (unsigned bytes = 0; bytes <= sizeof(data); bytes++) {
		u64 sum = 0;

		for (unsigned i = 0; i < bytes; i++)
			sum += (u64)data[i] << (i % 2 ? 0 : 8);
		assert_int_equal(net_fold(net_sum(data, bytes)), net_fold(sum));
	}
}

static void rule(const char *text, bool with_guest, const char *why)
{
	struct user_forward f;
	struct error err = {.text = ""};
	int ret = user_forward_parse(&f, text, with_guest, &err);

	if (!why) {
		assert_int_equal(ret, 0);
		return;
	}
	assert_true(ret < 0);
	if (!strstr(err.text, why))
		fail_msg("'%s': '%s' without '%s'", text, err.text, why);
}

static void forwarding_rules_are_taken_apart(void **state)
{
	struct user_forward f;
	struct error err;

	assert_int_equal(user_forward_parse(&f, "udp:127.0.0.1:53-10.0.2.9:54", true, &err), 0);
	assert_true(f.udp && f.host_port == 53 && f.guest_port == 54);
	assert_int_equal(ntohl(f.host.s_addr), 0x7f000001);
	assert_int_equal(ntohl(f.guest.s_addr), 0x0a000209);
	rule(":::22-:1", true, "Bad host port");
	rule("::22-:1", true, NULL);
	rule("foo", true, "No : separators");
	rule("tcp:foo", true, "Missing : separator");
	rule("foo::1-:22", true, "Bad protocol name");
	rule("tcp:zz:1-:22", true, "Bad host address");
	rule("tcp:::22", true, "Bad host port separator");
	rule("tcp::99999-:22", true, "Bad host port");
	rule("tcp::1-zz:22", true, "Bad guest address");
	rule("tcp::1-:0", true, "Bad guest port");
	rule("tcp::1-:22-1", true, "Bad guest port");
	rule("tcp::1", false, NULL);
	rule("tcp::1-:2", false, "Bad host port");
}

/* --- socket ----------------------------------------------------------------------- */

struct rounds {
	struct loop_timer timer;
	struct loop *loop;
	const unsigned *got;
	unsigned want, left;
};

static void look(struct loop_timer *timer)
{
	struct rounds *r = container_of(timer, struct rounds, timer);

	if (*r->got >= r->want || !r->left--)
		loop_stop(r->loop);
	else
		loop_timer_set(timer, now_ns() + NS_PER_MS);
}

static void run_for(struct loop *loop, const unsigned *got, unsigned want, unsigned ms)
{
	struct rounds r = {.loop = loop, .got = got, .want = want, .left = ms};

	loop_timer_init(loop, &r.timer, look);
	loop_timer_set(&r.timer, now_ns());
	loop_run(loop);
	loop_timer_del(&r.timer);
}

/* Run the loop until so many have come, or for a while. */
static void run_until(struct loop *loop, const unsigned *got, unsigned want)
{
	run_for(loop, got, want, 300);
}

static unsigned free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	return ntohs(a.sin_port);
}

static struct net_end *open_socket(struct net *net, const char *key, unsigned port)
{
	struct net_end *end;
	struct opts opts;
	struct error err;
	char text[64];

	snprintf(text, sizeof(text), "%s=127.0.0.1:%u", key, port);
	assert_int_equal(opts_parse(&opts, text, NULL, &err), 0);
	if (net_socket_new(&end, net, key, &opts, &err) < 0)
		fail_msg("%s", err.text);
	opts_fini(&opts);
	return end;
}

static void frames_go_over_a_connection_and_wait_at_its_end(void **state)
{
	unsigned port = free_port();
	struct loop *loop;
	struct error err;
	struct pair p;

	pair_init(&p);
	net_end_fini(&p.a.end);
	net_end_fini(&p.b.end);
	net_free(p.net);
	assert_int_equal(loop_new(&loop, "test", LOOP_AUTO, &err), 0);
	assert_int_equal(net_new(&p.net, loop, NULL), 0);
	net_end_init(&p.a.end, p.net, &probe_ops, "a");
	net_end_init(&p.b.end, p.net, &probe_ops, "b");
	net_join(&p.a.end, open_socket(p.net, "listen", port));
	net_join(&p.b.end, open_socket(p.net, "connect", port));
	run_until(loop, &p.a.got, 1); /* nothing comes; connected by now */
	for (u32 i = 0; i < 500; i++)
		send_fill(&p.b.end, 60 + i * 3, (u8)i, NULL);
	run_until(loop, &p.a.got, 500);
	assert_int_equal(p.a.got, 500);
	assert_int_equal(p.a.last_bytes, 60 + 499 * 3);
	assert_int_equal(p.a.last[1000], 499 & 0xff);
	p.b.busy = true;
	for (u32 i = 0; i < 50; i++)
		send_fill(&p.a.end, 100, 7, NULL);
	run_until(loop, &p.a.got, 501);
	assert_int_equal(p.b.got, 0);
	p.b.busy = false;
	net_flush(&p.b.end);
	run_until(loop, &p.b.got, 50);
	assert_int_equal(p.b.got, 50);
	/* An end that still takes nothing when it is looked at again keeps its connection. */
	p.b.busy = true;
	for (u32 i = 0; i < 100; i++)
		send_fill(&p.a.end, 1500, 8, NULL);
	for (u32 i = 0; i < 20; i++) {
		run_for(loop, &p.a.got, 501, 10);
		net_flush(&p.b.end);
	}
	p.b.busy = false;
	net_flush(&p.b.end);
	run_until(loop, &p.b.got, 150);
	assert_int_equal(p.b.got, 150);
	pair_fini(&p);
	loop_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_wait_for_a_peer_that_takes_none_and_keep_their_order),
		cmocka_unit_test(what_waits_is_bounded),
		cmocka_unit_test(nothing_passes_while_either_link_is_down),
		cmocka_unit_test(a_sender_that_waits_goes_on_when_the_link_goes_down),
		cmocka_unit_test(a_sender_that_waits_goes_on_when_its_peer_goes),
		cmocka_unit_test(odd_frames_are_dropped),
		cmocka_unit_test(a_missing_checksum_is_filled_in_for_who_does_not_do_it),
		cmocka_unit_test(offloads_outside_the_frame_or_unknown_are_dropped),
		cmocka_unit_test(a_hub_sends_to_all_others),
		cmocka_unit_test(names_and_addresses_are_given_once),
		cmocka_unit_test(addresses_are_read_as_people_write_them),
		cmocka_unit_test(checksums_are_those_of_rfc_1071),
		cmocka_unit_test(forwarding_rules_are_taken_apart),
		cmocka_unit_test(frames_go_over_a_connection_and_wait_at_its_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
