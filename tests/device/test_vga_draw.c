/* Pictures of every kind of mode: drawn through the window or the framebuffer as
 * programs do, compared with what the program meant.
 *
 * A mode is the register set that VGA BIOSes use for it.  The expectation is kept by
 * the test pixel by pixel, from the mode's textbook formula, and knows nothing of
 * CRTC addresses. */
#include "devices/display/display.h"
#include "devices/i440fx.h"
#include "devices/vga/vga.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define LFB   0xe0000000u
#define REGS  0xf1000000u
#define VGA   DEVFN(2, 0)
#define MAX_W 1280
#define MAX_H 1024

struct mode {
	u8 misc, seq[5], crtc[25], attr[21], gr[9];
};

#define EGA_COLOURS 0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f
#define LOW_COLOURS 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15

static const struct mode mode_3 = {0x67,
				   {3, 0, 3, 0, 2},
				   {0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0,
				    0x4f, 0x0d, 0x0e, 0,    0,	  0,	0,    0x9c, 0x8e,
				    0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
				   {EGA_COLOURS, 0x0c, 0, 0x0f, 8, 0},
				   {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff}};
static const struct mode mode_1 = {0x67,
				   {3, 8, 3, 0, 2},
				   {0x2d, 0x27, 0x28, 0x90, 0x2b, 0xa0, 0xbf, 0x1f, 0,
				    0x4f, 0x0d, 0x0e, 0,    0,	  0,	0,    0x9c, 0x8e,
				    0x8f, 0x14, 0x1f, 0x96, 0xb9, 0xa3, 0xff},
				   {EGA_COLOURS, 0x0c, 0, 0x0f, 8, 0},
				   {0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff}};
static const struct mode mode_4 = {
	0x63,
	{3, 9, 3, 0, 2},
	{0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0,    0xc1, 0,	   0,	0,
	 0,    0,    0,	   0x9c, 0x8e, 0x8f, 0x14, 0,	 0x96, 0xb9, 0xa2, 0xff},
	{0, 0x13, 0x15, 0x17, 2, 4, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 1, 0, 3, 0, 0},
	{0, 0, 0, 0, 0, 0x30, 0x0f, 0, 0xff}};
static const struct mode mode_6 = {
	0x63,
	{3, 1, 1, 0, 6},
	{0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0,    0xc1, 0,	   0,	0,
	 0,    0,    0,	   0x9c, 0x8e, 0x8f, 0x28, 0,	 0x96, 0xb9, 0xc2, 0xff},
	{0, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 23, 1, 0, 1, 0, 0},
	{0, 0, 0, 0, 0, 0, 0x0d, 0, 0xff}};
static const struct mode mode_d = {0x63,
				   {3, 9, 15, 0, 6},
				   {0x2d, 0x27, 0x28, 0x90, 0x2b, 0x80, 0xbf, 0x1f, 0,
				    0xc0, 0,	0,    0,    0,	  0,	0,    0x9c, 0x8e,
				    0x8f, 0x14, 0,    0x96, 0xb9, 0xe3, 0xff},
				   {LOW_COLOURS, 1, 0, 0x0f, 0, 0},
				   {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff}};
static const struct mode mode_12 = {0xe3,
				    {3, 1, 15, 0, 6},
				    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0b, 0x3e, 0,
				     0x40, 0,	 0,    0,    0,	   0,	 0,    0xea, 0x8c,
				     0xdf, 0x28, 0,    0xe7, 0x04, 0xe3, 0xff},
				    {EGA_COLOURS, 1, 0, 0x0f, 0, 0},
				    {0, 0, 0, 0, 0, 0, 5, 0x0f, 0xff}};
static const struct mode mode_13 = {0x63,
				    {3, 1, 15, 0, 0x0e},
				    {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0xbf, 0x1f, 0,
				     0x41, 0,	 0,    0,    0,	   0,	 0,    0x9c, 0x8e,
				     0x8f, 0x28, 0x40, 0x96, 0xb9, 0xa3, 0xff},
				    {LOW_COLOURS, 0x41, 0, 0x0f, 0, 0},
				    {0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff}};
