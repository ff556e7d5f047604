/* MSI-X: vector table and pending bits in a memory BAR; see pci.h.
 *
 * PCI Local Bus 3.0, section 6.8.2.  The BAR is 4 KiB: table at 0, pending bits at
 * 0x800.  Thread: vCPUs with the function's lock held for registers; any thread
 * for pci_msix_notify.  msix.lock comes after the function's lock and before irq's.
 * Invariant: a vector is pending only while it, or the function, is masked or off. */
#include "devices/pci_internal.h"

#include "base/log.h"

#include <errno.h>

#define CAP_MSIX	 0x11
#define CAP_BYTES	 12
#define CONTROL		 2 /* of the capability */
#define CONTROL_ENABLE	 0x8000
#define CONTROL_MASK_ALL 0x4000

#define BAR_BYTES    0x1000
#define PENDING_OFF  0x800
#define ENTRY_BYTES  16
#define ENTRY_MASKED 1 /* bit 0 of vector control, the fourth word */

struct pci_msix {
	struct mutex lock;
	u8 cap;		  /* [const] offset of the capability */
	u8 bar;		  /* [const] */
	unsigned vectors; /* [const] */
	bool enabled;	  /* [lock] as in the capability */
	bool mask_all;	  /* [lock] */
};

static u32 *entry_of(struct pci_dev *pd, unsigned vector)
{
	return &pd->msix_table[vector * 4];
}

static u64 pending_bit(unsigned vector)
{
	return (u64)1 << (vector % 64);
}

/* Send the vector or leave it pending.  lock held. */
static void deliver(struct pci_dev *pd, unsigned vector)
{
	const u32 *entry = entry_of(pd, vector);

	if (pd->msix->mask_all || (entry[3] & ENTRY_MASKED)) {
		pd->msix_pending[vector / 64] |= pending_bit(vector);
		return;
	}
	pd->msix_pending[vector / 64] &= ~pending_bit(vector);
	irq_msi(pd->dev.machine->irq, entry[0] | (u64)entry[1] << 32, entry[2]);
}

static void deliver_if_pending(struct pci_dev *pd, unsigned vector)
{
	if (pd->msix->enabled && (pd->msix_pending[vector / 64] & pending_bit(vector)))
		deliver(pd, vector);
}

/* --- registers ---------------------------------------------------------------- */

static u64 msix_read(void *owner, u64 off, unsigned size)
{
	struct pci_dev *pd = container_of((struct device *)owner, struct pci_dev, dev);
	struct pci_msix *msix = pd->msix;

	LOCK_SCOPE(&msix->lock);

	assert(size == 4);
	if (off < msix->vectors * ENTRY_BYTES)
		return pd->msix_table[off / 4];
	if (off >= PENDING_OFF && off < PENDING_OFF + sizeof(pd->msix_pending))
		return (u32)(pd->msix_pending[(off - PENDING_OFF) / 8] >> (off & 4) * 8);
	return 0;
}

static void msix_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct pci_dev *pd = container_of((struct device *)owner, struct pci_dev, dev);
	struct pci_msix *msix = pd->msix;

	LOCK_SCOPE(&msix->lock);

	assert(size == 4);
	if (off >= msix->vectors * ENTRY_BYTES)
		return; /* pending bits are read-only */
	if (off % ENTRY_BYTES == 12)
		value &= ENTRY_MASKED;
	pd->msix_table[off / 4] = (u32)value;
	deliver_if_pending(pd, (unsigned)(off / ENTRY_BYTES));
}

static const struct bus_ops msix_ops = {
	.read = msix_read,
	.write = msix_write,
	.min_size = 4,
	.max_size = 4,
};

/* --- the function's side ------------------------------------------------------ */

int pci_msix_init(struct pci_dev *pd, unsigned bar, unsigned vectors, struct error *err)
{
	struct pci_msix *msix;

	assert(!pd->msix);
	if (!vectors || vectors > PCI_MSIX_MAX_VECTORS)
		return err_set(err, -EINVAL, "%s: %u interrupt vectors, expected 1..%u", pd->dev.id,
			       vectors, PCI_MSIX_MAX_VECTORS);
	msix = xnew(struct pci_msix);
	mutex_init(&msix->lock);
	msix->bar = (u8)bar;
	msix->vectors = vectors;
	msix->cap = pci_add_capability(pd, CAP_MSIX, CAP_BYTES);
	pci_set(pd, msix->cap + CONTROL, 2, vectors - 1);
	pci_set_writable(pd, msix->cap + CONTROL, 2, CONTROL_ENABLE | CONTROL_MASK_ALL);
	pci_set(pd, msix->cap + 4, 4, bar);
	pci_set(pd, msix->cap + 8, 4, PENDING_OFF | bar);
	pd->msix = msix;
	pci_add_bar(pd, bar, PCI_BAR_MEM32, BAR_BYTES, &msix_ops, NULL);
	pci_msix_reset(pd);
	return 0;
}

void pci_msix_fini(struct pci_dev *pd)
{
	if (!pd->msix)
		return;
	mutex_fini(&pd->msix->lock);
	free(pd->msix);
	pd->msix = NULL;
}

void pci_msix_reset(struct pci_dev *pd)
{
	struct pci_msix *msix = pd->msix;

	if (!msix)
		return;
	mutex_lock(&msix->lock);
	msix->enabled = msix->mask_all = false;
	memset(pd->msix_table, 0, sizeof(pd->msix_table));
	memset(pd->msix_pending, 0, sizeof(pd->msix_pending));
	for (unsigned i = 0; i < msix->vectors; i++)
		entry_of(pd, i)[3] = ENTRY_MASKED;
	mutex_unlock(&msix->lock);
}

void pci_msix_update(struct pci_dev *pd)
{
	struct pci_msix *msix = pd->msix;
	u32 control;

	if (!msix)
		return;
	control = pci_get(pd, msix->cap + CONTROL, 2);
	LOCK_SCOPE(&msix->lock);
	msix->enabled = control & CONTROL_ENABLE;
	msix->mask_all = control & CONTROL_MASK_ALL;
	for (unsigned i = 0; i < msix->vectors; i++)
		deliver_if_pending(pd, i);
}

bool pci_msix_enabled(const struct pci_dev *pd)
{
	struct pci_msix *msix = pd->msix;

	if (!msix)
		return false;
	LOCK_SCOPE(&msix->lock);
	return msix->enabled;
}

void pci_msix_notify(struct pci_dev *pd, unsigned vector)
{
	struct pci_msix *msix = pd->msix;

	if (!msix || vector >= msix->vectors)
		return;
	LOCK_SCOPE(&msix->lock);
	if (msix->enabled)
		deliver(pd, vector);
}
