/* The qcow2 header and its extensions: reading, judging, feature bits.
 *
 * Only fixed fields of the first sector are ever rewritten, and a sector is
 * written whole or not at all; extensions, known or not, stay as they are.
 * Thread: the image's loop. */
#include "block/qcow2/parts.h"

#include "base/log.h"
#include "block/qcow2/bitmap_set.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static int check_sizes(struct qcow2 *q, struct error *err)
{
	const struct disk_header *h = &q->head;

	q->version = be32_get(h->version);
	if (be32_get(h->magic) != QCOW2_MAGIC)
		return err_set(err, -EINVAL, "Image is not in qcow2 format");
	if (q->version < 2 || q->version > 3)
		return err_set(err, -ENOTSUP, "Unsupported qcow2 version %u", q->version);
	q->cluster_bits = be32_get(h->cluster_bits);
	if (q->cluster_bits < QCOW2_MIN_CLUSTER_BITS || q->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return err_set(err, -EINVAL, "Unsupported cluster size: 2^%u, expected 2^9..2^21",
			       q->cluster_bits);
	q->cluster_bytes = 1u << q->cluster_bits;
	q->refcount_order = q->version == 2 ? 4 : be32_get(h->refcount_order);
	if (q->refcount_order > QCOW2_MAX_REFCOUNT_ORDER)
		return err_set(err, -EINVAL,
			       "Reference count entry width too large; may not exceed 64 bits");
	q->extended = q->version > 2 && be64_get(h->incompatible) & INCOMPAT_EXTENDED_L2;
	if (q->extended && q->cluster_bytes < QCOW2_MIN_EXTENDED_CLUSTER)
		return err_set(err, -EINVAL, "Unsupported subcluster size: %u",
			       q->cluster_bytes / 32);
	q->l2_bits = q->cluster_bits - (q->extended ? 4 : 3);
	q->sub_bits = q->cluster_bits - (q->extended ? 5 : 0);
	q->zero_bit = q->version > 2 && !q->extended ? ENTRY_ZERO : 0;
	q->l2_entries = 1u << q->l2_bits;
	q->refblock_bits = q->cluster_bits + 3 - q->refcount_order;
	q->refblock_entries = 1u << q->refblock_bits;
	return 0;
}

/* Make a version 2 header look like version 3, and cut what is not present. */
static int check_length(struct qcow2 *q, struct error *err)
{
	struct disk_header *h = &q->head;
	u32 bytes = be32_get(h->header_bytes);

	if (q->version == 2)
		return 0;
	if (bytes < QCOW2_V3_HEADER_BYTES)
		return err_set(err, -EINVAL, "qcow2 header too short");
	if (bytes > q->cluster_bytes)
		return err_set(err, -EINVAL, "qcow2 header exceeds cluster size");
	if (!is_aligned(bytes, 8))
		return err_set(err, -EINVAL, "qcow2 header length %u is not a multiple of 8",
			       bytes);
	return 0;
}

static u32 header_bytes(const struct qcow2 *q)
{
	return q->version == 2 ? QCOW2_V2_HEADER_BYTES : be32_get(q->head.header_bytes);
}

static u64 incompatible(const struct qcow2 *q)
{
	return q->version == 2 ? 0 : be64_get(q->head.incompatible);
}

/* Copy n bytes as a string, NULL if there are none, into the place of another. */
static int copy_text(char **to, const u8 *text, u64 n, struct error *err)
{
	free(*to);
	*to = n ? try_alloc(n + 1) : NULL;
	if (n && !*to)
		return err_set(err, -ENOMEM, "Could not allocate the header");
	if (n)
		memcpy(*to, text, n);
	return 0;
}

static int take_features(struct qcow2 *q, const u8 *data, u32 bytes, struct error *err)
{
	free(q->features);
	q->feature_count = 0;
	q->features = try_alloc(bytes);
	if (!q->features)
		return err_set(err, -ENOMEM, "Could not allocate the header");
	q->feature_count = bytes / sizeof(*q->features);
	memcpy(q->features, data, q->feature_count * sizeof(*q->features));
	return 0;
}

static int one_extension(struct qcow2 *q, u32 type, const u8 *data, u32 bytes, struct error *err)
{
	switch (type) {
	case EXT_BACKING_FORMAT:
		if (bytes > 15)
			return err_set(err, -EINVAL,
				       "ERROR: ext_backing_format: len=%u too large (>=16)", bytes);
		return copy_text(&q->img.backing_format, data, bytes, err);
	case EXT_FEATURE_NAMES: return take_features(q, data, bytes, err);
	case EXT_DATA_FILE: return copy_text(&q->data_name, data, bytes, err);
	case EXT_BITMAPS:
		if (bytes != sizeof(q->bitmaps))
			return err_set(err, -EINVAL, "bitmaps_ext: Invalid extension length");
		memcpy(&q->bitmaps, data, bytes);
		q->has_bitmaps = true;
		return 0;
	case EXT_CRYPTO: return qcow2_crypt_extension(q, data, bytes, err);
	default: return 0; /* judged by their feature bits, or unknown: kept */
	}
}

/* Walk the extensions of the header cluster, which is `head`. */
static int read_extensions(struct qcow2 *q, const u8 *head, u64 end, struct error *err)
{
	u64 at = header_bytes(q);

	while (at + sizeof(struct disk_extension) <= end) {
		u32 type = load_be32(head + at), bytes = load_be32(head + at + 4);
		int ret;

		if (type == EXT_END)
			return 0;
		at += sizeof(struct disk_extension);
		if (bytes > end - at)
			return err_set(err, -EINVAL,
				       "Header extension 0x%08x too large: %u bytes, %llu left",
				       type, bytes, (unsigned long long)(end - at));
		ret = one_extension(q, type, head + at, bytes, err);
		if (ret < 0)
			return ret;
		at += align_up(bytes, 8);
	}
	return 0;
}

static int read_backing_name(struct qcow2 *q, const u8 *head, struct error *err)
{
	u64 hoff = be64_get(q->head.backing_hoff);
	u32 bytes = be32_get(q->head.backing_bytes);

	if (!hoff)
		return 0;
	if (bytes > QCOW2_MAX_BACKING_NAME)
		return err_set(err, -EINVAL, "Backing file name too long");
	if (hoff > q->cluster_bytes || bytes > q->cluster_bytes - hoff)
		return err_set(err, -EINVAL, "Invalid backing file offset");
	return copy_text(&q->img.backing_name, head + hoff, bytes, err);
}

/* The rest of the header cluster.  Extensions end where the name begins. */
static int read_cluster(struct fiber *f, struct qcow2 *q, struct error *err)
{
	AUTO_FREE u8 *head = try_alloc(q->cluster_bytes);
	u64 end = q->cluster_bytes;
	int ret;

	if (!head)
		return err_set(err, -ENOMEM, "Could not allocate the header");
	ret = qcow2_pread(f, q->img.below, 0, head, q->cluster_bytes);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not read qcow2 header");
	ret = read_backing_name(q, head, err);
	if (ret < 0)
		return ret;
	if (be64_get(q->head.backing_hoff))
		end = be64_get(q->head.backing_hoff);
	return read_extensions(q, head, end, err);
}

/* The name of a feature, from the image's own table if it is there. */
static void feature_name(const struct qcow2 *q, u32 bit, char *text, size_t room)
{
	for (u32 i = 0; i < q->feature_count; i++) {
		const struct disk_feature_name *n = &q->features[i];

		if (n->kind != 0 || n->bit != bit || !n->name[0])
			continue;
		snprintf(text, room, "%.*s", (int)sizeof(n->name), n->name);
		for (char *c = text; *c; c++)
			*c = *c < ' ' || *c > '~' ? '?' : *c;
		return;
	}
	snprintf(text, room, "Unknown incompatible feature: %llx", 1ull << bit);
}

static int refuse_unknown(const struct qcow2 *q, u64 bits, struct error *err)
{
	char list[400], name[64];
	size_t len = 0;

	list[0] = '\0';
	for (u32 bit = 0; bit < 64; bit++) {
		if (!(bits >> bit & 1))
			continue;
		feature_name(q, bit, name, sizeof(name));
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "",
					name);
		if (len >= sizeof(list))
			break;
	}
	return err_set(err, -ENOTSUP, "Unsupported qcow2 feature(s): %s", list);
}

