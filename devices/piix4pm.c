/* Intel PIIX4, function 3: ACPI power management, SMBus host, APM command port.
 * 82371AB data sheet (290562), chapter 7; ACPI 6.4, section 4.8 (fixed hardware).
 *
 *   PM base + 0x00	PM1 status, 0x02 enable, 0x04 control, 0x08 timer
 *   PM base + 0x0c	general purpose event status, 0x0e enable
 *   SMBus base		host status, control, ...: a bus without devices
 *   port 0xb2, 0xb3	APM control (0xf1 ACPI on, 0xf0 off) and status
 * The firmware may move the bases; they are in place after reset, so that a kernel
 * without firmware finds what the ACPI tables say.  There is no system management
 * mode: register 0x5b says that it has been set up already, or SeaBIOS would wait
 * for an interrupt that never comes.
 * Thread: any vCPU, with the device's lock held; the timer on the main thread. */
#include "devices/piix4pm.h"

#include "base/log.h"

#define REG_PM_BASE	0x40
#define REG_DEVACT_B	0x58
#define REG_DEVACT_B3	0x5b
#define APMC_ENABLED	0x02 /* of the byte at 0x5b */
#define REG_PM_ENABLE	0x80
#define REG_SMBUS_BASE	0x90
#define REG_SMBUS_HOST	0xd2
#define BASE_IS_IO	1
#define PM_PORTS	0x40
#define SMBUS_PORTS	0x10
#define PM_BASE_DEFAULT 0x600

#define APM_PORT     0xb2
#define ACPI_ENABLE  0xf1
#define ACPI_DISABLE 0xf0

#define SCI_GSI 9

/* PM1 status and enable. */
#define PM1_TIMER	 0x0001
#define PM1_GLOBAL	 0x0020
#define PM1_POWER_BUTTON 0x0100
#define PM1_RTC		 0x0400
#define PM1_WAKE	 0x8000
#define PM1_ENABLES	 (PM1_TIMER | PM1_GLOBAL | PM1_POWER_BUTTON | PM1_RTC)
/* PM1 control. */
#define PM1_SCI_ENABLE	 0x0001
#define PM1_WRITABLE	 0x1c03 /* sleep type, bus master reload, SCI enable */
#define PM1_SLEEP_ENABLE 0x2000
#define SLEEP_TYPE(cnt)	 ((cnt) >> 10 & 7)
#define SLEEP_TYPE_S5	 0

#define TIMER_HZ   3579545
#define TIMER_MASK 0xffffff
#define TIMER_HALF 0x800000 /* ticks between changes of the top bit */
#define TIMER_OFF  8

/* SMBus host status and control. */
#define SMBUS_DEVICE_ERROR 0x04
#define SMBUS_CLEARABLE	   0x1e
#define SMBUS_START	   0x40

struct piix4pm {
	struct pci_dev pci;
	struct bus_region *pm_ports, *smbus_ports; /* [dev.lock] NULL: not decoded */
	u16 pm_addr, smbus_addr;		   /* [dev.lock] where they are, 0: nowhere */
	struct bus_region *apm_ports;		   /* [const] */
	struct irq_line sci;
	struct timer timer; /* next change of the counter's top bit, if enabled */
	u16 pm1_status, pm1_enable, pm1_control; /* [dev.lock] */
	u16 gpe_status, gpe_enable;		 /* [dev.lock] */
	u64 overflow_ns;	    /* [dev.lock] when the timer's top bit changes next */
	u8 apm_control, apm_status; /* [dev.lock] */
	u8 smbus[SMBUS_PORTS];	    /* [dev.lock] */
};

static struct piix4pm *to_piix4pm(struct device *dev)
{
	return container_of(dev, struct piix4pm, pci.dev);
}

/* --- timer and system control interrupt --------------------------------------- */

static u64 ns_to_ticks(u64 ns)
{
	return (u64)((unsigned __int128)ns * TIMER_HZ / NS_PER_SEC);
}

/* The first ns at which that many ticks have passed. */
static u64 ticks_to_ns(u64 ticks)
{
	return (u64)(((unsigned __int128)ticks * NS_PER_SEC + TIMER_HZ - 1) / TIMER_HZ);
}

static u64 next_overflow(u64 now)
{
	return ticks_to_ns((ns_to_ticks(now) / TIMER_HALF + 1) * TIMER_HALF);
}

/* Note an overflow that has happened; then drive the interrupt and, if its next
 * overflow would interrupt, set the timer. */
