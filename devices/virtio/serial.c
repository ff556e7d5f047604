/* virtio-serial: consoles and other streams of bytes between guest and host.
 *
 * virtio 1.2, section 5.3.  Port N has a queue of buffers to receive into and one to send
 * from; a driver that knows of several ports (MULTIPORT) is told of them by messages of
 * the control queues, in the order in which it can understand them: there is a port, it
 * is a console, its name, somebody is at its other end.  What has to be told is kept as
 * bits, not as messages: the driver may take its time, and a snapshot may be taken.
 * Thread: main, with the device's lock; ports and character devices: serial_port.c.
 * Invariant: nothing is in flight between calls. */
#include "devices/virtio/serial_int.h"

#include "base/bytes.h"
#include "base/io.h"

#include <errno.h>

#define VIRTIO_TYPE_CONSOLE 3
#define LEGACY_DEVICE_ID    0x1003
#define PCI_CLASS_OTHER_COM 0x078000
#define QUEUE_SIZE	    128
#define CONFIG_BYTES	    12
#define MESSAGE_BYTES	    8
#define NAME_BYTES	    128
#define BYTES_AT_ONCE	    4096

enum { CONSOLE_F_SIZE, CONSOLE_F_MULTIPORT, CONSOLE_F_EMERG_WRITE };
enum { Q_CONTROL_IN = 2, Q_CONTROL_OUT = 3 };
enum { CONFIG_MAX_PORTS = 4, CONFIG_EMERG_WRITE = 8 };

#define TELL(event) (u8)(1u << (event))

static struct virtio_serial *serial_of(struct virtio_pci *vp)
{
	return container_of(vp, struct virtio_serial, vp);
}

static struct virtio_serial *of_device(struct device *dev)
{
	return container_of(dev, struct virtio_serial, vp.pd.dev);
}

static bool is_multiport(const struct virtio_serial *vs)
{
	return virtio_has(&vs->vp, CONSOLE_F_MULTIPORT);
}

/* --- telling the driver ------------------------------------------------------------------ */

/* Put one message into a buffer of the driver's; false: it has none. */
static bool send_message(struct virtio_serial *vs, unsigned port, enum vser_event event, u16 value)
{
	const char *name = event == VSER_PORT_NAME ? vs->ports[port]->prop_name : "";
	u8 bytes[MESSAGE_BYTES + NAME_BYTES];
	size_t n = MIN(strlen(name), (size_t)NAME_BYTES);
	struct virtq_chain c;

	if (!served_pop_or_ask(&vs->served, Q_CONTROL_IN, &c))
		return false;
	if (c.in_bytes < MESSAGE_BYTES + n) {
		served_refuse(&vs->served, Q_CONTROL_IN, "a buffer is too small for a message");
		return false;
	}
	store_le32(bytes, port);
	store_le16(bytes + 4, (u16)event);
	store_le16(bytes + 6, value);
	memcpy(bytes + MESSAGE_BYTES, name, n);
	virtq_push(&vs->vp.queues[Q_CONTROL_IN].vq, c.head,
		   served_put(&vs->served, &c, bytes, MESSAGE_BYTES + n));
	return true;
}

/* False: not all of it could be said. */
static bool tell_of_port(struct virtio_serial *vs, unsigned port)
{
	static const enum vser_event order[] = {VSER_PORT_ADD, VSER_CONSOLE_PORT, VSER_PORT_NAME};
	struct vser_port *p = vs->ports[port];

	for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
		if (!(vs->to_tell[port] & TELL(order[i])))
			continue;
		if (!send_message(vs, port, order[i], 1))
			return false;
		vs->to_tell[port] &= (u8)~TELL(order[i]);
	}
	if (!vs->ready[port] || vs->told_open[port] == p->connected)
		return true;
	if (!send_message(vs, port, VSER_PORT_OPEN, p->connected))
		return false;
	vs->told_open[port] = p->connected;
	return true;
}

void vser_tell(struct virtio_serial *vs)
{
	bool more = is_multiport(vs) && served_runs(&vs->vp, Q_CONTROL_IN);

	for (unsigned port = 0; more && port < VSER_PORTS; port++)
		if (vs->ports[port])
			more = tell_of_port(vs, port);
	served_flush(&vs->served, Q_CONTROL_IN);
}

/* --- what the driver says ------------------------------------------------------------------ */

