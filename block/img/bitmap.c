/* cowimg bitmap: persistent dirty bitmaps of an image.
 *
 * The actions are done in the order they are given, each durable before the next
 * begins; the first that fails ends it.  Memory: what is set in one bitmap. */
#include "block/img/img.h"

#include "block/image.h"
#include "block/qcow2/bitmap.h"

#include <errno.h>
#include <stdio.h>

enum action_kind { ADD = 256, REMOVE, CLEAR, ENABLE, DISABLE, MERGE };

struct action {
	enum action_kind kind;
	const char *from; /* MERGE */
};

struct bitmap {
	struct img *ctx;
	struct img_source target, source; /* source: where --merge reads */
	const char *source_file, *file, *name;
	u64 granularity;
	bool has_granularity;
	struct action *actions;
	unsigned n;
	struct image *img, *source_img;
};

static const char *action_name(enum action_kind kind)
{
	static const char *const names[] = {"add", "remove", "clear", "enable", "disable", "merge"};

	return names[kind - ADD];
}

/* Is there an action of this kind? */
static bool has(const struct bitmap *o, enum action_kind kind)
{
	for (unsigned i = 0; i < o->n; i++)
		if (o->actions[i].kind == kind)
			return true;
	return false;
}

/* A bitmap that is added and disabled never was enabled. */
static bool starts_enabled(const struct bitmap *o, unsigned i)
{
	while (++i < o->n)
		if (o->actions[i].kind == DISABLE)
			return false;
	return true;
}

static int act(struct bitmap *o, unsigned i, struct error *err)
{
	const struct action *a = &o->actions[i];
	struct qcow2_bitmap fresh = {.name = o->name,
				     .granularity_bytes = o->granularity,
				     .automatic = starts_enabled(o, i)};

	switch (a->kind) {
	case ADD: return qcow2_bitmap_add(o->ctx->f, o->img, &fresh, err);
	case REMOVE: return qcow2_bitmap_remove(o->ctx->f, o->img, o->name, err);
	case CLEAR: return qcow2_bitmap_clear(o->ctx->f, o->img, o->name, err);
	case ENABLE: return qcow2_bitmap_enable(o->ctx->f, o->img, o->name, true, err);
	case DISABLE: return qcow2_bitmap_enable(o->ctx->f, o->img, o->name, false, err);
	case MERGE:
		return qcow2_bitmap_merge(o->ctx->f, o->img, o->name,
					  o->source_img ? o->source_img : o->img, a->from, err);
	}
	return -EINVAL;
}

static int act_all(struct bitmap *o)
{
	for (unsigned i = 0; i < o->n; i++) {
		struct error err = {0};

		if (act(o, i, &err) < 0)
			return img_error(o->ctx, "Operation %s on bitmap %s failed: %s",
					 action_name(o->actions[i].kind), o->name, err.text);
	}
	return IMG_OK;
}

static int run(struct bitmap *o)
{
	int code;

	o->target.writable = true;
	code = img_open(o->ctx, o->file, &o->target, &o->img);
	if (code)
		return code;
	if (o->source_file)
		code = img_open(o->ctx, o->source_file, &o->source, &o->source_img);
	if (code == IMG_OK)
		code = act_all(o);
	if (o->source_img)
		image_close(o->ctx->f, o->source_img);
	return img_close(o->ctx, o->img, code);
}

/* --- the command line --- */

static int parse_granularity(struct bitmap *o)
{
	int ret = img_parse_size(optarg, &o->granularity);

	o->has_granularity = true;
	if (ret == 0)
		return IMG_OK;
	if (ret == -ERANGE)
		return img_error(o->ctx, "Invalid granularity specified. Must be less than 8 EiB!");
	img_error(o->ctx, "Invalid granularity specified. You may use k, M, G, T, P or E suffixes "
			  "for");
	return img_error(o->ctx, "kilobytes, megabytes, gigabytes, terabytes, petabytes and "
				 "exabytes.");
}

static void add_action(struct bitmap *o, enum action_kind kind)
{
	struct action *a = xnew_n(struct action, o->n + 1);

	if (o->n)
		memcpy(a, o->actions, o->n * sizeof(*a));
	free(o->actions);
	o->actions = a;
	a[o->n++] = (struct action){kind, kind == MERGE ? optarg : NULL};
}

static int parse_option(struct bitmap *o, int letter)
{
	switch (letter) {
	case 'b': o->source_file = optarg; return IMG_OK;
	case 'F': o->source.format = optarg; return IMG_OK;
	case 'g': return parse_granularity(o);
	default: break;
	}
	if (letter < ADD || letter > MERGE)
		return img_source_option(o->ctx, &o->target, letter);
	add_action(o, letter);
	return IMG_OK;
}

static int judge(struct bitmap *o, int rest)
{
	if (!o->n)
		return img_error(o->ctx, "Need at least one of --add, --remove, --clear, "
					 "--enable, --disable, or --merge");
	if (rest != 2)
		return img_error(o->ctx, "Expecting filename and bitmap name");
	if (o->has_granularity && !has(o, ADD))
		return img_error(o->ctx, "granularity only supported with --add");
	if (o->source_file && !has(o, MERGE))
		return img_error(o->ctx, "Merge bitmap source file only supported with --merge");
	if (o->source.format && !o->source_file)
		return img_error(o->ctx, "-F only supported with -b");
	return IMG_OK;
}

int img_bitmap(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"image-opts", no_argument, NULL,
						 IMG_OPTION_IMAGE_OPTS},
						{"format", required_argument, NULL, 'f'},
						{"source-file", required_argument, NULL, 'b'},
						{"source-format", required_argument, NULL, 'F'},
						{"granularity", required_argument, NULL, 'g'},
						{"add", no_argument, NULL, ADD},
						{"remove", no_argument, NULL, REMOVE},
						{"clear", no_argument, NULL, CLEAR},
						{"enable", no_argument, NULL, ENABLE},
						{"disable", no_argument, NULL, DISABLE},
						{"merge", required_argument, NULL, MERGE},
						{0}};
	struct bitmap o = {.ctx = ctx};
	int letter, code = IMG_OK;

	while (code == IMG_OK &&
	       (letter = img_getopt(ctx, argc, argv, ":b:f:F:g:h", options)) != -1)
		code = parse_option(&o, letter);
	if (code == IMG_OK)
		code = judge(&o, argc - optind);
	if (code == IMG_OK) {
		o.file = argv[optind];
		o.name = argv[optind + 1];
		code = run(&o);
	}
	free(o.actions);
	return code;
}
