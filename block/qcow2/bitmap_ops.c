/* What people do with bitmaps; words of messages are the reference's.
 * Each call is one change of the set, see bitmap_store.c.  Thread: the loop. */
#include "block/qcow2/bitmap.h"

#include "block/driver.h"
#include "block/qcow2/bitmap_set.h"

#include <errno.h>

static struct bitmap_set *set_of(struct image *img)
{
	return img->driver == &qcow2_driver ? to_qcow2(img)->bitmap_set : NULL;
}

u32 qcow2_bitmaps_list(struct image *img, struct qcow2_bitmap **out)
{
	const struct bitmap_set *s = set_of(img);

	*out = NULL;
	if (!s)
		return 0;
	*out = xnew_n(struct qcow2_bitmap, s->n);
	for (u32 i = 0; i < s->n; i++)
		(*out)[i] = (struct qcow2_bitmap){
			.name = s->v[i].name,
			.granularity_bytes = 1ull << s->v[i].granularity_bits,
			.in_use = s->v[i].flags & BITMAP_IN_USE,
			.automatic = s->v[i].flags & BITMAP_AUTO,
		};
	return s->n;
}

/* --- beginning and end of a change --- */

static int begin(struct fiber *f, struct image *img, struct bitmap_change *c, struct error *err)
{
	struct qcow2 *q = to_qcow2(img);
	int ret;

	if (!img->writable)
		return err_set(err, -EROFS, "Image '%.100s' is read-only", img->name);
	ret = header_begin_bitmaps(f, q);
	if (ret < 0)
		return err_set(err, ret, "Could not write to the image: %s", strerror(-ret));
	ret = bitmap_change_begin(f, q, c);
	if (ret < 0) {
		bitmap_change_end(f, c, false, ret);
		err_set(err, ret, "Could not store what was written: %s", strerror(-ret));
	}
	return ret;
}

static int end(struct fiber *f, struct bitmap_change *c, int ret, struct error *err)
{
	int was = ret;

	ret = bitmap_change_end(f, c, false, ret);
	if (ret < 0 && (was == 0 || !err->code))
		err_set(err, ret, "Could not update the bitmaps: %s", strerror(-ret));
	return ret;
}

/* --- add, remove --- */

static u32 default_granularity(const struct qcow2 *q)
{
	return MIN(MAX(q->cluster_bytes, 4096u), 65536u);
}

static int judge_granularity(u64 bytes, struct error *err)
{
	if (!is_pow2(bytes) || bytes < 1u << BITMAP_MIN_GRANULARITY_BITS ||
	    bytes > 1u << BITMAP_MAX_GRANULARITY_BITS)
		return err_set(err, -EINVAL, "Granularity must be power of 2 and at least 512");
	return 0;
}

/* May it be stored? */
static int judge_room(const struct qcow2 *q, const struct qcow2_bitmap *what, u32 bits,
		      struct error *err)
{
	const struct bitmap_set *s = q->bitmap_set;
	const char *why = NULL;
	u64 entries = bitmap_entries(q, q->img.bytes, bits);

	if (q->version < 3)
		why = "Cannot store dirty bitmaps in qcow2 v2 files";
	else if (strlen(what->name) > BITMAP_MAX_NAME)
		why = "Name length exceeds maximum (1023 characters)";
	else if (entries > BITMAP_MAX_BYTES >> q->cluster_bits)
		why = "Too much space will be occupied by the bitmap. Use larger granularity";
	else if (s && s->n >= QCOW2_MAX_BITMAPS)
		why = "Maximum number of persistent bitmaps is already reached";
	else if (s &&
		 bitmap_directory_bytes(s) + 32 + strlen(what->name) > BITMAP_MAX_DIRECTORY_BYTES)
		why = "Not enough space in the bitmap directory";
	if (!why)
		return 0;
	return err_set(err, -EINVAL, "Can't make bitmap '%.100s' persistent in '%.60s': %s",
		       what->name, q->img.name, why);
}

