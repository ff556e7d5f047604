/* cowimg amend for qcow2: other options for an image that is there.
 *
 * Every step is atomic and durable by itself: the version turns with one sector
 * (header_update.c, downgrade.c), so does the width of refcounts
 * (refcount_width.c); the rest are bits of the header.  An upgrade comes first and
 * a downgrade last, so what they allow is allowed in between.
 * Thread: the image's loop; no other request may run meanwhile. */
#include "block/luks_amend.h"
#include "block/qcow2/amend.h"

#include "block/qcow2/header_update.h"

#include <errno.h>

const struct create_option qcow2_amend_options[] = {
	{"backing_file", OPTION_STR, "File name of a base image", NULL},
	{"backing_fmt", OPTION_STR, "Image format of the base image", NULL},
	{"compat", OPTION_STR, "Compatibility level (v2 [0.10] or v3 [1.1])", NULL},
	{"data_file", OPTION_STR, "File name of an external data file", NULL},
	{"data_file_raw", OPTION_BOOL, "The external data file must stay valid as a raw image",
	 NULL},
	{"encrypt.iter-time", OPTION_NUM, "Time to spend in PBKDF in milliseconds", NULL},
	{"encrypt.keyslot", OPTION_NUM, "Select a single keyslot to modify explicitly", NULL},
	{"encrypt.new-secret", OPTION_STR,
	 "New secret to set in the matching keyslots. Empty string to erase", NULL},
	{"encrypt.old-secret", OPTION_STR, "Select all keyslots that match this password", NULL},
	{"encrypt.state", OPTION_STR, "Select new state of affected keyslots (active/inactive)",
	 NULL},
	{"lazy_refcounts", OPTION_BOOL, "Postpone refcount updates", NULL},
	{"refcount_bits", OPTION_NUM, "Width of a reference count entry in bits", NULL},
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{0}};

/* What shall be. */
struct plan {
	u32 version, refcount_bits;
	bool lazy, resize;
	u64 bytes;
};

static int parse_compat(const char *text, u32 *version, struct error *err)
{
	if (!strcmp(text, "0.10") || !strcmp(text, "v2"))
		*version = 2;
	else if (!strcmp(text, "1.1") || !strcmp(text, "v3"))
		*version = 3;
	else
		return err_set(err, -EINVAL, "Unknown compatibility level %.100s", text);
	return 0;
}

