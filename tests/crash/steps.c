/* Power cuts among guest writes to images whose data take detours: an external data file,
 * LUKS, bitmaps that follow, subclusters, compressed clusters.  Files are lost
 * independently.  Each step writes a sector at most once and ends in a flush: after
 * a cut every sector is as the step before left it, or as the one under way does.
 * COWVM_CRASH_ROUNDS=N multiplies seeds and samples (make check-crash). */
#include "tests/crash/tool_rig.h"

#include "base/log.h"
#include "block/qcow2/bitmap.h"
#include "block/qcow2/qcow2.h"
#include "block/unlock.h"

#include <stdio.h>

#define STEPS	10
#define WRITERS 3u
#define SECTOR	512u

struct steps {
	struct scenario s;
	const char *options; /* for create */
	bool discard, pack, bitmaps, raw;
	/* The run. */
	u8 *view[STEPS + 1];
	size_t ended[STEPS + 1];
	size_t closing;
	struct rig *rig;
	struct image *img;
	u32 running;
	struct fiber_queue done;
};

struct writer {
	struct steps *t;
	u8 *view;
	u64 at, end, seed; /* sectors that are its own */
	u8 stamp;
};

static struct steps *steps_of(struct rig *r)
{
	return container_of(r->s, struct steps, s);
}

/* --- the run ---------------------------------------------------------------------------- */

static void write_some(struct fiber *f, struct writer *w, u64 at, u64 n)
{
	AUTO_FREE u8 *data = xalloc(n * SECTOR);

	memset(data, w->stamp, n * SECTOR);
	memcpy(w->view + at * SECTOR, data, n * SECTOR);
	assert_int_equal(image_pwrite(f, w->t->img, at * SECTOR, data, n * SECTOR), 0);
}

/* A discarded sector reads as zeros, or keeps what it had: whole clusters go. */
static void zero_some(struct fiber *f, struct writer *w, u64 at, u64 n)
{
	u32 flags = next_random(&w->seed) % 2 && w->t->discard ? ZERO_MAY_UNMAP : 0;

	memset(w->view + at * SECTOR, 0, n * SECTOR);
	assert_int_equal(image_zero(f, w->t->img, at * SECTOR, n * SECTOR, flags), 0);
}

static void writer_main(struct fiber *f, void *arg)
{
	struct writer *w = arg;

	for (u64 n; w->at < w->end; w->at += n + next_random(&w->seed) % 200) {
		n = MIN(next_random(&w->seed) % 60 + 1, w->end - w->at);
		if (next_random(&w->seed) % 4)
			write_some(f, w, w->at, n);
		else
			zero_some(f, w, w->at, n);
	}
	w->t->running--;
	fiber_queue_wake_all(&w->t->done);
}

/* A cluster that is a hole before, compressed. */
static void pack_one(struct fiber *f, struct steps *t, u8 *view, u8 stamp)
{
	u64 bytes = t->s.cluster_bytes, n = t->s.bytes / bytes;
	u64 at = next_random(&t->rig->seed) % n * bytes;
	AUTO_FREE u8 *data = xalloc(bytes);
	struct iovec iov = {data, bytes};
	struct map_extent e;

	assert_int_equal(image_map(f, t->img, at, bytes, &e), 0);
	if (e.kind & MAP_ALLOC || e.bytes < bytes)
		return;
	memset(data, stamp, bytes);
	memcpy(view + at, data, bytes);
	assert_int_equal(qcow2_write_compressed(f, t->img, at, &iov, 1), 0);
}

static void one_step(struct fiber *f, struct steps *t, u32 k)
{
	struct writer w[WRITERS];
	u64 part = t->s.bytes / SECTOR / WRITERS;
	u8 *view = t->view[k];

	memcpy(view, t->view[k - 1], t->s.bytes);
	if (t->pack && k % 2)
		pack_one(f, t, view, (u8)(100 + k));
	t->running = t->pack && k % 2 ? 0 : WRITERS;
	for (u32 i = 0; i < t->running; i++) {
		w[i] = (struct writer){.t = t,
				       .view = view,
				       .end = (i + 1) * part,
				       .seed = next_random(&t->rig->seed) | 1,
				       .stamp = (u8)(k * WRITERS + i + 1)};
		w[i].at = i * part + next_random(&w[i].seed) % 100;
		assert_int_equal(fiber_spawn(fiber_loop(f), writer_main, &w[i]), 0);
	}
	while (t->running)
		fiber_queue_wait(f, &t->done);
	assert_int_equal(image_flush(f, t->img), 0);
	t->ended[k] = t->rig->log.n;
}