static const struct mode mode_x = {0xe3,
				   {3, 1, 15, 0, 6},
				   {0x5f, 0x4f, 0x50, 0x82, 0x54, 0x80, 0x0d, 0x3e, 0,
				    0x41, 0,	0,    0,    0,	  0,	0,    0xea, 0xac,
				    0xdf, 0x28, 0,    0xe7, 0x06, 0xe3, 0xff},
				   {LOW_COLOURS, 0x41, 0, 0x0f, 0, 0},
				   {0, 0, 0, 0, 0, 0x40, 5, 0x0f, 0xff}};

struct bench {
	struct fake_machine fm;
	struct device *vga;
	struct display *display;
	struct rng rng;
	const struct mode *mode;
	u32 dac[256]; /* as pixels */
	u32 width, height;
	u32 want[MAX_W * MAX_H];
};

static void put(struct bench *b, u16 port, u8 index, u8 value)
{
	outw(&b->fm, port, (u16)(value << 8 | index));
}

static void set_dac(struct bench *b)
{
	outb(&b->fm, 0x3c8, 0);
	for (unsigned i = 0; i < 256; i++) {
		b->dac[i] = 0;
		for (unsigned c = 0; c < 3; c++) {
			u8 level = (u8)rng_below(&b->rng, 64);

			outb(&b->fm, 0x3c9, level);
			b->dac[i] = b->dac[i] * 256 + (level * 4u + level / 16u);
		}
	}
	outb(&b->fm, 0x3c6, 0xff);
}

static void put_attr(struct bench *b, u8 index, u8 value)
{
	(void)inb(&b->fm, 0x3da);
	outb(&b->fm, 0x3c0, index);
	outb(&b->fm, 0x3c0, value);
	outb(&b->fm, 0x3c0, 0x20); /* the screen stays on */
}

static void set_mode(struct bench *b, const struct mode *m, u32 width, u32 height)
{
	b->mode = m;
	b->width = width;
	b->height = height;
	outb(&b->fm, 0x3c2, m->misc);
	for (unsigned i = 0; i < 5; i++)
		put(b, 0x3c4, (u8)i, m->seq[i]);
	put(b, 0x3d4, 0x11, 0);
	for (unsigned i = 0; i < 25; i++)
		put(b, 0x3d4, (u8)i, m->crtc[i]);
	for (unsigned i = 0; i < 9; i++)
		put(b, 0x3ce, (u8)i, m->gr[i]);
	for (unsigned i = 0; i < 21; i++)
		put_attr(b, (u8)i, m->attr[i]);
	set_dac(b);
	memset(b->want, 0, sizeof(b->want));
}

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);
	struct device *bridge;

	fake_machine_init(&b->fm, 1 * MiB - 0x60000);
	b->rng.state = 11;
	bridge = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	b->vga = fake_device(&b->fm, &vga_class, bridge, "addr=2.0", "vgamem_mb=64", NULL);
	pci_write(&b->fm, VGA, 0x10, 4, LFB);
	pci_write(&b->fm, VGA, 0x18, 4, REGS);
	pci_write(&b->fm, VGA, 0x04, 2, 3);
	b->display = display_new(NULL, vga_display_source(b->vga));
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	display_free(b->display);
	fake_machine_fini(&b->fm);
	free(b);
	return 0;
}

/* A block of sx x sy pixels of the picture. */
static void want(struct bench *b, u32 x, u32 y, u32 sx, u32 sy, u32 pixel)
{
	for (u32 j = y * sy; j < (y + 1) * sy; j++)
		for (u32 i = x * sx; i < (x + 1) * sx; i++)
			b->want[j * b->width + i] = pixel;
}

static void compare(struct bench *b)
{
	struct surface *s;

	display_refresh(b->display);
	s = display_surface(b->display);
	assert_int_equal(s->width, b->width);
	assert_int_equal(s->height, b->height);
	for (u32 y = 0; y < s->height; y++)
		for (u32 x = 0; x < s->width; x++)
			if (surface_line(s, y)[x] != b->want[y * b->width + x])
				fail_msg("pixel %u,%u is 0x%06x, expected 0x%06x", x, y,
					 surface_line(s, y)[x], b->want[y * b->width + x]);
}

static u32 attr_colour(struct bench *b, unsigned i)
{
	return b->dac[b->mode->attr[i]];
}

/* --- text ----------------------------------------------------------------------- */

static u8 glyphs[256][32];

