/* KVM's interrupt controllers and timer: making, resetting, GSI routes, irqfd.
 *
 * KVM API, sections 4.24 (irqchip), 4.52 (routing), 4.75 (irqfd), 4.71 (PIT2).
 * The routing table is replaced as a whole: kvm->msi is our copy, and kvm->lock
 * keeps two changes from overwriting each other.  Thread: any. */
#include "vmm/core/kvm_int.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>

/* --- routes ------------------------------------------------------------------- */

/* One pin of an interrupt controller. */
static void add_pin(struct kvm_irq_routing *table, u32 gsi, u32 chip, u32 pin)
{
	table->entries[table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin},
	};
}

/* ISA lines reach PIC and IOAPIC.  The timer's line 0 is on IOAPIC pin 2, as the
 * firmware's tables say (interrupt source override); pin 2 of the PIC is the
 * cascade, so GSI 2 is no line of its own. */
static void add_pins(struct kvm_irq_routing *table)
{
	for (u32 gsi = 0; gsi < 16; gsi++)
		if (gsi != 2)
			add_pin(table, gsi,
				gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
	for (u32 gsi = 0; gsi < IRQ_GSIS; gsi++)
		if (gsi != 2)
			add_pin(table, gsi, KVM_IRQCHIP_IOAPIC, gsi ? gsi : 2);
}

static void add_msi(struct kvm_irq_routing *table, u32 handle, const struct kvm_msi_route *route)
{
	table->entries[table->nr++] = (struct kvm_irq_routing_entry){
		.gsi = IRQ_GSIS + handle,
		.type = KVM_IRQ_ROUTING_MSI,
		.u.msi = {.address_lo = (u32)route->addr,
			  .address_hi = (u32)(route->addr >> 32),
			  .data = route->data},
	};
}

static int apply_routes(struct kvm *kvm)
{
	AUTO_FREE struct kvm_irq_routing *table = NULL;

	lock_assert(&kvm->lock);
	table = xalloc(sizeof(*table) +
		       (3 * IRQ_GSIS + kvm->n_msi) * sizeof(struct kvm_irq_routing_entry));
	add_pins(table);
	for (u32 i = 0; i < kvm->n_msi; i++)
		if (kvm->msi[i].used)
			add_msi(table, i, &kvm->msi[i]);
	return sys_ioctl(kvm->vm_fd, KVM_SET_GSI_ROUTING, table);
}

static int find_free_route(struct kvm *kvm, u32 *handle)
{
	u32 i = 0;

	while (i < kvm->n_msi && kvm->msi[i].used)
		i++;
	/* Pins take up to two entries a GSI. */
	if (i + 3 * IRQ_GSIS >= kvm->max_routes)
		return -ENOSPC;
	if (i == kvm->msi_room) {
		kvm->msi_room = kvm->msi_room * 2 + 16;
		kvm->msi = xrealloc(kvm->msi, kvm->msi_room * sizeof(*kvm->msi));
	}
	if (i == kvm->n_msi)
		kvm->msi[kvm->n_msi++] = (struct kvm_msi_route){0};
	*handle = i;
	return 0;
}

static int set_irqfd(struct kvm *kvm, u32 handle, int fd, bool on)
{
	struct kvm_irqfd irqfd = {
		.fd = (u32)fd,
		.gsi = IRQ_GSIS + handle,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return sys_ioctl(kvm->vm_fd, KVM_IRQFD, &irqfd);
}

static int route_add(void *arg, int fd, u64 addr, u32 data, u32 *handle)
{
	struct kvm *kvm = arg;
	u32 i;
	int ret;

	LOCK_SCOPE(&kvm->lock);
	ret = find_free_route(kvm, &i);
	if (ret < 0)
		return ret;
	kvm->msi[i] = (struct kvm_msi_route){.used = true, .addr = addr, .data = data};
	ret = apply_routes(kvm);
	if (ret == 0)
		ret = set_irqfd(kvm, i, fd, true);
	if (ret < 0) {
		kvm->msi[i].used = false;
		(void)apply_routes(kvm);
		return ret;
	}
	*handle = i;
	return 0;
}

static int route_set(void *arg, u32 handle, u64 addr, u32 data)
{
	struct kvm *kvm = arg;
	struct kvm_msi_route *route;

	LOCK_SCOPE(&kvm->lock);
	assert(handle < kvm->n_msi && kvm->msi[handle].used);
	route = &kvm->msi[handle];
	if (route->addr == addr && route->data == data)
		return 0;
	route->addr = addr;
	route->data = data;
	return apply_routes(kvm);
}

static void route_del(void *arg, u32 handle, int fd)
{
	struct kvm *kvm = arg;

	LOCK_SCOPE(&kvm->lock);
	assert(handle < kvm->n_msi && kvm->msi[handle].used);
	/* The eventfd first: it must never point at a route of somebody else. */
	(void)set_irqfd(kvm, handle, fd, false);
	kvm->msi[handle].used = false;
	(void)apply_routes(kvm);
}

/* --- lines -------------------------------------------------------------------- */

static void set_gsi(void *arg, u32 gsi, bool level)
{
	struct kvm *kvm = arg;
	struct kvm_irq_level line = {.irq = gsi, .level = level};
	int ret = sys_ioctl(kvm->vm_fd, KVM_IRQ_LINE, &line);

	if (ret < 0)
		log_guest("gsi %u: KVM_IRQ_LINE: %s", gsi, strerror(-ret));
}

/* 0 from the kernel means that the guest had it blocked, as on real hardware. */
static void send_msi(void *arg, u64 addr, u32 data)
{
	struct kvm *kvm = arg;
	struct kvm_msi msi = {
		.address_lo = (u32)addr,
		.address_hi = (u32)(addr >> 32),
		.data = data,
	};
	int ret = sys_ioctl(kvm->vm_fd, KVM_SIGNAL_MSI, &msi);

	if (ret < 0)
		log_guest("msi 0x%llx 0x%x: %s", (unsigned long long)addr, data, strerror(-ret));
}

const struct irq_ops kvm_irq_ops = {
	.set_gsi = set_gsi,
	.msi = send_msi,
	.route_add = route_add,
	.route_set = route_set,
	.route_del = route_del,
};

/* --- making and resetting ----------------------------------------------------- */

/* Note the state as made, which is power-on state, for kvm_irqchip_reset. */
static int keep_power_on_state(struct kvm *kvm, struct error *err)
{
	int ret;

	for (u32 i = 0; i < ARRAY_LEN(kvm->chips); i++) {
		kvm->chips[i].chip_id = i;
		ret = sys_ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, &kvm->chips[i]);
		if (ret < 0)
			return err_set_errno(err, ret, "KVM_GET_IRQCHIP");
	}
	ret = sys_ioctl(kvm->vm_fd, KVM_GET_PIT2, &kvm->pit);
	return ret < 0 ? err_set_errno(err, ret, "KVM_GET_PIT2") : 0;
}

int kvm_get_irqchip(struct kvm *kvm, struct kvm_irqchip *chip)
{
	return sys_ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, chip);
}

