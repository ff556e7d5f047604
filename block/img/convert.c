/* cowimg convert: the command line.
 *
 * Messages, and which of several comes first, are the reference's. */
#include "block/img/convert.h"

#include "block/create.h"
#include "block/driver.h"
#include "block/img/copy.h"

#include <errno.h>
#include <stdio.h>

#define MAX_SPARSE_BYTES (16 * MiB)

enum {
	OPTION_TARGET_IMAGE_OPTS = 256,
	OPTION_SALVAGE,
	OPTION_TARGET_IS_ZERO,
	OPTION_BITMAPS,
	OPTION_SKIP_BROKEN,
};

static int size_of(struct convert *c, const char *what, u64 *out)
{
	if (img_parse_size(optarg, out) == 0)
		return IMG_OK;
	img_error(c->ctx, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
		  what);
	return img_error(c->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

static int parse_sparse(struct convert *c)
{
	u64 bytes;

	if (size_of(c, "buffer size for sparse output", &bytes))
		return IMG_ERROR;
	if (!is_aligned(bytes, 512) || bytes > MAX_SPARSE_BYTES)
		return img_error(c->ctx,
				 "Invalid buffer size for sparse output specified. Valid sizes "
				 "are multiples of 512 up to %llu. Select 0 to disable sparse "
				 "detection (fully allocates output).",
				 (unsigned long long)MAX_SPARSE_BYTES);
	c->sparse_bytes = bytes;
	c->sparse_given = true;
	return IMG_OK;
}

static int parse_workers(struct convert *c)
{
	u64 n;

	if (parse_u64(optarg, &n) < 0 || !n || n > COPY_WORKERS)
		return img_error(c->ctx,
				 "Invalid number of coroutines. Allowed number of coroutines is "
				 "between 1 and %d",
				 COPY_WORKERS);
	c->workers = (unsigned)n;
	return IMG_OK;
}

/* A tag or id, or "snapshot.id=ID,snapshot.name=TAG". */
static int parse_snapshot(struct convert *c)
{
	struct opts opts = {0};
	struct error err = {0};
	int code = IMG_OK;

	c->snapshot = optarg;
	if (strncmp(optarg, "snapshot.", 9) != 0)
		return IMG_OK;
	if (opts_parse(&opts, optarg, NULL, &err) < 0 ||
	    opts_check(&opts, "snapshot.id snapshot.name", &err) < 0) {
		img_error(c->ctx, "%s", err.text);
		code = img_error(c->ctx, "Failed in parsing snapshot param '%s'", optarg);
	}
	opts_fini(&opts);
	return code;
}

/* Options that take a value that is judged at once. */
static int parse_value(struct convert *c, int letter)
{
	switch (letter) {
	case 'S': return parse_sparse(c);
	case 'm': return parse_workers(c);
	case 'r': return size_of(c, "rate limit", &c->rate);
	case 'l': return parse_snapshot(c);
	case 'o': return img_add_options(c->ctx, &c->options, optarg, &c->help);
	default: return img_source_option(c->ctx, &c->source, letter);
	}
}

static int parse_option(struct convert *c, int letter)
{
	switch (letter) {
	case 'O': c->out_format = optarg; break;
	case 't': c->out_cache = optarg; break;
	case 'B': c->backing = optarg; break;
	case 'F': c->backing_format = optarg; break;
	case 'C': c->offload = true; break;
	case 'c': c->compress = true; break;
	case 'p': c->progress = true; break;
	case 'q': c->ctx->quiet = true; break;
	case 'n': c->skip_create = true; break;
	case 'W': c->out_of_order = true; break;
	case OPTION_TARGET_IMAGE_OPTS: c->out_image_opts = true; break;
	case OPTION_SALVAGE: c->salvage = true; break;
	case OPTION_TARGET_IS_ZERO: c->target_is_zero = true; break;
	case OPTION_BITMAPS: c->bitmaps = true; break;
	case OPTION_SKIP_BROKEN: c->skip_broken_bitmaps = true; break;
	default: return parse_value(c, letter);
	}
	return IMG_OK;
}

int convert_help(struct convert *c)
{
	const char *format = c->out_format ? c->out_format : "raw";
	const struct image_driver *driver = image_driver_find(format);
	AUTO_FREE char *text = NULL;

	if (!driver)
		return img_error(c->ctx, "Unknown file format '%s'", format);
	if (!driver->create)
		return img_error(c->ctx, "Format driver '%s' does not support image creation",
				 format);
	text = image_create_help(driver, c->n_names);
	if (c->n_names)
		printf("Supported options:\n%s", text);
	else
		printf("Supported %s options:\n%s\n"
		       "The protocol level may support further options.\n"
		       "Specify the target filename to include those options.\n",
		       driver->name, text);
	return IMG_OK;
}

/* Words that exclude one another. */
static int judge(struct convert *c)
{
	if (c->skip_broken_bitmaps && !c->bitmaps)
		return img_error(c->ctx, "Use of --skip-broken-bitmaps requires --bitmaps");
	if (c->skip_create && c->options.n)
		return img_error(c->ctx, "-o has no effect when skipping image creation");
	if (c->offload && c->sparse_given)
		return img_error(c->ctx, "Cannot enable copy offloading when -S is used");
	if (c->offload && c->compress)
		return img_error(c->ctx, "Cannot enable copy offloading when -c is used");
	if (c->offload && c->salvage)
		return img_error(c->ctx, "Cannot use copy offloading in salvaging mode");
	if (c->out_image_opts && !c->skip_create)
		return img_error(c->ctx, "--target-image-opts requires use of -n flag");
	if (c->target_is_zero && !c->skip_create)
		return img_error(c->ctx, "--target-is-zero requires use of -n flag");
	if (!c->n_names)
		return img_error(c->ctx, "Must specify image file name");
	return IMG_OK;
}

static int parse(struct convert *c, int argc, char **argv)
{
	static const struct option options[] = {
		IMG_SOURCE_OPTIONS,
		{"help", no_argument, NULL, 'h'},
		{"source-image-opts", no_argument, NULL, IMG_OPTION_IMAGE_OPTS},
		{"target-image-opts", no_argument, NULL, OPTION_TARGET_IMAGE_OPTS},
		{"salvage", no_argument, NULL, OPTION_SALVAGE},
		{"target-is-zero", no_argument, NULL, OPTION_TARGET_IS_ZERO},
		{"bitmaps", no_argument, NULL, OPTION_BITMAPS},
		{"skip-broken-bitmaps", no_argument, NULL, OPTION_SKIP_BROKEN},
		{0}};
	int letter;

	while ((letter = img_getopt(c->ctx, argc, argv,
				    ":hf:O:B:CcF:o:l:S:pt:T:qnm:WUr:", options)) != -1)
		if (parse_option(c, letter))
			return IMG_ERROR;
	if (optind + 1 < argc) {
		c->names = argv + optind;
		c->n_names = (unsigned)(argc - optind - 1);
		c->target = argv[argc - 1];
	}
	return c->help && !c->skip_create ? IMG_OK : judge(c);
}

int img_convert(struct img *ctx, int argc, char **argv)
{
	struct convert c = {.ctx = ctx, .sparse_bytes = 4096, .workers = 8};
	int code = parse(&c, argc, argv);

	if (code == IMG_OK)
		code = c.help ? convert_help(&c) : convert_run(&c);
	opts_fini(&c.options);
	return code;
}
