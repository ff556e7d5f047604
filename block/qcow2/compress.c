/* Descriptors of compressed clusters (docs/interop/qcow2, "Compressed Clusters
 * Descriptor"): host offset below, number of further sectors above, the border
 * depends on the cluster size.  Nothing in here suspends. */
#include "block/qcow2/compress.h"

#include "block/qcow2/parts.h"

static u32 sector_bits(const struct qcow2 *q)
{
	return q->cluster_bits - 8;
}

static u32 sector_shift(const struct qcow2 *q)
{
	return 62 - sector_bits(q);
}

struct compressed compressed_decode(const struct qcow2 *q, u64 entry)
{
	u64 hoff = entry & (((u64)1 << sector_shift(q)) - 1);
	u64 more = entry >> sector_shift(q) & (((u64)1 << sector_bits(q)) - 1);

	return (struct compressed){hoff, (more + 1) * 512 - (hoff & 511)};
}

bool compressed_encode(const struct qcow2 *q, u64 hoff, u64 bytes, u64 *entry)
{
	u64 more = ((hoff + bytes - 1) >> 9) - (hoff >> 9);

	assert(bytes > 0);
	if (hoff >> sector_shift(q) || more >> sector_bits(q))
		return false;
	*entry = ENTRY_COMPRESSED | more << sector_shift(q) | hoff;
	return true;
}

void compressed_span(const struct qcow2 *q, u64 entry, u64 *hoff, u64 *clusters)
{
	struct compressed c = compressed_decode(q, entry);

	*hoff = cluster_floor(q, c.hoff);
	*clusters = (cluster_ceil(q, c.hoff + c.bytes) - *hoff) >> q->cluster_bits;
}

void entry_free(struct qcow2 *q, u64 entry)
{
	u64 hoff = entry & ENTRY_HOFF, clusters = 1;

	if (l2_kind(q, entry) == EXTENT_COMPRESSED)
		compressed_span(q, entry, &hoff, &clusters);
	else if (!hoff || q->data_external) /* no refcounts there */
		return;
	cluster_free(q, hoff, clusters);
}

enum codec_type compression_type(const struct qcow2 *q)
{
	if (q->version < 3 || !(be64_get(q->head.incompatible) & INCOMPAT_COMPRESSION))
		return CODEC_ZLIB;
	return q->head.compression_type == CODEC_ZSTD ? CODEC_ZSTD : CODEC_ZLIB;
}
