/* Names of the CPUID feature bits, as `-cpu MODEL,+NAME` takes them.
 *
 * Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; KVM's own leaf:
 * Documentation/virt/kvm/x86/cpuid.rst.  Thread: any; nothing here changes. */
#include "vmm/core/cpuid.h"

#include <linux/kvm.h>

static const struct word {
	u32 function, index;
	enum cpuid_reg reg;
	const char *names[32];
} words[] = {
	{1, 0, CPUID_EDX, {"fpu",  "vme",   "de",   "pse",     "tsc",  "msr", "pae",  "mce",
			   "cx8",  "apic",  NULL,   "sep",     "mtrr", "pge", "mca",  "cmov",
			   "pat",  "pse36", "pn",   "clflush", NULL,   "ds",  "acpi", "mmx",
			   "fxsr", "sse",   "sse2", "ss",      "ht",   "tm",  "ia64", "pbe"}},
	{1, 0, CPUID_ECX, {"pni",	   "pclmulqdq", "dtes64", "monitor", "ds-cpl", "vmx",
			   "smx",	   "est",	"tm2",	  "ssse3",   "cid",    NULL,
			   "fma",	   "cx16",	"xtpr",	  "pdcm",    NULL,     "pcid",
			   "dca",	   "sse4.1",	"sse4.2", "x2apic",  "movbe",  "popcnt",
			   "tsc-deadline", "aes",	"xsave",  "osxsave", "avx",    "f16c",
			   "rdrand",	   "hypervisor"}},
	{6, 0, CPUID_EAX, {[2] = "arat"}},
	{7, 0, CPUID_EBX, {"fsgsbase", "tsc-adjust", "sgx",	 "bmi1",       "hle",
			   "avx2",     NULL,	     "smep",	 "bmi2",       "erms",
			   "invpcid",  "rtm",	     NULL,	 NULL,	       "mpx",
			   NULL,       "avx512f",    "avx512dq", "rdseed",     "adx",
			   "smap",     "avx512ifma", "pcommit",	 "clflushopt", "clwb",
			   "intel-pt", "avx512pf",   "avx512er", "avx512cd",   "sha-ni",
			   "avx512bw", "avx512vl"}},
	{7,
	 0,
	 CPUID_ECX,
	 {NULL,
	  "avx512vbmi",
	  "umip",
	  "pku",
	  "ospke",
	  "waitpkg",
	  "avx512vbmi2",
	  "cet-ss",
	  "gfni",
	  "vaes",
	  "vpclmulqdq",
	  "avx512vnni",
	  "avx512bitalg",
	  NULL,
	  "avx512-vpopcntdq",
	  NULL,
	  "la57",
	  [22] = "rdpid",
	  [24] = "bus-lock-detect",
	  "cldemote",
	  NULL,
	  "movdiri",
	  "movdir64b",
	  NULL,
	  "sgxlc",
	  "pks"}},
	{7,
	 0,
	 CPUID_EDX,
	 {[2] = "avx512-4vnniw",
	  "avx512-4fmaps",
	  "fsrm",
	  [8] = "avx512-vp2intersect",
	  [10] = "md-clear",
	  [14] = "serialize",
	  [16] = "tsx-ldtrk",
	  [19] = "arch-lbr",
	  "cet-ibt",
	  [22] = "amx-bf16",
	  "avx512-fp16",
	  "amx-tile",
	  "amx-int8",
	  "spec-ctrl",
	  "stibp",
	  "flush-l1d",
	  "arch-capabilities",
	  "core-capability",
	  "ssbd"}},
	{7,
	 1,
	 CPUID_EAX,
	 {[4] = "avx-vnni",
	  "avx512-bf16",
	  [10] = "fzrm",
	  "fsrs",
	  "fsrc",
	  [21] = "amx-fp16",
	  [23] = "avx-ifma"}},
	{0xd, 1, CPUID_EAX, {"xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd"}},
	{0x40000001,
	 0,
	 CPUID_EAX,
	 {"kvmclock", "kvm-nopiodelay", "kvm-mmu", "kvmclock2", "kvm-asyncpf", "kvm-steal-time",
	  "kvm-pv-eoi", "kvm-pv-unhalt", NULL, "kvm-pv-tlb-flush", "kvm-asyncpf-vmexit",
	  "kvm-pv-ipi", "kvm-poll-control", "kvm-pv-sched-yield", "kvm-asyncpf-int",
	  "kvm-msi-ext-dest-id", [24] = "kvmclock-stable-bit"}},
	{0x80000001,
	 0,
	 CPUID_EDX,
	 {[11] = "syscall",
	  [19] = "mp",
	  "nx",
	  NULL,
	  "mmxext",
	  [25] = "fxsr-opt",
	  "pdpe1gb",
	  "rdtscp",
	  NULL,
	  "lm",
	  "3dnowext",
	  "3dnow"}},
	{0x80000001, 0, CPUID_ECX, {"lahf-lm",	 "cmp-legacy",	"svm",
				    "extapic",	 "cr8legacy",	"abm",
				    "sse4a",	 "misalignsse", "3dnowprefetch",
				    "osvw",	 "ibs",		"xop",
				    "skinit",	 "wdt",		NULL,
				    "lwp",	 "fma4",	"tce",
				    NULL,	 "nodeid-msr",	NULL,
				    "tbm",	 "topoext",	"perfctr-core",
				    "perfctr-nb"}},
	{0x80000007, 0, CPUID_EDX, {[8] = "invtsc"}},
	{0x80000008,
	 0,
	 CPUID_EBX,
	 {"clzero", NULL, "xsaveerptr", [9] = "wbnoinvd", [12] = "ibpb", [14] = "ibrs",
	  "amd-stibp", [17] = "stibp-always-on", [24] = "amd-ssbd", "virt-ssbd",
	  "amd-no-ssb", [28] = "amd-psfd"}},
	{0x8000000a,
	 0,
	 CPUID_EDX,
	 {"npt", "lbrv", "svm-lock", "nrip-save", "tsc-scale", "vmcb-clean", "flushbyasid",
	  "decodeassists", [10] = "pause-filter", [12] = "pfthreshold",
	  "avic", [15] = "v-vmsave-vmload", "vgif", [28] = "svme-addr-chk"}},
};

