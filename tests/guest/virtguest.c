/* A guest that drives the small virtio devices: balloon, entropy, serial ports.
 *
 * tests/guest/tiny.h; virtio 1.2, sections 2.7, 4.1 and 5.3 to 5.5.  On its command line:
 * "modern=1" for the interface of 1.0, otherwise the legacy one is used; "mem=MIB".
 *   - balloon: says "balloon PAGES" whenever it has done what it was asked for.  Every
 *     page of its memory from 16 MiB on holds its own number; one that comes back from
 *     the balloon has to be empty.  The key m has it look: "memory right" or "wrong ADDR".
 *   - entropy: the key r has it say 16 bytes, "random ...".
 *   - serial ports: says what it is told ("port 1 name", "console 0", "host 1 open") and
 *     sends back what comes in capitals. */
#include "tiny.h"

#define PAGE   4096u
#define FIRST  (16u << 20)
#define QUEUES 64
#define SLOTS  4 /* buffers of a queue that takes what comes */
#define ROOM   256u

struct queue {
	struct vring r;
	uint16_t size;
	volatile uint16_t *bell; /* modern */
};

struct vdev {
	uint16_t io; /* 0: modern */
	volatile uint8_t *common, *config;
	volatile uint8_t *notify;
	uint32_t multiplier;
	struct queue q[QUEUES];
};

static uint8_t ring_pages[QUEUES + 8][2 * PAGE] __attribute__((aligned(4096)));
static unsigned rings_used;

/* --- transport ------------------------------------------------------------------------------ */

static uint32_t bar(uint8_t devfn, unsigned n)
{
	return config_read(devfn, (uint8_t)(0x10 + 4 * n)) & ~15u;
}

static void find_structures(struct vdev *d, uint8_t devfn)
{
	uint8_t at = (uint8_t)config_read(devfn, 0x34);

	while (at) {
		uint32_t head = config_read(devfn, at);
		uint8_t *base;

		if ((head & 0xff) == 9) {
			base = (uint8_t *)(uintptr_t)(bar(devfn, config_read(devfn, at + 4) & 7) +
						      config_read(devfn, at + 8));
			if (head >> 24 == 1)
				d->common = base;
			if (head >> 24 == 2) {
				d->notify = base;
				d->multiplier = config_read(devfn, at + 16);
			}
			if (head >> 24 == 4)
				d->config = base;
		}
		at = (uint8_t)(head >> 8);
	}
}

static uint8_t config8(struct vdev *d, unsigned off)
{
	return d->io ? in8((uint16_t)(d->io + 20 + off)) : d->config[off];
}

static uint32_t config32(struct vdev *d, unsigned off)
{
	return d->io ? in32((uint16_t)(d->io + 20 + off))
		     : *(volatile uint32_t *)(volatile void *)(d->config + off);
}

static void set_config32(struct vdev *d, unsigned off, uint32_t v)
{
	if (d->io)
		out32((uint16_t)(d->io + 20 + off), v);
	else
		*(volatile uint32_t *)(volatile void *)(d->config + off) = v;
}

static void set_status(struct vdev *d, uint8_t status)
{
	if (d->io)
		out8(d->io + 18, status);
	else
		d->common[20] = status;
}

static volatile uint16_t *common16(struct vdev *d, unsigned off)
{
	return (volatile uint16_t *)(volatile void *)(d->common + off);
}

static volatile uint32_t *common32(struct vdev *d, unsigned off)
{
	return (volatile uint32_t *)(volatile void *)(d->common + off);
}

static void place_queue(struct vdev *d, struct queue *q, uint32_t at)
{
	if (d->io) {
		out32(d->io + 8, at >> 12);
		return;
	}
	*common32(d, 32) = at;
	*common32(d, 36) = 0;
	*common32(d, 40) = (uint32_t)(uintptr_t)q->r.avail;
	*common32(d, 44) = 0;
	*common32(d, 48) = (uint32_t)(uintptr_t)q->r.used;
	*common32(d, 52) = 0;
	q->bell = (volatile uint16_t *)(volatile void *)(d->notify +
							 *common16(d, 30) * d->multiplier);
	*common16(d, 28) = 1;
}

static void set_up_queue(struct vdev *d, unsigned n)
{
	struct queue *q = &d->q[n];
	uint8_t *at = ring_pages[rings_used++];

	if (d->io)
		out16(d->io + 14, (uint16_t)n);
	else
		*common16(d, 22) = (uint16_t)n;
	q->size = d->io ? in16(d->io + 12) : *common16(d, 24);
	q->r.desc = (void *)at;
	q->r.avail = (void *)(at + 16u * q->size);
	q->r.used = (void *)(((uintptr_t)at + 16u * q->size + 6 + 2u * q->size + PAGE - 1) &
			     ~(PAGE - 1));
	q->r.avail[0] = 1; /* no interrupts: everything is polled for */
	place_queue(d, q, (uint32_t)(uintptr_t)at);
}

