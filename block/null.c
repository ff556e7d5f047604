/* Images without content: "null-co://", and what "driver=null-co,size=..." says.
 *
 * What is written is forgotten, and what is read is zeros, also where the reference
 * leaves a buffer as it was: nobody is to see what this process had in it.  For measuring
 * what lies above an image.  Thread: the image's loop. */
#include "block/driver.h"

#include "base/fiber.h"
#include "base/io.h"
#include "base/loop.h"
#include "base/opts.h"

#include <errno.h>

#define BYTES_DEFAULT	(1 * GiB)
#define BYTES_MOST	(4096 * TiB)
#define LATENCY_MOST_NS 60000000000ull

struct null_image {
	struct image img;
	u64 latency_ns;	  /* [const] that a request takes */
	bool reads_zeros; /* [const] and says so */
};

static struct null_image *null_of(struct image *img)
{
	return container_of(img, struct null_image, img);
}

static int wait_a_little(struct fiber *f, struct image *img)
{
	if (null_of(img)->latency_ns)
		fiber_sleep_ns(f, null_of(img)->latency_ns);
	return 0;
}

static int null_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n)
{
	u64 bytes = 0;

	for (unsigned i = 0; i < n; i++)
		bytes += iov[i].iov_len;
	iov_zero(iov, n, 0, bytes);
	return wait_a_little(f, img);
}

static int null_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		      unsigned n)
{
	return wait_a_little(f, img);
}

static int null_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	return wait_a_little(f, img);
}

static int null_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	return wait_a_little(f, img);
}

static int null_flush(struct fiber *f, struct image *img)
{
	return wait_a_little(f, img);
}

static int null_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	*out = (struct map_extent){.bytes = bytes,
				   .kind = MAP_ALLOC |
					   (null_of(img)->reads_zeros ? MAP_ZERO : MAP_DATA)};
	return 0;
}

static int null_close(struct fiber *f, struct image *img)
{
	return 0;
}

#define DRIVER(driver_name)                                                                        \
	{                                                                                          \
		.name = (driver_name), .state_size = sizeof(struct null_image), .read = null_read, \
		.write = null_write, .zero = null_zero, .discard = null_discard,                   \
		.flush = null_flush, .map = null_map, .close = null_close                          \
	}

static const struct image_driver null_co_driver = DRIVER("null-co");
static const struct image_driver null_aio_driver = DRIVER("null-aio");

bool image_is_null(const struct image *img)
{
	return img->driver == &null_co_driver || img->driver == &null_aio_driver;
}

static int open_null(struct fiber *f, struct image **out, const struct image_driver *driver,
		     const char *name, const struct open_policy *policy, struct error *err)
{
	AUTO_FREE char *only = xasprintf("%s://", driver->name);
	struct opts none = {0};
	const struct opts *o = policy->options ? policy->options : &none;
	u64 bytes = BYTES_DEFAULT, latency = 0;
	bool zeros = false;
	struct null_image *null;

	if (name && strcmp(name, only))
		return err_set(err, -EINVAL, "The only allowed filename for this driver is '%s'",
			       only);
	if (opts_get_size(o, "size", 1, &bytes, err) < 0 ||
	    opts_get_size(o, "latency-ns", 1, &latency, err) < 0 ||
	    opts_get_bool(o, "read-zeroes", &zeros, err) < 0)
		return err->code;
	if (bytes > BYTES_MOST)
		return err_set(err, -EFBIG, "size is %llu, expected at most %llu",
			       (unsigned long long)bytes, (unsigned long long)BYTES_MOST);
	if (latency > LATENCY_MOST_NS)
		return err_set(err, -EINVAL, "latency-ns is %llu, expected at most %llu",
			       (unsigned long long)latency, LATENCY_MOST_NS);
	*out = image_new(driver, fiber_loop(f), only);
	null = null_of(*out);
	null->latency_ns = latency;
	null->reads_zeros = zeros;
	(*out)->bytes = align_up(bytes, 512);
	(*out)->writable = policy->writable;
	return 0;
}

static int open_null_co(struct fiber *f, struct image **out, const char *name,
			const struct open_policy *policy, struct error *err)
{
	return open_null(f, out, &null_co_driver, name, policy, err);
}

static int open_null_aio(struct fiber *f, struct image **out, const char *name,
			 const struct open_policy *policy, struct error *err)
{
	return open_null(f, out, &null_aio_driver, name, policy, err);
}

#define OPTIONS "size latency-ns read-zeroes"

const struct image_protocol null_co_protocol = {"null-co", OPTIONS, open_null_co};
const struct image_protocol null_aio_protocol = {"null-aio", OPTIONS, open_null_aio};