static void update(struct piix4pm *pm)
{
	u64 now = clock_now(pm->pci.dev.machine->clock);
	bool event;

	if (now >= pm->overflow_ns) {
		pm->pm1_status |= PM1_TIMER;
		pm->overflow_ns = next_overflow(now);
	}
	event = (pm->pm1_status & pm->pm1_enable & PM1_ENABLES) ||
		(pm->gpe_status & pm->gpe_enable);
	irq_line_set(&pm->sci, event && (pm->pm1_control & PM1_SCI_ENABLE));
	if ((pm->pm1_enable & PM1_TIMER) && !(pm->pm1_status & PM1_TIMER))
		timer_set(&pm->timer, pm->overflow_ns);
	else
		timer_del(&pm->timer);
}

static void timer_fired(struct timer *timer)
{
	struct piix4pm *pm = container_of(timer, struct piix4pm, timer);

	LOCK_SCOPE(&pm->pci.dev.lock);

	update(pm);
}

void piix4pm_power_button(struct device *dev)
{
	struct piix4pm *pm = to_piix4pm(dev);

	assert(dev->cls == &piix4pm_class);
	LOCK_SCOPE(&dev->lock);
	pm->pm1_status |= PM1_POWER_BUTTON;
	TRACE(TRACE_ACPI, "%s: power button", dev->id);
	update(pm);
}

/* --- power management ports --------------------------------------------------- */

static void go_to_sleep(struct piix4pm *pm)
{
	struct device *dev = &pm->pci.dev;
	unsigned type = SLEEP_TYPE(pm->pm1_control);

	if (type == SLEEP_TYPE_S5) {
		TRACE(TRACE_ACPI, "%s: soft off", dev->id);
		machine_request(dev->machine, MACHINE_SHUTDOWN, 0);
		return;
	}
	/* No other state is offered: whoever tries is awake again at once. */
	dev_guest_error(dev, "sleep type %u is not supported", type);
	pm->pm1_status |= PM1_WAKE;
}

static void write_control(struct piix4pm *pm, u16 value)
{
	pm->pm1_control = value & PM1_WRITABLE;
	if (value & PM1_SLEEP_ENABLE)
		go_to_sleep(pm);
}

static u8 pm_read_byte(const struct piix4pm *pm, u64 off)
{
	switch (off) {
	case 0x0: return (u8)pm->pm1_status;
	case 0x1: return (u8)(pm->pm1_status >> 8);
	case 0x2: return (u8)pm->pm1_enable;
	case 0x3: return (u8)(pm->pm1_enable >> 8);
	case 0x4: return (u8)pm->pm1_control;
	case 0x5: return (u8)(pm->pm1_control >> 8);
	case 0xc: return (u8)pm->gpe_status;
	case 0xd: return (u8)(pm->gpe_status >> 8);
	case 0xe: return (u8)pm->gpe_enable;
	case 0xf: return (u8)(pm->gpe_enable >> 8);
	default: return 0;
	}
}

static u16 low(u16 word, u8 value)
{
	return (u16)((word & 0xff00) | value);
}

static u16 high(u16 word, u8 value)
{
	return (u16)((word & 0x00ff) | value << 8);
}

/* Wide writes come in order of address, so the sleep bit is the last to be seen. */
static void pm_write_byte(struct piix4pm *pm, u64 off, u8 value)
{
	switch (off) {
	case 0x0: pm->pm1_status &= (u16)~value; break;
	case 0x1: pm->pm1_status &= (u16) ~(value << 8); break;
	case 0x2: pm->pm1_enable = low(pm->pm1_enable, value) & PM1_ENABLES; break;
	case 0x3: pm->pm1_enable = high(pm->pm1_enable, value) & PM1_ENABLES; break;
	case 0x4: write_control(pm, low(pm->pm1_control, value)); break;
	case 0x5: write_control(pm, high(pm->pm1_control, value)); break;
	case 0xc: pm->gpe_status &= (u16)~value; break;
	case 0xd: pm->gpe_status &= (u16) ~(value << 8); break;
	case 0xe: pm->gpe_enable = low(pm->gpe_enable, value); break;
	case 0xf: pm->gpe_enable = high(pm->gpe_enable, value); break;
	default: break; /* clock and power planes, general purpose I/O: not there */
	}
}

