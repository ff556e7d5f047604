/* cowimg info: what an image is, for people and as JSON. */
#define _GNU_SOURCE
#include "block/img/img.h"
#include "block/img/info.h"

#include "base/opts.h"

#include "block/driver.h"
#include "block/file.h"
#include "block/image.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>
#include <stdio.h>

#include <jansson.h>

struct info {
	struct img *ctx;
	struct img_source source;
	bool json, chain;
	FILE *text; /* all of a chain is shown, or nothing */
};

/* The host file's: what backing names are relative to. */
static const char *file_name(const struct image *img)
{
	while (img->below)
		img = img->below;
	return img->name;
}

/* Not known of what another program keeps. */
static bool disk_bytes(struct image *img, u64 *bytes)
{
	while (img->below)
		img = img->below;
	*bytes = 0;
	return img->driver == &file_driver && file_allocated_bytes(img, bytes) == 0;
}

static void print_bitmaps(FILE *out, struct image *img)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	u32 n = qcow2_bitmaps_list(img, &list);

	if (n)
		fputs("    bitmaps:\n", out);
	for (u32 i = 0; i < n; i++) {
		fprintf(out, "        [%u]:\n            flags:\n", i);
		if (list[i].in_use)
			fputs("                [0]: in-use\n", out);
		if (list[i].automatic)
			fprintf(out, "                [%d]: auto\n", list[i].in_use);
		fprintf(out, "            name: %s\n            granularity: %llu\n", list[i].name,
			(unsigned long long)list[i].granularity_bytes);
	}
}

static void print_qcow2(FILE *out, struct image *img, const struct qcow2_info *q)
{
	fprintf(out, "Format specific information:\n    compat: %s\n    compression type: %s\n",
		q->version == 2 ? "0.10" : "1.1", q->compression_type ? "zstd" : "zlib");
	if (q->version >= 3)
		fprintf(out, "    lazy refcounts: %s\n", q->lazy_refcounts ? "true" : "false");
	print_bitmaps(out, img);
	fprintf(out, "    refcount bits: %u\n", q->refcount_bits);
	if (q->data_file)
		fprintf(out, "    data file: %s\n    data file raw: %s\n", q->data_file,
			q->data_file_raw ? "true" : "false");
	info_print_encrypt(out, img);
	if (q->version >= 3)
		fprintf(out, "    corrupt: %s\n    extended l2: %s\n",
			q->corrupt ? "true" : "false", q->extended_l2 ? "true" : "false");
}

static void print_human(FILE *out, struct image *img)
{
	struct qcow2_info q = {0};
	bool qcow2 = img->driver == &qcow2_driver;
	char size[32], disk[32] = "unavailable";
	u64 disk_used;

	format_size(size, img->bytes);
	if (disk_bytes(img, &disk_used))
		format_size(disk, disk_used);
	if (qcow2)
		qcow2_get_info(img, &q);
	fprintf(out, "image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n",
		img->name, img->driver->name, size, (unsigned long long)img->bytes, disk);
	if (info_is_encrypted(img))
		fprintf(out, "encrypted: yes\n");
	if (qcow2)
		fprintf(out, "cluster_size: %u\n", q.cluster_bytes);
	if (q.dirty)
		fprintf(out, "cleanly shut down: no\n");
	if (img->backing_name) {
		AUTO_FREE char *path = image_resolve_name(file_name(img), img->backing_name);

		fprintf(out, "backing file: %s", img->backing_name);
		if (strcmp(path, img->backing_name))
			fprintf(out, " (actual path: %s)", path);
		fputc('\n', out);
		if (img->backing_format)
			fprintf(out, "backing file format: %s\n", img->backing_format);
	}
	img_print_snapshots(out, img);
	if (qcow2)
		print_qcow2(out, img, &q);
	else if (img->driver == &luks_driver)
		info_print_luks(out, img);
}

