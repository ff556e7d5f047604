/* Guest memory without KVM: lookup, aliases, ROM, dirty pages, moves. */
#include "vmm/core/mem.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define PAGE (4 * KiB)

/* What a hypervisor would know. */
struct host {
	struct mem_slot slots[8];
	u64 dirty[8]; /* first 64 pages of each slot */
	int refuse;   /* result of the next set_slot */
	int lost;     /* result of the next get_dirty */
	bool clears;  /* whenever it is asked */
};

static int set_slot(void *arg, const struct mem_slot *slot)
{
	struct host *h = arg;
	int ret = h->refuse;

	h->refuse = 0;
	assert_true(slot->id < ARRAY_LEN(h->slots));
	if (ret == 0)
		h->slots[slot->id] = *slot;
	return ret;
}

static int get_dirty(void *arg, const struct mem_slot *slot, u64 *bitmap, bool clear)
{
	struct host *h = arg;
	int ret = h->lost;

	assert_true(h->slots[slot->id].log_dirty && slot->bytes == h->slots[slot->id].bytes);
	bitmap[0] = ret < 0 ? 0 : h->dirty[slot->id];
	if (clear || h->clears)
		h->dirty[slot->id] = 0;
	h->lost = 0;
	return ret;
}

static const struct mem_ops ops = {set_slot, get_dirty};

static struct mem *new_mem(struct host *h)
{
	struct error err = {0};
	struct mem *mem;

	assert_int_equal(mem_new(&mem, h ? &ops : NULL, h, &err), 0);
	return mem;
}

static struct mem_region *add(struct mem *mem, u64 gpa, u64 bytes, enum mem_kind kind)
{
	struct mem_place place = {"memory", gpa, bytes, kind};
	struct error err = {0};
	struct mem_region *r = NULL;

	assert_int_equal(mem_add(mem, &r, &place, &err), 0);
	return r;
}

static struct mem_region *alias(struct mem *mem, struct mem_region *of, u64 offset, u64 gpa,
				u64 bytes)
{
	struct mem_place place = {"alias", gpa, bytes, MEM_RAM};
	struct error err = {0};
	struct mem_region *r = NULL;

	assert_int_equal(mem_add_alias(mem, &r, &place, of, offset, &err), 0);
	return r;
}

static void bytes_written_are_read_across_regions(void **state)
{
	struct mem *mem = new_mem(NULL);
	char out[16] = "";

	add(mem, 0, PAGE, MEM_RAM);
	add(mem, PAGE, PAGE, MEM_RAM);
	assert_int_equal(mem_write(mem, PAGE - 3, "abcdefg", 8), 0);
	assert_int_equal(mem_read(mem, PAGE - 3, out, 8), 0);
	assert_string_equal(out, "abcdefg");
	assert_memory_equal((u8 *)mem_ptr_ro(mem, PAGE, 1), "defg", 5);
	assert_null(mem_ptr_rw(mem, PAGE - 3, 8)); /* not in one region */
	mem_free(mem);
}

static void a_hole_is_a_fault_and_nothing_is_copied(void **state)
{
	struct mem *mem = new_mem(NULL);
	char out[8] = "xxxxxxx";

	add(mem, 0, PAGE, MEM_RAM);
	assert_int_equal(mem_write(mem, PAGE - 4, "12345678", 8), -EFAULT);
	assert_int_equal(*(const u8 *)mem_ptr_ro(mem, PAGE - 4, 1), 0);
	assert_int_equal(mem_read(mem, PAGE - 4, out, 8), -EFAULT);
	assert_string_equal(out, "xxxxxxx");
	assert_int_equal(mem_read(mem, UINT64_MAX - 3, out, 8), -EFAULT);
	assert_null(mem_ptr_rw(mem, UINT64_MAX, 8));
	mem_free(mem);
}

