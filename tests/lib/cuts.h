/* Power cuts over a recorded run: every prefix, and samples of what the disk may have
 * lost or torn at sectors since the last sync.
 *
 * Several files may share the log (filter.h): a sync makes one of them durable, and
 * what was written to different files reaches the disk in any order. */
#ifndef TESTS_LIB_CUTS_H
#define TESTS_LIB_CUTS_H

#include "base/fiber.h"
#include "block/filter.h"
#include "tests/lib/mem_image.h"

#define CUTS_MOST_FILES 4

struct cuts {
	const struct mem_disk *start; /* of each file, before the first event */
	u32 files;		      /* 0: one */
	const struct record_log *log;
	u32 samples; /* of losses, at each moment, beside no loss and as much as can be */
	bool random; /* ... in the place of as much as can be */
	u64 seed;
	/* Judge a disk (or an array of them) as a cut after `events` events could have
	 * left it; it may be changed. */
	void (*judge)(struct fiber *f, struct mem_disk *disks, size_t events, void *arg);
	void *arg;
};

/* How many disks, or arrays, were judged. */
u64 cuts_run(struct fiber *f, const struct cuts *c);
void mem_disk_copy(struct mem_disk *to, const struct mem_disk *from);

#endif
