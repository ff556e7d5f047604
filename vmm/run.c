/* Run states: who may run when, and what a guest's requests lead to.
 *
 * Requests (reset, power off, panic, ...) come from any thread, mostly from a vCPU
 * in a register handler.  They only set a bit and wake the main thread, which acts
 * with the vCPUs parked.  Several requests before that are one each.
 *
 *	prelaunch --cont--> running --stop--> paused --cont--> running
 *	running --S5, -no-shutdown--> shutdown          (only reset leads out)
 *	running --emulation failure--> internal-error   (only reset leads out)
 *	any stopped state --system_reset--> prelaunch */
#include "vmm/unlock.h"
#include "vmm/control_drives.h"
#include "vmm/vm.h"

#include "base/log.h"
#include "block/blk_control.h"
#include "devices/device.h"

#include <errno.h>

static const char *const state_names[RUN_STATES] = {
	[RUN_PRELAUNCH] = "prelaunch",
	[RUN_RUNNING] = "running",
	[RUN_PAUSED] = "paused",
	[RUN_INTERNAL_ERROR] = "internal-error",
	[RUN_IO_ERROR] = "io-error",
	[RUN_SHUTDOWN] = "shutdown",
	[RUN_GUEST_PANICKED] = "guest-panicked",
	[RUN_SUSPENDED] = "suspended",
};

const char *run_state_name(enum run_state s)
{
	assert(s < RUN_STATES);
	return state_names[s];
}

enum run_state vm_state(struct vm *vm)
{
	return vm->state;
}

void vm_watch(struct vm *vm, struct vm_watcher *w)
{
	w->next = vm->watchers;
	vm->watchers = w;
}

void vm_unwatch(struct vm *vm, struct vm_watcher *w)
{
	for (struct vm_watcher **at = &vm->watchers; *at; at = &(*at)->next)
		if (*at == w) {
			*at = w->next;
			return;
		}
}

static void tell(struct vm *vm)
{
	/* A watcher may take itself off the list. */
	for (struct vm_watcher *w = vm->watchers, *next; w; w = next) {
		next = w->next;
		w->changed(w, vm->state);
	}
}

/* --- stopping and starting ------------------------------------------------------ */

/* Queues stop, requests in flight are waited for, new ones are held. */
void vm_hold_devices(struct vm *vm)
{
	if (vm->devices_held)
		return;
	list_for_each (pos, &vm->drives)
		blk_hurry(list_entry(pos, struct drive, link)->blk, true);
	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->cls->pause)
			dev->cls->pause(dev);
	}
	list_for_each (pos, &vm->drives)
		blk_drain_begin(list_entry(pos, struct drive, link)->blk);
	vm->devices_held = true;
}

void vm_release_devices(struct vm *vm)
{
	if (!vm->devices_held)
		return;
	vm->devices_held = false;
	list_for_each (pos, &vm->drives) {
		struct drive *d = list_entry(pos, struct drive, link);

		blk_hurry(d->blk, false);
		blk_drain_end(d->blk);
	}
	list_for_each (pos, &vm->machine.devices) {
		struct device *dev = list_entry(pos, struct device, link);

		if (dev->cls->resume)
			dev->cls->resume(dev);
	}
}

void vm_stop_as(struct vm *vm, enum run_state state)
{
	assert(state != RUN_RUNNING);
	if (vm->state == RUN_RUNNING) {
		vcpus_pause(vm->vcpus);
		vm_hold_devices(vm);
		clock_stop(vm->machine.clock);
	}
	if (vm->state == state)
		return;
	vm->state = state;
	tell(vm);
}

static void go(struct vm *vm)
{
	assert(vm->state != RUN_RUNNING);
	clock_start(vm->machine.clock);
	vm_release_devices(vm);
	vm->state = RUN_RUNNING;
	vcpus_resume(vm->vcpus);
	tell(vm);
}

void vm_freeze(struct vm *vm)
{
	if (vm->state != RUN_RUNNING)
		return;
	vcpus_pause(vm->vcpus);
	vm_hold_devices(vm);
	clock_stop(vm->machine.clock);
}

void vm_thaw(struct vm *vm)
{
	if (vm->state != RUN_RUNNING)
		return;
	clock_start(vm->machine.clock);
	vm_release_devices(vm);
	vcpus_resume(vm->vcpus);
}

int vm_stop(struct vm *vm, struct error *err)
{
	if (vm->state == RUN_RUNNING)
		vm_stop_as(vm, RUN_PAUSED);
	return 0;
}

int vm_cont(struct vm *vm, struct error *err)
{
	int ret = vm->state == RUN_RUNNING ? 0 : vm_check_unlocked(vm, err);

	if (ret == 0)
		ret = vm_load_waiting(vm, NULL, err);
	if (ret < 0)
		return ret;
	if (vm->memory_lost)
		return err_set(err, -EIO,
			       "Guest memory is not whole: a snapshot could not be read. Reset the "
			       "Virtual Machine or load another snapshot");
	switch (vm->state) {
	case RUN_RUNNING: return 0;
	case RUN_SHUTDOWN:
	case RUN_INTERNAL_ERROR:
		return err_set(err, -EBUSY, "Resetting the Virtual Machine is required");
	default: go(vm); return 0;
	}
}

