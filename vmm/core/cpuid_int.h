/* Between the files that make up the guest's CPUID. */
#ifndef VMM_CORE_CPUID_INT_H
#define VMM_CORE_CPUID_INT_H

#include "vmm/core/cpu_models.h"
#include "vmm/core/hyperv.h"

#include <linux/kvm.h>

/* -cpu, understood. */
struct cpu_request {
	const struct cpu_model *model; /* NULL: what the host has */
	const char *name;	       /* as given, name_len of it */
	size_t name_len;
	struct cpu_ids ids; /* UINT32_MAX: as the host's */
	char vendor[13];    /* "": the host's */
	char text[49];	    /* "": as it is */
	u32 level, xlevel;  /* UINT32_MAX: not given */
	u32 phys_bits;	    /* 0: not given */
	bool host_phys_bits, kvm, pmu, check, enforce, migratable;
	u32 want[CPUID_WORDS];
	struct hyperv_request hyperv;
};

/* cpuid_options.c.  host: words that it has. */
int cpu_request_parse(struct cpu_request *r, const char *text, const u32 *host, struct error *err);
/* cpuid.c: the entry, made (all zero) if there is none; there is room for all of ours. */
struct kvm_cpuid_entry2 *cpuid_make(struct kvm_cpuid2 *c, u32 function, u32 index, bool indexed);
void cpuid_remove_leaf(struct kvm_cpuid2 *c, u32 function);
bool cpuid_is_amd(const struct kvm_cpuid2 *c);
/* cpuid_model.c, before and after the words of features are in place. */
void cpuid_begin(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host, const struct cpu_request *r);
void cpuid_complete_model(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host,
			  const struct cpu_request *r);

#endif