/* Half of it is there before, so that writes go in place from the start. */
static void prefill(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	struct steps *t = steps_of(r);
	struct open_policy policy = {.writable = true};
	struct image *img = rig_open(f, r, "image", &policy);

	memset(t->view[0], 0xee, t->s.bytes / 2);
	assert_int_equal(image_pwrite(f, img, 0, t->view[0], t->s.bytes / 2), 0);
	assert_int_equal(image_close(f, img), 0);
}

static void workload(struct fiber *f, void *arg)
{
	struct rig *r = arg;
	struct steps *t = steps_of(r);
	struct open_policy policy = {.writable = true, .discard = t->discard};

	fiber_queue_init(&t->done);
	t->img = rig_open(f, r, "image", &policy);
	for (u32 k = 1; k <= STEPS; k++)
		one_step(f, t, k);
	t->closing = r->log.n;
	assert_int_equal(image_close(f, t->img), 0);
}

/* --- what must hold ---------------------------------------------------------------------- */

/* Who follows writes says that it cannot be believed, until it was stored again. */
static void judge_bitmaps(struct fiber *f, struct rig *r, struct steps *t, bool changed)
{
	AUTO_FREE struct qcow2_bitmap *list = NULL;
	struct open_policy policy = {0};
	struct image *img = rig_open(f, r, "image", &policy);
	u32 n = qcow2_bitmaps_list(img, &list);

	assert_int_equal(n, 2);
	for (u32 i = 0; i < n; i++) {
		if (!strcmp(list[i].name, "still") && (list[i].in_use || list[i].automatic))
			fail_msg("%s: cut after event %zu: the disabled bitmap is lost", r->s->name,
				 r->events);
		if (!strcmp(list[i].name, "auto") && changed && r->events < t->closing &&
		    !list[i].in_use)
			fail_msg("%s: cut after event %zu: data changed and the bitmap is believed",
				 r->s->name, r->events);
	}
	assert_int_equal(image_close(f, img), 0);
}

static void judge(struct fiber *f, void *arg, size_t events)
{
	struct rig *r = arg;
	struct steps *t = steps_of(r);
	u32 k = 0;

	while (k < STEPS && t->ended[k + 1] <= events)
		k++;
	rig_read(f, r, "image", NULL);
	rig_expect(r, t->view[k], k < STEPS ? t->view[k + 1] : NULL, "image", events);
	if (t->bitmaps)
		judge_bitmaps(f, r, t, memcmp(r->now, t->view[0], t->s.bytes) != 0);
	if (!t->raw)
		return;
	memset(r->now, 0, t->s.bytes);
	memcpy(r->now, r->disks[1].data, MIN(r->disks[1].bytes, t->s.bytes));
	rig_expect(r, t->view[k], k < STEPS ? t->view[k + 1] : NULL, "raw data file", events);
}

/* --- the test ---------------------------------------------------------------------------- */

static int passphrase(struct fiber *f, void *arg, const struct unlock_question *q, struct key *out,
		      struct error *err)
{
	return key_set(out, "old", 3);
}

static void run_once(void **state, struct steps *t)
{
	const char *format = t->s.unlock ? "--object secret,id=s,data=old " : "";
	AUTO_FREE char *create =
		xasprintf("create -q -f qcow2 %s-o cluster_size=%u,lazy_refcounts=%s%s @image %llu",
			  format, t->s.cluster_bytes, t->s.lazy ? "on" : "off", t->options,
			  (unsigned long long)t->s.bytes);
	struct rig *r = rig_new(&t->s);

	t->rig = r;
	for (u32 i = 0; i <= STEPS; i++)
		t->view[i] = xalloc(t->s.bytes);
	memset(t->view[0], 0, t->s.bytes);
	rig_run(r, create);
	if (!t->pack)
		assert_int_equal(loop_run_fiber(*state, prefill, r), 0);
	if (t->bitmaps) {
		rig_run(r, "bitmap --add -g 4096 @image auto");
		rig_run(r, "bitmap --add --disable -g 65536 @image still");
	}
	rig_load(r);
	rig_cut_everywhere(r, *state);
	rig_free(r);
	for (u32 i = 0; i <= STEPS; i++)
		free(t->view[i]);
}

