/* Recording a run of writes to a qcow2 image, and the disks that a power cut at
 * any moment of it could leave. */
#ifndef TESTS_CRASH_REPLAY_H
#define TESTS_CRASH_REPLAY_H

#include "base/loop.h"
#include "block/filter.h"
#include "tests/lib/mem_image.h"

#define GUEST_BYTES   (1536 * KiB)
#define SECTOR	      512
#define SECTORS	      (GUEST_BYTES / SECTOR)
#define BACKING_BYTES (1 * MiB)
#define BACKING_STAMP 0xbac0000000000000ull

struct scenario {
	const char *name;
	u32 cluster_bytes, refcount_bits, version;
	bool lazy, backing, discard;
	bool extended; /* subclusters */
	bool aes;      /* encrypted */
	bool pack;     /* compressed writes too */
	bool resize;   /* only corruption is looked for: sizes have no history */
	u32 writes;    /* of each writer */
	u32 samples;   /* reorderings of each prefix */
	u32 images;    /* how many go to qemu-img */
	u64 seed;
};

/* What was written to a sector, oldest first; stamp 0: zeros. */
struct stamp {
	u64 stamp;
	size_t begun, ended; /* events in the log then */
};
struct history {
	struct stamp *stamps;
	u32 n, room;
};
/* A flush that returned: the log when it was asked for, and when it was done. */
struct flushed {
	size_t begun, ended;
};

struct run {
	const struct scenario *s;
	struct mem_disk disk, start, backing;
	struct record_log log;
	struct history sectors[SECTORS];
	struct flushed *flushes;
	u32 nflushes, flush_room;
	struct image *img;
	u64 next_stamp, seed;
	u32 running;
	struct fiber_queue done;
};

/* Make an image, write to it with several fibers, keep the log.  Suspends. */
void run_record(struct fiber *f, struct run *r);
void run_fini(struct run *r);
/* Open the image on a disk; backing as the scenario says. */
int run_open(struct fiber *f, struct run *r, struct mem_disk *disk, bool writable, bool check,
	     struct image **out);

#endif
