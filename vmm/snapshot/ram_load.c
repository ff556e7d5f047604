/* Guest memory that comes in on demand; see ram_load.h.
 *
 * A unit goes MISSING -> LOADING -> THERE, under l->lock.  Whoever makes it LOADING
 * reads it, checks it and puts it in place, all of it before anybody sees a byte.
 * A fault in a unit that is LOADING waits for that by itself; one that comes late, for
 * a page that is there, wakes the one who waits.  Units that are KEPT may have pages that
 * nobody ever touched, and pages may be discarded (mem.h): those are zeros.
 * Throwing memory away takes longer than a guest should stand still: its pages are
 * moved elsewhere (mremap(2), MREMAP_DONTUNMAP), and a thread frees them there, a little
 * at a time: whoever changes address space, or waits for a page, waits for that.
 * Meanwhile the loader reads what the guest will need in its first milliseconds; these
 * staged units are LOADING from the start, and put in place when the memory is ready.
 * Long runs of zeros need no loading at all: they are not watched.
 * Threads: the fault thread (uffd.h), the loader, the sweeper, control. */
#define _GNU_SOURCE /* mremap */
#include "vmm/snapshot/ram_load.h"

#include "base/list.h"
#include "base/thread.h"
#include "vmm/core/uffd.h"

#include <errno.h>
#include <sys/mman.h>

#define PAGE	    4096u
#define BATCH	    16u /* units that the loader reads at once: 1 MiB */
#define FIRST_BATCH 4u	/* of the working set: somebody may wait for one of them */
#define STAGED	    64u /* 4 MiB */
#define STAGE_BYTES (STAGED * RAM_UNIT)
#define MOVE_BYTES  (8 * MiB) /* less than that is thrown away on the spot */
#define TABLE_BYTES (2 * MiB) /* what a page table maps: such pieces move at once */
#define ZERO_RUN    (16 * MiB / RAM_UNIT)
#define SWEEP_BYTES (2 * MiB)
#define SWEEP_AFTER (32 * MiB / RAM_UNIT) /* the guest has gone on by then */

enum unit_state { UNIT_MISSING, UNIT_LOADING, UNIT_THERE, UNIT_KEPT };

/* Address space that memory was moved to. */
struct heap {
	struct list link;
	u8 *host;
	u64 bytes;
};

struct ram_load {
	struct ram_load_options opt; /* [const] */
	struct uffd *uffd;	     /* [const] NULL: not live */
	struct mutex lock;
	u8 *states;			   /* [lock] */
	u64 next;			   /* [lock] where the loader goes on */
	u32 next_first;			   /* [lock] in the working set */
	struct ram_load_progress progress; /* [lock] */
	int result;			   /* [lock] the first error */
	bool ending;			   /* [lock] the loader is to stop */
	u32 *faulted;			   /* [lock] units in order of their first fault */
	u32 n_faulted;			   /* [lock] */
	u8 *fault_buf;			   /* [fault thread] one unit */
	struct list heaps;		   /* [control], then the loader's: struct heap */
	u32 staged[STAGED], n_staged;	   /* [const] units, in the order of the working set */
	int staged_ret[STAGED];		   /* [loader] */
	u8 *stage;			   /* [loader] their memory */
	bool ready;			   /* [lock] units may be put in place */
	struct cond changed;		   /* ready, ending */
	pthread_t thread;
	bool started; /* [control] */
};

static bool is_zero_unit(const struct ram_load *l, u64 unit)
{
	return l->opt.crcs[unit] == 0;
}

/* Is that what was saved? */
static bool is_right(const struct ram_load *l, u64 unit, const u8 *data)
{
	return snap_unit_crc(data) == l->opt.crcs[unit];
}

static int place(struct ram_load *l, u64 unit, const u8 *data)
{
	u64 bytes;
	u8 *host = ram_unit(l->opt.map, unit, &bytes);

	if (!l->uffd) {
		if (data)
			memcpy(host, data, bytes);
		return 0; /* zeros: the memory was thrown away */
	}
	return data ? uffd_fill(l->uffd, host, data, bytes) : uffd_fill_zero(l->uffd, host, bytes);
}

