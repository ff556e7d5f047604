/* cowimg convert: sources and target, and what becomes of the target at the end.
 *
 * A target that we made and could not fill is removed.  One that was there (-n)
 * gets its first bytes last: interrupted, it does not look like a disk. */
#include "block/img/convert.h"

#include "base/log.h"

#include "block/info/info.h"

#include "block/create.h"
#include "block/driver.h"
#include "block/file.h"
#include "block/img/copy.h"
#include "block/img/progress.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>

struct run {
	struct convert *c;
	struct img *ctx;
	struct copy copy;
	struct img_progress progress;
	bool began; /* progress: signals are taken */
	bool made;  /* the target is ours to take away */
	struct create_request req;
	struct image *target;
	bool backed; /* -B or -o backing_file */
};

/* --- sources ----------------------------------------------------------------------- */

static int open_sources(struct run *r)
{
	struct convert *c = r->c;
	struct copy *copy = &r->copy;
	struct img_source how = c->source;
	u64 start = 0;

	how.snapshot = c->n_names == 1 ? c->snapshot : NULL;
	copy->sources = xnew_n(struct copy_source, c->n_names);
	for (unsigned i = 0; i < c->n_names; i++) {
		struct image *img;

		if (img_open(r->ctx, c->names[i], &how, &img))
			return IMG_ERROR;
		copy->sources[copy->n_sources++] = (struct copy_source){img, start};
		if (!add_ok(start, img->bytes, &start) || start > INT64_MAX)
			return img_error(r->ctx, "the images are too large together");
	}
	copy->bytes = start;
	if (how.snapshot && copy->sources[0].img->driver != &qcow2_driver)
		return img_error(r->ctx,
				 "Failed to load snapshot: Block format '%s' used by device '' "
				 "does not support temporarily loading internal snapshots",
				 copy->sources[0].img->driver->name);
	if (c->snapshot && c->n_names > 1)
		return img_error(r->ctx, "No support for concatenating multiple snapshot");
	return IMG_OK;
}

static void close_sources(struct run *r)
{
	for (unsigned i = 0; i < r->copy.n_sources; i++)
		(void)image_close(r->ctx->f, r->copy.sources[i].img);
	free(r->copy.sources);
}

/* --- the target -------------------------------------------------------------------- */

/* -B and -F, as far as the format has such a thing. */
static int add_backing(struct run *r)
{
	struct convert *c = r->c;
	bool takes = create_option_is_known(r->req.driver, "backing_file");

	if (c->backing && !takes)
		return img_error(r->ctx, "Backing file not supported for file format '%s'",
				 c->out_format);
	if (c->backing_format && !takes)
		return img_error(r->ctx, "Backing file format not supported for file format '%s'",
				 c->out_format);
	if (c->backing)
		opts_set(&r->req.options, "backing_file", c->backing);
	if (c->backing_format)
		opts_set(&r->req.options, "backing_fmt", c->backing_format);
	r->backed = opts_has(&r->req.options, "backing_file");
	if (r->backed && c->n_names > 1)
		return img_error(r->ctx, "Having a backing file for the target makes no sense when "
					 "concatenating multiple input images");
	if (r->backed && !opts_has(&r->req.options, "backing_fmt"))
		return img_error(r->ctx, "Use of backing file requires explicit backing format");
	return IMG_OK;
}

static int check_compression(struct run *r)
{
	const char *preallocation = opts_get(&r->req.options, "preallocation");
	const char *encryption = opts_get(&r->req.options, "encryption");
	bool encrypted = opts_has(&r->req.options, "encrypt.format");

	if (!r->c->compress)
		return IMG_OK;
	if (strcmp(r->c->out_format, "qcow2") != 0)
		return img_error(r->ctx, "Compression not supported for this file format");
	if (encryption && (parse_bool(encryption, &encrypted) < 0 || encrypted))
		encrypted = true;
	if (encrypted)
		return img_error(r->ctx,
				 "Compression and encryption not supported at the same time");
	if (preallocation && strcmp(preallocation, "off") != 0)
		return img_error(r->ctx,
				 "Compression and preallocation not supported at the same time");
	return IMG_OK;
}

/* Everything about the target that needs no touching of it. */
static int prepare_target(struct run *r)
{
	struct convert *c = r->c;
	struct error err = {0};
	char size[32];

	r->req.options = c->options;
	c->options = (struct opts){0};
	if (image_create_check(&r->req, &err) < 0)
		return img_error(r->ctx, "%s", err.text);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)r->copy.bytes);
	opts_set(&r->req.options, "size", size);
	return add_backing(r) || check_compression(r) ? IMG_ERROR : IMG_OK;
}

