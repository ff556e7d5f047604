/* Guest physical memory; see mem.h.
 *
 * Memory belongs to a base region; aliases show parts of a base elsewhere.  Dirty
 * pages are counted per base: KVM's log of every slot that shows it, and our own
 * marks, meet in base->dirty, a bitmap for each client.  Reading KVM's log clears
 * it, therefore what one client reads goes into the bitmaps of all.
 * Thread: any.  mem.lock guards the regions and is a leaf.  Readers look addresses
 * up in `table` without a lock: it is small, and guarded by a sequence counter
 * (odd while it changes) so that a reader that met a change looks again.
 * Invariants: mapped regions do not overlap; the table is in order of address;
 * memory is not released before mem_free, so a stale lookup can only be stale. */
#include "vmm/core/mem.h"

#include "base/thread.h"
#include "vmm/core/mem_host.h"

#include <errno.h>

#define PAGE_BITS   12
#define PAGE_BYTES  ((u64)1 << PAGE_BITS)
#define MAX_REGIONS 64

struct mem_region {
	struct mem *mem;	 /* [const] */
	const char *name;	 /* [const] */
	u64 gpa;		 /* [mem.lock] MEM_UNMAPPED: nowhere */
	u64 bytes;		 /* [const] */
	enum mem_kind kind;	 /* [const] */
	u32 slot;		 /* [const] */
	struct mem_region *base; /* [const] itself, or what it is an alias of */
	u64 offset;		 /* [const] in base */
	u8 *host;		 /* [const] */
	/* Bases only. */
	struct mem_host memory; /* [const] */
	u32 logging;		/* [atomic] bits by client; set under mem.lock, read by mark_base */
	u64 *dirty[MEM_DIRTY_CLIENTS]; /* [atomic] one bit a page; there once logging was on */
};

/* What a lookup needs.  [atomic] by mem.seq */
struct entry {
	u64 gpa, bytes;
	u8 *host;
	struct mem_region *region;
};

struct mem {
	const struct mem_ops *ops; /* [const] until mem_detach */
	void *arg;		   /* [const] */
	struct mutex lock;
	struct mem_region *regions[MAX_REGIONS]; /* [mem.lock]; entries are final */
	u32 n_regions;				 /* [atomic] grows; entries first */
	u32 watchers;				 /* [atomic] of mem_watch */
	u32 seq;				 /* [atomic] odd: table is changing */
	u32 n_entries;				 /* [atomic] by seq */
	struct entry table[MAX_REGIONS];	 /* [atomic] by seq */
};

int mem_new(struct mem **out, const struct mem_ops *ops, void *arg, struct error *err)
{
	struct mem *mem = xnew(struct mem);

	mem->ops = ops;
	mem->arg = arg;
	mutex_init(&mem->lock);
	*out = mem;
	return 0;
}

static void region_free(struct mem_region *r)
{
	if (r->base == r)
		mem_host_unmap(&r->memory);
	for (unsigned i = 0; i < MEM_DIRTY_CLIENTS; i++)
		free(r->dirty[i]);
	free(r);
}

void mem_detach(struct mem *mem)
{
	mem->ops = NULL;
}

void mem_free(struct mem *mem)
{
	if (!mem)
		return;
	for (u32 i = 0; i < mem->n_regions; i++)
		(void)mem_region_move(mem->regions[i], MEM_UNMAPPED);
	/* Aliases come after their bases, and lend from them. */
	for (u32 i = mem->n_regions; i > 0; i--)
		region_free(mem->regions[i - 1]);
	mutex_fini(&mem->lock);
	free(mem);
}

/* --- the table ---------------------------------------------------------------- */

static void store_entry(struct entry *e, const struct mem_region *r)
{
	__atomic_store_n(&e->gpa, r->gpa, __ATOMIC_RELEASE);
	__atomic_store_n(&e->bytes, r->bytes, __ATOMIC_RELEASE);
	__atomic_store_n(&e->host, r->host, __ATOMIC_RELEASE);
	__atomic_store_n(&e->region, (struct mem_region *)(uintptr_t)r, __ATOMIC_RELEASE);
}

