/* See cuts.h. */
#include "tests/lib/cuts.h"

#define SECTOR 512u
/* Events after the cut that may have been under way. */
#define UNDER_WAY 64u

/* What of the uncertain events is missing: nothing, everything, about half of them, of
 * their sectors, one of them, all but one. */
enum loss { LOSE_NONE, LOSE_ALL, LOSE_SOME, LOSE_SECTORS, LOSE_ONE, KEEP_ONE, LOSS_KINDS };

struct state {
	const struct cuts *c;
	u32 files;
	struct mem_disk durable[CUTS_MOST_FILES]; /* what syncs have made certain */
	struct mem_disk disks[CUTS_MOST_FILES];	  /* what is judged */
	size_t covered[CUTS_MOST_FILES];	  /* events of the file before it are in durable */
	size_t events;
	u64 seed;
};

void mem_disk_copy(struct mem_disk *to, const struct mem_disk *from)
{
	*to = (struct mem_disk){.bytes = from->bytes, .room = from->bytes, .fixed = from->fixed};
	to->data = xalloc(MAX(from->bytes, (u64)1));
	if (from->bytes)
		memcpy(to->data, from->data, from->bytes);
}

static void reach(struct mem_disk *d, u64 end)
{
	if (end > d->room) {
		u64 room = MAX(end, d->room + d->room / 2);

		d->data = xrealloc(d->data, room);
		memset(d->data + d->room, 0, room - d->room);
		d->room = room;
	}
	if (end > d->bytes) {
		memset(d->data + d->bytes, 0, end - d->bytes);
		d->bytes = end;
	}
}

static bool changes(const struct record_event *e, u32 file)
{
	return e->kind != RECORD_SYNC && e->kind != RECORD_MARK && e->file == file;
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
	if (e->kind == RECORD_RESIZE) {
		if (next_random(seed) % 2)
			apply(d, e, 0, 0);
		return;
	}
	for (u64 at = 0, part; at < e->bytes; at += part) {
		part = MIN(SECTOR - ((e->hoff + at) & (SECTOR - 1)), e->bytes - at);
		if (next_random(seed) % 2)
			apply(d, e, at, part);
	}
}

/* Syncs recorded before the cut make what they cover certain. */
static void advance(struct state *s, size_t events)
{
	const struct record_log *log = s->c->log;

	for (; s->events < events; s->events++) {
		const struct record_event *e = &log->events[s->events];
		size_t *covered = &s->covered[e->file];

		if (e->kind != RECORD_SYNC)
			continue;
		for (; *covered < e->issued; (*covered)++)
			if (changes(&log->events[*covered], e->file))
				apply(&s->durable[e->file], &log->events[*covered], 0,
				      log->events[*covered].bytes);
	}
}

/* May it have reached the disk?  Completed since the sync, or under way at the cut. */
static bool is_uncertain(const struct state *s, size_t i, u32 file, enum loss loss)
{
	const struct record_event *e = &s->c->log->events[i];

	if (!changes(e, file))
		return false;
	return i < s->events || (e->issued < s->events && loss != LOSE_NONE);
}

static void apply_uncertain(struct state *s, u32 file, enum loss loss)
{
	size_t end = MIN(s->c->log->n, s->events + UNDER_WAY), n = 0, k = 0, one;

	for (size_t i = s->covered[file]; i < end; i++)
		n += is_uncertain(s, i, file, loss);
	one = n ? next_random(&s->seed) % n : 0;
	for (size_t i = s->covered[file]; i < end; i++) {
		const struct record_event *e = &s->c->log->events[i];

		if (!is_uncertain(s, i, file, loss))
			continue;
		if (loss == LOSE_SECTORS)
			apply_torn(&s->disks[file], e, &s->seed);
		else if (loss == LOSE_NONE || (loss == LOSE_SOME && next_random(&s->seed) % 2) ||
			 (loss == LOSE_ONE && k != one) || (loss == KEEP_ONE && k == one))
			apply(&s->disks[file], e, 0, e->bytes);
		k++;
	}
}

static enum loss some_loss(struct state *s)
{
	return 1 + next_random(&s->seed) % (LOSS_KINDS - 1);
}

/* Of several files each has its own luck, and may have lost nothing. */
static void build(struct state *s, u32 sample)
{
	for (u32 file = 0; file < s->files; file++) {
		enum loss loss = sample == 0 ? LOSE_NONE : LOSE_ALL;
		struct mem_disk *d = &s->disks[file];

		if (sample > 1 || (sample == 1 && s->c->random))
			loss = some_loss(s);
		if (loss != LOSE_NONE && s->files > 1 && next_random(&s->seed) % 3 == 0)
			loss = LOSE_NONE;
		d->bytes = 0;
		reach(d, s->durable[file].bytes);
		if (d->bytes)
			memcpy(d->data, s->durable[file].data, d->bytes);
		apply_uncertain(s, file, loss);
	}
}

u64 cuts_run(struct fiber *f, const struct cuts *c)
{
	struct state s = {.c = c, .files = MAX(c->files, 1u), .seed = c->seed | 1};
	u64 n = 0;

	assert(s.files <= CUTS_MOST_FILES);
	for (u32 i = 0; i < s.files; i++)
		mem_disk_copy(&s.durable[i], &c->start[i]);
	for (size_t events = 0; events <= c->log->n; events++) {
		advance(&s, events);
		for (u32 sample = 0; sample < (c->random ? 1 : 2) + c->samples; sample++) {
			build(&s, sample);
			c->judge(f, s.disks, events, c->arg);
			n++;
		}
	}
	for (u32 i = 0; i < s.files; i++) {
		mem_disk_fini(&s.durable[i]);
		mem_disk_fini(&s.disks[i]);
	}
	return n;
}