/* As BIOSes load a font: plane 2, sequential addresses. */
static void load_font(struct bench *b, unsigned place)
{
	put(b, 0x3c4, 2, 4);
	put(b, 0x3c4, 4, 6);
	put(b, 0x3ce, 5, 0);
	put(b, 0x3ce, 6, 4);
	for (unsigned c = 0; c < 256; c++)
		for (unsigned row = 0; row < 32; row++) {
			glyphs[c][row] = (u8)rng_next(&b->rng);
			mmio_write(&b->fm, 0xa0000 + place * 0x4000 + c * 32 + row, 1,
				   glyphs[c][row]);
		}
	put(b, 0x3c4, 2, 3);
	put(b, 0x3c4, 4, 2);
	put(b, 0x3ce, 5, 0x10);
	put(b, 0x3ce, 6, 0x0e);
}

static void want_char(struct bench *b, u32 column, u32 row, u32 scale, u16 cell)
{
	u8 c = (u8)cell, attr = (u8)(cell >> 8);
	u32 fore = attr_colour(b, attr & 15), back = attr_colour(b, attr >> 4 & 7);

	for (u32 y = 0; y < 16; y++)
		for (u32 x = 0; x < 9; x++) {
			bool on = x < 8 ? glyphs[c][y] >> (7 - x) & 1
					: c >= 0xc0 && c <= 0xdf && glyphs[c][y] & 1;

			want(b, column * 9 + x, row * 16 + y, scale, 1, on ? fore : back);
		}
}

static void draw_text(struct bench *b, u32 columns, u32 scale)
{
	for (u32 i = 0; i < columns * 25; i++) {
		u16 cell = (u16)(rng_next(&b->rng) >> 13);

		mmio_write(&b->fm, 0xb8000 + 2 * i, 2, cell);
		want_char(b, i % columns, i / columns, scale, cell);
	}
}

static void hide_cursor(struct bench *b)
{
	put(b, 0x3d4, 0x0a, 0x20);
}

static void text_has_nine_dots_and_loaded_fonts(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_3, 720, 400);
	load_font(b, 0);
	hide_cursor(b);
	draw_text(b, 80, 1);
	compare(b);
	mmio_write(&b->fm, 0xb8000 + 2 * 83, 2, 0x1f41); /* and one more change */
	want_char(b, 3, 1, 1, 0x1f41);
	compare(b);
}

static void text_of_forty_columns_is_twice_as_wide(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_1, 720, 400);
	load_font(b, 0);
	hide_cursor(b);
	draw_text(b, 40, 2);
	compare(b);
}

static void the_cursor_has_its_shape_and_blinks(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_3, 720, 400);
	load_font(b, 0);
	draw_text(b, 80, 1);
	mmio_write(&b->fm, 0xb8000 + 2 * 165, 2, 0x0741);
	want_char(b, 5, 2, 1, 0x0741);
	put(b, 0x3d4, 0x0e, 0);
	put(b, 0x3d4, 0x0f, 165);
	for (u32 y = 13; y <= 14; y++)
		for (u32 x = 0; x < 9; x++)
			want(b, 5 * 9 + x, 2 * 16 + y, 1, 1, attr_colour(b, 7));
	compare(b);
	clock_advance(b->fm.m.clock, 250000000); /* 16 frames at 70 Hz later */
	want_char(b, 5, 2, 1, 0x0741);
	compare(b);
}

static void the_cursor_alone_comes_and_goes(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_3, 720, 400);
	load_font(b, 0);
	for (u32 i = 0; i < 80 * 25; i++) {
		mmio_write(&b->fm, 0xb8000 + 2 * i, 2, 0x1700 | (i & 0xff));
		want_char(b, i % 80, i / 80, 1, (u16)(0x1700 | (i & 0xff)));
	}
	for (u32 at = 79; at < 80 * 25; at += 960) { /* it moves while it is not seen */
		put(b, 0x3d4, 0x0e, (u8)(at >> 8));
		put(b, 0x3d4, 0x0f, (u8)at);
		for (u32 x = 0; x < 18; x++)
			want(b, at % 80 * 9 + x % 9, at / 80 * 16 + 13 + x / 9, 1, 1,
			     attr_colour(b, 7));
		compare(b);
		clock_advance(b->fm.m.clock, 230000000);
		want_char(b, at % 80, at / 80, 1, (u16)(0x1700 | (at & 0xff)));
		compare(b);
		clock_advance(b->fm.m.clock, 230000000);
	}
}

