/* All that a monitor may do with a machine.
 *
 * Called on the main thread.  `struct vm` is the whole machine; the monitor knows
 * no more of it than this.  Text results go to an `out` callback, line by line or
 * in pieces, so that one function serves terminal, socket and tests. */
#ifndef VMM_CONTROL_H
#define VMM_CONTROL_H

#include "base/base.h"
#include "base/error.h"
#include "base/printer.h"

struct vm;
struct loop;

enum run_state {
	RUN_PRELAUNCH,
	RUN_RUNNING,
	RUN_PAUSED,
	RUN_INTERNAL_ERROR,
	RUN_IO_ERROR,
	RUN_SHUTDOWN,
	RUN_GUEST_PANICKED,
	RUN_SUSPENDED,
	RUN_STATES
};
/* "running", "paused", "prelaunch", "internal-error", "io-error", "shutdown", ... */
const char *run_state_name(enum run_state s);

struct loop *vm_loop(struct vm *vm);
const char *vm_name(struct vm *vm); /* "" without -name */
enum run_state vm_state(struct vm *vm);

/* Run states.  cont: -EBUSY-like errors with a message when the state forbids. */
int vm_stop(struct vm *vm, struct error *err);
int vm_cont(struct vm *vm, struct error *err);
/* -loadvm, when it had to wait for passphrases; before cont, and part of it.  p: as for
 * vm_loadvm. */
int vm_load_waiting(struct vm *vm, struct printer *p, struct error *err);
int vm_system_reset(struct vm *vm, struct error *err);
int vm_system_powerdown(struct vm *vm, struct error *err);
int vm_nmi(struct vm *vm, u32 cpu, struct error *err);
void vm_quit(struct vm *vm); /* orderly end of the process; returns */

/* Told on the main thread when the run state changes or the guest resets. */
struct vm_watcher {
	struct vm_watcher *next;
	void (*changed)(struct vm_watcher *w, enum run_state state);
};
void vm_watch(struct vm *vm, struct vm_watcher *w);
void vm_unwatch(struct vm *vm, struct vm_watcher *w);

/* Snapshots of the machine with its disks.  savevm returns when it has begun, and
 * refuses at once what cannot be; its end is told to the waiter, if there is one. */
struct vm_waiter {
	/* Once; text is the message of ret < 0.  The waiter is the caller's again. */
	void (*done)(struct vm_waiter *w, int ret, const char *text);
	void (*progress)(struct vm_waiter *w, u64 done_bytes, u64 total_bytes);
};
struct vm_savevm {
	const char *tag; /* NULL: made from the date */
	bool detach;	 /* nobody waits for the end */
	bool overlays;	 /* put qcow2 overlays over disks that have no snapshots */
	struct printer *out;
};
int vm_savevm(struct vm *vm, const struct vm_savevm *opt, struct vm_waiter *w, struct error *err);
void vm_forget_waiter(struct vm *vm, struct vm_waiter *w);
int vm_snapshot_cancel(struct vm *vm, struct error *err);
/* p: the list of differences, when the machine is not the one that was saved. */
int vm_loadvm(struct vm *vm, const char *tag, struct printer *p, struct error *err);
/* Waits while memory is still coming in from there.  1: it has gone, nobody waits. */
int vm_delvm(struct vm *vm, const char *tag, struct vm_waiter *w, struct error *err);
int vm_info_snapshots(struct vm *vm, struct printer *p, struct error *err);
void vm_info_snapshot_job(struct vm *vm, struct printer *p);

/* `info ...`: print as the reference does. */
void vm_info_status(struct vm *vm, struct printer *p);
void vm_info_name(struct vm *vm, struct printer *p);
void vm_info_uuid(struct vm *vm, struct printer *p);
void vm_info_kvm(struct vm *vm, struct printer *p);
void vm_info_cpus(struct vm *vm, u32 current, struct printer *p);
int vm_info_registers(struct vm *vm, u32 cpu, bool all, struct printer *p, struct error *err);
int vm_info_block(struct vm *vm, bool nodes, bool verbose, const char *device, struct printer *p,
		  struct error *err);
