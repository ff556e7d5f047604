/* PCI functions: header, configuration space, INTx; see pci.h.
 *
 * PCI Local Bus 3.0, chapter 6.  Thread: any vCPU, with the function's lock held.
 * Invariant: what the guest may change of config[] is in write_mask (as written)
 * or clear_mask (write 1 to clear); everything else is ours. */
#include "devices/pci_internal.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"

#include <errno.h>

#define ROM_MAX_BYTES	 (16 * MiB)
#define ROM_HEADER_BYTES 0x1a
#define ROM_SIGNATURE	 0xaa55
#define ROM_SUM_AT	 6
#define ROM_DATA_AT	 0x18
#define ROM_DATA_BYTES	 24
#define ROM_IDS_AT	 4

const struct prop pci_common_props[] = {
	PROP(struct pci_dev, prop_addr, "addr", PROP_KIND_DEVFN, "auto", "slot, or slot.function"),
	PROP(struct pci_dev, prop_multifunction, "multifunction", PROP_KIND_BOOL, "off",
	     "function 0 of several"),
	PROP(struct pci_dev, prop_romfile, "romfile", PROP_KIND_STR, NULL,
	     "file with the expansion ROM"),
	PROP_END,
};

const struct state_field pci_dev_state[] = {
	STATE_ARRAY(struct pci_dev, config),
	STATE(struct pci_dev, intx_level),
	STATE_ARRAY(struct pci_dev, msix_table),
	STATE_ARRAY(struct pci_dev, msix_pending),
	STATE_END,
};

u32 pci_get(const struct pci_dev *pd, u8 off, unsigned size)
{
	u32 value = 0;

	assert(off + size <= sizeof(pd->config));
	for (unsigned i = 0; i < size; i++)
		value |= (u32)pd->config[off + i] << (8 * i);
	return value;
}

static void put(u8 *to, unsigned size, u32 value)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = (u8)(value >> (8 * i));
}

void pci_set(struct pci_dev *pd, u8 off, unsigned size, u32 value)
{
	assert(off + size <= sizeof(pd->config));
	put(&pd->config[off], size, value);
}

void pci_set_writable(struct pci_dev *pd, u8 off, unsigned size, u32 mask)
{
	assert(off + size <= sizeof(pd->config));
	put(&pd->write_mask[off], size, mask);
}

/* --- making ------------------------------------------------------------------- */

