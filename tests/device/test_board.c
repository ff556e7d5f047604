/* All classes of the registry on one board, as a machine has them: what they do to
 * each other when a guest writes nonsense everywhere, moves BARs over everything and
 * lets devices write to memory that other devices read. */
#include "base/chardev.h"
#include "base/log.h"
#include "block/blk.h"
#include "devices/i440fx.h"
#include "devices/ide/ide.h"
#include "devices/virtio/serial.h"
#include "tests/lib/fake_machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM_BYTES   (2 * MiB)
#define MAX_REGIONS 256
#define MAX_BACKS   8 /* drives, and streams */

struct board {
	struct fake_machine fm;
	struct loop *loop;
	struct device *host, *ide, *serial;
	struct blk *blks[MAX_BACKS];
	struct chardev *chardevs[MAX_BACKS];
	unsigned n_blks, n_chardevs;
	struct rng rng;
};

/* --- building ----------------------------------------------------------------- */

static struct blk *make_blk(struct board *b)
{
	char name[] = "/tmp/test_board_XXXXXX", id[16];
	struct blk_options opt = {.id = id, .file = name, .format = "raw"};
	struct error err;
	int fd = mkstemp(name);

	assert_true(fd >= 0 && b->n_blks < MAX_BACKS);
	snprintf(id, sizeof(id), "disk%u", b->n_blks);
	assert_int_equal(ftruncate(fd, MiB), 0);
	close(fd);
	assert_int_equal(blk_open(&b->blks[b->n_blks], &opt, &err), 0);
	unlink(name);
	return b->blks[b->n_blks++];
}

static struct chardev *make_chardev(struct board *b)
{
	struct chardev **c = &b->chardevs[b->n_chardevs++];
	struct error err;

	assert_true(b->n_chardevs <= MAX_BACKS);
	assert_int_equal(chardev_open(c, b->loop, "c", "null", &err), 0);
	return *c;
}

static struct device *add(struct board *b, const struct device_class *cls, struct device *parent)
{
	struct prop_value values[4];
	struct device_args args = {.parent = parent, .values = values};
	struct device *dev;
	struct error err;

	for (const struct prop *p = cls->props; p && p->name; p++) {
		if (p->kind == PROP_KIND_CHARDEV)
			values[args.n_values++] =
				(struct prop_value){.name = p->name, .ptr = make_chardev(b)};
		if (p->kind == PROP_KIND_BLK)
			values[args.n_values++] =
				(struct prop_value){.name = p->name, .ptr = make_blk(b)};
	}
	if (device_new(&dev, &b->fm.m, cls, &args, &err) < 0)
		fail_msg("%s: %s", cls->name, err.text);
	return dev;
}

static void board_init(struct board *b, u64 seed)
{
	struct error err;

	memset(b, 0, sizeof(*b));
	b->rng.state = seed;
	fake_machine_init(&b->fm, RAM_BYTES);
	assert_int_equal(loop_new(&b->loop, "test", LOOP_AUTO, &err), 0);
	b->fm.m.loop = b->loop;
	b->host = add(b, &i440fx_class, NULL);
	b->ide = add(b, &piix_ide_class, b->host);
	b->serial = add(b, &virtio_serial_class, b->host);
	for (unsigned i = 0; device_classes[i]; i++) {
		const struct device_class *cls = device_classes[i];

		if (cls != &i440fx_class && cls != &piix_ide_class && cls != &virtio_serial_class)
			add(b, cls,
			    cls->bus == DEVICE_ON_PCI		  ? b->host
			    : cls->bus == DEVICE_ON_IDE		  ? b->ide
			    : cls->bus == DEVICE_ON_VIRTIO_SERIAL ? b->serial
								  : NULL);
	}
}

static void board_fini(struct board *b)
{
	fake_machine_fini(&b->fm);
	for (unsigned i = 0; i < b->n_chardevs; i++)
		chardev_close(b->chardevs[i]);
	for (unsigned i = 0; i < b->n_blks; i++)
		blk_close(b->blks[i]);
	loop_free(b->loop);
}

/* --- nonsense ----------------------------------------------------------------- */

struct regions {
	struct {
		u64 addr, bytes;
	} at[MAX_REGIONS];
	unsigned n;
};

static void collect(void *arg, const char *name, u64 addr, u64 bytes, int priority)
{
	struct regions *r = arg;

	assert_true(r->n < MAX_REGIONS);
	r->at[r->n].addr = addr;
	r->at[r->n++].bytes = bytes;
}

static u64 odd_value(struct rng *rng)
{
	switch (rng_below(rng, 5)) {
	case 0: return rng_below(rng, 2) ? UINT64_MAX : 0;
	case 1: return (u64)1 << rng_below(rng, 64);
	case 2: return rng_below(rng, 256);
	case 3: return rng_below(rng, RAM_BYTES) & ~(u64)0xf;
	default: return rng_next(rng);
	}
}