int kvm_irqchip_init(struct kvm *kvm, struct error *err)
{
	/* Port 0x61 is answered, too (speaker data bit, refresh, channel 2). */
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	int routes, ret;

	kvm_has_cap(kvm, KVM_CAP_IRQ_ROUTING, &routes);
	kvm->max_routes = (u32)routes;
	ret = sys_ioctl(kvm->vm_fd, KVM_CREATE_IRQCHIP, NULL);
	if (ret < 0)
		return err_set_errno(err, ret, "KVM_CREATE_IRQCHIP");
	ret = sys_ioctl(kvm->vm_fd, KVM_CREATE_PIT2, &pit);
	if (ret < 0)
		return err_set_errno(err, ret, "KVM_CREATE_PIT2");
	mutex_lock(&kvm->lock);
	ret = apply_routes(kvm);
	mutex_unlock(&kvm->lock);
	if (ret < 0)
		return err_set_errno(err, ret, "KVM_SET_GSI_ROUTING");
	return keep_power_on_state(kvm, err);
}

int kvm_irqchip_reset(struct kvm *kvm)
{
	int ret = 0;

	for (u32 i = 0; ret == 0 && i < ARRAY_LEN(kvm->chips); i++)
		ret = sys_ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, &kvm->chips[i]);
	if (ret == 0)
		ret = sys_ioctl(kvm->vm_fd, KVM_SET_PIT2, &kvm->pit);
	return ret;
}
