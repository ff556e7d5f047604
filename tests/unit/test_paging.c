/* Page tables made by hand, in each of the modes, and ones that lead nowhere. */
#include "base/bytes.h"
#include "vmm/core/paging.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define PG   (1u << 31)
#define PSE  (1u << 4)
#define PAE  (1u << 5)
#define LA57 (1u << 12)
#define LMA  (1u << 10)
#define NX   ((u64)1 << 63)

struct bench {
	u8 ram[8 * 4096];
	struct paging p;
	struct paging_leaf found[16];
	u64 n, most;
};

static int read_ram(void *arg, u64 gpa, void *buf, u64 bytes)
{
	struct bench *b = arg;

	if (gpa + bytes > sizeof(b->ram))
		return -1;
	memcpy(buf, b->ram + gpa, bytes);
	return 0;
}

static struct bench *start(u64 cr4, u64 efer)
{
	struct bench *b = xnew(struct bench);

	b->p = (struct paging){PG, 0x1000, cr4, efer, read_ram, b};
	b->most = UINT64_MAX;
	return b;
}

static bool take(void *arg, const struct paging_leaf *leaf)
{
	struct bench *b = arg;

	if (b->n < ARRAY_LEN(b->found))
		b->found[b->n] = *leaf;
	return ++b->n < b->most;
}

static void put32(struct bench *b, u32 table, u32 i, u32 entry)
{
	store_le32(b->ram + table + 4 * i, entry);
}

static void put64(struct bench *b, u32 table, u32 i, u64 entry)
{
	store_le64(b->ram + table + 8 * i, entry);
}

static void expect(struct bench *b, unsigned i, u64 gva, u64 gpa, u64 bytes, const char *rights)
{
	const struct paging_leaf *l = &b->found[i];

	assert_int_equal(l->gva, gva);
	assert_int_equal(l->gpa, gpa);
	assert_int_equal(l->bytes, bytes);
	assert_int_equal(l->user, rights[0] == 'u');
	assert_int_equal(l->write, rights[1] == 'w');
}

static void without_paging_nothing_is_mapped(void **state)
{
	AUTO_FREE struct bench *b = start(0, 0);

	b->p.cr0 = 0;
	put32(b, 0x1000, 0, 0x2003);
	assert_false(paging_is_on(&b->p));
	assert_true(paging_each(&b->p, take, b));
	assert_int_equal(b->n, 0);
}

static void two_levels_of_32_bits(void **state)
{
	AUTO_FREE struct bench *b = start(PSE, 0);

	put32(b, 0x1000, 1, 0x2007);
	put32(b, 0x2000, 5, 0x7005); /* user, read only */
	put32(b, 0x2000, 6, 0x8006); /* not present */
	put32(b, 0x1000, 1023, 0xc0000083 | 1 << 13);
	assert_true(paging_each(&b->p, take, b));
	assert_int_equal(b->n, 2);
	assert_int_equal(paging_digits(&b->p), 8);
	expect(b, 0, 0x405000, 0x7000, 4096, "u-");
	expect(b, 1, 0xffc00000, 0x1c0000000, 4 * MiB, "-w");
}

static void pae_has_four_tables_without_rights(void **state)
{
	AUTO_FREE struct bench *b = start(PAE, 0);

	b->p.cr3 = 0x1020;
	put64(b, 0x1020, 3, 0x2001);
	put64(b, 0x2000, 1, 0x123200087);
	put64(b, 0x2000, 2, 0x3003);
	put64(b, 0x3000, 511, NX | 0x5007);
	assert_true(paging_each(&b->p, take, b));
	assert_int_equal(b->n, 2);
	assert_int_equal(paging_digits(&b->p), 16);
	expect(b, 0, 0xc0200000, 0x123200000, 2 * MiB, "uw");
	expect(b, 1, 0xc05ff000, 0x5000, 4096, "-w");
	assert_int_equal(b->found[1].entry, NX | 0x5007);
}

static void long_mode_has_canonical_addresses(void **state)
{
	for (unsigned five = 0; five < 2; five++) {
		AUTO_FREE struct bench *b = start(PAE | (five ? LA57 : 0), LMA);
		u32 top = five ? 0x2000 : 0x1000;

		if (five)
			put64(b, 0x1000, 511, 0x2007);
		put64(b, top, 256, 0x3003);
		put64(b, 0x3000, 1, 0x40000085);
		put64(b, 0x3000, 2, 0x4007);
		put64(b, 0x4000, 0, 0x200087);
		assert_true(paging_each(&b->p, take, b));
		assert_int_equal(b->n, 2);
		expect(b, 0, 0xffff800040000000, 0x40000000, 1 * GiB, "--");
		expect(b, 1, 0xffff800080000000, 0x200000, 2 * MiB, "-w");
	}
}

/* Every entry leads back to its own table: 512^4 pages. */
static void tables_that_lead_into_each_other_come_to_an_end(void **state)
{
	AUTO_FREE struct bench *b = start(PAE, LMA);

	for (u32 i = 0; i < 512; i++)
		put64(b, 0x1000, i, 0x1003);
	assert_false(paging_each(&b->p, take, b));
	assert_true(b->n > 1000);
	b->n = 0;
	b->most = 7;
	assert_false(paging_each(&b->p, take, b));
	assert_int_equal(b->n, 7);
	memset(b->ram, 0, sizeof(b->ram));
	b->n = 0;
	b->p.cr3 = 0xfffffffff000; /* no memory there */
	assert_true(paging_each(&b->p, take, b));
	assert_int_equal(b->n, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_paging_nothing_is_mapped),
		cmocka_unit_test(two_levels_of_32_bits),
		cmocka_unit_test(pae_has_four_tables_without_rights),
		cmocka_unit_test(long_mode_has_canonical_addresses),
		cmocka_unit_test(tables_that_lead_into_each_other_come_to_an_end),
	};

	return cmocka_run_group_tests_name("paging", tests, NULL, NULL);
}
