/* How large a qcow2 file would be, without making it; see measure.h.
 *
 * The figures count what QEMU's docs/interop/qcow2 makes necessary: header, L1
 * and L2 tables in whole clusters, and refcounts of all that, themselves
 * included.  `required` takes the metadata of the full image even if only some
 * data is there: an upper bound that is safe for block devices.
 * Thread: the source's loop. */
#include "block/qcow2/measure.h"

#include "block/driver.h"
#include "block/map_chain.h"
#include "block/qcow2/parts.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>

#define BITMAP_IN_USE 1u /* flag of an inconsistent bitmap */

static u64 refcount_bytes(u64 clusters, u64 cluster_bytes, u32 refcount_bits)
{
	u64 per_block = cluster_bytes * 8 / refcount_bits, table = 0, blocks = 0, before;

	do { /* they count themselves too */
		before = table + blocks;
		blocks = DIV_ROUND_UP(clusters + before, per_block);
		table = DIV_ROUND_UP(blocks, cluster_bytes / 8);
	} while (table + blocks != before);
	return before * cluster_bytes;
}

/* All clusters of an image whose data is all there. */
static u64 full_bytes(const struct qcow2_measure_options *o, u64 bytes)
{
	u64 cb = o->cluster_bytes, entry = o->extended_l2 ? 16 : 8;
	u64 l2 = align_up(bytes / cb, cb / entry) * entry;
	u64 l1 = align_up(l2 / cb, cb / 8) * 8;
	u64 metadata = cb + l2 + l1;

	return metadata + refcount_bytes((metadata + bytes) / cb, cb, o->refcount_bits) + bytes;
}

/* Bytes of whole clusters that hold data anywhere in the source's chain. */
static int data_bytes(struct fiber *f, struct image *source, u64 cluster_bytes, u64 *out)
{
	struct chain_extent e;

	*out = 0;
	for (u64 goff = 0, end; goff < source->bytes; goff = end) {
		int ret = image_map_chain(f, source, goff, source->bytes - goff, &e);

		if (ret < 0)
			return ret;
		end = goff + e.map.bytes;
		if (e.map.kind & MAP_ZERO || !(e.map.kind & MAP_ALLOC))
			continue;
		end = align_up(end, cluster_bytes); /* copied whole */
		*out += end - align_down(goff, cluster_bytes);
	}
	return 0;
}