static void now_there(struct ram_load *l, u64 unit, u64 n, int ret)
{
	LOCK_SCOPE(&l->lock);
	memset(l->states + unit, UNIT_THERE, n);
	l->progress.there += n;
	l->progress.read += is_zero_unit(l, unit) ? 0 : n;
	if (ret < 0 && l->result == 0)
		l->result = ret;
}

/* ret < 0: it could not be had.  Such a unit becomes zeros: the guest is stopped, and
 * somebody may wait for it. */
static int settle(struct ram_load *l, u64 unit, const u8 *data, int ret)
{
	int placed;

	if (ret < 0)
		l->opt.failed(l->opt.arg, unit, ret);
	placed = place(l, unit, ret < 0 ? NULL : data);
	return ret < 0 ? ret : placed;
}

/* Read, check and place one or more units that are ours to load. */
static int load_units(struct ram_load *l, u64 unit, u64 n, u8 *buf)
{
	bool zero = n == 1 && is_zero_unit(l, unit);
	int ret = zero ? 0 : l->opt.source(l->opt.arg, unit, n, buf), first = 0;

	if (ret < 0 && n > 1) { /* find out which one it is */
		for (u64 i = 0; i < n; i++) {
			ret = load_units(l, unit + i, 1, buf);
			first = first ? first : ret;
		}
		return first;
	}
	for (u64 i = 0; i < n; i++) {
		const u8 *data = is_zero_unit(l, unit + i) ? NULL : buf + i * RAM_UNIT;
		int one = data ? ret : 0;

		if (data && one == 0 && !is_right(l, unit + i, data))
			one = -EBADMSG;
		one = settle(l, unit + i, data, one);
		first = first ? first : one;
	}
	now_there(l, unit, n, first);
	return first;
}

/* --- faults --------------------------------------------------------------------- */

/* A page that nobody touched before, or that was discarded since; or a late fault. */
static void new_page(struct ram_load *l, u8 *host)
{
	if (uffd_fill_zero(l->uffd, host, PAGE) < 0)
		(void)uffd_wake(l->uffd, host, PAGE); /* it is there */
}

static void on_fault(void *arg, u8 *host, bool missing, u32 thread)
{
	struct ram_load *l = arg;
	u64 unit = ram_unit_of(l->opt.map, host);
	enum unit_state state;

	assert(unit != UINT64_MAX && missing);
	mutex_lock(&l->lock);
	state = l->states[unit];
	if (state == UNIT_MISSING) {
		l->states[unit] = UNIT_LOADING;
		l->faulted[l->n_faulted++] = (u32)unit;
	}
	l->progress.faults++;
	mutex_unlock(&l->lock);
	if (state == UNIT_MISSING)
		(void)load_units(l, unit, 1, l->fault_buf);
	else if (state != UNIT_LOADING)
		new_page(l, host);
}

/* --- before memory is ready ------------------------------------------------------- */

/* What the loader is to have read by the time that the guest goes on. */
static void choose_staged(struct ram_load *l)
{
	/* Its pages come as they are read into, by the loader; large ones, or a fault for
	 * each would take as long as the reading. */
	l->stage =
		mmap(NULL, STAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l->stage == MAP_FAILED)
		l->stage = NULL;
	else
		(void)madvise(l->stage, STAGE_BYTES, MADV_HUGEPAGE);
	for (u32 i = 0; l->stage && i < l->opt.n_first && l->n_staged < STAGED; i++) {
		u32 unit = l->opt.first_units[i];

		if (unit >= l->opt.map->units || l->states[unit] != UNIT_MISSING ||
		    is_zero_unit(l, unit))
			continue;
		l->states[unit] = UNIT_LOADING;
		l->staged[l->n_staged++] = unit;
	}
}

