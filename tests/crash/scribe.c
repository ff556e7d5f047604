/* See scribe.h. */
#include "tests/crash/scribe.h"

#include "tests/unit/backends.h"

#include "base/io.h"
#include "block/check.h"
#include "block/driver.h"
#include "tests/lib/mem_image.h"

#define EXTENT 24 /* sectors of one write, at most */

static void fill(u8 *sector, u16 stamp)
{
	for (u32 i = 0; i < 512; i += 2)
		memcpy(sector + i, &stamp, 2);
}

void scribe_init(struct scribe *g, const struct record_log *log, u64 seed)
{
	*g = (struct scribe){.log = log, .seed = seed};
	g->view = xalloc((SCRIBE_ROUNDS + 2) * sizeof(*g->view));
	fiber_queue_init(&g->wait);
}

void scribe_fini(struct scribe *g)
{
	free(g->view);
}

void scribe_scribble(struct fiber *f, struct scribe *g, struct image *img, u16 stamp)
{
	u8 buf[EXTENT * 512];

	for (u32 i = 0; i < 40; i++) {
		u64 n = 1 + next_random(&g->seed) % EXTENT;
		u64 sector = next_random(&g->seed) % (SCRIBE_SECTORS - n);

		g->stamp = i == 3 ? 0 : (u16)(stamp + i + 1);
		for (u64 k = 0; k < n; k++) {
			fill(buf + k * 512, g->stamp);
			g->view[0][sector + k] = g->stamp;
		}
		assert_int_equal(g->stamp ? image_pwrite(f, img, sector * 512, buf, n * 512)
					  : image_zero(f, img, sector * 512, n * 512, 0),
				 0);
	}
}

struct request {
	struct blk_req req;
	struct fiber_queue *wait;
	int ret;
};

static void on_done(struct blk_req *req, int ret)
{
	struct request *q = container_of(req, struct request, req);

	q->ret = ret;
	fiber_queue_wake_all(q->wait);
}

static void submit(struct fiber *f, struct scribe *g, struct request *q)
{
	struct fiber_queue wait;

	fiber_queue_init(&wait);
	q->wait = &wait;
	q->ret = 1;
	q->req.done = on_done;
	blk_submit(g->blk, &q->req);
	while (q->ret > 0)
		fiber_queue_wait(f, &wait);
	assert_int_equal(q->ret, 0);
}

/* Every sector at most once in a round: it holds the old value or the new one. */
static void write_round(struct fiber *f, struct scribe *g, u16 *view)
{
	struct request flush = {.req.op = BLK_FLUSH};
	u8 buf[EXTENT * 512];

	for (u64 at = next_random(&g->seed) % 300; at + EXTENT < SCRIBE_SECTORS;) {
		u64 n = 1 + next_random(&g->seed) % EXTENT;
		struct iovec iov = {buf, n * 512};
		struct request q = {
			.req = {.op = BLK_WRITE, .goff = at * 512, .iov = &iov, .niov = 1}};
		bool zero = next_random(&g->seed) % 4 == 0;

		g->stamp = zero ? 0 : (u16)(g->stamp < 5000 ? 5000 : g->stamp + 1);
		for (u64 k = 0; k < n; k++) {
			fill(buf + k * 512, g->stamp);
			view[at + k] = g->stamp;
		}
		if (zero)
			q.req = (struct blk_req){
				.op = BLK_ZERO, .goff = at * 512, .bytes = n * 512};
		submit(f, g, &q);
		if (zero)
			g->stamp = (u16)(5000 + next_random(&g->seed) % 20000);
		at += n + next_random(&g->seed) % 700;
	}
	submit(f, g, &flush);
}

void scribe_read(struct fiber *f, struct scribe *g, u32 times)
{
	u8 buf[EXTENT * 512];

	while (times--) {
		u64 n = 1 + next_random(&g->seed) % EXTENT;
		struct iovec iov = {buf, n * 512};
		struct request q = {
			.req = {.op = BLK_READ,
				.goff = next_random(&g->seed) % (SCRIBE_SECTORS - n) * 512,
				.iov = &iov,
				.niov = 1}};

		submit(f, g, &q);
	}
}

static void scribe_main(struct fiber *f, void *arg)
{
	struct scribe *g = arg;

	while (!g->stop && g->rounds < SCRIBE_ROUNDS) {
		u32 i = g->rounds + 1;

		if (i > SCRIBE_ROUNDS - SCRIBE_KEPT && !g->waited_for) {
			fiber_sleep_ns(f, 10000);
			continue;
		}
		memcpy(g->view[i], g->view[i - 1], sizeof(g->view[0]));
		g->begun[i] = g->log->n;
		write_round(f, g, g->view[i]);
		g->ended[i] = g->log->n;
		g->rounds = i;
	}
	g->over = true;
	fiber_queue_wake_all(&g->wait);
}

void scribe_start(struct fiber *f, struct scribe *g, struct blk *blk)
{
	g->blk = blk;
	assert_int_equal(fiber_spawn(fiber_loop(f), scribe_main, g), 0);
}

void scribe_wait_rounds(struct fiber *f, struct scribe *g, u32 n)
{
	g->waited_for = true;
	for (n += g->rounds; g->rounds < n;) {
		assert_false(g->over);
		fiber_sleep_ns(f, 10000);
	}
	g->waited_for = false;
}

void scribe_stop(struct fiber *f, struct scribe *g)
{
	g->stop = true;
	while (!g->over)
		fiber_queue_wait(f, &g->wait);
}

bool scribe_is_shown(struct fiber *f, const struct scribe *g, struct image *img, size_t events)
{
	AUTO_FREE u8 *data = xalloc(SCRIBE_BYTES);
	u32 k = 0;

	while (k < g->rounds && g->ended[k + 1] <= events)
		k++;
	assert_int_equal(img->bytes, SCRIBE_BYTES);
	assert_int_equal(image_pread(f, img, 0, data, SCRIBE_BYTES), 0);
	for (u32 i = 0; i < SCRIBE_SECTORS; i++) {
		u16 is;

		memcpy(&is, data + i * 512, 2);
		assert_memory_equal(data + i * 512, data + i * 512 + 2, 510);
		if (is != g->view[k][i] && (k == g->rounds || is != g->view[k + 1][i]))
			return false;
	}
	return true;
}

void scribe_check(struct fiber *f, struct image *img, size_t events)
{
	struct check_request req = {0};
	struct error err = {0};

	if (img->driver->check(f, img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("cut after event %zu: %s: %llu corruptions", events, img->name,
			 (unsigned long long)req.result.corruptions);
}
