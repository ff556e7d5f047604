/* Writing a fresh image: header, refcount table, refcount blocks, L1 table, each
 * after the other, with one cluster each for common sizes.  Everything is known
 * from the sizes, so nothing is ever rewritten.
 * QEMU's docs/interop/qcow2.  Thread: the file's loop. */
#include "block/qcow2/qcow2.h"

#include "block/qcow2/format.h"

#include <errno.h>

/* Where things go, in clusters. */
struct plan {
	const struct qcow2_create_options *opt;
	struct image *file;
	u64 bytes;
	u32 version, cluster_bytes, cluster_bits, refcount_order;
	u64 reftable, reftable_n; /* first cluster, count */
	u64 blocks, blocks_n;
	u64 l1, l1_n, l1_entries;
	u64 l2, l2_n, data, data_n; /* with preallocated metadata */
	u64 total;
};

static const struct disk_feature_name feature_names[] = {
	{0, 0, "dirty bit"},	    {0, 1, "corrupt bit"},	   {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},	    {2, 1, "raw external data"},
};

static u32 log2_of(u32 x)
{
	return 31 - (u32)__builtin_clz(x);
}

static int judge(struct plan *p, struct error *err)
{
	const struct qcow2_create_options *o = p->opt;
	u32 refcount_bits = o->refcount_bits ? o->refcount_bits : 16;

	p->version = o->version ? o->version : 3;
	p->cluster_bytes = o->cluster_bytes ? o->cluster_bytes : 65536;
	if (p->version < 2 || p->version > 3)
		return err_set(err, -EINVAL, "qcow2 version is %u, expected 2 or 3", p->version);
	if (!is_pow2(p->cluster_bytes) || p->cluster_bytes < 512 || p->cluster_bytes > 2 * MiB)
		return err_set(err, -EINVAL,
			       "Cluster size must be a power of two between 512 and 2048k");
	if (!is_pow2(refcount_bits) || refcount_bits > 64)
		return err_set(err, -EINVAL,
			       "Refcount width must be a power of two and may not exceed 64 bits");
	if (p->version < 3 && refcount_bits != 16)
		return err_set(err, -EINVAL,
			       "Different refcount widths than 16 bits require compatibility "
			       "level 1.1 or above (use version=v3 or greater)");
	if (p->version < 3 && o->lazy_refcounts)
		return err_set(err, -EINVAL,
			       "Lazy refcounts only supported with compatibility level 1.1 and "
			       "above (use version=v3 or greater)");
	if (o->backing_file && o->preallocate_metadata)
		return err_set(err, -EINVAL,
			       "Backing file and preallocation can only be used at the same time "
			       "if extended_l2 is enabled");
	p->cluster_bits = log2_of(p->cluster_bytes);
	p->refcount_order = log2_of(refcount_bits);
	return 0;
}

static int plan_clusters(struct plan *p, struct error *err)
{
	u64 cb = p->cluster_bytes, span = cb * (cb / 8);
	u64 per_block = (cb * 8) >> p->refcount_order, before;

	if (p->opt->bytes > INT64_MAX - 2 * MiB)
		return err_set(err, -EFBIG, "Image size is too large");
	p->bytes = align_up(p->opt->bytes, 512);
	p->l1_entries = MAX(DIV_ROUND_UP(p->bytes, span), (u64)1);
	if (p->l1_entries * 8 > QCOW2_MAX_L1_BYTES)
		return err_set(err, -EFBIG,
			       "Image size too large for file format (try using a larger "
			       "cluster size)");
	p->l1_n = DIV_ROUND_UP(p->l1_entries * 8, cb);
	if (p->opt->preallocate_metadata) {
		p->l2_n = DIV_ROUND_UP(p->bytes, span);
		p->data_n = DIV_ROUND_UP(p->bytes, cb);
	}
	p->reftable_n = p->blocks_n = 1;
	do { /* the refcount structures describe themselves too */
		before = p->blocks_n + p->reftable_n;
		p->total = 1 + before + p->l1_n + p->l2_n + p->data_n;
		p->blocks_n = DIV_ROUND_UP(p->total, per_block);
		p->reftable_n = DIV_ROUND_UP(p->blocks_n * 8, cb);
	} while (p->blocks_n + p->reftable_n != before);
	if (p->reftable_n * cb > QCOW2_MAX_REFTABLE_BYTES)
		return err_set(err, -EFBIG, "Image size too large for its refcount table");
	p->reftable = 1;
	p->blocks = p->reftable + p->reftable_n;
	p->l1 = p->blocks + p->blocks_n;
	p->l2 = p->l1 + p->l1_n;
	p->data = p->l2 + p->l2_n;
	return 0;
}

/* --- header --- */

static u64 put_extension(u8 *head, u64 at, u32 type, const void *data, u64 bytes)
{
	store_be32(head + at, type);
	store_be32(head + at + 4, (u32)bytes);
	if (bytes)
		memcpy(head + at + 8, data, bytes);
	return at + 8 + align_up(bytes, 8);
}

static void fill_header(const struct plan *p, struct disk_header *h)
{
	h->magic = be32_of(QCOW2_MAGIC);
	h->version = be32_of(p->version);
	h->cluster_bits = be32_of(p->cluster_bits);
	h->bytes = be64_of(p->bytes);
	h->l1_entries = be32_of((u32)p->l1_entries);
	h->l1_hoff = be64_of(p->l1 << p->cluster_bits);
	h->reftable_hoff = be64_of(p->reftable << p->cluster_bits);
	h->reftable_clusters = be32_of((u32)p->reftable_n);
	if (p->version < 3)
		return;
	h->compatible = be64_of(p->opt->lazy_refcounts ? COMPAT_LAZY : 0);
	h->refcount_order = be32_of(p->refcount_order);
	h->header_bytes = be32_of(sizeof(*h));
}

