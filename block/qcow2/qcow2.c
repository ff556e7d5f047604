/* The qcow2 driver: opening, closing, and the table of its calls.
 *
 * QEMU's docs/interop/qcow2, versions 2 and 3.
 * Thread: the image's loop. */
#include "block/qcow2/qcow2.h"

#include "base/io.h"
#include "base/log.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/qcow2/amend.h"
#include "block/qcow2/bitmap_set.h"
#include "block/qcow2/change.h"
#include "block/qcow2/data_file.h"
#include "block/qcow2/descend.h"
#include "block/qcow2/parts.h"

#include <errno.h>

#define DEFAULT_L2_CACHE (32 * MiB)
/* Of snapshots' L1 tables: what is beyond is not watched. */
#define MAX_INACTIVE_CLUSTERS (1024 * 1024u)
#define REFBLOCK_CACHE	      (4 * MiB)

int qcow2_pread(struct fiber *f, struct image *file, u64 hoff, void *buf, u64 bytes)
{
	u64 have = bytes;
	int ret;

	if (!file->grows)
		have = hoff >= file->bytes ? 0 : MIN(bytes, file->bytes - hoff);
	memset((u8 *)buf + have, 0, bytes - have);
	ret = have ? image_pread(f, file, hoff, buf, have) : 0;
	return ret < 0 ? ret : 0;
}

int qcow2_pwrite(struct fiber *f, struct qcow2 *q, u64 hoff, const void *buf, u64 bytes)
{
	int ret = image_pwrite(f, q->img.below, hoff, buf, bytes);

	q->written++;
	return ret < 0 ? ret : 0;
}

void io_begin(struct qcow2 *q, struct io_track *io)
{
	io->seq = ++q->io_seq;
	list_append(&q->ios, &io->link);
}

void io_end(struct io_track *io)
{
	list_del(&io->link);
}

/* --- open --- */

static int load_l1(struct fiber *f, struct qcow2 *q)
{
	u64 bytes = align_up(q->l1_entries * 8ull, q->granule);
	int ret;

	q->l1_room = (u32)(bytes / 8);
	q->l1_clusters = (u32)clusters_of(q, q->l1_entries * 8ull);
	q->l1 = try_alloc(bytes);
	q->l1_dirty = try_alloc(bytes / q->granule);
	if (!q->l1 || !q->l1_dirty)
		return -ENOMEM;
	ret = qcow2_pread(f, q->img.below, q->l1_hoff, q->l1, q->l1_entries * 8ull);
	for (u32 i = 0; i < q->l1_entries; i++)
		q->l1[i] = load_be64(&q->l1[i]);
	return ret;
}

static int load_reftable(struct fiber *f, struct qcow2 *q)
{
	u64 bytes = (u64)q->reftable_clusters << q->cluster_bits;
	int ret;

	q->reftable_n = (u32)(bytes / 8);
	q->reftable = try_alloc(bytes);
	q->first_free = try_alloc(q->reftable_n * sizeof(u32));
	q->reftable_dirty = try_alloc(bytes / HEADER_SECTOR + 1);
	if (!q->reftable || !q->first_free || !q->reftable_dirty)
		return -ENOMEM;
	ret = qcow2_pread(f, q->img.below, q->reftable_hoff, q->reftable, bytes);
	for (u32 i = 0; i < q->reftable_n; i++)
		q->reftable[i] = load_be64(&q->reftable[i]);
	return ret;
}

/* Enter n clusters; returns 0, -ENOMEM, or 1 if something else is there. */
static int enter(struct qcow2 *q, u64 hoff, u64 n, enum overlap_kind kind)
{
	int found = 0;

	for (u64 i = 0; i < n; i++) {
		int ret = overlap_add(&q->metadata, (hoff >> q->cluster_bits) + i, kind, NULL);

		if (ret == -ENOMEM)
			return ret;
		if (ret == -EEXIST)
			found = 1;
	}
	return found;
}

