/* 16550A serial port at I/O ports 0x3f8/0x2f8 (IRQ 4/3), COM1 and COM2.
 * National Semiconductor PC16550D data sheet, section 8.
 *
 * Bytes go to and come from a chardev at once: there is no bit time, so the
 * transmitter is always empty and the character timeout is immediate.  Input is
 * taken only while the receive FIFO has room, so it never overruns by the host. */
#include "base/chardev.h"
#include "base/log.h"
#include "devices/device.h"
#include "devices/serial.h"

#include <errno.h>

#define FIFO_BYTES 16

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR };

#define IER_RDA	 0x01
#define IER_THRE 0x02
#define IER_RLS	 0x04
#define IER_MSI	 0x08

#define IIR_NONE 0x01
#define IIR_MSI	 0x00
#define IIR_THRE 0x02
#define IIR_RDA	 0x04
#define IIR_RLS	 0x06
#define IIR_CTI	 0x0c
#define IIR_FIFO 0xc0

#define FCR_ENABLE   0x01
#define FCR_RX_RESET 0x02
#define FCR_TX_RESET 0x04

#define LCR_DLAB 0x80

#define MCR_DTR	 0x01
#define MCR_RTS	 0x02
#define MCR_OUT1 0x04
#define MCR_OUT2 0x08
#define MCR_LOOP 0x10

#define LSR_DR	 0x01
#define LSR_OE	 0x02
#define LSR_BI	 0x10
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

#define MSR_DCTS 0x01
#define MSR_DDSR 0x02
#define MSR_TERI 0x04
#define MSR_DDCD 0x08
#define MSR_CTS	 0x10
#define MSR_DSR	 0x20
#define MSR_RI	 0x40
#define MSR_DCD	 0x80

struct serial {
	struct device dev;
	u32 iobase, irq;	  /* [const] properties */
	struct chardev *chardev;  /* [const] NULL: nothing connected */
	struct chardev_user user; /* [const] */
	struct bus_region *ports; /* [const] */
	struct irq_line line;	  /* level under [dev.lock] */

	/* [dev.lock] registers */
	u8 ier, lcr, mcr, msr, scr, fcr, lsr;
	u16 divisor;
	bool thre_pending; /* transmitter became empty, not yet told */
	u8 rx[FIFO_BYTES]; /* oldest first */
	u32 rx_used;
	bool peer; /* something is connected: carrier */
};

static unsigned rx_depth(const struct serial *s)
{
	return (s->fcr & FCR_ENABLE) ? FIFO_BYTES : 1;
}

static unsigned rx_room(const struct serial *s)
{
	unsigned depth = rx_depth(s);

	return depth > s->rx_used ? depth - s->rx_used : 0;
}

static unsigned rx_trigger(const struct serial *s)
{
	static const u8 levels[] = {1, 4, 8, 14};

	return (s->fcr & FCR_ENABLE) ? levels[s->fcr >> 6] : 1;
}

/* The interrupt of highest priority, as IIR shows it. */
static u8 serial_cause(const struct serial *s)
{
	if ((s->ier & IER_RLS) && (s->lsr & (LSR_OE | LSR_BI)))
		return IIR_RLS;
	if ((s->ier & IER_RDA) && s->rx_used)
		return s->rx_used >= rx_trigger(s) ? IIR_RDA : IIR_CTI;
	if ((s->ier & IER_THRE) && s->thre_pending)
		return IIR_THRE;
	if ((s->ier & IER_MSI) && (s->msr & 0x0f))
		return IIR_MSI;
	return IIR_NONE;
}

static void serial_update(struct serial *s)
{
	irq_line_set(&s->line, serial_cause(s) != IIR_NONE);
}

static void rx_push(struct serial *s, u8 byte)
{
	if (!rx_room(s)) {
		s->lsr |= LSR_OE;
		return;
	}
	s->rx[s->rx_used++] = byte;
	s->lsr |= LSR_DR;
}

static u8 rx_pop(struct serial *s)
{
	u8 byte = s->rx[0];

	if (!s->rx_used)
		return 0;
	memmove(s->rx, s->rx + 1, --s->rx_used);
	if (!s->rx_used)
		s->lsr &= (u8)~LSR_DR;
	if (!(s->mcr & MCR_LOOP))
		chardev_accept_input(&s->user);
	return byte;
}

