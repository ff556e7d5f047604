/* pvpanic: how a guest's kernel says that it crashed.  I/O port 0x505; QEMU's
 * docs/specs/pvpanic.  Reading gives the events that are known; a write of bit 0
 * means the guest panicked, of bit 1 that its crash kernel takes over, which is
 * only noted.  Thread: handlers under the device's lock.  No state. */
#include "devices/pvpanic.h"

#include "base/log.h"

#include <errno.h>

#define PANICKED     1
#define CRASH_LOADED 2

struct pvpanic {
	struct device dev;
	struct bus_region *region; /* [const] */
	u32 ioport, events;	   /* [const] */
};

static u64 pvpanic_read(void *owner, u64 off, unsigned size)
{
	const struct pvpanic *p = owner;

	return p->events;
}

static void pvpanic_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct pvpanic *p = owner;

	if (value & ~(u64)(PANICKED | CRASH_LOADED))
		dev_guest_error(&p->dev, "event 0x%llx, expected 1 or 2",
				(unsigned long long)value);
	if (value & p->events & PANICKED) {
		log_guest("guest panicked");
		machine_request(p->dev.machine, MACHINE_PANIC, 0);
	} else if (value & p->events & CRASH_LOADED) {
		log_guest("guest's crash kernel takes over");
	}
}

static const struct bus_ops pvpanic_ops = {
	.read = pvpanic_read,
	.write = pvpanic_write,
	.min_size = 1,
	.max_size = 1,
};

static int pvpanic_init(struct device *dev, struct error *err)
{
	struct pvpanic *p = container_of(dev, struct pvpanic, dev);

	if (p->ioport > 0xffff || p->events & ~(u32)(PANICKED | CRASH_LOADED))
		return err_set(err, -EINVAL,
			       "%s: ioport 0x%x events 0x%x, expected 0..0xffff and 0..3", dev->id,
			       p->ioport, p->events);
	return dev_map_pio(dev, &p->region, (u16)p->ioport, 1, &pvpanic_ops, err);
}

static void pvpanic_reset(struct device *dev)
{
}

static void pvpanic_fini(struct device *dev)
{
	bus_unmap(container_of(dev, struct pvpanic, dev)->region);
}

static const struct state_field pvpanic_state[] = {STATE_END};

static const struct prop pvpanic_props[] = {
	PROP(struct pvpanic, ioport, "ioport", PROP_KIND_U32, "0x505", "I/O port"),
	PROP(struct pvpanic, events, "events", PROP_KIND_U32, "3", "events the guest may send"),
	PROP_END,
};

const struct device_class pvpanic_class = {
	.name = "pvpanic",
	.help = "port by which a guest reports its crash",
	.size = sizeof(struct pvpanic),
	.bus = DEVICE_ON_ISA,
	.user_creatable = true,
	.props = pvpanic_props,
	.init = pvpanic_init,
	.reset = pvpanic_reset,
	.fini = pvpanic_fini,
	.state = pvpanic_state,
};
