/* Lists of key=value; see opts.h. */
#include "base/opts.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>

void opts_add(struct opts *o, const char *name, const char *value, bool bare)
{
	o->v = xrealloc(o->v, (o->n + 1) * sizeof(o->v[0]));
	o->v[o->n++] = (struct opt){.name = xstrdup(name), .value = xstrdup(value), .bare = bare};
}

void opts_fini(struct opts *o)
{
	for (unsigned i = 0; i < o->n; i++) {
		free(o->v[i].name);
		explicit_bzero(o->v[i].value, strlen(o->v[i].value)); /* a passphrase? */
		free(o->v[i].value);
	}
	free(o->v);
	*o = (struct opts){0};
}

/* Copy up to a single comma or the end, undoubling commas; returns what follows. */
static const char *take_value(const char *p, char *out)
{
	while (*p && (*p != ',' || p[1] == ',')) {
		if (*p == ',')
			p++;
		*out++ = *p++;
	}
	*out = 0;
	return *p ? p + 1 : p;
}

static int append(struct opts *o, const char *text, const char *implied, char *value,
		  struct error *err)
{
	AUTO_FREE char *key = xalloc(strlen(text) + 1);
	const char *p = text;
	size_t len;

	while (*p) {
		len = strcspn(p, "=,");
		if (implied && p == text && p[len] != '=') {
			p = take_value(p, value);
			opts_add(o, implied, value, false);
			continue;
		}
		if (!len)
			return err_set(err, -EINVAL, "Invalid parameter ''");
		memcpy(key, p, len);
		key[len] = 0;
		if (p[len] == '=') {
			p = take_value(p + len + 1, value);
			opts_add(o, key, value, false);
		} else {
			opts_add(o, key, "on", true);
			p += len + (p[len] == ',');
		}
	}
	return 0;
}

int opts_append(struct opts *o, const char *text, const char *implied, struct error *err)
{
	size_t room = strlen(text) + 1;
	char *value = xalloc(room);
	int ret = append(o, text, implied, value, err);

	explicit_bzero(value, room); /* it may have held a passphrase */
	free(value);
	return ret;
}

int opts_parse(struct opts *o, const char *text, const char *implied, struct error *err)
{
	int ret;

	*o = (struct opts){0};
	ret = opts_append(o, text, implied, err);
	if (ret < 0)
		opts_fini(o);
	return ret;
}

void opts_set(struct opts *o, const char *name, const char *value)
{
	for (unsigned i = o->n; i-- > 0;)
		if (!strcmp(o->v[i].name, name)) {
			free(o->v[i].value);
			o->v[i].value = xstrdup(value);
			o->v[i].bare = false;
			return;
		}
	opts_add(o, name, value, false);
}

void opts_sub(const struct opts *o, const char *prefix, struct opts *out)
{
	size_t len = strlen(prefix);

	*out = (struct opts){0};
	for (unsigned i = 0; i < o->n; i++)
		if (!strncmp(o->v[i].name, prefix, len))
			opts_add(out, o->v[i].name + len, o->v[i].value, o->v[i].bare);
}

static size_t put_doubled(char *to, const char *value)
{
	size_t n = 0;

	for (; *value; value++) {
		if (*value == ',')
			to[n++] = ',';
		to[n++] = *value;
	}
	return n;
}

/* May the first item do without its name? */
static bool can_imply(const struct opt *opt, const char *implied)
{
	return implied && !strcmp(opt->name, implied) && !opt->bare && *opt->value &&
	       !strchr(opt->value, '=');
}

char *opts_text(const struct opts *o, const char *implied)
{
	size_t room = 1, n = 0;
	char *text;

	for (unsigned i = 0; i < o->n; i++)
		room += strlen(o->v[i].name) + 2 * strlen(o->v[i].value) + 2;
	text = xalloc(room);
	for (unsigned i = 0; i < o->n; i++) {
		if (i)
			text[n++] = ',';
		if (i || !can_imply(&o->v[i], implied))
			n += (size_t)sprintf(text + n, o->v[i].bare ? "%s" : "%s=", o->v[i].name);
		if (!o->v[i].bare)
			n += put_doubled(text + n, o->v[i].value);
	}
	return text;
}

static bool in_keys(const char *keys, const char *name)
{
	size_t len = strlen(name), word;

	for (; *keys; keys += word + (keys[word] == ' ')) {
		word = strcspn(keys, " ");
		if (word == len && !memcmp(keys, name, len))
			return true;
	}
	return false;
}

