/* cowimg bench: many requests at once, and how long they take.
 *
 * Every request runs on a fiber of its own, `depth` of them side by side.  With a
 * flush interval the flush waits for all requests before it, unless --no-drain
 * lets it go beside them. */
#include "block/img/img.h"

#include "base/opts.h"
#include "base/thread.h"
#include "block/image.h"

#include <errno.h>
#include <stdio.h>

struct bench {
	struct img *ctx;
	struct img_source src;
	const char *file;
	bool writes, no_drain, native;
	u64 count, depth, flush_interval, bytes, step, goff;
	u8 pattern;
	/* the run */
	struct image *img;
	u8 *buffers;
	u64 left, in_flight, since_flush, end; /* end: of the places, then from the start */
	bool flushing;
	int error;
	struct fiber_queue changed;
};

/* One of `depth` that take turns at the places. */
struct worker {
	struct bench *b;
	struct iovec iov;
};

/* The place of the next request. */
static u64 next_goff(struct bench *b)
{
	u64 goff = b->goff;

	b->goff += b->step;
	if (b->img->bytes && b->img->bytes <= b->goff)
		b->goff %= b->img->bytes;
	return goff;
}

static int flush_now(struct fiber *f, struct bench *b)
{
	int ret;

	while (!b->no_drain && b->in_flight)
		fiber_queue_wait(f, &b->changed);
	ret = image_flush(f, b->img);
	b->flushing = false;
	fiber_queue_wake_all(&b->changed);
	return ret;
}

static int one_request(struct fiber *f, struct worker *w)
{
	struct bench *b = w->b;
	u64 goff = next_goff(b);
	int ret;

	b->left--;
	b->in_flight++;
	if (goff > b->img->bytes || b->bytes > b->img->bytes - goff)
		ret = -EIO;
	else if (b->writes)
		ret = image_write(f, b->img, goff, &w->iov, 1);
	else
		ret = image_read(f, b->img, goff, &w->iov, 1);
	b->in_flight--;
	if (b->flushing)
		fiber_queue_wake_all(&b->changed);
	if (ret == 0 && b->flush_interval && ++b->since_flush >= b->flush_interval &&
	    !b->flushing) {
		b->since_flush = 0;
		b->flushing = true;
		ret = flush_now(f, b);
	}
	return ret;
}

static void work(struct fiber *f, void *arg)
{
	struct worker *w = arg;
	struct bench *b = w->b;

	while (b->left && !b->error) {
		int ret;

		if (b->flushing && !b->no_drain) {
			fiber_queue_wait(f, &b->changed);
			continue;
		}
		ret = one_request(f, w);
		if (ret < 0)
			b->error = ret;
	}
	free(w);
	b->end--;
	fiber_queue_wake_all(&b->changed);
}

static int start_workers(struct fiber *f, struct bench *b)
{
	u64 n = MIN(b->depth, b->count);

	for (u64 i = 0; i < n; i++) {
		struct worker *w = xnew(struct worker);

		*w = (struct worker){b, {b->buffers + i * b->bytes, b->bytes}};
		b->end++;
		if (fiber_spawn(fiber_loop(f), work, w) < 0) {
			b->end--;
			free(w);
			return i ? 0 : -ENOMEM;
		}
	}
	return 0;
}

static int run(struct bench *b)
{
	struct fiber *f = b->ctx->f;
	u64 start, ns;
	int ret;

	printf("Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset "
	       "%llu, step size %llu)\n",
	       (unsigned long long)b->count, b->writes ? "write" : "read",
	       (unsigned long long)b->bytes, (unsigned long long)b->depth,
	       (unsigned long long)b->goff, (unsigned long long)b->step);
	if (b->flush_interval)
		printf("Sending flush every %llu requests\n",
		       (unsigned long long)b->flush_interval);
	start = now_ns();
	ret = start_workers(f, b);
	while (b->end)
		fiber_queue_wait(f, &b->changed);
	ns = now_ns() - start;
	if (ret == 0)
		ret = b->error;
	if (ret < 0)
		return img_error(b->ctx, "Failed request: %s", strerror(-ret));
	printf("Run completed in %3.3f seconds.\n", (double)ns / 1e9);
	return IMG_OK;
}

static bool is_direct(const char *cache)
{
	return cache &&
	       (!strcmp(cache, "none") || !strcmp(cache, "directsync") || !strcmp(cache, "off"));
}

