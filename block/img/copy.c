/* Copying images; see copy.h.
 *
 * A worker takes the next chunk, reads it, waits for its turn, hands the turn on
 * when its writes are on their way, and waits for them.  So allocation follows
 * guest order while reading, looking for zeros and writing overlap.
 * Thread: the loop's. */
#include "block/img/copy.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"
#include "block/file.h"
#include "block/group.h"
#include "block/img/progress.h"
#include "block/qcow2/qcow2.h"

#include <errno.h>

#define SECTOR_BYTES 512u
#define HEAD_BYTES   (64 * KiB) /* what goes last: boot sector, partition table */

struct worker {
	struct copy *c;
	struct copy_chunk chunk;
	u8 *buf; /* COPY_CHUNK */
};

static int fail(struct copy *c, const char *what, u64 pos, int ret)
{
	if (c->code == IMG_OK)
		c->code = img_error(c->ctx, "error while %s at byte %llu: %s", what,
				    (unsigned long long)pos, strerror(-ret));
	fiber_queue_wake_all(&c->turns);
	return ret;
}

static bool is_stopped(const struct copy *c)
{
	return c->code != IMG_OK || c->progress->interrupted;
}

/* --- reading --------------------------------------------------------------------- */

/* What cannot be read is halved until the bad sectors are found: those become
 * zeros. */
static void salvage(struct fiber *f, struct copy *c, const struct copy_segment *s, u64 pos, u8 *buf)
{
	u64 at = 0, step = s->bytes;

	while (at < s->bytes) {
		u64 bytes = MIN(step, s->bytes - at);
		int ret = image_pread(f, s->owner, s->goff + at, buf + at, bytes);

		if (ret < 0 && bytes > SECTOR_BYTES) {
			step = MAX(align_down(bytes / 2, SECTOR_BYTES), SECTOR_BYTES);
			continue;
		}
		if (ret < 0) {
			memset(buf + at, 0, bytes);
			if (!c->ctx->quiet)
				log_warn("error while reading offset %llu: %s",
					 (unsigned long long)(pos + at), strerror(-ret));
		} else if (is_aligned(at + bytes, 2 * step)) {
			step *= 2;
		}
		at += bytes;
	}
}

static int read_segment(struct fiber *f, struct copy *c, const struct copy_segment *s, u64 pos,
			u8 *buf)
{
	int ret = image_pread(f, s->owner, s->goff, buf, s->bytes);

	if (ret < 0 && c->salvage) {
		salvage(f, c, s, pos, buf);
		return 0;
	}
	return ret;
}

/* Of several data segments, each has a fiber. */
static int read_chunk(struct fiber *f, struct worker *w)
{
	struct copy_chunk *ck = &w->chunk;
	struct image_group group;
	struct iovec iov;
	u64 at = 0;
	int ret = 0, group_ret;

	image_group_init(&group);
	for (unsigned i = 0; i < ck->n && ret == 0; i++) {
		struct copy_segment *s = &ck->segments[i];
		struct image_transfer t = {.fn = image_read,
					   .img = s->owner,
					   .offset = s->goff,
					   .iov = &iov,
					   .n = 1,
					   .bytes = s->bytes};

		iov = (struct iovec){w->buf + at, s->bytes};
		if (s->kind == COPY_ZERO)
			memset(w->buf + at, 0, s->bytes);
		else if (w->c->salvage || i + 1 == ck->n)
			ret = read_segment(f, w->c, s, ck->start + at, w->buf + at);
		else
			image_group_add(f, &group, &t);
		at += s->bytes;
	}
	group_ret = image_group_wait(f, &group);
	return ret < 0 ? ret : group_ret;
}

/* --- writing --------------------------------------------------------------------- */

static void wait_turn(struct fiber *f, struct copy *c, u64 seq)
{
	while (c->in_order && c->turn != seq && !is_stopped(c))
		fiber_queue_wait(f, &c->turns);
}

static void pass_turn(struct copy *c, u64 seq)
{
	if (c->turn == seq)
		c->turn++;
	fiber_queue_wake_all(&c->turns);
}

/* Wait until so much may be written.  Looks around now and then. */
static void wait_rate(struct fiber *f, struct copy *c, u64 bytes)
{
	u64 now = now_ns(), slot = MAX(c->rate_slot_ns, now);

	if (!c->rate)
		return;
	c->rate_slot_ns = slot + (u64)((double)bytes * NS_PER_SEC / (double)c->rate);
	while (now < slot && !is_stopped(c)) {
		fiber_sleep_ns(f, MIN(slot - now, 50 * (u64)NS_PER_MS));
		now = now_ns();
	}
}

