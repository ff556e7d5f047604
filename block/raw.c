/* Raw images: guest bytes are the file's bytes.
 *
 * With offset= and size= they are a window of it.  The guest size is the file's, rounded up to a
 * sector; the part of the last sector beyond the file reads as zeros.  An image that was taken for
 * raw by probing must not become something else under the guest's hands: writes that would give its
 * first sector another format's signature are refused. Thread: the loop's. */
#include "block/image.h"

#include "base/io.h"
#include "base/log.h"
#include "base/opts.h"
#include "block/create.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>

#define SECTOR_BYTES 512

struct raw {
	struct image img;
	bool guard_head; /* [const] format was probed */
	u64 start;	 /* [const] of the window (offset=) in the file */
	bool fixed;	 /* [const] it has an end (size=), too */
};

static struct raw *raw_of(const struct image *img)
{
	return container_of(img, struct raw, img);
}

static int raw_probe(const u8 *head, size_t bytes)
{
	return 1; /* anything may be raw, if nothing else claims it */
}

static int get_size(const struct opts *o, const char *name, u64 *out, struct error *err)
{
	if (opts_get_size(o, name, 1, out, err) == 0)
		return 0;
	return err_set(
		err, -EINVAL,
		"Parameter '%s' expects a non-negative number below 2^64\n"
		"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
		"and exabytes, respectively.",
		name);
}

/* The part of the file that is the image. */
static int take_window(struct raw *raw, const struct opts *o, struct error *err)
{
	u64 file = raw->img.below->bytes, size = 0;
	int ret = get_size(o, "offset", &raw->start, err);

	if (ret == 0)
		ret = get_size(o, "size", &size, err);
	if (ret < 0)
		return ret;
	if (raw->start > file)
		return err_set(err, -EINVAL,
			       "Offset (%llu) cannot be greater than size of the containing file "
			       "(%llu)",
			       (unsigned long long)raw->start, (unsigned long long)file);
	raw->img.bytes = align_up(file - raw->start, SECTOR_BYTES);
	raw->fixed = opts_has(o, "size");
	if (!raw->fixed)
		return 0;
	if (size > file - raw->start)
		return err_set(err, -EINVAL,
			       "The sum of offset (%llu) and size (%llu) has to be smaller or "
			       "equal to the  actual size of the containing file (%llu)",
			       (unsigned long long)raw->start, (unsigned long long)size,
			       (unsigned long long)file);
	if (!is_aligned(size, SECTOR_BYTES))
		return err_set(err, -EINVAL, "Specified size is not multiple of %d", SECTOR_BYTES);
	raw->img.bytes = size;
	return 0;
}

static int raw_open(struct fiber *f, struct image *img, const struct open_policy *policy,
		    struct error *err)
{
	struct raw *raw = raw_of(img);
	int ret;

	img->bytes = align_up(img->below->bytes, SECTOR_BYTES);
	img->writable = img->below->writable;
	ret = policy->options ? take_window(raw, policy->options, err) : 0;
	if (ret < 0)
		return ret;
	/* As the file of another format it grows like one. */
	img->grows = policy->nesting && !raw->fixed && img->below->grows;
	raw->guard_head = !policy->format;
	if (!policy->format && policy->writable) {
		log_text("WARNING: Image format was not specified for '%s' and probing guessed "
			 "raw.\n"
			 "         Automatically detecting the format is dangerous for raw images, "
			 "write operations on block 0 will be restricted.\n"
			 "         Specify the 'raw' format explicitly to remove the restrictions.",
			 img->name);
	}
	return 0;
}

static int raw_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n)
{
	/* A file grows: reads beyond its end give zeros.  A device is never short,
	 * as its size is a multiple of the sector. */
	return image_read(f, img->below, raw_of(img)->start + goff, iov, n);
}

/* The first sector as the write would leave it. */
static int raw_head_allowed(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			    unsigned n)
{
	u8 head[SECTOR_BYTES];
	int ret = 0;

	if (goff || iov_bytes(iov, n) < sizeof(head))
		ret = image_pread(f, img->below, raw_of(img)->start, head, sizeof(head));
	if (ret < 0)
		return ret;
	iov_copy_from(iov, n, 0, head + goff, sizeof(head) - goff);
	return image_driver_probe(head, sizeof(head)) == img->driver ? 0 : -EPERM;
}

static int raw_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n)
{
	struct raw *raw = raw_of(img);
	int ret;

	if (raw->guard_head && goff < SECTOR_BYTES) {
		ret = raw_head_allowed(f, img, goff, iov, n);
		if (ret < 0)
			return ret;
	}
	return image_write(f, img->below, raw->start + goff, iov, n);
}

static int raw_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	return image_zero(f, img->below, raw_of(img)->start + goff, bytes, flags);
}

static int raw_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	return image_discard(f, img->below, raw_of(img)->start + goff, bytes);
}

static int raw_flush(struct fiber *f, struct image *img)
{
	return image_flush(f, img->below);
}

static int raw_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	u64 hoff = raw_of(img)->start + goff;

	/* The rounded-up rest of the last sector is a hole. */
	if (hoff >= img->below->bytes) {
		*out = (struct map_extent){
			.bytes = bytes, .hoff = hoff, .kind = MAP_ZERO | MAP_ALLOC | MAP_HOFF};
		return 0;
	}
	return image_map(f, img->below, hoff, bytes, out);
}

static int raw_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		      struct error *err)
{
	u64 end;
	int ret;

	if (raw_of(img)->fixed)
		return err_set(err, -ENOTSUP, "Cannot resize fixed-size raw disks");
	if (!add_ok(raw_of(img)->start, bytes, &end) || end > INT64_MAX)
		return err_set(err, -EINVAL, "Disk size too large for the chosen offset");
	ret = image_resize_alloc(f, img->below, end, mode, err);
	if (ret == 0)
		img->bytes = align_up(bytes, SECTOR_BYTES);
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
	.options = "offset size",
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
