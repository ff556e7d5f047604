/* The bitmap directory: reading, judging, looking up, and reading of bits.
 *
 * QEMU's docs/interop/qcow2, "Bitmaps".  An image may claim anything: counts and
 * sizes are compared with the limits before memory is taken for them; tables and
 * bits are read when they are needed, a cluster at a time.
 * Thread: the image's loop. */
#include "block/qcow2/bitmap_set.h"

#include <errno.h>

u64 bitmap_entries(const struct qcow2 *q, u64 bytes, u32 granularity_bits)
{
	u64 bits = (bytes >> granularity_bits) + !is_aligned(bytes, (u64)1 << granularity_bits);

	return MAX(clusters_of(q, bits / 8 + !!(bits % 8)), (u64)1);
}

void bitmap_set_free(struct bitmap_set *s)
{
	if (!s)
		return;
	for (u32 i = 0; i < s->n; i++)
		free(s->v[i].name);
	free(s->v);
	free(s);
}

struct bitmap_set *bitmap_set_copy(const struct bitmap_set *s)
{
	struct bitmap_set *copy = xnew(struct bitmap_set);

	if (!s)
		return copy;
	*copy = *s;
	copy->v = xnew_n(struct bitmap, s->n + 1);
	for (u32 i = 0; i < s->n; i++) {
		copy->v[i] = s->v[i];
		copy->v[i].name = xstrdup(s->v[i].name);
	}
	return copy;
}

struct bitmap *bitmap_find(const struct bitmap_set *s, const char *name)
{
	for (u32 i = 0; s && i < s->n; i++)
		if (!strcmp(s->v[i].name, name))
			return &s->v[i];
	return NULL;
}

int bitmap_find_usable(const struct bitmap_set *s, const char *name, struct bitmap **out,
		       struct error *err)
{
	*out = bitmap_find(s, name);
	if (!*out)
		return err_set(err, -ENOENT, "Dirty bitmap '%s' not found", name);
	if ((*out)->flags & BITMAP_IN_USE)
		return err_set(err, -EINVAL,
			       "Bitmap '%.100s' is inconsistent and cannot be used\n"
			       "Try block-dirty-bitmap-remove to delete this bitmap from disk",
			       name);
	return 0;
}

/* --- the directory on disk --- */

static u64 entry_bytes(u64 extra, u64 name)
{
	return align_up(sizeof(struct disk_bitmap) + extra + name, 8);
}

u64 bitmap_directory_bytes(const struct bitmap_set *s)
{
	u64 bytes = 0;

	for (u32 i = 0; i < s->n; i++)
		bytes += entry_bytes(0, strlen(s->v[i].name));
	return bytes;
}

void bitmap_directory_fill(const struct bitmap_set *s, u8 *to)
{
	for (u32 i = 0; i < s->n; i++) {
		const struct bitmap *b = &s->v[i];
		u64 name = strlen(b->name);
		struct disk_bitmap d = {
			.table_hoff = be64_of(b->table_hoff),
			.table_entries = be32_of(b->table_entries),
			.flags = be32_of(b->flags | (b->busy ? BITMAP_IN_USE : 0)),
			.type = 1,
			.granularity_bits = (u8)b->granularity_bits,
			.name_bytes = be16_of((u16)name),
		};

		memcpy(to, &d, sizeof(d));
		memcpy(to + sizeof(d), b->name, name);
		to += entry_bytes(0, name);
	}
}

static bool is_sound(const struct qcow2 *q, const struct bitmap *b, const struct disk_bitmap *d)
{
	u64 bytes = (u64)b->table_entries << q->cluster_bits;

	if (!b->table_entries || !b->table_hoff || !is_aligned(b->table_hoff, q->cluster_bytes) ||
	    b->table_hoff >= QCOW2_MAX_HOFF || b->flags & BITMAP_RESERVED || d->type != 1)
		return false;
	if (b->granularity_bits < BITMAP_MIN_GRANULARITY_BITS ||
	    b->granularity_bits > BITMAP_MAX_GRANULARITY_BITS || bytes > BITMAP_MAX_BYTES)
		return false;
	if (!b->name[0] || be16_get(d->name_bytes) > BITMAP_MAX_NAME)
		return false;
	/* Of a bitmap in use the size may be that of another moment. */
	return b->flags & BITMAP_IN_USE ||
	       bitmap_entries(q, q->img.bytes, b->granularity_bits) <= b->table_entries;
}