/* Other spellings that people use. */
static const struct {
	const char *name, *canonical;
} aliases[] = {
	{"sse3", "pni"},       {"sse4-1", "sse4.1"},
	{"sse4-2", "sse4.2"},  {"lzcnt", "abm"},
	{"i64", "lm"},	       {"xd", "nx"},
	{"ffxsr", "fxsr-opt"}, {"pclmuldq", "pclmulqdq"},
	{"ds_cpl", "ds-cpl"},  {"kvm-clock", "kvmclock"},
};

static bool same_name(const char *name, size_t len, const char *other)
{
	for (size_t i = 0; i < len; i++)
		if ((name[i] == '_' ? '-' : name[i]) != (other[i] == '_' ? '-' : other[i]))
			return false;
	return other[len] == '\0';
}

static bool find_in_word(const struct word *w, const char *name, size_t len, unsigned *bit)
{
	for (unsigned i = 0; i < 32; i++)
		if (w->names[i] && strlen(w->names[i]) == len &&
		    same_name(name, len, w->names[i])) {
			*bit = i;
			return true;
		}
	return false;
}

static struct cpuid_flag flag_of(unsigned n)
{
	return (struct cpuid_flag){words[n].function, words[n].index, words[n].reg, 0, n};
}

bool cpuid_flag_find(const char *name, size_t len, struct cpuid_flag *out)
{
	for (unsigned i = 0; i < ARRAY_LEN(aliases); i++)
		if (strlen(aliases[i].name) == len && same_name(name, len, aliases[i].name)) {
			name = aliases[i].canonical;
			len = strlen(name);
			break;
		}
	for (unsigned i = 0; i < ARRAY_LEN(words); i++) {
		*out = flag_of(i);
		if (find_in_word(&words[i], name, len, &out->bit))
			return true;
	}
	return false;
}

bool cpuid_flag_word(unsigned n, struct cpuid_flag *out)
{
	if (n >= ARRAY_LEN(words))
		return false;
	*out = flag_of(n);
	return true;
}

const char *cpuid_flag_name(unsigned word, unsigned bit)
{
	static_assert(ARRAY_LEN(words) == CPUID_WORDS, "cpuid.h says how many words there are");
	return words[word].names[bit];
}

u32 *cpuid_reg_of(struct kvm_cpuid_entry2 *e, enum cpuid_reg reg)
{
	switch (reg) {
	case CPUID_EAX: return &e->eax;
	case CPUID_EBX: return &e->ebx;
	case CPUID_ECX: return &e->ecx;
	case CPUID_EDX: return &e->edx;
	}
	assert(false);
	return NULL;
}

const char *cpuid_reg_name(enum cpuid_reg reg)
{
	static const char *const names[] = {"EAX", "EBX", "ECX", "EDX"};

	return names[reg];
}
