/* The recorded run; see replay.h.  Each writer has sectors of its own, in clusters
 * that all of them share, so the history of a sector is a sequence. */
#include "tests/crash/replay.h"

#include "tests/unit/backends.h"

#include "block/qcow2/crypt.h"
#include "block/qcow2/qcow2.h"
#include "block/unlock.h"

#include <errno.h>

#define WRITERS	     5
#define SLOT_SECTORS 3

struct writer {
	struct run *r;
	u32 index;
	u64 seed;
};

static int passphrase(struct fiber *f, void *arg, const struct unlock_question *q, struct key *out,
		      struct error *err)
{
	return key_set(out, "power cut", 9);
}

int run_open(struct fiber *f, struct run *r, struct mem_disk *disk, bool writable, bool check,
	     struct image **out)
{
	const struct unlock_policy unlock = {.when = check ? UNLOCK_NEVER : UNLOCK_NOW,
					     .ask = passphrase};
	struct open_policy policy = {.writable = writable,
				     .check_only = check,
				     .unlock = &unlock,
				     .l2_cache_bytes = 32 * 1024,
				     .discard = r->s->discard};
	struct image *below = mem_image_new(fiber_loop(f), disk);
	struct error err = {0};
	int ret;

	if (writable && !check && disk == &r->disk)
		assert_int_equal(filter_record_new(&below, below, &r->log), 0);
	ret = image_open_over(f, out, "qcow2", below, &policy, &err);
	if (ret < 0) {
		print_message("%s\n", err.text);
		return ret;
	}
	if (r->s->backing && !check) {
		struct open_policy readonly = {0};
		struct image *raw = mem_image_new(fiber_loop(f), &r->backing);

		ret = image_open_over(f, &(*out)->backing, "raw", raw, &readonly, &err);
		assert_int_equal(ret, 0);
	}
	return 0;
}

static void make_backing(struct run *r)
{
	r->backing.bytes = r->backing.room = BACKING_BYTES;
	r->backing.data = xalloc(BACKING_BYTES);
	for (u64 i = 0; i < BACKING_BYTES / 8; i++) {
		u64 stamp = BACKING_STAMP + i / (SECTOR / 8);

		memcpy(r->backing.data + i * 8, &stamp, 8);
	}
}

static void make_image(struct fiber *f, struct run *r)
{
	const struct qcow2_crypt_create aes = {.method = CRYPT_AES};
	struct qcow2_create_options opt = {.bytes = GUEST_BYTES,
					   .crypt = r->s->aes ? &aes : NULL,
					   .version = r->s->version,
					   .cluster_bytes = r->s->cluster_bytes,
					   .refcount_bits = r->s->refcount_bits,
					   .lazy_refcounts = r->s->lazy,
					   .extended_l2 = r->s->extended,
					   .backing_file = r->s->backing ? "backing" : NULL,
					   .backing_format = r->s->backing ? "raw" : NULL};
	struct image *file = mem_image_new(fiber_loop(f), &r->disk);
	struct error err = {0};

	if (r->s->backing)
		make_backing(r);
	assert_int_equal(qcow2_create(f, file, &opt, &err), 0);
	image_close(f, file);
	r->start = r->disk;
	r->start.data = xalloc(r->disk.bytes);
	memcpy(r->start.data, r->disk.data, r->disk.bytes);
	r->start.room = r->start.bytes;
}

/* --- history ------------------------------------------------------------------ */

static void note_begin(struct run *r, u64 sector, u64 n, u64 stamp)
{
	for (u64 i = sector; i < sector + n; i++) {
		struct history *h = &r->sectors[i];

		if (h->n == h->room) {
			h->room = MAX(2 * h->room, 8u);
			h->stamps = xrealloc(h->stamps, h->room * sizeof(*h->stamps));
		}
		h->stamps[h->n++] = (struct stamp){stamp, r->log.n, SIZE_MAX};
	}
}

static void note_end(struct run *r, u64 sector, u64 n)
{
	for (u64 i = sector; i < sector + n; i++)
		r->sectors[i].stamps[r->sectors[i].n - 1].ended = r->log.n;
}

static void do_flush(struct fiber *f, struct run *r)
{
	size_t begun = r->log.n;

	assert_int_equal(image_flush(f, r->img), 0);
	if (r->nflushes == r->flush_room) {
		r->flush_room = MAX(2 * r->flush_room, 64u);
		r->flushes = xrealloc(r->flushes, r->flush_room * sizeof(*r->flushes));
	}
	r->flushes[r->nflushes++] = (struct flushed){begun, r->log.n};
}

static void do_write(struct fiber *f, struct run *r, u64 sector, u64 n)
{
	AUTO_FREE u64 *buf = xalloc(n * SECTOR);
	u64 stamp = ++r->next_stamp;

	for (u64 i = 0; i < n * SECTOR / 8; i++)
		buf[i] = stamp;
	note_begin(r, sector, n, stamp);
	assert_int_equal(image_pwrite(f, r->img, sector * SECTOR, buf, n * SECTOR), 0);
	note_end(r, sector, n);
}

