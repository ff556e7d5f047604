/* Fibers that work off tasks; see crew.h. */
#include "block/crew.h"

void crew_init(struct crew *c, unsigned n, void *tasks, size_t task_bytes)
{
	assert(n && n <= CREW_MOST);
	*c = (struct crew){.n = n};
	fiber_queue_init(&c->wait);
	for (unsigned i = 0; i < n; i++) {
		c->hands[i].crew = c;
		c->hands[i].task = (u8 *)tasks + i * task_bytes;
	}
}

struct crew_hand *crew_take(struct fiber *f, struct crew *c)
{
	for (;;) {
		for (unsigned i = 0; i < c->n; i++)
			if (!c->hands[i].busy)
				return &c->hands[i];
		fiber_queue_wait(f, &c->wait);
	}
}

static void hand_main(struct fiber *f, void *arg)
{
	struct crew_hand *hand = arg;

	hand->fn(f, hand);
	hand->busy = false;
	fiber_queue_wake_all(&hand->crew->wait);
}

void crew_start(struct fiber *f, struct crew_hand *hand,
		void (*fn)(struct fiber *f, struct crew_hand *hand))
{
	assert(!hand->busy);
	hand->fn = fn;
	hand->busy = true;
	if (fiber_spawn(fiber_loop(f), hand_main, hand) < 0)
		hand_main(f, hand);
}

void crew_wait(struct fiber *f, struct crew *c)
{
	for (unsigned i = 0; i < c->n; i++)
		while (c->hands[i].busy)
			fiber_queue_wait(f, &c->wait);
}
