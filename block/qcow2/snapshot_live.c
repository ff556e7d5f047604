/* Snapshots of a running machine: the disk is kept at one moment, VM state is
 * written while the guest goes on, and the entry comes last.
 *
 * begin   freezes changes: the moment.  Takes no I/O, so a guest need only stand
 *         still, with its drives drained, until it returns.
 * keep    makes it durable, by a pivot, that everything on the disk has one more
 *         reference, and thaws: later writes go elsewhere.
 * finish  one pivot that changes no refcount: the entry names the kept disk, and VM
 *         state changes hands, from the active L1 table to the snapshot's.
 * A crash before the end of finish leaves leaked clusters, and VM state behind the
 * active disk, which the next snapshot drops.  Thread: the image's loop. */
#include "block/qcow2/change.h"
#include "block/qcow2/pivot.h"
#include "block/qcow2/snapshot_int.h"

#include "base/io.h"
#include "block/group.h"

#include <errno.h>

static u32 disk_now(const struct qcow2 *q)
{
	return MIN(snapshot_disk_entries(q, q->img.bytes), q->l1_entries);
}

int qcow2_snapshot_begin(struct fiber *f, struct image *img, struct qcow2_snapshot_job **out)
{
	struct qcow2 *q = to_qcow2(img);
	struct qcow2_snapshot_job *job;
	int ret = q->job ? -EBUSY : snapshot_ops_begin(f, q);

	if (ret < 0)
		return ret;
	job = try_alloc(sizeof(*job));
	if (!job) {
		changes_thaw(q);
		return -ENOMEM;
	}
	job->q = q;
	q->job = *out = job;
	return 0;
}

/* What the disk shows now has one more reference, the job's. */
static int keep_frozen(struct fiber *f, struct qcow2_snapshot_job *job)
{
	struct qcow2 *q = job->q;
	u32 disk = disk_now(q);
	struct pivot p = {.q = q,
			  .flags = FLAGS_CLEAR,
			  .clear_end = disk,
			  .l1_entries = q->l1_entries,
			  .bytes = q->img.bytes,
			  .from_active = true,
			  .kept_n = disk};

	p.roots[p.root_n++] = (struct pivot_root){q->l1, 0, disk, 1, true};
	job->l1 = p.kept = snapshot_copy_l1(q->l1, disk, disk);
	job->entries = disk;
	p.l1 = snapshot_copy_l1(q->l1, q->l1_entries, q->l1_entries);
	if (job->l1 && p.l1)
		return pivot_run(f, &p);
	free(p.l1);
	return -ENOMEM;
}

int qcow2_snapshot_keep(struct fiber *f, struct qcow2_snapshot_job *job)
{
	int ret;

	assert(!job->thawed);
	ret = snapshot_ops_end(f, job->q, keep_frozen(f, job));
	job->kept = ret == 0;
	job->thawed = true;
	return ret;
}

static void job_free(struct qcow2_snapshot_job *job)
{
	job->q->job = NULL;
	free(job->l1);
	free(job);
}

int qcow2_snapshot_finish(struct fiber *f, struct qcow2_snapshot_job *job,
			  const struct qcow2_new_snapshot *s)
{
	struct qcow2 *q = job->q;
	int ret;

	assert(job->kept);
	changes_freeze(f, q);
	ret = snapshot_ops_end(f, q, q->corrupt ? -EIO : snapshot_add(f, q, s, job));
	if (ret == 0)
		job_free(job);
	return ret;
}

/* The job's references go, and VM state that nobody wants. */
static int cancel_frozen(struct fiber *f, struct qcow2_snapshot_job *job)
{
	struct qcow2 *q = job->q;
	u32 disk = disk_now(q);
	struct pivot p = {.q = q,
			  .flags = FLAGS_COUNT,
			  .l1_entries = disk,
			  .bytes = q->img.bytes,
			  .from_active = true};

	if (job->kept)
		p.roots[p.root_n++] = (struct pivot_root){job->l1, 0, job->entries, -1, false};
	if (q->l1_entries > disk)
		p.roots[p.root_n++] = (struct pivot_root){q->l1, disk, q->l1_entries, -1, false};
	if (!p.root_n)
		return 0;
	p.l1 = snapshot_copy_l1(q->l1, disk, disk);
	return p.l1 ? pivot_run(f, &p) : -ENOMEM;
}

int qcow2_snapshot_cancel(struct fiber *f, struct qcow2_snapshot_job *job)
{
	struct qcow2 *q = job->q;
	int ret;

	if (job->thawed)
		changes_freeze(f, q);
	ret = snapshot_ops_end(f, q, q->corrupt ? -EIO : cancel_frozen(f, job));
	job_free(job);
	return ret;
}

/* --- VM state --- */

static u64 vmstate_start(const struct qcow2 *q)
{
	return (u64)snapshot_disk_entries(q, q->img.bytes) * l2_span(q);
}

/* Legacy encryption counts guest sectors: a cluster can only be read at the place that it
 * was written for, and VM state moves with the size of the disk. */
static bool may_move(const struct qcow2 *q)
{
	return q->crypt.method != CRYPT_AES;
}