/* From `at` on, to the end of what is all zeros or all not, in steps of the size
 * that counts. */
static u64 find_run(const struct worker *w, u64 at, bool *zero)
{
	const struct copy *c = w->c;
	u64 end = w->chunk.start + w->chunk.bytes, pos = w->chunk.start + at;
	u64 step = MIN(MAX(c->sparse_bytes, c->granule), COPY_CHUNK);
	bool first = true;

	*zero = false;
	if (!c->sparse_bytes)
		return w->chunk.bytes;
	while (pos < end) {
		u64 stop = MIN(pos - pos % step + step, end);
		struct iovec iov = {w->buf + (pos - w->chunk.start), stop - pos};
		bool is_zero = iov_is_zero(&iov, 1);

		if (!first && is_zero != *zero)
			break;
		*zero = is_zero;
		first = false;
		pos = stop;
	}
	return pos - w->chunk.start;
}

static int write_zeros(struct fiber *f, struct copy *c, u64 pos, u64 bytes)
{
	if (c->target_is_zero)
		return 0;
	return image_zero(f, c->target, pos, bytes, c->sparse_bytes ? ZERO_MAY_UNMAP : 0);
}

/* The runs of one chunk; the last one of data goes out on this fiber.  The first chunk
 * keeps its turn to the end: it makes tables that the others need, and who came before
 * they are there would take room for the same, so that the file depended on timing. */
static int write_data(struct fiber *f, struct worker *w)
{
	struct copy *c = w->c;
	bool first = w->chunk.seq == 0;
	struct image_transfer t = {
		.fn = c->compress ? qcow2_write_compressed : image_write, .img = c->target, .n = 1};
	struct image_group group;
	struct iovec iov = {w->buf, w->chunk.bytes};
	int ret = 0, group_ret;
	u64 at = 0, end;
	bool zero;

	t.iov = &iov;
	image_group_init(&group);
	while (at < w->chunk.bytes && ret == 0) {
		end = find_run(w, at, &zero);
		t.offset = w->chunk.start + at;
		t.skip = at;
		t.bytes = end - at;
		at = end;
		if (zero) {
			ret = write_zeros(f, c, t.offset, t.bytes);
		} else if (end == w->chunk.bytes && !group.pending) {
			if (!first)
				pass_turn(c, w->chunk.seq);
			ret = image_transfer(f, &t);
		} else {
			image_group_add(f, &group, &t);
		}
	}
	if (c->in_order && group.pending) /* they queue up before the next chunk does */
		fiber_yield(f);
	/* They begin before anybody who is runnable now can take the turn. */
	if (group.pending)
		fiber_yield(f);
	if (!first)
		pass_turn(c, w->chunk.seq);
	group_ret = image_group_wait(f, &group);
	pass_turn(c, w->chunk.seq);
	return ret < 0 ? ret : group_ret;
}

static int write_chunk(struct fiber *f, struct worker *w)
{
	int ret;

	wait_turn(f, w->c, w->chunk.seq);
	if (is_stopped(w->c))
		return 0;
	if (w->chunk.kind == COPY_DATA) {
		wait_rate(f, w->c, w->chunk.bytes);
		return write_data(f, w);
	}
	ret = write_zeros(f, w->c, w->chunk.start, w->chunk.bytes);
	pass_turn(w->c, w->chunk.seq);
	return ret;
}

/* --- copying between files in the kernel ------------------------------------------ */

static int offload_segment(struct fiber *f, struct copy *c, const struct copy_segment *s, u64 pos)
{
	u64 end = pos + s->bytes, hoff = s->hoff;
	struct map_extent to;
	int ret = 0;

	for (; pos < end && ret == 0; pos += to.bytes, hoff += to.bytes) {
		ret = image_map(f, c->target, pos, end - pos, &to);
		if (ret == 0)
			ret = to.kind & MAP_HOFF && !(to.kind & MAP_COMPRESSED)
				      ? file_copy_range(f, s->file, hoff, to.file, to.hoff,
							to.bytes)
				      : -ENOTSUP;
	}
	return ret;
}

