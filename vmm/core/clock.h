/* Guest time and device timers.
 *
 * Virtual time (ns since the machine was made) stands still while the machine is
 * paused.  Timers fire on the main loop thread; the callback takes its device's
 * lock itself.  A manual clock moves only by clock_advance (tests). */
#ifndef VMM_CORE_CLOCK_H
#define VMM_CORE_CLOCK_H

#include "base/base.h"
#include "base/error.h"
#include "base/loop.h"

struct clock;

int clock_new(struct clock **out, struct loop *loop, struct error *err);
int clock_new_manual(struct clock **out);
void clock_free(struct clock *c);

u64 clock_now(struct clock *c);	  /* virtual ns [any thread] */
void clock_stop(struct clock *c); /* control thread; nestable is not */
void clock_start(struct clock *c);
/* Snapshot load: virtual time becomes this; timers are re-armed by their owners. */
void clock_set(struct clock *c, u64 now);
void clock_advance(struct clock *c, u64 ns); /* manual: fires what comes due, in order */

struct timer {
	struct clock *clock;
	void (*fn)(struct timer *timer);
	u64 due;  /* [clock.lock] virtual ns */
	u32 slot; /* [clock.lock] place in the heap + 1; 0: not armed */
};
void timer_init(struct timer *t, struct clock *c, void (*fn)(struct timer *timer));
void timer_set(struct timer *t, u64 due); /* [any thread]; replaces an earlier time */
/* After this fn does not start; it may be running: check your own state in it. */
void timer_del(struct timer *t);
bool timer_is_armed(struct timer *t, u64 *due);

/* Wall clock of the guest's RTC: seconds since 1970 in the machine's time base. */
struct wall_clock {
	s64 offset_ns; /* guest wall clock minus virtual time */
};
s64 wall_now_ns(const struct wall_clock *w, struct clock *c);

#endif
