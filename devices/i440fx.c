/* Intel 440FX host bridge (PMC): configuration mechanism #1 at ports 0xcf8-0xcff,
 * PCI bus 0.  Intel 82441FX data sheet (290549), chapters 3 and 4.
 *
 * 0xC0000-0xFFFFF is always RAM here, so the attribute registers (PAM) keep what
 * is written and do nothing else; the same goes for SMRAM.
 * Thread: any vCPU.  Its lock is held over a whole configuration cycle, and the
 * addressed function's is taken inside. */
#include "devices/i440fx.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_PORTS   8
#define ADDRESS_BITS   0x80fffffcu

#define REG_PAM	       0x59 /* to 0x5f */
#define PAM_REGS       7
#define REG_SMRAM      0x72
#define SMRAM_POWER_ON 0x02

struct i440fx {
	struct pci_dev pci;
	struct pci_bus *bus;	  /* [const] */
	struct bus_region *ports; /* [const] */
	u32 address;		  /* [dev.lock] configuration address */
};

static struct i440fx *to_i440fx(struct device *dev)
{
	return container_of(dev, struct i440fx, pci.dev);
}

struct pci_bus *pci_bus_of(struct device *bridge)
{
	assert(bridge->cls == &i440fx_class);
	return to_i440fx(bridge)->bus;
}

/* Accesses to the address register that are not 32 bits wide are ordinary I/O on
 * the PCI bus, where the PIIX3 has its reset control at 0xcf9. */
static u64 i440fx_read(void *owner, u64 off, unsigned size)
{
	struct i440fx *b = to_i440fx(owner);
	const struct bus_ops *ops;
	struct device *dev;

	if (off >= 4)
		return pci_config_read(b->bus, b->address + (u32)(off - 4), size);
	if (off == 0 && size == 4)
		return b->address;
	if (size == 1 && pci_bus_passthrough(b->bus, &dev, &ops)) {
		LOCK_SCOPE(&dev->lock);
		return ops->read(dev, off, size);
	}
	return UINT64_MAX;
}

static void i440fx_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct i440fx *b = to_i440fx(owner);
	const struct bus_ops *ops;
	struct device *dev;

	if (off >= 4) {
		pci_config_write(b->bus, b->address + (u32)(off - 4), size, (u32)value);
	} else if (off == 0 && size == 4) {
		b->address = (u32)value & ADDRESS_BITS;
	} else if (size == 1 && pci_bus_passthrough(b->bus, &dev, &ops)) {
		LOCK_SCOPE(&dev->lock);
		ops->write(dev, off, size, value);
	}
}

static const struct bus_ops i440fx_ops = {.read = i440fx_read, .write = i440fx_write};

static int i440fx_init(struct device *dev, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x1237,
		.subsystem_vendor = 0x1af4, /* what SeaBIOS and Linux know this machine by */
		.subsystem = 0x1100,
		.class_code = 0x060000,
		.revision = 2,
	};
	struct i440fx *b = to_i440fx(dev);
	int ret;

	ret = pci_bus_new(&b->bus, dev, err);
	if (ret < 0)
		return ret;
	b->pci.bus = b->bus;
	ret = pci_dev_init(&b->pci, &ids, err);
	if (ret < 0)
		goto out_free;
	for (unsigned i = 0; i < PAM_REGS; i++)
		pci_set_writable(&b->pci, (u8)(REG_PAM + i), 1, 0x33);
	pci_set_writable(&b->pci, REG_SMRAM, 1, 0x7f);
	ret = dev_map_pio(dev, &b->ports, CONFIG_ADDRESS, CONFIG_PORTS, &i440fx_ops, err);
	if (ret < 0)
		goto out_fini;
	return 0;

out_fini:
	pci_dev_fini(&b->pci);
out_free:
	pci_bus_free(b->bus);
	return ret;
}

static void i440fx_fini(struct device *dev)
{
	struct i440fx *b = to_i440fx(dev);

	bus_unmap(b->ports);
	pci_dev_fini(&b->pci);
	pci_bus_free(b->bus);
}

static void i440fx_reset(struct device *dev)
{
	struct i440fx *b = to_i440fx(dev);

	pci_dev_reset(&b->pci);
	pci_set(&b->pci, REG_SMRAM, 1, SMRAM_POWER_ON);
	b->address = 0;
}

static void i440fx_post_load(struct device *dev)
{
	pci_dev_post_load(&to_i440fx(dev)->pci);
}

static const struct state_field i440fx_state[] = {
	STATE_STRUCT(struct i440fx, pci, pci_dev_state),
	STATE(struct i440fx, address),
	STATE_END,
};

static const struct prop i440fx_props[] = {
	PROP(struct i440fx, pci.prop_addr, "addr", PROP_KIND_DEVFN, "0.0", "slot"),
	PROP_END,
};

const struct device_class i440fx_class = {
	.name = "i440FX",
	.help = "host bridge",
	.size = sizeof(struct i440fx),
	.bus = DEVICE_ON_PCI,
	.props = i440fx_props,
	.init = i440fx_init,
	.reset = i440fx_reset,
	.fini = i440fx_fini,
	.state = i440fx_state,
	.post_load = i440fx_post_load,
};
