/* cowimg map: where the data of an image lies.
 *
 * One pass over the maps of the chain, whose answers are joined as the reference
 * joins them; memory does not depend on the size. */
#include "block/img/img.h"

#include "block/map_cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

struct entry {
	u64 start, bytes, hoff;
	unsigned depth;
	bool present, zero, data, has_hoff;
	const struct image *file;
};

struct map {
	struct img *ctx;
	struct img_source source;
	bool json;
	u64 start, length;
	struct entry pending; /* bytes 0: none yet */
	bool first;
};

static void print_json(struct map *m, const struct entry *e, bool last)
{
	printf("%s{ \"start\": %" PRIu64 ", \"length\": %" PRIu64
	       ", \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
	       m->first ? "[" : "", e->start, e->bytes, e->depth, e->present ? "true" : "false",
	       e->zero ? "true" : "false", e->data ? "true" : "false");
	if (e->has_hoff)
		printf(", \"offset\": %" PRIu64, e->hoff);
	printf(last ? "}]\n" : "},\n");
	m->first = false;
}

static int print_human(struct map *m, const struct entry *e)
{
	const struct image *file = e->file;

	if (!e->data || e->zero)
		return IMG_OK;
	if (!e->has_hoff)
		return img_error(m->ctx,
				 "File contains external, encrypted or compressed clusters.");
	while (file->below)
		file = file->below;
	printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", e->start, e->bytes, e->hoff,
	       file->name);
	return IMG_OK;
}

static int print(struct map *m, const struct entry *e, bool last)
{
	if (!m->json)
		return print_human(m, e);
	print_json(m, e, last);
	return IMG_OK;
}

static struct entry entry_of(u64 goff, const struct chain_extent *x)
{
	u32 kind = x->map.kind;

	return (struct entry){.start = goff,
			      .bytes = x->map.bytes,
			      .hoff = x->map.hoff,
			      .depth = x->depth,
			      .present = kind & MAP_ALLOC,
			      .zero = kind & MAP_ZERO,
			      .data = kind & MAP_DATA,
			      .has_hoff = kind & MAP_HOFF,
			      .file = kind & MAP_HOFF ? x->map.file : NULL};
}

static bool joins(const struct entry *a, const struct entry *b)
{
	if (a->start + a->bytes != b->start || a->depth != b->depth || a->present != b->present ||
	    a->zero != b->zero || a->data != b->data || a->has_hoff != b->has_hoff)
		return false;
	return !a->has_hoff || (a->file == b->file && a->hoff + a->bytes == b->hoff);
}

static int add(struct map *m, const struct entry *e)
{
	int code = IMG_OK;

	if (m->pending.bytes && joins(&m->pending, e)) {
		m->pending.bytes += e->bytes;
		return IMG_OK;
	}
	if (m->pending.bytes)
		code = print(m, &m->pending, false);
	m->pending = *e;
	return code;
}

static int walk(struct map *m, struct image *img)
{
	u64 end = img->bytes, goff = m->start;
	struct map_cursor cursor;
	int code = IMG_OK;

	if (m->length < end - MIN(goff, end))
		end = goff + m->length;
	map_cursor_init(&cursor, img, NULL);
	cursor.look_below = true;
	while (goff < end && code == IMG_OK) {
		struct chain_extent x;
		struct entry e;
		int ret = map_cursor_at(m->ctx->f, &cursor, goff, end - goff, &x);

		if (ret < 0) {
			code = img_error(m->ctx, "Failed to read image metadata: %s",
					 strerror(-ret));
			break;
		}
		e = entry_of(goff, &x);
		code = add(m, &e);
		goff += e.bytes;
	}
	map_cursor_fini(&cursor);
	if (code)
		return code;
	if (!m->pending.bytes)
		m->pending.start = m->start;
	return print(m, &m->pending, true);
}

static int open_and_walk(struct map *m, const char *file)
{
	struct image *img;
	int code;

	if (img_open(m->ctx, file, &m->source, &img))
		return IMG_ERROR;
	if (!m->json)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	code = walk(m, img);
	return img_close(m->ctx, img, code);
}

static int parse_offset(struct map *m, const char *what, u64 *out)
{
	int ret = img_parse_size(optarg, out);

	if (ret == -ERANGE)
		return img_error(m->ctx,
				 "Invalid %s specified. Must be between 0 and 9223372036854775807.",
				 what);
	if (ret == 0)
		return IMG_OK;
	img_error(m->ctx, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
		  what);
	return img_error(m->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

static int parse_option(struct map *m, int letter)
{
	switch (letter) {
	case 's': return parse_offset(m, "start offset", &m->start);
	case 'l': return parse_offset(m, "max length", &m->length);
	case 'O':
		m->json = !strcmp(optarg, "json");
		if (m->json || !strcmp(optarg, "human"))
			return IMG_OK;
		return img_error(m->ctx, "--output must be used with human or json as argument.");
	default: return img_source_option(m->ctx, &m->source, letter);
	}
}

int img_map(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {{"help", no_argument, NULL, 'h'},
						{"output", required_argument, NULL, 'O'},
						{"start-offset", required_argument, NULL, 's'},
						{"max-length", required_argument, NULL, 'l'},
						IMG_SOURCE_OPTIONS,
						{0}};
	struct map m = {.ctx = ctx, .length = UINT64_MAX, .first = true};
	int letter;

	while ((letter = img_getopt(ctx, argc, argv, ":f:s:l:hU", options)) != -1)
		if (parse_option(&m, letter))
			return IMG_ERROR;
	if (optind != argc - 1)
		return img_usage_error(ctx, "Expecting one image file name");
	return open_and_walk(&m, argv[optind]);
}
