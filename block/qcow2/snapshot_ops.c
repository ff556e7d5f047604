/* Creating, applying and deleting internal snapshots: each is one pivot, which
 * says what is safe about it.
 *
 * Create: everything the active state shows on its disk gets one more reference,
 * COPIED flags go, and the new entry's L1 table is a copy.  VM state in the active
 * state goes over to the snapshot, or away.
 * Apply: the active state loses what it shows and gets what the snapshot shows.
 * Delete: what the snapshot shows loses a reference; flags of the active state come
 * back where it is alone now.
 * QEMU's docs/interop/qcow2, "Snapshots".  Thread: the image's loop. */
#include "block/qcow2/bitmap_set.h"
#include "block/qcow2/change.h"
#include "block/qcow2/pivot.h"
#include "block/qcow2/snapshot_int.h"

#include "base/log.h"
#include "base/opts.h"

#include <errno.h>
#include <stdio.h>

/* L1 entries that the guest's disk takes; behind them lies VM state. */
u32 snapshot_disk_entries(const struct qcow2 *q, u64 bytes)
{
	return (u32)((bytes + l2_span(q) - 1) / l2_span(q));
}

u64 *snapshot_copy_l1(const u64 *l1, u32 have, u32 n)
{
	u64 *copy = try_alloc(MAX(n, 1u) * sizeof(*copy));

	for (u32 i = 0; copy && i < MIN(have, n); i++)
		copy[i] = l1[i];
	return copy;
}

/* Begin: nobody changes anything until the thaw. */
int snapshot_ops_begin(struct fiber *f, struct qcow2 *q)
{
	int ret;

	change_begin(f, q);
	ret = q->img.writable ? write_begin(f, q) : -EROFS;
	change_end(q);
	if (ret < 0)
		return ret;
	if (q->version > 2 && be64_get(q->head.incompatible) & INCOMPAT_DATA_FILE)
		return -ENOTSUP;
	changes_freeze(f, q);
	return 0;
}

/* What was freed, in memory, reaches the file with the lowered refcounts; should
 * it not, it is a leak: no sync is worth waiting for it. */
int snapshot_ops_end(struct fiber *f, struct qcow2 *q, int ret)
{
	if (ret == 0) {
		q->commit_refcounts = true;
		/* Then none that was raised is left. */
		if (qcow2_commit(f, q) == 0)
			(void)qcow2_commit_refcounts(f, q, true);
	}
	changes_thaw(q);
	return ret;
}

/* --- create --- */

static u64 next_id(const struct qcow2 *q)
{
	u64 most = 0;

	for (u32 i = 0; i < q->snapshot_count; i++)
		most = MAX(most, (u64)strtoul(q->snapshots[i].id, NULL, 10));
	return most + 1;
}

static void fill(struct qcow2_snapshot *s, const struct qcow2 *q,
		 const struct qcow2_new_snapshot *from)
{
	*s = (struct qcow2_snapshot){
		.id = xasprintf("%llu", (unsigned long long)next_id(q)),
		.name = xstrdup(from->name),
		.name_bytes = (u32)strlen(from->name),
		.date_sec = from->date_sec,
		.date_nsec = from->date_nsec,
		.vm_clock_ns = from->vm_clock_ns,
		.vm_state_bytes = from->vm_state_bytes,
		.disk_bytes = q->img.bytes,
		.icount = from->icount,
		.extra_bytes = 24,
	};
	s->id_bytes = (u32)strlen(s->id);
}

/* The list with one more. */
static int list_with(const struct qcow2 *q, const struct qcow2_new_snapshot *from,
		     struct qcow2_snapshot **out)
{
	struct qcow2_snapshot *list;
	u32 n = q->snapshot_count;

