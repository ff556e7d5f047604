/* The inside of struct vm, shared by the files of vmm/ and nobody else.
 *
 * Thread: control (main), but for vm_request and what is tagged otherwise.
 * Invariant: vCPUs run exactly while state is RUN_RUNNING, device timers too. */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "base/chardev.h"
#include "base/list.h"
#include "base/loop.h"
#include "vmm/config.h"
#include "vmm/control.h"
#include "vmm/core/kvm.h"
#include "vmm/core/machine.h"
#include "vmm/core/vcpu.h"

struct blk;
struct device;
struct firmware;
struct monitor;
struct snapshots;

/* An open drive and the device that it is attached to. */
struct drive {
	struct list link;
	const struct drive_config *config;
	struct blk *blk;
	struct device *device;	       /* NULL: not attached */
	bool taken;		       /* a -device names it */
	struct throttle_group *limits; /* that it was opened with; NULL: none */
};

/* An open character stream. */
struct stream {
	struct list link;
	char *id;
	struct chardev *chardev;
	bool is_stdio;
};

struct console {
	struct list link;
	struct monitor *monitor;
};

/* Wanted by somebody, to be done on the main thread: bits of `wanted`. */
#define WANT_FAILED   (1u << 31) /* a vCPU gave up */
#define WANT_IO_ERROR (1u << 30) /* the guest must not go on: memory was lost */

struct vm {
	struct machine machine;	     /* what devices see */
	const struct config *config; /* [const] lent */
	struct loop *loop;	     /* [const] lent: the main thread's */
	struct kvm *kvm;	     /* [const] */
	struct firmware *firmware;   /* [const] */
	struct vcpus *vcpus;	     /* [const] */
	struct mem_region *ram;	     /* [const] all of it, seen through aliases */
	struct device *host_bridge, *fwcfg, *pm, *keyboard, *rtc; /* [const] */
	struct device *isa_bridge, *ide;			  /* [const] */
	enum run_state state;
	struct vm_watcher *watchers;
	struct loop_call wanted_call;
	u32 wanted;			/* [atomic] bits by enum machine_request */
	int exit_status, wanted_status; /* of the process; [atomic] code of MACHINE_EXIT */
	bool devices_held, quitting;
	bool memory_lost; /* part of what loadvm should have brought; until a reset or loadvm */
	bool was_reset;	  /* at least once: -boot once is over */
	bool load_waits;  /* -loadvm, until all images are unlocked and cont is said */
	struct screen *screen; /* [const] screen.h */
	struct list drives, streams, consoles;
	struct snapshots *snapshots;   /* NULL until the first */
	struct block_wait *block_wait; /* for a commit or merge; NULL: nobody */
	struct unlocking *unlocking;   /* a passphrase that is being tried; NULL: none */
	struct overlaying *overlaying; /* the same, of an image for snapshot_blkdev */
};

/* machine.c */
int vm_new(struct vm **out, const struct config *config, struct loop *loop, struct error *err);
void vm_free(struct vm *vm); /* NULL is fine */
/* First instruction, unless -S; then the monitor may use vm. */
int vm_start(struct vm *vm, struct error *err);
int vm_exit_status(const struct vm *vm); /* of the process, after the loop ended */

/* run.c */
void vm_run_init(struct vm *vm);
extern const struct machine_ops vm_machine_ops;
extern const struct vcpu_ops vm_vcpu_ops;
/* Leave RUN_RUNNING for another state (or one stopped state for another). */
void vm_stop_as(struct vm *vm, enum run_state state);
/* The machine stands still, if it runs, until the thaw; the run state does not
 * change, and nothing else may happen in between. */
void vm_freeze(struct vm *vm);
void vm_thaw(struct vm *vm);
void vm_hold_devices(struct vm *vm);	/* unless they are held */
void vm_release_devices(struct vm *vm); /* what a stop held back goes on */
/* Stop with an I/O error; the vCPUs at once.  [any thread] */
void vm_lost_memory(struct vm *vm);
/* loadvm: what the machine that was has asked for, a reset or a stop, is void. */
void vm_another_machine(struct vm *vm);
/* Devices, firmware memory, interrupt chips and vCPUs to power-on state. */
int vm_reset_all(struct vm *vm);

/* drives.c */
int vm_open_drives(struct vm *vm, struct error *err);
void vm_close_drives(struct vm *vm);
struct drive *vm_find_drive(struct vm *vm, const char *id);
/* Make the device of every drive with an interface of its own (if=ide, virtio). */
int vm_attach_drives(struct vm *vm, struct error *err);

/* streams.c */
int vm_open_streams(struct vm *vm, struct error *err);
void vm_close_monitors(struct vm *vm);
void vm_close_streams(struct vm *vm); /* says first what is still queued */
struct stream *vm_find_stream(struct vm *vm, const char *id);
/* The stream for a front end ("stdio", "chardev:ID", ...); NULL in *out: none.
 * A fresh one gets the id. */
int vm_stream_for(struct vm *vm, struct chardev **out, const char *id,
		  const struct frontend_config *f, struct error *err);
int vm_add_serials(struct vm *vm, struct error *err);
int vm_add_monitors(struct vm *vm, struct error *err);

/* nets.c: backends and hubs; the cards of -nic and -net; what nobody is connected to. */
int vm_open_netdevs(struct vm *vm, struct error *err);
int vm_add_nics(struct vm *vm, struct error *err);
void vm_close_nets(struct vm *vm);
void vm_warn_of_nets(struct vm *vm);
/* The boot ROM of a network card of this driver, to be freed; NULL: none. */
char *vm_nic_rom(struct vm *vm, const char *driver);

int vm_add_board(struct vm *vm, struct error *err); /* board.c: the devices of `pc` */

/* boot.c: firmware, its tables, boot order, kernel */
const char **vm_firmware_dirs(const struct vm *vm, unsigned *n); /* free() the array */
int vm_load_firmware(struct vm *vm, struct error *err);
void vm_reset_firmware(struct vm *vm); /* memory as firmware wants it at power-on */
void vm_free_firmware(struct vm *vm);

/* control.c: park the vCPUs for an instant, without a change of the run state. */
void vm_hold_cpus(struct vm *vm);
void vm_let_cpus_go(struct vm *vm);

/* user_devices.c */
struct device_args;
int vm_add_device(struct vm *vm, struct device **out, const char *driver,
		  const struct device_args *args, struct error *err);
int vm_add_user_devices(struct vm *vm, struct error *err);
/* The value of a number among a device's properties; UINT32_MAX: it has none such. */
u32 vm_device_u32(const struct device *dev, const char *name);

#endif
