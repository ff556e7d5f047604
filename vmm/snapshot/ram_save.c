/* Writing guest memory away while the guest runs; see ram_save.h.
 *
 * A unit goes WAITING -> COPYING -> COPIED, under s->lock.  Whoever makes it COPYING
 * copies it, then lets writes through: nobody writes a unit before it is COPIED.
 *   - workers take runs of waiting units, in order;
 *   - the fault thread takes the unit of a fault, as long as copies of that kind
 *     fit in the budget, or the one who waits must not wait for the disk; else it
 *     makes the unit urgent: a worker takes it next.
 * Copies made by the fault thread queue up for the workers, before all else.
 *
 * Threads: workers, the fault thread (uffd.h), control for all other calls. */
#include "vmm/snapshot/ram_save.h"

#include "base/list.h"
#include "base/thread.h"
#include "vmm/core/uffd.h"
#include "vmm/snapshot/copies.h"

#include <errno.h>
#include <stdio.h>

#define WORKERS	     2
#define BATCH	     16u	/* units: 1 MiB */
#define PROTECT_MOST (16 * MiB) /* at a time: faults in there wait for all of it */

enum unit_state { UNIT_NOT_OURS, UNIT_WAITING, UNIT_COPYING, UNIT_COPIED };

struct ram_save {
	struct ram_save_options opt; /* [const] */
	struct uffd *uffd;	     /* [const] NULL: not live */
	struct mutex lock;
	struct cond changed;  /* early copies came or went */
	u8 *states;	      /* [lock] a unit each; protected before the start: NOT_OURS */
	struct copies copies; /* [lock] their memory */
	struct list early;    /* [lock] struct unit_copy, waiting for a worker */
	u64 *urgent;	      /* [lock] bits of waiting units that come next */
	u64 urgent_n, next;   /* [lock] how many; where workers look for the next run */
	u32 running;	      /* [lock] workers */
	int result;	      /* [lock] the first error */
	u64 *opened;	      /* [lock] bits of units let through before the moment */
	enum { EARLY, AT_THE_MOMENT, STARTED } phase; /* [lock] */
	bool late;		      /* [lock] somebody may wait since the moment */
	struct ram_progress progress; /* [lock] */
	u32 first[RAM_WORKING_SET];   /* [lock] units of the first early writes */
	u32 n_first;		      /* [lock] */
	pthread_t threads[WORKERS];   /* [const] once started */
	u32 n_threads;		      /* [control] */
};

/* --- copying -------------------------------------------------------------------- */

/* The end of a range that is no whole unit is followed by zeros. */
static void copy_unit(const struct ram_save *s, u64 unit, u8 *to)
{
	u64 bytes;
	const u8 *from = ram_unit(s->opt.map, unit, &bytes);

	memcpy(to, from, bytes);
	memset(to + bytes, 0, RAM_UNIT - bytes);
}

/* Units in one range may be written from here on; those who waited go on. */
static void let_through(struct ram_save *s, u64 unit, u64 n)
{
	u64 bytes, last;
	u8 *host = ram_unit(s->opt.map, unit, &bytes);
	u8 *end = ram_unit(s->opt.map, unit + n - 1, &last);

	if (s->uffd)
		(void)uffd_protect(s->uffd, host, (u64)(end - host) + last, false);
}

static void set_states(struct ram_save *s, u64 unit, u64 n, enum unit_state state)
{
	lock_assert(&s->lock);
	memset(s->states + unit, (int)state, n);
}

/* --- faults --------------------------------------------------------------------- */

/* A unit that somebody is about to write.  [fault thread] */
static void copy_early(struct ram_save *s, u64 unit, struct unit_copy *copy)
{
	copy->unit = unit;
	copy_unit(s, unit, copy->data);
	let_through(s, unit, 1);
	LOCK_SCOPE(&s->lock);
	set_states(s, unit, 1, UNIT_COPIED);
	list_append(&s->early, &copy->link);
	cond_broadcast(&s->changed);
}

