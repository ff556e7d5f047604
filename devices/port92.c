/* System control port A, I/O port 0x92: bit 1 gates address line 20, a 0->1 edge of
 * bit 0 resets the machine.  PS/2 Hardware Interface Technical Reference, "Port A".
 *
 * KVM guests see address line 20 always open, so bit 1 is only remembered.
 * Thread: handlers under the device's lock. */
#include "devices/port92.h"

#include <errno.h>

#define PORT92_RESET 0x01
#define PORT92_A20   0x02

struct port92 {
	struct device dev;
	struct bus_region *port; /* [const] */
	u8 reg;			 /* [dev.lock] last value written */
};

static u64 port92_read(void *owner, u64 off, unsigned size)
{
	const struct port92 *p = owner;

	return p->reg;
}

static void port92_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct port92 *p = owner;
	bool reset_edge = !(p->reg & PORT92_RESET) && (value & PORT92_RESET);

	p->reg = (u8)value;
	__atomic_store_n(&p->dev.machine->a20, (value & PORT92_A20) != 0, __ATOMIC_RELAXED);
	if (reset_edge)
		machine_request(p->dev.machine, MACHINE_RESET, 0);
}

static const struct bus_ops port92_ops = {port92_read, port92_write, 1, 1};

static int port92_init(struct device *dev, struct error *err)
{
	struct port92 *p = container_of(dev, struct port92, dev);

	return dev_map_pio(dev, &p->port, 0x92, 1, &port92_ops, err);
}

static void port92_reset(struct device *dev)
{
	container_of(dev, struct port92, dev)->reg = 0;
}

static void port92_fini(struct device *dev)
{
	bus_unmap(container_of(dev, struct port92, dev)->port);
}

static const struct state_field port92_state[] = {
	STATE(struct port92, reg),
	STATE_END,
};

const struct device_class port92_class = {
	.name = "port92",
	.help = "system control port A: reset and A20",
	.size = sizeof(struct port92),
	.bus = DEVICE_ON_BOARD,
	.init = port92_init,
	.reset = port92_reset,
	.fini = port92_fini,
	.state = port92_state,
};
