/* Images: the driver table, checks before every request.
 *
 * Range, alignment and writability are checked here, once per layer; drivers
 * trust them.  Opening is in image_open.c.
 * Thread: the image's loop. */
#include "block/image.h"

#include "base/io.h"
#include "base/loop.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>

#define ZERO_CHUNK    (64 * KiB)
#define ZERO_PAGE     4096
#define SLICE_ROOM    16	 /* vector entries on the stack */
#define STACK_RESERVE (20 * KiB) /* more than one image and the file under it take */

/* In the order of probing; raw takes what nobody else claims. */
static const struct image_driver *const drivers[] = {
	&qcow2_driver,
	&luks_driver,
	&raw_driver,
};

const struct image_driver *image_driver_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_LEN(drivers); i++)
		if (!strcmp(drivers[i]->name, name))
			return drivers[i];
	return NULL;
}

const struct image_driver *image_driver_probe(const u8 *head, size_t bytes)
{
	const struct image_driver *best = NULL;
	int best_score = 0;

	for (unsigned i = 0; i < ARRAY_LEN(drivers); i++) {
		int score = drivers[i]->probe(head, bytes);

		if (score > best_score) {
			best = drivers[i];
			best_score = score;
		}
	}
	return best;
}

struct image *image_new(const struct image_driver *driver, struct loop *loop, const char *name)
{
	struct image *img;

	assert(driver->state_size >= sizeof(*img));
	img = xalloc(driver->state_size);
	img->driver = driver;
	img->loop = loop;
	img->name = xstrdup(name);
	img->request_align = 1;
	return img;
}

struct image *image_new_filter(const struct image_driver *driver, struct image *below)
{
	struct image *img = image_new(driver, below->loop, below->name);

	img->bytes = below->bytes;
	img->writable = below->writable;
	img->grows = below->grows;
	img->request_align = below->request_align;
	img->below = below;
	return img;
}

void image_set_backing(struct image *img, struct image *backing)
{
	img->backing = backing;
	loop_note_change(img->loop);
}

void image_free(struct image *img)
{
	loop_note_change(img->loop);
	free(img->name);
	free(img->node_name);
	free(img->backing_name);
	free(img->backing_format);
	free(img);
}

/* --- requests -------------------------------------------------------------- */

static int check_range(const struct image *img, u64 goff, u64 bytes)
{
	u64 end;

	if (unlikely(img->locked))
		return -EACCES;
	if (!add_ok(goff, bytes, &end) || end > INT64_MAX)
		return -EINVAL;
	if (end > img->bytes && !img->grows)
		return -EINVAL;
	return is_aligned(goff | bytes, img->request_align) ? 0 : -EINVAL;
}

static int check_change(const struct image *img, u64 goff, u64 bytes)
{
	return img->writable ? check_range(img, goff, bytes) : -EROFS;
}

static void note_growth(struct image *img, u64 end)
{
	if (img->grows && end > img->bytes)
		img->bytes = end;
}

struct read_call {
	struct image *img;
	u64 goff;
	const struct iovec *iov;
	unsigned n;
};

static int read_on_fresh_stack(struct fiber *f, void *arg)
{
	struct read_call *c = arg;

	return c->img->driver->read(f, c->img, c->goff, c->iov, c->n);
}

int image_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n)
{
	struct read_call call = {img, goff, iov, n};
	u64 bytes = iov_bytes(iov, n);
	int ret = check_range(img, goff, bytes);

	if (ret < 0 || !bytes)
		return ret;
	/* Reads recurse down the chain, whose length the images decide. */
	if (unlikely(fiber_stack_left(f) < STACK_RESERVE))
		return fiber_call(f, read_on_fresh_stack, &call);
	return img->driver->read(f, img, goff, iov, n);
}

int image_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n)
{
	u64 bytes = iov_bytes(iov, n);
	int ret = check_change(img, goff, bytes);

	if (ret < 0 || !bytes)
		return ret;
	if (unlikely(img->detect_zeroes) && iov_is_zero(iov, n))
		return image_zero(f, img, goff, bytes,
				  img->detect_zeroes == DETECT_ZEROES_UNMAP ? ZERO_MAY_UNMAP : 0);
	ret = img->driver->write(f, img, goff, iov, n);
	if (ret == 0)
		note_growth(img, goff + bytes);
	return ret;
}

int image_pread(struct fiber *f, struct image *img, u64 goff, void *buf, u64 bytes)
{
	struct iovec iov = {buf, bytes};

	return image_read(f, img, goff, &iov, 1);
}

int image_pwrite(struct fiber *f, struct image *img, u64 goff, const void *buf, u64 bytes)
{
	struct iovec iov = {(void *)(uintptr_t)buf, bytes};

	return image_write(f, img, goff, &iov, 1);
}

