/* From registers to a view: see vga_view.h.
 *
 * IBM VGA XGA Technical Reference, chapter 2: CRT controller (display ends, start
 * address, offset, line compare, preset row scan), sequencer (clocking mode, character
 * map select), attribute controller (mode, palette, plane enable, panning, colour
 * select), DAC.  A picture has as many pixels as the monitor would get dots and lines,
 * so a 320x200 mode is 640x400.  Borders are not shown.
 * Thread: any with the device's lock. */
#include "devices/vga/vga_view.h"

#define FRAME_NS 14285714ull /* 70 Hz */

enum {
	SEQ_CLOCK_8_DOTS = 0x01,
	SEQ_CLOCK_HALF = 0x08,
	SEQ_CLOCK_OFF = 0x20,
	ATTR_MODE = 0x10,
	ATTR_PLANES = 0x12,
	ATTR_PAN = 0x13,
	ATTR_COLOUR_SELECT = 0x14,
	ATTR_MODE_MONO = 0x02,
	ATTR_MODE_LINE_GRAPHICS = 0x04,
	ATTR_MODE_BLINK = 0x08,
	ATTR_MODE_SPLIT_STAYS = 0x20,
	ATTR_MODE_P54 = 0x80,
	ATTR_SCREEN_ON = 0x20, /* of the index */
	GR_MODE_CGA = 0x20,
	GR_MODE_256 = 0x40,
	GR_MISC_GRAPHICS = 0x01,
	CRTC_PRESET_ROW = 0x08,
	CRTC_CURSOR_START = 0x0a,
	CRTC_CURSOR_END = 0x0b,
	CRTC_CURSOR_HIGH = 0x0e,
	CRTC_CURSOR_LOW = 0x0f,
	CRTC_UNDERLINE = 0x14,
	CRTC_MODE = 0x17,
	CRTC_LINE_COMPARE = 0x18,
	CRTC_CURSOR_OFF = 0x20,
	CRTC_DWORDS = 0x40, /* of the underline register */
};

/* --- colours -------------------------------------------------------------------- */

static u32 dac_colour(const struct vga *v, u8 index)
{
	const u8 *c = v->palette + 3 * (index & v->dac_mask);
	u32 pixel = 0;

	for (unsigned i = 0; i < 3; i++) {
		u32 level = c[i];

		if (!(v->dispi[DISPI_ENABLE] & DISPI_8BIT_DAC))
			level = (level & 0x3f) << 2 | (level & 0x3f) >> 4;
		pixel = pixel << 8 | level;
	}
	return pixel;
}

static void get_colours(const struct vga *v, struct vga_view *view)
{
	u8 mode = v->attr[ATTR_MODE], select = v->attr[ATTR_COLOUR_SELECT];

	if (view->kind == VGA_256 || view->kind == VGA_LINEAR) {
		for (unsigned i = 0; i < 256 && view->bpp <= 8; i++)
			view->colours[i] = dac_colour(v, (u8)i);
		return;
	}
	for (unsigned i = 0; i < 16; i++) {
		u8 index = v->attr[i & v->attr[ATTR_PLANES]] & 0x3f;

		if (mode & ATTR_MODE_P54)
			index = (u8)((index & 0x0f) | (select & 3) << 4);
		view->colours[i] = dac_colour(v, (u8)(index | (select & 0x0c) << 4));
	}
}

/* --- the extension --------------------------------------------------------------- */

static void get_linear(const struct vga *v, struct vga_view *view)
{
	u32 x = v->dispi[DISPI_X_OFFSET], y = v->dispi[DISPI_Y_OFFSET];
	u32 bpp = v->dispi[DISPI_BPP], width = v->dispi[DISPI_VIRT_WIDTH];

	view->width = v->dispi[DISPI_XRES];
	view->height = v->dispi[DISPI_YRES];
	view->bpp = bpp;
	view->kind = VGA_LINEAR;
	view->line_bytes = width * DIV_ROUND_UP(bpp, 8);
	view->offset = (u64)y * view->line_bytes + (u64)x * DIV_ROUND_UP(bpp, 8);
}

/* Four planes in a size of the extension's: no CRTC tells how to go through them. */
static void get_linear_planes(const struct vga *v, struct vga_view *view)
{
	view->kind = VGA_PLANAR;
	view->width = v->dispi[DISPI_XRES];
	view->height = v->dispi[DISPI_YRES];
	view->columns = DIV_ROUND_UP(view->width, 8);
	view->dots = 8;
	view->scale = 1;
	view->pitch = v->dispi[DISPI_VIRT_WIDTH] / 8;
	view->start = v->dispi[DISPI_Y_OFFSET] * view->pitch + v->dispi[DISPI_X_OFFSET] / 8;
	view->pan = v->dispi[DISPI_X_OFFSET] % 8;
	view->plane_bytes = v->vram_bytes / 4;
	view->address_mode = 0x43; /* bytes, no row bits */
	view->line_compare = UINT32_MAX;
}

/* --- VGA modes ------------------------------------------------------------------- */

