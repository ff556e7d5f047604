/* A port of virtio-serial: a character device's end; see serial.c.
 *
 * virtio 1.2, section 5.3.  A port has no registers and no state of its own: what the
 * driver knows of it is the controller's, under the controller's lock.
 * Thread: main. */
#include "devices/virtio/serial_int.h"

#include <errno.h>

static struct vser_port *of_user(struct chardev_user *u)
{
	return container_of(u, struct vser_port, user);
}

void vser_port_send(struct vser_port *p, const void *data, size_t bytes)
{
	if (p->chardev)
		chardev_write(&p->user, data, bytes);
}

bool vser_port_has_room(struct vser_port *p, size_t bytes)
{
	return vser_is_console(p) || !p->chardev || chardev_has_room(&p->user, bytes);
}

void vser_port_accept(struct vser_port *p)
{
	chardev_accept_input(&p->user);
}

static size_t can_receive(struct chardev_user *u)
{
	struct vser_port *p = of_user(u);

	LOCK_SCOPE(&p->vs->vp.pd.dev.lock);
	return vser_rx_room(p->vs, p->prop_nr);
}

static void receive(struct chardev_user *u, const u8 *data, size_t bytes)
{
	struct vser_port *p = of_user(u);

	LOCK_SCOPE(&p->vs->vp.pd.dev.lock);
	vser_receive(p->vs, p->prop_nr, data, bytes);
}

static void has_room(struct chardev_user *u)
{
	struct vser_port *p = of_user(u);

	LOCK_SCOPE(&p->vs->vp.pd.dev.lock);
	vser_send_more(p->vs, p->prop_nr);
}

static void event(struct chardev_user *u, enum chardev_event what)
{
	struct vser_port *p = of_user(u);

	if (what != CHARDEV_OPENED && what != CHARDEV_CLOSED)
		return;
	LOCK_SCOPE(&p->vs->vp.pd.dev.lock);
	p->connected = what == CHARDEV_OPENED;
	vser_tell(p->vs);
}

static int port_init(struct device *dev, struct error *err)
{
	struct vser_port *p = container_of(dev, struct vser_port, dev);
	int ret;

	if (!dev->parent || dev->parent->cls != &virtio_serial_class)
		return err_set(err, -ENODEV, "No 'virtio-serial-bus' bus found for device '%s'",
			       dev->cls->name);
	p->vs = container_of(dev->parent, struct virtio_serial, vp.pd.dev);
	p->user.can_receive = can_receive;
	p->user.receive = receive;
	p->user.event = event;
	p->user.has_room = has_room;
	ret = vser_add_port(p->vs, p, err);
	if (ret < 0 || !p->chardev)
		return ret;
	ret = chardev_attach(p->chardev, &p->user, err);
	if (ret < 0)
		vser_del_port(p->vs, p);
	return ret;
}

static void port_reset(struct device *dev)
{
}

static void port_fini(struct device *dev)
{
	struct vser_port *p = container_of(dev, struct vser_port, dev);

	chardev_detach(&p->user);
	vser_del_port(p->vs, p);
}

static const struct state_field port_state[] = {STATE_END};

static const struct prop port_props[] = {
	PROP(struct vser_port, chardev, "chardev", PROP_KIND_CHARDEV, NULL, "where bytes go"),
	PROP(struct vser_port, prop_name, "name", PROP_KIND_STR, NULL, "shown to the guest"),
	PROP(struct vser_port, prop_nr, "nr", PROP_KIND_U32, "4294967295",
	     "the port's number, 0 for consoles only; default: the first free one"),
	PROP_END,
};

#define PORT_CLASS(class_name, text)                                                               \
	{                                                                                          \
		.name = (class_name), .help = (text), .size = sizeof(struct vser_port),            \
		.bus = DEVICE_ON_VIRTIO_SERIAL, .user_creatable = true, .props = port_props,       \
		.init = port_init, .reset = port_reset, .fini = port_fini, .state = port_state     \
	}

const struct device_class virtserialport_class =
	PORT_CLASS("virtserialport", "port on a virtio-serial-pci device");
const struct device_class virtconsole_class =
	PORT_CLASS("virtconsole", "console on a virtio-serial-pci device");