static int judge(const struct qcow2_measure_options *o, u64 bytes, struct error *err)
{
	u64 l2_span = o->cluster_bytes / (o->extended_l2 ? 16 : 8);

	if (!is_pow2(o->cluster_bytes) || o->cluster_bytes < 512 || o->cluster_bytes > 2 * MiB)
		return err_set(err, -EINVAL,
			       "Cluster size must be a power of two between 512 and 2048k");
	if (o->extended_l2 && o->cluster_bytes < 16 * KiB)
		return err_set(err, -EINVAL,
			       "Extended L2 entries are only supported with cluster sizes of at "
			       "least 16384 bytes");
	if (!is_pow2(o->refcount_bits) || o->refcount_bits > 64)
		return err_set(err, -EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	if (o->version2 && o->refcount_bits != 16)
		return err_set(err, -EINVAL,
			       "Different refcount widths than 16 bits require compatibility "
			       "level 1.1 or above (use compat=1.1 or greater)");
	if (DIV_ROUND_UP(bytes / o->cluster_bytes, l2_span) * 8 > QCOW2_MAX_L1_BYTES)
		return err_set(err, -EFBIG,
			       "The image size is too large (try using a larger cluster size)");
	return 0;
}

static int measure_bitmaps(struct fiber *f, const struct qcow2_measure_options *o,
			   struct image *source, struct image_measure *out)
{
	int ret = -ENOTSUP;

	if (source && source->driver == &qcow2_driver && !o->version2)
		ret = qcow2_bitmaps_bytes(f, source, o->cluster_bytes, &out->bitmaps);
	out->has_bitmaps = ret == 0;
	return ret == -ENOTSUP ? 0 : ret;
}

int qcow2_measure(struct fiber *f, const struct qcow2_measure_options *opt, struct image *source,
		  struct image_measure *out, struct error *err)
{
	struct qcow2_measure_options o = *opt;
	u64 bytes = source ? source->bytes : o.bytes, required = 0, luks;
	int ret;

	if (!o.cluster_bytes)
		o.cluster_bytes = 65536;
	if (!o.refcount_bits)
		o.refcount_bits = 16;
	*out = (struct image_measure){0};
	bytes = align_up(bytes, is_pow2(o.cluster_bytes) ? o.cluster_bytes : 512);
	ret = judge(&o, bytes, err);
	if (ret < 0)
		return ret;
	if (source && !o.backed)
		ret = data_bytes(f, source, o.cluster_bytes, &required);
	if (ret == 0)
		ret = measure_bitmaps(f, &o, source, out);
	if (ret < 0)
		return err_set_errno(err, ret, "Unable to get block status");
	if (o.preallocated || (o.backed && source))
		required = bytes;
	luks = align_up(o.luks_bytes, o.cluster_bytes);
	out->fully_allocated = full_bytes(&o, bytes) + luks;
	out->required = out->fully_allocated - bytes + required;
	return 0;
}

/* --- bitmaps of the source ------------------------------------------------------- */

/* One entry of the directory: what its bitmap would take, its place in the new
 * directory, and its own length. */
static int measure_entry(const struct qcow2 *q, const u8 *at, u64 left, u32 cluster_bytes,
			 u64 sums[static 2], u64 *entry_bytes)
{
	const struct disk_bitmap *b = (const struct disk_bitmap *)at;
	u64 name, bits, clusters;

	if (left < sizeof(*b))
		return -EINVAL;
	name = be16_get(b->name_bytes);
	*entry_bytes = align_up(sizeof(*b) + be32_get(b->extra_bytes) + name, 8);
	if (*entry_bytes > left || b->granularity_bits > 31 || b->granularity_bits < 9)
		return -EINVAL;
	if (be32_get(b->flags) & BITMAP_IN_USE)
		return 0;
	bits = DIV_ROUND_UP(q->img.bytes, (u64)1 << b->granularity_bits);
	clusters = DIV_ROUND_UP(DIV_ROUND_UP(bits, 8), (u64)cluster_bytes);
	sums[0] += (clusters + DIV_ROUND_UP(clusters * 8, (u64)cluster_bytes)) * cluster_bytes;
	sums[1] += align_up(sizeof(*b) + name, 8);
	return 0;
}

int qcow2_bitmaps_bytes(struct fiber *f, struct image *img, u32 cluster_bytes, u64 *out)
{
	struct qcow2 *q = to_qcow2(img);
	u64 bytes = be64_get(q->bitmaps.directory_bytes), sums[2] = {0}, entry = 0, at = 0;
	AUTO_FREE u8 *directory = NULL;
	int ret;

	*out = 0;
	if (q->version < 3)
		return -ENOTSUP;
	if (!be32_get(q->bitmaps.count) || !(be64_get(q->head.autoclear) & AUTOCLEAR_BITMAPS))
		return 0;
	if (bytes > 64 * MiB || be32_get(q->bitmaps.count) > QCOW2_MAX_BITMAPS)
		return -EINVAL;
	directory = try_alloc_aligned(align_up(bytes, 8), 8);
	if (!directory)
		return -ENOMEM;
	ret = qcow2_pread(f, img->below, be64_get(q->bitmaps.directory_hoff), directory, bytes);
	for (u32 i = be32_get(q->bitmaps.count); i && ret == 0; i--, at += entry)
		ret = measure_entry(q, directory + at, bytes - at, cluster_bytes, sums, &entry);
	*out = sums[0] + align_up(sums[1], cluster_bytes);
	return ret;
}
