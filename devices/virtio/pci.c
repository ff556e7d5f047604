/* virtio over PCI: life cycle, status, interrupts, doorbells, state; see pci.h.
 *
 * Threads: vCPUs and control with the device's lock; functions marked [any thread]
 * in pci.h without it.  Invariants: T1 queues run only between ops->start and
 * ops->stop, and their fields are the serving thread's then; T2 doorbells exist
 * only while queues run and the BAR is mapped; T3 the serving thread never waits
 * for the device's lock, so ops->stop may wait for it with the lock held. */
#include "devices/virtio/pci_int.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>

#define VIRTIO_VENDOR	   0x1af4
#define VIRTIO_MODERN_BASE 0x1040 /* + device type, section 4.1.2 */
#define ISR_QUEUE	   1
#define ISR_CONFIG	   2

const struct state_field virtio_queue_state[] = {
	STATE_STRUCT(struct virtio_queue, vq, virtq_state),
	STATE_END,
};

const struct state_field virtio_pci_state[] = {
	STATE_STRUCT(struct virtio_pci, pd, pci_dev_state),
	STATE(struct virtio_pci, driver_features),
	STATE(struct virtio_pci, host_feature_sel),
	STATE(struct virtio_pci, driver_feature_sel),
	STATE(struct virtio_pci, status),
	STATE(struct virtio_pci, queue_select),
	STATE(struct virtio_pci, config_vector),
	STATE(struct virtio_pci, generation),
	STATE(struct virtio_pci, broken),
	STATE(struct virtio_pci, live),
	STATE(struct virtio_pci, isr),
	STATE_STRUCT_ARRAY(struct virtio_pci, queues, virtio_queue_state),
	STATE_END,
};

/* Queues that there is room for, in use or not. */
static unsigned rooms_of(const struct virtio_pci *vp)
{
	return vp->more ? VIRTIO_MOST_QUEUES : VIRTIO_MAX_QUEUES;
}

/* --- interrupts ------------------------------------------------------------------ */

/* INTx is high while a bit of the ISR is set.  [any thread] */
static void raise_isr(struct virtio_pci *vp, u8 bits)
{
	LOCK_SCOPE(&vp->isr_lock);

	vp->isr |= bits;
	pci_set_intx(&vp->pd, true);
}

u8 virtio_take_isr(struct virtio_pci *vp)
{
	LOCK_SCOPE(&vp->isr_lock);
	u8 isr = vp->isr;

	vp->isr = 0;
	pci_set_intx(&vp->pd, false);
	return isr;
}

static void interrupt(struct virtio_pci *vp, const u16 *vector_field, u8 isr_bits)
{
	u16 vector = __atomic_load_n(vector_field, __ATOMIC_RELAXED);

	if (!__atomic_load_n(&vp->msix_on, __ATOMIC_RELAXED))
		raise_isr(vp, isr_bits);
	else if (vector != VIRTIO_NO_VECTOR)
		pci_msix_notify(&vp->pd, vector);
}

void virtio_pci_interrupt(struct virtio_pci *vp, unsigned queue)
{
	assert(queue < vp->n_queues);
	interrupt(vp, &virtio_queue_at(vp, queue)->vq.vector, ISR_QUEUE);
}

void virtio_pci_config_changed(struct virtio_pci *vp)
{
	__atomic_fetch_add(&vp->generation, 1, __ATOMIC_RELEASE);
	/* Without a driver nobody would ever lower the line. */
	if (__atomic_load_n(&vp->live, __ATOMIC_RELAXED))
		interrupt(vp, &vp->config_vector, ISR_QUEUE | ISR_CONFIG);
}

void virtio_update_msix(struct virtio_pci *vp)
{
	__atomic_store_n(&vp->msix_on, pci_msix_enabled(&vp->pd), __ATOMIC_RELAXED);
}

static bool is_broken(const struct virtio_pci *vp)
{
	return __atomic_load_n(&vp->broken, __ATOMIC_RELAXED);
}