static void device_ready(struct virtio_serial *vs, bool ready)
{
	if (!ready) {
		dev_guest_error(&vs->vp.pd.dev, "the driver failed to add the device");
		return;
	}
	for (unsigned port = 0; port < VSER_PORTS; port++)
		if (vs->ports[port])
			vs->to_tell[port] |= TELL(VSER_PORT_ADD);
}

static void port_ready(struct virtio_serial *vs, unsigned port, bool ready)
{
	const struct vser_port *p = vs->ports[port];

	if (!ready) {
		dev_guest_error(&vs->vp.pd.dev, "the driver failed to add port %u", port);
		return;
	}
	vs->ready[port] = true;
	if (vser_is_console(p))
		vs->to_tell[port] |= TELL(VSER_CONSOLE_PORT);
	if (p->prop_name && *p->prop_name)
		vs->to_tell[port] |= TELL(VSER_PORT_NAME);
}

static void take_message(struct virtio_serial *vs, const u8 *bytes)
{
	u32 port = load_le32(bytes);
	u16 event = load_le16(bytes + 4), value = load_le16(bytes + 6);

	if (event == VSER_DEVICE_READY) {
		device_ready(vs, value);
		return;
	}
	if (port >= VSER_PORTS || !vs->ports[port]) {
		dev_guest_error(&vs->vp.pd.dev, "message of port %u, which is not there", port);
		return;
	}
	if (event == VSER_PORT_READY) {
		port_ready(vs, port, value);
	} else if (event == VSER_PORT_OPEN) {
		vs->guest_open[port] = value;
		vser_port_accept(vs->ports[port]);
	}
}

static bool is_too_short(const struct virtq_chain *c)
{
	return c->out_bytes < MESSAGE_BYTES;
}

static void take_messages(struct virtio_serial *vs)
{
	unsigned most = SERVED_BATCH;
	u8 bytes[MESSAGE_BYTES];
	struct virtq_chain c;

	while (most-- && served_pop(&vs->served, Q_CONTROL_OUT, &c)) {
		if (is_too_short(&c)) {
			served_refuse(&vs->served, Q_CONTROL_OUT, "a message is too short");
			return;
		}
		iov_copy_from(c.out.iov, c.out.n, 0, bytes, sizeof(bytes));
		take_message(vs, bytes);
		virtq_push(&vs->vp.queues[Q_CONTROL_OUT].vq, c.head, 0);
	}
}

/* --- bytes ------------------------------------------------------------------------------------ */

/* A request is a piece of a stream: as much of it as the other end is sure to keep. */
#define SEND_AT_MOST (512 * KiB)

static void send_bytes(struct virtio_serial *vs, unsigned port, const struct virtq_chain *c,
		       u64 bytes)
{
	u8 part[BYTES_AT_ONCE];

	for (u64 at = 0, n; vs->ports[port] && at < bytes; at += n) {
		n = iov_copy_from(c->out.iov, c->out.n, at, part,
				  MIN(bytes - at, (u64)sizeof(part)));
		vser_port_send(vs->ports[port], part, n);
	}
}

/* False: the rest waits until the other end has room, without kicks. */
static bool send_all(struct virtio_serial *vs, unsigned queue, unsigned port)
{
	struct virtq *q = &virtio_queue_at(&vs->vp, queue)->vq;
	unsigned most = SERVED_BATCH;
	struct virtq_chain c;

	while (most-- && served_pop(&vs->served, queue, &c)) {
		u64 bytes = MIN(c.out_bytes, (u64)SEND_AT_MOST);

		if (vs->ports[port] && !vser_port_has_room(vs->ports[port], bytes)) {
			virtq_unpop(q, 1);
			return false;
		}
		send_bytes(vs, port, &c, bytes);
		virtq_push(q, c.head, 0);
	}
	return true;
}

void vser_send_more(struct virtio_serial *vs, unsigned port)
{
	if (served_runs(&vs->vp, vser_rx_queue(port) + 1))
		served_again(&vs->served, vser_rx_queue(port) + 1);
}

static bool guest_listens(const struct virtio_serial *vs, unsigned port)
{
	return is_multiport(vs) ? vs->guest_open[port] : port == 0;
}

/* Of the next buffer alone: it is looked at and left where it is. */
u32 vser_rx_room(struct virtio_serial *vs, unsigned port)
{
	unsigned queue = vser_rx_queue(port);
	struct virtq_chain c;

	if (!guest_listens(vs, port) || !served_pop_or_ask(&vs->served, queue, &c))
		return 0;
	if (!c.in_bytes) {
		served_refuse(&vs->served, queue, "a buffer to receive into cannot be written");
		return 0;
	}
	virtq_unpop(&virtio_queue_at(&vs->vp, queue)->vq, 1);
	return (u32)MIN(c.in_bytes, (u64)BYTES_AT_ONCE);
}

