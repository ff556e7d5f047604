/* VGA: registers, planes, the Bochs extension, text. */
#include "devices/i440fx.h"
#include "devices/vga/vga.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <errno.h>

#define WINDOW 0xa0000
#define TEXT   0xb8000
#define LFB    0xe0000000u
#define REGS   0xe1000000u
#define VGA    DEVFN(2, 0)

struct bench {
	struct fake_machine fm;
	struct device *vga;
};

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);
	struct device *bridge;

	fake_machine_init(&b->fm, 1 * MiB - 0x60000);
	bridge = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	b->vga = fake_device(&b->fm, &vga_class, bridge, "addr=2.0", NULL);
	pci_write(&b->fm, VGA, 0x10, 4, LFB);
	pci_write(&b->fm, VGA, 0x18, 4, REGS);
	pci_write(&b->fm, VGA, 0x04, 2, 3);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	fake_machine_fini(&b->fm);
	free(b);
	return 0;
}

static void put(struct bench *b, u16 port, u8 index, u8 value)
{
	outw(&b->fm, port, (u16)(value << 8 | index)); /* as programs do */
}

/* Mode 3 as far as memory and text are concerned. */
static void text_mode(struct bench *b)
{
	outb(&b->fm, 0x3c2, 0x67);
	put(b, 0x3c4, 2, 0x03);
	put(b, 0x3c4, 4, 0x02);
	put(b, 0x3ce, 5, 0x10);
	put(b, 0x3ce, 6, 0x0e);
	put(b, 0x3ce, 8, 0xff);
	put(b, 0x3d4, 0x01, 79);
	put(b, 0x3d4, 0x07, 0x1f);
	put(b, 0x3d4, 0x09, 0x4f);
	put(b, 0x3d4, 0x12, 0x8f);
	put(b, 0x3d4, 0x13, 0x28);
}

static void planar_mode(struct bench *b)
{
	outb(&b->fm, 0x3c2, 0xe3);
	put(b, 0x3c4, 2, 0x0f);
	put(b, 0x3c4, 4, 0x06);
	put(b, 0x3ce, 1, 0x00);
	put(b, 0x3ce, 3, 0x00);
	put(b, 0x3ce, 5, 0x00);
	put(b, 0x3ce, 6, 0x05);
	put(b, 0x3ce, 8, 0xff);
}

static u8 plane(struct bench *b, u8 n, u32 offset)
{
	put(b, 0x3ce, 4, n);
	return (u8)mmio_read(&b->fm, WINDOW + offset, 1);
}

static void text_comes_out_as_lines(void **state)
{
	struct bench *b = *state;
	static const char hello[] = "Hello \xc9\xcd";
	char text[VGA_TEXT_BYTES];

	text_mode(b);
	for (unsigned i = 0; i < 80 * 25; i++)
		mmio_write(&b->fm, TEXT + 2 * i, 2, 0x0720);
	for (unsigned i = 0; hello[i]; i++)
		mmio_write(&b->fm, TEXT + 2 * (80 + i), 2, 0x0700u | (u8)hello[i]);
	assert_int_equal(mmio_read(&b->fm, TEXT + 160, 4), 0x07650748);
	assert_true(vga_text(b->vga, text, sizeof(text)) > 0);
	assert_memory_equal(text, "\nHello \u2554\u2550\n\n", 15);
	assert_int_equal(vga_text(b->vga, text, 4), 3);
	assert_string_equal(text, "\nHe");
}

static void start_address_scrolls_the_text(void **state)
{
	struct bench *b = *state;
	char text[VGA_TEXT_BYTES];

	text_mode(b);
	mmio_write(&b->fm, TEXT + 2 * 80 * 3, 2, 0x0741);
	put(b, 0x3d4, 0x0d, 240);
	vga_text(b->vga, text, sizeof(text));
	assert_memory_equal(text, "A\n", 2);
}

static void graphics_have_no_text(void **state)
{
	struct bench *b = *state;
	char text[16];

	planar_mode(b);
	assert_int_equal(vga_text(b->vga, text, sizeof(text)), -EINVAL);
	assert_int_equal(vga_text(b->vga->parent, text, sizeof(text)), -EINVAL);
}

static void write_mode_0_obeys_masks_and_rotation(void **state)
{
	struct bench *b = *state;

	planar_mode(b);
	put(b, 0x3c4, 2, 0x05);
	mmio_write(&b->fm, WINDOW + 7, 1, 0xa5);
	assert_int_equal(plane(b, 0, 7), 0xa5);
	assert_int_equal(plane(b, 1, 7), 0x00);
	assert_int_equal(plane(b, 2, 7), 0xa5);
	put(b, 0x3c4, 2, 0x0f);
	put(b, 0x3ce, 8, 0x0f); /* the latches hold 0xa5 in planes 0 and 2 */
	put(b, 0x3ce, 3, 0x04); /* rotate by four */
	mmio_write(&b->fm, WINDOW + 7, 1, 0x3c);
	assert_int_equal(plane(b, 0, 7), 0xa3);
	assert_int_equal(plane(b, 1, 7), 0x03);
	put(b, 0x3ce, 3, 0x18); /* exclusive or */
	put(b, 0x3ce, 8, 0xff);
	plane(b, 0, 7);
	mmio_write(&b->fm, WINDOW + 7, 1, 0xff);
	assert_int_equal(plane(b, 0, 7), 0x5c);
}

