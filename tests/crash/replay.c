/* Power cuts: over a recorded run of random writes, every prefix and a sample of
 * its legal reorderings must leave an image without corruption, with every byte
 * that was flushed in place (I1..I5 of block/qcow2/commit.c).
 *
 * The disk may have lost, or torn at sectors, any write that no completed sync
 * covers, and may have got parts of writes that were under way.  Leaked clusters
 * are allowed; an image with lazy refcounts is repaired by opening it first.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/replay.h"

#include "tests/unit/backends.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum loss { LOSE_NONE, LOSE_ALL, LOSE_SOME, LOSE_SECTORS, LOSE_ONE, KEEP_ONE, LOSS_KINDS };

/* A disk as a cut after `events` events could leave it. */
struct cut {
	struct run *r;
	size_t events;
	struct mem_disk durable; /* what syncs before have made certain, as of `covered` */
	size_t covered, applied;
	bool *certain; /* per event */
	struct mem_disk disk;
	u64 seed;
	u8 *guest;
	char folder[64];
	u32 to_show, shown; /* images for qemu-img */
};

static void disk_reach(struct mem_disk *d, u64 end)
{
	if (end > d->room) {
		u64 room = MAX(end, 2 * d->room);

		d->data = xrealloc(d->data, room);
		memset(d->data + d->room, 0, room - d->room);
		d->room = room;
	}
	if (end > d->bytes) {
		memset(d->data + d->bytes, 0, end - d->bytes);
		d->bytes = end;
	}
}

static void apply_part(struct mem_disk *d, const struct record_event *e, u64 skip, u64 bytes)
{
	if (e->kind == RECORD_RESIZE) {
		disk_reach(d, e->bytes);
		d->bytes = e->bytes;
		return;
	}
	disk_reach(d, e->hoff + skip + bytes);
	if (e->kind == RECORD_WRITE)
		memcpy(d->data + e->hoff + skip, e->data + skip, bytes);
	else
		memset(d->data + e->hoff + skip, 0, bytes);
}

static bool changes(const struct record_event *e)
{
	return e->kind == RECORD_WRITE || e->kind == RECORD_ZERO || e->kind == RECORD_DISCARD ||
	       e->kind == RECORD_RESIZE;
}

/* --- what the disk holds --------------------------------------------------------- */

/* Syncs recorded before the cut make what they cover certain. */
static void advance(struct cut *c, size_t events)
{
	struct record_log *log = &c->r->log;

	for (; c->events < events; c->events++) {
		const struct record_event *e = &log->events[c->events];

		if (e->kind != RECORD_SYNC)
			continue;
		for (size_t i = c->covered; i < e->issued; i++)
			if (changes(&log->events[i]))
				apply_part(&c->durable, &log->events[i], 0, log->events[i].bytes);
		c->covered = MAX(c->covered, e->issued);
	}
}

static void apply_torn(struct cut *c, const struct record_event *e)
{
	if (e->kind == RECORD_RESIZE) {
		apply_part(&c->disk, e, 0, 0);
		return;
	}
	for (u64 at = 0, part; at < e->bytes; at += part) {
		part = MIN(SECTOR - ((e->hoff + at) & (SECTOR - 1)), e->bytes - at);
		if (next_random(&c->seed) % 2)
			apply_part(&c->disk, e, at, part);
	}
}

/* Writes that may be lost: completed since, or under way at the cut. */
static void apply_uncertain(struct cut *c, enum loss loss)
{
	struct record_log *log = &c->r->log;
	size_t end = MIN(log->n, c->events + 64), one, n = 0;

	for (size_t i = c->covered; i < end; i++)
		n += changes(&log->events[i]) &&
		     (i < c->events || log->events[i].issued < c->events);
	one = n ? next_random(&c->seed) % n : 0;
	for (size_t i = c->covered, k = 0; i < end; i++) {
		const struct record_event *e = &log->events[i];
		bool under_way = i >= c->events;

		if (!changes(e) || (under_way && (e->issued >= c->events || loss == LOSE_NONE)))
			continue;
		if (loss == LOSE_SECTORS)
			apply_torn(c, e);
		else if (loss == LOSE_NONE || (loss == LOSE_SOME && next_random(&c->seed) % 2) ||
			 (loss == LOSE_ONE && k != one) || (loss == KEEP_ONE && k == one))
			apply_part(&c->disk, e, 0, e->bytes);
		k++;
	}
}