static u32 sorted_mapped(struct mem *mem, struct mem_region *out[MAX_REGIONS])
{
	u32 n = 0;

	for (u32 i = 0; i < mem->n_regions; i++) {
		struct mem_region *r = mem->regions[i];
		u32 at;

		if (r->gpa == MEM_UNMAPPED)
			continue;
		for (at = n++; at > 0 && out[at - 1]->gpa > r->gpa; at--)
			out[at] = out[at - 1];
		out[at] = r;
	}
	return n;
}

static void rebuild_table(struct mem *mem)
{
	struct mem_region *sorted[MAX_REGIONS];
	u32 n = sorted_mapped(mem, sorted);
	u32 seq = __atomic_load_n(&mem->seq, __ATOMIC_RELAXED);

	lock_assert(&mem->lock);
	/* Partners: lookup() and scan_table().  The odd counter is visible before
	 * any new value (each is a release), and a reader that saw a new value (an
	 * acquire) sees it when it looks at the counter again. */
	__atomic_store_n(&mem->seq, seq + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&mem->n_entries, n, __ATOMIC_RELEASE);
	for (u32 i = 0; i < n; i++)
		store_entry(&mem->table[i], sorted[i]);
	__atomic_store_n(&mem->seq, seq + 2, __ATOMIC_RELEASE);
}

static bool scan_table(struct mem *mem, u64 gpa, struct entry *out)
{
	u32 n = __atomic_load_n(&mem->n_entries, __ATOMIC_ACQUIRE);

	for (u32 i = 0; i < n; i++) {
		struct entry *e = &mem->table[i];
		u64 start = __atomic_load_n(&e->gpa, __ATOMIC_ACQUIRE);
		u64 bytes = __atomic_load_n(&e->bytes, __ATOMIC_ACQUIRE);

		if (gpa < start || gpa - start >= bytes)
			continue;
		out->gpa = start;
		out->bytes = bytes;
		out->host = __atomic_load_n(&e->host, __ATOMIC_ACQUIRE);
		out->region = __atomic_load_n(&e->region, __ATOMIC_ACQUIRE);
		return true;
	}
	return false;
}

/* The entry that holds gpa.  A dozen entries at most: a scan beats a search. */
static bool lookup(struct mem *mem, u64 gpa, struct entry *out)
{
	for (;;) {
		u32 seq = __atomic_load_n(&mem->seq, __ATOMIC_ACQUIRE);
		bool found;

		if (unlikely(seq & 1))
			continue;
		found = scan_table(mem, gpa, out);
		if (likely(__atomic_load_n(&mem->seq, __ATOMIC_RELAXED) == seq))
			return found;
	}
}

/* --- regions ------------------------------------------------------------------ */

static struct mem_slot slot_of(const struct mem_region *r, bool present)
{
	return (struct mem_slot){
		.id = r->slot,
		.gpa = r->gpa,
		.bytes = present ? r->bytes : 0,
		.host = r->host,
		.kind = r->kind,
		.log_dirty = r->base->logging != 0,
	};
}

static int set_slot(struct mem_region *r, bool present)
{
	const struct mem_slot slot = slot_of(r, present);
	struct mem *mem = r->mem;

	return mem->ops ? mem->ops->set_slot(mem->arg, &slot) : 0;
}

static bool place_is_free(struct mem *mem, const struct mem_region *r, u64 gpa)
{
	for (u32 i = 0; i < mem->n_regions; i++) {
		const struct mem_region *o = mem->regions[i];

		if (o != r && o->gpa != MEM_UNMAPPED && gpa < o->gpa + o->bytes &&
		    o->gpa < gpa + r->bytes)
			return false;
	}
	return true;
}

static int map_region(struct mem_region *r, u64 gpa)
{
	u64 end;
	int ret;

	lock_assert(&r->mem->lock);
	assert(r->gpa == MEM_UNMAPPED);
	if (!is_aligned(gpa, PAGE_BYTES) || !add_ok(gpa, r->bytes, &end))
		return -EINVAL;
	if (!place_is_free(r->mem, r, gpa))
		return -EBUSY;
	r->gpa = gpa;
	ret = set_slot(r, true);
	if (ret < 0)
		r->gpa = MEM_UNMAPPED;
	return ret;
}

