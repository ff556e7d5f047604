/* What the registers make of video memory: everything that a picture depends on but
 * the memory itself, taken in one go, so that two views that are equal show the same
 * picture of the same memory. */
#ifndef DEVICES_VGA_VGA_VIEW_H
#define DEVICES_VGA_VGA_VIEW_H

#include "devices/vga/vga_int.h"

enum vga_kind {
	VGA_BLANK, /* nothing is shown; width and height may be 0: no mode is set */
	VGA_TEXT,
	VGA_PLANAR, /* a bit of each of four planes makes a pixel */
	VGA_CGA,    /* two bits of two planes do, half a byte after the other */
	VGA_256,    /* a byte does */
	VGA_LINEAR, /* the Bochs extension */
};

struct vga_view {
	enum vga_kind kind;
	u32 width, height;
	/* Linear memory. */
	u32 bpp, line_bytes;
	u64 offset; /* of the first byte shown */
	/* The rest is for the others.  Addresses are the CRTC's, before it makes offsets
	 * into planes of them. */
	u32 columns;	 /* character clocks of a line */
	u32 dots, scale; /* dots of a character clock, pixels of a dot */
	u32 start, byte_pan, pitch, line_compare, plane_bytes;
	u8 address_mode, underline, row_preset, row_max, pan;
	bool double_scan, dwords, split_stays; /* no panning below the split */
	/* Text. */
	u32 cursor; /* address, UINT32_MAX: not shown now */
	u8 cursor_first, cursor_last;
	u32 font[2]; /* offsets in plane 2: without, with the attribute's bit 3 */
	bool blinks, blinked_off, line_graphics, mono;
	u32 colours[256]; /* as pixels; the first 16 unless a byte is a pixel */
};

/* ns: guest time, for what blinks. */
void vga_view_get(const struct vga *v, u64 ns, struct vga_view *view);

/* Scan lines one after the other, from the top, for all kinds but VGA_LINEAR: each
 * call makes view->width pixels in scan->pixels. */
#define VGA_MAX_LINE (257 * 18)
struct vga_scan {
	const struct vga_view *view;
	const u8 *vram;
	u32 address, y;
	u8 row, pan;
	bool second;   /* of two equal lines */
	bool blinking; /* a character of those drawn so far does */
	u32 byte_pan;
	const u32 *pixels;
	u32 line[VGA_MAX_LINE];
};
void vga_scan_begin(struct vga_scan *scan, const struct vga_view *view, const u8 *vram);
void vga_scan_line(struct vga_scan *scan);
void vga_scan_skip(struct vga_scan *scan); /* the same without pixels */
/* Is the character at this address on the line that comes next? */
bool vga_scan_shows(const struct vga_scan *scan, u32 address);

/* A line of linear memory to pixels; what lies behind vram_bytes is black. */
void vga_linear_line(const struct vga_view *view, const u8 *vram, u64 vram_bytes, u32 y,
		     u32 *pixels);

#endif
