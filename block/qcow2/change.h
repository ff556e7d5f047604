/* Who changes the image, and who wants it to stand still; see change.c.
 * Thread: the image's loop. */
#ifndef BLOCK_QCOW2_CHANGE_H
#define BLOCK_QCOW2_CHANGE_H

#include "block/qcow2/state.h"

/* Around everything that changes the image.  Waits while it is frozen. */
void change_begin(struct fiber *f, struct qcow2 *q);
void change_end(struct qcow2 *q);
/* No change is under way from here on, until the thaw.  Suspends. */
void changes_freeze(struct fiber *f, struct qcow2 *q);
void changes_thaw(struct qcow2 *q);
/* The driver's calls within change_begin and change_end. */
int change_write(struct fiber *f, struct image *img, u64 goff, const struct iovec *iov, unsigned n);
int change_zero(struct fiber *f, struct image *img, u64 goff, u64 bytes, u32 flags);
int change_discard(struct fiber *f, struct image *img, u64 goff, u64 bytes);
int change_resize(struct fiber *f, struct image *img, u64 bytes, enum prealloc mode,
		  struct error *err);
int change_flush(struct fiber *f, struct image *img);

#endif
