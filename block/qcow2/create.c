/* Writing a fresh image: header, refcount table, refcount blocks, L1 table, each
 * after the other, with one cluster each for common sizes.  Everything is known
 * from the sizes, so nothing is ever rewritten.
 * QEMU's docs/interop/qcow2.  Thread: the file's loop. */
#include "block/qcow2/qcow2.h"

#include "block/qcow2/crypt.h"
#include "block/qcow2/format.h"

#include <errno.h>

#define BATCH_BYTES (64 * KiB)

/* Where things go, in clusters. */
struct plan {
	const struct qcow2_create_options *opt;
	struct image *file;
	u64 bytes;
	u32 version, cluster_bytes, cluster_bits, refcount_order;
	u64 reftable, reftable_n; /* first cluster, count */
	u64 blocks, blocks_n;
	u64 l1, l1_n, l1_entries;
	u64 crypt, crypt_n, crypt_bytes; /* LUKS header */
	u64 l2, l2_n, data, data_n;	 /* with preallocated metadata */
	u32 l2_entry_bytes;
	u64 total;
	enum prealloc preallocation;
};

const struct disk_feature_name qcow2_feature_names[QCOW2_FEATURE_NAMES] = {
	{0, 0, "dirty bit"},	    {0, 1, "corrupt bit"},	   {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},	    {2, 1, "raw external data"},
};

static u32 log2_of(u32 x)
{
	return 31 - (u32)__builtin_clz(x);
}

static int needs_v3(struct error *err, const char *what)
{
	return err_set(err, -EINVAL,
		       "%s only supported with compatibility level 1.1 and above (use version=v3 "
		       "or greater)",
		       what);
}

static int judge_features(const struct plan *p, struct error *err)
{
	const struct qcow2_create_options *o = p->opt;

	if (o->extended_l2 && p->version < 3)
		return needs_v3(err, "Extended L2 entries are");
	if (o->extended_l2 && p->cluster_bytes < QCOW2_MIN_EXTENDED_CLUSTER)
		return err_set(err, -EINVAL,
			       "Extended L2 entries are only supported with cluster sizes of at "
			       "least %u bytes",
			       QCOW2_MIN_EXTENDED_CLUSTER);
	if (o->backing_file && o->preallocation != PREALLOC_OFF && !o->extended_l2)
		return err_set(err, -EINVAL,
			       "Backing file and preallocation can only be used at the same time "
			       "if extended_l2 is on");
	if (p->version < 3 && o->lazy_refcounts)
		return needs_v3(err, "Lazy refcounts");
	if (o->data_file && p->version < 3)
		return needs_v3(err, "External data files are");
	if (o->data_file_raw && o->backing_file)
		return err_set(err, -EINVAL,
			       "Backing file and data-file-raw cannot be used at the same time");
	if (o->compression_type && p->version < 3)
		return needs_v3(err, "Non-zlib compression type is");
	return 0;
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
	p->preallocation = o->preallocation;
	if (o->data_file_raw && p->preallocation == PREALLOC_OFF)
		p->preallocation = PREALLOC_METADATA; /* offsets are fixed from the start */
	p->l2_entry_bytes = o->extended_l2 ? 16 : 8;
	if (o->crypt && qcow2_crypt_header_bytes(o->crypt, &p->crypt_bytes, err) < 0)
		return err->code;
	p->cluster_bits = log2_of(p->cluster_bytes);
	p->refcount_order = log2_of(refcount_bits);
	return judge_features(p, err);
}

static int too_large(struct error *err)
{
	return err_set(err, -EFBIG,
		       "The image size is too large for file format 'qcow2' (try using a larger "
		       "cluster size)");
}

