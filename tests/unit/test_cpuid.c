/* The guest's CPUID from made-up hosts: models, flags, topology. */
#include "vmm/core/cpu_models.h"
#include "vmm/core/cpuid.h"
#include "vmm/core/hyperv.h"

#include <errno.h>
#include <linux/kvm.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

#define INDEXED KVM_CPUID_FLAG_SIGNIFCANT_INDEX

static const struct kvm_cpuid_entry2 intel[] = {
	{.function = 0, .eax = 0xd, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
	{.function = 1, .eax = 0x306f2, .ebx = 0x800, .ecx = 1u << 0 | 1u << 28, .edx = 0x178bfbff},
	{.function = 4, .index = 0, .flags = INDEXED, .eax = 0x121},
	{.function = 4, .index = 1, .flags = INDEXED, .eax = 0x143},
	{.function = 4, .index = 2, .flags = INDEXED, .eax = 0x163},
	{.function = 4, .index = 3, .flags = INDEXED},
	{.function = 7, .index = 0, .flags = INDEXED, .ebx = 1u << 5 | 1u << 9},
	{.function = 0xa, .eax = 0x7300402},
	{.function = 0xd, .index = 0, .flags = INDEXED, .eax = 7},
	{.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b},
	{.function = 0x40000001, .eax = 0x9},
	{.function = 0x80000001, .edx = 1u << 29 | 1u << 20 | 1u << 11, .ecx = 1},
	{.function = 0x80000007, .edx = 1u << 8},
	{.function = 0x80000008, .eax = 0x3028},
};
static const struct kvm_cpuid_entry2 amd[] = {
	{.function = 0, .eax = 0xd, .ebx = 0x68747541, .ecx = 0x444d4163, .edx = 0x69746e65},
	{.function = 1, .eax = 0x800f12, .ecx = 1, .edx = 0x178bfbff},
	{.function = 0x80000001, .edx = 1u << 29, .ecx = 1u << 22},
	{.function = 0x80000008, .eax = 0x3028},
	{.function = 0x8000001d, .index = 0, .flags = INDEXED, .eax = 0x121},
	{.function = 0x8000001d, .index = 1, .flags = INDEXED, .eax = 0x163},
	{.function = 0x8000001d, .index = 2, .flags = INDEXED},
	{.function = 0x8000001e},
};

static struct kvm_cpuid2 *host_of(const struct kvm_cpuid_entry2 *entries, u32 n)
{
	struct kvm_cpuid2 *c = xalloc(sizeof(*c) + n * sizeof(*entries));

	c->nent = n;
	memcpy(c->entries, entries, n * sizeof(*entries));
	return c;
}
#define HOST(entries) host_of((entries), ARRAY_LEN(entries))

static struct kvm_cpuid2 *guest(const struct kvm_cpuid2 *host, const char *model)
{
	struct cpu_options opt = {model, 1, 1, 1, 1, NULL};
	struct kvm_cpuid2 *c = NULL;
	struct error err = {0};

	if (cpuid_new(&c, host, &opt, &err) < 0)
		fail_msg("%s", err.text);
	return c;
}

static bool has(const struct kvm_cpuid2 *c, const char *name)
{
	struct cpuid_flag flag;
	struct kvm_cpuid_entry2 *e;

	assert_true(cpuid_flag_find(name, strlen(name), &flag));
	e = cpuid_find(c, flag.function, flag.index);
	return e && (*cpuid_reg_of(e, flag.reg) >> flag.bit & 1);
}

static void host_model_passes_features_on(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "host");

	assert_true(has(c, "avx2") && has(c, "avx") && has(c, "lm") && has(c, "kvmclock"));
	assert_true(has(c, "hypervisor"));
	assert_false(has(c, "invtsc")); /* unless asked for */
	assert_int_equal(cpuid_find(c, 0x40000000, 0)->ebx, 0x4b4d564b);
}

