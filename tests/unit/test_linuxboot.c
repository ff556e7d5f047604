/* Direct kernel boot: what is decided about good files, and that bad ones are
 * refused with a reason. */
#define _GNU_SOURCE
#include "base/bytes.h"
#include "firmware/linuxboot_int.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define RAM	    (256 * MiB)
#define SETUP_SECTS 3
#define SETUP_BYTES ((SETUP_SECTS + 1) * 512)
#define CODE_BYTES  5000
#define FILE_BYTES  (SETUP_BYTES + CODE_BYTES)

struct bed {
	struct boot_plan p;
	struct linuxboot_options opt;
	struct error err;
	u8 file[16384];
	u64 file_bytes;
	char initrd[64];
};

static void reset_plan(struct bed *b)
{
	free(b->p.kernel.alloc);
	free(b->p.initrd.alloc);
	free(b->p.low.alloc);
	b->p = (struct boot_plan){.opt = &b->opt,
				  .file = b->file,
				  .file_bytes = b->file_bytes,
				  .ram_bytes = RAM,
				  .ram_end = RAM - BOOT_BIOS_BYTES};
}

/* A header as current kernels have it. */
static void make_bzimage(struct bed *b)
{
	u8 *h = b->file;

	memset(b->file, 0, sizeof(b->file));
	h[0x1f1] = SETUP_SECTS;
	store_le16(h + 0x1fe, 0xaa55);
	h[0x201] = 0x6a;
	memcpy(h + 0x202, "HdrS", 4);
	store_le16(h + 0x206, 0x20f);
	h[0x211] = 1;
	store_le32(h + 0x22c, 0x7fffffff);
	store_le16(h + 0x236, 1);
	store_le32(h + 0x238, 2047);
	store_le64(h + 0x258, 0x1000000);
	store_le32(h + 0x260, 32 * MiB);
	memset(b->file + SETUP_BYTES, 0x90, CODE_BYTES);
	b->file_bytes = FILE_BYTES;
	reset_plan(b);
}

static void make_initrd(struct bed *b, u64 bytes)
{
	int fd;

	snprintf(b->initrd, sizeof(b->initrd), "/tmp/test_linuxboot_XXXXXX");
	fd = mkstemp(b->initrd);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
	assert_int_equal(pwrite(fd, "initrd!", 7, 0), 7);
	close(fd);
	b->opt.initrd = b->initrd;
}

static int setup(void **state)
{
	struct bed *b = xnew(struct bed);

	b->opt.kernel = "vmlinuz";
	make_bzimage(b);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	reset_plan(b);
	if (b->initrd[0])
		unlink(b->initrd);
	free(b);
	return 0;
}

static const u8 *low(struct bed *b, u32 addr)
{
	assert_true(addr >= BOOT_LOW_ADDR && addr < BOOT_LOW_ADDR + b->p.low.bytes);
	return b->p.low.data + (addr - BOOT_LOW_ADDR);
}

/* --- bzImage ------------------------------------------------------------------------- */

static void a_64_bit_kernel_is_entered_in_long_mode(void **state)
{
	struct bed *b = *state;
	const u8 *zp, *tables;

	b->opt.append = "console=ttyS0 quiet";
	assert_true(bzimage_probe(b->file, b->file_bytes));
	assert_int_equal(bzimage_plan(&b->p, &b->err), 0);
	assert_true(b->p.long_mode);
	assert_int_equal(b->p.entry, 0x100200);
	assert_int_equal(b->p.kernel.addr, 0x100000);
	assert_int_equal(b->p.kernel.bytes, CODE_BYTES);
	assert_ptr_equal(b->p.kernel.data, b->file + SETUP_BYTES);
	zp = low(b, b->p.esi);
	assert_memory_equal(zp + 0x202, "HdrS", 4);
	assert_int_equal(zp[0x210], 0xff);
	assert_string_equal((const char *)low(b, load_le32(zp + 0x228)), "console=ttyS0 quiet");
	assert_int_equal(b->p.e820_addr, b->p.esi + 0x2d0);
	assert_int_equal(b->p.count_addr, b->p.esi + 0x1e8);
	tables = low(b, b->p.page_tables);
	assert_int_equal(load_le64(tables), (b->p.page_tables + 4096) | 3);
	assert_int_equal(load_le64(tables + 2 * 4096 + 2047 * 8), (2047 * 2 * MiB) | 0x83);
}

