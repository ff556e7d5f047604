/* Between the controller (serial.c) and its ports (serial_port.c). */
#ifndef DEVICES_VIRTIO_SERIAL_INT_H
#define DEVICES_VIRTIO_SERIAL_INT_H

#include "base/chardev.h"
#include "devices/virtio/serial.h"
#include "devices/virtio/served.h"

#define VSER_PORTS     31 /* two queues each, and two for control */
#define VSER_PORTS_WAS 7  /* in older snapshots */
#define VSER_QUEUES    (2 * VSER_PORTS + 2)

/* Events of the control queues, virtio 1.2, section 5.3.6.2. */
enum vser_event {
	VSER_DEVICE_READY,
	VSER_PORT_ADD,
	VSER_PORT_REMOVE,
	VSER_PORT_READY,
	VSER_CONSOLE_PORT,
	VSER_RESIZE,
	VSER_PORT_OPEN,
	VSER_PORT_NAME
};

struct vser_port {
	struct device dev;
	struct virtio_serial *vs;
	struct chardev *chardev; /* [const] NULL: nothing connected */
	struct chardev_user user;
	char *prop_name; /* [const] */
	u32 prop_nr;	 /* [const] after init: the port's number */
	bool connected;	 /* [vs.lock] somebody is at the other end */
};

/* What is known of a port to the driver, in arrays by its number: all saved. */
struct virtio_serial {
	struct virtio_pci vp;
	struct virtio_queue more[VIRTIO_MORE_QUEUES];
	struct virtio_served served;
	u32 prop_max_ports;		     /* [const] */
	struct vser_port *ports[VSER_PORTS]; /* [vs.lock] NULL: there is none */
	u8 to_tell[VSER_PORTS];		     /* [dev.lock] bits by event, to be sent yet */
	bool ready[VSER_PORTS];		     /* [dev.lock] the driver has taken it over */
	bool guest_open[VSER_PORTS];	     /* [dev.lock] somebody in the guest reads it */
	bool told_open[VSER_PORTS];	     /* [dev.lock] that our end is connected */
};

static inline bool vser_is_console(const struct vser_port *p)
{
	return p->dev.cls == &virtconsole_class;
}

static inline unsigned vser_rx_queue(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

/* Put a port in its place; sets prop_nr. */
int vser_add_port(struct virtio_serial *vs, struct vser_port *p, struct error *err);
void vser_del_port(struct virtio_serial *vs, struct vser_port *p);
/* How many bytes the guest takes now; give it some.  vs.lock held. */
u32 vser_rx_room(struct virtio_serial *vs, unsigned port);
void vser_receive(struct virtio_serial *vs, unsigned port, const u8 *data, size_t bytes);
/* Tell the driver what it does not know yet, as far as it has buffers.  vs.lock held. */
void vser_tell(struct virtio_serial *vs);
/* The other end takes what the guest sends again.  vs.lock held. */
void vser_send_more(struct virtio_serial *vs, unsigned port);
/* Does it take so many bytes?  A console's always does: what nobody reads is lost. */
bool vser_port_has_room(struct vser_port *p, size_t bytes);
/* Bytes that the guest sends, to the other end. */
void vser_port_send(struct vser_port *p, const void *data, size_t bytes);
void vser_port_accept(struct vser_port *p); /* the guest takes more input */

#endif