static void rom_drops_guest_writes_but_not_ours(void **state)
{
	struct mem *mem = new_mem(NULL);
	char out[4] = "";

	add(mem, 0x10000, PAGE, MEM_ROM);
	assert_int_equal(mem_write(mem, 0x10000, "bad", 4), 0);
	assert_int_equal(mem_read(mem, 0x10000, out, 4), 0);
	assert_string_equal(out, "");
	assert_int_equal(mem_rom_write(mem, 0x10000, "rom", 4), 0);
	assert_int_equal(mem_read(mem, 0x10000, out, 4), 0);
	assert_string_equal(out, "rom");
	assert_null(mem_ptr_rw(mem, 0x10000, 1));
	assert_non_null(mem_ptr_ro(mem, 0x10000, 1));
	mem_free(mem);
}

static void regions_may_not_overlap(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_place place = {"second", PAGE, PAGE, MEM_RAM};
	struct error err = {0};
	struct mem_region *r;

	add(mem, 0, 2 * PAGE, MEM_RAM);
	assert_int_equal(mem_add(mem, &r, &place, &err), -EBUSY);
	assert_non_null(strstr(err.text, "cannot map second at 0x1000"));
	place.gpa = 0x800;
	assert_int_equal(mem_add(mem, &r, &place, &err), -EINVAL);
	place.gpa = UINT64_MAX - PAGE + 1;
	assert_int_equal(mem_add(mem, &r, &place, &err), -EINVAL);
	mem_free(mem);
}

static void an_alias_shows_the_same_bytes(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *ram = add(mem, MEM_UNMAPPED, 8 * PAGE, MEM_RAM);
	struct mem_region_info info[4];

	alias(mem, ram, 0, 0, 4 * PAGE);
	alias(mem, ram, 4 * PAGE, 1 * MiB, 4 * PAGE);
	alias(mem, ram, 3 * PAGE, 2 * MiB, PAGE);
	assert_int_equal(mem_write(mem, 3 * PAGE + 5, "x", 1), 0);
	assert_int_equal(*(const char *)mem_ptr_ro(mem, 2 * MiB + 5, 1), 'x');
	assert_ptr_equal(h.slots[2].host, (u8 *)mem_region_host(ram) + 4 * PAGE);
	assert_int_equal(h.slots[2].gpa, 1 * MiB);
	assert_int_equal(mem_ram_bytes(mem), 8 * PAGE);
	assert_int_equal(mem_regions(mem, info, 4), 4);
	assert_int_equal(info[0].gpa, 0);
	assert_true(info[0].alias);
	assert_int_equal(info[2].gpa, 2 * MiB);
	assert_true(info[3].gpa == MEM_UNMAPPED && !info[3].alias);
	mem_free(mem);
}

static void a_moved_region_leaves_its_old_place(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *vram = add(mem, 1 * MiB, PAGE, MEM_VRAM);

	add(mem, 0, PAGE, MEM_RAM);
	mem_write(mem, 1 * MiB, "v", 1);
	assert_int_equal(mem_region_move(vram, 2 * MiB), 0);
	assert_null(mem_ptr_ro(mem, 1 * MiB, 1));
	assert_int_equal(*(const char *)mem_ptr_ro(mem, 2 * MiB, 1), 'v');
	assert_int_equal(h.slots[0].gpa, 2 * MiB);
	assert_int_equal(mem_region_move(vram, 0), -EBUSY); /* and is nowhere now */
	assert_null(mem_ptr_ro(mem, 2 * MiB, 1));
	assert_int_equal(h.slots[0].bytes, 0);
	assert_int_equal(mem_region_move(vram, 3 * MiB), 0);
	h.refuse = -ENOSPC;
	assert_int_equal(mem_region_move(vram, MEM_UNMAPPED), -ENOSPC);
	mem_free(mem);
}

/* --- dirty pages -------------------------------------------------------------- */

