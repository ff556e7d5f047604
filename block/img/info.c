/* cowimg info: what an image is, for people and as JSON. */
#define _GNU_SOURCE
#include "block/img/img.h"

#include "block/graph.h"
#include "block/image.h"
#include "block/info/info.h"

#include <errno.h>
#include <stdio.h>

#include <jansson.h>

struct info {
	struct img *ctx;
	struct img_source source;
	bool json, chain;
	FILE *text; /* all of a chain is shown, or nothing */
};

static int print_json(json_t *value)
{
	AUTO_FREE char *text = json_dumps(value, JSON_INDENT(4) | JSON_PRESERVE_ORDER);

	json_decref(value);
	if (!text)
		return IMG_ERROR;
	printf("%s\n", text);
	return IMG_OK;
}

/* One image by name; *next is the name of its backing file, or NULL. */
static int show(struct info *o, const char *name, const char *format, json_t *list, char **next,
		char **next_format)
{
	struct img_source source = o->source;
	struct image *img;

	*next = *next_format = NULL;
	source.format = format;
	source.no_backing = true;
	source.metadata_only = true;
	if (img_open(o->ctx, name, &source, &img))
		return IMG_ERROR;
	o->source.image_opts = false; /* the names of the rest are in the images */
	if (list)
		json_array_append_new(list, info_json(img));
	else
		info_print(o->text, img);
	if (img->backing_name)
		*next = image_resolve_name(image_host_name(img), img->backing_name);
	if (img->backing_format)
		*next_format = xstrdup(img->backing_format);
	image_close(o->ctx->f, img);
	return IMG_OK;
}

#define CHAIN_MOST 1000

static int show_chain(struct info *o, const char *file, json_t *list)
{
	char *name = xstrdup(file), *format = NULL;
	char **seen = xnew_n(char *, CHAIN_MOST);
	unsigned n = 0;
	int code = IMG_OK;

	if (o->source.format)
		format = xstrdup(o->source.format);
	while (name && code == IMG_OK) {
		char *next, *next_format;

		for (unsigned i = 0; i < n; i++)
			if (!strcmp(seen[i], name)) {
				code = img_error(o->ctx,
						 "Backing file '%s' creates an infinite loop.",
						 name);
				goto out;
			}
		if (n && !list)
			fputc('\n', o->text);
		code = show(o, name, format, list, &next, &next_format);
		seen[n++] = name;
		free(format);
		name = next;
		format = next_format;
		if (!o->chain)
			break;
		if (n == CHAIN_MOST)
			code = img_error(o->ctx, "backing chain is longer than %u images", n);
	}
out:
	free(name);
	free(format);
	while (n)
		free(seen[--n]);
	free(seen);
	return code;
}

static int run(struct info *o, const char *file)
{
	json_t *list = o->json ? json_array() : NULL;
	char *text = NULL;
	size_t bytes = 0;
	int code;

	o->text = open_memstream(&text, &bytes);
	assert(o->text);
	code = show_chain(o, file, list);
	fclose(o->text);
	if (code == IMG_OK)
		fputs(text, stdout);
	free(text);
	if (!list)
		return code;
	if (code == IMG_OK)
		code = print_json(o->chain ? json_incref(list)
					   : json_incref(json_array_get(list, 0)));
	json_decref(list);
	return code;
}

int img_info(struct img *ctx, int argc, char **argv)
{
	enum { OPTION_OUTPUT = 256, OPTION_CHAIN };
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						IMG_SOURCE_OPTIONS,
						{"output", required_argument, NULL, OPTION_OUTPUT},
						{"backing-chain", no_argument, NULL, OPTION_CHAIN},
						{0}};
	struct info o = {.ctx = ctx};
	int letter;

	while ((letter = img_getopt(ctx, argc, argv, ":hf:U", options)) != -1) {
		switch (letter) {
		case OPTION_CHAIN: o.chain = true; break;
		case OPTION_OUTPUT:
			o.json = !strcmp(optarg, "json");
			if (!o.json && strcmp(optarg, "human"))
				return img_error(
					ctx,
					"--output must be used with human or json as argument.");
			break;
		default:
			if (img_source_option(ctx, &o.source, letter))
				return IMG_ERROR;
		}
	}
	if (optind != argc - 1)
		return img_usage_error(ctx, "Expecting one image file name");
	return run(&o, argv[optind]);
}