static enum vga_kind kind_of(const struct vga *v)
{
	if (!(v->attr_index & ATTR_SCREEN_ON) || v->seq[SEQ_CLOCK] & SEQ_CLOCK_OFF)
		return VGA_BLANK;
	if (!(v->gr[GR_MISC] & GR_MISC_GRAPHICS))
		return VGA_TEXT;
	if (v->gr[GR_MODE] & GR_MODE_256)
		return VGA_256;
	return v->gr[GR_MODE] & GR_MODE_CGA ? VGA_CGA : VGA_PLANAR;
}

static u32 ten_bits(u8 low, u8 bit_8, u8 bit_9)
{
	return low | (bit_8 ? 0x100u : 0) | (bit_9 ? 0x200u : 0);
}

static void get_size(const struct vga *v, struct vga_view *view)
{
	u8 overflow = v->crtc[CRTC_OVERFLOW], max_scan = v->crtc[CRTC_MAX_SCAN];
	bool text = !(v->gr[GR_MISC] & GR_MISC_GRAPHICS);

	view->columns = v->crtc[CRTC_H_DISPLAY_END] + 1u;
	view->dots = text && !(v->seq[SEQ_CLOCK] & SEQ_CLOCK_8_DOTS) ? 9 : 8;
	view->scale = v->seq[SEQ_CLOCK] & SEQ_CLOCK_HALF ? 2 : 1;
	view->width = view->columns * view->dots * view->scale;
	view->height = 1 + ten_bits(v->crtc[CRTC_V_DISPLAY_END], overflow & 0x02, overflow & 0x40);
	view->line_compare = ten_bits(v->crtc[CRTC_LINE_COMPARE], overflow & 0x10, max_scan & 0x40);
	view->row_max = max_scan & 0x1f;
	view->double_scan = max_scan & 0x80;
}

static void get_addresses(const struct vga *v, struct vga_view *view)
{
	u8 pan = v->attr[ATTR_PAN] & 0x0f;

	view->start = (u32)v->crtc[CRTC_START_HIGH] << 8 | v->crtc[CRTC_START_LOW];
	view->byte_pan = v->crtc[CRTC_PRESET_ROW] >> 5 & 3;
	view->row_preset = v->crtc[CRTC_PRESET_ROW] & 0x1f;
	view->pitch = v->crtc[CRTC_OFFSET] * 2u;
	view->plane_bytes = VGA_PLANE_BYTES;
	view->address_mode = v->crtc[CRTC_MODE];
	view->dwords = v->crtc[CRTC_UNDERLINE] & CRTC_DWORDS;
	view->split_stays = v->attr[ATTR_MODE] & ATTR_MODE_SPLIT_STAYS;
	/* Of nine dots, 8 means none, and n one more than n. */
	view->pan = view->dots == 9 ? (u8)(pan >= 8 ? 0 : pan + 1) : pan & 7;
}

/* Places of the eight fonts in plane 2, in units of 8 KiB. */
static u32 font_offset(unsigned select)
{
	static const u8 places[8] = {0, 2, 4, 6, 1, 3, 5, 7};

	return places[select & 7] * 0x2000u;
}

static void get_text(const struct vga *v, u64 ns, struct vga_view *view)
{
	u8 map = v->seq[SEQ_CHAR_MAP], start = v->crtc[CRTC_CURSOR_START];
	u8 end = v->crtc[CRTC_CURSOR_END], mode = v->attr[ATTR_MODE];
	u64 frame = ns / FRAME_NS;

	view->font[0] = font_offset((map & 3) | (map & 0x10) >> 2);
	view->font[1] = font_offset((map >> 2 & 3) | (map & 0x20) >> 3);
	view->line_graphics = mode & ATTR_MODE_LINE_GRAPHICS;
	view->mono = mode & ATTR_MODE_MONO;
	view->underline = v->crtc[CRTC_UNDERLINE] & 0x1f;
	view->blinks = mode & ATTR_MODE_BLINK;
	view->blinked_off = view->blinks && frame / 32 % 2;
	view->cursor_first = start & 0x1f;
	view->cursor_last = end & 0x1f;
	view->cursor = (u32)v->crtc[CRTC_CURSOR_HIGH] << 8 | v->crtc[CRTC_CURSOR_LOW];
	view->cursor = (view->cursor + (end >> 5 & 3)) & 0xffff;
	if (start & CRTC_CURSOR_OFF || frame / 16 % 2 || view->cursor_first > view->cursor_last)
		view->cursor = UINT32_MAX;
}

void vga_view_get(const struct vga *v, u64 ns, struct vga_view *view)
{
	memset(view, 0, sizeof(*view)); /* padding too: views are compared as bytes */
	if (v->dispi[DISPI_ENABLE] & DISPI_ON) {
		if (v->dispi[DISPI_BPP] == 4)
			get_linear_planes(v, view);
		else
			get_linear(v, view);
		get_colours(v, view);
		return;
	}
	view->kind = kind_of(v);
	get_size(v, view);
	if (view->kind == VGA_BLANK && v->crtc[CRTC_H_DISPLAY_END] == 0)
		view->width = view->height = 0; /* after a reset */
	get_addresses(v, view);
	if (view->kind == VGA_TEXT)
		get_text(v, ns, view);
	get_colours(v, view);
}
