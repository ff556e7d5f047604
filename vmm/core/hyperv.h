/* Hyper-V as a guest sees it: leaves of CPUID, and what they ask of a vCPU. */
#ifndef VMM_CORE_HYPERV_H
#define VMM_CORE_HYPERV_H

#include "base/base.h"
#include "base/error.h"

struct kvm_cpuid2;

/* Leaves, TLFS 2.4. */
enum hyperv_leaf {
	HV_VENDOR = 0x40000000,
	HV_INTERFACE = 0x40000001,
	HV_VERSION = 0x40000002,
	HV_FEATURES = 0x40000003,
	HV_ADVICE = 0x40000004,
	HV_LIMITS = 0x40000005,
};

/* What -cpu hv-... says; all zero: nothing. */
struct hyperv_request {
	u32 features;
	u32 spinlocks; /* 0: not given */
	char vendor[13];
	bool passthrough, no_core_sharing, auto_core_sharing;
};

/* One setting, its name without "hv-"; value ends in 0.  -ENOENT without a message:
 * there is no such setting. */
int hyperv_set(struct hyperv_request *hv, const char *name, size_t len, const char *value,
	       struct error *err);
bool hyperv_is_wanted(const struct hyperv_request *hv);
/* Put the leaves into c.  host: those that the kernel supports; NULL: none. */
int hyperv_put(struct kvm_cpuid2 *c, const struct hyperv_request *hv, const struct kvm_cpuid2 *host,
	       struct error *err);

/* Parts that are more than leaves of CPUID. */
enum hyperv_part { HYPERV_SYNIC, HYPERV_STIMER, HYPERV_VPINDEX };
bool hyperv_has(const struct kvm_cpuid2 *c, enum hyperv_part part);

#endif
