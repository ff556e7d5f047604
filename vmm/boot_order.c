/* Which device the firmware tries first: the "bootorder" file and CMOS.
 *
 * SeaBIOS names devices by their path on the buses; a line for each, best first.
 * Devices without a line come after, in the order that CMOS has from -boot. */
#include "vmm/boot_order.h"

#include "devices/device.h"
#include "devices/ide/ide.h"
#include "devices/pci.h"
#include "firmware/linuxboot.h"
#include "vmm/vm.h"

#include <stdio.h>

#define BOOT_ENTRIES_MAX 32
#define PCI_BASE_CLASS	 0x0b
#define PCI_STORAGE	 0x01

struct boot_entry {
	u32 index;
	char path[96];
};

static bool device_path(const struct device *dev, char *to, size_t room)
{
	const struct pci_dev *pd;
	unsigned channel, unit;
	const char *kind, *phy;

	if (ide_drive_place(dev, &channel, &unit)) {
		pd = container_of(dev->parent, struct pci_dev, dev);
		snprintf(to, room, "/pci@i0cf8/ide@%x,%x/drive@%x/disk@%x", pd->devfn >> 3,
			 pd->devfn & 7, channel, unit);
		return true;
	}
	if (dev->cls->bus != DEVICE_ON_PCI)
		return false;
	pd = container_of(dev, const struct pci_dev, dev);
	kind = pd->config[PCI_BASE_CLASS] == PCI_STORAGE ? "scsi" : "ethernet";
	phy = *kind == 'e' ? "/ethernet-phy@0" : "";
	if (pd->devfn & 7)
		snprintf(to, room, "/pci@i0cf8/%s@%x,%x%s", kind, pd->devfn >> 3, pd->devfn & 7,
			 phy);
	else
		snprintf(to, room, "/pci@i0cf8/%s@%x%s", kind, pd->devfn >> 3, phy);
	return true;
}

/* Keep the entries sorted; of equal indices the device made first wins. */
static void insert(struct boot_entry *entries, unsigned *n, const struct boot_entry *e)
{
	unsigned at = *n;

	if (*n == BOOT_ENTRIES_MAX)
		return;
	for (; at && entries[at - 1].index > e->index; at--)
		entries[at] = entries[at - 1];
	entries[at] = *e;
	++*n;
}

char *boot_order_text(const struct machine *m, bool has_kernel, bool strict)
{
	struct boot_entry entries[BOOT_ENTRIES_MAX], e;
	char *text = xstrdup(has_kernel ? LINUXBOOT_BOOTORDER "\n" : ""), *longer;
	unsigned n = 0;

	list_for_each (pos, &m->devices) {
		const struct device *dev = list_entry(pos, struct device, link);

		e.index = vm_device_u32(dev, "bootindex");
		if (e.index != UINT32_MAX && device_path(dev, e.path, sizeof(e.path)))
			insert(entries, &n, &e);
	}
	for (unsigned i = 0; i <= n; i++) {
		if (i == n && !strict)
			break;
		longer = xasprintf("%s%s\n", text, i < n ? entries[i].path : "HALT");
		free(text);
		text = longer;
	}
	return text;
}

/* SeaBIOS and its predecessors: floppy 1, disk 2, CD 3, network 4; 0 ends. */
static u8 boot_code(char letter)
{
	switch (letter) {
	case 'a':
	case 'b': return 1;
	case 'c': return 2;
	case 'd': return 3;
	case 'n': return 4;
	default: return 0;
	}
}

void boot_order_cmos(const char *letters, u8 cmos[2])
{
	u8 codes[3] = {0};

	for (unsigned i = 0; i < 3 && letters[i]; i++)
		codes[i] = boot_code(letters[i]);
	cmos[0] = (u8)(codes[1] << 4 | codes[0]);
	/* Bit 0: no check of the floppy's signature. */
	cmos[1] = (u8)(codes[2] << 4 | 1);
}