static void rx_clear(struct serial *s)
{
	s->rx_used = 0;
	s->lsr &= (u8) ~(LSR_DR | LSR_BI);
	chardev_accept_input(&s->user);
}

/* Modem lines as the other end drives them; in loopback as MCR does. */
static u8 modem_lines(const struct serial *s)
{
	if (!(s->mcr & MCR_LOOP))
		return s->peer ? MSR_CTS | MSR_DSR | MSR_DCD : 0;
	return (u8)((s->mcr & MCR_DTR ? MSR_DSR : 0) | (s->mcr & MCR_RTS ? MSR_CTS : 0) |
		    (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0));
}

static void modem_update(struct serial *s)
{
	u8 lines = modem_lines(s), changed = (u8)((s->msr ^ lines) & 0xf0);

	s->msr = (u8)(lines | (s->msr & 0x0f));
	s->msr |= (u8)((changed & MSR_CTS ? MSR_DCTS : 0) | (changed & MSR_DSR ? MSR_DDSR : 0) |
		       (changed & MSR_DCD ? MSR_DDCD : 0) |
		       ((changed & MSR_RI) && !(lines & MSR_RI) ? MSR_TERI : 0));
}

static void transmit(struct serial *s, u8 byte)
{
	if (s->mcr & MCR_LOOP)
		rx_push(s, byte);
	else if (s->chardev)
		chardev_write(&s->user, &byte, 1);
	s->thre_pending = true;
}

static void fcr_write(struct serial *s, u8 value)
{
	if ((value ^ s->fcr) & FCR_ENABLE)
		value |= FCR_RX_RESET | FCR_TX_RESET;
	s->fcr = value & (FCR_ENABLE | 0xc0);
	if (value & FCR_RX_RESET)
		rx_clear(s);
	if (value & FCR_TX_RESET)
		s->thre_pending = true;
}

static u64 serial_read(void *owner, u64 off, unsigned size)
{
	struct serial *s = owner;
	u8 value = 0xff, cause;

	switch (off) {
	case REG_DATA: value = s->lcr & LCR_DLAB ? s->divisor & 0xff : rx_pop(s); break;
	case REG_IER: value = s->lcr & LCR_DLAB ? (u8)(s->divisor >> 8) : s->ier; break;
	case REG_IIR_FCR:
		cause = serial_cause(s);
		if (cause == IIR_THRE)
			s->thre_pending = false;
		value = cause | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
		break;
	case REG_LCR: value = s->lcr; break;
	case REG_MCR: value = s->mcr; break;
	case REG_LSR:
		value = s->lsr;
		s->lsr &= (u8) ~(LSR_OE | LSR_BI);
		break;
	case REG_MSR:
		value = s->msr;
		s->msr &= 0xf0;
		break;
	case REG_SCR: value = s->scr; break;
	}
	serial_update(s);
	return value;
}

static void ier_write(struct serial *s, u8 value)
{
	/* Enabling THRE while the holding register is empty interrupts at once. */
	if ((value & IER_THRE) && !(s->ier & IER_THRE))
		s->thre_pending = true;
	s->ier = value & 0x0f;
}

static void serial_write(void *owner, u64 off, unsigned size, u64 value64)
{
	struct serial *s = owner;
	u8 value = (u8)value64;

	switch (off) {
	case REG_DATA:
		if (s->lcr & LCR_DLAB)
			s->divisor = (u16)((s->divisor & 0xff00) | value);
		else
			transmit(s, value);
		break;
	case REG_IER:
		if (s->lcr & LCR_DLAB)
			s->divisor = (u16)((s->divisor & 0x00ff) | value << 8);
		else
			ier_write(s, value);
		break;
	case REG_IIR_FCR: fcr_write(s, value); break;
	case REG_LCR: s->lcr = value; break;
	case REG_MCR:
		s->mcr = value & 0x1f;
		modem_update(s);
		chardev_accept_input(&s->user); /* loopback may have ended */
		break;
	case REG_SCR: s->scr = value; break;
	}
	serial_update(s);
}

static const struct bus_ops serial_ops = {
	.read = serial_read, .write = serial_write, .min_size = 1, .max_size = 1};

/* --- chardev side: main loop thread ------------------------------------------- */

