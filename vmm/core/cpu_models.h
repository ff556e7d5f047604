/* Named processors for -cpu. */
#ifndef VMM_CORE_CPU_MODELS_H
#define VMM_CORE_CPU_MODELS_H

#include "base/base.h"
#include "vmm/core/cpuid.h"

struct cpu_ids {
	u32 family, model, stepping;
};

struct cpu_model {
	const char *name;
	const char *like;	/* a model that stands before this one; NULL: none */
	const char *add, *drop; /* features, with a space in between; NULL: none */
	const char *text;	/* as the guest reads it; NULL: the program's own */
	struct cpu_ids ids;
	u32 level, xlevel; /* largest leaf of either range; xlevel 0: none of that */
	unsigned version;  /* "-v2": variants of the first name in the name */
};

/* "Haswell", "Haswell-noTSX", "Haswell-v2"; NULL: there is none. */
const struct cpu_model *cpu_model_find(const char *name, size_t len);
const struct cpu_model *cpu_model_nth(unsigned n); /* NULL behind the last */
void cpu_model_features(const struct cpu_model *m, u32 words[CPUID_WORDS]);

#endif
