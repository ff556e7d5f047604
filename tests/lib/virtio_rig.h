/* The driver of a virtio device that is served on the main loop, on a fake machine:
 * either interface, several queues, configuration, what comes and goes by the queues. */
#ifndef TESTS_LIB_VIRTIO_RIG_H
#define TESTS_LIB_VIRTIO_RIG_H

#include "devices/virtio/pci.h"
#include "tests/lib/fake_machine.h"
#include "tests/lib/vring_driver.h"

#define RIG_IO	  0xc000u
#define RIG_MEM	  0xe1000000u
#define RIG_RAM	  (4 * MiB)
#define RIG_RINGS 0x10000u
#define RIG_BUFS  0x100000u /* free for buffers up to RIG_RAM */

struct virtio_rig {
	struct fake_machine fm;
	struct loop *loop;
	struct device *bridge, *dev;
	u8 devfn;
	bool legacy;
	unsigned n_queues;
	struct vring_driver rings[VIRTIO_MOST_QUEUES];
};

/* A machine without the device; make it with fake_device(&r->fm, class, r->bridge, ...),
 * then hand it over. */
void vdev_init(struct virtio_rig *r);
void vdev_attach(struct virtio_rig *r, struct device *dev);
void vdev_fini(struct virtio_rig *r);
/* Reset, negotiate exactly these features (VERSION_1 is added), set the queues up, go. */
void vdev_start(struct virtio_rig *r, bool legacy, u64 features, unsigned queues);
u64 vdev_offered(struct virtio_rig *r);
u8 vdev_status(struct virtio_rig *r);
u32 vdev_config(struct virtio_rig *r, u32 off, unsigned size);
void vdev_set_config(struct virtio_rig *r, u32 off, unsigned size, u32 value);
void vdev_kick(struct virtio_rig *r, unsigned queue);
/* The main loop runs for an instant. */
void vdev_turn(struct virtio_rig *r);
/* One buffer into a queue, a kick if the device asked for it, turn. */
void vdev_send(struct virtio_rig *r, unsigned queue, u64 gpa, const void *data, u32 bytes);
void vdev_offer(struct virtio_rig *r, unsigned queue, u64 gpa, u32 bytes);
/* Has the device used one: how much it has written; -1: no. */
s64 vdev_used(struct virtio_rig *r, unsigned queue);
/* Save, reset, load: as a snapshot does. */
void vdev_round_trip(struct virtio_rig *r);

#endif
