/* What the monitor may do with a machine: time, memory, ports; see control.h.
 *
 * Reading a vCPU or memory in one piece means holding the vCPUs for an instant:
 * that is no change of the run state, and nobody is told. */
#include "devices/piix4pm.h"
#include "vmm/vm.h"

#include <errno.h>

#define PAGE_BYTES 4096

struct loop *vm_loop(struct vm *vm)
{
	return vm->loop;
}

const char *vm_name(struct vm *vm)
{
	return vm->config->name ? vm->config->name : "";
}

u32 vm_cpus(struct vm *vm)
{
	return vcpus_count(vm->vcpus);
}

void vm_hold_cpus(struct vm *vm)
{
	if (vm->state == RUN_RUNNING)
		vcpus_pause(vm->vcpus);
}

void vm_let_cpus_go(struct vm *vm)
{
	if (vm->state == RUN_RUNNING)
		vcpus_resume(vm->vcpus);
}

static int check_cpu(struct vm *vm, u32 cpu, struct error *err)
{
	if (cpu >= vcpus_count(vm->vcpus))
		return err_set(err, -ENOENT, "CPU#%u not available", cpu);
	return 0;
}

int vm_nmi(struct vm *vm, u32 cpu, struct error *err)
{
	int ret = check_cpu(vm, cpu, err);

	if (ret < 0)
		return ret;
	vm_hold_cpus(vm);
	ret = vcpu_nmi(vcpus_get(vm->vcpus, cpu));
	vm_let_cpus_go(vm);
	return ret < 0 ? err_set_errno(err, ret, "CPU#%u: cannot send NMI", cpu) : 0;
}

int vm_system_powerdown(struct vm *vm, struct error *err)
{
	piix4pm_power_button(vm->pm);
	return 0;
}

/* --- memory and ports ------------------------------------------------------------ */

/* Registers and windows of devices (the text screen at B8000), a byte at a time. */
static int read_mmio(struct vm *vm, u64 gpa, u8 *buf, size_t bytes)
{
	u64 value;

	for (size_t i = 0; i < bytes; i++) {
		if (!bus_read(vm->machine.mmio, gpa + i, 1, &value))
			return -EFAULT;
		buf[i] = (u8)value;
	}
	return 0;
}

int vm_read_physical(struct vm *vm, u64 gpa, void *buf, size_t bytes, struct error *err)
{
	int ret;

	vm_hold_cpus(vm);
	ret = mem_read(vm->machine.mem, gpa, buf, bytes);
	if (ret < 0)
		ret = read_mmio(vm, gpa, buf, bytes);
	vm_let_cpus_go(vm);
	return ret < 0 ? err_set(err, ret, "Cannot access memory") : 0;
}

int vm_translate(struct vm *vm, u32 cpu, u64 gva, u64 *gpa, struct error *err)
{
	int ret = check_cpu(vm, cpu, err);

	if (ret < 0)
		return ret;
	vm_hold_cpus(vm);
	ret = vcpu_translate(vcpus_get(vm->vcpus, cpu), gva, gpa);
	vm_let_cpus_go(vm);
	return ret < 0 ? err_set(err, ret, "Unmapped") : 0;
}

/* vCPUs are held. */
static int read_pages(struct vm *vm, u32 cpu, u64 gva, void *buf, size_t bytes)
{
	u64 gpa;
	int ret;

	while (bytes) {
		size_t part = MIN(bytes, (size_t)(PAGE_BYTES - gva % PAGE_BYTES));

		ret = vcpu_translate(vcpus_get(vm->vcpus, cpu), gva, &gpa);
		if (ret == 0)
			ret = mem_read(vm->machine.mem, gpa, buf, part);
		if (ret < 0)
			return ret;
		gva += part;
		buf = (char *)buf + part;
		bytes -= part;
	}
	return 0;
}

int vm_read_virtual(struct vm *vm, u32 cpu, u64 gva, void *buf, size_t bytes, struct error *err)
{
	int ret = check_cpu(vm, cpu, err);

	if (ret < 0)
		return ret;
	vm_hold_cpus(vm);
	ret = read_pages(vm, cpu, gva, buf, bytes);
	vm_let_cpus_go(vm);
	return ret < 0 ? err_set(err, ret, "Cannot access memory") : 0;
}

/* Ports whose devices live in the kernel read as all ones. */
int vm_port_read(struct vm *vm, u16 port, unsigned size, u32 *value, struct error *err)
{
	u64 wide;

	if (size != 1 && size != 2 && size != 4)
		return err_set(err, -EINVAL, "port access of %u bytes, expected 1, 2 or 4", size);
	bus_read(vm->machine.pio, port, size, &wide);
	*value = (u32)wide;
	return 0;
}

int vm_port_write(struct vm *vm, u16 port, unsigned size, u32 value, struct error *err)
{
	if (size != 1 && size != 2 && size != 4)
		return err_set(err, -EINVAL, "port access of %u bytes, expected 1, 2 or 4", size);
	bus_write(vm->machine.pio, port, size, value);
	return 0;
}

/* --- what does not change -------------------------------------------------------- */

void vm_info_status(struct vm *vm, struct printer *p)
{
	bool plain = vm->state == RUN_RUNNING || vm->state == RUN_PAUSED;

	print_to(p, "VM status: %s", vm->state == RUN_RUNNING ? "running" : "paused");
	print_to(p, plain ? "\n" : " (%s)\n", run_state_name(vm->state));
}

void vm_info_name(struct vm *vm, struct printer *p)
{
	if (vm->config->name)
		print_to(p, "%s\n", vm->config->name);
}

void vm_info_uuid(struct vm *vm, struct printer *p)
{
	const u8 *u = vm->config->uuid;

	for (unsigned i = 0; i < 16; i++)
		print_to(p, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
	print_to(p, "\n");
}

void vm_info_kvm(struct vm *vm, struct printer *p)
{
	print_to(p, "kvm support: enabled\n");
}
