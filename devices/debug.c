/* Two ports for firmware writers and tests, as the reference has them.
 *
 * isa-debugcon: bytes written to the port go to a character stream; reading gives
 * 0xe9, by which SeaBIOS knows that somebody listens.
 * isa-debug-exit: a write of V to the port ends the process with status V * 2 + 1.
 *
 * Thread: handlers under the device's lock.  No guest-visible state: reads do not
 * depend on what was written. */
#include "devices/debug.h"

#include "base/chardev.h"

#include <errno.h>

#define LAST_PORT     0xffffu
#define EXIT_SIZE_MAX 4

struct debugcon {
	struct device dev;
	struct chardev *chardev; /* [const] NULL: bytes vanish */
	struct chardev_user user;
	struct bus_region *region; /* [const] */
	u32 iobase, readback;	   /* [const] */
	bool attached;		   /* [const] */
};

static u64 debugcon_read(void *owner, u64 off, unsigned size)
{
	const struct debugcon *d = owner;

	return d->readback;
}

static void debugcon_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct debugcon *d = owner;
	u8 byte = (u8)value;

	if (d->attached)
		chardev_write(&d->user, &byte, 1);
}

static const struct bus_ops debugcon_ops = {
	.read = debugcon_read,
	.write = debugcon_write,
	.min_size = 1,
	.max_size = 1,
};

/* Nothing is read from the stream. */
static size_t debugcon_can_receive(struct chardev_user *u)
{
	return 0;
}

static void debugcon_receive(struct chardev_user *u, const u8 *data, size_t bytes)
{
}

static void debugcon_event(struct chardev_user *u, enum chardev_event event)
{
}

static int no_port(const struct device *dev, u32 iobase, struct error *err)
{
	return err_set(err, -EINVAL, "%s: iobase is 0x%x, expected 0..0x%x", dev->id, iobase,
		       LAST_PORT);
}

static int debugcon_init(struct device *dev, struct error *err)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);
	int ret;

	if (d->iobase > LAST_PORT)
		return no_port(dev, d->iobase, err);
	d->user.can_receive = debugcon_can_receive;
	d->user.receive = debugcon_receive;
	d->user.event = debugcon_event;
	if (d->chardev) {
		ret = chardev_attach(d->chardev, &d->user, err);
		if (ret < 0)
			return ret;
		d->attached = true;
	}
	ret = dev_map_pio(dev, &d->region, (u16)d->iobase, 1, &debugcon_ops, err);
	if (ret < 0 && d->attached)
		chardev_detach(&d->user);
	return ret;
}

static void debugcon_fini(struct device *dev)
{
	struct debugcon *d = container_of(dev, struct debugcon, dev);

	bus_unmap(d->region);
	if (d->attached)
		chardev_detach(&d->user);
}

/* Power-on state is the only one there is. */
static void debug_reset(struct device *dev)
{
}

static const struct prop debugcon_props[] = {
	PROP(struct debugcon, chardev, "chardev", PROP_KIND_CHARDEV, NULL, "where bytes go"),
	PROP(struct debugcon, iobase, "iobase", PROP_KIND_U32, "0xe9",
	     "the port; SeaBIOS uses 0x402"),
	PROP(struct debugcon, readback, "readback", PROP_KIND_U32, "0xe9", "what reads give"),
	PROP_END,
};

static const struct state_field no_state[] = {STATE_END};

const struct device_class debugcon_class = {
	.name = "isa-debugcon",
	.help = "port for debug messages",
	.size = sizeof(struct debugcon),
	.bus = DEVICE_ON_ISA,
	.user_creatable = true,
	.props = debugcon_props,
	.init = debugcon_init,
	.reset = debug_reset,
	.fini = debugcon_fini,
	.state = no_state,
};

struct debug_exit {
	struct device dev;
	struct bus_region *region; /* [const] */
	u32 iobase, iosize;	   /* [const] */
};

static u64 debug_exit_read(void *owner, u64 off, unsigned size)
{
	return 0;
}

static void debug_exit_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct debug_exit *d = owner;

	machine_request(d->dev.machine, MACHINE_EXIT, (int)((u32)value << 1 | 1));
}

static const struct bus_ops debug_exit_ops = {
	.read = debug_exit_read,
	.write = debug_exit_write,
	.min_size = 1,
	.max_size = EXIT_SIZE_MAX,
};

static int debug_exit_init(struct device *dev, struct error *err)
{
	struct debug_exit *d = container_of(dev, struct debug_exit, dev);

	if (d->iosize < 1 || d->iosize > EXIT_SIZE_MAX)
		return err_set(err, -EINVAL, "isa-debug-exit: iosize is %u, expected 1..%u",
			       d->iosize, EXIT_SIZE_MAX);
	if (d->iobase > LAST_PORT)
		return no_port(dev, d->iobase, err);
	return dev_map_pio(dev, &d->region, (u16)d->iobase, (u16)d->iosize, &debug_exit_ops, err);
}

static void debug_exit_fini(struct device *dev)
{
	struct debug_exit *d = container_of(dev, struct debug_exit, dev);

	bus_unmap(d->region);
}

static const struct prop debug_exit_props[] = {
	PROP(struct debug_exit, iobase, "iobase", PROP_KIND_U32, "0x501", "first port"),
	PROP(struct debug_exit, iosize, "iosize", PROP_KIND_U32, "2", "ports, 1..4"),
	PROP_END,
};

const struct device_class debug_exit_class = {
	.name = "isa-debug-exit",
	.help = "a write ends the process",
	.size = sizeof(struct debug_exit),
	.bus = DEVICE_ON_ISA,
	.user_creatable = true,
	.props = debug_exit_props,
	.init = debug_exit_init,
	.reset = debug_reset,
	.fini = debug_exit_fini,
	.state = no_state,
};
