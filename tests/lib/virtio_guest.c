/* A driver of one virtio-blk device on a fake machine; see virtio_guest.h. */
#define _GNU_SOURCE
#include "tests/lib/virtio_guest.h"

#include "devices/i440fx.h"
#include "devices/pci.h"
#include "devices/virtio/blk.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define SLOT_STRIDE 64 /* of a request's header and status */
#define SLOTS	    16
#define WAIT_NS	    (5 * NS_PER_SEC)

static void make_disk(struct virtio_guest *g, u64 bytes)
{
	struct blk_options opt = {.id = "virtio0", .file = g->path, .format = "raw"};
	struct error err;
	int fd;

	snprintf(g->path, sizeof(g->path), "/tmp/virtio_guest_XXXXXX");
	fd = mkstemp(g->path);
	assert(fd >= 0);
	if (ftruncate(fd, (off_t)bytes) < 0)
		abort();
	close(fd);
	opt.discard_unmap = true;
	if (blk_open(&g->blk, &opt, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
}

static void place_bars(struct virtio_guest *g)
{
	static const u32 routing[4] = {GUEST_GSI, GUEST_GSI, GUEST_GSI, GUEST_GSI};

	pci_bus_set_routing(pci_bus_of(g->bridge), routing);
	pci_write(&g->fm, g->devfn, 0x10, 4, GUEST_IO);
	pci_write(&g->fm, g->devfn, 0x14, 4, GUEST_MSIX);
	pci_write(&g->fm, g->devfn, 0x20, 4, GUEST_MEM);
	pci_write(&g->fm, g->devfn, 0x24, 4, 0);
	pci_write(&g->fm, g->devfn, 0x04, 2, 7);
}

void guest_init(struct virtio_guest *g, u64 disk_bytes, ...)
{
	struct prop_value values[8] = {{.name = "drive"}};
	char copies[8][64];
	struct device_args args = {.values = values, .n_values = 1};
	struct error err;
	const char *text;
	va_list ap;

	memset(g, 0, sizeof(*g));
	fake_machine_init(&g->fm, GUEST_RAM);
	make_disk(g, disk_bytes);
	values[0].ptr = g->blk;
	va_start(ap, disk_bytes);
	while ((text = va_arg(ap, const char *))) {
		char *copy = copies[args.n_values];

		snprintf(copy, sizeof(copies[0]), "%s", text);
		*strchr(copy, '=') = 0;
		values[args.n_values++] =
			(struct prop_value){.name = copy, .text = copy + strlen(copy) + 1};
	}
	va_end(ap);
	g->bridge = fake_device(&g->fm, &i440fx_class, NULL, NULL);
	args.parent = g->bridge;
	if (device_new(&g->dev, &g->fm.m, &virtio_blk_class, &args, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	g->devfn = ((struct pci_dev *)g->dev)->devfn;
	place_bars(g);
}

void guest_fini(struct virtio_guest *g)
{
	fake_machine_fini(&g->fm);
	blk_close(g->blk);
	unlink(g->path);
}

/* --- registers ------------------------------------------------------------------- */

static u64 common(struct virtio_guest *g, u32 off, unsigned size)
{
	return mmio_read(&g->fm, GUEST_MEM + MEM_COMMON + off, size);
}

static void set_common(struct virtio_guest *g, u32 off, unsigned size, u64 value)
{
	mmio_write(&g->fm, GUEST_MEM + MEM_COMMON + off, size, value);
}

u8 guest_status(struct virtio_guest *g)
{
	return g->legacy ? inb(&g->fm, GUEST_IO + IO_STATUS) : (u8)common(g, 20, 1);
}

void guest_set_status(struct virtio_guest *g, u8 status)
{
	if (g->legacy)
		outb(&g->fm, GUEST_IO + IO_STATUS, status);
	else
		set_common(g, 20, 1, status);
}

u8 guest_take_isr(struct virtio_guest *g)
{
	return g->legacy ? inb(&g->fm, GUEST_IO + IO_ISR)
			 : (u8)mmio_read(&g->fm, GUEST_MEM + MEM_ISR, 1);
}

u32 guest_config(struct virtio_guest *g, u32 off, unsigned size)
{
	u64 value;

	if (!g->legacy)
		return (u32)mmio_read(&g->fm, GUEST_MEM + MEM_CONFIG + off, size);
	bus_read(g->fm.m.pio, GUEST_IO + IO_CONFIG + off, size, &value);
	return (u32)value;
}

void guest_kick(struct virtio_guest *g)
{
	if (g->legacy)
		outw(&g->fm, GUEST_IO + 16, 0);
	else
		mmio_write(&g->fm, GUEST_MEM + MEM_NOTIFY, 2, 0);
}

/* --- going -------------------------------------------------------------------------- */

static void enable_msix(struct virtio_guest *g, bool on)
{
	u8 cap = (u8)pci_read(&g->fm, g->devfn, 0x34, 1);

	while ((u8)pci_read(&g->fm, g->devfn, cap, 1) != 0x11)
		cap = (u8)pci_read(&g->fm, g->devfn, (u8)(cap + 1), 1);
	for (u32 v = 0; v < 2; v++) {
		mmio_write(&g->fm, GUEST_MSIX + 16 * v, 4, 0xfee00000);
		mmio_write(&g->fm, GUEST_MSIX + 16 * v + 8, 4, 0x40 + v);
		mmio_write(&g->fm, GUEST_MSIX + 16 * v + 12, 4, 0);
	}
	pci_write(&g->fm, g->devfn, (u8)(cap + 2), 2, on ? 0x8000 : 0);
}

static void start_legacy(struct virtio_guest *g, const struct guest_mode *mode)
{
	g->features = inl(&g->fm, GUEST_IO) & (u32)mode->features;
	outl(&g->fm, GUEST_IO + 4, (u32)g->features);
	outw(&g->fm, GUEST_IO + 14, 0);
	vring_init(&g->ring, g->fm.m.mem, GUEST_RING, inw(&g->fm, GUEST_IO + 12));
	outl(&g->fm, GUEST_IO + 8, GUEST_RING / 4096);
	if (mode->msix) {
		outw(&g->fm, GUEST_IO + 20, 0);
		outw(&g->fm, GUEST_IO + 22, 1);
	}
	guest_set_status(g, 7);
}

static void start_modern(struct virtio_guest *g, const struct guest_mode *mode)
{
	u64 offered;
	u16 size;

	set_common(g, 0, 4, 0);
	offered = common(g, 4, 4);
	set_common(g, 0, 4, 1);
	offered |= common(g, 4, 4) << 32;
	g->features = offered & (mode->features | (u64)1 << 32);
	set_common(g, 8, 4, 0);
	set_common(g, 12, 4, (u32)g->features);
	set_common(g, 8, 4, 1);
	set_common(g, 12, 4, g->features >> 32);
	guest_set_status(g, 0xb);
	set_common(g, 22, 2, 0);
	size = mode->queue_size ? mode->queue_size : (u16)common(g, 24, 2);
	set_common(g, 24, 2, size);
	vring_init(&g->ring, g->fm.m.mem, GUEST_RING, size);
	set_common(g, 32, 4, g->ring.desc);
	set_common(g, 40, 4, g->ring.avail);
	set_common(g, 48, 4, g->ring.used);
	if (mode->msix) {
		set_common(g, 16, 2, 0);
		set_common(g, 26, 2, 1);
	}
	set_common(g, 28, 2, 1);
	guest_set_status(g, 0xf);
}

void guest_start(struct virtio_guest *g, const struct guest_mode *mode)
{
	g->legacy = mode->legacy;
	g->indirect = mode->indirect;
	g->next_slot = 0;
	guest_set_status(g, 0);
	enable_msix(g, mode->msix);
	guest_set_status(g, 1);
	guest_set_status(g, 3);
	if (mode->legacy)
		start_legacy(g, mode);
	else
		start_modern(g, mode);
}

/* --- requests ------------------------------------------------------------------------ */

u64 guest_data(u16 slot)
{
	return GUEST_DATA + (u64)slot * 64 * KiB;
}

u16 guest_submit(struct virtio_guest *g, u32 type, u64 sector, u32 bytes, bool in)
{
	u16 slot = g->next_slot++ % SLOTS;
	u64 req = GUEST_REQ + (u64)slot * SLOT_STRIDE;
	struct vring_buf bufs[3] = {{req, 16, 0}};
	unsigned n = 1;
	u8 *header = vring_host(&g->ring, req, SLOT_STRIDE);

	store_le32(header, type);
	store_le32(header + 4, 0);
	store_le64(header + 8, sector);
	header[16] = 0xee;
	if (bytes)
		bufs[n++] = (struct vring_buf){guest_data(slot), bytes, in ? VRING_WRITE : 0};
	bufs[n++] = (struct vring_buf){req + 16, 1, VRING_WRITE};
	if (g->indirect)
		vring_add_indirect(&g->ring, slot, GUEST_TABLE + 64u * slot, bufs, n);
	else
		vring_add(&g->ring, (u16)(slot * 3), bufs, n);
	return slot;
}

int guest_wait(struct virtio_guest *g)
{
	u64 deadline = now_ns() + WAIT_NS;
	u32 head, written;

	while (now_ns() < deadline) {
		if (vring_used(&g->ring, &head, &written))
			return (int)(g->indirect ? head : head / 3);
		poll(NULL, 0, 1);
	}
	return -1;
}

u8 guest_result(struct virtio_guest *g, u16 slot)
{
	return *vring_host(&g->ring, GUEST_REQ + (u64)slot * SLOT_STRIDE + 16, 1);
}

u8 guest_request(struct virtio_guest *g, u32 type, u64 sector, u32 bytes, bool in)
{
	u16 slot = guest_submit(g, type, sector, bytes, in);
	int used;

	guest_kick(g);
	used = guest_wait(g);
	return used == slot ? guest_result(g, slot) : 0xff;
}

static void nothing(void *arg)
{
}

void guest_settle(struct virtio_guest *g)
{
	/* Twice: what is idle work of this turn has been done when the next one starts. */
	loop_call_wait(blk_loop(g->blk), nothing, NULL);
	loop_call_wait(blk_loop(g->blk), nothing, NULL);
}

unsigned guest_msis(struct virtio_guest *g, u32 data)
{
	unsigned n = 0;

	guest_settle(g);
	for (unsigned i = 0; i < MIN(g->fm.n_msis, FAKE_MSIS + 0u); i++)
		n += g->fm.msis[i].data == data;
	return n;
}