static void characters_blink_at_half_that_rate(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_3, 720, 400);
	load_font(b, 0);
	hide_cursor(b);
	for (u32 i = 0; i < 80 * 25; i++) {
		mmio_write(&b->fm, 0xb8000 + 2 * i, 2, 0x9e00 | (i & 0xff));
		want_char(b, i % 80, i / 80, 1, (u16)(0x9e00 | (i & 0xff)));
	}
	compare(b);
	clock_advance(b->fm.m.clock, 480000000);
	for (u32 i = 0; i < b->width * b->height; i++)
		b->want[i] = attr_colour(b, 1);
	compare(b);
}

/* Bit 3 of the attribute chooses between two fonts. */
static void two_fonts_make_512_characters(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_3, 720, 400);
	load_font(b, 0);
	hide_cursor(b);
	for (u32 i = 0; i < 80 * 25; i++) {
		mmio_write(&b->fm, 0xb8000 + 2 * i, 2, i & 1 ? 0x0f42 : 0x0742);
		want_char(b, i % 80, i / 80, 1, 0x0742);
	}
	load_font(b, 1); /* at 16 KiB */
	put(b, 0x3c4, 3, 0x04);
	for (u32 i = 1; i < 80 * 25; i += 2)
		want_char(b, i % 80, i / 80, 1, 0x0f42);
	compare(b);
}

static void text_scrolls_pans_and_splits(void **state)
{
	struct bench *b = *state;
	u32 *whole;

	set_mode(b, &mode_3, 720, 400);
	load_font(b, 0);
	hide_cursor(b);
	draw_text(b, 80, 1);
	whole = xalloc(sizeof(b->want));
	memcpy(whole, b->want, sizeof(b->want));
	put(b, 0x3d4, 0x0d, 160);	/* two rows up */
	put(b, 0x3d4, 0x08, 5);		/* and five lines */
	put_attr(b, 0x13, 2);		/* and three dots: 2 is one more */
	put(b, 0x3d4, 0x18, 299 & 255); /* the first rows again from line 300 on */
	put(b, 0x3d4, 0x07, 0x1f);
	put(b, 0x3d4, 0x09, 0x0f);
	put_attr(b, 0x10, 0x2c); /* where nothing is panned */
	for (u32 y = 0; y < 400; y++)
		for (u32 x = 0; x < 717; x++)
			b->want[y * 720 + x] = y < 300 ? whole[(y + 37) * 720 + x + 3]
						       : whole[(y - 300) * 720 + x];
	/* What comes in from the right is the next row's first column, until the split. */
	for (u32 y = 0; y < 400; y++)
		for (u32 x = 717; x < 720; x++)
			b->want[y * 720 + x] = y < 300 ? whole[(y + 37 + 16) * 720 + x - 717]
						       : whole[(y - 300) * 720 + x];
	compare(b);
	free(whole);
}

/* --- graphics ----------------------------------------------------------------------- */

/* Write mode 0 with a bit mask and set/reset, as BIOSes set a pixel. */
static void planar_pixel(struct bench *b, u32 pitch, u32 x, u32 y, u8 colour)
{
	u64 at = 0xa0000 + y * pitch + x / 8;

	put(b, 0x3ce, 0, colour);
	put(b, 0x3ce, 1, 15);
	put(b, 0x3ce, 8, (u8)(0x80 >> x % 8));
	(void)mmio_read(&b->fm, at, 1);
	mmio_write(&b->fm, at, 1, 0xff);
}

static void sixteen_colours_lie_in_planes(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_12, 640, 480);
	for (u32 i = 0; i < 640 * 480; i++)
		b->want[i] = attr_colour(b, 0);
	for (unsigned i = 0; i < 5000; i++) {
		u32 x = rng_below(&b->rng, 640), y = rng_below(&b->rng, 480);
		u8 colour = (u8)rng_below(&b->rng, 16);

		planar_pixel(b, 80, x, y, colour);
		want(b, x, y, 1, 1, attr_colour(b, colour));
	}
	compare(b);
}

static void colour_select_and_plane_enable_change_what_is_seen(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_12, 640, 480);
	put_attr(b, 0x10, 0x81);
	put_attr(b, 0x12, 0x0b);
	put_attr(b, 0x14, 0x0e); /* bits 4-5 are 2, bits 6-7 are 3 */
	for (u32 i = 0; i < 640 * 480; i++)
		b->want[i] = b->dac[0xe0];
	for (unsigned i = 0; i < 16; i++) {
		planar_pixel(b, 80, i * 9, 7, (u8)i);
		want(b, i * 9, 7, 1, 1, b->dac[0xe0 | (b->mode->attr[i & 0x0b] & 15)]);
	}
	compare(b);
}

