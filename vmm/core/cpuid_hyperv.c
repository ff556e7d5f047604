/* What the guest's CPUID says in the place of Hyper-V: -cpu hv-...
 *
 * Hypervisor Top-Level Functional Specification (TLFS) 6.0b, chapter 2 (feature and
 * interface discovery).  The kernel does all the work; here a guest is told what it may
 * use, of what the kernel says that it can do (KVM_GET_SUPPORTED_HV_CPUID).  KVM's own
 * leaves move out of the way, to 0x40000100.  Thread: control. */
#include "base/opts.h"
#include "vmm/core/cpuid_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define KVM_SIGNATURE	  0x40000000u
#define KVM_FEATURES	  0x40000001u
#define KVM_MOVED_BY	  0x100u
#define INTERFACE	  0x31237648u /* "Hv#1" */
#define VERSION_BUILD	  14393u      /* of Windows Server 2016 */
#define VERSION_MAJOR	  10u
#define HYPERCALL_MSRS	  (1u << 5) /* of HV_FEATURES, EAX: every guest needs them */
#define NO_CORE_SHARING	  (1u << 18)
#define SPINLOCKS_NEVER	  UINT32_MAX
#define SPINLOCKS_NOT_SET 0u

enum feature {
	RELAXED,
	VAPIC,
	VPINDEX,
	RUNTIME,
	CRASH,
	TIME,
	SYNIC,
	STIMER,
	STIMER_DIRECT,
	RESET,
	FREQUENCIES,
	TLBFLUSH,
	IPI,
	AVIC,
	XMM_INPUT,
	FEATURES
};
#define BIT(feature) (1u << (feature))

/* What a feature needs: bits of EAX and EDX of HV_FEATURES, of EAX of HV_ADVICE, and other
 * features. */
static const struct {
	const char *name, *text;
	u32 features_eax, features_edx, advice, needs;
} table[FEATURES] = {
	[RELAXED] = {"relaxed", "relaxed timing", 0, 0, 1u << 5, 0},
	[VAPIC] = {"vapic", "virtual APIC", 1u << 4, 0, 1u << 3, 0},
	[VPINDEX] = {"vpindex", "VP_INDEX MSR", 1u << 6, 0, 0, 0},
	[RUNTIME] = {"runtime", "VP_RUNTIME MSR", 1u << 0, 0, 0, 0},
	[CRASH] = {"crash", "crash MSRs", 0, 1u << 10, 0, 0},
	[TIME] = {"time", "clocksources", 1u << 1 | 1u << 9, 0, 0, 0},
	[SYNIC] = {"synic", "synthetic interrupt controller", 1u << 2, 0, 0, BIT(VPINDEX)},
	[STIMER] = {"stimer", "synthetic timers", 1u << 3, 0, 0, BIT(SYNIC) | BIT(TIME)},
	[STIMER_DIRECT] = {"stimer-direct", "direct mode of synthetic timers", 0, 1u << 19, 0,
			   BIT(STIMER)},
	[RESET] = {"reset", "reset MSR", 1u << 7, 0, 0, 0},
	[FREQUENCIES] = {"frequencies", "frequency MSRs", 1u << 11, 1u << 8, 0, 0},
	[TLBFLUSH] = {"tlbflush", "paravirtual TLB flush", 0, 0, 1u << 2 | 1u << 11, BIT(VPINDEX)},
	[IPI] = {"ipi", "paravirtual IPI", 0, 0, 1u << 10 | 1u << 11, BIT(VPINDEX)},
	[AVIC] = {"avic", "AVIC and APICv", 0, 0, 1u << 9, 0},
	[XMM_INPUT] = {"xmm-input", "fast hypercalls by XMM registers", 0, 1u << 4, 0, 0},
};

/* --- settings ------------------------------------------------------------------------ */

/* '_' counts as '-', and hv-apicv is another name of hv-avic. */
static bool is_named(const char *name, size_t len, const char *other)
{
	for (size_t i = 0; i < len; i++)
		if (!other[i] || (name[i] == '_' ? '-' : name[i]) != other[i])
			return false;
	return !other[len];
}

static int find_feature(const char *name, size_t len)
{
	if (is_named(name, len, "apicv"))
		return AVIC;
	for (int i = 0; i < FEATURES; i++)
		if (is_named(name, len, table[i].name))
			return i;
	return -ENOENT;
}

