/* Progress (-p, SIGUSR1) and interruption (^C, SIGTERM) of a long subcommand. */
#ifndef BLOCK_IMG_PROGRESS_H
#define BLOCK_IMG_PROGRESS_H

#include "base/loop.h"
#include "block/img/img.h"

#include <signal.h>

struct img_progress {
	struct img *ctx;
	bool shown;	  /* -p: lines on standard output */
	bool interrupted; /* [atomic] somebody wants us to end: stop, clean up, exit 1 */
	double percent, last_shown;
	sigset_t taken, before;
	struct loop_watch watch; /* of the signals, fd < 0: not watched */
};

/* From here to img_progress_end, SIGINT and SIGTERM set `interrupted` (also known as
 * ctx->stop), which the subcommand asks between requests, and SIGUSR1 prints where it
 * is.  Begin before a target is made.  p is the caller's, until the end. */
void img_progress_begin(struct img *ctx, struct img_progress *p, bool show);
/* Begun without lines: they begin here. */
void img_progress_show(struct img_progress *p, bool show);
/* Prints when there is 1 % more to tell. */
void img_progress_set(struct img_progress *p, u64 done, u64 total);
/* ok: all is done, show 100 %. */
void img_progress_end(struct img_progress *p, bool ok);

#endif
