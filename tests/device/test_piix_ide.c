/* The PIIX3 IDE function with drives: ports, bus master, saved state, nonsense. */
#include "devices/i440fx.h"
#include "devices/ide/ide.h"
#include "devices/ide/piix_ide.h"
#include "base/bytes.h"
#include "tests/lib/fake_blk.h"
#include "tests/lib/fake_machine.h"

#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define RAM_BYTES (2 * MiB)
#define IDE	  DEVFN(1, 1)
#define BM	  0xc000
#define BM_ACTIVE 0x01
#define BM_ERROR  0x02
#define BM_IRQ	  0x04
#define BM_READ	  0x09 /* start, to memory */
#define BM_WRITE  0x01
#define TABLE	  0x10000
#define HD_BYTES  (4096 * 512)
#define CD_BYTES  (100 * 2048)

struct bench {
	struct fake_machine fm;
	struct device *ide, *hd, *cd;
	struct blk *hd_blk, *cd_blk;
};

static void bench_init(struct bench *b)
{
	struct ide_place hd = {.channel = 0, .unit = 0, .serial = "S1", .bootindex = -1};
	struct ide_place cd = {.channel = 1, .unit = 0, .cdrom = true, .bootindex = -1};
	struct device *bridge;
	struct error err;

	memset(b, 0, sizeof(*b));
	fake_machine_init(&b->fm, RAM_BYTES);
	b->hd_blk = fake_blk_new("hd", HD_BYTES);
	b->cd_blk = fake_blk_new("cd", CD_BYTES);
	bridge = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	b->ide = fake_device(&b->fm, &piix_ide_class, bridge, "addr=1.1", NULL);
	assert_int_equal(piix_ide_attach(b->ide, &hd, b->hd_blk, &b->hd, &err), 0);
	assert_int_equal(piix_ide_attach(b->ide, &cd, b->cd_blk, &b->cd, &err), 0);
	pci_write(&b->fm, IDE, 0x20, 4, BM);
	pci_write(&b->fm, IDE, 0x04, 2, 0x05);
}

static void run(struct bench *b)
{
	fake_blk_run(b->hd_blk);
	fake_blk_run(b->cd_blk);
}

static void bench_fini(struct bench *b)
{
	run(b);
	fake_machine_fini(&b->fm);
	fake_blk_free(b->hd_blk);
	fake_blk_free(b->cd_blk);
}

static int setup(void **state)
{
	struct bench *b = xnew(struct bench);

	bench_init(b);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	bench_fini(*state);
	free(*state);
	return 0;
}

static void command(struct bench *b, u8 opcode, u32 lba, u8 count)
{
	outb(&b->fm, 0x1f6, (u8)(0xe0 | lba >> 24));
	outb(&b->fm, 0x1f2, count);
	outb(&b->fm, 0x1f3, (u8)lba);
	outb(&b->fm, 0x1f4, (u8)(lba >> 8));
	outb(&b->fm, 0x1f5, (u8)(lba >> 16));
	outb(&b->fm, 0x1f7, opcode);
}

static void descriptor(struct bench *b, unsigned n, u32 addr, u16 bytes, bool last)
{
	u8 raw[8];

	store_le32(raw, addr);
	store_le32(raw + 4, bytes | (last ? 0x80000000u : 0));
	assert_int_equal(mem_write(b->fm.m.mem, TABLE + 8 * n, raw, 8), 0);
}

static void assert_memory_has_disk(struct bench *b, u32 addr, u64 goff, u32 bytes)
{
	const u8 *p = mem_ptr_ro(b->fm.m.mem, addr, bytes);

	assert_non_null(p);
	for (u32 i = 0; i < bytes; i++)
		assert_int_equal(p[i], fake_blk_byte(goff + i));
}

static void function_looks_like_a_piix3(void **state)
{
	struct bench *b = *state;
	unsigned channel, unit;

	assert_int_equal(pci_read(&b->fm, IDE, 0, 4), 0x70108086);
	assert_int_equal(pci_read(&b->fm, IDE, 8, 4) >> 8, 0x010180);
	assert_int_equal(pci_read(&b->fm, IDE, 0x41, 1) & 0x80, 0x80);
	assert_string_equal(b->hd->id, "ide0-hd0");
	assert_string_equal(b->cd->id, "ide1-cd0");
	assert_true(ide_drive_place(b->cd, &channel, &unit));
	assert_int_equal(channel, 1);
	assert_int_equal(unit, 0);
	assert_false(ide_drive_place(b->ide, &channel, &unit));
}

