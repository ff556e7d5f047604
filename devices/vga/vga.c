/* VGA with the Bochs extension, PCI 1234:1111: the function, its BARs, its state.
 *
 * BAR 0: video memory, linear (property vgamem_mb).  BAR 2: 4 KiB of registers: 400-41F the
 * ports 3C0-3DF, 500-515 the display extension, 600 its own size and byte order
 * (QEMU's docs/specs/standard-vga).  Legacy ports and the window at A0000 answer
 * always.  The expansion ROM is the property romfile.  Video memory is a memory
 * region and saved as such.
 * Thread: handlers on vCPUs with the device's lock. */
#include "devices/vga/vga_int.h"

#include <errno.h>

#define WINDOW_GPA   0xa0000
#define WINDOW_BYTES 0x20000
#define REGS_BYTES   0x1000
#define REGS_PORTS   0x400
#define REGS_DISPI   0x500
#define REGS_EXT     0x600
#define LITTLE	     0x1e1e1e1e
#define MAX_MIB	     256

struct vga *vga_of(struct device *dev)
{
	assert(dev->cls == &vga_class);
	return container_of(dev, struct vga, pci.dev);
}

/* --- BAR 2 ------------------------------------------------------------------------ */

static u8 regs_read_byte(struct vga *v, unsigned off)
{
	unsigned reg = (off - REGS_DISPI) / 2;

	if (off >= REGS_PORTS && off < REGS_PORTS + 0x20)
		return vga_port_read(v, off - REGS_PORTS + 0x3c0);
	if (off >= REGS_DISPI && reg < DISPI_REGS)
		return (u8)(vga_dispi_read(v, reg) >> 8 * (off & 1));
	if (off >= REGS_EXT && off < REGS_EXT + 4)
		return off == REGS_EXT ? 8 : 0;
	if (off >= REGS_EXT + 4 && off < REGS_EXT + 8)
		return LITTLE & 0xff;
	return 0;
}

static u64 regs_read(void *owner, u64 off, unsigned size)
{
	struct vga *v = vga_of(owner);
	u64 value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (u64)regs_read_byte(v, (unsigned)off + i) << 8 * i;
	return value;
}

static void regs_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct vga *v = vga_of(owner);
	u64 reg = (off - REGS_DISPI) / 2;

	if (off >= REGS_DISPI && reg < DISPI_REGS) {
		if (size == 2 && !(off & 1))
			vga_dispi_write(v, (unsigned)reg, (u16)value);
		return;
	}
	for (unsigned i = 0; i < size; i++) {
		if (off + i >= REGS_PORTS && off + i < REGS_PORTS + 0x20)
			vga_port_write(v, (unsigned)(off + i - REGS_PORTS + 0x3c0),
				       (u8)(value >> 8 * i));
	}
}

static const struct bus_ops regs_ops = {regs_read, regs_write, 1, 2};

/* --- life --------------------------------------------------------------------------- */

static void unmap(struct vga *v)
{
	bus_unmap(v->ports);
	bus_unmap(v->dispi_ports);
	bus_unmap(v->window);
}

static int map(struct vga *v, struct error *err)
{
	struct device *dev = &v->pci.dev;
	int ret = dev_map_pio(dev, &v->ports, 0x3b0, 0x30, &vga_port_ops, err);

	if (ret == 0)
		ret = dev_map_pio(dev, &v->dispi_ports, 0x1ce, 3, &vga_dispi_ops, err);
	if (ret == 0)
		ret = dev_map_mmio(dev, &v->window, WINDOW_GPA, WINDOW_BYTES, &vga_window_ops, err);
	if (ret < 0)
		unmap(v);
	return ret;
}

static int set_vram_bytes(struct vga *v, struct error *err)
{
	u32 mib = v->prop_vgamem_mb;

	if (!is_pow2(mib) || mib > MAX_MIB)
		return err_set(err, -EINVAL, "%s: vgamem_mb is %u, expected a power of two, 1..%u",
			       v->pci.dev.id, mib, MAX_MIB);
	v->vram_bytes = mib * (u32)MiB;
	return 0;
}

