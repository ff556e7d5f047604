/* virtio over PCI: the register layouts.  virtio 1.2, section 4.1.4 (capabilities,
 * common configuration, notification, ISR) and 4.1.4.10 (legacy interface).
 *
 * Called by the bus and by PCI configuration accesses, device's lock held.  Reads
 * build an image of the whole structure and cut out what is asked for, so that
 * every width at every offset is answered; writes must hit a register's start. */
#include "devices/virtio/pci_int.h"

#include "base/bytes.h"

enum {
	CAP_VENDOR = 0x09,
	CAP_BYTES = 16,
	CAP_COMMON = 1,
	CAP_NOTIFY = 2,
	CAP_ISR = 3,
	CAP_DEVICE = 4,
	CAP_PCI = 5,
};

/* Common configuration. */
enum {
	COMMON_HOST_FEATURE_SEL = 0,
	COMMON_HOST_FEATURE = 4,
	COMMON_DRIVER_FEATURE_SEL = 8,
	COMMON_DRIVER_FEATURE = 12,
	COMMON_CONFIG_VECTOR = 16,
	COMMON_QUEUES = 18,
	COMMON_STATUS = 20,
	COMMON_GENERATION = 21,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_VECTOR = 26,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY_OFF = 30,
	COMMON_QUEUE_DESC = 32,
	COMMON_QUEUE_AVAIL = 40,
	COMMON_QUEUE_USED = 48,
};

/* Legacy header. */
enum {
	LEGACY_HOST_FEATURES = 0,
	LEGACY_DRIVER_FEATURES = 4,
	LEGACY_QUEUE_PAGE = 8,
	LEGACY_QUEUE_SIZE = 12,
	LEGACY_QUEUE_SELECT = 14,
	LEGACY_STATUS = 18,
	LEGACY_ISR = 19,
	LEGACY_CONFIG_VECTOR = 20,
	LEGACY_QUEUE_VECTOR = 22,
};

static u64 cut(const u8 *image, u64 off, unsigned size, u64 image_bytes)
{
	u8 raw[8] = {0};

	for (unsigned i = 0; i < size; i++)
		raw[i] = off + i < image_bytes ? image[off + i] : 0;
	return load_le64(raw);
}

static struct virtio_pci *vp_of(void *owner)
{
	struct device *dev = owner;

	return container_of(dev, struct virtio_pci, pd.dev);
}

static struct virtq *selected(struct virtio_pci *vp)
{
	return vp->queue_select < vp->n_queues ? &virtio_queue_at(vp, vp->queue_select)->vq : NULL;
}

static u16 load_vector(const u16 *field)
{
	return __atomic_load_n(field, __ATOMIC_RELAXED);
}

/* A vector that there is not reads back as "none": section 4.1.5.1.2.1. */
static void store_vector(struct virtio_pci *vp, u16 *field, u16 vector)
{
	if (vector >= virtio_vectors(vp))
		vector = VIRTIO_NO_VECTOR;
	__atomic_store_n(field, vector, __ATOMIC_RELAXED);
}

/* --- the device's configuration ---------------------------------------------------- */

static u64 config_read(struct virtio_pci *vp, u64 off, unsigned size)
{
	u8 image[VIRTIO_CONFIG_BYTES] = {0};

	vp->ops->config_get(vp, image);
	return cut(image, off, size, vp->config_bytes);
}

static void config_write(struct virtio_pci *vp, u64 off, unsigned size, u64 value)
{
	for (unsigned i = 0; i < size; i++)
		if (vp->ops->config_set && off + i < vp->config_bytes)
			vp->ops->config_set(vp, (u32)(off + i), (u8)(value >> 8 * i));
}

/* --- legacy I/O BAR ---------------------------------------------------------------- */

static u32 legacy_header_bytes(const struct virtio_pci *vp)
{
	return LEGACY_HEADER_BYTES + (pci_msix_enabled(&vp->pd) ? LEGACY_VECTORS_BYTES : 0);
}