static void flags_go_on_and_off(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c =
		guest(host, "host,-avx2,avx=off,+invtsc,hypervisor=off,sse3=on");

	assert_false(has(c, "avx2") || has(c, "avx") || has(c, "hypervisor"));
	assert_true(has(c, "invtsc") && has(c, "pni"));
}

static void a_flag_that_the_host_lacks_stays_off(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "host,+svm");

	assert_false(has(c, "svm"));
}

/* What a kernel says that it can do of Hyper-V: all but direct timers. */
static const struct kvm_cpuid_entry2 hyperv[] = {
	{.function = 0x40000000, .eax = 0x40000005},
	{.function = 0x40000001, .eax = 0x31237648},
	{.function = 0x40000003, .eax = 0x2aff, .edx = 1u << 4 | 1u << 8 | 1u << 10},
	{.function = 0x40000004, .eax = 0x40e2c, .ebx = 0xfff},
	{.function = 0x40000005, .eax = 1024, .ebx = 64},
};

static int with_hyperv(struct kvm_cpuid2 **out, const char *model, struct error *err)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *hv = HOST(hyperv);
	struct cpu_options opt = {model, 1, 1, 1, 1, hv};

	*err = (struct error){0};
	return cpuid_new(out, host, &opt, err);
}

static struct kvm_cpuid2 *hyperv_guest(const char *model)
{
	struct kvm_cpuid2 *c = NULL;
	struct error err;

	if (with_hyperv(&c, model, &err) < 0)
		fail_msg("%s: %s", model, err.text);
	return c;
}

static void hyperv_leaves_say_what_is_asked_for(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *c = hyperv_guest(
		"host,hv_relaxed,hv-vapic=on,hv-spinlocks=0x1fff,hv-time,hv_reset,hv-reset=off");
	const struct kvm_cpuid_entry2 *e = cpuid_find(c, 0x40000000, 0);

	assert_int_equal(e->eax, 0x40000005);
	assert_memory_equal(&e->ebx, "Microsoft Hv", 12);
	assert_int_equal(cpuid_find(c, 0x40000001, 0)->eax, 0x31237648);
	assert_int_equal(cpuid_find(c, 0x40000002, 0)->ebx, 10 << 16);
	assert_int_equal(cpuid_find(c, 0x40000003, 0)->eax, 0x232); /* hypercalls, too */
	assert_int_equal(cpuid_find(c, 0x40000003, 0)->edx, 0);
	assert_int_equal(cpuid_find(c, 0x40000004, 0)->eax, 0x28);
	assert_int_equal(cpuid_find(c, 0x40000004, 0)->ebx, 0x1fff);
	assert_int_equal(cpuid_find(c, 0x40000005, 0)->eax, 1024);
	/* KVM's own are behind them. */
	assert_int_equal(cpuid_find(c, 0x40000100, 0)->eax, 0x40000101);
	assert_int_equal(cpuid_find(c, 0x40000100, 0)->ebx, 0x4b4d564b);
	assert_int_equal(cpuid_find(c, 0x40000101, 0)->eax, 0x9);
	assert_false(hyperv_has(c, HYPERV_SYNIC) || hyperv_has(c, HYPERV_VPINDEX));
}