static void fill_header(struct pci_dev *pd, const struct pci_ids *ids)
{
	pci_set(pd, PCI_VENDOR, 2, ids->vendor);
	pci_set(pd, PCI_DEVICE, 2, ids->device);
	pci_set(pd, PCI_REVISION, 4, ids->class_code << 8 | ids->revision);
	pd->config[PCI_HEADER_TYPE] = ids->header_type;
	if (pd->prop_multifunction)
		pd->config[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
	pci_set(pd, PCI_SUBSYSTEM_VENDOR, 2, ids->subsystem_vendor);
	pci_set(pd, PCI_SUBSYSTEM, 2, ids->subsystem);
	pd->config[PCI_INTERRUPT_PIN] = ids->interrupt_pin;

	pci_set_writable(pd, PCI_COMMAND, 2, PCI_COMMAND_WRITABLE);
	put(&pd->clear_mask[PCI_STATUS], 2, PCI_STATUS_CLEARABLE);
	pci_set_writable(pd, PCI_CACHE_LINE, 1, 0xff);
	pci_set_writable(pd, PCI_INTERRUPT_LINE, 1, 0xff);
}

/* Section 6.3.1: an image starts with a signature, its data structure names the function
 * that it is for.  One image serves cards that answer to several IDs, so it is made to
 * name this one; the byte behind the entry point keeps the sum of the image zero. */
static void name_rom(const struct pci_dev *pd, u8 *rom, u64 bytes)
{
	u32 at = bytes >= ROM_HEADER_BYTES ? load_le16(rom + ROM_DATA_AT) : 0;
	u8 *ids = rom + at + ROM_IDS_AT;
	u8 before = 0, after = 0;

	if (!at || load_le16(rom) != ROM_SIGNATURE || at + ROM_DATA_BYTES > bytes ||
	    memcmp(rom + at, "PCIR", 4))
		return;
	for (unsigned i = 0; i < 4; i++) {
		before = (u8)(before + ids[i]);
		ids[i] = pd->config[PCI_VENDOR + i];
		after = (u8)(after + ids[i]);
	}
	rom[ROM_SUM_AT] = (u8)(rom[ROM_SUM_AT] + before - after);
}

static int add_rom(struct pci_dev *pd, struct error *err)
{
	struct mem_place place = {"rom", MEM_UNMAPPED, 0, MEM_ROM};
	struct mem_region *region;
	u8 *data AUTO_FREE = NULL;
	u64 bytes;
	int ret;

	ret = sys_read_file(pd->prop_romfile, ROM_MAX_BYTES, &data, &bytes, err);
	if (ret < 0)
		return err_prefix(err, "%s: expansion ROM", pd->dev.id);
	for (place.bytes = 4 * KiB; place.bytes < bytes;)
		place.bytes *= 2;
	place.name = pd->dev.id;
	ret = mem_add(pd->dev.machine->mem, &region, &place, err);
	if (ret < 0)
		return ret;
	name_rom(pd, data, bytes);
	memcpy(mem_region_host(region), data, bytes);
	pci_add_bar(pd, PCI_ROM_BAR, PCI_BAR_ROM, place.bytes, NULL, region);
	return 0;
}

int pci_dev_init(struct pci_dev *pd, const struct pci_ids *ids, struct error *err)
{
	struct device *dev = &pd->dev;
	int ret;

	assert(dev->cls->bus == DEVICE_ON_PCI);
	if (!pd->bus) { /* the host bridge brings its own */
		if (!dev->parent)
			return err_set(err, -EINVAL, "%s: a PCI device needs a PCI bus", dev->id);
		pd->bus = pci_bus_of(dev->parent);
	}
	for (unsigned i = 0; i < PCI_BARS; i++)
		pd->bars[i].addr = PCI_UNMAPPED;
	mutex_init(&pd->intx_lock);
	irq_line_init(&pd->intx, dev->machine->irq, IRQ_NONE);
	fill_header(pd, ids);
	ret = pci_bus_add(pd->bus, pd, err);
	if (ret < 0) {
		mutex_fini(&pd->intx_lock);
		return ret;
	}
	if (pd->prop_romfile && *pd->prop_romfile) {
		ret = add_rom(pd, err);
		if (ret < 0)
			pci_dev_fini(pd);
	}
	return ret;
}

void pci_dev_fini(struct pci_dev *pd)
{
	pci_unmap_bars(pd);
	irq_line_set(&pd->intx, false);
	pci_msix_fini(pd);
	pci_bus_remove(pd->bus, pd);
	mutex_fini(&pd->intx_lock);
}

u8 pci_add_capability(struct pci_dev *pd, u8 id, u8 bytes)
{
	unsigned at = pd->config[PCI_CAPABILITIES];
	unsigned off = PCI_FIRST_CAPABILITY;

	/* They lie one after the other: the newest, which comes first, is the highest. */
	if (at)
		off = (at + pd->capability_bytes + 3) & ~3u;
	assert(bytes >= 2 && off + bytes <= sizeof(pd->config));
	pd->config[off] = id;
	pd->config[off + 1] = (u8)at;
	pd->config[PCI_CAPABILITIES] = (u8)off;
	pd->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	pd->capability_bytes = bytes;
	return (u8)off;
}

/* --- interrupt pin ------------------------------------------------------------ */

/* Bring the line in agreement with level and command register; intx_lock held. */
static void drive_intx(struct pci_dev *pd)
{
	irq_line_set(&pd->intx, pd->intx_level && !pd->intx_off);
}

/* After a change of the command register. */
static void update_intx(struct pci_dev *pd)
{
	LOCK_SCOPE(&pd->intx_lock);

	pd->intx_off = pci_get(pd, PCI_COMMAND, 2) & PCI_COMMAND_INTX_OFF;
	drive_intx(pd);
}

void pci_set_intx(struct pci_dev *pd, bool level)
{
	LOCK_SCOPE(&pd->intx_lock);

	assert(pd->config[PCI_INTERRUPT_PIN]);
	if (level == pd->intx_level)
		return;
	pd->intx_level = level;
	drive_intx(pd);
}

bool pci_bus_master(const struct pci_dev *pd)
{
	return pd->config[PCI_COMMAND] & PCI_COMMAND_MASTER;
}

/* --- reset and state ---------------------------------------------------------- */

void pci_dev_reset(struct pci_dev *pd)
{
	lock_assert(&pd->dev.lock);
	for (unsigned i = 0; i < sizeof(pd->config); i++)
		pd->config[i] &= (u8) ~(pd->write_mask[i] | pd->clear_mask[i]);
	mutex_lock(&pd->intx_lock);
	pd->intx_level = false;
	mutex_unlock(&pd->intx_lock);
	update_intx(pd);
	pci_update_bars(pd);
	pci_msix_reset(pd);
}

void pci_dev_post_load(struct pci_dev *pd)
{
	lock_assert(&pd->dev.lock);
	pci_update_bars(pd);
	pci_msix_update(pd);
	update_intx(pd);
}

/* --- configuration cycles ----------------------------------------------------- */

static bool touches(u8 off, unsigned size, unsigned first, unsigned bytes)
{
	return off < first + bytes && first < off + size;
}

u32 pci_dev_config_read(struct pci_dev *pd, u8 off, unsigned size)
{
	if (touches(off, size, PCI_STATUS, 1)) {
		LOCK_SCOPE(&pd->intx_lock);

		pd->config[PCI_STATUS] &= (u8)~PCI_STATUS_INTERRUPT;
		if (pd->intx_level)
			pd->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	}
	if (pd->config_reading)
		pd->config_reading(pd, off, size);
	return pci_get(pd, off, size);
}

void pci_dev_config_write(struct pci_dev *pd, u8 off, unsigned size, u32 value)
{
	lock_assert(&pd->dev.lock);
	for (unsigned i = 0; i < size; i++) {
		u8 byte = (u8)(value >> (8 * i)), *at = &pd->config[off + i];
		u8 mask = pd->write_mask[off + i];

		*at = (u8)((*at & ~mask) | (byte & mask));
		*at &= (u8) ~(byte & pd->clear_mask[off + i]);
	}
	if (touches(off, size, PCI_COMMAND, 2)) {
		update_intx(pd);
		pci_update_bars(pd);
	} else if (touches(off, size, PCI_BAR0, 24) || touches(off, size, PCI_ROM_ADDRESS, 4)) {
		pci_update_bars(pd);
	}
	if (pd->msix)
		pci_msix_update(pd);
	if (pd->config_written)
		pd->config_written(pd, off, size);
}