static void ports_follow_the_decode_bits(void **state)
{
	struct bench *b = *state;

	assert_int_equal(inb(&b->fm, 0x1f7), 0x50);
	assert_int_equal(inb(&b->fm, 0x3f6), 0x50);
	pci_write(&b->fm, IDE, 0x40, 2, 0);
	assert_int_equal(inb(&b->fm, 0x1f7), 0xff);
	assert_int_equal(inb(&b->fm, 0x177), 0x00); /* a packet device after a reset */
	pci_write(&b->fm, IDE, 0x40, 2, 0x8000);
	pci_write(&b->fm, IDE, 0x04, 2, 0x04);
	assert_int_equal(inb(&b->fm, 0x1f7), 0xff);
}

static void data_port_takes_16_and_32_bits(void **state)
{
	struct bench *b = *state;

	command(b, 0xec, 0, 0);
	assert_true(b->fm.gsi[14]);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x58);
	assert_false(b->fm.gsi[14]);
	assert_int_equal(inw(&b->fm, 0x1f0), 0x0040);
	assert_int_equal(inl(&b->fm, 0x1f0) & 0xffff, 4); /* cylinders */
	for (unsigned i = 3; i < 255; i++)
		inw(&b->fm, 0x1f0);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x58);
	inw(&b->fm, 0x1f0);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x50);
}

static void scattered_dma_read_lands_where_the_table_says(void **state)
{
	struct bench *b = *state;

	descriptor(b, 0, 0x20000, 510, false);
	descriptor(b, 1, 0x30002, 1026, false);
	descriptor(b, 2, 0x40000, 0, true); /* 64 KiB, of which 512 are wanted */
	outl(&b->fm, BM + 4, TABLE);
	command(b, 0xc8, 100, 4);
	assert_int_equal(fake_blk_pending(b->hd_blk), 0);
	outb(&b->fm, BM, BM_READ);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, BM_ACTIVE);
	run(b);
	assert_true(b->fm.gsi[14]);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, BM_ACTIVE | BM_IRQ); /* table not used up */
	assert_memory_has_disk(b, 0x20000, 100 * 512, 510);
	assert_memory_has_disk(b, 0x30002, 100 * 512 + 510, 1026);
	assert_memory_has_disk(b, 0x40000, 103 * 512, 512);
	outb(&b->fm, BM, 0);
	outb(&b->fm, BM + 2, BM_IRQ);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, 0);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x50);
}

static void dma_write_of_many_pieces_takes_several_requests(void **state)
{
	struct bench *b = *state;
	u8 *ram = mem_ptr_rw(b->fm.m.mem, 0x40000, 0x40000);

	memset(ram, 0, 0x40000);
	for (unsigned i = 0; i < 300; i++) { /* more than there are vectors */
		memset(ram + 512 * i, (int)(i + 1), 512);
		descriptor(b, i, 0x40000 + 512 * (i ^ 1), 512, i == 299);
	}
	outl(&b->fm, BM + 4, TABLE);
	outb(&b->fm, 0x1f2, 1); /* 300 sectors: the high byte of the count first */
	outb(&b->fm, 0x1f3, 0);
	outb(&b->fm, 0x1f4, 0);
	outb(&b->fm, 0x1f5, 0);
	command(b, 0x35, 50, 300 - 256);
	outb(&b->fm, BM, BM_WRITE);
	run(b);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, BM_IRQ);
	assert_true(fake_blk_log(b->hd_blk)->count[BLK_WRITE] >= 2);
	for (unsigned i = 0; i < 300; i++)
		assert_int_equal(fake_blk_data(b->hd_blk)[(50 + i) * 512 + 9], (u8)((i ^ 1) + 1));
}