/* --- what requests lead to ------------------------------------------------------- */

void vm_quit(struct vm *vm)
{
	vm->quitting = true;
	loop_stop(vm->loop);
}

static void power_off(struct vm *vm, enum run_state state)
{
	if (vm->config->on_shutdown == END_PAUSE) {
		vm_stop_as(vm, state);
		return;
	}
	vm_stop_as(vm, state);
	vm_quit(vm);
}

static int reset(struct vm *vm)
{
	bool running = vm->state == RUN_RUNNING;
	int ret;

	vm->load_waits = false;
	if (running)
		vm_stop_as(vm, RUN_PAUSED);
	ret = vm_reset_all(vm);
	if (ret < 0) {
		log_error("cannot reset the machine: %s", strerror(-ret));
		vm_stop_as(vm, RUN_INTERNAL_ERROR);
	} else if (running) {
		go(vm);
	} else {
		vm->state = RUN_PRELAUNCH;
		tell(vm);
	}
	return ret;
}

static int reset_or_end(struct vm *vm)
{
	if (vm->config->on_reboot != END_SHUTDOWN)
		return reset(vm);
	power_off(vm, RUN_SHUTDOWN);
	return 0;
}

static void panicked(struct vm *vm)
{
	if (vm->config->on_panic == END_NONE)
		return;
	if (vm->config->on_panic == END_PAUSE)
		vm_stop_as(vm, RUN_GUEST_PANICKED);
	else
		power_off(vm, RUN_GUEST_PANICKED);
}

static void do_wanted(struct loop_call *call)
{
	struct vm *vm = container_of(call, struct vm, wanted_call);
	/* Pairs with the or in want: what was stored before it is seen. */
	u32 wanted = __atomic_exchange_n(&vm->wanted, 0, __ATOMIC_ACQUIRE);

	if (vm->quitting)
		return;
	if (wanted & 1u << MACHINE_EXIT) {
		vm->exit_status = __atomic_load_n(&vm->wanted_status, __ATOMIC_RELAXED);
		vm_stop_as(vm, RUN_SHUTDOWN);
		vm_quit(vm);
	} else if (wanted & WANT_IO_ERROR) {
		vm->memory_lost = true;
		vm_stop_as(vm, RUN_IO_ERROR);
	} else if (wanted & WANT_FAILED) {
		vm_stop_as(vm, RUN_INTERNAL_ERROR);
	} else if (wanted & 1u << MACHINE_PANIC) {
		panicked(vm);
	} else if (wanted & 1u << MACHINE_SHUTDOWN) {
		power_off(vm, RUN_SHUTDOWN);
	} else if (wanted & 1u << MACHINE_RESET) {
		reset_or_end(vm);
	}
	/* The vCPUs are on their way to a stop already. */
	if (wanted & 1u << MACHINE_IO_ERROR && vm->state == RUN_RUNNING)
		vm_stop_as(vm, RUN_IO_ERROR);
}

/* [any thread] */
static void want(struct vm *vm, u32 bit)
{
	if (!__atomic_fetch_or(&vm->wanted, bit, __ATOMIC_ACQ_REL))
		loop_post(vm->loop, &vm->wanted_call);
}

static void request(struct machine *m, enum machine_request what, int code)
{
	struct vm *vm = container_of(m, struct vm, machine);

	if (what == MACHINE_IO_ERROR)
		vcpus_stop_soon(vm->vcpus);
	if (what == MACHINE_EXIT)
		__atomic_store_n(&vm->wanted_status, code, __ATOMIC_RELAXED);
	want(vm, 1u << what);
}

const struct machine_ops vm_machine_ops = {.request = request};

static void triple_fault(struct machine *m, struct vcpu *vcpu)
{
	struct vm *vm = container_of(m, struct vm, machine);

	want(vm, 1u << MACHINE_RESET);
}

static void failed(struct machine *m, struct vcpu *vcpu, const char *text)
{
	struct vm *vm = container_of(m, struct vm, machine);

	want(vm, WANT_FAILED);
}

void vm_lost_memory(struct vm *vm)
{
	vcpus_stop_soon(vm->vcpus);
	want(vm, WANT_IO_ERROR);
}

void vm_another_machine(struct vm *vm)
{
	__atomic_fetch_and(&vm->wanted, 1u << MACHINE_EXIT, __ATOMIC_ACQ_REL);
	vm->memory_lost = false;
}

const struct vcpu_ops vm_vcpu_ops = {.triple_fault = triple_fault, .failed = failed};

void vm_run_init(struct vm *vm)
{
	vm->state = RUN_PRELAUNCH;
	vm->wanted_call.fn = do_wanted;
}

int vm_system_reset(struct vm *vm, struct error *err)
{
	int ret = reset_or_end(vm);

	return ret < 0 ? err_set_errno(err, ret, "cannot reset the machine") : 0;
}
