/* A few threads for pure functions (compression, hashing) and stray blocking
 * calls.  Each loop has one, made at first use; threads end when idle for long. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/fiber.h"

/* Run fn(arg) on a pool thread and suspend until it is done; returns its result.
 * Runs it inline when no thread can be had. */
int pool_call(struct fiber *f, int (*fn)(void *arg), void *arg);

#endif