#define ALL_CLIENTS ((1u << MEM_DIRTY_CLIENTS) - 1)

/* For the clients whose bits are set in `who`. */
static void set_dirty_bits(struct mem_region *base, u32 who, u64 first, u64 pages)
{
	for (unsigned i = 0; i < MEM_DIRTY_CLIENTS; i++) {
		u64 *dirty = who & 1u << i ? base->dirty[i] : NULL;

		for (u64 page = first; dirty && page < first + pages; page++)
			__atomic_fetch_or(&dirty[page / 64], (u64)1 << (page % 64),
					  __ATOMIC_RELAXED);
	}
}

/* 64 pages at once, from a multiple of 64 on: a machine stands still meanwhile. */
static void set_dirty_word(struct mem_region *base, u32 who, u64 word, u64 bits)
{
	for (unsigned i = 0; i < MEM_DIRTY_CLIENTS; i++)
		if (who & 1u << i && base->dirty[i])
			__atomic_fetch_or(&base->dirty[i][word], bits, __ATOMIC_RELAXED);
}

/* The slot's log is lost or goes: whatever it shows may have been written. */
static void set_slot_dirty(struct mem_region *r)
{
	set_dirty_bits(r->base, r->base->logging, r->offset >> PAGE_BITS, r->bytes >> PAGE_BITS);
}

/* Fold KVM's log of one slot into its base's bits. */
static int collect_slot(struct mem_region *r, bool clear)
{
	const struct mem_slot slot = slot_of(r, true);
	struct mem *mem = r->mem;
	u64 words = DIV_ROUND_UP(r->bytes >> PAGE_BITS, 64), first = r->offset >> PAGE_BITS;
	AUTO_FREE u64 *bits = NULL;
	int ret;

	lock_assert(&mem->lock);
	if (!mem->ops || !r->base->logging || r->gpa == MEM_UNMAPPED)
		return 0;
	bits = try_alloc(words * sizeof(*bits));
	if (!bits)
		return -ENOMEM;
	ret = mem->ops->get_dirty(mem->arg, &slot, bits, clear);
	if (ret < 0) {
		set_slot_dirty(r);
		return ret;
	}
	for (u64 i = 0; i < words; i++) {
		u64 left = bits[i];

		if (left && first % 64 == 0)
			set_dirty_word(r->base, r->base->logging, first / 64 + i, left);
		else
			for (; left; left &= left - 1)
				set_dirty_bits(r->base, r->base->logging,
					       first + i * 64 + (u64)__builtin_ctzll(left), 1);
	}
	return 0;
}

static int unmap_region(struct mem_region *r)
{
	int ret;

	/* The slot's log goes with the slot. */
	if (collect_slot(r, true) < 0)
		set_slot_dirty(r);
	ret = set_slot(r, false);
	r->gpa = MEM_UNMAPPED;
	return ret;
}

static u64 dirty_bytes(const struct mem_region *base)
{
	return DIV_ROUND_UP(base->bytes >> PAGE_BITS, 64) * sizeof(u64);
}

static int alloc_dirty(struct mem_region *base, enum mem_dirty_client who)
{
	if (!base->dirty[who])
		base->dirty[who] = try_alloc(dirty_bytes(base));
	return base->dirty[who] ? 0 : -ENOMEM;
}

/* Framebuffers are logged for everybody from the first. */
static int log_vram(struct mem_region *base)
{
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < MEM_DIRTY_CLIENTS; i++)
		ret = alloc_dirty(base, i);
	base->logging = ALL_CLIENTS;
	return ret;
}

static int add_region(struct mem *mem, struct mem_region *r, u64 gpa, struct error *err)
{
	int ret = 0;

	LOCK_SCOPE(&mem->lock);
	if (mem->n_regions == MAX_REGIONS)
		return err_set(err, -ENOSPC, "more than %u memory regions", MAX_REGIONS);
	r->mem = mem;
	r->slot = mem->n_regions;
	r->gpa = MEM_UNMAPPED;
	if (gpa != MEM_UNMAPPED)
		ret = map_region(r, gpa);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot map %s at 0x%llx", r->name,
				     (unsigned long long)gpa);
	mem->regions[mem->n_regions] = r;
	/* Partner: the load in base_of_host(). */
	__atomic_store_n(&mem->n_regions, mem->n_regions + 1, __ATOMIC_RELEASE);
	rebuild_table(mem);
	return 0;
}

