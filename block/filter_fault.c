/* A filter that fails chosen operations, to walk every error path; see filter.h.
 * A failed operation does not reach the file below.  Thread: the loop's. */
#include "block/filter.h"

#include "block/driver.h"

#include <errno.h>

struct fault {
	struct image img;
	struct fault_rule *rule; /* [loop] lent */
};

static struct fault *fault_of(struct image *img)
{
	return container_of(img, struct fault, img);
}

/* Count one operation down: 0, or the error it is to fail with. */
static int count(const struct fault_rule *rule, unsigned *countdown)
{
	if (!*countdown)
		return 0;
	if (*countdown > 1) {
		--*countdown;
		return 0;
	}
	if (!rule->sticky)
		*countdown = 0;
	return rule->error;
}

static int fault_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		      unsigned n)
{
	struct fault_rule *rule = fault_of(img)->rule;
	int ret = count(rule, &rule->reads);

	return ret < 0 ? ret : image_read(f, img->below, goff, iov, n);
}

static int fault_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		       unsigned n)
{
	struct fault_rule *rule = fault_of(img)->rule;
	int ret = count(rule, &rule->writes);

	return ret < 0 ? ret : image_write(f, img->below, goff, iov, n);
}

static int fault_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	struct fault_rule *rule = fault_of(img)->rule;
	int ret = count(rule, &rule->writes);

	return ret < 0 ? ret : image_zero(f, img->below, goff, bytes, flags);
}

static int fault_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	struct fault_rule *rule = fault_of(img)->rule;
	int ret = count(rule, &rule->writes);

	return ret < 0 ? ret : image_discard(f, img->below, goff, bytes);
}

static int fault_flush(struct fiber *f, struct image *img)
{
	struct fault_rule *rule = fault_of(img)->rule;
	int ret = count(rule, &rule->syncs);

	return ret < 0 ? ret : image_flush(f, img->below);
}

static int fault_map(struct fiber *f, struct image *img, u64 goff, u64 bytes,
		     struct map_extent *out)
{
	return image_map(f, img->below, goff, bytes, out);
}

static int fault_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
			struct error *err)
{
	struct fault_rule *rule = fault_of(img)->rule;
	int ret = count(rule, &rule->writes);

	if (ret < 0)
		return err_set(err, ret, "resize of '%s' failed on purpose", img->name);
	ret = image_resize_alloc(f, img->below, bytes, mode, err);
	img->bytes = img->below->bytes;
	return ret;
}

static const struct image_driver fault_driver = {
	.name = "fault",
	.state_size = sizeof(struct fault),
	.read = fault_read,
	.write = fault_write,
	.zero = fault_zero,
	.discard = fault_discard,
	.flush = fault_flush,
	.map = fault_map,
	.resize = fault_resize,
};

int filter_fault_new(struct image **out, struct image *below, struct fault_rule *rule)
{
	struct image *img = image_new_filter(&fault_driver, below);

	fault_of(img)->rule = rule;
	*out = img;
	return 0;
}
