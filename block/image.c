/* Images: the driver table, checks before every request, opening of chains.
 *
 * Range, alignment and writability are checked here, once per layer; drivers
 * trust them.  A backing image is opened only when the policy allows it, always
 * read-only, and never twice in one chain.
 * Thread: the image's loop. */
#include "block/image.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/file.h"

#include <errno.h>
#include <sys/stat.h>

#define HEAD_BYTES    512 /* what probing sees */
#define MAX_DEPTH     200 /* backing images; a longer chain is taken for an attack */
#define ZERO_CHUNK    (64 * KiB)
#define ZERO_PAGE     4096
#define SLICE_ROOM    16	 /* vector entries on the stack */
#define STACK_RESERVE (20 * KiB) /* more than one image and the file under it take */

/* In the order of probing; raw takes what nobody else claims. */
static const struct image_driver *const drivers[] = {
	&qcow2_driver,
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

static void image_free(struct image *img)
{
	free(img->name);
	free(img->backing_name);
	free(img->backing_format);
	free(img);
}

/* --- requests -------------------------------------------------------------- */

static int check_range(const struct image *img, u64 goff, u64 bytes)
{
	u64 end;

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
		ret = image_write(f, img, goff, iov, n);
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

/* --- opening --------------------------------------------------------------- */

static bool has_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

char *image_resolve_name(const char *overlay, const char *backing)
{
	const char *slash = strrchr(overlay, '/');

	if (backing[0] == '/' || has_protocol(backing) || !slash)
		return xstrdup(backing);
	return xasprintf("%.*s%s", (int)(slash - overlay) + 1, overlay, backing);
}

unsigned image_depth(const struct image *img)
{
	unsigned depth = 0;

	for (img = img->backing; img; img = img->backing)
		depth++;
	return depth;
}

static int find_driver(struct fiber *f, struct image *file, const char *name,
		       const struct open_policy *policy, const struct image_driver **out,
		       struct error *err)
{
	u8 head[HEAD_BYTES];
	u64 bytes = MIN(file->bytes, sizeof(head));
	int ret;

	if (policy->format) {
		*out = image_driver_find(policy->format);
		return *out ? 0 : err_set(err, -EINVAL, "Unknown driver '%s'", policy->format);
	}
	ret = image_pread(f, file, 0, head, bytes);
	if (ret < 0)
		return err_set_errno(err, ret,
				     "Could not read image '%s' for determining its format", name);
	*out = image_driver_probe(head, bytes);
	return 0;
}

/* One image without its backing. */
static int open_one(struct fiber *f, struct image **out, const char *name,
		    const struct open_policy *policy, struct error *err)
{
	const struct image_driver *driver;
	struct image *file, *img;
	int ret;

	ret = file_open(f, &file, name, policy, err);
	if (ret < 0)
		return ret;
	if (policy->wrap)
		file = policy->wrap(file, policy->wrap_arg);
	ret = find_driver(f, file, name, policy, &driver, err);
	if (ret < 0)
		goto out_close;
	img = image_new(driver, fiber_loop(f), name);
	img->writable = policy->writable;
	img->below = file;
	ret = driver->open(f, img, policy, err);
	if (ret < 0) {
		image_free(img);
		goto out_close;
	}
	assert(img->below == file);
	*out = img;
	return 0;
out_close:
	image_close(f, file);
	return ret;
}

/* Identity of the host file at the bottom of one image. */
static void file_identity(const struct image *img, struct stat *st)
{
	while (img->below)
		img = img->below;
	if (img->driver != &file_driver || fstat(file_fd(img), st))
		memset(st, 0, sizeof(*st));
}

/* Asked before opening: the locks of the first opening would refuse the second,
 * with a message that does not help. */
static bool is_in_chain(const struct image *top, const char *name)
{
	struct stat mine, other;

	if (stat(name, &mine))
		return false; /* opening it will say what is wrong */
	for (; top; top = top->backing) {
		file_identity(top, &other);
		if (mine.st_dev == other.st_dev && mine.st_ino == other.st_ino)
			return true;
	}
	return false;
}

/* Open what `img`, last image of top's chain, names as its backing. */
static int open_backing(struct fiber *f, struct image *top, struct image *img,
			const struct open_policy *policy, struct error *err)
{
	struct open_policy readonly = *policy;
	char *name;
	int ret;

	if (image_depth(top) >= MAX_DEPTH)
		return err_set(err, -ELOOP, "the backing chain of '%s' is longer than %d images",
			       top->name, MAX_DEPTH);
	/* A name says how to open; who wrote the image must not choose a writer. */
	readonly.writable = false;
	readonly.check_only = false;
	readonly.format = img->backing_format;
	name = image_resolve_name(img->name, img->backing_name);
	if (is_in_chain(top, name))
		ret = err_set(err, -ELOOP, "Backing file '%s' of '%s' creates an infinite loop.",
			      name, img->name);
	else
		ret = open_one(f, &img->backing, name, &readonly, err);
	free(name);
	return ret < 0 ? err_prefix(err, "Could not open backing file") : 0;
}

int image_open(struct fiber *f, struct image **out, const char *name,
	       const struct open_policy *policy, struct error *err)
{
	struct image *top;
	int ret;

	ret = open_one(f, &top, name, policy, err);
	if (ret < 0)
		return ret;
	for (struct image *img = top; img->backing_name && !policy->no_backing;
	     img = img->backing) {
		ret = open_backing(f, top, img, policy, err);
		if (ret < 0) {
			image_close(f, top);
			return ret;
		}
	}
	*out = top;
	return 0;
}

/* An image and what is below it, but not its backing. */
static int close_one(struct fiber *f, struct image *img)
{
	int ret = 0, one;

	while (img) {
		struct image *below = img->below;

		one = img->driver->close ? img->driver->close(f, img) : 0;
		if (!ret)
			ret = one;
		image_free(img);
		img = below;
	}
	return ret;
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
