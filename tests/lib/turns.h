/* A loop that runs for a while on the test's own thread. */
#ifndef TESTS_LIB_TURNS_H
#define TESTS_LIB_TURNS_H

#include "base/loop.h"
#include "base/thread.h"

#define TURNS 8 /* at least, however late the host lets us run */

struct turns {
	struct loop_timer timer;
	u64 pause_ns;
	unsigned left;
};

static inline void turns_next(struct loop_timer *timer)
{
	struct turns *t = container_of(timer, struct turns, timer);

	/* One turn ends before a timer that is set in it is due. */
	if (t->left--)
		loop_timer_set(timer, now_ns() + t->pause_ns);
	else
		loop_stop(timer->loop);
}

static inline void run_turns(struct loop *loop, unsigned ms)
{
	struct turns t = {.pause_ns = ms * NS_PER_MS / TURNS, .left = TURNS};

	loop_timer_init(loop, &t.timer, turns_next);
	loop_timer_set(&t.timer, now_ns());
	loop_run(loop);
}

#endif
