/* cowimg snapshot: list, create, apply, delete, extract, measure and verify internal
 * snapshots. */
#include "block/img/snapshot.h"

#include "block/driver.h"
#include "block/image.h"
#include "block/info/info.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"
#include "block/qcow2/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

enum { OPTION_TREE = 256, OPTION_OUTPUT, OPTION_VERIFY };

struct snapshot {
	struct img *ctx;
	const char *file, *name;
	int action; /* the letter of the option, 0: none */
	struct img_source source;
	struct image *img;
	struct snapshot_extract extract;
	const char *output; /* --output, of --tree */
};

static bool has_snapshots(const struct snapshot *o)
{
	return o->img->driver == &qcow2_driver;
}

static int create(struct snapshot *o)
{
	struct qcow2_new_snapshot s = {.name = o->name};
	struct timespec now;
	int ret = -ENOTSUP;

	clock_gettime(CLOCK_REALTIME, &now);
	s.date_sec = (u32)now.tv_sec;
	s.date_nsec = (u32)now.tv_nsec;
	if (has_snapshots(o))
		ret = qcow2_snapshot_create(o->ctx->f, o->img, &s);
	if (ret == 0)
		return IMG_OK;
	return img_error(o->ctx, "Could not create snapshot '%s': %d (%s)", o->name, ret,
			 strerror(-ret));
}

static bool has_bitmaps(struct image *img)
{
	struct qcow2_bitmap *list;
	u32 n = qcow2_bitmaps_list(img, &list);

	free(list);
	return n > 0;
}

static int apply(struct snapshot *o)
{
	struct error err = {0};
	struct qcow2_info info;
	int ret;

	if (!has_snapshots(o))
		return img_error(o->ctx,
				 "Could not apply snapshot '%s': Block driver does not support "
				 "snapshots",
				 o->name);
	if (has_bitmaps(o->img)) /* they would no longer tell what changed */
		return img_error(o->ctx,
				 "Could not apply snapshot '%s': Device has active dirty bitmaps",
				 o->name);
	qcow2_get_info(o->img, &info);
	ret = info.data_file ? -ENOTSUP : qcow2_snapshot_find(o->img, o->name, FIND_ID_OR_NAME);
	if (ret >= 0) {
		ret = qcow2_snapshot_apply(o->ctx->f, o->img, (u32)ret, &err);
		if (ret < 0)
			img_error(o->ctx, "%s", err.text);
	}
	if (ret == 0)
		return IMG_OK;
	return img_error(o->ctx, "Could not apply snapshot '%s': Failed to load snapshot: %s",
			 o->name, strerror(-ret));
}

static int delete (struct snapshot *o)
{
	struct error err = {0};
	int at = has_snapshots(o) ? qcow2_snapshot_find(o->img, o->name, FIND_NAME) : -ENOENT;

	if (at < 0)
		return img_error(o->ctx, "Could not delete snapshot '%s': snapshot not found",
				 o->name);
	if (qcow2_snapshot_delete(o->ctx->f, o->img, (u32)at, &err) == 0)
		return IMG_OK;
	return img_error(o->ctx, "Could not delete snapshot '%s': %s", o->name, err.text);
}

static int act(struct snapshot *o)
{
	switch (o->action) {
	case 'l': info_print_snapshots(stdout, o->img); return IMG_OK;
	case 'c': return create(o);
	case 'a': return apply(o);
	case 'd': return delete (o);
	case OPTION_TREE: return snapshot_tree(o->ctx, o->img, o->output && *o->output == 'j');
	case OPTION_VERIFY: return snapshot_verify(o->ctx, o->img, o->name, o->extract.progress);
	default: return IMG_OK;
	}
}

static int run(struct snapshot *o)
{
	bool looks = o->action == 'l' || o->action >= OPTION_TREE;

	o->source.writable = o->source.discard = !looks;
	if (o->action == OPTION_TREE) /* guest data is not looked at */
		o->source.metadata_only = o->source.no_backing = true;
	if (o->action == OPTION_VERIFY)
		o->source.no_backing = true;
	if (img_open(o->ctx, o->file, &o->source, &o->img))
		return IMG_ERROR;
	return img_close(o->ctx, o->img, act(o));
}

/* One action; the reference does not know of ours. */
static int take_action(struct snapshot *o, int letter)
{
	bool ours = letter == 'e' || letter >= OPTION_TREE || o->action == 'e' ||
		    o->action >= OPTION_TREE;

	if (o->action && ours)
		return img_usage_error(o->ctx, "Cannot mix '-l', '-a', '-c', '-d', '-e', '--tree', "
					       "'--verify'");
	if (o->action)
		return img_usage_error(o->ctx, "Cannot mix '-l', '-a', '-c', '-d'");
	o->action = letter;
	o->name = optarg;
	return IMG_OK;
}

static int take_output(struct snapshot *o)
{
	o->output = optarg;
	if (!strcmp(optarg, "json") || !strcmp(optarg, "human"))
		return IMG_OK;
	return img_error(o->ctx, "--output must be used with human or json as argument.");
}

static int take_option(struct snapshot *o, int letter)
{
	switch (letter) {
	case 'q': o->ctx->quiet = true; return IMG_OK;
	case 'l':
	case 'a':
	case 'c':
	case 'd':
	case 'e':
	case OPTION_VERIFY:
	case OPTION_TREE: return take_action(o, letter);
	case OPTION_OUTPUT: return take_output(o);
	case 'O':
	case 'o':
	case 'p': return snapshot_extract_option(o->ctx, &o->extract, letter);
	default: return img_source_option(o->ctx, &o->source, letter);
	}
}

static int extract(struct snapshot *o, int argc, char **argv)
{
	if (optind != argc - 2)
		return img_usage_error(o->ctx, "Expecting one image file name and the name of "
					       "the image to make");
	o->extract.snapshot = o->name;
	o->extract.files = argv + optind;
	return snapshot_extract(o->ctx, &o->extract, &o->source);
}

/* What is left of the command line, once the options are read. */
static int go(struct snapshot *o, int argc, char **argv)
{
	bool verify = o->action == OPTION_VERIFY;

	if (o->action == 'e')
		return extract(o, argc, argv);
	if (o->extract.given &&
	    !(verify && o->extract.progress && !o->extract.format && !o->extract.options.n))
		return img_usage_error(o->ctx, "-O, -o and -p are for -e");
	if (o->output && o->action != OPTION_TREE)
		return img_usage_error(o->ctx, "--output is for --tree");
	if (verify && optind == argc - 2)
		o->name = argv[optind++];
	else if (verify)
		o->name = NULL;
	if (optind != argc - 1)
		return img_usage_error(o->ctx, "Expecting one image file name");
	o->file = argv[optind];
	return run(o);
}

int img_snapshot(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"image-opts", no_argument, NULL,
						 IMG_OPTION_IMAGE_OPTS},
						{"force-share", no_argument, NULL, 'U'},
						{"output", required_argument, NULL, OPTION_OUTPUT},
						{"tree", no_argument, NULL, OPTION_TREE},
						{"verify", no_argument, NULL, OPTION_VERIFY},
						{0}};
	struct snapshot o = {.ctx = ctx};
	int letter, code = IMG_OK;

	while (code == IMG_OK &&
	       (letter = img_getopt(ctx, argc, argv, ":hla:c:d:e:O:o:pqU", options)) != -1)
		code = take_option(&o, letter);
	code = code == IMG_OK ? go(&o, argc, argv) : IMG_ERROR;
	opts_fini(&o.extract.options);
	return code;
}
