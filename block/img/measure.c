/* cowimg measure: how much room a new image would take. */
#include "block/img/img.h"

#include "base/opts.h"
#include "block/image.h"
#include "block/qcow2/measure.h"

#include <errno.h>
#include <stdio.h>

#include <jansson.h>

struct measure {
	struct img *ctx;
	const char *file, *format, *out_format, *size, *snapshot;
	struct opts options;
	bool json, share, image_opts;
};

static const char qcow2_names[] =
	"size compat backing_file backing_fmt data_file data_file_raw encryption encrypt.format "
	"encrypt.key-secret encrypt.cipher-alg encrypt.cipher-mode encrypt.ivgen-alg "
	"encrypt.ivgen-hash-alg encrypt.hash-alg encrypt.iter-time cluster_size preallocation "
	"lazy_refcounts refcount_bits extended_l2 compression_type extent_size_hint nocow";
static const char raw_names[] = "size preallocation extent_size_hint nocow";
static const char luks_names[] =
	"size key-secret cipher-alg cipher-mode ivgen-alg ivgen-hash-alg hash-alg iter-time "
	"preallocation extent_size_hint nocow";

/* --- LUKS ------------------------------------------------------------------------ */

/* LUKS1: header and eight key slots, each of them the key in 4000 stripes and
 * rounded up to 4 KiB (LUKS On-Disk Format Specification 1.2.3, appendix). */
static u64 luks_header_bytes(u64 key_bytes)
{
	return 4096 + 8 * align_up(key_bytes * 4000, 4096);
}

static int luks_bytes(struct measure *o, const char *prefix, u64 *bytes)
{
	static const struct {
		const char *name;
		u64 key_bytes;
	} ciphers[] = {{"aes-128", 16},	    {"aes-192", 24},	 {"aes-256", 32},
		       {"cast5-128", 16},   {"serpent-128", 16}, {"serpent-192", 24},
		       {"serpent-256", 32}, {"twofish-128", 16}, {"twofish-192", 24},
		       {"twofish-256", 32}};
	AUTO_FREE char *secret = xasprintf("%skey-secret", prefix);
	AUTO_FREE char *cipher = xasprintf("%scipher-alg", prefix);
	AUTO_FREE char *mode = xasprintf("%scipher-mode", prefix);
	const char *wanted = opts_get(&o->options, cipher);
	const char *xts = opts_get(&o->options, mode);

	if (!opts_get(&o->options, secret))
		return img_error(o->ctx, "Parameter '%s' is required for cipher", secret);
	for (unsigned i = 0; i < ARRAY_LEN(ciphers); i++) {
		if (strcmp(wanted ? wanted : "aes-256", ciphers[i].name))
			continue;
		/* XTS takes two keys. */
		*bytes = luks_header_bytes(ciphers[i].key_bytes *
					   (!xts || !strcmp(xts, "xts") ? 2 : 1));
		return IMG_OK;
	}
	return img_error(o->ctx, "Parameter '%s' does not accept value '%s'", cipher, wanted);
}

/* --- qcow2 ----------------------------------------------------------------------- */

static int option_size(struct measure *o, const char *name, u32 *out)
{
	const char *value = opts_get(&o->options, name);
	u64 n;

	if (!value)
		return IMG_OK;
	if (img_parse_size(value, &n) < 0)
		return img_error(o->ctx, "Parameter '%s' expects a non-negative number below 2^64",
				 name);
	/* A zero that was asked for is as wrong as any other. */
	*out = n && n < UINT32_MAX ? (u32)n : UINT32_MAX;
	return IMG_OK;
}

static int option_preallocation(struct measure *o, bool *all)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full", NULL};
	const char *value = opts_get(&o->options, "preallocation");
	int mode = value && *value ? parse_choice(value, modes) : 0;

	if (mode < 0)
		return img_error(o->ctx, "invalid parameter value: %s", value);
	*all = mode >= 2;
	return IMG_OK;
}

static int qcow2_values(struct measure *o, struct qcow2_measure_options *q)
{
	const char *compat = opts_get(&o->options, "compat");
	const char *encrypt = opts_get(&o->options, "encrypt.format");
	struct error err = {0};

	q->version2 = compat && !strcmp(compat, "0.10");
	q->backed = opts_has(&o->options, "backing_file");
	if (compat && !q->version2 && strcmp(compat, "1.1"))
		return img_error(o->ctx, "Invalid compatibility level: '%s'", compat);
	if (opts_get_bool(&o->options, "extended_l2", &q->extended_l2, &err) < 0)
		return img_error(o->ctx, "%s", err.text);
	if (option_size(o, "cluster_size", &q->cluster_bytes) ||
	    option_size(o, "refcount_bits", &q->refcount_bits) ||
	    option_preallocation(o, &q->preallocated))
		return IMG_ERROR;
	return encrypt && !strcmp(encrypt, "luks") ? luks_bytes(o, "encrypt.", &q->luks_bytes)
						   : IMG_OK;
}

static int measure_as_qcow2(struct measure *o, struct image *source, u64 bytes,
			    struct image_measure *out)
{
	struct qcow2_measure_options q = {.bytes = bytes};
	struct error err = {0};

	if (qcow2_values(o, &q))
		return IMG_ERROR;
	if (qcow2_measure(o->ctx->f, &q, source, out, &err) < 0)
		return img_error(o->ctx, "%s", err.text);
	return IMG_OK;
}

static int measure_as_luks(struct measure *o, u64 bytes, struct image_measure *out)
{
	u64 head;

	if (luks_bytes(o, "", &head))
		return IMG_ERROR;
	out->required = out->fully_allocated = align_up(bytes, 512) + head;
	return IMG_OK;
}

