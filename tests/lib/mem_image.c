/* A disk in memory; see mem_image.h. */
#include "tests/lib/mem_image.h"

#include "base/io.h"
#include "block/driver.h"
#include "block/graph.h"

#include <errno.h>

struct mem_image {
	struct image img;
	struct mem_disk *disk;
};

u64 next_random(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed >> 11;
}

void mem_disk_fini(struct mem_disk *d)
{
	free(d->data);
	*d = (struct mem_disk){0};
}

static struct mem_disk *disk_of(struct image *img)
{
	return container_of(img, struct mem_image, img)->disk;
}

void mem_disk_release(struct mem_disk *d)
{
	assert(d->held);
	d->held = false;
	fiber_queue_wake_all(&d->gate);
}

static void hold(struct fiber *f, struct mem_disk *d)
{
	d->hold_next = false;
	d->held = true;
	fiber_queue_init(&d->gate);
	while (d->held)
		fiber_queue_wait(f, &d->gate);
}

static void stumble(struct fiber *f, struct mem_disk *d)
{
	if (d->hold_next)
		hold(f, d);
	if (!d->seed)
		return;
	for (u64 n = next_random(&d->seed) % 4; n; n--)
		fiber_yield(f);
}

static int reach(struct mem_disk *d, u64 end)
{
	if (d->limit && end > d->limit)
		return -ENOSPC;
	if (end > d->bytes && d->fixed)
		return -EINVAL;
	if (end > (u64)1 << 32)
		return -EFBIG;
	if (end > d->room) {
		u64 room = MAX(end, 2 * d->room);

		d->data = xrealloc(d->data, room);
		memset(d->data + d->room, 0, room - d->room);
		d->room = room;
	}
	d->bytes = MAX(d->bytes, end);
	return 0;
}

static int mem_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		    unsigned n)
{
	struct mem_disk *d = disk_of(img);
	u64 bytes = iov_bytes(iov, n), have = goff < d->bytes ? MIN(bytes, d->bytes - goff) : 0;

	stumble(f, d);
	d->reads++;
	if (have)
		iov_copy_to(iov, n, 0, d->data + goff, have);
	iov_zero(iov, n, have, bytes - have);
	stumble(f, d);
	return 0;
}

static int mem_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		     unsigned n)
{
	struct mem_disk *d = disk_of(img);
	u64 bytes = iov_bytes(iov, n);
	int ret;

	stumble(f, d);
	d->writes++;
	ret = reach(d, goff + bytes);
	if (ret == 0)
		iov_copy_from(iov, n, 0, d->data + goff, bytes);
	stumble(f, d);
	return ret;
}

static int mem_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	struct mem_disk *d = disk_of(img);
	int ret = reach(d, goff + bytes);

	stumble(f, d);
	if (ret == 0)
		memset(d->data + goff, 0, bytes);
	return ret;
}

static int mem_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	return mem_zero(f, img, goff, bytes, 0);
}

static int mem_flush(struct fiber *f, struct image *img)
{
	stumble(f, disk_of(img));
	disk_of(img)->syncs++;
	return 0;
}

static int mem_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		      struct error *err)
{
	struct mem_disk *d = disk_of(img);
	int ret = reach(d, bytes);

	if (ret < 0)
		return err_set_errno(err, ret, "resize");
	if (bytes < d->bytes)
		memset(d->data + bytes, 0, d->bytes - bytes);
	d->bytes = img->bytes = bytes;
	return 0;
}

/* For image_set_writable: it may be. */
static int mem_begin_writing(struct fiber *f, struct image *img, struct error *err)
{
	return 0;
}

static const struct image_graph_ops graph_ops = {.begin_writing = mem_begin_writing};

static const struct image_driver mem_driver = {
	.name = "mem",
	.graph = &graph_ops,
	.state_size = sizeof(struct mem_image),
	.read = mem_read,
	.write = mem_write,
	.zero = mem_zero,
	.discard = mem_discard,
	.flush = mem_flush,
	.resize = mem_resize,
};

struct image *mem_image_new(struct loop *loop, struct mem_disk *d)
{
	struct image *img = image_new(&mem_driver, loop, "mem");

	container_of(img, struct mem_image, img)->disk = d;
	img->bytes = d->bytes;
	img->writable = true;
	img->grows = !d->fixed;
	return img;
}

int image_open_over(struct fiber *f, struct image **out, const char *format, struct image *below,
		    const struct open_policy *policy, struct error *err)
{
	const struct image_driver *driver = image_driver_find(format);
	struct image *img = image_new(driver, fiber_loop(f), "test");
	int ret;

	img->writable = policy->writable;
	img->below = below;
	ret = driver->open(f, img, policy, err);
	if (ret < 0) {
		img->driver = below->driver; /* release what open set, then below */
		free(img->name);
		free(img->backing_name);
		free(img->backing_format);
		free(img);
		image_close(f, below);
		return ret;
	}
	*out = img;
	return 0;
}
