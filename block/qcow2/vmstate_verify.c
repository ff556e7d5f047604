/* Checksums of a snapshot's VM state; see vmstate_verify.h.
 *
 * The header first: places and sizes come from it.  Then every part, a piece at a
 * time; then memory, as the table of checksums tells, and the table itself is only
 * believed when its own checksum was right. */
#include "block/qcow2/vmstate_verify.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/io.h"
#include "block/driver.h"
#include "block/qcow2/snapshot_int.h"
#include "block/qcow2/parts.h"
#include "block/qcow2/vmstate_format.h"

#include <errno.h>

#define PIECE	     (1 * MiB)
#define CRCS_AT_ONCE (PIECE / sizeof(u32))

static const char *const part_names[SNAP_PARTS] = {
	[SNAP_CRCS] = "table of checksums",
	[SNAP_MANIFEST] = "description of the machine",
	[SNAP_STATE] = "state of devices",
	[SNAP_WORKING_SET] = "working set",
};

/* Damage that goes on is told once. */
struct run {
	u64 at, bytes;
	int ret;
};

struct walk {
	struct fiber *f;
	struct image *img;
	struct vmstate_verify *v;
	struct snap_header h;
	u8 *piece; /* PIECE bytes */
	u8 *crcs;  /* as many */
	struct run run;
	u64 done; /* of all of the area */
};

static int read_area(struct walk *w, u64 off, void *data, u64 bytes)
{
	struct iovec iov = {data, bytes};

	return qcow2_vmstate_read(w->f, w->img, off, &iov, 1);
}

static bool go_on(struct walk *w, u64 bytes)
{
	w->done += bytes;
	return w->v->progress(w->v->arg, w->done, w->h.area_bytes);
}

/* --- parts ------------------------------------------------------------------------ */

static int verify_part(struct walk *w, enum snap_part part)
{
	u64 left = w->h.parts[part].bytes, off = w->h.parts[part].off, n;
	u32 crc = 0;
	int ret = 0;

	for (; left && ret == 0; left -= n, off += n) {
		n = MIN(left, PIECE);
		ret = read_area(w, off, w->piece, n);
		if (ret == 0)
			crc = crc32c(crc, w->piece, n);
		if (!go_on(w, n))
			return -ECANCELED;
	}
	w->v->checked += w->h.parts[part].bytes;
	if (ret == 0 && crc != w->h.parts[part].crc)
		ret = -EBADMSG;
	if (ret < 0)
		w->v->damage(w->v->arg, part_names[part], 0, w->h.parts[part].bytes, ret);
	return ret;
}

/* --- memory ----------------------------------------------------------------------- */

static void end_run(struct walk *w)
{
	if (w->run.bytes)
		w->v->damage(w->v->arg, NULL, w->run.at, w->run.bytes, w->run.ret);
	w->run.bytes = 0;
}

static void damaged(struct walk *w, u64 unit, u64 n, int ret)
{
	struct run *r = &w->run;

	if (r->bytes && r->at + r->bytes == unit * SNAP_UNIT && r->ret == ret) {
		r->bytes += n * SNAP_UNIT;
		return;
	}
	end_run(w);
	*r = (struct run){unit * SNAP_UNIT, n * SNAP_UNIT, ret};
}

static bool is_zero(const u8 *data)
{
	struct iovec iov = {(void *)(uintptr_t)data, SNAP_UNIT};

	return iov_is_zero(&iov, 1);
}

/* How many of n units from this one on have no data in the image. */
static u64 units_in_hole(struct walk *w, u64 unit, u64 n)
{
	struct qcow2 *q = to_qcow2(w->img);
	u64 start = (u64)snapshot_disk_entries(q, q->img.bytes) * l2_span(q);
	u64 goff = start + w->h.ram_off + unit * SNAP_UNIT, end = goff + n * SNAP_UNIT, at = goff;
	u64 most = (u64)q->l1_entries * l2_span(q);

	while (at < MIN(end, most)) {
		struct extent e;

		if (l2_map(w->f, q, at, end - at, &e) < 0 || e.kind == EXTENT_DATA ||
		    e.kind == EXTENT_COMPRESSED)
			return (at - goff) / SNAP_UNIT;
		at += e.bytes;
	}
	return n;
}