static void an_older_kernel_is_entered_in_32_bit_mode(void **state)
{
	struct bed *b = *state;

	store_le16(b->file + 0x236, 0);
	assert_int_equal(bzimage_plan(&b->p, &b->err), 0);
	assert_false(b->p.long_mode);
	assert_int_equal(b->p.entry, 0x100000);
	store_le16(b->file + 0x236, 1);
	store_le16(b->file + 0x206, 0x206); /* the field means nothing yet */
	reset_plan(b);
	assert_int_equal(bzimage_plan(&b->p, &b->err), 0);
	assert_false(b->p.long_mode);
}

static void the_initrd_lies_high_and_out_of_the_way(void **state)
{
	struct bed *b = *state;
	const u8 *zp;

	make_initrd(b, 1000000);
	assert_int_equal(bzimage_plan(&b->p, &b->err), 0);
	assert_int_equal(b->p.initrd.bytes, 1000000);
	assert_true(is_aligned(b->p.initrd.addr, 4096));
	assert_true(b->p.initrd.addr + 1000000 <= RAM - BOOT_BIOS_BYTES);
	assert_true(b->p.initrd.addr > RAM - BOOT_BIOS_BYTES - 1010000);
	zp = low(b, b->p.esi);
	assert_int_equal(load_le32(zp + 0x218), b->p.initrd.addr);
	assert_int_equal(load_le32(zp + 0x21c), 1000000);
	store_le32(b->file + 0x22c, 100 * MiB - 1); /* the kernel cannot reach higher */
	reset_plan(b);
	assert_int_equal(bzimage_plan(&b->p, &b->err), 0);
	assert_true(b->p.initrd.addr + 1000000 <= 100 * MiB);
}

static void expect_refusal(struct bed *b, const char *what)
{
	int ret;

	reset_plan(b);
	ret = bzimage_plan(&b->p, &b->err);
	assert_true(ret < 0);
	if (!strstr(b->err.text, what))
		fail_msg("'%s' expected, got '%s'", what, b->err.text);
}

static void bad_kernels_are_refused_by_name(void **state)
{
	struct bed *b = *state;
	char long_line[3000];

	store_le16(b->file + 0x206, 0x205);
	expect_refusal(b, "boot protocol 2.05, expected 2.06 or later");
	make_bzimage(b);
	b->file[0x211] = 0;
	expect_refusal(b, "is a zImage");
	make_bzimage(b);
	b->file_bytes = SETUP_BYTES;
	expect_refusal(b, "its setup code alone has 2048 bytes");
	make_bzimage(b);
	store_le32(b->file + 0x260, RAM);
	expect_refusal(b, "MiB of memory, there are 256");
	store_le64(b->file + 0x258, UINT64_MAX - 5);
	expect_refusal(b, "wants to be at");
	make_bzimage(b);
	memset(long_line, 'x', sizeof(long_line));
	long_line[2048] = 0;
	b->opt.append = long_line;
	expect_refusal(b, "command line has 2048 characters, the kernel takes 2047");
	long_line[2047] = 0;
	reset_plan(b);
	assert_int_equal(bzimage_plan(&b->p, &b->err), 0);
	make_initrd(b, 230 * MiB);
	expect_refusal(b, "the guest needs more memory");
	b->opt.initrd = "/nonexistent/initrd";
	expect_refusal(b, "could not load initrd '/nonexistent/initrd'");
}

/* --- multiboot ------------------------------------------------------------------------ */

static void put_mb_header(u8 *at, u32 flags)
{
	store_le32(at, 0x1badb002);
	store_le32(at + 4, flags);
	store_le32(at + 8, (u32) - (0x1badb002 + flags));
}

static void make_elf32(struct bed *b, u32 paddr, u32 vaddr)
{
	Elf32_Ehdr e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, 1},
			.e_type = ET_EXEC,
			.e_machine = EM_386,
			.e_entry = vaddr + 0x20,
			.e_phoff = sizeof(e),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 1};
	Elf32_Phdr ph = {.p_type = PT_LOAD,
			 .p_offset = 0x1000,
			 .p_vaddr = vaddr,
			 .p_paddr = paddr,
			 .p_filesz = 0x800,
			 .p_memsz = 0x3000};

	memset(b->file, 0, sizeof(b->file));
	memcpy(b->file, &e, sizeof(e));
	memcpy(b->file + sizeof(e), &ph, sizeof(ph));
	put_mb_header(b->file + 0x1000, 3);
	memset(b->file + 0x1020, 0x90, 0x7e0);
	b->file_bytes = 0x1800;
	reset_plan(b);
}

