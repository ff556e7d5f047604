/* What the guest's CPUID says: of a model or of the host, with features on and off.
 *
 * Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.  What a model asks for and the
 * host lacks is left out, with a warning.  Thread: control. */
#include "vmm/core/cpuid_int.h"

#include "base/log.h"

#include <errno.h>

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

struct kvm_cpuid_entry2 *cpuid_make(struct kvm_cpuid2 *c, u32 function, u32 index, bool indexed)
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

void cpuid_remove_leaf(struct kvm_cpuid2 *c, u32 function)
{
	u32 n = 0;

	for (u32 i = 0; i < c->nent; i++)
		if (c->entries[i].function != function)
			c->entries[n++] = c->entries[i];
	c->nent = n;
}

bool cpuid_is_amd(const struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *e = cpuid_find(c, 0, 0);

	/* "AuthenticAMD" and "HygonGenuine", by their first four letters. */
	return e && (e->ebx == 0x68747541 || e->ebx == 0x6f677948);
}

static bool is_indexed(u32 function)
{
	return function == 7 || function == 0xd;
}

/* --- feature words -------------------------------------------------------------------- */

static void read_words(const struct kvm_cpuid2 *c, u32 words[CPUID_WORDS])
{
	struct cpuid_flag flag;

	for (unsigned n = 0; cpuid_flag_word(n, &flag); n++) {
		struct kvm_cpuid_entry2 *e = cpuid_find(c, flag.function, flag.index);

		words[n] = e ? *cpuid_reg_of(e, flag.reg) : 0;
	}
}

/* Leaves that are not there and would say nothing are not made. */
static void write_words(struct kvm_cpuid2 *c, const u32 words[CPUID_WORDS])
{
	struct cpuid_flag flag;

	for (unsigned n = 0; cpuid_flag_word(n, &flag); n++) {
		struct kvm_cpuid_entry2 *e = cpuid_find(c, flag.function, flag.index);

		if (!e && words[n])
			e = cpuid_make(c, flag.function, flag.index, is_indexed(flag.function));
		if (e)
			*cpuid_reg_of(e, flag.reg) = words[n];
	}
}

/* What the kernel does not list, but can do. */
static u32 ours(const struct cpuid_flag *word)
{
	struct cpuid_flag flag;
	bool known = cpuid_flag_find("hypervisor", 10, &flag);

	assert(known);
	return word->word == flag.word ? 1u << flag.bit : 0;
}

static void warn_of(const struct cpuid_flag *word, u32 missing)
{
	for (unsigned bit = 0; bit < 32; bit++) {
		const char *name = cpuid_flag_name(word->word, bit);

		if (missing >> bit & 1)
			log_warn("host doesn't support requested feature: CPUID.%02XH:%s%s%s "
				 "[bit %u]",
				 word->function, cpuid_reg_name(word->reg), name ? "." : "",
				 name ? name : "", bit);
	}
}

static int drop_missing(struct cpu_request *r, const u32 *host, struct error *err)
{
	struct cpuid_flag word;
	bool lacks = false;

	for (unsigned n = 0; cpuid_flag_word(n, &word); n++) {
		u32 missing = r->want[n] & ~(host[n] | ours(&word));

		if (r->check || r->enforce)
			warn_of(&word, missing);
		lacks |= missing != 0;
		r->want[n] &= ~missing;
	}
	if (lacks && r->enforce)
		return err_set(err, -EINVAL, "Host doesn't support requested features");
	return 0;
}

/* --- the table -------------------------------------------------------------------------- */

static struct kvm_cpuid2 *table_new(void)
{
	return xalloc(sizeof(struct kvm_cpuid2) +
		      CPUID_MAX_ENTRIES * sizeof(struct kvm_cpuid_entry2));
}

static struct kvm_cpuid2 *table_copy(const struct kvm_cpuid2 *from)
{
	struct kvm_cpuid2 *c = table_new();

	assert(from->nent <= CPUID_MAX_ENTRIES - 32); /* room for leaves of ours */
	c->nent = from->nent;
	memcpy(c->entries, from->entries, from->nent * sizeof(from->entries[0]));
	return c;
}

static struct kvm_cpuid2 *make_table(const struct kvm_cpuid2 *supported,
				     const struct cpu_request *r)
{
	struct kvm_cpuid2 *c = r->model ? table_new() : table_copy(supported);

	cpuid_begin(c, supported, r);
	write_words(c, r->want);
	if (r->model)
		cpuid_complete_model(c, supported, r);
	if (!r->kvm) {
		cpuid_remove_leaf(c, 0x40000000);
		cpuid_remove_leaf(c, 0x40000001);
	}
	if (!r->pmu)
		cpuid_remove_leaf(c, 0xa);
	return c;
}

int cpuid_new(struct kvm_cpuid2 **out, const struct kvm_cpuid2 *supported,
	      const struct cpu_options *opt, struct error *err)
{
	struct cpu_request r;
	u32 host[CPUID_WORDS];
	int ret;

	read_words(supported, host);
	ret = cpu_request_parse(&r, opt->model, host, err);
	if (ret == 0)
		ret = drop_missing(&r, host, err);
	if (ret < 0)
		return ret;
	*out = make_table(supported, &r);
	if (hyperv_is_wanted(&r.hyperv))
		ret = hyperv_put(*out, &r.hyperv, opt->hyperv, err);
	if (ret < 0) {
		free(*out);
		*out = NULL;
	}
	return ret;
}