/* What to do about a fault in a waiting unit: copy it here, to where?  NULL: wait. */
static struct unit_copy *claim_early(struct ram_save *s, u64 unit, u32 thread)
{
	lock_assert(&s->lock);
	s->progress.faults++;
	if (s->n_first < RAM_WORKING_SET)
		s->first[s->n_first++] = (u32)unit;
	if (s->copies.out >= s->opt.early_units && s->opt.may_wait(s->opt.arg, thread)) {
		s->progress.waited++;
		if (!ram_bit(s->urgent, unit)) {
			ram_set_bit(s->urgent, unit);
			s->urgent_n++;
		}
		return NULL;
	}
	set_states(s, unit, 1, UNIT_COPYING);
	return copies_get(&s->copies);
}

/* Before the moment.  Whoever asked may be stopped before he writes: then the unit is
 * open and not dirty, and has to be protected again all the same.  Letting through and
 * noting it are one, or the moment could come between. */
static void too_early(struct ram_save *s, u64 unit)
{
	lock_assert(&s->lock);
	if (s->phase == AT_THE_MOMENT) {
		s->late = true; /* ram_save_start wakes him: he will ask again */
		return;
	}
	ram_set_bit(s->opened, unit);
	let_through(s, unit, 1);
}

static void on_fault(void *arg, u8 *host, bool missing, u32 thread)
{
	struct ram_save *s = arg;
	u64 unit = ram_unit_of(s->opt.map, host);
	struct unit_copy *copy = NULL;
	enum unit_state state;

	assert(unit != UINT64_MAX && !missing);
	mutex_lock(&s->lock);
	state = s->states[unit];
	if (state == UNIT_NOT_OURS && s->phase != STARTED)
		too_early(s, unit);
	else if (state == UNIT_NOT_OURS)
		state = UNIT_COPIED; /* it does not belong to what is saved */
	else if (state == UNIT_WAITING && s->result == 0)
		copy = claim_early(s, unit, thread);
	else if (state == UNIT_WAITING)
		state = UNIT_COPIED; /* nobody will */
	mutex_unlock(&s->lock);
	if (copy)
		copy_early(s, unit, copy);
	else if (state == UNIT_COPIED)
		let_through(s, unit, 1);
}

/* --- workers -------------------------------------------------------------------- */

static bool is_zero(const u8 *p)
{
	return !p[0] && !memcmp(p, p + 1, RAM_UNIT - 1);
}

static int send(struct ram_save *s, const struct ram_batch *batch)
{
	int ret = s->opt.sink(s->opt.arg, batch);

	LOCK_SCOPE(&s->lock);
	s->progress.done += batch->n;
	if (!batch->data)
		s->progress.zeros += batch->n;
	return ret;
}

/* Copied units to the sink, in pieces of data and of zeros. */
static int send_all(struct ram_save *s, u64 unit, u64 n, const u8 *data)
{
	int ret = 0;

	for (u64 i = 0, run; ret == 0 && i < n; i += run) {
		bool zero = is_zero(data + i * RAM_UNIT);
		struct ram_batch batch = {.unit = unit + i};

		for (run = 0; i + run < n; run++) {
			const u8 *p = data + (i + run) * RAM_UNIT;

			if (run && is_zero(p) != zero)
				break;
			s->opt.crcs[unit + i + run] = zero ? 0 : snap_unit_crc(p);
		}
		batch.n = run;
		batch.data = zero ? NULL : data + i * RAM_UNIT;
		ret = send(s, &batch);
	}
	return ret;
}

static struct unit_copy *take_early(struct ram_save *s)
{
	struct list *item;

	lock_assert(&s->lock);
	item = list_pop(&s->early);
	return item ? list_entry(item, struct unit_copy, link) : NULL;
}