static void a_low_resolution_is_shown_larger(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_d, 640, 400);
	for (u32 i = 0; i < 640 * 400; i++)
		b->want[i] = attr_colour(b, 0);
	for (unsigned i = 0; i < 3000; i++) {
		u32 x = rng_below(&b->rng, 320), y = rng_below(&b->rng, 200);
		u8 colour = (u8)rng_below(&b->rng, 16);

		planar_pixel(b, 40, x, y, colour);
		want(b, x, y, 2, 2, attr_colour(b, colour));
	}
	compare(b);
}

static void cga_modes_have_two_banks_of_lines(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_4, 640, 400);
	for (u32 y = 0; y < 200; y++)
		for (u32 x = 0; x < 320; x += 4) {
			u8 byte = (u8)rng_next(&b->rng);

			mmio_write(&b->fm, 0xb8000 + y % 2 * 0x2000 + y / 2 * 80 + x / 4, 1, byte);
			for (u32 i = 0; i < 4; i++)
				want(b, x + i, y, 2, 2, attr_colour(b, byte >> (6 - 2 * i) & 3));
		}
	compare(b);
	set_mode(b, &mode_6, 640, 400);
	for (u32 y = 0; y < 200; y++)
		for (u32 x = 0; x < 640; x += 8) {
			u8 byte = (u8)rng_next(&b->rng);

			mmio_write(&b->fm, 0xb8000 + y % 2 * 0x2000 + y / 2 * 80 + x / 8, 1, byte);
			for (u32 i = 0; i < 8; i++)
				want(b, x + i, y, 1, 2, attr_colour(b, byte >> (7 - i) & 1));
		}
	compare(b);
}

static void mode_13_is_a_byte_a_pixel(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_13, 640, 400);
	for (u32 i = 0; i < 320 * 200; i++) {
		u8 colour = (u8)rng_next(&b->rng);

		mmio_write(&b->fm, 0xa0000 + i, 1, colour);
		want(b, i % 320, i / 320, 2, 2, b->dac[colour]);
	}
	compare(b);
	outb(&b->fm, 0x3c6, 0x3f); /* the DAC's mask */
	for (u32 i = 0; i < 320 * 200; i++) {
		u8 colour = (u8)mmio_read(&b->fm, 0xa0000 + i, 1);

		want(b, i % 320, i / 320, 2, 2, b->dac[colour & 0x3f]);
	}
	compare(b);
}

static void mode_x_has_four_planes_of_bytes_and_pages(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_x, 640, 480);
	put(b, 0x3d4, 0x0c, 0x4b); /* the second page: 320 * 240 / 4 = 0x4b00 */
	for (u32 y = 0; y < 240; y++)
		for (u32 x = 0; x < 320; x++) {
			u8 colour = (u8)rng_next(&b->rng);

			put(b, 0x3c4, 2, (u8)(1 << x % 4));
			mmio_write(&b->fm, 0xa0000 + 0x4b00 + y * 80 + x / 4, 1, colour);
			want(b, x, y, 2, 2, b->dac[colour]);
		}
	compare(b);
}

static void a_screen_that_is_off_is_black(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_13, 640, 400);
	for (u32 i = 0; i < 320 * 200; i += 4)
		mmio_write(&b->fm, 0xa0000 + i, 4, 0x05050505);
	display_refresh(b->display);
	put(b, 0x3c4, 1, 0x21);
	memset(b->want, 0, sizeof(b->want));
	compare(b);
	put(b, 0x3c4, 1, 0x01);
	for (u32 i = 0; i < 640 * 400; i++)
		b->want[i] = b->dac[5];
	compare(b);
}

/* --- the extension ------------------------------------------------------------------- */

static void dispi(struct bench *b, u16 index, u16 value)
{
	outw(&b->fm, 0x1ce, index);
	outw(&b->fm, 0x1cf, value);
}

static void set_linear(struct bench *b, u32 width, u32 height, u16 bpp)
{
	dispi(b, 4, 0);
	dispi(b, 1, (u16)width);
	dispi(b, 2, (u16)height);
	dispi(b, 3, bpp);
	dispi(b, 4, 0x41);
	b->width = width;
	b->height = height;
	memset(b->want, 0, sizeof(b->want));
}

