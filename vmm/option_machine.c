/* Options that say what machine it is: -machine -accel -cpu -smp -m -name -uuid -rtc. */
#define _GNU_SOURCE
#include "devices/rtc.h"
#include "vmm/core/cpu_models.h"
#include "vmm/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <time.h>

#define RAM_BYTES_MIN (1 * MiB)
#define RAM_BYTES_MAX (4 * TiB)
#define CPUS_MAX      255

int option_enable_kvm(struct config *c, const struct option_use *use, struct error *err)
{
	c->has_accel = true;
	return 0;
}

/* One of "kvm:tcg"; the first that we have wins. */
static int choose_accel(struct config *c, const char *list, struct error *err)
{
	static const char *const absent[] = {"tcg", "xen", "hax", "hvf", "nvmm", "whpx", NULL};
	AUTO_FREE char *copy = xstrdup(list);
	const char *name = copy;
	char *rest = copy;

	while ((name = strsep(&rest, ":"))) {
		if (!strcmp(name, "kvm")) {
			c->has_accel = true;
			return 0;
		}
		if (parse_choice(name, absent) < 0)
			return err_set(err, -EINVAL, "invalid accelerator %s", name);
	}
	/* Said again, they are what to fall back on. */
	if (c->has_accel)
		return 0;
	return err_set(err, -EINVAL, "accelerator '%s' is not available, only kvm", list);
}

int option_accel(struct config *c, const struct option_use *use, struct error *err)
{
	const char *name = opts_get(use->opts, "accel"), *chip;

	if (opts_has(use->opts, "help") || (name && !strcmp(name, "help"))) {
		printf("Accelerators supported:\nkvm\n");
		c->writes_nothing = true;
		return 0;
	}
	if (!name)
		return err_set(err, -EINVAL, "Parameter 'accel' is missing");
	chip = opts_get(use->opts, "kernel-irqchip");
	if (chip && strcmp(chip, "on"))
		return err_set(err, -EINVAL, "kernel-irqchip=%s is not available, only on", chip);
	return choose_accel(c, name, err);
}

/* Properties with one value only that this machine can have. */
static int check_fixed_props(const struct opts *o, struct error *err)
{
	static const struct {
		const char *name, *value;
	} fixed[] = {{"usb", "off"}, {"vmport", "off"}, {"hpet", "off"},
		     {"acpi", "on"}, {"pit", "on"},	{"kernel-irqchip", "on"}};
	const char *value;

	for (unsigned i = 0; i < ARRAY_LEN(fixed); i++) {
		value = opts_get(o, fixed[i].name);
		if (value && strcmp(value, fixed[i].value) && strcmp(value, "auto"))
			return err_set(err, -EINVAL, "%s=%s is not available, only %s",
				       fixed[i].name, value, fixed[i].value);
	}
	return 0;
}

static int check_machine_type(struct config *c, const char *type, struct error *err)
{
	if (!strcmp(type, "help")) {
		printf("Supported machines are:\n"
		       "pc                   Standard PC (i440FX + PIIX, 1996) (default)\n");
		c->writes_nothing = true;
	} else if (strcmp(type, "pc") && strncmp(type, "pc-i440fx-", 10)) {
		return err_set(err, -EINVAL,
			       "unsupported machine type '%s'; use -machine help to list supported "
			       "machines",
			       type);
	}
	return 0;
}

