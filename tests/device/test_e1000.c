/* e1000: rings, checksums, segmentation, filters, EEPROM, interrupts; a hostile guest. */
#include "devices/net/e1000.h"

#include "base/bytes.h"
#include "base/log.h"
#include "devices/net/dump.h"
#include "devices/net/checksum.h"
#include "devices/net/e1000_regs.h"
#include "tests/lib/net_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define TX_RING 0x10000
#define RX_RING 0x20000
#define DATA	0x40000
#define BUFFERS 0x100000
#define SIZE	16

static u32 get(struct net_rig *r, u32 reg)
{
	return (u32)mmio_read(&r->fm, RIG_MEM + reg, 4);
}

static void put(struct net_rig *r, u32 reg, u32 value)
{
	mmio_write(&r->fm, RIG_MEM + reg, 4, value);
}

static u8 *ram(struct net_rig *r, u64 gpa)
{
	return mem_ptr_rw(r->fm.m.mem, gpa, 1);
}

static void start(struct net_rig *r)
{
	net_rig_init(r, &e1000_class, false);
	pci_write(&r->fm, r->devfn, 0x10, 4, RIG_MEM);
	pci_write(&r->fm, r->devfn, 0x14, 4, RIG_IO);
	pci_write(&r->fm, r->devfn, 0x04, 2, 7);
	put(r, R_TDBAL, TX_RING);
	put(r, R_TDLEN, SIZE * 16 * 8);
	put(r, R_RDBAL, RX_RING);
	put(r, R_RDLEN, SIZE * 16 * 8);
	for (u32 i = 0; i < SIZE * 8; i++)
		store_le64(ram(r, RX_RING + 16 * i), BUFFERS + 2048 * i);
	put(r, R_RDT, SIZE * 8 - 1);
	put(r, R_TCTL, TCTL_EN);
	put(r, R_RCTL, RCTL_EN | RCTL_BAM);
	net_rig_run(r);
}

static void put_desc(struct net_rig *r, u32 index, u64 addr, u32 lower, u32 upper)
{
	u8 *d = ram(r, TX_RING + 16 * index);

	store_le64(d, addr);
	store_le32(d + 8, lower);
	store_le32(d + 12, upper);
}

#define EOP	  (1u << 24)
#define IC	  (1u << 26)
#define TSE	  (1u << 26)
#define RS	  (1u << 27)
#define EXT	  (1u << 29)
#define VLE	  (1u << 30)
#define DTYP_DATA (1u << 20)

static void a_packet_in_pieces_goes_out_whole(void **state)
{
	struct net_rig r;

	start(&r);
	memset(ram(&r, DATA), 0x5a, 3000);
	put_desc(&r, 0, DATA, 100, 0);
	put_desc(&r, 1, DATA + 100, 900 | EOP | RS, 0);
	put(&r, R_TDT, 1);
	net_rig_run(&r);
	assert_int_equal(r.got, 0); /* its end is not there yet */
	put(&r, R_TDT, 2);
	net_rig_run(&r);
	assert_int_equal(r.got, 1);
	assert_int_equal(r.frames[0].bytes, 1000);
	assert_int_equal(r.frames[0].data[999], 0x5a);
	assert_int_equal(get(&r, R_TDH), 2);
	assert_true(ram(&r, TX_RING + 16 + 12)[0] & 1);
	assert_true(get(&r, R_ICR) & ICR_TXDW);
	assert_int_equal(get(&r, R_ICR), 0); /* reading cleared it */
	assert_int_equal(get(&r, R_GPTC), 1);
	assert_int_equal(get(&r, R_GPTC), 0);
	net_rig_fini(&r);
}

/* The rig's peer, when the card may send to it from anywhere. */
static bool take_directly(struct net_end *end, const struct net_frame *f)
{
	return end->ops->receive(end, f);
}

static void offer(struct net_rig *r, u32 index)
{
	put_desc(r, index, DATA, 100 | EOP | RS, 0);
	put(r, R_TDT, index + 1);
}