static u64 dirty_of(struct mem_region *r)
{
	u64 bits[8] = {0};

	assert_int_equal(mem_dirty_collect(r, MEM_DIRTY_SNAPSHOT, bits), 0);
	for (unsigned i = 1; i < ARRAY_LEN(bits); i++)
		assert_true(bits[i] == 0);
	return bits[0];
}

static void our_writes_and_the_guests_are_both_dirty(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *ram = add(mem, 0, 64 * PAGE, MEM_RAM);

	mem_write(mem, 0, "x", 1); /* before logging: not seen */
	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
	assert_true(h.slots[0].log_dirty);
	h.dirty[0] = 1u << 7;
	mem_write(mem, 2 * PAGE - 1, "ab", 2);
	mem_mark_dirty(mem, 5 * PAGE, 1);
	assert_int_equal(dirty_of(ram), 1u << 1 | 1u << 2 | 1u << 5 | 1u << 7);
	assert_int_equal(dirty_of(ram), 0);
	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, false), 0);
	assert_false(h.slots[0].log_dirty);
	mem_free(mem);
}

static u64 looked_at(struct mem_region *r)
{
	u64 bits = 0;

	assert_int_equal(mem_dirty_look(r, MEM_DIRTY_SNAPSHOT, &bits), 0);
	return bits;
}

/* Whether the hypervisor's log stays as it is, or is always cleared by reading. */
static void looking_takes_nothing_away(void **state)
{
	for (unsigned clears = 0; clears < 2; clears++) {
		struct host h = {.clears = clears};
		struct mem *mem = new_mem(&h);
		struct mem_region *ram = add(mem, 0, 64 * PAGE, MEM_RAM);

		assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
		h.dirty[0] = 1u << 7;
		mem_mark_dirty(mem, 5 * PAGE, 1);
		assert_int_equal(looked_at(ram), 1u << 5 | 1u << 7);
		assert_true(h.dirty[0] == (clears ? 0 : 1u << 7));
		h.dirty[0] |= 1u << 9;
		assert_int_equal(looked_at(ram), 1u << 5 | 1u << 7 | 1u << 9);
		assert_int_equal(dirty_of(ram), 1u << 5 | 1u << 7 | 1u << 9);
		assert_int_equal(dirty_of(ram) | h.dirty[0] | looked_at(ram), 0);
		mem_free(mem);
	}
}

static void aliases_share_their_dirty_pages(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *ram = add(mem, MEM_UNMAPPED, 16 * PAGE, MEM_RAM);
	struct mem_region *low = alias(mem, ram, 0, 0, 8 * PAGE);
	struct mem_region *high = alias(mem, ram, 8 * PAGE, 1 * MiB, 8 * PAGE);

	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
	assert_true(h.slots[1].log_dirty && h.slots[2].log_dirty);
	h.dirty[2] = 1u << 1; /* page 9 of the base */
	mem_write(mem, 1 * MiB + 2 * PAGE, "x", 1);
	mem_write(mem, PAGE, "x", 1);
	assert_int_equal(dirty_of(high), 1u << 1 | 1u << 2);
	assert_int_equal(dirty_of(ram), 1u << 1);
	assert_int_equal(dirty_of(low), 0);
	mem_free(mem);
}

/* Nothing behind the last word of the bitmap is touched. */
static void an_alias_may_begin_and_end_anywhere_in_a_word_of_pages(void **state)
{
	static const u64 pages[] = {1, 23, 24, 25, 63, 64, 65, 88, 89, 128};
	struct mem *mem = new_mem(NULL);
	struct mem_region *ram = add(mem, MEM_UNMAPPED, 256 * PAGE, MEM_RAM);

	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
	for (unsigned i = 0; i < ARRAY_LEN(pages); i++) {
		u64 gpa = (i + 1) * MiB, words = DIV_ROUND_UP(pages[i], 64);
		struct mem_region *part = alias(mem, ram, 40 * PAGE, gpa, pages[i] * PAGE);
		AUTO_FREE u64 *bits = xalloc(words * sizeof(*bits));

		mem_mark_dirty(mem, gpa, pages[i] * PAGE);
		assert_int_equal(mem_dirty_collect(part, MEM_DIRTY_SNAPSHOT, bits), 0);
		for (u64 page = 0; page < words * 64; page++)
			assert_int_equal(bits[page / 64] >> (page % 64) & 1, page < pages[i]);
	}
	mem_free(mem);
}