/* Units that follow one another are read at once. */
static void read_staged(struct ram_load *l)
{
	for (u32 at = 0, n; at < l->n_staged; at += n) {
		u8 *buf = l->stage + (u64)at * RAM_UNIT;
		int ret;

		for (n = 1; n < BATCH && at + n < l->n_staged; n++)
			if (l->staged[at + n] != l->staged[at] + n)
				break;
		ret = l->opt.source(l->opt.arg, l->staged[at], n, buf);
		for (u32 i = 0; i < n; i++, buf += RAM_UNIT) {
			int one = ret;

			if (ret < 0 && n > 1)
				one = l->opt.source(l->opt.arg, l->staged[at + i], 1, buf);
			if (one == 0 && !is_right(l, l->staged[at + i], buf))
				one = -EBADMSG;
			l->staged_ret[at + i] = one;
		}
	}
}

static void free_stage(struct ram_load *l)
{
	if (l->stage)
		munmap(l->stage, STAGE_BYTES);
	l->stage = NULL;
}

static void place_staged(struct ram_load *l)
{
	for (u32 i = 0; i < l->n_staged; i++) {
		const u8 *data = l->stage + (u64)i * RAM_UNIT;
		u32 unit = l->staged[i];

		now_there(l, unit, 1, settle(l, unit, data, l->staged_ret[i]));
	}
	free_stage(l);
}

/* False: it never will be. */
static bool wait_until_ready(struct ram_load *l)
{
	LOCK_SCOPE(&l->lock);
	while (!l->ready && !l->ending)
		cond_wait(&l->changed, &l->lock);
	return l->ready;
}

static void set_ready(struct ram_load *l)
{
	LOCK_SCOPE(&l->lock);
	l->ready = true;
	cond_broadcast(&l->changed);
}

/* --- the loader ------------------------------------------------------------------- */

/* The next of the working set that are missing, and follow one another. */
static u64 claim_first(struct ram_load *l, u64 *unit)
{
	const struct ram_map *map = l->opt.map;
	u64 n = 0, most = FIRST_BATCH;

	lock_assert(&l->lock);
	while (l->next_first < l->opt.n_first && n < most) {
		u64 next = l->opt.first_units[l->next_first];
		bool missing = next < map->units && l->states[next] == UNIT_MISSING;

		if (missing && n && (next != *unit + n || is_zero_unit(l, next)))
			break;
		l->next_first++;
		if (!missing)
			continue;
		if (!n++) {
			*unit = next;
			most = is_zero_unit(l, next) ? 1 : ram_run_in_range(map, next, FIRST_BATCH);
		}
		l->states[next] = UNIT_LOADING;
	}
	return n;
}

/* Claim missing units that follow one another, none or all of them of zeros. */
static u64 claim(struct ram_load *l, u64 *unit)
{
	const struct ram_map *map = l->opt.map;
	u64 n, most;

	LOCK_SCOPE(&l->lock);
	if (l->ending)
		return 0;
	n = claim_first(l, unit);
	if (n)
		return n;
	n = 1;
	while (l->next < map->units && l->states[l->next] != UNIT_MISSING)
		l->next++;
	if (l->next == map->units)
		return 0;
	*unit = l->next;
	most = is_zero_unit(l, *unit) ? 1 : ram_run_in_range(map, *unit, BATCH);
	while (n < most && l->states[*unit + n] == UNIT_MISSING && !is_zero_unit(l, *unit + n))
		n++;
	memset(l->states + *unit, UNIT_LOADING, n);
	l->next += n;
	return n;
}

static void free_heap(struct heap *h)
{
	for (u64 at = 0; at < h->bytes; at += SWEEP_BYTES)
		(void)madvise(h->host + at, MIN(SWEEP_BYTES, h->bytes - at), MADV_DONTNEED);
	munmap(h->host, h->bytes);
	free(h);
}

static void *sweeper(void *arg)
{
	struct list *heaps = arg, *item;

	thread_be_nice();
	while ((item = list_pop(heaps)))
		free_heap(list_entry(item, struct heap, link));
	free(heaps);
	return NULL;
}

