/* vCPU threads: KVM_RUN and its exits, pause and resume.
 *
 * KVM API, Documentation/virt/kvm/api.rst, sections 4.10 (KVM_RUN) and 5 (exits).
 * A vCPU thread is in KVM_RUN, in a device's handler, or parked.  To stop it, the
 * control thread clears `running`, then sets immediate_exit, then sends the kick
 * signal; the vCPU thread clears immediate_exit, then looks at `running`.  So a
 * kick that arrives before KVM_RUN makes it return at once, one that arrives in it
 * interrupts it, and none is lost in between.
 * Invariant: a parked vCPU has no port or memory access that the guest began and
 * did not finish. */
#include "vmm/core/vcpu.h"

#include "base/io.h"
#include "base/log.h"
#include "vmm/core/cpuid.h"
#include "vmm/core/hyperv.h"
#include "vmm/core/vcpu_int.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>

#define KICK_SIGNAL SIGUSR1
#define MAX_APIC_ID 254 /* 255 is everybody; above, x2APIC routes would be needed */

#define MAX_HYPERV_LEAVES		 32
#define HV_STATUS_INVALID_HYPERCALL_CODE 2

/* --- exits -------------------------------------------------------------------- */

static void handle_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct bus *bus = vcpu->set->machine->pio;
	u8 *data = (u8 *)run + run->io.data_offset;
	unsigned size = run->io.size;

	/* A string instruction comes as many accesses at once. */
	for (u32 i = 0; i < run->io.count; i++, data += size) {
		u64 value = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, data, size);
			bus_write(bus, run->io.port, size, value);
		} else {
			bus_read(bus, run->io.port, size, &value);
			memcpy(data, &value, size);
		}
	}
}

static void handle_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	struct bus *bus = vcpu->set->machine->mmio;
	unsigned size = MIN(run->mmio.len, (u32)sizeof(run->mmio.data));
	u64 value = 0;

	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, size);
		bus_write(bus, run->mmio.phys_addr, size, value);
	} else {
		bus_read(bus, run->mmio.phys_addr, size, &value);
		memcpy(run->mmio.data, &value, size);
	}
}

static void fail(struct vcpu *vcpu, const char *text)
{
	log_error("CPU #%u: %s", vcpu->index, text);
	vcpu_dump(vcpu);
	vcpu->stuck = true;
	vcpu->set->ops->failed(vcpu->set->machine, vcpu, text);
}

static void handle_internal_error(struct vcpu *vcpu)
{
	static const char *const names[] = {
		[KVM_INTERNAL_ERROR_EMULATION] = "emulation failure",
		[KVM_INTERNAL_ERROR_SIMUL_EX] = "simultaneous exceptions",
		[KVM_INTERNAL_ERROR_DELIVERY_EV] = "exit while an event was delivered",
		[KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON] = "unexpected exit reason",
	};
	u32 code = vcpu->run->internal.suberror;
	const char *name = code < ARRAY_LEN(names) ? names[code] : NULL;
	char text[128];

	snprintf(text, sizeof(text), "KVM internal error. Suberror: %u (%s)", code,
		 name ? name : "unknown");
	fail(vcpu, text);
}

static void handle_fail_entry(struct vcpu *vcpu)
{
	u64 reason = vcpu->run->fail_entry.hardware_entry_failure_reason;
	char text[128];

	snprintf(text, sizeof(text), "KVM: entry failed, hardware error 0x%llx",
		 (unsigned long long)reason);
	fail(vcpu, text);
}

static void handle_unknown(struct vcpu *vcpu)
{
	char text[128];

	snprintf(text, sizeof(text), "KVM: unknown exit, hardware reason %u (0x%llx)",
		 vcpu->run->exit_reason, (unsigned long long)vcpu->run->hw.hardware_exit_reason);
	fail(vcpu, text);
}

static void handle_shutdown(struct vcpu *vcpu)
{
	log_guest("CPU #%u: triple fault", vcpu->index);
	vcpu->stuck = true;
	vcpu->set->ops->triple_fault(vcpu->set->machine, vcpu);
}

