/* Between the transport (pci.c) and its registers (regs.c). */
#ifndef DEVICES_VIRTIO_PCI_INT_H
#define DEVICES_VIRTIO_PCI_INT_H

#include "devices/virtio/pci.h"

#define VIRTIO_BAR_LEGACY 0
#define VIRTIO_BAR_MSIX	  1
#define VIRTIO_BAR_MODERN 4

/* Legacy I/O BAR, section 4.1.4.10: the configuration follows the header, which is
 * longer while MSI-X is on. */
#define LEGACY_NOTIFY	     0x10
#define LEGACY_HEADER_BYTES  20
#define LEGACY_VECTORS_BYTES 4

/* Our layout of the modern BAR, a page for each structure. */
#define MODERN_COMMON	    0x0000
#define MODERN_ISR	    0x1000
#define MODERN_CONFIG	    0x2000
#define MODERN_NOTIFY	    0x3000
#define MODERN_BYTES	    0x4000
#define MODERN_PAGE	    0x1000
#define MODERN_COMMON_BYTES 0x38
#define NOTIFY_MULTIPLIER   4

extern const struct bus_ops virtio_legacy_ops, virtio_modern_ops;

/* Append the vendor capabilities; sets vp->cfg_cap. */
void virtio_add_capabilities(struct virtio_pci *vp);
void virtio_config_written(struct pci_dev *pd, u8 off, unsigned size);
void virtio_config_reading(struct pci_dev *pd, u8 off, unsigned size);

/* What registers do to the transport; dev.lock held. */
void virtio_set_status(struct virtio_pci *vp, u8 value);
u8 virtio_get_status(struct virtio_pci *vp);
void virtio_driver_reset(struct virtio_pci *vp);
void virtio_kick(struct virtio_pci *vp, u32 queue);
u8 virtio_take_isr(struct virtio_pci *vp);
/* Features that this interface shows. */
u64 virtio_offered(const struct virtio_pci *vp, bool legacy);
/* Change a queue that may be running: stop, fn, start. */
void virtio_change_queue(struct virtio_pci *vp, struct virtq *q,
			 void (*fn)(struct virtq *q, u32 value), u32 value);
void virtio_update_msix(struct virtio_pci *vp);

/* MSI-X vectors: no more than there is use for. */
static inline unsigned virtio_vectors(const struct virtio_pci *vp)
{
	return MIN(vp->prop_vectors, vp->n_queues + 1u);
}

#endif
