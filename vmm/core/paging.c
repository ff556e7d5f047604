/* Walking a guest's page tables; see paging.h.
 *
 * Intel SDM volume 3, chapter 4: 32-bit, PAE, 4-level and 5-level paging.  The tables are
 * the guest's: they may be anything, the work is bounded.  Thread: any. */
#include "vmm/core/paging.h"

#include "base/bytes.h"

#define CR0_PG	   ((u64)1 << 31)
#define CR4_PSE	   ((u64)1 << 4)
#define CR4_PAE	   ((u64)1 << 5)
#define CR4_LA57   ((u64)1 << 12)
#define EFER_LMA   ((u64)1 << 10)
#define PTE_P	   1u
#define PTE_W	   2u
#define PTE_U	   4u
#define PTE_PS	   0x80u
#define ADDR_MASK  0x000ffffffffff000ull
#define MAX_TABLES 65536u

struct walk {
	const struct paging *p;
	bool (*fn)(void *arg, const struct paging_leaf *leaf);
	void *arg;
	unsigned levels, entry_bytes;
	u32 tables; /* read so far */
};

bool paging_is_on(const struct paging *p)
{
	return p->cr0 & CR0_PG;
}

static bool is_wide(const struct paging *p)
{
	return p->cr4 & CR4_PAE;
}

unsigned paging_digits(const struct paging *p)
{
	return is_wide(p) ? 16 : 8;
}

static unsigned count_levels(const struct paging *p)
{
	if (!is_wide(p))
		return 2;
	if (!(p->efer & EFER_LMA))
		return 3;
	return p->cr4 & CR4_LA57 ? 5 : 4;
}

/* Bits of an address below what a table's entry selects; level 0 maps pages of 4 KiB. */
static unsigned shift_of(const struct walk *w, unsigned level)
{
	return 12 + level * (w->entry_bytes == 4 ? 10 : 9);
}

static bool is_leaf(const struct walk *w, unsigned level, u64 entry)
{
	if (!level)
		return true;
	if (!(entry & PTE_PS))
		return false;
	if (w->entry_bytes == 4)
		return w->p->cr4 & CR4_PSE;
	return level == 1 || (level == 2 && w->levels > 3);
}

static u64 canonical(const struct walk *w, u64 gva)
{
	unsigned top = shift_of(w, w->levels) - 1;

	return w->levels > 3 && gva >> top & 1 ? gva | UINT64_MAX << top : gva;
}

static u64 leaf_address(const struct walk *w, unsigned level, u64 entry)
{
	u64 low = ((u64)1 << shift_of(w, level)) - 1;

	/* 4 MiB pages have bits 32 to 39 of their address in bits 13 to 20. */
	if (w->entry_bytes == 4 && level)
		return (entry & 0xffc00000) | (entry & 0x1fe000) << 19;
	return entry & ADDR_MASK & ~low;
}

static bool show(struct walk *w, unsigned level, u64 gva, u64 entry, u32 rights)
{
	const struct paging_leaf leaf = {.gva = canonical(w, gva),
					 .gpa = leaf_address(w, level, entry),
					 .bytes = (u64)1 << shift_of(w, level),
					 .entry = entry,
					 .user = rights & PTE_U,
					 .write = rights & PTE_W};

	return w->fn(w->arg, &leaf);
}

static bool read_table(struct walk *w, u64 table, unsigned entries, u8 *raw)
{
	if (w->p->read(w->p->arg, table, raw, (u64)entries * w->entry_bytes) < 0)
		memset(raw, 0, (size_t)entries * w->entry_bytes);
	return ++w->tables <= MAX_TABLES;
}

static bool walk_table(struct walk *w, unsigned level, u64 table, u64 gva, u32 rights)
{
	bool is_pdpt = w->levels == 3 && level == 2; /* four entries without rights */
	unsigned entries = is_pdpt ? 4 : 4096 / w->entry_bytes;
	u8 raw[4096];

	if (!read_table(w, table, entries, raw))
		return false;
	for (unsigned i = 0; i < entries; i++) {
		u64 entry = w->entry_bytes == 4 ? load_le32(raw + 4 * (size_t)i)
						: load_le64(raw + 8 * (size_t)i);
		u64 at = gva | (u64)i << shift_of(w, level);
		u32 now = is_pdpt ? rights : rights & (u32)entry;
		bool more;

		if (!(entry & PTE_P))
			continue;
		more = is_leaf(w, level, entry)
			       ? show(w, level, at, entry, now)
			       : walk_table(w, level - 1, entry & ADDR_MASK, at, now);
		if (!more)
			return false;
	}
	return true;
}

bool paging_each(const struct paging *p, bool (*fn)(void *arg, const struct paging_leaf *leaf),
		 void *arg)
{
	struct walk w = {.p = p,
			 .fn = fn,
			 .arg = arg,
			 .levels = count_levels(p),
			 .entry_bytes = is_wide(p) ? 8 : 4};
	u64 root = w.levels == 3 ? p->cr3 & 0xffffffe0 : p->cr3 & ADDR_MASK;

	if (!paging_is_on(p))
		return true;
	return walk_table(&w, w.levels - 1, root, 0, PTE_U | PTE_W);
}
