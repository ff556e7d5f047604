/* What kvm.c and kvm_irq.c share. */
#ifndef VMM_CORE_KVM_INT_H
#define VMM_CORE_KVM_INT_H

#include "base/thread.h"
#include "vmm/core/kvm.h"

#include <linux/kvm.h>

/* Routes 0 .. IRQ_GSIS - 1 are the pins of PIC and IOAPIC; the rest are MSIs. */
struct kvm_msi_route {
	bool used;
	u64 addr;
	u32 data;
};

struct kvm {
	int dev_fd, vm_fd;	     /* [const] */
	bool has_readonly;	     /* [const] */
	bool clears_log;	     /* [const] dirty bits stay until KVM_CLEAR_DIRTY_LOG */
	u32 max_routes;		     /* [const] entries that a routing table may have */
	struct mutex lock;	     /* of the routes; a leaf */
	u32 n_msi, msi_room;	     /* [lock] */
	struct kvm_msi_route *msi;   /* [lock] handle is the index */
	struct kvm_irqchip chips[3]; /* [const] as they were made: power-on state */
	struct kvm_pit_state2 pit;   /* [const] */
	bool clock_stopped;	     /* [control] */
	u64 clock_ns;		     /* [control] kvmclock when it was stopped */
};

/* Make the interrupt controllers and the timer, and their routes. */
int kvm_irqchip_init(struct kvm *kvm, struct error *err);

#endif