static void hyperv_can_be_had_whole_or_alone(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *all = hyperv_guest("qemu64,check=off,hv-passthrough");
	AUTO_FREE struct kvm_cpuid2 *alone =
		hyperv_guest("host,kvm=off,hv-vpindex,hv-synic,hv-vendor-id=abc");
	AUTO_FREE struct kvm_cpuid2 *none = hyperv_guest("host,hv-relaxed,hv-relaxed=off");

	assert_int_equal(cpuid_find(all, 0x40000003, 0)->eax, 0xaff);
	assert_int_equal(cpuid_find(all, 0x40000003, 0)->edx, 0x510);
	assert_int_equal(cpuid_find(all, 0x40000004, 0)->eax, 0x40e2c);
	assert_int_equal(cpuid_find(all, 0x40000004, 0)->ebx, 0xfff);
	assert_true(hyperv_has(all, HYPERV_STIMER));
	assert_memory_equal(&cpuid_find(alone, 0x40000000, 0)->ebx, "abc\0\0\0\0\0\0\0\0\0", 12);
	assert_null(cpuid_find(alone, 0x40000100, 0));
	assert_true(hyperv_has(alone, HYPERV_SYNIC) && hyperv_has(alone, HYPERV_VPINDEX));
	assert_int_equal(cpuid_find(alone, 0x40000004, 0)->ebx, UINT32_MAX);
	assert_int_equal(cpuid_find(none, 0x40000000, 0)->ebx, 0x4b4d564b);
}

static void hyperv_that_is_not_there_is_refused(void **state)
{
	static const char *const cases[][2] = {
		{"host,hv-stimer", "Hyper-V synthetic timers (hv-stimer) requires hv-time"},
		{"host,hv-synic", "(hv-synic) requires hv-vpindex"},
		{"host,hv-ipi", "Hyper-V paravirtual IPI (hv-ipi) requires hv-vpindex"},
		{"host,hv-vpindex,hv-synic,hv-time,hv-stimer,hv-stimer-direct",
		 "(hv-stimer-direct) is not supported by this host's kernel"},
	};
	struct kvm_cpuid2 *c = NULL;
	struct error err;

	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		assert_true(with_hyperv(&c, cases[i][0], &err) < 0);
		if (!strstr(err.text, cases[i][1]))
			fail_msg("'%s' does not say '%s'", err.text, cases[i][1]);
	}
}

static void refuse(const char *model, const char *text)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	struct cpu_options opt = {model, 1, 1, 1, 1, NULL};
	struct kvm_cpuid2 *c;
	struct error err = {0};

	assert_int_equal(cpuid_new(&c, host, &opt, &err), -EINVAL);
	if (!strstr(err.text, text))
		fail_msg("'%s' does not say '%s'", err.text, text);
}

static void nonsense_is_refused_by_name(void **state)
{
	refuse("i486", "unable to find CPU model 'i486'");
	refuse("", "unable to find CPU model ''");
	refuse("host,+nosuch", "Property 'host-x86_64-cpu.nosuch' not found");
	refuse("host,avx=maybe", "Parameter 'avx' expects 'on' or 'off'");
	refuse("host,,avx", "Property 'host-x86_64-cpu.' not found");
	refuse("qemu64,+", "Property 'qemu64-x86_64-cpu.' not found");
	refuse("host,+svm,enforce", "Host doesn't support requested features");
	refuse("Haswell,enforce", "Host doesn't support requested features");
	refuse("host,family=x", "Parameter 'family' expects a number");
	refuse("host,family=300", "-cpu: family is 300, expected 0..270");
	refuse("host,vendor=abc", "Property '.vendor' doesn't take value 'abc'");
	refuse("host,hv-foo", "Property 'host-x86_64-cpu.hv-foo' not found");
	refuse("host,hv_", "Property 'host-x86_64-cpu.hv_' not found");
	refuse("host,hv-evmcs", "hv-evmcs is not available");
	refuse("host,hv-relaxed=1", "Parameter 'hv-relaxed' expects 'on' or 'off'");
	refuse("host,hv-spinlocks=off", "Parameter 'hv-spinlocks' expects a number");
	refuse("host,hv-spinlocks", "Parameter 'hv-spinlocks' expects a number");
	refuse("host,hv-spinlocks=100", "'hv-spinlocks' must be at least 0xfff");
	refuse("host,hv-vendor-id=1234567890abc", "expected at most 12 characters");
	refuse("host,hv-no-nonarch-coresharing=x", "does not accept value 'x'");
	refuse("Haswell-v9", "unable to find CPU model 'Haswell-v9'");
}

