/* The set of metadata clusters; see overlap.h.  Linear probing, at most two
 * thirds full; removal moves later entries of the run back. */
#include "block/qcow2/overlap.h"

#include <errno.h>

#define FIRST_BITS 6
#define KIND_BITS  4

static u64 home(const struct overlap_set *s, u64 cluster)
{
	return (cluster * 0x9e3779b97f4a7c15ull) >> (64 - s->bits);
}

static u64 next(const struct overlap_set *s, u64 i)
{
	return (i + 1) & (((u64)1 << s->bits) - 1);
}

/* The slot of the cluster, or the empty one where it belongs. */
static u64 find(const struct overlap_set *s, u64 cluster)
{
	u64 i = home(s, cluster);

	while (s->slots[i] && s->slots[i] >> KIND_BITS != cluster)
		i = next(s, i);
	return i;
}

void overlap_init(struct overlap_set *s)
{
	*s = (struct overlap_set){0};
}

void overlap_fini(struct overlap_set *s)
{
	free(s->slots);
	overlap_init(s);
}

static int grow(struct overlap_set *s)
{
	struct overlap_set larger = {.bits = s->slots ? s->bits + 1 : FIRST_BITS, .used = s->used};

	larger.slots = try_alloc(sizeof(u64) << larger.bits);
	if (!larger.slots)
		return -ENOMEM;
	for (u64 i = 0; s->slots && i < (u64)1 << s->bits; i++)
		if (s->slots[i])
			larger.slots[find(&larger, s->slots[i] >> KIND_BITS)] = s->slots[i];
	free(s->slots);
	*s = larger;
	return 0;
}

int overlap_add(struct overlap_set *s, u64 cluster, enum overlap_kind kind, enum overlap_kind *was)
{
	u64 i;

	assert(kind != OVERLAP_NONE && cluster >> (64 - KIND_BITS) == 0);
	if (!s->slots || s->used * 3 >= ((u64)2 << s->bits)) {
		int ret = grow(s);

		if (ret < 0)
			return ret;
	}
	i = find(s, cluster);
	if (s->slots[i]) {
		if (was)
			*was = s->slots[i] & ((1u << KIND_BITS) - 1);
		return -EEXIST;
	}
	s->slots[i] = cluster << KIND_BITS | kind;
	s->used++;
	return 0;
}

void overlap_remove(struct overlap_set *s, u64 cluster)
{
	u64 mask, hole, i;

	if (!s->slots)
		return;
	mask = ((u64)1 << s->bits) - 1;
	hole = find(s, cluster);
	if (!s->slots[hole])
		return;
	s->used--;
	for (i = next(s, hole); s->slots[i]; i = next(s, i)) {
		u64 want = home(s, s->slots[i] >> KIND_BITS);

		/* May it move back to the hole without passing its home? */
		if (((i - want) & mask) >= ((i - hole) & mask)) {
			s->slots[hole] = s->slots[i];
			hole = i;
		}
	}
	s->slots[hole] = 0;
}

enum overlap_kind overlap_find(const struct overlap_set *s, u64 cluster)
{
	if (!s->slots)
		return OVERLAP_NONE;
	return s->slots[find(s, cluster)] & ((1u << KIND_BITS) - 1);
}

const char *overlap_name(enum overlap_kind kind)
{
	static const char *const names[] = {
		[OVERLAP_NONE] = "data",
		[OVERLAP_HEADER] = "qcow2_header",
		[OVERLAP_L1] = "active L1 table",
		[OVERLAP_L2] = "active L2 table",
		[OVERLAP_REFTABLE] = "refcount table",
		[OVERLAP_REFBLOCK] = "refcount block",
		[OVERLAP_SNAPSHOTS] = "snapshot table",
		[OVERLAP_INACTIVE_L1] = "inactive L1 table",
		[OVERLAP_BITMAPS] = "bitmap directory",
		[OVERLAP_CRYPT] = "encryption header",
	};

	assert(kind < ARRAY_LEN(names));
	return names[kind];
}