static void start(struct vdev *d, uint32_t features, unsigned queues)
{
	set_status(d, 0);
	set_status(d, 3);
	if (d->io) {
		out32(d->io + 4, features);
	} else {
		*common32(d, 8) = 0;
		*common32(d, 12) = features;
		*common32(d, 8) = 1;
		*common32(d, 12) = 1;
		set_status(d, 11);
	}
	for (unsigned i = 0; i < queues; i++)
		set_up_queue(d, i);
	set_status(d, d->io ? 7 : 15);
}

static void kick(struct vdev *d, unsigned n)
{
	__sync_synchronize();
	if (d->io)
		out16(d->io + 16, (uint16_t)n);
	else
		*d->q[n].bell = (uint16_t)n;
}

static void offer(struct vdev *d, unsigned n, unsigned slot, void *buf, uint32_t bytes, int write)
{
	struct queue *q = &d->q[n];

	q->r.desc[slot].addr = (uintptr_t)buf;
	q->r.desc[slot].bytes = bytes;
	q->r.desc[slot].flags = write ? 2 : 0;
	q->r.avail[2 + q->r.avail[1] % q->size] = (uint16_t)slot;
	__sync_synchronize();
	q->r.avail[1]++;
	kick(d, n);
}

/* The next used slot and what was written to it, or -1. */
static int used(struct queue *q, uint32_t *bytes)
{
	volatile uint32_t *entry;

	if (q->r.used[1] == q->r.next_used)
		return -1;
	entry = (volatile uint32_t *)(volatile void *)(q->r.used + 2) +
		2 * (q->r.next_used++ % q->size);
	*bytes = entry[1];
	return (int)entry[0];
}

/* Give bytes to the device, wait until it has taken them. */
static void give(struct vdev *d, unsigned n, void *buf, uint32_t bytes)
{
	uint32_t written;

	offer(d, n, 0, buf, bytes, 0);
	while (used(&d->q[n], &written) < 0)
		;
}

/* --- balloon -------------------------------------------------------------------------------- */

static struct vdev balloon;
static int has_balloon;
static uint32_t pages; /* of memory from FIRST on */
static uint32_t out;   /* of those, the last ones, are in the balloon */

static volatile uint32_t *page_at(uint32_t n)
{
	return (volatile uint32_t *)(uintptr_t)(FIRST + n * PAGE);
}

static void fill_page(uint32_t n)
{
	page_at(n)[0] = page_at(n)[PAGE / 4 - 1] = n + 1;
}

static void check_memory(void)
{
	for (uint32_t i = 0; i < pages; i++) {
		uint32_t want = i < pages - out ? i + 1 : 0;

		if (page_at(i)[0] == want && page_at(i)[PAGE / 4 - 1] == want)
			continue;
		say("memory wrong ");
		say_hex((uintptr_t)page_at(i), 8);
		say("\n");
		return;
	}
	say("memory right\n");
}

/* To or from the balloon, as many as fit into one request. */
static void move_pages(uint32_t wanted)
{
	static uint32_t pfns[256];
	uint32_t n = 0, was = out;

	for (; out < wanted && out < pages && n < 256; n++)
		pfns[n] = FIRST / PAGE + pages - ++out;
	if (n) {
		give(&balloon, 0, pfns, 4 * n);
	} else {
		for (; out > wanted && n < 256; n++)
			pfns[n] = FIRST / PAGE + pages - out--;
		give(&balloon, 1, pfns, 4 * n);
		for (uint32_t i = pages - was; i < pages - out; i++) {
			if (page_at(i)[0] | page_at(i)[PAGE / 4 - 1])
				say("not empty\n");
			fill_page(i);
		}
	}
	set_config32(&balloon, 4, out);
}

static void look_at_balloon(void)
{
	uint32_t wanted = config32(&balloon, 0);

	if (wanted > pages)
		wanted = pages;
	if (wanted == out)
		return;
	while (out != wanted)
		move_pages(wanted);
	say("balloon ");
	say_decimal(out);
	say("\n");
}

static void start_balloon(void)
{
	start(&balloon, 0, 2);
	for (uint32_t i = 0; i < pages; i++)
		fill_page(i);
	say("balloon is there\n");
}

/* --- entropy -------------------------------------------------------------------------------- */

static struct vdev rng;
static int has_rng;

static void say_random(void)
{
	static uint8_t bytes[16];
	uint32_t n = 0;

	offer(&rng, 0, 0, bytes, sizeof(bytes), 1);
	while (used(&rng.q[0], &n) < 0)
		;
	say("random ");
	for (uint32_t i = 0; i < n && i < sizeof(bytes); i++)
		say_hex(bytes[i], 2);
	say("\n");
}

/* --- serial ports ---------------------------------------------------------------------------- */

