/* Rewriting the header cluster: extensions, backing file name, version, features.
 *
 * QEMU's docs/interop/qcow2, "Header" and "Header extensions".  The cluster is
 * built anew from what the file holds, with the changes; extensions nobody here
 * knows are kept.  Order as the reference writes them: format of the backing
 * file, data file, encryption, feature names, bitmaps, the rest, the end, and
 * right behind it the name of the backing file.
 *
 * A sector is written whole or not at all, and there is no checksum, so the first
 * sector has to be the switch between two states that are both complete:
 *  - what differs behind it lies where the old header has nothing: that first,
 *    sync, then the first sector, sync;
 *  - else the old content is first copied to the free end of the cluster, which a
 *    header can name: header_bytes says where extensions begin (version 3), and
 *    backing_hoff where the name is.  Copy, sync, first sector, sync; after that
 *    the way is free for the first case.
 * Names of features are left out of the copy if there is no room, as they are for
 * messages only.  Clusters of 1 or 2 KiB may have no such end:
 *  - without names of features the old header, or the new one, may fit into the
 *    first sector: that alone first, sync; what it does not use is free.
 * Where even that does not fit (names of backing files of hundreds of bytes) there is
 * no way that a power cut would not break: -ENOSPC, and nothing is changed.
 *
 * Fixed fields that commits switch (sizes, places of tables) are always those in
 * memory.  Thread: the image's loop; holds head_lock all along. */
#include "block/qcow2/header_update.h"

#include "block/qcow2/parts.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>

struct ext_list {
	struct header_ext *v;
	u32 n, room;
};

struct update {
	struct qcow2 *q;
	const struct header_change *change;
	struct ext_list exts;	 /* of the file; data points into `old` */
	u8 *old;		 /* the cluster as it was */
	u8 *disk;		 /* as it is on disk now */
	u8 *now;		 /* as it shall be */
	u8 *copy;		 /* in between */
	u64 ext_end;		 /* of the old extensions */
	u64 old_end, now_end;	 /* of what they use */
	struct disk_header base; /* what q->head held when it was set last */
};

static u64 fixed_bytes(const struct disk_header *h)
{
	return be32_get(h->version) == 2 ? QCOW2_V2_HEADER_BYTES : be32_get(h->header_bytes);
}

/* --- what the file holds --- */

static int list_add(struct ext_list *l, u32 type, const void *data, u32 bytes)
{
	if (l->n == l->room) {
		u32 room = MAX(l->room * 2, 16u);
		struct header_ext *v = try_alloc(room * sizeof(*v));

		if (!v)
			return -ENOMEM;
		if (l->n)
			memcpy(v, l->v, l->n * sizeof(*v));
		free(l->v);
		l->v = v;
		l->room = room;
	}
	l->v[l->n++] = (struct header_ext){type, data, bytes};
	return 0;
}

/* header_open has judged the cluster when it was read; it is judged again, as
 * others may have written it. */
static int parse(struct update *u)
{
	const struct qcow2 *q = u->q;
	u64 name = be64_get(q->head.backing_hoff), name_bytes = be32_get(q->head.backing_bytes);
	u64 at = fixed_bytes(&q->head), end = name ? name : q->cluster_bytes;
	int ret = 0;

	if (end > q->cluster_bytes || name_bytes > q->cluster_bytes - (name ? name : 0))
		return -EINVAL;
	while (at + sizeof(struct disk_extension) <= end && ret == 0) {
		u32 type = load_be32(u->old + at), bytes = load_be32(u->old + at + 4);

		at += sizeof(struct disk_extension);
		if (type == EXT_END)
			break;
		if (bytes > end - at)
			return -EINVAL;
		ret = list_add(&u->exts, type, u->old + at, bytes);
		at += align_up(bytes, 8);
	}
	u->ext_end = at;
	u->old_end = MIN(MAX(at, name ? name + name_bytes : 0), (u64)q->cluster_bytes);
	return ret;
}

/* --- building --- */

