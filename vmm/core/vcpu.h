/* vCPUs: threads in KVM_RUN, CPUID, pause and resume, registers.
 *
 * A vCPU belongs to its thread while it runs; everybody else pauses first.
 * Threads: vcpu-N each; vcpus_* are called by the control (main) thread. */
#ifndef VMM_CORE_VCPU_H
#define VMM_CORE_VCPU_H

#include "base/base.h"
#include "base/error.h"
#include "vmm/core/machine.h"

#include <linux/kvm.h>

struct kvm;
struct vcpu;
struct vcpus;

/* "host", "max" or a model's name, then ",+flag,-flag,flag=off,model-id=...";
 * sockets * cores * threads == max. */
struct cpu_options {
	const char *model;
	u32 cpus, sockets, cores, threads; /* cpus <= the product of the others */
	/* Filled in by vcpus_new: leaves of Hyper-V that the kernel supports; NULL: none. */
	const struct kvm_cpuid2 *hyperv;
};
/* The (x2)APIC ID of a vCPU: for the ACPI tables. */
u32 cpu_apic_id(const struct cpu_options *opt, u32 index);

/* Why a vCPU gave up; the machine pauses with internal-error or panics. */
struct vcpu_ops {
	/* Triple fault (KVM_EXIT_SHUTDOWN).  The vCPU stays out of KVM_RUN until it
	 * is resumed.  The machine usually asks for a reset.  [vcpu] */
	void (*triple_fault)(struct machine *m, struct vcpu *vcpu);
	/* KVM_EXIT_INTERNAL_ERROR, FAIL_ENTRY, unknown exit; text says what, and has
	 * been logged with registers and code bytes.  It stays out of KVM_RUN, too.  [vcpu] */
	void (*failed)(struct machine *m, struct vcpu *vcpu, const char *text);
};

/* Make the vCPUs, paused, with power-on state and CPUID. */
int vcpus_new(struct vcpus **out, struct kvm *kvm, struct machine *m, const struct cpu_options *opt,
	      const struct vcpu_ops *ops, struct error *err);
/* Stops and joins the threads. */
void vcpus_free(struct vcpus *v);
/* Resume: every vCPU thread enters KVM_RUN.  Pause: returns when all are out of
 * it with no half-done PIO or MMIO, so that state can be read.  Neither from a vCPU
 * thread, nor with a device's lock held.  kvmclock stands still in between. */
void vcpus_resume(struct vcpus *v);
void vcpus_pause(struct vcpus *v);
/* No vCPU enters the guest again, and those in it leave at once; vcpus_pause has to
 * follow.  Does not wait.  [any thread] */
void vcpus_stop_soon(struct vcpus *v);
bool vcpus_are_paused(const struct vcpus *v);
/* Power-on state for all (paused). */
int vcpus_reset(struct vcpus *v);
u32 vcpus_count(const struct vcpus *v);
struct vcpu *vcpus_get(struct vcpus *v, u32 index);

/* Saved state of a vCPU; paused.  Loading is decoding, which changes nothing, then
 * putting in place; the image is the caller's, to free(). */
struct state_buf;
struct vcpu_image;
int vcpu_save(struct vcpu *vcpu, struct state_buf *out, struct error *err);
int vcpu_load_image(struct vcpu *vcpu, struct state_buf *in, struct vcpu_image **out,
		    struct error *err);
int vcpu_load(struct vcpu *vcpu, struct vcpu_image *image, struct error *err);
/* What the guest sees of CPU 0, as the machine was made. */
const struct kvm_cpuid2 *vcpus_cpuid(const struct vcpus *v);

/* Paused only, or from the vCPU's own thread. */
int vcpu_get_regs(struct vcpu *vcpu, struct kvm_regs *regs);
int vcpu_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs);
int vcpu_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs);
int vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs);
int vcpu_get_fpu(struct vcpu *vcpu, struct kvm_fpu *fpu);
int vcpu_get_lapic(struct vcpu *vcpu, struct kvm_lapic_state *lapic);
/* Guest virtual to physical by the vCPU's page tables; -EFAULT. */
int vcpu_translate(struct vcpu *vcpu, u64 gva, u64 *gpa);
int vcpu_nmi(struct vcpu *vcpu); /* paused */
u32 vcpu_index(const struct vcpu *vcpu);
u32 vcpu_thread_id(const struct vcpu *vcpu);
bool vcpu_is_halted(struct vcpu *vcpu);
u64 vcpu_exits(const struct vcpu *vcpu); /* how often it left KVM_RUN [any thread] */
/* Log registers and the code bytes at the instruction pointer. */
void vcpu_dump(struct vcpu *vcpu);

#endif