static void legacy_image(struct virtio_pci *vp, u8 *image)
{
	const struct virtq *q = selected(vp);

	store_le32(image + LEGACY_HOST_FEATURES, (u32)virtio_offered(vp, true));
	store_le32(image + LEGACY_DRIVER_FEATURES, (u32)vp->driver_features);
	store_le32(image + LEGACY_QUEUE_PAGE, q && q->enabled ? (u32)(q->desc >> 12) : 0);
	store_le16(image + LEGACY_QUEUE_SIZE, q ? q->max_size : 0);
	store_le16(image + LEGACY_QUEUE_SELECT, vp->queue_select);
	image[LEGACY_STATUS] = virtio_get_status(vp);
	store_le16(image + LEGACY_CONFIG_VECTOR, load_vector(&vp->config_vector));
	store_le16(image + LEGACY_QUEUE_VECTOR, q ? load_vector(&q->vector) : VIRTIO_NO_VECTOR);
}

static u64 legacy_read(void *owner, u64 off, unsigned size)
{
	struct virtio_pci *vp = vp_of(owner);
	u8 image[LEGACY_HEADER_BYTES + LEGACY_VECTORS_BYTES] = {0};
	u32 header = legacy_header_bytes(vp);

	if (off >= header)
		return config_read(vp, off - header, size);
	legacy_image(vp, image);
	if (off <= LEGACY_ISR && off + size > LEGACY_ISR)
		image[LEGACY_ISR] = virtio_take_isr(vp);
	return cut(image, off, size, header);
}

static void set_legacy_page(struct virtq *q, u32 page)
{
	if (!page) {
		virtq_reset(q);
		return;
	}
	q->size = q->max_size;
	virtq_set_legacy_page(q, page);
	q->enabled = true;
}

static void legacy_write_header(struct virtio_pci *vp, u64 off, u64 value)
{
	struct virtq *q = selected(vp);

	switch (off) {
	case LEGACY_DRIVER_FEATURES:
		if (vp->live)
			dev_guest_error(&vp->pd.dev, "features written while running");
		else
			vp->driver_features = value & virtio_offered(vp, true);
		break;
	case LEGACY_QUEUE_PAGE:
		if (q)
			virtio_change_queue(vp, q, set_legacy_page, (u32)value);
		break;
	case LEGACY_QUEUE_SELECT: vp->queue_select = (u16)value; break;
	case LEGACY_NOTIFY: virtio_kick(vp, (u16)value); break;
	case LEGACY_STATUS: virtio_set_status(vp, (u8)value); break;
	case LEGACY_CONFIG_VECTOR: store_vector(vp, &vp->config_vector, (u16)value); break;
	case LEGACY_QUEUE_VECTOR:
		if (q)
			store_vector(vp, &q->vector, (u16)value);
		break;
	default: dev_guest_error(&vp->pd.dev, "write to legacy register 0x%x", (unsigned)off);
	}
}

static void legacy_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct virtio_pci *vp = vp_of(owner);
	u32 header = legacy_header_bytes(vp);

	if (off >= header)
		config_write(vp, off - header, size, value);
	else
		legacy_write_header(vp, off, value);
}

const struct bus_ops virtio_legacy_ops = {.read = legacy_read, .write = legacy_write};

/* --- modern: common configuration -------------------------------------------------- */

static u32 half(u64 features, u32 select)
{
	return select < 2 ? (u32)(features >> 32 * select) : 0;
}

static void common_image(struct virtio_pci *vp, u8 *image)
{
	const struct virtq *q = selected(vp);

	store_le32(image + COMMON_HOST_FEATURE_SEL, vp->host_feature_sel);
	store_le32(image + COMMON_HOST_FEATURE,
		   half(virtio_offered(vp, false), vp->host_feature_sel));
	store_le32(image + COMMON_DRIVER_FEATURE_SEL, vp->driver_feature_sel);
	store_le32(image + COMMON_DRIVER_FEATURE,
		   half(vp->driver_features, vp->driver_feature_sel));
	store_le16(image + COMMON_CONFIG_VECTOR, load_vector(&vp->config_vector));
	store_le16(image + COMMON_QUEUES, vp->n_queues);
	image[COMMON_STATUS] = virtio_get_status(vp);
	image[COMMON_GENERATION] = __atomic_load_n(&vp->generation, __ATOMIC_ACQUIRE);
	store_le16(image + COMMON_QUEUE_SELECT, vp->queue_select);
	store_le16(image + COMMON_QUEUE_VECTOR, VIRTIO_NO_VECTOR);
	if (!q)
		return;
	store_le16(image + COMMON_QUEUE_SIZE, q->size);
	store_le16(image + COMMON_QUEUE_VECTOR, load_vector(&q->vector));
	store_le16(image + COMMON_QUEUE_ENABLE, q->enabled);
	store_le16(image + COMMON_QUEUE_NOTIFY_OFF, vp->queue_select);
	store_le64(image + COMMON_QUEUE_DESC, q->desc);
	store_le64(image + COMMON_QUEUE_AVAIL, q->avail);
	store_le64(image + COMMON_QUEUE_USED, q->used);
}