static void vectors_mark_what_was_written_of_them(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_region *ram = add(mem, 0, 16 * PAGE, MEM_RAM);
	struct iovec iov[4];
	struct mem_iov to = {iov, 0, 4};

	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
	assert_int_equal(mem_map_iov(mem, PAGE, PAGE, true, &to), 0);
	assert_int_equal(mem_map_iov(mem, 4 * PAGE, 4 * PAGE, true, &to), 0);
	assert_int_equal(to.n, 2);
	mem_mark_dirty_iov(mem, iov, to.n, 2 * PAGE + 1);
	assert_int_equal(dirty_of(ram), 1u << 1 | 1u << 4 | 1u << 5);
	mem_free(mem);
}

static u64 display_dirty_of(struct mem_region *r)
{
	u64 bits[8] = {0};

	assert_int_equal(mem_dirty_collect(r, MEM_DIRTY_DISPLAY, bits), 0);
	return bits[0];
}

static void one_client_takes_no_pages_from_another(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *vram = add(mem, 1 * MiB, 16 * PAGE, MEM_VRAM);

	h.dirty[0] = 1u << 3;
	mem_write(mem, 1 * MiB + 5 * PAGE, "x", 1);
	assert_int_equal(display_dirty_of(vram), 1u << 3 | 1u << 5);
	assert_int_equal(display_dirty_of(vram), 0);
	h.dirty[0] = 1u << 7;
	assert_int_equal(dirty_of(vram), 1u << 3 | 1u << 5 | 1u << 7);
	assert_int_equal(display_dirty_of(vram), 1u << 7);
	mem_free(mem);
}

static void the_slot_is_logged_while_any_client_wants_it(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *ram = add(mem, 0, 16 * PAGE, MEM_RAM);

	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_DISPLAY, true), 0);
	mem_write(mem, PAGE, "x", 1);
	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
	mem_write(mem, 2 * PAGE, "x", 1);
	assert_int_equal(dirty_of(ram), 1u << 2); /* since it was switched on */
	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, false), 0);
	assert_true(h.slots[0].log_dirty);
	assert_int_equal(display_dirty_of(ram), 1u << 1 | 1u << 2);
	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_DISPLAY, false), 0);
	assert_false(h.slots[0].log_dirty);
	mem_free(mem);
}

static void a_lost_log_makes_everything_dirty_for_everybody(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *vram = add(mem, 1 * MiB, 16 * PAGE, MEM_VRAM);
	u64 bits = 0;

	h.lost = -EIO;
	assert_int_equal(mem_dirty_collect(vram, MEM_DIRTY_DISPLAY, &bits), -EIO);
	assert_int_equal(display_dirty_of(vram), 0xffff);
	assert_int_equal(dirty_of(vram), 0xffff);
	assert_int_equal(dirty_of(vram), 0);
	mem_free(mem);
}

static void dirty_pages_survive_a_move(void **state)
{
	struct host h = {.refuse = 0};
	struct mem *mem = new_mem(&h);
	struct mem_region *vram = add(mem, 1 * MiB, 16 * PAGE, MEM_VRAM);

	assert_true(h.slots[0].log_dirty);
	h.dirty[0] = 1u << 3;
	assert_int_equal(mem_region_move(vram, 2 * MiB), 0);
	h.dirty[0] = 1u << 4;
	assert_int_equal(dirty_of(vram), 1u << 3 | 1u << 4);
	assert_int_equal(mem_dirty_log(vram, MEM_DIRTY_SNAPSHOT, false), 0); /* always on */
	assert_true(h.slots[0].log_dirty);
	mem_free(mem);
}

