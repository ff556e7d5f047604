/* Creation of qcow2 images from a list of options: the table of them, in the order
 * of the reference's "Formatting" line, and what their values mean.
 * Thread: the loop's. */
#include "block/qcow2/qcow2.h"

#include "block/create.h"
#include "block/file.h"
#include "block/qcow2/crypt.h"

#include <errno.h>

const struct create_option qcow2_create_table[] = {
	{"encryption", OPTION_BOOL,
	 "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)", NULL},
	{"encrypt.format", OPTION_STR, "Encrypt the image, format choices: 'aes', 'luks'", NULL},
	{"encrypt.key-secret", OPTION_STR, "ID of secret providing qcow AES key or LUKS passphrase",
	 NULL},
	{"encrypt.cipher-alg", OPTION_STR, "Name of encryption cipher algorithm", NULL},
	{"encrypt.cipher-mode", OPTION_STR, "Name of encryption cipher mode", NULL},
	{"encrypt.ivgen-alg", OPTION_STR, "Name of IV generator algorithm", NULL},
	{"encrypt.ivgen-hash-alg", OPTION_STR, "Name of IV generator hash algorithm", NULL},
	{"encrypt.hash-alg", OPTION_STR, "Name of encryption hash algorithm", NULL},
	{"encrypt.iter-time", OPTION_NUM, "Time to spend in PBKDF in milliseconds", NULL},
	{"cluster_size", OPTION_SIZE, "qcow2 cluster size", "65536"},
	{"extended_l2", OPTION_BOOL, "Extended L2 tables", "off"},
	{"preallocation", OPTION_STR,
	 "Preallocation mode (allowed values: off, metadata, falloc, full)", NULL},
	{"compression_type", OPTION_STR, "Compression method used for image cluster compression",
	 "zlib"},
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{"compat", OPTION_STR, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
	{"backing_file", OPTION_STR, "File name of a base image", NULL},
	{"backing_fmt", OPTION_STR, "Image format of the base image", NULL},
	{"data_file", OPTION_STR, "File name of an external data file", NULL},
	{"data_file_raw", OPTION_BOOL, "The external data file must stay valid as a raw image",
	 NULL},
	{"lazy_refcounts", OPTION_BOOL, "Postpone refcount updates", "off"},
	{"refcount_bits", OPTION_NUM, "Width of a reference count entry in bits", "16"},
	{0},
};

/* The place of a word in a list; -EINVAL with the reference's words. */
static int choice(const struct opts *o, const char *name, const char *shown,
		  const char *const *words, struct error *err)
{
	const char *value = opts_get(o, name);
	int at = value ? parse_choice(value, words) : 0;

	if (at < 0)
		return err_set(err, at, "Parameter '%s' does not accept value '%s'", shown, value);
	return at;
}

static int get_words(const struct opts *o, struct qcow2_create_options *q, struct error *err)
{
	static const char *const versions[] = {"1.1", "v3", "0.10", "v2", NULL};
	static const char *const types[] = {"zlib", "zstd", NULL};
	int version, type;

	q->backing_file = opts_get(o, "backing_file");
	q->backing_format = opts_get(o, "backing_fmt");
	if (q->backing_file && q->backing_format && !image_driver_find(q->backing_format))
		return err_set(err, -EINVAL, "Parameter 'backing-fmt' does not accept value '%s'",
			       q->backing_format);
	type = choice(o, "compression_type", "compression-type", types, err);
	if (type < 0)
		return type;
	if (create_get_prealloc(o, &q->preallocation, err) < 0)
		return err->code;
	version = choice(o, "compat", "version", versions, err);
	if (version < 0)
		return version;
	q->version = version < 2 ? 3 : 2;
	q->compression_type = (u32)type;
	return 0;
}

static int get_numbers(const struct opts *o, struct qcow2_create_options *q, struct error *err)
{
	u64 cluster = 65536, bits = 16;
	const char *value = opts_get(o, "refcount_bits");
	int ret = create_get_size(o, "cluster_size", &cluster, err);

	if (ret < 0)
		return ret;
	if (!is_pow2(cluster) || cluster < 512 || cluster > 2 * MiB)
		return err_set(err, -EINVAL,
			       "Cluster size must be a power of two between 512 and 2048k");
	if (value && (parse_u64(value, &bits) < 0 || !is_pow2(bits) || bits > 64))
		return err_set(err, -EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	q->cluster_bytes = (u32)cluster;
	q->refcount_bits = (u32)bits;
	return 0;
}

static int get_bool(const struct opts *o, const char *name, bool *out, struct error *err)
{
	const char *value = opts_get(o, name);

	if (value && (!strcmp(value, "y") || !strcmp(value, "n"))) {
		*out = *value == 'y';
		return 0;
	}
	return opts_get_bool(o, name, out, err);
}

static int get_flags(const struct opts *o, struct qcow2_create_options *q, struct error *err)
{
	int ret = get_bool(o, "lazy_refcounts", &q->lazy_refcounts, err);

	if (ret == 0)
		ret = get_bool(o, "extended_l2", &q->extended_l2, err);
	if (ret == 0)
		ret = get_bool(o, "data_file_raw", &q->data_file_raw, err);
	return ret;
}

static int get_values(const struct create_request *req, struct qcow2_create_options *q,
		      struct error *err)
{
	const struct opts *o = &req->options;
	int ret;

	*q = (struct qcow2_create_options){.bytes = req->bytes,
					   .data_file = opts_get(o, "data_file")};
	ret = get_words(o, q, err);
	if (ret == 0)
		ret = get_flags(o, q, err);
	if (ret < 0)
		return ret;
	if (q->backing_format && !q->backing_file)
		return err_set(err, -EINVAL, "Backing format cannot be used without backing file");
	if (q->data_file_raw && !q->data_file)
		return err_set(err, -EINVAL, "data-file-raw requires data-file");
	return get_numbers(o, q, err);
}

static int create_data_file(struct fiber *f, const struct create_request *req,
			    struct qcow2_create_options *q, struct error *err)
{
	return q->data_file ? create_host_file(f, req, q->data_file, 0, &q->data, err) : 0;
}

static int make_files(struct fiber *f, const struct create_request *req,
		      struct qcow2_create_options *o, struct error *err)
{
	struct qcow2_create_options q = *o;
	struct image *file;
	int ret;

	if (q.data_file && !strcmp(q.data_file, req->name))
		return err_set(err, -EINVAL, "The data file must be another file than the image");
	ret = create_host_file(f, req, req->name, 0, &file, err);
	if (ret < 0)
		return ret;
	ret = create_data_file(f, req, &q, err);
	if (ret == 0)
		ret = qcow2_create(f, file, &q, err);
	if (ret < 0)
		file_remove(file);
	ret = create_close_file(f, file, ret, err);
	if (!q.data)
		return ret;
	if (ret < 0)
		file_remove(q.data);
	return create_close_file(f, q.data, ret, err);
}

int qcow2_create_request(struct fiber *f, const struct create_request *req, struct error *err)
{
	struct qcow2_crypt_create crypt = {0};
	struct qcow2_create_options q;
	int ret = get_values(req, &q, err);

	if (ret == 0)
		ret = qcow2_crypt_options(f, req, &crypt, err);
	q.crypt = &crypt;
	if (ret == 0)
		ret = qcow2_create_judge(&q, err);
	if (ret == 0)
		ret = make_files(f, req, &q, err);
	qcow2_crypt_create_fini(&crypt);
	return ret;
}