static void build_disk(struct cut *c, enum loss loss)
{
	c->disk.bytes = 0;
	disk_reach(&c->disk, c->durable.bytes);
	memcpy(c->disk.data, c->durable.data, c->durable.bytes);
	apply_uncertain(c, loss);
}

/* --- what must hold --------------------------------------------------------------- */

static void check_disk(struct fiber *f, struct cut *c)
{
	struct check_request req = {0};
	struct error err = {0};
	struct image *img;

	assert_int_equal(run_open(f, c->r, &c->disk, false, true, &img), 0);
	if (img->driver->check(f, img, &req, &err) < 0)
		fail_msg("check: %s", err.text);
	if (req.result.corruptions || req.result.check_errors)
		fail_msg("cut after event %zu: %llu corruptions", c->events,
			 (unsigned long long)req.result.corruptions);
	image_close(f, img);
}

/* May the sector hold this?  Anything from the last write that a completed flush
 * covers on. */
static bool may_hold(const struct run *r, const struct cut *c, u64 sector, u64 stamp,
		     size_t flush_begun)
{
	const struct history *h = &r->sectors[sector];

	for (u32 i = h->n; i--;) {
		if (h->stamps[i].begun > c->events)
			continue;
		if (h->stamps[i].stamp == stamp)
			return true;
		if (h->stamps[i].ended <= flush_begun)
			return false;
	}
	if (r->s->backing && sector * SECTOR < BACKING_BYTES)
		return stamp == BACKING_STAMP + sector;
	return stamp == 0;
}

/* The latest moment before which every completed write is durable. */
static size_t flushed_until(const struct run *r, size_t events)
{
	size_t begun = 0;

	for (u32 i = 0; i < r->nflushes; i++)
		if (r->flushes[i].ended <= events)
			begun = MAX(begun, r->flushes[i].begun);
	return begun;
}

static void verify_guest(struct fiber *f, struct cut *c)
{
	size_t begun = flushed_until(c->r, c->events);
	struct image *img;

	assert_int_equal(run_open(f, c->r, &c->disk, true, false, &img), 0);
	assert_true(img->bytes >= GUEST_BYTES);
	assert_int_equal(image_pread(f, img, 0, c->guest, GUEST_BYTES), 0);
	for (u64 s = 0; s < SECTORS && !c->r->s->resize; s++) {
		u64 stamp, last;

		memcpy(&stamp, c->guest + s * SECTOR, 8);
		memcpy(&last, c->guest + (s + 1) * SECTOR - 8, 8);
		if (stamp != last || !may_hold(c->r, c, s, stamp, begun))
			fail_msg("cut after event %zu: sector %llu holds %llx", c->events,
				 (unsigned long long)s, (unsigned long long)stamp);
	}
	assert_int_equal(image_close(f, img), 0);
}

/* The reference's opinion of the same disk. */
static void show(struct cut *c)
{
	char path[96], command[400];
	int fd, status;

	snprintf(path, sizeof(path), "%s/image", c->folder);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite(fd, c->disk.data, c->disk.bytes, 0), c->disk.bytes);
	close(fd);
	snprintf(command, sizeof(command),
		 "qemu-img check -q --object secret,id=s,data='power cut' --image-opts "
		 "driver=qcow2,%sfile.filename=%s >%s/out 2>&1",
		 c->r->s->aes ? "encrypt.key-secret=s," : "", path, c->folder);
	status = system(command);
	if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 3))
		fail_msg("cut after event %zu: qemu-img check ends with status %d (see %s)",
			 c->events, WEXITSTATUS(status), c->folder);
	c->shown++;
}