static size_t serial_can_receive(struct chardev_user *u)
{
	struct serial *s = container_of(u, struct serial, user);
	LOCK_SCOPE(&s->dev.lock);

	return s->mcr & MCR_LOOP ? 0 : rx_room(s);
}

static void serial_receive(struct chardev_user *u, const u8 *data, size_t bytes)
{
	struct serial *s = container_of(u, struct serial, user);
	LOCK_SCOPE(&s->dev.lock);

	for (size_t i = 0; i < bytes; i++)
		rx_push(s, data[i]);
	serial_update(s);
}

static void serial_event(struct chardev_user *u, enum chardev_event event)
{
	struct serial *s = container_of(u, struct serial, user);
	LOCK_SCOPE(&s->dev.lock);

	if (event == CHARDEV_BREAK) {
		rx_push(s, 0);
		s->lsr |= LSR_BI;
	} else if (event == CHARDEV_OPENED || event == CHARDEV_CLOSED) {
		s->peer = event == CHARDEV_OPENED;
		modem_update(s);
	}
	serial_update(s);
}

/* --- class ---------------------------------------------------------------------- */

static void serial_reset(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	s->ier = s->mcr = s->lcr = s->scr = s->fcr = 0;
	s->divisor = 12; /* 9600 baud: what firmware of old left there */
	s->lsr = LSR_THRE | LSR_TEMT;
	s->thre_pending = false;
	memset(s->rx, 0, sizeof(s->rx));
	s->rx_used = 0;
	s->msr = modem_lines(s);
	serial_update(s);
	chardev_accept_input(&s->user);
}

static int serial_init(struct device *dev, struct error *err)
{
	struct serial *s = container_of(dev, struct serial, dev);
	int ret;

	if (s->iobase > 0xfff8 || s->irq >= 16)
		return err_set(err, -EINVAL, "%s: iobase 0x%x irq %u, expected 0..0xfff8 and 0..15",
			       dev->id, s->iobase, s->irq);
	irq_line_init(&s->line, dev->machine->irq, s->irq);
	ret = dev_map_pio(dev, &s->ports, (u16)s->iobase, 8, &serial_ops, err);
	if (ret < 0)
		return ret;
	s->user.can_receive = serial_can_receive;
	s->user.receive = serial_receive;
	s->user.event = serial_event;
	if (!s->chardev)
		return 0;
	ret = chardev_attach(s->chardev, &s->user, err);
	if (ret < 0)
		bus_unmap(s->ports);
	return ret;
}

static void serial_fini(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	chardev_detach(&s->user);
	irq_line_set(&s->line, false);
	bus_unmap(s->ports);
}

static int serial_state_check(const void *loaded, struct error *err)
{
	const struct serial *s = loaded;

	if (s->rx_used > rx_depth(s))
		return err_set(err, -EINVAL, "serial: rx_used is %u, expected 0..%u", s->rx_used,
			       rx_depth(s));
	return 0;
}

static void serial_post_load(struct device *dev)
{
	struct serial *s = container_of(dev, struct serial, dev);

	serial_update(s);
	chardev_accept_input(&s->user);
}

static const struct state_field serial_state[] = {
	STATE(struct serial, ier),	    STATE(struct serial, lcr),
	STATE(struct serial, mcr),	    STATE(struct serial, msr),
	STATE(struct serial, scr),	    STATE(struct serial, fcr),
	STATE(struct serial, lsr),	    STATE(struct serial, divisor),
	STATE(struct serial, thre_pending), STATE_ARRAY(struct serial, rx),
	STATE(struct serial, rx_used),	    STATE_END,
};

static const struct prop serial_props[] = {
	PROP(struct serial, iobase, "iobase", PROP_KIND_U32, "0x3f8", "first I/O port"),
	PROP(struct serial, irq, "irq", PROP_KIND_U32, "4", "ISA interrupt"),
	PROP(struct serial, chardev, "chardev", PROP_KIND_CHARDEV, NULL, "where bytes go"),
	PROP_END,
};

const struct device_class serial_class = {
	.name = "isa-serial",
	.help = "16550A serial port",
	.size = sizeof(struct serial),
	.bus = DEVICE_ON_ISA,
	.user_creatable = true,
	.props = serial_props,
	.init = serial_init,
	.reset = serial_reset,
	.fini = serial_fini,
	.state = serial_state,
	.state_check = serial_state_check,
	.post_load = serial_post_load,
};
