/* CPUID's leaves about packages, cores, threads and the caches that they share.
 *
 * Intel SDM volume 3 section 9.9 (topology, APIC IDs); AMD APM volume 3, appendix E.  An
 * APIC ID is socket, core and thread side by side, each in just enough bits.
 * Thread: control. */
#include "vmm/core/cpuid_int.h"

#define LEAF_CACHES	0x4
#define LEAF_TOPOLOGY	0xbu
#define LEAF_TOPOLOGY2	0x1f
#define LEAF_AMD_CACHES 0x8000001d
#define LEAF_AMD_TOPO	0x8000001e

/* Leaf 1, EDX bit 28: "logical processor count is valid". */
#define HTT	   (1u << 28)
#define CMP_LEGACY (1u << 1) /* 0x80000001, ECX: the same for AMD */

static unsigned bits_for(u32 n)
{
	return n > 1 ? 32 - (unsigned)__builtin_clz(n - 1) : 0;
}

u32 cpu_apic_id(const struct cpu_options *opt, u32 index)
{
	unsigned thread_bits = bits_for(opt->threads), core_bits = bits_for(opt->cores);
	u32 thread = index % opt->threads;
	u32 core = index / opt->threads % opt->cores;
	u32 socket = index / opt->threads / opt->cores;

	return (socket << core_bits | core) << thread_bits | thread;
}

static u32 with_field(u32 reg, unsigned shift, unsigned bits, u32 value)
{
	u32 max = (1u << bits) - 1;

	return (reg & ~(max << shift)) | MIN(value, max) << shift;
}

static void set_leaf_1(struct kvm_cpuid2 *c, u32 logical, u32 apic_id)
{
	struct kvm_cpuid_entry2 *e = cpuid_make(c, 1, 0, false);

	e->ebx = with_field(e->ebx, 24, 8, apic_id & 0xff);
	e->ebx = with_field(e->ebx, 16, 8, logical > 1 ? logical : 0);
	e->edx = logical > 1 ? e->edx | HTT : e->edx & ~HTT;
}

/* Leaf 4 and AMD's 0x8000001d: for each cache, how many logical processors share it.
 * The first two levels belong to a core, the third to the package. */
static void set_caches(struct kvm_cpuid2 *c, u32 leaf, const struct cpu_options *opt)
{
	struct kvm_cpuid_entry2 *e;

	for (u32 i = 0; (e = cpuid_find(c, leaf, i)) && (e->eax & 0x1f) != 0; i++) {
		u32 level = e->eax >> 5 & 7;
		u32 sharing = level >= 3 ? opt->threads * opt->cores : opt->threads;

		e->eax = with_field(e->eax, 14, 12, sharing - 1);
		if (leaf == LEAF_CACHES)
			e->eax = with_field(e->eax, 26, 6, opt->cores - 1);
		if (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX))
			break;
	}
}

/* Leaf 0xb and 0x1f: x2APIC ID, and how many of its low bits name the thread and
 * the core. */
static void set_extended_topology(struct kvm_cpuid2 *c, u32 leaf, const struct cpu_options *opt,
				  u32 apic_id)
{
	unsigned thread_bits = bits_for(opt->threads);
	unsigned package_bits = thread_bits + bits_for(opt->cores);
	/* EAX shift, EBX processors below, ECX level type (1: SMT, 2: core) and number. */
	const struct kvm_cpuid_entry2 levels[] = {
		{.eax = thread_bits, .ebx = opt->threads, .ecx = 1 << 8},
		{.eax = package_bits, .ebx = opt->threads * opt->cores, .ecx = 2 << 8 | 1},
		{.ecx = 2},
	};

	cpuid_remove_leaf(c, leaf);
	for (u32 i = 0; i < ARRAY_LEN(levels); i++) {
		struct kvm_cpuid_entry2 *e = cpuid_make(c, leaf, i, true);

		e->eax = levels[i].eax;
		e->ebx = levels[i].ebx;
		e->ecx = levels[i].ecx;
		e->edx = apic_id;
	}
}

static void set_amd(struct kvm_cpuid2 *c, const struct cpu_options *opt, u32 index, u32 apic_id)
{
	u32 logical = opt->threads * opt->cores;
	struct kvm_cpuid_entry2 *e = cpuid_find(c, 0x80000001, 0);

	if (e)
		e->ecx = logical > 1 ? e->ecx | CMP_LEGACY : e->ecx & ~CMP_LEGACY;
	e = cpuid_find(c, 0x80000008, 0);
	if (e) {
		e->ecx = with_field(e->ecx, 0, 8, logical - 1);
		e->ecx = with_field(e->ecx, 12, 4, bits_for(opt->threads) + bits_for(opt->cores));
	}
	set_caches(c, LEAF_AMD_CACHES, opt);
	e = cpuid_find(c, LEAF_AMD_TOPO, 0);
	if (e) {
		e->eax = apic_id;
		e->ebx = (index / opt->threads % opt->cores) & 0xff;
		e->ebx |= (opt->threads - 1) << 8;
		e->ecx = index / logical & 0xff; /* a node is a socket */
	}
}

void cpuid_set_vcpu(struct kvm_cpuid2 *c, const struct cpu_options *opt, u32 index)
{
	u32 apic_id = cpu_apic_id(opt, index);
	struct kvm_cpuid_entry2 *e = cpuid_make(c, 0, 0, false);

	set_leaf_1(c, opt->threads * opt->cores, apic_id);
	if (e->eax >= LEAF_TOPOLOGY)
		set_extended_topology(c, LEAF_TOPOLOGY, opt, apic_id);
	if (cpuid_find(c, LEAF_TOPOLOGY2, 0))
		set_extended_topology(c, LEAF_TOPOLOGY2, opt, apic_id);
	if (cpuid_is_amd(c))
		set_amd(c, opt, index, apic_id);
	else
		set_caches(c, LEAF_CACHES, opt);
}
