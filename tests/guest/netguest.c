/* A guest with one network card, virtio-net (legacy interface) or e1000.
 *
 * A multiboot kernel (Multiboot Specification 0.6.96), 32 bits, flat, no library.  It
 * has the address 10.0.2.15 and
 *   - says on COM1 its card and address ("card virtio 52:54:..."),
 *   - asks for an address by DHCP and says what it is offered ("offer 10.0.2.15"),
 *   - answers ARP and pings, and echoes what comes by TCP to port 7, one connection at a
 *     time (RFC 826, 792, 9293, 862); what it has echoed so far it says ("echo BYTES"),
 *   - with "blast=N" on its command line sends N rings of 256 frames of 1514 bytes before
 *     all that, and says how long they took ("blast N TICKS"). */
#include "tiny.h"

#define RING	256u
#define FRAME	2048u
#define LONGEST 1514u

/* --- cards ---------------------------------------------------------------------------------- */

static uint8_t rx_frames[RING][FRAME] __attribute__((aligned(4096)));
static uint8_t tx_frame[FRAME] __attribute__((aligned(16)));
static uint8_t rings[2][16384] __attribute__((aligned(4096)));
static uint8_t mac[6];

struct card {
	const char *name;
	void (*start)(uint8_t devfn);
	void (*send)(uint32_t bytes); /* tx_frame; returns when it is gone */
	/* The next frame and its length, or 0; it is the caller's until the next call. */
	uint32_t (*receive)(uint8_t **frame);
	void (*blast)(uint32_t rounds);
};

/* virtio 1.2, section 4.1.4.10 (legacy interface). */
static struct vring vq[2];
static uint16_t io;
#define VIRTIO_HEADER 10

static void virtio_queue(unsigned n)
{
	uint8_t *at = rings[n];

	out16(io + 14, (uint16_t)n);
	vq[n].desc = (void *)at;
	vq[n].avail = (void *)(at + 16 * RING);
	vq[n].used = (void *)(at + 8192);
	out32(io + 8, (uint32_t)(uintptr_t)at >> 12);
}

static void virtio_start(uint8_t devfn)
{
	io = (uint16_t)(config_read(devfn, 0x10) & ~3u);
	out8(io + 18, 0);
	out8(io + 18, 3);
	out32(io + 4, 1u << 5); /* the address, nothing else */
	for (unsigned i = 0; i < 6; i++)
		mac[i] = in8((uint16_t)(io + 20 + i));
	virtio_queue(0);
	virtio_queue(1);
	for (unsigned i = 0; i < RING; i++) {
		vq[0].desc[i].addr = (uintptr_t)rx_frames[i];
		vq[0].desc[i].bytes = FRAME;
		vq[0].desc[i].flags = 2;
		vq[0].avail[2 + i] = (uint16_t)i;
		vq[1].avail[2 + i] = (uint16_t)i;
	}
	vq[1].avail[0] = 1; /* no interrupts: everything is polled for */
	vq[0].avail[0] = 1;
	vq[0].avail[1] = RING;
	out8(io + 18, 7);
	out16(io + 16, 0);
}

static void virtio_send(uint32_t bytes)
{
	static uint8_t none[VIRTIO_HEADER];
	unsigned slot = vq[1].avail[1] % RING;
	unsigned second = (slot + 1) % RING;

	vq[1].desc[slot].addr = (uintptr_t)none;
	vq[1].desc[slot].bytes = VIRTIO_HEADER;
	vq[1].desc[slot].flags = 1;
	vq[1].desc[slot].next = (uint16_t)second;
	vq[1].desc[second].addr = (uintptr_t)tx_frame;
	vq[1].desc[second].bytes = bytes;
	vq[1].desc[second].flags = 0;
	vq[1].avail[1]++;
	out16(io + 16, 1);
	while (vq[1].used[1] != vq[1].avail[1])
		;
}

static uint32_t virtio_receive(uint8_t **frame)
{
	static uint16_t lent = RING; /* buffer to give back */
	volatile uint32_t *entry;

	if (lent < RING) {
		vq[0].avail[2 + vq[0].avail[1] % RING] = lent;
		vq[0].avail[1]++;
		lent = RING;
		if (!(vq[0].used[0] & 1))
			out16(io + 16, 0);
	}
	if (vq[0].used[1] == vq[0].next_used)
		return 0;
	entry = (volatile uint32_t *)(volatile void *)(vq[0].used + 2) +
		2 * (vq[0].next_used++ % RING);
	lent = (uint16_t)entry[0];
	*frame = rx_frames[lent] + VIRTIO_HEADER;
	return entry[1] - VIRTIO_HEADER;
}