static struct bitmap *append(struct bitmap_change *c, const char *name)
{
	struct bitmap_set *s = c->set;
	struct bitmap *v = xnew_n(struct bitmap, s->n + 1);

	if (s->n)
		memcpy(v, s->v, s->n * sizeof(*v));
	free(s->v);
	s->v = v;
	v[s->n].name = xstrdup(name);
	return &v[s->n++];
}

int qcow2_bitmap_add(struct fiber *f, struct image *img, const struct qcow2_bitmap *what,
		     struct error *err)
{
	u64 granularity = what->granularity_bytes;
	struct bitmap_change c;
	struct bitmap *b;
	u32 bits;
	int ret;

	if (!granularity)
		granularity =
			img->driver == &qcow2_driver ? default_granularity(to_qcow2(img)) : 65536;
	if (!what->name[0])
		return err_set(err, -EINVAL, "Bitmap name cannot be empty");
	ret = judge_granularity(granularity, err);
	if (ret < 0)
		return ret;
	if (bitmap_find(set_of(img), what->name))
		return err_set(err, -EEXIST, "Bitmap already exists: %.150s", what->name);
	if (img->driver != &qcow2_driver)
		return err_set(err, -ENOTSUP,
			       "Can't store persistent bitmaps to %.100s: Operation not supported",
			       img->name);
	bits = (u32)__builtin_ctzll(granularity);
	ret = judge_room(to_qcow2(img), what, bits, err);
	if (ret == 0)
		ret = begin(f, img, &c, err);
	if (ret < 0)
		return ret;
	b = append(&c, what->name);
	b->granularity_bits = bits;
	b->flags = what->automatic ? BITMAP_AUTO : 0;
	return end(f, &c, bitmap_table_empty(f, &c, b), err);
}

int qcow2_bitmap_remove(struct fiber *f, struct image *img, const char *name, struct error *err)
{
	struct bitmap_change c;
	struct bitmap *b;
	int ret;

	if (!bitmap_find(set_of(img), name))
		return err_set(err, -ENOENT, "Dirty bitmap '%.150s' not found", name);
	ret = begin(f, img, &c, err);
	if (ret < 0)
		return ret;
	b = bitmap_find(c.set, name);
	ret = bitmap_table_drop(f, &c, b);
	free(b->name);
	memmove(b, b + 1, (size_t)(c.set->v + c.set->n - (b + 1)) * sizeof(*b));
	c.set->n--;
	return end(f, &c, ret, err);
}

/* --- bits and flags --- */

/* A change of one bitmap that may be used; name is looked up in the copy. */
static int begin_one(struct fiber *f, struct image *img, const char *name, struct bitmap_change *c,
		     struct bitmap **b, struct error *err)
{
	int ret = bitmap_find_usable(set_of(img), name, b, err);

	if (ret == 0)
		ret = begin(f, img, c, err);
	if (ret == 0)
		*b = bitmap_find(c->set, name);
	return ret;
}

int qcow2_bitmap_clear(struct fiber *f, struct image *img, const char *name, struct error *err)
{
	struct bitmap_change c;
	struct bitmap *b;
	int ret = begin_one(f, img, name, &c, &b, err);

	if (ret < 0)
		return ret;
	ret = bitmap_table_drop(f, &c, b);
	if (ret == 0)
		ret = bitmap_table_empty(f, &c, b);
	return end(f, &c, ret, err);
}

int qcow2_bitmap_enable(struct fiber *f, struct image *img, const char *name, bool on,
			struct error *err)
{
	struct bitmap_change c;
	struct bitmap *b;
	int ret = begin_one(f, img, name, &c, &b, err);

	if (ret < 0)
		return ret;
	b->flags = on ? b->flags | BITMAP_AUTO : b->flags & ~BITMAP_AUTO;
	return end(f, &c, 0, err);
}