static int measure(struct measure *o, struct image *source, u64 bytes, struct image_measure *out)
{
	*out = (struct image_measure){0};
	if (!strcmp(o->out_format, "qcow2"))
		return measure_as_qcow2(o, source, bytes, out);
	if (!strcmp(o->out_format, "luks"))
		return measure_as_luks(o, bytes, out);
	out->required = out->fully_allocated = align_up(bytes, 512);
	return IMG_OK;
}

/* --- output ---------------------------------------------------------------------- */

static void print_human(const struct image_measure *m)
{
	printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)m->required,
	       (unsigned long long)m->fully_allocated);
	if (m->has_bitmaps)
		printf("bitmaps size: %llu\n", (unsigned long long)m->bitmaps);
}

static void print_json(const struct image_measure *m)
{
	json_t *o = json_object();

	if (m->has_bitmaps)
		json_object_set_new(o, "bitmaps", json_integer((json_int_t)m->bitmaps));
	json_object_set_new(o, "required", json_integer((json_int_t)m->required));
	json_object_set_new(o, "fully-allocated", json_integer((json_int_t)m->fully_allocated));

	AUTO_FREE char *text = json_dumps(o, JSON_INDENT(4) | JSON_PRESERVE_ORDER);

	json_decref(o);
	printf("%s\n", text ? text : "");
}

static int with_source(struct measure *o, struct image_measure *m)
{
	struct img_source src = {.format = o->format,
				 .snapshot = o->snapshot,
				 .image_opts = o->image_opts,
				 .share = o->share};
	struct image *img;
	int code = img_open(o->ctx, o->file, &src, &img);

	if (code)
		return code;
	code = measure(o, img, img->bytes, m);
	image_close(o->ctx->f, img);
	return code;
}

static int with_size(struct measure *o, struct image_measure *m)
{
	u64 bytes;
	int ret = img_parse_size(o->size, &bytes);

	if (ret == -ERANGE)
		return img_error(o->ctx, "Invalid image size specified. Must be between 0 and "
					 "9223372036854775807.");
	if (ret < 0) {
		img_error(o->ctx, "Invalid image size specified. You may use k, M, G, T, P or E "
				  "suffixes for");
		return img_error(o->ctx,
				 "kilobytes, megabytes, gigabytes, terabytes, petabytes and "
				 "exabytes.");
	}
	return measure(o, NULL, bytes, m);
}

static int check_format(struct measure *o)
{
	static const char *const known[] = {"raw", "qcow2", "luks", NULL};
	static const char *const names[] = {raw_names, qcow2_names, luks_names};
	struct error err = {0};
	int which = parse_choice(o->out_format, known);

	if (which < 0)
		return img_error(o->ctx, "Unknown file format '%s'", o->out_format);
	if (opts_check(&o->options, names[which], &err) < 0) {
		img_error(o->ctx, "%s", err.text);
		return img_error(o->ctx, "Invalid options for file format '%s'", o->out_format);
	}
	return IMG_OK;
}

static int run(struct measure *o)
{
	struct image_measure m;
	int code;

	if (o->size && o->file)
		return img_error(o->ctx, "--size N cannot be used together with a filename.");
	if (!o->file && (o->image_opts || o->format || o->snapshot))
		return img_error(o->ctx, "--image-opts, -f, and -l require a filename argument.");
	if (!o->size && !o->file)
		return img_error(o->ctx, "Either --size N or one filename must be specified.");
	code = check_format(o);
	if (code == IMG_OK)
		code = o->file ? with_source(o, &m) : with_size(o, &m);
	if (code == IMG_OK)
		o->json ? print_json(&m) : print_human(&m);
	return code;
}

enum { OPTION_OBJECT = 256, OPTION_IMAGE_OPTS, OPTION_OUTPUT, OPTION_SIZE };

static int parse_option(struct measure *o, int letter)
{
	struct error err = {0};

	switch (letter) {
	case 'f': o->format = optarg; return IMG_OK;
	case 'O': o->out_format = optarg; return IMG_OK;
	case 'l': o->snapshot = optarg; return IMG_OK;
	case 'U': o->share = true; return IMG_OK;
	case 'o':
		if (opts_append(&o->options, optarg, NULL, &err) < 0)
			return img_error(o->ctx, "%s", err.text);
		return IMG_OK;
	case OPTION_OBJECT: return img_object(o->ctx, optarg);
	case OPTION_IMAGE_OPTS: o->image_opts = true; return IMG_OK;
	case OPTION_SIZE: o->size = optarg; return IMG_OK;
	case OPTION_OUTPUT:
		o->json = !strcmp(optarg, "json");
		if (o->json || !strcmp(optarg, "human"))
			return IMG_OK;
		return img_error(o->ctx, "--output must be used with human or json as argument.");
	default: return IMG_ERROR;
	}
}

int img_measure(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"image-opts", no_argument, NULL,
						 OPTION_IMAGE_OPTS},
						{"object", required_argument, NULL, OPTION_OBJECT},
						{"output", required_argument, NULL, OPTION_OUTPUT},
						{"size", required_argument, NULL, OPTION_SIZE},
						{"force-share", no_argument, NULL, 'U'},
						{0}};
	struct measure o = {.ctx = ctx, .out_format = "raw"};
	int letter, code = IMG_OK;

	while (code == IMG_OK &&
	       (letter = img_getopt(ctx, argc, argv, ":hf:l:o:O:U", options)) != -1)
		code = parse_option(&o, letter);
	if (code == IMG_OK && argc - optind > 1)
		code = img_error(ctx, "At most one filename argument is allowed.");
	if (code == IMG_OK) {
		o.file = argv[optind];
		code = run(&o);
	}
	opts_fini(&o.options);
	return code;
}