static int check_features(struct qcow2 *q, struct error *err)
{
	const u64 known = INCOMPAT_DIRTY | INCOMPAT_CORRUPT | INCOMPAT_DATA_FILE |
			  INCOMPAT_COMPRESSION | INCOMPAT_EXTENDED_L2;
	u64 bits = incompatible(q);
	u8 type = header_bytes(q) > offsetof(struct disk_header, compression_type)
			  ? q->head.compression_type
			  : 0;

	if (bits & ~known)
		return refuse_unknown(q, bits & ~known, err);
	q->data_external = bits & INCOMPAT_DATA_FILE;
	q->data_raw = q->version > 2 && be64_get(q->head.autoclear) & AUTOCLEAR_RAW_DATA;
	if (q->data_raw && !q->data_external)
		return err_set(err, -EINVAL, "data-file-raw requires a data file");
	q->placed_bits = ENTRY_HOFF | (q->data_external ? ENTRY_COPIED : 0);
	if (!(bits & INCOMPAT_COMPRESSION) != !type)
		return err_set(err, -EINVAL,
			       "Compression type %u does not agree with its feature bit", type);
	if (type > 1)
		return err_set(err, -ENOTSUP, "Unknown compression type %u", type);
	return qcow2_crypt_judge(q, err);
}

