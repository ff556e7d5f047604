/* A guest for power-cut tests: it writes to a drive in rounds, each ending in a flush,
 * and knows what the disk shows after each of them.  Thread: the drive's loop. */
#ifndef TESTS_CRASH_SCRIBE_H
#define TESTS_CRASH_SCRIBE_H

#include "block/blk.h"
#include "block/filter.h"
#include "block/image.h"

#define SCRIBE_BYTES   (1280 * KiB)
#define SCRIBE_SECTORS (SCRIBE_BYTES / 512)
#define SCRIBE_ROUNDS  64 /* at most */
#define SCRIBE_KEPT    8  /* of them are written only while somebody waits for rounds */

struct scribe {
	struct blk *blk;
	const struct record_log *log;
	/* What it sees after each of its rounds; [0]: before the first. */
	u16 (*view)[SCRIBE_SECTORS];
	size_t begun[SCRIBE_ROUNDS + 1], ended[SCRIBE_ROUNDS + 1]; /* events */
	u32 rounds;
	bool waited_for, stop, over;
	struct fiber_queue wait;
	u64 seed;
	u16 stamp;
};

void scribe_init(struct scribe *g, const struct record_log *log, u64 seed);
void scribe_fini(struct scribe *g);
/* Before there is a drive: this and that in an image, and so in the first view. */
void scribe_scribble(struct fiber *f, struct scribe *g, struct image *img, u16 stamp);
/* Write, on a fiber of its own, until scribe_stop; rests when nearly all rounds are
 * written, so that slow work beside it neither stops it nor makes a log without end. */
void scribe_start(struct fiber *f, struct scribe *g, struct blk *blk);
/* Read here and there, so often, beside that. */
void scribe_read(struct fiber *f, struct scribe *g, u32 times);
void scribe_wait_rounds(struct fiber *f, struct scribe *g, u32 n);
void scribe_stop(struct fiber *f, struct scribe *g);
/* Does the image show what was flushed after so many events, or writes begun later? */
bool scribe_is_shown(struct fiber *f, const struct scribe *g, struct image *img, size_t events);
/* No corruption; a cut after so many events left it. */
void scribe_check(struct fiber *f, struct image *img, size_t events);

#endif
