/* Linux bzImage by the 64-bit boot protocol, or the 32-bit one for kernels without
 * it.  Linux's Documentation/arch/x86/boot.rst, "The real-mode kernel header",
 * "32-bit boot protocol", "64-bit boot protocol"; zero-page.rst.
 *
 * Thread: control.  The zero page is made here but for the memory map, which the ROM
 * asks the BIOS for: only it knows what it has reserved. */
#include "firmware/linuxboot_int.h"

#include "base/bytes.h"

#include <errno.h>

/* Offsets in the file's first sector and, the same, in the zero page. */
enum {
	HDR_SETUP_SECTS = 0x1f1,
	HDR_BOOT_FLAG = 0x1fe,
	HDR_JUMP_LENGTH = 0x201, /* the header ends at 0x202 + this */
	HDR_MAGIC = 0x202,
	HDR_VERSION = 0x206,
	HDR_LOADER = 0x210,
	HDR_LOADFLAGS = 0x211,
	HDR_RAMDISK = 0x218,
	HDR_RAMDISK_BYTES = 0x21c,
	HDR_CMDLINE = 0x228,
	HDR_INITRD_MAX = 0x22c,
	HDR_XLOADFLAGS = 0x236,
	HDR_CMDLINE_BYTES = 0x238,
	HDR_PREF_ADDRESS = 0x258,
	HDR_INIT_BYTES = 0x260,
	HDR_END = 0x264, /* as far as we look */
};

/* Offsets in the zero page only. */
enum {
	ZP_VIDEO_MODE = 0x06,
	ZP_VIDEO_COLUMNS = 0x07,
	ZP_VIDEO_LINES = 0x0e,
	ZP_VIDEO_IS_VGA = 0x0f,
	ZP_VIDEO_POINTS = 0x10,
	ZP_ALT_MEM = 0x1e0,
	ZP_E820_ENTRIES = 0x1e8,
	ZP_E820_TABLE = 0x2d0,
	ZP_BYTES = 4096,
};

#define E820_ENTRY_BYTES 20
#define E820_ENTRIES	 128
#define LOADED_HIGH	 1
#define XLF_KERNEL_64	 1
#define KERNEL_ADDR	 0x100000u
#define ENTRY_64	 0x200u /* from the kernel's start */
#define LOADER_UNKNOWN	 0xff
#define PAGE		 4096u

#define PROTOCOL_MIN 0x206 /* has cmdline_size */
#define PROTOCOL_210 0x20a /* has pref_address and init_size */
#define PROTOCOL_212 0x20c /* has xloadflags */

bool bzimage_probe(const u8 *file, u64 bytes)
{
	return bytes >= HDR_END && load_le16(file + HDR_BOOT_FLAG) == 0xaa55 &&
	       !memcmp(file + HDR_MAGIC, "HdrS", 4);
}

struct setup {
	u32 bytes;	 /* of boot sector and real-mode code */
	u32 version;	 /* protocol */
	u32 header_end;	 /* in the first sectors */
	u64 memory_end;	 /* the kernel works below this until it has its map */
	u32 cmdline_max; /* without the zero at the end */
	u32 initrd_max;	 /* last byte */
	bool entry_64;
};

static int parse_setup(const struct boot_plan *p, struct setup *s, struct error *err)
{
	const u8 *h = p->file;
	u32 sects = h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4;

	s->bytes = (sects + 1) * 512;
	s->version = load_le16(h + HDR_VERSION);
	s->header_end = HDR_MAGIC + h[HDR_JUMP_LENGTH];
	if (s->version < PROTOCOL_MIN)
		return err_set(err, -ENOEXEC,
			       "kernel '%s' has boot protocol %u.%02u, expected 2.06 or later",
			       p->opt->kernel, s->version >> 8, s->version & 0xff);
	if (!(h[HDR_LOADFLAGS] & LOADED_HIGH))
		return err_set(err, -ENOEXEC, "kernel '%s' is a zImage, expected a bzImage",
			       p->opt->kernel);
	if (p->file_bytes <= s->bytes)
		return err_set(err, -ENOEXEC,
			       "kernel '%s' ends at %llu, its setup code alone has %u bytes",
			       p->opt->kernel, (unsigned long long)p->file_bytes, s->bytes);
	s->cmdline_max = load_le32(h + HDR_CMDLINE_BYTES);
	s->initrd_max = load_le32(h + HDR_INITRD_MAX);
	s->entry_64 = s->version >= PROTOCOL_212 && load_le16(h + HDR_XLOADFLAGS) & XLF_KERNEL_64;
	s->memory_end = KERNEL_ADDR + p->file_bytes - s->bytes;
	if (s->version >= PROTOCOL_210) {
		u64 at = MAX(load_le64(h + HDR_PREF_ADDRESS), (u64)KERNEL_ADDR), end;

		if (!add_ok(at, load_le32(h + HDR_INIT_BYTES), &end))
			return err_set(err, -ENOEXEC, "kernel '%s' wants to be at 0x%llx",
				       p->opt->kernel, (unsigned long long)at);
		s->memory_end = MAX(s->memory_end, end);
	}
	if (s->memory_end > p->ram_end)
		return err_set(err, -ENOMEM, "kernel '%s' needs %llu MiB of memory, there are %llu",
			       p->opt->kernel,
			       (unsigned long long)((s->memory_end + BOOT_BIOS_BYTES) / MiB + 1),
			       (unsigned long long)(p->ram_bytes / MiB));
	return 0;
}