static int enter_l1_and_blocks(struct qcow2 *q)
{
	int ret = 0, found = 0;

	for (u32 i = 0; i < q->l1_entries && ret >= 0; i++) {
		u64 hoff = q->l1[i] & ENTRY_HOFF;

		if (!hoff || !is_aligned(hoff, q->cluster_bytes))
			continue;
		ret = enter(q, hoff, 1, OVERLAP_L2);
		/* A table that two entries share is no harm unless both may
		 * write it. */
		q->l2_twins |= ret > 0;
		found |= ret > 0 && q->l1[i] & ENTRY_COPIED;
	}
	for (u32 i = 0; i < q->reftable_n && ret >= 0; i++) {
		u64 hoff = q->reftable[i] & REFTABLE_HOFF;

		if (!hoff || !is_aligned(hoff, q->cluster_bytes) || hoff >= QCOW2_MAX_HOFF)
			continue;
		ret = enter(q, hoff, 1, OVERLAP_REFBLOCK);
		found |= ret > 0;
	}
	return ret < 0 ? ret : found;
}

/* A safety net, which is not to take more memory than the tables themselves: an
 * image may claim gigabytes of snapshots' L1 tables. */
static int enter_snapshots(struct qcow2 *q)
{
	u64 left = MAX_INACTIVE_CLUSTERS;
	int ret = 0;

	for (u32 i = 0; i < q->snapshot_count && ret >= 0 && left; i++) {
		const struct qcow2_snapshot *s = &q->snapshots[i];
		u64 n = MIN(left, clusters_of(q, s->l1_entries * 8ull));

		if (!snapshot_l1_is_sound(q, s))
			continue;
		ret = enter(q, s->l1_hoff, n, OVERLAP_INACTIVE_L1);
		left -= n;
	}
	return ret < 0 ? ret : 0;
}

static int enter_metadata(struct qcow2 *q)
{
	int found = 0, ret;

	overlap_init(&q->metadata);
	ret = enter(q, 0, 1, OVERLAP_HEADER);
	if (ret >= 0)
		ret = enter(q, q->l1_hoff, q->l1_clusters, OVERLAP_L1);
	found |= ret > 0;
	if (ret >= 0)
		ret = enter(q, q->reftable_hoff, q->reftable_clusters, OVERLAP_REFTABLE);
	found |= ret > 0;
	if (ret >= 0)
		ret = enter(q, be64_get(q->head.snapshots_hoff), clusters_of(q, q->snapshot_bytes),
			    OVERLAP_SNAPSHOTS);
	found |= ret > 0;
	if (ret >= 0)
		ret = enter(q, q->crypt.head_hoff, clusters_of(q, q->crypt.head_bytes),
			    OVERLAP_CRYPT);
	found |= ret > 0;
	if (ret >= 0)
		ret = enter_snapshots(q);
	if (ret >= 0)
		ret = enter_l1_and_blocks(q);
	if (ret >= 0 && bitmaps_enter(q) < 0)
		ret = 1;
	return ret < 0 ? ret : found | ret;
}

static int init_caches(struct qcow2 *q, const struct open_policy *policy)
{
	u64 whole = MIN((u64)q->l1_entries << q->cluster_bits, DEFAULT_L2_CACHE);
	u64 limit = policy->l2_cache_bytes ? policy->l2_cache_bytes : MAX(whole, 1 * MiB);
	int ret = cache_init(&q->l2, q->l1_entries, q->cluster_bytes, limit);

	q->l2.entry_shift = (u8)(q->cluster_bits - q->l2_bits);
	if (ret == 0)
		ret = cache_init(&q->blocks, q->reftable_n, q->cluster_bytes, REFBLOCK_CACHE);
	return ret;
}

int qcow2_load(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
	       struct error *err)
{
	int ret = load_l1(f, q);

	if (ret < 0)
		return err_set_errno(err, ret, "Could not read L1 table");
	ret = load_reftable(f, q);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not read the refcount table");
	ret = snapshots_load(f, q, err);
	if (ret < 0)
		return ret;
	ret = init_caches(q, policy);
	if (ret == 0)
		ret = enter_metadata(q);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not prepare the tables");
	if (ret > 0 && policy->writable && !policy->check_only)
		(void)qcow2_corrupt(f, q, "metadata structures overlap");
	q->first_block = 0;
	q->fresh_hoff = cluster_ceil(q, q->img.below->bytes);
	q->max_hoff = q->img.below->grows ? QCOW2_MAX_HOFF : cluster_floor(q, q->img.below->bytes);
	return 0;
}