/* Section 2.1.2: NEEDS_RESET comes with a configuration interrupt. */
static void break_device(struct virtio_pci *vp)
{
	__atomic_store_n(&vp->broken, true, __ATOMIC_RELAXED);
	virtio_pci_config_changed(vp);
}

void virtio_pci_queue_broke(struct virtio_pci *vp, unsigned queue)
{
	log_guest("%s: queue %u: %s", vp->pd.dev.id, queue, virtio_queue_at(vp, queue)->vq.error);
	__atomic_fetch_add(&vp->queue_errors, 1, __ATOMIC_RELAXED);
	break_device(vp);
}

/* --- doorbells ------------------------------------------------------------------- */

static void ring_up(struct bus *bus, struct bus_doorbell *slot, const struct bus_doorbell *bell)
{
	/* Where the host cannot have one more, the register handler rings it. */
	if (bus_doorbell_add(bus, bell) == 0)
		*slot = *bell;
}

static void ring_off(struct bus *bus, struct bus_doorbell *slot)
{
	if (slot->fd >= 0)
		bus_doorbell_del(bus, slot);
	slot->fd = -1;
}

static void add_bells(struct virtio_pci *vp)
{
	const struct machine *m = vp->pd.dev.machine;

	for (unsigned i = 0; i < vp->n_queues; i++) {
		struct virtio_queue *q = virtio_queue_at(vp, i);
		struct bus_doorbell io = {.addr = vp->io_base + LEGACY_NOTIFY,
					  .size = 2,
					  .match = true,
					  .value = i,
					  .fd = q->kick_fd};
		struct bus_doorbell mem = {.addr = vp->mem_base + MODERN_NOTIFY +
						   (u64)i * NOTIFY_MULTIPLIER,
					   .size = 2,
					   .fd = q->kick_fd};

		if (q->vq.running && vp->io_base != UINT64_MAX)
			ring_up(m->pio, &q->io_bell, &io);
		if (q->vq.running && vp->mem_base != UINT64_MAX)
			ring_up(m->mmio, &q->mem_bell, &mem);
	}
}

static void del_bells(struct virtio_pci *vp)
{
	const struct machine *m = vp->pd.dev.machine;

	for (unsigned i = 0; i < vp->n_queues; i++) {
		ring_off(m->pio, &virtio_queue_at(vp, i)->io_bell);
		ring_off(m->mmio, &virtio_queue_at(vp, i)->mem_bell);
	}
}

static void bar_moved(struct pci_dev *pd, unsigned bar, u64 addr)
{
	struct virtio_pci *vp = container_of(pd, struct virtio_pci, pd);

	del_bells(vp);
	if (bar == VIRTIO_BAR_LEGACY)
		vp->io_base = addr;
	if (bar == VIRTIO_BAR_MODERN)
		vp->mem_base = addr;
	if (vp->started)
		add_bells(vp);
}

void virtio_kick(struct virtio_pci *vp, u32 queue)
{
	static const u64 one = 1;

	if (queue >= vp->n_queues) {
		dev_guest_error(&vp->pd.dev, "kick of queue %u of %u", queue, vp->n_queues);
		return;
	}
	/* Drivers of before 1.0 are known to kick before they set DRIVER_OK. */
	if (!vp->live && vp->has_legacy && !virtio_has(vp, VIRTIO_F_VERSION_1) &&
	    virtio_queue_at(vp, queue)->vq.enabled)
		virtio_set_status(vp, vp->status | VIRTIO_S_DRIVER_OK);
	if (virtio_queue_at(vp, queue)->vq.running)
		sys_write(virtio_queue_at(vp, queue)->kick_fd, &one, sizeof(one));
}

/* --- start and stop -------------------------------------------------------------- */

static void start(struct virtio_pci *vp)
{
	bool indirect = virtio_has(vp, VIRTIO_F_INDIRECT_DESC);
	bool event_idx = virtio_has(vp, VIRTIO_F_EVENT_IDX);

	lock_assert(&vp->pd.dev.lock);
	if (vp->started || vp->paused || !vp->live)
		return;
	/* A device that needs a reset does nothing until then. */
	for (unsigned i = 0; i < vp->n_queues && !is_broken(vp); i++) {
		struct virtq *q = &virtio_queue_at(vp, i)->vq;

		if (!q->enabled || virtq_start(q, indirect, event_idx) == 0)
			continue;
		dev_guest_error(&vp->pd.dev, "queue %u: %s", i, q->error);
		break_device(vp);
	}
	vp->started = true;
	vp->ops->start(vp);
	add_bells(vp);
}