	if (n >= QCOW2_MAX_SNAPSHOTS || strlen(from->name) > UINT16_MAX)
		return -EFBIG;
	list = try_alloc((n + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	if (n)
		memcpy(list, q->snapshots, n * sizeof(*list));
	fill(&list[n], q, from);
	*out = list;
	if (snapshots_bytes(list, n + 1) <= QCOW2_MAX_SNAPSHOT_BYTES)
		return 0;
	snapshots_free(&list[n], 1);
	free(list);
	return -EFBIG;
}

/* The entry appears.  With a job it shows the disk that the job keeps, else the one
 * of now.  VM state of the active state goes with it, or away. */
int snapshot_add(struct fiber *f, struct qcow2 *q, const struct qcow2_new_snapshot *from,
		 const struct qcow2_snapshot_job *job)
{
	u32 disk = MIN(snapshot_disk_entries(q, q->img.bytes), q->l1_entries),
	    n = q->snapshot_count;
	u32 vm = from->vm_state_bytes ? q->l1_entries - disk : 0;
	struct pivot p = {.q = q,
			  .flags = job ? FLAGS_COUNT : FLAGS_CLEAR,
			  .clear_end = disk,
			  .l1_entries = disk,
			  .bytes = q->img.bytes,
			  .from_active = true,
			  .snapshot_n = n + 1,
			  .kept_n = disk + vm};
	AUTO_FREE u64 *kept = snapshot_copy_l1(q->l1, q->l1_entries, disk + vm);
	int ret = list_with(q, from, &p.snapshots);

	if (ret < 0)
		return ret;
	if (!vm && q->l1_entries > disk)
		p.roots[p.root_n++] = (struct pivot_root){q->l1, disk, q->l1_entries, -1, false};
	if (!job)
		p.roots[p.root_n++] = (struct pivot_root){q->l1, 0, disk, 1, true};
	else if (kept)
		memcpy(kept, job->l1, disk * sizeof(*kept));
	p.fresh = &p.snapshots[n];
	p.l1 = snapshot_copy_l1(q->l1, disk, disk);
	p.kept = kept;
	if (p.l1 && kept) {
		ret = pivot_run(f, &p);
	} else {
		free(p.l1);
		ret = -ENOMEM;
	}
	if (ret == 0)
		return 0;
	snapshots_free(&p.snapshots[n], 1);
	free(p.snapshots);
	return ret;
}

int qcow2_snapshot_create(struct fiber *f, struct image *img, const struct qcow2_new_snapshot *s)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = snapshot_ops_begin(f, q);

	if (ret < 0)
		return ret;
	return snapshot_ops_end(f, q, snapshot_add(f, q, s, NULL));
}

/* --- looking at one --- */

/* The L1 table of a snapshot, in host byte order, with zeros up to n entries. */
int snapshot_load_l1(struct fiber *f, struct qcow2 *q, const struct qcow2_snapshot *s, u32 n,
		     u64 **out, struct error *err)
{
	u64 *l1;
	int ret;

	if (s->l1_entries > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "Snapshot L1 table too large");
	if (!snapshot_l1_is_sound(q, s))
		return err_set(err, -EINVAL, "Snapshot L1 table offset invalid");
	n = MAX(n, s->l1_entries);
	l1 = try_alloc(MAX(n, 1u) * sizeof(*l1));
	if (!l1)
		return err_set_errno(err, -ENOMEM, "Could not allocate the L1 table");
	ret = qcow2_pread(f, q->img.below, s->l1_hoff, l1, s->l1_entries * 8ull);
	if (ret < 0) {
		free(l1);
		return err_set_errno(err, ret, "Could not read the snapshot's L1 table");
	}
	for (u32 i = 0; i < s->l1_entries; i++)
		l1[i] = load_be64(&l1[i]);
	*out = l1;
	return 0;
}

int snapshot_judge_size(const struct qcow2 *q, const struct qcow2_snapshot *s, struct error *err)
{
	if (s->disk_bytes > (u64)INT64_MAX - q->cluster_bytes || !is_aligned(s->disk_bytes, 512) ||
	    (s->disk_bytes + l2_span(q) - 1) / l2_span(q) > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "The snapshot's disk size is not possible");
	return 0;
}

/* "name", or "snapshot.id=ID,snapshot.name=NAME" with both to fit. */
static int find_shown(struct qcow2 *q, const char *text, struct error *err)
{
	struct opts o = {0};
	const char *id, *name;
	int found = -ENOENT;

	if (strncmp(text, "snapshot.", 9))
		return qcow2_snapshot_find(&q->img, text, FIND_ID_OR_NAME);
	if (opts_parse(&o, text, NULL, err) < 0)
		return err->code;
	id = opts_get(&o, "snapshot.id");
	name = opts_get(&o, "snapshot.name");
	for (u32 i = 0; (id || name) && found < 0 && i < q->snapshot_count; i++)
		if ((!id || !strcmp(id, q->snapshots[i].id)) &&
		    (!name || !strcmp(name, q->snapshots[i].name)))
			found = (int)i;
	opts_fini(&o);
	return found;
}

/* The image shows the snapshot instead of what it showed so far. */
static void show(struct qcow2 *q, const struct qcow2_snapshot *s, u64 *l1, u32 entries)
{
	while (!list_empty(&q->l2.clean)) /* they are known by their index */
		cache_drop(&q->l2, list_entry(q->l2.clean.next, struct table, link));
	free(q->l1);
	q->l1 = l1;
	q->l1_entries = q->l1_room = entries;
	q->img.bytes = s->disk_bytes;
}

int qcow2_snapshot_show(struct fiber *f, struct image *img, u32 index, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	const struct qcow2_snapshot *s = &q->snapshots[index];
	int ret;
	u32 n;
	u64 *l1;

	assert(index < q->snapshot_count && !img->writable);
	ret = snapshot_judge_size(q, s, err);
	if (ret < 0)
		return ret;
	ret = snapshot_load_l1(f, q, s, snapshot_disk_entries(q, s->disk_bytes), &l1, err);
	if (ret < 0)
		return err_prefix(err, "Failed to load snapshot");
	n = MAX(snapshot_disk_entries(q, s->disk_bytes), s->l1_entries);
	ret = cache_set_n(&q->l2, MAX(n, q->l2.n));
	if (ret < 0) {
		free(l1);
		return err_set_errno(err, ret, "Failed to load snapshot");
	}
	show(q, s, l1, n);
	return 0;
}

int snapshot_show(struct fiber *f, struct qcow2 *q, const char *text, struct error *err)
{
	int at = find_shown(q, text, err);

	if (q->img.writable)
		return err_set(err, -EINVAL, "A snapshot can only be opened read-only");
	if (at < 0)
		return err_set(err, at, "Failed to load snapshot: Can't find snapshot");
	return qcow2_snapshot_show(f, &q->img, (u32)at, err);
}

/* --- apply and delete --- */

static int judge_apply(const struct qcow2 *q, const struct qcow2_snapshot *s, struct error *err)
{
	if (s->disk_bytes != q->img.bytes && q->version < 3)
		return err_set(err, -ENOTSUP, "Can't resize a v2 image which has snapshots");
	return snapshot_judge_size(q, s, err);
}

static int apply_frozen(struct fiber *f, struct qcow2 *q, u32 index, bool vm_state,
			struct error *err)
{
	const struct qcow2_snapshot *s = &q->snapshots[index];
	struct pivot p = {
		.q = q, .flags = FLAGS_CLEAR, .bytes = s->disk_bytes, .clear_end = UINT32_MAX};
	int ret = judge_apply(q, s, err);
	u32 need;

