/* Guest memory that comes in on demand, and the header of the VM-state area. */
#include "base/base.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/thread.h"
#include "vmm/core/uffd.h"
#include "block/qcow2/vmstate_format.h"
#include "vmm/snapshot/ram_load.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/mman.h>

#define RAM_BYTES (24 * MiB)
#define ROM_BYTES (12 * KiB)

struct rig {
	struct mem *mem;
	struct mem_region *ram, *rom;
	struct ram_map map;
	u32 *crcs;
	u8 *saved;
	u64 bad_unit; /* its read fails; UINT64_MAX: none */
	u32 delay_us;
	bool held;		   /* [atomic] only single units, as of faults, are read */
	u32 reads, done, failures; /* [atomic] */
	u64 failed_unit;	   /* [atomic] */
	int failed_with;	   /* [atomic] */
};

static int source(void *arg, u64 unit, u64 n, u8 *data)
{
	struct rig *r = arg;

	if (r->delay_us)
		usleep(r->delay_us);
	while (n > 1 && __atomic_load_n(&r->held, __ATOMIC_SEQ_CST))
		usleep(100);
	__atomic_fetch_add(&r->reads, 1, __ATOMIC_SEQ_CST);
	memcpy(data, r->saved + unit * RAM_UNIT, n * RAM_UNIT);
	return r->bad_unit >= unit && r->bad_unit < unit + n ? -EIO : 0;
}

static void failed(void *arg, u64 unit, int ret)
{
	struct rig *r = arg;

	__atomic_fetch_add(&r->failures, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&r->failed_unit, unit, __ATOMIC_SEQ_CST);
	__atomic_store_n(&r->failed_with, ret, __ATOMIC_SEQ_CST);
}

static void done(void *arg)
{
	__atomic_fetch_add(&((struct rig *)arg)->done, 1, __ATOMIC_SEQ_CST);
}

/* Every third unit is zeros, the others have a byte of their own number a page. */
static void fill(struct rig *r)
{
	for (u64 u = 0; u < r->map.units; u++) {
		u8 *unit = r->saved + u * RAM_UNIT;
		u64 bytes;

		(void)ram_unit(&r->map, u, &bytes);
		for (u64 page = 0; u % 3 && page < bytes; page += 4096)
			store_le64(unit + page, u << 32 | (page + 1));
		r->crcs[u] = u % 3 ? crc32c(0, unit, RAM_UNIT) : 0;
	}
}

static struct rig *rig_new(void)
{
	struct rig *r = xnew(struct rig);
	struct mem_place ram = {"pc.ram", 0, RAM_BYTES, MEM_RAM};
	struct mem_place rom = {"pc.bios", 4 * GiB - ROM_BYTES, ROM_BYTES, MEM_ROM};
	struct error err = {0};

	assert_int_equal(mem_new(&r->mem, NULL, NULL, &err), 0);
	assert_int_equal(mem_add(r->mem, &r->ram, &ram, &err), 0);
	assert_int_equal(mem_add(r->mem, &r->rom, &rom, &err), 0);
	assert_int_equal(ram_map_init(&r->map, r->mem, &err), 0);
	r->crcs = xalloc(r->map.units * sizeof(u32));
	r->saved = xalloc(r->map.units * RAM_UNIT);
	r->bad_unit = UINT64_MAX;
	memset(mem_region_host(r->ram), 0x77, RAM_BYTES);
	memset(mem_region_host(r->rom), 0x77, ROM_BYTES);
	fill(r);
	return r;
}

static void rig_free(struct rig *r)
{
	ram_map_fini(&r->map);
	mem_free(r->mem);
	free(r->crcs);
	free(r->saved);
	free(r);
}

static struct ram_load_options options(struct rig *r, bool live)
{
	return (struct ram_load_options){.map = &r->map,
					 .source = source,
					 .failed = failed,
					 .done = done,
					 .arg = r,
					 .crcs = r->crcs,
					 .live = live};
}

