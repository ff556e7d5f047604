/* A few fibers that work off tasks, each with memory of its own.
 *
 * One fiber hands out the tasks, in order; it waits when all hands are busy.
 * Thread: the loop's. */
#ifndef BLOCK_CREW_H
#define BLOCK_CREW_H

#include "base/fiber.h"

#define CREW_MOST 16

struct crew;
struct crew_hand {
	struct crew *crew;
	void (*fn)(struct fiber *f, struct crew_hand *hand);
	void *task; /* the caller's, one for each hand */
	bool busy;
};
struct crew {
	struct crew_hand hands[CREW_MOST];
	unsigned n;
	struct fiber_queue wait;
};

/* n hands; tasks[i] of `task_bytes` belongs to hand i. */
void crew_init(struct crew *c, unsigned n, void *tasks, size_t task_bytes);
/* A hand without work.  Suspends until there is one. */
struct crew_hand *crew_take(struct fiber *f, struct crew *c);
/* Run fn on it, on a fiber of its own or, if there is none to be had, here. */
void crew_start(struct fiber *f, struct crew_hand *hand,
		void (*fn)(struct fiber *f, struct crew_hand *hand));
/* Until all are done.  Suspends. */
void crew_wait(struct fiber *f, struct crew *c);

#endif
