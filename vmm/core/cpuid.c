/* What the guest's CPUID says: the host's features, models, flags, topology.
 *
 * Intel SDM volume 2, CPUID, and volume 3 section 9.9 (topology, APIC IDs); AMD APM
 * volume 3, appendix E.  An APIC ID is socket, core and thread side by side, each
 * in just enough bits.  Thread: control. */
#include "vmm/core/cpuid.h"

#include "base/log.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>

/* Leaves that name topology. */
#define LEAF_CACHES	0x4
#define LEAF_TOPOLOGY	0xbu
#define LEAF_TOPOLOGY2	0x1f
#define LEAF_AMD_CACHES 0x8000001d
#define LEAF_AMD_TOPO	0x8000001e

/* Leaf 1, EDX bit 28: "logical processor count is valid". */
#define HTT	   (1u << 28)
#define CMP_LEGACY (1u << 1) /* 0x80000001, ECX: the same for AMD */

struct kvm_cpuid_entry2 *cpuid_find(const struct kvm_cpuid2 *c, u32 function, u32 index)
{
	for (u32 i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function != function)
			continue;
		if (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index)
			return (struct kvm_cpuid_entry2 *)(uintptr_t)e;
	}
	return NULL;
}

/* The entry, made (all zero) if there is none; the table has room for all of ours. */
static struct kvm_cpuid_entry2 *find_or_add(struct kvm_cpuid2 *c, u32 function, u32 index,
					    bool indexed)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, function, index);

	if (e)
		return e;
	assert(c->nent < CPUID_MAX_ENTRIES);
	e = &c->entries[c->nent++];
	*e = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
	};
	return e;
}

static void remove_leaf(struct kvm_cpuid2 *c, u32 function)
{
	u32 n = 0;

	for (u32 i = 0; i < c->nent; i++)
		if (c->entries[i].function != function)
			c->entries[n++] = c->entries[i];
	c->nent = n;
}

static bool is_amd(const struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(c, 0, 0);

	/* "AuthenticAMD" and "HygonGenuine", by their first four letters. */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948);
}

/* --- models and flags --------------------------------------------------------- */

static bool has_flag(const struct kvm_cpuid2 *c, const struct cpuid_flag *flag)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, flag->function, flag->index);

	return e && (*cpuid_reg_of(e, flag->reg) >> flag->bit & 1);
}

static void put_flag(struct kvm_cpuid2 *c, const struct cpuid_flag *flag, bool on)
{
	struct kvm_cpuid_entry2 *e = cpuid_find(c, flag->function, flag->index);
	u32 mask = 1u << flag->bit;

	if (!e && on)
		e = find_or_add(c, flag->function, flag->index,
				flag->function == 7 || flag->function == 0xd);
	if (e)
		*cpuid_reg_of(e, flag->reg) = on ? *cpuid_reg_of(e, flag->reg) | mask
						 : *cpuid_reg_of(e, flag->reg) & ~mask;
}

static void put_named(struct kvm_cpuid2 *c, const char *name, bool on)
{
	struct cpuid_flag flag;
	bool known = cpuid_flag_find(name, strlen(name), &flag);

	assert(known);
	put_flag(c, &flag, on);
}

/* What a plain 64-bit processor of long ago has; the names are as in the flag table. */
static const char *const plain_flags[] = {
	"fpu",	   "de",  "pse",  "tsc",     "msr",	     "pae",	   "mce",  "cx8",
	"apic",	   "sep", "mtrr", "pge",     "mca",	     "cmov",	   "pat",  "pse36",
	"clflush", "mmx", "fxsr", "sse",     "sse2",	     "pni",	   "cx16", "x2apic",
	"syscall", "nx",  "lm",	  "lahf-lm", "tsc-deadline", "hypervisor",
};

static bool is_plain(const struct cpuid_flag *flag)
{
	for (unsigned i = 0; i < ARRAY_LEN(plain_flags); i++) {
		struct cpuid_flag plain;

		if (cpuid_flag_find(plain_flags[i], strlen(plain_flags[i]), &plain) &&
		    plain.function == flag->function && plain.index == flag->index &&
		    plain.reg == flag->reg && plain.bit == flag->bit)
			return true;
	}
	return false;
}

