/* A machine from nothing to its first instruction, and back.
 *
 * Memory map of `pc`: RAM below 4 GiB up to 3 GiB, with a hole for VGA at
 * 0xa0000-0xbffff, the rest from 4 GiB on; firmware below 4 GiB.  All RAM is one
 * region, "pc.ram", seen through aliases: offset in it == place in a snapshot. */
#include "devices/device.h"
#include "vmm/screen.h"
#include "vmm/snapshot/snapshot.h"
#include "vmm/blockdev.h"
#include "vmm/control_drives.h"
#include "vmm/unlock.h"
#include "vmm/vm.h"

#include <errno.h>
#include <stdio.h>

#define VGA_HOLE_START	 0xa0000ull
#define VGA_HOLE_END	 0xc0000ull
#define RAM_BELOW_4G_MAX (3 * GiB)
#define PIO_LIMIT	 0x10000ull
#define MMIO_LIMIT	 ((u64)1 << 52)

/* RAM bytes [offset, end) at gpa. */
static int alias_ram(struct vm *vm, const char *name, u64 gpa, u64 offset, u64 end,
		     struct error *err)
{
	struct mem_place place = {.name = name, .gpa = gpa, .bytes = end - offset, .kind = MEM_RAM};
	struct mem_region *region;

	if (offset >= end)
		return 0;
	return mem_add_alias(vm->machine.mem, &region, &place, vm->ram, offset, err);
}

static int add_ram(struct vm *vm, struct error *err)
{
	struct machine *m = &vm->machine;
	const struct config *c = vm->config;
	const struct mem_backing backing = {.path = c->mem_path,
					    .prealloc = c->mem_prealloc,
					    .merge = c->mem_merge,
					    .no_core = c->mem_no_core};
	struct mem_place place = {.name = "pc.ram",
				  .gpa = MEM_UNMAPPED,
				  .bytes = align_up(c->ram_bytes, 4 * KiB),
				  .kind = MEM_RAM};
	int ret;

	m->ram_below_4g = MIN(place.bytes, RAM_BELOW_4G_MAX);
	m->ram_above_4g = place.bytes - m->ram_below_4g;
	if (mem_add_backed(m->mem, &vm->ram, &place, &backing, err) < 0)
		return err_prefix(err, "cannot set up guest memory");
	ret = alias_ram(vm, "ram-below-640k", 0, 0, VGA_HOLE_START, err);
	if (ret == 0)
		ret = alias_ram(vm, "ram-below-4g", VGA_HOLE_END, VGA_HOLE_END, m->ram_below_4g,
				err);
	if (ret == 0)
		ret = alias_ram(vm, "ram-above-4g", 4 * GiB, m->ram_below_4g, place.bytes, err);
	return ret;
}

/* What the devices stand on. */
static int add_core(struct vm *vm, struct error *err)
{
	struct machine *m = &vm->machine;
	int ret = kvm_new(&vm->kvm, err);

	if (ret < 0)
		return ret;
	m->has_kvm = true;
	m->has_smm = kvm_has_smm(vm->kvm);
	ret = mem_new(&m->mem, &kvm_mem_ops, vm->kvm, err);
	if (ret < 0)
		return ret;
	ret = bus_new(&m->pio, "I/O", PIO_LIMIT);
	if (ret == 0)
		ret = bus_new(&m->mmio, "memory", MMIO_LIMIT);
	if (ret == 0)
		ret = irq_new(&m->irq, &kvm_irq_ops, vm->kvm);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot make the machine's buses");
	bus_set_doorbell_ops(m->pio, &kvm_pio_doorbell_ops, vm->kvm);
	bus_set_doorbell_ops(m->mmio, &kvm_mmio_doorbell_ops, vm->kvm);
	return clock_new(&m->clock, vm->loop, err);
}

static struct cpu_options cpu_options_of(const struct config *c)
{
	return (struct cpu_options){
		.model = c->cpu_model ? c->cpu_model : "host",
		.cpus = c->cpus,
		.sockets = c->sockets,
		.cores = c->cores,
		.threads = c->threads,
	};
}

static u32 *apic_ids_new(const struct config *c)
{
	const struct cpu_options options = cpu_options_of(c);
	u32 *ids = xnew_n(u32, c->max_cpus);

	for (u32 i = 0; i < c->max_cpus; i++)
		ids[i] = cpu_apic_id(&options, i);
	return ids;
}

static int add_cpus(struct vm *vm, struct error *err)
{
	const struct cpu_options options = cpu_options_of(vm->config);

	return vcpus_new(&vm->vcpus, vm->kvm, &vm->machine, &options, &vm_vcpu_ops, err);
}

