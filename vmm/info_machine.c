/* `info pci`, `info qtree`, `info mtree`, `info irq`, `info chardev`. */
#include "devices/device.h"
#include "devices/net/net.h"
#include "devices/pci.h"
#include "vmm/vm.h"

#include <stdio.h>

/* --- PCI ------------------------------------------------------------------------- */

/* PCI Code and ID Assignment: base class and sub-class. */
static const struct {
	u16 code;
	const char *text;
} pci_classes[] = {
	{0x0100, "SCSI controller"},
	{0x0101, "IDE controller"},
	{0x0106, "SATA controller"},
	{0x0180, "Storage controller"},
	{0x0200, "Ethernet controller"},
	{0x0280, "Network controller"},
	{0x0300, "VGA controller"},
	{0x0380, "Display controller"},
	{0x0500, "RAM controller"},
	{0x0600, "Host bridge"},
	{0x0601, "ISA bridge"},
	{0x0604, "PCI bridge"},
	{0x0680, "Bridge"},
	{0x0700, "Serial port"},
	{0x0780, "Communication controller"},
};

static void class_text(u16 code, char *to, size_t room)
{
	snprintf(to, room, "Class %04x", code);
	for (unsigned i = 0; i < ARRAY_LEN(pci_classes); i++)
		if (pci_classes[i].code == code)
			snprintf(to, room, "%s", pci_classes[i].text);
}

static u16 config16(const struct pci_dev *pd, unsigned off)
{
	return (u16)(pd->config[off] | pd->config[off + 1] << 8);
}

static void print_bar(struct printer *p, unsigned index, const struct pci_bar *bar)
{
	u64 last = bar->addr == UINT64_MAX ? bar->bytes - 2 : bar->addr + bar->bytes - 1;

	if (bar->kind == PCI_BAR_NONE)
		return;
	print_to(p, "      BAR%u: ", index);
	if (bar->kind == PCI_BAR_IO)
		print_to(p, "I/O at 0x%04llx [0x%04llx].\n", (unsigned long long)bar->addr,
			 (unsigned long long)last);
	else
		print_to(p, "%d bit%s memory at 0x%08llx [0x%08llx].\n",
			 bar->kind == PCI_BAR_MEM64 ? 64 : 32, bar->prefetch ? " prefetchable" : "",
			 (unsigned long long)bar->addr, (unsigned long long)last);
}

/* The device's lock is held. */
static void print_function(struct printer *p, const struct pci_dev *pd)
{
	char text[32];

	class_text(config16(pd, 0x0a), text, sizeof(text));
	print_to(p, "  Bus  0, device %3u, function %u:\n", pd->devfn >> 3, pd->devfn & 7);
	print_to(p, "    %s: PCI device %04x:%04x\n", text, config16(pd, 0), config16(pd, 2));
	print_to(p, "      PCI subsystem %04x:%04x\n", config16(pd, 0x2c), config16(pd, 0x2e));
	if (pd->config[0x3d])
		print_to(p, "      IRQ %u, pin %c\n", pd->config[0x3c], 'A' + pd->config[0x3d] - 1);
	for (unsigned i = 0; i < PCI_BARS; i++)
		print_bar(p, i, &pd->bars[i]);
	print_to(p, "      id \"%s\"\n", pd->dev.id);
}

void vm_info_pci(struct vm *vm, struct printer *p)
{
	struct pci_bus *bus = pci_bus_of(vm->host_bridge);

	for (unsigned devfn = 0; devfn < 256; devfn++) {
		struct pci_dev *pd = pci_bus_dev(bus, (u8)devfn);

		if (!pd)
			continue;
		mutex_lock(&pd->dev.lock);
		print_function(p, pd);
		mutex_unlock(&pd->dev.lock);
	}
}

/* --- the tree of devices --------------------------------------------------------- */

static void print_prop(struct printer *p, struct device *dev, const struct prop *prop, int indent)
{
	const void *at = (const char *)dev + prop->offset;
	const char *text;

	switch (prop->kind) {
	case PROP_KIND_U32:
	case PROP_KIND_DEVFN:
		print_to(p, "%*s%s = %u (0x%x)\n", indent, "", prop->name, *(const u32 *)at,
			 *(const u32 *)at);
		break;
	case PROP_KIND_U64:
		print_to(p, "%*s%s = %llu (0x%llx)\n", indent, "", prop->name,
			 *(const unsigned long long *)at, *(const unsigned long long *)at);
		break;
	case PROP_KIND_BOOL:
		print_to(p, "%*s%s = %s\n", indent, "", prop->name,
			 *(const bool *)at ? "true" : "false");
		break;
	case PROP_KIND_RNG:
	case PROP_KIND_STR:
		text = *(char *const *)at;
		print_to(p, "%*s%s = \"%s\"\n", indent, "", prop->name, text ? text : "");
		break;
	default: break; /* shown by name below, or not at all */
	}
}

static void print_netdev(struct printer *p, const struct net_end *end, int indent)
{
	print_to(p, "%*snetdev = \"%s\"\n", indent, "", end ? end->name : "");
}