static void models_hide_what_is_new(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "qemu64,+avx2,check=off");

	assert_true(has(c, "sse2") && has(c, "lm") && has(c, "kvmclock") && has(c, "hypervisor"));
	assert_true(has(c, "avx2")); /* asked for */
	assert_false(has(c, "avx") || has(c, "erms") || has(c, "svm"));
	assert_null(cpuid_find(c, 0xd, 0));
	assert_null(cpuid_find(c, 0xa, 0));
	assert_memory_equal(&cpuid_find(c, 0x80000002, 0)->eax, "QEMU Virtual CPU", 16);
	assert_int_equal(cpuid_find(c, 1, 0)->eax, 0x60fb1);
	assert_int_equal(cpuid_find(c, 0, 0)->ebx, 0x756e6547); /* of the host's vendor */
	assert_int_equal(cpuid_find(c, 0, 0)->eax, 0xd);
	assert_int_equal(cpuid_find(c, 0x80000000, 0)->eax, 0x8000000a);
	assert_int_equal(cpuid_find(c, 0x80000008, 0)->eax, 0x3028);
	assert_non_null(cpuid_find(c, 4, 3));
}

static void bits_of_addresses_are_bounded(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	static const char *const bad[] = {"qemu64,phys-bits=31", "qemu64,phys-bits=53"};

	for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
		struct cpu_options opt = {bad[i], 1, 1, 1, 1, NULL};
		struct kvm_cpuid2 *c;
		struct error err = {0};

		assert_int_equal(cpuid_new(&c, host, &opt, &err), -EINVAL);
		assert_non_null(
			strstr(err.text, "phys-bits should be between 32 and 52  (but is "));
	}
}

static void a_model_says_what_it_is_told(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c =
		guest(host, "Haswell-v2,check=off,family=31,model=0x4d,stepping=7,"
			    "vendor=AuthenticAMD,model-id=a name,phys-bits=36");
	AUTO_FREE struct kvm_cpuid2 *d = guest(host, "host,model-id=b,stepping=3");

	assert_int_equal(cpuid_find(c, 1, 0)->eax, 0x01040fd7);
	assert_int_equal(cpuid_find(c, 0x80000001, 0)->eax, 0x01040fd7);
	assert_int_equal(cpuid_find(c, 0, 0)->ebx, 0x68747541);
	assert_int_equal(cpuid_find(c, 0x80000000, 0)->ebx, 0x68747541);
	assert_memory_equal(&cpuid_find(c, 0x80000002, 0)->eax, "a name\0\0", 8);
	assert_int_equal(cpuid_find(c, 0x80000008, 0)->eax, 0x3024);
	assert_null(cpuid_find(c, 4, 0)); /* not of an AMD */
	assert_int_equal(cpuid_find(d, 1, 0)->eax, 0x306f3);
	assert_non_null(cpuid_find(d, 0xa, 0));
}

static void old_models_end_where_they_ended(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "486,check=off");
	AUTO_FREE struct kvm_cpuid2 *d = guest(host, "pentium3,+nx,check=off");
	struct cpu_options opt = {"486", 2, 2, 1, 1, NULL};

	cpuid_set_vcpu(c, &opt, 1);
	assert_int_equal(cpuid_find(c, 0, 0)->eax, 1);
	assert_int_equal(cpuid_find(c, 1, 0)->eax, 0x480);
	assert_null(cpuid_find(c, 0x80000000, 0));
	assert_null(cpuid_find(c, 0xb, 0));
	assert_null(cpuid_find(c, 4, 0));
	assert_int_equal(cpuid_find(d, 0x80000000, 0)->eax, 0x80000001);
	assert_true(has(d, "nx"));
	assert_null(cpuid_find(d, 0x80000002, 0));
}

