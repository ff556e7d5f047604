/* A guest that does nothing but read or write one disk.
 *
 * A kernel on tiny.h:
 *	-kernel diskguest -append "disk=N write=0|1 bytes=BYTES depth=N requests=N mib=N"
 * disk: 0 virtio-blk (legacy interface), 1 IDE by DMA, 2 IDE by PIO (primary master).
 * Requests of so many bytes lie at 256 random places within so
 * many MiB.  virtio keeps up to `depth` of them in the ring, and offers them by the
 * half; IDE does one after the other.  All is polled for, so that every kind of KVM can
 * run it.  It says "start" and "end" (or "failed"), and halts. */
#include "tiny.h"

#define PLACES 256u
#define DATA   (16u << 20) /* all requests use the same memory, a few MiB of it */
#define CHUNKS 16u

struct job {
	uint32_t write, bytes, depth, requests, mib;
};

static uint32_t places[PLACES]; /* sectors */

static void choose_places(const struct job *j)
{
	uint32_t slots = (j->mib << 11) / (j->bytes >> 9), random = 12345;

	for (unsigned i = 0; i < PLACES; i++) {
		random = random * 1664525u + 1013904223u;
		places[i] = (uint32_t)((uint64_t)random * slots >> 32) * (j->bytes >> 9);
	}
}

static uint32_t memory_of(const struct job *j, uint32_t i)
{
	return DATA + i % CHUNKS * j->bytes;
}

/* --- virtio-blk: virtio 1.2, sections 2.7, 5.2 and 4.1.4.10 (legacy interface) -------- */

struct desc {
	uint64_t addr;
	uint32_t bytes;
	uint16_t flags, next;
};
enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };

#define RING 256u /* what both programs offer by themselves */
static uint8_t ring[12288] __attribute__((aligned(4096)));
static struct desc *const descs = (void *)ring;
static volatile uint16_t *const avail = (void *)(ring + 16 * RING);
static volatile uint16_t *const used = (void *)(ring + 8192);
static struct {
	uint32_t type, priority;
	uint64_t sector;
} headers[RING];
static uint8_t status[RING];
static struct desc tables[RING][3];
static uint16_t io;

static void virtio_fill(const struct job *j)
{
	for (unsigned i = 0; i < RING; i++) {
		struct desc *t = tables[i];

		headers[i].type = j->write;
		headers[i].sector = places[i];
		t[0] = (struct desc){(uintptr_t)&headers[i], 16, NEXT, 1};
		t[1] = (struct desc){memory_of(j, i), j->bytes, j->write ? NEXT : NEXT | WRITE, 2};
		t[2] = (struct desc){(uintptr_t)&status[i], 1, WRITE, 0};
		status[i] = 0;
		descs[i] = (struct desc){(uintptr_t)t, sizeof(tables[i]), INDIRECT, 0};
		avail[2 + i] = (uint16_t)i;
	}
	avail[0] = 1; /* no interrupts */
}

static int virtio_start(const struct job *j)
{
	uint8_t devfn = 0;

	while (devfn < 0xf8 && config_read(devfn, 0) != 0x10011af4)
		devfn = (uint8_t)(devfn + 8);
	if (devfn == 0xf8)
		return 0;
	config_write(devfn, 4, config_read(devfn, 4) | 7);
	io = (uint16_t)(config_read(devfn, 0x10) & ~3u);
	out8(io + 18, 0);
	out8(io + 18, 3);
	if (!(in32(io) & 1u << 28))
		return 0;
	/* Indirect descriptors, and flushes: who does not know them has writes that are
	 * durable at once. */
	out32(io + 4, 1u << 28 | 1u << 9);
	out16(io + 14, 0);
	if (in16(io + 12) != RING)
		return 0;
	virtio_fill(j);
	out32(io + 8, (uint32_t)(uintptr_t)ring >> 12);
	out8(io + 18, 7);
	return 1;
}

static int virtio_run(const struct job *j)
{
	uint32_t half = j->depth > 1 ? j->depth / 2 : 1, left = j->requests - j->depth;
	uint16_t seen = 0;

	avail[1] = (uint16_t)j->depth;
	out16(io + 16, 0);
	while (left) {
		while ((uint16_t)(used[1] - seen) < half)
			;
		seen = (uint16_t)(seen + half);
		avail[1] = (uint16_t)(avail[1] + half);
		if (!(used[0] & 1))
			out16(io + 16, 0);
		left -= half;
	}
	while (used[1] != avail[1])
		;
	for (unsigned i = 0; i < RING; i++)
		if (status[i])
			return 0;
	return 1;
}

