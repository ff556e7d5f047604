/* A machine without KVM for device tests; see fake_machine.h. */
#include "tests/lib/fake_machine.h"

#include <stdarg.h>
#include <stdio.h>

static void set_gsi(void *arg, u32 gsi, bool level)
{
	struct fake_machine *fm = arg;

	assert(gsi < IRQ_GSIS);
	fm->rises[gsi] += level && !fm->gsi[gsi];
	fm->gsi[gsi] = level;
}

static void msi(void *arg, u64 addr, u32 data)
{
	struct fake_machine *fm = arg;

	if (fm->n_msis >= FAKE_MSIS)
		memmove(&fm->msis[0], &fm->msis[1], sizeof(fm->msis) - sizeof(fm->msis[0]));
	fm->msis[MIN(fm->n_msis, FAKE_MSIS - 1u)].addr = addr;
	fm->msis[MIN(fm->n_msis, FAKE_MSIS - 1u)].data = data;
	fm->n_msis++;
}

static int route_add(void *arg, int fd, u64 addr, u32 data, u32 *handle)
{
	*handle = 1;
	return 0;
}

static int route_set(void *arg, u32 handle, u64 addr, u32 data)
{
	return 0;
}

static void route_del(void *arg, u32 handle, int fd)
{
}

static const struct irq_ops fake_irq_ops = {
	.set_gsi = set_gsi,
	.msi = msi,
	.route_add = route_add,
	.route_set = route_set,
	.route_del = route_del,
};

static void request(struct machine *m, enum machine_request what, int code)
{
	struct fake_machine *fm = container_of(m, struct fake_machine, m);

	fm->requests++;
	fm->request = what;
	fm->request_code = code;
}

static const struct machine_ops fake_machine_ops = {.request = request};

void fake_machine_init(struct fake_machine *fm, u64 ram_bytes)
{
	const struct mem_place ram = {"ram", 0, ram_bytes, MEM_RAM};
	struct mem_region *region;
	struct error err;
	int ret;

	*fm = (struct fake_machine){
		.m = {.ops = &fake_machine_ops,
		      .cpus = 1,
		      .max_cpus = 1,
		      .ram_below_4g = ram_bytes,
		      .a20 = true},
	};
	list_init(&fm->m.devices);
	ret = bus_new(&fm->m.pio, "pio", 0x10000);
	assert(ret == 0);
	ret = bus_new(&fm->m.mmio, "mmio", UINT64_MAX);
	assert(ret == 0);
	ret = irq_new(&fm->m.irq, &fake_irq_ops, fm);
	assert(ret == 0);
	ret = clock_new_manual(&fm->m.clock);
	assert(ret == 0);
	ret = mem_new(&fm->m.mem, NULL, NULL, &err);
	assert(ret == 0);
	ret = mem_add(fm->m.mem, &region, &ram, &err);
	assert(ret == 0);
}

void fake_machine_fini(struct fake_machine *fm)
{
	while (!list_empty(&fm->m.devices))
		device_free(list_entry(fm->m.devices.prev, struct device, link));
	mem_free(fm->m.mem);
	clock_free(fm->m.clock);
	irq_free(fm->m.irq);
	bus_free(fm->m.mmio);
	bus_free(fm->m.pio);
}

struct device *fake_device(struct fake_machine *fm, const struct device_class *cls,
			   struct device *parent, ...)
{
	struct prop_value values[16];
	char copies[16][64];
	struct device_args args = {.parent = parent, .values = values};
	struct device *dev;
	struct error err;
	va_list ap;
	const char *text;

	va_start(ap, parent);
	while ((text = va_arg(ap, const char *))) {
		char *copy = copies[args.n_values];

		snprintf(copy, sizeof(copies[0]), "%s", text);
		assert(strchr(copy, '=') && args.n_values < ARRAY_LEN(values));
		*strchr(copy, '=') = 0;
		values[args.n_values++] = (struct prop_value){
			.name = copy,
			.text = copy + strlen(copy) + 1,
		};
	}
	va_end(ap);
	if (device_new(&dev, &fm->m, cls, &args, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		abort();
	}
	return dev;
}

static u32 in(struct fake_machine *fm, u16 port, unsigned size)
{
	u64 value;

	bus_read(fm->m.pio, port, size, &value);
	return (u32)value;
}

u8 inb(struct fake_machine *fm, u16 port)
{
	return (u8)in(fm, port, 1);
}

u16 inw(struct fake_machine *fm, u16 port)
{
	return (u16)in(fm, port, 2);
}

u32 inl(struct fake_machine *fm, u16 port)
{
	return in(fm, port, 4);
}

void outb(struct fake_machine *fm, u16 port, u8 value)
{
	bus_write(fm->m.pio, port, 1, value);
}

void outw(struct fake_machine *fm, u16 port, u16 value)
{
	bus_write(fm->m.pio, port, 2, value);
}

void outl(struct fake_machine *fm, u16 port, u32 value)
{
	bus_write(fm->m.pio, port, 4, value);
}

u64 mmio_read(struct fake_machine *fm, u64 gpa, unsigned size)
{
	u64 value;

	bus_read(fm->m.mmio, gpa, size, &value);
	return value;
}

void mmio_write(struct fake_machine *fm, u64 gpa, unsigned size, u64 value)
{
	bus_write(fm->m.mmio, gpa, size, value);
}

static void select_config(struct fake_machine *fm, u8 devfn, u8 off)
{
	outl(fm, 0xcf8, 1u << 31 | (u32)devfn << 8 | (off & 0xfc));
}

u32 pci_read(struct fake_machine *fm, u8 devfn, u8 off, unsigned size)
{
	select_config(fm, devfn, off);
	return in(fm, (u16)(0xcfc + (off & 3)), size);
}

void pci_write(struct fake_machine *fm, u8 devfn, u8 off, unsigned size, u32 value)
{
	select_config(fm, devfn, off);
	bus_write(fm->m.pio, 0xcfc + (off & 3), size, value);
}

void fake_save(struct device *dev, struct state_buf *out)
{
	*out = (struct state_buf){.data = NULL};
	device_save(dev, out);
}

u64 rng_next(struct rng *r)
{
	/* Marsaglia's xorshift64*; a state of 0 would stay 0. */
	r->state = r->state ? r->state : 0x9e3779b97f4a7c15;
	r->state ^= r->state >> 12;
	r->state ^= r->state << 25;
	r->state ^= r->state >> 27;
	return r->state * 0x2545f4914f6cdd1d;
}
