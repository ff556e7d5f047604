/* virtio over PCI, transitional and modern: virtio 1.2, section 4.1.
 *
 * A virtio device's struct starts with struct virtio_pci.  Registers, features and
 * status live under the device's lock; queues run on the thread that ops->start
 * hands them to, which never takes that lock: it reports through the functions
 * marked [any thread].  So a register handler may wait in ops->stop for it. */
#ifndef DEVICES_VIRTIO_PCI_H
#define DEVICES_VIRTIO_PCI_H

#include "devices/pci.h"
#include "devices/virtio/queue.h"
#include "vmm/core/bus.h"

#define VIRTIO_MAX_QUEUES   16 /* that every device has room for */
#define VIRTIO_MORE_QUEUES  48 /* that a device may add */
#define VIRTIO_MOST_QUEUES  (VIRTIO_MAX_QUEUES + VIRTIO_MORE_QUEUES)
#define VIRTIO_CONFIG_BYTES 256 /* no device's configuration is longer */
#define VIRTIO_NO_VECTOR    0xffff

enum virtio_feature {
	VIRTIO_F_ANY_LAYOUT = 27, /* legacy interface only */
	VIRTIO_F_INDIRECT_DESC = 28,
	VIRTIO_F_EVENT_IDX = 29,
	VIRTIO_F_VERSION_1 = 32,
};

enum virtio_status {
	VIRTIO_S_ACKNOWLEDGE = 1,
	VIRTIO_S_DRIVER = 2,
	VIRTIO_S_DRIVER_OK = 4,
	VIRTIO_S_FEATURES_OK = 8,
	VIRTIO_S_NEEDS_RESET = 0x40,
	VIRTIO_S_FAILED = 0x80,
};

struct virtio_pci;

/* Called with the device's lock held. */
struct virtio_ops {
	/* Fill in the device's configuration, little-endian. */
	void (*config_get)(struct virtio_pci *vp, u8 *config);
	/* The driver wrote a byte of it; may be NULL. */
	void (*config_set)(struct virtio_pci *vp, u32 off, u8 value);
	/* The enabled queues run from now on: serve them, beginning with a look at each. */
	void (*start)(struct virtio_pci *vp);
	/* The driver reset the device; queues are stopped.  May be NULL. */
	void (*reset)(struct virtio_pci *vp);
	/* Return when nothing is in flight, all is flushed and no queue is touched. */
	void (*stop)(struct virtio_pci *vp);
};

struct virtio_setup {
	const struct virtio_ops *ops;
	u16 type;	  /* device ID of the specification, section 5 */
	u16 legacy_id;	  /* PCI device ID of the transitional device, 0: there is none */
	u32 class_code;	  /* PCI */
	u64 features;	  /* bits of the device type; the transport adds its own */
	u32 config_bytes; /* of the device's configuration */
	u16 n_queues, queue_size;
	/* VIRTIO_MORE_QUEUES of the device's own, saved with it by virtio_queue_state and
	 * judged by virtio_queues_check; NULL: it needs none. */
	struct virtio_queue *more;
};

struct virtio_queue {
	struct virtq vq;
	int kick_fd; /* [const] written by doorbells; whoever serves the queue watches it */
	struct bus_doorbell io_bell, mem_bell; /* [dev.lock] fd -1: none */
};

struct virtio_pci {
	struct pci_dev pd;
	const struct virtio_ops *ops; /* [const] */
	u64 host_features;	      /* [const] */
	u32 config_bytes;	      /* [const] */
	u16 n_queues;		      /* [const] */
	char *prop_disable_legacy;    /* [const] properties */
	bool prop_disable_modern;
	u32 prop_vectors;	     /* most that there are; 0: no MSI-X */
	bool has_legacy, has_modern; /* [const] */
	u8 cfg_cap;		     /* [const] place of the configuration access capability */
	u64 driver_features;	     /* [dev.lock]; [const] while started */
	u32 host_feature_sel;	     /* [dev.lock] */
	u32 driver_feature_sel;	     /* [dev.lock] */
	u64 io_base, mem_base;	     /* [dev.lock] of the BARs, UINT64_MAX: not mapped */
	u8 status;		     /* [dev.lock] without NEEDS_RESET */
	u16 queue_select;	     /* [dev.lock] */
	u16 config_vector;	     /* [atomic] vq.vector too */
	u8 generation;		     /* [atomic] of the configuration */
	bool broken;		     /* [atomic] NEEDS_RESET */
	bool msix_on;		     /* [atomic] copy for threads without the lock */
	u32 queue_errors;	     /* [atomic] not yet in dev.guest_errors */
	bool live;		     /* [dev.lock] the driver has put the device to use */
	bool started;		     /* [dev.lock] queues run: live and not paused */
	bool paused;		     /* [dev.lock] */
	struct mutex isr_lock;	     /* below dev.lock, above irq */
	u8 isr;			     /* [isr_lock] */
	struct virtio_queue queues[VIRTIO_MAX_QUEUES];
	struct virtio_queue *more; /* [const] from number VIRTIO_MAX_QUEUES on */
};

static inline struct virtio_queue *virtio_queue_at(const struct virtio_pci *vp, unsigned i)
{
	const struct virtio_queue *q =
		i < VIRTIO_MAX_QUEUES ? &vp->queues[i] : &vp->more[i - VIRTIO_MAX_QUEUES];

	assert(i < VIRTIO_MAX_QUEUES || vp->more);
	return (struct virtio_queue *)(uintptr_t)q;
}

/* The tables of virtio_pci, to put into a device's own with STATE_STRUCT. */
extern const struct state_field virtio_pci_state[], virtio_queue_state[];
int virtio_pci_state_check(const struct virtio_pci *loaded, struct error *err);
int virtio_queues_check(const struct virtio_queue *loaded, unsigned n, struct error *err);

#define VIRTIO_PCI_PROPS(type, member)                                                             \
	PROP(type, member.prop_disable_legacy, "disable-legacy", PROP_KIND_STR, "auto",            \
	     "no interface of before 1.0: on, off, auto"),                                         \
		PROP(type, member.prop_disable_modern, "disable-modern", PROP_KIND_BOOL, "off",    \
		     "no interface of 1.0 and later"),                                             \
		PROP(type, member.prop_vectors, "vectors", PROP_KIND_U32, "0xffffffff",            \
		     "most MSI-X vectors, 0: none (default: one for each queue, and one)")

/* To be called by a device's init, reset and fini.  init takes the place on the
 * bus; reset is the machine's, it stops the queues first. */
int virtio_pci_init(struct virtio_pci *vp, const struct virtio_setup *setup, struct error *err);
void virtio_pci_reset(struct virtio_pci *vp);
void virtio_pci_fini(struct virtio_pci *vp);
/* Class hooks for every virtio device. */
void virtio_pci_pause(struct device *dev);
void virtio_pci_resume(struct device *dev);
void virtio_pci_post_load(struct device *dev);

/* The driver may have written bits that were never offered, a saved state too. */
static inline bool virtio_has(const struct virtio_pci *vp, unsigned feature)
{
	return (vp->driver_features & vp->host_features) >> feature & 1;
}

/* The queue has used buffers that the driver waits for.  [any thread] */
void virtio_pci_interrupt(struct virtio_pci *vp, unsigned queue);
/* The device's configuration changed.  [any thread] */
void virtio_pci_config_changed(struct virtio_pci *vp);
/* A queue broke (vq.error says why): the device needs a reset.  [queue's thread] */
void virtio_pci_queue_broke(struct virtio_pci *vp, unsigned queue);

#endif