static u64 pm_read(void *owner, u64 off, unsigned size)
{
	struct piix4pm *pm = to_piix4pm(owner);
	u64 ticks, value = 0;

	if (off >= TIMER_OFF && off < TIMER_OFF + 4) {
		ticks = ns_to_ticks(clock_now(pm->pci.dev.machine->clock)) & TIMER_MASK;
		return ticks >> ((off - TIMER_OFF) * 8);
	}
	update(pm);
	for (unsigned i = 0; i < size; i++)
		value |= (u64)pm_read_byte(pm, off + i) << (8 * i);
	return value;
}

static void pm_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix4pm *pm = to_piix4pm(owner);

	update(pm); /* an overflow before this write is not cleared unseen */
	for (unsigned i = 0; i < size; i++)
		pm_write_byte(pm, off + i, (u8)(value >> (8 * i)));
	update(pm);
}

static const struct bus_ops pm_ops = {.read = pm_read, .write = pm_write};

/* --- SMBus: nobody answers ---------------------------------------------------- */

enum { SMBUS_STATUS = 0, SMBUS_CONTROL = 2 };

static u64 smbus_read(void *owner, u64 off, unsigned size)
{
	return to_piix4pm(owner)->smbus[off];
}

static void smbus_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix4pm *pm = to_piix4pm(owner);

	switch (off) {
	case SMBUS_STATUS: pm->smbus[off] &= (u8) ~(value & SMBUS_CLEARABLE); break;
	case SMBUS_CONTROL:
		pm->smbus[off] = (u8)value & ~SMBUS_START;
		if (value & SMBUS_START)
			pm->smbus[SMBUS_STATUS] |= SMBUS_DEVICE_ERROR;
		break;
	default: pm->smbus[off] = (u8)value; break;
	}
}

static const struct bus_ops smbus_ops = {
	.read = smbus_read,
	.write = smbus_write,
	.min_size = 1,
	.max_size = 1,
};

/* --- APM command port --------------------------------------------------------- */

static u64 apm_read(void *owner, u64 off, unsigned size)
{
	const struct piix4pm *pm = to_piix4pm(owner);

	return off ? pm->apm_status : pm->apm_control;
}

static void apm_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct piix4pm *pm = to_piix4pm(owner);

	if (off) {
		pm->apm_status = (u8)value;
		return;
	}
	pm->apm_control = (u8)value;
	if (value == ACPI_ENABLE)
		pm->pm1_control |= PM1_SCI_ENABLE;
	if (value == ACPI_DISABLE)
		pm->pm1_control &= (u16)~PM1_SCI_ENABLE;
	update(pm);
}

static const struct bus_ops apm_ops = {
	.read = apm_read,
	.write = apm_write,
	.min_size = 1,
	.max_size = 1,
};

/* --- where the ports are ------------------------------------------------------ */

static u16 decoded(const struct piix4pm *pm, u8 base, u8 enable, u16 ports)
{
	if (!(pm->pci.config[enable] & 1))
		return 0;
	return (u16)(pci_get(&pm->pci, base, 2) & ~(ports - 1u));
}

/* Firmware may lay them over something else: they lose then. */
static void move_ports(struct piix4pm *pm, struct bus_region **region, u16 addr,
		       const struct bus_ops *ops, u16 ports)
{
	struct device *dev = &pm->pci.dev;
	const struct bus_place place = {
		.name = dev->id,
		.addr = addr,
		.bytes = ports,
		.priority = ops == &pm_ops ? -1 : -2,
	};

	bus_unmap(*region);
	*region = NULL;
	if (addr && bus_map(dev->machine->pio, region, &place, ops, dev, &dev->lock) < 0)
		dev_guest_error(dev, "ports cannot lie at 0x%x", addr);
}

static void update_ports(struct piix4pm *pm)
{
	u16 addr = decoded(pm, REG_PM_BASE, REG_PM_ENABLE, PM_PORTS);

	if (addr != pm->pm_addr)
		move_ports(pm, &pm->pm_ports, addr, &pm_ops, PM_PORTS);
	pm->pm_addr = addr;
	addr = decoded(pm, REG_SMBUS_BASE, REG_SMBUS_HOST, SMBUS_PORTS);
	if (addr != pm->smbus_addr)
		move_ports(pm, &pm->smbus_ports, addr, &smbus_ops, SMBUS_PORTS);
	pm->smbus_addr = addr;
}

static void piix4pm_config_written(struct pci_dev *pd, u8 off, unsigned size)
{
	update_ports(container_of(pd, struct piix4pm, pci));
}

/* --- class -------------------------------------------------------------------- */

