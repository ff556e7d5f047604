/* cowimg amend: other options for an image that is there. */
#include "block/img/img.h"

#include "base/opts.h"
#include "block/amend.h"
#include "block/create.h"
#include "block/img/progress.h"

#include <errno.h>
#include <stdio.h>

enum { OPTION_FORCE = 256 };

struct amend {
	struct img *ctx;
	struct img_source source;
	struct opts options;
	bool has_options, help, show, force;
	struct img_progress progress;
};

static void on_progress(void *arg, u64 done, u64 total)
{
	struct amend *o = arg;

	img_progress_set(&o->progress, done, total);
}

static int refuse_format(struct amend *o, const char *name)
{
	return img_error(o->ctx, "Format driver '%s' does not support option amendment", name);
}

static int print_help(struct amend *o, const struct image_driver *driver)
{
	AUTO_FREE char *text = NULL;

	if (!driver->amend)
		return refuse_format(o, driver->name);
	text = create_options_help(driver->amend_options, NULL);
	printf("Amend options for '%s':\n%s", driver->name, text);
	return IMG_OK;
}

/* Options of creation that cannot be changed get a word more. */
static int check_options(struct amend *o, const struct image_driver *driver)
{
	struct error err = {0};

	for (unsigned i = 0; i < o->options.n; i++) {
		const char *name = o->options.v[i].name;
		const struct create_option *known = driver->amend_options;

		while (known->name && strcmp(known->name, name))
			known++;
		if (!known->name && create_option_is_known(driver, name)) {
			img_error(o->ctx, "Invalid parameter '%s'", name);
			fprintf(stderr, "This option is only supported for image creation\n");
			return IMG_ERROR;
		}
	}
	if (create_options_check(&o->options, driver->amend_options, NULL, &err) < 0)
		return img_error(o->ctx, "%s", err.text);
	return IMG_OK;
}

static int change(struct amend *o, struct image *img)
{
	struct amend_request req = {.options = &o->options,
				    .force = o->force,
				    .unlock = &o->ctx->unlock,
				    .progress = on_progress,
				    .arg = o};
	struct error err = {0};
	int ret;

	if (check_options(o, img->driver))
		return IMG_ERROR;
	img_progress_begin(o->ctx, &o->progress, o->show);
	ret = img->driver->amend(o->ctx->f, img, &req, &err);
	img_progress_end(&o->progress, ret == 0);
	return ret < 0 ? img_error(o->ctx, "%s", err.text) : IMG_OK;
}

static int open_and_run(struct amend *o, const char *file)
{
	struct image *img;
	int code;

	o->source.writable = true;
	if (img_open(o->ctx, file, &o->source, &img))
		return IMG_ERROR;
	if (!img->driver->amend)
		code = refuse_format(o, img->driver->name);
	else
		code = o->help ? print_help(o, img->driver) : change(o, img);
	return img_close(o->ctx, img, code);
}

static int run(struct amend *o, int argc, char **argv)
{
	const struct image_driver *driver;

	if (!o->has_options)
		return img_usage_error(o->ctx, "Must specify options (-o)");
	if (o->help && o->source.format) {
		driver = image_driver_find(o->source.format);
		if (!driver)
			return img_error(o->ctx, "Unknown file format '%s'", o->source.format);
		return print_help(o, driver);
	}
	if (optind != argc - 1)
		return img_error(o->ctx, "Expecting one image file name");
	return open_and_run(o, argv[optind]);
}

static int parse_option(struct amend *o, int letter)
{
	switch (letter) {
	case 'o':
		o->has_options = true;
		return img_add_options(o->ctx, &o->options, optarg, &o->help);
	case 'p': o->show = true; return IMG_OK;
	case 'q': o->ctx->quiet = true; return IMG_OK;
	case OPTION_FORCE: o->force = true; return IMG_OK;
	default: return img_source_option(o->ctx, &o->source, letter);
	}
}

int img_amend(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"image-opts", no_argument, NULL,
						 IMG_OPTION_IMAGE_OPTS},
						{"force", no_argument, NULL, OPTION_FORCE},
						{0}};
	struct amend o = {.ctx = ctx, .source = {.cache_is_target = true}};
	int letter, code = IMG_OK;

	while (code == IMG_OK &&
	       (letter = img_getopt(ctx, argc, argv, ":ho:pqf:t:", options)) != -1)
		code = parse_option(&o, letter);
	if (ctx->quiet)
		o.show = false;
	if (code == IMG_OK)
		code = run(&o, argc, argv);
	opts_fini(&o.options);
	return code;
}