static void handle_system_event(struct vcpu *vcpu)
{
	struct machine *m = vcpu->set->machine;

	switch (vcpu->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN: machine_request(m, MACHINE_SHUTDOWN, 0); break;
	case KVM_SYSTEM_EVENT_RESET: machine_request(m, MACHINE_RESET, 0); break;
	case KVM_SYSTEM_EVENT_CRASH: machine_request(m, MACHINE_PANIC, 0); break;
	default: handle_unknown(vcpu); return;
	}
}

/* The kernel passes on what it does not do itself: posting messages and signalling events
 * to a virtual bus, of which there is none (TLFS appendix B: invalid hypercall code), and
 * that the guest set up pages for them. */
static void handle_hyperv(struct vcpu *vcpu)
{
	if (vcpu->run->hyperv.type == KVM_EXIT_HYPERV_HCALL)
		vcpu->run->hyperv.u.hcall.result = HV_STATUS_INVALID_HYPERCALL_CODE;
}

static void handle_exit(struct vcpu *vcpu)
{
	__atomic_store_n(&vcpu->exits, vcpu->exits + 1, __ATOMIC_RELAXED);
	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_IO: handle_io(vcpu); break;
	case KVM_EXIT_MMIO: handle_mmio(vcpu); break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_HLT: break; /* the in-kernel LAPIC wakes it */
	case KVM_EXIT_SHUTDOWN: handle_shutdown(vcpu); break;
	case KVM_EXIT_SYSTEM_EVENT: handle_system_event(vcpu); break;
	case KVM_EXIT_HYPERV: handle_hyperv(vcpu); break;
	case KVM_EXIT_INTERNAL_ERROR: handle_internal_error(vcpu); break;
	case KVM_EXIT_FAIL_ENTRY: handle_fail_entry(vcpu); break;
	default: handle_unknown(vcpu); break;
	}
}

/* --- running ------------------------------------------------------------------ */

static void set_immediate_exit(struct vcpu *vcpu, bool on)
{
	/* Partners: see the head of this file; read by the kernel, too. */
	__atomic_store_n(&vcpu->run->immediate_exit, on, __ATOMIC_SEQ_CST);
}

static bool may_run(struct vcpu *vcpu)
{
	return !vcpu->stuck && __atomic_load_n(&vcpu->set->running, __ATOMIC_SEQ_CST);
}

static int run_once(struct vcpu *vcpu)
{
	return sys_ioctl_once(vcpu->fd, KVM_RUN, NULL);
}

/* Let the kernel take in the result of the last access.  An access of several parts
 * (a string instruction, a page crossing) goes on with its next part. */
static void finish_access(struct vcpu *vcpu)
{
	int ret;

	set_immediate_exit(vcpu, true);
	do {
		ret = run_once(vcpu);
		if (ret == 0)
			handle_exit(vcpu);
	} while (ret == 0 && !vcpu->stuck);
}

/* In and out of KVM_RUN until it is to stop. */
static void run(struct vcpu *vcpu)
{
	for (;;) {
		int ret = 0;

		set_immediate_exit(vcpu, false);
		while (may_run(vcpu)) {
			ret = run_once(vcpu);
			if (unlikely(ret < 0))
				break;
			handle_exit(vcpu);
		}
		if (!may_run(vcpu))
			break;
		/* -EINTR: kicked.  -EAGAIN: an AP got its INIT or SIPI. */
		if (ret != -EINTR && ret != -EAGAIN) {
			char text[128];

			snprintf(text, sizeof(text), "KVM_RUN: %s", strerror(-ret));
			fail(vcpu, text);
		}
	}
	if (!vcpu->stuck)
		finish_access(vcpu);
}

