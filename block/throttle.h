/* Limits of a drive, or of a group of them, in bytes and requests a second.
 *
 * Each limit is a leaky bucket: what is done fills it, it leaks at the rate allowed,
 * and who comes when it is full waits.  Its size is a tenth of a second's worth, or
 * what a burst may be: `max` a second for `length` seconds.  Thread: any. */
#ifndef BLOCK_THROTTLE_H
#define BLOCK_THROTTLE_H

#include "base/error.h"
#include "base/opts.h"

struct throttle_limit {
	u64 avg, max; /* a second; 0: none */
	u64 length;   /* seconds of a burst, 1 if not said */
};
struct throttle_limits {
	struct throttle_limit bps[3], iops[3]; /* total, read, write */
	u64 iops_size;			       /* bytes that count as one request; 0: any */
};

/* "bps", "iops_rd_max", ... or "throttling.bps-total", "throttling.iops-read-max", ... as
 * -drive has them; "x-bps-total", ... or "limits.bps-total", ... of an object.  Refuses with
 * the reference's words. */
enum throttle_owner { THROTTLE_DRIVE, THROTTLE_OBJECT };
int throttle_limits_parse(struct throttle_limits *l, const struct opts *o,
			  enum throttle_owner owner, struct error *err);
/* Is it one of those names, or a drive's for its group? */
bool throttle_is_option(const char *name, enum throttle_owner owner);
int throttle_limits_check(const struct throttle_limits *l, struct error *err);
bool throttle_limits_any(const struct throttle_limits *l);

struct throttle_group;
struct throttle_group *throttle_group_new(const char *name, const struct throttle_limits *l);
struct throttle_group *throttle_group_ref(struct throttle_group *g);
void throttle_group_put(struct throttle_group *g); /* NULL is fine */
const char *throttle_group_name(const struct throttle_group *g);
void throttle_get(struct throttle_group *g, struct throttle_limits *out);
void throttle_set(struct throttle_group *g, const struct throttle_limits *l);
/* 0: it may go, and counts; else after how many nanoseconds to ask again. */
u64 throttle_take(struct throttle_group *g, bool write, u64 bytes, u64 now_ns);

#endif
