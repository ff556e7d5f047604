/* See cuts.h. */
#include "tests/lib/cuts.h"

#define SECTOR 512u

void mem_disk_copy(struct mem_disk *to, const struct mem_disk *from)
{
	*to = (struct mem_disk){.bytes = from->bytes, .room = from->bytes, .fixed = from->fixed};
	to->data = xalloc(MAX(from->bytes, (u64)1));
	memcpy(to->data, from->data, from->bytes);
}

static void reach(struct mem_disk *d, u64 end)
{
	if (end > d->room) {
		d->data = xrealloc(d->data, end);
		memset(d->data + d->room, 0, end - d->room);
		d->room = end;
	}
	if (end > d->bytes) {
		memset(d->data + d->bytes, 0, end - d->bytes);
		d->bytes = end;
	}
}

static bool changes(const struct record_event *e)
{
	return e->kind != RECORD_SYNC && e->kind != RECORD_MARK;
}

static void apply(struct mem_disk *d, const struct record_event *e, u64 skip, u64 bytes)
{
	if (e->kind == RECORD_RESIZE) {
		reach(d, e->bytes);
		d->bytes = e->bytes;
		return;
	}
	reach(d, e->hoff + skip + bytes);
	if (e->kind == RECORD_WRITE)
		memcpy(d->data + e->hoff + skip, e->data + skip, bytes);
	else
		memset(d->data + e->hoff + skip, 0, bytes);
}

static void apply_torn(struct mem_disk *d, const struct record_event *e, u64 *seed)
{
	u64 at = 0, part;

	if (e->kind == RECORD_RESIZE) {
		if (next_random(seed) % 2)
			apply(d, e, 0, 0);
		return;
	}
	for (; at < e->bytes; at += part) {
		part = MIN(SECTOR - ((e->hoff + at) & (SECTOR - 1)), e->bytes - at);
		if (next_random(seed) % 2)
			apply(d, e, at, part);
	}
}

/* Events before this one are durable at a cut after `events` events. */
static size_t covered(const struct record_log *log, size_t events)
{
	size_t n = 0;

	for (size_t i = 0; i < events; i++)
		if (log->events[i].kind == RECORD_SYNC)
			n = MAX(n, log->events[i].issued);
	return n;
}

/* sample 0: nothing is lost, 1: everything since the sync, else torn. */
static void build(const struct cuts *c, struct mem_disk *d, size_t events, u32 sample, u64 *seed)
{
	size_t certain = covered(c->log, events);
	size_t end = sample > 1 ? MIN(c->log->n, events + 8) : events;

	mem_disk_copy(d, c->start);
	for (size_t i = 0; i < end; i++) {
		const struct record_event *e = &c->log->events[i];

		if (!changes(e) || (i >= events && e->issued >= events))
			continue;
		if (i < certain || sample == 0)
			apply(d, e, 0, e->bytes);
		else if (sample > 1)
			apply_torn(d, e, seed);
	}
}

u64 cuts_run(struct fiber *f, const struct cuts *c)
{
	u64 seed = c->seed | 1, n = 0;

	for (size_t events = 0; events <= c->log->n; events++) {
		for (u32 sample = 0; sample < 2 + c->samples; sample++) {
			struct mem_disk d;

			build(c, &d, events, sample, &seed);
			c->judge(f, &d, events, c->arg);
			mem_disk_fini(&d);
			n++;
		}
	}
	return n;
}