/* As high as the kernel can reach, so that it never stands in the way. */
static int place_initrd(struct boot_plan *p, const struct setup *s, struct error *err)
{
	u64 end = MIN(p->ram_end, (u64)s->initrd_max + 1);
	int ret;

	if (!p->opt->initrd)
		return 0;
	ret = boot_read_file("initrd", p->opt->initrd, &p->initrd, err);
	if (ret < 0)
		return ret;
	if (p->initrd.bytes > end || align_down(end - p->initrd.bytes, PAGE) < s->memory_end)
		return err_set(err, -ENOMEM,
			       "initrd '%s' has %llu bytes, there is room for %llu: the guest "
			       "needs more memory",
			       p->opt->initrd, (unsigned long long)p->initrd.bytes,
			       (unsigned long long)(end > s->memory_end ? end - s->memory_end : 0));
	p->initrd.addr = (u32)align_down(end - p->initrd.bytes, PAGE);
	return 0;
}

static int place_cmdline(struct boot_plan *p, const struct setup *s, u32 *addr, struct error *err)
{
	const char *text = p->opt->append ? p->opt->append : "";
	size_t bytes = strlen(text);
	u8 *room;

	room = bytes <= s->cmdline_max ? boot_low_alloc(p, bytes + 1, 16, addr) : NULL;
	if (!room)
		return err_set(err, -E2BIG,
			       "kernel command line has %zu characters, the kernel takes %u", bytes,
			       s->cmdline_max);
	memcpy(room, text, bytes);
	return 0;
}

/* The screen as the BIOS leaves it: the kernel's setup code, which would ask, is not
 * run. */
static void describe_screen(u8 *zp)
{
	zp[ZP_VIDEO_MODE] = 3;
	zp[ZP_VIDEO_COLUMNS] = 80;
	zp[ZP_VIDEO_LINES] = 25;
	zp[ZP_VIDEO_IS_VGA] = 1;
	store_le16(zp + ZP_VIDEO_POINTS, 16);
}

static void make_zero_page(struct boot_plan *p, const struct setup *s, u8 *zp, u32 cmdline)
{
	u32 header_end = MIN(s->header_end, (u32)ZP_E820_TABLE);

	memcpy(zp + HDR_SETUP_SECTS, p->file + HDR_SETUP_SECTS, header_end - HDR_SETUP_SECTS);
	describe_screen(zp);
	store_le32(zp + ZP_ALT_MEM, (u32)((p->ram_bytes - MiB) / KiB));
	zp[HDR_LOADER] = LOADER_UNKNOWN;
	store_le32(zp + HDR_CMDLINE, cmdline);
	store_le32(zp + HDR_RAMDISK, p->initrd.addr);
	store_le32(zp + HDR_RAMDISK_BYTES, (u32)p->initrd.bytes);
}

/* Identity map of the first 4 GiB in pages of 2 MiB. */
static int make_page_tables(struct boot_plan *p, struct error *err)
{
	enum { PRESENT_WRITABLE = 3, LARGE = 0x80, TABLES = 6, GIBS = 4 };
	u8 *tables = boot_low_alloc(p, TABLES * PAGE, PAGE, &p->page_tables);

	if (!tables)
		return err_set(err, -ENOMEM, "no room for page tables");
	store_le64(tables, (p->page_tables + PAGE) | PRESENT_WRITABLE);
	for (u64 i = 0; i < GIBS; i++)
		store_le64(tables + PAGE + i * 8,
			   (p->page_tables + (2 + i) * PAGE) | PRESENT_WRITABLE);
	for (u64 i = 0; i < GIBS * 512; i++)
		store_le64(tables + 2 * PAGE + i * 8, (i * 2 * MiB) | PRESENT_WRITABLE | LARGE);
	return 0;
}

int bzimage_plan(struct boot_plan *p, struct error *err)
{
	u32 zero_page, cmdline;
	struct setup s = {0};
	int ret = parse_setup(p, &s, err);
	u8 *zp;

	if (ret == 0)
		ret = place_initrd(p, &s, err);
	if (ret < 0)
		return ret;
	zp = boot_low_alloc(p, ZP_BYTES, PAGE, &zero_page);
	assert(zp);
	if (s.entry_64)
		ret = make_page_tables(p, err);
	if (ret == 0)
		ret = place_cmdline(p, &s, &cmdline, err);
	if (ret < 0)
		return ret;
	make_zero_page(p, &s, zp, cmdline);
	p->kernel.data = p->file + s.bytes;
	p->kernel.bytes = p->file_bytes - s.bytes;
	p->kernel.addr = KERNEL_ADDR;
	p->long_mode = s.entry_64;
	p->entry = KERNEL_ADDR + (s.entry_64 ? ENTRY_64 : 0);
	p->esi = zero_page;
	p->e820_addr = zero_page + ZP_E820_TABLE;
	p->e820_stride = E820_ENTRY_BYTES;
	p->e820_max = E820_ENTRIES;
	p->count_addr = zero_page + ZP_E820_ENTRIES;
	p->count_unit = 1;
	return 0;
}