/* 64 KiB clusters; in the long form others too. */
static void run(void **state, struct steps t)
{
	static const struct {
		u32 cluster_bytes;
		u64 bytes;
	} shapes[] = {{65536, 1 * MiB}, {512, 256 * KiB}, {2 * MiB, 4 * MiB}, {4096, 512 * KiB}};
	static const struct unlock_policy unlock = {.when = UNLOCK_NOW, .ask = passphrase};
	const char *text = getenv("COWVM_CRASH_ROUNDS"), *name = t.s.name;
	u32 rounds = text && atoi(text) > 0 ? (u32)atoi(text) : 0;
	u32 n = rounds ? MAX(rounds, 2 * (u32)ARRAY_LEN(shapes)) : 1;
	u32 least = strstr(t.options, "extended_l2") ? 16384 : 0;

	if (strstr(t.options, "luks")) {
		t.s.unlock = &unlock;
		t.s.passphrases[0] = "old";
	}
	t.s.files[0] = "image";
	if (strstr(t.options, "data_file"))
		t.s.files[1] = "data";
	t.s.images = 1;
	t.s.workload = workload;
	t.s.judge = judge;
	for (u32 i = 0; i < n; i++) {
		u32 k = i % ARRAY_LEN(shapes);
		AUTO_FREE char *full = NULL;

		t.s.lazy = i / ARRAY_LEN(shapes) % 2;
		t.s.cluster_bytes = MAX(shapes[k].cluster_bytes, least);
		t.s.bytes = shapes[k].bytes;
		t.s.samples = rounds ? 6 : 1;
		if (shapes[k].bytes > 1 * MiB)
			t.s.samples = 1;
		t.s.seed = 0xb8e1afed6a267e96ull + i * 104729ull;
		full = xasprintf("%s, clusters of %u%s", name, t.s.cluster_bytes,
				 t.s.lazy ? ", lazy refcounts" : "");
		t.s.name = full;
		run_once(state, &t);
	}
}

static void power_cut_with_a_data_file_loses_nothing_flushed(void **state)
{
	run(state,
	    (struct steps){.s.name = "data file", .options = ",data_file=@data", .discard = true});
	run(state, (struct steps){.s.name = "raw data file",
				  .options = ",data_file=@data,data_file_raw=on",
				  .raw = true});
}

static void power_cut_with_luks_loses_nothing_flushed(void **state)
{
	run(state, (struct steps){.s.name = "LUKS",
				  .options = ",encrypt.format=luks,encrypt.key-secret=s,"
					     "encrypt.iter-time=1",
				  .discard = true});
}

static void power_cut_with_bitmaps_loses_nothing_flushed(void **state)
{
	run(state, (struct steps){.s.name = "bitmaps", .options = "", .bitmaps = true});
	run(state, (struct steps){.s.name = "bitmaps, data file",
				  .options = ",data_file=@data",
				  .bitmaps = true});
}

static void power_cut_with_subclusters_and_discards_loses_nothing_flushed(void **state)
{
	run(state,
	    (struct steps){.s.name = "subclusters", .options = ",extended_l2=on", .discard = true});
	run(state, (struct steps){.s.name = "subclusters, data file",
				  .options = ",extended_l2=on,data_file=@data",
				  .discard = true});
}

static void power_cut_with_compressed_clusters_loses_nothing_flushed(void **state)
{
	run(state,
	    (struct steps){.s.name = "compressed", .options = "", .pack = true, .discard = true});
	run(state, (struct steps){.s.name = "compressed by zstd",
				  .options = ",compression_type=zstd",
				  .pack = true});
}

#define TESTS(X)                                                                                   \
	X(power_cut_with_a_data_file_loses_nothing_flushed),                                       \
		X(power_cut_with_luks_loses_nothing_flushed),                                      \
		X(power_cut_with_bitmaps_loses_nothing_flushed),                                   \
		X(power_cut_with_subclusters_and_discards_loses_nothing_flushed),                  \
		X(power_cut_with_compressed_clusters_loses_nothing_flushed)

int main(void)
{
	const struct CMUnitTest tests[] = {TESTS(ON_THREADS)};

	log_set_file("/dev/null", &(struct error){0});
	return cmocka_run_group_tests_name("power cuts among steps", tests, NULL, NULL);
}
