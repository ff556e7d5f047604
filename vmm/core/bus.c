/* An address space of device registers; see bus.h.
 *
 * Regions may overlap; what the guest sees of them is kept as a flat view: spans
 * in order of address, none overlapping, each showing one region.  Every change
 * builds the view anew, every access is one binary search in it.
 * Thread: any.  `view_lock` guards regions, view and doorbells; it is a leaf like
 * irq.lock, and free while a handler runs.
 * Invariant: the view covers exactly the union of the regions, and each span shows
 * the region of highest priority there. */
#include "vmm/core/bus.h"

#include "base/io.h"
#include "base/list.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>

struct bus_region {
	struct list link; /* [view_lock] */
	struct bus *bus;  /* [const] */
	const char *name; /* [const] */
	u64 addr;	  /* [view_lock] */
	u64 bytes;	  /* [const] */
	int priority;	  /* [const] */
	/* What a handler call needs, copied out by lookups.  [const] */
	struct target {
		const struct bus_ops *ops;
		void *owner;
		struct mutex *lock;
		u8 min_size, max_size;
	} target;
};

struct span {
	u64 start, end; /* end exclusive */
	const struct bus_region *region;
};

struct bus {
	const char *name; /* [const] */
	u64 limit;	  /* [const] */
	pthread_rwlock_t view_lock;
	struct list regions; /* [view_lock] in order of address */
	u32 n_regions;	     /* [view_lock] */
	struct span *view;   /* [view_lock] */
	u32 n_spans;	     /* [view_lock] */
	u32 view_room;	     /* [view_lock] */

	const struct bus_doorbell_ops *bell_ops; /* [const] once devices exist */
	void *bell_arg;				 /* [const] */
	struct bus_doorbell *bells;		 /* [view_lock] in order of address */
	u32 n_bells, bells_room;		 /* [view_lock] */
};

int bus_new(struct bus **out, const char *name, u64 limit)
{
	struct bus *bus = xnew(struct bus);

	assert(limit > 0);
	bus->name = name;
	bus->limit = limit;
	pthread_rwlock_init(&bus->view_lock, NULL);
	list_init(&bus->regions);
	*out = bus;
	return 0;
}

void bus_free(struct bus *bus)
{
	struct list *item;

	if (!bus)
		return;
	while ((item = list_pop(&bus->regions)))
		free(list_entry(item, struct bus_region, link));
	assert(bus->n_bells == 0); /* whoever added them lent us descriptors */
	free(bus->bells);
	free(bus->view);
	pthread_rwlock_destroy(&bus->view_lock);
	free(bus);
}

/* --- the view ----------------------------------------------------------------- */

static struct bus_region *region_of(struct list *item)
{
	return list_entry(item, struct bus_region, link);
}

static void insert_sorted(struct bus *bus, struct bus_region *r)
{
	struct list *at = bus->regions.next;

	while (at != &bus->regions && region_of(at)->addr <= r->addr)
		at = at->next;
	list_append(at, &r->link); /* in front of `at` */
}

static bool overlap(const struct bus_region *a, const struct bus_region *b)
{
	/* Neither end can wrap: both lie below the bus's limit. */
	return a->addr < b->addr + b->bytes && b->addr < a->addr + a->bytes;
}

/* The region that shows at addr; *until is lowered to where that may change. */
static const struct bus_region *region_at(struct bus *bus, u64 addr, u64 *until)
{
	const struct bus_region *best = NULL;

	list_for_each (item, &bus->regions) {
		const struct bus_region *r = region_of(item);

		if (r->addr > addr) {
			*until = MIN(*until, r->addr);
			break; /* sorted: later ones start later still */
		}
		if (r->addr + r->bytes <= addr)
			continue;
		*until = MIN(*until, r->addr + r->bytes);
		if (!best || r->priority > best->priority)
			best = r;
	}
	return best;
}

static void add_span(struct bus *bus, u64 start, u64 end, const struct bus_region *r)
{
	struct span *last = bus->n_spans ? &bus->view[bus->n_spans - 1] : NULL;

	if (last && last->region == r && last->end == start) {
		last->end = end;
		return;
	}
	assert(bus->n_spans < bus->view_room);
	bus->view[bus->n_spans++] = (struct span){start, end, r};
}