/* No data: right where zeros are to be. */
static void verify_hole(struct walk *w, u64 unit, u64 n, const u8 *crcs)
{
	for (u64 i = 0; i < n; i++)
		if (load_le32(crcs + i * sizeof(u32)))
			damaged(w, unit + i, 1, -EBADMSG);
}

static void verify_data(struct walk *w, u64 unit, u64 n, const u8 *crcs)
{
	int ret = read_area(w, w->h.ram_off + unit * SNAP_UNIT, w->piece, n * SNAP_UNIT);

	if (ret < 0 && n > 1) { /* find out which one it is */
		for (u64 i = 0; i < n; i++)
			verify_data(w, unit + i, 1, crcs + i * sizeof(u32));
		return;
	}
	w->v->checked += n * SNAP_UNIT;
	for (u64 i = 0; i < n; i++) {
		const u8 *data = w->piece + i * SNAP_UNIT;
		u32 want = load_le32(crcs + i * sizeof(u32));
		int one = ret;

		if (one == 0 && (want ? snap_unit_crc(data) != want : !is_zero(data)))
			one = -EBADMSG;
		if (one < 0)
			damaged(w, unit + i, 1, one);
	}
}

/* Units whose checksums are in w->crcs. */
static int verify_units(struct walk *w, u64 first, u64 count)
{
	for (u64 i = 0, n; i < count; i += n) {
		const u8 *crcs = w->crcs + i * sizeof(u32);

		n = units_in_hole(w, first + i, count - i);
		if (n) {
			verify_hole(w, first + i, n, crcs);
		} else {
			n = MIN(count - i, PIECE / SNAP_UNIT);
			verify_data(w, first + i, n, crcs);
		}
		if (!go_on(w, n * SNAP_UNIT))
			return -ECANCELED;
	}
	return 0;
}

static int verify_memory(struct walk *w)
{
	int ret = 0;

	for (u64 unit = 0, n; unit < w->h.units && ret == 0; unit += n) {
		n = MIN(w->h.units - unit, CRCS_AT_ONCE);
		ret = read_area(w, w->h.parts[SNAP_CRCS].off + unit * sizeof(u32), w->crcs,
				n * sizeof(u32));
		if (ret < 0)
			w->v->damage(w->v->arg, part_names[SNAP_CRCS], 0, 0, ret);
		else
			ret = verify_units(w, unit, n);
	}
	end_run(w);
	return ret == -ECANCELED ? ret : 0;
}

/* --- all of it -------------------------------------------------------------------- */

static int read_header(struct walk *w, struct error *err)
{
	u8 *page = w->piece;
	int ret = read_area(w, 0, page, SNAP_HEADER_BYTES);

	if (ret == 0)
		ret = snap_header_decode(&w->h, page, err);
	if (ret == -EINVAL || ret == -ENOTSUP)
		return ret;
	if (ret < 0)
		w->v->damage(w->v->arg, "header", 0, SNAP_HEADER_BYTES, ret);
	w->v->checked += SNAP_HEADER_BYTES;
	return ret < 0 ? 1 : 0;
}

static int verify_all(struct walk *w, struct error *err)
{
	int ret = read_header(w, err), table;

	if (ret)
		return ret < 0 ? ret : 0;
	table = verify_part(w, SNAP_CRCS);
	for (unsigned i = SNAP_CRCS + 1; i < SNAP_PARTS && table != -ECANCELED; i++)
		if (verify_part(w, i) == -ECANCELED)
			return -ECANCELED;
	return table ? (table == -ECANCELED ? table : 0) : verify_memory(w);
}

int qcow2_vmstate_verify(struct fiber *f, struct image *img, struct vmstate_verify *v,
			 struct error *err)
{
	struct walk w = {.f = f, .img = img, .v = v};
	int ret = -ENOMEM;

	assert(img->driver == &qcow2_driver && !img->writable);
	w.piece = try_alloc_aligned(PIECE, 4096);
	w.crcs = try_alloc_aligned(PIECE, 4096);
	if (w.piece && w.crcs)
		ret = verify_all(&w, err);
	if (ret == -ENOMEM || ret == -ECANCELED)
		err_set_errno(err, ret, "verifying VM state");
	free(w.piece);
	free(w.crcs);
	return ret;
}
