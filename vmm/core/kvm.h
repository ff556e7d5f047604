/* The virtual machine in the kernel: /dev/kvm, capabilities, irqchip, slots.
 * KVM API: Documentation/virt/kvm/api.rst. */
#ifndef VMM_CORE_KVM_H
#define VMM_CORE_KVM_H

#include "base/base.h"
#include "base/error.h"
#include "vmm/core/bus.h"
#include "vmm/core/irq.h"
#include "vmm/core/mem.h"

struct kvm;
struct kvm_regs;
struct kvm_sregs;

/* Open /dev/kvm, make a VM with in-kernel PIC, IOAPIC, LAPICs and PIT.  One clear
 * message when the device is missing, may not be opened, or lacks what we need. */
int kvm_new(struct kvm **out, struct error *err);
void kvm_free(struct kvm *kvm);
int kvm_vm_fd(const struct kvm *kvm);
bool kvm_has_cap(struct kvm *kvm, int cap, int *value);
bool kvm_has_smm(struct kvm *kvm);

/* What mem, irq and the buses are built on; arg is the struct kvm. */
extern const struct mem_ops kvm_mem_ops;
extern const struct irq_ops kvm_irq_ops;
extern const struct bus_doorbell_ops kvm_pio_doorbell_ops, kvm_mmio_doorbell_ops;

/* Device state in the kernel, for reset and snapshots: PIC x2, IOAPIC, PIT, clock. */
int kvm_irqchip_reset(struct kvm *kvm);

#endif