static void set_reset_and_write_mode_3_paint_a_colour(void **state)
{
	struct bench *b = *state;

	planar_mode(b);
	put(b, 0x3ce, 0, 0x06);
	put(b, 0x3ce, 1, 0x0f);
	mmio_write(&b->fm, WINDOW, 1, 0x00);
	assert_int_equal(plane(b, 0, 0), 0x00);
	assert_int_equal(plane(b, 1, 0), 0xff);
	assert_int_equal(plane(b, 2, 0), 0xff);
	put(b, 0x3ce, 0, 0x09);
	put(b, 0x3ce, 5, 0x03);
	plane(b, 0, 0);
	mmio_write(&b->fm, WINDOW, 1, 0xf0);
	assert_int_equal(plane(b, 0, 0), 0xf0);
	assert_int_equal(plane(b, 1, 0), 0x0f);
	assert_int_equal(plane(b, 3, 0), 0xf0);
}

static void write_mode_1_copies_latches_and_2_takes_a_colour(void **state)
{
	struct bench *b = *state;

	planar_mode(b);
	put(b, 0x3ce, 5, 0x02);
	mmio_write(&b->fm, WINDOW + 1, 1, 0x0a);
	assert_int_equal(plane(b, 1, 1), 0xff);
	assert_int_equal(plane(b, 2, 1), 0x00);
	put(b, 0x3ce, 5, 0x01);
	plane(b, 0, 1);
	mmio_write(&b->fm, WINDOW + 100, 1, 0x55);
	assert_int_equal(plane(b, 3, 100), 0xff);
	assert_int_equal(plane(b, 0, 100), 0x00);
}

static void read_mode_1_compares_colours(void **state)
{
	struct bench *b = *state;

	planar_mode(b);
	put(b, 0x3ce, 5, 0x02);
	put(b, 0x3ce, 8, 0xcc);
	mmio_write(&b->fm, WINDOW, 1, 0x05);
	put(b, 0x3ce, 5, 0x08);
	put(b, 0x3ce, 2, 0x05);
	put(b, 0x3ce, 7, 0x0f);
	assert_int_equal(mmio_read(&b->fm, WINDOW, 1), 0xcc);
	put(b, 0x3ce, 7, 0x00); /* no plane matters */
	assert_int_equal(mmio_read(&b->fm, WINDOW, 1), 0xff);
}

static void chain_4_spreads_bytes_over_the_planes(void **state)
{
	struct bench *b = *state;

	planar_mode(b);
	put(b, 0x3c4, 4, 0x0e);
	mmio_write(&b->fm, WINDOW + 0x100, 4, 0x44332211);
	assert_int_equal(mmio_read(&b->fm, WINDOW + 0x100, 4), 0x44332211);
	put(b, 0x3c4, 4, 0x06);
	assert_int_equal(plane(b, 0, 0x100), 0x11);
	assert_int_equal(plane(b, 3, 0x100), 0x44);
}

static void attribute_flip_flop_follows_status_reads(void **state)
{
	struct bench *b = *state;

	outb(&b->fm, 0x3c2, 0x01);
	inb(&b->fm, 0x3da);
	outb(&b->fm, 0x3c0, 0x05);
	outb(&b->fm, 0x3c0, 0x2a);
	outb(&b->fm, 0x3c0, 0x06);
	inb(&b->fm, 0x3da);
	outb(&b->fm, 0x3c0, 0x25);
	assert_int_equal(inb(&b->fm, 0x3c1), 0x2a);
	inb(&b->fm, 0x3da);
	assert_int_equal(inb(&b->fm, 0x3c0), 0x25);
	assert_int_equal(inb(&b->fm, 0x3ba), 0xff); /* not in colour mode */
}

static void retrace_comes_and_goes_with_time(void **state)
{
	struct bench *b = *state;
	unsigned changes = 0;
	u8 last = 0;

	outb(&b->fm, 0x3c2, 0x01);
	for (unsigned i = 0; i < 1400; i++) {
		u8 now = inb(&b->fm, 0x3da) & 0x08;

		changes += now != last;
		last = now;
		clock_advance(b->fm.m.clock, 20000);
	}
	assert_in_range(changes, 2, 6); /* 28 ms of a 14 ms frame */
}

static void crtc_protects_its_timing(void **state)
{
	struct bench *b = *state;

	outb(&b->fm, 0x3c2, 0x01);
	put(b, 0x3d4, 0x11, 0x80);
	put(b, 0x3d4, 0x01, 0x4f);
	put(b, 0x3d4, 0x07, 0xff);
	outb(&b->fm, 0x3d4, 0x01);
	assert_int_equal(inb(&b->fm, 0x3d5), 0x00);
	outb(&b->fm, 0x3d4, 0x07);
	assert_int_equal(inb(&b->fm, 0x3d5), 0x10);
}

