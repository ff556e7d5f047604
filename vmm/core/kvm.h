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

/* Guest-physical pages that KVM keeps for itself on Intel hosts (identity map and
 * three pages of task state): no RAM or registers there, and e820 says reserved. */
#define KVM_RESERVED_GPA   0xfeffc000ull
#define KVM_RESERVED_BYTES 0x4000ull

/* Open /dev/kvm, make a VM with in-kernel PIC, IOAPIC, LAPICs and PIT.  One clear
 * message when the device is missing, may not be opened, or lacks what we need. */
int kvm_new(struct kvm **out, struct error *err);
/* As kvm_new, of another device node (tests). */
int kvm_new_at(struct kvm **out, const char *path, struct error *err);
/* After the vCPUs, mem, irq and buses built on it. */
void kvm_free(struct kvm *kvm);
int kvm_fd(const struct kvm *kvm); /* the device */
int kvm_vm_fd(const struct kvm *kvm);
/* Is there the capability; its value (1 and up) to *value, which may be NULL. */
bool kvm_has_cap(struct kvm *kvm, int cap, int *value);
bool kvm_has_smm(struct kvm *kvm);

/* What mem, irq and the buses are built on; arg is the struct kvm. */
extern const struct mem_ops kvm_mem_ops;
extern const struct irq_ops kvm_irq_ops;
extern const struct bus_doorbell_ops kvm_pio_doorbell_ops, kvm_mmio_doorbell_ops;

/* PIC x2, IOAPIC and PIT back to their power-on state.  vCPUs paused, and lines of
 * devices lowered by their own reset before. */
int kvm_irqchip_reset(struct kvm *kvm);
struct kvm_irqchip;
int kvm_get_irqchip(struct kvm *kvm, struct kvm_irqchip *chip); /* the one of its chip_id */

/* Saved state of the interrupt controllers, the timer and kvmclock, which stands.
 * As with vCPUs: decode, then put in place; free() the image. */
struct state_buf;
struct kvm_image;
int kvm_save(struct kvm *kvm, struct state_buf *out, struct error *err);
int kvm_load_image(struct state_buf *in, struct kvm_image **out, struct error *err);
int kvm_load(struct kvm *kvm, const struct kvm_image *image, struct error *err);

/* The guest's kvmclock stands still between stop and start (vcpus_pause and
 * vcpus_resume do this). */
void kvm_clock_stop(struct kvm *kvm);
void kvm_clock_start(struct kvm *kvm);

#endif