static void stop(struct virtio_pci *vp)
{
	lock_assert(&vp->pd.dev.lock);
	if (!vp->started)
		return;
	del_bells(vp);
	vp->ops->stop(vp);
	for (unsigned i = 0; i < vp->n_queues; i++)
		if (virtio_queue_at(vp, i)->vq.running)
			virtq_stop(&virtio_queue_at(vp, i)->vq);
	vp->started = false;
}

void virtio_change_queue(struct virtio_pci *vp, struct virtq *q,
			 void (*fn)(struct virtq *q, u32 value), u32 value)
{
	stop(vp);
	fn(q, value);
	start(vp);
}

/* --- status ---------------------------------------------------------------------- */

u64 virtio_offered(const struct virtio_pci *vp, bool legacy)
{
	u64 modern_only = (u64)1 << VIRTIO_F_VERSION_1;
	u64 legacy_only = (u64)1 << VIRTIO_F_ANY_LAYOUT;

	return vp->host_features & ~(legacy ? modern_only : legacy_only);
}

u8 virtio_get_status(struct virtio_pci *vp)
{
	vp->pd.dev.guest_errors += __atomic_exchange_n(&vp->queue_errors, 0, __ATOMIC_RELAXED);
	return vp->status | (is_broken(vp) ? VIRTIO_S_NEEDS_RESET : 0);
}

/* Section 3.1.1, step 5: a driver that asks for FEATURES_OK and does not see it set
 * knows that we do not agree. */
static bool features_ok(struct virtio_pci *vp)
{
	if (vp->driver_features & ~virtio_offered(vp, false)) {
		dev_guest_error(&vp->pd.dev, "driver wants features 0x%llx that are not there",
				(unsigned long long)(vp->driver_features &
						     ~virtio_offered(vp, false)));
		return false;
	}
	return virtio_has(vp, VIRTIO_F_VERSION_1);
}

void virtio_set_status(struct virtio_pci *vp, u8 value)
{
	value &= (u8)~VIRTIO_S_NEEDS_RESET;
	if (!value) {
		virtio_driver_reset(vp);
		return;
	}
	if (value & ~vp->status & VIRTIO_S_FEATURES_OK && !features_ok(vp))
		value &= (u8)~VIRTIO_S_FEATURES_OK;
	TRACE(TRACE_VIRTIO, "%s: status 0x%02x -> 0x%02x, features 0x%llx", vp->pd.dev.id,
	      vp->status, value, (unsigned long long)vp->driver_features);
	vp->status = value;
	if (value & VIRTIO_S_DRIVER_OK) {
		__atomic_store_n(&vp->live, true, __ATOMIC_RELAXED);
		start(vp);
	}
}

void virtio_driver_reset(struct virtio_pci *vp)
{
	stop(vp);
	vp->driver_features = 0;
	vp->host_feature_sel = vp->driver_feature_sel = 0;
	vp->status = 0;
	vp->queue_select = 0;
	__atomic_store_n(&vp->live, false, __ATOMIC_RELAXED);
	__atomic_store_n(&vp->config_vector, VIRTIO_NO_VECTOR, __ATOMIC_RELAXED);
	__atomic_store_n(&vp->broken, false, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < rooms_of(vp); i++)
		virtq_reset(&virtio_queue_at(vp, i)->vq);
	virtio_take_isr(vp);
	if (vp->ops->reset)
		vp->ops->reset(vp);
}

/* --- life cycle ------------------------------------------------------------------ */