/* The area shows what the snapshot has there, shared. */
static int adopt_frozen(struct fiber *f, struct qcow2 *q, u32 index, struct error *err)
{
	const struct qcow2_snapshot *s = &q->snapshots[index];
	u32 disk = snapshot_disk_entries(q, q->img.bytes);
	u32 theirs = 0, vm;
	struct pivot p = {.q = q, .flags = FLAGS_CLEAR, .bytes = q->img.bytes};
	u64 *l1 = NULL;
	int ret = snapshot_judge_size(q, s, err);

	if (ret == 0)
		theirs = snapshot_disk_entries(q, s->disk_bytes);
	if (ret == 0 && theirs != disk && !may_move(q))
		ret = err_set(err, -ENOTSUP, "Its VM state cannot be decrypted at another place");
	if (ret == 0)
		ret = snapshot_load_l1(f, q, s, theirs, &l1, err);
	if (ret < 0)
		return ret;
	vm = MAX(s->l1_entries, theirs) - theirs;
	p.l1_entries = p.clear_end = disk + vm;
	p.clear_first = disk;
	if (q->l1_entries > disk)
		p.roots[p.root_n++] = (struct pivot_root){q->l1, disk, q->l1_entries, -1, false};
	if (p.l1_entries > QCOW2_MAX_L1_BYTES / 8)
		ret = -EFBIG;
	else
		p.l1 = snapshot_copy_l1(q->l1, MIN(disk, q->l1_entries), disk + vm);
	if (p.l1) {
		memcpy(p.l1 + disk, l1 + theirs, vm * sizeof(*l1));
		p.roots[p.root_n++] = (struct pivot_root){p.l1, disk, disk + vm, 1, true};
		ret = pivot_run(f, &p);
	} else if (ret == 0) {
		ret = -ENOMEM;
	}
	free(l1);
	return ret < 0 ? err_set_errno(err, ret, "Could not share the VM state") : 0;
}

int qcow2_vmstate_adopt(struct fiber *f, struct image *img, u32 index, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = q->job ? -EBUSY : snapshot_ops_begin(f, q);

	if (ret < 0)
		return err_set_errno(err, ret, "Could not write to the image");
	ret = index < q->snapshot_count ? adopt_frozen(f, q, index, err)
					: err_set(err, -ENOENT, "snapshot not found");
	return snapshot_ops_end(f, q, ret);
}

/* L1 entries for that many bytes of VM state.  Writers come one after the other
 * through here, or the table would grow twice. */
static int make_area(struct fiber *f, struct qcow2 *q, u64 end)
{
	u64 entries = (vmstate_start(q) + end + l2_span(q) - 1) / l2_span(q);
	int ret = 0;

	if (entries > QCOW2_MAX_L1_BYTES / 8)
		return -EFBIG;
	if (entries <= q->l1_entries)
		return 0;
	fiber_mutex_lock(f, &q->begin_lock);
	if (entries > q->l1_entries)
		ret = l1_extend(f, q, (u32)entries);
	fiber_mutex_unlock(f, &q->begin_lock);
	return ret;
}

int qcow2_vmstate_write(struct fiber *f, struct image *img, u64 off, const struct iovec *iov,
			unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	u64 bytes = iov_bytes(iov, n), end;
	int ret;

	/* Whole clusters: what lies around would have to be read, and must not come
	 * from a backing image. */
	if (!is_aligned(off | bytes, q->cluster_bytes) || !add_ok(off, bytes, &end) ||
	    end > INT64_MAX / 2)
		return -EINVAL;
	if (!img->writable)
		return -EROFS;
	change_begin(f, q);
	ret = write_begin(f, q);
	if (ret == 0)
		ret = make_area(f, q, end);
	if (ret == 0)
		ret = qcow2_write(f, img, vmstate_start(q) + off, iov, n);
	change_end(q);
	return ret;
}

int qcow2_vmstate_drop(struct fiber *f, struct image *img, u64 off, u64 bytes)
{
	struct qcow2 *q = to_qcow2(img);
	u64 start = vmstate_start(q), most = (u64)q->l1_entries * l2_span(q), end;
	int ret;

	if (!is_aligned(off | bytes, q->cluster_bytes) || !add_ok(off, bytes, &end) ||
	    end > INT64_MAX / 2)
		return -EINVAL;
	if (!img->writable)
		return -EROFS;
	end = MIN(start + end, most);
	if (start + off >= end)
		return 0;
	change_begin(f, q);
	ret = write_begin(f, q);
	if (ret == 0)
		ret = clusters_drop(f, q, start + off, end - start - off);
	change_end(q);
	return ret;
}

/* Bytes [skip, skip + bytes) of the vector, all in one extent. */
static int read_extent(struct fiber *f, struct qcow2 *q, u64 goff, const struct image_transfer *t)
{
	struct image_transfer part = *t;

	part.fn = qcow2_read;
	part.img = &q->img;
	part.offset = goff;
	return image_transfer(f, &part);
}

int qcow2_vmstate_read(struct fiber *f, struct image *img, u64 off, const struct iovec *iov,
		       unsigned n)
{
	struct qcow2 *q = to_qcow2(img);
	struct image_transfer t = {.iov = iov, .n = n};
	u64 all = iov_bytes(iov, n), goff, most = (u64)q->l1_entries * l2_span(q);
	int ret = 0;

	if (off > INT64_MAX / 2 || all > INT64_MAX / 2)
		return -EINVAL;
	goff = vmstate_start(q) + off;
	for (; t.skip < all && ret == 0; t.skip += t.bytes) {
		struct extent e = {.kind = EXTENT_HOLE, .bytes = all - t.skip};

		if (goff + t.skip < most)
			ret = l2_map(f, q, goff + t.skip, all - t.skip, &e);
		t.bytes = e.bytes;
		if (ret == 0 && (e.kind == EXTENT_DATA || e.kind == EXTENT_COMPRESSED))
			ret = read_extent(f, q, goff + t.skip, &t);
		else if (ret == 0)
			iov_zero(iov, n, t.skip, t.bytes);
	}
	return ret;
}
