/* Scan lines from a view and video memory: see vga_view.h.
 *
 * IBM VGA XGA Technical Reference, chapter 2: the CRTC counts addresses and rows, and
 * makes offsets into the planes of them (byte, word, doubleword mode; row bits in
 * place of address bits 13 and 14); the shift registers make dots of bytes.
 * Thread: any; touches nothing but its arguments. */
#include "devices/vga/vga_view.h"

#define ADDRESS_ROW_0  0x01 /* clear: bit 13 is the row's bit 0 */
#define ADDRESS_ROW_1  0x02 /* clear: bit 14 is the row's bit 1 */
#define ADDRESS_WRAP   0x20 /* word mode: bit 0 is bit 15, not bit 13 */
#define ADDRESS_BYTES  0x40
#define MAX_GLYPH_ROWS 32

/* The plane's four bytes of a CRTC address. */
static const u8 *planes_of(const struct vga_scan *s, u32 address)
{
	const struct vga_view *v = s->view;
	u32 at = address;

	if (v->dwords)
		at = address << 2 | (address >> 14 & 3);
	else if (!(v->address_mode & ADDRESS_BYTES))
		at = address << 1 | (address >> (v->address_mode & ADDRESS_WRAP ? 15 : 13) & 1);
	if (!(v->address_mode & ADDRESS_ROW_0))
		at = (at & ~0x2000u) | (s->row & 1u) << 13;
	if (!(v->address_mode & ADDRESS_ROW_1))
		at = (at & ~0x4000u) | (s->row & 2u) << 13;
	return s->vram + 4 * (u64)(at % v->plane_bytes);
}

/* Bits as dots, the highest first, each `scale` pixels wide. */
static u32 *put_bits(u32 *to, u32 bits, const struct vga_view *v, u32 fore, u32 back)
{
	for (u32 mask = 1u << (v->dots - 1); mask; mask >>= 1)
		for (u32 n = v->scale; n; n--)
			*to++ = bits & mask ? fore : back;
	return to;
}

/* --- text ----------------------------------------------------------------------- */

static u32 *put_character(struct vga_scan *s, u32 *to, u32 address)
{
	const struct vga_view *v = s->view;
	const u8 *cell = planes_of(s, address);
	u8 attr = cell[1];
	u32 font = v->font[attr >> 3 & 1] + cell[0] * (u32)MAX_GLYPH_ROWS + s->row;
	u32 bits = s->vram[4 * (u64)(font % VGA_PLANE_BYTES) + 2];
	u8 back = attr >> 4 & (v->blinks ? 7 : 15);

	s->blinking |= v->blinks && attr & 0x80;
	if (v->blinked_off && attr & 0x80)
		bits = 0;
	if (v->mono && s->row == v->underline && (attr & 0x77) == 0x01)
		bits = 0xff;
	if (v->dots == 9) /* the ninth dot is blank, but for lines that meet */
		bits = bits << 1 | (v->line_graphics && cell[0] >> 5 == 6 ? bits & 1 : 0);
	if (address == v->cursor && s->row >= v->cursor_first && s->row <= v->cursor_last)
		bits = 0x1ff;
	return put_bits(to, bits, v, v->colours[attr & 15], v->colours[back]);
}

/* --- graphics ------------------------------------------------------------------- */

static u32 *put_pixel(u32 *to, u32 pixel, u32 n)
{
	while (n--)
		*to++ = pixel;
	return to;
}

static u32 *put_planar(const struct vga_view *v, u32 *to, const u8 *planes)
{
	for (int bit = 7; bit >= 0; bit--) {
		u32 colour = (planes[0] >> bit & 1u) | (planes[1] >> bit & 1u) << 1 |
			     (planes[2] >> bit & 1u) << 2 | (planes[3] >> bit & 1u) << 3;

		to = put_pixel(to, v->colours[colour], v->scale);
	}
	return to;
}

/* Planes 0 and 2 first, then 1 and 3: two bits of each a pixel. */
static u32 *put_cga(const struct vga_view *v, u32 *to, const u8 *planes)
{
	for (unsigned half = 0; half < 2; half++)
		for (int bit = 6; bit >= 0; bit -= 2) {
			u32 colour = (planes[half] >> bit & 3u) | (planes[half + 2] >> bit & 3u)
									  << 2;

			to = put_pixel(to, v->colours[colour], v->scale);
		}
	return to;
}

