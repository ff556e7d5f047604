/* e1000: Intel 82540EM.  PCI/PCI-X Family of Gigabit Ethernet Controllers Software
 * Developer's Manual (317453), chapters 3, 5, 8, 9, 13.
 *
 * This file: registers, interrupts with their throttling, life cycle.  Registers are
 * under dev.lock.  A write that moves a ring's tail wakes the main thread, which works on
 * frames (e1000_tx.c, e1000_rx.c); it never waits for a vCPU with the lock held. */
#include "devices/net/e1000.h"

#include "base/log.h"
#include "devices/net/e1000_int.h"

#include <errno.h>

#define VENDOR_INTEL  0x8086
#define DEVICE_82540  0x100e
#define SUBSYSTEM     0x1100
#define SUBSYSTEM_ID  0x1af4
#define CLASS_NETWORK 0x020000
#define BAR_MEM_BYTES 0x20000
#define BAR_IO_BYTES  0x40
#define IO_ADDR	      0 /* section 13.2.2: an address, then its data */
#define IO_DATA	      4
#define ITR_UNIT_NS   256
#define CTRL_DEFAULT  (CTRL_SPEED_1000 | CTRL_SLU | CTRL_FD | CTRL_ASDE)

static struct e1000 *e1000_of_dev(struct device *dev)
{
	return container_of(dev, struct e1000, pd.dev);
}

/* --- interrupts ----------------------------------------------------------------------------- */

/* The line follows the causes that are not masked; after it has risen it does not rise
 * again for an interval: section 13.4.18. */
static void update_irq(struct e1000 *e)
{
	struct clock *clock = e->pd.dev.machine->clock;
	u64 interval = (u64)(e1000_get(e, R_ITR) & 0xffff) * ITR_UNIT_NS, now;

	if (!(e1000_get(e, R_ICR) & e1000_get(e, R_IMS))) {
		pci_set_intx(&e->pd, false);
		return;
	}
	if (e->pd.intx_level)
		return;
	now = clock_now(clock);
	if (interval && e->irq_due > now && e->irq_due - now <= interval) {
		timer_set(&e->throttle, e->irq_due);
		return;
	}
	e->irq_due = interval ? now + interval : 0;
	pci_set_intx(&e->pd, true);
}

static void throttle_ends(struct timer *timer)
{
	struct e1000 *e = container_of(timer, struct e1000, throttle);
	LOCK_SCOPE(&e->pd.dev.lock);

	update_irq(e);
}

void e1000_cause(struct e1000 *e, u32 bits)
{
	lock_assert(&e->pd.dev.lock);
	e1000_put(e, R_ICR, e1000_get(e, R_ICR) | bits);
	update_irq(e);
}

static u32 take_icr(struct e1000 *e)
{
	u32 icr = e1000_get(e, R_ICR);

	e1000_put(e, R_ICR, 0);
	update_irq(e);
	return icr;
}

/* --- the main thread's part ---------------------------------------------------------------------
 */

void e1000_kick(struct e1000 *e)
{
	struct loop *loop = e->pd.dev.machine->loop;

	lock_assert(&e->pd.dev.lock);
	if (e->kick_posted || !loop)
		return;
	e->kick_posted = true;
	loop_post(loop, &e->kick);
}

static void kicked(struct loop_call *call)
{
	struct e1000 *e = container_of(call, struct e1000, kick);
	bool paused;

	mutex_lock(&e->pd.dev.lock);
	e->kick_posted = false;
	paused = e->paused;
	if (pci_bus_master(&e->pd))
		e1000_transmit(e);
	e->direct = net_direct(&e->nic.end);
	mutex_unlock(&e->pd.dev.lock);
	if (!paused)
		net_flush(&e->nic.end);
}

static void writable(struct net_end *end)
{
	struct e1000 *e = container_of(end, struct e1000, nic.end);
	bool nested = mutex_held(&e->pd.dev.lock);

	if (nested)
		return; /* the loop that sends goes on by itself */
	mutex_lock(&e->pd.dev.lock);
	if (pci_bus_master(&e->pd))
		e1000_transmit(e);
	mutex_unlock(&e->pd.dev.lock);
}

/* --- the link ------------------------------------------------------------------------------------
 */

bool e1000_link_up(const struct e1000 *e)
{
	return e1000_get(e, R_STATUS) & STATUS_LU;
}

static void set_link(struct e1000 *e, bool up)
{
	u32 status = e1000_get(e, R_STATUS) & ~(u32)STATUS_LU;

	e1000_put(e, R_STATUS, status | (up ? STATUS_LU : 0));
	e1000_phy_link(e, up);
}