	if (ret < 0)
		return ret;
	need = snapshot_disk_entries(q, s->disk_bytes);
	ret = snapshot_load_l1(f, q, s, need, &p.l1, err);
	if (ret < 0)
		return ret;
	p.l1_entries = vm_state ? MAX(need, s->l1_entries) : need;
	p.roots[0] = (struct pivot_root){q->l1, 0, q->l1_entries, -1, false};
	p.roots[1] = (struct pivot_root){p.l1, 0, p.l1_entries, 1, true};
	p.root_n = 2;
	ret = pivot_run(f, &p);
	return ret < 0 ? err_set_errno(err, ret, "Could not change the references") : 0;
}

static int apply(struct fiber *f, struct image *img, u32 index, bool vm_state, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = q->job ? -EBUSY : snapshot_ops_begin(f, q);

	if (ret < 0)
		return err_set_errno(err, ret, "Could not write to the image");
	/* A table of a bitmap that is too short for the disk makes it unreadable. */
	if (index < q->snapshot_count && q->snapshots[index].disk_bytes > img->bytes)
		ret = bitmaps_resize(f, q, q->snapshots[index].disk_bytes);
	if (ret < 0)
		err_set_errno(err, ret, "Could not resize the bitmaps");
	else
		ret = index < q->snapshot_count ? apply_frozen(f, q, index, vm_state, err)
						: err_set(err, -ENOENT, "snapshot not found");
	return snapshot_ops_end(f, q, ret);
}

int qcow2_snapshot_apply(struct fiber *f, struct image *img, u32 index, struct error *err)
{
	return apply(f, img, index, true, err);
}

int qcow2_snapshot_apply_disk(struct fiber *f, struct image *img, u32 index, struct error *err)
{
	return apply(f, img, index, false, err);
}

static void list_without(const struct qcow2 *q, u32 index, struct qcow2_snapshot *list)
{
	u32 n = q->snapshot_count;

	memcpy(list, q->snapshots, index * sizeof(*list));
	memcpy(list + index, q->snapshots + index + 1, (n - index - 1) * sizeof(*list));
}

/* The place of its L1 table is free once the table is gone. */
static void free_l1(struct qcow2 *q, const struct qcow2_snapshot *s)
{
	u64 n = clusters_of(q, s->l1_entries * 8ull), first = s->l1_hoff >> q->cluster_bits;

	for (u64 i = 0; i < n; i++)
		if (overlap_find(&q->metadata, first + i) == OVERLAP_INACTIVE_L1)
			overlap_remove(&q->metadata, first + i);
	if (n && s->l1_hoff)
		cluster_free(q, s->l1_hoff, n);
}

static int delete_frozen(struct fiber *f, struct qcow2 *q, u32 index, struct error *err)
{
	struct qcow2_snapshot gone = q->snapshots[index];
	struct pivot p = {.q = q,
			  .flags = FLAGS_COUNT,
			  .l1_entries = q->l1_entries,
			  .bytes = q->img.bytes,
			  .from_active = true,
			  .snapshot_n = q->snapshot_count - 1};
	u64 *l1;
	int ret = snapshot_load_l1(f, q, &gone, 0, &l1, err);

	if (ret < 0)
		return ret;
	p.roots[p.root_n++] = (struct pivot_root){l1, 0, gone.l1_entries, -1, false};
	p.l1 = snapshot_copy_l1(q->l1, q->l1_entries, q->l1_entries);
	p.snapshots = try_alloc(q->snapshot_count * sizeof(*p.snapshots));
	if (p.l1 && p.snapshots) {
		list_without(q, index, p.snapshots);
		ret = pivot_run(f, &p);
	} else {
		free(p.l1);
		ret = -ENOMEM;
	}
	free(l1);
	if (ret < 0) {
		free(p.snapshots);
		return err_set_errno(err, ret, "Failed to remove snapshot");
	}
	free_l1(q, &gone);
	snapshots_free(&gone, 1);
	return 0;
}

int qcow2_snapshot_delete(struct fiber *f, struct image *img, u32 index, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret = snapshot_ops_begin(f, q);

	if (ret < 0)
		return err_set_errno(err, ret, "Could not write to the image");
	ret = index < q->snapshot_count ? delete_frozen(f, q, index, err)
					: err_set(err, -ENOENT, "snapshot not found");
	return snapshot_ops_end(f, q, ret);
}
