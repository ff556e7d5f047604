/* Counting the clusters of persistent bitmaps: directory, tables, bits.
 *
 * The directory was read and judged at open (bitmap_set.c).  One that could not be
 * read is a corruption; a repair takes the extension out of the header, and what
 * the bitmaps took is then leaked and freed.
 * Thread: the image's loop. */
#include "block/qcow2/bitmap_set.h"
#include "block/qcow2/check.h"
#include "block/qcow2/header_update.h"

#include <errno.h>

static void count_entry(struct check *c, const struct bitmap *b, u64 entry)
{
	u64 hoff = bitmap_entry_hoff(entry);

	if (entry & BITMAP_ENTRY_RESERVED || !is_aligned(hoff, c->q->cluster_bytes) ||
	    (hoff && entry & BITMAP_ENTRY_ONES))
		check_corrupt(c, "ERROR bitmap '%.150s': invalid table entry %llx", b->name,
			      (unsigned long long)entry);
	else if (hoff)
		check_ref(c, hoff, c->q->cluster_bytes);
}

/* A part at a time. */
static int count_table(struct fiber *f, struct check *c, const struct bitmap *b)
{
	u8 part[1024];
	int ret = 0;

	check_ref(c, b->table_hoff, b->table_entries * 8ull);
	for (u32 i = 0; i < b->table_entries && ret == 0; i += sizeof(part) / 8) {
		u32 n = MIN(b->table_entries - i, (u32)(sizeof(part) / 8));

		if (b->table_hoff + i * 8ull >= c->q->img.below->bytes)
			break; /* beyond the end: zeros */
		ret = qcow2_pread(f, c->q->img.below, b->table_hoff + i * 8ull, part, n * 8ull);
		for (u32 k = 0; k < n && ret == 0; k++)
			count_entry(c, b, load_be64(part + k * 8ull));
	}
	return ret;
}

static int give_up(struct fiber *f, struct check *c)
{
	struct header_ext none = {.type = EXT_BITMAPS};
	struct header_change change = {
		.exts = &none, .n = 1, .autoclear = {.clear = AUTOCLEAR_BITMAPS}};
	struct check_result *r = &c->req->result;
	int ret;

	check_corrupt(c, "ERROR: %s", c->q->bitmaps_error);
	if (!c->req->fix_errors)
		return 0;
	ret = header_update(f, c->q, &change);
	if (ret < 0)
		return ret;
	r->corruptions--;
	r->corruptions_fixed++;
	free(c->q->bitmaps_error);
	c->q->bitmaps_error = NULL;
	return 0;
}

int check_bitmaps(struct fiber *f, struct check *c)
{
	const struct bitmap_set *s = c->q->bitmap_set;
	u64 left = c->q->img.below->bytes;
	int ret = 0;

	if (c->q->bitmaps_error)
		return give_up(f, c);
	if (!s)
		return 0;
	check_ref(c, s->directory_hoff, s->directory_bytes);
	for (u32 i = 0; i < s->n && ret == 0; i++) {
		u64 bytes = s->v[i].table_entries * 8ull;

		if (bytes > left) { /* or this would take as long as the image likes */
			check_corrupt(c, "ERROR bitmap tables are larger than the image file");
			return 0;
		}
		left -= bytes;
		ret = count_table(f, c, &s->v[i]);
	}
	if (ret < 0)
		c->req->result.check_errors++;
	return ret;
}