static bool is_negated(const struct opt *opt)
{
	return opt->bare && !strncmp(opt->name, "no", 2) && opt->name[2];
}

int opts_check(const struct opts *o, const char *keys, struct error *err)
{
	for (unsigned i = 0; i < o->n; i++) {
		const struct opt *opt = &o->v[i];

		if (!in_keys(keys, opt->name) && !(is_negated(opt) && in_keys(keys, opt->name + 2)))
			return err_set(err, -EINVAL, "Invalid parameter '%s'", opt->name);
	}
	return 0;
}

const char *opts_get(const struct opts *o, const char *name)
{
	for (unsigned i = o->n; i-- > 0;) {
		if (!strcmp(o->v[i].name, name))
			return o->v[i].value;
		if (is_negated(&o->v[i]) && !strcmp(o->v[i].name + 2, name))
			return "off";
	}
	return NULL;
}

bool opts_has(const struct opts *o, const char *name)
{
	return opts_get(o, name) != NULL;
}

int opts_get_bool(const struct opts *o, const char *name, bool *out, struct error *err)
{
	const char *value = opts_get(o, name);

	if (value && parse_bool(value, out) < 0)
		return err_set(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'", name);
	return 0;
}

int opts_get_u32(const struct opts *o, const char *name, u32 *out, struct error *err)
{
	const char *value = opts_get(o, name);
	u64 v;

	if (!value)
		return 0;
	if (parse_u64(value, &v) < 0 || v > UINT32_MAX)
		return err_set(err, -EINVAL, "Parameter '%s' expects a number", name);
	*out = (u32)v;
	return 0;
}

int opts_get_size(const struct opts *o, const char *name, u64 unit, u64 *out, struct error *err)
{
	const char *value = opts_get(o, name);

	if (value && parse_size(value, unit, out) < 0)
		return err_set(err, -EINVAL,
			       "Parameter '%s' expects a non-negative number below 2^64, "
			       "with an optional suffix k, M, G, T, P or E",
			       name);
	return 0;
}

void opts_get_str(const struct opts *o, const char *name, char **out)
{
	const char *value = opts_get(o, name);

	if (!value)
		return;
	free(*out);
	*out = xstrdup(value);
}

/* Bytes that a suffix stands for; 0: no such suffix. */
static u64 suffix_bytes(const char *suffix, u64 unit)
{
	static const char letters[] = "bkmgtpe";
	const char *at;

	if (!*suffix)
		return unit;
	at = strchr(letters, tolower((unsigned char)*suffix));
	return at && !suffix[1] ? (u64)1 << (10 * (at - letters)) : 0;
}

int parse_size(const char *text, u64 unit, u64 *out)
{
	double value;
	u64 whole, scale;
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, &end, 0);
	if (errno)
		return -EINVAL;
	if (*end != '.') {
		scale = suffix_bytes(end, unit);
		return scale && mul_ok(whole, scale, out) ? 0 : -EINVAL;
	}
	value = strtod(text, &end);
	scale = suffix_bytes(end, unit);
	if (!scale || !isfinite(value) || value * (double)scale >= 0x1p63)
		return -EINVAL;
	*out = (u64)(value * (double)scale);
	return 0;
}

int parse_bool(const char *text, bool *out)
{
	static const char *const words[] = {"off", "on", "no", "yes", "false", "true", NULL};
	int at = parse_choice(text, words);

	if (at < 0)
		return at;
	*out = at & 1;
	return 0;
}

int parse_u64(const char *text, u64 *out)
{
	char *end;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, &end, 0);
	return errno || *end ? -EINVAL : 0;
}

bool is_identifier(const char *text)
{
	if (!isalpha((unsigned char)*text))
		return false;
	while (isalnum((unsigned char)*text) || (*text && strchr("-._", *text)))
		text++;
	return !*text;
}

int parse_choice(const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(text, names[i]))
			return i;
	return -EINVAL;
}

void format_size(char *text, u64 bytes)
{
	static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
	double value = (double)bytes;
	unsigned i = 0;

	/* As many digits as tell 1000 from 1023: the next unit begins at 1000. */
	while (value >= 1000 && i + 1 < ARRAY_LEN(units)) {
		value /= 1024;
		i++;
	}
	snprintf(text, 32, "%0.3g %sB", value, units[i]);
}