static u32 *put_256(const struct vga_view *v, u32 *to, const u8 *planes)
{
	for (unsigned i = 0; i < 4; i++)
		to = put_pixel(to, v->colours[planes[i]], 2 * v->scale);
	return to;
}

static u32 *put_clock(struct vga_scan *s, u32 *to, u32 address)
{
	const struct vga_view *v = s->view;

	switch (v->kind) {
	case VGA_TEXT: return put_character(s, to, address);
	case VGA_PLANAR: return put_planar(v, to, planes_of(s, address));
	case VGA_CGA: return put_cga(v, to, planes_of(s, address));
	case VGA_256: return put_256(v, to, planes_of(s, address));
	default: return put_bits(to, 0, v, 0, 0);
	}
}

/* --- the CRTC ------------------------------------------------------------------- */

void vga_scan_begin(struct vga_scan *s, const struct vga_view *view, const u8 *vram)
{
	assert(view->kind != VGA_LINEAR && view->width && view->height);
	assert((view->columns + 1) * view->dots * view->scale <= VGA_MAX_LINE);
	s->view = view;
	s->vram = vram;
	s->address = view->start;
	s->byte_pan = view->byte_pan;
	s->row = view->row_preset;
	s->pan = view->pan;
	s->y = 0;
	s->second = s->blinking = false;
}

static void next_line(struct vga_scan *s)
{
	const struct vga_view *v = s->view;

	if (s->y++ == v->line_compare) { /* the split: from address 0 on */
		s->address = 0;
		s->row = 0;
		s->second = false;
		if (v->split_stays)
			s->pan = 0, s->byte_pan = 0;
		return;
	}
	if (v->double_scan && !s->second) {
		s->second = true;
		return;
	}
	s->second = false;
	if (s->row == v->row_max) {
		s->row = 0;
		s->address += v->pitch;
	} else {
		s->row = (s->row + 1) & 0x1f;
	}
}

void vga_scan_line(struct vga_scan *s)
{
	const struct vga_view *v = s->view;
	u32 address = s->address + s->byte_pan;
	u32 *to = s->line;

	/* One more than is shown, for what panning moves in from the right. */
	for (u32 column = 0; column <= v->columns; column++)
		to = put_clock(s, to,
			       v->plane_bytes == VGA_PLANE_BYTES ? (address + column) & 0xffff
								 : address + column);
	s->pixels = s->line + s->pan * v->scale;
	next_line(s);
}

void vga_scan_skip(struct vga_scan *s)
{
	next_line(s);
}

bool vga_scan_shows(const struct vga_scan *s, u32 address)
{
	u32 first = s->address + s->byte_pan;

	return address < VGA_PLANE_BYTES && ((address - first) & 0xffff) <= s->view->columns;
}

/* --- linear memory -------------------------------------------------------------- */

static u32 widen(u32 value, unsigned bits)
{
	value &= (1u << bits) - 1;
	return value << (8 - bits) | value >> (2 * bits - 8);
}

static u32 linear_pixel(const struct vga_view *v, const u8 *from)
{
	u32 word;

	switch (v->bpp) {
	case 8: return v->colours[from[0]];
	case 15:
		word = from[0] | (u32)from[1] << 8;
		return widen(word >> 10, 5) << 16 | widen(word >> 5, 5) << 8 | widen(word, 5);
	case 16:
		word = from[0] | (u32)from[1] << 8;
		return widen(word >> 11, 5) << 16 | widen(word >> 5, 6) << 8 | widen(word, 5);
	default: return from[0] | (u32)from[1] << 8 | (u32)from[2] << 16;
	}
}

void vga_linear_line(const struct vga_view *v, const u8 *vram, u64 vram_bytes, u32 y, u32 *pixels)
{
	u32 bytes = DIV_ROUND_UP(v->bpp, 8), there;
	u64 at = v->offset + (u64)y * v->line_bytes;

	there = at < vram_bytes ? (u32)MIN((vram_bytes - at) / bytes, (u64)v->width) : 0;
	memset(pixels + there, 0, (v->width - there) * sizeof(*pixels));
	if (v->bpp == 32) {
		for (u32 x = 0; x < there; x++) {
			u32 pixel;

			memcpy(&pixel, vram + at + 4 * (u64)x, 4);
			pixels[x] = pixel & 0xffffff;
		}
		return;
	}
	for (u32 x = 0; x < there; x++)
		pixels[x] = linear_pixel(v, vram + at + x * (u64)bytes);
}