/* --- IDE: ATA/ATAPI-6, SFF-8038i ------------------------------------------------------- */

enum { ATA = 0x1f0, ALT = 0x3f6, BSY = 0x80, DRQ = 8, ERR = 1 };
#define IDE_DEVFN 9  /* 0:1.1 */
#define BLOCK	  16 /* sectors that go at once by PIO */
static uint64_t prd[64] __attribute__((aligned(4096)));
static uint16_t bus_master;

static uint8_t ide_wait(void)
{
	uint8_t s;

	while ((s = in8(ALT)) & BSY)
		;
	return s;
}

static void ide_command(uint32_t sector, uint32_t count, uint8_t command)
{
	out8(ATA + 2, (uint8_t)(count >> 8));
	out8(ATA + 3, (uint8_t)(sector >> 24));
	out8(ATA + 4, 0);
	out8(ATA + 5, 0);
	out8(ATA + 2, (uint8_t)count);
	out8(ATA + 3, (uint8_t)sector);
	out8(ATA + 4, (uint8_t)(sector >> 8));
	out8(ATA + 5, (uint8_t)(sector >> 16));
	out8(ATA + 7, command);
}

static int ide_start(const struct job *j)
{
	if (config_read(IDE_DEVFN, 0) != 0x70108086)
		return 0;
	config_write(IDE_DEVFN, 4, config_read(IDE_DEVFN, 4) | 5);
	bus_master = (uint16_t)(config_read(IDE_DEVFN, 0x20) & ~3u);
	out8(ALT, 2); /* no interrupts */
	out8(ATA + 6, 0xe0);
	ide_wait();
	ide_command(0, BLOCK, 0xc6); /* set multiple */
	return !(ide_wait() & ERR);
}

static void fill_prd(uint32_t at, uint32_t bytes)
{
	unsigned i = 0;

	for (; bytes > 65536; bytes -= 65536, at += 65536)
		prd[i++] = at;
	prd[i] = (uint64_t)(bytes & 0xffff) << 32 | 1ull << 63 | at;
}

static int dma_run(const struct job *j)
{
	uint8_t direction = j->write ? 0 : 8, s;

	fill_prd(DATA, j->bytes);
	out32(bus_master + 4, (uint32_t)(uintptr_t)prd);
	for (uint32_t i = 0; i < j->requests; i++) {
		out8(bus_master, direction);
		ide_command(places[i % PLACES], j->bytes >> 9, j->write ? 0x35 : 0x25);
		out8(bus_master, direction | 1);
		while (in8(bus_master + 2) & 1) /* drives differ in what BSY and DRQ say */
			;
		s = ide_wait();
		out8(bus_master, direction);
		if (s & (ERR | DRQ))
			return 0;
	}
	return 1;
}

static void move_block(uint32_t *at, uint32_t bytes, uint32_t write)
{
	uint32_t n = bytes / 4;

	if (write)
		__asm__ volatile("rep outsl" : "+S"(*at), "+c"(n) : "d"(ATA) : "memory");
	else
		__asm__ volatile("rep insl" : "+D"(*at), "+c"(n) : "d"(ATA) : "memory");
}

static int pio_run(const struct job *j)
{
	for (uint32_t i = 0; i < j->requests; i++) {
		uint32_t at = DATA, end = DATA + j->bytes;

		ide_command(places[i % PLACES], j->bytes >> 9, j->write ? 0x39 : 0x29);
		while (at < end) {
			if (!(ide_wait() & DRQ))
				return 0;
			move_block(&at, end - at < BLOCK * 512 ? end - at : BLOCK * 512, j->write);
		}
		if (ide_wait() & ERR)
			return 0;
	}
	return 1;
}

/* --- the choice ---------------------------------------------------------------------- */

static const struct {
	int (*start)(const struct job *j);
	int (*run)(const struct job *j);
} disks[] = {{virtio_start, virtio_run}, {ide_start, dma_run}, {ide_start, pio_run}};

static void guest(const struct boot_info *info)
{
	uint32_t disk = number_after(info->cmdline, "disk=");
	struct job j = {
		number_after(info->cmdline, "write="), number_after(info->cmdline, "bytes="),
		number_after(info->cmdline, "depth="), number_after(info->cmdline, "requests="),
		number_after(info->cmdline, "mib="),
	};

	choose_places(&j);
	if (disk < sizeof(disks) / sizeof(*disks) && disks[disk].start(&j)) {
		say("start\n");
		say(disks[disk].run(&j) ? "end\n" : "failed\n");
	} else {
		say("failed\n");
	}
	for (;;)
		__asm__ volatile("hlt");
}
