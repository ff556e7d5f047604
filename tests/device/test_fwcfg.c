/* fw_cfg through its ports and by DMA, as SeaBIOS and Linux use it. */
#include "base/bytes.h"
#include "devices/fwcfg.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct bench {
	struct fake_machine fm;
	struct fwcfg *fw;
};

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);

	fake_machine_init(&b->fm, MiB);
	b->fw = fwcfg_of(fake_device(&b->fm, &fwcfg_class, NULL, NULL));
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

static void read_key(struct bench *b, u16 key, void *to, size_t bytes)
{
	outw(&b->fm, 0x510, key);
	for (size_t i = 0; i < bytes; i++)
		((u8 *)to)[i] = inb(&b->fm, 0x511);
}

/* Runs a request that lies at 0x100; returns the control word left there. */
static u32 dma(struct bench *b, u32 control, u32 bytes, u64 gpa)
{
	u8 request[16];

	store_be32(request, control);
	store_be32(request + 4, bytes);
	store_be64(request + 8, gpa);
	mem_write(b->fm.m.mem, 0x100, request, sizeof(request));
	outl(&b->fm, 0x514, 0);
	outl(&b->fm, 0x518, htobe32(0x100));
	mem_read(b->fm.m.mem, 0x100, request, 4);
	return load_be32(request);
}

static void signature_and_id_are_there(void **state)
{
	struct bench *b = *state;
	u8 got[8];

	read_key(b, FWCFG_SIGNATURE, got, 4);
	assert_memory_equal(got, "QEMU", 4);
	read_key(b, FWCFG_ID, got, 4);
	assert_int_equal(load_le32(got), 3);
	assert_int_equal(inl(&b->fm, 0x514), 0x554d4551);
	assert_int_equal(inl(&b->fm, 0x518), 0x47464320);
}

static void values_are_little_endian_and_end_in_zeros(void **state)
{
	struct bench *b = *state;
	u8 got[12];

	fwcfg_add_u64(b->fw, FWCFG_RAM_SIZE, 0x123456789abcull);
	fwcfg_add_u16(b->fw, FWCFG_NB_CPUS, 3);
	read_key(b, FWCFG_RAM_SIZE, got, 12);
	assert_int_equal(load_le64(got), 0x123456789abcull);
	assert_int_equal(load_le32(got + 8), 0);
	read_key(b, FWCFG_NB_CPUS, got, 2);
	assert_int_equal(load_le16(got), 3);
	read_key(b, 0x3fff, got, 2);
	assert_int_equal(load_le16(got), 0);
}

static void directory_is_sorted_and_its_keys_work(void **state)
{
	struct bench *b = *state;
	u8 dir[4 + 3 * 64], got[5];

	fwcfg_add_file(b->fw, "etc/e820", "E820!", 5);
	fwcfg_add_file(b->fw, "bootorder", "B", 1);
	fwcfg_add_file(b->fw, "etc/acpi/rsdp", "RSD", 3);
	read_key(b, FWCFG_FILE_DIR, dir, sizeof(dir));
	assert_int_equal(load_be32(dir), 3);
	assert_string_equal((char *)dir + 4 + 8, "bootorder");
	assert_string_equal((char *)dir + 4 + 64 + 8, "etc/acpi/rsdp");
	assert_string_equal((char *)dir + 4 + 128 + 8, "etc/e820");
	assert_int_equal(load_be32(dir + 4 + 128), 5);
	read_key(b, load_be16(dir + 4 + 128 + 4), got, 5);
	assert_memory_equal(got, "E820!", 5);
}

static void dma_selects_skips_and_reads(void **state)
{
	struct bench *b = *state;
	u8 got[8];

	fwcfg_add_bytes(b->fw, FWCFG_CMDLINE_DATA, "0123456789", 10);
	assert_int_equal(dma(b, (u32)FWCFG_CMDLINE_DATA << 16 | 8 | 4, 3, 0), 0);
	assert_int_equal(dma(b, 2, 4, 0x200), 0);
	mem_read(b->fm.m.mem, 0x200, got, 4);
	assert_memory_equal(got, "3456", 4);
	assert_int_equal(dma(b, 2, 6, 0x200), 0);
	mem_read(b->fm.m.mem, 0x200, got, 6);
	assert_memory_equal(got, "789\0\0\0", 6);
}

static void dma_to_nowhere_and_writes_are_errors(void **state)
{
	struct bench *b = *state;

	fwcfg_add_bytes(b->fw, FWCFG_CMDLINE_DATA, "0123456789", 10);
	assert_int_equal(dma(b, (u32)FWCFG_CMDLINE_DATA << 16 | 8 | 2, 4, 0x40000000), 1);
	assert_int_equal(dma(b, 2, 0xffffffff, UINT64_MAX - 2), 1);
	assert_int_equal(dma(b, 0x10, 4, 0x200), 1);
	outl(&b->fm, 0x514, 0xffffffff); /* the request itself is nowhere */
	outl(&b->fm, 0x518, 0xffffffff);
}

#define FWCFG_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		FWCFG_TEST(signature_and_id_are_there),
		FWCFG_TEST(values_are_little_endian_and_end_in_zeros),
		FWCFG_TEST(directory_is_sorted_and_its_keys_work),
		FWCFG_TEST(dma_selects_skips_and_reads),
		FWCFG_TEST(dma_to_nowhere_and_writes_are_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
