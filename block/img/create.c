/* cowimg create: empty images and overlays. */
#include "block/img/img.h"

#include "block/create.h"
#include "block/driver.h"
#include "block/img/progress.h"

#include <errno.h>
#include <stdio.h>

struct create {
	struct img *ctx;
	struct create_request req;
};

static int fail(struct create *c, const struct error *err)
{
	return img_error(c->ctx, "%s: %s", c->req.name, err->text);
}

static int print_options(struct create *c)
{
	const struct image_driver *driver = image_driver_find(c->req.format);
	AUTO_FREE char *text = NULL;

	if (!driver)
		return img_error(c->ctx, "Unknown file format '%s'", c->req.format);
	if (!driver->create)
		return img_error(c->ctx, "Format driver '%s' does not support image creation",
				 c->req.format);
	text = image_create_help(driver, c->req.name);
	if (c->req.name)
		printf("Supported options:\n%s", text);
	else
		printf("Supported %s options:\n%s\n"
		       "The protocol level may support further options.\n"
		       "Specify the target filename to include those options.\n",
		       driver->name, text);
	return IMG_OK;
}

/* The reference asks for -F; old scripts know no such thing: warn. */
static void warn_guessed(struct create *c)
{
	if (!c->req.guessed_format)
		return;
	fflush(stdout);
	fprintf(stderr,
		"%s: warning: %s: Backing file specified without backing format: detected format "
		"of %s\n",
		c->ctx->program, c->req.name, c->req.guessed_format);
}

static int create_image(struct create *c)
{
	struct img_progress progress;
	struct error err = {0};
	AUTO_FREE char *text = NULL;
	int ret;

	if (image_create_prepare(c->ctx->f, &c->req, &err) < 0)
		return fail(c, &err);
	warn_guessed(c);
	text = image_create_text(&c->req);
	img_say(c->ctx, "Formatting '%s', %s\n", c->req.name, text);
	fflush(stdout);
	img_progress_begin(c->ctx, &progress, false);
	c->req.stop = c->ctx->stop;
	ret = image_create_run(c->ctx->f, &c->req, &err);
	img_progress_end(&progress, ret == 0);
	return ret < 0 ? fail(c, &err) : IMG_OK;
}

/* --- command line -------------------------------------------------------------- */

/* -b and -F are stronger than -o, wherever they stand. */
struct words {
	const char *backing_file, *backing_format;
	bool help;
};

static int parse_option(struct create *c, int letter, struct words *w)
{
	switch (letter) {
	case 'f': c->req.format = optarg; break;
	case 'b': w->backing_file = optarg; break;
	case 'F': w->backing_format = optarg; break;
	case 'u': c->req.unsafe_backing = true; break;
	case 'q': c->ctx->quiet = true; break;
	case 'o': return img_add_options(c->ctx, &c->req.options, optarg, &w->help);
	default: return IMG_ERROR;
	}
	return IMG_OK;
}

static int parse_size_argument(struct create *c, const char *text)
{
	u64 bytes;
	int ret = img_parse_size(text, &bytes);

	if (ret == 0) {
		if (opts_has(&c->req.options, "size"))
			return img_error(c->ctx, "%s: The image size must be specified only once",
					 c->req.name);
		opts_set(&c->req.options, "size", text);
		return IMG_OK;
	}
	if (ret == -ERANGE)
		return img_error(c->ctx,
				 "Invalid image size specified. Must be between 0 and %lld.",
				 (long long)INT64_MAX);
	img_error(c->ctx,
		  "Invalid image size specified. You may use k, M, G, T, P or E suffixes for");
	return img_error(c->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

/* A raw image names no backing file. */
static int add_backing(struct create *c, const struct words *w)
{
	const struct image_driver *driver = image_driver_find(c->req.format);
	bool takes = !driver || create_option_is_known(driver, "backing_file");

	if (w->backing_file && !takes)
		return img_error(c->ctx, "%s: Backing file not supported for file format '%s'",
				 c->req.name, c->req.format);
	if (w->backing_format && !takes)
		return img_error(c->ctx,
				 "%s: Backing file format not supported for file format '%s'",
				 c->req.name, c->req.format);
	if (w->backing_file)
		opts_set(&c->req.options, "backing_file", w->backing_file);
	if (w->backing_format)
		opts_set(&c->req.options, "backing_fmt", w->backing_format);
	return IMG_OK;
}

static int run(struct create *c, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"quiet", no_argument, NULL, 'q'}, {0}};
	struct words w = {0};
	int letter;

	while ((letter = img_getopt(c->ctx, argc, argv, ":f:b:F:uqo:h", options)) != -1)
		if (parse_option(c, letter, &w))
			return IMG_ERROR;
	c->req.name = optind < argc ? argv[optind] : NULL;
	if (w.help)
		return print_options(c);
	if (!c->req.name)
		return img_usage_error(c->ctx, "Expecting image file name");
	if (optind + 2 < argc)
		return img_usage_error(c->ctx, "Unexpected argument: %s", argv[optind + 2]);
	if (optind + 1 < argc && parse_size_argument(c, argv[optind + 1]))
		return IMG_ERROR;
	if (add_backing(c, &w))
		return IMG_ERROR;
	return create_image(c);
}

int img_create(struct img *ctx, int argc, char **argv)
{
	struct create c = {.ctx = ctx};
	int code;

	image_create_init(&c.req, "raw", NULL);
	c.req.unlock = &ctx->unlock;
	code = run(&c, argc, argv);
	image_create_fini(&c.req);
	return code;
}
