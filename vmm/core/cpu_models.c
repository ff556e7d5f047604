/* Named processors for -cpu: who they say they are, and which features they have.
 *
 * Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.  A row has the features of the row
 * it is like, but for those named; names are those of cpuid_flags.c.  They are the models that
 * `qemu-system-x86_64 -cpu help` of version 7.2 knows, with the same features and numbers, so
 * that a guest finds the same processor; as there, the vendor is the host's under KVM.
 * Thread: any; nothing here changes. */
#include "vmm/core/cpu_models.h"

#include "base/base.h"
#include "vmm/core/cpuid.h"

/* clang-format off */
static const struct cpu_model models[] = {
	{"486", NULL, "fpu pse vme", NULL, NULL, {4, 8, 0}, 1, 0, 1},
	{"pentium", "486", "apic cx8 de mce mmx msr tsc", NULL, NULL, {5, 4, 3}, 1, 0, 1},
	{"pentium2", "pentium",
	 "cmov fxsr mca mtrr pae pat pge pse36 sep", NULL,
	 NULL, {6, 5, 2}, 2, 0, 1},
	{"pentium3", "pentium2", "sse", NULL, NULL, {6, 7, 3}, 3, 0, 1},
	{"kvm32", "pentium3",
	 "clflush pni sse2", NULL,
	 "Common 32-bit KVM processor", {15, 6, 1}, 0x5, 0x80000008, 1},
	{"kvm64", "kvm32",
	 "cx16 lm nx syscall", NULL,
	 "Common KVM processor", {15, 6, 1}, 0xd, 0x80000008, 1},
	{"qemu32", "kvm32",
	 NULL, "clflush mca mtrr pse36 vme",
	 "QEMU Virtual CPU version 2.5+", {6, 6, 3}, 0x4, 0x80000004, 1},
	{"qemu64", "kvm64",
	 "lahf-lm svm", "vme",
	 "QEMU Virtual CPU version 2.5+", {15, 107, 1}, 0xd, 0x8000000a, 1},
	{"athlon", "pentium3",
	 "3dnow 3dnowext mmxext sse2", NULL,
	 "QEMU Virtual CPU version 2.5+", {6, 2, 3}, 0x2, 0x80000008, 1},
	{"phenom", "qemu64",
	 "3dnow 3dnowext abm fxsr-opt mmxext monitor npt pdpe1gb popcnt rdtscp sse4a vme", NULL,
	 "AMD Phenom(tm) 9550 Quad-Core Processor", {16, 2, 3}, 0x5, 0x8000001a, 1},
	{"coreduo", "kvm32",
	 "acpi monitor nx ss", "pse36",
	 "Genuine Intel(R) CPU           T2600  @ 2.16GHz", {6, 14, 8}, 0xa, 0x80000008, 1},
	{"core2duo", "kvm64",
	 "acpi lahf-lm monitor ss ssse3", NULL,
	 "Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz", {6, 15, 11}, 0xa, 0x80000008, 1},
	{"n270", "coreduo",
	 "lahf-lm movbe ssse3", NULL,
	 "Intel(R) Atom(TM) CPU N270   @ 1.60GHz", {6, 28, 2}, 0xa, 0x80000008, 1},
	{"Conroe", "kvm64",
	 "lahf-lm ssse3", "cx16",
	 "Intel Celeron_4x0 (Conroe/Merom Class Core 2)", {6, 15, 3}, 0xa, 0x80000008, 1},
	{"Penryn", "Conroe",
	 "cx16 sse4.1", NULL,
	 "Intel Core 2 Duo P9xxx (Penryn Class Core 2)", {6, 23, 3}, 0xa, 0x80000008, 1},
	{"Nehalem", "Penryn",
	 "popcnt sse4.2", NULL,
	 "Intel Core i7 9xx (Nehalem Class Core i7)", {6, 26, 3}, 0xb, 0x80000008, 1},
	{"Nehalem-IBRS", "Nehalem",
	 "spec-ctrl", NULL,
	 "Intel Core i7 9xx (Nehalem Core i7, IBRS update)", {6, 26, 3}, 0xb, 0x80000008, 2},
	{"Westmere", "Nehalem",
	 "aes arat pclmulqdq", NULL,
	 "Westmere E56xx/L56xx/X56xx (Nehalem-C)", {6, 44, 1}, 0xb, 0x80000008, 1},
	{"Westmere-IBRS", "Westmere",
	 "spec-ctrl", NULL,
	 "Westmere E56xx/L56xx/X56xx (IBRS update)", {6, 44, 1}, 0xb, 0x80000008, 2},
	{"SandyBridge", "Westmere",
	 "avx rdtscp tsc-deadline x2apic xsave xsaveopt", NULL,
	 "Intel Xeon E312xx (Sandy Bridge)", {6, 42, 1}, 0xd, 0x80000008, 1},
	{"SandyBridge-IBRS", "SandyBridge",
	 "spec-ctrl", NULL,
	 "Intel Xeon E312xx (Sandy Bridge, IBRS update)", {6, 42, 1}, 0xd, 0x80000008, 2},
	{"IvyBridge", "SandyBridge",
	 "erms f16c fsgsbase rdrand smep", NULL,
	 "Intel Xeon E3-12xx v2 (Ivy Bridge)", {6, 58, 9}, 0xd, 0x80000008, 1},
	{"IvyBridge-IBRS", "IvyBridge",
	 "spec-ctrl", NULL,
	 "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)", {6, 58, 9}, 0xd, 0x80000008, 2},
	{"Haswell", "IvyBridge",
	 "abm avx2 bmi1 bmi2 fma hle invpcid movbe pcid rtm", NULL,
	 "Intel Core Processor (Haswell)", {6, 60, 4}, 0xd, 0x80000008, 1},
	{"Haswell-noTSX", "Haswell",
	 NULL, "hle rtm",
	 "Intel Core Processor (Haswell, no TSX)", {6, 60, 1}, 0xd, 0x80000008, 2},
	{"Haswell-IBRS", "Haswell",
	 "spec-ctrl", NULL,
	 "Intel Core Processor (Haswell, IBRS)", {6, 60, 4}, 0xd, 0x80000008, 3},
	{"Haswell-noTSX-IBRS", "Haswell-noTSX",
	 "spec-ctrl", NULL,
	 "Intel Core Processor (Haswell, no TSX, IBRS)", {6, 60, 1}, 0xd, 0x80000008, 4},
	{"Broadwell", "Haswell",
	 "3dnowprefetch adx rdseed smap", NULL,
	 "Intel Core Processor (Broadwell)", {6, 61, 2}, 0xd, 0x80000008, 1},
	{"Broadwell-noTSX", "Broadwell",
	 NULL, "hle rtm",
	 "Intel Core Processor (Broadwell, no TSX)", {6, 61, 2}, 0xd, 0x80000008, 2},
	{"Broadwell-IBRS", "Broadwell",
	 "spec-ctrl", NULL,
	 "Intel Core Processor (Broadwell, IBRS)", {6, 61, 2}, 0xd, 0x80000008, 3},
	{"Broadwell-noTSX-IBRS", "Broadwell-noTSX",
	 "spec-ctrl", NULL,
	 "Intel Core Processor (Broadwell, no TSX, IBRS)", {6, 61, 2}, 0xd, 0x80000008, 4},
	{"Skylake-Client", "Broadwell",
	 "xgetbv1 xsavec", NULL,
	 "Intel Core Processor (Skylake)", {6, 94, 3}, 0xd, 0x80000008, 1},
	{"Skylake-Client-IBRS", "Skylake-Client",
	 "spec-ctrl", NULL,
	 "Intel Core Processor (Skylake, IBRS)", {6, 94, 3}, 0xd, 0x80000008, 2},
	{"Skylake-Client-noTSX-IBRS", "Broadwell-noTSX-IBRS",
	 "xgetbv1 xsavec", NULL,
	 "Intel Core Processor (Skylake, IBRS, no TSX)", {6, 94, 3}, 0xd, 0x80000008, 3},
	{"Skylake-Server", "Skylake-Client",
	 "avx512bw avx512cd avx512dq avx512f avx512vl clflushopt clwb pdpe1gb pku", NULL,
	 "Intel Xeon Processor (Skylake)", {6, 85, 4}, 0xd, 0x80000008, 1},
	{"Skylake-Server-IBRS", "Skylake-Server",
	 "spec-ctrl", "clflushopt",
	 "Intel Xeon Processor (Skylake, IBRS)", {6, 85, 4}, 0xd, 0x80000008, 2},
	{"Skylake-Server-noTSX-IBRS", "Skylake-Server-IBRS",
	 NULL, "hle rtm",
	 "Intel Xeon Processor (Skylake, IBRS, no TSX)", {6, 85, 4}, 0xd, 0x80000008, 3},
	{"Cascadelake-Server", "Skylake-Server",
	 "avx512vnni spec-ctrl ssbd", NULL,
	 "Intel Xeon Processor (Cascadelake)", {6, 85, 6}, 0xd, 0x80000008, 1},
	{"Cascadelake-Server-noTSX", "Cascadelake-Server",
	 "arch-capabilities", "hle rtm",
	 "Intel Xeon Processor (Cascadelake)", {6, 85, 6}, 0xd, 0x80000008, 3},
	{"Cooperlake", "Cascadelake-Server",
	 "arch-capabilities avx512-bf16 stibp", NULL,
	 "Intel Xeon Processor (Cooperlake)", {6, 85, 10}, 0xd, 0x80000008, 1},
	{"Icelake-Server", "Cascadelake-Server",
	 "avx512-vpopcntdq avx512bitalg avx512vbmi avx512vbmi2 gfni la57 umip vaes "
	 "vpclmulqdq wbnoinvd", NULL,
	 "Intel Xeon Processor (Icelake)", {6, 134, 0}, 0xd, 0x80000008, 1},
	{"Icelake-Server-noTSX", "Icelake-Server",
	 NULL, "hle rtm",
	 "Intel Xeon Processor (Icelake)", {6, 134, 0}, 0xd, 0x80000008, 2},
	{"Denverton", "IvyBridge-IBRS",
	 "3dnowprefetch arch-capabilities clflushopt monitor movbe mpx pdpe1gb rdseed "
	 "sha-ni smap ssbd xgetbv1 xsavec", "avx f16c",
	 "Intel Atom Processor (Denverton)", {6, 95, 1}, 0x15, 0x80000008, 1},
	{"Snowridge", "Denverton",
	 "cldemote clwb core-capability gfni movdir64b movdiri umip", NULL,
	 "Intel Atom Processor (SnowRidge)", {6, 134, 1}, 0x1b, 0x80000008, 1},
	{"KnightsMill", "Broadwell-noTSX",
	 "avx512-4fmaps avx512-4vnniw avx512-vpopcntdq avx512cd avx512er avx512f "
	 "avx512pf pdpe1gb ss", "invpcid pcid smap",
	 "Intel Xeon Phi Processor (Knights Mill)", {6, 133, 0}, 0xd, 0x80000008, 1},
	{"Opteron_G1", "kvm64",
	 NULL, "cx16",
	 "AMD Opteron 240 (Gen 1 Class Opteron)", {15, 6, 1}, 0x5, 0x80000008, 1},
	{"Opteron_G2", "qemu64",
	 "vme", NULL,
	 "AMD Opteron 22xx (Gen 2 Class Opteron)", {15, 6, 1}, 0x5, 0x8000000a, 1},
	{"Opteron_G3", "Opteron_G2",
	 "abm misalignsse monitor popcnt rdtscp sse4a", NULL,
	 "AMD Opteron 23xx (Gen 3 Class Opteron)", {16, 2, 3}, 0x5, 0x8000000a, 1},
	{"Opteron_G4", "Opteron_G3",
	 "3dnowprefetch aes avx fma4 npt nrip-save pclmulqdq pdpe1gb sse4.1 sse4.2 ssse3 "
	 "xop xsave", "monitor",
	 "AMD Opteron 62xx class CPU", {21, 1, 2}, 0xd, 0x8000001a, 1},
	{"Opteron_G5", "Opteron_G4",
	 "f16c fma tbm", NULL,
	 "AMD Opteron 63xx class CPU", {21, 2, 0}, 0xd, 0x8000001a, 1},
	{"EPYC", "Skylake-Client-noTSX-IBRS",
	 "clflushopt cr8legacy fxsr-opt misalignsse mmxext monitor npt nrip-save osvw "
	 "pdpe1gb sha-ni sse4a svm topoext", "erms invpcid pcid spec-ctrl tsc-deadline x2apic",
	 "AMD EPYC Processor", {23, 1, 2}, 0xd, 0x8000001e, 1},
	{"EPYC-IBPB", "EPYC",
	 "ibpb", NULL,
	 "AMD EPYC Processor (with IBPB)", {23, 1, 2}, 0xd, 0x8000001e, 2},
	{"EPYC-Rome", "EPYC-IBPB",
	 "amd-stibp clwb clzero perfctr-core rdpid umip wbnoinvd xsaveerptr xsaves", NULL,
	 "AMD EPYC-Rome Processor", {23, 49, 0}, 0xd, 0x8000001e, 1},
	{"EPYC-Milan", "EPYC-Rome",
	 "amd-ssbd erms fsrm ibrs invpcid pcid pku svme-addr-chk", NULL,
	 "AMD EPYC-Milan Processor", {25, 1, 1}, 0xd, 0x8000001e, 1},
	{"Dhyana", "EPYC-IBPB",
	 NULL, "aes pclmulqdq sha-ni",
	 "Hygon Dhyana Processor", {24, 0, 1}, 0xd, 0x8000001e, 1},
};
/* clang-format on */

