/* The leaves of a named processor, and what -cpu says of any.
 *
 * Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.  Thread: control. */
#include "vmm/core/cpuid_int.h"

#define LEAF_XSAVE	0xdu
#define LEAF_EXTENDED	0x80000000u
#define LEAF_AMD_CACHES 0x8000001du
#define PHYS_BITS_MODEL 40 /* of a model with long mode, unless the host has fewer */
#define PHYS_BITS_PSE36 36
#define VIRT_BITS	48
#define AMD_COPIED	0x0183f3ffu /* of leaf 1, EDX: leaf 0x80000001 has them, too */

static bool wants(const u32 *words, const char *name)
{
	struct cpuid_flag flag;
	bool known = cpuid_flag_find(name, strlen(name), &flag);

	assert(known);
	return words[flag.word] >> flag.bit & 1;
}

/* --- who it is ------------------------------------------------------------------------ */

static u32 signature(const struct cpu_ids *ids, u32 was)
{
	u32 family = ids->family, model = ids->model, s = was;

	if (family != UINT32_MAX)
		s = (s & ~0x0ff00f00u) | MIN(family, 0xfu) << 8 |
		    (family > 0xf ? family - 0xf : 0) << 20;
	if (model != UINT32_MAX)
		s = (s & ~0x000f00f0u) | (model & 0xf) << 4 | model >> 4 << 16;
	if (ids->stepping != UINT32_MAX)
		s = (s & ~0xfu) | ids->stepping;
	return s;
}

static void put_vendor(struct kvm_cpuid_entry2 *e, const char *vendor)
{
	memcpy(&e->ebx, vendor, 4);
	memcpy(&e->edx, vendor + 4, 4);
	memcpy(&e->ecx, vendor + 8, 4);
}

static void put_text(struct kvm_cpuid2 *c, const char text[49])
{
	for (u32 i = 0; i < 3; i++) {
		struct kvm_cpuid_entry2 *e = cpuid_make(c, 0x80000002 + i, 0, false);

		memcpy(&e->eax, text + 16 * i, 4);
		memcpy(&e->ebx, text + 16 * i + 4, 4);
		memcpy(&e->ecx, text + 16 * i + 8, 4);
		memcpy(&e->edx, text + 16 * i + 12, 4);
	}
}

/* Physical address bits of the host; 36 if it does not say. */
static u32 host_phys_bits(const struct kvm_cpuid2 *host)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(host, 0x80000008, 0);

	return e && e->eax & 0xff ? e->eax & 0xff : 36;
}

static u32 phys_bits(const struct cpu_request *r, const struct kvm_cpuid2 *host)
{
	u32 most = host_phys_bits(host);

	if (r->phys_bits || r->host_phys_bits)
		return r->phys_bits ? r->phys_bits : most;
	if (!wants(r->want, "lm"))
		return wants(r->want, "pse36") ? PHYS_BITS_PSE36 : 32;
	return MIN(most, (u32)PHYS_BITS_MODEL);
}

static void put_ids(struct kvm_cpuid2 *c, const struct cpu_request *r)
{
	struct kvm_cpuid_entry2 *e = cpuid_make(c, 1, 0, false);

	e->eax = signature(&r->ids, e->eax);
	if (*r->vendor)
		put_vendor(cpuid_make(c, 0, 0, false), r->vendor);
	e = cpuid_find(c, LEAF_EXTENDED, 0);
	if (e && *r->vendor)
		put_vendor(e, r->vendor);
	if (*r->text && (r->model || e))
		put_text(c, r->text);
}

static void put_phys_bits(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host,
			  const struct cpu_request *r)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, 0x80000008, 0);

	if (e)
		e->eax = (e->eax & ~0xffu) | phys_bits(r, host);
}

/* --- a model -------------------------------------------------------------------------- */

struct fixed_leaf {
	u32 function, index, eax, ebx, ecx, edx;
};

static void add_leaves(struct kvm_cpuid2 *c, const struct fixed_leaf *l, unsigned n)
{
	for (; n--; l++) {
		bool indexed = l->function == 4 || l->function == LEAF_AMD_CACHES;
		struct kvm_cpuid_entry2 *e = cpuid_make(c, l->function, l->index, indexed);

		e->eax = l->eax;
		e->ebx = l->ebx;
		e->ecx = l->ecx;
		e->edx = l->edx;
	}
}

/* Caches, the same for all models of a vendor: on Intel two times 32 KiB, 4 MiB and
 * 16 MiB; on AMD two times 64 KiB and 512 KiB, on EPYC as leaf 0x8000001d says. */
static void add_caches(struct kvm_cpuid2 *c, const struct cpu_request *r)
{
	static const struct fixed_leaf intel[] = {
		{2, 0, 1, 0, 0x4d, 0x2c307d},	     {4, 0, 0x121, 0x1c0003f, 0x3f, 1},
		{4, 1, 0x122, 0x1c0003f, 0x3f, 1},   {4, 2, 0x143, 0x3c0003f, 0xfff, 1},
		{4, 3, 0x163, 0x3c0003f, 0x3fff, 6}, {4, 4, 0, 0, 0, 0},
	};
	static const struct fixed_leaf both[] = {
		{0x80000005, 0, 0x1ff01ff, 0x1ff01ff, 0x40020140, 0x40020140},
		{0x80000006, 0, 0, 0x42004200, 0x2008140, 0x808140},
	};
	static const struct fixed_leaf epyc[] = {
		{0x80000005, 0, 0x1ff01ff, 0x1ff01ff, 0x20080140, 0x40040140},
		{0x80000006, 0, 0, 0x42004200, 0x2006140, 0x408140},
		{LEAF_AMD_CACHES, 0, 0x121, 0x1c0003f, 0x3f, 1},
		{LEAF_AMD_CACHES, 1, 0x122, 0xc0003f, 0xff, 1},
		{LEAF_AMD_CACHES, 2, 0x43, 0x1c0003f, 0x3ff, 0},
		{LEAF_AMD_CACHES, 3, 0x163, 0x3c0003f, 0x1fff, 6},
		{LEAF_AMD_CACHES, 4, 0, 0, 0, 0},
		{0x8000001e, 0, 0, 0, 0, 0},
	};

	if (!cpuid_is_amd(c))
		add_leaves(c, intel, ARRAY_LEN(intel));
	if (wants(r->want, "topoext"))
		add_leaves(c, epyc, ARRAY_LEN(epyc));
	else
		add_leaves(c, both, ARRAY_LEN(both));
}

