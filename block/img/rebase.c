/* cowimg rebase: another backing file for an image.
 *
 * In safe mode what the overlay shows stays the same: where it has nothing itself
 * and the old and the new chain differ, the old content is written into it.  All
 * that is durable before the header names the new file, so a run that was cut off
 * can be done again.  Memory: two buffers for each of HANDS chunks. */
#include "block/img/img.h"

#include "block/crew.h"
#include "block/driver.h"
#include "block/img/progress.h"
#include "block/map_cursor.h"
#include "block/qcow2/qcow2.h"
#include "block/same.h"

#include <errno.h>
#include <sys/stat.h>

#define HANDS	    8
#define CHUNK_BYTES (512 * KiB)

struct chunk {
	struct rebase *r;
	u64 goff, bytes;
	bool old_zero, new_zero;
	struct map_extent old_map, new_map;
	u8 *old_data, *new_data;
};

struct rebase {
	struct img *ctx;
	struct img_source source; /* of the overlay, and -T for what is behind */
	const char *cache, *backing, *format;
	bool unsafe, show, share;
	struct image *overlay, *fresh; /* fresh: the new chain, NULL: none or `kept` */
	struct image *kept;	       /* the new one is this image of the old chain */
	u64 unit;		       /* what is written is a multiple of it */
	struct map_cursor own, old, new;
	struct crew crew;
	struct chunk chunks[HANDS];
	struct img_progress progress;
	int error;
};

/* --- copying what differs ------------------------------------------------------------ */

/* As many bytes as this chain has; zeros beyond. */
static int read_chain(struct fiber *f, struct image *img, u64 goff, u8 *buf, u64 bytes)
{
	u64 have = img && goff < img->bytes ? MIN(bytes, img->bytes - goff) : 0;

	memset(buf + have, 0, bytes - have);
	return have ? image_pread(f, img, goff, buf, have) : 0;
}

static bool differs(const struct chunk *c, u64 at, u64 bytes)
{
	if (c->old_zero)
		return zero_bytes(c->new_data + at, bytes) < bytes;
	if (c->new_zero)
		return zero_bytes(c->old_data + at, bytes) < bytes;
	return memcmp(c->old_data + at, c->new_data + at, bytes) != 0;
}

/* The unit of the image's offsets that `at` of the chunk lies in, from there on. */
static u64 unit_bytes(const struct chunk *c, u64 at)
{
	u64 unit = c->r->unit;

	return MIN(c->bytes - at, unit - ((c->goff + at) & (unit - 1)));
}

/* Zeros that stay when something else is behind.  For less than a cluster image_zero
 * would do nothing where the old chain has zeros. */
static int write_zeros(struct fiber *f, const struct chunk *c, u64 at, u64 bytes)
{
	struct image *overlay = c->r->overlay;
	u64 unit = c->r->unit, goff = c->goff + at, end = goff + bytes;
	u64 from = MIN(align_up(goff, unit), end), to = MAX(align_down(end, unit), from);
	int ret = 0;

	memset(c->old_data + at, 0, bytes);
	if (from > goff)
		ret = image_pwrite(f, overlay, goff, c->old_data + at, from - goff);
	if (ret == 0 && to > from)
		ret = image_zero(f, overlay, from, to - from, 0);
	if (ret == 0 && end > to)
		ret = image_pwrite(f, overlay, to, c->old_data + at, end - to);
	return ret;
}

static int write_old(struct fiber *f, const struct chunk *c, u64 at, u64 bytes)
{
	if (c->old_zero)
		return write_zeros(f, c, at, bytes);
	return image_pwrite(f, c->r->overlay, c->goff + at, c->old_data + at, bytes);
}

/* Runs of units that differ, each in one write. */
static int write_runs(struct fiber *f, const struct chunk *c)
{
	u64 start = 0, run = 0;
	int ret = 0;

	for (u64 at = 0, bytes; at < c->bytes && ret == 0; at += bytes) {
		bytes = unit_bytes(c, at);
		if (differs(c, at, bytes)) {
			if (!run)
				start = at;
			run += bytes;
			continue;
		}
		if (run)
			ret = write_old(f, c, start, run);
		run = 0;
	}
	return ret == 0 && run ? write_old(f, c, start, run) : ret;
}

/* Cut off what is the same on both sides, up to the first unit that differs: what
 * lies in host files is compared where it is read, on the pool. */
static int skip_same(struct fiber *f, struct chunk *c)
{
	struct rebase *r = c->r;
	struct image *new = r->fresh ? r->fresh : r->kept;
	struct same s = {
		.a = {c->old_zero ? NULL : r->overlay->backing, c->goff, c->old_map, c->old_data,
		      0},
		.b = {c->new_zero ? NULL : new, c->goff, c->new_map, c->new_data, 0},
		.bytes = c->bytes,
	};
	int ret = same_compare(f, &s);
	u64 end = c->goff + c->bytes;

	if (ret < 0)
		return ret;
	if (s.differs < c->bytes)
		c->goff = MAX(align_down(c->goff + s.differs, r->unit), c->goff);
	else
		c->goff = end;
	c->bytes = end - c->goff;
	return 0;
}

