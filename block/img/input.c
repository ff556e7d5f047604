/* Opening an image as the command line names it: a file, or --image-opts. */
#include "block/img/img.h"

#include "base/opts.h"
#include "block/image.h"

#include <stdio.h>

static int open_policy_of(struct img *ctx, const struct img_input *src, struct open_policy *policy)
{
	*policy = (struct open_policy){.writable = src->writable,
				       .share_writers = src->share,
				       .discard = src->discard,
				       .format = src->format,
				       .snapshot = src->snapshot};
	if (src->cache && img_parse_cache(src->cache, policy) < 0)
		return img_error(ctx, "Invalid cache option: %s", src->cache);
	if (src->image_opts && src->format)
		return img_error(ctx, "--image-opts and --format are mutually exclusive");
	return IMG_OK;
}

static int open_named(struct img *ctx, const char *name, const struct open_policy *policy,
		      struct image **out)
{
	struct error err = {0};

	if (image_open(ctx->f, out, name, policy, &err) < 0)
		return img_error(ctx, "Could not open '%s': %s", name, err.text);
	return IMG_OK;
}

/* "driver=qcow2,file.filename=a": what names the file, and the driver's options. */
static int open_opts(struct img *ctx, const struct img_input *src, struct open_policy *policy,
		     struct image **out)
{
	struct opts opts = {0};
	struct error err = {0};
	const char *name;
	int code;

	if (opts_parse(&opts, src->file, NULL, &err) < 0)
		return img_error(ctx, "%s", err.text);
	name = opts_get(&opts, "file.filename");
	if (!name)
		name = opts_get(&opts, "filename");
	policy->format = opts_get(&opts, "driver");
	policy->options = &opts;
	if (!name)
		code = img_error(ctx,
				 "Could not open '%s': A block device must be specified for "
				 "\"file\"",
				 src->file);
	else
		code = open_named(ctx, name, policy, out);
	opts_fini(&opts);
	return code;
}

int img_input_open(struct img *ctx, const struct img_input *src, struct image **out)
{
	struct open_policy policy;

	if (open_policy_of(ctx, src, &policy))
		return IMG_ERROR;
	return src->image_opts ? open_opts(ctx, src, &policy, out)
			       : open_named(ctx, src->file, &policy, out);
}

int img_input_close(struct img *ctx, struct image *img, int code)
{
	AUTO_FREE char *name = xstrdup(img->name);
	int ret = image_close(ctx->f, img);

	if (ret < 0 && code == IMG_OK)
		return img_error(ctx, "Could not close '%s': %s", name, strerror(-ret));
	return code;
}

int img_input_object(struct img *ctx, const char *text)
{
	struct opts opts = {0};
	struct error err = {0};
	const char *type;
	int code = IMG_OK;

	if (opts_parse(&opts, text, "qom-type", &err) < 0)
		return img_error(ctx, "%s", err.text);
	type = opts_get(&opts, "qom-type");
	if (!type)
		code = img_error(ctx, "Parameter 'qom-type' is missing");
	else if (strcmp(type, "secret"))
		code = img_error(ctx, "invalid object type: %s", type);
	else if (!opts_has(&opts, "id"))
		code = img_error(ctx, "Parameter 'id' is missing");
	opts_fini(&opts);
	return code;
}