int option_machine(struct config *c, const struct option_use *use, struct error *err)
{
	const char *type = opts_get(use->opts, "type"), *accel = opts_get(use->opts, "accel");
	bool graphics = !c->nographic, dump = !c->mem_no_core;
	int ret;

	if (opts_has(use->opts, "help"))
		type = "help";
	ret = type ? check_machine_type(c, type, err) : 0;
	if (ret == 0)
		ret = check_fixed_props(use->opts, err);
	if (ret == 0 && accel)
		ret = choose_accel(c, accel, err);
	if (ret == 0)
		ret = opts_get_bool(use->opts, "graphics", &graphics, err);
	if (ret == 0)
		ret = opts_get_bool(use->opts, "mem-merge", &c->mem_merge, err);
	if (ret == 0)
		ret = opts_get_bool(use->opts, "dump-guest-core", &dump, err);
	if (ret < 0)
		return ret;
	c->no_graphics |= !graphics;
	c->mem_no_core = !dump;
	opts_get_str(use->opts, "kernel", &c->kernel);
	opts_get_str(use->opts, "initrd", &c->initrd);
	opts_get_str(use->opts, "append", &c->append);
	opts_get_str(use->opts, "firmware", &c->bios);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	const struct cpu_model *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void list_models(void)
{
	const struct cpu_model *sorted[128], *m;
	unsigned n = 0;

	while ((m = cpu_model_nth(n)) && n < ARRAY_LEN(sorted))
		sorted[n++] = m;
	qsort(sorted, n, sizeof(sorted[0]), by_name);
	printf("Available CPUs:\n");
	for (unsigned i = 0; i < n; i++)
		printf("x86 %-20s  %s\n", sorted[i]->name, sorted[i]->text ? sorted[i]->text : "");
	printf("x86 %-20s  %s\n", "host", "processor with all supported host features (default)");
	printf("x86 %-20s  %s\n", "max", "the same");
}

static void list_flags(void)
{
	const char *sorted[CPUID_WORDS * 32], *name;
	unsigned n = 0;
	int column = 0;

	for (unsigned i = 0; i < CPUID_WORDS * 32; i++)
		if ((name = cpuid_flag_name(i / 32, i % 32)))
			sorted[n++] = name;
	qsort(sorted, n, sizeof(sorted[0]), by_text);
	printf("\nRecognized CPUID flags:\n");
	for (unsigned i = 0; i < n; i++) {
		if (column + strlen(sorted[i]) > 75)
			column = 0 * printf("\n");
		column += printf("%s%s", column ? " " : "  ", sorted[i]);
	}
	printf("\n");
}

/* What follows the model is judged by the vCPUs, which know what the host offers. */
int option_cpu(struct config *c, const struct option_use *use, struct error *err)
{
	size_t len = strcspn(use->text, ",");
	bool host = (len == 4 && !strncmp(use->text, "host", 4)) ||
		    (len == 3 && !strncmp(use->text, "max", 3));

	if (!strcmp(use->text, "help") || !strcmp(use->text, "?")) {
		list_models();
		list_flags();
		c->writes_nothing = true;
		return 0;
	}
	if (!host && !cpu_model_find(use->text, len))
		return err_set(err, -EINVAL, "unable to find CPU model '%.*s'", (int)len,
			       use->text);
	free(c->cpu_model);
	c->cpu_model = xstrdup(use->text);
	return 0;
}

static int smp_numbers(const struct opts *o, u32 n[7], struct error *err)
{
	static const char *const names[7] = {"cpus",	"maxcpus", "sockets", "cores",
					     "threads", "dies",	   "clusters"};
	int ret = 0;

	for (unsigned i = 0; i < 7 && ret == 0; i++) {
		ret = opts_get_u32(o, names[i], &n[i], err);
		if (ret == 0 && opts_has(o, names[i]) && !n[i])
			ret = err_set(err, -EINVAL, "Parameter '%s' must be greater than zero",
				      names[i]);
	}
	if (ret == 0 && (n[5] > 1 || n[6] > 1))
		ret = err_set(err, -EINVAL, "%s not supported by this machine's CPU topology",
			      names[n[5] > 1 ? 5 : 6]);
	return ret;
}

/* What is not given follows from what is, cores before sockets. */
static void smp_complete(struct config *c)
{
	u32 total = c->max_cpus ? c->max_cpus : c->cpus, sockets = MAX(c->sockets, 1u);

	if (!c->threads)
		c->threads = total && c->sockets && c->cores
				     ? MAX(total / (c->sockets * c->cores), 1u)
				     : 1;
	if (!c->cores)
		c->cores = MAX(total / (sockets * c->threads), 1u);
	if (!c->sockets)
		c->sockets = MAX(total / (c->cores * c->threads), 1u);
	if (!total)
		total = c->sockets * c->cores * c->threads;
	if (!c->max_cpus)
		c->max_cpus = total;
	if (!c->cpus)
		c->cpus = c->max_cpus;
}

int option_smp(struct config *c, const struct option_use *use, struct error *err)
{
	u32 n[7] = {0};
	int ret = smp_numbers(use->opts, n, err);

	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < 5; i++)
		if (n[i] > CPUS_MAX)
			return err_set(err, -EINVAL,
				       "Invalid SMP CPUs %u. The max CPUs supported by machine "
				       "'pc' is %u",
				       n[i], CPUS_MAX);
	c->cpus = n[0];
	c->max_cpus = n[1];
	c->sockets = n[2];
	c->cores = n[3];
	c->threads = n[4];
	smp_complete(c);
	if ((u64)c->sockets * c->cores * c->threads != c->max_cpus)
		return err_set(err, -EINVAL,
			       "Invalid CPU topology: product of the hierarchy must match maxcpus: "
			       "sockets (%u) * cores (%u) * threads (%u) != maxcpus (%u)",
			       c->sockets, c->cores, c->threads, c->max_cpus);
	if (c->max_cpus < c->cpus)
		return err_set(err, -EINVAL,
			       "Invalid CPU topology: maxcpus must be equal to or greater than "
			       "smp: sockets (%u) * cores (%u) * threads (%u) == maxcpus (%u) < "
			       "smp_cpus (%u)",
			       c->sockets, c->cores, c->threads, c->max_cpus, c->cpus);
	return 0;
}

