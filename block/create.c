/* Making image files from option lists; see create.h.
 *
 * Messages and their order are the reference's: names and types of options first,
 * then the backing file, then the size; values are judged by the driver after the
 * "Formatting" line.  What can be judged is judged before an existing file is
 * emptied.  Thread: the loop's. */
#include "block/create.h"

#include "block/unlock.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

/* Options of the host file, taken by every format. */
static const struct create_option file_options[] = {
	{"nocow", OPTION_BOOL, "Turn off copy-on-write (valid only on btrfs)", NULL},
	{"preallocation", OPTION_STR, "Preallocation mode (allowed values: off, falloc, full)",
	 NULL},
	{"extent_size_hint", OPTION_SIZE, "Extent size hint for the image file, 0 to disable",
	 NULL},
	{0},
};

/* --- tables ------------------------------------------------------------------ */

static const struct create_option *find_in(const struct create_option *t, const char *name)
{
	for (; t && t->name; t++)
		if (!strcmp(t->name, name))
			return t;
	return NULL;
}

bool create_option_is_known(const struct image_driver *driver, const char *name)
{
	return find_in(driver->create_options, name);
}

static const struct create_option *find_option(const struct create_option *table,
					       const struct create_option *with,
					       const struct opt *opt)
{
	for (const char *name = opt->name;; name += 2) {
		const struct create_option *o = find_in(table, name);

		if (!o)
			o = find_in(with, name);
		if (o || name != opt->name || !opt->bare || strncmp(name, "no", 2) != 0)
			return o;
	}
}

static int size_error(struct error *err, const char *name)
{
	return err_set(err, -EINVAL,
		       "Parameter '%s' expects a non-negative number below 2^64\n"
		       "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
		       "peta-\nand exabytes, respectively.",
		       name);
}

/* Bytes of a size in text; -ERANGE beyond 2^64. */
static int size_value(const char *text, u64 *out)
{
	const char *end = text;
	double value;

	if (parse_size(text, 1, out) == 0)
		return 0;
	value = strtod(text, (char **)&end);
	if (*text < '0' || *text > '9' || end == text ||
	    (*end && (!strchr("bBkKmMgGtTpPeE", *end) || end[1])))
		return -EINVAL;
	return value > 0 ? -ERANGE : -EINVAL;
}

static int check_value(const char *name, enum option_type type, const char *value,
		       struct error *err)
{
	char *end;
	bool on;
	u64 n;

	switch (type) {
	case OPTION_STR: return 0;
	case OPTION_BOOL:
		if (parse_bool(value, &on) == 0 || !strcmp(value, "y") || !strcmp(value, "n"))
			return 0;
		return err_set(err, -EINVAL, "Parameter '%s' expects 'on' or 'off'", name);
	case OPTION_NUM:
		if (parse_u64(value, &n) == 0)
			return 0;
		errno = 0;
		(void)strtoull(value, &end, 0);
		if (errno == ERANGE && !*end)
			return err_set(err, -ERANGE, "Value '%s' is too large for parameter '%s'",
				       value, name);
		return err_set(err, -EINVAL, "Parameter '%s' expects a number", name);
	case OPTION_SIZE:
		if (size_value(value, &n) == 0)
			return 0;
		if (size_value(value, &n) == -ERANGE)
			return err_set(err, -ERANGE,
				       "Value '%s' is out of range for parameter '%s'", value,
				       name);
		return size_error(err, name);
	}
	return 0;
}