const struct cpu_model *cpu_model_nth(unsigned n)
{
	return n < ARRAY_LEN(models) ? &models[n] : NULL;
}

static const struct cpu_model *find(const char *name, size_t len)
{
	for (unsigned i = 0; i < ARRAY_LEN(models); i++)
		if (strlen(models[i].name) == len && !strncmp(models[i].name, name, len))
			return &models[i];
	return NULL;
}

/* The part of a name before "-v" and a digit, 0: it has none. */
static size_t before_version(const char *name, size_t len)
{
	return len > 3 && name[len - 3] == '-' && name[len - 2] == 'v' ? len - 3 : 0;
}

/* Is that "Haswell-noTSX", and the first part of it "Haswell"? */
static bool is_variant(const struct cpu_model *m, const char *name, size_t len)
{
	return !strncmp(m->name, name, len) && (!m->name[len] || m->name[len] == '-');
}

const struct cpu_model *cpu_model_find(const char *name, size_t len)
{
	const struct cpu_model *m = find(name, len);
	size_t plain = before_version(name, len);
	const struct cpu_model *first = plain ? find(name, plain) : NULL;
	unsigned version = (unsigned)(name[len - (len > 0)] - '0');

	if (m || !first || first->version != 1)
		return m;
	if (version == 1)
		return first;
	for (unsigned i = 0; i < ARRAY_LEN(models); i++)
		if (models[i].version == version && is_variant(&models[i], name, plain))
			return &models[i];
	return NULL;
}

static void change(u32 *words, const char *names, bool on)
{
	while (names && *names) {
		size_t len = strcspn(names, " ");
		struct cpuid_flag flag;
		bool known = cpuid_flag_find(names, len, &flag);

		assert(known);
		cpuid_word_put(words, &flag, on);
		names += len + (names[len] == ' ');
	}
}

void cpu_model_features(const struct cpu_model *m, u32 words[CPUID_WORDS])
{
	if (m->like)
		cpu_model_features(find(m->like, strlen(m->like)), words);
	else
		memset(words, 0, CPUID_WORDS * sizeof(u32));
	change(words, m->add, true);
	change(words, m->drop, false);
}