static void link_changed(struct net_end *end)
{
	struct e1000 *e = container_of(end, struct e1000, nic.end);
	bool up = net_link_is_up(end);
	LOCK_SCOPE(&e->pd.dev.lock);

	e->direct = NULL; /* until main has looked at it again */
	nic_link_changed(&e->nic);
	if (up == e1000_link_up(e))
		return;
	set_link(e, up);
	e1000_cause(e, ICR_LSC);
}

static const struct net_ops e1000_end_ops = {.type = "nic",
					     .can_receive = e1000_can_receive,
					     .receive = e1000_receive,
					     .writable = writable,
					     .link_changed = link_changed};

/* --- registers
 * --------------------------------------------------------------------------------------- */

u64 e1000_ring(const struct e1000 *e, u32 base_reg)
{
	return (u64)e1000_get(e, base_reg + 4) << 32 | e1000_get(e, base_reg);
}

u32 e1000_ring_size(const struct e1000 *e, u32 base_reg)
{
	return e1000_get(e, base_reg + 8) / E1000_DESC_BYTES;
}

void e1000_count64(struct e1000 *e, u32 off, u32 bytes)
{
	u64 sum = (u64)e1000_get(e, off + 4) << 32 | e1000_get(e, off);

	if (!add_ok(sum, bytes, &sum))
		sum = UINT64_MAX;
	e1000_put(e, off, (u32)sum);
	e1000_put(e, off + 4, (u32)(sum >> 32));
}

/* Registers that keep what is written, within a mask; all others keep nothing. */
static u32 write_mask(u32 off)
{
	static const struct {
		u32 first, last, mask;
	} plain[] = {
		{R_CTRL_EXT, R_CTRL_EXT, 0xffffffff},
		{R_FCAL, 0x0030, 0xffffffff},
		{R_VET, R_VET, 0xffff},
		{R_ITR, R_ITR, 0xffff},
		{0x0170, 0x0178, 0xffffffff}, /* FCTTV, TXCW */
		{R_TCTL, R_TCTL, 0xffffffff},
		{0x0410, 0x0458, 0xffffffff}, /* TIPG, AIFS */
		{R_LEDCTL, R_LEDCTL, 0xffffffff},
		{R_PBA, R_PBA, 0xffff},
		{0x2160, 0x2168, 0xffffffff}, /* FCRTL, FCRTH */
		{R_RDBAL, R_RDBAL, 0xfffffff0},
		{R_RDBAH, R_RDBAH, 0xffffffff},
		{R_RDLEN, R_RDLEN, 0xfff80},
		{R_RDH, R_RDT, 0xffff},
		{0x2820, 0x2c00, 0xffffffff}, /* RDTR, RXDCTL, RADV, RSRPD */
		{0x3000, 0x3000, 0xffffffff}, /* TXDMAC */
		{0x3410, 0x3430, 0x1fff},     /* TDFH and its kin */
		{R_TDBAL, R_TDBAL, 0xfffffff0},
		{R_TDBAH, R_TDBAH, 0xffffffff},
		{R_TDLEN, R_TDLEN, 0xfff80},
		{R_TDH, R_TDT, 0xffff},
		{0x3820, 0x3830, 0xffffffff}, /* TIDV, TXDCTL, TADV, TSPMT */
		{R_RXCSUM, R_RXCSUM, 0x7ff},
		{R_MTA, R_MTA + 0x1fc, 0xffffffff},
		{R_RAL, R_RAL + 0x7c, 0xffffffff},
		{R_VFTA, R_VFTA + 0x1fc, 0xffffffff},
		{0x5800, 0x5820, 0xffffffff}, /* WUC and its kin, MANC */
	};

	for (unsigned i = 0; i < ARRAY_LEN(plain); i++)
		if (off >= plain[i].first && off <= plain[i].last)
			return plain[i].mask;
	return 0;
}

/* Section 4.6: what the card has at power-on and after CTRL.RST. */
static void reset_registers(struct e1000 *e)
{
	const u8 *mac = e->nic.mac;

	memset(e->reg, 0, sizeof(e->reg));
	e1000_put(e, R_CTRL, CTRL_DEFAULT);
	e1000_put(e, R_STATUS, STATUS_FD | STATUS_SPEED_1000);
	e1000_put(e, R_LEDCTL, 0x07061302);
	e1000_put(e, R_PBA, 0x00100030);
	e1000_put(e, R_MANC, 0x00002300);
	e1000_put(e, R_VET, 0x8100);
	e1000_put(e, R_RAL, mac[0] | mac[1] << 8 | mac[2] << 16 | (u32)mac[3] << 24);
	e1000_put(e, R_RAH, mac[4] | mac[5] << 8 | 0x80000000u);
	memset(&e->plain, 0, sizeof(e->plain));
	memset(&e->tso, 0, sizeof(e->tso));
	e->eeprom_in = 0;
	e->eeprom_bits = 0;
	e->eeprom_reading = false;
	e->irq_due = 0;
	timer_del(&e->throttle);
	e1000_phy_reset(e);
	set_link(e, net_link_is_up(&e->nic.end));
	pci_set_intx(&e->pd, false);
	e1000_kick(e); /* what waited for buffers goes into nothing now */
}