static int write_zeros(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	/* Aligned, so that O_DIRECT takes it as it is. */
	static const u8 zeros[ZERO_PAGE] __attribute__((aligned(ZERO_PAGE)));
	struct iovec iov[ZERO_CHUNK / ZERO_PAGE];
	int ret = 0;

	for (u64 part, end = goff + bytes; goff < end && ret == 0; goff += part) {
		unsigned n = 0;

		part = MIN(end - goff, ZERO_CHUNK);
		for (u64 left = part; left; left -= iov[n++].iov_len) {
			iov[n].iov_base = (void *)(uintptr_t)zeros;
			iov[n].iov_len = MIN(left, (u64)ZERO_PAGE);
		}
		/* Not image_write: it may be who asked, for zeros it found. */
		ret = img->driver->write(f, img, goff, iov, n);
		if (ret == 0)
			note_growth(img, goff + part);
	}
	return ret;
}

int image_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	int ret = check_change(img, goff, bytes);

	if (ret < 0 || !bytes)
		return ret;
	ret = img->driver->zero ? img->driver->zero(f, img, goff, bytes, flags) : -ENOTSUP;
	if (ret == -ENOTSUP && !(flags & ZERO_NO_FALLBACK))
		return write_zeros(f, img, goff, bytes);
	if (ret == 0)
		note_growth(img, goff + bytes);
	return ret;
}

int image_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	int ret = check_change(img, goff, bytes);

	if (ret < 0 || !bytes || !img->driver->discard)
		return ret;
	return img->driver->discard(f, img, goff, bytes);
}

int image_flush(struct fiber *f, struct image *img)
{
	return img->writable && img->driver->flush ? img->driver->flush(f, img) : 0;
}

int image_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	int ret;

	if (!bytes || goff >= img->bytes)
		return -EINVAL;
	bytes = MIN(bytes, img->bytes - goff);
	*out = (struct map_extent){.bytes = bytes, .kind = MAP_DATA | MAP_ALLOC};
	if (!img->driver->map)
		return 0;
	ret = img->driver->map(f, img, goff, bytes, out);
	if (ret == 0 && out->kind & MAP_HOFF && !out->file)
		out->file = img->below;
	assert(ret < 0 || (out->bytes && out->bytes <= bytes));
	return ret;
}

int image_resize_alloc(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		       struct error *err)
{
	int ret;

	if (!img->writable)
		return err_set(err, -EROFS, "Image '%s' is read-only", img->name);
	if (img->locked)
		return err_set(err, -EACCES, "Image '%s' is encrypted and locked", img->name);
	if (!img->driver->resize)
		return err_set(err, -ENOTSUP, "Image format driver '%s' does not support resize",
			       img->driver->name);
	if (mode != PREALLOC_OFF && bytes < img->bytes)
		return err_set(err, -ENOTSUP, "Preallocation can't be used for shrinking images");
	ret = img->driver->resize(f, img, bytes, mode, err);
	assert(ret < 0 || img->bytes == bytes || !img->grows);
	return ret;
}

int image_resize(struct fiber *f, struct image *img, u64 bytes, struct error *err)
{
	return image_resize_alloc(f, img, bytes, PREALLOC_OFF, err);
}

/* The vector reaches beyond the end of the backing image, which has `bytes`. */
static int read_short_backing(struct fiber *f, struct image *backing, u64 goff,
			      const struct iovec *iov, unsigned n)
{
	u64 bytes = backing->bytes - goff;
	struct iovec small[SLICE_ROOM], *head = small;
	int ret;

	if (n > SLICE_ROOM) {
		head = try_alloc(n * sizeof(*head));
		if (!head)
			return -ENOMEM;
	}
	ret = image_read(f, backing, goff, head, iov_slice(head, iov, n, 0, bytes));
	if (ret == 0)
		iov_zero(iov, n, bytes, iov_bytes(iov, n) - bytes);
	if (head != small)
		free(head);
	return ret;
}

int image_read_backing(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		       unsigned n)
{
	struct image *backing = img->backing;
	u64 bytes = iov_bytes(iov, n);

	if (!backing || goff >= backing->bytes) {
		iov_zero(iov, n, 0, bytes);
		return 0;
	}
	if (bytes > backing->bytes - goff)
		return read_short_backing(f, backing, goff, iov, n);
	return image_read(f, backing, goff, iov, n);
}

unsigned image_depth(const struct image *img)
{
	unsigned depth = 0;

	for (img = img->backing; img; img = img->backing)
		depth++;
	return depth;
}

/* --- closing ---------------------------------------------------------------- */

/* The image itself; what is below it is closed after it.  Formats nest only as
 * deep as names do. */
static int close_one(struct fiber *f, struct image *img)
{
	struct image *below = img->below;
	int ret = img->driver->close ? img->driver->close(f, img) : 0;
	int below_ret;

	image_free(img);
	below_ret = image_close(f, below);
	return ret ? ret : below_ret;
}

int image_close(struct fiber *f, struct image *img)
{
	int ret = 0, one;

	while (img) {
		struct image *backing = img->backing;

		one = close_one(f, img);
		if (!ret)
			ret = one;
		img = backing;
	}
	return ret;
}