/* Extensions and the name of the backing file, as the specification places them. */
static int fill_header_cluster(const struct plan *p, u8 *head, struct error *err)
{
	const char *name = p->opt->backing_file, *format = p->opt->backing_format;
	u64 name_bytes = name ? strlen(name) : 0,
	    format_bytes = name && format ? strlen(format) : 0;
	u64 at = p->version < 3 ? QCOW2_V2_HEADER_BYTES : sizeof(struct disk_header);
	u64 need = at + 8 + (format_bytes ? 8 + align_up(format_bytes, 8) : 0) + name_bytes;
	struct disk_header h = {0};

	if (name_bytes > QCOW2_MAX_BACKING_NAME || format_bytes > 15 || need > p->cluster_bytes)
		return err_set(err, -EINVAL,
			       "Backing file name or format too long for %u byte "
			       "clusters",
			       p->cluster_bytes);
	fill_header(p, &h);
	if (format_bytes)
		at = put_extension(head, at, EXT_BACKING_FORMAT, format, format_bytes);
	/* Names for messages only: left out where a small cluster has no room. */
	if (p->version > 2 && need + 8 + sizeof(feature_names) <= p->cluster_bytes)
		at = put_extension(head, at, EXT_FEATURE_NAMES, feature_names,
				   sizeof(feature_names));
	at = put_extension(head, at, EXT_END, NULL, 0);
	if (name_bytes) {
		memcpy(head + at, name, name_bytes);
		h.backing_hoff = be64_of(at);
		h.backing_bytes = be32_of((u32)name_bytes);
	}
	memcpy(head, &h, p->version < 3 ? QCOW2_V2_HEADER_BYTES : sizeof(h));
	return 0;
}

/* --- tables, a cluster at a time --- */

static int write_cluster(struct fiber *f, const struct plan *p, u64 cluster, const u8 *buf)
{
	int ret = image_pwrite(f, p->file, cluster << p->cluster_bits, buf, p->cluster_bytes);

	return ret < 0 ? ret : 0;
}

/* n clusters of be64 entries: `count` of them rise by a cluster from `first` on. */
static int write_pointers(struct fiber *f, const struct plan *p, u64 at, u64 n, const u64 first,
			  u64 count)
{
	AUTO_FREE u8 *buf = try_alloc_aligned(p->cluster_bytes, MIN(p->cluster_bytes, 4096u));
	u64 per = p->cluster_bytes / 8, flag = at == p->reftable ? 0 : ENTRY_COPIED;
	int ret = buf ? 0 : -ENOMEM;

	for (u64 c = 0; c < n && ret == 0; c++) {
		for (u64 i = 0; i < per; i++) {
			u64 k = c * per + i;
			u64 entry = k < count ? (first + k) << p->cluster_bits | flag : 0;

			store_be64(buf + i * 8, entry);
		}
		ret = write_cluster(f, p, at + c, buf);
	}
	return ret;
}

/* One for each cluster there is. */
static int write_blocks(struct fiber *f, const struct plan *p)
{
	AUTO_FREE u8 *buf = try_alloc_aligned(p->cluster_bytes, MIN(p->cluster_bytes, 4096u));
	u64 per = ((u64)p->cluster_bytes * 8) >> p->refcount_order;
	u32 bits = 1u << p->refcount_order;
	int ret = buf ? 0 : -ENOMEM;

	for (u64 b = 0; b < p->blocks_n && ret == 0; b++) {
		memset(buf, 0, p->cluster_bytes);
		for (u64 i = 0; i < per && b * per + i < p->total; i++) {
			u64 bit = i * bits;

			/* The last byte of a wide entry, the right bit of a narrow one. */
			if (bits >= 8)
				buf[bit / 8 + bits / 8 - 1] = 1;
			else
				buf[bit / 8] |= (u8)(1u << (bit % 8));
		}
		ret = write_cluster(f, p, p->blocks + b, buf);
	}
	return ret;
}

static int write_all(struct fiber *f, const struct plan *p, const u8 *head)
{
	struct error ignored = {0};
	int ret = write_pointers(f, p, p->reftable, p->reftable_n, p->blocks, p->blocks_n);

	if (ret == 0)
		ret = write_blocks(f, p);
	if (ret == 0)
		ret = write_pointers(f, p, p->l1, p->l1_n, p->l2, p->l2_n);
	if (ret == 0 && p->l2_n)
		ret = write_pointers(f, p, p->l2, p->l2_n, p->data, p->data_n);
	if (ret == 0 && p->data_n && p->file->grows)
		ret = image_resize(f, p->file, p->total << p->cluster_bits, &ignored);
	if (ret == 0)
		ret = write_cluster(f, p, 0, head);
	return ret == 0 ? image_flush(f, p->file) : ret;
}

int qcow2_create(struct fiber *f, struct image *file, const struct qcow2_create_options *opt,
		 struct error *err)
{
	struct plan p = {.opt = opt, .file = file};
	AUTO_FREE u8 *head = NULL;
	int ret = judge(&p, err);

	if (ret == 0)
		ret = plan_clusters(&p, err);
	if (ret < 0)
		return ret;
	head = try_alloc_aligned(p.cluster_bytes, MIN(p.cluster_bytes, 4096u));
	if (!head)
		return err_set(err, -ENOMEM, "Could not allocate the header");
	ret = fill_header_cluster(&p, head, err);
	if (ret < 0)
		return ret;
	ret = write_all(f, &p, head);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not write the image");
	return 0;
}