void vser_receive(struct virtio_serial *vs, unsigned port, const u8 *data, size_t bytes)
{
	unsigned queue = vser_rx_queue(port);
	struct virtq_chain c;

	while (bytes && served_pop(&vs->served, queue, &c)) {
		u32 n = served_put(&vs->served, &c, data, bytes);

		virtq_push(&virtio_queue_at(&vs->vp, queue)->vq, c.head, n);
		data += n;
		bytes -= n;
	}
	served_flush(&vs->served, queue);
}

/* --- queues -------------------------------------------------------------------------------------
 */

static void serve_port(struct virtio_serial *vs, unsigned queue)
{
	unsigned port = queue < 2 ? 0 : (queue - 2) / 2;

	if (queue % 2) {
		if (!send_all(vs, queue, port))
			served_flush(&vs->served, queue);
		else if (served_idle(&vs->served, queue))
			served_again(&vs->served, queue);
		return;
	}
	(void)served_idle(&vs->served, queue);
	if (vs->ports[port])
		vser_port_accept(vs->ports[port]);
}

static void serve(struct virtio_pci *vp, unsigned queue)
{
	struct virtio_serial *vs = serial_of(vp);

	if (queue != Q_CONTROL_IN && queue != Q_CONTROL_OUT) {
		serve_port(vs, queue);
		return;
	}
	if (queue == Q_CONTROL_OUT)
		take_messages(vs);
	if (served_idle(&vs->served, queue) && queue == Q_CONTROL_OUT)
		served_again(&vs->served, queue);
	vser_tell(vs);
}

static void config_get(struct virtio_pci *vp, u8 *config)
{
	memset(config, 0, CONFIG_BYTES);
	store_le32(config + CONFIG_MAX_PORTS, serial_of(vp)->prop_max_ports);
}

/* Section 5.3.4: a byte to the first console, before there is a driver. */
static void config_set(struct virtio_pci *vp, u32 off, u8 value)
{
	struct virtio_serial *vs = serial_of(vp);

	if (off == CONFIG_EMERG_WRITE && vs->ports[0])
		vser_port_send(vs->ports[0], &value, 1);
}

static void start(struct virtio_pci *vp)
{
	served_start(&serial_of(vp)->served);
}

static void stop(struct virtio_pci *vp)
{
}

static void driver_reset(struct virtio_pci *vp)
{
	struct virtio_serial *vs = serial_of(vp);

	memset(vs->to_tell, 0, sizeof(vs->to_tell));
	memset(vs->ready, 0, sizeof(vs->ready));
	memset(vs->guest_open, 0, sizeof(vs->guest_open));
	memset(vs->told_open, 0, sizeof(vs->told_open));
}

static const struct virtio_ops ops = {.config_get = config_get,
				      .config_set = config_set,
				      .start = start,
				      .reset = driver_reset,
				      .stop = stop};

/* --- ports ---------------------------------------------------------------------------------------
 */

static int choose_number(struct virtio_serial *vs, struct vser_port *p, struct error *err)
{
	u32 nr = p->prop_nr;

	/* Number 0 is that of a console. */
	if (nr == UINT32_MAX)
		for (nr = vser_is_console(p) ? 0 : 1; nr < vs->prop_max_ports && vs->ports[nr];)
			nr++;
	if (nr >= vs->prop_max_ports && p->prop_nr == UINT32_MAX)
		return err_set(err, -ENOSPC,
			       "virtio-serial-bus: Maximum port limit for this device reached");
	if (nr >= vs->prop_max_ports)
		return err_set(
			err, -EINVAL,
			"virtio-serial-bus: Out-of-range port id specified, max. allowed: %u",
			vs->prop_max_ports - 1);
	if (vs->ports[nr])
		return err_set(err, -EBUSY, "virtio-serial-bus: A port already exists at id %u",
			       nr);
	if (!nr && !vser_is_console(p))
		return err_set(err, -EINVAL,
			       "Port number 0 on virtio-serial devices reserved for virtconsole "
			       "devices for backward compatibility.");
	p->prop_nr = nr;
	return 0;
}