static const struct header_ext *find_change(const struct header_change *c, u32 type)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->exts[i].type == type)
			return &c->exts[i];
	return NULL;
}

static const struct header_ext *find_old(const struct ext_list *l, u32 type)
{
	for (u32 i = l->n; i--;) /* the last one counts */
		if (l->v[i].type == type)
			return &l->v[i];
	return NULL;
}

/* Append the extension; false: no room. */
static bool put(u8 *cluster, u64 end, u64 *at, const struct header_ext *e)
{
	u64 need = sizeof(struct disk_extension) + align_up(e->bytes, 8);

	if (need > end || *at > end - need)
		return false;
	store_be32(cluster + *at, e->type);
	store_be32(cluster + *at + 4, e->bytes);
	if (e->bytes)
		memcpy(cluster + *at + 8, e->data, e->bytes);
	*at += need;
	return true;
}

static const u32 known_exts[] = {EXT_BACKING_FORMAT, EXT_DATA_FILE, EXT_CRYPTO, EXT_FEATURE_NAMES,
				 EXT_BITMAPS};

static bool is_known(u32 type)
{
	for (unsigned i = 0; i < ARRAY_LEN(known_exts); i++)
		if (known_exts[i] == type)
			return true;
	return false;
}

/* All extensions in their order, from *at on, with an end. */
static int put_all(const struct update *u, const struct header_change *c, u8 *cluster, u64 *at,
		   bool names)
{
	static const struct header_ext none = {.type = EXT_END};
	u64 end = u->q->cluster_bytes;
	bool fits = true;

	for (unsigned i = 0; i < ARRAY_LEN(known_exts); i++) {
		const struct header_ext *e = find_change(c, known_exts[i]);

		if (!e)
			e = find_old(&u->exts, known_exts[i]);
		if (e && e->data && (names || e->type != EXT_FEATURE_NAMES))
			fits = fits && put(cluster, end, at, e);
	}
	for (u32 i = 0; i < u->exts.n; i++)
		if (!is_known(u->exts.v[i].type) && !find_change(c, u->exts.v[i].type))
			fits = fits && put(cluster, end, at, &u->exts.v[i]);
	for (unsigned i = 0; i < c->n; i++)
		if (!is_known(c->exts[i].type) && c->exts[i].data)
			fits = fits && put(cluster, end, at, &c->exts[i]);
	return fits && put(cluster, end, at, &none) ? 0 : -ENOSPC;
}

static int put_name(u8 *cluster, u64 end, u64 *at, const char *name, u64 bytes)
{
	struct disk_header *h = (struct disk_header *)cluster;

	h->backing_hoff = be64_of(0);
	h->backing_bytes = be32_of(0);
	if (!bytes)
		return 0;
	if (bytes > end || *at > end - bytes)
		return -ENOSPC;
	h->backing_hoff = be64_of(*at);
	h->backing_bytes = be32_of((u32)bytes);
	memcpy(cluster + *at, name, bytes);
	*at += bytes;
	return 0;
}

static u64 bits_of(u64 old, struct header_bits b)
{
	return (old & ~b.clear) | b.set;
}

/* Fields of version 3 as they are, or as version 2 implies them. */
static void fields_from(struct disk_header *h, const struct disk_header *old)
{
	*h = *old;
	if (be32_get(old->version) == 2) {
		memset((u8 *)h + QCOW2_V2_HEADER_BYTES, 0, sizeof(*h) - QCOW2_V2_HEADER_BYTES);
		h->refcount_order = be32_of(4);
		h->header_bytes = be32_of(sizeof(*h));
	} else if (be32_get(old->header_bytes) < sizeof(*h)) {
		memset((u8 *)h + QCOW2_V3_HEADER_BYTES, 0, sizeof(*h) - QCOW2_V3_HEADER_BYTES);
		h->header_bytes = be32_of(sizeof(*h));
	}
}

/* How many bytes of header fields go on behind those known here: kept.  A header
 * longer than a sector is one whose extensions were moved away and not back. */