/* A driver that turns bus mastering on last has moved the tails before. */
static void config_written(struct pci_dev *pd, u8 off, unsigned size)
{
	if (pci_bus_master(pd))
		e1000_kick(container_of(pd, struct e1000, pd));
}

static void write_ctrl(struct e1000 *e, u32 value)
{
	if (value & CTRL_RST) {
		reset_registers(e);
		return;
	}
	if (value & CTRL_PHY_RST)
		e1000_phy_reset(e);
	e1000_put(e, R_CTRL, value & ~(CTRL_PHY_RST | (u32)CTRL_RST));
}

static void write_reg(struct e1000 *e, u32 off, u32 value)
{
	u32 mask = write_mask(off);

	switch (off) {
	case R_CTRL: write_ctrl(e, value); return;
	case R_EECD: e1000_write_eecd(e, value); return;
	case R_EERD: e1000_write_eerd(e, value); return;
	case R_MDIC: e1000_write_mdic(e, value); return;
	case R_ICR: /* ones clear */
		e1000_put(e, R_ICR, e1000_get(e, R_ICR) & ~value);
		update_irq(e);
		return;
	case R_ICS: e1000_cause(e, value & ICR_ALL); return;
	case R_IMS:
		e1000_put(e, R_IMS, e1000_get(e, R_IMS) | (value & ICR_ALL));
		update_irq(e);
		return;
	case R_IMC:
		e1000_put(e, R_IMS, e1000_get(e, R_IMS) & ~value);
		update_irq(e);
		return;
	case R_RCTL:
		e1000_put(e, R_RCTL, value);
		e1000_kick(e);
		return;
	default: break;
	}
	if (!mask) {
		TRACE(TRACE_PCI, "%s: register 0x%x = 0x%x", e->pd.dev.id, off, value);
		return;
	}
	e1000_put(e, off, (e1000_get(e, off) & ~mask) | (value & mask));
	if (off == R_TDT && e->direct && pci_bus_master(&e->pd) &&
	    !(e1000_get(e, R_RCTL) & RCTL_LBM))
		e1000_transmit(e);
	else if (off == R_TDT || off == R_TCTL || off == R_RDT)
		e1000_kick(e);
}

static u32 read_reg(struct e1000 *e, u32 off)
{
	u32 value = e1000_get(e, off);

	switch (off) {
	case R_EECD: return e1000_read_eecd(e);
	case R_ICR: return take_icr(e);
	case R_ICS: return e1000_get(e, R_ICR);
	case R_IMC: return 0;
	default:
		if (off >= R_STATS && off < R_STATS_END) /* reading clears */
			e1000_put(e, off, 0);
		return value;
	}
}

/* Only whole registers: the manual allows no other accesses. */
static u64 mem_reg_read(void *owner, u64 off, unsigned size)
{
	struct e1000 *e = e1000_of_dev(owner);

	if (off & 3 || off >= E1000_REG_BYTES)
		return 0;
	return read_reg(e, (u32)off) & (size < 4 ? (1u << 8 * size) - 1 : UINT32_MAX);
}

static void mem_reg_write(void *owner, u64 off, unsigned size, u64 value)
{
	if (!(off & 3) && off < E1000_REG_BYTES && size == 4)
		write_reg(e1000_of_dev(owner), (u32)off, (u32)value);
}

static u64 io_reg_read(void *owner, u64 off, unsigned size)
{
	struct e1000 *e = e1000_of_dev(owner);

	if (off == IO_ADDR)
		return e->io_addr;
	return off == IO_DATA ? mem_reg_read(owner, e->io_addr, 4) : 0;
}

static void io_reg_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct e1000 *e = e1000_of_dev(owner);

	if (off == IO_ADDR && size == 4)
		e->io_addr = (u32)value;
	else if (off == IO_DATA && size == 4)
		mem_reg_write(owner, e->io_addr, 4, value);
}

static const struct bus_ops mem_ops = {.read = mem_reg_read, .write = mem_reg_write};
static const struct bus_ops io_ops = {.read = io_reg_read, .write = io_reg_write};

/* --- life cycle
 * ---------------------------------------------------------------------------------------- */