static int check_table(const struct qcow2 *q, const char *name, u64 hoff, u64 bytes,
		       struct error *err)
{
	if (!is_aligned(hoff, q->cluster_bytes) || hoff > QCOW2_MAX_HOFF ||
	    bytes > QCOW2_MAX_HOFF - hoff)
		return err_set(err, -EINVAL, "%s offset invalid", name);
	return 0;
}

static int check_reftable(struct qcow2 *q, struct error *err)
{
	u64 bytes;
	int ret = 0;

	q->reftable_hoff = be64_get(q->head.reftable_hoff);
	q->reftable_clusters = be32_get(q->head.reftable_clusters);
	bytes = (u64)q->reftable_clusters << q->cluster_bits;
	if (bytes > QCOW2_MAX_REFTABLE_BYTES)
		ret = err_set(err, -EFBIG, "Reference count table too large");
	else if (!bytes)
		ret = err_set(err, -EINVAL, "Image does not contain a reference count table");
	else
		ret = check_table(q, "Reference count table", q->reftable_hoff, bytes, err);
	if (ret < 0 && q->check_only) { /* check makes a new one */
		q->reftable_bad = true;
		q->reftable_clusters = 0;
		return 0;
	}
	return ret;
}

static int check_tables(struct qcow2 *q, struct error *err)
{
	u64 snapshots_hoff = be64_get(q->head.snapshots_hoff);
	u64 need;
	int ret;

	q->img.bytes = be64_get(q->head.bytes);
	q->l1_hoff = be64_get(q->head.l1_hoff);
	q->l1_entries = be32_get(q->head.l1_entries);
	q->snapshot_count = be32_get(q->head.snapshots);
	if (q->l1_entries > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "Active L1 table too large");
	if (q->img.bytes > (u64)INT64_MAX - q->cluster_bytes)
		return err_set(err, -EFBIG, "Image is too big");
	need = (q->img.bytes + l2_span(q) - 1) / l2_span(q);
	if (need > QCOW2_MAX_L1_BYTES / 8)
		return err_set(err, -EFBIG, "Image is too big");
	if (q->l1_entries < need)
		return err_set(err, -EINVAL, "L1 table is too small");
	ret = check_table(q, "Active L1 table", q->l1_hoff, q->l1_entries * 8ull, err);
	if (ret < 0)
		return ret;
	if (q->snapshot_count > QCOW2_MAX_SNAPSHOTS && q->check_only) {
		q->snapshots_cut = q->snapshot_count - QCOW2_MAX_SNAPSHOTS;
		q->snapshot_count = QCOW2_MAX_SNAPSHOTS;
	}
	if (q->snapshot_count > QCOW2_MAX_SNAPSHOTS)
		return err_set(err, -EFBIG, "Snapshot table too large");
	ret = check_table(q, "Snapshot table", snapshots_hoff, 0, err);
	if (ret < 0)
		return ret;
	return check_reftable(q, err);
}

int header_open(struct fiber *f, struct qcow2 *q, const struct open_policy *policy,
		struct error *err)
{
	int ret = qcow2_pread(f, q->img.below, 0, q->head_sector, sizeof(q->head_sector));

