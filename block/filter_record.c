/* A filter that records what changes the file below, for the crash tests; see
 * filter.h.  What fails below is not recorded.  Thread: the loop's. */
#include "block/filter.h"

#include "base/io.h"
#include "block/driver.h"

#include <errno.h>

struct record {
	struct image img;
	struct record_log *log; /* [loop] lent */
	u32 file;		/* [const] */
};

static struct record_log *log_of(struct image *img)
{
	return container_of(img, struct record, img)->log;
}

static void append_to(struct record_log *log, struct record_event event)
{
	if (log->n == log->room) {
		log->room = MAX(2 * log->room, (size_t)256);
		log->events = xrealloc(log->events, log->room * sizeof(*log->events));
	}
	log->events[log->n++] = event;
}

static void append(struct image *img, struct record_event event)
{
	event.file = container_of(img, struct record, img)->file;
	append_to(log_of(img), event);
}

static int record_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
		       unsigned n)
{
	return image_read(f, img->below, goff, iov, n);
}

static int record_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			unsigned n)
{
	struct record_event event = {.kind = RECORD_WRITE,
				     .hoff = goff,
				     .bytes = iov_bytes(iov, n),
				     .issued = log_of(img)->n};
	int ret;

	/* Copied before it is written: the caller may change its buffer, the
	 * guest its memory. */
	event.data = try_alloc(event.bytes);
	if (!event.data)
		return -ENOMEM;
	iov_copy_from(iov, n, 0, event.data, event.bytes);
	/* A cache takes it at once, but a disk would not: others are issued meanwhile. */
	fiber_yield(f);
	ret = image_pwrite(f, img->below, goff, event.data, event.bytes);
	if (ret == 0)
		append(img, event);
	else
		free(event.data);
	return ret;
}

static int record_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags)
{
	struct record_event event = {
		.kind = RECORD_ZERO, .hoff = goff, .bytes = bytes, .issued = log_of(img)->n};
	int ret = image_zero(f, img->below, goff, bytes, flags);

	if (ret == 0)
		append(img, event);
	return ret;
}

static int record_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes)
{
	struct record_event event = {
		.kind = RECORD_DISCARD, .hoff = goff, .bytes = bytes, .issued = log_of(img)->n};
	int ret = image_discard(f, img->below, goff, bytes);

	if (ret == 0)
		append(img, event);
	return ret;
}

static int record_flush(struct fiber *f, struct image *img)
{
	struct record_event event = {.kind = RECORD_SYNC, .issued = log_of(img)->n};
	int ret = image_flush(f, img->below);

	if (ret == 0)
		append(img, event);
	return ret;
}

static int record_map(struct fiber *f, struct image *img, u64 goff, u64 bytes,
		      struct map_extent *out)
{
	return image_map(f, img->below, goff, bytes, out);
}

static int record_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
			 struct error *err)
{
	struct record_event event = {
		.kind = RECORD_RESIZE, .bytes = bytes, .issued = log_of(img)->n};
	int ret = image_resize_alloc(f, img->below, bytes, mode, err);

	if (ret == 0)
		append(img, event);
	img->bytes = img->below->bytes;
	return ret;
}

static const struct image_driver record_driver = {
	.name = "record",
	.state_size = sizeof(struct record),
	.read = record_read,
	.write = record_write,
	.zero = record_zero,
	.discard = record_discard,
	.flush = record_flush,
	.map = record_map,
	.resize = record_resize,
};

int filter_record_file(struct image **out, struct image *below, struct record_log *log, u32 file)
{
	struct image *img = image_new_filter(&record_driver, below);
	struct record *r = container_of(img, struct record, img);

	r->log = log;
	r->file = file;
	*out = img;
	return 0;
}

int filter_record_new(struct image **out, struct image *below, struct record_log *log)
{
	return filter_record_file(out, below, log, 0);
}

void record_mark(struct record_log *log, u64 mark)
{
	append_to(log, (struct record_event){.kind = RECORD_MARK, .hoff = mark, .issued = log->n});
}

void record_log_fini(struct record_log *log)
{
	for (size_t i = 0; i < log->n; i++)
		free(log->events[i].data);
	free(log->events);
	memset(log, 0, sizeof(*log));
}