static u32 five(u32 v)
{
	return (v & 31) * 8 + (v & 31) / 4;
}

static u32 six(u32 v)
{
	return (v & 63) * 4 + (v & 63) / 16;
}

/* What a pixel of so many bits means. */
static u32 meaning(struct bench *b, u16 bpp, u32 value)
{
	switch (bpp) {
	case 8: return b->dac[value & 0xff];
	case 15: return five(value >> 10) << 16 | five(value >> 5) << 8 | five(value);
	case 16: return five(value >> 11) << 16 | six(value >> 5) << 8 | five(value);
	default: return value & 0xffffff;
	}
}

static void linear_pixel(struct bench *b, u32 pitch, u32 x, u32 y, u16 bpp)
{
	u32 bytes = (bpp + 7u) / 8, value = (u32)(rng_next(&b->rng) >> 20);

	mem_write(b->fm.m.mem, LFB + (y * pitch + x) * bytes, &value, bytes);
	if (x < b->width && y < b->height)
		b->want[y * b->width + x] = meaning(b, bpp, value);
}

static void linear_modes_of_every_depth(void **state)
{
	static const u16 depths[] = {8, 15, 16, 24, 32};
	struct bench *b = *state;

	set_mode(b, &mode_13, 640, 400);
	for (unsigned d = 0; d < ARRAY_LEN(depths); d++) {
		set_linear(b, 800, 600, depths[d]);
		if (depths[d] == 8)
			for (u32 i = 0; i < 800 * 600; i++)
				b->want[i] = b->dac[0];
		for (u32 i = 0; i < 20000; i++)
			linear_pixel(b, 800, rng_below(&b->rng, 800), rng_below(&b->rng, 600),
				     depths[d]);
		compare(b);
		linear_pixel(b, 800, 799, 599, depths[d]); /* one more, found by its page */
		compare(b);
	}
}

static void the_dac_may_have_eight_bits(void **state)
{
	struct bench *b = *state;

	set_linear(b, 640, 480, 8);
	dispi(b, 4, 0x61);
	outb(&b->fm, 0x3c6, 0xff);
	outb(&b->fm, 0x3c8, 9);
	outb(&b->fm, 0x3c9, 0xfe);
	outb(&b->fm, 0x3c9, 0x81);
	outb(&b->fm, 0x3c9, 0x03);
	mem_write(b->fm.m.mem, LFB + 640 + 3, "\x09", 1);
	b->want[640 + 3] = 0xfe8103;
	compare(b);
}

static void a_virtual_screen_is_panned(void **state)
{
	struct bench *b = *state;
	u32 value;

	set_linear(b, 640, 480, 32);
	dispi(b, 6, 1000);
	dispi(b, 8, 7);
	dispi(b, 9, 11);
	for (u32 i = 0; i < 20000; i++) {
		u32 x = rng_below(&b->rng, 1000), y = rng_below(&b->rng, 600);

		value = (u32)(rng_next(&b->rng) >> 20);
		mem_write(b->fm.m.mem, LFB + (y * 1000 + x) * 4, &value, 4);
		if (x >= 7 && x < 647 && y >= 11 && y < 491)
			b->want[(y - 11) * 640 + x - 7] = value & 0xffffff;
	}
	compare(b);
}

static void four_bits_have_planes_and_banks(void **state)
{
	struct bench *b = *state;

	set_mode(b, &mode_12, 640, 480);
	set_linear(b, 1280, 1024, 4);
	for (u32 i = 0; i < 1280 * 1024; i++)
		b->want[i] = attr_colour(b, 0);
	for (unsigned i = 0; i < 3000; i++) {
		u32 x = rng_below(&b->rng, 1280), y = rng_below(&b->rng, 1024);
		u32 at = y * 160 + x / 8;
		u8 colour = (u8)rng_below(&b->rng, 16);

		dispi(b, 5, (u16)(at >> 16));
		planar_pixel(b, 0, x % 8, 0, 0); /* the mask, for the right bit */
		put(b, 0x3ce, 0, colour);
		(void)mmio_read(&b->fm, 0xa0000 + (at & 0xffff), 1);
		mmio_write(&b->fm, 0xa0000 + (at & 0xffff), 1, 0xff);
		want(b, x, y, 1, 1, attr_colour(b, colour));
	}
	dispi(b, 5, 0);
	planar_pixel(b, 160, 0, 0, 3); /* what the loop drew besides */
	for (u32 x = 0; x < 8; x++)
		planar_pixel(b, 160, x, 0, 3), want(b, x, 0, 1, 1, attr_colour(b, 3));
	compare(b);
}