/* One frame is through: main has looked, and says that it is not needed. */
static void start_direct(struct net_rig *r, struct net_ops *ops)
{
	start(r);
	*ops = *r->peer.ops;
	ops->receive_direct = take_directly;
	r->peer.ops = ops;
	offer(r, 0);
	net_rig_run(r);
}

static void a_peer_that_can_gets_frames_without_the_main_loop(void **state)
{
	struct net_rig r;
	struct net_ops ops;

	start_direct(&r, &ops);
	offer(&r, 1);
	offer(&r, 2);
	assert_int_equal(r.got, 3);
	assert_int_equal(get(&r, R_TDH), 3);

	net_set_link(&r.peer, false);
	offer(&r, 3);
	net_rig_run(&r);
	assert_int_equal(r.got, 3);
	net_set_link(&r.peer, true);
	net_rig_run(&r);
	offer(&r, 4);
	net_rig_run(&r);
	assert_int_equal(r.got, 4);

	r.busy = true; /* one is lost, the next wait for main and the peer */
	offer(&r, 5);
	offer(&r, 6);
	net_rig_run(&r);
	assert_int_equal(r.got, 4);
	r.busy = false;
	net_flush(&r.peer);
	net_rig_run(&r);
	assert_int_equal(r.got, 5);
	offer(&r, 7);
	net_rig_run(&r);
	assert_int_equal(r.got, 6);
	net_rig_fini(&r);
}

/* Frames that have arrived without the main loop, of one that was offered when it had
 * had its turn. */
static unsigned arrives_directly(struct net_rig *r)
{
	unsigned before;

	offer(r, 0);
	net_rig_run(r);
	before = r->got;
	offer(r, 1);
	return r->got - before;
}

static void frames_that_may_wait_or_are_dumped_go_by_the_main_loop(void **state)
{
	struct net_dump_options dump = {
		.id = "d", .file = "/dev/null", .max_bytes = 60, .way = NET_DUMP_ALL};

	for (unsigned i = 0; i < 4; i++) {
		struct net_rig r;
		struct net_ops ops;
		struct error err;

		start(&r);
		ops = *r.peer.ops;
		ops.receive_direct = take_directly;
		r.peer.ops = &ops;
		r.peer.limited = i == 1;
		if (i >= 2)
			assert_int_equal(net_dump_add(i == 2 ? &r.peer : r.peer.peer, &dump, &err),
					 0);
		assert_int_equal(arrives_directly(&r), i == 0);
		net_rig_run(&r);
		assert_int_equal(r.got, 2);
		net_rig_fini(&r);
	}
}

static void a_simple_checksum_is_inserted(void **state)
{
	struct net_rig r;

	start(&r);
	for (unsigned i = 0; i < 101; i++)
		ram(&r, DATA)[i] = (u8)(i * 7);
	store_be16(ram(&r, DATA + 50), 0);
	put_desc(&r, 0, DATA, 101 | 50 << 16 | EOP | IC, 34 << 8);
	put(&r, R_TDT, 1);
	net_rig_run(&r);
	assert_int_equal(r.got, 1);
	assert_int_equal(net_fold(net_sum(r.frames[0].data + 34, 101 - 34)), 0xffff);
	net_rig_fini(&r);
}

/* An Ethernet, IPv4 and TCP header as drivers make them for segmentation. */
static void make_headers(u8 *h)
{
	static const u8 ip[] = {0x45, 0, 0,  0, 0x12, 0xff, 0,	0, 64, 6,
				0,    0, 10, 0, 2,    15,   10, 0, 2,  2};

	memset(h, 0, 54);
	h[12] = 8;
	memcpy(h + 14, ip, sizeof(ip));
	store_be32(h + 38, 1000); /* sequence number */
	h[46] = 5 << 4;
	h[47] = 0x19; /* ACK, PSH, FIN */
	/* The pseudo header without its length. */
	store_be16(h + 50, net_fold(net_sum(h + 26, 8) + 6));
}