int option_memory(struct config *c, const struct option_use *use, struct error *err)
{
	u64 bytes = c->ram_bytes, max, slots = 0;
	int ret = opts_get_size(use->opts, "size", MiB, &bytes, err);

	if (ret < 0)
		return ret;
	if (!bytes)
		bytes = RAM_BYTES_DEFAULT;
	max = bytes;
	ret = opts_get_size(use->opts, "maxmem", 1, &max, err);
	if (ret == 0)
		ret = opts_get_size(use->opts, "slots", 1, &slots, err);
	if (ret < 0)
		return ret;
	if (slots || max != bytes)
		return err_set(err, -EINVAL, "adding memory to a running machine is not available");
	bytes = align_up(bytes, 8 * KiB);
	if (bytes < RAM_BYTES_MIN || bytes > RAM_BYTES_MAX)
		return err_set(err, -EINVAL, "guest memory of %llu bytes: expected 1 MiB to 4 TiB",
			       (unsigned long long)bytes);
	c->ram_bytes = bytes;
	return 0;
}

int option_name(struct config *c, const struct option_use *use, struct error *err)
{
	bool names;

	opts_get_str(use->opts, "guest", &c->name);
	opts_get_str(use->opts, "process", &c->process_name);
	/* Threads have names always. */
	return opts_get_bool(use->opts, "debug-threads", &names, err);
}

bool config_parse_uuid(const char *p, u8 uuid[16])
{
	unsigned n = 0, byte;

	for (; n < 16; n++) {
		if (n == 4 || n == 6 || n == 8 || n == 10) {
			if (*p != '-')
				break;
			p++;
		}
		if (!isxdigit((unsigned char)p[0]) || !isxdigit((unsigned char)p[1]) ||
		    sscanf(p, "%2x", &byte) != 1)
			break;
		uuid[n] = (u8)byte;
		p += 2;
	}
	return n == 16 && !*p;
}

int option_uuid(struct config *c, const struct option_use *use, struct error *err)
{
	if (!config_parse_uuid(use->text, c->uuid))
		return err_set(err, -EINVAL, "failed to parse UUID string: wrong format");
	c->has_uuid = true;
	return 0;
}

static int parse_date(const char *text, s64 *out)
{
	struct tm tm = {.tm_mday = 1};
	const char *end = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (!end)
		end = strptime(text, "%Y-%m-%d", &tm);
	if (!end || *end)
		return -EINVAL;
	*out = timegm(&tm);
	return 0;
}

int option_rtc(struct config *c, const struct option_use *use, struct error *err)
{
	const char *base = opts_get(use->opts, "base"), *clock = opts_get(use->opts, "clock");
	const char *fix = opts_get(use->opts, "driftfix");
	static const char *const clocks[] = {[RTC_CLOCK_VIRTUAL] = "vm",
					     [RTC_CLOCK_HOST] = "host",
					     [RTC_CLOCK_MONOTONIC] = "rt",
					     NULL};

	if (base && !strcmp(base, "utc"))
		c->rtc_base = RTC_UTC;
	else if (base && !strcmp(base, "localtime"))
		c->rtc_base = RTC_LOCALTIME;
	else if (base && parse_date(base, &c->rtc_date) == 0)
		c->rtc_base = RTC_DATE;
	else if (base)
		return err_set(err, -EINVAL,
			       "invalid datetime format; valid formats: '2006-06-17T16:01:21' or "
			       "'2006-06-17'");
	if (clock && parse_choice(clock, clocks) < 0)
		return err_set(err, -EINVAL, "invalid option value '%s'", clock);
	if (clock)
		c->rtc_clock = parse_choice(clock, clocks);
	/* The RTC's periodic interrupts are never lost to a busy host for good. */
	if (fix && strcmp(fix, "none") && strcmp(fix, "slew"))
		return err_set(err, -EINVAL, "invalid option value '%s'", fix);
	return 0;
}

int option_global(struct config *c, const struct option_use *use, struct error *err)
{
	return err_set(err, -EINVAL, "not available: give the property to -device");
}
