/* Raw images: guest bytes are the file's bytes.
 *
 * The guest size is the file's, rounded up to a sector; the part of the last
 * sector beyond the file reads as zeros.  An image that was taken for raw by
 * probing must not become something else under the guest's hands: writes that
 * would give its first sector another format's signature are refused.
 * Thread: the loop's. */
#include "block/image.h"

#include "base/io.h"
#include "base/log.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>

#define SECTOR_BYTES 512

struct raw {
	struct image img;
	bool guard_head; /* [const] format was probed */
};

static int raw_probe(const u8 *head, size_t bytes)
{
	return 1; /* anything may be raw, if nothing else claims it */
}

static int raw_open(struct fiber *f, struct image *img, const struct open_policy *policy,
		    struct error *err)
{
	struct raw *raw = container_of(img, struct raw, img);

	img->bytes = align_up(img->below->bytes, SECTOR_BYTES);
	img->writable = img->below->writable;
	raw->guard_head = !policy->format;
	if (!policy->format && policy->writable) {
		log_warn("Image format was not specified for '%s' and probing guessed raw.",
			 img->name);
		log_warn("Automatically detecting the format is dangerous for raw images, "
			 "write operations on block 0 will be restricted.");
		log_warn("Specify the 'raw' format explicitly to remove the restrictions.");
	}
	return 0;
}

static int raw_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n)
{
	u64 inside = img->below->bytes - MIN(goff, img->below->bytes);

	/* A file grows: reads beyond its end give zeros.  A device is never short,
	 * as its size is a multiple of the sector. */
	assert(img->below->grows || iov_bytes(iov, n) <= inside);
	return image_read(f, img->below, goff, iov, n);
}

/* The first sector as the write would leave it. */
static int raw_head_allowed(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			    unsigned n)
{
	u8 head[SECTOR_BYTES];
	int ret = 0;

	if (goff || iov_bytes(iov, n) < sizeof(head))
		ret = image_pread(f, img->below, 0, head, sizeof(head));
	if (ret < 0)
		return ret;
	iov_copy_from(iov, n, 0, head + goff, sizeof(head) - goff);
	return image_driver_probe(head, sizeof(head)) == img->driver ? 0 : -EPERM;
}

static int raw_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n)
{
	struct raw *raw = container_of(img, struct raw, img);
	int ret;

	if (raw->guard_head && goff < SECTOR_BYTES) {
		ret = raw_head_allowed(f, img, goff, iov, n);
		if (ret < 0)
			return ret;
	}
	return image_write(f, img->below, goff, iov, n);
}

static int raw_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	return image_zero(f, img->below, goff, bytes, flags);
}

static int raw_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	return image_discard(f, img->below, goff, bytes);
}

static int raw_flush(struct fiber *f, struct image *img)
{
	return image_flush(f, img->below);
}

static int raw_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	/* The rounded-up rest of the last sector is a hole. */
	if (goff >= img->below->bytes) {
		*out = (struct map_extent){
			.bytes = bytes, .hoff = goff, .kind = MAP_ZERO | MAP_ALLOC | MAP_HOFF};
		return 0;
	}
	return image_map(f, img->below, goff, bytes, out);
}

static int raw_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		      struct error *err)
{
	int ret = image_resize_alloc(f, img->below, bytes, mode, err);

	if (ret == 0)
		img->bytes = bytes;
	return ret;
}

static const struct create_option raw_options[] = {
	{"size", OPTION_SIZE, "Virtual disk size", NULL},
	{0},
};

static int raw_prealloc(const struct create_request *req, enum prealloc *mode, struct error *err)
{
	const char *value = opts_get(&req->options, "preallocation");
	int ret = create_get_prealloc(&req->options, mode, err);

	if (ret < 0)
		return err_set(err, ret, "invalid parameter value: %s", value);
	if (*mode == PREALLOC_METADATA)
		return err_set(err, -ENOTSUP, "Unsupported preallocation mode: metadata");
	return 0;
}

static int raw_create(struct fiber *f, const struct create_request *req, struct error *err)
{
	enum prealloc mode = PREALLOC_OFF;
	u64 bytes = align_up(req->bytes, SECTOR_BYTES);
	struct image *file;
	int ret = raw_prealloc(req, &mode, err);

	if (ret == 0)
		ret = create_host_file(f, req, req->name, 0, &file, err);
	if (ret < 0)
		return ret;
	ret = image_resize_alloc(f, file, bytes, mode, err);
	if (ret < 0)
		file_remove(file);
	return create_close_file(f, file, ret, err);
}

const struct image_driver raw_driver = {
	.name = "raw",
	.state_size = sizeof(struct raw),
	.probe = raw_probe,
	.create_options = raw_options,
	.create = raw_create,
	.open = raw_open,
	.read = raw_read,
	.write = raw_write,
	.zero = raw_zero,
	.discard = raw_discard,
	.flush = raw_flush,
	.map = raw_map,
	.resize = raw_resize,
};