static int vga_init(struct device *dev, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x1234,
		.device = 0x1111,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0x030000,
		.revision = 2,
	};
	struct mem_place place = {"vram", MEM_UNMAPPED, 0, MEM_VRAM};
	struct vga *v = vga_of(dev);
	int ret = set_vram_bytes(v, err);

	if (ret == 0)
		ret = vga_screen_init(v, err);
	if (ret < 0)
		return ret;
	ret = pci_dev_init(&v->pci, &ids, err);
	if (ret < 0) {
		vga_screen_fini(v);
		return ret;
	}
	place.bytes = v->vram_bytes;
	ret = mem_add(dev->machine->mem, &v->vram_region, &place, err);
	if (ret == 0)
		ret = map(v, err);
	if (ret < 0) {
		pci_dev_fini(&v->pci);
		vga_screen_fini(v);
		return ret;
	}
	v->vram = mem_region_host(v->vram_region);
	pci_add_bar(&v->pci, 0, PCI_BAR_MEM32, v->vram_bytes, NULL, v->vram_region);
	pci_add_bar(&v->pci, 2, PCI_BAR_MEM32, REGS_BYTES, &regs_ops, NULL);
	return 0;
}

static void vga_fini(struct device *dev)
{
	struct vga *v = vga_of(dev);

	unmap(v);
	pci_dev_fini(&v->pci);
	vga_screen_fini(v);
}

/* Video memory keeps its contents, as it does in a warm machine. */
static void vga_reset(struct device *dev)
{
	struct vga *v = vga_of(dev);

	pci_dev_reset(&v->pci);
	vga_regs_reset(v);
	vga_dispi_reset(v);
}

/* --- state ------------------------------------------------------------------------ */

static const struct state_field vga_state[] = {
	STATE_STRUCT(struct vga, pci, pci_dev_state),
	STATE(struct vga, misc),
	STATE(struct vga, feature),
	STATE(struct vga, seq_index),
	STATE_ARRAY(struct vga, seq),
	STATE(struct vga, gr_index),
	STATE_ARRAY(struct vga, gr),
	STATE(struct vga, crtc_index),
	STATE_ARRAY(struct vga, crtc),
	STATE(struct vga, attr_index),
	STATE_ARRAY(struct vga, attr),
	STATE(struct vga, attr_data),
	STATE(struct vga, dac_mask),
	STATE(struct vga, dac_state),
	STATE(struct vga, dac_index),
	STATE(struct vga, dac_component),
	STATE_ARRAY(struct vga, dac_latch),
	STATE_ARRAY(struct vga, palette),
	STATE(struct vga, latch),
	STATE(struct vga, dispi_index),
	STATE_ARRAY(struct vga, dispi),
	STATE_END,
};

static int vga_check(const void *loaded, struct error *err)
{
	const struct vga *v = loaded;

	if (v->dac_component > 2)
		return err_set(err, -EINVAL, "vga: dac_component is %u, expected 0..2",
			       v->dac_component);
	if (v->gr[GR_READ_MAP] > 3)
		return err_set(err, -EINVAL, "vga: read map is %u, expected 0..3",
			       v->gr[GR_READ_MAP]);
	return vga_dispi_check(v, err);
}

static void vga_post_load(struct device *dev)
{
	struct vga *v = vga_of(dev);

	pci_dev_post_load(&v->pci);
	v->redraw = true; /* memory came in with the snapshot, behind the log's back */
}

static const struct prop vga_props[] = {
	PROP(struct vga, prop_vgamem_mb, "vgamem_mb", PROP_KIND_U32, "16",
	     "MiB of video memory, a power of two up to 256"),
	PROP_END,
};

const struct device_class vga_class = {
	.name = "VGA",
	.help = "VGA with Bochs VBE extension",
	.size = sizeof(struct vga),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = vga_props,
	.init = vga_init,
	.reset = vga_reset,
	.fini = vga_fini,
	.state = vga_state,
	.state_check = vga_check,
	.post_load = vga_post_load,
};