static void do_chunk(struct fiber *f, struct crew_hand *hand)
{
	struct chunk *c = hand->task;
	struct rebase *r = c->r;
	int ret = skip_same(f, c);

	if (ret == 0 && !c->old_zero)
		ret = read_chain(f, r->overlay->backing, c->goff, c->old_data, c->bytes);
	if (ret == 0 && !c->new_zero)
		ret = read_chain(f, r->fresh ? r->fresh : r->kept, c->goff, c->new_data, c->bytes);
	if (ret == 0)
		ret = write_runs(f, c);
	if (ret < 0 && !r->error)
		r->error = ret;
}

/* Both ends of the range are known; hand it out. */
static void hand_out(struct rebase *r, u64 goff, u64 bytes, const struct map_extent *old,
		     const struct map_extent *new)
{
	for (u64 at = 0, part; at < bytes; at += part) {
		struct crew_hand *hand = crew_take(r->ctx->f, &r->crew);
		struct chunk *c = hand->task;

		if (r->error)
			return;
		part = MIN(bytes - at, CHUNK_BYTES - ((goff + at) & (CHUNK_BYTES - 1)));
		c->r = r;
		c->goff = goff + at;
		c->bytes = part;
		c->old_zero = old->kind & MAP_ZERO;
		c->new_zero = new->kind &MAP_ZERO;
		c->old_map = *old;
		c->new_map = *new;
		c->old_map.hoff += at;
		c->new_map.hoff += at;
		crew_start(r->ctx->f, hand, do_chunk);
	}
}

/* What a chain is at goff; zeros beyond its end or without one. */
static int look(struct rebase *r, struct map_cursor *c, const struct image *top, u64 goff,
		u64 *bytes, struct map_extent *map)
{
	struct chain_extent x;
	int ret;

	*map = (struct map_extent){.kind = MAP_ZERO, .bytes = *bytes};
	if (!top || goff >= top->bytes)
		return 0;
	ret = map_cursor_at(r->ctx->f, c, goff, *bytes, &x);
	*map = x.map;
	*bytes = x.map.bytes;
	return ret;
}

/* The part of [goff, *bytes) that is of one kind everywhere. */
static int one_range(struct rebase *r, u64 goff, u64 *bytes)
{
	struct image *new = r->fresh ? r->fresh : r->kept;
	struct map_extent own, old, fresh;
	int ret;

	if (r->kept && r->kept == r->overlay->backing)
		return 0;
	ret = look(r, &r->own, r->overlay, goff, bytes, &own);

	if (ret < 0 || own.kind & MAP_ALLOC)
		return ret;
	ret = look(r, &r->old, r->overlay->backing, goff, bytes, &old);
	/* Nothing above the image that stays behind: nothing changes. */
	if (ret < 0 || (r->kept && !old.kind))
		return ret;
	ret = look(r, &r->new, new, goff, bytes, &fresh);
	if (ret == 0 && !(old.kind & fresh.kind & MAP_ZERO))
		hand_out(r, goff, *bytes, &old, &fresh);
	return ret;
}

static int walk(struct rebase *r)
{
	u64 end = r->overlay->bytes, bytes;
	int ret = 0;

	for (u64 goff = 0; goff < end && ret == 0 && !r->error; goff += bytes) {
		bytes = end - goff;
		ret = one_range(r, goff, &bytes);
		img_progress_set(&r->progress, goff + bytes, end);
		if (r->progress.interrupted)
			ret = -EINTR;
	}
	crew_wait(r->ctx->f, &r->crew);
	return ret < 0 ? ret : r->error;
}

static int copy_with(struct rebase *r, u8 *memory)
{
	struct qcow2_info info = {.cluster_bytes = 64 * KiB};
	struct image *new = r->fresh ? r->fresh : r->kept;
	int ret;

	if (r->overlay->driver == &qcow2_driver)
		qcow2_get_info(r->overlay, &info);
	r->unit = MAX(info.cluster_bytes, 4096u);
	for (unsigned i = 0; i < HANDS; i++) {
		r->chunks[i].old_data = memory + 2 * i * CHUNK_BYTES;
		r->chunks[i].new_data = memory + (2 * i + 1) * CHUNK_BYTES;
	}
	crew_init(&r->crew, HANDS, r->chunks, sizeof(r->chunks[0]));
	map_cursor_init(&r->own, r->overlay, r->overlay->backing);
	map_cursor_init(&r->old, r->overlay->backing, r->kept);
	map_cursor_init(&r->new, new, NULL);
	r->old.look_below = r->new.look_below = true;
	img_progress_begin(r->ctx, &r->progress, r->show);
	ret = walk(r);
	img_progress_end(&r->progress, ret == 0);
	map_cursor_fini(&r->own);
	map_cursor_fini(&r->old);
	map_cursor_fini(&r->new);
	return ret < 0 ? ret : image_flush(r->ctx->f, r->overlay);
}