static int set_spinlocks(struct hyperv_request *hv, const char *value, struct error *err)
{
	char *end;
	unsigned long long n = strtoull(value, &end, 0);

	if (end == value || *end || *value == '-' || n > UINT32_MAX)
		return err_set(err, -EINVAL, "Parameter 'hv-spinlocks' expects a number");
	if (n < 0xfff)
		return err_set(err, -EINVAL,
			       "Property 'hv-spinlocks' must be at least 0xfff, or 0xffffffff for "
			       "never");
	hv->spinlocks = (u32)n;
	return 0;
}

static int set_vendor(struct hyperv_request *hv, const char *value, struct error *err)
{
	if (strlen(value) >= sizeof(hv->vendor))
		return err_set(err, -EINVAL,
			       "hv-vendor-id is '%s', expected at most %zu "
			       "characters",
			       value, sizeof(hv->vendor) - 1);
	snprintf(hv->vendor, sizeof(hv->vendor), "%s", value);
	return 0;
}

static int set_core_sharing(struct hyperv_request *hv, const char *value, struct error *err)
{
	static const char *const words[] = {"off", "on", "auto", NULL};
	int choice = parse_choice(value, words);

	if (choice < 0)
		return err_set(err, -EINVAL,
			       "Parameter 'hv-no-nonarch-coresharing' does not "
			       "accept value '%s'",
			       value);
	hv->no_core_sharing = choice == 1;
	hv->auto_core_sharing = choice == 2;
	return 0;
}

/* Parts for a hypervisor as a guest, for debuggers, or of versions that nobody asks for. */
static bool is_absent(const char *name, size_t len)
{
	static const char *const absent[] = {
		"emsr-bitmap",
		"enforce-cpuid",
		"evmcs",
		"reenlightenment",
		"syndbg",
		"tlbflush-direct",
		"tlbflush-ext",
		"version-id-build",
		"version-id-major",
		"version-id-minor",
		"version-id-sbranch",
		"version-id-snumber",
		"version-id-spack",
	};

	for (unsigned i = 0; i < ARRAY_LEN(absent); i++)
		if (is_named(name, len, absent[i]))
			return true;
	return false;
}

int hyperv_set(struct hyperv_request *hv, const char *name, size_t len, const char *value,
	       struct error *err)
{
	int feature = find_feature(name, len);
	bool on;

	if (is_named(name, len, "spinlocks"))
		return set_spinlocks(hv, value, err);
	if (is_named(name, len, "vendor-id"))
		return set_vendor(hv, value, err);
	if (is_named(name, len, "no-nonarch-coresharing"))
		return set_core_sharing(hv, value, err);
	if (is_absent(name, len))
		return err_set(err, -EINVAL, "hv-%.*s is not available", (int)len, name);
	if (feature < 0 && !is_named(name, len, "passthrough"))
		return -ENOENT;
	if (parse_bool(value, &on) < 0)
		return err_set(err, -EINVAL, "Parameter 'hv-%.*s' expects 'on' or 'off'", (int)len,
			       name);
	if (feature < 0)
		hv->passthrough = on;
	else
		hv->features = on ? hv->features | BIT(feature) : hv->features & ~BIT(feature);
	return 0;
}

bool hyperv_is_wanted(const struct hyperv_request *hv)
{
	return hv->features || hv->passthrough || hv->spinlocks != SPINLOCKS_NOT_SET ||
	       hv->no_core_sharing || hv->auto_core_sharing;
}

/* --- what there is ----------------------------------------------------------------------- */

/* The bits of all these features that are in the leaf's register. */
struct words {
	u32 features_eax, features_edx, advice;
};

static struct words words_of(u32 features)
{
	struct words w = {0};

	for (int i = 0; i < FEATURES; i++) {
		if (!(features & BIT(i)))
			continue;
		w.features_eax |= table[i].features_eax;
		w.features_edx |= table[i].features_edx;
		w.advice |= table[i].advice;
	}
	return w;
}

static bool has_feature(const struct kvm_cpuid2 *host, int feature)
{
	const struct kvm_cpuid_entry2 *f = cpuid_find(host, HV_FEATURES, 0);
	const struct kvm_cpuid_entry2 *a = cpuid_find(host, HV_ADVICE, 0);
	struct words w = words_of(BIT(feature));

	return f && a && !(w.features_eax & ~f->eax) && !(w.features_edx & ~f->edx) &&
	       !(w.advice & ~a->eax);
}

static u32 features_of(const struct kvm_cpuid2 *host)
{
	u32 features = 0;

	for (int i = 0; i < FEATURES; i++)
		if (has_feature(host, i) && !(table[i].needs & ~features))
			features |= BIT(i);
	return features;
}

