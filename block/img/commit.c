/* cowimg commit: merge an image into its backing image, or one further behind.
 *
 * The base is durable before the overlay is emptied, and the overlay shows the
 * same at every moment: a run that was cut off can be done again. */
#include "block/img/img.h"

#include "block/driver.h"
#include "block/graph.h"
#include "block/img/progress.h"
#include "block/job_commit.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>

struct commit {
	struct img *ctx;
	struct img_source source;
	const char *base_name;
	bool drop, show; /* -d: the overlay is dropped by the user, do not empty it */
	u64 rate;
	struct img_progress progress;
};

static bool on_progress(struct fiber *f, void *arg, u64 done, u64 total)
{
	struct commit *c = arg;

	img_progress_set(&c->progress, done, total);
	return !c->progress.interrupted;
}

static struct image *find_base(struct commit *c, struct image *top)
{
	if (!c->base_name) {
		if (!top->backing)
			img_error(c->ctx, "Image does not have a backing file");
		return top->backing;
	}
	for (struct image *img = top; img->backing; img = img->backing)
		if (image_has_name(img->backing, img, c->base_name))
			return img->backing;
	img_error(c->ctx, "Did not find '%s' in the backing chain of '%s'", c->base_name,
		  top->name);
	return NULL;
}

static int empty_overlay(struct commit *c, struct image *top)
{
	int ret = -ENOTSUP;

	if (top->driver == &qcow2_driver)
		ret = qcow2_make_empty(c->ctx->f, top);
	if (ret < 0)
		return img_error(c->ctx, "Could not empty %s: %s", top->name, strerror(-ret));
	return IMG_OK;
}

static int merge(struct commit *c, struct image *top)
{
	struct image *base = find_base(c, top);
	struct error err = {0};
	struct commit_job job = {.top = top, .rate = c->rate, .progress = on_progress, .arg = c};
	int ret;

	if (!base)
		return IMG_ERROR;
	if (image_set_writable(c->ctx->f, base, true, &err) < 0)
		return img_error(c->ctx, "%s", err.text);
	job.base = base;
	img_progress_begin(c->ctx, &c->progress, c->show);
	ret = commit_run(c->ctx->f, &job, &err);
	img_progress_end(&c->progress, ret == 0);
	if (ret < 0)
		return img_error(c->ctx, "%s", err.text);
	return c->drop ? IMG_OK : empty_overlay(c, top);
}

static int run(struct commit *c, const char *name)
{
	struct image *top;
	int code;

	c->source.writable = true;
	if (img_open(c->ctx, name, &c->source, &top))
		return IMG_ERROR;
	code = img_close(c->ctx, top, merge(c, top));
	if (code == IMG_OK)
		img_say(c->ctx, "Image committed.\n");
	return code;
}

static int parse_rate(struct commit *c)
{
	int ret = img_parse_size(optarg, &c->rate);

	if (ret == -ERANGE)
		return img_error(c->ctx, "Invalid rate limit specified. Must be between 0 and "
					 "9223372036854775807.");
	if (ret == 0)
		return IMG_OK;
	img_error(c->ctx, "Invalid rate limit specified. You may use k, M, G, T, P or E suffixes "
			  "for");
	return img_error(c->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

static int parse_option(struct commit *c, int letter)
{
	switch (letter) {
	case 'b':
		c->base_name = optarg;
		c->drop = true; /* images between the two would be wrong about it */
		return IMG_OK;
	case 'd': c->drop = true; return IMG_OK;
	case 'p': c->show = true; return IMG_OK;
	case 'q': c->ctx->quiet = true; return IMG_OK;
	case 'r': return parse_rate(c);
	default: return img_source_option(c->ctx, &c->source, letter);
	}
}

int img_commit(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, IMG_SOURCE_OPTIONS, {0}};
	struct commit c = {.ctx = ctx};
	int letter;

	while ((letter = img_getopt(ctx, argc, argv, ":f:ht:b:dpqr:", options)) != -1)
		if (parse_option(&c, letter))
			return IMG_ERROR;
	if (optind != argc - 1)
		return img_usage_error(ctx, "Expecting one image file name");
	return run(&c, argv[optind]);
}