void qcow2_unload(struct qcow2 *q)
{
	inflate_fini(q);
	pack_fini(q);
	depths_free(q->below.depths);
	q->below = (struct depths_memory){0};
	slices_fini(&q->slices);
	cache_fini(&q->l2);
	cache_fini(&q->blocks);
	overlap_fini(&q->metadata);
	free(q->l1);
	free(q->l1_dirty);
	free(q->reftable);
	free(q->first_free);
	free(q->reftable_dirty);
	snapshots_free(q->snapshots, q->snapshot_count);
	free(q->snapshots);
	q->l1 = q->reftable = NULL;
	q->l1_dirty = q->reftable_dirty = NULL;
	q->first_free = NULL;
	q->snapshots = NULL;
}

static void release_all(struct qcow2 *q)
{
	commit_forget(q);
	bitmaps_fini(q);
	free(q->bitmaps_error);
	qcow2_unload(q);
	qcow2_crypt_close(q);
	header_fini(q);
}

/* Lazy refcounts that were not brought up to date: make new ones. */
static int repair_dirty(struct fiber *f, struct qcow2 *q, struct error *err)
{
	struct check_request req = {.fix_leaks = true, .fix_errors = true, .in_place = true};
	int ret;

	log_info("%s: image was not closed cleanly: rebuilding its refcounts", q->img.name);
	ret = qcow2_check(f, &q->img, &req, err);
	if (ret < 0)
		return err_prefix(err, "Could not repair dirty image");
	if (req.result.corruptions || req.result.check_errors)
		return err_set(err, -EIO, "Could not repair dirty image: %llu corruptions left",
			       (unsigned long long)req.result.corruptions);
	return 0;
}

/* Who only checks is told of what is wrong with them by the check. */
static int open_bitmaps(struct fiber *f, struct qcow2 *q, struct error *err)
{
	int ret = bitmaps_open(f, q, err);

	if (ret < 0 && q->check_only) {
		q->bitmaps_error = xstrdup(err->text);
		*err = (struct error){0};
		ret = 0;
	}
	return ret;
}

static int qcow2_open(struct fiber *f, struct image *img, const struct open_policy *policy,
		      struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	struct open_policy mine = *policy; /* as the options change it */
	int ret;

	list_init(&q->freed);
	list_init(&q->durable);
	list_init(&q->ios);
	slices_init(&q->slices);
	fiber_queue_init(&q->commit_queue);
	fiber_queue_init(&q->change_queue);
	fiber_mutex_init(&q->alloc_lock);
	range_locks_init(&q->cluster_locks);
	q->check_only = policy->check_only;
	q->discard_host = policy->discard;
	ret = header_open(f, q, policy, err);
	if (ret == 0)
		ret = qcow2_take_options(q, &mine, err);
	if (ret == 0)
		ret = data_file_open(f, q, policy, err);
	if (ret == 0)
		ret = qcow2_load(f, q, &mine, err);
	if (ret == 0 && policy->writable && !policy->check_only && q->version > 2 &&
	    be64_get(q->head.incompatible) & INCOMPAT_DIRTY)
		ret = repair_dirty(f, q, err);
	if (ret == 0)
		ret = open_bitmaps(f, q, err);
	if (ret == 0 && policy->snapshot)
		ret = snapshot_show(f, q, policy->snapshot, err);
	if (ret == 0)
		ret = qcow2_crypt_open(f, q, policy, err);
	if (ret < 0) {
		release_all(q);
		(void)data_file_close(f, q);
	}
	return ret;
}

/* --- close --- */

/* The file as somebody else may find it. */
static int write_out(struct fiber *f, struct qcow2 *q)
{
	int ret, stored;

	if (q->corrupt || !q->changed)
		return 0;
	stored = bitmaps_end(f, q);
	ret = qcow2_commit_all(f, q);
	ret = ret < 0 ? ret : stored;
	return ret < 0 ? ret : header_set_incompatible(f, q, INCOMPAT_DIRTY, false);
}

static int qcow2_settle(struct fiber *f, struct image *img)
{
	struct qcow2 *q = to_qcow2(img);
	int ret;

	if (q->job)
		return -EBUSY;
	changes_freeze(f, q);
	ret = write_out(f, q);
	if (ret == 0)
		q->writing = q->changed = false; /* the next write clears autoclear bits again */
	changes_thaw(q);
	if (ret == 0 && q->data_external)
		ret = image_set_writable(f, q->data, false, &(struct error){0});
	return ret;
}