static void virtio_blast(uint32_t rounds)
{
	static uint8_t frame[VIRTIO_HEADER + LONGEST];

	memcpy(frame + VIRTIO_HEADER, tx_frame, 14);
	for (unsigned i = 0; i < RING; i++) {
		vq[1].desc[i].addr = (uintptr_t)frame;
		vq[1].desc[i].bytes = sizeof(frame);
		vq[1].desc[i].flags = 0;
	}
	while (rounds--) {
		vq[1].avail[1] = (uint16_t)(vq[1].avail[1] + RING);
		out16(io + 16, 1);
		while (vq[1].used[1] != vq[1].avail[1])
			;
	}
}

/* 8254x Software Developer's Manual, chapters 3 and 13. */
static volatile uint32_t *regs;
static uint32_t rx_next, tx_next;

static void e1000_ring(unsigned n, uint32_t base)
{
	regs[base / 4] = (uint32_t)(uintptr_t)rings[n];
	regs[base / 4 + 1] = 0;
	regs[base / 4 + 2] = RING * 16;
	regs[base / 4 + 4] = 0;
	regs[base / 4 + 6] = 0;
}

static void e1000_start(uint8_t devfn)
{
	volatile uint64_t *desc = (void *)rings[0];

	regs = (void *)(uintptr_t)(config_read(devfn, 0x10) & ~15u);
	regs[0] = 1u << 26; /* reset */
	for (unsigned i = 0; i < 3; i++) {
		uint32_t word;

		regs[0x14 / 4] = i << 8 | 1;
		while (!((word = regs[0x14 / 4]) & 0x10))
			;
		mac[2 * i] = (uint8_t)(word >> 16);
		mac[2 * i + 1] = (uint8_t)(word >> 24);
	}
	for (unsigned i = 0; i < RING; i++)
		desc[2 * i] = (uintptr_t)rx_frames[i];
	e1000_ring(0, 0x2800);
	e1000_ring(1, 0x3800);
	regs[0x2818 / 4] = RING - 1;
	regs[0x100 / 4] = 1u << 1 | 1u << 15 | 1u << 26; /* on, broadcasts, no CRC */
	regs[0x400 / 4] = 1u << 1 | 1u << 3;
}

static void e1000_queue(const void *frame, uint32_t bytes)
{
	volatile uint32_t *desc = (volatile uint32_t *)(void *)rings[1] + 4 * tx_next;

	desc[0] = (uint32_t)(uintptr_t)frame;
	desc[1] = 0;
	desc[2] = bytes | 1u << 24 | 1u << 25 | 1u << 27; /* end, CRC, report */
	desc[3] = 0;
	tx_next = (tx_next + 1) % RING;
}

static void e1000_send(uint32_t bytes)
{
	volatile uint32_t *desc = (volatile uint32_t *)(void *)rings[1] + 4 * tx_next;

	e1000_queue(tx_frame, bytes);
	regs[0x3818 / 4] = tx_next;
	while (!(desc[3] & 1))
		;
}

static uint32_t e1000_receive(uint8_t **frame)
{
	static uint32_t lent = RING;
	volatile uint32_t *desc;

	if (lent < RING) {
		((volatile uint32_t *)(void *)rings[0])[4 * lent + 3] = 0;
		regs[0x2818 / 4] = lent;
		lent = RING;
	}
	desc = (volatile uint32_t *)(void *)rings[0] + 4 * rx_next;
	if (!(desc[3] & 1))
		return 0;
	lent = rx_next;
	rx_next = (rx_next + 1) % RING;
	*frame = rx_frames[lent];
	return desc[2] & 0xffff;
}

static void e1000_blast(uint32_t rounds)
{
	static uint8_t frame[LONGEST];
	volatile uint32_t *desc;

	memcpy(frame, tx_frame, 14);
	while (rounds--) {
		for (unsigned i = 0; i < RING - 1; i++)
			e1000_queue(frame, LONGEST);
		desc = (volatile uint32_t *)(void *)rings[1] + 4 * ((tx_next + RING - 1) % RING);
		regs[0x3818 / 4] = tx_next;
		while (!(desc[3] & 1))
			;
	}
}