/* The entry that starts here, and how many bytes it has. */
static int parse_one(const struct qcow2 *q, const u8 *at, u64 left, struct bitmap *b, u64 *bytes,
		     struct error *err)
{
	struct disk_bitmap d;
	u64 name, extra;

	if (left < sizeof(d))
		return err_set(err, -EINVAL, "Broken bitmap directory");
	memcpy(&d, at, sizeof(d));
	name = be16_get(d.name_bytes);
	extra = be32_get(d.extra_bytes);
	if (entry_bytes(extra, name) > left)
		return err_set(err, -EINVAL, "Broken bitmap directory");
	if (extra)
		return err_set(err, -EINVAL, "Bitmap extra data is not supported");
	*bytes = entry_bytes(0, name);
	b->table_hoff = be64_get(d.table_hoff);
	b->table_entries = be32_get(d.table_entries);
	b->flags = be32_get(d.flags);
	b->granularity_bits = d.granularity_bits;
	b->name = xalloc(name + 1);
	memcpy(b->name, at + sizeof(d), name);
	if (!is_sound(q, b, &d))
		return err_set(err, -EINVAL, "Bitmap '%.150s' doesn't satisfy the constraints",
			       b->name);
	return 0;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int refuse_twins(const struct bitmap_set *s, struct error *err)
{
	AUTO_FREE char **names = try_alloc(s->n * sizeof(*names));

	if (!names)
		return err_set_errno(err, -ENOMEM, "Could not read the bitmap directory");
	for (u32 i = 0; i < s->n; i++)
		names[i] = s->v[i].name;
	qsort(names, s->n, sizeof(*names), compare_names);
	for (u32 i = 1; i < s->n; i++)
		if (!strcmp(names[i - 1], names[i]))
			return err_set(err, -EINVAL, "Bitmap already exists: %.150s", names[i]);
	return 0;
}

static int parse(const struct qcow2 *q, const u8 *raw, u64 bytes, u32 count, struct bitmap_set *s,
		 struct error *err)
{
	u64 at = 0, one = 0;
	int ret = 0;

