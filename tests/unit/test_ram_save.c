/* Saving memory that is written meanwhile, and userfaultfd under it. */
#include "base/base.h"
#include "base/crc32c.h"
#include "base/thread.h"
#include "vmm/core/uffd.h"
#include "vmm/snapshot/ram_save.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>
#include <errno.h>

#define RAM_BYTES (24 * MiB)
#define ROM_BYTES (12 * KiB) /* no whole unit */

struct rig {
	struct mem *mem;
	struct mem_region *ram, *rom;
	struct ram_map map;
	u64 *all;
	u32 *crcs;
	u8 *saved;  /* what the sink got */
	u8 *moment; /* how memory was */
	struct mutex lock;
	u32 batches, fail_at;
	u32 delay_us, early_units;
	struct ram_save *until_fault; /* the sink waits until this one has had a fault */
	bool may_wait;
	bool held; /* [atomic] the sink waits until this is false */
	u32 done;  /* [atomic] */
	/* the guest */
	pthread_t guest;
	bool stop;   /* [atomic] */
	bool paused; /* [atomic] */
	bool parked; /* [atomic] */
	u64 writes;  /* [atomic] */
};

static void wait_for_fault(struct ram_save *s)
{
	struct ram_progress p = {0};

	for (u32 i = 0; i < 100000 && !p.faults; i++) {
		usleep(100);
		ram_save_progress(s, &p);
	}
}

static int sink(void *arg, const struct ram_batch *b)
{
	struct rig *r = arg;
	u8 *to = r->saved + b->unit * RAM_UNIT;

	if (r->delay_us)
		usleep(r->delay_us);
	while (__atomic_load_n(&r->held, __ATOMIC_SEQ_CST))
		usleep(100);
	if (r->until_fault)
		wait_for_fault(r->until_fault);
	LOCK_SCOPE(&r->lock);
	if (++r->batches == r->fail_at)
		return -ENOSPC;
	if (b->data)
		memcpy(to, b->data, b->n * RAM_UNIT);
	else
		memset(to, 0, b->n * RAM_UNIT);
	return 0;
}

static bool may_wait(void *arg, u32 thread)
{
	return ((struct rig *)arg)->may_wait;
}

static void done(void *arg)
{
	__atomic_fetch_add(&((struct rig *)arg)->done, 1, __ATOMIC_SEQ_CST);
}

static struct rig *rig_new(void)
{
	struct rig *r = xnew(struct rig);
	struct mem_place ram = {"pc.ram", 0, RAM_BYTES, MEM_RAM};
	struct mem_place rom = {"pc.bios", 4 * GiB - ROM_BYTES, ROM_BYTES, MEM_ROM};
	struct error err = {0};
	u64 bytes;

	assert_int_equal(mem_new(&r->mem, NULL, NULL, &err), 0);
	assert_int_equal(mem_add(r->mem, &r->ram, &ram, &err), 0);
	assert_int_equal(mem_add(r->mem, &r->rom, &rom, &err), 0);
	assert_int_equal(ram_map_init(&r->map, r->mem, &err), 0);
	mutex_init(&r->lock);
	r->early_units = 512;
	bytes = r->map.units * RAM_UNIT;
	r->all = xalloc(ram_bitmap_bytes(&r->map));
	for (u64 i = 0; i < r->map.units; i++)
		ram_set_bit(r->all, i);
	r->crcs = xalloc(r->map.units * sizeof(u32));
	r->saved = xalloc(bytes);
	r->moment = xalloc(bytes);
	memset(r->saved, 0x55, bytes);
	return r;
}

static void rig_free(struct rig *r)
{
	ram_map_fini(&r->map);
	mem_free(r->mem);
	mutex_fini(&r->lock);
	free(r->all);
	free(r->crcs);
	free(r->saved);
	free(r->moment);
	free(r);
}

static void note_moment(struct rig *r)
{
	for (u64 i = 0; i < r->map.units; i++) {
		u64 bytes;
		const u8 *from = ram_unit(&r->map, i, &bytes);

		memcpy(r->moment + i * RAM_UNIT, from, bytes);
	}
}

/* Writes all over memory; stands still while it is paused.  The thread sanitizer
 * does not know that a page fault orders things. */
