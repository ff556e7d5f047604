/* The VM-state area of a drive; see area.h. */
#include "vmm/snapshot/area.h"

#include "block/blk.h"
#include "block/driver.h"
#include "block/qcow2/crypt.h"
#include "block/qcow2/qcow2.h"
#include "vmm/snapshot/set.h"

#include <errno.h>

#define NO_END ((u64)1 << 60) /* beyond any area, in whole clusters */

static int get_cluster_bytes(struct fiber *f, struct blk *blk, void *arg)
{
	struct qcow2_info info;

	qcow2_get_info(blk_image(blk), &info);
	*(u32 *)arg = info.cluster_bytes;
	return 0;
}

void area_init(struct area *a, struct blk *blk)
{
	a->blk = blk;
	mutex_init(&a->lock);
	blk_run(blk, get_cluster_bytes, &a->cluster_bytes);
}

void area_fini(struct area *a)
{
	mutex_fini(&a->lock);
}

/* --- on the drive's loop ---------------------------------------------------------- */

struct transfer {
	u64 off, bytes;
	void *data;
};

static int drop(struct fiber *f, struct blk *blk, void *arg)
{
	const struct transfer *t = arg;

	return qcow2_vmstate_drop(f, blk_image(blk), t->off, t->bytes);
}

static int write_clusters(struct fiber *f, struct blk *blk, void *arg)
{
	const struct transfer *t = arg;
	struct iovec iov = {t->data, t->bytes};

	return qcow2_vmstate_write(f, blk_image(blk), t->off, &iov, 1);
}

static int read_bytes(struct fiber *f, struct blk *blk, void *arg)
{
	const struct transfer *t = arg;
	struct iovec iov = {t->data, t->bytes};

	return qcow2_vmstate_read(f, blk_image(blk), t->off, &iov, 1);
}

struct adopt_call {
	const struct qcow2_snapshot *s;
	struct error *err;
};

static int adopt(struct fiber *f, struct blk *blk, void *arg)
{
	const struct adopt_call *c = arg;
	int index = snapshot_index(blk_image(blk), c->s);

	if (index < 0)
		return err_set(c->err, index, "the snapshot has gone");
	return qcow2_vmstate_adopt(f, blk_image(blk), (u32)index, c->err);
}

/* --- calls ------------------------------------------------------------------------ */

int area_clear(struct area *a, struct error *err)
{
	struct transfer t = {.bytes = NO_END};
	int ret = blk_run(a->blk, drop, &t);

	return ret < 0 ? err_set_errno(err, ret, "cannot empty the area for VM state") : 0;
}

int area_adopt(struct area *a, const struct qcow2_snapshot *s, struct error *err)
{
	struct adopt_call c = {s, err};

	return blk_run(a->blk, adopt, &c);
}

int area_read(struct area *a, u64 off, void *data, u64 bytes)
{
	struct transfer t = {off, bytes, data};

	return bytes ? blk_run(a->blk, read_bytes, &t) : 0;
}

/* Whole clusters. */
static int write_whole(struct area *a, u64 off, const void *data, u64 bytes)
{
	struct transfer t = {off, bytes, (void *)(uintptr_t)data};

	return bytes ? blk_run(a->blk, data ? write_clusters : drop, &t) : 0;
}

/* Bytes of one cluster: the rest of it stays. */
static int write_part(struct area *a, u64 off, const void *data, u64 bytes)
{
	u64 start = align_down(off, a->cluster_bytes);
	AUTO_FREE u8 *buf = NULL;
	int ret;

	if (!bytes)
		return 0;
	buf = try_alloc_aligned(a->cluster_bytes, 4096);
	if (!buf)
		return -ENOMEM;
	LOCK_SCOPE(&a->lock);
	ret = area_read(a, start, buf, a->cluster_bytes);
	if (ret < 0)
		return ret;
	if (data)
		memcpy(buf + (off - start), data, bytes);
	else
		memset(buf + (off - start), 0, bytes);
	return write_whole(a, start, buf, a->cluster_bytes);
}

int area_write(struct area *a, u64 off, const void *data, u64 bytes)
{
	u64 end = off + bytes, first = align_up(off, a->cluster_bytes);
	u64 last = align_down(end, a->cluster_bytes);
	const u8 *p = data;
	int ret;

	if (first > last) /* within one cluster */
		return write_part(a, off, data, bytes);
	ret = write_part(a, off, p, first - off);
	if (ret == 0)
		ret = write_whole(a, first, p ? p + (first - off) : NULL, last - first);
	if (ret == 0)
		ret = write_part(a, last, p ? p + (last - off) : NULL, end - last);
	return ret;
}

/* --- encrypted images ------------------------------------------------------------- */

static int share_key(struct fiber *f, struct blk *blk, void *arg)
{
	struct image *img = blk_image(blk);

	return img->driver == &qcow2_driver && img->encrypted ? qcow2_crypt_share(img, arg) : 0;
}

static int take_key(struct fiber *f, struct blk *blk, void *arg)
{
	return qcow2_crypt_unlock_shared(blk_image(blk), arg);
}

int area_unlock(struct area *a, struct blk *same)
{
	struct cipher *cipher = NULL;
	int ret = blk_run(same, share_key, &cipher);

	return ret < 0 || !cipher ? ret : blk_run(a->blk, take_key, cipher);
}