static void a_screen_of_4k_fits(void **state)
{
	struct bench *b = *state;
	u32 value = 0x123456;
	struct surface *s;

	dispi(b, 1, 3840);
	dispi(b, 2, 2160);
	dispi(b, 3, 32);
	dispi(b, 4, 0x41);
	mem_write(b->fm.m.mem, LFB + (3840 * 2160 - 1) * 4, &value, 4);
	display_refresh(b->display);
	s = display_surface(b->display);
	assert_int_equal(s->width, 3840);
	assert_int_equal(s->height, 2160);
	assert_int_equal(surface_line(s, 2159)[3839], 0x123456);
}

/* --- who is told ------------------------------------------------------------------------ */

struct ear {
	struct display_listener l;
	unsigned sizes, rects;
	struct rect all;
};

static void hear_size(struct display_listener *l, struct surface *s)
{
	container_of(l, struct ear, l)->sizes++;
}

static void hear_rect(struct display_listener *l, const struct rect *r)
{
	struct ear *e = container_of(l, struct ear, l);

	e->rects++;
	e->all = *r;
}

static void listeners_hear_of_pixels_that_differ_and_of_no_others(void **state)
{
	struct bench *b = *state;
	struct ear e = {.l.resized = hear_size, .l.changed = hear_rect};

	display_listen(b->display, &e.l);
	set_linear(b, 640, 480, 32);
	display_refresh(b->display);
	assert_int_equal(e.sizes, 1 - (640 == display_surface(b->display)->width));
	e.rects = 0;
	display_refresh(b->display);
	assert_int_equal(e.rects, 0);
	mem_write(b->fm.m.mem, LFB + (100 * 640 + 50) * 4, "\1\2\3\0\1\2\3", 8);
	display_refresh(b->display);
	assert_int_equal(e.rects, 1);
	assert_int_equal(e.all.x, 50);
	assert_int_equal(e.all.y, 100);
	assert_int_equal(e.all.width, 2);
	assert_int_equal(e.all.height, 1);
	mem_write(b->fm.m.mem, LFB + (100 * 640 + 50) * 4, "\1\2\3\0\1\2\3", 8); /* the same */
	display_refresh(b->display);
	assert_int_equal(e.rects, 1);
	set_linear(b, 800, 600, 32);
	display_refresh(b->display);
	assert_int_equal(e.sizes, 1);
	display_unlisten(b->display, &e.l);
}

static void a_snapshot_that_collects_takes_nothing_from_the_screen(void **state)
{
	struct bench *b = *state;
	struct mem_region_info info[16];
	u64 bits[64 * MiB / 4096 / 64];
	unsigned n;

	set_linear(b, 640, 480, 32);
	compare(b);
	linear_pixel(b, 640, 5, 5, 32);
	n = mem_regions(b->fm.m.mem, info, ARRAY_LEN(info));
	for (unsigned i = 0; i < n; i++)
		if (info[i].kind == MEM_VRAM)
			mem_dirty_collect(info[i].region, MEM_DIRTY_SNAPSHOT, bits);
	compare(b);
}

static void a_loaded_machine_shows_its_screen(void **state)
{
	struct bench *b = *state;
	struct state_buf saved = {0};
	struct error err;
	u8 *vram;

	set_mode(b, &mode_13, 640, 400);
	mmio_write(&b->fm, 0xa0000, 1, 7);
	for (u32 i = 0; i < 640 * 400; i++)
		b->want[i] = b->dac[0];
	want(b, 0, 0, 2, 2, b->dac[7]);
	compare(b);
	fake_save(b->vga, &saved);
	/* Another program draws; then memory is put back behind everybody's back. */
	mmio_write(&b->fm, 0xa0000, 1, 9);
	set_linear(b, 800, 600, 32);
	display_refresh(b->display);
	vram = mem_ptr_rw(b->fm.m.mem, LFB, 1);
	memset(vram, 0, 256 * KiB);
	vram[0] = 7;
	saved.at = 0;
	assert_int_equal(device_load(b->vga, &saved, &err), 0);
	b->width = 640;
	b->height = 400;
	memset(b->want, 0, sizeof(b->want));
	for (u32 i = 0; i < 640 * 400; i++)
		b->want[i] = b->dac[0];
	want(b, 0, 0, 2, 2, b->dac[7]);
	compare(b);
	state_buf_fini(&saved);
}