static int create_target(struct run *r)
{
	struct error err = {0};
	int ret;

	/* What is missing of the backing chain is said when the target is opened. */
	r->req.unsafe_backing = true;
	r->ctx->unlock.when = UNLOCK_NOW;
	r->req.unlock = &r->ctx->unlock;
	r->req.cache = CACHE_UNSAFE;
	r->req.stop = r->ctx->stop;
	ret = image_create_prepare(r->ctx->f, &r->req, &err);
	if (ret == 0)
		ret = image_create_run(r->ctx->f, &r->req, &err);
	if (ret < 0)
		return img_error(r->ctx, "%s: error while converting %s: %s", r->c->target,
				 r->c->out_format, err.text);
	return IMG_OK;
}

/* What the new image was encrypted with opens it, too. */
static void add_secrets(struct run *r, struct opts *to)
{
	static const char *const names[] = {"encrypt.format", "encrypt.key-secret", "key-secret"};

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		const char *value = opts_get(&r->req.options, names[i]);

		if (value)
			opts_set(to, names[i], value);
	}
}

static int open_created(struct run *r)
{
	struct open_policy policy = {.writable = true,
				     .format = r->c->out_format,
				     .unlock = &r->ctx->unlock,
				     .cache = CACHE_UNSAFE};
	struct opts secrets = {0};
	struct error err = {0};
	int ret;

	if (r->c->out_cache && img_parse_cache(r->c->out_cache, &policy) < 0)
		return img_error(r->ctx, "Invalid cache option: %s", r->c->out_cache);
	add_secrets(r, &secrets);
	policy.options = secrets.n ? &secrets : NULL;
	ret = image_open(r->ctx->f, &r->target, r->c->target, &policy, &err);
	opts_fini(&secrets);
	if (ret < 0) {
		r->target = NULL;
		return img_error(r->ctx, "Could not open '%s': %s", r->c->target, err.text);
	}
	return IMG_OK;
}

static int open_existing(struct run *r)
{
	struct img_source how = {.format = r->c->out_format,
				 .cache = r->c->out_cache ? r->c->out_cache : "unsafe",
				 .cache_is_target = true,
				 .image_opts = r->c->out_image_opts,
				 .writable = true};

	r->backed = r->c->backing;
	if (img_open(r->ctx, r->c->target, &how, &r->target))
		return IMG_ERROR;
	if (r->c->compress && r->target->driver != &qcow2_driver)
		return img_error(r->ctx, "Compression not supported for this file format");
	if (r->target->bytes < r->copy.bytes)
		return img_error(r->ctx, "output file is smaller than input file");
	/* The reference says so, too, but reports success. */
	if (r->c->target_is_zero && r->backed)
		return img_error(r->ctx, "Cannot use --target-is-zero when the destination image "
					 "has a backing file");
	return IMG_OK;
}

/* --- bitmaps ------------------------------------------------------------------------ */

/* What would stop us at the end is said before anything is made. */
static int check_bitmaps(struct run *r)
{
	struct image *source = r->copy.sources[0].img;
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	struct qcow2_info info;
	u32 n;

	if (r->c->n_names > 1)
		return img_error(r->ctx, "Copying bitmaps only possible with single source");
	if (source->driver == &qcow2_driver)
		qcow2_get_info(source, &info);
	if (source->driver != &qcow2_driver || info.version < 3)
		return img_error(r->ctx, "Source lacks bitmap support");
	n = qcow2_bitmaps_list(source, &list);
	for (u32 i = 0; i < n && !r->c->skip_broken_bitmaps; i++) {
		if (!list[i].in_use)
			continue;
		img_error(r->ctx, "Cannot copy inconsistent bitmap '%s'", list[i].name);
		fprintf(stderr,
			"Try --skip-broken-bitmaps, or use '%s bitmap --remove' to delete it\n",
			r->ctx->program);
		return IMG_ERROR;
	}
	return IMG_OK;
}

static int check_bitmap_target(struct run *r)
{
	const char *format = r->target->driver->name;
	struct qcow2_info info;

	if (r->target->driver == &qcow2_driver) {
		qcow2_get_info(r->target, &info);
		if (info.version > 2)
			return IMG_OK;
	}
	return img_error(r->ctx, "Format driver '%s' does not support bitmaps", format);
}