static struct mem_region *region_new(const struct mem_place *place)
{
	struct mem_region *r = xnew(struct mem_region);

	assert(place->bytes && is_aligned(place->bytes, PAGE_BYTES));
	r->name = place->name;
	r->bytes = place->bytes;
	r->kind = place->kind;
	return r;
}

int mem_add_backed(struct mem *mem, struct mem_region **out, const struct mem_place *place,
		   const struct mem_backing *backing, struct error *err)
{
	struct mem_region *r = region_new(place);
	int ret = mem_host_map(&r->memory, place, backing, err);

	if (ret < 0) {
		free(r);
		return ret;
	}
	r->host = r->memory.host;
	r->base = r;
	ret = place->kind == MEM_VRAM ? log_vram(r) : 0;
	if (ret < 0)
		err_set_errno(err, ret, "%s", r->name);
	else
		ret = add_region(mem, r, place->gpa, err);
	if (ret < 0)
		region_free(r);
	else
		*out = r;
	return ret;
}

int mem_add(struct mem *mem, struct mem_region **out, const struct mem_place *place,
	    struct error *err)
{
	return mem_add_backed(mem, out, place, NULL, err);
}

int mem_add_alias(struct mem *mem, struct mem_region **out, const struct mem_place *place,
		  struct mem_region *of, u64 offset, struct error *err)
{
	struct mem_region *r = region_new(place);
	int ret;

	assert(of->base == of && of->mem == mem);
	assert(is_aligned(offset, PAGE_BYTES) && offset <= of->bytes);
	assert(r->bytes <= of->bytes - offset);
	r->base = of;
	r->offset = offset;
	r->host = of->host + offset;
	ret = add_region(mem, r, place->gpa, err);
	if (ret < 0)
		region_free(r);
	else
		*out = r;
	return ret;
}

int mem_region_move(struct mem_region *r, u64 gpa)
{
	struct mem *mem = r->mem;
	int ret = 0;

	LOCK_SCOPE(&mem->lock);
	if (gpa == r->gpa)
		return 0;
	if (r->gpa != MEM_UNMAPPED)
		ret = unmap_region(r);
	if (ret == 0 && gpa != MEM_UNMAPPED)
		ret = map_region(r, gpa);
	rebuild_table(mem);
	return ret;
}

void *mem_region_host(const struct mem_region *r)
{
	return r->host;
}

u64 mem_region_bytes(const struct mem_region *r)
{
	return r->bytes;
}

bool mem_region_is_anonymous(const struct mem_region *r)
{
	return r->base->memory.fd < 0;
}

int mem_region_empty(struct mem_region *r, u8 *host, u64 bytes)
{
	assert(host >= r->host && bytes <= r->bytes - (u64)(host - r->host));
	return mem_host_discard(&r->base->memory, host, bytes);
}

static void fill_info(struct mem_region_info *info, struct mem_region *r)
{
	*info = (struct mem_region_info){
		.name = r->name,
		.gpa = r->gpa,
		.bytes = r->bytes,
		.kind = r->kind,
		.alias = r->base != r,
		.region = r,
	};
}

unsigned mem_regions(struct mem *mem, struct mem_region_info *out, unsigned room)
{
	struct mem_region *sorted[MAX_REGIONS];
	u32 n;

	LOCK_SCOPE(&mem->lock);
	n = sorted_mapped(mem, sorted);
	for (u32 i = 0; i < mem->n_regions; i++)
		if (mem->regions[i]->gpa == MEM_UNMAPPED)
			sorted[n++] = mem->regions[i];
	for (u32 i = 0; i < MIN(n, room); i++)
		fill_info(&out[i], sorted[i]);
	return MIN(n, room);
}