/* Every row of the table can be made; those that are variants have their number. */
static void every_model_can_be_had(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(amd);
	const struct cpu_model *m;

	for (unsigned i = 0; (m = cpu_model_nth(i)); i++) {
		AUTO_FREE char *text = xasprintf("%s,check=off", m->name);
		AUTO_FREE struct kvm_cpuid2 *c = guest(host, text);

		assert_ptr_equal(cpu_model_find(m->name, strlen(m->name)), m);
		assert_int_equal(cpuid_find(c, 0, 0)->ebx, 0x68747541);
	}
	assert_string_equal(cpu_model_find("Haswell-v4", 10)->name, "Haswell-noTSX-IBRS");
	assert_string_equal(cpu_model_find("Haswell-v1", 10)->name, "Haswell");
	assert_string_equal(cpu_model_find("EPYC-v2", 7)->name, "EPYC-IBPB");
	assert_null(cpu_model_find("EPYC-v3", 7));
	assert_null(cpu_model_find("", 0));
}

static void features_of_an_amd_stand_in_both_leaves(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(amd);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "Opteron_G1,check=off");

	assert_int_equal(cpuid_find(c, 0x80000001, 0)->edx & 0x0183f3ff,
			 cpuid_find(c, 1, 0)->edx & 0x0183f3ff);
	assert_int_equal(cpuid_find(c, 0x80000005, 0)->ecx, 0x40020140);
}

static void kvm_can_be_hidden(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "host,kvm=off,pmu=off");

	assert_null(cpuid_find(c, 0x40000000, 0));
	assert_null(cpuid_find(c, 0xa, 0));
}

/* --- topology ----------------------------------------------------------------- */

static void apic_ids_leave_room_for_a_power_of_two(void **state)
{
	struct cpu_options opt = {"host", 12, 2, 3, 2, NULL};
	static const u32 ids[] = {0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13};

	for (u32 i = 0; i < 12; i++)
		assert_int_equal(cpu_apic_id(&opt, i), ids[i]);
	opt = (struct cpu_options){"host", 3, 3, 1, 1, NULL};
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(cpu_apic_id(&opt, i), i);
}

static void intel_leaves_tell_the_topology(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(intel);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "host");
	struct cpu_options opt = {"host", 12, 2, 3, 2, NULL};
	const struct kvm_cpuid_entry2 *e;

	for (u32 i = 0; i < 12; i++)
		cpuid_set_vcpu(c, &opt, i); /* again and again: nothing piles up */
	e = cpuid_find(c, 1, 0);
	assert_int_equal(e->ebx >> 24, 13);
	assert_int_equal(e->ebx >> 16 & 0xff, 6);
	assert_true(e->edx & 1u << 28);
	e = cpuid_find(c, 4, 0); /* L1: the threads of a core */
	assert_int_equal(e->eax >> 14 & 0xfff, 1);
	assert_int_equal(e->eax >> 26, 2);
	e = cpuid_find(c, 4, 2); /* L3: the package */
	assert_int_equal(e->eax >> 14 & 0xfff, 5);
	assert_int_equal(cpuid_find(c, 0xb, 0)->eax, 1);
	assert_int_equal(cpuid_find(c, 0xb, 0)->ebx, 2);
	assert_int_equal(cpuid_find(c, 0xb, 0)->ecx, 0x100);
	assert_int_equal(cpuid_find(c, 0xb, 1)->eax, 3);
	assert_int_equal(cpuid_find(c, 0xb, 1)->ebx, 6);
	assert_int_equal(cpuid_find(c, 0xb, 1)->ecx, 0x201);
	assert_int_equal(cpuid_find(c, 0xb, 2)->ecx, 2);
	assert_int_equal(cpuid_find(c, 0xb, 1)->edx, 13);
	assert_int_equal(c->nent, ARRAY_LEN(intel) + 3);
}