static void a_window_that_is_not_word_aligned_collects_its_own_bits(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_region *ram = add(mem, 0, 256 * PAGE, MEM_RAM);
	struct mem_region *part = alias(mem, ram, 60 * PAGE, 16 * MiB, 10 * PAGE);
	u64 bits[4] = {0};

	assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
	mem_mark_dirty(mem, 58 * PAGE, 20 * PAGE);
	assert_int_equal(dirty_of(part), 0x3ff);
	assert_int_equal(mem_dirty_collect(ram, MEM_DIRTY_SNAPSHOT, bits), 0);
	assert_true(bits[0] == (u64)3 << 58);
	assert_true(bits[1] == (u64)0xff << 6); /* 70 .. 77 */
	mem_free(mem);
}

/* --- vectors ------------------------------------------------------------------ */

static void a_range_becomes_vectors_or_says_why_not(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_region *ram = add(mem, MEM_UNMAPPED, 4 * PAGE, MEM_RAM);
	struct iovec iov[2];
	struct mem_iov to = {iov, 0, 2};

	alias(mem, ram, 0, 0, 2 * PAGE);
	alias(mem, ram, 3 * PAGE, 2 * PAGE, PAGE);
	add(mem, 3 * PAGE, PAGE, MEM_ROM);
	assert_int_equal(mem_map_iov(mem, 8, 2 * PAGE, true, &to), 0);
	assert_int_equal(to.n, 2);
	assert_int_equal(iov[0].iov_len, 2 * PAGE - 8);
	assert_int_equal(iov[1].iov_len, 8);
	assert_int_equal(mem_map_iov(mem, 0, 1, true, &to), -E2BIG);
	to.n = 0;
	assert_int_equal(mem_map_iov(mem, 3 * PAGE - 8, 16, true, &to), -EFAULT);
	to.n = 0;
	assert_int_equal(mem_map_iov(mem, 3 * PAGE - 8, 16, false, &to), 0);
	assert_int_equal(mem_map_iov(mem, 4 * PAGE, 1, false, &to), -EFAULT);
	assert_int_equal(mem_map_iov(mem, UINT64_MAX, 2, false, &to), -EFAULT);
	mem_free(mem);
}

static void neighbours_in_host_memory_join(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct iovec iov[2];
	struct mem_iov to = {iov, 0, 2};

	add(mem, 0, 4 * PAGE, MEM_RAM);
	for (u64 gpa = 0; gpa < 4 * PAGE; gpa += 512)
		assert_int_equal(mem_map_iov(mem, gpa, 512, true, &to), 0);
	assert_int_equal(to.n, 1);
	assert_int_equal(iov[0].iov_len, 4 * PAGE);
	mem_free(mem);
}

static bool is_filled(const u8 *p, u64 bytes, u8 with)
{
	return p[0] == with && !memcmp(p, p + 1, bytes - 1);
}