u64 mem_ram_bytes(struct mem *mem)
{
	u64 bytes = 0;

	LOCK_SCOPE(&mem->lock);
	for (u32 i = 0; i < mem->n_regions; i++)
		if (mem->regions[i]->kind == MEM_RAM && mem->regions[i]->base == mem->regions[i])
			bytes += mem->regions[i]->bytes;
	return bytes;
}

/* --- access ------------------------------------------------------------------- */

/* Host address of gpa, and how many of `bytes` lie in the same region. */
static u8 *find(struct mem *mem, u64 gpa, u64 *bytes, struct entry *e)
{
	u64 off;

	if (!lookup(mem, gpa, e))
		return NULL;
	off = gpa - e->gpa;
	*bytes = MIN(*bytes, e->bytes - off);
	return e->host + off;
}

static u8 *find_whole(struct mem *mem, u64 gpa, u64 bytes, struct entry *e)
{
	u64 run = bytes;
	u8 *host = find(mem, gpa, &run, e);

	return run == bytes ? host : NULL;
}

void *mem_ptr_rw(struct mem *mem, u64 gpa, u64 bytes)
{
	struct entry e;
	u8 *host = find_whole(mem, gpa, bytes, &e);

	return host && e.region->kind != MEM_ROM ? host : NULL;
}

const void *mem_ptr_ro(struct mem *mem, u64 gpa, u64 bytes)
{
	struct entry e;

	return find_whole(mem, gpa, bytes, &e);
}

static int check_range(struct mem *mem, u64 gpa, u64 bytes)
{
	u64 end, run;
	struct entry e;

	if (!add_ok(gpa, bytes, &end))
		return -EFAULT;
	for (; bytes; gpa += run, bytes -= run) {
		run = bytes;
		if (!find(mem, gpa, &run, &e))
			return -EFAULT;
	}
	return 0;
}

static void mark_base(struct mem_region *base, u64 offset, u64 bytes)
{
	u64 first = offset >> PAGE_BITS;
	/* Partner: mem_dirty_log, which has made the bits before it sets this. */
	u32 who = __atomic_load_n(&base->logging, __ATOMIC_ACQUIRE);

	if (who && bytes)
		set_dirty_bits(base, who, first, ((offset + bytes - 1) >> PAGE_BITS) - first + 1);
}

static u64 base_offset(const struct mem_region *r, const u8 *host)
{
	return (u64)(host - r->base->host);
}

int mem_read(struct mem *mem, u64 gpa, void *buf, u64 bytes)
{
	u8 *to = buf;
	struct entry e;
	u64 run;
	int ret = check_range(mem, gpa, bytes);

	for (; ret == 0 && bytes; gpa += run, to += run, bytes -= run) {
		const u8 *host;

		run = bytes;
		host = find(mem, gpa, &run, &e);
		if (!host) /* a region moved meanwhile */
			return -EFAULT;
		memcpy(to, host, run);
	}
	return ret;
}

static int write_range(struct mem *mem, u64 gpa, const u8 *from, u64 bytes, bool rom_too)
{
	struct entry e;
	u64 run;
	int ret = check_range(mem, gpa, bytes);

	for (; ret == 0 && bytes; gpa += run, from += run, bytes -= run) {
		u8 *host;

		run = bytes;
		host = find(mem, gpa, &run, &e);
		if (!host)
			return -EFAULT;
		if (e.region->kind == MEM_ROM && !rom_too)
			continue;
		memcpy(host, from, run);
		mark_base(e.region->base, base_offset(e.region, host), run);
	}
	return ret;
}

int mem_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes)
{
	return write_range(mem, gpa, buf, bytes, false);
}

int mem_rom_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes)
{
	return write_range(mem, gpa, buf, bytes, true);
}

/* Append one host range; a range that goes on where the last ended joins it. */
static int append_iov(struct mem_iov *to, u8 *host, u64 bytes)
{
	struct iovec *last = to->n ? &to->iov[to->n - 1] : NULL;

	if (last && (u8 *)last->iov_base + last->iov_len == host) {
		last->iov_len += bytes;
		return 0;
	}
	if (to->n == to->room)
		return -E2BIG;
	to->iov[to->n++] = (struct iovec){.iov_base = host, .iov_len = bytes};
	return 0;
}