enum {
	DEVICE_READY,
	PORT_ADD,
	PORT_REMOVE,
	PORT_READY,
	CONSOLE_PORT,
	RESIZE,
	PORT_OPEN,
	PORT_NAME
};

static struct vdev ports;
static int has_ports;
static unsigned n_ports;
static uint8_t port_bufs[QUEUES][SLOTS][ROOM];

static unsigned rx_queue(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static void tell(uint32_t port, uint16_t event, uint16_t value)
{
	static struct {
		uint32_t port;
		uint16_t event, value;
	} message;

	message.port = port;
	message.event = event;
	message.value = value;
	give(&ports, 3, &message, sizeof(message));
}

static void say_port(const char *what, uint32_t port, const char *more, uint32_t n)
{
	say(what);
	say(" ");
	say_decimal(port);
	say(" ");
	while (n-- && *more)
		say_char(*more++);
	say("\n");
}

static void hear(const uint8_t *message, uint32_t bytes)
{
	uint32_t port = *(const uint32_t *)(const void *)message;
	uint16_t event = (uint16_t)(message[4] | message[5] << 8);

	if (event == PORT_ADD)
		tell(port, PORT_READY, 1);
	if (event == CONSOLE_PORT) {
		say_port("console", port, "", 0);
		tell(port, PORT_OPEN, 1);
	}
	if (event == PORT_NAME) {
		say_port("port", port, (const char *)message + 8, bytes - 8);
		tell(port, PORT_OPEN, 1);
	}
	if (event == PORT_OPEN)
		say_port("host", port, message[6] ? "open" : "closed", 8);
}

static void echo(unsigned port, uint8_t *text, uint32_t bytes)
{
	static uint8_t copy[ROOM];

	memcpy(copy, text, bytes);
	for (uint32_t i = 0; i < bytes; i++)
		if (copy[i] >= 'a' && copy[i] <= 'z')
			copy[i] = (uint8_t)(copy[i] - 32);
	give(&ports, rx_queue(port) + 1, copy, bytes);
}

static void look_at_queue(unsigned n)
{
	uint32_t bytes;
	int slot;

	while ((slot = used(&ports.q[n], &bytes)) >= 0) {
		if (n == 2)
			hear(port_bufs[n][slot], bytes);
		else
			echo(n ? (n - 2) / 2 : 0, port_bufs[n][slot], bytes);
		offer(&ports, n, (unsigned)slot, port_bufs[n][slot], ROOM, 1);
	}
}

static void look_at_ports(void)
{
	for (unsigned n = 0; n < 2 * n_ports + 2; n += 2)
		look_at_queue(n);
}

static void start_ports(void)
{
	n_ports = 31;
	start(&ports, 2, 2 * n_ports + 2);
	n_ports = config8(&ports, 4);
	for (unsigned n = 0; n < 2 * n_ports + 2; n += 2)
		for (unsigned i = 0; i < SLOTS; i++)
			offer(&ports, n, i, port_bufs[n][i], ROOM, 1);
	say("ports are there\n");
	tell(0, DEVICE_READY, 1);
}

/* --- all ---------------------------------------------------------------------------------------
 */

static void find_device(uint8_t devfn, int modern)
{
	static const struct {
		uint16_t legacy, modern;
		struct vdev *d;
		int *has;
	} kinds[] = {{0x1002, 0x1045, &balloon, &has_balloon},
		     {0x1003, 0x1043, &ports, &has_ports},
		     {0x1005, 0x1044, &rng, &has_rng}};
	uint32_t id = config_read(devfn, 0);

	for (unsigned i = 0; i < 3; i++) {
		if ((id & 0xffff) != 0x1af4 ||
		    (id >> 16 != kinds[i].legacy && id >> 16 != kinds[i].modern))
			continue;
		config_write(devfn, 4, config_read(devfn, 4) | 7);
		*kinds[i].has = 1;
		if (modern)
			find_structures(kinds[i].d, devfn);
		else
			kinds[i].d->io = (uint16_t)(config_read(devfn, 0x10) & ~3u);
	}
}

static void look_at_keys(void)
{
	uint8_t key;

	if (!(in8(COM1 + 5) & 1))
		return;
	key = in8(COM1);
	if (key == 'm')
		check_memory();
	if (key == 'r' && has_rng)
		say_random();
}

static void guest(const struct boot_info *info)
{
	pages = ((number_after(info->cmdline, "mem=") << 20) - FIRST) / PAGE;
	for (unsigned slot = 0; slot < 32; slot++)
		find_device((uint8_t)(slot << 3), (int)number_after(info->cmdline, "modern="));
	if (has_rng) {
		start(&rng, 0, 1);
		say("entropy is there\n");
	}
	if (has_balloon)
		start_balloon();
	if (has_ports)
		start_ports();
	say("ready\n");
	for (;;) {
		look_at_keys();
		if (has_balloon)
			look_at_balloon();
		if (has_ports)
			look_at_ports();
	}
}