/* Have what was moved away freed, by a thread that nobody waits for. */
static void sweep(struct ram_load *l)
{
	struct list *heaps;
	struct error err;
	pthread_t thread;

	if (list_empty(&l->heaps))
		return;
	heaps = xnew(struct list);
	list_init(heaps);
	list_splice(heaps, &l->heaps);
	if (thread_start(&thread, "sweeper", sweeper, heaps, &err) < 0)
		sweeper(heaps);
	else
		pthread_detach(thread);
}

static bool has_working_set(struct ram_load *l)
{
	LOCK_SCOPE(&l->lock);
	return l->next_first == l->opt.n_first;
}

static int load_all(struct ram_load *l)
{
	u8 *buf = try_alloc_aligned(BATCH * RAM_UNIT, 4096);
	int ret = buf ? 0 : -ENOMEM, one;
	u64 unit, n, loaded = 0;

	while (buf && (n = claim(l, &unit))) {
		one = load_units(l, unit, n, buf);
		ret = ret ? ret : one;
		loaded += n;
		if (loaded > SWEEP_AFTER && has_working_set(l))
			sweep(l);
	}
	sweep(l);
	free(buf);
	return ret;
}

static void *loader(void *arg)
{
	struct ram_load *l = arg;

	read_staged(l);
	if (!wait_until_ready(l))
		return NULL;
	place_staged(l);
	(void)load_all(l);
	l->opt.done(l->opt.arg);
	return NULL;
}

/* --- control ---------------------------------------------------------------------- */

/* Move pages away, page tables and all; what is left behind is empty.  False: this
 * kernel, or this memory, does not let us. */
static bool move_away(struct ram_load *l, u8 *host, u64 bytes)
{
	u64 room = bytes + TABLE_BYTES;
	u8 *to = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct heap *h;
	u8 *at;

	if (to == MAP_FAILED)
		return false;
	at = to + ((uintptr_t)host - (uintptr_t)to) % TABLE_BYTES;
	if (mremap(host, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, at) ==
	    MAP_FAILED) {
		munmap(to, room);
		return false;
	}
	h = xnew(struct heap);
	*h = (struct heap){.host = to, .bytes = room};
	list_append(&l->heaps, &h->link);
	return true;
}

static int throw_run_away(struct ram_load *l, u64 unit, u64 n)
{
	u64 bytes, last;
	u8 *host = ram_unit(l->opt.map, unit, &bytes);
	int ret;

	bytes = (u64)(ram_unit(l->opt.map, unit + n - 1, &last) - host) + last;
	if (l->opt.map->anonymous && bytes >= MOVE_BYTES && move_away(l, host, bytes))
		return 0;
	ret = ram_empty(l->opt.map, unit, n);
	if (ret == 0 || l->uffd)
		return ret;
	memset(host, 0, bytes);
	return 0;
}

/* Everything but what is kept. */
static int throw_away(struct ram_load *l)
{
	const struct ram_map *map = l->opt.map;
	int ret = 0;

	for (u32 i = 0; l->uffd && ret == 0 && i < map->n; i++)
		ret = uffd_add(l->uffd, map->ranges[i].host, map->ranges[i].bytes, UFFD_MISSING);
	for (u64 at = 0, n; ret == 0 && at < map->units; at += n) {
		u64 most = ram_run_in_range(map, at, UINT64_MAX);

		bool kept = l->states[at] == UNIT_KEPT;

		for (n = 1; n < most && (l->states[at + n] == UNIT_KEPT) == kept; n++)
			;
		if (!kept)
			ret = throw_run_away(l, at, n);
	}
	return ret;
}

/* Zeros are what memory is that nobody watches. */
static int leave_zeros(struct ram_load *l)
{
	const struct ram_map *map = l->opt.map;
	u64 bytes, last;
	int ret = 0;

	for (u64 at = 0, n; ret == 0 && at < map->units; at += n) {
		u64 most = ram_run_in_range(map, at, UINT64_MAX);
		u8 *host = ram_unit(map, at, &bytes);

		for (n = 0;
		     n < most && l->states[at + n] == UNIT_MISSING && is_zero_unit(l, at + n);)
			n++;
		if (n < ZERO_RUN) {
			n = MAX(n, (u64)1);
			continue;
		}
		bytes = (u64)(ram_unit(map, at + n - 1, &last) - host) + last;
		ret = l->uffd ? uffd_remove(l->uffd, host, bytes) : 0;
		memset(l->states + at, UNIT_THERE, n);
		l->progress.there += n;
	}
	return ret;
}