int mem_map_iov(struct mem *mem, u64 gpa, u64 bytes, bool device_writes, struct mem_iov *to)
{
	struct entry e;
	u64 end, run;
	int ret = 0;

	if (!add_ok(gpa, bytes, &end))
		return -EFAULT;
	for (; ret == 0 && bytes; gpa += run, bytes -= run) {
		u8 *host;

		run = bytes;
		host = find(mem, gpa, &run, &e);
		if (!host || (device_writes && e.region->kind == MEM_ROM))
			return -EFAULT;
		ret = append_iov(to, host, run);
	}
	return ret;
}

/* --- dirty pages -------------------------------------------------------------- */

void mem_mark_dirty(struct mem *mem, u64 gpa, u64 bytes)
{
	struct entry e;
	u64 run;

	for (; bytes; gpa += run, bytes -= run) {
		const u8 *host;

		run = bytes;
		host = find(mem, gpa, &run, &e);
		if (!host)
			return;
		mark_base(e.region->base, base_offset(e.region, host), run);
	}
}

static struct mem_region *base_of_host(struct mem *mem, const u8 *host)
{
	u32 n = __atomic_load_n(&mem->n_regions, __ATOMIC_ACQUIRE);

	for (u32 i = 0; i < n; i++) {
		struct mem_region *r = mem->regions[i];

		if (r->base == r && host >= r->host && host < r->host + r->bytes)
			return r;
	}
	return NULL;
}

void mem_mark_dirty_iov(struct mem *mem, const struct iovec *iov, unsigned n, u64 bytes)
{
	for (unsigned i = 0; i < n && bytes; i++) {
		const u8 *host = iov[i].iov_base;
		u64 run = MIN(bytes, (u64)iov[i].iov_len);
		struct mem_region *base = run ? base_of_host(mem, host) : NULL;

		/* A vector that runs on into another base is two mappings that happen
		 * to touch; append_iov may have joined them. */
		while (base && run > (u64)(base->host + base->bytes - host)) {
			u64 part = (u64)(base->host + base->bytes - host);

			mark_base(base, base_offset(base, host), part);
			host += part;
			run -= part;
			bytes -= part;
			base = base_of_host(mem, host);
		}
		if (base)
			mark_base(base, base_offset(base, host), run);
		bytes -= run;
	}
}

/* --- memory that goes back to the host ------------------------------------------ */

void mem_watch(struct mem *mem, bool on)
{
	/* Partner: touch_pages; discarding and this are both done by the main thread, or
	 * by a thread that the one who watches has stopped. */
	u32 was = __atomic_fetch_add(&mem->watchers, on ? 1 : (u32)-1, __ATOMIC_SEQ_CST);

	assert(on || was);
}

/* Whoever watches has done with the pages when this returns. */
static void touch_pages(u8 *host, u64 bytes)
{
	for (u64 at = 0; at < bytes; at += PAGE_BYTES)
		*(volatile u8 *)(host + at) = 0;
}

static void discard_host(struct mem_region *base, u8 *host, u64 bytes)
{
	assert(base->kind == MEM_RAM && is_aligned((uintptr_t)host | bytes, PAGE_BYTES));
	if (__atomic_load_n(&base->mem->watchers, __ATOMIC_SEQ_CST))
		touch_pages(host, bytes);
	if (mem_host_discard(&base->memory, host, bytes) < 0)
		memset(host, 0, bytes);
	mark_base(base, base_offset(base, host), bytes);
}

static int discard_range(struct mem *mem, u64 gpa, u64 bytes, bool really)
{
	struct entry e;
	u64 run;

	for (; bytes; gpa += run, bytes -= run) {
		u8 *host;

		run = bytes;
		host = find(mem, gpa, &run, &e);
		if (!host || e.region->kind != MEM_RAM)
			return -EFAULT;
		if (really)
			discard_host(e.region->base, host, run);
	}
	return 0;
}

int mem_discard(struct mem *mem, u64 gpa, u64 bytes)
{
	u64 end;
	int ret;

	if (!is_aligned(gpa | bytes, PAGE_BYTES) || !add_ok(gpa, bytes, &end))
		return -EFAULT;
	ret = discard_range(mem, gpa, bytes, false);
	return ret < 0 ? ret : discard_range(mem, gpa, bytes, true);
}