static void write_features(struct virtio_pci *vp, u64 value)
{
	unsigned shift = 32 * vp->driver_feature_sel;

	if (vp->status & VIRTIO_S_FEATURES_OK) {
		dev_guest_error(&vp->pd.dev, "features written after FEATURES_OK");
		return;
	}
	if (vp->driver_feature_sel < 2)
		vp->driver_features =
			(vp->driver_features & ~((u64)UINT32_MAX << shift)) | value << shift;
}

static void set_enable(struct virtq *q, u32 value)
{
	q->enabled = value == 1;
}

static void set_half(u64 *field, u64 off, u64 value)
{
	unsigned shift = off & 4 ? 32 : 0;

	*field = (*field & ~((u64)UINT32_MAX << shift)) | value << shift;
}

/* Registers of the selected queue.  What is written while it is enabled is an error
 * of the driver, section 4.1.4.3.2, but for the vector. */
static void write_queue(struct virtio_pci *vp, u64 off, u64 value)
{
	struct virtq *q = selected(vp);

	if (q && off == COMMON_QUEUE_VECTOR) {
		store_vector(vp, &q->vector, (u16)value);
		return;
	}
	if (!q || q->enabled) {
		dev_guest_error(&vp->pd.dev, "write to register 0x%x of queue %u, which is %s",
				(unsigned)off, vp->queue_select, q ? "enabled" : "not there");
		return;
	}
	switch (off) {
	case COMMON_QUEUE_SIZE: q->size = (u16)value; break;
	case COMMON_QUEUE_ENABLE:
		if (value == 1)
			virtio_change_queue(vp, q, set_enable, 1);
		break;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4: set_half(&q->desc, off, value); break;
	case COMMON_QUEUE_AVAIL:
	case COMMON_QUEUE_AVAIL + 4: set_half(&q->avail, off, value); break;
	case COMMON_QUEUE_USED:
	case COMMON_QUEUE_USED + 4: set_half(&q->used, off, value); break;
	default: break; /* read-only or between registers */
	}
}

static void common_write(struct virtio_pci *vp, u64 off, u64 value)
{
	switch (off) {
	case COMMON_HOST_FEATURE_SEL: vp->host_feature_sel = (u32)value; break;
	case COMMON_DRIVER_FEATURE_SEL: vp->driver_feature_sel = (u32)value; break;
	case COMMON_DRIVER_FEATURE: write_features(vp, (u32)value); break;
	case COMMON_CONFIG_VECTOR: store_vector(vp, &vp->config_vector, (u16)value); break;
	case COMMON_STATUS: virtio_set_status(vp, (u8)value); break;
	case COMMON_QUEUE_SELECT: vp->queue_select = (u16)value; break;
	default:
		if (off >= COMMON_QUEUE_SIZE)
			write_queue(vp, off, value);
	}
}

/* --- modern: the whole BAR ----------------------------------------------------------- */

static u64 modern_read(void *owner, u64 off, unsigned size)
{
	struct virtio_pci *vp = vp_of(owner);
	u8 image[MODERN_COMMON_BYTES] = {0};
	u64 in_page = off % MODERN_PAGE;

	switch (off - in_page) {
	case MODERN_COMMON:
		common_image(vp, image);
		return cut(image, in_page, size, sizeof(image));
	case MODERN_ISR: return in_page ? 0 : virtio_take_isr(vp);
	case MODERN_CONFIG: return config_read(vp, in_page, size);
	default: return 0;
	}
}