static void short_table_leaves_active_and_interrupt_clear(void **state)
{
	struct bench *b = *state;

	descriptor(b, 0, 0x20000, 1024, true);
	outl(&b->fm, BM + 4, TABLE);
	command(b, 0xc8, 0, 8);
	outb(&b->fm, BM, BM_READ);
	run(b);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, 0);
	assert_false(b->fm.gsi[14]);
	assert_int_equal(inb(&b->fm, 0x3f6) & 0x80, 0x80);
	outb(&b->fm, BM, 0);
	outb(&b->fm, 0x3f6, 4);
	outb(&b->fm, 0x3f6, 0);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x50);
}

static void table_outside_memory_is_an_error(void **state)
{
	struct bench *b = *state;

	outl(&b->fm, BM + 4, 0xfff00000);
	command(b, 0xc8, 0, 8);
	outb(&b->fm, BM, BM_READ);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, BM_ERROR | BM_IRQ);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x51);
	descriptor(b, 0, 0x20000, 512, false);
	descriptor(b, 1, 0xe0000000, 512, true);
	outl(&b->fm, BM + 4, TABLE);
	outb(&b->fm, BM, 0);
	outb(&b->fm, BM + 2, 6);
	command(b, 0xc8, 0, 2);
	outb(&b->fm, BM, BM_READ);
	run(b);
	assert_int_equal(inb(&b->fm, BM + 2) & 7, BM_ERROR | BM_IRQ);
}

static void dma_waits_for_bus_mastering(void **state)
{
	struct bench *b = *state;

	pci_write(&b->fm, IDE, 0x04, 2, 0x01);
	descriptor(b, 0, 0x20000, 512, true);
	outl(&b->fm, BM + 4, TABLE);
	command(b, 0xc8, 7, 1);
	outb(&b->fm, BM, BM_READ);
	assert_int_equal(fake_blk_pending(b->hd_blk), 0);
	pci_write(&b->fm, IDE, 0x04, 2, 0x05);
	run(b);
	assert_true(b->fm.gsi[14]);
	assert_memory_has_disk(b, 0x20000, 7 * 512, 512);
}

static void dma_reads_mark_memory_dirty(void **state)
{
	struct bench *b = *state;
	struct mem_region_info info[4];
	u64 bitmap[RAM_BYTES / 4096 / 64] = {0};

	assert_true(mem_regions(b->fm.m.mem, info, 4) >= 1);
	assert_int_equal(mem_dirty_log(info[0].region, MEM_DIRTY_SNAPSHOT, true), 0);
	descriptor(b, 0, 0x20000, 4096, true);
	mem_dirty_collect(info[0].region, MEM_DIRTY_SNAPSHOT, bitmap);
	memset(bitmap, 0, sizeof(bitmap));
	outl(&b->fm, BM + 4, TABLE);
	command(b, 0xc8, 0, 8);
	outb(&b->fm, BM, BM_READ);
	outb(&b->fm, BM, 0); /* stopped: what was written is written all the same */
	run(b);
	mem_dirty_collect(info[0].region, MEM_DIRTY_SNAPSHOT, bitmap);
	assert_true(bitmap[0x20 / 64] & (u64)1 << 0x20 % 64);
	assert_false(bitmap[0x21 / 64] & (u64)1 << 0x21 % 64);
}

static void move_state(struct device *from, struct device *to)
{
	struct state_buf saved, again;
	struct error err;

	fake_save(from, &saved);
	saved.at = 0;
	if (device_load(to, &saved, &err) < 0)
		fail_msg("%s", err.text);
	fake_save(to, &again);
	assert_int_equal(saved.bytes, again.bytes);
	assert_memory_equal(saved.data, again.data, saved.bytes);
	state_buf_fini(&saved);
	state_buf_fini(&again);
}

static void pause(struct bench *b, bool on)
{
	struct device *devices[] = {b->ide, b->hd, b->cd};

	for (unsigned i = 0; i < ARRAY_LEN(devices); i++) {
		if (on)
			devices[i]->cls->pause(devices[i]);
		else
			devices[i]->cls->resume(devices[i]);
	}
}

/* As a snapshot loaded in another process: pause, save, load there, resume. */
static void move_machine(struct bench *from, struct bench *to)
{
	pause(from, true);
	pause(to, true);
	memcpy(mem_ptr_rw(to->fm.m.mem, 0, RAM_BYTES), mem_ptr_ro(from->fm.m.mem, 0, RAM_BYTES),
	       RAM_BYTES);
	move_state(from->ide, to->ide);
	move_state(from->hd, to->hd);
	move_state(from->cd, to->cd);
	pause(to, false);
}

