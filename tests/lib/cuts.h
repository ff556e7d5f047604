/* Power cuts over a short recorded run: every disk prefix, and samples of what a
 * disk may have lost or torn at sectors since the last sync. */
#ifndef TESTS_LIB_CUTS_H
#define TESTS_LIB_CUTS_H

#include "base/fiber.h"
#include "block/filter.h"
#include "tests/lib/mem_image.h"

struct cuts {
	const struct mem_disk *start; /* before the first event */
	const struct record_log *log;
	u32 samples; /* of torn writes at each moment */
	u64 seed;
	/* Judge a disk as a cut after `events` events could have left it; it may be
	 * changed. */
	void (*judge)(struct fiber *f, struct mem_disk *disk, size_t events, void *arg);
	void *arg;
};

/* How many disks were judged. */
u64 cuts_run(struct fiber *f, const struct cuts *c);
void mem_disk_copy(struct mem_disk *to, const struct mem_disk *from);

#endif