static json_t *bitmaps_json(struct image *img)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	u32 n = qcow2_bitmaps_list(img, &list);
	json_t *all = n ? json_array() : NULL;

	for (u32 i = 0; i < n; i++) {
		json_t *o = json_object(), *flags = json_array();
		json_t *name = json_string(list[i].name);

		if (list[i].in_use)
			json_array_append_new(flags, json_string("in-use"));
		if (list[i].automatic)
			json_array_append_new(flags, json_string("auto"));
		json_object_set_new(o, "flags", flags);
		/* A name of other bytes than UTF-8 has no form in JSON. */
		json_object_set_new(o, "name", name ? name : json_string("?"));
		json_object_set_new(o, "granularity",
				    json_integer((json_int_t)list[i].granularity_bytes));
		json_array_append_new(all, o);
	}
	return all;
}

static json_t *qcow2_json(struct image *img, const struct qcow2_info *q)
{
	json_t *data = json_object(), *bitmaps = bitmaps_json(img);
	json_t *encrypt = info_encrypt_json(img);

	json_object_set_new(data, "compat", json_string(q->version == 2 ? "0.10" : "1.1"));
	json_object_set_new(data, "compression-type",
			    json_string(q->compression_type ? "zstd" : "zlib"));
	if (q->version >= 3)
		json_object_set_new(data, "lazy-refcounts", json_boolean(q->lazy_refcounts));
	if (bitmaps)
		json_object_set_new(data, "bitmaps", bitmaps);
	json_object_set_new(data, "refcount-bits", json_integer(q->refcount_bits));
	if (q->data_file) {
		json_object_set_new(data, "data-file", json_string(q->data_file));
		json_object_set_new(data, "data-file-raw", json_boolean(q->data_file_raw));
	}
	if (encrypt)
		json_object_set_new(data, "encrypt", encrypt);
	if (q->version >= 3) {
		json_object_set_new(data, "corrupt", json_boolean(q->corrupt));
		json_object_set_new(data, "extended-l2", json_boolean(q->extended_l2));
	}
	return json_pack("{s:s, s:o}", "type", "qcow2", "data", data);
}

static json_t *image_json(struct image *img)
{
	json_t *o = json_object(), *snapshots = img_snapshots_json(img);
	struct qcow2_info q = {0};
	u64 disk_used;

	if (img->backing_format)
		json_object_set_new(o, "backing-filename-format", json_string(img->backing_format));
	if (snapshots)
		json_object_set_new(o, "snapshots", snapshots);
	json_object_set_new(o, "virtual-size", json_integer((json_int_t)img->bytes));
	json_object_set_new(o, "filename", json_string(img->name));
	if (img->driver == &qcow2_driver) {
		qcow2_get_info(img, &q);
		json_object_set_new(o, "cluster-size", json_integer(q.cluster_bytes));
	}
	json_object_set_new(o, "format", json_string(img->driver->name));
	if (disk_bytes(img, &disk_used))
		json_object_set_new(o, "actual-size", json_integer((json_int_t)disk_used));
	if (img->driver == &qcow2_driver)
		json_object_set_new(o, "format-specific", qcow2_json(img, &q));
	else if (img->driver == &luks_driver)
		json_object_set_new(o, "format-specific", info_luks_json(img));
	if (img->backing_name) {
		AUTO_FREE char *path = image_resolve_name(file_name(img), img->backing_name);

		json_object_set_new(o, "full-backing-filename", json_string(path));
		json_object_set_new(o, "backing-filename", json_string(img->backing_name));
	}
	if (info_is_encrypted(img))
		json_object_set_new(o, "encrypted", json_true());
	json_object_set_new(o, "dirty-flag", json_boolean(q.dirty));
	return o;
}

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
		json_array_append_new(list, image_json(img));
	else
		print_human(o->text, img);
	if (img->backing_name)
		*next = image_resolve_name(file_name(img), img->backing_name);
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