/* What is set in `from` of the source, at this granularity. */
static int read_source(struct fiber *f, struct image *source, const char *from,
		       struct dirty_map *map, struct error *err)
{
	struct bitmap *b;
	int ret = bitmap_find_usable(set_of(source), from, &b, err);

	if (ret < 0)
		return ret;
	ret = bitmap_read(f, to_qcow2(source), b, map);
	if (ret == -EINVAL)
		return err_set(err, ret,
			       "Could not read bitmap_table table from image for bitmap '%.100s': "
			       "%s",
			       from, strerror(EINVAL));
	return ret < 0 ? err_set(err, ret, "Could not read bitmap '%.100s': %s", from,
				 strerror(-ret))
		       : 0;
}

int qcow2_bitmap_merge(struct fiber *f, struct image *img, const char *name, struct image *source,
		       const char *from, struct error *err)
{
	struct dirty_map *map = NULL;
	struct bitmap_change c;
	struct bitmap *b, *src;
	int ret = bitmap_find_usable(set_of(img), name, &b, err);

	if (ret == 0)
		ret = bitmap_find_usable(set_of(source), from, &src, err);
	if (ret < 0)
		return ret;
	if (source->bytes != img->bytes)
		return err_set(err, -EINVAL,
			       "Bitmaps are of different sizes (destination size is %llu, source "
			       "size is %llu) and can't be merged",
			       (unsigned long long)img->bytes, (unsigned long long)source->bytes);
	ret = begin(f, img, &c, err); /* first: what was written belongs to the source too */
	if (ret < 0)
		return ret;
	b = bitmap_find(c.set, name);
	ret = dirty_map_new(&map, img->bytes, b->granularity_bits);
	if (ret == 0)
		ret = source == img ? bitmap_read(f, c.q, bitmap_find(c.set, from), map)
				    : read_source(f, source, from, map, err);
	if (ret == 0)
		ret = bitmap_fold(f, &c, b, map);
	dirty_map_free(map);
	return end(f, &c, ret, err);
}

/* --- for convert and measure --- */

static int copy_one(struct fiber *f, struct image *img, struct image *source,
		    const struct qcow2_bitmap *what, struct error *err)
{
	struct qcow2_bitmap still = *what;
	int ret;

	still.automatic = false; /* until it is whole */
	ret = qcow2_bitmap_add(f, img, &still, err);
	if (ret < 0)
		return err_prefix(err, "Failed to create bitmap %.100s", what->name);
	ret = qcow2_bitmap_merge(f, img, what->name, source, what->name, err);
	if (ret == 0 && what->automatic)
		ret = qcow2_bitmap_enable(f, img, what->name, true, err);
	if (ret < 0) {
		struct error ignored = {0};

		err_prefix(err, "Failed to populate bitmap %.100s", what->name);
		(void)qcow2_bitmap_remove(f, img, what->name, &ignored);
	}
	return ret;
}

int qcow2_bitmaps_copy(struct fiber *f, struct image *img, struct image *source, struct error *err)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	u32 n = qcow2_bitmaps_list(source, &list);
	int ret = 0;

	for (u32 i = 0; i < n && ret == 0; i++)
		if (!list[i].in_use)
			ret = copy_one(f, img, source, &list[i], err);
	return ret;
}

u64 qcow2_bitmaps_measure(struct image *img, u64 cluster_bytes)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	u32 n = qcow2_bitmaps_list(img, &list);
	u64 clusters = 0, directory = 0;

	for (u32 i = 0; i < n; i++) {
		u64 bytes, bits;

		if (list[i].in_use)
			continue;
		bits = DIV_ROUND_UP(img->bytes, list[i].granularity_bytes);
		bytes = DIV_ROUND_UP(DIV_ROUND_UP(bits, (u64)8), cluster_bytes);
		clusters += bytes + DIV_ROUND_UP(bytes * 8, cluster_bytes);
		directory += align_up(24 + strlen(list[i].name), 8);
	}
	return align_up(clusters * cluster_bytes + directory, cluster_bytes);
}
