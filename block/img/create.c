/* cowimg create: empty images and overlays. */
#include "block/img/img.h"

#include "base/io.h"
#include "base/opts.h"
#include "block/file.h"
#include "block/image.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>

/* Options a format takes, in the order of the "Formatting" line. */
struct create_option {
	const char *name, *type, *help;
	const char *value; /* default, printed when not given; NULL: printed when given */
};

static const struct create_option qcow2_options[] = {
	{"cluster_size", "size", "qcow2 cluster size", "65536"},
	{"extended_l2", "bool (on/off)", "Extended L2 tables", "off"},
	{"preallocation", "str", "Preallocation mode (allowed values: off, metadata)", NULL},
	{"compression_type", "str", "Compression method used for image cluster compression",
	 "zlib"},
	{"size", "size", "Virtual disk size", NULL},
	{"compat", "str", "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
	{"backing_file", "str", "File name of a base image", NULL},
	{"backing_fmt", "str", "Image format of the base image", NULL},
	{"lazy_refcounts", "bool (on/off)", "Postpone refcount updates", "off"},
	{"refcount_bits", "num", "Width of a reference count entry in bits", "16"},
	{0},
};

static const struct create_option raw_options[] = {
	{"size", "size", "Virtual disk size", NULL},
	{0},
};

struct create {
	struct img *ctx;
	const char *file, *format;
	struct opts options;
	bool unsafe_backing; /* -u: do not open it */
	const struct create_option *known;
	u64 bytes;
};

static int fail(struct create *c, struct error *err)
{
	return img_error(c->ctx, "%s: %s", c->file, err->text);
}

static const struct create_option *find_option(const struct create_option *o, const char *name)
{
	for (; o->name; o++)
		if (!strcmp(o->name, name))
			return o;
	return NULL;
}

static int print_options(const struct create_option *o)
{
	printf("Supported options:\n");
	for (; o->name; o++) {
		int n = printf("  %s=<%s>", o->name, o->type);

		printf("%*s - %s\n", MAX(24 - n, 0), "", o->help);
	}
	return IMG_OK;
}

static int check_options(struct create *c)
{
	for (unsigned i = 0; i < c->options.n; i++)
		if (!find_option(c->known, c->options.v[i].name))
			return img_error(c->ctx, "%s: Invalid parameter '%s'", c->file,
					 c->options.v[i].name);
	return IMG_OK;
}

static void print_formatting(struct create *c)
{
	u64 bytes;

	img_say(c->ctx, "Formatting '%s', fmt=%s", c->file, c->format);
	for (const struct create_option *o = c->known; o->name; o++) {
		const char *value = opts_get(&c->options, o->name);

		if (!value)
			value = o->value;
		if (!value)
			continue;
		if (!strcmp(o->type, "size") && img_parse_size(value, &bytes) == 0)
			img_say(c->ctx, " %s=%llu", o->name, (unsigned long long)bytes);
		else
			img_say(c->ctx, " %s=%s", o->name, value);
	}
	img_say(c->ctx, "\n");
}

/* --- values ----------------------------------------------------------------------- */

static int option_bool(struct create *c, const char *name, bool *out)
{
	const char *value = opts_get(&c->options, name);

	*out = value && (!strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true"));
	if (!value || *out || !strcmp(value, "off") || !strcmp(value, "no") ||
	    !strcmp(value, "false"))
		return IMG_OK;
	return img_error(c->ctx, "%s: Parameter '%s' expects 'on' or 'off'", c->file, name);
}

static int option_u64(struct create *c, const char *name, u64 *out)
{
	const char *value = opts_get(&c->options, name);

	*out = 0;
	if (!value)
		return IMG_OK;
	if (img_parse_size(value, out) < 0)
		return img_error(c->ctx,
				 "%s: Parameter '%s' expects a non-negative number below 2^64",
				 c->file, name);
	/* A zero that was asked for is as wrong as any other width. */
	if (!*out)
		*out = UINT32_MAX;
	return IMG_OK;
}

static int option_version(struct create *c, u32 *version)
{
	const char *value = opts_get(&c->options, "compat");

	*version = 3;
	if (!value || !strcmp(value, "1.1") || !strcmp(value, "v3"))
		return IMG_OK;
	*version = 2;
	if (!strcmp(value, "0.10") || !strcmp(value, "v2"))
		return IMG_OK;
	return img_error(c->ctx, "%s: Parameter 'version' does not accept value '%s'", c->file,
			 value);
}

/* Options of later storeys of the block layer: named, not ignored. */
static int option_refused(struct create *c)
{
	const char *value = opts_get(&c->options, "compression_type");
	bool extended;

	if (option_bool(c, "extended_l2", &extended))
		return IMG_ERROR;
	if (extended)
		return img_error(c->ctx, "%s: extended_l2=on is not supported", c->file);
	if (value && strcmp(value, "zlib"))
		return img_error(c->ctx, "%s: compression_type=%s is not supported, expected zlib",
				 c->file, value);
	value = opts_get(&c->options, "preallocation");
	if (value && strcmp(value, "off") && strcmp(value, "metadata"))
		return img_error(c->ctx,
				 "%s: preallocation=%s is not supported, expected off or metadata",
				 c->file, value);
	return IMG_OK;
}

static int qcow2_values(struct create *c, struct qcow2_create_options *q)
{
	const char *value;
	u64 n;

	*q = (struct qcow2_create_options){.bytes = c->bytes};
	if (option_version(c, &q->version) || option_refused(c) ||
	    option_bool(c, "lazy_refcounts", &q->lazy_refcounts))
		return IMG_ERROR;
	if (option_u64(c, "cluster_size", &n))
		return IMG_ERROR;
	if (n && (!is_pow2(n) || n < 512 || n > 2 * MiB))
		return img_error(c->ctx,
				 "%s: Cluster size must be a power of two between 512 and 2048k",
				 c->file);
	q->cluster_bytes = (u32)n;
	if (option_u64(c, "refcount_bits", &n))
		return IMG_ERROR;
	if (n && (!is_pow2(n) || n > 64))
		return img_error(
			c->ctx,
			"%s: Refcount width must be a power of two and may not exceed 64 bits",
			c->file);
	q->refcount_bits = (u32)n;
	if (q->version == 2 && n && n != 16)
		return img_error(c->ctx,
				 "%s: Different refcount widths than 16 bits require compatibility "
				 "level 1.1 or above (use version=v3 or greater)",
				 c->file);
	if (q->version == 2 && q->lazy_refcounts)
		return img_error(c->ctx,
				 "%s: Lazy refcounts only supported with compatibility level 1.1 "
				 "and above (use version=v3 or greater)",
				 c->file);
	value = opts_get(&c->options, "preallocation");
	q->preallocate_metadata = value && !strcmp(value, "metadata");
	q->backing_file = opts_get(&c->options, "backing_file");
	q->backing_format = opts_get(&c->options, "backing_fmt");
	if (q->backing_file && q->preallocate_metadata)
		return img_error(c->ctx,
				 "%s: Backing file and preallocation can only be used at the same "
				 "time if extended_l2 is on",
				 c->file);
	return IMG_OK;
}

/* --- backing file ---------------------------------------------------------------------- */

/* Open the backing image for its size and format. */
static int open_backing(struct create *c, const char *name, struct error *err)
{
	struct open_policy policy = {.format = opts_get(&c->options, "backing_fmt")};
	AUTO_FREE char *path = image_resolve_name(c->file, name);
	const char *format = policy.format;
	struct image *img;
	char text[32];
	int ret;

	ret = image_open(c->ctx->f, &img, path, &policy, err);
	if (ret < 0)
		return ret;
	if (!format) {
		/* The reference asks for -F; old scripts know no such thing: warn. */
		fflush(stdout);
		fprintf(stderr,
			"%s: warning: %s: Backing file specified without backing format: "
			"detected format of %s\n",
			c->ctx->program, c->file, img->driver->name);
		opts_set(&c->options, "backing_fmt", img->driver->name);
	}
	if (!opts_get(&c->options, "size")) {
		snprintf(text, sizeof(text), "%llu", (unsigned long long)img->bytes);
		opts_set(&c->options, "size", text);
	}
	return image_close(c->ctx->f, img);
}

static int check_backing(struct create *c)
{
	const char *name = opts_get(&c->options, "backing_file");
	struct error err = {0};

	if (!name || c->unsafe_backing)
		return IMG_OK;
	if (!strcmp(name, c->file))
		return img_error(c->ctx,
				 "%s: Error: Trying to create an image with the same filename as "
				 "the backing file",
				 c->file);
	if (open_backing(c, name, &err) < 0)
		return img_error(c->ctx, "%s: %s\nCould not open backing image.", c->file,
				 err.text);
	return IMG_OK;
}

/* --- making it --------------------------------------------------------------------------- */

static int create_raw(struct create *c, struct error *err)
{
	struct open_policy policy = {.writable = true};
	struct image *file;
	int ret;

	ret = file_create(c->ctx->f, &file, c->file, align_up(c->bytes, 512), &policy, err);
	return ret < 0 ? ret : image_close(c->ctx->f, file);
}

static int create_qcow2(struct create *c, const struct qcow2_create_options *q, struct error *err)
{
	struct open_policy policy = {.writable = true};
	struct image *file;
	int ret, closed;

	ret = file_create(c->ctx->f, &file, c->file, 0, &policy, err);
	if (ret < 0)
		return ret;
	ret = qcow2_create(c->ctx->f, file, q, err);
	closed = image_close(c->ctx->f, file);
	if (ret == 0 && closed < 0)
		return err_set_errno(err, closed, "Could not close '%s'", c->file);
	return ret;
}

static int create_image(struct create *c)
{
	const char *size = opts_get(&c->options, "size");
	struct qcow2_create_options q;
	struct error err = {0};
	int ret;

	if (!size)
		return img_error(c->ctx, "%s: Image creation needs a size parameter", c->file);
	if (img_parse_size(size, &c->bytes) < 0)
		return img_error(c->ctx,
				 "%s: Parameter 'size' expects a non-negative number below 2^64",
				 c->file);
	print_formatting(c);
	if (opts_get(&c->options, "backing_fmt") && !opts_get(&c->options, "backing_file"))
		return img_error(c->ctx, "%s: Backing format cannot be used without backing file",
				 c->file);
	if (!strcmp(c->format, "raw")) {
		ret = create_raw(c, &err);
	} else {
		if (qcow2_values(c, &q))
			return IMG_ERROR;
		ret = create_qcow2(c, &q, &err);
	}
	return ret < 0 ? fail(c, &err) : IMG_OK;
}

/* --- command line -------------------------------------------------------------------------- */

static int add_list(struct create *c, const char *text)
{
	struct error err = {0};

	if (*text && opts_append(&c->options, text, NULL, &err) == 0)
		return IMG_OK;
	return img_error(c->ctx, "Invalid option list: %s", text);
}

static int parse_option(struct create *c, int letter, bool *help)
{
	switch (letter) {
	case 'f': c->format = optarg; break;
	case 'b': opts_set(&c->options, "backing_file", optarg); break;
	case 'F': opts_set(&c->options, "backing_fmt", optarg); break;
	case 'u': c->unsafe_backing = true; break;
	case 'q': c->ctx->quiet = true; break;
	case 'o':
		if (!strcmp(optarg, "help") || !strcmp(optarg, "?"))
			*help = true;
		else
			return add_list(c, optarg);
		break;
	default: return IMG_ERROR;
	}
	return IMG_OK;
}

static int parse_size_argument(struct create *c, const char *text)
{
	u64 bytes;
	int ret = img_parse_size(text, &bytes);

	if (ret == 0) {
		opts_set(&c->options, "size", text);
		return IMG_OK;
	}
	if (ret == -ERANGE || *text == '-')
		return img_error(c->ctx,
				 "Invalid image size specified. Must be between 0 and %lld.",
				 (long long)INT64_MAX);
	img_error(c->ctx,
		  "Invalid image size specified. You may use k, M, G, T, P or E suffixes for");
	return img_error(c->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

static int check_format(struct create *c)
{
	bool raw = !strcmp(c->format, "raw");

	if (!raw && strcmp(c->format, "qcow2"))
		return img_error(c->ctx, "%s: Unknown file format '%s'", c->file ? c->file : "",
				 c->format);
	c->known = raw ? raw_options : qcow2_options;
	if (raw && opts_get(&c->options, "backing_file"))
		return img_error(c->ctx, "%s: Backing file not supported for file format 'raw'",
				 c->file);
	return IMG_OK;
}

static int run(struct create *c, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"quiet", no_argument, NULL, 'q'}, {0}};
	bool help = false;
	int letter;

	while ((letter = img_getopt(c->ctx, argc, argv, ":f:b:F:uqo:h", options)) != -1)
		if (parse_option(c, letter, &help))
			return IMG_ERROR;
	c->file = optind < argc ? argv[optind] : NULL;
	if (help)
		return check_format(c) ? IMG_ERROR : print_options(c->known);
	if (!c->file)
		return img_usage_error(c->ctx, "Expecting image file name");
	if (optind + 2 < argc)
		return img_usage_error(c->ctx, "Unexpected argument: %s", argv[optind + 2]);
	if (optind + 1 < argc && parse_size_argument(c, argv[optind + 1]))
		return IMG_ERROR;
	if (check_format(c) || check_options(c) || check_backing(c))
		return IMG_ERROR;
	return create_image(c);
}

int img_create(struct img *ctx, int argc, char **argv)
{
	struct create c = {.ctx = ctx, .format = "raw"};
	int code = run(&c, argc, argv);

	opts_fini(&c.options);
	return code;
}
