/* The VGA's parts among themselves.  Everything is called with the lock held. */
#ifndef DEVICES_VGA_VGA_INT_H
#define DEVICES_VGA_VGA_INT_H

#include "devices/pci.h"
#include "devices/vga/vga.h"
#include "vmm/core/bus.h"
#include "vmm/core/mem.h"

#define VGA_PLANE_BYTES 0x10000u /* four of them, interleaved byte by byte, from 0 */

struct vga_screen;

enum seq_reg { SEQ_RESET, SEQ_CLOCK, SEQ_MAP_MASK, SEQ_CHAR_MAP, SEQ_MEMORY_MODE, SEQ_REGS };
enum seq_bits {
	SEQ_NO_ODD_EVEN = 0x04, /* of the memory mode register */
	SEQ_CHAIN_4 = 0x08,
};
enum gr_reg {
	GR_SET_RESET,
	GR_ENABLE_SET_RESET,
	GR_COLOR_COMPARE,
	GR_ROTATE,
	GR_READ_MAP,
	GR_MODE,
	GR_MISC,
	GR_COLOR_CARE,
	GR_BIT_MASK,
	GR_REGS
};
enum crtc_reg {
	CRTC_H_DISPLAY_END = 0x01,
	CRTC_OVERFLOW = 0x07,
	CRTC_MAX_SCAN = 0x09,
	CRTC_START_HIGH = 0x0c,
	CRTC_START_LOW = 0x0d,
	CRTC_V_SYNC_END = 0x11, /* bit 7 write-protects 0-7 */
	CRTC_V_DISPLAY_END = 0x12,
	CRTC_OFFSET = 0x13,
	CRTC_REGS = 0x19
};
#define ATTR_REGS 0x15

enum dispi_reg {
	DISPI_ID,
	DISPI_XRES,
	DISPI_YRES,
	DISPI_BPP,
	DISPI_ENABLE,
	DISPI_BANK,
	DISPI_VIRT_WIDTH,
	DISPI_VIRT_HEIGHT,
	DISPI_X_OFFSET,
	DISPI_Y_OFFSET,
	DISPI_VIDEO_MEMORY,
	DISPI_REGS
};
enum dispi_enable {
	DISPI_ON = 0x01,
	DISPI_GET_CAPS = 0x02,
	DISPI_8BIT_DAC = 0x20,
	DISPI_LFB = 0x40,
	DISPI_NO_CLEAR = 0x80,
};
#define DISPI_ID_LATEST 0xb0c5

/* What the DAC's data port does next. */
enum dac_state { DAC_WRITES = 0, DAC_READS = 3 };

struct vga {
	struct pci_dev pci;
	struct mem_region *vram_region; /* [const] */
	u8 *vram;			/* [const] */
	u32 vram_bytes;			/* [const] a power of two */
	u32 prop_vgamem_mb;		/* [const] property */
	struct vga_screen *screen;	/* [const] what is shown: vga_draw.c */
	bool redraw;			/* [dev.lock] memory changed unseen */
	struct bus_region *ports, *dispi_ports, *window;

	/* [dev.lock] saved */
	u8 misc, feature;
	u8 seq_index, seq[SEQ_REGS];
	u8 gr_index, gr[GR_REGS];
	u8 crtc_index, crtc[CRTC_REGS];
	u8 attr_index; /* bit 5: the screen is on */
	u8 attr[ATTR_REGS];
	bool attr_data; /* the next write to 3C0 is data */
	u8 dac_mask, dac_state, dac_index, dac_component, dac_latch[3];
	u8 palette[768];
	u32 latch; /* plane n in bits 8n */
	u16 dispi_index, dispi[DISPI_REGS];
};

/* The window shows linear memory; a mode of four bits has planes. */
static inline bool vga_is_linear(const struct vga *v)
{
	return v->dispi[DISPI_ENABLE] & DISPI_ON && v->dispi[DISPI_BPP] != 4;
}

/* vga_regs.c: ports 3B0-3DF. */
u8 vga_port_read(struct vga *v, unsigned port);
void vga_port_write(struct vga *v, unsigned port, u8 value);
void vga_regs_reset(struct vga *v);
extern const struct bus_ops vga_port_ops;

/* vga_dispi.c */
u16 vga_dispi_read(const struct vga *v, unsigned index);
void vga_dispi_write(struct vga *v, unsigned index, u16 value);
void vga_dispi_reset(struct vga *v);
int vga_dispi_check(const struct vga *loaded, struct error *err);
extern const struct bus_ops vga_dispi_ops;

/* vga_mem.c: the window at A0000-BFFFF. */
extern const struct bus_ops vga_window_ops;
void vga_mark_dirty(struct vga *v, u32 at, u32 bytes);

/* vga_draw.c */
int vga_screen_init(struct vga *v, struct error *err);
void vga_screen_fini(struct vga *v);

struct vga *vga_of(struct device *dev); /* asserts the class */

#endif