/* Wait until it may run; false: to end. */
static bool park(struct vcpu *vcpu)
{
	struct vcpus *v = vcpu->set;

	LOCK_SCOPE(&v->lock);
	v->parked++;
	cond_broadcast(&v->changed);
	while (!v->quitting && !may_run(vcpu))
		cond_wait(&v->changed, &v->lock);
	v->parked--;
	return !v->quitting;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	sigset_t kick;

	sigemptyset(&kick);
	sigaddset(&kick, KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
	vcpu->thread_id = thread_id();
	while (park(vcpu))
		run(vcpu);
	return NULL;
}

static void kick_all(struct vcpus *v)
{
	for (u32 i = 0; i < v->n; i++) {
		set_immediate_exit(&v->vcpus[i], true);
		pthread_kill(v->vcpus[i].thread, KICK_SIGNAL);
	}
}

static void wait_until_parked(struct vcpus *v)
{
	LOCK_SCOPE(&v->lock);
	while (v->parked < v->n)
		cond_wait(&v->changed, &v->lock);
}

/* Threads that gave up get another chance when things go on. */
static void set_running(struct vcpus *v, bool on)
{
	LOCK_SCOPE(&v->lock);
	for (u32 i = 0; on && i < v->n; i++)
		v->vcpus[i].stuck = false;
	__atomic_store_n(&v->running, on, __ATOMIC_SEQ_CST);
	cond_broadcast(&v->changed);
}

bool vcpus_are_paused(const struct vcpus *v)
{
	return !__atomic_load_n(&v->running, __ATOMIC_RELAXED);
}

void vcpus_stop_soon(struct vcpus *v)
{
	bool running;

	mutex_lock(&v->lock);
	running = __atomic_load_n(&v->running, __ATOMIC_SEQ_CST);
	v->stopping = v->stopping || running;
	__atomic_store_n(&v->running, false, __ATOMIC_SEQ_CST);
	mutex_unlock(&v->lock);
	if (running)
		kick_all(v);
}

void vcpus_pause(struct vcpus *v)
{
	bool stopping;

	vcpus_stop_soon(v);
	mutex_lock(&v->lock);
	stopping = v->stopping;
	v->stopping = false;
	mutex_unlock(&v->lock);
	if (!stopping)
		return;
	wait_until_parked(v);
	kvm_clock_stop(v->kvm);
}

void vcpus_resume(struct vcpus *v)
{
	if (!vcpus_are_paused(v))
		return;
	kvm_clock_start(v->kvm);
	/* Tell the guests' watchdogs of the pause; -EINVAL: they do not care. */
	for (u32 i = 0; v->has_kvmclock_ctrl && i < v->n; i++)
		(void)sys_ioctl(v->vcpus[i].fd, KVM_KVMCLOCK_CTRL, NULL);
	set_running(v, true);
}

int vcpus_reset(struct vcpus *v)
{
	int ret = 0;

	assert(vcpus_are_paused(v));
	for (u32 i = 0; ret == 0 && i < v->n; i++)
		ret = vcpu_reset(&v->vcpus[i]);
	return ret;
}

/* --- making ------------------------------------------------------------------- */

static void on_kick(int sig)
{
}

/* The handler does nothing: the signal's work is to interrupt KVM_RUN. */
static void install_kick(void)
{
	struct sigaction action = {.sa_handler = on_kick};

	sigfillset(&action.sa_mask);
	sigaction(KICK_SIGNAL, &action, NULL);
}

static int get_supported_cpuid(struct kvm *kvm, struct kvm_cpuid2 **out, struct error *err)
{
	u32 room = CPUID_MAX_ENTRIES - 32;
	struct kvm_cpuid2 *c =
		xalloc(sizeof(*c) + CPUID_MAX_ENTRIES * sizeof(struct kvm_cpuid_entry2));
	struct kvm_cpuid_entry2 *leaf1;
	int ret;

	c->nent = room;
	ret = sys_ioctl(kvm_fd(kvm), KVM_GET_SUPPORTED_CPUID, c);
	leaf1 = ret < 0 ? NULL : cpuid_find(c, 1, 0);
	if (!leaf1) {
		free(c);
		return err_set_errno(err, ret < 0 ? ret : -ENOSYS, "KVM_GET_SUPPORTED_CPUID");
	}
	/* Announced by a capability of its own, as it needs the in-kernel LAPIC. */
	if (kvm_has_cap(kvm, KVM_CAP_TSC_DEADLINE_TIMER, NULL))
		leaf1->ecx |= 1u << 24;
	*out = c;
	return 0;
}

/* SDM volume 1, 13.2: leaf 0xd says which; without XSAVE there are x87 and SSE. */
static u64 parts_of_xsave(const struct kvm_cpuid2 *supported)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(supported, 0xd, 0);

	return 3 | (e ? (u64)e->edx << 32 | e->eax : 0);
}

