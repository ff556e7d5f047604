/* PCI bus 0: who sits where, configuration cycles, interrupt routing; see pci.h.
 *
 * Functions are added while the machine is built and stay.  Thread: any; bus.lock
 * guards places and routing, and comes after the locks of devices. */
#include "devices/pci_internal.h"

#include "base/log.h"

#include <errno.h>

#define SLOTS		32
#define FIRST_FREE_SLOT 3 /* 0 host bridge, 1 PIIX3 and its functions, 2 display */
#define FUNCTIONS	8

#define ADDRESS_ENABLE 0x80000000u

struct pci_bus {
	struct device *bridge;	   /* [const] */
	struct device *passer;	   /* [const] once the chipset is made; NULL: none */
	const struct bus_ops *ops; /* [const] of passer */
	struct mutex lock;
	struct pci_dev *devs[SLOTS * FUNCTIONS]; /* [lock] */
	u32 gsi[4];				 /* [lock] of PIRQ A-D */
};

int pci_bus_new(struct pci_bus **out, struct device *bridge, struct error *err)
{
	struct pci_bus *bus = xnew(struct pci_bus);

	bus->bridge = bridge;
	mutex_init(&bus->lock);
	for (unsigned i = 0; i < ARRAY_LEN(bus->gsi); i++)
		bus->gsi[i] = IRQ_NONE;
	*out = bus;
	return 0;
}

void pci_bus_free(struct pci_bus *bus)
{
	for (unsigned i = 0; i < ARRAY_LEN(bus->devs); i++)
		assert(!bus->devs[i]);
	mutex_fini(&bus->lock);
	free(bus);
}

struct pci_dev *pci_bus_dev(struct pci_bus *bus, u8 devfn)
{
	LOCK_SCOPE(&bus->lock);

	return bus->devs[devfn];
}

/* --- places ------------------------------------------------------------------- */

static bool slot_is_free(const struct pci_bus *bus, unsigned slot)
{
	for (unsigned f = 0; f < FUNCTIONS; f++)
		if (bus->devs[slot * FUNCTIONS + f])
			return false;
	return true;
}

static int first_free(const struct pci_bus *bus, struct pci_dev *pd, struct error *err)
{
	for (unsigned slot = FIRST_FREE_SLOT; slot < SLOTS; slot++) {
		if (slot_is_free(bus, slot)) {
			pd->devfn = (u8)(slot * FUNCTIONS);
			return 0;
		}
	}
	return err_set(err, -EBUSY, "%s: no free slot on the PCI bus", pd->dev.id);
}

/* Functions beside function 0 are only looked for where that says there are some. */
static int check_place(const struct pci_bus *bus, const struct pci_dev *pd, struct error *err)
{
	unsigned slot = pd->devfn / FUNCTIONS, function = pd->devfn % FUNCTIONS;
	const struct pci_dev *first = bus->devs[slot * FUNCTIONS];

	if (bus->devs[pd->devfn])
		return err_set(err, -EBUSY, "%s: PCI address %02x.%x is taken by '%s'", pd->dev.id,
			       slot, function, bus->devs[pd->devfn]->dev.id);
	if (function && first && !(first->config[PCI_HEADER_TYPE] & PCI_MULTIFUNCTION))
		return err_set(err, -EBUSY,
			       "%s: PCI address %02x.0 is '%s' without multifunction=on",
			       pd->dev.id, slot, first->dev.id);
	if (!function && !(pd->config[PCI_HEADER_TYPE] & PCI_MULTIFUNCTION) &&
	    !slot_is_free(bus, slot))
		return err_set(err, -EBUSY, "%s: PCI slot %02x has functions: set multifunction=on",
			       pd->dev.id, slot);
	return 0;
}

/* PIRQ line 0..3 of a function's pin: slot 1's INTA is PIRQA, and so on round. */
static unsigned pirq_of(const struct pci_dev *pd)
{
	unsigned pin = pd->config[PCI_INTERRUPT_PIN];

	return (pd->devfn / FUNCTIONS + 3 + pin - 1) & 3;
}

static void route(const struct pci_bus *bus, struct pci_dev *pd)
{
	if (pd->config[PCI_INTERRUPT_PIN])
		irq_line_reroute(&pd->intx, bus->gsi[pirq_of(pd)]);
}

int pci_bus_add(struct pci_bus *bus, struct pci_dev *pd, struct error *err)
{
	LOCK_SCOPE(&bus->lock);
	int ret = 0;

	if (pd->prop_addr == UINT32_MAX)
		ret = first_free(bus, pd, err);
	else
		pd->devfn = (u8)pd->prop_addr;
	if (ret == 0)
		ret = check_place(bus, pd, err);
	if (ret < 0)
		return ret;
	bus->devs[pd->devfn] = pd;
	route(bus, pd);
	TRACE(TRACE_PCI, "%s: at %02x.%x", pd->dev.id, pd->devfn / FUNCTIONS,
	      pd->devfn % FUNCTIONS);
	return 0;
}

void pci_bus_remove(struct pci_bus *bus, struct pci_dev *pd)
{
	LOCK_SCOPE(&bus->lock);

	assert(bus->devs[pd->devfn] == pd);
	bus->devs[pd->devfn] = NULL;
}

void pci_bus_set_routing(struct pci_bus *bus, const u32 gsi[4])
{
	LOCK_SCOPE(&bus->lock);

	memcpy(bus->gsi, gsi, sizeof(bus->gsi));
	for (unsigned i = 0; i < ARRAY_LEN(bus->devs); i++)
		if (bus->devs[i])
			route(bus, bus->devs[i]);
}

void pci_bus_set_passthrough(struct pci_bus *bus, struct device *dev, const struct bus_ops *ops)
{
	bus->passer = dev;
	bus->ops = ops;
}

bool pci_bus_passthrough(struct pci_bus *bus, struct device **dev, const struct bus_ops **ops)
{
	*dev = bus->passer;
	*ops = bus->ops;
	return bus->passer;
}

/* --- configuration cycles ----------------------------------------------------- */

/* The function that a configuration address names, or NULL. */
static struct pci_dev *addressed(struct pci_bus *bus, u32 address)
{
	if (!(address & ADDRESS_ENABLE) || (address >> 16 & 0xff))
		return NULL;
	return pci_bus_dev(bus, (u8)(address >> 8));
}

/* Bytes from there on that lie in the same configuration space. */
static unsigned cut(u32 address, unsigned size)
{
	return MIN(size, 256 - (address & 0xff));
}

u32 pci_config_read(struct pci_bus *bus, u32 address, unsigned size)
{
	struct pci_dev *pd = addressed(bus, address);
	bool held;
	u32 value;

	if (!pd)
		return UINT32_MAX;
	held = mutex_held(&pd->dev.lock); /* the bridge reads itself */
	if (!held)
		mutex_lock(&pd->dev.lock);
	value = pci_dev_config_read(pd, (u8)address, cut(address, size));
	if (!held)
		mutex_unlock(&pd->dev.lock);
	return value;
}

void pci_config_write(struct pci_bus *bus, u32 address, unsigned size, u32 value)
{
	struct pci_dev *pd = addressed(bus, address);
	bool held;

	if (!pd)
		return;
	TRACE(TRACE_PCI, "%s: config 0x%02x/%u = 0x%x", pd->dev.id, address & 0xff, size, value);
	held = mutex_held(&pd->dev.lock);
	if (!held)
		mutex_lock(&pd->dev.lock);
	pci_dev_config_write(pd, (u8)address, cut(address, size), value);
	if (!held)
		mutex_unlock(&pd->dev.lock);
}
