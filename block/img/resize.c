/* cowimg resize: grow or shrink an image. */
#include "block/img/img.h"

#include "base/opts.h"
#include "block/image.h"

#include <errno.h>
#include <stdio.h>

struct resize {
	struct img *ctx;
	const char *file, *size;
	struct img_source source;
	enum prealloc mode;
	bool shrink;
};

static int new_bytes(struct resize *o, const struct image *img, u64 *bytes)
{
	char sign = *o->size;
	u64 value;
	int ret = img_parse_size(o->size + (sign == '+' || sign == '-'), &value);

	if (ret == -ERANGE && parse_size(o->size, 1, &value) == 0)
		return img_error(o->ctx, "New image size must be positive");
	if (ret < 0) {
		img_error(o->ctx, "Parameter 'size' expects a non-negative number below 2^64");
		fprintf(stderr, "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, "
				"tera-, peta-\nand exabytes, respectively.\n");
		return IMG_ERROR;
	}
	if (sign == '-')
		*bytes = value < img->bytes ? img->bytes - value : 0;
	else
		*bytes = sign == '+' ? img->bytes + value : value;
	if (!*bytes)
		return img_error(o->ctx, "New image size must be positive");
	if (*bytes > INT64_MAX)
		return img_error(o->ctx, "New image size must be positive");
	return IMG_OK;
}

static int run(struct resize *o, struct image *img)
{
	struct error err = {0};
	u64 bytes = 0;

	if (new_bytes(o, img, &bytes))
		return IMG_ERROR;
	if (bytes <= img->bytes && o->mode != PREALLOC_OFF)
		return img_error(o->ctx, "Preallocation can only be used for growing images");
	if (bytes < img->bytes && !o->shrink) {
		img_error(o->ctx, "Use the --shrink option to perform a shrink operation.");
		return img_error(
			o->ctx,
			"warning: Shrinking an image will delete all data beyond the shrunken "
			"image's end. Before performing such an operation, make sure there is "
			"no important data there.");
	}
	if (image_resize_alloc(o->ctx->f, img, bytes, o->mode, &err) < 0)
		return img_error(o->ctx, "%s", err.text);
	return IMG_OK;
}

static int open_and_run(struct resize *o)
{
	struct image *img;
	int code;

	o->source.writable = true;
	if (img_open(o->ctx, o->file, &o->source, &img))
		return IMG_ERROR;
	code = img_close(o->ctx, img, run(o, img));
	if (code == IMG_OK)
		img_say(o->ctx, "Image resized.\n");
	return code;
}

static int parse_mode(struct resize *o, const char *text)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
	int mode = parse_choice(text, modes);

	if (mode < 0)
		return img_error(o->ctx, "Invalid preallocation mode '%s'", text);
	o->mode = (enum prealloc)mode;
	return IMG_OK;
}

/* "-10M" is a size, not options: take it off before getopt sees it. */
static const char *take_size(int *argc, char **argv)
{
	return *argc > 2 ? argv[--*argc] : NULL;
}

int img_resize(struct img *ctx, int argc, char **argv)
{
	enum { OPTION_SHRINK = 256, OPTION_PREALLOCATION };
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						IMG_SOURCE_OPTIONS,
						{"shrink", no_argument, NULL, OPTION_SHRINK},
						{"preallocation", required_argument, NULL,
						 OPTION_PREALLOCATION},
						{0}};
	struct resize o = {.ctx = ctx, .size = take_size(&argc, argv)};
	int letter;

	if (!o.size)
		return img_usage_error(ctx, "Not enough arguments");
	while ((letter = img_getopt(ctx, argc, argv, ":hf:q", options)) != -1) {
		switch (letter) {
		case 'q': ctx->quiet = true; break;
		case OPTION_SHRINK: o.shrink = true; break;
		case OPTION_PREALLOCATION:
			if (parse_mode(&o, optarg))
				return IMG_ERROR;
			break;
		default:
			if (img_source_option(ctx, &o.source, letter))
				return IMG_ERROR;
		}
	}
	if (optind != argc - 1)
		return img_usage_error(ctx, "Expecting image file name and size");
	o.file = argv[optind];
	return open_and_run(&o);
}
