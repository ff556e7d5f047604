/* Intel PIIX3, function 0: PCI-ISA bridge with interrupt router and reset control.
 * 82371SB data sheet (290550), section 2.
 *
 *   config 0x60-0x63	PIRQ A-D: bit 7 not routed, bits 0-3 ISA interrupt
 *   port 0x4d0, 0x4d1	edge/level control of IRQ 0-7 and 8-15
 *   port 0xcf9		reset control: a 0->1 edge of bit 2 resets (bit 1: hard reset)
 * KVM's own interrupt controller takes 0x4d0 and 0x4d1 before they get here; these
 * registers answer on machines without it.
 * Thread: any vCPU, with the device's lock held. */
#include "devices/piix3.h"

#include "base/log.h"

#define REG_IO_RECOVERY 0x4c
#define REG_CHIP_SELECT 0x4e
#define REG_PIRQ	0x60
#define REG_TOP_OF_MEM	0x69
#define PIRQS		4
#define PIRQ_NOT_ROUTED 0x80
#define PIRQ_WRITABLE	0x8f
#define ROUTABLE_IRQS	0xdef8u /* 3-7, 9-12, 14, 15 */

#define ELCR_PORT 0x4d0

#define RESET_CONTROL_OFF 1 /* port 0xcf9, seen from 0xcf8 */
#define RESET_CPU	  4
#define RESET_HARD	  2

struct piix3 {
	struct pci_dev pci;
	struct bus_region *elcr_ports; /* [const] */
	u8 elcr[2];		       /* [dev.lock] bit set: level-triggered */
	u8 reset_control;	       /* [dev.lock] last value written */
};

static struct piix3 *to_piix3(struct device *dev)
{
	return container_of(dev, struct piix3, pci.dev);
}

/* --- interrupt router --------------------------------------------------------- */

static u32 gsi_of(u8 reg)
{
	u8 irq = reg & 0xf;

	if ((reg & PIRQ_NOT_ROUTED) || !(ROUTABLE_IRQS & (1u << irq)))
		return IRQ_NONE;
	return irq;
}

static void update_routing(struct piix3 *p)
{
	u32 gsi[PIRQS];

	for (unsigned i = 0; i < PIRQS; i++)
		gsi[i] = gsi_of(p->pci.config[REG_PIRQ + i]);
	TRACE(TRACE_IRQ, "PIRQ A-D go to %d %d %d %d", (int)gsi[0], (int)gsi[1], (int)gsi[2],
	      (int)gsi[3]);
	pci_bus_set_routing(p->pci.bus, gsi);
}

static void piix3_config_written(struct pci_dev *pd, u8 off, unsigned size)
{
	if (off < REG_PIRQ + PIRQS && off + size > REG_PIRQ)
		update_routing(container_of(pd, struct piix3, pci));
}

/* --- ports -------------------------------------------------------------------- */

static u64 elcr_read(void *owner, u64 off, unsigned size)
{
	return to_piix3(owner)->elcr[off];
}

static void elcr_write(void *owner, u64 off, unsigned size, u64 value)
{
	static const u8 writable[2] = {0xf8, 0xde}; /* not timer, keyboard, cascade, RTC, FPU */

	to_piix3(owner)->elcr[off] = (u8)value & writable[off];
}

static const struct bus_ops elcr_ops = {
	.read = elcr_read,
	.write = elcr_write,
	.min_size = 1,
	.max_size = 1,
};

static u64 reset_control_read(void *owner, u64 off, unsigned size)
{
	return off == RESET_CONTROL_OFF ? to_piix3(owner)->reset_control : UINT64_MAX;
}

static void reset_control_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix3 *p = to_piix3(owner);
	bool edge = !(p->reset_control & RESET_CPU) && (value & RESET_CPU);

	if (off != RESET_CONTROL_OFF)
		return;
	p->reset_control = (u8)value & (RESET_CPU | RESET_HARD);
	if (edge)
		machine_request(p->pci.dev.machine, MACHINE_RESET, 0);
}

static const struct bus_ops reset_control_ops = {
	.read = reset_control_read,
	.write = reset_control_write,
};

/* --- class -------------------------------------------------------------------- */

static int piix3_init(struct device *dev, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x7000,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0x060100,
		.header_type = 0x80,
	};
	struct piix3 *p = to_piix3(dev);
	int ret = pci_dev_init(&p->pci, &ids, err);

	if (ret < 0)
		return ret;
	pci_set_writable(&p->pci, REG_PIRQ, 4, 0x01010101u * PIRQ_WRITABLE);
	pci_set_writable(&p->pci, REG_IO_RECOVERY, 1, 0x7f);
	pci_set_writable(&p->pci, REG_CHIP_SELECT, 2, 0xffff);
	pci_set_writable(&p->pci, REG_TOP_OF_MEM, 1, 0xfe);
	p->pci.config_written = piix3_config_written;
	ret = dev_map_pio(dev, &p->elcr_ports, ELCR_PORT, 2, &elcr_ops, err);
	if (ret < 0) {
		pci_dev_fini(&p->pci);
		return ret;
	}
	pci_bus_set_passthrough(p->pci.bus, dev, &reset_control_ops);
	return 0;
}

static void piix3_fini(struct device *dev)
{
	struct piix3 *p = to_piix3(dev);

	pci_bus_set_passthrough(p->pci.bus, NULL, NULL);
	bus_unmap(p->elcr_ports);
	pci_dev_fini(&p->pci);
}

static void piix3_reset(struct device *dev)
{
	struct piix3 *p = to_piix3(dev);

	pci_dev_reset(&p->pci);
	pci_set(&p->pci, REG_PIRQ, 4, 0x01010101u * PIRQ_NOT_ROUTED);
	pci_set(&p->pci, REG_IO_RECOVERY, 1, 0x4d);
	pci_set(&p->pci, REG_CHIP_SELECT, 2, 0x0003);
	pci_set(&p->pci, REG_TOP_OF_MEM, 1, 0x02);
	memset(p->elcr, 0, sizeof(p->elcr));
	p->reset_control = 0;
	update_routing(p);
}

static void piix3_post_load(struct device *dev)
{
	struct piix3 *p = to_piix3(dev);

	pci_dev_post_load(&p->pci);
	update_routing(p);
}

static const struct state_field piix3_state[] = {
	STATE_STRUCT(struct piix3, pci, pci_dev_state),
	STATE_ARRAY(struct piix3, elcr),
	STATE(struct piix3, reset_control),
	STATE_END,
};

static const struct prop piix3_props[] = {
	PROP(struct piix3, pci.prop_addr, "addr", PROP_KIND_DEVFN, "1.0", "slot"),
	PROP_END,
};

const struct device_class piix3_class = {
	.name = "PIIX3",
	.help = "PCI-ISA bridge",
	.size = sizeof(struct piix3),
	.bus = DEVICE_ON_PCI,
	.props = piix3_props,
	.init = piix3_init,
	.reset = piix3_reset,
	.fini = piix3_fini,
	.state = piix3_state,
	.post_load = piix3_post_load,
};