static bool unit_is_right(struct rig *r, u64 unit)
{
	u64 bytes;
	const u8 *host = ram_unit(&r->map, unit, &bytes);

	return !memcmp(host, r->saved + unit * RAM_UNIT, bytes);
}

static bool host_has_userfaultfd(void)
{
	struct error err = {0};
	struct uffd *u;

	if (uffd_new(&u, (uffd_fn *)NULL, NULL, &err) < 0) {
		print_message("no userfaultfd on this host: %s\n", err.text);
		return false;
	}
	uffd_free(u);
	return true;
}

static struct ram_load *start(struct rig *r, const struct ram_load_options *opt)
{
	struct error err = {0};
	struct ram_load *l = NULL;

	if (ram_load_start(&l, opt, &err) < 0)
		fail_msg("%s", err.text);
	return l;
}

/* --- tests --------------------------------------------------------------------- */

static void without_userfaultfd_all_is_there_at_once(void **state)
{
	struct rig *r = rig_new();
	struct ram_load_options opt = options(r, false);
	struct ram_load *l = start(r, &opt);

	for (u64 u = 0; u < r->map.units; u++)
		assert_true(unit_is_right(r, u));
	ram_load_free(l);
	rig_free(r);
}

struct toucher {
	struct rig *rig;
	u64 seed;
	u32 wrong;
};

/* Touches units in an order of its own; each must be right at first sight. */
static void *touch(void *arg)
{
	struct toucher *t = arg;
	u64 x = t->seed;

	for (u64 i = 0; i < 4 * t->rig->map.units; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		t->wrong += !unit_is_right(t->rig, x % t->rig->map.units);
	}
	return NULL;
}

/* A balloon takes pages away while memory comes in: they are zeros for good, and the
 * rest of their units is what it has to be. */
static void discarded_pages_do_not_come_in_again(void **state)
{
	struct ram_load_options opt;
	struct ram_load *l;
	struct rig *r;
	u8 *host;

	if (!host_has_userfaultfd())
		skip();
	r = rig_new();
	opt = options(r, true);
	host = mem_region_host(r->ram);
	r->delay_us = 200;
	l = start(r, &opt);
	for (u64 at = RAM_BYTES; at; at -= RAM_UNIT)
		assert_int_equal(mem_discard(r->mem, at - 8192, 4096), 0);
	for (u64 at = 0; at < RAM_BYTES; at += 2 * RAM_UNIT)
		assert_int_equal(load_le64(host + at + RAM_UNIT - 8192), 0);
	assert_int_equal(ram_load_finish(l), 0);
	ram_load_free(l);
	for (u64 at = 0; at < RAM_BYTES; at += RAM_UNIT) {
		memset(r->saved + r->map.ranges[1].first * RAM_UNIT + at + RAM_UNIT - 8192, 0,
		       4096);
		assert_true(unit_is_right(r, r->map.ranges[1].first + at / RAM_UNIT));
	}
	rig_free(r);
}

static void release(struct rig *r)
{
	__atomic_store_n(&r->held, false, __ATOMIC_SEQ_CST);
}

static void release_after_fault(struct rig *r, struct ram_load *l)
{
	struct ram_load_progress p = {0};

	while (!p.faults) {
		usleep(100);
		ram_load_progress(l, &p);
	}
	release(r);
}

static void whoever_touches_memory_finds_it_right(void **state)
{
	if (!host_has_userfaultfd())
		skip();
	for (u64 seed = 1; seed < 4; seed++) {
		struct rig *r = rig_new();
		struct ram_load_options opt = options(r, true);
		struct toucher t[3] = {{r, seed, 0}, {r, seed * 77, 0}, {r, seed * 771, 0}};
		pthread_t threads[3];
		struct error err = {0};
		struct ram_load *l;
		struct ram_load_progress p;

		r->delay_us = 300;
		r->held = true;
		l = start(r, &opt);
		for (int i = 0; i < 3; i++)
			assert_int_equal(thread_start(&threads[i], "touch", touch, &t[i], &err), 0);
		release_after_fault(r, l);
		for (int i = 0; i < 3; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(t[i].wrong, 0);
		}
		assert_int_equal(ram_load_finish(l), 0);
		ram_load_progress(l, &p);
		assert_int_equal(p.there, p.units);
		assert_true(p.faults > 0);
		assert_int_equal(r->done, 1);
		ram_load_free(l);
		for (u64 u = 0; u < r->map.units; u++)
			assert_true(unit_is_right(r, u));
		rig_free(r);
	}
}

