/* A drive in memory whose requests complete when the test says so.
 *
 * Implements block/blk.h: link it instead of the real one.  Completions run on the
 * thread that calls fake_blk_step, as they would on a drive's loop. */
#ifndef TESTS_LIB_FAKE_BLK_H
#define TESTS_LIB_FAKE_BLK_H

#include "block/blk.h"

/* Byte n of the disk is fake_blk_byte(n) until written.  bytes 0: no medium. */
struct blk *fake_blk_new(const char *id, u64 bytes);
void fake_blk_free(struct blk *blk); /* nothing may be pending */
static inline u8 fake_blk_byte(u64 n)
{
	return (u8)(n * 7 + (n >> 9) * 31 + (n >> 20));
}

u8 *fake_blk_data(struct blk *blk);
void fake_blk_set_readonly(struct blk *blk, bool readonly);
/* Insert a medium of that many bytes, or (0) take it out: tells the watchers.
 * One of more than 64 MiB has a size, but nothing to read. */
void fake_blk_set_medium(struct blk *blk, u64 bytes);

unsigned fake_blk_pending(struct blk *blk); /* [any thread] */
/* Carry out and complete the oldest request; false: there is none. */
bool fake_blk_step(struct blk *blk);
/* Until nothing is pending, including what completions submit. */
void fake_blk_run(struct blk *blk);
/* The nth request from now (1: the next) fails with ret. */
void fake_blk_fail(struct blk *blk, unsigned nth, int ret);
/* What devices are told to do about it; at first: report. */
void fake_blk_on_error(struct blk *blk, enum blk_on_error action);

/* What was asked: the latest request and counts. */
struct fake_blk_log {
	enum blk_op op;
	u32 flags;
	u64 goff, bytes;
	unsigned niov;
	unsigned count[BLK_ZERO + 1];
};
const struct fake_blk_log *fake_blk_log(struct blk *blk);

#endif