static int e1000_init(struct device *dev, struct error *err)
{
	struct e1000 *e = e1000_of_dev(dev);
	static const struct pci_ids ids = {.vendor = VENDOR_INTEL,
					   .device = DEVICE_82540,
					   .subsystem_vendor = SUBSYSTEM_ID,
					   .subsystem = SUBSYSTEM,
					   .class_code = CLASS_NETWORK,
					   .revision = 3,
					   .interrupt_pin = 1};
	int ret = nic_init(&e->nic, dev, &e1000_end_ops, err);

	if (ret < 0)
		return ret;
	ret = pci_dev_init(&e->pd, &ids, err);
	if (ret < 0) {
		nic_fini(&e->nic);
		return ret;
	}
	pci_add_bar(&e->pd, 0, PCI_BAR_MEM32, BAR_MEM_BYTES, &mem_ops, NULL);
	pci_add_bar(&e->pd, 1, PCI_BAR_IO, BAR_IO_BYTES, &io_ops, NULL);
	e->pd.config_written = config_written;
	e->kick.fn = kicked;
	timer_init(&e->throttle, dev->machine->clock, throttle_ends);
	e1000_eeprom_init(e);
	return 0;
}

static void e1000_reset(struct device *dev)
{
	struct e1000 *e = e1000_of_dev(dev);

	pci_dev_reset(&e->pd);
	e->io_addr = 0;
	reset_registers(e);
}

static void e1000_fini(struct device *dev)
{
	struct e1000 *e = e1000_of_dev(dev);

	if (dev->machine->loop)
		loop_run_posted(dev->machine->loop); /* kick, which is ours */
	timer_del(&e->throttle);
	pci_dev_fini(&e->pd);
	nic_fini(&e->nic);
	free(e->frame);
}

static void e1000_pause(struct device *dev)
{
	struct e1000 *e = e1000_of_dev(dev);
	LOCK_SCOPE(&dev->lock);

	e->paused = true;
}

static void e1000_resume(struct device *dev)
{
	struct e1000 *e = e1000_of_dev(dev);
	LOCK_SCOPE(&dev->lock);

	e->paused = false;
	e1000_kick(e);
}

/* --- state
 * ------------------------------------------------------------------------------------------------
 */

static int e1000_state_check(const void *loaded, struct error *err)
{
	const struct e1000 *e = loaded;

	if (e->eeprom_reading && (e->eeprom_in >= E1000_EEPROM_WORDS || e->eeprom_bits > 16))
		return err_set(err, -EINVAL,
			       "e1000: EEPROM at word %u, bit %u, expected up to %u, 16",
			       e->eeprom_in, e->eeprom_bits, E1000_EEPROM_WORDS - 1);
	return 0;
}

static void e1000_post_load(struct device *dev)
{
	struct e1000 *e = e1000_of_dev(dev);

	pci_dev_post_load(&e->pd);
	timer_del(&e->throttle);
	update_irq(e);
}

static const struct state_field context_state[] = {
	STATE(struct e1000_context, ipcss),
	STATE(struct e1000_context, ipcso),
	STATE(struct e1000_context, tucss),
	STATE(struct e1000_context, tucso),
	STATE(struct e1000_context, tucmd),
	STATE(struct e1000_context, hdrlen),
	STATE(struct e1000_context, ipcse),
	STATE(struct e1000_context, tucse),
	STATE(struct e1000_context, mss),
	STATE(struct e1000_context, paylen),
	STATE_END,
};

static const struct state_field e1000_state[] = {
	STATE_STRUCT(struct e1000, pd, pci_dev_state),
	STATE_ARRAY(struct e1000, reg),
	STATE_ARRAY(struct e1000, phy),
	STATE_ARRAY(struct e1000, eeprom),
	STATE(struct e1000, eeprom_in),
	STATE(struct e1000, eeprom_bits),
	STATE(struct e1000, eeprom_reading),
	STATE(struct e1000, io_addr),
	STATE_STRUCT(struct e1000, plain, context_state),
	STATE_STRUCT(struct e1000, tso, context_state),
	STATE(struct e1000, irq_due),
	STATE_END,
};

static const struct prop e1000_props[] = {
	NIC_PROPS(struct e1000, nic),
	PROP_END,
};

const struct device_class e1000_class = {
	.name = "e1000",
	.help = "Intel Gigabit Ethernet",
	.size = sizeof(struct e1000),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = e1000_props,
	.init = e1000_init,
	.reset = e1000_reset,
	.fini = e1000_fini,
	.state = e1000_state,
	.state_check = e1000_state_check,
	.post_load = e1000_post_load,
	.pause = e1000_pause,
	.resume = e1000_resume,
};
