/* 4 KiB I/O through a drive: prints operations per second and processor
 * time per operation.  `make bench` runs it beside `qemu-img bench`.
 *
 *	blkbench [-f FORMAT] [-t CACHE] [-i AIO] [-q DEPTH] [-c COUNT] [-s BYTES] [-w] [-S STEP]
 *FILE
 *
 * -w writes.  Places are random, or STEP bytes apart, beginning anew at the end of
 * the disk as the reference's bench does.  Requests are submitted on the
 * drive's own thread, as virtio-blk does.  Output: one line of "name=value". */
#define _GNU_SOURCE
#include "base/log.h"
#include "base/thread.h"
#include "block/blk.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define MAX_DEPTH 256

struct bench;

struct slot {
	struct blk_req req;
	struct iovec iov;
	struct bench *bench;
};

struct bench {
	struct blk *blk;
	u64 count, bytes;
	unsigned depth;
	bool writes;
	u64 step, place; /* step 0: random places */
	/* [loop] */
	u64 started, finished;
	u64 random;
	int error;
	struct fiber *waiter;
	struct slot slots[MAX_DEPTH];
};

struct usage {
	u64 wall_ns, cpu_ns;
};

static u64 timeval_ns(struct timeval tv)
{
	return (u64)tv.tv_sec * NS_PER_SEC + (u64)tv.tv_usec * 1000;
}

static struct usage usage_now(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return (struct usage){now_ns(), timeval_ns(ru.ru_utime) + timeval_ns(ru.ru_stime)};
}

static u64 next_goff(struct bench *b)
{
	u64 blocks = blk_bytes(b->blk) / b->bytes;

	if (b->step) {
		u64 goff = b->place;

		b->place = (goff + b->step) % (blocks * b->bytes);
		return MIN(goff, (blocks - 1) * b->bytes);
	}
	/* xorshift64: good enough to defeat read-ahead. */
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return b->random % blocks * b->bytes;
}

static void submit(struct slot *slot)
{
	struct bench *b = slot->bench;

	b->started++;
	slot->req.op = b->writes ? BLK_WRITE : BLK_READ;
	slot->req.goff = next_goff(b);
	slot->req.iov = &slot->iov;
	slot->req.niov = 1;
	blk_submit(b->blk, &slot->req);
}

static void slot_done(struct blk_req *req, int ret)
{
	struct slot *slot = container_of(req, struct slot, req);
	struct bench *b = slot->bench;

	b->finished++;
	if (ret < 0)
		b->error = ret;
	if (b->started < b->count && !b->error)
		submit(slot);
	else if (b->finished == b->started)
		fiber_wake(b->waiter);
}

static int run(struct fiber *f, struct blk *blk, void *arg)
{
	struct bench *b = arg;

	b->waiter = f;
	for (unsigned i = 0; i < b->depth && b->started < b->count; i++)
		submit(&b->slots[i]);
	while (b->finished < b->started)
		fiber_suspend(f);
	return b->error;
}

static int measure(struct bench *b, struct error *err)
{
	struct usage before, after;
	double seconds;
	int ret;

	for (unsigned i = 0; i < b->depth; i++) {
		struct slot *slot = &b->slots[i];

		slot->bench = b;
		slot->req.done = slot_done;
		slot->iov.iov_base = try_alloc_aligned(b->bytes, 4096);
		slot->iov.iov_len = b->bytes;
		if (!slot->iov.iov_base)
			return err_set(err, -12, "not enough memory");
		memset(slot->iov.iov_base, 0x5a, b->bytes);
	}
	before = usage_now();
	ret = blk_run(b->blk, run, b);
	after = usage_now();
	/* Not counted: the reference's bench does not flush either. */
	if (ret == 0 && b->writes)
		ret = blk_flush_wait(b->blk);
	for (unsigned i = 0; i < b->depth; i++)
		free(b->slots[i].iov.iov_base);
	if (ret < 0)
		return err_set_errno(err, ret, "I/O failed");
	seconds = (double)(after.wall_ns - before.wall_ns) / 1e9;
	printf("operations=%llu seconds=%.3f iops=%.0f cpu_us=%.2f\n",
	       (unsigned long long)b->finished, seconds, (double)b->finished / seconds,
	       (double)(after.cpu_ns - before.cpu_ns) / 1e3 / (double)b->finished);
	return 0;
}

static bool parse(int argc, char **argv, struct bench *b, struct blk_options *opt)
{
	int c;

	while ((c = getopt(argc, argv, "f:t:i:q:c:s:wS:")) != -1) {
		switch (c) {
		case 'f': opt->format = optarg; break;
		case 't': opt->cache = optarg; break;
		case 'i': opt->aio = optarg; break;
		case 'q': b->depth = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'c': b->count = strtoull(optarg, NULL, 0); break;
		case 's': b->bytes = strtoull(optarg, NULL, 0); break;
		case 'w': b->writes = true; break;
		case 'S': b->step = strtoull(optarg, NULL, 0); break;
		default: return false;
		}
	}
	opt->file = argv[optind];
	opt->readonly = !b->writes;
	return is_aligned(b->step, 512) && optind == argc - 1 && b->depth &&
	       b->depth <= MAX_DEPTH && b->bytes >= 512 && is_aligned(b->bytes, 512);
}

int main(int argc, char **argv)
{
	struct bench *b = xnew(struct bench);
	struct blk_options opt = {.id = "bench"};
	struct error err;
	int ret;

	log_set_program("blkbench");
	b->count = 100000;
	b->bytes = 4096;
	b->depth = 1;
	b->random = 88172645463325252ull;
	if (!parse(argc, argv, b, &opt)) {
		fprintf(stderr, "usage: blkbench [-f FORMAT] [-t CACHE] [-i AIO] [-q DEPTH] "
				"[-c COUNT] [-s BYTES] [-w] [-S STEP] FILE\n");
		return 2;
	}
	ret = blk_open(&b->blk, &opt, &err);
	if (ret == 0) {
		if (blk_bytes(b->blk) < b->bytes)
			ret = err_set(&err, -22, "the disk is smaller than one request");
		else
			ret = measure(b, &err);
		blk_close(b->blk);
	}
	if (ret < 0)
		log_error("%s", err.text);
	free(b);
	return ret < 0;
}
