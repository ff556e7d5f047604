/* CPUID of the guest: model, flags, topology.  Thread: control. */
#ifndef VMM_CORE_CPUID_H
#define VMM_CORE_CPUID_H

#include "base/base.h"
#include "base/error.h"
#include "vmm/core/vcpu.h"

#define CPUID_MAX_ENTRIES 256

struct kvm_cpuid2;
struct kvm_cpuid_entry2;

/* Leaves that all vCPUs have in common, from what the host supports: model and
 * flags are applied (what the host lacks is left out, with a warning line each).
 * *out is the caller's to free(). */
int cpuid_new(struct kvm_cpuid2 **out, const struct kvm_cpuid2 *supported,
	      const struct cpu_options *opt, struct error *err);
/* Fill in what tells one vCPU from another, and the topology. */
void cpuid_set_vcpu(struct kvm_cpuid2 *c, const struct cpu_options *opt, u32 index);

struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid2 *c, u32 function, u32 index);

#define CPUID_WORDS 14 /* of feature bits, in the table of their names */

/* A feature bit by its name ("avx2", "tsc-deadline"; '_' counts as '-'). */
enum cpuid_reg { CPUID_EAX, CPUID_EBX, CPUID_ECX, CPUID_EDX };
struct cpuid_flag {
	u32 function, index;
	enum cpuid_reg reg;
	unsigned bit, word; /* the word's number in the table */
};
bool cpuid_flag_find(const char *name, size_t len, struct cpuid_flag *out);
/* The n-th word of the table of feature bits; false behind the last. */
bool cpuid_flag_word(unsigned n, struct cpuid_flag *out);
const char *cpuid_flag_name(unsigned word, unsigned bit); /* NULL: it has none */
static inline void cpuid_word_put(u32 *words, const struct cpuid_flag *flag, bool on)
{
	u32 mask = 1u << flag->bit;

	words[flag->word] = on ? words[flag->word] | mask : words[flag->word] & ~mask;
}
u32 *cpuid_reg_of(struct kvm_cpuid_entry2 *e, enum cpuid_reg reg);
const char *cpuid_reg_name(enum cpuid_reg reg);

#endif
