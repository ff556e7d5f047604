/* Copy-on-read: what a drive's guest reads from behind the top image goes into it. */
#ifndef BLOCK_COPY_ON_READ_H
#define BLOCK_COPY_ON_READ_H

#include "block/blk.h"

/* Before the read itself, which was checked.  Suspends. */
void copy_on_read(struct fiber *f, struct blk *blk, const struct blk_req *req);

#endif
