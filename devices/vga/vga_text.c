/* The text screen as UTF-8: what the CRTC would show of planes 0, by code page 437.
 * Thread: any; takes the device's lock. */
#include "devices/vga/vga_int.h"

#include <errno.h>

static const u16 cp437[256] = {
	' ',
	0x263a,
	0x263b,
	0x2665,
	0x2666,
	0x2663,
	0x2660,
	0x2022,
	0x25d8,
	0x25cb,
	0x25d9,
	0x2642,
	0x2640,
	0x266a,
	0x266b,
	0x263c,
	0x25ba,
	0x25c4,
	0x2195,
	0x203c,
	0x00b6,
	0x00a7,
	0x25ac,
	0x21a8,
	0x2191,
	0x2193,
	0x2192,
	0x2190,
	0x221f,
	0x2194,
	0x25b2,
	0x25bc,
	/* 20-7E are ASCII: filled in by code_point */
	[0x7f] = 0x2302,
	0x00c7,
	0x00fc,
	0x00e9,
	0x00e2,
	0x00e4,
	0x00e0,
	0x00e5,
	0x00e7,
	0x00ea,
	0x00eb,
	0x00e8,
	0x00ef,
	0x00ee,
	0x00ec,
	0x00c4,
	0x00c5,
	0x00c9,
	0x00e6,
	0x00c6,
	0x00f4,
	0x00f6,
	0x00f2,
	0x00fb,
	0x00f9,
	0x00ff,
	0x00d6,
	0x00dc,
	0x00a2,
	0x00a3,
	0x00a5,
	0x20a7,
	0x0192,
	0x00e1,
	0x00ed,
	0x00f3,
	0x00fa,
	0x00f1,
	0x00d1,
	0x00aa,
	0x00ba,
	0x00bf,
	0x2310,
	0x00ac,
	0x00bd,
	0x00bc,
	0x00a1,
	0x00ab,
	0x00bb,
	0x2591,
	0x2592,
	0x2593,
	0x2502,
	0x2524,
	0x2561,
	0x2562,
	0x2556,
	0x2555,
	0x2563,
	0x2551,
	0x2557,
	0x255d,
	0x255c,
	0x255b,
	0x2510,
	0x2514,
	0x2534,
	0x252c,
	0x251c,
	0x2500,
	0x253c,
	0x255e,
	0x255f,
	0x255a,
	0x2554,
	0x2569,
	0x2566,
	0x2560,
	0x2550,
	0x256c,
	0x2567,
	0x2568,
	0x2564,
	0x2565,
	0x2559,
	0x2558,
	0x2552,
	0x2553,
	0x256b,
	0x256a,
	0x2518,
	0x250c,
	0x2588,
	0x2584,
	0x258c,
	0x2590,
	0x2580,
	0x03b1,
	0x00df,
	0x0393,
	0x03c0,
	0x03a3,
	0x03c3,
	0x00b5,
	0x03c4,
	0x03a6,
	0x0398,
	0x03a9,
	0x03b4,
	0x221e,
	0x03c6,
	0x03b5,
	0x2229,
	0x2261,
	0x00b1,
	0x2265,
	0x2264,
	0x2320,
	0x2321,
	0x00f7,
	0x2248,
	0x00b0,
	0x2219,
	0x00b7,
	0x221a,
	0x207f,
	0x00b2,
	0x25a0,
	' ',
};

struct text_out {
	char *buf;
	size_t at, room;
};

static u16 code_point(u8 c)
{
	return c >= 0x20 && c < 0x7f ? c : cp437[c];
}

/* Whole characters only; one byte stays for the NUL. */
static void put_char(struct text_out *out, u16 cp)
{
	char utf8[3];
	size_t n;

	if (cp < 0x80) {
		utf8[0] = (char)cp;
		n = 1;
	} else if (cp < 0x800) {
		utf8[0] = (char)(0xc0 | cp >> 6);
		utf8[1] = (char)(0x80 | (cp & 0x3f));
		n = 2;
	} else {
		utf8[0] = (char)(0xe0 | cp >> 12);
		utf8[1] = (char)(0x80 | (cp >> 6 & 0x3f));
		utf8[2] = (char)(0x80 | (cp & 0x3f));
		n = 3;
	}
	if (n >= out->room - out->at)
		return;
	memcpy(out->buf + out->at, utf8, n);
	out->at += n;
}

/* Characters lie in plane 0, two offsets apart: the CRTC counts words in text. */
static u8 char_at(const struct vga *v, u32 word)
{
	return v->vram[4 * (word * 2 % VGA_PLANE_BYTES)];
}

static void put_row(const struct vga *v, struct text_out *out, u32 word, unsigned columns)
{
	while (columns && code_point(char_at(v, word + columns - 1)) == ' ')
		columns--;
	for (unsigned i = 0; i < columns; i++)
		put_char(out, code_point(char_at(v, word + i)));
	put_char(out, '\n');
}

static unsigned text_rows(const struct vga *v)
{
	unsigned overflow = v->crtc[CRTC_OVERFLOW];
	unsigned lines =
		v->crtc[CRTC_V_DISPLAY_END] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3;

	return (lines + 1) / ((v->crtc[CRTC_MAX_SCAN] & 0x1f) + 1u);
}

int vga_text(struct device *dev, char *buf, size_t room)
{
	struct text_out out = {.buf = buf, .room = room};
	struct vga *v;
	u32 word;

	assert(room);
	if (dev->cls != &vga_class)
		return -EINVAL;
	v = vga_of(dev);
	LOCK_SCOPE(&dev->lock);
	if (vga_is_linear(v) || v->gr[GR_MISC] & 1)
		return -EINVAL;
	word = (u32)v->crtc[CRTC_START_HIGH] << 8 | v->crtc[CRTC_START_LOW];
	for (unsigned rows = text_rows(v); rows; rows--) {
		put_row(v, &out, word, v->crtc[CRTC_H_DISPLAY_END] + 1u);
		word += v->crtc[CRTC_OFFSET] * 2u;
	}
	buf[out.at] = 0;
	return (int)out.at;
}
