/* Guest physical memory: RAM, ROM and framebuffer regions, and access by address.
 *
 * Regions are added while the machine is built; afterwards only framebuffer-like
 * regions move.  Reads and writes by devices go through here, so that every write
 * of ours can be marked dirty (KVM's log does not see it).  Lookup is lock-free
 * for readers (an immutable table, replaced under mem's lock). */
#ifndef VMM_CORE_MEM_H
#define VMM_CORE_MEM_H

#include "base/base.h"
#include "base/error.h"

#include <sys/uio.h>

struct mem;
struct mem_region;

enum mem_kind {
	MEM_RAM,  /* guest reads, writes, executes */
	MEM_ROM,  /* guest writes are dropped; ours (mem_rom_write) are not */
	MEM_VRAM, /* as RAM, always dirty-logged, may move */
};

/* How regions reach the hypervisor; NULL ops: a machine without KVM (tests). */
struct mem_slot {
	u32 id; /* small and unique */
	u64 gpa, bytes;
	void *host;
	enum mem_kind kind;
	bool log_dirty;
};
struct mem_ops {
	/* Add, change the flags of, or (bytes 0) remove a slot. */
	int (*set_slot)(void *arg, const struct mem_slot *slot);
	/* One bit per 4 KiB page.  Without `clear` they may stay as they are, which is
	 * cheaper: nothing is protected again. */
	int (*get_dirty)(void *arg, const struct mem_slot *slot, u64 *bitmap, bool clear);
};

int mem_new(struct mem **out, const struct mem_ops *ops, void *arg, struct error *err);
void mem_free(struct mem *mem);
/* The hypervisor's machine is gone, and its slots with it: ops is not called again.
 * Taking slots away one by one at the end costs milliseconds each. */
void mem_detach(struct mem *mem);

/* Allocate (page aligned, populated only if asked for) and map a region at gpa.
 * An unmapped region (gpa MEM_UNMAPPED) is mapped later by mem_region_move, or
 * only ever seen through aliases.  Regions may not overlap: -EBUSY. */
#define MEM_UNMAPPED UINT64_MAX
struct mem_backing {
	const char *path; /* a directory for the file that it lies in; NULL: anonymous */
	bool prealloc;	  /* all of it now, or an error */
	bool merge;	  /* the host may merge equal pages */
	bool no_core;	  /* not in core dumps of this process */
};
struct mem_place {
	const char *name; /* kept; for `info mtree` */
	u64 gpa, bytes;	  /* multiples of 4 KiB */
	enum mem_kind kind;
};
int mem_add(struct mem *mem, struct mem_region **out, const struct mem_place *place,
	    struct error *err);
/* As mem_add, of memory as backing says; huge pages where the host has them. */
int mem_add_backed(struct mem *mem, struct mem_region **out, const struct mem_place *place,
		   const struct mem_backing *backing, struct error *err);
/* Map place->bytes of another region's memory, from offset on, at place->gpa, too. */
int mem_add_alias(struct mem *mem, struct mem_region **out, const struct mem_place *place,
		  struct mem_region *of, u64 offset, struct error *err);
int mem_region_move(struct mem_region *r, u64 gpa);
void *mem_region_host(const struct mem_region *r);
u64 mem_region_bytes(const struct mem_region *r);
/* Not of a file: userfaultfd can watch it, and its pages can be moved away. */
bool mem_region_is_anonymous(const struct mem_region *r);
/* Make pages of it zeros and give their memory back, or -errno; nobody is told. */
int mem_region_empty(struct mem_region *r, u8 *host, u64 bytes);

/* Host address of guest bytes that lie in one region of RAM or VRAM (writable) or
 * any region (for reading); NULL otherwise.  Valid until the region moves. */
void *mem_ptr_rw(struct mem *mem, u64 gpa, u64 bytes);
const void *mem_ptr_ro(struct mem *mem, u64 gpa, u64 bytes);

/* Copy; 0 or -EFAULT when some byte is not memory (nothing is copied then).
 * Writes mark dirty; writes to ROM are dropped. */
int mem_read(struct mem *mem, u64 gpa, void *buf, u64 bytes);
int mem_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes);
/* For the machine only: change ROM contents too. */
int mem_rom_write(struct mem *mem, u64 gpa, const void *buf, u64 bytes);

/* Append host vectors of a guest range for direct I/O to to->iov[to->n .. room):
 * 0, -EFAULT (not memory, or not writable when device_writes) or -E2BIG. */
struct mem_iov {
	struct iovec *iov;
	unsigned n, room;
};
int mem_map_iov(struct mem *mem, u64 gpa, u64 bytes, bool device_writes, struct mem_iov *to);
/* Bytes that a device wrote by itself through mem_ptr_rw or mem_map_iov.  [any thread] */
void mem_mark_dirty(struct mem *mem, u64 gpa, u64 bytes);
void mem_mark_dirty_iov(struct mem *mem, const struct iovec *iov, unsigned n, u64 bytes);

/* The guest can do without these pages of RAM: they become zeros, their memory goes back
 * to the host.  -EFAULT, and nothing done: not whole pages, or some of it is no RAM. */
int mem_discard(struct mem *mem, u64 gpa, u64 bytes);
/* The same of vectors of mem_map_iov, as far as it suits: what is no RAM or no whole page
 * stays, and all of it while memory is watched. */
void mem_discard_iov(struct mem *mem, const struct iovec *iov, unsigned n);
/* Somebody has userfaultfd watch memory (on), or does no more: pages are then touched
 * before they are discarded, so that what is to be saved of them is, and what is to be
 * loaded does not come later.  Counts.  [control] */
void mem_watch(struct mem *mem, bool on);

/* Pages of the region touched since the client's last call, by guest or device: sets
 * bits (one a 4 KiB page) in bitmap.  The client must have switched its log on; for
 * framebuffers (MEM_VRAM) every log is always on.  A collection takes nothing away
 * from other clients, and when the hypervisor's log was lost, everything is dirty for
 * everybody: the call then fails, the next one tells. */
enum mem_dirty_client { MEM_DIRTY_SNAPSHOT, MEM_DIRTY_DISPLAY, MEM_DIRTY_CLIENTS };
int mem_dirty_log(struct mem_region *r, enum mem_dirty_client who, bool on);
int mem_dirty_collect(struct mem_region *r, enum mem_dirty_client who, u64 *bitmap);
/* The same; the next collection tells it again.  For who throws away what is dirty and
 * collects then: to clear the log of pages that are not there costs little. */
int mem_dirty_look(struct mem_region *r, enum mem_dirty_client who, u64 *bitmap);

/* For `info mtree` and the snapshot: regions in order of address. */
struct mem_region_info {
	const char *name;
	u64 gpa, bytes;
	enum mem_kind kind;
	bool alias;
	struct mem_region *region;
};
unsigned mem_regions(struct mem *mem, struct mem_region_info *out, unsigned room);
u64 mem_ram_bytes(struct mem *mem);

#endif