/* Any registers whatever: nothing is read outside memory (sanitizers look). */
static void random_registers_draw_something(void **state)
{
	struct bench *b = *state;

	for (unsigned i = 0; i < 3000; i++) {
		static const u16 ports[] = {0x3c4, 0x3d4, 0x3ce, 0x1ce, 0x3c2};
		u16 port = ports[rng_below(&b->rng, ARRAY_LEN(ports))];
		u64 r = rng_next(&b->rng);

		if (port == 0x1ce)
			dispi(b, (u16)(r & 15), (u16)(r >> 16 & (r & 16 ? 0xffff : 0x7ff)));
		else if (port == 0x3c2)
			outb(&b->fm, port, (u8)(r | 1));
		else
			put(b, port, (u8)(r & 31), (u8)(r >> 8));
		put_attr(b, (u8)(r >> 40 & 31), (u8)(r >> 48));
		if (i % 16 == 0)
			display_refresh(b->display);
	}
}

static void pictures_become_files(void **state)
{
	struct bench *b = *state;
	char path[] = "/tmp/cowvm-picture.XXXXXX";
	int fd = mkstemp(path);
	struct error err;
	u8 bytes[15 + 6];
	FILE *f;

	set_linear(b, 640, 480, 32);
	mem_write(b->fm.m.mem, LFB, "\x30\x20\x10\0\x60\x50\x40\0", 8);
	display_refresh(b->display);
	assert_int_equal(surface_write(display_surface(b->display), path, PICTURE_PPM, &err), 0);
	f = fopen(path, "rb");
	assert_int_equal(fread(bytes, 1, sizeof(bytes), f), sizeof(bytes));
	assert_memory_equal(bytes, "P6\n640 480\n255\n\x10\x20\x30\x40\x50\x60", sizeof(bytes));
	fclose(f);
	assert_int_equal(surface_write(display_surface(b->display), path, PICTURE_PNG, &err), 0);
	f = fopen(path, "rb");
	assert_int_equal(fread(bytes, 1, 8, f), 8);
	assert_memory_equal(bytes, "\x89PNG\r\n\x1a\n", 8);
	fclose(f);
	close(fd);
	unlink(path);
	assert_int_equal(surface_write(display_surface(b->display), "/dev/full", PICTURE_PPM, &err),
			 -EIO);
	assert_int_equal(surface_write(display_surface(b->display), "/nonexistent/a", PICTURE_PPM,
				       &err),
			 -ENOENT);
	assert_string_equal(err.text,
			    "failed to open file '/nonexistent/a': No such file or directory");
}

#define DRAW_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DRAW_TEST(text_has_nine_dots_and_loaded_fonts),
		DRAW_TEST(text_of_forty_columns_is_twice_as_wide),
		DRAW_TEST(the_cursor_has_its_shape_and_blinks),
		DRAW_TEST(the_cursor_alone_comes_and_goes),
		DRAW_TEST(characters_blink_at_half_that_rate),
		DRAW_TEST(two_fonts_make_512_characters),
		DRAW_TEST(text_scrolls_pans_and_splits),
		DRAW_TEST(sixteen_colours_lie_in_planes),
		DRAW_TEST(colour_select_and_plane_enable_change_what_is_seen),
		DRAW_TEST(a_low_resolution_is_shown_larger),
		DRAW_TEST(cga_modes_have_two_banks_of_lines),
		DRAW_TEST(mode_13_is_a_byte_a_pixel),
		DRAW_TEST(mode_x_has_four_planes_of_bytes_and_pages),
		DRAW_TEST(a_screen_that_is_off_is_black),
		DRAW_TEST(linear_modes_of_every_depth),
		DRAW_TEST(the_dac_may_have_eight_bits),
		DRAW_TEST(a_virtual_screen_is_panned),
		DRAW_TEST(four_bits_have_planes_and_banks),
		DRAW_TEST(a_screen_of_4k_fits),
		DRAW_TEST(listeners_hear_of_pixels_that_differ_and_of_no_others),
		DRAW_TEST(a_snapshot_that_collects_takes_nothing_from_the_screen),
		DRAW_TEST(a_loaded_machine_shows_its_screen),
		DRAW_TEST(random_registers_draw_something),
		DRAW_TEST(pictures_become_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
