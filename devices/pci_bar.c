/* Base address registers: sizing, and mapping what they decode; see pci.h.
 *
 * PCI Local Bus 3.0, sections 6.2.5.1 and 6.2.5.2.  Thread: any vCPU, with the
 * function's lock held.  Each BAR has a priority of its own on its bus, so BARs
 * may lie over each other for a while, as they do when a guest moves them about. */
#include "devices/pci_internal.h"

#include "base/log.h"

#define BAR_IO	     0x1
#define BAR_64	     0x4
#define BAR_PREFETCH 0x8
#define ROM_ENABLE   0x1

#define IO_SPACE 0x10000

static u8 bar_offset(unsigned bar)
{
	return bar == PCI_ROM_BAR ? PCI_ROM_ADDRESS : (u8)(PCI_BAR0 + 4 * bar);
}

void pci_add_bar(struct pci_dev *pd, unsigned bar, enum pci_bar_kind kind, u64 bytes,
		 const struct bus_ops *ops, struct mem_region *ram)
{
	struct pci_bar *b = &pd->bars[bar];
	u8 off = bar_offset(bar);
	u32 flags = 0;

	assert(bar < PCI_BARS && b->kind == PCI_BAR_NONE && is_pow2(bytes));
	assert((kind == PCI_BAR_ROM) == (bar == PCI_ROM_BAR));
	assert(!ops != !ram && !(kind == PCI_BAR_IO && ram));
	*b = (struct pci_bar){
		.kind = kind,
		.bytes = bytes,
		.prefetch = kind == PCI_BAR_MEM64 || (kind == PCI_BAR_MEM32 && ram),
		.ops = ops,
		.ram = ram,
		.addr = PCI_UNMAPPED,
	};
	if (kind == PCI_BAR_IO)
		flags = BAR_IO;
	if (kind == PCI_BAR_MEM64)
		flags = BAR_64;
	if (b->prefetch)
		flags |= BAR_PREFETCH;
	pci_set(pd, off, 4, flags);
	pci_set_writable(pd, off, 4, (u32) ~(bytes - 1) | (kind == PCI_BAR_ROM ? ROM_ENABLE : 0));
	if (kind == PCI_BAR_MEM64) {
		assert(bar + 1 < PCI_ROM_BAR && pd->bars[bar + 1].kind == PCI_BAR_NONE);
		pci_set_writable(pd, (u8)(off + 4), 4, (u32)(~(bytes - 1) >> 32));
	}
}

/* Where the registers say that the BAR is; PCI_UNMAPPED: nowhere.  All ones, as a
 * guest writes to find the size, and 0, the power-on value, are nowhere too. */
static u64 decoded_addr(const struct pci_dev *pd, unsigned bar)
{
	const struct pci_bar *b = &pd->bars[bar];
	u32 command = pci_get(pd, PCI_COMMAND, 2);
	u8 off = bar_offset(bar);
	u64 addr = pci_get(pd, off, 4), last, limit = UINT32_MAX;

	if (!(command & (b->kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return PCI_UNMAPPED;
	if (b->kind == PCI_BAR_ROM && !(addr & ROM_ENABLE))
		return PCI_UNMAPPED;
	if (b->kind == PCI_BAR_MEM64) {
		addr |= (u64)pci_get(pd, (u8)(off + 4), 4) << 32;
		limit = UINT64_MAX;
	}
	if (b->kind == PCI_BAR_IO)
		limit = IO_SPACE;
	addr = align_down(addr, b->bytes);
	last = addr + b->bytes - 1;
	if (!addr || last < addr || last >= limit || last == UINT32_MAX)
		return PCI_UNMAPPED;
	return addr;
}

static int map_registers(struct pci_dev *pd, unsigned bar, u64 addr)
{
	struct pci_bar *b = &pd->bars[bar];
	struct machine *m = pd->dev.machine;
	const struct bus_place place = {
		.name = pd->dev.id,
		.addr = addr,
		.bytes = b->bytes,
		.priority = -(int)(pd->devfn * PCI_BARS + bar) - 1,
	};

	return bus_map(b->kind == PCI_BAR_IO ? m->pio : m->mmio, &b->region, &place, b->ops,
		       &pd->dev, &pd->dev.lock);
}

static void unmap_bar(struct pci_bar *b)
{
	if (b->addr == PCI_UNMAPPED)
		return;
	if (b->ram) {
		int ret = mem_region_move(b->ram, MEM_UNMAPPED);

		assert(ret == 0);
	} else {
		bus_unmap(b->region);
		b->region = NULL;
	}
	b->addr = PCI_UNMAPPED;
}

static void move_bar(struct pci_dev *pd, unsigned bar, u64 addr)
{
	struct pci_bar *b = &pd->bars[bar];
	int ret = 0;

	unmap_bar(b);
	if (addr != PCI_UNMAPPED) {
		ret = b->ram ? mem_region_move(b->ram, addr) : map_registers(pd, bar, addr);
		if (ret < 0)
			dev_guest_error(&pd->dev, "BAR %u cannot lie at 0x%llx", bar,
					(unsigned long long)addr);
		else
			b->addr = addr;
	}
	TRACE(TRACE_PCI, "%s: BAR %u at 0x%llx", pd->dev.id, bar, (unsigned long long)b->addr);
	if (pd->bar_moved)
		pd->bar_moved(pd, bar, b->addr);
}

void pci_update_bars(struct pci_dev *pd)
{
	for (unsigned bar = 0; bar < PCI_BARS; bar++) {
		u64 addr;

		if (pd->bars[bar].kind == PCI_BAR_NONE)
			continue;
		addr = decoded_addr(pd, bar);
		if (addr != pd->bars[bar].addr)
			move_bar(pd, bar, addr);
	}
}

void pci_unmap_bars(struct pci_dev *pd)
{
	for (unsigned bar = 0; bar < PCI_BARS; bar++)
		if (pd->bars[bar].kind != PCI_BAR_NONE && pd->bars[bar].addr != PCI_UNMAPPED)
			move_bar(pd, bar, PCI_UNMAPPED);
}