static int qcow2_begin_writing(struct fiber *f, struct image *img, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = 0;

	if (q->corrupt)
		return err_set(err, -EIO, "Image is corrupt; cannot be opened read/write");
	if (q->data_external)
		ret = image_set_writable(f, q->data, true, err);
	if (ret == 0 && q->version > 2 && be64_get(q->head.incompatible) & INCOMPAT_DIRTY)
		ret = repair_dirty(f, q, err);
	return ret;
}

static int qcow2_change_backing(struct fiber *f, struct image *img, const char *name,
				const char *format, struct error *err)
{
	int ret;

	change_begin(f, to_qcow2(img));
	ret = qcow2_set_backing(f, img, name, format, err);
	change_end(to_qcow2(img));
	return ret;
}

static int qcow2_close(struct fiber *f, struct image *img)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = write_out(f, q), closed;

	assert(list_empty(&q->ios));
	release_all(q);
	closed = data_file_close(f, q);
	return ret < 0 ? ret : closed;
}

int qcow2_flush(struct fiber *f, struct image *img)
{
	struct qcow2 *q = to_qcow2(img);

	if (q->corrupt && commit_is_needed(q))
		return -EIO;
	return qcow2_commit(f, q);
}

static int qcow2_probe(const u8 *head, size_t bytes)
{
	u32 version;

	if (bytes < QCOW2_V2_HEADER_BYTES || load_be32(head) != QCOW2_MAGIC)
		return 0;
	version = load_be32(head + 4);
	return version >= 2 ? 100 : 0;
}

void qcow2_get_info(struct image *img, struct qcow2_info *out)
{
	struct qcow2 *q = to_qcow2(img);
	u64 bits = q->version > 2 ? be64_get(q->head.incompatible) : 0;

	assert(img->driver == &qcow2_driver);
	*out = (struct qcow2_info){
		.version = q->version,
		.cluster_bytes = q->cluster_bytes,
		.refcount_bits = 1u << q->refcount_order,
		.lazy_refcounts = q->version > 2 && be64_get(q->head.compatible) & COMPAT_LAZY,
		.extended_l2 = q->extended,
		.data_file = q->data_external ? q->data_name : NULL,
		.data_file_raw = q->data_raw,
		.dirty = bits & INCOMPAT_DIRTY,
		.corrupt = bits & INCOMPAT_CORRUPT || q->corrupt,
		.compression_type = compression_type(q),
		.snapshots = q->snapshot_count,
	};
}

static int qcow2_empty(struct fiber *f, struct image *img, bool same)
{
	if (!same)
		bitmaps_mark(to_qcow2(img), 0, img->bytes);
	return qcow2_make_empty(f, img);
}

static bool qcow2_is_encrypted(const struct image *img)
{
	return container_of(img, struct qcow2, img)->crypt.method != 0;
}

static const struct image_graph_ops graph_ops = {
	.settle = qcow2_settle,
	.begin_writing = qcow2_begin_writing,
	.set_backing = qcow2_change_backing,
	.make_empty = qcow2_empty,
	.is_encrypted = qcow2_is_encrypted,
};

const struct image_driver qcow2_driver = {
	.name = "qcow2",
	.options = "backing backing. cache-clean-interval cache-size data-file data-file. encrypt. "
		   "l2-cache-entry-size l2-cache-size lazy-refcounts overlap-check overlap-check. "
		   "pass-discard-other pass-discard-request pass-discard-snapshot "
		   "refcount-cache-size",
	.state_size = sizeof(struct qcow2),
	.probe = qcow2_probe,
	.create_options = qcow2_create_table,
	.create = qcow2_create_request,
	.amend_options = qcow2_amend_options,
	.amend = qcow2_amend,
	.open = qcow2_open,
	.read = qcow2_read,
	.write = change_write,
	.zero = change_zero,
	.discard = change_discard,
	.flush = change_flush,
	.map = qcow2_map,
	.resize = change_resize,
	.check = qcow2_check,
	.unlock = qcow2_unlock,
	.graph = &graph_ops,
	.close = qcow2_close,
};