static int prepare(struct ram_load *l, struct error *err)
{
	u64 units = l->progress.units = l->opt.map->units;
	int ret = 0;

	l->states = try_alloc(units);
	l->faulted = try_alloc(units * sizeof(u32));
	l->fault_buf = try_alloc_aligned(RAM_UNIT, 4096);
	if (!l->states || !l->faulted || !l->fault_buf)
		return err_set(err, -ENOMEM, "no memory to load guest memory");
	for (u64 i = 0; l->opt.keep && i < units; i++)
		if (ram_bit(l->opt.keep, i)) {
			l->states[i] = UNIT_KEPT;
			l->progress.there++;
			l->progress.kept++;
		}
	if (l->opt.live)
		ret = ram_can_be_watched(l->opt.map, err);
	if (l->opt.live && ret == 0)
		ret = uffd_new(&l->uffd, on_fault, l, err);
	if (l->uffd)
		mem_watch(l->opt.map->mem, true);
	return ret;
}

int ram_load_start(struct ram_load **out, const struct ram_load_options *opt, struct error *err)
{
	struct ram_load *l = xnew(struct ram_load);
	int ret;

	l->opt = *opt;
	mutex_init(&l->lock);
	cond_init(&l->changed);
	list_init(&l->heaps);
	ret = prepare(l, err);
	if (ret == 0 && opt->live) {
		choose_staged(l);
		ret = thread_start(&l->thread, "loader", loader, l, err);
		l->started = ret == 0;
	}
	if (ret == 0) {
		ret = throw_away(l);
		if (ret == 0)
			ret = leave_zeros(l);
		if (ret < 0)
			err_set_errno(err, ret, "cannot empty guest memory");
	}
	if (ret == 0 && opt->live) {
		set_ready(l);
	} else if (ret == 0) {
		ret = load_all(l);
		if (ret < 0)
			err_set_errno(err, ret, "cannot read guest memory");
	}
	if (ret < 0) {
		ram_load_free(l);
		return ret;
	}
	*out = l;
	return 0;
}

int ram_load_finish(struct ram_load *l)
{
	if (l->started)
		pthread_join(l->thread, NULL);
	l->started = false;
	return ram_load_result(l);
}

int ram_load_result(struct ram_load *l)
{
	LOCK_SCOPE(&l->lock);
	return l->result;
}

static void stop_loader(struct ram_load *l)
{
	mutex_lock(&l->lock);
	l->ending = true;
	cond_broadcast(&l->changed);
	mutex_unlock(&l->lock);
	(void)ram_load_finish(l);
}

void ram_load_give_up(struct ram_load *l, u64 *missing)
{
	stop_loader(l);
	LOCK_SCOPE(&l->lock);
	for (u64 i = 0; i < l->opt.map->units; i++)
		if (l->states[i] < UNIT_THERE)
			ram_set_bit(missing, i);
}

void ram_load_free(struct ram_load *l)
{
	if (!l)
		return;
	stop_loader(l);
	sweep(l); /* if there was no loader */
	uffd_free(l->uffd);
	if (l->uffd)
		mem_watch(l->opt.map->mem, false);
	cond_fini(&l->changed);
	mutex_fini(&l->lock);
	free_stage(l);
	free(l->fault_buf);
	free(l->faulted);
	free(l->states);
	free(l);
}

void ram_load_progress(struct ram_load *l, struct ram_load_progress *out)
{
	LOCK_SCOPE(&l->lock);
	*out = l->progress;
}

u32 ram_load_working_set(struct ram_load *l, u32 *units, u32 room)
{
	LOCK_SCOPE(&l->lock);
	room = MIN(room, l->n_faulted);
	memcpy(units, l->faulted, room * sizeof(u32));
	return room;
}
