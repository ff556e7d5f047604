/* What the vcpu*.c files share. */
#ifndef VMM_CORE_VCPU_INT_H
#define VMM_CORE_VCPU_INT_H

#include "base/thread.h"
#include "vmm/core/kvm.h"
#include "vmm/core/vcpu.h"

/* Power-on values of what has no fixed ones: as the kernel made them. */
struct power_on {
	struct kvm_lapic_state lapic;
	struct kvm_msrs *msrs; /* all that can be read */
};

struct vcpu {
	struct vcpus *set;   /* [const] */
	u32 index, apic_id;  /* [const] */
	int fd;		     /* [const] */
	struct kvm_run *run; /* [const] pointer; contents [vcpu] but immediate_exit */
	pthread_t thread;    /* [const] */
	bool started;	     /* [const] */
	bool synic, stimer;  /* [const] parts of Hyper-V that it has */
	u32 thread_id;	     /* [const] once vcpus_new has returned */
	u32 signature;	     /* [const] CPUID leaf 1, EAX: EDX at reset */
	bool stuck;	     /* [vcpu]; cleared by vcpus_resume under set->lock while parked */
	u64 exits;	     /* [atomic] written by its thread only */
	struct power_on power_on;
};

struct vcpus {
	struct kvm *kvm;		       /* [const] */
	struct machine *machine;	       /* [const] */
	const struct vcpu_ops *ops;	       /* [const] */
	bool has_xcrs;			       /* [const] */
	bool has_debugregs, has_kvmclock_ctrl; /* [const] */
	struct kvm_cpuid2 *cpuid;	       /* [const] of CPU 0 */
	u64 xstates;			       /* [const] parts of extended state, as in XCR0 */
	int run_bytes;			       /* [const] size of a struct kvm_run mapping */
	u32 n;				       /* [const] */
	struct vcpu *vcpus;		       /* [const] */
	struct mutex lock;
	struct cond changed;
	u32 parked;    /* [lock] threads that wait in park() */
	bool running;  /* [atomic] written under lock, read by vCPU threads */
	bool stopping; /* [lock] told to stop; vcpus_pause has not waited for it yet */
	bool quitting; /* [lock] */
};

/* Note the power-on values of a fresh vCPU. */
int vcpu_note_power_on(struct vcpu *vcpu, struct error *err);
/* Its number, and the synthetic interrupt controller if it has one. */
int vcpu_set_up_hyperv(struct vcpu *vcpu);
/* KVM_SET_MSRS: how many of the n were set; the next one was refused.  -errno. */
int vcpu_set_msrs(struct vcpu *vcpu, const struct kvm_msr_entry *entries, u32 n);
/* Architectural power-on state; paused. */
int vcpu_reset(struct vcpu *vcpu);

#endif