void mem_discard_iov(struct mem *mem, const struct iovec *iov, unsigned n)
{
	if (__atomic_load_n(&mem->watchers, __ATOMIC_SEQ_CST))
		return;
	for (unsigned i = 0; i < n; i++) {
		u8 *host = iov[i].iov_base;
		u64 bytes = iov[i].iov_len, head = -(uintptr_t)host & (PAGE_BYTES - 1);
		struct mem_region *base = base_of_host(mem, host);

		if (!base || base->kind != MEM_RAM || bytes < head)
			continue;
		/* Two bases that happen to touch: the second one's part stays. */
		bytes = MIN(bytes, (u64)(base->host + base->bytes - host));
		discard_host(base, host + head, align_down(bytes - head, PAGE_BYTES));
	}
}

/* --- the dirty log ---------------------------------------------------------------- */

/* Tell the hypervisor about base->logging for every slot that shows the base. */
static int update_slots(struct mem_region *base)
{
	struct mem *mem = base->mem;
	int ret = 0;

	for (u32 i = 0; ret == 0 && i < mem->n_regions; i++)
		if (mem->regions[i]->base == base && mem->regions[i]->gpa != MEM_UNMAPPED)
			ret = set_slot(mem->regions[i], true);
	return ret;
}

int mem_dirty_log(struct mem_region *r, enum mem_dirty_client who, bool on)
{
	struct mem_region *base = r->base;
	u32 was, now;
	int ret;

	LOCK_SCOPE(&r->mem->lock);
	was = base->logging;
	now = on ? was | 1u << who : was & ~(1u << who);
	if (now == was || base->kind == MEM_VRAM)
		return 0;
	ret = alloc_dirty(base, who);
	if (ret < 0)
		return ret;
	memset(base->dirty[who], 0, dirty_bytes(base));
	__atomic_store_n(&base->logging, now, __ATOMIC_RELEASE);
	if (!was == !now) /* the hypervisor logs for another client already, or still */
		return 0;
	ret = update_slots(base);
	if (ret < 0) {
		__atomic_store_n(&base->logging, was, __ATOMIC_RELEASE);
		(void)update_slots(base);
	}
	return ret;
}

/* Move bits [first, first + pages) of dirty to the start of bitmap, or copy them. */
static void take_bits(u64 *dirty, u64 first, u64 pages, u64 *bitmap, bool clear)
{
	u64 page = 0;

	while (page < pages) {
		u64 at = first + page, bit = at % 64, n = MIN(64 - bit, pages - page);
		u64 mask = (n == 64 ? UINT64_MAX : ((u64)1 << n) - 1) << bit;
		u64 old = __atomic_fetch_and(&dirty[at / 64], clear ? ~mask : UINT64_MAX,
					     __ATOMIC_RELAXED);

		old = (old & mask) >> bit;
		bitmap[page / 64] |= old << page % 64;
		if (page % 64 + n > 64)
			bitmap[page / 64 + 1] |= old >> (64 - page % 64);
		page += n;
	}
}

static int collect(struct mem_region *r, enum mem_dirty_client who, u64 *bitmap, bool clear)
{
	struct mem *mem = r->mem;

	LOCK_SCOPE(&mem->lock);
	assert(r->base->logging & 1u << who);
	for (u32 i = 0; i < mem->n_regions; i++) {
		int ret =
			mem->regions[i]->base == r->base ? collect_slot(mem->regions[i], clear) : 0;

		if (ret < 0)
			return ret;
	}
	take_bits(r->base->dirty[who], r->offset >> PAGE_BITS, r->bytes >> PAGE_BITS, bitmap,
		  clear);
	return 0;
}

int mem_dirty_collect(struct mem_region *r, enum mem_dirty_client who, u64 *bitmap)
{
	return collect(r, who, bitmap, true);
}

int mem_dirty_look(struct mem_region *r, enum mem_dirty_client who, u64 *bitmap)
{
	return collect(r, who, bitmap, false);
}