/* Only raw targets: others have to allocate.  -ENOTSUP: read and write instead. */
static int offload_chunk(struct fiber *f, struct worker *w)
{
	const struct copy_chunk *ck = &w->chunk;
	u64 pos = ck->start;
	int ret = 0;

	for (unsigned i = 0; i < ck->n && ret == 0; i++) {
		const struct copy_segment *s = &ck->segments[i];

		if (s->kind == COPY_ZERO)
			ret = write_zeros(f, w->c, pos, s->bytes);
		else
			ret = s->file ? offload_segment(f, w->c, s, pos) : -ENOTSUP;
		pos += s->bytes;
	}
	return ret;
}

/* --- workers ----------------------------------------------------------------------- */

static int plan(struct fiber *f, struct worker *w)
{
	struct copy *c = w->c;
	int ret = 0;

	fiber_mutex_lock(f, &c->plan_lock);
	w->chunk.bytes = 0;
	if (!is_stopped(c))
		ret = copy_plan_next(f, c, &w->chunk);
	if (ret < 0)
		fail(c, "reading block status", c->pos, ret);
	else if (w->chunk.bytes)
		w->chunk.seq = c->next_seq++;
	fiber_mutex_unlock(f, &c->plan_lock);
	return ret;
}

static void copy_chunk(struct fiber *f, struct worker *w)
{
	struct copy *c = w->c;
	int ret;

	if (c->offload && w->chunk.kind == COPY_DATA) {
		wait_rate(f, c, w->chunk.bytes);
		ret = is_stopped(c) ? 0 : offload_chunk(f, w);
		pass_turn(c, w->chunk.seq);
		if (ret == 0)
			return;
		c->offload = c->in_order = false; /* turns were passed already */
	}
	ret = w->chunk.kind == COPY_DATA ? read_chunk(f, w) : 0;
	if (ret < 0) {
		fail(c, "reading", w->chunk.start, ret);
		return;
	}
	ret = write_chunk(f, w);
	if (ret < 0)
		fail(c, "writing", w->chunk.start, ret);
}

static void work(struct fiber *f, void *arg)
{
	struct worker *w = arg;
	struct copy *c = w->c;

	while (plan(f, w) == 0 && w->chunk.bytes) {
		copy_chunk(f, w);
		c->done_bytes += w->chunk.bytes;
		img_progress_set(c->progress, c->done_bytes, c->bytes);
	}
	fiber_queue_wake_all(&c->turns);
	c->running--;
	fiber_queue_wake_all(&c->ended);
}

/* Copy [from, to) with all workers. */
static void run_workers(struct copy *c, struct worker *workers, u64 from, u64 to)
{
	struct fiber *f = c->ctx->f;

	c->pos = from;
	c->end = to;
	c->next_seq = c->turn = 0;
	copy_plan_fini(c);
	for (unsigned i = 0; i < c->workers; i++) {
		if (fiber_spawn(fiber_loop(f), work, &workers[i]) == 0)
			c->running++;
		else if (!c->running)
			fail(c, "copying", from, -ENOMEM);
	}
	while (c->running)
		fiber_queue_wait(f, &c->ended);
	copy_plan_fini(c);
}

static void run(struct copy *c, struct worker *workers)
{
	u64 head = c->head_last ? MIN(MAX(HEAD_BYTES, c->granule), c->bytes) : 0;
	int ret = head ? image_zero(c->ctx->f, c->target, 0, head, 0) : 0;

	if (ret < 0) {
		fail(c, "writing", 0, ret);
		return;
	}
	run_workers(c, workers, head, c->bytes);
	if (head && !is_stopped(c))
		run_workers(c, workers, 0, head);
}

int copy_run(struct copy *c)
{
	struct worker workers[COPY_WORKERS] = {0};

	assert(c->workers && c->workers <= COPY_WORKERS && is_pow2(c->granule));
	fiber_mutex_init(&c->plan_lock);
	fiber_queue_init(&c->turns);
	fiber_queue_init(&c->ended);
	c->code = IMG_OK;
	for (unsigned i = 0; i < c->workers; i++) {
		workers[i].c = c;
		workers[i].buf = try_alloc_aligned(COPY_CHUNK, 4096);
		if (!workers[i].buf && c->code == IMG_OK)
			c->code = img_error(c->ctx, "cannot get memory for buffers");
	}
	if (!is_stopped(c))
		run(c, workers);
	for (unsigned i = 0; i < c->workers; i++) {
		free(workers[i].buf);
		free(workers[i].chunk.segments);
	}
	if (c->code == IMG_OK && c->progress->interrupted)
		c->code = img_error(c->ctx, "interrupted: '%s' is not complete", c->target->name);
	return c->code;
}