static u64 fixed_end(const u8 *old)
{
	u64 bytes = fixed_bytes((const struct disk_header *)old);
	bool moved = bytes > HEADER_SECTOR;

	bytes = MIN(bytes, (u64)HEADER_SECTOR);
	while (moved && bytes > sizeof(struct disk_header) && !load_be64(old + bytes - 8))
		bytes -= 8;
	return MAX(bytes, sizeof(struct disk_header));
}

static u64 put_fixed(const struct update *u, u8 *cluster)
{
	const struct header_change *c = u->change;
	const struct disk_header *old = (const struct disk_header *)u->old;
	struct disk_header h;
	u32 version = c->version ? c->version : be32_get(old->version);
	u64 bytes = QCOW2_V2_HEADER_BYTES;

	fields_from(&h, old);
	h.version = be32_of(version);
	if (version > 2) {
		bytes = fixed_end(u->old);
		h.header_bytes = be32_of((u32)bytes);
		h.incompatible = be64_of(bits_of(be64_get(h.incompatible), c->incompatible));
		h.compatible = be64_of(bits_of(be64_get(h.compatible), c->compatible));
		h.autoclear = be64_of(bits_of(be64_get(h.autoclear), c->autoclear));
		if (be32_get(old->version) > 2)
			memcpy(cluster, u->old, bytes);
	}
	memcpy(cluster, &h, MIN(bytes, sizeof(h)));
	return bytes;
}

/* The new header into `cluster`; *end: behind what it uses. */
static int build_as(const struct update *u, u8 *cluster, bool names, u64 *end)
{
	const struct header_change *c = u->change;
	const struct disk_header *old = (const struct disk_header *)u->old;
	const char *name = (const char *)u->old + be64_get(old->backing_hoff);
	u64 name_bytes = be64_get(old->backing_hoff) ? be32_get(old->backing_bytes) : 0;
	int ret;

	if (c->set_backing) {
		name = c->backing;
		name_bytes = name ? strlen(name) : 0;
	}
	memset(cluster, 0, u->q->cluster_bytes);
	*end = put_fixed(u, cluster);
	ret = put_all(u, c, cluster, end, names && load_be32(cluster + 4) > 2);
	return ret < 0 ? ret : put_name(cluster, u->q->cluster_bytes, end, name, name_bytes);
}

static int build(struct update *u)
{
	int ret = build_as(u, u->now, true, &u->now_end);

	return ret == -ENOSPC ? build_as(u, u->now, false, &u->now_end) : ret;
}

/* --- writing --- */

/* Write the sectors of [from, to) in which the disk differs. */
static int write_range(struct fiber *f, struct update *u, const u8 *want, u64 from, u64 to)
{
	int ret = 0;

	for (u64 at = from; at < to && ret == 0; at += HEADER_SECTOR) {
		u64 first = at;

		while (at < to && memcmp(u->disk + at, want + at, HEADER_SECTOR) != 0)
			at += HEADER_SECTOR;
		if (at == first)
			continue;
		ret = qcow2_pwrite(f, u->q, first, want + first, at - first);
		if (ret == 0)
			memcpy(u->disk + first, want + first, at - first);
	}
	return ret;
}

static be64 merge_bits(be64 want, be64 live, be64 base)
{
	return be64_of(be64_get(want) ^ be64_get(live) ^ be64_get(base));
}

/* The first sector in memory becomes this one, but for what commits decide and
 * for feature bits that others changed meanwhile. */
static void put_sector(struct update *u, const u8 *sector)
{
	struct qcow2 *q = u->q;
	struct disk_header live = q->head, *h = &q->head;

	memcpy(q->head_sector, sector, HEADER_SECTOR);
	if (be32_get(live.version) > 2 && be32_get(h->version) > 2) {
		h->incompatible =
			merge_bits(h->incompatible, live.incompatible, u->base.incompatible);
		h->compatible = merge_bits(h->compatible, live.compatible, u->base.compatible);
		h->autoclear = merge_bits(h->autoclear, live.autoclear, u->base.autoclear);
	}
	memcpy(&u->base, sector, sizeof(u->base));
	h->bytes = live.bytes;
	h->l1_entries = live.l1_entries;
	h->l1_hoff = live.l1_hoff;
	h->reftable_hoff = live.reftable_hoff;
	h->reftable_clusters = live.reftable_clusters;
	h->snapshots = live.snapshots;
	h->snapshots_hoff = live.snapshots_hoff;
}