/* Claim waiting units that follow one another, urgent ones first; 0: none. */
static u64 claim_run(struct ram_save *s, u64 *unit)
{
	const struct ram_map *map = s->opt.map;
	u64 n;

	lock_assert(&s->lock);
	if (s->urgent_n) {
		u64 at = 0;

		while (ram_next_run(map, s->urgent, &at, 1)) {
			s->urgent[at / 64] &= ~((u64)1 << (at % 64));
			s->urgent_n--;
			if (s->states[at] != UNIT_WAITING)
				continue;
			*unit = at;
			set_states(s, at, 1, UNIT_COPYING);
			return 1;
		}
	}
	while (s->next < map->units && s->states[s->next] != UNIT_WAITING)
		s->next++;
	if (s->next == map->units)
		return 0;
	*unit = s->next;
	n = ram_run_in_range(map, *unit, BATCH);
	for (u64 i = 1; i < n; i++)
		if (s->states[*unit + i] != UNIT_WAITING)
			n = i;
	set_states(s, *unit, n, UNIT_COPYING);
	s->next += n;
	return n;
}

static int save_run(struct ram_save *s, u64 unit, u64 n, u8 *buf)
{
	for (u64 i = 0; i < n; i++)
		copy_unit(s, unit + i, buf + i * RAM_UNIT);
	let_through(s, unit, n);
	mutex_lock(&s->lock);
	set_states(s, unit, n, UNIT_COPIED);
	mutex_unlock(&s->lock);
	return send_all(s, unit, n, buf);
}

static int save_early(struct ram_save *s, struct unit_copy *copy)
{
	int ret = send_all(s, copy->unit, 1, copy->data);

	LOCK_SCOPE(&s->lock);
	copies_put(&s->copies, copy);
	cond_broadcast(&s->changed);
	return ret;
}

/* One piece of work; 1: there is none left. */
static int work_once(struct ram_save *s, u8 *buf)
{
	struct unit_copy *copy = NULL;
	u64 unit = 0, n = 0;
	int ret;

	mutex_lock(&s->lock);
	for (;;) {
		ret = s->result;
		if (ret == 0)
			copy = take_early(s);
		if (ret == 0 && !copy)
			n = claim_run(s, &unit);
		/* The fault thread may be about to queue another one. */
		if (ret < 0 || copy || n || !s->copies.out)
			break;
		cond_wait(&s->changed, &s->lock);
	}
	mutex_unlock(&s->lock);
	if (copy)
		return save_early(s, copy);
	if (n)
		return save_run(s, unit, n, buf);
	return ret < 0 ? ret : 1;
}

static void *worker(void *arg)
{
	struct ram_save *s = arg;
	u8 *buf = try_alloc_aligned(BATCH * RAM_UNIT, 4096);
	int ret = buf ? 0 : -ENOMEM;
	bool last;

	while (ret == 0)
		ret = work_once(s, buf);
	free(buf);
	mutex_lock(&s->lock);
	cond_broadcast(&s->changed);
	if (ret < 0 && s->result == 0)
		s->result = ret;
	last = --s->running == 0;
	mutex_unlock(&s->lock);
	if (last)
		s->opt.done(s->opt.arg);
	return NULL;
}

/* --- control -------------------------------------------------------------------- */

static int watch_ranges(struct ram_save *s, struct error *err)
{
	int ret = ram_can_be_watched(s->opt.map, err);

	if (ret == 0)
		ret = uffd_new(&s->uffd, on_fault, s, err);
	if (ret == 0)
		mem_watch(s->opt.map->mem, true);
	for (u32 i = 0; ret == 0 && i < s->opt.map->n; i++) {
		const struct ram_range *r = &s->opt.map->ranges[i];

		ret = uffd_add(s->uffd, r->host, r->bytes, UFFD_WRITES);
		if (ret < 0)
			err_set_errno(err, ret, "userfaultfd: cannot watch guest memory");
	}
	return ret;
}

