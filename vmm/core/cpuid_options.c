/* -cpu: a model, features on and off, and what it says about itself.
 *
 * Settings count in the order in which they stand.  Thread: control. */
#include "vmm/core/cpuid_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define PHYS_BITS_MIN 32u

/* What every model gets on KVM, and does not: paravirtual parts that the host has, and
 * nothing that another host of its kind might lack. */
static const char *const kvm_on[] = {
	"kvmclock",   "kvm-nopiodelay",	     "kvmclock2", "kvm-asyncpf", "kvm-steal-time",
	"kvm-pv-eoi", "kvmclock-stable-bit", "x2apic",	  "hypervisor"};
static const char *const kvm_off[] = {"acpi", "monitor",   "svm",
				      "npt",  "nrip-save", "svme-addr-chk"};

static void put_named(u32 *words, const char *name, bool on)
{
	struct cpuid_flag flag;
	bool known = cpuid_flag_find(name, strlen(name), &flag);

	assert(known);
	cpuid_word_put(words, &flag, on);
}

static bool get_named(const u32 *words, const char *name)
{
	struct cpuid_flag flag;
	bool known = cpuid_flag_find(name, strlen(name), &flag);

	assert(known);
	return words[flag.word] >> flag.bit & 1;
}

static void begin_with_host(struct cpu_request *r, const u32 *host)
{
	memcpy(r->want, host, sizeof(r->want));
	r->ids = (struct cpu_ids){UINT32_MAX, UINT32_MAX, UINT32_MAX};
	r->host_phys_bits = true;
	put_named(r->want, "hypervisor", true);
	/* A guest that counts on it could not be moved to a host of another speed. */
	put_named(r->want, "invtsc", false);
}

static void begin_with_model(struct cpu_request *r, const u32 *host)
{
	cpu_model_features(r->model, r->want);
	r->ids = r->model->ids;
	r->level = r->model->level;
	r->xlevel = r->model->xlevel;
	snprintf(r->text, sizeof(r->text), "%s",
		 r->model->text ? r->model->text : "cowvm Virtual CPU");
	for (unsigned i = 0; i < ARRAY_LEN(kvm_on); i++)
		if (get_named(host, kvm_on[i]) || !strcmp(kvm_on[i], "hypervisor"))
			put_named(r->want, kvm_on[i], true);
	for (unsigned i = 0; i < ARRAY_LEN(kvm_off); i++)
		put_named(r->want, kvm_off[i], false);
}

static bool is(const char *name, size_t len, const char *other)
{
	return strlen(other) == len && !strncmp(name, other, len);
}

static int begin(struct cpu_request *r, const char *text, const u32 *host, struct error *err)
{
	size_t len = strcspn(text, ",");

	*r = (struct cpu_request){.name = text,
				  .name_len = len,
				  .level = UINT32_MAX,
				  .xlevel = UINT32_MAX,
				  .kvm = true,
				  .pmu = true,
				  .check = true,
				  .migratable = true};
	if (is(text, len, "host") || is(text, len, "max")) {
		begin_with_host(r, host);
		return 0;
	}
	r->model = cpu_model_find(text, len);
	if (!r->model)
		return err_set(err, -EINVAL, "unable to find CPU model '%.*s'", (int)len, text);
	begin_with_model(r, host);
	return 0;
}

/* --- settings -------------------------------------------------------------------------- */

/* One "name=value", "name", "+name" or "-name", taken apart. */
struct setting {
	const char *name, *value; /* value "on" or "off" for the short forms */
	size_t len, value_len;
};

static int unknown(const struct cpu_request *r, const struct setting *s, struct error *err)
{
	return err_set(err, -EINVAL, "Property '%.*s-x86_64-cpu.%.*s' not found", (int)r->name_len,
		       r->name, (int)s->len, s->name);
}

static struct setting split(const char *text, size_t len)
{
	const char *equals = memchr(text, '=', len);

	if (len && *text == '+')
		return (struct setting){text + 1, "on", len - 1, 2};
	if (len && *text == '-')
		return (struct setting){text + 1, "off", len - 1, 3};
	if (!equals)
		return (struct setting){text, "on", len, 2};
	return (struct setting){text, equals + 1, (size_t)(equals - text),
				len - (size_t)(equals - text) - 1};
}

static int to_bool(const struct setting *s, bool *out, struct error *err)
{
	*out = is(s->value, s->value_len, "on");
	if (*out || is(s->value, s->value_len, "off"))
		return 0;
	return err_set(err, -EINVAL, "Parameter '%.*s' expects 'on' or 'off'", (int)s->len,
		       s->name);
}