static void an_elf_kernel_is_loaded_by_its_segments(void **state)
{
	struct bed *b = *state;
	const u8 *info;

	make_elf32(b, 0x200000, 0xc0200000);
	b->opt.append = "a=b";
	assert_true(multiboot_probe(b->file, b->file_bytes));
	assert_int_equal(multiboot_plan(&b->p, &b->err), 0);
	assert_int_equal(b->p.kernel.addr, 0x200000);
	assert_int_equal(b->p.kernel.bytes, 0x3000);
	assert_memory_equal(b->p.kernel.data, b->file + 0x1000, 0x800);
	assert_int_equal(b->p.kernel.data[0x800], 0);
	assert_int_equal(b->p.entry, 0x200020); /* physical */
	assert_int_equal(b->p.eax, 0x2badb002);
	info = low(b, b->p.ebx);
	assert_int_equal(load_le32(info), 0x24d);
	assert_int_equal(load_le32(info + 8), (RAM - MiB) / KiB);
	assert_string_equal((const char *)low(b, load_le32(info + 16)), "vmlinuz a=b");
	assert_int_equal(b->p.e820_addr, load_le32(info + 48) + 4);
	assert_int_equal(load_le32(low(b, load_le32(info + 48))), 20);
	assert_int_equal(b->p.count_addr, b->p.ebx + 44);
	assert_int_equal(b->p.count_unit, 24);
}

static void a_flat_kernel_is_loaded_by_its_addresses(void **state)
{
	struct bed *b = *state;
	u8 *h = b->file + 0x100;

	memset(b->file, 0x11, sizeof(b->file));
	put_mb_header(h, 1 << 16);
	store_le32(h + 12, 0x100100); /* header */
	store_le32(h + 16, 0x100000); /* load */
	store_le32(h + 20, 0x100400); /* end of data */
	store_le32(h + 24, 0x101000); /* end of bss */
	store_le32(h + 28, 0x100200); /* entry */
	b->file_bytes = 0x800;
	reset_plan(b);
	assert_int_equal(multiboot_plan(&b->p, &b->err), 0);
	assert_int_equal(b->p.kernel.addr, 0x100000);
	assert_int_equal(b->p.kernel.bytes, 0x1000);
	assert_memory_equal(b->p.kernel.data, b->file, 0x400);
	assert_int_equal(b->p.kernel.data[0x400], 0);
	assert_int_equal(b->p.entry, 0x100200);
}

static void modules_follow_the_kernel(void **state)
{
	struct bed *b = *state;
	char list[256];
	const u8 *info, *mods;

	make_elf32(b, 0x100000, 0x100000);
	make_initrd(b, 5000);
	snprintf(list, sizeof(list), "%s one,,two three,%s", b->initrd, b->initrd);
	b->opt.initrd = list;
	assert_int_equal(multiboot_plan(&b->p, &b->err), 0);
	info = low(b, b->p.ebx);
	assert_int_equal(load_le32(info + 20), 2);
	mods = low(b, load_le32(info + 24));
	assert_int_equal(load_le32(mods), 0x103000);
	assert_int_equal(load_le32(mods + 4), 0x103000 + 5000);
	assert_non_null(strstr((const char *)low(b, load_le32(mods + 8)), " one,two three"));
	assert_int_equal(load_le32(mods + 16), 0x105000);
	assert_string_equal((const char *)low(b, load_le32(mods + 24)), b->initrd);
	assert_memory_equal(b->p.initrd.data + 0x2000, "initrd!", 7);
	b->opt.initrd = "/nonexistent/module a";
	reset_plan(b);
	assert_true(multiboot_plan(&b->p, &b->err) < 0);
	assert_non_null(strstr(b->err.text, "could not load module '/nonexistent/module'"));
}

