/* Snapshots of a whole machine: what the files of this folder share.
 *
 * vm->snapshots is made at the first use.  At most one job runs: saving, or memory
 * still coming in after loadvm.  [control] but for what is tagged otherwise. */
#ifndef VMM_SNAPSHOT_SNAPSHOT_H
#define VMM_SNAPSHOT_SNAPSHOT_H

#include "vmm/core/state.h"
#include "block/qcow2/vmstate_format.h"
#include "vmm/snapshot/area.h"
#include "vmm/snapshot/ram.h"
#include "vmm/snapshot/ram_load.h"
#include "vmm/snapshot/ram_save.h"
#include "vmm/snapshot/set.h"
#include "vmm/vm.h"

struct save_job;
struct load_job;
struct delete_job;

struct snapshots {
	struct vm *vm;
	struct ram_map map;
	bool map_there;
	struct save_job *save;	/* NULL: none is being taken */
	struct load_job *load;	/* NULL: all memory is there */
	struct delete_job *del; /* NULL: none waits for memory that is coming in from it */
	/* What map.dirty counts from: memory outside of it is as in this one's; name
	 * NULL: nothing is. */
	struct qcow2_snapshot base;
	/* Units that the guest asked for first when it went on from the last one loaded. */
	u32 *asked, n_asked;
	/* Of the last one that was taken. */
	u64 pause_ns, total_ns, ram_written;
	bool live;
	/* Of the last one that was loaded; units 0: none was. */
	struct ram_load_progress loaded;
	bool loaded_live;
};

/* vm->snapshots, made if need be. */
int snapshots_of(struct vm *vm, struct snapshots **out, struct error *err);
void vm_free_snapshots(struct vm *vm); /* ends what is going on; before the drives go */
/* Forget the base: everything is dirty. */
void snapshots_forget_base(struct snapshots *s);

/* All memory is there (ret < 0: it is not to be had): what waited for it begins. */
void snapshots_load_ended(struct snapshots *s, int ret);

/* load.c */
void load_free(struct load_job *job);
void load_progress(struct snapshots *s, u64 *there, u64 *units); /* while one is under way */
void load_info(struct snapshots *s, struct printer *p);
bool load_is_of(struct snapshots *s, const char *name); /* is that what is coming in? */
/* save.c */
void save_free(struct save_job *job);
void save_load_ended(struct snapshots *s, int ret);
void save_forget_waiter(struct snapshots *s, struct vm_waiter *w);
/* delete.c */
void delete_free(struct delete_job *job);
int delete_none(struct snapshots *s, struct error *err); /* -EBUSY: one waits */
void delete_cancel(struct snapshots *s);		 /* which waits */
/* Delete what waits for it, unless memory is still coming in from there. */
void delete_goes_on(struct snapshots *s);
void delete_forget_waiter(struct snapshots *s, struct vm_waiter *w);
/* How often those who wait are told. */
#define SNAPSHOT_TICK_NS (200 * NS_PER_MS)

#endif
