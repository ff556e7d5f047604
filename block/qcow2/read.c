/* Reading: what the map says, from the file or the backing image.
 *
 * Neighbouring clusters are read in one request, separate extents of a request
 * in parallel.  A request is entered in q->ios before the map is asked, so the
 * clusters it finds are not reused under it (I2).  Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include "base/io.h"
#include "base/log.h"
#include "block/aligned.h"
#include "block/driver.h"
#include "block/group.h"
#include "block/qcow2/descend.h"

#include <errno.h>

struct reading {
	struct qcow2 *q;
	const struct iovec *iov;
	unsigned n;
	u64 goff, bytes;
	struct image_group group;
};

/* Beyond the end of a device there are zeros. */
static int read_short(struct fiber *f, struct image *file, u64 hoff, const struct iovec *iov,
		      unsigned n)
{
	u64 bytes = iov_bytes(iov, n), have = hoff < file->bytes ? file->bytes - hoff : 0;
	struct image_transfer t = {
		.fn = image_read, .img = file, .offset = hoff, .iov = iov, .n = n, .bytes = have};

	iov_zero(iov, n, have, bytes - have);
	return have ? image_transfer(f, &t) : 0;
}

static int read_file(struct fiber *f, struct image *file, u64 hoff, const struct iovec *iov,
		     unsigned n)
{
	u64 bytes;

	if (likely(file->grows))
		return image_read(f, file, hoff, iov, n);
	bytes = iov_bytes(iov, n);
	if (bytes <= file->bytes && hoff <= file->bytes - bytes)
		return image_read(f, file, hoff, iov, n);
	return read_short(f, file, hoff, iov, n);
}

/* How to fetch an extent that starts `skip` bytes into the request; false: it
 * is zeros and done.  The backing image is asked for what it has only. */
static bool prepare(struct reading *r, const struct extent *e, u64 skip, struct image_transfer *t)
{
	struct image *backing = r->q->img.backing;
	u64 goff = r->goff + skip;

	*t = (struct image_transfer){.fn = read_file,
				     .img = r->q->data,
				     .offset = e->hoff,
				     .iov = r->iov,
				     .n = r->n,
				     .skip = skip,
				     .bytes = e->bytes};
	if (e->kind == EXTENT_DATA) {
		if (r->q->crypt.method)
			qcow2_crypt_transfer(&r->q->crypt, goff, t);
		return true;
	}
	if (e->kind == EXTENT_COMPRESSED) {
		t->fn = e->bytes == r->bytes ? compressed_read : compressed_read_part;
		t->img = &r->q->img;
		t->offset = goff;
		return true;
	}
	if (e->kind == EXTENT_HOLE && backing && goff < backing->bytes) {
		u64 have = MIN(e->bytes, backing->bytes - goff);

		t->fn = image_read;
		t->img = backing;
		t->offset = goff;
		t->bytes = have;
		iov_zero(r->iov, r->n, skip + have, e->bytes - have);
		return true;
	}
	iov_zero(r->iov, r->n, skip, e->bytes);
	return false;
}

static int one_extent(struct fiber *f, struct reading *r, const struct extent *e, u64 skip)
{
	struct image_transfer t;

	if (!prepare(r, e, skip, &t))
		return 0;
	if (skip + e->bytes == r->bytes)
		return image_transfer(f, &t); /* the last one, on this fiber */
	image_group_add(f, &r->group, &t);
	return 0;
}

static bool joins(const struct extent *e, const struct extent *next)
{
	if (e->kind != next->kind || e->kind == EXTENT_COMPRESSED)
		return false;
	if (e->placed != next->placed)
		return false;
	return !e->placed || e->hoff + e->bytes == next->hoff;
}

/* What lies at `skip`, over the borders of L2 tables too. */
static int map_joined(struct fiber *f, struct reading *r, u64 skip, struct extent *out)
{
	int ret = l2_map(f, r->q, r->goff + skip, r->bytes - skip, out);

	while (ret == 0 && skip + out->bytes < r->bytes) {
		u64 at = skip + out->bytes;
		struct extent next;

		ret = l2_map(f, r->q, r->goff + at, r->bytes - at, &next);
		if (ret < 0 || !joins(out, &next))
			return ret;
		out->bytes += next.bytes;
	}
	return ret;
}

static int read_extents(struct fiber *f, struct reading *r)
{
	int ret = 0, group_ret;

	image_group_init(&r->group);
	for (u64 skip = 0; skip < r->bytes && ret == 0;) {
		struct extent e;

		ret = map_joined(f, r, skip, &e);
		if (ret < 0)
			break;
		ret = one_extent(f, r, &e, skip);
		skip += e.bytes;
	}
	group_ret = image_group_wait(f, &r->group);
	return ret < 0 ? ret : group_ret;
}

static int read_sectors(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov,
			unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	u64 bytes = iov_bytes(iov, n);
	struct io_track io;
	struct extent e;
	int ret;

	if (!bytes)
		return 0;
	io_begin(q, &io);
	ret = l2_map(f, q, goff, bytes, &e);
	if (ret == 0 && e.kind == EXTENT_DATA && e.bytes == bytes && !q->crypt.method) {
		ret = read_file(f, q->data, e.hoff, iov, n);
	} else if (ret == 0) {
		struct reading r = {.q = q, .iov = iov, .n = n, .goff = goff, .bytes = bytes};

		ret = read_extents(f, &r);
	}
	io_end(&io);
	return ret;
}

int qcow2_read(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	const struct aligned a = {.img = img, .read = read_sectors, .locks = &q->crypt.io.locks};
	struct image *asked;

	if (q->crypt.method)
		return aligned_read(f, &a, goff, iov, n);
	asked = descend(img, goff, iov_bytes(iov, n));
	if (asked != img && (asked->driver != img->driver || to_qcow2(asked)->crypt.method))
		return image_read(f, asked, goff, iov, n);
	return read_sectors(f, asked, goff, iov, n);
}

int qcow2_map(struct fiber *f, struct image *img, u64 goff, u64 bytes, struct map_extent *out)
{
	static const u32 kinds[] = {
		[EXTENT_HOLE] = 0,
		[EXTENT_ZERO] = MAP_ZERO | MAP_ALLOC,
		[EXTENT_DATA] = MAP_DATA | MAP_ALLOC | MAP_HOFF,
		[EXTENT_COMPRESSED] = MAP_DATA | MAP_ALLOC | MAP_COMPRESSED,
	};
	struct reading r = {.q = to_qcow2(img), .goff = goff, .bytes = bytes};
	struct extent e;
	int ret = map_joined(f, &r, 0, &e);

	while (ret == 0 && e.kind == EXTENT_COMPRESSED && e.bytes < bytes) {
		struct extent next;

		ret = l2_map(f, r.q, goff + e.bytes, bytes - e.bytes, &next);
		if (ret < 0 || next.kind != EXTENT_COMPRESSED)
			break;
		e.bytes += next.bytes;
	}
	if (ret < 0)
		return ret;
	*out = (struct map_extent){.bytes = e.bytes,
				   .hoff = e.hoff,
				   .kind = kinds[e.kind],
				   .file = to_qcow2(img)->data};
	if (e.placed)
		out->kind |= MAP_HOFF;
	if (r.q->crypt.method) /* nobody is to read there by himself */
		out->kind &= ~(u32)MAP_HOFF;
	return 0;
}