/* NULL: there are none, or the kernel (before 5.11) does not say. */
static struct kvm_cpuid2 *get_supported_hyperv(struct kvm *kvm)
{
	struct kvm_cpuid2 *c;

	if (!kvm_has_cap(kvm, KVM_CAP_SYS_HYPERV_CPUID, NULL))
		return NULL;
	c = xalloc(sizeof(*c) + MAX_HYPERV_LEAVES * sizeof(struct kvm_cpuid_entry2));
	c->nent = MAX_HYPERV_LEAVES;
	if (sys_ioctl(kvm_fd(kvm), KVM_GET_SUPPORTED_HV_CPUID, c) == 0)
		return c;
	free(c);
	return NULL;
}

static int check_count(struct kvm *kvm, const struct cpu_options *opt, struct error *err)
{
	int max = 0;
	u32 limit;

	assert(opt->cpus >= 1);
	assert((u64)opt->sockets * opt->cores * opt->threads >= opt->cpus);
	kvm_has_cap(kvm, KVM_CAP_MAX_VCPUS, &max);
	limit = MIN(max > 0 ? (u32)max : 4u, MAX_APIC_ID + 1u);
	/* Those that are absent have IDs, too. */
	if (opt->cpus > limit ||
	    cpu_apic_id(opt, opt->sockets * opt->cores * opt->threads - 1) > MAX_APIC_ID)
		return err_set(err, -EINVAL,
			       "Number of SMP CPUs requested (%u) exceeds what this host and "
			       "machine support (%u)",
			       opt->cpus, limit);
	return 0;
}

static int make_vcpu(struct vcpu *vcpu, const struct cpu_options *opt, struct kvm_cpuid2 *cpuid,
		     struct error *err)
{
	struct vcpus *v = vcpu->set;
	int ret;

	vcpu->apic_id = cpu_apic_id(opt, vcpu->index);
	ret = sys_ioctl(kvm_vm_fd(v->kvm), KVM_CREATE_VCPU, (void *)(uintptr_t)vcpu->apic_id);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot make CPU %u", vcpu->index);
	vcpu->fd = ret;
	vcpu->run =
		mmap(NULL, (size_t)v->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		vcpu->run = NULL;
		return err_set(err, -ENOMEM, "cannot map the run area of CPU %u", vcpu->index);
	}
	cpuid_set_vcpu(cpuid, opt, vcpu->index);
	vcpu->signature = cpuid_find(cpuid, 1, 0)->eax;
	ret = sys_ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid);
	if (ret < 0)
		return err_set_errno(err, ret, "KVM_SET_CPUID2");
	vcpu->synic = hyperv_has(cpuid, HYPERV_SYNIC);
	vcpu->stimer = hyperv_has(cpuid, HYPERV_STIMER);
	if (hyperv_has(cpuid, HYPERV_VPINDEX))
		ret = vcpu_set_up_hyperv(vcpu);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot set up Hyper-V's part of CPU %u",
				     vcpu->index);
	ret = vcpu_note_power_on(vcpu, err);
	if (ret < 0)
		return ret;
	ret = vcpu_reset(vcpu);
	return ret < 0 ? err_set_errno(err, ret, "cannot reset CPU %u", vcpu->index) : 0;
}