static int plan_clusters(struct plan *p, struct error *err)
{
	u64 cb = p->cluster_bytes, span = cb * (cb / p->l2_entry_bytes);
	u64 per_block = (cb * 8) >> p->refcount_order, before, inside;

	if (p->opt->bytes > INT64_MAX - 2 * MiB)
		return too_large(err);
	p->bytes = align_up(p->opt->bytes, 512);
	p->l1_entries = MAX(DIV_ROUND_UP(p->bytes, span), (u64)1);
	if (p->l1_entries * 8 > QCOW2_MAX_L1_BYTES)
		return too_large(err);
	p->l1_n = DIV_ROUND_UP(p->l1_entries * 8, cb);
	if (p->preallocation != PREALLOC_OFF) {
		p->l2_n = DIV_ROUND_UP(p->bytes, span);
		p->data_n = DIV_ROUND_UP(p->bytes, cb);
	}
	inside = p->opt->data_file ? 0 : p->data_n;
	p->crypt_n = DIV_ROUND_UP(p->crypt_bytes, cb);
	p->reftable_n = p->blocks_n = 1;
	do { /* the refcount structures describe themselves too */
		before = p->blocks_n + p->reftable_n;
		p->total = 1 + before + p->l1_n + p->crypt_n + p->l2_n + inside;
		p->blocks_n = DIV_ROUND_UP(p->total, per_block);
		p->reftable_n = DIV_ROUND_UP(p->blocks_n * 8, cb);
	} while (p->blocks_n + p->reftable_n != before);
	if (p->reftable_n * cb > QCOW2_MAX_REFTABLE_BYTES)
		return too_large(err);
	p->reftable = 1;
	p->blocks = p->reftable + p->reftable_n;
	p->l1 = p->blocks + p->blocks_n;
	p->crypt = p->l1 + p->l1_n;
	p->l2 = p->crypt + p->crypt_n;
	p->data = p->opt->data_file ? 0 : p->l2 + p->l2_n;
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
	h->crypt_method = be32_of(p->opt->crypt ? p->opt->crypt->method : CRYPT_NONE);
	if (p->version < 3)
		return;
	h->incompatible = be64_of((p->opt->data_file ? INCOMPAT_DATA_FILE : 0) |
				  (p->opt->compression_type ? INCOMPAT_COMPRESSION : 0) |
				  (p->opt->extended_l2 ? INCOMPAT_EXTENDED_L2 : 0));
	h->compatible = be64_of(p->opt->lazy_refcounts ? COMPAT_LAZY : 0);
	h->autoclear = be64_of(p->opt->data_file_raw ? AUTOCLEAR_RAW_DATA : 0);
	h->compression_type = (u8)p->opt->compression_type;
	h->refcount_order = be32_of(p->refcount_order);
	h->header_bytes = be32_of(sizeof(*h));
}

/* Extensions and the name of the backing file, as the specification places them. */
static int fill_header_cluster(const struct plan *p, u8 *head, struct error *err)
{
	const char *name = p->opt->backing_file, *format = p->opt->backing_format;
	u64 name_bytes = name ? strlen(name) : 0,
	    format_bytes = name && format ? strlen(format) : 0,
	    data_bytes = p->opt->data_file ? strlen(p->opt->data_file) : 0;
	u64 at = p->version < 3 ? QCOW2_V2_HEADER_BYTES : sizeof(struct disk_header);
	u64 need = at + 8 + (format_bytes ? 8 + align_up(format_bytes, 8) : 0) +
		   (data_bytes ? 8 + align_up(data_bytes, 8) : 0) +
		   (p->crypt_n ? 8 + sizeof(struct disk_crypto) : 0) + name_bytes;
	const struct disk_crypto crypto = {be64_of(p->crypt << p->cluster_bits),
					   be64_of(p->crypt_bytes)};
	struct disk_header h = {0};

	if (name_bytes > QCOW2_MAX_BACKING_NAME || format_bytes > 15 || need > p->cluster_bytes)
		return err_set(err, -EINVAL,
			       "Backing file name or format too long for %u byte "
			       "clusters",
			       p->cluster_bytes);
	fill_header(p, &h);
	if (format_bytes)
		at = put_extension(head, at, EXT_BACKING_FORMAT, format, format_bytes);
	if (data_bytes)
		at = put_extension(head, at, EXT_DATA_FILE, p->opt->data_file, data_bytes);
	if (p->crypt_n)
		at = put_extension(head, at, EXT_CRYPTO, &crypto, sizeof(crypto));
	/* Names for messages only: left out where a small cluster has no room. */
	if (p->version > 2 && need + 8 + sizeof(qcow2_feature_names) <= p->cluster_bytes)
		at = put_extension(head, at, EXT_FEATURE_NAMES, qcow2_feature_names,
				   sizeof(qcow2_feature_names));
	at = put_extension(head, at, EXT_END, NULL, 0);
	if (name_bytes) {
		memcpy(head + at, name, name_bytes);
		h.backing_hoff = be64_of(at);
		h.backing_bytes = be32_of((u32)name_bytes);
	}
	memcpy(head, &h, p->version < 3 ? QCOW2_V2_HEADER_BYTES : sizeof(h));
	return 0;
}

/* --- tables, some clusters at a time --- */

static int write_clusters(struct fiber *f, const struct plan *p, u64 cluster, const u8 *buf, u64 n)
{
	int ret = image_pwrite(f, p->file, cluster << p->cluster_bits, buf, n << p->cluster_bits);

	return ret < 0 ? ret : 0;
}

/* Clusters that are filled and written together. */
static u64 batch_clusters(const struct plan *p)
{
	return MAX(BATCH_BYTES >> p->cluster_bits, (u64)1);
}

static u8 *batch_alloc(const struct plan *p)
{
	return try_alloc_aligned(batch_clusters(p) << p->cluster_bits,
				 MIN(p->cluster_bytes, 4096u));
}

/* n clusters from `at` on, full of entries: `count` of them rise by a cluster from
 * `first` on. */
struct pointers {
	u64 at, n, first, count, flag;
	u32 entry_bytes;
};

