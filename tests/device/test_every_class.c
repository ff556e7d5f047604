/* What every class of the registry must stand, whatever it is: reset to the same
 * state, save and load, hostile saved state, and random accesses to all of its
 * registers.  A class that cannot be made here fails, it is not skipped. */
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
#define MAX_REGIONS 64

/* What survives a reset, and why. */
static const struct {
	const char *name, *why;
} battery_backed[] = {
	{"mc146818rtc", "CMOS memory and clock run from the battery"},
};

struct bench {
	struct fake_machine fm;
	const struct device_class *cls;
	struct device *dev;
	struct loop *loop;
	struct chardev *chardev;
	struct blk *blk;
	struct rng rng;
};

/* --- making one --------------------------------------------------------------- */

static void make_blk(struct bench *b)
{
	char name[] = "/tmp/test_every_class_XXXXXX";
	struct blk_options opt = {.id = "disk", .file = name, .format = "raw"};
	struct error err;
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 * MiB), 0);
	close(fd);
	assert_int_equal(blk_open(&b->blk, &opt, &err), 0);
	unlink(name);
}

static void give_objects(struct bench *b, struct prop_value *values, unsigned *n)
{
	struct error err;

	for (const struct prop *p = b->cls->props; p && p->name; p++) {
		if (p->kind == PROP_KIND_CHARDEV) {
			assert_null(b->chardev);
			assert_int_equal(chardev_open(&b->chardev, b->loop, "c0", "null", &err), 0);
			values[(*n)++] = (struct prop_value){.name = p->name, .ptr = b->chardev};
		} else if (p->kind == PROP_KIND_BLK) {
			assert_null(b->blk);
			make_blk(b);
			values[(*n)++] = (struct prop_value){.name = p->name, .ptr = b->blk};
		}
	}
}

static void bench_init(struct bench *b, const struct device_class *cls, u64 seed)
{
	struct prop_value values[4];
	struct device_args args = {.values = values};
	struct error err;

	memset(b, 0, sizeof(*b));
	b->cls = cls;
	b->rng.state = seed;
	fake_machine_init(&b->fm, RAM_BYTES);
	assert_int_equal(loop_new(&b->loop, "test", LOOP_AUTO, &err), 0);
	b->fm.m.loop = b->loop;
	if (cls != &i440fx_class && (cls->bus == DEVICE_ON_PCI || cls->bus == DEVICE_ON_IDE))
		args.parent = fake_device(&b->fm, &i440fx_class, NULL, NULL);
	if (cls->bus == DEVICE_ON_VIRTIO_SERIAL)
		args.parent = fake_device(&b->fm, &virtio_serial_class,
					  fake_device(&b->fm, &i440fx_class, NULL, NULL), NULL);
	if (cls->bus == DEVICE_ON_IDE)
		args.parent = fake_device(&b->fm, &piix_ide_class, args.parent, NULL);
	give_objects(b, values, &args.n_values);
	if (device_new(&b->dev, &b->fm.m, cls, &args, &err) < 0)
		fail_msg("%s: %s", cls->name, err.text);
}

