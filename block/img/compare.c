/* cowimg compare: do two images hold the same?
 *
 * Both chains are walked together.  What their maps call zero on both sides is
 * skipped; the rest is compared in chunks, several at a time; of what differs the
 * first place is told.  Memory: a few chunks' buffers. */
#include "block/img/img.h"

#include "block/crew.h"
#include "block/img/progress.h"
#include "block/map_cursor.h"
#include "block/same.h"

#include <errno.h>
#include <stdio.h>

#define HANDS	    8
#define CHUNK_BYTES (2 * MiB)
#define EXIT_OPEN   2
#define EXIT_MAP    3
#define EXIT_READ   4

struct side {
	const char *name;
	struct image *img;
	struct map_cursor cursor;
	struct chain_extent x;
};

struct task {
	struct compare *c;
	struct same same;
	u64 goff;
};

struct compare {
	struct img *ctx;
	struct img_source source;
	const char *format2;
	bool strict, show;
	struct side a, b;
	struct crew crew;
	struct task tasks[HANDS];
	u64 differs; /* first place known, or UINT64_MAX */
	bool strictly;
	int error;	   /* of reading, at... */
	u64 error_at;	   /* ...this place */
	const char *where; /* ...of this image */
	struct img_progress progress;
};

static void run_task(struct fiber *f, struct crew_hand *hand)
{
	struct task *t = hand->task;
	struct compare *c = t->c;
	int ret = same_compare(f, &t->same);

	if (ret < 0 && t->goff < c->error_at) {
		c->error = ret;
		c->error_at = t->goff;
		c->where = t->same.a.error ? c->a.name : c->b.name;
	} else if (ret == 0 && t->same.differs < t->same.bytes) {
		c->differs = MIN(c->differs, t->goff + t->same.differs);
	}
}

static void fill_side(struct same_side *to, const struct side *from, u64 goff)
{
	bool zero = from->x.map.kind & MAP_ZERO;

	to->img = zero ? NULL : from->img;
	to->goff = goff;
	to->map = from->x.map;
}

/* Hand out the extent, in chunks. */
static void compare_extent(struct compare *c, u64 goff, u64 bytes)
{
	for (u64 at = 0, part; at < bytes; at += part) {
		struct crew_hand *hand = crew_take(c->ctx->f, &c->crew);
		struct task *t = hand->task;

		if (c->differs != UINT64_MAX || c->error)
			return;
		/* Chunks end at round offsets, as the reference's do. */
		part = MIN(bytes - at, CHUNK_BYTES - ((goff + at) & (CHUNK_BYTES - 1)));
		t->c = c;
		t->goff = goff + at;
		fill_side(&t->same.a, &c->a, goff + at);
		fill_side(&t->same.b, &c->b, goff + at);
		t->same.a.map.hoff += at;
		t->same.b.map.hoff += at;
		t->same.bytes = part;
		crew_start(c->ctx->f, hand, run_task);
	}
}

/* Zeros beyond the end of the shorter image. */
static int look(struct compare *c, struct side *s, u64 goff, u64 bytes)
{
	int ret;

	if (goff >= s->img->bytes) {
		s->x = (struct chain_extent){.map = {.bytes = bytes, .kind = MAP_ZERO}};
		return 0;
	}
	ret = map_cursor_at(c->ctx->f, &s->cursor, goff, bytes, &s->x);
	if (ret < 0)
		return img_error(c->ctx, "Sector allocation test failed for %s", s->name);
	return 0;
}

static bool same_status(const struct side *a, const struct side *b)
{
	const u32 mask = MAP_DATA | MAP_ZERO | MAP_ALLOC | MAP_HOFF | MAP_COMPRESSED;

	return !((a->x.map.kind ^ b->x.map.kind) & mask);
}

/* Compare [goff, end); 0, or an exit code after a message. */
static int walk(struct compare *c, u64 goff, u64 end, u64 total)
{
	while (goff < end && c->differs == UINT64_MAX && !c->error && !c->progress.interrupted) {
		u64 bytes = end - goff;

		if (look(c, &c->a, goff, bytes) || look(c, &c->b, goff, bytes))
			return EXIT_MAP;
		bytes = MIN(c->a.x.map.bytes, c->b.x.map.bytes);
		if (c->strict && !same_status(&c->a, &c->b)) {
			c->strictly = true;
			c->differs = goff;
			break;
		}
		if (!(c->a.x.map.kind & c->b.x.map.kind & MAP_ZERO))
			compare_extent(c, goff, bytes);
		goff += bytes;
		img_progress_set(&c->progress, goff, total);
	}
	return 0;
}