static void modern_write(void *owner, u64 off, unsigned size, u64 value)
{
	struct virtio_pci *vp = vp_of(owner);
	u64 in_page = off % MODERN_PAGE;

	switch (off - in_page) {
	case MODERN_COMMON:
		if (in_page < MODERN_COMMON_BYTES)
			common_write(vp, in_page, value);
		break;
	case MODERN_CONFIG: config_write(vp, in_page, size, value); break;
	case MODERN_NOTIFY: virtio_kick(vp, (u32)(in_page / NOTIFY_MULTIPLIER)); break;
	default: break;
	}
}

const struct bus_ops virtio_modern_ops = {.read = modern_read, .write = modern_write};

/* --- PCI configuration space ---------------------------------------------------------- */

static u8 add_capability(struct virtio_pci *vp, u8 type, u32 off, u32 bytes, u8 extra)
{
	u8 cap_bytes = (u8)(CAP_BYTES + extra);
	u8 at = pci_add_capability(&vp->pd, CAP_VENDOR, cap_bytes);
	u8 *cap = vp->pd.config + at;

	cap[2] = cap_bytes;
	cap[3] = type;
	cap[4] = VIRTIO_BAR_MODERN;
	store_le32(cap + 8, off);
	store_le32(cap + 12, bytes);
	return at;
}

void virtio_add_capabilities(struct virtio_pci *vp)
{
	u32 notify_bytes = vp->n_queues * NOTIFY_MULTIPLIER;
	u8 at;

	add_capability(vp, CAP_COMMON, MODERN_COMMON, MODERN_COMMON_BYTES, 0);
	add_capability(vp, CAP_ISR, MODERN_ISR, 1, 0);
	if (vp->config_bytes) /* Linux refuses a device with an empty one */
		add_capability(vp, CAP_DEVICE, MODERN_CONFIG, vp->config_bytes, 0);
	at = add_capability(vp, CAP_NOTIFY, MODERN_NOTIFY, notify_bytes, 4);
	store_le32(vp->pd.config + at + CAP_BYTES, NOTIFY_MULTIPLIER);
	/* Section 4.1.4.9: a window to the BAR for who cannot reach it, such as
	 * firmware in real mode. */
	vp->cfg_cap = add_capability(vp, CAP_PCI, 0, 0, 4);
	vp->pd.write_mask[vp->cfg_cap + 4] = 0xff;
	memset(vp->pd.write_mask + vp->cfg_cap + 8, 0xff, 12);
}

/* Does an access touch the window's data, and is the window set up sensibly? */
static bool window(struct virtio_pci *vp, u8 off, unsigned size, u32 *bar_off, u32 *bytes)
{
	const u8 *cap = vp->pd.config + vp->cfg_cap;
	unsigned data = vp->cfg_cap + CAP_BYTES;

	if (!vp->cfg_cap || off < data || off + size > data + 4)
		return false;
	*bar_off = load_le32(cap + 8);
	*bytes = load_le32(cap + 12);
	return cap[4] == VIRTIO_BAR_MODERN && (*bytes == 1 || *bytes == 2 || *bytes == 4) &&
	       *bar_off <= MODERN_BYTES - *bytes && is_aligned(*bar_off, *bytes);
}

void virtio_config_written(struct pci_dev *pd, u8 off, unsigned size)
{
	struct virtio_pci *vp = container_of(pd, struct virtio_pci, pd);
	u32 bar_off, bytes;

	virtio_update_msix(vp);
	if (window(vp, off, size, &bar_off, &bytes))
		modern_write(vp, bar_off, bytes,
			     cut(pd->config + vp->cfg_cap + CAP_BYTES, 0, bytes, bytes));
}

void virtio_config_reading(struct pci_dev *pd, u8 off, unsigned size)
{
	struct virtio_pci *vp = container_of(pd, struct virtio_pci, pd);
	u32 bar_off, bytes;

	if (window(vp, off, size, &bar_off, &bytes))
		store_le32(pd->config + vp->cfg_cap + CAP_BYTES,
			   (u32)modern_read(vp, bar_off, bytes));
}