static int check(u32 wanted, const struct kvm_cpuid2 *host, struct error *err)
{
	for (int i = 0; i < FEATURES; i++) {
		u32 missing = table[i].needs & ~wanted;

		if (!(wanted & BIT(i)))
			continue;
		if (!has_feature(host, i))
			return err_set(err, -ENOSYS,
				       "Hyper-V %s (hv-%s) is not supported by this host's kernel",
				       table[i].text, table[i].name);
		if (missing)
			return err_set(err, -EINVAL, "Hyper-V %s (hv-%s) requires hv-%s",
				       table[i].text, table[i].name,
				       table[__builtin_ctz(missing)].name);
	}
	return 0;
}

/* --- leaves --------------------------------------------------------------------------------- */

static void move_kvm(struct kvm_cpuid2 *c)
{
	for (u32 i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function != KVM_SIGNATURE && e->function != KVM_FEATURES)
			continue;
		if (e->function == KVM_SIGNATURE)
			e->eax = KVM_FEATURES + KVM_MOVED_BY;
		e->function += KVM_MOVED_BY;
	}
}

static void put_signature(struct kvm_cpuid2 *c, const struct hyperv_request *hv)
{
	struct kvm_cpuid_entry2 *e = cpuid_make(c, HV_VENDOR, 0, false);
	char vendor[12] = {0};

	memcpy(vendor, *hv->vendor ? hv->vendor : "Microsoft Hv",
	       *hv->vendor ? strlen(hv->vendor) : sizeof(vendor));
	e->eax = HV_LIMITS;
	memcpy(&e->ebx, vendor, 4);
	memcpy(&e->ecx, vendor + 4, 4);
	memcpy(&e->edx, vendor + 8, 4);
	cpuid_make(c, HV_INTERFACE, 0, false)->eax = INTERFACE;
	e = cpuid_make(c, HV_VERSION, 0, false);
	e->eax = VERSION_BUILD;
	e->ebx = VERSION_MAJOR << 16;
}

static void put_advice(struct kvm_cpuid2 *c, const struct hyperv_request *hv, u32 bits,
		       const struct kvm_cpuid2 *host)
{
	const struct kvm_cpuid_entry2 *theirs = cpuid_find(host, HV_ADVICE, 0);
	struct kvm_cpuid_entry2 *e = cpuid_make(c, HV_ADVICE, 0, false);
	bool as_host = hv->passthrough || hv->auto_core_sharing;

	e->eax = bits;
	if (hv->no_core_sharing || (as_host && theirs->eax & NO_CORE_SHARING))
		e->eax |= NO_CORE_SHARING;
	e->ebx = hv->spinlocks;
	if (hv->spinlocks == SPINLOCKS_NOT_SET)
		e->ebx = hv->passthrough ? theirs->ebx : SPINLOCKS_NEVER;
}

int hyperv_put(struct kvm_cpuid2 *c, const struct hyperv_request *hv, const struct kvm_cpuid2 *host,
	       struct error *err)
{
	const struct kvm_cpuid_entry2 *limits = host ? cpuid_find(host, HV_LIMITS, 0) : NULL;
	struct kvm_cpuid_entry2 *e;
	struct words w;
	u32 features;
	int ret;

	if (!host || !cpuid_find(host, HV_FEATURES, 0) || !cpuid_find(host, HV_ADVICE, 0))
		return err_set(err, -ENOSYS,
			       "Hyper-V enlightenments (hv-...) are not available: this host's "
			       "kernel offers none");
	features = hv->features | (hv->passthrough ? features_of(host) : 0);
	ret = check(features, host, err);
	if (ret < 0)
		return ret;
	w = words_of(features);
	move_kvm(c);
	put_signature(c, hv);
	e = cpuid_make(c, HV_FEATURES, 0, false);
	e->eax = w.features_eax | HYPERCALL_MSRS;
	e->edx = w.features_edx;
	put_advice(c, hv, w.advice, host);
	e = cpuid_make(c, HV_LIMITS, 0, false);
	if (limits)
		memcpy(&e->eax, &limits->eax, 4 * sizeof(u32));
	return 0;
}

bool hyperv_has(const struct kvm_cpuid2 *c, enum hyperv_part part)
{
	const struct kvm_cpuid_entry2 *id = cpuid_find(c, HV_INTERFACE, 0);
	const struct kvm_cpuid_entry2 *f = cpuid_find(c, HV_FEATURES, 0);
	static const enum feature features[] = {
		[HYPERV_SYNIC] = SYNIC, [HYPERV_STIMER] = STIMER, [HYPERV_VPINDEX] = VPINDEX};
	u32 bits = table[features[part]].features_eax;

	return id && f && id->eax == INTERFACE && (f->eax & bits) == bits;
}