static void *pause_ide(void *arg)
{
	struct bench *b = arg;

	b->ide->cls->pause(b->ide);
	return NULL;
}

static bool is_pausing(struct bench *b)
{
	LOCK_SCOPE(&b->ide->lock);
	return piix_ide_of(b->ide)->channels[0].ata.paused;
}

static void transfer_under_way_goes_on_in_another_machine(void **state)
{
	struct bench *a = *state, b;
	struct error err;
	pthread_t thread;

	for (unsigned i = 0; i < 600; i++)
		descriptor(a, i, 0x40000 + 512 * (i ^ 1), 512, i == 599);
	outl(&a->fm, BM + 4, TABLE);
	outb(&a->fm, 0x1f2, 600 >> 8);
	outb(&a->fm, 0x1f3, 0);
	outb(&a->fm, 0x1f4, 0);
	outb(&a->fm, 0x1f5, 0);
	command(a, 0x25, 10, 600 & 0xff);
	outb(&a->fm, BM, BM_READ);
	/* Pause in the first request of several, as a control thread would. */
	assert_int_equal(thread_start(&thread, "pause", pause_ide, a, &err), 0);
	while (!is_pausing(a))
		sched_yield();
	fake_blk_run(a->hd_blk);
	pthread_join(thread, NULL);
	assert_int_equal(fake_blk_log(a->hd_blk)->count[BLK_READ], 1);
	assert_int_equal(inb(&a->fm, 0x3f6) & 0x80, 0x80);
	bench_init(&b);
	move_machine(a, &b);
	run(&b);
	assert_true(fake_blk_log(b.hd_blk)->goff > 10 * 512); /* not from the start */
	assert_true(b.fm.gsi[14]);
	assert_int_equal(inb(&b.fm, 0x1f7), 0x50);
	for (unsigned i = 0; i < 600; i++)
		assert_memory_has_disk(&b, 0x40000 + 512 * (i ^ 1), (10 + i) * 512, 512);
	bench_fini(&b);
}

static void pio_in_the_middle_of_a_sector_goes_on_elsewhere(void **state)
{
	struct bench *a = *state, b;
	u64 at = 33 * 512;

	command(a, 0x20, 33, 3);
	run(a);
	for (unsigned i = 0; i < 300; i++, at += 2)
		assert_int_equal(inw(&a->fm, 0x1f0), fake_blk_byte(at) | fake_blk_byte(at + 1)
										 << 8);
	bench_init(&b);
	move_machine(a, &b);
	assert_true(b.fm.gsi[14]);
	for (unsigned i = 300; i < 768; i++, at += 2)
		assert_int_equal(inw(&b.fm, 0x1f0), fake_blk_byte(at) | fake_blk_byte(at + 1) << 8);
	assert_int_equal(inb(&b.fm, 0x1f7), 0x50);
	bench_fini(&b);
}