static void discarded_pages_are_zeros_and_dirty(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_region *ram = add(mem, MEM_UNMAPPED, 8 * PAGE, MEM_RAM);
	u64 bits[1] = {0};
	u8 *host = mem_region_host(ram);

	alias(mem, ram, 0, 0, 4 * PAGE);
	alias(mem, ram, 4 * PAGE, 16 * PAGE, 4 * PAGE);
	add(mem, 4 * PAGE, PAGE, MEM_ROM);
	for (int watched = 0; watched < 2; watched++) {
		if (watched)
			mem_watch(mem, true);
		memset(host, 9, 8 * PAGE);
		assert_int_equal(mem_dirty_log(ram, MEM_DIRTY_SNAPSHOT, true), 0);
		assert_int_equal(mem_discard(mem, PAGE, 2 * PAGE), 0);
		assert_int_equal(mem_discard(mem, 18 * PAGE, PAGE), 0);
		assert_true(is_filled(host, PAGE, 9) && is_filled(host + PAGE, 2 * PAGE, 0));
		assert_true(is_filled(host + 6 * PAGE, PAGE, 0));
		assert_true(is_filled(host + 7 * PAGE, PAGE, 9));
		bits[0] = 0;
		assert_int_equal(mem_dirty_collect(ram, MEM_DIRTY_SNAPSHOT, bits), 0);
		assert_int_equal(bits[0], 0x46);
	}
	mem_watch(mem, false);
	memset(host, 9, 8 * PAGE);
	assert_int_equal(mem_discard(mem, PAGE + 1, PAGE), -EFAULT);
	assert_int_equal(mem_discard(mem, PAGE, PAGE - 1), -EFAULT);
	assert_int_equal(mem_discard(mem, 3 * PAGE, 2 * PAGE), -EFAULT); /* ROM behind it */
	assert_int_equal(mem_discard(mem, 19 * PAGE, 2 * PAGE), -EFAULT);
	assert_int_equal(mem_discard(mem, UINT64_MAX - PAGE + 1, PAGE), -EFAULT);
	assert_true(is_filled(host, 8 * PAGE, 9));
	mem_free(mem);
}

static void of_vectors_whole_pages_of_ram_are_discarded(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_region *ram = add(mem, 0, 8 * PAGE, MEM_RAM);
	struct mem_region *rom = add(mem, 8 * PAGE, 2 * PAGE, MEM_ROM);
	u8 *host = mem_region_host(ram), *code = mem_region_host(rom);
	const struct iovec iov[] = {{host + 1, 3 * PAGE},
				    {host + 5 * PAGE - 10, 20},
				    {host + 6 * PAGE, PAGE},
				    {code, 2 * PAGE}};

	memset(host, 9, 8 * PAGE);
	memset(code, 9, 2 * PAGE);
	mem_watch(mem, true);
	mem_discard_iov(mem, iov, ARRAY_LEN(iov)); /* not now */
	assert_true(is_filled(host, 8 * PAGE, 9));
	mem_watch(mem, false);
	mem_discard_iov(mem, iov, ARRAY_LEN(iov));
	assert_true(is_filled(host, PAGE, 9) && is_filled(host + PAGE, 2 * PAGE, 0));
	assert_true(is_filled(host + 3 * PAGE, 3 * PAGE, 9));
	assert_true(is_filled(host + 6 * PAGE, PAGE, 0));
	assert_true(is_filled(host + 7 * PAGE, PAGE, 9) && is_filled(code, 2 * PAGE, 9));
	mem_free(mem);
}

static void memory_may_lie_in_a_file_and_be_there_from_the_first(void **state)
{
	const struct mem_backing in_tmp = {"/tmp", true, true, true}, all = {.prealloc = true};
	struct mem_place place = {"ram", 0, 64 * PAGE, MEM_RAM};
	struct mem *mem = new_mem(NULL);
	struct error err = {0};
	struct mem_region *file, *plain;
	u8 *host;

	assert_int_equal(mem_add_backed(mem, &file, &place, &in_tmp, &err), 0);
	host = mem_region_host(file);
	assert_false(mem_region_is_anonymous(file));
	assert_true(is_filled(host, 64 * PAGE, 0));
	memset(host, 9, 64 * PAGE);
	assert_int_equal(mem_discard(mem, 8 * PAGE, 4 * PAGE), 0);
	assert_true(is_filled(host + 8 * PAGE, 4 * PAGE, 0) && host[12 * PAGE] == 9);
	place = (struct mem_place){"more", 4 * MiB, 4 * MiB, MEM_RAM};
	assert_int_equal(mem_add_backed(mem, &plain, &place, &all, &err), 0);
	assert_true(mem_region_is_anonymous(plain));
	mem_free(mem);
}