static void one_cut(struct fiber *f, struct cut *c, enum loss loss, bool reference)
{
	build_disk(c, loss);
	if (!c->r->s->lazy) {
		check_disk(f, c);
		if (reference)
			show(c);
		verify_guest(f, c);
		return;
	}
	verify_guest(f, c); /* opening repairs */
	check_disk(f, c);
	if (reference)
		show(c);
}

/* --- the test ---------------------------------------------------------------------- */

static void cut_init(struct cut *c, struct run *r)
{
	char backing[96];
	int fd;

	*c = (struct cut){.r = r, .seed = r->s->seed ^ 0x5bd1e995, .guest = xalloc(GUEST_BYTES)};
	disk_reach(&c->durable, r->start.bytes);
	memcpy(c->durable.data, r->start.data, r->start.bytes);
	strcpy(c->folder, "/tmp/crash_replay_XXXXXX");
	assert_non_null(mkdtemp(c->folder));
	if (!r->s->backing)
		return;
	snprintf(backing, sizeof(backing), "%s/backing", c->folder);
	fd = open(backing, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(sys_pwrite(fd, r->backing.data, BACKING_BYTES, 0), BACKING_BYTES);
	close(fd);
}

static void cut_fini(struct cut *c)
{
	static const char *const names[] = {"image", "backing", "out"};
	char path[96];

	for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", c->folder, names[i]);
		unlink(path);
	}
	rmdir(c->folder);
	mem_disk_fini(&c->durable);
	mem_disk_fini(&c->disk);
	free(c->guest);
}

static u32 rounds(void)
{
	const char *text = getenv("COWVM_CRASH_ROUNDS");

	return text && atoi(text) > 0 ? (u32)atoi(text) : 1;
}

static void replay(struct fiber *f, void *arg)
{
	struct run *r = xnew(struct run);
	u64 cuts = 0, every;
	struct cut c;

	r->s = arg;
	run_record(f, r);
	cut_init(&c, r);
	every = (u64)r->log.n * (1 + r->s->samples) / r->s->images + 1;
	for (size_t n = 0; n <= r->log.n; n++) {
		advance(&c, n);
		for (u32 i = 0; i <= r->s->samples; i++) {
			enum loss loss =
				i ? 1 + next_random(&c.seed) % (LOSS_KINDS - 1) : LOSE_NONE;

			one_cut(f, &c, loss, cuts++ % every == 0);
		}
	}
	print_message("%s: %zu events, %llu cuts, %u also checked by qemu-img\n", r->s->name,
		      r->log.n, (unsigned long long)cuts, c.shown);
	assert_true(r->log.n > 500 && c.shown >= r->s->images / 2);
	cut_fini(&c);
	run_fini(r);
	free(r);
}

static void run_scenario(void **state, struct scenario s)
{
	u32 n = rounds();

	for (u32 i = 0; i < n; i++) {
		s.seed = 0x243f6a8885a308d3ull + s.cluster_bytes * 77 + i * 1000003ull;
		if (i)
			s.samples = 8;
		assert_int_equal(loop_run_fiber(*state, replay, &s), 0);
	}
}

static void power_cut_with_large_clusters_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "64 KiB clusters",
					      .cluster_bytes = 65536,
					      .version = 3,
					      .writes = 110,
					      .samples = 1,
					      .images = 60});
}

static void power_cut_with_small_clusters_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "512 byte clusters, 64-bit refcounts",
					      .cluster_bytes = 512,
					      .refcount_bits = 64,
					      .version = 3,
					      .writes = 110,
					      .samples = 1,
					      .images = 60});
}

static void power_cut_over_a_backing_image_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "4 KiB clusters with backing",
					      .cluster_bytes = 4096,
					      .version = 3,
					      .backing = true,
					      .writes = 110,
					      .samples = 1,
					      .images = 60});
}

static void power_cut_of_a_version_2_image_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "version 2, 1 KiB clusters",
					      .cluster_bytes = 1024,
					      .version = 2,
					      .discard = true,
					      .writes = 110,
					      .samples = 1,
					      .images = 60});
}