static int write_pointers(struct fiber *f, const struct plan *p, const struct pointers *t)
{
	AUTO_FREE u8 *buf = batch_alloc(p);
	u64 per = p->cluster_bytes / t->entry_bytes, batch;
	int ret = buf ? 0 : -ENOMEM;

	for (u64 c = 0; c < t->n && ret == 0; c += batch) {
		batch = MIN(batch_clusters(p), t->n - c);
		for (u64 i = 0; i < per * batch; i++) {
			u64 k = c * per + i;
			u64 entry = (t->first + k) << p->cluster_bits | t->flag;

			/* An extended entry's bitmap stays 0: nothing allocated. */
			store_be64(buf + i * t->entry_bytes, k < t->count ? entry : 0);
		}
		ret = write_clusters(f, p, t->at + c, buf, batch);
	}
	return ret;
}

static void fill_block(const struct plan *p, u8 *buf, u64 b)
{
	u64 per = ((u64)p->cluster_bytes * 8) >> p->refcount_order;
	u32 bits = 1u << p->refcount_order;

	memset(buf, 0, p->cluster_bytes);
	for (u64 i = 0; i < per && b * per + i < p->total; i++) {
		u64 bit = i * bits;

		/* The last byte of a wide entry, the right bit of a narrow one. */
		if (bits >= 8)
			buf[bit / 8 + bits / 8 - 1] = 1;
		else
			buf[bit / 8] |= (u8)(1u << (bit % 8));
	}
}

/* One refcount for each cluster there is. */
static int write_blocks(struct fiber *f, const struct plan *p)
{
	AUTO_FREE u8 *buf = batch_alloc(p);
	int ret = buf ? 0 : -ENOMEM;

	for (u64 b = 0, batch; b < p->blocks_n && ret == 0; b += batch) {
		batch = MIN(batch_clusters(p), p->blocks_n - b);
		for (u64 i = 0; i < batch; i++)
			fill_block(p, buf + (i << p->cluster_bits), b + i);
		ret = write_clusters(f, p, p->blocks + b, buf, batch);
	}
	return ret;
}

static int write_tables(struct fiber *f, const struct plan *p)
{
	const struct pointers reftable = {.at = p->reftable,
					  .n = p->reftable_n,
					  .first = p->blocks,
					  .count = p->blocks_n,
					  .entry_bytes = 8};
	const struct pointers l1 = {.at = p->l1,
				    .n = p->l1_n,
				    .first = p->l2,
				    .count = p->l2_n,
				    .flag = ENTRY_COPIED,
				    .entry_bytes = 8};
	const struct pointers l2 = {.at = p->l2,
				    .n = p->l2_n,
				    .first = p->data,
				    .count = p->data_n,
				    .flag = ENTRY_COPIED,
				    .entry_bytes = p->l2_entry_bytes};
	int ret = write_pointers(f, p, &reftable);

	if (ret == 0)
		ret = write_blocks(f, p);
	if (ret == 0)
		ret = write_pointers(f, p, &l1);
	if (ret == 0 && p->l2_n)
		ret = write_pointers(f, p, &l2);
	return ret;
}

/* Room for the guest's data, behind the tables or in a file of its own. */
static int make_room(struct fiber *f, const struct plan *p, struct error *err)
{
	enum prealloc mode =
		p->preallocation == PREALLOC_METADATA ? PREALLOC_OFF : p->preallocation;
	struct image *file = p->opt->data_file ? p->opt->data : p->file;
	u64 data_end = p->data_n ? p->data_n << p->cluster_bits : p->bytes;
	u64 end = p->opt->data_file ? data_end : p->total << p->cluster_bits;
	int ret = 0;

	if (file->grows && (p->data_n || p->opt->data_file))
		ret = image_resize_alloc(f, file, end, mode, err);
	if (ret < 0)
		return err_prefix(err, "Could not resize image: Failed to resize underlying file");
	ret = p->opt->data_file ? image_flush(f, file) : 0;
	return ret < 0 ? err_set_errno(err, ret, "Could not write the data file") : 0;
}

/* The LUKS header; its clusters lie in the file to their end. */
static int write_crypt(struct fiber *f, const struct plan *p, struct error *err)
{
	int ret = 0;

	if (!p->crypt_n)
		return 0;
	if (p->file->grows)
		ret = image_resize(f, p->file, p->total << p->cluster_bits, err);
	if (ret < 0)
		return ret;
	return qcow2_crypt_format(f, p->opt->crypt, p->file, p->crypt << p->cluster_bits, err);
}

int qcow2_create_judge(const struct qcow2_create_options *opt, struct error *err)
{
	struct plan p = {.opt = opt};
	int ret = judge(&p, err);

	return ret < 0 ? ret : plan_clusters(&p, err);
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
	ret = write_tables(f, &p);
	if (ret < 0)
		return err_set_errno(err, ret, "Could not write the image");
	ret = make_room(f, &p, err);
	if (ret < 0)
		return ret;
	ret = write_crypt(f, &p, err);
	if (ret < 0)
		return ret;
	ret = write_clusters(f, &p, 0, head, 1);
	if (ret == 0)
		ret = image_flush(f, file);
	return ret < 0 ? err_set_errno(err, ret, "Could not write the image") : 0;
}
