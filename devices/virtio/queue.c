/* Split virtqueues as the device sees them: virtio 1.2, section 2.7.
 *
 * Runs on the thread that serves the queue.  The driver writes all of this memory
 * at any moment: indices are loaded atomically and once (Q1), descriptors are
 * copied out before they are judged.  Memory order: see each fence. */
#include "devices/virtio/queue.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#define DESC_BYTES    16
#define DESC_NEXT     1
#define DESC_WRITE    2
#define DESC_INDIRECT 4

#define AVAIL_NO_INTERRUPT 1 /* the driver, to us */
#define USED_NO_NOTIFY	   1 /* we, to the driver */

/* Both rings: le16 flags, le16 index, entries, and one le16 for the event index. */
#define RING_FLAGS	0
#define RING_INDEX	2
#define RING_ENTRIES	4
#define AVAIL_ENTRY	2
#define USED_ENTRY	8
#define LEGACY_PAGE	4096
#define CHAIN_MAX_BYTES (4 * GiB)

const struct state_field virtq_state[] = {
	STATE(struct virtq, size),	 STATE(struct virtq, vector),
	STATE(struct virtq, enabled),	 STATE(struct virtq, desc),
	STATE(struct virtq, avail),	 STATE(struct virtq, used),
	STATE(struct virtq, last_avail), STATE(struct virtq, used_next),
	STATE_ARRAY(struct virtq, kept), STATE_END,
};

struct desc {
	u64 addr;
	u32 bytes;
	u16 flags, next;
};

static int fail(struct virtq *q, const char *fmt, ...) PRINTF_LIKE(2, 3);
static int fail(struct virtq *q, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(q->error, sizeof(q->error), fmt, ap);
	va_end(ap);
	q->broken = true;
	return -EINVAL;
}

static u16 load_u16(const u8 *p, int order)
{
	u16 raw;

	__atomic_load((const u16 *)(const void *)p, &raw, order);
	return le16toh(raw);
}

static void store_u16(u8 *p, u16 v, int order)
{
	u16 raw = htole16(v);

	__atomic_store((u16 *)(void *)p, &raw, order);
}

/* The tables may lie at any address in an indirect descriptor, hence memcpy; the
 * barrier keeps the compiler from reading guest memory a second time. */
static struct desc load_desc(const u8 *table, unsigned index)
{
	u8 raw[DESC_BYTES];

	memcpy(raw, table + (size_t)index * DESC_BYTES, sizeof(raw));
	__asm__ volatile("" : : "r"(raw) : "memory");
	return (struct desc){.addr = load_le64(raw),
			     .bytes = load_le32(raw + 8),
			     .flags = load_le16(raw + 12),
			     .next = load_le16(raw + 14)};
}

void virtq_init(struct virtq *q, struct mem *mem, u16 max_size)
{
	assert(is_pow2(max_size) && max_size <= VIRTQ_MAX_SIZE);
	*q = (struct virtq){.mem = mem, .max_size = max_size};
	virtq_reset(q);
}

void virtq_reset(struct virtq *q)
{
	assert(!q->running && !q->in_flight);
	*q = (struct virtq){
		.mem = q->mem, .max_size = q->max_size, .size = q->max_size, .vector = 0xffff};
}

static u64 avail_bytes(const struct virtq *q)
{
	return RING_ENTRIES + (u64)q->size * AVAIL_ENTRY + sizeof(u16);
}

static u64 used_bytes(const struct virtq *q)
{
	return RING_ENTRIES + (u64)q->size * USED_ENTRY + sizeof(u16);
}

void virtq_set_legacy_page(struct virtq *q, u32 page)
{
	assert(!q->running);
	q->desc = (u64)page * LEGACY_PAGE;
	q->avail = q->desc + (u64)q->size * DESC_BYTES;
	q->used = align_up(q->avail + avail_bytes(q), LEGACY_PAGE);
}

static bool any_kept(const struct virtq *q)
{
	u64 bits = 0;

	for (unsigned i = 0; i < ARRAY_LEN(q->kept); i++)
		bits |= q->kept[i];
	return bits;
}

int virtq_start(struct virtq *q, bool indirect, bool event_idx)
{
	assert(!q->running && !q->in_flight);
	q->broken = false;
	if (!is_pow2(q->size) || q->size > q->max_size)
		return fail(q, "queue size is %u, expected a power of two up to %u", q->size,
			    q->max_size);
	if (!is_aligned(q->desc, 16) || !is_aligned(q->avail, 2) || !is_aligned(q->used, 4))
		return fail(q, "rings at 0x%llx 0x%llx 0x%llx are not aligned",
			    (unsigned long long)q->desc, (unsigned long long)q->avail,
			    (unsigned long long)q->used);
	q->desc_host = mem_ptr_rw(q->mem, q->desc, (u64)q->size * DESC_BYTES);
	q->avail_host = mem_ptr_rw(q->mem, q->avail, avail_bytes(q));
	q->used_host = mem_ptr_rw(q->mem, q->used, used_bytes(q));
	if (!q->desc_host || !q->avail_host || !q->used_host)
		return fail(q, "rings at 0x%llx 0x%llx 0x%llx are not in RAM",
			    (unsigned long long)q->desc, (unsigned long long)q->avail,
			    (unsigned long long)q->used);
	q->indirect = indirect;
	q->event_idx = event_idx;
	q->used_published = q->used_next;
	q->retry_at = any_kept(q) ? 0 : q->size;
	q->running = true;
	return 0;
}