static void poke_bus(struct board *b, struct bus *bus)
{
	struct regions r = {.n = 0};
	unsigned size = 1u << rng_below(&b->rng, 3), i;
	u64 addr, value;

	bus_each(bus, collect, &r);
	if (!r.n)
		return;
	i = rng_below(&b->rng, r.n);
	addr = r.at[i].addr + rng_next(&b->rng) % MIN(r.at[i].bytes, (u64)0x2000);
	if (rng_below(&b->rng, 2))
		bus_read(bus, addr, size, &value);
	else
		bus_write(bus, addr, size, odd_value(&b->rng));
}

/* Any function that is there; half of the time its BARs, near those of others. */
static void poke_config(struct board *b)
{
	u8 devfn = (u8)rng_below(&b->rng, 64);
	u8 off = (u8)rng_below(&b->rng, 256);

	if (!pci_bus_dev(pci_bus_of(b->host), devfn))
		return;
	if (rng_below(&b->rng, 2)) {
		pci_write(&b->fm, devfn, off, 1, (u32)odd_value(&b->rng));
		return;
	}
	pci_write(&b->fm, devfn, (u8)(0x10 + 4 * rng_below(&b->rng, 6)), 4,
		  rng_below(&b->rng, 2) ? 0xc000 + 0x40 * rng_below(&b->rng, 8)
					: 0xe0000000 + 0x1000 * rng_below(&b->rng, 8));
	pci_write(&b->fm, devfn, 0x04, 2, 7);
}

static void scribble_on_ram(struct board *b)
{
	u64 noise[8];

	for (unsigned i = 0; i < ARRAY_LEN(noise); i++)
		noise[i] = odd_value(&b->rng);
	mem_write(b->fm.m.mem, rng_below(&b->rng, RAM_BYTES - sizeof(noise)), noise, sizeof(noise));
}

static void nonsense(struct board *b, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		u32 dice = rng_below(&b->rng, 100);

		if (dice < 8)
			poke_config(b);
		else if (dice < 12)
			scribble_on_ram(b);
		else if (dice < 15)
			clock_advance(b->fm.m.clock, rng_next(&b->rng) % (NS_PER_SEC / 50));
		else if (dice < 70)
			poke_bus(b, b->fm.m.pio);
		else
			poke_bus(b, b->fm.m.mmio);
	}
}

/* --- tests -------------------------------------------------------------------- */

static void pause_all(struct board *b, bool pause)
{
	list_for_each (item, &b->fm.m.devices) {
		struct device *dev = list_entry(item, struct device, link);

		if (pause && dev->cls->pause)
			dev->cls->pause(dev);
		if (!pause && dev->cls->resume)
			dev->cls->resume(dev);
	}
}

static void save_all(struct board *b, struct state_buf *out)
{
	*out = (struct state_buf){.data = NULL};
	list_for_each (item, &b->fm.m.devices)
		device_save(list_entry(item, struct device, link), out);
}

static void reset_all(struct board *b)
{
	list_for_each (item, &b->fm.m.devices)
		device_reset(list_entry(item, struct device, link));
}

static void a_board_full_of_devices_stands_nonsense(void **state)
{
	for (u64 seed = 1; seed < 5; seed++) {
		struct board b;

		board_init(&b, seed);
		nonsense(&b, 100000);
		reset_all(&b);
		nonsense(&b, 2000);
		board_fini(&b);
	}
}

static void the_state_of_all_moves_to_another_board(void **state)
{
	struct board a, b;
	struct state_buf first, second, in;
	struct error err;

	board_init(&a, 7);
	board_init(&b, 8);
	nonsense(&a, 3000);
	pause_all(&a, true);
	save_all(&a, &first);
	pause_all(&b, true);
	clock_set(b.fm.m.clock, clock_now(a.fm.m.clock));
	in = (struct state_buf){.data = first.data, .bytes = first.bytes};
	list_for_each (item, &b.fm.m.devices)
		if (device_load(list_entry(item, struct device, link), &in, &err) < 0)
			fail_msg("%s", err.text);
	assert_int_equal(in.at, in.bytes);
	save_all(&b, &second);
	assert_int_equal(first.bytes, second.bytes);
	assert_memory_equal(first.data, second.data, first.bytes);
	pause_all(&a, false);
	pause_all(&b, false);
	state_buf_fini(&first);
	state_buf_fini(&second);
	board_fini(&a);
	board_fini(&b);
}

static void no_line_is_left_high_by_a_reset(void **state)
{
	struct board b;

	board_init(&b, 9);
	nonsense(&b, 5000);
	reset_all(&b);
	for (u32 gsi = 0; gsi < IRQ_GSIS; gsi++)
		assert_false(b.fm.gsi[gsi]);
	board_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_board_full_of_devices_stands_nonsense),
		cmocka_unit_test(the_state_of_all_moves_to_another_board),
		cmocka_unit_test(no_line_is_left_high_by_a_reset),
	};
	struct error err;

	assert(log_set_file("/dev/null", &err) == 0); /* thousands of guest errors */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
