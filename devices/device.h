/* A device: class, registers, properties, reset, saved state (style.md C6).
 *
 * The bus calls handlers with dev->lock held.  Every class is listed by hand in
 * registry.c.  Lifecycle: device_new (allocates, applies properties), init (maps
 * registers), reset (to power-on state; also right after init), fini.  Locks of
 * devices nest from the bridge to the function behind it, never back. */
#ifndef DEVICES_DEVICE_H
#define DEVICES_DEVICE_H

#include "base/base.h"
#include "base/error.h"
#include "base/list.h"
#include "base/thread.h"
#include "vmm/core/machine.h"
#include "vmm/core/state.h"

struct blk;
struct chardev;
struct device;

enum prop_kind {
	PROP_KIND_U32,
	PROP_KIND_U64,
	PROP_KIND_BOOL,
	PROP_KIND_STR,
	PROP_KIND_DEVFN, /* "SLOT" or "SLOT.FUNCTION" in hexadecimal, into a u32 */
	PROP_KIND_BLK,
	PROP_KIND_CHARDEV,
	PROP_KIND_NETDEV,
	PROP_KIND_RNG, /* a string: the file of a source of entropy */
	PROP_KIND_PTR
};

/* A property: `-device name,prop=value`, or its default, in place before init.
 * `offset` is of a struct member of the kind's type (u32, u64, bool, char *, struct
 * blk *, struct chardev *, struct net_end *, void *); strings are the device's own copies. */
struct prop {
	const char *name, *help;
	enum prop_kind kind;
	u32 offset;
	const char *value; /* default as text, NULL: zero */
};
#define PROP(type, member, prop_name, prop_kind, default_text, help_text)                          \
	{                                                                                          \
		.name = (prop_name), .help = (help_text), .kind = (prop_kind),                     \
		.offset = offsetof(type, member), .value = (default_text)                          \
	}
#define PROP_END                                                                                   \
	{                                                                                          \
		.name = NULL                                                                       \
	}

enum device_bus {
	DEVICE_ON_BOARD,
	DEVICE_ON_ISA,
	DEVICE_ON_PCI,
	DEVICE_ON_IDE,
	DEVICE_ON_VIRTIO_SERIAL
};

struct device_class {
	const char *name, *help; /* as -device names it */
	size_t size;		 /* of the struct, which starts with struct device */
	enum device_bus bus;
	bool user_creatable; /* by -device */
	const struct prop *props;
	int (*init)(struct device *dev, struct error *err);
	void (*reset)(struct device *dev);
	void (*fini)(struct device *dev); /* may be NULL; undoes init */
	/* State: table, judge of a loaded copy, rebuild of what is derived. */
	const struct state_field *state;
	int (*state_check)(const void *loaded, struct error *err);
	void (*pre_save)(struct device *dev);
	void (*post_load)(struct device *dev);
	/* Stop and restart what runs by itself (queues on loop threads) around a
	 * pause; called without the lock, on the control thread.  May be NULL. */
	void (*pause)(struct device *dev);
	void (*resume)(struct device *dev);
};

struct device {
	const struct device_class *cls; /* [const] */
	struct machine *machine;	/* [const] */
	struct device *parent;		/* [const] the bridge or controller it sits on */
	char id[32];			/* [const] the user's, or made up; unique */
	struct mutex lock;
	struct list link; /* [control] in the machine's device list */
	bool initialized; /* [control] */
	u64 guest_errors; /* [dev.lock] */
};

/* A value for a property as text, or a pointer for blk, chardev, ptr kinds. */
struct prop_value {
	const char *name, *text;
	void *ptr;
};

struct device_args {
	const char *id;	       /* NULL: made from the class's name */
	struct device *parent; /* NULL: on the board */
	const struct prop_value *values;
	unsigned n_values;
};

/* Allocate, apply values (unknown name or bad value: error naming it), init and
 * reset; the device joins machine->devices.  args may be NULL. */
int device_new(struct device **out, struct machine *m, const struct device_class *cls,
	       const struct device_args *args, struct error *err);
struct device *device_find(struct machine *m, const char *id); /* NULL: no such id */
void device_free(struct device *dev);
void device_reset(struct device *dev); /* takes the lock */

/* The guest did what hardware would not let it: count it, and log the first few
 * ("ide0: ...").  Called with the lock held. */
void dev_guest_error(struct device *dev, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Map registers with the device as owner and its lock. */
int dev_map_pio(struct device *dev, struct bus_region **out, u16 port, u16 ports,
		const struct bus_ops *ops, struct error *err);
int dev_map_mmio(struct device *dev, struct bus_region **out, u64 gpa, u64 bytes,
		 const struct bus_ops *ops, struct error *err);

/* Save or load the state table of a device under its id. */
void device_save(struct device *dev, struct state_buf *out);
int device_load(struct device *dev, struct state_buf *in, struct error *err);
/* The same in two steps, for many devices: load and judge a copy (free() it or
 * pass it on), then put it in place. */
int device_load_copy(struct device *dev, struct state_buf *in, void **copy, struct error *err);
void device_load_apply(struct device *dev, void *copy); /* takes copy */

/* Properties of every class on the PCI bus, whose structs start with struct pci_dev. */
extern const struct prop pci_common_props[];

/* The classes there are; NULL-terminated, see registry.c. */
extern const struct device_class *const device_classes[];
const struct device_class *device_class_find(const char *name);

#endif