static void memory_that_does_not_fit_is_one_clear_line(void **state)
{
	const struct mem_backing nowhere = {.path = "/nonexistent"}, in_tmp = {.path = "/tmp"};
	const struct mem_backing all = {.prealloc = true};
	struct mem_place place = {"ram", 0, 4 * TiB, MEM_RAM};
	struct mem *mem = new_mem(NULL);
	struct mem_region *r;
	struct error err = {0};

	assert_int_equal(mem_add_backed(mem, &r, &place, &nowhere, &err), -ENOENT);
	assert_non_null(strstr(err.text, "can't open backing store /nonexistent for guest RAM"));
	assert_int_equal(mem_add_backed(mem, &r, &place, &in_tmp, &err), -ENOSPC);
	assert_non_null(strstr(err.text, "/tmp has room for "));
	assert_int_equal(mem_add_backed(mem, &r, &place, &all, &err), -ENOMEM);
	assert_non_null(strstr(err.text, "cannot "));
	mem_free(mem);
}

static void large_memory_may_be_mapped_by_huge_pages(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_region *r = add(mem, 0, 6 * MiB + PAGE, MEM_RAM);
	u8 *host = mem_region_host(r);

	assert_true(is_aligned((u64)(uintptr_t)host, 2 * MiB));
	memset(host, 1, 6 * MiB + PAGE); /* all of it is there */
	mem_free(mem);
}

static void too_much_memory_is_one_clear_line(void **state)
{
	struct mem *mem = new_mem(NULL);
	struct mem_place place = {"RAM", 0, (u64)1 << 62, MEM_RAM};
	struct error err = {0};
	struct mem_region *r;

	assert_int_equal(mem_add(mem, &r, &place, &err), -ENOMEM);
	assert_string_equal(err.text, "cannot set up 4398046511104 MiB of guest memory for RAM");
	mem_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_written_are_read_across_regions),
		cmocka_unit_test(a_hole_is_a_fault_and_nothing_is_copied),
		cmocka_unit_test(rom_drops_guest_writes_but_not_ours),
		cmocka_unit_test(regions_may_not_overlap),
		cmocka_unit_test(an_alias_shows_the_same_bytes),
		cmocka_unit_test(a_moved_region_leaves_its_old_place),
		cmocka_unit_test(our_writes_and_the_guests_are_both_dirty),
		cmocka_unit_test(looking_takes_nothing_away),
		cmocka_unit_test(aliases_share_their_dirty_pages),
		cmocka_unit_test(an_alias_may_begin_and_end_anywhere_in_a_word_of_pages),
		cmocka_unit_test(vectors_mark_what_was_written_of_them),
		cmocka_unit_test(one_client_takes_no_pages_from_another),
		cmocka_unit_test(the_slot_is_logged_while_any_client_wants_it),
		cmocka_unit_test(a_lost_log_makes_everything_dirty_for_everybody),
		cmocka_unit_test(dirty_pages_survive_a_move),
		cmocka_unit_test(a_window_that_is_not_word_aligned_collects_its_own_bits),
		cmocka_unit_test(a_range_becomes_vectors_or_says_why_not),
		cmocka_unit_test(neighbours_in_host_memory_join),
		cmocka_unit_test(discarded_pages_are_zeros_and_dirty),
		cmocka_unit_test(of_vectors_whole_pages_of_ram_are_discarded),
		cmocka_unit_test(memory_may_lie_in_a_file_and_be_there_from_the_first),
		cmocka_unit_test(memory_that_does_not_fit_is_one_clear_line),
		cmocka_unit_test(large_memory_may_be_mapped_by_huge_pages),
		cmocka_unit_test(too_much_memory_is_one_clear_line),
	};

	return cmocka_run_group_tests_name("mem", tests, NULL, NULL);
}
