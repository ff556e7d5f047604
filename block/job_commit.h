/* Merging images into one that is behind them: cowimg's commit, and the monitor's.
 *
 * What the top shows and the base does not have goes into the base, which grows
 * when it is shorter.  The top is not changed.  Stopping at any time does no harm:
 * nobody but overlays reads the base, and they have what it got; run it again. */
#ifndef BLOCK_JOB_COMMIT_H
#define BLOCK_JOB_COMMIT_H

#include "block/image.h"

struct commit_job {
	struct image *top, *base; /* base is behind top, and writable */
	u64 rate;		  /* bytes a second; 0: no limit */
	/* Called before each piece; false: stop, with -ECANCELED.  May suspend. */
	bool (*progress)(struct fiber *f, void *arg, u64 done, u64 total);
	/* So many bytes more are being copied; NULL: nobody asks.  May suspend. */
	void (*copied)(struct fiber *f, void *arg, u64 bytes);
	void *arg;
};

/* Copy; the base is durable on return.  Suspends. */
int commit_run(struct fiber *f, struct commit_job *job, struct error *err);

#endif
