/* The driver of a virtio device on a fake machine; see virtio_rig.h. */
#include "tests/lib/virtio_rig.h"

#include "base/thread.h"
#include "devices/i440fx.h"
#include "devices/pci.h"
#include "tests/lib/turns.h"

#include <stdio.h>

#define QUEUE_STRIDE 0x3000u
#define TURN_MS	     5

void vdev_init(struct virtio_rig *r)
{
	struct error err;
	int ret;

	memset(r, 0, sizeof(*r));
	fake_machine_init(&r->fm, RIG_RAM);
	ret = loop_new(&r->loop, "test", LOOP_AUTO, &err);
	assert(ret == 0);
	r->fm.m.loop = r->loop;
	r->fm.m.ram_below_4g = RIG_RAM;
	r->bridge = fake_device(&r->fm, &i440fx_class, NULL, NULL);
}

void vdev_attach(struct virtio_rig *r, struct device *dev)
{
	r->dev = dev;
	r->devfn = ((struct pci_dev *)dev)->devfn;
	pci_write(&r->fm, r->devfn, 0x10, 4, RIG_IO);
	pci_write(&r->fm, r->devfn, 0x20, 4, RIG_MEM);
	pci_write(&r->fm, r->devfn, 0x24, 4, 0);
	pci_write(&r->fm, r->devfn, 0x04, 2, 7);
}

void vdev_fini(struct virtio_rig *r)
{
	fake_machine_fini(&r->fm);
	loop_free(r->loop);
}

/* --- registers -------------------------------------------------------------------------- */

u8 vdev_status(struct virtio_rig *r)
{
	return r->legacy ? inb(&r->fm, RIG_IO + 18) : (u8)mmio_read(&r->fm, RIG_MEM + 20, 1);
}

static void set_status(struct virtio_rig *r, u8 status)
{
	if (r->legacy)
		outb(&r->fm, RIG_IO + 18, status);
	else
		mmio_write(&r->fm, RIG_MEM + 20, 1, status);
}

u64 vdev_offered(struct virtio_rig *r)
{
	u64 low;

	if (r->legacy)
		return inl(&r->fm, RIG_IO);
	mmio_write(&r->fm, RIG_MEM, 4, 0);
	low = mmio_read(&r->fm, RIG_MEM + 4, 4);
	mmio_write(&r->fm, RIG_MEM, 4, 1);
	return mmio_read(&r->fm, RIG_MEM + 4, 4) << 32 | low;
}

u32 vdev_config(struct virtio_rig *r, u32 off, unsigned size)
{
	u64 value = 0;

	if (!r->legacy)
		return (u32)mmio_read(&r->fm, RIG_MEM + 0x2000 + off, size);
	bus_read(r->fm.m.pio, RIG_IO + 20 + off, size, &value);
	return (u32)value;
}

void vdev_set_config(struct virtio_rig *r, u32 off, unsigned size, u32 value)
{
	if (r->legacy)
		bus_write(r->fm.m.pio, RIG_IO + 20 + off, size, value);
	else
		mmio_write(&r->fm, RIG_MEM + 0x2000 + off, size, value);
}

void vdev_kick(struct virtio_rig *r, unsigned queue)
{
	if (r->legacy)
		outw(&r->fm, RIG_IO + 16, (u16)queue);
	else
		mmio_write(&r->fm, RIG_MEM + 0x3000 + 4 * queue, 2, queue);
}

/* --- going ---------------------------------------------------------------------------------- */

static void set_up_queue(struct virtio_rig *r, unsigned q)
{
	struct vring_driver *d = &r->rings[q];
	u64 gpa = RIG_RINGS + q * QUEUE_STRIDE;
	u16 size;

	if (r->legacy) {
		outw(&r->fm, RIG_IO + 14, (u16)q);
		size = inw(&r->fm, RIG_IO + 12);
		vring_init(d, r->fm.m.mem, gpa, size);
		outl(&r->fm, RIG_IO + 8, (u32)(gpa >> 12));
		return;
	}
	mmio_write(&r->fm, RIG_MEM + 22, 2, q);
	size = (u16)mmio_read(&r->fm, RIG_MEM + 24, 2);
	vring_init(d, r->fm.m.mem, gpa, size);
	mmio_write(&r->fm, RIG_MEM + 32, 4, d->desc);
	mmio_write(&r->fm, RIG_MEM + 40, 4, d->avail);
	mmio_write(&r->fm, RIG_MEM + 48, 4, d->used);
	mmio_write(&r->fm, RIG_MEM + 28, 2, 1);
}

static void negotiate(struct virtio_rig *r, u64 features)
{
	if (r->legacy) {
		outl(&r->fm, RIG_IO + 4, (u32)features);
		return;
	}
	mmio_write(&r->fm, RIG_MEM + 8, 4, 0);
	mmio_write(&r->fm, RIG_MEM + 12, 4, (u32)features);
	mmio_write(&r->fm, RIG_MEM + 8, 4, 1);
	mmio_write(&r->fm, RIG_MEM + 12, 4, 1 | features >> 32);
	set_status(r, 11);
	assert(vdev_status(r) == 11);
}

void vdev_start(struct virtio_rig *r, bool legacy, u64 features, unsigned queues)
{
	assert(queues <= VIRTIO_MOST_QUEUES);
	r->legacy = legacy;
	r->n_queues = queues;
	set_status(r, 0);
	set_status(r, 3);
	negotiate(r, features);
	for (unsigned q = 0; q < queues; q++)
		set_up_queue(r, q);
	for (unsigned q = 0; q < queues; q++)
		r->rings[q].event_idx = features >> VIRTIO_F_EVENT_IDX & 1;
	set_status(r, legacy ? 7 : 15);
	vdev_turn(r);
}

void vdev_turn(struct virtio_rig *r)
{
	run_turns(r->loop, TURN_MS);
}

static void add_buffer(struct virtio_rig *r, unsigned queue, const struct vring_buf *buf)
{
	struct vring_driver *d = &r->rings[queue];

	vring_add(d, d->next_avail % d->size, buf, 1);
	if (vring_wants_kick(d, 1))
		vdev_kick(r, queue);
	vdev_turn(r);
}

void vdev_send(struct virtio_rig *r, unsigned queue, u64 gpa, const void *data, u32 bytes)
{
	const struct vring_buf buf = {gpa, bytes, 0};

	memcpy(vring_host(&r->rings[queue], gpa, bytes), data, bytes);
	add_buffer(r, queue, &buf);
}

void vdev_offer(struct virtio_rig *r, unsigned queue, u64 gpa, u32 bytes)
{
	const struct vring_buf buf = {gpa, bytes, VRING_WRITE};

	add_buffer(r, queue, &buf);
}

s64 vdev_used(struct virtio_rig *r, unsigned queue)
{
	u32 head, written;

	return vring_used(&r->rings[queue], &head, &written) ? (s64)written : -1;
}

void vdev_round_trip(struct virtio_rig *r)
{
	struct state_buf saved = {0};
	struct error err;
	int ret;

	r->dev->cls->pause(r->dev);
	fake_save(r->dev, &saved);
	device_reset(r->dev);
	saved.at = 0;
	ret = device_load(r->dev, &saved, &err);
	assert(ret == 0);
	r->dev->cls->resume(r->dev);
	state_buf_fini(&saved);
	vdev_turn(r);
}