void vm_info_blockstats(struct vm *vm, struct printer *p);
void vm_info_mtree(struct vm *vm, struct printer *p);
void vm_info_pci(struct vm *vm, struct printer *p);
void vm_info_qtree(struct vm *vm, struct printer *p);
void vm_info_irq(struct vm *vm, struct printer *p);
int vm_info_lapic(struct vm *vm, u32 cpu, struct printer *p, struct error *err);
int vm_info_pic(struct vm *vm, struct printer *p, struct error *err);
int vm_info_mem(struct vm *vm, u32 cpu, struct printer *p, struct error *err);
int vm_info_tlb(struct vm *vm, u32 cpu, struct printer *p, struct error *err);
void vm_info_chardev(struct vm *vm, struct printer *p);
void vm_info_memory_size(struct vm *vm, struct printer *p);
void vm_info_memdev(struct vm *vm, struct printer *p);
int vm_info_balloon(struct vm *vm, struct printer *p, struct error *err);
/* Ask the guest to make do with this much memory. */
int vm_balloon(struct vm *vm, u64 bytes, struct error *err);
void vm_info_vnc(struct vm *vm, struct printer *p);
void vm_info_mice(struct vm *vm, struct printer *p);

/* Memory and ports as the guest sees them.  Reads and writes are done while the
 * vCPUs are stopped for an instant, the same run state afterwards. */
u32 vm_cpus(struct vm *vm);
int vm_read_physical(struct vm *vm, u64 gpa, void *buf, size_t bytes, struct error *err);
int vm_read_virtual(struct vm *vm, u32 cpu, u64 gva, void *buf, size_t bytes, struct error *err);
int vm_translate(struct vm *vm, u32 cpu, u64 gva, u64 *gpa, struct error *err);
int vm_port_read(struct vm *vm, u16 port, unsigned size, u32 *value, struct error *err);
int vm_port_write(struct vm *vm, u16 port, unsigned size, u32 value, struct error *err);
/* A register by name ("rip", "eax", ...) for expressions. */
int vm_register(struct vm *vm, u32 cpu, const char *name, u64 *value);

/* Networks.  Words of hostfwd_* are printed as the reference does. */
void vm_info_network(struct vm *vm, struct printer *p);
void vm_info_usernet(struct vm *vm, struct printer *p);
int vm_set_link(struct vm *vm, const char *name, bool up, struct error *err);
void vm_hostfwd_add(struct vm *vm, const char *netdev, const char *rule, struct printer *p);
void vm_hostfwd_remove(struct vm *vm, const char *netdev, const char *rule, struct printer *p);
int vm_netdev_add(struct vm *vm, const char *text, struct error *err);
int vm_netdev_del(struct vm *vm, const char *id, struct error *err);

/* Keyboard: set-1 make code with 0x80 for E0-prefixed keys as the reference's key
 * table; pressed or released. */
int vm_key(struct vm *vm, u32 keycode, bool pressed, struct error *err);

/* The mouse: steps to the right, down, and of the wheel away from the user; buttons
 * held as bits 0 (left), 1 (middle), 2 (right); which one `info mice` shows to use. */
void vm_mouse_move(struct vm *vm, s32 dx, s32 dy, s32 dz);
void vm_mouse_button(struct vm *vm, u32 buttons);
int vm_mouse_set(struct vm *vm, u32 number, struct error *err);

/* VNC.  display: the name of one, NULL: the first that was given.  when: now, never,
 * +seconds, or seconds since 1970. */
bool vm_vnc_takes_passwords(struct vm *vm, const char *display); /* true without one, too */
int vm_vnc_set_password(struct vm *vm, const char *display, const char *password,
			struct error *err);
int vm_vnc_expire(struct vm *vm, const char *display, const char *when, struct error *err);

/* The screen as it is now, as "ppm" (NULL) or "png". */
int vm_screendump(struct vm *vm, const char *path, const char *format, struct error *err);

#endif