static void print_objects(struct vm *vm, struct printer *p, struct device *dev, int indent)
{
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		if (d->device == dev)
			print_to(p, "%*sdrive = \"%s\"\n", indent, "", d->config->id);
	}
	for (const struct prop *prop = dev->cls->props; prop && prop->name; prop++) {
		const void *at = (const char *)dev + prop->offset;

		if (prop->kind == PROP_KIND_CHARDEV && *(struct chardev *const *)at)
			print_to(p, "%*s%s = \"%s\"\n", indent, "", prop->name,
				 chardev_id(*(struct chardev *const *)at));
		if (prop->kind == PROP_KIND_NETDEV)
			print_netdev(p, *(struct net_end *const *)at, indent);
	}
}

static void print_device(struct vm *vm, struct printer *p, struct device *dev, int indent)
{
	char text[32];

	print_to(p, "%*sdev: %s, id \"%s\"\n", indent, "", dev->cls->name, dev->id);
	indent += 2;
	print_objects(vm, p, dev, indent);
	for (const struct prop *prop = dev->cls->props; prop && prop->name; prop++)
		print_prop(p, dev, prop, indent);
	if (dev->cls->bus == DEVICE_ON_PCI) {
		const struct pci_dev *pd = container_of(dev, struct pci_dev, dev);

		class_text(config16(pd, 0x0a), text, sizeof(text));
		print_to(p, "%*sclass %s, addr 00:%02x.%x, pci id %04x:%04x (sub %04x:%04x)\n",
			 indent, "", text, pd->devfn >> 3, pd->devfn & 7, config16(pd, 0),
			 config16(pd, 2), config16(pd, 0x2c), config16(pd, 0x2e));
	}
}

static const struct {
	const char *name, *type;
} buses[] = {
	[DEVICE_ON_BOARD] = {"main-system-bus", "System"},
	[DEVICE_ON_ISA] = {"isa.0", "ISA"},
	[DEVICE_ON_PCI] = {"pci.0", "PCI"},
	[DEVICE_ON_IDE] = {"ide", "IDE"},
	[DEVICE_ON_VIRTIO_SERIAL] = {"virtio-serial-bus.0", "virtio-serial-bus"},
};

static void print_bus(struct vm *vm, struct printer *p, enum device_bus bus)
{
	bool first = true;

	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->cls->bus != bus)
			continue;
		if (first)
			print_to(p, "bus: %s\n  type %s\n", buses[bus].name, buses[bus].type);
		first = false;
		mutex_lock(&dev->lock);
		print_device(vm, p, dev, 2);
		mutex_unlock(&dev->lock);
	}
}

void vm_info_qtree(struct vm *vm, struct printer *p)
{
	static const enum device_bus order[] = {DEVICE_ON_BOARD, DEVICE_ON_PCI,
						DEVICE_ON_VIRTIO_SERIAL, DEVICE_ON_IDE,
						DEVICE_ON_ISA};

	for (unsigned i = 0; i < ARRAY_LEN(order); i++)
		print_bus(vm, p, order[i]);
}

/* --- address spaces -------------------------------------------------------------- */

#define REGIONS_MAX 128

static void print_region(void *arg, const char *name, u64 addr, u64 bytes, int priority)
{
	print_to(arg, "    %016llx-%016llx (prio %d, i/o): %s\n", (unsigned long long)addr,
		 (unsigned long long)(addr + bytes - 1), priority, name);
}

void vm_info_mtree(struct vm *vm, struct printer *p)
{
	static const char *const kinds[] = {
		[MEM_RAM] = "ram", [MEM_ROM] = "rom", [MEM_VRAM] = "ram"};
	struct mem_region_info regions[REGIONS_MAX];
	unsigned n = mem_regions(vm->machine.mem, regions, REGIONS_MAX);

	print_to(p, "address-space: memory\n"
		    "  0000000000000000-ffffffffffffffff (prio 0, i/o): system\n");
	for (unsigned i = 0; i < MIN(n, (unsigned)REGIONS_MAX); i++)
		if (regions[i].gpa != MEM_UNMAPPED)
			print_to(p, "    %016llx-%016llx (prio 0, %s): %s%s\n",
				 (unsigned long long)regions[i].gpa,
				 (unsigned long long)(regions[i].gpa + regions[i].bytes - 1),
				 kinds[regions[i].kind], regions[i].alias ? "alias " : "",
				 regions[i].name);
	bus_each(vm->machine.mmio, print_region, p);
	print_to(p, "\naddress-space: I/O\n"
		    "  0000000000000000-000000000000ffff (prio 0, i/o): io\n");
	bus_each(vm->machine.pio, print_region, p);
	print_to(p, "\n");
}

void vm_info_irq(struct vm *vm, struct printer *p)
{
	print_to(p, "IRQ statistics for ioapic:\n");
	for (u32 gsi = 0; gsi < IRQ_GSIS; gsi++) {
		u64 count = irq_count(vm->machine.irq, gsi);

		if (count)
			print_to(p, "%2u: %llu\n", gsi, (unsigned long long)count);
	}
}

void vm_info_chardev(struct vm *vm, struct printer *p)
{
	list_for_each (pos, &vm->streams) {
		struct stream *s = list_entry(pos, struct stream, link);

		print_to(p, "%s: filename=%s\n", s->id, chardev_describe(s->chardev));
	}
}