static void do_zero(struct fiber *f, struct run *r, u64 sector, u64 n, bool unmap)
{
	note_begin(r, sector, n, 0);
	assert_int_equal(
		image_zero(f, r->img, sector * SECTOR, n * SECTOR, unmap ? ZERO_MAY_UNMAP : 0), 0);
	note_end(r, sector, n);
}

/* One cluster compressed, by one alone; discarded first, so that it may be. */
static void do_pack(struct fiber *f, struct run *r)
{
	u64 n = r->s->cluster_bytes / SECTOR, stamp = ++r->next_stamp;
	u64 sector = next_random(&r->seed) % (SECTORS / n) * n;
	AUTO_FREE u64 *buf = xalloc(r->s->cluster_bytes);
	struct iovec iov = {buf, r->s->cluster_bytes};

	do_zero(f, r, sector, n, true);
	for (u64 i = 0; i < n * SECTOR / 8; i++)
		buf[i] = i % 64 == 0 || i % 64 == 63 ? stamp : next_random(&r->seed) & 0xffffff;
	note_begin(r, sector, n, stamp);
	assert_int_equal(qcow2_write_compressed(f, r->img, sector * SECTOR, &iov, 1), 0);
	note_end(r, sector, n);
}

/* --- the run ------------------------------------------------------------------ */

static void writer_main(struct fiber *f, void *arg)
{
	struct writer *w = arg;
	struct run *r = w->r;
	u64 slots = SECTORS / SLOT_SECTORS / WRITERS;

	for (u32 i = 0; i < r->s->writes; i++) {
		/* Half of them close together, so clusters are met again. */
		u64 among = next_random(&w->seed) % 2 ? slots : slots / 8;
		u64 slot = next_random(&w->seed) % among * WRITERS + w->index;
		u64 sector = slot * SLOT_SECTORS, dice = next_random(&w->seed) % 40;

		if (dice == 0)
			do_flush(f, r);
		else if (dice < 4)
			do_zero(f, r, sector, SLOT_SECTORS, dice & 1);
		else
			do_write(f, r, sector, next_random(&w->seed) % SLOT_SECTORS + 1);
	}
	r->running--;
	fiber_queue_wake_all(&r->done);
}

static void run_writers(struct fiber *f, struct run *r)
{
	struct writer w[WRITERS];

	r->running = WRITERS;
	for (u32 i = 0; i < WRITERS; i++) {
		w[i] = (struct writer){r, i, next_random(&r->seed) | 1};
		assert_int_equal(fiber_spawn(fiber_loop(f), writer_main, &w[i]), 0);
	}
	while (r->running)
		fiber_queue_wait(f, &r->done);
}

/* Large requests by one alone: whole tables appear and go. */
static void run_large(struct fiber *f, struct run *r)
{
	for (u32 i = 0; i < 6; i++) {
		u64 n = next_random(&r->seed) % (SECTORS / 6) + 1;
		u64 sector = next_random(&r->seed) % (SECTORS - n);

		if (next_random(&r->seed) % 3)
			do_zero(f, r, sector, n, true);
		else
			do_write(f, r, sector, n);
		if (next_random(&r->seed) % 3 == 0)
			do_flush(f, r);
	}
}

/* Up, so that L1 and refcount table move, and down again. */
static void run_resize(struct fiber *f, struct run *r)
{
	const u64 sizes[] = {8 * MiB, GUEST_BYTES + 4096, 4 * MiB, GUEST_BYTES};
	const enum prealloc modes[] = {PREALLOC_OFF, PREALLOC_OFF, PREALLOC_METADATA, PREALLOC_OFF};
	struct error err = {0};

	for (u32 i = 0; i < ARRAY_LEN(sizes); i++) {
		u64 last = sizes[i] - 64 * KiB;
		u8 buf[SECTOR];

		memset(buf, (int)i, sizeof(buf));
		if (image_resize_alloc(f, r->img, sizes[i], modes[i], &err) < 0)
			fail_msg("%s", err.text);
		for (u64 k = 0; k < 16; k++)
			assert_int_equal(image_pwrite(f, r->img, last + k * 4096, buf, SECTOR), 0);
		do_flush(f, r);
	}
}

void run_record(struct fiber *f, struct run *r)
{
	r->seed = r->s->seed;
	fiber_queue_init(&r->done);
	make_image(f, r);
	r->disk.seed = r->seed + 1;
	assert_int_equal(run_open(f, r, &r->disk, true, false, &r->img), 0);
	for (u32 round = 0; round < 3; round++) {
		for (u32 i = 0; r->s->pack && i < 60; i++) {
			do_pack(f, r);
			if (next_random(&r->seed) % 12 == 0)
				do_flush(f, r);
		}
		run_writers(f, r);
		run_large(f, r);
		if (r->s->resize)
			run_resize(f, r);
	}
	assert_int_equal(image_close(f, r->img), 0);
	r->img = NULL;
}

void run_fini(struct run *r)
{
	for (u64 i = 0; i < SECTORS; i++)
		free(r->sectors[i].stamps);
	free(r->flushes);
	record_log_fini(&r->log);
	mem_disk_fini(&r->disk);
	mem_disk_fini(&r->start);
	mem_disk_fini(&r->backing);
}