void virtq_stop(struct virtq *q)
{
	assert(!q->in_flight && q->used_next == q->used_published);
	q->running = false;
	q->desc_host = q->avail_host = NULL;
	q->used_host = NULL;
}

/* --- taking requests --------------------------------------------------------- */

/* A descriptor's memory, at the end of the chain's vectors.  Readable and writable
 * parts are mapped apart: neighbours of one kind share a vector. */
static int add_memory(struct virtq *q, struct virtq_chain *c, const struct desc *d)
{
	bool writes = d->flags & DESC_WRITE;
	u64 end;

	if (writes && !c->in_bytes)
		c->in = (struct mem_iov){.iov = c->iov + c->out.n, .room = c->room - c->out.n};

	if (!d->bytes)
		return fail(q, "descriptor of no bytes");
	if (!writes && c->in_bytes)
		return fail(q, "readable descriptor after a writable one");
	if (c->out_bytes + c->in_bytes + d->bytes > CHAIN_MAX_BYTES)
		return fail(q, "request of more than 4 GiB");
	if (!add_ok(d->addr, d->bytes, &end) ||
	    mem_map_iov(q->mem, d->addr, d->bytes, writes, writes ? &c->in : &c->out) < 0)
		return fail(q, "buffer at 0x%llx, %u bytes, is not usable memory",
			    (unsigned long long)d->addr, d->bytes);
	*(writes ? &c->in_bytes : &c->out_bytes) += d->bytes;
	return 0;
}

struct walk {
	const u8 *table;
	u32 entries; /* of the table */
	u32 steps;   /* descriptors with memory so far, in both tables */
	bool in_indirect;
};

static int enter_indirect(struct virtq *q, struct walk *w, const struct desc *d)
{
	if (!q->indirect || w->in_indirect)
		return fail(q, "unexpected indirect descriptor");
	if (d->flags & DESC_NEXT)
		return fail(q, "indirect descriptor with a next one");
	if (!d->bytes || d->bytes % DESC_BYTES)
		return fail(q, "indirect table of %u bytes", d->bytes);
	w->entries = d->bytes / DESC_BYTES;
	if (w->entries > q->max_size)
		return fail(q, "indirect table of %u descriptors, expected up to %u", w->entries,
			    q->max_size);
	w->table = mem_ptr_ro(q->mem, d->addr, d->bytes);
	if (!w->table)
		return fail(q, "indirect table at 0x%llx is not in memory",
			    (unsigned long long)d->addr);
	w->in_indirect = true;
	return 0;
}

/* Follow the chain.  A loop is noticed by its length: `steps` never exceeds the
 * entries of both tables. */
static int walk_chain(struct virtq *q, struct virtq_chain *c)
{
	struct walk w = {.table = q->desc_host, .entries = q->size};
	u32 i = c->head;
	int ret;

	for (;;) {
		struct desc d;

		if (i >= w.entries)
			return fail(q, "descriptor %u in a table of %u", i, w.entries);
		d = load_desc(w.table, i);
		if (d.flags & DESC_INDIRECT) {
			ret = enter_indirect(q, &w, &d);
			if (ret < 0)
				return ret;
			i = 0;
			continue;
		}
		if (++w.steps > q->max_size)
			return fail(q, "chain of more than %u descriptors", q->max_size);
		ret = add_memory(q, c, &d);
		if (ret < 0)
			return ret;
		if (!(d.flags & DESC_NEXT))
			return 1;
		i = d.next;
	}
}

/* Acquire: the entry and the descriptors are read after the index that covers them. */
static u16 pending(const struct virtq *q)
{
	return (u16)(load_u16(q->avail_host + RING_INDEX, __ATOMIC_ACQUIRE) - q->last_avail);
}

static int pop_head(struct virtq *q, struct virtq_chain *c, u16 head)
{
	int ret;

	c->out = (struct mem_iov){.iov = c->iov, .room = c->room};
	c->in = (struct mem_iov){.iov = c->iov};
	c->out_bytes = c->in_bytes = 0;
	c->head = head;
	ret = walk_chain(q, c);
	if (ret > 0)
		q->in_flight++;
	return ret;
}

