/* The Bochs display extension: index and data at 1CE/1CF, and its mirror in BAR 2.
 *
 * Bochs VBE DISPI interface, ID B0C5 (large modes by linear framebuffer, 8-bit
 * DAC, capabilities, video memory size).  Thread: any vCPU with the device's lock. */
#include "devices/vga/vga_int.h"

#include <errno.h>

#define MAX_X	4096
#define MAX_Y	4096
#define MAX_BPP 32

static bool is_depth(u16 bpp)
{
	return bpp == 4 || bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

static u32 banks(const struct vga *v)
{
	return v->vram_bytes / (64 * KiB);
}

static u32 line_bytes(const struct vga *v)
{
	u32 width = v->dispi[DISPI_VIRT_WIDTH], bpp = v->dispi[DISPI_BPP];

	return bpp == 4 ? width / 2 : width * DIV_ROUND_UP(bpp, 8);
}

u16 vga_dispi_read(const struct vga *v, unsigned index)
{
	if (index >= DISPI_REGS)
		return 0;
	if (v->dispi[DISPI_ENABLE] & DISPI_GET_CAPS) {
		switch (index) {
		case DISPI_XRES: return MAX_X;
		case DISPI_YRES: return MAX_Y;
		case DISPI_BPP: return MAX_BPP;
		}
	}
	if (index == DISPI_VIDEO_MEMORY)
		return (u16)banks(v);
	return v->dispi[index];
}

/* Width given, as many lines as memory holds; no width below the screen's. */
static void set_virtual(struct vga *v, u16 width)
{
	u32 bytes, lines;

	v->dispi[DISPI_VIRT_WIDTH] = MAX(width, v->dispi[DISPI_XRES]);
	bytes = line_bytes(v);
	lines = bytes ? v->vram_bytes / bytes : 0;
	v->dispi[DISPI_VIRT_HEIGHT] = (u16)MIN(lines, 0xffffu);
	if (lines < v->dispi[DISPI_YRES]) { /* too wide for the lines shown */
		v->dispi[DISPI_VIRT_WIDTH] = v->dispi[DISPI_XRES];
		bytes = line_bytes(v);
		lines = bytes ? v->vram_bytes / bytes : 0;
		v->dispi[DISPI_VIRT_HEIGHT] = (u16)MIN(lines, 0xffffu);
	}
}

static bool mode_fits(const struct vga *v)
{
	u32 bpp = v->dispi[DISPI_BPP];

	return v->dispi[DISPI_XRES] && v->dispi[DISPI_YRES] &&
	       (u64)v->dispi[DISPI_XRES] * v->dispi[DISPI_YRES] * DIV_ROUND_UP(bpp, 8) <=
		       v->vram_bytes;
}

static void write_enable(struct vga *v, u16 value)
{
	bool was = vga_is_linear(v);

	if (value & DISPI_ON && !was) {
		u32 bytes;

		if (!mode_fits(v))
			value &= (u16)~DISPI_ON;
		set_virtual(v, v->dispi[DISPI_XRES]);
		v->dispi[DISPI_X_OFFSET] = v->dispi[DISPI_Y_OFFSET] = 0;
		bytes = line_bytes(v) * v->dispi[DISPI_YRES];
		if (value & DISPI_ON && !(value & DISPI_NO_CLEAR)) {
			memset(v->vram, 0, MIN(bytes, v->vram_bytes));
			vga_mark_dirty(v, 0, MIN(bytes, v->vram_bytes));
		}
	}
	v->dispi[DISPI_ENABLE] =
		value & (DISPI_ON | DISPI_GET_CAPS | DISPI_8BIT_DAC | DISPI_LFB | DISPI_NO_CLEAR);
	if (!(value & DISPI_ON))
		v->dispi[DISPI_BANK] = 0;
}

/* Resolution and depth hold while the extension is on. */
void vga_dispi_write(struct vga *v, unsigned index, u16 value)
{
	bool on = vga_is_linear(v);

	switch (index) {
	case DISPI_ID:
		if (value >= 0xb0c0 && value <= DISPI_ID_LATEST)
			v->dispi[DISPI_ID] = value;
		break;
	case DISPI_XRES:
		value &= (u16)~7u;
		if (!on && value && value <= MAX_X)
			v->dispi[index] = value;
		break;
	case DISPI_YRES:
		if (!on && value && value <= MAX_Y)
			v->dispi[index] = value;
		break;
	case DISPI_BPP:
		if (!on && (value == 0 || is_depth(value)))
			v->dispi[index] = value ? value : 8;
		break;
	case DISPI_ENABLE: write_enable(v, value); break;
	case DISPI_BANK: v->dispi[index] = value & (banks(v) - 1); break;
	case DISPI_VIRT_WIDTH:
		if (on)
			set_virtual(v, value);
		break;
	case DISPI_X_OFFSET:
	case DISPI_Y_OFFSET: v->dispi[index] = value; break;
	default: break;
	}
}

/* Ports 1CE (index), 1CF and 1D0 (data), 16 bits wide; bytes are not a thing here. */
static u64 ports_read(void *owner, u64 off, unsigned size)
{
	struct vga *v = vga_of(owner);
	u16 value = off == 0 ? v->dispi_index : vga_dispi_read(v, v->dispi_index);

	return size == 2 ? value : value & 0xff;
}

static void ports_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct vga *v = vga_of(owner);

	if (size != 2)
		return;
	if (off == 0)
		v->dispi_index = (u16)value;
	else
		vga_dispi_write(v, v->dispi_index, (u16)value);
}

const struct bus_ops vga_dispi_ops = {ports_read, ports_write, 1, 2};

void vga_dispi_reset(struct vga *v)
{
	v->dispi_index = 0;
	memset(v->dispi, 0, sizeof(v->dispi));
	v->dispi[DISPI_ID] = DISPI_ID_LATEST;
	v->dispi[DISPI_BPP] = 8;
}

/* Of a loaded copy, which knows no size of memory: what reaches beyond is not shown. */
int vga_dispi_check(const struct vga *v, struct error *err)
{
	const u16 *d = v->dispi;

	if (d[DISPI_XRES] > MAX_X || d[DISPI_YRES] > MAX_Y || !is_depth(d[DISPI_BPP]))
		return err_set(err, -EINVAL, "vga: mode is %ux%ux%u, expected up to %ux%u",
			       d[DISPI_XRES], d[DISPI_YRES], d[DISPI_BPP], MAX_X, MAX_Y);
	if (d[DISPI_ENABLE] & DISPI_ON && (!d[DISPI_XRES] || !d[DISPI_YRES]))
		return err_set(err, -EINVAL, "vga: the extension is on without a size");
	return 0;
}
