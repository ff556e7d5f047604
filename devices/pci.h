/* PCI bus 0 behind an i440FX host bridge: configuration space, BARs, INTx, MSI-X.
 * PCI Local Bus 3.0, sections 6.1-6.2, 6.8.  All of a function's state is under
 * its device's lock; BAR mapping changes happen in config writes with it held.
 * Which slot a function takes: its property "addr", else (classes that are part of
 * the chipset give a default) the first free one from 3 on: pci_dev_init. */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include "devices/device.h"

struct pci_dev;
struct pci_bus;

#define PCI_BARS	     7 /* 6 and the expansion ROM */
#define PCI_ROM_BAR	     6
#define PCI_MSIX_MAX_VECTORS 128

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_ROM };
struct pci_bar {
	enum pci_bar_kind kind;	   /* [const] */
	u64 bytes;		   /* [const] power of two */
	bool prefetch;		   /* [const] */
	const struct bus_ops *ops; /* [const] owner is the struct device; NULL: `ram` */
	struct mem_region *ram;	   /* [const] memory shown by the BAR */
	u64 addr;		   /* [dev.lock] as mapped; UINT64_MAX: not mapped */
	struct bus_region *region; /* [dev.lock] */
};

/* Every PCI device's struct starts with this. */
struct pci_dev {
	struct device dev;
	struct pci_bus *bus; /* [const] */
	u8 devfn;	     /* [const] */
	u8 config[256];	     /* [dev.lock] */
	u8 write_mask[256];  /* [const] bits that the guest may change */
	u8 clear_mask[256];  /* [const] bits that writing 1 clears */
	struct pci_bar bars[PCI_BARS];
	u8 capability_bytes; /* [const] of the newest capability */
	struct mutex intx_lock;
	bool intx_level;			     /* [intx_lock] */
	bool intx_off;				     /* [intx_lock] as in the command register */
	struct irq_line intx;			     /* source on the GSI that PIRQ routing chose */
	struct pci_msix *msix;			     /* [const] NULL: none */
	u32 msix_table[PCI_MSIX_MAX_VECTORS * 4];    /* [msix.lock] */
	u64 msix_pending[PCI_MSIX_MAX_VECTORS / 64]; /* [msix.lock] */
	/* After a config write of `size` bytes at `off`; may be NULL. */
	void (*config_written)(struct pci_dev *pd, u8 off, unsigned size);
	/* Before a config read: registers whose value is made up at that moment; may be
	 * NULL. */
	void (*config_reading)(struct pci_dev *pd, u8 off, unsigned size);
	/* BAR was mapped (addr) or unmapped (UINT64_MAX); may be NULL. */
	void (*bar_moved)(struct pci_dev *pd, unsigned bar, u64 addr);
	bool prop_multifunction; /* [const] property "multifunction" */
	u32 prop_addr;		 /* [const] property "addr" as devfn, UINT32_MAX: next free slot */
	char *prop_romfile; /* [const] property "romfile": path of the expansion ROM, or NULL */
};

struct pci_ids {
	u16 vendor, device, subsystem_vendor, subsystem;
	u32 class_code;				 /* 24 bits: base, sub, interface */
	u8 revision, header_type, interrupt_pin; /* pin 0: none, 1: INTA */
};

/* To be called first in a PCI device's init: takes its place on the bus of
 * dev->parent (a host bridge) and fills the header; -EBUSY when the place is taken.
 * If init fails later, it calls pci_dev_fini itself. */
int pci_dev_init(struct pci_dev *pd, const struct pci_ids *ids, struct error *err);
void pci_dev_fini(struct pci_dev *pd);
void pci_dev_reset(struct pci_dev *pd); /* command, BARs, INTx, MSI-X to power-on */
/* bytes: a power of two.  One of ops (registers) and ram (shown as memory) is given. */
void pci_add_bar(struct pci_dev *pd, unsigned bar, enum pci_bar_kind kind, u64 bytes,
		 const struct bus_ops *ops, struct mem_region *ram);
/* Guest writes change these bits of a register, besides what the header has. */
void pci_set_writable(struct pci_dev *pd, u8 off, unsigned size, u32 mask);
u32 pci_get(const struct pci_dev *pd, u8 off, unsigned size); /* 1, 2 or 4 bytes */
void pci_set(struct pci_dev *pd, u8 off, unsigned size, u32 value);
/* Append a capability; returns its offset. */
u8 pci_add_capability(struct pci_dev *pd, u8 id, u8 bytes);
/* [any thread]: queues that run on a drive's thread do not take the device's lock,
 * so the level and its way to the line have a small lock of their own. */
void pci_set_intx(struct pci_dev *pd, bool level);
bool pci_bus_master(const struct pci_dev *pd);

/* MSI-X table and PBA in a memory BAR (4 KiB and up), vectors <= 128. */
int pci_msix_init(struct pci_dev *pd, unsigned bar, unsigned vectors, struct error *err);
bool pci_msix_enabled(const struct pci_dev *pd);
/* Signal a vector (masked ones become pending).  [any thread; takes msix's lock] */
void pci_msix_notify(struct pci_dev *pd, unsigned vector);

/* State of the header part, to put into a device's own table with STATE_STRUCT. */
extern const struct state_field pci_dev_state[];
void pci_dev_post_load(struct pci_dev *pd);

/* Host bridge side. */
int pci_bus_new(struct pci_bus **out, struct device *bridge, struct error *err);
void pci_bus_free(struct pci_bus *bus);
/* Who answers accesses to ports 0xcf8-0xcff that are no configuration cycles. */
void pci_bus_set_passthrough(struct pci_bus *bus, struct device *dev, const struct bus_ops *ops);
bool pci_bus_passthrough(struct pci_bus *bus, struct device **dev, const struct bus_ops **ops);
/* PIRQ router (PIIX3): GSI for PIRQ line 0..3, IRQ_NONE: not routed. */
void pci_bus_set_routing(struct pci_bus *bus, const u32 gsi[4]);
u32 pci_config_read(struct pci_bus *bus, u32 address, unsigned size);
void pci_config_write(struct pci_bus *bus, u32 address, unsigned size, u32 value);
struct pci_bus *pci_bus_of(struct device *bridge); /* of an i440FX device */
/* For `info pci`: functions in order of devfn. */
struct pci_dev *pci_bus_dev(struct pci_bus *bus, u8 devfn);

#endif