static int build(struct vm *vm, struct error *err)
{
	int ret = add_core(vm, err);

	if (ret == 0)
		ret = add_ram(vm, err);
	if (ret == 0)
		ret = vm_open_drives(vm, err);
	if (ret == 0)
		ret = vm_open_streams(vm, err);
	if (ret == 0)
		ret = vm_open_netdevs(vm, err);
	if (ret == 0)
		ret = vm_add_board(vm, err);
	if (ret == 0)
		ret = vm_add_nics(vm, err);
	if (ret == 0)
		ret = vm_attach_drives(vm, err);
	if (ret == 0)
		ret = vm_add_user_devices(vm, err);
	if (ret == 0)
		ret = vm_add_screen(vm, err);
	if (ret == 0)
		ret = add_cpus(vm, err);
	if (ret == 0)
		ret = vm_load_firmware(vm, err);
	if (ret == 0)
		vm_warn_of_nets(vm);
	return ret;
}

int vm_new(struct vm **out, const struct config *config, struct loop *loop, struct error *err)
{
	struct vm *vm = xnew(struct vm);
	int ret;

	vm->config = config;
	vm->loop = loop;
	vm->machine.ops = &vm_machine_ops;
	vm->machine.loop = loop;
	vm->machine.cpus = config->cpus;
	vm->machine.max_cpus = config->max_cpus;
	vm->machine.apic_ids = apic_ids_new(config);
	vm->machine.a20 = true;
	list_init(&vm->machine.devices);
	list_init(&vm->drives);
	list_init(&vm->streams);
	list_init(&vm->consoles);
	vm_run_init(vm);
	ret = build(vm, err);
	if (ret < 0) {
		vm_free(vm);
		return ret;
	}
	*out = vm;
	return 0;
}

static void free_devices(struct vm *vm)
{
	/* Last made, first gone: what sits on a bridge goes before it. */
	while (!list_empty(&vm->machine.devices))
		device_free(list_entry(vm->machine.devices.prev, struct device, link));
}

void vm_free(struct vm *vm)
{
	struct machine *m = &vm->machine;

	if (vm->state == RUN_RUNNING)
		vm_stop_as(vm, RUN_SHUTDOWN);
	vm_release_devices(vm);
	/* The vCPUs end before what their handlers reach. */
	if (vm->vcpus)
		vcpus_free(vm->vcpus);
	vm_close_monitors(vm);
	vm_free_snapshots(vm);
	vm_end_block_wait(vm);
	vm_end_unlocking(vm);
	vm_end_overlaying(vm);
	vm_free_screen(vm);
	free_devices(vm);
	vm_close_nets(vm);
	vm_close_drives(vm);
	vm_close_streams(vm);
	vm_free_firmware(vm);
	clock_free(m->clock);
	irq_free(m->irq);
	bus_free(m->mmio);
	bus_free(m->pio);
	if (m->mem)
		mem_detach(m->mem);
	kvm_free(vm->kvm);
	mem_free(m->mem);
	free(m->apic_ids);
	free(vm);
}

int vm_reset_all(struct vm *vm)
{
	int ret;

	/* Devices lower their lines before the interrupt chips start anew. */
	list_for_each (pos, &vm->machine.devices)
		device_reset(list_entry(pos, struct device, link));
	ret = kvm_irqchip_reset(vm->kvm);
	if (ret < 0)
		return ret;
	vm->memory_lost = false;
	vm_reset_firmware(vm);
	return vcpus_reset(vm->vcpus);
}

/* Monitors say it when somebody is there; whoever started us may have none. */
static void say_locked(struct vm *vm)
{
	list_for_each (pos, &vm->config->monitors)
		if (!strcmp(list_entry(pos, struct frontend_config, link)->spec, "stdio"))
			return;
	vm_print_locked(vm, NULL);
}

int vm_start(struct vm *vm, struct error *err)
{
	AUTO_FREE char *locked = NULL;
	int ret = vm_reset_all(vm);

	if (ret < 0)
		return err_set_errno(err, ret, "cannot reset the machine");
	ret = vm_add_monitors(vm, err);
	if (ret < 0)
		return ret;
	vm->load_waits = vm->config->loadvm;
	locked = vm_locked_image(vm, NULL);
	if (locked) {
		say_locked(vm);
		return 0;
	}
	ret = vm_load_waiting(vm, NULL, err);
	return ret < 0 || vm->config->start_stopped ? ret : vm_cont(vm, err);
}

int vm_exit_status(const struct vm *vm)
{
	return vm->exit_status;
}