/* Make the sector that of the file. */
static int switch_sector(struct fiber *f, struct update *u, const u8 *sector)
{
	u8 before[HEADER_SECTOR];
	int ret;

	memcpy(before, u->q->head_sector, sizeof(before));
	memcpy(before, &u->base, sizeof(u->base));
	put_sector(u, sector);
	memcpy(u->disk, u->q->head_sector, HEADER_SECTOR);
	ret = qcow2_pwrite(f, u->q, 0, u->disk, HEADER_SECTOR);
	if (ret == 0)
		ret = file_sync(f, u->q);
	if (ret < 0)
		put_sector(u, before);
	return ret;
}

/* Does what shall be written hit what the old header uses behind its sector? */
static bool collides(const struct update *u)
{
	u64 end = align_up(u->old_end, HEADER_SECTOR);

	return end > HEADER_SECTOR &&
	       memcmp(u->old + HEADER_SECTOR, u->now + HEADER_SECTOR, end - HEADER_SECTOR) != 0;
}

/* The old content from *at on: in version 2 only the name can move. */
static int build_copy(const struct update *u, u8 *copy, u64 *at, bool names)
{
	static const struct header_change nothing;
	const struct disk_header *old = (const struct disk_header *)u->old;
	struct disk_header *h = (struct disk_header *)copy;
	u64 name = be64_get(old->backing_hoff);
	int ret = 0;

	memcpy(copy, u->old, u->q->cluster_bytes);
	if (be32_get(old->version) > 2) {
		u64 fixed = fixed_end(u->old);

		fields_from(h, old);
		h->header_bytes = be32_of((u32)*at);
		memset(copy + fixed, 0, HEADER_SECTOR - fixed);
		ret = put_all(u, &nothing, copy, at, names);
	} else if (u->ext_end > HEADER_SECTOR) {
		return -ENOSPC;
	}
	return ret < 0 ? ret
		       : put_name(copy, u->q->cluster_bytes, at, (const char *)u->old + name,
				  name ? be32_get(old->backing_bytes) : 0);
}

/* How the old content gets out of the way: u->copy, of which the first sector is the
 * switch, needs what is written from *from on (the cluster's end: nothing). */
static int find_way(struct update *u, u64 *from)
{
	u64 behind = align_up(MAX(u->old_end, u->now_end), HEADER_SECTOR);
	u64 end = u->q->cluster_bytes, at;
	int ret = -ENOSPC;

	*from = behind;
	for (int names = 1; names >= 0 && ret == -ENOSPC && behind < end; names--) {
		at = behind;
		ret = build_copy(u, u->copy, &at, names);
	}
	if (ret != -ENOSPC)
		return ret;
	*from = end;
	at = be32_get(u->base.version) > 2 ? fixed_end(u->old) : u->ext_end;
	ret = build_copy(u, u->copy, &at, false);
	if (ret == 0 && at <= HEADER_SECTOR)
		return 0;
	ret = build_as(u, u->copy, false, &at);
	return ret == 0 && at > HEADER_SECTOR ? -ENOSPC : ret;
}

static int make_way(struct fiber *f, struct update *u, u64 from)
{
	int ret = write_range(f, u, u->copy, from, u->q->cluster_bytes);

	if (ret == 0)
		ret = file_sync(f, u->q);
	return ret == 0 ? switch_sector(f, u, u->copy) : ret;
}