	if (ret < 0)
		return err_set_errno(err, ret, "Could not read qcow2 header");
	fiber_mutex_init(&q->head_lock);
	fiber_mutex_init(&q->begin_lock);
	ret = check_sizes(q, err);
	if (ret == 0)
		ret = check_length(q, err);
	if (ret == 0)
		ret = read_cluster(f, q, err);
	if (ret == 0)
		ret = check_features(q, err);
	if (ret == 0)
		ret = check_tables(q, err);
	if (ret < 0)
		return ret;
	q->corrupt = incompatible(q) & INCOMPAT_CORRUPT;
	if (q->corrupt && policy->writable && !policy->check_only)
		return err_set(err, -EACCES,
			       "qcow2: Image is corrupt; cannot be opened read/write");
	q->lazy = q->version > 2 && be64_get(q->head.compatible) & COMPAT_LAZY;
	q->granule = MIN(MAX(HEADER_SECTOR, q->img.below->request_align), q->cluster_bytes);
	return 0;
}

void header_fini(struct qcow2 *q)
{
	free(q->features);
	q->features = NULL;
	q->feature_count = 0;
}

int header_write(struct fiber *f, struct qcow2 *q)
{
	u8 copy[HEADER_SECTOR];
	int ret;

	fiber_mutex_lock(f, &q->head_lock);
	memcpy(copy, q->head_sector, sizeof(copy));
	ret = qcow2_pwrite(f, q, 0, copy, sizeof(copy));
	fiber_mutex_unlock(f, &q->head_lock);
	return ret;
}

int header_set_incompatible(struct fiber *f, struct qcow2 *q, u64 bit, bool on)
{
	u64 old = incompatible(q), bits = on ? old | bit : old & ~bit;
	int ret;

	if (q->version < 3 || bits == old)
		return 0;
	q->head.incompatible = be64_of(bits);
	ret = header_write(f, q);
	if (ret == 0)
		ret = file_sync(f, q);
	if (ret < 0) /* others may have changed other bits meanwhile */
		q->head.incompatible = be64_of((incompatible(q) & ~bit) | (old & bit));
	return ret;
}

int header_clear_autoclear(struct fiber *f, struct qcow2 *q, u64 keep)
{
	u64 old = be64_get(q->head.autoclear);
	int ret;

	keep |= q->data_external ? AUTOCLEAR_RAW_DATA : 0; /* kept true */
	if (q->version < 3 || !(old & ~keep))
		return 0;
	q->head.autoclear = be64_of(old & keep);
	ret = header_write(f, q);
	if (ret == 0)
		ret = file_sync(f, q);
	if (ret < 0) {
		q->head.autoclear = be64_of(old);
	} else if (old & ~keep & AUTOCLEAR_BITMAPS) {
		q->bitmaps.count = be32_of(0); /* who could not read them */
	}
	return ret;
}

/* Who comes second must wait too. */
int header_begin_writing(struct fiber *f, struct qcow2 *q)
{
	int ret = 0;

	fiber_mutex_lock(f, &q->begin_lock);
	if (!q->writing)
		ret = header_clear_autoclear(f, q, q->bitmap_set ? AUTOCLEAR_BITMAPS : 0);
	if (ret == 0 && !q->writing)
		ret = bitmaps_begin(f, q);
	if (ret == 0)
		q->writing = q->changed = true;
	fiber_mutex_unlock(f, &q->begin_lock);
	return ret;
}

/* Bitmaps alone: no guest data is written that they would have to follow, so that a
 * change which fails leaves them as they are. */
int header_begin_bitmaps(struct fiber *f, struct qcow2 *q)
{
	int ret = q->corrupt ? -EIO : 0;

	fiber_mutex_lock(f, &q->begin_lock);
	if (ret == 0 && !q->writing)
		ret = header_clear_autoclear(f, q, q->bitmap_set ? AUTOCLEAR_BITMAPS : 0);
	if (ret == 0)
		q->changed = true;
	fiber_mutex_unlock(f, &q->begin_lock);
	return ret;
}

int qcow2_corrupt(struct fiber *f, struct qcow2 *q, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if ((q->corrupt || q->told) && !q->check_only)
		return -EIO;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!q->img.writable || q->check_only) {
		q->told = true;
		log_guest("%s: qcow2: Image is corrupt: %s; further non-fatal corruption events "
			  "will be suppressed",
			  q->img.name, text);
		return -EIO;
	}
	log_error("%s: qcow2: Marking image as corrupt: %s; further corruption events will be "
		  "suppressed",
		  q->img.name, text);
	q->corrupt = true; /* writes and flushes give -EIO from here on */
	(void)header_set_incompatible(f, q, INCOMPAT_CORRUPT, true);
	return -EIO;
}