static int judge_width(const struct qcow2 *q, const struct plan *p, struct error *err)
{
	if (!is_pow2(p->refcount_bits) || p->refcount_bits > 64)
		return err_set(err, -EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	if (p->refcount_bits != 1u << q->refcount_order && p->version < 3 && p->refcount_bits != 16)
		return err_set(err, -EINVAL,
			       "Refcount widths other than 16 bits require compatibility level 1.1 "
			       "or above (use compat=1.1 or greater)");
	return 0;
}

static int judge_data_file(const struct qcow2 *q, const struct opts *o, struct error *err)
{
	bool has = q->version > 2 && be64_get(q->head.incompatible) & INCOMPAT_DATA_FILE;
	bool raw = q->version > 2 && be64_get(q->head.autoclear) & AUTOCLEAR_RAW_DATA, want = raw;
	int ret;

	if (opts_has(o, "data_file") && !has)
		return err_set(err, -EINVAL,
			       "data-file can only be set for images that use an external data "
			       "file");
	ret = opts_get_bool(o, "data_file_raw", &want, err);
	if (ret == 0 && want && !raw)
		return err_set(err, -EINVAL, "data-file-raw cannot be set on existing images");
	return ret;
}

static bool same(const char *a, const char *b)
{
	return !a == !b && (!a || !strcmp(a, b));
}

/* It may be named, but not another one. */
static int judge_backing(const struct qcow2 *q, const struct opts *o, struct error *err)
{
	if (!opts_has(o, "backing_file") && !opts_has(o, "backing_fmt"))
		return 0;
	if (same(opts_get(o, "backing_file"), q->img.backing_name) &&
	    same(opts_get(o, "backing_fmt"), q->img.backing_format))
		return 0;
	return err_set(err, -EINVAL,
		       "Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
}

static int judge_encryption(const struct qcow2 *q, const struct opts *o, struct error *err)
{
	bool asked = luks_amend_asked(o, "encrypt.");

	if (asked && q->crypt.method == CRYPT_NONE)
		return err_set(err, -EINVAL,
			       "Can't amend encryption options - encryption not present");
	if (asked && q->crypt.method != CRYPT_LUKS)
		return err_set(err, -EINVAL, "Only LUKS encryption options can be amended");
	return 0;
}

static int judge_lazy(const struct qcow2 *q, const struct plan *p, struct error *err)
{
	if (p->lazy && !q->lazy && p->version < 3)
		return err_set(err, -EINVAL,
			       "Lazy refcounts only supported with compatibility level 1.1 and "
			       "above (use compat=1.1 or greater)");
	return 0;
}

static int make_plan(const struct qcow2 *q, const struct opts *o, struct plan *p, struct error *err)
{
	int ret = 0;

	*p = (struct plan){.version = q->version,
			   .refcount_bits = 1u << q->refcount_order,
			   .lazy = q->lazy,
			   .bytes = q->img.bytes,
			   .resize = opts_has(o, "size")};
	if (opts_has(o, "compat"))
		ret = parse_compat(opts_get(o, "compat"), &p->version, err);
	if (ret == 0)
		ret = create_get_size(o, "size", &p->bytes, err);
	if (ret == 0)
		ret = opts_get_bool(o, "lazy_refcounts", &p->lazy, err);
	if (ret == 0)
		ret = opts_get_u32(o, "refcount_bits", &p->refcount_bits, err);
	if (ret == 0)
		ret = judge_width(q, p, err);
	if (ret == 0)
		ret = judge_data_file(q, o, err);
	if (ret == 0)
		ret = judge_encryption(q, o, err);
	if (ret == 0)
		ret = judge_backing(q, o, err);
	if (ret == 0)
		ret = judge_lazy(q, p, err);
	return ret;
}

/* --- the steps --- */

static int update(struct fiber *f, struct qcow2 *q, const struct header_change *change,
		  struct error *err)
{
	int ret = header_update(f, q, change);

	return ret < 0 ? err_set(err, ret, "Failed to update the image header: %s", strerror(-ret))
		       : 0;
}

static int upgrade(struct fiber *f, struct qcow2 *q, struct error *err)
{
	struct header_ext names = {EXT_FEATURE_NAMES, qcow2_feature_names,
				   sizeof(qcow2_feature_names)};
	struct header_change change = {.version = 3, .exts = &names, .n = 1};

	return update(f, q, &change, err);
}

static int set_lazy(struct fiber *f, struct qcow2 *q, bool on, struct error *err)
{
	struct header_change change = {
		.compatible = {.set = on ? COMPAT_LAZY : 0, .clear = COMPAT_LAZY}};
	int ret = 0;

	if (!on) { /* from now on nobody would repair them */
		ret = qcow2_commit_all(f, q);
		if (ret == 0)
			ret = header_set_incompatible(f, q, INCOMPAT_DIRTY, false);
	}
	if (ret < 0)
		return err_set(err, ret, "Failed to make the image clean: %s", strerror(-ret));
	ret = update(f, q, &change, err);
	if (ret == 0)
		q->lazy = on;
	return ret;
}

static int set_data_file(struct fiber *f, struct qcow2 *q, const char *name, struct error *err)
{
	struct header_ext ext = {EXT_DATA_FILE, *name ? name : NULL, (u32)strlen(name)};
	struct header_change change = {.exts = &ext, .n = 1};

	return update(f, q, &change, err);
}

static int take_steps(struct fiber *f, struct qcow2 *q, const struct plan *p,
		      const struct amend_request *req, struct error *err)
{
	const char *data_file = opts_get(req->options, "data_file");
	u32 order = (u32)__builtin_ctz(p->refcount_bits);
	int ret = 0;

	if (p->version > q->version)
		ret = upgrade(f, q, err);
	if (ret == 0 && data_file)
		ret = set_data_file(f, q, data_file, err);
	if (ret == 0 && order != q->refcount_order)
		ret = refcount_set_width(f, q, order, req, err);
	if (ret == 0 && p->lazy != q->lazy)
		ret = set_lazy(f, q, p->lazy, err);
	if (ret == 0 && p->resize && p->bytes != q->img.bytes)
		ret = image_resize(f, &q->img, p->bytes, err);
	if (ret == 0 && p->version < q->version)
		ret = qcow2_downgrade(f, q, req, err);
	return ret;
}

int qcow2_amend(struct fiber *f, struct image *img, const struct amend_request *req,
		struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	struct plan p;
	int ret = make_plan(q, req->options, &p, err);

	if (ret < 0)
		return ret;
	ret = write_begin(f, q);
	if (ret < 0)
		return err_set(err, ret, "Could not write to the image: %s", strerror(-ret));
	if (luks_amend_asked(req->options, "encrypt."))
		ret = luks_amend(f, q->crypt.luks, req, "encrypt.", err);
	return ret < 0 ? ret : take_steps(f, q, &p, req, err);
}