int ram_save_new(struct ram_save **out, const struct ram_save_options *opt, struct error *err)
{
	struct ram_save *s = xnew(struct ram_save);
	int ret = 0;

	s->opt = *opt;
	mutex_init(&s->lock);
	cond_init(&s->changed);
	list_init(&s->early);
	copies_init(&s->copies);
	s->states = try_alloc(opt->map->units);
	s->urgent = try_alloc(ram_bitmap_bytes(opt->map));
	s->opened = try_alloc(ram_bitmap_bytes(opt->map));
	if (!s->states || !s->urgent || !s->opened)
		ret = err_set(err, -ENOMEM, "no memory to save guest memory");
	if (ret == 0 && opt->live)
		ret = watch_ranges(s, err);
	if (ret < 0) {
		ram_save_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

void ram_save_free(struct ram_save *s)
{
	struct unit_copy *copy;

	if (!s)
		return;
	ram_save_cancel(s);
	(void)ram_save_wait(s);
	uffd_free(s->uffd); /* whoever waits goes on */
	if (s->uffd)
		mem_watch(s->opt.map->mem, false);
	mutex_lock(&s->lock);
	while ((copy = take_early(s)))
		copies_put(&s->copies, copy);
	mutex_unlock(&s->lock);
	copies_fini(&s->copies);
	cond_fini(&s->changed);
	mutex_fini(&s->lock);
	free(s->opened);
	free(s->urgent);
	free(s->states);
	free(s);
}

int ram_save_protect(struct ram_save *s, const u64 *bits)
{
	u64 most = PROTECT_MOST / RAM_UNIT, n;
	int ret = 0;

	for (u64 at = 0; s->uffd && ret == 0 && (n = ram_next_run(s->opt.map, bits, &at, most));
	     at += n) {
		u64 bytes, last;
		u8 *host = ram_unit(s->opt.map, at, &bytes);
		u8 *end = ram_unit(s->opt.map, at + n - 1, &last);

		ret = uffd_protect(s->uffd, host, (u64)(end - host) + last, true);
	}
	return ret;
}

void ram_save_moment(struct ram_save *s, u64 *opened)
{
	LOCK_SCOPE(&s->lock);
	s->phase = AT_THE_MOMENT;
	for (u64 i = 0; i < ram_bitmap_bytes(s->opt.map) / sizeof(u64); i++)
		opened[i] |= s->opened[i];
}

static void wake_all(struct ram_save *s)
{
	for (u32 i = 0; i < s->opt.map->n; i++)
		(void)uffd_wake(s->uffd, s->opt.map->ranges[i].host, s->opt.map->ranges[i].bytes);
}

int ram_save_start(struct ram_save *s, const u64 *bits, struct error *err)
{
	char name[16];
	int ret = 0;

	LOCK_SCOPE(&s->lock); /* workers do not begin before they are counted */
	for (u64 i = 0; i < s->opt.map->units; i++)
		if (ram_bit(bits, i)) {
			s->states[i] = UNIT_WAITING;
			s->progress.units++;
		}
	while (ret == 0 && s->n_threads < WORKERS) {
		snprintf(name, sizeof(name), "snapshot-%u", s->n_threads);
		ret = thread_start(&s->threads[s->n_threads], name, worker, s, err);
		s->n_threads += ret == 0;
	}
	s->running = s->n_threads;
	s->phase = STARTED;
	if (s->late)
		wake_all(s);
	return s->n_threads ? 0 : ret; /* one will do */
}

void ram_save_cancel(struct ram_save *s)
{
	LOCK_SCOPE(&s->lock);
	if (s->result == 0)
		s->result = -ECANCELED;
	cond_broadcast(&s->changed);
}

int ram_save_wait(struct ram_save *s)
{
	while (s->n_threads > 0)
		pthread_join(s->threads[--s->n_threads], NULL);
	LOCK_SCOPE(&s->lock);
	return s->result;
}

void ram_save_progress(struct ram_save *s, struct ram_progress *out)
{
	LOCK_SCOPE(&s->lock);
	*out = s->progress;
}

u32 ram_save_working_set(struct ram_save *s, u32 *units, u32 room)
{
	LOCK_SCOPE(&s->lock);
	room = MIN(room, s->n_first);
	memcpy(units, s->first, room * sizeof(u32));
	return room;
}