static int piix4pm_init(struct device *dev, struct error *err)
{
	static const struct pci_ids ids = {
		.vendor = 0x8086,
		.device = 0x7113,
		.subsystem_vendor = 0x1af4,
		.subsystem = 0x1100,
		.class_code = 0x068000,
		.revision = 3,
		.interrupt_pin = 1,
	};
	struct piix4pm *pm = to_piix4pm(dev);
	int ret = pci_dev_init(&pm->pci, &ids, err);

	if (ret < 0)
		return ret;
	pci_set_writable(&pm->pci, REG_PM_BASE, 2, 0xffc0);
	pci_set_writable(&pm->pci, REG_DEVACT_B, 4, 0xffffffff);
	pci_set_writable(&pm->pci, REG_PM_ENABLE, 1, 1);
	pci_set_writable(&pm->pci, REG_SMBUS_BASE, 2, 0xfff0);
	pci_set_writable(&pm->pci, REG_SMBUS_HOST, 1, 0x0f);
	pci_set(&pm->pci, REG_PM_BASE, 4, BASE_IS_IO);
	pci_set(&pm->pci, REG_SMBUS_BASE, 4, BASE_IS_IO);
	pm->pci.config_written = piix4pm_config_written;
	irq_line_init(&pm->sci, dev->machine->irq, SCI_GSI);
	timer_init(&pm->timer, dev->machine->clock, timer_fired);
	ret = dev_map_pio(dev, &pm->apm_ports, APM_PORT, 2, &apm_ops, err);
	if (ret < 0)
		pci_dev_fini(&pm->pci);
	return ret;
}

static void piix4pm_fini(struct device *dev)
{
	struct piix4pm *pm = to_piix4pm(dev);

	timer_del(&pm->timer);
	irq_line_set(&pm->sci, false);
	bus_unmap(pm->pm_ports);
	bus_unmap(pm->smbus_ports);
	bus_unmap(pm->apm_ports);
	pci_dev_fini(&pm->pci);
}

static void piix4pm_reset(struct device *dev)
{
	struct piix4pm *pm = to_piix4pm(dev);

	pci_dev_reset(&pm->pci);
	pci_set(&pm->pci, REG_PM_BASE, 2, PM_BASE_DEFAULT | BASE_IS_IO);
	pci_set(&pm->pci, REG_PM_ENABLE, 1, 1);
	pci_set(&pm->pci, REG_DEVACT_B3, 1, APMC_ENABLED);
	pm->pm1_status = pm->pm1_enable = pm->pm1_control = 0;
	pm->gpe_status = pm->gpe_enable = 0;
	pm->apm_control = pm->apm_status = 0;
	memset(pm->smbus, 0, sizeof(pm->smbus));
	pm->overflow_ns = next_overflow(clock_now(dev->machine->clock));
	update_ports(pm);
	update(pm);
}

/* What the timer did since the last look is part of the state. */
static void piix4pm_pre_save(struct device *dev)
{
	update(to_piix4pm(dev));
}

static void piix4pm_post_load(struct device *dev)
{
	struct piix4pm *pm = to_piix4pm(dev);

	pci_dev_post_load(&pm->pci);
	update_ports(pm);
	update(pm);
}

static const struct state_field piix4pm_state[] = {
	STATE_STRUCT(struct piix4pm, pci, pci_dev_state),
	STATE(struct piix4pm, pm1_status),
	STATE(struct piix4pm, pm1_enable),
	STATE(struct piix4pm, pm1_control),
	STATE(struct piix4pm, gpe_status),
	STATE(struct piix4pm, gpe_enable),
	STATE(struct piix4pm, overflow_ns),
	STATE(struct piix4pm, apm_control),
	STATE(struct piix4pm, apm_status),
	STATE_ARRAY(struct piix4pm, smbus),
	STATE_END,
};

static const struct prop piix4pm_props[] = {
	PROP(struct piix4pm, pci.prop_addr, "addr", PROP_KIND_DEVFN, "1.3", "slot.function"),
	PROP_END,
};

const struct device_class piix4pm_class = {
	.name = "PIIX4_PM",
	.help = "ACPI power management",
	.size = sizeof(struct piix4pm),
	.bus = DEVICE_ON_PCI,
	.props = piix4pm_props,
	.init = piix4pm_init,
	.reset = piix4pm_reset,
	.fini = piix4pm_fini,
	.state = piix4pm_state,
	.pre_save = piix4pm_pre_save,
	.post_load = piix4pm_post_load,
};