/* Models qemu64 and kvm64: the same on every host, but for its vendor, which the
 * kernel's emulation of SYSCALL and SYSENTER depends on. */
static void make_plain(struct kvm_cpuid2 *c)
{
	static const char brand[48] = "cowvm virtual CPU";
	struct cpuid_flag flag;

	for (unsigned n = 0; cpuid_flag_word(n, &flag); n++) {
		if (flag.function == 0x40000001)
			continue; /* what KVM itself offers stays */
		for (flag.bit = 0; flag.bit < 32; flag.bit++)
			if (!is_plain(&flag))
				put_flag(c, &flag, false);
	}
	remove_leaf(c, 0xd);
	remove_leaf(c, 0xa);
	find_or_add(c, 1, 0, false)->eax = 0xf61; /* family 15, model 6 */
	for (u32 i = 0; i < 3; i++) {
		struct kvm_cpuid_entry2 *e = find_or_add(c, 0x80000002 + i, 0, false);

		memcpy(&e->eax, brand + 16 * i, 4);
		memcpy(&e->ebx, brand + 16 * i + 4, 4);
		memcpy(&e->ecx, brand + 16 * i + 8, 4);
		memcpy(&e->edx, brand + 16 * i + 12, 4);
	}
}

static int apply_model(struct kvm_cpuid2 *c, const char *model, size_t len, struct error *err)
{
	static const char *const plain[] = {"qemu64", "kvm64"};

	if ((len == 4 && !strncmp(model, "host", 4)) || (len == 3 && !strncmp(model, "max", 3)))
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(plain); i++)
		if (strlen(plain[i]) == len && !strncmp(model, plain[i], len)) {
			make_plain(c);
			return 0;
		}
	return err_set(err, -EINVAL,
		       "unable to find CPU model '%.*s' (there are: host, max, qemu64, kvm64)",
		       (int)len, model);
}

/* One "name=value", "name", "+name" or "-name", taken apart. */
struct setting {
	const char *name;
	size_t len;
	bool on;
};

static int parse_setting(const char *text, size_t len, struct setting *s, struct error *err)
{
	const char *equals = memchr(text, '=', len);
	size_t value_len = equals ? len - (size_t)(equals - text) - 1 : 0;

	*s = (struct setting){.name = text, .len = len, .on = true};
	if (len && (*text == '+' || *text == '-')) {
		*s = (struct setting){.name = text + 1, .len = len - 1, .on = *text == '+'};
	} else if (equals) {
		s->len = (size_t)(equals - text);
		s->on = value_len == 2 && !strncmp(equals + 1, "on", 2);
		if (!s->on && !(value_len == 3 && !strncmp(equals + 1, "off", 3)))
			return err_set(err, -EINVAL, "-cpu %.*s: expected on or off", (int)len,
				       text);
	}
	return s->len ? 0 : err_set(err, -EINVAL, "-cpu: a flag without a name");
}

static bool is_setting(const struct setting *s, const char *name)
{
	return strlen(name) == s->len && !strncmp(s->name, name, s->len);
}

/* Settings that are no bit; false: not one of them. */
static bool apply_special(struct kvm_cpuid2 *c, const struct setting *s, bool *enforce)
{
	if (is_setting(s, "enforce"))
		*enforce = s->on;
	else if (is_setting(s, "kvm") && !s->on) {
		remove_leaf(c, 0x40000000);
		remove_leaf(c, 0x40000001);
	} else if (is_setting(s, "pmu") && !s->on)
		remove_leaf(c, 0xa);
	else if (is_setting(s, "migratable") && !s->on)
		put_named(c, "invtsc", true);
	else
		return is_setting(s, "kvm") || is_setting(s, "pmu") || is_setting(s, "check") ||
		       is_setting(s, "migratable");
	return true;
}