static void rebuild_view(struct bus *bus)
{
	u32 room = 2 * bus->n_regions + 1; /* every start and end begins a span at most */
	u64 at = 0;

	if (room > bus->view_room) {
		bus->view = xrealloc(bus->view, room * sizeof(*bus->view));
		bus->view_room = room;
	}
	bus->n_spans = 0;
	while (at < bus->limit) {
		u64 until = bus->limit;
		const struct bus_region *r = region_at(bus, at, &until);

		if (r)
			add_span(bus, at, until, r);
		at = until;
	}
}

/* The first span that ends after addr, or NULL. */
static const struct span *span_after(const struct bus *bus, u64 addr)
{
	u32 low = 0, high = bus->n_spans;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (bus->view[mid].end <= addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low < bus->n_spans ? &bus->view[low] : NULL;
}

/* --- mapping ------------------------------------------------------------------ */

static int check_place(struct bus *bus, const struct bus_region *r)
{
	u64 end;

	if (!r->bytes || !add_ok(r->addr, r->bytes, &end) || end > bus->limit)
		return -EINVAL;
	list_for_each (item, &bus->regions) {
		if (region_of(item)->priority == r->priority && overlap(region_of(item), r))
			return -EBUSY;
	}
	return 0;
}

/* Put a region that is on no list onto the bus; view_lock held for writing. */
static int place_region(struct bus *bus, struct bus_region *r)
{
	int ret = check_place(bus, r);

	if (ret < 0)
		return ret;
	insert_sorted(bus, r);
	bus->n_regions++;
	return 0;
}

int bus_map(struct bus *bus, struct bus_region **out, const struct bus_place *place,
	    const struct bus_ops *ops, void *owner, struct mutex *lock)
{
	struct bus_region *r = xnew(struct bus_region);
	int ret;

	r->bus = bus;
	r->name = place->name;
	r->addr = place->addr;
	r->bytes = place->bytes;
	r->priority = place->priority;
	r->target = (struct target){
		.ops = ops,
		.owner = owner,
		.lock = lock,
		.min_size = ops->min_size ? ops->min_size : 1,
		.max_size = ops->max_size ? ops->max_size : 4,
	};
	assert(is_pow2(r->target.min_size) && is_pow2(r->target.max_size));
	assert(r->target.min_size <= r->target.max_size && r->target.max_size <= 8);
	pthread_rwlock_wrlock(&bus->view_lock);
	ret = place_region(bus, r);
	if (ret == 0)
		rebuild_view(bus);
	pthread_rwlock_unlock(&bus->view_lock);
	if (ret < 0) {
		free(r);
		return ret;
	}
	TRACE(TRACE_BUS, "%s: map %s at 0x%llx", bus->name, r->name, (unsigned long long)r->addr);
	*out = r;
	return 0;
}

void bus_unmap(struct bus_region *r)
{
	struct bus *bus;

	if (!r)
		return;
	bus = r->bus;
	TRACE(TRACE_BUS, "%s: unmap %s", bus->name, r->name);
	pthread_rwlock_wrlock(&bus->view_lock);
	list_del(&r->link);
	bus->n_regions--;
	rebuild_view(bus);
	pthread_rwlock_unlock(&bus->view_lock);
	free(r);
}

int bus_move(struct bus_region *r, u64 addr)
{
	struct bus *bus = r->bus;
	u64 old = r->addr;
	int ret;

	pthread_rwlock_wrlock(&bus->view_lock);
	list_del(&r->link);
	bus->n_regions--;
	r->addr = addr;
	ret = place_region(bus, r);
	if (ret < 0) {
		int back;

		r->addr = old;
		back = place_region(bus, r);
		assert(back == 0);
	}
	rebuild_view(bus);
	pthread_rwlock_unlock(&bus->view_lock);
	return ret;
}

void bus_each(struct bus *bus,
	      void (*fn)(void *arg, const char *name, u64 addr, u64 bytes, int priority), void *arg)
{
	pthread_rwlock_rdlock(&bus->view_lock);
	list_for_each (item, &bus->regions) {
		const struct bus_region *r = region_of(item);

		fn(arg, r->name, r->addr, r->bytes, r->priority);
	}
	pthread_rwlock_unlock(&bus->view_lock);
}

/* --- access ------------------------------------------------------------------- */

/* One handler call: n bytes at off of a region.  A piece is what one lookup finds
 * of an access; without a region it only says how many bytes nobody claims. */
struct piece {
	struct target target;
	u64 off;
	unsigned bytes;
	bool claimed;
};

/* The largest power of two that is at most n. */
static unsigned pow2_floor(unsigned n)
{
	return 1u << (31 - __builtin_clz(n));
}

static void find_piece(struct bus *bus, u64 addr, unsigned bytes, struct piece *out)
{
	const struct span *span = span_after(bus, addr);
	u64 left;

	out->claimed = span && span->start <= addr;
	if (out->claimed) {
		left = span->end - addr;
		out->target = span->region->target;
		out->off = addr - span->region->addr;
		left = MIN(left, out->target.max_size);
		if (bytes < out->target.min_size) /* stay within one of its registers */
			left = MIN(left, out->target.min_size - out->off % out->target.min_size);
	} else {
		left = span ? span->start - addr : bytes;
	}
	out->bytes = left < bytes ? pow2_floor((unsigned)left) : bytes;
}

static u64 ones(unsigned bytes)
{
	return bytes == 8 ? UINT64_MAX : ((u64)1 << (bytes * 8)) - 1;
}

static u64 piece_read(const struct piece *p)
{
	const struct target *t = &p->target;
	u64 off = align_down(p->off, t->min_size), value;
	unsigned size = MAX(p->bytes, (unsigned)t->min_size), shift = 0;

	if (p->bytes < t->min_size)
		shift = (unsigned)(p->off - off) * 8;
	else
		off = p->off;
	if (t->lock)
		mutex_lock(t->lock);
	value = t->ops->read(t->owner, off, size);
	if (t->lock)
		mutex_unlock(t->lock);
	return (value >> shift) & ones(p->bytes);
}

static void piece_write(const struct piece *p, u64 value)
{
	const struct target *t = &p->target;
	u64 off = align_down(p->off, t->min_size);
	unsigned size = MAX(p->bytes, (unsigned)t->min_size), shift = 0;

	if (p->bytes < t->min_size)
		shift = (unsigned)(p->off - off) * 8;
	else
		off = p->off;
	value = (value & ones(p->bytes)) << shift;
	if (t->lock)
		mutex_lock(t->lock);
	t->ops->write(t->owner, off, size, value);
	if (t->lock)
		mutex_unlock(t->lock);
}

bool bus_read(struct bus *bus, u64 addr, unsigned size, u64 *value)
{
	bool claimed = false;
	unsigned done = 0;

	assert(size && size <= 8);
	*value = 0;
	while (done < size) {
		struct piece p;
		u64 part;

		pthread_rwlock_rdlock(&bus->view_lock);
		find_piece(bus, addr + done, size - done, &p);
		pthread_rwlock_unlock(&bus->view_lock);
		part = p.claimed ? piece_read(&p) : ones(p.bytes);
		*value |= part << (done * 8);
		claimed |= p.claimed;
		done += p.bytes;
	}
	TRACE(TRACE_BUS, "%s: read  0x%llx/%u = 0x%llx%s", bus->name, (unsigned long long)addr,
	      size, (unsigned long long)*value, claimed ? "" : " (nobody)");
	return claimed;
}

static bool ring_doorbell(struct bus *bus, u64 addr, unsigned size, u64 value);

bool bus_write(struct bus *bus, u64 addr, unsigned size, u64 value)
{
	bool claimed = false;
	unsigned done = 0;

	assert(size && size <= 8);
	TRACE(TRACE_BUS, "%s: write 0x%llx/%u = 0x%llx", bus->name, (unsigned long long)addr, size,
	      (unsigned long long)value);
	while (done < size) {
		struct piece p;
		bool rang;

		pthread_rwlock_rdlock(&bus->view_lock);
		rang = done == 0 && bus->n_bells && ring_doorbell(bus, addr, size, value);
		if (!rang)
			find_piece(bus, addr + done, size - done, &p);
		pthread_rwlock_unlock(&bus->view_lock);
		if (rang)
			return true;
		if (p.claimed)
			piece_write(&p, value >> (done * 8));
		claimed |= p.claimed;
		done += p.bytes;
	}
	return claimed;
}

/* --- doorbells ---------------------------------------------------------------- */

void bus_set_doorbell_ops(struct bus *bus, const struct bus_doorbell_ops *ops, void *arg)
{
	assert(bus->n_bells == 0);
	bus->bell_ops = ops;
	bus->bell_arg = arg;
}

/* Index of the first doorbell at addr or above. */
static u32 bell_index(const struct bus *bus, u64 addr)
{
	u32 low = 0, high = bus->n_bells;

	while (low < high) {
		u32 mid = (low + high) / 2;

		if (bus->bells[mid].addr < addr)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static bool bell_hears(const struct bus_doorbell *b, unsigned size, u64 value)
{
	if (b->size && b->size != size)
		return false;
	return !b->match || b->value == (value & ones(size));
}

/* With KVM only writes that do not come from a guest instruction arrive here. */
static bool ring_doorbell(struct bus *bus, u64 addr, unsigned size, u64 value)
{
	const u64 one = 1;

	for (u32 i = bell_index(bus, addr); i < bus->n_bells && bus->bells[i].addr == addr; i++) {
		if (!bell_hears(&bus->bells[i], size, value))
			continue;
		(void)sys_write(bus->bells[i].fd, &one, sizeof(one));
		return true;
	}
	return false;
}

/* Would the two fight for the same write?  (KVM refuses such pairs, too.) */
static bool bells_clash(const struct bus_doorbell *a, const struct bus_doorbell *b)
{
	if (a->addr != b->addr || (a->size && b->size && a->size != b->size))
		return false;
	return !a->match || !b->match || a->value == b->value;
}

static int insert_bell(struct bus *bus, const struct bus_doorbell *bell)
{
	u32 at = bell_index(bus, bell->addr);

	for (u32 i = at; i < bus->n_bells && bus->bells[i].addr == bell->addr; i++)
		if (bells_clash(&bus->bells[i], bell))
			return -EEXIST;
	if (bus->n_bells == bus->bells_room) {
		bus->bells_room = bus->bells_room * 2 + 8;
		bus->bells = xrealloc(bus->bells, bus->bells_room * sizeof(*bus->bells));
	}
	memmove(&bus->bells[at + 1], &bus->bells[at], (bus->n_bells - at) * sizeof(*bus->bells));
	bus->bells[at] = *bell;
	bus->n_bells++;
	return 0;
}

static bool same_bell(const struct bus_doorbell *a, const struct bus_doorbell *b)
{
	return a->addr == b->addr && a->size == b->size && a->match == b->match &&
	       (!a->match || a->value == b->value) && a->fd == b->fd;
}

static void remove_bell(struct bus *bus, const struct bus_doorbell *bell)
{
	u32 i = bell_index(bus, bell->addr);

	while (i < bus->n_bells && !same_bell(&bus->bells[i], bell))
		i++;
	assert(i < bus->n_bells);
	bus->n_bells--;
	memmove(&bus->bells[i], &bus->bells[i + 1], (bus->n_bells - i) * sizeof(*bus->bells));
}

int bus_doorbell_add(struct bus *bus, const struct bus_doorbell *bell)
{
	int ret;

	assert(bell->size || !bell->match);
	pthread_rwlock_wrlock(&bus->view_lock);
	ret = insert_bell(bus, bell);
	if (ret == 0 && bus->bell_ops) {
		ret = bus->bell_ops->set(bus->bell_arg, bell, true);
		if (ret < 0)
			remove_bell(bus, bell);
	}
	pthread_rwlock_unlock(&bus->view_lock);
	return ret;
}

void bus_doorbell_del(struct bus *bus, const struct bus_doorbell *bell)
{
	pthread_rwlock_wrlock(&bus->view_lock);
	remove_bell(bus, bell);
	if (bus->bell_ops)
		(void)bus->bell_ops->set(bus->bell_arg, bell, false);
	pthread_rwlock_unlock(&bus->view_lock);
}