int create_options_check(const struct opts *o, const struct create_option *table,
			 const struct create_option *with, struct error *err)
{
	for (unsigned i = 0; i < o->n; i++) {
		const struct opt *opt = &o->v[i];
		const struct create_option *known = find_option(table, with, opt);
		int ret;

		if (!known)
			return err_set(err, -EINVAL, "Invalid parameter '%s'", opt->name);
		ret = check_value(known->name, known->type, opts_get(o, known->name), err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int create_get_size(const struct opts *o, const char *name, u64 *out, struct error *err)
{
	const char *value = opts_get(o, name);

	return value && size_value(value, out) < 0 ? size_error(err, name) : 0;
}

int create_get_prealloc(const struct opts *o, enum prealloc *out, struct error *err)
{
	static const char *const names[] = {"off", "metadata", "falloc", "full", NULL};
	const char *value = opts_get(o, "preallocation");
	int mode;

	if (!value)
		return 0;
	mode = parse_choice(value, names);
	if (mode < 0)
		return err_set(err, mode, "Parameter 'preallocation' does not accept value '%s'",
			       value);
	*out = (enum prealloc)mode;
	return 0;
}

/* --- text ---------------------------------------------------------------------- */

struct text {
	char *s;
	size_t n;
};

static void PRINTF_LIKE(2, 3) add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	t->s = xrealloc(t->s, t->n + (size_t)n + 1);
	va_start(ap, fmt);
	vsnprintf(t->s + t->n, (size_t)n + 1, fmt, ap);
	va_end(ap);
	t->n += (size_t)n;
}

static void add_value(struct text *t, const struct create_option *o, const char *value)
{
	u64 n;

	add(t, " %s=", o->name);
	if (o->type == OPTION_SIZE && size_value(value, &n) == 0) {
		add(t, "%lld", (long long)n);
	} else if (o->type == OPTION_NUM && parse_u64(value, &n) == 0) {
		add(t, "%llu", (unsigned long long)n);
	} else {
		for (; *value; value++)
			add(t, *value == ',' ? ",," : "%c", *value);
	}
}

static void add_values(struct text *t, const struct opts *options, const struct create_option *o,
		       const struct create_option *not_in)
{
	for (; o->name; o++) {
		const char *value = opts_get(options, o->name);

		if (find_in(not_in, o->name))
			continue;
		if (value || o->value)
			add_value(t, o, value ? value : o->value);
	}
}

char *image_create_text(const struct create_request *req)
{
	const struct create_option *own = req->driver->create_options;
	struct text t = {0};

	add(&t, "fmt=%s", req->driver->name);
	add_values(&t, &req->options, own, NULL);
	add_values(&t, &req->options, file_options, own);
	return t.s;
}

static const char *type_text(enum option_type type)
{
	static const char *const names[] = {[OPTION_STR] = "str",
					    [OPTION_BOOL] = "bool (on/off)",
					    [OPTION_NUM] = "num",
					    [OPTION_SIZE] = "size"};

	return names[type];
}

static const struct create_option *next_by_name(const struct create_option *o, const char *after,
						const struct create_option *best)
{
	for (; o && o->name; o++)
		if ((!after || strcmp(o->name, after) > 0) &&
		    (!best || strcmp(o->name, best->name) < 0))
			best = o;
	return best;
}

char *create_options_help(const struct create_option *table, const struct create_option *with)
{
	const struct create_option *o = NULL;
	struct text t = {0};

	add(&t, "%s", "");
	for (;;) {
		const char *after = o ? o->name : NULL;
		size_t start;

		/* The same name in both tables: the first one's text. */
		o = next_by_name(table, after, NULL);
		o = next_by_name(with, after, o);
		if (!o)
			return t.s;
		start = t.n;
		add(&t, "  %s=<%s>", o->name, type_text(o->type));
		add(&t, "%*s - %s\n", (int)(24 - MIN(t.n - start, (size_t)24)), "", o->help);
	}
}

char *image_create_help(const struct image_driver *driver, bool with_file)
{
	return create_options_help(driver->create_options, with_file ? file_options : NULL);
}

/* --- host files -------------------------------------------------------------------- */

int create_host_file(struct fiber *f, const struct create_request *req, const char *path, u64 bytes,
		     struct image **out, struct error *err)
{
	struct open_policy policy = {.writable = true, .cache = req->cache};
	bool nocow = false;
	u64 hint = 0;
	int ret;

	ret = opts_get_bool(&req->options, "nocow", &nocow, err);
	if (ret == 0)
		ret = create_get_size(&req->options, "extent_size_hint", &hint, err);
	if (ret == 0)
		ret = file_create(f, out, path, bytes, &policy, err);
	if (ret < 0)
		return ret;
	file_set_hints(*out, nocow, hint);
	file_set_stop(*out, req->stop);
	return 0;
}

int create_close_file(struct fiber *f, struct image *file, int ret, struct error *err)
{
	AUTO_FREE char *name = xstrdup(file->name);
	int closed = image_close(f, file);

	if (ret == 0 && closed < 0)
		return err_set_errno(err, closed, "Could not close '%s'", name);
	return ret;
}

/* --- requests ------------------------------------------------------------------------ */

void image_create_init(struct create_request *req, const char *format, const char *name)
{
	*req = (struct create_request){.format = format, .name = name};
}

void image_create_fini(struct create_request *req)
{
	opts_fini(&req->options);
}

static int find_format(struct create_request *req, struct error *err)
{
	req->driver = image_driver_find(req->format);
	if (!req->driver)
		return err_set(err, -EINVAL, "Unknown file format '%s'", req->format);
	if (!req->driver->create)
		return err_set(err, -ENOTSUP, "Format driver '%s' does not support image creation",
			       req->format);
	return 0;
}

/* Open the backing image for its size and format. */
static int open_backing(struct fiber *f, struct create_request *req, const char *name,
			struct error *err)
{
	/* For its size and format only: encrypted ones need not be unlocked. */
	static const struct unlock_policy metadata = {.when = UNLOCK_NEVER};
	struct open_policy policy = {.format = opts_get(&req->options, "backing_fmt"),
				     .unlock = &metadata};
	AUTO_FREE char *path = image_resolve_name(req->name, name);
	struct image *img;
	char text[32];
	int ret = image_open(f, &img, path, &policy, err);

	if (ret < 0) {
		char why[sizeof(err->text)];

		memcpy(why, err->text, sizeof(why));
		return err_set(err, ret, "%s\nCould not open backing image.", why);
	}
	if (!policy.format) {
		req->guessed_format = img->driver->name;
		opts_set(&req->options, "backing_fmt", img->driver->name);
	}
	if (!opts_has(&req->options, "size")) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)img->bytes);
		opts_set(&req->options, "size", text);
	}
	return image_close(f, img);
}