static const struct card cards[] = {
	{"virtio", virtio_start, virtio_send, virtio_receive, virtio_blast},
	{"e1000", e1000_start, e1000_send, e1000_receive, e1000_blast},
};
static const struct card *card;

static int find_card(void)
{
	for (unsigned slot = 0; slot < 32; slot++) {
		uint8_t devfn = (uint8_t)(slot << 3);
		uint32_t id = config_read(devfn, 0);

		if (id != 0x10001af4 && id != 0x100e8086)
			continue;
		card = &cards[id == 0x100e8086];
		config_write(devfn, 4, config_read(devfn, 4) | 7); /* decode, bus master */
		card->start(devfn);
		return 1;
	}
	return 0;
}

/* --- packets ---------------------------------------------------------------------------------- */

static const uint8_t our_ip[4] = {10, 0, 2, 15};

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t add_up(const uint8_t *p, uint32_t n, uint32_t sum)
{
	for (; n > 1; p += 2, n -= 2)
		sum += get16(p);
	return n ? sum + (uint32_t)(p[0] << 8) : sum;
}

static uint32_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum & 0xffff;
}

static void ip_header(uint8_t *ip, uint8_t protocol, uint32_t bytes, const uint8_t *to)
{
	static const uint8_t start[] = {0x45, 0, 0, 0, 0, 0, 0, 0, 64};

	memset(ip, 0, 20);
	memcpy(ip, start, sizeof(start));
	put16(ip + 2, bytes + 20);
	ip[9] = protocol;
	memcpy(ip + 12, our_ip, 4);
	memcpy(ip + 16, to, 4);
	put16(ip + 10, fold(add_up(ip, 20, 0)));
}

static void ask_for_address(void)
{
	static const uint8_t from[4] = {0}, to[4] = {255, 255, 255, 255};
	static const uint8_t options[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255};
	uint8_t *ip = tx_frame + 14, *udp = ip + 20, *bootp = udp + 8;

	memset(tx_frame, 0, sizeof(tx_frame));
	memset(tx_frame, 0xff, 6);
	memcpy(tx_frame + 6, mac, 6);
	put16(tx_frame + 12, 0x800);
	ip_header(ip, 17, 308, to);
	memcpy(ip + 12, from, 4);
	put16(ip + 10, 0);
	put16(ip + 10, fold(add_up(ip, 20, 0)));
	put16(udp, 68);
	put16(udp + 2, 67);
	put16(udp + 4, 308);
	bootp[0] = bootp[1] = 1;
	bootp[2] = 6;
	put32(bootp + 4, 0x12345678);
	memcpy(bootp + 28, mac, 6);
	memcpy(bootp + 236, options, sizeof(options));
	card->send(342);
}

/* Answer to who sent the frame that lies in `in`. */
static void reply_header(const uint8_t *in)
{
	memcpy(tx_frame, in + 6, 6);
	memcpy(tx_frame + 6, mac, 6);
	memcpy(tx_frame + 12, in + 12, 2);
}

static void take_arp(const uint8_t *in)
{
	uint8_t *arp = tx_frame + 14;

	if (get16(in + 20) != 1 || get32(in + 38) != get32(our_ip))
		return;
	reply_header(in);
	memcpy(arp, in + 14, 8);
	arp[7] = 2;
	memcpy(arp + 8, mac, 6);
	memcpy(arp + 14, our_ip, 4);
	memcpy(arp + 18, in + 22, 10);
	card->send(60);
}

static void take_ping(const uint8_t *in, uint32_t bytes)
{
	uint8_t *icmp = tx_frame + 34;

	if (in[34] != 8 || bytes < 8)
		return;
	reply_header(in);
	ip_header(tx_frame + 14, 1, bytes, in + 26);
	memcpy(icmp, in + 34, bytes);
	icmp[0] = 0;
	put16(icmp + 2, 0);
	put16(icmp + 2, fold(add_up(icmp, bytes, 0)));
	card->send(34 + bytes);
}

