/* Opening images as a command line names them: a file, "json:{...}", or a list of
 * options with --image-opts.  Every subcommand comes through here. */
#include "block/img/img.h"

#include "base/opts.h"
#include "block/image.h"

#include <errno.h>

int img_source_option(struct img *ctx, struct img_source *src, int letter)
{
	switch (letter) {
	case 'f': src->format = optarg; return IMG_OK;
	case 'U': src->share = true; return IMG_OK;
	case 'T': src->cache = optarg; return IMG_OK;
	case 't':
		src->cache = optarg;
		src->cache_is_target = true;
		return IMG_OK;
	case IMG_OPTION_IMAGE_OPTS: src->image_opts = true; return IMG_OK;
	default: return IMG_ERROR;
	}
}

static int make_policy(struct img *ctx, const char *name, const struct img_source *src,
		       struct open_policy *policy)
{
	ctx->unlock.when = src->metadata_only ? UNLOCK_NEVER : UNLOCK_NOW;
	*policy = (struct open_policy){.writable = src->writable,
				       .share_writers = src->share,
				       .no_backing = src->no_backing,
				       .check_only = src->check_only,
				       .discard = src->discard,
				       .snapshot = src->snapshot,
				       .unlock = &ctx->unlock,
				       .format = src->format};
	if (src->share && src->writable)
		return img_error(ctx,
				 "Could not open '%s': force-share=on can only be used with "
				 "read-only images",
				 name);
	if (src->image_opts && src->format)
		return img_error(ctx, "--image-opts and --format are mutually exclusive");
	if (src->cache && img_parse_cache(src->cache, policy) < 0)
		return img_error(ctx, "Invalid %s option: %s",
				 src->cache_is_target ? "cache" : "source cache", src->cache);
	return IMG_OK;
}

/* A list without "=" would be the name of an image that is open already. */
static int parse_list(const char *name, struct opts *o, struct error *err)
{
	*o = (struct opts){0};
	if (*name && !strpbrk(name, "=,"))
		return err_set(err, -ENODEV, "Cannot find device='%s' nor node-name='%s'", name,
			       name);
	return opts_parse(o, name, NULL, err);
}

int img_open(struct img *ctx, const char *name, const struct img_source *src, struct image **out)
{
	struct open_policy policy;
	struct opts o = {0};
	struct error err = {0};
	int ret = 0;

	if (make_policy(ctx, name, src, &policy))
		return IMG_ERROR;
	if (src->image_opts) {
		ret = parse_list(name, &o, &err);
		policy.options = &o;
	}
	if (ret == 0)
		ret = image_open(ctx->f, out, src->image_opts ? NULL : name, &policy, &err);
	opts_fini(&o);
	if (ret == 0)
		return IMG_OK;
	if (src->snapshot && !strncmp(err.text, "Failed to load snapshot", 23))
		return img_error(ctx, "%s", err.text); /* the reference opens, then looks */
	*out = NULL;
	if (!strncmp(err.text, "Failed to load snapshot", 23))
		return img_error(ctx, "%s", err.text);
	return img_error(ctx, "Could not open '%s': %s", name, err.text);
}

int img_close(struct img *ctx, struct image *img, int code)
{
	AUTO_FREE char *name = xstrdup(img->name);
	int ret = image_close(ctx->f, img);

	if (ret < 0 && code == IMG_OK)
		return img_error(ctx, "Could not close '%s': %s", name, strerror(-ret));
	return code;
}
