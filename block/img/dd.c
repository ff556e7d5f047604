/* cowimg dd: a range of one image into a fresh one, block by block.
 *
 * Sizes are the reference's, its surprise included: with count= and skip= both
 * given, the blocks skipped count among `count`. */
#include "block/img/img.h"

#include "block/create.h"
#include "block/driver.h"
#include "block/img/convert.h"
#include "block/img/progress.h"

#include <errno.h>
#include <stdio.h>

struct dd {
	struct img *ctx;
	struct img_source how;
	const char *in, *out, *out_format;
	u64 block_bytes, count, skip;
	bool has_count;
	struct img_progress progress;
};

/* --- copying --------------------------------------------------------------------- */

static int copy_blocks(struct dd *d, struct image *from, struct image *to, u64 end)
{
	AUTO_FREE u8 *buf = try_alloc_aligned(align_up(d->block_bytes, 4096), 4096);
	u64 start = d->skip * d->block_bytes, at = start;
	int code = IMG_OK, ret;

	if (!buf)
		return img_error(d->ctx, "cannot get memory for blocks of %llu bytes",
				 (unsigned long long)d->block_bytes);
	while (at < end && code == IMG_OK) {
		u64 bytes = MIN(d->block_bytes, end - at);

		ret = image_pread(d->ctx->f, from, at, buf, bytes);
		if (ret < 0) {
			code = img_error(d->ctx, "error while reading from input image file: %s",
					 strerror(-ret));
			break;
		}
		ret = image_pwrite(d->ctx->f, to, at - start, buf, bytes);
		if (ret < 0)
			code = img_error(d->ctx, "error while writing to output image file: %s",
					 strerror(-ret));
		if (code == IMG_OK && d->progress.interrupted)
			code = img_error(d->ctx, "interrupted: '%s' is not complete", d->out);
		at += bytes;
		img_progress_set(&d->progress, at - start, end - start);
	}
	return code;
}

/* --- sizes and images --------------------------------------------------------------- */

/* Where reading ends, and what the target holds. */
static void find_sizes(const struct dd *d, const struct image *from, u64 *end, u64 *out_bytes)
{
	u64 limit, skipped;

	*end = from->bytes;
	if (d->has_count && mul_ok(d->count, d->block_bytes, &limit) && limit < *end)
		*end = limit;
	*out_bytes = 0;
	if (mul_ok(d->skip, d->block_bytes, &skipped) && skipped <= *end)
		*out_bytes = *end - skipped;
}

static int create_target(struct dd *d, u64 bytes)
{
	struct create_request req;
	struct error err = {0};
	char size[32];
	int ret;

	image_create_init(&req, d->out_format, d->out);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)bytes);
	opts_set(&req.options, "size", size);
	req.cache = CACHE_UNSAFE;
	req.unlock = &d->ctx->unlock;
	req.stop = d->ctx->stop;
	ret = image_create(d->ctx->f, &req, &err);
	image_create_fini(&req);
	if (ret < 0)
		return img_error(d->ctx, "%s: error while creating output image: %s", d->out,
				 err.text);
	return IMG_OK;
}

static int fill_target(struct dd *d, struct image *from, u64 end, u64 bytes)
{
	struct img_source how = {.format = d->out_format, .writable = true, .cache = "unsafe"};
	struct image *to;
	int code;

	if (img_open(d->ctx, d->out, &how, &to))
		return IMG_ERROR;
	if (d->skip && !bytes) /* no failure to the reference */
		img_error(d->ctx, "%s: cannot skip to specified offset", d->in);
	code = bytes ? copy_blocks(d, from, to, end) : IMG_OK;
	return img_close(d->ctx, to, code);
}

static int copy(struct dd *d, struct image *from)
{
	u64 end, bytes;
	int code;

	find_sizes(d, from, &end, &bytes);
	img_progress_begin(d->ctx, &d->progress, false);
	code = create_target(d, bytes);
	if (code == IMG_OK) {
		code = fill_target(d, from, end, bytes);
		if (code != IMG_OK)
			img_remove_name(d->ctx, d->out);
	}
	img_progress_end(&d->progress, code == IMG_OK);
	return code;
}

/* --- command line ------------------------------------------------------------------- */

static int parse_number(struct dd *d, const char *name, const char *text, u64 *out)
{
	int ret = img_parse_size(text, out);
	bool block = !strcmp(name, "bs");

	if (ret == -ERANGE || (ret == 0 && block && (!*out || *out > INT32_MAX)))
		return img_error(d->ctx, "Invalid %s specified. Must be between %d and %lld.", name,
				 block, block ? (long long)INT32_MAX : (long long)INT64_MAX);
	if (ret == 0)
		return IMG_OK;
	img_error(d->ctx, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
		  name);
	return img_error(d->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

static int parse_operand(struct dd *d, char *text)
{
	char *value = strchr(text, '=');

	if (value)
		*value++ = 0;
	if (value && !strcmp(text, "if"))
		d->in = value;
	else if (value && !strcmp(text, "of"))
		d->out = value;
	else if (value && !strcmp(text, "bs"))
		return parse_number(d, text, value, &d->block_bytes);
	else if (value && !strcmp(text, "skip"))
		return parse_number(d, text, value, &d->skip);
	else if (value && !strcmp(text, "count"))
		return d->has_count = true, parse_number(d, text, value, &d->count);
	else
		return img_error(d->ctx, "unrecognized operand %s", text);
	return IMG_OK;
}

static int judge(const struct dd *d)
{
	const struct image_driver *driver = image_driver_find(d->out_format);

	if (!d->in || !d->out)
		return img_error(d->ctx, "Must specify both input and output files");
	if (d->how.image_opts && d->how.format)
		return img_error(d->ctx, "--image-opts and --format are mutually exclusive");
	return driver && driver->create ? IMG_OK : img_error(d->ctx, "Unknown file format");
}

static int parse(struct dd *d, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, IMG_SOURCE_OPTIONS, {0}};
	int letter;

	while ((letter = img_getopt(d->ctx, argc, argv, ":hf:O:U", options)) != -1)
		if (letter == 'O')
			d->out_format = optarg;
		else if (img_source_option(d->ctx, &d->how, letter))
			return IMG_ERROR;
	for (int i = optind; i < argc; i++)
		if (parse_operand(d, argv[i]))
			return IMG_ERROR;
	return judge(d);
}

int img_dd(struct img *ctx, int argc, char **argv)
{
	struct dd d = {.ctx = ctx, .out_format = "raw", .block_bytes = 512};
	struct image *from;

	if (parse(&d, argc, argv) || img_open(ctx, d.in, &d.how, &from))
		return IMG_ERROR;
	return img_close(ctx, from, copy(&d, from));
}