static int choose_interfaces(struct virtio_pci *vp, bool was_before_1_0, struct error *err)
{
	const char *legacy = vp->prop_disable_legacy;
	bool off = legacy && !strcmp(legacy, "on");

	if (legacy && !off && strcmp(legacy, "off") != 0 && strcmp(legacy, "auto") != 0)
		return err_set(err, -EINVAL, "%s: disable-legacy is '%s', expected on, off or auto",
			       vp->pd.dev.id, legacy);
	if (!was_before_1_0 && legacy && !strcmp(legacy, "off"))
		return err_set(err, -EINVAL,
			       "%s: disable-legacy is off, but there is no interface of before 1.0",
			       vp->pd.dev.id);
	off |= !was_before_1_0;
	if (off && vp->prop_disable_modern)
		return err_set(err, -EINVAL,
			       "%s: disable-legacy and disable-modern leave no interface",
			       vp->pd.dev.id);
	vp->has_legacy = !off;
	vp->has_modern = !vp->prop_disable_modern;
	return 0;
}

static int init_queues(struct virtio_pci *vp, const struct virtio_setup *setup, struct error *err)
{
	struct mem *mem = vp->pd.dev.machine->mem;

	vp->n_queues = setup->n_queues;
	vp->more = setup->more;
	assert(vp->n_queues >= 1 && vp->n_queues <= rooms_of(vp));
	for (unsigned i = 0; i < rooms_of(vp); i++) {
		struct virtio_queue *q = virtio_queue_at(vp, i);

		virtq_init(&q->vq, mem, setup->queue_size);
		q->kick_fd = q->io_bell.fd = q->mem_bell.fd = -1;
	}
	for (unsigned i = 0; i < vp->n_queues; i++) {
		int fd = sys_eventfd();

		if (fd < 0)
			return err_set_errno(err, fd, "%s: no eventfd", vp->pd.dev.id);
		virtio_queue_at(vp, i)->kick_fd = fd;
	}
	return 0;
}

static void close_queues(struct virtio_pci *vp)
{
	for (unsigned i = 0; i < vp->n_queues; i++)
		if (virtio_queue_at(vp, i)->kick_fd >= 0)
			sys_close(virtio_queue_at(vp, i)->kick_fd);
}

static int init_function(struct virtio_pci *vp, const struct virtio_setup *setup, struct error *err)
{
	struct pci_ids ids = {
		.vendor = VIRTIO_VENDOR,
		.device = vp->has_legacy ? setup->legacy_id : VIRTIO_MODERN_BASE + setup->type,
		.subsystem_vendor = VIRTIO_VENDOR,
		.subsystem = vp->has_legacy ? setup->type : 0x1100,
		.class_code = setup->class_code,
		.revision = vp->has_legacy ? 0 : 1,
		.interrupt_pin = 1,
	};
	u32 io_bytes = LEGACY_HEADER_BYTES + LEGACY_VECTORS_BYTES + setup->config_bytes;
	int ret = pci_dev_init(&vp->pd, &ids, err);

	if (ret < 0)
		return ret;
	vp->pd.bar_moved = bar_moved;
	vp->pd.config_written = virtio_config_written;
	vp->pd.config_reading = virtio_config_reading;
	if (vp->has_legacy)
		pci_add_bar(&vp->pd, VIRTIO_BAR_LEGACY, PCI_BAR_IO,
			    (u64)1 << (32 - __builtin_clz(io_bytes - 1)), &virtio_legacy_ops, NULL);
	if (vp->has_modern) {
		pci_add_bar(&vp->pd, VIRTIO_BAR_MODERN, PCI_BAR_MEM64, MODERN_BYTES,
			    &virtio_modern_ops, NULL);
		virtio_add_capabilities(vp);
	}
	if (vp->prop_vectors)
		ret = pci_msix_init(&vp->pd, VIRTIO_BAR_MSIX, virtio_vectors(vp), err);
	if (ret < 0)
		pci_dev_fini(&vp->pd);
	return ret;
}