static int open_and_run(struct bench *b)
{
	u64 all;
	int code;

	/* How the host is asked is the loop's choice; what the words need is judged. */
	if (b->native && !is_direct(b->src.cache))
		return img_error(b->ctx,
				 "Could not open '%s': aio=native was specified, but it requires "
				 "cache.direct=on, which was not specified.",
				 b->file);
	code = img_open(b->ctx, b->file, &b->src, &b->img);
	if (code)
		return code;
	fiber_queue_init(&b->changed);
	b->left = b->count;
	if (!b->step)
		b->step = b->bytes;
	if (!mul_ok(MIN(b->depth, MAX(b->count, (u64)1)), b->bytes, &all))
		all = UINT64_MAX;
	b->buffers = try_alloc_aligned(MAX(all, (u64)1), 4096);
	if (!b->buffers) {
		code = img_error(b->ctx, "Could not allocate %llu bytes for buffers",
				 (unsigned long long)all);
	} else {
		memset(b->buffers, b->pattern, all);
		code = run(b);
	}
	free(b->buffers);
	return img_close(b->ctx, b->img, code);
}

/* --- command line ------------------------------------------------------------------ */

enum { OPTION_FLUSH = 256, OPTION_PATTERN, OPTION_NO_DRAIN };

static int parse_count(struct bench *b, const char *what, u64 most, u64 *out)
{
	if (parse_u64(optarg, out) < 0 || *out > most)
		return img_error(b->ctx, "Invalid %s specified", what);
	return IMG_OK;
}

static int parse_bytes(struct bench *b, const char *what, u64 most, u64 *out)
{
	int ret = img_parse_size(optarg, out);

	if (ret == -ERANGE || (ret == 0 && *out > most))
		return img_error(b->ctx, "Invalid %s specified. Must be between 0 and %llu.", what,
				 (unsigned long long)most);
	if (ret == 0)
		return IMG_OK;
	img_error(b->ctx, "Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
		  what);
	return img_error(b->ctx,
			 "kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
}

static int parse_aio(struct bench *b)
{
	static const char *const words[] = {"threads", "native", "io_uring", NULL};
	int at = parse_choice(optarg, words);

	b->native = at == 1;
	return at < 0 ? img_error(b->ctx, "Invalid aio option: %s", optarg) : IMG_OK;
}

static int parse_cache(struct bench *b, const char *text)
{
	struct open_policy scratch;

	if (img_parse_cache(text, &scratch) < 0)
		return img_error(b->ctx, "Invalid cache mode");
	b->src.cache = text;
	b->src.cache_is_target = true;
	return IMG_OK;
}

static int parse_pattern(struct bench *b)
{
	u64 n;

	if (parse_count(b, "pattern byte", UINT8_MAX, &n))
		return IMG_ERROR;
	b->pattern = (u8)n;
	return IMG_OK;
}

static int parse_option(struct bench *b, int letter)
{
	switch (letter) {
	case 'c': return parse_count(b, "request count", INT32_MAX, &b->count);
	case 'd': return parse_count(b, "queue depth", INT32_MAX, &b->depth);
	case 'i': return parse_aio(b);
	case 'n': b->native = true; return IMG_OK;
	case 'o': return parse_bytes(b, "offset", INT64_MAX, &b->goff);
	case 'q': b->ctx->quiet = true; return IMG_OK;
	case 's': return parse_bytes(b, "buffer size", INT32_MAX, &b->bytes);
	case 'S': return parse_bytes(b, "step_size", INT32_MAX, &b->step);
	case 't': return parse_cache(b, optarg);
	case 'w': b->writes = b->src.writable = true; return IMG_OK;
	case OPTION_PATTERN: return parse_pattern(b);
	case OPTION_NO_DRAIN: b->no_drain = true; return IMG_OK;
	case OPTION_FLUSH: return parse_count(b, "flush interval", INT32_MAX, &b->flush_interval);
	default: return img_source_option(b->ctx, &b->src, letter);
	}
}

int img_bench(struct img *ctx, int argc, char **argv)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'},
		{"flush-interval", required_argument, NULL, OPTION_FLUSH},
		IMG_SOURCE_OPTIONS,
		{"pattern", required_argument, NULL, OPTION_PATTERN},
		{"no-drain", no_argument, NULL, OPTION_NO_DRAIN},
		{0}};
	struct bench b = {.ctx = ctx, .count = 75000, .depth = 64, .bytes = 4096};
	int letter;

	while ((letter = img_getopt(ctx, argc, argv, ":hc:d:f:ni:o:qs:S:t:wU", options)) != -1)
		if (parse_option(&b, letter))
			return IMG_ERROR;
	if (optind != argc - 1)
		return img_usage_error(ctx, "Expecting one image file name");
	b.file = argv[optind];
	if (!b.writes && b.flush_interval)
		return img_error(ctx, "--flush-interval is only available in write tests");
	if (b.flush_interval && b.flush_interval < b.depth)
		return img_error(ctx, "Flush interval can't be smaller than depth");
	if (!b.depth)
		return img_error(ctx, "Invalid queue depth specified");
	return open_and_run(&b);
}
