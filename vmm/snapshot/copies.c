/* Copies of memory units that wait for the disk; see copies.h. */
#include "vmm/snapshot/copies.h"

#include "vmm/snapshot/ram.h"

#include <sys/mman.h>
#include <unistd.h>

#define HUGE_BYTES  (2 * MiB)
#define SLAB_BYTES  (4 * HUGE_BYTES)
#define SLAB_COPIES (SLAB_BYTES / RAM_UNIT)
#define LEAST	    512u /* 32 MiB */

struct slab {
	struct list link;
	u8 *memory; /* of which SLAB_BYTES are used, from a huge page's start on */
	struct unit_copy copies[SLAB_COPIES];
};

void copies_init(struct copies *c)
{
	*c = (struct copies){0};
	list_init(&c->free);
	list_init(&c->slabs);
}

static void add_slab(struct copies *c)
{
	struct slab *s = xnew(struct slab);
	u8 *data;

	s->memory = mmap(NULL, SLAB_BYTES + HUGE_BYTES, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->memory == MAP_FAILED)
		abort(); /* as xalloc: somebody stands still until he gets a copy */
	data = s->memory + (HUGE_BYTES - (uintptr_t)s->memory % HUGE_BYTES) % HUGE_BYTES;
	(void)madvise(data, SLAB_BYTES, MADV_HUGEPAGE);
	for (u32 i = 0; i < SLAB_COPIES; i++) {
		s->copies[i].data = data + i * RAM_UNIT;
		list_append(&c->free, &s->copies[i].link);
	}
	list_append(&c->slabs, &s->link);
}

struct unit_copy *copies_get(struct copies *c)
{
	if (list_empty(&c->free))
		add_slab(c);
	c->out++;
	return list_entry(list_pop(&c->free), struct unit_copy, link);
}

/* The one used last is in the processor's caches. */
void copies_put(struct copies *c, struct unit_copy *copy)
{
	assert(c->out);
	c->out--;
	list_push(&c->free, &copy->link);
}

void copies_fini(struct copies *c)
{
	struct list *item;

	assert(!c->out);
	while ((item = list_pop(&c->slabs))) {
		struct slab *s = list_entry(item, struct slab, link);

		munmap(s->memory, SLAB_BYTES + HUGE_BYTES);
		free(s);
	}
}

/* Half of what is free, and half of the memory that is saved: a guest that writes
 * faster than the disk does not wait before. */
u32 copies_budget(u64 units)
{
	long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
	u64 spare = pages > 0 && page > 0 ? (u64)pages * (u64)page / 2 / RAM_UNIT : 0;

	spare = MIN(spare, units / 2);
	spare = MIN(spare, (u64)UINT32_MAX);
	return (u32)MAX(spare, (u64)LEAST);
}