int virtio_pci_init(struct virtio_pci *vp, const struct virtio_setup *setup, struct error *err)
{
	int ret;

	assert(setup->config_bytes <= VIRTIO_CONFIG_BYTES);
	vp->ops = setup->ops;
	vp->config_bytes = setup->config_bytes;
	vp->io_base = vp->mem_base = UINT64_MAX;
	vp->host_features =
		setup->features | (u64)1 << VIRTIO_F_INDIRECT_DESC | (u64)1 << VIRTIO_F_EVENT_IDX;
	mutex_init(&vp->isr_lock);
	ret = choose_interfaces(vp, setup->legacy_id != 0, err);
	if (ret == 0)
		ret = init_queues(vp, setup, err);
	if (ret < 0)
		goto out_queues;
	if (vp->has_legacy)
		vp->host_features |= (u64)1 << VIRTIO_F_ANY_LAYOUT;
	if (vp->has_modern)
		vp->host_features |= (u64)1 << VIRTIO_F_VERSION_1;
	ret = init_function(vp, setup, err);
	if (ret == 0)
		return 0;
out_queues:
	close_queues(vp);
	mutex_fini(&vp->isr_lock);
	return ret;
}

void virtio_pci_fini(struct virtio_pci *vp)
{
	mutex_lock(&vp->pd.dev.lock);
	stop(vp);
	mutex_unlock(&vp->pd.dev.lock);
	pci_dev_fini(&vp->pd);
	close_queues(vp);
	mutex_fini(&vp->isr_lock);
}

void virtio_pci_reset(struct virtio_pci *vp)
{
	virtio_driver_reset(vp);
	__atomic_store_n(&vp->generation, 0, __ATOMIC_RELAXED);
	pci_dev_reset(&vp->pd);
	virtio_update_msix(vp);
}

void virtio_pci_pause(struct device *dev)
{
	struct virtio_pci *vp = container_of(dev, struct virtio_pci, pd.dev);
	LOCK_SCOPE(&dev->lock);

	stop(vp);
	vp->paused = true;
}

void virtio_pci_resume(struct device *dev)
{
	struct virtio_pci *vp = container_of(dev, struct virtio_pci, pd.dev);
	LOCK_SCOPE(&dev->lock);

	vp->paused = false;
	start(vp);
}

/* --- state ----------------------------------------------------------------------- */

static bool is_vector(u16 vector)
{
	return vector == VIRTIO_NO_VECTOR || vector <= PCI_MSIX_MAX_VECTORS;
}

int virtio_queues_check(const struct virtio_queue *loaded, unsigned n, struct error *err)
{
	for (unsigned i = 0; i < n; i++)
		if (!is_vector(loaded[i].vq.vector))
			return err_set(err, -EINVAL, "virtio: a vector is %u, expected 0..%u",
				       loaded[i].vq.vector, PCI_MSIX_MAX_VECTORS);
	return 0;
}

/* Addresses and sizes of queues are the driver's word: virtq_start judges them. */
int virtio_pci_state_check(const struct virtio_pci *loaded, struct error *err)
{
	if (!is_vector(loaded->config_vector))
		return err_set(err, -EINVAL, "virtio: a vector is %u, expected 0..%u",
			       loaded->config_vector, PCI_MSIX_MAX_VECTORS);
	if (loaded->isr & ~(ISR_QUEUE | ISR_CONFIG))
		return err_set(err, -EINVAL, "virtio: isr is 0x%x, expected 0..3", loaded->isr);
	return virtio_queues_check(loaded->queues, VIRTIO_MAX_QUEUES, err);
}

static void limit_vector(struct virtio_pci *vp, u16 *vector)
{
	if (*vector >= virtio_vectors(vp))
		*vector = VIRTIO_NO_VECTOR;
}

/* The device is paused: virtio_pci_resume starts the queues again. */
void virtio_pci_post_load(struct device *dev)
{
	struct virtio_pci *vp = container_of(dev, struct virtio_pci, pd.dev);

	assert(!vp->started);
	pci_dev_post_load(&vp->pd);
	virtio_update_msix(vp);
	limit_vector(vp, &vp->config_vector);
	for (unsigned i = 0; i < vp->n_queues; i++)
		limit_vector(vp, &virtio_queue_at(vp, i)->vq.vector);
	pci_set_intx(&vp->pd, vp->isr != 0);
}