static void the_working_set_comes_first_and_is_noted_again(void **state)
{
	static const u32 first[] = {200, 100, 100, 300, 1u << 30};
	struct rig *r = rig_new();
	struct ram_load_options opt = options(r, true);
	struct ram_load *l;
	u32 set[8];

	if (!host_has_userfaultfd())
		skip();
	opt.first_units = first;
	opt.n_first = ARRAY_LEN(first);
	r->held = true;
	l = start(r, &opt);
	assert_true(unit_is_right(r, 370));
	assert_int_equal(ram_load_working_set(l, set, 8), 1);
	assert_int_equal(set[0], 370);
	release(r);
	assert_int_equal(ram_load_finish(l), 0);
	ram_load_free(l);
	rig_free(r);
}

/* The first half of memory is kept, but pages of it that were never touched. */
static void what_is_kept_is_not_fetched(void **state)
{
	for (int live = 0; live < 2; live++) {
		struct rig *r = rig_new();
		struct ram_load_options opt = options(r, live);
		u64 half = r->map.units / 2, bytes;
		AUTO_FREE u64 *keep = xalloc(ram_bitmap_bytes(&r->map));
		struct ram_load *l;

		if (live && !host_has_userfaultfd())
			skip();
		for (u64 u = 0; u < half; u++) {
			u8 *host = ram_unit(&r->map, u, &bytes);

			ram_set_bit(keep, u);
			assert_int_equal(madvise(host, MIN(bytes, 4096u), MADV_DONTNEED), 0);
		}
		opt.keep = keep;
		r->delay_us = 300;
		l = start(r, &opt);
		for (u64 u = 0; u < half; u++) {
			const u8 *host = ram_unit(&r->map, u, &bytes);

			for (u64 at = 0; at < bytes; at += 512)
				assert_int_equal(host[at], at < 4096 ? 0 : 0x77);
		}
		for (u64 u = half; u < r->map.units; u++)
			assert_true(unit_is_right(r, u));
		assert_int_equal(ram_load_finish(l), 0);
		ram_load_free(l);
		rig_free(r);
	}
}

static void giving_up_tells_what_is_missing(void **state)
{
	struct rig *r = rig_new();
	struct ram_load_options opt = options(r, true);
	AUTO_FREE u64 *missing = xalloc(ram_bitmap_bytes(&r->map));
	struct ram_load *l;
	u64 there = 0;

	if (!host_has_userfaultfd())
		skip();
	r->delay_us = 100000; /* it takes seconds to the end */
	r->held = true;
	l = start(r, &opt);
	assert_true(unit_is_right(r, 370));
	release(r);
	ram_load_give_up(l, missing);
	assert_false(ram_bit(missing, 370));
	for (u64 u = 0; u < r->map.units; u++)
		if (!ram_bit(missing, u)) {
			assert_true(unit_is_right(r, u));
			there++;
		}
	assert_true(there < r->map.units);
	ram_load_free(l);
	rig_free(r);
}

static void a_unit_that_is_damaged_is_found(void **state)
{
	struct rig *r = rig_new();
	struct ram_load_options opt = options(r, false);
	struct ram_load *l = NULL;
	struct error err = {0};

	for (u32 bit = 0; bit < 8 * RAM_UNIT; bit += 65537) {
		r->saved[4 * RAM_UNIT + bit / 8] ^= (u8)(1u << bit % 8);
		assert_int_equal(ram_load_start(&l, &opt, &err), -EBADMSG);
		assert_int_equal(r->failed_unit, 4);
		r->saved[4 * RAM_UNIT + bit / 8] ^= (u8)(1u << bit % 8);
	}
	rig_free(r);
}