/* Parts of the extended state that the features call for, as the host lays them out. */
static u32 xsave_parts(const u32 *want)
{
	return 3u | (wants(want, "avx") ? 4u : 0) | (wants(want, "mpx") ? 0x18u : 0) |
	       (wants(want, "avx512f") ? 0xe0u : 0) | (wants(want, "pku") ? 0x200u : 0) |
	       (wants(want, "amx-tile") ? 0x60000u : 0);
}

static void add_xsave(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host, const u32 *want)
{
	const struct kvm_cpuid_entry2 *h = cpuid_find(host, LEAF_XSAVE, 0);
	struct kvm_cpuid_entry2 *e;
	u32 parts, bytes = 512 + 64;

	if (!h || !wants(want, "xsave"))
		return;
	parts = xsave_parts(want) & h->eax;
	for (u32 i = 2; i < 32; i++) {
		const struct kvm_cpuid_entry2 *part = cpuid_find(host, LEAF_XSAVE, i);

		if (!(parts >> i & 1) || !part)
			continue;
		e = cpuid_make(c, LEAF_XSAVE, i, true);
		*e = *part;
		bytes = MAX(bytes, part->eax + part->ebx);
	}
	e = cpuid_make(c, LEAF_XSAVE, 0, true);
	e->eax = parts;
	e->ebx = e->ecx = bytes;
	e = cpuid_make(c, LEAF_XSAVE, 1, true); /* EAX is a word of features */
	e->ebx = bytes;
}

static void copy_leaf(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host, u32 function)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(host, function, 0);

	if (e)
		*cpuid_make(c, function, 0, false) = *e;
}

static u32 last_extended(const struct cpu_request *r)
{
	u32 last = r->xlevel == UINT32_MAX ? 0 : r->xlevel;
	struct cpuid_flag word;

	for (unsigned n = 0; cpuid_flag_word(n, &word); n++)
		if (word.function > LEAF_EXTENDED && r->want[n])
			last = MAX(last, word.function);
	return last;
}

static void begin_extended(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host,
			   const struct cpu_request *r)
{
	struct kvm_cpuid_entry2 *e = cpuid_make(c, LEAF_EXTENDED, 0, false);

	e->eax = last_extended(r);
	memcpy(&e->ebx, &cpuid_find(c, 0, 0)->ebx, 3 * sizeof(u32));
	cpuid_make(c, 0x80000001, 0, false)->eax = signature(&r->ids, 0);
	cpuid_make(c, 0x80000008, 0, false)->eax = wants(r->want, "lm") ? VIRT_BITS << 8 : 0;
	if (wants(r->want, "svm"))
		copy_leaf(c, host, 0x8000000a);
}

/* Under KVM it is of the host's vendor, as SYSCALL and SYSENTER work there. */
static void begin_model(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host,
			const struct cpu_request *r)
{
	copy_leaf(c, host, 0);
	cpuid_make(c, 1, 0, false)->ebx = 8 << 8; /* lines of 64 bytes */
	if (r->level >= 5)
		cpuid_make(c, 5, 0, false)->ecx = 3; /* MWAIT by its leaf */
	if (r->level >= 7)
		(void)cpuid_make(c, 7, 0, true);
	copy_leaf(c, host, 0x40000000);
	copy_leaf(c, host, 0x40000001);
	if (last_extended(r))
		begin_extended(c, host, r);
}

void cpuid_begin(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host, const struct cpu_request *r)
{
	if (r->model)
		begin_model(c, host, r);
	put_ids(c, r);
	put_phys_bits(c, host, r);
}

/* As far as the model says, or there is something. */
static void put_level(struct kvm_cpuid2 *c, const struct cpu_request *r)
{
	u32 level = r->level;

	for (u32 i = 0; i < c->nent; i++)
		if (c->entries[i].function >= 6 && c->entries[i].function < 0x20)
			level = MAX(level, c->entries[i].function);
	cpuid_find(c, 0, 0)->eax = level;
}

static void trim(struct kvm_cpuid2 *c, u32 level, u32 last_extended_leaf)
{
	u32 n = 0;

	for (u32 i = 0; i < c->nent; i++) {
		u32 leaf = c->entries[i].function;

		if (leaf < 0x20 ? leaf <= level
				: leaf < LEAF_EXTENDED || leaf <= last_extended_leaf)
			c->entries[n++] = c->entries[i];
	}
	c->nent = n;
}

void cpuid_complete_model(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host,
			  const struct cpu_request *r)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, 0x80000001, 0);

	add_xsave(c, host, r->want);
	if (e && cpuid_is_amd(c))
		e->edx |= cpuid_find(c, 1, 0)->edx & AMD_COPIED;
	add_caches(c, r);
	put_level(c, r);
	trim(c, cpuid_find(c, 0, 0)->eax, last_extended(r));
}
