/* cowimg check: is the metadata right, and repairs. */
#include "block/img/img.h"

#include "block/image.h"

#include <errno.h>
#include <stdio.h>

#include <jansson.h>

struct check {
	struct img *ctx;
	const char *file;
	struct img_source source;
	bool json, fix_leaks, fix_errors;
};

static void print_line(void *arg, const char *text)
{
	struct check *o = arg;

	if (!o->ctx->quiet)
		fprintf(stderr, "%s\n", text);
}

static void print_human(struct check *o, const struct check_result *r)
{
	if (!r->corruptions && !r->leaks && !r->check_errors)
		img_say(o->ctx, "No errors were found on the image.\n");
	if (r->corruptions)
		img_say(o->ctx,
			"\n%llu errors were found on the image.\nData may be corrupted, or further "
			"writes to the image may corrupt it.\n",
			(unsigned long long)r->corruptions);
	if (r->leaks)
		img_say(o->ctx,
			"\n%llu leaked clusters were found on the image.\nThis means waste of disk "
			"space, but no harm to data.\n",
			(unsigned long long)r->leaks);
	if (r->check_errors)
		img_say(o->ctx, "\n%llu internal errors have occurred during the check.\n",
			(unsigned long long)r->check_errors);
	if (r->total_clusters && r->allocated_clusters)
		img_say(o->ctx,
			"%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed "
			"clusters\n",
			(unsigned long long)r->allocated_clusters,
			(unsigned long long)r->total_clusters,
			(double)r->allocated_clusters * 100.0 / (double)r->total_clusters,
			(double)r->fragmented_clusters * 100.0 / (double)r->allocated_clusters,
			(double)r->compressed_clusters * 100.0 / (double)r->allocated_clusters);
	if (r->image_end_bytes)
		img_say(o->ctx, "Image end offset: %llu\n", (unsigned long long)r->image_end_bytes);
}

static void set_count(json_t *o, const char *name, u64 count)
{
	if (count)
		json_object_set_new(o, name, json_integer((json_int_t)count));
}

static void print_json(struct check *c, const char *format, const struct check_result *r)
{
	json_t *o = json_object();

	/* The reference's order. */
	set_count(o, "image-end-offset", r->image_end_bytes);
	set_count(o, "compressed-clusters", r->compressed_clusters);
	set_count(o, "total-clusters", r->total_clusters);
	set_count(o, "corruptions", r->corruptions);
	set_count(o, "corruptions-fixed", r->corruptions_fixed);
	json_object_set_new(o, "check-errors", json_integer((json_int_t)r->check_errors));
	set_count(o, "leaks", r->leaks);
	set_count(o, "leaks-fixed", r->leaks_fixed);
	set_count(o, "allocated-clusters", r->allocated_clusters);
	json_object_set_new(o, "filename", json_string(c->file));
	json_object_set_new(o, "format", json_string(format));
	set_count(o, "fragmented-clusters", r->fragmented_clusters);

	AUTO_FREE char *text = json_dumps(o, JSON_INDENT(4) | JSON_PRESERVE_ORDER);

	json_decref(o);
	img_say(c->ctx, "%s\n", text ? text : "");
}

static int pass(struct check *o, struct image *img, struct check_request *req)
{
	struct error err = {0};
	int ret = img->driver->check(o->ctx->f, img, req, &err);

	if (ret == 0)
		return IMG_OK;
	if (strncmp(err.text, "ERROR ", 6))
		return img_error(o->ctx, "Check failed: %s",
				 err.text[0] ? err.text : strerror(-ret));
	img_error(o->ctx, "%s", err.text);
	return img_error(o->ctx, "Check failed: %s", strerror(-ret));
}

/* Check, repair as asked, and look again at what was repaired. */
static int run(struct check *o, struct image *img)
{
	struct check_request req = {.fix_leaks = o->fix_leaks,
				    .fix_errors = o->fix_errors,
				    .line = print_line,
				    .arg = o};
	struct check_result *r = &req.result;

	if (!img->driver->check) {
		img_error(o->ctx, "This image format does not support checks");
		return IMG_NOT_SUPPORTED;
	}
	if (pass(o, img, &req))
		return IMG_ERROR;
	if (r->corruptions_fixed || r->leaks_fixed) {
		u64 corruptions = r->corruptions_fixed, leaks = r->leaks_fixed;
		bool fixed_leaks = r->leaks_fixed > 0, fixed_errors = r->corruptions_fixed > 0;

		if (!o->json)
			img_say(o->ctx,
				"The following inconsistencies were found and repaired:\n\n"
				"    %llu leaked clusters\n    %llu corruptions\n\n"
				"Double checking the fixed image now...\n",
				(unsigned long long)leaks, (unsigned long long)corruptions);
		req.fix_leaks = req.fix_errors = false;
		*r = (struct check_result){0};
		if (pass(o, img, &req))
			return IMG_ERROR;
		r->leaks_fixed = fixed_leaks ? leaks : 0;
		r->corruptions_fixed = fixed_errors ? corruptions : 0;
	}
	if (o->json)
		print_json(o, img->driver->name, r);
	else
		print_human(o, r);
	if (r->corruptions || r->check_errors)
		return r->check_errors && !r->corruptions ? IMG_ERROR : IMG_CORRUPT;
	return r->leaks ? IMG_LEAKS : IMG_OK;
}

static int open_and_run(struct check *o)
{
	struct image *img;

	o->source.writable = o->fix_leaks || o->fix_errors;
	o->source.no_backing = o->source.check_only = true;
	if (img_open(o->ctx, o->file, &o->source, &img))
		return IMG_ERROR;
	return img_close(o->ctx, img, run(o, img));
}

static int parse_repair(struct check *o, const char *what)
{
	o->fix_leaks = !strcmp(what, "leaks") || !strcmp(what, "all");
	o->fix_errors = !strcmp(what, "all");
	if (o->fix_leaks)
		return IMG_OK;
	return img_usage_error(
		o->ctx, "Unknown option value for -r (expecting 'leaks' or 'all'): %s", what);
}

static int parse_option(struct check *o, int letter)
{
	switch (letter) {
	case 'q': o->ctx->quiet = true; return IMG_OK;
	case 'r': return parse_repair(o, optarg);
	case 'O':
		o->json = !strcmp(optarg, "json");
		if (o->json || !strcmp(optarg, "human"))
			return IMG_OK;
		return img_error(o->ctx, "--output must be used with human or json as argument.");
	default: return img_source_option(o->ctx, &o->source, letter);
	}
}

int img_check(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"repair", required_argument, NULL, 'r'},
						{"output", required_argument, NULL, 'O'},
						IMG_SOURCE_OPTIONS,
						{0}};
	struct check o = {.ctx = ctx};
	int letter;

	while ((letter = img_getopt(ctx, argc, argv, ":hf:r:T:qU", options)) != -1)
		if (parse_option(&o, letter))
			return IMG_ERROR;
	if (optind != argc - 1)
		return img_usage_error(ctx, "Expecting one image file name");
	o.file = argv[optind];
	return open_and_run(&o);
}