static void state_without_its_drive_resets_the_channel(void **state)
{
	struct bench *a = *state;
	struct fake_machine fm;
	struct device *bridge, *ide;
	struct state_buf saved;
	struct error err;

	command(a, 0xec, 0, 0);
	fake_save(a->ide, &saved);
	fake_machine_init(&fm, RAM_BYTES);
	bridge = fake_device(&fm, &i440fx_class, NULL, NULL);
	ide = fake_device(&fm, &piix_ide_class, bridge, "addr=1.1", NULL);
	if (device_load(ide, &saved, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(inb(&fm, 0x1f7), 0);
	assert_false(fm.gsi[14]);
	state_buf_fini(&saved);
	fake_machine_fini(&fm);
}

static void places_are_taken_once(void **state)
{
	struct bench *b = *state;
	struct ide_place place = {.channel = 0, .unit = 0, .bootindex = -1};
	struct blk *tiny = fake_blk_new("tiny", 0);
	struct device *dev;
	struct error err;

	assert_int_equal(piix_ide_attach(b->ide, &place, b->cd_blk, &dev, &err), -EEXIST);
	place.cdrom = true; /* another name, the same place */
	assert_int_equal(piix_ide_attach(b->ide, &place, b->cd_blk, &dev, &err), -EBUSY);
	place.cdrom = false;
	place.unit = 1;
	place.serial = "a serial number that is too long";
	assert_int_equal(piix_ide_attach(b->ide, &place, b->cd_blk, &dev, &err), -EINVAL);
	place.serial = NULL;
	assert_int_equal(piix_ide_attach(b->ide, &place, tiny, &dev, &err), -ENOMEDIUM);
	place.cdrom = true; /* a CD drive may be empty */
	assert_int_equal(piix_ide_attach(b->ide, &place, tiny, &dev, &err), 0);
	device_free(dev);
	fake_blk_free(tiny);
}

/* Registers, tables and resets at random, with requests ending now and then. */
static void nonsense(struct bench *b, struct rng *rng)
{
	static const u8 opcodes[] = {0x20, 0x24, 0x25, 0x30, 0x35, 0xc8, 0xca, 0xa0, 0xa1, 0xec,
				     0xe7, 0x06, 0xc4, 0xc6, 0xef, 0x90, 0x08, 0x40, 0x91, 0xe0};
	u16 base = rng_below(rng, 2) ? 0x1f0 : 0x170;
	u32 v = (u32)rng_next(rng);

	switch (rng_below(rng, 12)) {
	case 0: outb(&b->fm, base + 7, opcodes[v % ARRAY_LEN(opcodes)]); break;
	case 1: outb(&b->fm, base + 1 + v % 6, (u8)(v >> 8)); break;
	case 2: outb(&b->fm, base + 2 + v % 4, (u8)(v >> 8 & 3)); break;
	case 3: outb(&b->fm, base + 6, (u8)(0xa0 | (v & 0x50))); break;
	case 4: outb(&b->fm, base == 0x1f0 ? BM : BM + 8, (u8)(v & 9)); break;
	case 5: outl(&b->fm, base == 0x1f0 ? BM + 4 : BM + 12, TABLE + (v & 0xfc)); break;
	case 6: descriptor(b, v % 64, v & 0x3ffffe, (u16)(v >> 16), v & 1); break;
	case 7: fake_blk_step(v & 1 ? b->hd_blk : b->cd_blk); break;
	case 8:
		for (unsigned i = 0; i < v % 600; i++)
			inl(&b->fm, base);
		break;
	case 9:
		for (unsigned i = 0; i < v % 600; i++)
			outw(&b->fm, base, v & 2 ? (u16)v : 0x0028);
		break;
	case 10: inb(&b->fm, base + 7); break;
	default:
		if (v % 8 == 0)
			outb(&b->fm, base + 0x206, (u8)(v >> 8 & 6));
	}
}

static void random_registers_do_no_harm(void **state)
{
	struct bench *b = *state;
	struct rng rng = {.state = 77};

	for (unsigned i = 0; i < 200000; i++)
		nonsense(b, &rng);
	run(b);
	outb(&b->fm, BM, 0);
	outb(&b->fm, 0x3f6, 4);
	outb(&b->fm, 0x3f6, 0);
	run(b);
	assert_int_equal(inb(&b->fm, 0x1f7), 0x50);
}

#define IDE_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IDE_TEST(function_looks_like_a_piix3),
		IDE_TEST(ports_follow_the_decode_bits),
		IDE_TEST(data_port_takes_16_and_32_bits),
		IDE_TEST(scattered_dma_read_lands_where_the_table_says),
		IDE_TEST(dma_write_of_many_pieces_takes_several_requests),
		IDE_TEST(short_table_leaves_active_and_interrupt_clear),
		IDE_TEST(table_outside_memory_is_an_error),
		IDE_TEST(dma_waits_for_bus_mastering),
		IDE_TEST(dma_reads_mark_memory_dirty),
		IDE_TEST(transfer_under_way_goes_on_in_another_machine),
		IDE_TEST(pio_in_the_middle_of_a_sector_goes_on_elsewhere),
		IDE_TEST(state_without_its_drive_resets_the_channel),
		IDE_TEST(places_are_taken_once),
		IDE_TEST(random_registers_do_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