static void bench_fini(struct bench *b)
{
	fake_machine_fini(&b->fm);
	if (b->chardev)
		chardev_close(b->chardev);
	if (b->blk)
		blk_close(b->blk);
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

/* Values that mean something more often than chance would have it. */
static u64 odd_value(struct rng *rng)
{
	switch (rng_below(rng, 6)) {
	case 0: return 0;
	case 1: return UINT64_MAX;
	case 2: return (u64)1 << rng_below(rng, 64);
	case 3: return rng_below(rng, 256);
	case 4: return rng_below(rng, RAM_BYTES) & ~(u64)0xf;
	default: return rng_next(rng);
	}
}

static void poke_bus(struct bench *b, struct bus *bus)
{
	struct regions r = {.n = 0};
	unsigned size = 1u << rng_below(&b->rng, 3), i;
	u64 addr, value;

	bus_each(bus, collect, &r);
	if (!r.n)
		return;
	i = rng_below(&b->rng, r.n);
	addr = r.at[i].addr + rng_next(&b->rng) % MIN(r.at[i].bytes, 0x2000u);
	if (rng_below(&b->rng, 4))
		addr &= ~(u64)(size - 1);
	if (rng_below(&b->rng, 2))
		bus_read(bus, addr, size, &value);
	else
		bus_write(bus, addr, size, odd_value(&b->rng));
}

static u8 devfn_of(const struct bench *b)
{
	return ((const struct pci_dev *)b->dev)->devfn;
}

static void poke_config(struct bench *b)
{
	unsigned size = 1u << rng_below(&b->rng, 3);
	u8 off = (u8)(rng_below(&b->rng, 256) & ~(size - 1));

	if (rng_below(&b->rng, 4) == 0)
		pci_read(&b->fm, devfn_of(b), off, size);
	else
		pci_write(&b->fm, devfn_of(b), off, size, (u32)odd_value(&b->rng));
}

/* As firmware would: every BAR somewhere useful, everything decoded. */
static void place_bars(struct bench *b)
{
	for (unsigned bar = 0; bar < 6; bar++) {
		u8 off = (u8)(0x10 + 4 * bar);
		bool io = pci_read(&b->fm, devfn_of(b), off, 4) & 1;
		bool upper = bar && (pci_read(&b->fm, devfn_of(b), (u8)(off - 4), 4) & 7) == 4;

		pci_write(&b->fm, devfn_of(b), off, 4,
			  upper ? 0
			  : io	? 0xc000 + 0x400 * bar
				: 0xe0000000 + 0x1000000 * bar);
	}
	pci_write(&b->fm, devfn_of(b), 0x04, 2, 7);
}

static void scribble_on_ram(struct bench *b)
{
	u8 noise[64];

	for (unsigned i = 0; i < sizeof(noise); i++)
		noise[i] = (u8)odd_value(&b->rng);
	mem_write(b->fm.m.mem, rng_below(&b->rng, RAM_BYTES - sizeof(noise)), noise, sizeof(noise));
}

static void nonsense(struct bench *b, unsigned times)
{
	bool pci = b->cls->bus == DEVICE_ON_PCI;

	for (unsigned i = 0; i < times; i++) {
		u32 dice = rng_below(&b->rng, 1000);

		if (pci && (i == 0 || dice < 5))
			place_bars(b);
		else if (pci && dice < 50)
			poke_config(b);
		else if (dice < 80)
			scribble_on_ram(b);
		else if (dice < 120)
			clock_advance(b->fm.m.clock, rng_next(&b->rng) % (NS_PER_SEC / 50));
		else if (dice < 600)
			poke_bus(b, b->fm.m.pio);
		else
			poke_bus(b, b->fm.m.mmio);
	}
}

/* --- the tests: state is the class -------------------------------------------- */

static void save(struct bench *b, struct state_buf *out)
{
	if (b->cls->pause)
		b->cls->pause(b->dev);
	fake_save(b->dev, out);
	if (b->cls->resume)
		b->cls->resume(b->dev);
}

static void assert_same_state(const struct state_buf *a, const struct state_buf *b)
{
	assert_int_equal(a->bytes, b->bytes);
	assert_memory_equal(a->data, b->data, a->bytes);
}

static void resetting_twice_is_resetting_once(void **state)
{
	struct bench b;
	struct state_buf once, twice;

	bench_init(&b, *state, 1);
	nonsense(&b, 500);
	device_reset(b.dev);
	save(&b, &once);
	device_reset(b.dev);
	save(&b, &twice);
	assert_same_state(&once, &twice);
	state_buf_fini(&once);
	state_buf_fini(&twice);
	bench_fini(&b);
}

static bool keeps_state(const struct device_class *cls)
{
	for (unsigned i = 0; i < ARRAY_LEN(battery_backed); i++)
		if (!strcmp(battery_backed[i].name, cls->name))
			return true;
	return false;
}

static void reset_brings_power_on_state_back(void **state)
{
	struct bench b;
	struct state_buf fresh, again;

	bench_init(&b, *state, 2);
	save(&b, &fresh);
	nonsense(&b, 2000);
	clock_set(b.fm.m.clock, 0); /* or free-running counters would differ */
	device_reset(b.dev);
	save(&b, &again);
	if (!keeps_state(b.cls))
		assert_same_state(&fresh, &again);
	state_buf_fini(&fresh);
	state_buf_fini(&again);
	bench_fini(&b);
}

/* Load in the paused machine, as a snapshot would; `again`: save at once, before the
 * device goes on with a guest memory that is not the one it was saved with. */
static int load_and_save(struct bench *b, const struct state_buf *from, struct state_buf *again,
			 struct error *err)
{
	struct state_buf in = {.data = from->data, .bytes = from->bytes};
	int ret;

	if (b->cls->pause)
		b->cls->pause(b->dev);
	ret = device_load(b->dev, &in, err);
	if (again)
		fake_save(b->dev, again);
	if (b->cls->resume)
		b->cls->resume(b->dev);
	return ret;
}

static int load(struct bench *b, u8 *data, size_t bytes, struct error *err)
{
	struct state_buf from = {.data = data, .bytes = bytes};

	return load_and_save(b, &from, NULL, err);
}

static void saved_state_loads_into_another_machine(void **state)
{
	for (u64 seed = 3; seed < 8; seed++) {
		struct bench a, b;
		struct state_buf first, second;
		struct error err;

		bench_init(&a, *state, seed);
		bench_init(&b, *state, seed);
		nonsense(&a, 1000);
		save(&a, &first);
		clock_set(b.fm.m.clock, clock_now(a.fm.m.clock));
		if (load_and_save(&b, &first, &second, &err) < 0)
			fail_msg("%s: %s", a.cls->name, err.text);
		assert_same_state(&first, &second);
		state_buf_fini(&first);
		state_buf_fini(&second);
		nonsense(&b, 500);
		bench_fini(&a);
		bench_fini(&b);
	}
}

static void damaged_state_is_refused_or_harmless(void **state)
{
	struct bench b;
	struct state_buf saved;
	struct error err;

	bench_init(&b, *state, 11);
	nonsense(&b, 300);
	save(&b, &saved);
	for (size_t bytes = 0; bytes < saved.bytes; bytes += 1 + bytes / 8)
		assert_true(load(&b, saved.data, bytes, &err) < 0);
	for (unsigned i = 0; i < 300; i++) {
		u8 *byte = &saved.data[rng_below(&b.rng, (u32)saved.bytes)];
		u8 was = *byte;

		*byte ^= (u8)(1u << rng_below(&b.rng, 8));
		if (load(&b, saved.data, saved.bytes, &err) == 0)
			nonsense(&b, 20);
		*byte = was;
	}
	state_buf_fini(&saved);
	bench_fini(&b);
}

static void random_register_accesses_do_no_harm(void **state)
{
	for (u64 seed = 21; seed < 24; seed++) {
		struct bench b;

		bench_init(&b, *state, seed);
		nonsense(&b, 8000);
		device_reset(b.dev);
		nonsense(&b, 100);
		bench_fini(&b);
	}
}

static const struct {
	const char *name;
	void (*fn)(void **state);
} checks[] = {
	{"resetting_twice_is_resetting_once", resetting_twice_is_resetting_once},
	{"reset_brings_power_on_state_back", reset_brings_power_on_state_back},
	{"saved_state_loads_into_another_machine", saved_state_loads_into_another_machine},
	{"damaged_state_is_refused_or_harmless", damaged_state_is_refused_or_harmless},
	{"random_register_accesses_do_no_harm", random_register_accesses_do_no_harm},
};

int main(void)
{
	unsigned n = 0, classes = 0;
	struct CMUnitTest *tests;
	struct error err;
	int failed;

	assert(log_set_file("/dev/null", &err) == 0); /* thousands of guest errors */
	while (device_classes[classes])
		classes++;
	tests = xnew_n(struct CMUnitTest, classes * ARRAY_LEN(checks));
	for (unsigned c = 0; c < classes; c++) {
		for (unsigned i = 0; i < ARRAY_LEN(checks); i++)
			tests[n++] = (struct CMUnitTest){
				.name = xasprintf("%s: %s", device_classes[c]->name,
						  checks[i].name),
				.test_func = checks[i].fn,
				.initial_state = (void *)(uintptr_t)device_classes[c],
			};
	}
	failed = _cmocka_run_group_tests("every class", tests, n, NULL, NULL);
	for (unsigned i = 0; i < n; i++)
		free((void *)(uintptr_t)tests[i].name);
	free(tests);
	return failed;
}