static int make_all(struct vcpus *v, const struct cpu_options *opt, struct error *err)
{
	AUTO_FREE struct kvm_cpuid2 *supported = NULL;
	AUTO_FREE struct kvm_cpuid2 *hyperv = get_supported_hyperv(v->kvm);
	AUTO_FREE struct kvm_cpuid2 *cpuid = NULL;
	struct cpu_options full = *opt;
	int ret = get_supported_cpuid(v->kvm, &supported, err);

	full.hyperv = hyperv;
	if (ret == 0)
		ret = cpuid_new(&cpuid, supported, &full, err);
	if (ret < 0)
		return ret;
	v->xstates = parts_of_xsave(supported);
	v->run_bytes = sys_ioctl(kvm_fd(v->kvm), KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (v->run_bytes < (int)sizeof(struct kvm_run))
		return err_set(err, -ENOSYS, "KVM_GET_VCPU_MMAP_SIZE says %d", v->run_bytes);
	for (u32 i = v->n; ret == 0 && i-- > 0;)
		ret = make_vcpu(&v->vcpus[i], opt, cpuid, err);
	if (ret == 0) {
		v->cpuid = cpuid; /* as CPU 0 got it, the last one */
		cpuid = NULL;
	}
	return ret;
}

static int start_threads(struct vcpus *v, struct error *err)
{
	int ret = 0;

	install_kick();
	for (u32 i = 0; ret == 0 && i < v->n; i++) {
		char name[16];

		snprintf(name, sizeof(name), "vcpu-%u", i);
		ret = thread_start(&v->vcpus[i].thread, name, vcpu_thread, &v->vcpus[i], err);
		v->vcpus[i].started = ret == 0;
	}
	if (ret == 0)
		wait_until_parked(v);
	return ret;
}

int vcpus_new(struct vcpus **out, struct kvm *kvm, struct machine *m, const struct cpu_options *opt,
	      const struct vcpu_ops *ops, struct error *err)
{
	struct vcpus *v;
	int ret = check_count(kvm, opt, err);

	if (ret < 0)
		return ret;
	v = xnew(struct vcpus);
	v->kvm = kvm;
	v->machine = m;
	v->ops = ops;
	v->has_xcrs = kvm_has_cap(kvm, KVM_CAP_XCRS, NULL);
	v->has_debugregs = kvm_has_cap(kvm, KVM_CAP_DEBUGREGS, NULL);
	v->has_kvmclock_ctrl = kvm_has_cap(kvm, KVM_CAP_KVMCLOCK_CTRL, NULL);
	v->n = opt->cpus;
	v->vcpus = xnew_n(struct vcpu, v->n);
	mutex_init(&v->lock);
	cond_init(&v->changed);
	for (u32 i = 0; i < v->n; i++) {
		v->vcpus[i].set = v;
		v->vcpus[i].index = i;
		v->vcpus[i].fd = -1;
	}
	ret = make_all(v, opt, err);
	if (ret == 0)
		ret = start_threads(v, err);
	if (ret < 0) {
		vcpus_free(v);
		return ret;
	}
	*out = v;
	return 0;
}

static void end_threads(struct vcpus *v)
{
	mutex_lock(&v->lock);
	v->quitting = true;
	__atomic_store_n(&v->running, false, __ATOMIC_SEQ_CST);
	cond_broadcast(&v->changed);
	mutex_unlock(&v->lock);
	for (u32 i = 0; i < v->n; i++) {
		if (!v->vcpus[i].started)
			continue;
		set_immediate_exit(&v->vcpus[i], true);
		pthread_kill(v->vcpus[i].thread, KICK_SIGNAL);
		pthread_join(v->vcpus[i].thread, NULL);
	}
}

void vcpus_free(struct vcpus *v)
{
	if (!v)
		return;
	end_threads(v);
	for (u32 i = 0; i < v->n; i++) {
		struct vcpu *vcpu = &v->vcpus[i];

		if (vcpu->run)
			munmap(vcpu->run, (size_t)v->run_bytes);
		if (vcpu->fd >= 0)
			sys_close(vcpu->fd);
		free(vcpu->power_on.msrs);
	}
	cond_fini(&v->changed);
	mutex_fini(&v->lock);
	free(v->cpuid);
	free(v->vcpus);
	free(v);
}

const struct kvm_cpuid2 *vcpus_cpuid(const struct vcpus *v)
{
	return v->cpuid;
}

u32 vcpus_count(const struct vcpus *v)
{
	return v->n;
}

struct vcpu *vcpus_get(struct vcpus *v, u32 index)
{
	assert(index < v->n);
	return &v->vcpus[index];
}

u32 vcpu_index(const struct vcpu *vcpu)
{
	return vcpu->index;
}

u32 vcpu_thread_id(const struct vcpu *vcpu)
{
	return vcpu->thread_id;
}

u64 vcpu_exits(const struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->exits, __ATOMIC_RELAXED);
}