/* What was found; 0: nothing yet. */
static int verdict(struct compare *c)
{
	u64 differs = c->differs;

	crew_wait(c->ctx->f, &c->crew);
	differs = c->differs;
	if (c->error && c->error_at < differs) {
		img_error(c->ctx, "Error while reading offset %llu of %s: %s",
			  (unsigned long long)c->error_at, c->where, strerror(-c->error));
		return EXIT_READ;
	}
	if (c->progress.interrupted)
		return EXIT_OPEN;
	if (differs == UINT64_MAX)
		return 0;
	if (c->strictly)
		img_say(c->ctx, "Strict mode: Offset %llu block status mismatch!\n",
			(unsigned long long)differs);
	else
		img_say(c->ctx, "Content mismatch at offset %llu!\n", (unsigned long long)differs);
	return IMG_ERROR;
}

static int compare_all(struct compare *c)
{
	u64 shorter = MIN(c->a.img->bytes, c->b.img->bytes);
	u64 longer = MAX(c->a.img->bytes, c->b.img->bytes);
	int code, found;

	if (c->strict && shorter != longer) {
		img_say(c->ctx, "Strict mode: Image size mismatch!\n");
		return IMG_ERROR;
	}
	code = walk(c, 0, shorter, longer);
	found = verdict(c);
	if (code || found)
		return code ? code : found;
	if (shorter != longer) {
		img_say(c->ctx, "Warning: Image size mismatch!\n");
		code = walk(c, shorter, longer, longer);
		found = verdict(c);
		if (code || found)
			return code ? code : found;
	}
	img_progress_set(&c->progress, longer, longer);
	img_say(c->ctx, "Images are identical.\n");
	return IMG_OK;
}

static int with_memory(struct compare *c)
{
	u8 *memory = try_alloc_aligned(2 * HANDS * SAME_PIECE, 4096);
	int code;

	if (!memory)
		return img_error(c->ctx, "Out of memory"), EXIT_OPEN;
	for (unsigned i = 0; i < HANDS; i++) {
		c->tasks[i].same.a.buf = memory + 2 * i * SAME_PIECE;
		c->tasks[i].same.b.buf = memory + (2 * i + 1) * SAME_PIECE;
	}
	c->differs = c->error_at = UINT64_MAX;
	crew_init(&c->crew, HANDS, c->tasks, sizeof(c->tasks[0]));
	map_cursor_init(&c->a.cursor, c->a.img, NULL);
	map_cursor_init(&c->b.cursor, c->b.img, NULL);
	c->a.cursor.look_below = c->b.cursor.look_below = !c->strict;
	img_progress_begin(c->ctx, &c->progress, c->show);
	code = compare_all(c);
	img_progress_end(&c->progress, false);
	map_cursor_fini(&c->a.cursor);
	map_cursor_fini(&c->b.cursor);
	free(memory);
	return code;
}

static int run(struct compare *c)
{
	struct img_source second = c->source;
	int code;

	second.format = c->format2;
	if (img_open(c->ctx, c->a.name, &c->source, &c->a.img))
		return EXIT_OPEN;
	if (img_open(c->ctx, c->b.name, &second, &c->b.img)) {
		image_close(c->ctx->f, c->a.img);
		return EXIT_OPEN;
	}
	code = with_memory(c);
	image_close(c->ctx->f, c->b.img);
	image_close(c->ctx->f, c->a.img);
	return code;
}

static int parse_option(struct compare *c, int letter)
{
	switch (letter) {
	case 'F': c->format2 = optarg; return IMG_OK;
	case 'p': c->show = true; return IMG_OK;
	case 'q': c->ctx->quiet = true; return IMG_OK;
	case 's': c->strict = true; return IMG_OK;
	case '?': return IMG_ERROR;
	default: return img_source_option(c->ctx, &c->source, letter) ? EXIT_OPEN : IMG_OK;
	}
}

int img_compare(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, IMG_SOURCE_OPTIONS, {0}};
	struct compare *c = xnew(struct compare);
	int letter, code = IMG_OK;

	c->ctx = ctx;
	ctx->bad_object = EXIT_OPEN; /* 1 says that the contents differ */
	while (code == IMG_OK &&
	       (letter = img_getopt(ctx, argc, argv, ":hf:F:T:pqsU", options)) != -1)
		code = parse_option(c, letter);
	if (code == IMG_OK && optind != argc - 2)
		code = img_usage_error(ctx, "Expecting two image file names");
	if (code == IMG_OK) {
		c->a.name = argv[optind];
		c->b.name = argv[optind + 1];
		code = run(c);
	}
	free(c);
	return code;
}