static void a_unit_that_cannot_be_read_is_reported_and_nobody_hangs(void **state)
{
	struct rig *r = rig_new();
	struct ram_load_options opt = options(r, true);
	struct ram_load *l;
	u64 bytes;

	if (!host_has_userfaultfd())
		skip();
	r->bad_unit = 200;
	r->delay_us = 1000;
	l = start(r, &opt);
	assert_int_equal(*ram_unit(&r->map, 200, &bytes), 0);
	assert_int_equal(r->failed_unit, 200);
	assert_int_equal(r->failed_with, -EIO);
	assert_int_equal(ram_load_finish(l), -EIO);
	assert_int_equal(r->failures, 1); /* its neighbours are fine */
	ram_load_free(l);
	for (u64 u = 0; u < r->map.units; u++)
		assert_true(unit_is_right(r, u) == (u != 200));
	rig_free(r);
}

static void one_flipped_bit_of_the_header_is_found(void **state)
{
	static const u64 bytes[SNAP_PARTS] = {[SNAP_MANIFEST] = 1000, [SNAP_STATE] = 70000};
	struct snap_header h, again;
	struct error err = {0};
	u8 page[SNAP_HEADER_BYTES];

	snap_layout(&h, 5000, bytes);
	h.parts[SNAP_STATE].crc = 0x12345678;
	snap_header_encode(&h, page);
	assert_int_equal(snap_header_decode(&again, page, &err), 0);
	assert_memory_equal(&h, &again, sizeof(h));
	for (u32 bit = 0; bit < 8 * SNAP_HEADER_BYTES; bit++) {
		page[bit / 8] ^= (u8)(1u << bit % 8);
		assert_int_equal(snap_header_decode(&again, page, &err), -EBADMSG);
		page[bit / 8] ^= (u8)(1u << bit % 8);
	}
}

static void a_header_that_lies_about_places_is_refused(void **state)
{
	static const u64 bytes[SNAP_PARTS] = {[SNAP_MANIFEST] = 1000};
	struct snap_header h, lie, again;
	struct error err = {0};
	u8 page[SNAP_HEADER_BYTES];

	snap_layout(&h, 5000, bytes);
	for (int i = 0; i < 6; i++) {
		lie = h;
		lie.units += i == 0 ? UINT64_MAX - 10000 : 0;
		lie.ram_off += i == 1;
		lie.parts[SNAP_CRCS].bytes += i == 2 ? 4 : 0;
		lie.parts[SNAP_STATE].bytes = i == 3 ? UINT64_MAX : 0;
		lie.parts[SNAP_MANIFEST].off -= i == 4 ? RAM_UNIT : 0;
		lie.area_bytes -= i == 5;
		snap_header_encode(&lie, page);
		assert_int_equal(snap_header_decode(&again, page, &err), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_userfaultfd_all_is_there_at_once),
		cmocka_unit_test(discarded_pages_do_not_come_in_again),
		cmocka_unit_test(whoever_touches_memory_finds_it_right),
		cmocka_unit_test(the_working_set_comes_first_and_is_noted_again),
		cmocka_unit_test(what_is_kept_is_not_fetched),
		cmocka_unit_test(giving_up_tells_what_is_missing),
		cmocka_unit_test(a_unit_that_is_damaged_is_found),
		cmocka_unit_test(a_unit_that_cannot_be_read_is_reported_and_nobody_hangs),
		cmocka_unit_test(one_flipped_bit_of_the_header_is_found),
		cmocka_unit_test(a_header_that_lies_about_places_is_refused),
	};

	return cmocka_run_group_tests_name("loading memory", tests, NULL, NULL);
}