static int to_number(const struct setting *s, u64 max, u32 *out, struct error *err)
{
	char text[16] = "", *end = text;
	unsigned long long n = 0;

	if (s->value_len < sizeof(text)) {
		memcpy(text, s->value, s->value_len);
		n = strtoull(text, &end, 0);
	}
	if (end == text || *end || *text == '-')
		return err_set(err, -EINVAL, "Parameter '%.*s' expects a number", (int)s->len,
			       s->name);
	if (n > max)
		return err_set(err, -EINVAL, "-cpu: %.*s is %llu, expected 0..%llu", (int)s->len,
			       s->name, n, (unsigned long long)max);
	*out = (u32)n;
	return 0;
}

static int to_text(const struct setting *s, char *out, size_t room, struct error *err)
{
	if (s->value_len >= room || (room == 13 && s->value_len != 12))
		return err_set(err, -EINVAL, "Property '.%.*s' doesn't take value '%.*s'",
			       (int)s->len, s->name, (int)s->value_len, s->value);
	memset(out, 0, room);
	memcpy(out, s->value, s->value_len);
	return 0;
}

/* Settings that are no feature: 1 if it is one of them, or an error. */
static int apply_special(struct cpu_request *r, const struct setting *s, struct error *err)
{
	const struct {
		const char *name;
		bool *to;
	} bools[] = {{"kvm", &r->kvm},
		     {"pmu", &r->pmu},
		     {"check", &r->check},
		     {"enforce", &r->enforce},
		     {"migratable", &r->migratable},
		     {"host-phys-bits", &r->host_phys_bits}};
	const struct {
		const char *name;
		u32 *to;
		u64 max;
	} numbers[] = {{"family", &r->ids.family, 0xff + 0xf}, {"model", &r->ids.model, 0xff},
		       {"stepping", &r->ids.stepping, 0xf},    {"level", &r->level, 0x3f},
		       {"xlevel", &r->xlevel, 0x8000003f},     {"phys-bits", &r->phys_bits, 999}};

	for (unsigned i = 0; i < ARRAY_LEN(bools); i++)
		if (is(s->name, s->len, bools[i].name))
			return to_bool(s, bools[i].to, err) < 0 ? err->code : 1;
	for (unsigned i = 0; i < ARRAY_LEN(numbers); i++)
		if (is(s->name, s->len, numbers[i].name))
			return to_number(s, numbers[i].max, numbers[i].to, err) < 0 ? err->code : 1;
	if (is(s->name, s->len, "vendor"))
		return to_text(s, r->vendor, sizeof(r->vendor), err) < 0 ? err->code : 1;
	if (is(s->name, s->len, "model-id"))
		return to_text(s, r->text, sizeof(r->text), err) < 0 ? err->code : 1;
	return 0;
}

static int apply_hyperv(struct cpu_request *r, const struct setting *s, struct error *err)
{
	AUTO_FREE char *value = strndup(s->value, s->value_len);

	int ret =
		s->len > 3 ? hyperv_set(&r->hyperv, s->name + 3, s->len - 3, value, err) : -ENOENT;

	return ret == -ENOENT ? unknown(r, s, err) : ret;
}

static int apply(struct cpu_request *r, const struct setting *s, struct error *err)
{
	int ret = apply_special(r, s, err);
	struct cpuid_flag flag;
	bool on;

	if (ret)
		return MIN(ret, 0);
	if (!strncmp(s->name, "hv-", 3) || !strncmp(s->name, "hv_", 3))
		return apply_hyperv(r, s, err);
	if (!s->len || !cpuid_flag_find(s->name, s->len, &flag))
		return unknown(r, s, err);
	ret = to_bool(s, &on, err);
	if (ret == 0)
		cpuid_word_put(r->want, &flag, on);
	return ret;
}

int cpu_request_parse(struct cpu_request *r, const char *text, const u32 *host, struct error *err)
{
	int ret = begin(r, text, host, err);

	for (text += r->name_len; ret == 0 && *text == ',';) {
		size_t len = strcspn(++text, ",");
		struct setting s = split(text, len);

		ret = apply(r, &s, err);
		text += len;
	}
	if (ret == 0 && r->phys_bits && (r->phys_bits < PHYS_BITS_MIN || r->phys_bits > 52))
		ret = err_set(err, -EINVAL, "phys-bits should be between %u and 52  (but is %u)",
			      PHYS_BITS_MIN, r->phys_bits);
	if (ret == 0 && !r->migratable && !r->model)
		put_named(r->want, "invtsc", get_named(host, "invtsc"));
	return ret;
}
