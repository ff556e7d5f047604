/* Requests of a drive that wait because of its limits (throttle.h): reads and writes
 * each in a row of their own, served by a timer.  Flushes never wait, and nobody does
 * while the machine stops or a device is reset.  Thread: the drive's loop. */
#include "base/thread.h"
#include "block/blk_control.h"
#include "block/blk_internal.h"

#include <errno.h>

/* Those of one row that may go by now; a timer is set for the rest. */
static void serve(struct blk *blk, bool write)
{
	struct list *row = &blk->waiting[write];

	while (!list_empty(row) && !blk->drains) {
		struct blk_req *req = list_entry(row->next, struct blk_req, link);
		u64 now = now_ns(), wait = 0;

		if (blk->limits && !blk->hurries)
			wait = throttle_take(blk->limits, write, req->bytes, now);
		if (wait) {
			loop_timer_set(&blk->timers[write], now + wait);
			return;
		}
		list_del(&req->link);
		blk_go(blk, req);
	}
}

static void reads_due(struct loop_timer *timer)
{
	serve(container_of(timer, struct blk, timers[0]), false);
}

static void writes_due(struct loop_timer *timer)
{
	serve(container_of(timer, struct blk, timers[1]), true);
}

void blk_throttle_init(struct blk *blk)
{
	for (unsigned i = 0; i < 2; i++) {
		list_init(&blk->waiting[i]);
		loop_timer_init(blk->loop, &blk->timers[i], i ? writes_due : reads_due);
	}
}

void blk_throttle_fini(struct blk *blk)
{
	throttle_group_put(blk->limits);
	blk->limits = NULL;
	for (unsigned i = 0; i < 2; i++) {
		assert(list_empty(&blk->waiting[i]));
		loop_timer_del(&blk->timers[i]);
	}
}

bool blk_throttle(struct blk *blk, struct blk_req *req)
{
	bool write = req->op != BLK_READ;

	if (req->op == BLK_FLUSH || blk->hurries)
		return false;
	list_append(&blk->waiting[write], &req->link);
	if (blk->waiting[write].next == &req->link)
		serve(blk, write);
	return true;
}

void blk_throttle_serve(struct blk *blk)
{
	serve(blk, false);
	serve(blk, true);
}

void blk_start_waiting(struct blk *blk)
{
	assert(loop_is_current(blk->loop));
	blk->hurries++;
	blk_throttle_serve(blk);
	blk->hurries--;
}

/* --- from other threads ------------------------------------------------------------- */

static void hurry(void *arg)
{
	struct blk *blk = arg;

	blk->hurries++;
	blk_throttle_serve(blk);
}

static void take_time(void *arg)
{
	struct blk *blk = arg;

	assert(blk->hurries);
	blk->hurries--;
}

void blk_hurry(struct blk *blk, bool on)
{
	loop_call_wait(blk->loop, on ? hurry : take_time, blk);
}

struct limits_call {
	struct blk *blk;
	const struct throttle_limits *set;
	struct throttle_limits *get;
	char *group;
};

static void set_limits(void *arg)
{
	struct limits_call *c = arg;
	struct blk *blk = c->blk;

	if (!throttle_limits_any(c->set)) {
		throttle_group_put(blk->limits);
		blk->limits = NULL;
	} else if (blk->limits) {
		throttle_set(blk->limits, c->set);
	} else {
		blk->limits = throttle_group_new(blk->id, c->set);
	}
	blk_throttle_serve(blk);
}

void blk_set_limits(struct blk *blk, const struct throttle_limits *l)
{
	struct limits_call c = {.blk = blk, .set = l};

	loop_call_wait(blk->loop, set_limits, &c);
}

static void get_limits(void *arg)
{
	struct limits_call *c = arg;

	if (!c->blk->limits)
		return;
	throttle_get(c->blk->limits, c->get);
	c->group = xstrdup(throttle_group_name(c->blk->limits));
}

char *blk_get_limits(struct blk *blk, struct throttle_limits *out)
{
	struct limits_call c = {.blk = blk, .get = out};

	loop_call_wait(blk->loop, get_limits, &c);
	return c.group;
}