int vser_add_port(struct virtio_serial *vs, struct vser_port *p, struct error *err)
{
	int ret;

	LOCK_SCOPE(&vs->vp.pd.dev.lock);
	ret = choose_number(vs, p, err);
	if (ret == 0)
		vs->ports[p->prop_nr] = p;
	return ret;
}

void vser_del_port(struct virtio_serial *vs, struct vser_port *p)
{
	LOCK_SCOPE(&vs->vp.pd.dev.lock);
	vs->ports[p->prop_nr] = NULL;
}

/* --- life
 * ------------------------------------------------------------------------------------------ */

static int serial_init(struct device *dev, struct error *err)
{
	struct virtio_serial *vs = of_device(dev);
	const struct virtio_setup setup = {
		.ops = &ops,
		.type = VIRTIO_TYPE_CONSOLE,
		.legacy_id = LEGACY_DEVICE_ID,
		.class_code = PCI_CLASS_OTHER_COM,
		.features = (u64)1 << CONSOLE_F_MULTIPORT | (u64)1 << CONSOLE_F_EMERG_WRITE,
		.config_bytes = CONFIG_BYTES,
		.n_queues = (u16)(2 * vs->prop_max_ports + 2),
		.queue_size = QUEUE_SIZE,
		.more = vs->more,
	};
	int ret;

	static_assert(VSER_QUEUES <= VIRTIO_MOST_QUEUES, "each port has its queues");
	if (!vs->prop_max_ports || vs->prop_max_ports > VSER_PORTS)
		return err_set(err, -EINVAL, "maximum ports supported: %u", VSER_PORTS);
	ret = virtio_pci_init(&vs->vp, &setup, err);
	if (ret == 0)
		served_init(&vs->served, &vs->vp, serve);
	return ret;
}

static void serial_reset(struct device *dev)
{
	virtio_pci_reset(&of_device(dev)->vp);
}

static void serial_fini(struct device *dev)
{
	struct virtio_serial *vs = of_device(dev);

	served_fini(&vs->served);
	virtio_pci_fini(&vs->vp);
}

static const struct state_field serial_state[] = {
	STATE_STRUCT(struct virtio_serial, vp, virtio_pci_state),
	STATE_STRUCT_ARRAY_OPTIONAL(struct virtio_serial, more, virtio_queue_state),
	STATE_ARRAY_GROWN(struct virtio_serial, to_tell, VSER_PORTS_WAS),
	STATE_ARRAY_GROWN(struct virtio_serial, ready, VSER_PORTS_WAS),
	STATE_ARRAY_GROWN(struct virtio_serial, guest_open, VSER_PORTS_WAS),
	STATE_ARRAY_GROWN(struct virtio_serial, told_open, VSER_PORTS_WAS),
	STATE_END,
};

static int serial_check(const void *loaded, struct error *err)
{
	const struct virtio_serial *vs = loaded;

	int ret = virtio_pci_state_check(&vs->vp, err);

	return ret < 0 ? ret : virtio_queues_check(vs->more, ARRAY_LEN(vs->more), err);
}

/* Names are told only of ports that have one.  A snapshot that has no more than the first
 * queues left the others without a size. */
static void serial_post_load(struct device *dev)
{
	struct virtio_serial *vs = of_device(dev);

	for (unsigned i = 0; i < VSER_PORTS; i++)
		if (vs->ports[i] && !vs->ports[i]->prop_name)
			vs->to_tell[i] &= (u8)~TELL(VSER_PORT_NAME);
	for (unsigned i = 0; i < ARRAY_LEN(vs->more); i++)
		if (!vs->more[i].vq.size && !vs->more[i].vq.enabled)
			virtq_reset(&vs->more[i].vq);
	virtio_pci_post_load(dev);
}

static const struct prop serial_props[] = {
	VIRTIO_PCI_PROPS(struct virtio_serial, vp),
	PROP(struct virtio_serial, prop_max_ports, "max_ports", PROP_KIND_U32, "31",
	     "how many ports there can be, 1 to 31"),
	PROP_END,
};

const struct device_class virtio_serial_class = {
	.name = "virtio-serial-pci",
	.help = "virtio serial ports: virtserialport and virtconsole are put on it",
	.size = sizeof(struct virtio_serial),
	.bus = DEVICE_ON_PCI,
	.user_creatable = true,
	.props = serial_props,
	.init = serial_init,
	.reset = serial_reset,
	.fini = serial_fini,
	.state = serial_state,
	.state_check = serial_check,
	.post_load = serial_post_load,
	.pause = virtio_pci_pause,
	.resume = virtio_pci_resume,
};