static struct {
	uint32_t peer, ports; /* who: address, both ports */
	uint32_t next_in, next_out;
	uint32_t echoed;
} tcp;
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static void send_tcp(const uint8_t *in, uint8_t flags, const uint8_t *data, uint32_t bytes)
{
	uint8_t *t = tx_frame + 34, pseudo[12] = {0};

	reply_header(in);
	ip_header(tx_frame + 14, 6, 20 + bytes, in + 26);
	memcpy(t, in + 36, 2);
	memcpy(t + 2, in + 34, 2);
	put32(t + 4, tcp.next_out);
	put32(t + 8, tcp.next_in);
	t[12] = 5 << 4;
	t[13] = flags;
	put16(t + 14, 8192);
	put16(t + 16, 0);
	put16(t + 18, 0);
	memcpy(t + 20, data, bytes);
	memcpy(pseudo, our_ip, 4);
	memcpy(pseudo + 4, in + 26, 4);
	pseudo[9] = 6;
	put16(pseudo + 10, 20 + bytes);
	put16(t + 16, fold(add_up(t, 20 + bytes, add_up(pseudo, 12, 0))));
	tcp.next_out += bytes + !!(flags & (SYN | FIN));
	card->send(54 + bytes);
}

static void take_data(const uint8_t *in, const uint8_t *data, uint32_t bytes, uint8_t flags)
{
	if (get32(in + 38) != tcp.next_in) {
		send_tcp(in, ACK, data, 0); /* seen already, or one was lost before it */
		return;
	}
	tcp.next_in += bytes;
	if (bytes)
		send_tcp(in, ACK | PSH, data, bytes);
	tcp.echoed += bytes;
	if (!(flags & FIN))
		return;
	tcp.next_in++;
	send_tcp(in, ACK | FIN, data, 0);
	say("echo ");
	say_decimal(tcp.echoed);
	say("\n");
}

static void take_tcp(const uint8_t *in, uint32_t bytes)
{
	uint32_t head = (uint32_t)(in[46] >> 4) * 4;
	uint8_t flags = in[47];

	if (get16(in + 36) != 7 || head < 20 || head > bytes)
		return;
	if (flags & SYN) {
		tcp.peer = get32(in + 26);
		tcp.ports = get32(in + 34);
		tcp.next_in = get32(in + 38) + 1;
		tcp.next_out = 1000;
		send_tcp(in, SYN | ACK, in, 0);
	} else if (tcp.peer == get32(in + 26) && tcp.ports == get32(in + 34) &&
		   (bytes > head || flags & FIN)) {
		take_data(in, in + 34 + head, bytes - head, flags);
	}
}

static void take_udp(const uint8_t *in)
{
	static int said;

	if (said || get16(in + 34) != 67 || get32(in + 46) != 0x12345678)
		return;
	said = 1;
	say("offer ");
	for (unsigned i = 0; i < 4; i++) {
		say_decimal(in[58 + i]);
		say(i < 3 ? "." : "\n");
	}
}

static void take(const uint8_t *in, uint32_t bytes)
{
	uint32_t payload;

	if (bytes < 42)
		return;
	if (get16(in + 12) == 0x806) {
		take_arp(in);
		return;
	}
	if (get16(in + 12) != 0x800 || in[14] != 0x45)
		return;
	payload = (uint32_t)get16(in + 16) - 20;
	if (payload + 34 > bytes)
		return;
	if (in[23] == 17)
		take_udp(in);
	else if (get32(in + 30) != get32(our_ip))
		return;
	else if (in[23] == 1)
		take_ping(in, payload);
	else if (in[23] == 6)
		take_tcp(in, payload);
}

static void blast(uint32_t rounds)
{
	uint64_t start;

	memset(tx_frame, 0xff, 6); /* to all, of no known protocol */
	memcpy(tx_frame + 6, mac, 6);
	put16(tx_frame + 12, 0x88b5);
	start = ticks();
	card->blast(rounds);
	start = ticks() - start;
	say("blast ");
	say_decimal(rounds);
	say(" ");
	say_hex(start, 16);
	say("\n");
}

__attribute__((used, noreturn)) static void guest(const struct boot_info *info)
{
	uint32_t rounds = number_after(info->cmdline, "blast="), bytes;
	uint8_t *frame;

	if (!find_card()) {
		say("no card\n");
		for (;;)
			__asm__ volatile("hlt");
	}
	say("card ");
	say(card->name);
	for (unsigned i = 0; i < 6; i++) {
		say(i ? ":" : " ");
		say_hex(mac[i], 2);
	}
	say("\n");
	if (rounds)
		blast(rounds);
	ask_for_address();
	say("ready\n");
	for (;;) {
		bytes = card->receive(&frame);
		if (bytes)
			take(frame, bytes);
	}
}