static int copy_bitmaps(struct run *r)
{
	struct image *source = r->copy.sources[0].img;
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	struct error err = {0};
	u32 n = qcow2_bitmaps_list(source, &list);

	for (u32 i = 0; i < n; i++)
		if (list[i].in_use)
			log_warn("Skipping inconsistent bitmap '%s'", list[i].name);
	if (qcow2_bitmaps_copy(r->ctx->f, r->target, source, &err) < 0)
		return img_error(r->ctx, "%s", err.text);
	return IMG_OK;
}

/* --- copying ----------------------------------------------------------------------- */

static u64 target_granule(struct image *target, bool compress)
{
	struct qcow2_info info;

	if (target->driver != &qcow2_driver)
		return 4096;
	qcow2_get_info(target, &info);
	return info.extended_l2 && !compress ? info.cluster_bytes / 32 : info.cluster_bytes;
}

/* A target that was there before, and may hold anything: empty it at once, if that
 * costs nothing. */
static bool make_zero(struct run *r)
{
	if (r->backed || !r->c->sparse_bytes || r->progress.interrupted)
		return false;
	return image_zero(r->ctx->f, r->target, 0, r->copy.bytes,
			  ZERO_MAY_UNMAP | ZERO_NO_FALLBACK) == 0;
}

/* Where nothing was written: encrypted blocks that are there decrypt to noise. */
static bool fresh_is_zero(const struct run *r)
{
	const char *mode = opts_get(&r->req.options, "preallocation");

	if (!info_is_encrypted(r->target))
		return true;
	return r->target->driver == &qcow2_driver && (!mode || !strcmp(mode, "off"));
}

static int copy(struct run *r)
{
	struct convert *c = r->c;
	struct copy *copy = &r->copy;
	struct image *backing = r->target->backing;

	copy->ctx = r->ctx;
	copy->target = r->target;
	copy->progress = &r->progress;
	copy->sparse_bytes = c->sparse_bytes;
	copy->granule = target_granule(r->target, c->compress);
	copy->compress = c->compress;
	copy->in_order = !c->out_of_order;
	copy->salvage = c->salvage;
	copy->offload = c->offload;
	copy->workers = c->workers;
	copy->rate = c->rate;
	copy->backed = r->backed;
	copy->backed_bytes = backing ? backing->bytes : 0;
	copy->target_is_zero =
		c->skip_create ? c->target_is_zero || make_zero(r) : !r->backed && fresh_is_zero(r);
	copy->head_last = c->skip_create && !r->backed && !c->compress;
	return copy_run(copy);
}

void img_remove_name(struct img *ctx, const char *name)
{
	struct open_policy policy = {.format = "file"};
	struct error ignored = {0};
	struct image *file;

	if (image_open(ctx->f, &file, name, &policy, &ignored) < 0)
		return;
	file_remove(file);
	image_close(ctx->f, file);
}

static int with_target(struct run *r)
{
	struct convert *c = r->c;
	int code;

	/* Before there is a target: an empty one looks complete. */
	img_progress_begin(r->ctx, &r->progress, false);
	r->began = true;
	code = c->skip_create ? IMG_OK : create_target(r);
	if (code != IMG_OK)
		return code;
	r->made = !c->skip_create;
	code = r->made ? open_created(r) : open_existing(r);
	if (code == IMG_OK && c->bitmaps)
		code = check_bitmap_target(r);
	if (code != IMG_OK)
		return code;
	img_progress_show(&r->progress, c->progress);
	code = copy(r);
	if (code == IMG_OK && c->bitmaps)
		code = copy_bitmaps(r);
	return code;
}

/* What we made and could not fill or close: what is written last may be what the disk
 * has no room for. */
static void take_away(struct run *r)
{
	const char *data = opts_get(&r->req.options, "data_file");

	img_remove_name(r->ctx, r->c->target);
	if (data)
		img_remove_name(r->ctx, data);
}

int convert_run(struct convert *c)
{
	struct run r = {.c = c, .ctx = c->ctx};
	int code;

	if (!c->out_format && !c->out_image_opts)
		c->out_format = "raw";
	image_create_init(&r.req, c->out_format, c->target);
	code = open_sources(&r);
	if (code == IMG_OK && !c->skip_create)
		code = prepare_target(&r);
	if (code == IMG_OK && c->bitmaps)
		code = check_bitmaps(&r);
	if (code == IMG_OK)
		code = with_target(&r);
	if (r.target)
		code = img_close(r.ctx, r.target, code);
	if (code != IMG_OK && r.made)
		take_away(&r);
	if (r.began) /* not before: closing writes the tables that make it an image */
		img_progress_end(&r.progress, code == IMG_OK);
	close_sources(&r);
	image_create_fini(&r.req);
	return code;
}