static void palette_goes_through_the_dac(void **state)
{
	struct bench *b = *state;

	outb(&b->fm, 0x3c8, 17);
	for (u8 i = 0; i < 6; i++)
		outb(&b->fm, 0x3c9, (u8)(0x3a + i * 3));
	outb(&b->fm, 0x3c7, 17);
	assert_int_equal(inb(&b->fm, 0x3c7), 3);
	for (u8 i = 0; i < 6; i++)
		assert_int_equal(inb(&b->fm, 0x3c9), (0x3a + i * 3) & 0x3f);
}

static void dispi_write(struct bench *b, u16 index, u16 value)
{
	outw(&b->fm, 0x1ce, index);
	outw(&b->fm, 0x1cf, value);
}

static u16 dispi_read(struct bench *b, u16 index)
{
	outw(&b->fm, 0x1ce, index);
	return inw(&b->fm, 0x1cf);
}

static void bochs_extension_sets_a_mode(void **state)
{
	struct bench *b = *state;

	assert_int_equal(dispi_read(b, 0), 0xb0c5);
	assert_int_equal(dispi_read(b, 10), 256);
	dispi_write(b, 4, 2);
	assert_int_equal(dispi_read(b, 1), 4096);
	dispi_write(b, 4, 0);
	dispi_write(b, 1, 800);
	dispi_write(b, 2, 600);
	dispi_write(b, 3, 32);
	assert_int_equal(mem_write(b->fm.m.mem, LFB, "\x12\x34\x56\x78", 4), 0);
	dispi_write(b, 4, 0x41); /* clears */
	assert_int_equal(dispi_read(b, 6), 800);
	assert_int_equal(dispi_read(b, 7), 16 * MiB / 3200);
	assert_int_equal(mmio_read(&b->fm, REGS + 0x502, 2), 800);
	assert_int_equal(mmio_read(&b->fm, REGS + 0x604, 4), 0x1e1e1e1e);
	dispi_write(b, 1, 640); /* not while it is on */
	assert_int_equal(dispi_read(b, 1), 800);
	dispi_write(b, 5, 3);
	mmio_write(&b->fm, WINDOW + 5, 1, 0x99);
	dispi_write(b, 5, 0);
	assert_int_equal(mmio_read(&b->fm, WINDOW, 4), 0);
	assert_int_equal(((u8 *)mem_ptr_rw(b->fm.m.mem, LFB + 3 * 65536, 16))[5], 0x99);
}

static void impossible_modes_stay_off(void **state)
{
	struct bench *b = *state;

	dispi_write(b, 4, 1); /* no resolution yet */
	assert_int_equal(dispi_read(b, 4) & 1, 0);
	dispi_write(b, 1, 2560);
	dispi_write(b, 2, 1600);
	dispi_write(b, 3, 32);
	dispi_write(b, 4, 1);
	assert_int_equal(dispi_read(b, 4) & 1, 1);
	dispi_write(b, 6, 0xffff); /* too wide for 1600 lines */
	assert_int_equal(dispi_read(b, 6), 2560);
	dispi_write(b, 4, 0);
	dispi_write(b, 3, 17);
	assert_int_equal(dispi_read(b, 3), 32);
}

static void ports_are_mirrored_in_bar_2(void **state)
{
	struct bench *b = *state;

	mmio_write(&b->fm, REGS + 0x402, 1, 0x01);
	assert_int_equal(inb(&b->fm, 0x3cc), 0x01);
	mmio_write(&b->fm, REGS + 0x414, 2, 0x4f13); /* index and data at once */
	outb(&b->fm, 0x3d4, 0x13);
	assert_int_equal(inb(&b->fm, 0x3d5), 0x4f);
}

#define VGA_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		VGA_TEST(text_comes_out_as_lines),
		VGA_TEST(start_address_scrolls_the_text),
		VGA_TEST(graphics_have_no_text),
		VGA_TEST(write_mode_0_obeys_masks_and_rotation),
		VGA_TEST(set_reset_and_write_mode_3_paint_a_colour),
		VGA_TEST(write_mode_1_copies_latches_and_2_takes_a_colour),
		VGA_TEST(read_mode_1_compares_colours),
		VGA_TEST(chain_4_spreads_bytes_over_the_planes),
		VGA_TEST(attribute_flip_flop_follows_status_reads),
		VGA_TEST(retrace_comes_and_goes_with_time),
		VGA_TEST(crtc_protects_its_timing),
		VGA_TEST(palette_goes_through_the_dac),
		VGA_TEST(bochs_extension_sets_a_mode),
		VGA_TEST(impossible_modes_stay_off),
		VGA_TEST(ports_are_mirrored_in_bar_2),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