static void check_segment(struct net_rig *r, unsigned n, u32 payload, bool last)
{
	const u8 *f = r->frames[n].data;
	u32 tcp = r->frames[n].bytes - 34;

	assert_int_equal(r->frames[n].bytes, 54 + payload);
	assert_int_equal(load_be16(f + 16), 40 + payload);
	assert_int_equal(load_be16(f + 18), 0x12ff + n);
	assert_int_equal(net_fold(net_sum(f + 14, 20)), 0xffff);
	assert_int_equal(load_be32(f + 38), 1000 + 1000 * n);
	assert_int_equal(f[47], last ? 0x19 : 0x10);
	assert_int_equal(net_fold(net_sum(f + 26, 8) + 6 + tcp + net_sum(f + 34, tcp)), 0xffff);
	for (u32 i = 0; i < payload; i++)
		assert_int_equal(f[54 + i], (u8)((n * 1000 + i) * 3));
}

/* Three descriptors from this one on: four segments. */
static void put_large_send(struct net_rig *r, u32 first)
{
	u64 context = 14 | 24 << 8 | 33 << 16 | (u64)34 << 32 | (u64)50 << 40;

	make_headers(ram(r, DATA));
	for (unsigned i = 0; i < 3500; i++)
		ram(r, DATA)[54 + i] = (u8)(i * 3);
	put_desc(r, first, context, 3500 | EXT | TSE | 3u << 24, 54 << 8 | 1000u << 16);
	put_desc(r, first + 1, DATA, 1200 | EXT | DTYP_DATA | TSE, 3 << 8);
	put_desc(r, first + 2, DATA + 1200, 2354 | EXT | DTYP_DATA | TSE | EOP | RS, 0);
	put(r, R_TDT, first + 3);
}

static void a_large_send_is_cut_into_segments(void **state)
{
	struct net_rig r;

	start(&r);
	put_large_send(&r, 0);
	net_rig_run(&r);
	assert_int_equal(r.got, 4);
	for (unsigned i = 0; i < 4; i++)
		check_segment(&r, i, i < 3 ? 1000 : 500, i == 3);
	assert_int_equal(get(&r, R_TSCTC), 1);
	net_rig_fini(&r);
}

/* A vCPU's thread must not touch what waits for the peer, which is main's. */
static void a_packet_that_goes_directly_does_not_go_on_otherwise(void **state)
{
	struct net_rig r;
	struct net_ops ops;

	start_direct(&r, &ops);
	r.busy = true;
	put_large_send(&r, 1);
	assert_int_equal(r.peer.queued_bytes, 0);
	assert_int_equal(get(&r, R_TDH), 4);
	r.busy = false;
	offer(&r, 4);
	net_rig_run(&r);
	assert_int_equal(r.got, 2);
	net_rig_fini(&r);
}

