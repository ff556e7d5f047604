/* /dev/kvm: opening, capabilities, memory slots, doorbells, kvmclock.
 *
 * KVM API, Documentation/virt/kvm/api.rst, sections 4 and 8.
 * Threads: set-up and clock on the control thread; slots under mem's lock and
 * doorbells under their bus's lock, on any thread. */
#include "vmm/core/kvm.h"

#include "base/io.h"
#include "base/log.h"
#include "vmm/core/kvm_int.h"

#include <errno.h>
#include <fcntl.h>

/* --- opening ------------------------------------------------------------------ */

static const char *open_hint(int error)
{
	switch (error) {
	case -ENOENT:
	case -ENXIO:
	case -ENODEV:
		return "; is virtualisation switched on in the firmware, and the module kvm_intel "
		       "or kvm_amd loaded?";
	case -EACCES:
	case -EPERM: return "; is this user in the group kvm?";
	case -EBUSY: return "; does another hypervisor have the processor?";
	case -ENOMEM: return "; the host is short of memory";
	default: return "";
	}
}

static int open_error(struct error *err, int code)
{
	return err_set(err, code, "Could not access KVM kernel module: %s%s", strerror(-code),
		       open_hint(code));
}

bool kvm_has_cap(struct kvm *kvm, int cap, int *value)
{
	/* Asked of the VM where there is one: some answers depend on it. */
	int fd = kvm->vm_fd >= 0 ? kvm->vm_fd : kvm->dev_fd;
	int ret = sys_ioctl(fd, KVM_CHECK_EXTENSION, (void *)(uintptr_t)cap);

	if (value)
		*value = MAX(ret, 0);
	return ret > 0;
}

bool kvm_has_smm(struct kvm *kvm)
{
	return kvm_has_cap(kvm, KVM_CAP_X86_SMM, NULL);
}

static int check_caps(struct kvm *kvm, struct error *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{KVM_CAP_USER_MEMORY, "memory slots"},
		{KVM_CAP_SET_TSS_ADDR, "a task state address"},
		{KVM_CAP_EXT_CPUID, "CPUID"},
		{KVM_CAP_IRQCHIP, "an interrupt controller"},
		{KVM_CAP_PIT2, "a timer"},
		{KVM_CAP_MP_STATE, "states of processors"},
		{KVM_CAP_IRQ_ROUTING, "interrupt routes"},
		{KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"},
		{KVM_CAP_IRQFD, "interrupts by eventfd"},
		{KVM_CAP_IOEVENTFD, "doorbells by eventfd"},
		{KVM_CAP_IMMEDIATE_EXIT, "immediate exits (Linux 4.13)"},
	};

	for (unsigned i = 0; i < ARRAY_LEN(needed); i++)
		if (!kvm_has_cap(kvm, needed[i].cap, NULL))
			return err_set(err, -ENOSYS, "the host's KVM does not have %s",
				       needed[i].name);
	return 0;
}

/* The log is read, and cleared when we say so: KVM API, 7.16. */
static void want_clearing(struct kvm *kvm)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				     .args[0] = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE};

	kvm->clears_log = kvm_has_cap(kvm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, NULL) &&
			  sys_ioctl(kvm->vm_fd, KVM_ENABLE_CAP, &cap) == 0;
}

static int create_vm(struct kvm *kvm, struct error *err)
{
	u64 identity = KVM_RESERVED_GPA;
	int version = sys_ioctl(kvm->dev_fd, KVM_GET_API_VERSION, NULL);
	int ret;

	if (version < 0) /* some other device */
		return open_error(err, version);
	if (version != KVM_API_VERSION)
		return err_set(err, -ENOSYS, "kernel KVM API is version %d, expected %d", version,
			       KVM_API_VERSION);
	ret = sys_ioctl(kvm->dev_fd, KVM_CREATE_VM, NULL);
	if (ret < 0)
		return open_error(err, ret);
	kvm->vm_fd = ret;
	ret = check_caps(kvm, err);
	if (ret < 0)
		return ret;
	kvm->has_readonly = kvm_has_cap(kvm, KVM_CAP_READONLY_MEM, NULL);
	want_clearing(kvm);
	/* Both lie where nothing of the guest can be; see KVM_RESERVED_GPA. */
	if (kvm_has_cap(kvm, KVM_CAP_SET_IDENTITY_MAP_ADDR, NULL)) {
		ret = sys_ioctl(kvm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity);
		if (ret < 0)
			return err_set_errno(err, ret, "KVM_SET_IDENTITY_MAP_ADDR");
	}
	ret = sys_ioctl(kvm->vm_fd, KVM_SET_TSS_ADDR, (void *)(uintptr_t)(identity + 0x1000));
	if (ret < 0)
		return err_set_errno(err, ret, "KVM_SET_TSS_ADDR");
	if (kvm_has_cap(kvm, KVM_CAP_SET_BOOT_CPU_ID, NULL))
		(void)sys_ioctl(kvm->vm_fd, KVM_SET_BOOT_CPU_ID, NULL); /* 0, the default */
	return kvm_irqchip_init(kvm, err);
}