static void bad_multiboot_kernels_are_refused_by_name(void **state)
{
	struct bed *b = *state;

	make_elf32(b, 0x1000, 0x1000);
	assert_int_equal(multiboot_plan(&b->p, &b->err), -ENOMEM);
	make_elf32(b, RAM, RAM);
	assert_int_equal(multiboot_plan(&b->p, &b->err), -ENOMEM);
	make_elf32(b, 0x100000, 0x100000);
	put_mb_header(b->file + 0x1000, 1 << 5);
	assert_int_equal(multiboot_plan(&b->p, &b->err), -ENOEXEC);
	assert_non_null(strstr(b->err.text, "requires features 0x20"));
	make_elf32(b, 0x100000, 0x100000);
	b->file[0] = 0;
	assert_int_equal(multiboot_plan(&b->p, &b->err), -ENOEXEC);
	make_elf32(b, 0x100000, 0x100000);
	b->file_bytes = 0x1100;
	reset_plan(b);
	assert_int_equal(multiboot_plan(&b->p, &b->err), -ENOEXEC);
	assert_non_null(strstr(b->err.text, "beyond the end of the file"));
}

static void no_memory_is_an_error(void **state)
{
	struct bed *b = *state;
	int ret = -ENOMEM;
	unsigned nth;

	make_elf32(b, 0x100000, 0x100000);
	make_initrd(b, 5000);
	for (nth = 1; ret < 0; nth++) {
		reset_plan(b);
		try_alloc_fail_nth(nth);
		ret = multiboot_plan(&b->p, &b->err);
		try_alloc_fail_nth(0);
		assert_true(ret == 0 || ret == -ENOMEM);
	}
	assert_true(nth > 3);
}

/* --- damaged files ----------------------------------------------------------------------- */

static u64 rnd(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Plan from a copy of just the file's bytes, so that sanitizers see reads beyond. */
static void plan_once(struct bed *b, u64 bytes, unsigned *good)
{
	u8 *copy = xalloc(bytes);
	int ret = -ENOEXEC;

	memcpy(copy, b->file, bytes);
	reset_plan(b);
	b->p.file = copy;
	b->p.file_bytes = bytes;
	if (bzimage_probe(copy, bytes))
		ret = bzimage_plan(&b->p, &b->err);
	else if (multiboot_probe(copy, bytes))
		ret = multiboot_plan(&b->p, &b->err);
	*good += ret == 0;
	if (ret == 0)
		assert_true(b->p.kernel.addr + b->p.kernel.bytes <= RAM - BOOT_BIOS_BYTES);
	reset_plan(b);
	free(copy);
}

static void damaged_files_do_no_harm(void **state)
{
	struct bed *b = *state;
	unsigned good = 0, rounds = 6000;
	u64 seed = 4711;

	for (unsigned i = 0; i < rounds; i++) {
		static const u32 hot[] = {0x1f1, 0x200, 0x0, 0x1000};
		u64 bytes;

		if (i % 2)
			make_bzimage(b);
		else
			make_elf32(b, 0x100000, 0x100000);
		bytes = rnd(&seed) % 4 ? b->file_bytes : 1 + rnd(&seed) % b->file_bytes;
		for (u64 n = rnd(&seed) % 4; n; n--)
			b->file[hot[rnd(&seed) % 4] + rnd(&seed) % 0x70] = (u8)rnd(&seed);
		plan_once(b, bytes, &good);
	}
	assert_true(good > 100 && good < rounds);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_64_bit_kernel_is_entered_in_long_mode, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_older_kernel_is_entered_in_32_bit_mode, setup,
						teardown),
		cmocka_unit_test_setup_teardown(the_initrd_lies_high_and_out_of_the_way, setup,
						teardown),
		cmocka_unit_test_setup_teardown(bad_kernels_are_refused_by_name, setup, teardown),
		cmocka_unit_test_setup_teardown(an_elf_kernel_is_loaded_by_its_segments, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_flat_kernel_is_loaded_by_its_addresses, setup,
						teardown),
		cmocka_unit_test_setup_teardown(modules_follow_the_kernel, setup, teardown),
		cmocka_unit_test_setup_teardown(bad_multiboot_kernels_are_refused_by_name, setup,
						teardown),
		cmocka_unit_test_setup_teardown(no_memory_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_files_do_no_harm, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