static void tags_are_put_in_and_taken_off(void **state)
{
	struct net_rig r;
	u8 tagged[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	start(&r);
	put(&r, R_CTRL, get(&r, R_CTRL) | CTRL_VME);
	memset(ram(&r, DATA), 1, 100);
	put_desc(&r, 0, DATA, 100 | EOP | VLE, 0x123u << 16);
	put(&r, R_TDT, 1);
	net_rig_run(&r);
	assert_int_equal(r.frames[0].bytes, 104);
	assert_int_equal(load_be32(r.frames[0].data + 12), 0x81000123);
	net_rig_send(&r, tagged, 100, 0x81); /* its type is 0x8181: no tag */
	assert_int_equal(load_le16(ram(&r, RX_RING + 8)), 104);
	net_send(&r.peer, &(struct net_frame){
				  .iov = &(struct iovec){memcpy(r.frames[0].data, tagged, 6), 104},
				  .n = 1,
				  .bytes = 104});
	assert_int_equal(load_le16(ram(&r, RX_RING + 24)), 104);
	assert_true(ram(&r, RX_RING + 28)[0] & 8);
	assert_int_equal(load_le16(ram(&r, RX_RING + 30)), 0x123);
	net_rig_fini(&r);
}

static void a_frame_is_padded_and_put_into_the_ring(void **state)
{
	struct net_rig r;

	start(&r);
	net_rig_send(&r, NULL, 30, 0x77);
	assert_int_equal(get(&r, R_RDH), 1);
	assert_int_equal(load_le16(ram(&r, RX_RING + 8)), 64);
	assert_int_equal(ram(&r, RX_RING + 12)[0] & 3, 3);
	assert_int_equal(ram(&r, BUFFERS + 29)[0], 0x77);
	assert_int_equal(ram(&r, BUFFERS + 30)[0], 0);
	assert_int_equal(get(&r, R_ICS) & ICR_RXT0, ICR_RXT0);
	put(&r, R_IMS, ICR_RXT0);
	assert_true(r.fm.gsi[RIG_GSI]);
	get(&r, R_ICR);
	assert_false(r.fm.gsi[RIG_GSI]);
	net_rig_send(&r, NULL, 1519, 1); /* too long without LPE */
	assert_int_equal(get(&r, R_RDH), 1);
	put(&r, R_RCTL, RCTL_EN | RCTL_BAM | RCTL_LPE);
	net_rig_send(&r, NULL, 5000, 1);
	assert_int_equal(get(&r, R_RDH), 4);
	assert_int_equal(load_le16(ram(&r, RX_RING + 48 + 8)), 5004 - 4096);
	net_rig_fini(&r);
}

static void frames_wait_for_buffers(void **state)
{
	struct net_rig r;

	start(&r);
	put(&r, R_RDT, 1);
	net_rig_send(&r, NULL, 60, 1);
	net_rig_send(&r, NULL, 60, 2);
	assert_int_equal(get(&r, R_RDH), 1);
	assert_true(get(&r, R_ICR) & ICR_RXO);
	put(&r, R_RDT, 5);
	net_rig_run(&r);
	assert_int_equal(get(&r, R_RDH), 2);
	assert_int_equal(ram(&r, BUFFERS + 2048 + 20)[0], 2);
	net_rig_fini(&r);
}

/* Each thing that ends a wait is noticed without another kick. */
static void what_waits_goes_on_with_a_reset_or_as_bus_master(void **state)
{
	struct net_rig r;

	start(&r);
	put(&r, R_RDT, 0);
	net_rig_send(&r, NULL, 100, 1);
	assert_false(net_can_send(&r.peer));
	put(&r, R_CTRL, CTRL_RST);
	net_rig_run(&r);
	assert_true(net_can_send(&r.peer));
	assert_int_equal(r.writable, 1);
	net_rig_fini(&r);

	start(&r);
	pci_write(&r.fm, r.devfn, 0x04, 2, 3);
	put_desc(&r, 0, DATA, 100 | EOP, 0);
	put(&r, R_TDT, 1);
	net_rig_run(&r);
	assert_int_equal(r.got, 0);
	pci_write(&r.fm, r.devfn, 0x04, 2, 7);
	net_rig_run(&r);
	assert_int_equal(r.got, 1);
	net_rig_fini(&r);
}

static void a_frame_that_no_ring_could_hold_is_dropped(void **state)
{
	struct net_rig r;

	start(&r);
	put(&r, R_RCTL, RCTL_EN | RCTL_BAM | RCTL_LPE);
	put(&r, R_RDH, 0);
	put(&r, R_RDT, 0);
	put(&r, R_RDLEN, 16 * 8);
	net_rig_send(&r, NULL, 9000, 1); /* waits for five buffers */
	assert_false(net_can_send(&r.peer));
	put(&r, R_RDT, 7);
	net_rig_run(&r);
	assert_int_equal(get(&r, R_RDH), 5);
	put(&r, R_RCTL, RCTL_EN | RCTL_BAM | RCTL_LPE | 2u << 16); /* of 512 bytes */
	net_rig_send(&r, NULL, 9000, 1);
	assert_true(net_can_send(&r.peer));
	net_rig_send(&r, NULL, 60, 1);
	assert_int_equal(get(&r, R_RDH), 6);
	net_rig_fini(&r);
}

static void only_wanted_addresses_pass(void **state)
{
	static const u8 ours[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56}, other[6] = {2, 0, 0, 0, 0, 1},
			group[6] = {1, 0, 0x5e, 0, 0, 0xfb};
	u32 hash = (0xfbu << 8 | 0) >> 4;
	struct net_rig r;

	start(&r);
	net_rig_send(&r, ours, 60, 1);
	assert_int_equal(get(&r, R_RDH), 1);
	net_rig_send(&r, other, 60, 1);
	net_rig_send(&r, group, 60, 1);
	assert_int_equal(get(&r, R_RDH), 1);
	put(&r, R_MTA + 4 * (hash >> 5), 1u << (hash & 31));
	net_rig_send(&r, group, 60, 1);
	assert_int_equal(get(&r, R_RDH), 2);
	put(&r, R_RCTL, RCTL_EN | RCTL_UPE);
	net_rig_send(&r, other, 60, 1);
	assert_int_equal(get(&r, R_RDH), 3);
	net_rig_send(&r, NULL, 60, 1); /* no broadcasts now */
	assert_int_equal(get(&r, R_RDH), 3);
	net_rig_fini(&r);
}

/* Chip select, clock, data as section 5.3.1 has them. */
static u16 read_wires(struct net_rig *r, unsigned word)
{
	u32 bits = 6u << 6 | word;
	u16 value = 0;

	put(r, R_EECD, 0x40);
	put(r, R_EECD, 0x42);
	for (int i = 8; i >= 0; i--) {
		u32 di = bits >> i & 1 ? 4 : 0;

		put(r, R_EECD, 0x42 | di);
		put(r, R_EECD, 0x43 | di);
		put(r, R_EECD, 0x42 | di);
	}
	for (int i = 0; i < 16; i++) {
		put(r, R_EECD, 0x43);
		value = (u16)(value << 1 | (get(r, R_EECD) >> 3 & 1));
		put(r, R_EECD, 0x42);
	}
	put(r, R_EECD, 0);
	return value;
}

static void both_ways_to_the_eeprom_say_the_same(void **state)
{
	struct net_rig r;
	u16 sum = 0;

	start(&r);
	for (unsigned i = 0; i < 64; i++) {
		u16 word;

		put(&r, R_EERD, i << 8 | 1);
		word = (u16)(get(&r, R_EERD) >> 16);
		assert_int_equal(read_wires(&r, i), word);
		sum = (u16)(sum + word);
	}
	assert_int_equal(sum, 0xbaba);
	net_rig_fini(&r);
}

static u32 mdic(struct net_rig *r, unsigned reg)
{
	put(r, R_MDIC, 2u << 26 | 1u << 21 | reg << 16);
	return get(r, R_MDIC);
}

static void the_link_is_seen_in_status_and_phy(void **state)
{
	struct net_rig r;

	start(&r);
	assert_int_equal(get(&r, R_STATUS) & 0x83, 0x83);
	assert_int_equal(mdic(&r, 2) & 0xffff, 0x0141);
	assert_true(mdic(&r, 1) & 4);
	net_set_link(&r.peer, false);
	assert_false(get(&r, R_STATUS) & STATUS_LU);
	assert_true(get(&r, R_ICR) & ICR_LSC);
	assert_false(mdic(&r, 1) & 4);
	net_set_link(&r.peer, true);
	assert_true(get(&r, R_STATUS) & STATUS_LU);
	net_rig_fini(&r);
}

static void interrupts_keep_the_interval_that_was_set(void **state)
{
	struct net_rig r;

	start(&r);
	put(&r, R_ITR, 4000); /* 1.024 ms */
	put(&r, R_IMS, ICR_RXT0);
	get(&r, R_ICR);
	net_rig_send(&r, NULL, 60, 1);
	assert_int_equal(r.fm.rises[RIG_GSI], 1);
	get(&r, R_ICR);
	net_rig_send(&r, NULL, 60, 1);
	assert_int_equal(r.fm.rises[RIG_GSI], 1);
	clock_advance(r.fm.m.clock, 1000000);
	assert_int_equal(r.fm.rises[RIG_GSI], 1);
	clock_advance(r.fm.m.clock, 30000);
	assert_int_equal(r.fm.rises[RIG_GSI], 2);
	net_rig_fini(&r);
}

static void a_busy_wire_holds_the_ring(void **state)
{
	struct net_rig r;

	start(&r);
	r.busy = true;
	put_desc(&r, 0, DATA, 100 | EOP, 0);
	put(&r, R_TDT, 1);
	net_rig_run(&r);
	assert_int_equal(get(&r, R_TDH), 0);
	r.busy = false;
	net_flush(&r.peer);
	net_rig_run(&r);
	assert_int_equal(get(&r, R_TDH), 1);
	assert_int_equal(r.got, 1);
	net_rig_fini(&r);
}

static const u32 odd_regs[] = {R_CTRL,	 R_RCTL,  R_TCTL,  R_TDBAL, R_TDBAH, R_TDLEN, R_TDH,
			       R_TDT,	 R_RDBAL, R_RDBAH, R_RDLEN, R_RDH,   R_RDT,   R_IMS,
			       R_RXCSUM, R_VET,	  R_ITR,   R_MDIC,  R_EECD,  R_EERD};

static void any_ring_and_any_descriptor_do_no_harm(void **state)
{
	struct rng rng = {.state = 77};
	struct net_rig r;

	assert_int_equal(log_set_file("/dev/null", &(struct error){0}), 0);
	start(&r);
	for (unsigned round = 0; round < 400; round++) {
		for (unsigned i = 0; i < 64 * 4; i++)
			store_le32(ram(&r, TX_RING + 4 * i), rng_below(&rng, 3)
								     ? rng_below(&rng, RIG_RAM)
								     : (u32)rng_next(&rng) | EOP);
		for (unsigned i = 0; i < 3; i++)
			put(&r, odd_regs[rng_below(&rng, ARRAY_LEN(odd_regs))],
			    rng_below(&rng, 2) ? (u32)rng_next(&rng) : rng_below(&rng, 256));
		put(&r, R_TDBAL, TX_RING);
		put(&r, R_TCTL, TCTL_EN);
		put(&r, R_RCTL, (u32)rng_next(&rng) | RCTL_EN);
		put(&r, R_TDT, rng_below(&rng, 64));
		net_rig_run(&r);
		net_rig_send(&r, NULL, 14 + rng_below(&rng, 9000), 1);
	}
	device_reset(r.dev);
	net_rig_fini(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_packet_in_pieces_goes_out_whole),
		cmocka_unit_test(a_peer_that_can_gets_frames_without_the_main_loop),
		cmocka_unit_test(frames_that_may_wait_or_are_dumped_go_by_the_main_loop),
		cmocka_unit_test(a_simple_checksum_is_inserted),
		cmocka_unit_test(a_large_send_is_cut_into_segments),
		cmocka_unit_test(a_packet_that_goes_directly_does_not_go_on_otherwise),
		cmocka_unit_test(tags_are_put_in_and_taken_off),
		cmocka_unit_test(a_frame_is_padded_and_put_into_the_ring),
		cmocka_unit_test(frames_wait_for_buffers),
		cmocka_unit_test(what_waits_goes_on_with_a_reset_or_as_bus_master),
		cmocka_unit_test(a_frame_that_no_ring_could_hold_is_dropped),
		cmocka_unit_test(only_wanted_addresses_pass),
		cmocka_unit_test(both_ways_to_the_eeprom_say_the_same),
		cmocka_unit_test(the_link_is_seen_in_status_and_phy),
		cmocka_unit_test(interrupts_keep_the_interval_that_was_set),
		cmocka_unit_test(a_busy_wire_holds_the_ring),
		cmocka_unit_test(any_ring_and_any_descriptor_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
