/* The driver's side of a split virtqueue in guest memory, for tests. */
#ifndef TESTS_LIB_VRING_DRIVER_H
#define TESTS_LIB_VRING_DRIVER_H

#include "base/bytes.h"
#include "vmm/core/mem.h"

#include <assert.h>

enum { VRING_NEXT = 1, VRING_WRITE = 2, VRING_INDIRECT = 4 };

struct vring_driver {
	struct mem *mem;
	u64 desc, avail, used; /* guest addresses */
	u16 size, next_avail, next_used;
	bool event_idx; /* negotiated */
};

struct vring_buf {
	u64 addr;
	u32 bytes;
	u16 flags; /* VRING_WRITE; the rest is filled in */
};

static inline u8 *vring_host(struct vring_driver *d, u64 gpa, u64 bytes)
{
	u8 *p = mem_ptr_rw(d->mem, gpa, bytes);

	assert(p);
	return p;
}

/* Lay the rings out at gpa as the legacy interface wants it, zeroed. */
static inline void vring_init(struct vring_driver *d, struct mem *mem, u64 gpa, u16 size)
{
	*d = (struct vring_driver){.mem = mem, .desc = gpa, .size = size};
	d->avail = gpa + 16u * size;
	d->used = align_up(d->avail + 6 + 2u * size, 4096);
	memset(vring_host(d, gpa, d->used + 6 + 8u * size - gpa), 0, d->used + 6 + 8u * size - gpa);
}

static inline void vring_write_desc(u8 *table, unsigned i, u64 addr, u32 bytes, u32 flags_next)
{
	store_le64(table + 16 * (size_t)i, addr);
	store_le32(table + 16 * (size_t)i + 8, bytes);
	store_le16(table + 16 * (size_t)i + 12, (u16)flags_next);
	store_le16(table + 16 * (size_t)i + 14, (u16)(flags_next >> 16));
}

static inline void vring_set_desc(struct vring_driver *d, unsigned i, u64 addr, u32 bytes,
				  u32 flags_next)
{
	vring_write_desc(vring_host(d, d->desc, 16u * d->size), i, addr, bytes, flags_next);
}

static inline u16 vring_get(struct vring_driver *d, u64 gpa)
{
	u16 v;

	__atomic_load((u16 *)(void *)vring_host(d, gpa, 2), &v, __ATOMIC_ACQUIRE);
	return le16toh(v);
}

static inline void vring_put(struct vring_driver *d, u64 gpa, u16 v)
{
	u16 raw = htole16(v);

	__atomic_store((u16 *)(void *)vring_host(d, gpa, 2), &raw, __ATOMIC_RELEASE);
}

/* Make the chain that starts at `head` available. */
static inline void vring_offer(struct vring_driver *d, u16 head)
{
	vring_put(d, d->avail + 4 + 2u * (d->next_avail % d->size), head);
	vring_put(d, d->avail + 2, ++d->next_avail);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Write n buffers as a chain in descriptors first, first + 1, ... */
static inline void vring_chain(struct vring_driver *d, u16 first, const struct vring_buf *bufs,
			       unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		vring_set_desc(d, first + i, bufs[i].addr, bufs[i].bytes,
			       bufs[i].flags | (i + 1 < n ? VRING_NEXT : 0u) |
				       (u32)(first + i + 1) << 16);
}

static inline void vring_add(struct vring_driver *d, u16 first, const struct vring_buf *bufs,
			     unsigned n)
{
	vring_chain(d, first, bufs, n);
	vring_offer(d, first);
}

/* The same by an indirect table at gpa. */
static inline void vring_add_indirect(struct vring_driver *d, u16 slot, u64 gpa,
				      const struct vring_buf *bufs, unsigned n)
{
	u8 *table = vring_host(d, gpa, 16u * n);

	for (unsigned i = 0; i < n; i++)
		vring_write_desc(table, i, bufs[i].addr, bufs[i].bytes,
				 bufs[i].flags | (i + 1 < n ? VRING_NEXT : 0u) |
					 (u32)(i + 1) << 16);
	vring_set_desc(d, slot, gpa, 16u * n, VRING_INDIRECT);
	vring_offer(d, slot);
}

/* Take one used entry: false when there is none. */
static inline bool vring_used(struct vring_driver *d, u32 *head, u32 *written)
{
	const u8 *entry = vring_host(d, d->used + 4 + 8u * (d->next_used % d->size), 8);

	if (vring_get(d, d->used + 2) == d->next_used)
		return false;
	*head = load_le32(entry);
	*written = load_le32(entry + 4);
	d->next_used++;
	return true;
}

static inline void vring_set_used_event(struct vring_driver *d, u16 v)
{
	vring_put(d, d->avail + 4 + 2u * d->size, v);
}

static inline u16 vring_avail_event(struct vring_driver *d)
{
	return vring_get(d, d->used + 4 + 8u * d->size);
}

/* Does the device want a kick for the latest n buffers: virtio 1.2, section 2.7.10. */
static inline bool vring_wants_kick(struct vring_driver *d, u16 n)
{
	if (!d->event_idx)
		return !(vring_get(d, d->used) & 1);
	return (u16)(d->next_avail - vring_avail_event(d) - 1) < n;
}

#endif