/* What the kernel does not list, but can do. */
static bool is_ours(const struct cpuid_flag *flag)
{
	struct cpuid_flag hypervisor;
	bool known = cpuid_flag_find("hypervisor", 10, &hypervisor);

	assert(known);
	return flag->function == 1 && flag->reg == hypervisor.reg && flag->bit == hypervisor.bit;
}

static int apply_setting(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host,
			 const struct setting *s, bool *enforce, struct error *err)
{
	struct cpuid_flag flag;

	if (apply_special(c, s, enforce))
		return 0;
	if (!cpuid_flag_find(s->name, s->len, &flag))
		return err_set(err, -EINVAL, "-cpu: there is no flag '%.*s'", (int)s->len, s->name);
	if (!s->on || has_flag(host, &flag) || is_ours(&flag)) {
		put_flag(c, &flag, s->on);
		return 0;
	}
	if (*enforce)
		return err_set(err, -EINVAL, "Host doesn't support requested features: %.*s",
			       (int)s->len, s->name);
	log_warn("host doesn't support requested feature: CPUID.%02XH:%s.%.*s [bit %u]",
		 flag.function, cpuid_reg_name(flag.reg), (int)s->len, s->name, flag.bit);
	return 0;
}

static int apply_settings(struct kvm_cpuid2 *c, const struct kvm_cpuid2 *host, const char *text,
			  struct error *err)
{
	bool enforce = strstr(text, ",enforce") != NULL;

	while (*text == ',') {
		size_t len = strcspn(++text, ",");
		struct setting s;
		int ret = parse_setting(text, len, &s, err);

		if (ret == 0)
			ret = apply_setting(c, host, &s, &enforce, err);
		if (ret < 0)
			return ret;
		text += len;
	}
	return 0;
}

static struct kvm_cpuid2 *table_copy(const struct kvm_cpuid2 *from)
{
	size_t entry = sizeof(struct kvm_cpuid_entry2);
	struct kvm_cpuid2 *c = xalloc(sizeof(*c) + CPUID_MAX_ENTRIES * entry);

	assert(from->nent <= CPUID_MAX_ENTRIES - 32); /* room for leaves of ours */
	c->nent = from->nent;
	memcpy(c->entries, from->entries, from->nent * entry);
	return c;
}

int cpuid_new(struct kvm_cpuid2 **out, const struct kvm_cpuid2 *supported,
	      const struct cpu_options *opt, struct error *err)
{
	struct kvm_cpuid2 *c = table_copy(supported);
	size_t len = strcspn(opt->model, ",");
	int ret;

	put_named(c, "hypervisor", true);
	/* A guest that counts on it could not be moved to a host of another speed. */
	put_named(c, "invtsc", false);
	ret = apply_model(c, opt->model, len, err);
	if (ret == 0)
		ret = apply_settings(c, supported, opt->model + len, err);
	if (ret < 0) {
		free(c);
		return ret;
	}
	*out = c;
	return 0;
}

/* --- topology ----------------------------------------------------------------- */

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
	struct kvm_cpuid_entry2 *e = find_or_add(c, 1, 0, false);

	e->ebx = with_field(e->ebx, 24, 8, apic_id & 0xff);
	e->ebx = with_field(e->ebx, 16, 8, logical);
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

	remove_leaf(c, leaf);
	for (u32 i = 0; i < ARRAY_LEN(levels); i++) {
		struct kvm_cpuid_entry2 *e = find_or_add(c, leaf, i, true);

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
	struct kvm_cpuid_entry2 *e = find_or_add(c, 0, 0, false);

	set_leaf_1(c, opt->threads * opt->cores, apic_id);
	e->eax = MAX(e->eax, LEAF_TOPOLOGY);
	set_extended_topology(c, LEAF_TOPOLOGY, opt, apic_id);
	if (cpuid_find(c, LEAF_TOPOLOGY2, 0))
		set_extended_topology(c, LEAF_TOPOLOGY2, opt, apic_id);
	if (is_amd(c))
		set_amd(c, opt, index, apic_id);
	else
		set_caches(c, LEAF_CACHES, opt);
}