/* Each kept one once; what is kept meanwhile waits for the next start.  The driver may
 * have changed its descriptors: they are judged like any. */
static int pop_kept(struct virtq *q, struct virtq_chain *c)
{
	while (q->retry_at < q->size) {
		u16 head = q->retry_at++;

		if (!(q->kept[head / 64] >> (head % 64) & 1))
			continue;
		q->kept[head / 64] &= ~((u64)1 << (head % 64));
		return pop_head(q, c, head);
	}
	return 0;
}

void virtq_keep(struct virtq *q, u16 head)
{
	assert(q->running && q->in_flight && head < q->size);
	q->in_flight--;
	q->kept[head / 64] |= (u64)1 << (head % 64);
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	unsigned slot = q->last_avail & (q->size - 1u);
	u16 n;
	int ret;

	assert(q->running);
	if (q->broken)
		return -EINVAL;
	if (unlikely(q->retry_at < q->size)) {
		ret = pop_kept(q, c);
		if (ret)
			return ret;
	}
	n = pending(q);
	if (!n)
		return 0;
	if (n > q->size)
		return fail(q, "%u requests in a queue of %u", n, q->size);
	ret = pop_head(q, c,
		       load_u16(q->avail_host + RING_ENTRIES + (size_t)slot * AVAIL_ENTRY,
				__ATOMIC_RELAXED));
	if (ret > 0)
		q->last_avail++;
	return ret;
}

void virtq_unpop(struct virtq *q, unsigned n)
{
	assert(q->running && q->in_flight >= n);
	q->last_avail = (u16)(q->last_avail - n);
	q->in_flight -= n;
}

void virtq_refuse(struct virtq *q, const char *why)
{
	assert(q->running && q->in_flight);
	q->in_flight--;
	fail(q, "%s", why);
}

bool virtq_has_more(const struct virtq *q)
{
	assert(q->running);
	return q->broken || q->retry_at < q->size || pending(q);
}

/* --- giving them back -------------------------------------------------------- */

void virtq_push(struct virtq *q, u16 head, u32 written)
{
	unsigned slot = q->used_next & (q->size - 1u);
	u8 *entry;

	assert(q->running && q->in_flight);
	q->in_flight--;
	if (q->broken)
		return;
	entry = q->used_host + RING_ENTRIES + (size_t)slot * USED_ENTRY;
	store_le32(entry, head);
	store_le32(entry + 4, written);
	q->used_next++;
}

/* Did the driver's event index fall among the entries old .. new - 1? */
static bool wants_event(u16 event, u16 new_index, u16 old_index)
{
	return (u16)(new_index - event - 1) < (u16)(new_index - old_index);
}

bool virtq_flush(struct virtq *q)
{
	u16 old = q->used_published;

	assert(q->running);
	if (q->used_next == old)
		return false;
	/* Release: entries before the index.  Pairs with the driver's acquire. */
	store_u16(q->used_host + RING_INDEX, q->used_next, __ATOMIC_RELEASE);
	q->used_published = q->used_next;
	mem_mark_dirty(q->mem, q->used, used_bytes(q));
	/* Full: our index must be visible before we read the driver's wish, as its
	 * wish is before it reads our index; else both could miss each other. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		return !(load_u16(q->avail_host + RING_FLAGS, __ATOMIC_RELAXED) &
			 AVAIL_NO_INTERRUPT);
	return wants_event(load_u16(q->avail_host + RING_ENTRIES + (size_t)q->size * AVAIL_ENTRY,
				    __ATOMIC_RELAXED),
			   q->used_next, old);
}

void virtq_quiet(struct virtq *q)
{
	assert(q->running);
	/* With an event index, silence is an index that is not moved on. */
	if (!q->event_idx)
		store_u16(q->used_host + RING_FLAGS, USED_NO_NOTIFY, __ATOMIC_RELAXED);
}

bool virtq_listen(struct virtq *q)
{
	return virtq_listen_beyond(q, 0);
}

u16 virtq_waiting(const struct virtq *q)
{
	assert(q->running);
	return pending(q);
}

bool virtq_listen_beyond(struct virtq *q, u16 seen)
{
	assert(q->running);
	/* The driver kicks when it fills the entry that the event index names: that has
	 * to be one which it has not filled yet. */
	if (q->event_idx)
		store_u16(q->used_host + RING_ENTRIES + (size_t)q->size * USED_ENTRY,
			  (u16)(q->last_avail + seen), __ATOMIC_RELAXED);
	else
		store_u16(q->used_host + RING_FLAGS, 0, __ATOMIC_RELAXED);
	mem_mark_dirty(q->mem, q->used, used_bytes(q));
	/* Full: pairs with the driver's, between its index and its look at our wish. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !q->broken && pending(q) != seen;
}