__attribute__((no_sanitize("thread"))) static void *guest(void *arg)
{
	struct rig *r = arg;
	u8 *host = mem_region_host(r->ram);
	u64 x = 88172645463325252ull;

	while (!__atomic_load_n(&r->stop, __ATOMIC_SEQ_CST)) {
		if (__atomic_load_n(&r->paused, __ATOMIC_SEQ_CST)) {
			__atomic_store_n(&r->parked, true, __ATOMIC_SEQ_CST);
			usleep(50);
			continue;
		}
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		host[x % (RAM_BYTES / 2) / 2 * 2] = (u8)(x >> 40);
		__atomic_fetch_add(&r->writes, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void start_guest(struct rig *r)
{
	struct error err = {0};

	assert_int_equal(thread_start(&r->guest, "guest", guest, r, &err), 0);
	while (__atomic_load_n(&r->writes, __ATOMIC_RELAXED) < 1000)
		usleep(100);
}

static void pause_guest(struct rig *r)
{
	__atomic_store_n(&r->parked, false, __ATOMIC_SEQ_CST);
	__atomic_store_n(&r->paused, true, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&r->parked, __ATOMIC_SEQ_CST))
		usleep(50);
}

static void resume_guest(struct rig *r)
{
	__atomic_store_n(&r->paused, false, __ATOMIC_SEQ_CST);
}

static void end_guest(struct rig *r)
{
	resume_guest(r);
	__atomic_store_n(&r->stop, true, __ATOMIC_SEQ_CST);
	pthread_join(r->guest, NULL);
}

static struct ram_save_options options(struct rig *r, bool live)
{
	return (struct ram_save_options){.map = &r->map,
					 .early_units = r->early_units,
					 .sink = sink,
					 .may_wait = may_wait,
					 .done = done,
					 .arg = r,
					 .crcs = r->crcs,
					 .live = live};
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

static void check_saved(const struct rig *r)
{
	static const u8 zeros[RAM_UNIT];

	assert_memory_equal(r->saved, r->moment, r->map.units * RAM_UNIT);
	for (u64 i = 0; i < r->map.units; i++) {
		const u8 *unit = r->saved + i * RAM_UNIT;
		bool zero = !memcmp(unit, zeros, RAM_UNIT);

		assert_int_equal(r->crcs[i], zero ? 0 : crc32c(0, unit, RAM_UNIT));
	}
}

/* --- tests --------------------------------------------------------------------- */

static void crc32c_is_the_one_of_the_specification(void **state)
{
	u8 zeros[32] = {0};

	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aa);
}

static void memory_of_a_machine_that_stands_is_saved(void **state)
{
	struct rig *r = rig_new();
	struct ram_save_options opt = options(r, false);
	struct error err = {0};
	struct ram_save *s;
	struct ram_progress p;

	memset(mem_region_host(r->ram), 7, 5 * MiB + 100);
	memset(mem_region_host(r->rom), 9, ROM_BYTES);
	note_moment(r);
	assert_int_equal(ram_save_new(&s, &opt, &err), 0);
	assert_int_equal(ram_save_protect(s, r->all), 0);
	assert_int_equal(ram_save_start(s, r->all, &err), 0);
	assert_int_equal(ram_save_wait(s), 0);
	check_saved(r);
	ram_save_progress(s, &p);
	assert_int_equal(p.units, r->map.units);
	assert_int_equal(p.done, p.units);
	assert_int_equal(p.zeros, p.units - 81 - 1);
	assert_int_equal(r->done, 1);
	ram_save_free(s);
	rig_free(r);
}

static void save_live(struct rig *r, struct ram_progress *p)
{
	struct ram_save_options opt = options(r, true);
	struct error err = {0};
	AUTO_FREE u64 *opened = xalloc(ram_bitmap_bytes(&r->map));
	struct ram_save *s;
	u64 writes;

	start_guest(r);
	if (ram_save_new(&s, &opt, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(ram_save_protect(s, r->all), 0);
	usleep(2000); /* it goes on writing */
	pause_guest(r);
	ram_save_moment(s, opened);
	assert_int_equal(ram_save_protect(s, opened), 0);
	note_moment(r);
	writes = __atomic_load_n(&r->writes, __ATOMIC_SEQ_CST);
	r->until_fault = r->delay_us ? s : NULL;
	assert_int_equal(ram_save_start(s, r->all, &err), 0);
	resume_guest(r);
	assert_int_equal(ram_save_wait(s), 0);
	/* On a busy host it may not have had its turn yet; it has to get one. */
	while (__atomic_load_n(&r->writes, __ATOMIC_SEQ_CST) == writes)
		usleep(100);
	ram_save_progress(s, p);
	ram_save_free(s);
	end_guest(r);
	check_saved(r);
}

static void the_moment_is_saved_while_the_guest_writes_on(void **state)
{
	struct ram_progress p;

	if (!host_has_userfaultfd())
		skip();
	for (int i = 0; i < 5; i++) {
		struct rig *r = rig_new();

		r->may_wait = i & 1;
		save_live(r, &p);
		rig_free(r);
	}
}

/* A balloon takes pages away before the moment and while they wait to be saved. */
static void pages_discarded_after_the_moment_are_saved_as_they_were(void **state)
{
	if (!host_has_userfaultfd())
		skip();
	for (int i = 0; i < 3; i++) {
		struct rig *r = rig_new();
		struct ram_save_options opt = options(r, true);
		AUTO_FREE u64 *opened = xalloc(ram_bitmap_bytes(&r->map));
		u8 *host = mem_region_host(r->ram);
		struct error err = {0};
		struct ram_save *s;

		memset(host, 0x33, RAM_BYTES);
		r->delay_us = 200;
		r->may_wait = i == 1;
		assert_int_equal(ram_save_new(&s, &opt, &err), 0);
		assert_int_equal(ram_save_protect(s, r->all), 0);
		assert_int_equal(mem_discard(r->mem, 4096, 8192), 0);
		assert_int_equal(mem_discard(r->mem, 3 * RAM_UNIT, RAM_UNIT), 0);
		ram_save_moment(s, opened);
		assert_true(ram_bit(opened, r->map.ranges[1].first));
		assert_int_equal(ram_save_protect(s, opened), 0);
		note_moment(r);
		assert_int_equal(ram_save_start(s, r->all, &err), 0);
		for (u64 at = RAM_BYTES; at; at -= RAM_UNIT / 2)
			assert_int_equal(mem_discard(r->mem, at - 12288, 8192), 0);
		assert_int_equal(ram_save_wait(s), 0);
		ram_save_free(s);
		check_saved(r);
		assert_int_equal(host[RAM_BYTES - 12288] | host[RAM_BYTES - 4097], 0);
		assert_int_equal(host[RAM_BYTES - 12289] & host[RAM_BYTES - 4096], 0x33);
		rig_free(r);
	}
}

/* The budget of early copies is used up, and those who may, wait. */
static void a_slow_sink_makes_vcpus_wait_and_nobody_else(void **state)
{
	struct ram_progress p;

	if (!host_has_userfaultfd())
		skip();
	for (int i = 0; i < 2; i++) {
		struct rig *r = rig_new();

		r->delay_us = 3000;
		r->may_wait = i;
		r->early_units = 2;
		save_live(r, &p);
		assert_true(p.faults > 0);
		assert_int_equal(p.waited > 0, i);
		rig_free(r);
	}
}

static void a_sink_that_fails_ends_it_and_the_guest_goes_on(void **state)
{
	struct error err = {0};

	if (!host_has_userfaultfd())
		skip();
	for (u32 at = 1; at < 12; at += 2) {
		struct rig *r = rig_new();
		struct ram_save_options opt = options(r, true);
		struct ram_save *s;
		u64 writes;

		r->fail_at = at;
		start_guest(r);
		assert_int_equal(ram_save_new(&s, &opt, &err), 0);
		pause_guest(r);
		assert_int_equal(ram_save_protect(s, r->all), 0);
		assert_int_equal(ram_save_start(s, r->all, &err), 0);
		resume_guest(r);
		assert_int_equal(ram_save_wait(s), -ENOSPC);
		ram_save_free(s);
		writes = __atomic_load_n(&r->writes, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&r->writes, __ATOMIC_SEQ_CST) < writes + 1000)
			usleep(100);
		end_guest(r);
		assert_int_equal(r->done, 1);
		rig_free(r);
	}
}

static void it_can_be_cancelled(void **state)
{
	struct error err = {0};
	struct rig *r = rig_new();
	struct ram_save_options opt = options(r, false);
	struct ram_save *s;

	r->held = true;
	memset(mem_region_host(r->ram), 7, RAM_BYTES);
	assert_int_equal(ram_save_new(&s, &opt, &err), 0);
	assert_int_equal(ram_save_start(s, r->all, &err), 0);
	ram_save_cancel(s);
	__atomic_store_n(&r->held, false, __ATOMIC_SEQ_CST);
	assert_int_equal(ram_save_wait(s), -ECANCELED);
	ram_save_free(s);
	rig_free(r);
}

static void only_units_that_were_written_are_dirty(void **state)
{
	struct rig *r = rig_new();
	u64 *bits = xalloc(ram_bitmap_bytes(&r->map));
	u8 byte = 1;
	u64 n = 0, at = 0;

	assert_int_equal(ram_track(&r->map, true), 0);
	assert_int_equal(mem_write(r->mem, 3 * RAM_UNIT + 5, &byte, 1), 0);
	assert_int_equal(mem_write(r->mem, RAM_BYTES - 1, &byte, 1), 0);
	assert_int_equal(ram_collect(&r->map, bits), 0);
	for (u64 i = 0; i < r->map.units; i++)
		n += ram_bit(bits, i);
	assert_int_equal(n, 2);
	assert_int_equal(ram_next_run(&r->map, bits, &at, 100), 1);
	assert_int_equal(at, ram_unit_of(&r->map, (u8 *)mem_region_host(r->ram) + 3 * RAM_UNIT));
	memset(bits, 0, ram_bitmap_bytes(&r->map));
	assert_int_equal(ram_collect(&r->map, bits), 0);
	at = 0;
	assert_int_equal(ram_next_run(&r->map, bits, &at, 100), 0);
	free(bits);
	rig_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_is_the_one_of_the_specification),
		cmocka_unit_test(memory_of_a_machine_that_stands_is_saved),
		cmocka_unit_test(the_moment_is_saved_while_the_guest_writes_on),
		cmocka_unit_test(pages_discarded_after_the_moment_are_saved_as_they_were),
		cmocka_unit_test(a_slow_sink_makes_vcpus_wait_and_nobody_else),
		cmocka_unit_test(a_sink_that_fails_ends_it_and_the_guest_goes_on),
		cmocka_unit_test(it_can_be_cancelled),
		cmocka_unit_test(only_units_that_were_written_are_dirty),
	};

	return cmocka_run_group_tests_name("saving memory", tests, NULL, NULL);
}