static void amd_leaves_tell_the_topology(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(amd);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "host");
	struct cpu_options opt = {"host", 16, 2, 4, 2, NULL};
	const struct kvm_cpuid_entry2 *e;

	cpuid_set_vcpu(c, &opt, 11); /* socket 1, core 1, thread 1 */
	assert_int_equal(cpuid_find(c, 1, 0)->ebx >> 24, 11);
	assert_true(has(c, "cmp-legacy"));
	e = cpuid_find(c, 0x80000008, 0);
	assert_int_equal(e->ecx & 0xff, 7);
	assert_int_equal(e->ecx >> 12 & 0xf, 3);
	e = cpuid_find(c, 0x8000001d, 0);
	assert_int_equal(e->eax >> 14 & 0xfff, 1);
	e = cpuid_find(c, 0x8000001d, 1);
	assert_int_equal(e->eax >> 14 & 0xfff, 7);
	e = cpuid_find(c, 0x8000001e, 0);
	assert_int_equal(e->eax, 11);
	assert_int_equal(e->ebx, 0x101);
	assert_int_equal(e->ecx, 1);
}

static void a_lone_cpu_has_no_siblings(void **state)
{
	AUTO_FREE struct kvm_cpuid2 *host = HOST(amd);
	AUTO_FREE struct kvm_cpuid2 *c = guest(host, "max");
	struct cpu_options opt = {"max", 1, 1, 1, 1, NULL};

	cpuid_set_vcpu(c, &opt, 0);
	assert_false(has(c, "cmp-legacy") || has(c, "ht"));
	assert_int_equal(cpuid_find(c, 0xb, 0)->eax, 0);
	assert_int_equal(cpuid_find(c, 0xb, 1)->ebx, 1);
}

/* Every name leads to its own bit. */
static void flag_names_are_unique(void **state)
{
	struct cpuid_flag flag;

	assert_true(cpuid_flag_find("tsc_deadline", 12, &flag));
	assert_int_equal(flag.bit, 24);
	assert_true(cpuid_flag_find("sse4_1", 6, &flag));
	assert_int_equal(flag.bit, 19);
	assert_true(cpuid_flag_find("ssbd", 4, &flag));
	assert_int_equal(flag.bit, 31);
	assert_true(cpuid_flag_find("vgif", 4, &flag));
	assert_int_equal(flag.bit, 16);
	assert_true(cpuid_flag_find("topoext", 7, &flag));
	assert_int_equal(flag.bit, 22);
	assert_true(cpuid_flag_find("kvm-asyncpf-int", 15, &flag));
	assert_int_equal(flag.bit, 14);
	assert_false(cpuid_flag_find("ssx", 3, &flag));
	assert_false(cpuid_flag_find("", 0, &flag));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(host_model_passes_features_on),
		cmocka_unit_test(flags_go_on_and_off),
		cmocka_unit_test(a_flag_that_the_host_lacks_stays_off),
		cmocka_unit_test(nonsense_is_refused_by_name),
		cmocka_unit_test(hyperv_leaves_say_what_is_asked_for),
		cmocka_unit_test(hyperv_can_be_had_whole_or_alone),
		cmocka_unit_test(hyperv_that_is_not_there_is_refused),
		cmocka_unit_test(models_hide_what_is_new),
		cmocka_unit_test(bits_of_addresses_are_bounded),
		cmocka_unit_test(a_model_says_what_it_is_told),
		cmocka_unit_test(old_models_end_where_they_ended),
		cmocka_unit_test(every_model_can_be_had),
		cmocka_unit_test(features_of_an_amd_stand_in_both_leaves),
		cmocka_unit_test(kvm_can_be_hidden),
		cmocka_unit_test(apic_ids_leave_room_for_a_power_of_two),
		cmocka_unit_test(intel_leaves_tell_the_topology),
		cmocka_unit_test(amd_leaves_tell_the_topology),
		cmocka_unit_test(a_lone_cpu_has_no_siblings),
		cmocka_unit_test(flag_names_are_unique),
	};

	return cmocka_run_group_tests_name("cpuid", tests, NULL, NULL);
}