static int check_backing(struct fiber *f, struct create_request *req, struct error *err)
{
	const char *name = opts_get(&req->options, "backing_file");

	if (!name)
		return 0;
	if (!*name)
		return err_set(err, -EINVAL, "Expected backing file name, got empty string");
	if (!strcmp(name, req->name))
		return err_set(err, -EINVAL,
			       "Error: Trying to create an image with the same filename as the "
			       "backing file");
	if (!req->unsafe_backing)
		return open_backing(f, req, name, err);
	if (!opts_has(&req->options, "backing_fmt"))
		return err_set(err, -EINVAL, "Backing file specified without backing format");
	return 0;
}

int image_create_check(struct create_request *req, struct error *err)
{
	int ret = find_format(req, err);

	if (ret < 0)
		return ret;
	return create_options_check(&req->options, req->driver->create_options, file_options, err);
}

int image_create_prepare(struct fiber *f, struct create_request *req, struct error *err)
{
	int ret = image_create_check(req, err);

	if (ret == 0)
		ret = check_backing(f, req, err);
	if (ret < 0)
		return ret;
	if (!opts_has(&req->options, "size"))
		return err_set(err, -EINVAL, "Image creation needs a size parameter");
	return create_get_size(&req->options, "size", &req->bytes, err);
}

int image_create_run(struct fiber *f, struct create_request *req, struct error *err)
{
	assert(req->driver);
	if (req->bytes > INT64_MAX)
		return err_set(err, -EFBIG,
			       "Could not resize image: Image size cannot be negative");
	return req->driver->create(f, req, err);
}

int image_create(struct fiber *f, struct create_request *req, struct error *err)
{
	int ret = image_create_prepare(f, req, err);

	return ret < 0 ? ret : image_create_run(f, req, err);
}