int kvm_new_at(struct kvm **out, const char *path, struct error *err)
{
	struct kvm *kvm = xnew(struct kvm);
	int ret;

	mutex_init(&kvm->lock);
	kvm->vm_fd = -1;
	kvm->dev_fd = sys_open(path, O_RDWR, 0);
	ret = kvm->dev_fd < 0 ? open_error(err, kvm->dev_fd) : create_vm(kvm, err);
	if (ret < 0) {
		kvm_free(kvm);
		return ret;
	}
	*out = kvm;
	return 0;
}

int kvm_new(struct kvm **out, struct error *err)
{
	return kvm_new_at(out, "/dev/kvm", err);
}

void kvm_free(struct kvm *kvm)
{
	if (!kvm)
		return;
	if (kvm->vm_fd >= 0)
		sys_close(kvm->vm_fd);
	if (kvm->dev_fd >= 0)
		sys_close(kvm->dev_fd);
	mutex_fini(&kvm->lock);
	free(kvm->msi);
	free(kvm);
}

int kvm_fd(const struct kvm *kvm)
{
	return kvm->dev_fd;
}

int kvm_vm_fd(const struct kvm *kvm)
{
	return kvm->vm_fd;
}

/* --- memory slots ------------------------------------------------------------- */

static int set_slot(void *arg, const struct mem_slot *slot)
{
	struct kvm *kvm = arg;
	struct kvm_userspace_memory_region region = {
		.slot = slot->id,
		.guest_phys_addr = slot->gpa,
		.memory_size = slot->bytes,
		.userspace_addr = (u64)(uintptr_t)slot->host,
	};

	if (slot->log_dirty)
		region.flags |= KVM_MEM_LOG_DIRTY_PAGES;
	/* Without it the guest could write its ROM: better than not to start. */
	if (slot->kind == MEM_ROM && kvm->has_readonly)
		region.flags |= KVM_MEM_READONLY;
	TRACE(TRACE_KVM, "slot %u: 0x%llx + 0x%llx flags %u", region.slot,
	      (unsigned long long)region.guest_phys_addr, (unsigned long long)region.memory_size,
	      region.flags);
	return sys_ioctl(kvm->vm_fd, KVM_SET_USER_MEMORY_REGION, &region);
}

/* Those bits, and no others: what is written meanwhile shows up the next time. */
static int clear_dirty(struct kvm *kvm, const struct mem_slot *slot, u64 *bitmap)
{
	u64 pages = slot->bytes / 4096, first = 0, end = DIV_ROUND_UP(pages, 64);
	struct kvm_clear_dirty_log log = {.slot = slot->id};

	while (end > 0 && !bitmap[end - 1])
		end--;
	if (end == 0)
		return 0;
	while (!bitmap[first])
		first++;
	log.first_page = first * 64;
	log.num_pages = (u32)(MIN(end * 64, pages) - log.first_page);
	log.dirty_bitmap = bitmap + first;
	return sys_ioctl(kvm->vm_fd, KVM_CLEAR_DIRTY_LOG, &log);
}

static int get_dirty(void *arg, const struct mem_slot *slot, u64 *bitmap, bool clear)
{
	struct kvm *kvm = arg;
	struct kvm_dirty_log log = {.slot = slot->id, .dirty_bitmap = bitmap};
	int ret = sys_ioctl(kvm->vm_fd, KVM_GET_DIRTY_LOG, &log);

	return ret < 0 || !clear || !kvm->clears_log ? ret : clear_dirty(kvm, slot, bitmap);
}

const struct mem_ops kvm_mem_ops = {.set_slot = set_slot, .get_dirty = get_dirty};

/* --- doorbells ---------------------------------------------------------------- */

static int set_doorbell(struct kvm *kvm, const struct bus_doorbell *bell, u32 flags, bool on)
{
	struct kvm_ioeventfd e = {
		.datamatch = bell->value,
		.addr = bell->addr,
		.len = bell->size,
		.fd = bell->fd,
		.flags = flags,
	};

	if (bell->match)
		e.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
	if (!on)
		e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return sys_ioctl(kvm->vm_fd, KVM_IOEVENTFD, &e);
}

static int set_pio_doorbell(void *arg, const struct bus_doorbell *bell, bool on)
{
	return set_doorbell(arg, bell, KVM_IOEVENTFD_FLAG_PIO, on);
}

static int set_mmio_doorbell(void *arg, const struct bus_doorbell *bell, bool on)
{
	return set_doorbell(arg, bell, 0, on);
}

const struct bus_doorbell_ops kvm_pio_doorbell_ops = {.set = set_pio_doorbell};
const struct bus_doorbell_ops kvm_mmio_doorbell_ops = {.set = set_mmio_doorbell};

/* --- kvmclock ----------------------------------------------------------------- */

void kvm_clock_stop(struct kvm *kvm)
{
	struct kvm_clock_data data = {0};

	assert(!kvm->clock_stopped);
	if (sys_ioctl(kvm->vm_fd, KVM_GET_CLOCK, &data) < 0)
		return; /* then it just runs on */
	kvm->clock_ns = data.clock;
	kvm->clock_stopped = true;
}

void kvm_clock_start(struct kvm *kvm)
{
	struct kvm_clock_data data = {.clock = kvm->clock_ns};

	if (kvm->clock_stopped && sys_ioctl(kvm->vm_fd, KVM_SET_CLOCK, &data) < 0)
		log_warn("cannot set the guest's kvmclock: it jumps ahead by the pause");
	kvm->clock_stopped = false;
}