static int write_cluster(struct fiber *f, struct update *u)
{
	u64 end = u->q->cluster_bytes, used = align_up(u->now_end, HEADER_SECTOR), from;
	bool in_the_way = collides(u);
	int ret = in_the_way ? find_way(u, &from) : 0;

	if (ret < 0 || u->change->judge_only)
		return ret;
	if (in_the_way)
		ret = make_way(f, u, from);

	if (ret == 0)
		ret = write_range(f, u, u->now, HEADER_SECTOR, used);
	if (ret == 0)
		ret = file_sync(f, u->q);
	if (ret == 0)
		ret = switch_sector(f, u, u->now);
	/* What is left of the old content: nothing names it any more. */
	return ret == 0 ? write_range(f, u, u->now, used, end) : ret;
}

static int run(struct fiber *f, struct update *u)
{
	struct qcow2 *q = u->q;
	int ret;

	u->old = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	u->disk = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	u->now = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	u->copy = try_alloc_aligned(q->cluster_bytes, MIN(q->cluster_bytes, 4096u));
	if (!u->old || !u->disk || !u->now || !u->copy)
		return -ENOMEM;
	ret = qcow2_pread(f, q->img.below, 0, u->old, q->cluster_bytes);
	if (ret < 0)
		return ret;
	memcpy(u->disk, u->old, q->cluster_bytes);
	memcpy(u->old, q->head_sector, HEADER_SECTOR); /* a commit may be about to write it */
	u->base = q->head;
	ret = parse(u);
	if (ret == 0)
		ret = build(u);
	return ret == 0 ? write_cluster(f, u) : ret;
}

int header_update(struct fiber *f, struct qcow2 *q, const struct header_change *change)
{
	struct update u = {.q = q, .change = change};
	int ret;

	fiber_mutex_lock(f, &q->head_lock);
	ret = run(f, &u);
	if (ret == 0 && change->version && !change->judge_only)
		q->version = change->version;
	fiber_mutex_unlock(f, &q->head_lock);
	free(u.exts.v);
	free(u.old);
	free(u.disk);
	free(u.now);
	free(u.copy);
	return ret;
}

/* --- the backing file --- */

static void replace(char **text, const char *with)
{
	free(*text);
	*text = with && *with ? xstrdup(with) : NULL;
}

/* Judge it, or do it. */
static int change_backing(struct fiber *f, struct qcow2 *q, const char *name, const char *format,
			  bool judge_only, struct error *err)
{
	struct header_ext ext = {EXT_BACKING_FORMAT, format, format ? (u32)strlen(format) : 0};
	struct header_change change = {.judge_only = judge_only,
				       .set_backing = true,
				       .backing = name,
				       .exts = &ext,
				       .n = 1};
	int ret = 0;

	if (name && q->data_raw) /* the data file alone is to show the disk */
		return err_set(err, -EINVAL, "%s", strerror(EINVAL));
	if (name && strlen(name) > QCOW2_MAX_BACKING_NAME)
		return err_set(err, -EINVAL, "Backing file name too long");
	if (format && strlen(format) > 15)
		return err_set(err, -EINVAL, "Backing format name too long");
	if (!judge_only)
		ret = write_begin(f, q);
	if (ret == 0)
		ret = header_update(f, q, &change);
	if (ret < 0)
		return err_set(err, ret, "%s",
			       ret == -ENOSPC ? "No space left in the file header"
					      : strerror(-ret));
	return 0;
}

static const char *if_any(const char *text)
{
	return text && *text ? text : NULL;
}

int qcow2_judge_backing(struct fiber *f, struct image *img, const char *name, const char *format,
			struct error *err)
{
	name = if_any(name);
	return change_backing(f, to_qcow2(img), name, name ? if_any(format) : NULL, true, err);
}

int qcow2_set_backing(struct fiber *f, struct image *img, const char *name, const char *format,
		      struct error *err)
{
	int ret;

	name = if_any(name);
	format = name ? if_any(format) : NULL;
	ret = change_backing(f, to_qcow2(img), name, format, false, err);
	if (ret < 0)
		return ret;
	replace(&img->backing_name, name);
	replace(&img->backing_format, format);
	return 0;
}
