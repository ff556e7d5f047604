/* A machine without KVM for device tests: real buses, memory, lines and clock,
 * with ops that write down what reaches the hypervisor.  The clock is manual. */
#ifndef TESTS_LIB_FAKE_MACHINE_H
#define TESTS_LIB_FAKE_MACHINE_H

#include "base/base.h"
#include "devices/device.h"
#include "vmm/core/machine.h"

#define FAKE_MSIS 64

struct fake_machine {
	struct machine m;
	bool gsi[IRQ_GSIS];	  /* level as the irqchip sees it */
	unsigned rises[IRQ_GSIS]; /* how often it went from low to high */
	struct {
		u64 addr;
		u32 data;
	} msis[FAKE_MSIS]; /* the latest, oldest first */
	unsigned n_msis;   /* all there were */
	unsigned requests; /* machine_request calls, and the last one's arguments */
	enum machine_request request;
	int request_code;
};

/* RAM lies at 0.  fini frees every device, newest first. */
void fake_machine_init(struct fake_machine *fm, u64 ram_bytes);
void fake_machine_fini(struct fake_machine *fm);

/* A device that must come to be; id may be NULL.  Values as "name=text", up to NULL. */
struct device *fake_device(struct fake_machine *fm, const struct device_class *cls,
			   struct device *parent, ...) __attribute__((sentinel));

u8 inb(struct fake_machine *fm, u16 port);
u16 inw(struct fake_machine *fm, u16 port);
u32 inl(struct fake_machine *fm, u16 port);
void outb(struct fake_machine *fm, u16 port, u8 value);
void outw(struct fake_machine *fm, u16 port, u16 value);
void outl(struct fake_machine *fm, u16 port, u32 value);
u64 mmio_read(struct fake_machine *fm, u64 gpa, unsigned size);
void mmio_write(struct fake_machine *fm, u64 gpa, unsigned size, u64 value);

/* Configuration space through ports 0xcf8 and 0xcfc; slot.function as a devfn. */
#define DEVFN(slot, function) ((u8)((slot) << 3 | (function)))
u32 pci_read(struct fake_machine *fm, u8 devfn, u8 off, unsigned size);
void pci_write(struct fake_machine *fm, u8 devfn, u8 off, unsigned size, u32 value);

/* Save a device, for comparisons: free(out->data) by state_buf_fini. */
void fake_save(struct device *dev, struct state_buf *out);

/* A small generator of test values: same seed, same sequence. */
struct rng {
	u64 state;
};
u64 rng_next(struct rng *r);
static inline u32 rng_below(struct rng *r, u32 n)
{
	return (u32)(rng_next(r) >> 16) % n;
}

#endif