	while (at < bytes && ret == 0) {
		if (s->n == count)
			return err_set(err, -EINVAL,
				       "More bitmaps found than specified in header extension");
		ret = parse_one(q, raw + at, bytes - at, &s->v[s->n++], &one, err);
		at += one;
	}
	if (ret == 0 && s->n < count)
		ret = err_set(err, -EINVAL,
			      "Less bitmaps found than specified in header extension");
	return ret < 0 ? ret : refuse_twins(s, err);
}

static int judge_extension(const struct qcow2 *q, struct error *err)
{
	const struct disk_bitmaps *e = &q->bitmaps;
	u64 bytes = be64_get(e->directory_bytes);

	if (be32_get(e->reserved))
		return err_set(err, -EINVAL, "bitmaps_ext: Reserved field is not zero");
	if (be32_get(e->count) > QCOW2_MAX_BITMAPS)
		return err_set(err, -EINVAL,
			       "bitmaps_ext: Image has %u bitmaps, exceeding the QEMU supported "
			       "maximum of %d",
			       be32_get(e->count), QCOW2_MAX_BITMAPS);
	if (!be32_get(e->count))
		return err_set(err, -EINVAL, "found bitmaps extension with zero bitmaps");
	if (!is_aligned(be64_get(e->directory_hoff), q->cluster_bytes))
		return err_set(err, -EINVAL, "bitmaps_ext: invalid bitmap directory offset");
	if (bytes > BITMAP_MAX_DIRECTORY_BYTES)
		return err_set(err, -EINVAL,
			       "bitmaps_ext: bitmap directory size (%llu) exceeds the maximum "
			       "supported size (%llu)",
			       (unsigned long long)bytes,
			       (unsigned long long)BITMAP_MAX_DIRECTORY_BYTES);
	if (!bytes)
		return err_set(err, -EINVAL, "Requested bitmap directory size is zero");
	return 0;
}

/* The directory as it is on disk; what lies beyond the end of the file is not
 * worth any memory. */
static int read_directory(struct fiber *f, struct qcow2 *q, u64 hoff, u64 bytes, u8 **out)
{
	u8 *raw;
	int ret;

	if (hoff >= q->img.below->bytes || bytes > q->img.below->bytes - hoff)
		return -EINVAL;
	raw = try_alloc(bytes);
	if (!raw)
		return -ENOMEM;
	ret = qcow2_pread(f, q->img.below, hoff, raw, bytes);
	if (ret < 0) {
		free(raw);
		return ret;
	}
	*out = raw;
	return 0;
}

int bitmap_set_load(struct fiber *f, struct qcow2 *q, struct bitmap_set **out, struct error *err)
{
	AUTO_FREE u8 *raw = NULL;
	struct bitmap_set *s;
	u32 count = be32_get(q->bitmaps.count);
	int ret = judge_extension(q, err);

	if (ret < 0)
		return ret;
	s = xnew(struct bitmap_set);
	s->directory_hoff = be64_get(q->bitmaps.directory_hoff);
	s->directory_bytes = be64_get(q->bitmaps.directory_bytes);
	ret = read_directory(f, q, s->directory_hoff, s->directory_bytes, &raw);
	if (ret == -EINVAL)
		err_set(err, ret, "Bitmap '' doesn't satisfy the constraints");
	else if (ret < 0)
		err_set_errno(err, ret, "Failed to read bitmap directory");
	s->v = ret == 0 ? try_alloc((count + 1ull) * sizeof(*s->v)) : NULL;
	if (ret == 0 && !s->v)
		ret = err_set_errno(err, -ENOMEM, "Could not read the bitmap directory");
	if (ret == 0)
		ret = parse(q, raw, s->directory_bytes, count, s, err);
	if (ret < 0) {
		bitmap_set_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

/* --- tables and bits --- */

int bitmap_table_read(struct fiber *f, struct qcow2 *q, const struct bitmap *b, u64 room, u64 **out)
{
	u64 n = b->table_entries;
	u64 *table = try_alloc(MAX(n, room) * sizeof(*table));
	int ret;

	if (!table)
		return -ENOMEM;
	ret = qcow2_pread(f, q->img.below, b->table_hoff, table, n * 8);
	for (u64 i = 0; i < n && ret == 0; i++) {
		u64 entry = table[i] = load_be64(&table[i]), hoff = bitmap_entry_hoff(entry);

		if (entry & BITMAP_ENTRY_RESERVED || !is_aligned(hoff, q->cluster_bytes) ||
		    (hoff && entry & BITMAP_ENTRY_ONES) ||
		    (hoff && overlap_find(&q->metadata, hoff >> q->cluster_bits)))
			ret = -EINVAL;
	}
	if (ret < 0)
		free(table);
	else
		*out = table;
	return ret;
}

/* Enter runs of set bits of one cluster, whose first bit is that of goff. */
static int read_bits(const u8 *bits, u32 bytes, u64 goff, u32 shift, struct dirty_map *to)
{
	int ret = 0;

	for (u32 i = 0; i < bytes && ret == 0; i++) {
		if (bits[i] == 0xff)
			ret = dirty_map_set(to, goff + (((u64)i * 8) << shift), 8ull << shift);
		for (u32 k = 0; bits[i] != 0xff && k < 8 && ret == 0; k++)
			if (bits[i] >> k & 1)
				ret = dirty_map_set(to, goff + (((u64)i * 8 + k) << shift),
						    1ull << shift);
	}
	return ret;
}

int bitmap_read(struct fiber *f, struct qcow2 *q, const struct bitmap *b, struct dirty_map *to)
{
	u64 span = ((u64)q->cluster_bytes * 8) << b->granularity_bits;
	AUTO_FREE u8 *bits = try_alloc(q->cluster_bytes);
	AUTO_FREE u64 *table = NULL;
	u64 need = bitmap_entries(q, q->img.bytes, b->granularity_bits);
	int ret = bits ? bitmap_table_read(f, q, b, 0, &table) : -ENOMEM;

	for (u64 i = 0; ret == 0 && i < MIN(need, (u64)b->table_entries); i++) {
		u64 hoff = bitmap_entry_hoff(table[i]);

		if (table[i] == BITMAP_ENTRY_ONES) {
			ret = dirty_map_set(to, i * span, span);
		} else if (hoff) {
			ret = qcow2_pread(f, q->img.below, hoff, bits, q->cluster_bytes);
			if (ret == 0)
				ret = read_bits(bits, q->cluster_bytes, i * span,
						b->granularity_bits, to);
		}
	}
	return ret;
}