static int copy_differences(struct rebase *r)
{
	u8 *memory = try_alloc_aligned(2 * HANDS * CHUNK_BYTES, 4096);
	int ret = memory ? copy_with(r, memory) : -ENOMEM;

	free(memory);
	if (ret < 0)
		return img_error(r->ctx, "error while copying to the image: %s", strerror(-ret));
	return IMG_OK;
}

/* --- the new backing file --------------------------------------------------------------- */

static const char *host_name(const struct image *img)
{
	while (img->below)
		img = img->below;
	return img->name;
}

/* An image of the old chain that the new name means, too. */
static struct image *find_kept(struct rebase *r, const char *path)
{
	struct stat a, b;

	if (stat(path, &a))
		return NULL;
	for (struct image *img = r->overlay->backing; img; img = img->backing)
		if (stat(host_name(img), &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino &&
		    (!r->format || !strcmp(r->format, img->driver->name)))
			return img;
	return NULL;
}

static int open_new(struct rebase *r)
{
	AUTO_FREE char *path = image_resolve_name(host_name(r->overlay), r->backing);
	struct open_policy policy = {
		.format = r->format, .unlock = &r->ctx->unlock, .share_writers = r->share};
	struct error err = {0};

	if (r->cache)
		img_parse_cache(r->cache, &policy);
	r->kept = find_kept(r, path);
	if (r->kept)
		return IMG_OK;
	if (image_open(r->ctx->f, &r->fresh, path, &policy, &err) < 0)
		return img_error(r->ctx, "Could not open new backing file '%s': %s", r->backing,
				 err.text);
	return IMG_OK;
}

/* qcow2_set_backing, or qcow2_judge_backing before anything is copied. */
static int change_name(struct rebase *r, __typeof__(qcow2_set_backing) *change)
{
	struct error err = {0};
	int ret;

	if (r->overlay->driver != &qcow2_driver)
		ret = err_set(&err, -ENOTSUP, "Operation not supported");
	else if (*r->backing && !r->format)
		ret = err_set(&err, -EINVAL, "backing format must be specified");
	else
		ret = change(r->ctx->f, r->overlay, r->backing, r->format, &err);
	if (ret == -ENOSPC)
		return img_error(r->ctx,
				 "Could not change the backing file to '%s': No space left in the "
				 "file header",
				 r->backing);
	if (ret < 0)
		return img_error(r->ctx, "Could not change the backing file to '%s': %s",
				 r->backing, err.text);
	return IMG_OK;
}

static int rebase(struct rebase *r)
{
	int code = IMG_OK;

	if (r->overlay->driver != &qcow2_driver)
		return change_name(r, qcow2_set_backing);
	if (!r->unsafe && *r->backing)
		code = open_new(r);
	if (code == IMG_OK && !r->unsafe)
		code = change_name(r, qcow2_judge_backing);
	if (code == IMG_OK && !r->unsafe)
		code = copy_differences(r);
	if (code == IMG_OK)
		code = change_name(r, qcow2_set_backing);
	image_close(r->ctx->f, r->fresh);
	return code;
}

static int run(struct rebase *r, const char *name)
{
	struct open_policy ignored;

	if (!r->unsafe && !r->backing)
		return img_usage_error(r->ctx,
				       "Must specify backing file (-b) or use unsafe mode (-u)");
	if (!r->backing)
		r->backing = "";
	if (r->cache && img_parse_cache(r->cache, &ignored) < 0)
		return img_error(r->ctx, "Invalid source cache option: %s", r->cache);
	r->share = r->source.share; /* for what is behind; the overlay is written to */
	r->source.share = false;
	r->source.writable = true;
	r->source.no_backing = r->unsafe;
	if (img_open(r->ctx, name, &r->source, &r->overlay))
		return IMG_ERROR;
	if (r->format && !image_driver_find(r->format))
		return img_close(r->ctx, r->overlay,
				 img_error(r->ctx, "Invalid format name: '%s'", r->format));
	return img_close(r->ctx, r->overlay, rebase(r));
}

static int parse_option(struct rebase *r, int letter)
{
	switch (letter) {
	case 'b': r->backing = optarg; return IMG_OK;
	case 'F': r->format = optarg; return IMG_OK;
	case 'T': r->cache = optarg; return IMG_OK;
	case 'p': r->show = true; return IMG_OK;
	case 'q': r->ctx->quiet = true; return IMG_OK;
	case 'u': r->unsafe = true; return IMG_OK;
	default: return img_source_option(r->ctx, &r->source, letter);
	}
}

int img_rebase(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, IMG_SOURCE_OPTIONS, {0}};
	struct rebase *r = xnew(struct rebase);
	int letter, code = IMG_OK;

	r->ctx = ctx;
	while (code == IMG_OK &&
	       (letter = img_getopt(ctx, argc, argv, ":hf:F:b:upt:T:qU", options)) != -1)
		code = parse_option(r, letter);
	if (code == IMG_OK && optind != argc - 1)
		code = img_usage_error(ctx, "Expecting one image file name");
	if (code == IMG_OK)
		code = run(r, argv[optind]);
	free(r);
	return code;
}