static void power_cut_with_lazy_refcounts_is_repaired_at_open(void **state)
{
	run_scenario(state, (struct scenario){.name = "lazy refcounts, 4 KiB clusters",
					      .cluster_bytes = 4096,
					      .version = 3,
					      .lazy = true,
					      .writes = 90,
					      .samples = 1,
					      .images = 60});
}

static void power_cut_while_resizing_leaves_no_corruption(void **state)
{
	run_scenario(state, (struct scenario){.name = "resizing, 512 byte clusters",
					      .cluster_bytes = 512,
					      .version = 3,
					      .resize = true,
					      .writes = 30,
					      .samples = 1,
					      .images = 60});
}

static void power_cut_with_subclusters_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "16 KiB clusters of 32 subclusters",
					      .cluster_bytes = 16384,
					      .version = 3,
					      .extended = true,
					      .discard = true,
					      .writes = 110,
					      .samples = 1,
					      .images = 60});
	run_scenario(state, (struct scenario){.name = "subclusters over a backing image",
					      .cluster_bytes = 65536,
					      .version = 3,
					      .extended = true,
					      .backing = true,
					      .writes = 110,
					      .samples = 1,
					      .images = 40});
	run_scenario(state, (struct scenario){.name = "subclusters, lazy refcounts, resizing",
					      .cluster_bytes = 32768,
					      .version = 3,
					      .extended = true,
					      .lazy = true,
					      .resize = true,
					      .writes = 30,
					      .samples = 1,
					      .images = 40});
}

static void power_cut_of_an_encrypted_image_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "legacy AES, 4 KiB clusters",
					      .cluster_bytes = 4096,
					      .version = 3,
					      .aes = true,
					      .discard = true,
					      .writes = 60,
					      .samples = 1,
					      .images = 20});
	run_scenario(state, (struct scenario){.name = "legacy AES over a backing file, 64 KiB",
					      .cluster_bytes = 65536,
					      .version = 3,
					      .aes = true,
					      .backing = true,
					      .writes = 40,
					      .samples = 1,
					      .images = 20});
	run_scenario(state, (struct scenario){.name = "legacy AES, subclusters",
					      .cluster_bytes = 16384,
					      .version = 3,
					      .aes = true,
					      .extended = true,
					      .writes = 40,
					      .samples = 1,
					      .images = 20});
}

static void power_cut_among_compressed_writes_loses_nothing_flushed(void **state)
{
	run_scenario(state, (struct scenario){.name = "compressed, 4 KiB clusters",
					      .cluster_bytes = 4096,
					      .version = 3,
					      .discard = true,
					      .pack = true,
					      .writes = 60,
					      .samples = 1,
					      .images = 60});
	run_scenario(state, (struct scenario){.name = "compressed, version 2, 16 KiB clusters",
					      .cluster_bytes = 16384,
					      .version = 2,
					      .pack = true,
					      .writes = 60,
					      .samples = 1,
					      .images = 60});
	run_scenario(state, (struct scenario){.name = "compressed, lazy refcounts",
					      .cluster_bytes = 1024,
					      .version = 3,
					      .lazy = true,
					      .pack = true,
					      .writes = 50,
					      .samples = 1,
					      .images = 60});
}

#define TESTS(X)                                                                                   \
	X(power_cut_with_large_clusters_loses_nothing_flushed),                                    \
		X(power_cut_with_small_clusters_loses_nothing_flushed),                            \
		X(power_cut_over_a_backing_image_loses_nothing_flushed),                           \
		X(power_cut_of_a_version_2_image_loses_nothing_flushed),                           \
		X(power_cut_with_lazy_refcounts_is_repaired_at_open),                              \
		X(power_cut_of_an_encrypted_image_loses_nothing_flushed),                          \
		X(power_cut_while_resizing_leaves_no_corruption),                                  \
		X(power_cut_with_subclusters_loses_nothing_flushed),                               \
		X(power_cut_among_compressed_writes_loses_nothing_flushed)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0}); /* each repair says so */
	return cmocka_run_group_tests_name("power cuts", tests, NULL, NULL);
}
