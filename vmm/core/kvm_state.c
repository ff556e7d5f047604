/* The in-kernel interrupt controllers, the timer and kvmclock as saved state.
 *
 * KVM API, sections 4.26 (irqchip), 4.72 (PIT2), 4.29 (clock).  The kernel's structs
 * are its ABI and stored as they are.  Devices are loaded before: they set their
 * lines, and then the controllers get the state that those lines had led to.
 * Thread: control, vCPUs paused. */
#include "vmm/core/kvm_int.h"

#include "base/io.h"
#include "vmm/core/state.h"

#include <errno.h>

#define CHIP_BYTES sizeof(struct kvm_irqchip)

struct kvm_image {
	u8 pic0[CHIP_BYTES], pic1[CHIP_BYTES], ioapic[CHIP_BYTES];
	u8 pit[sizeof(struct kvm_pit_state2)];
	bool clock_stopped; /* false: this kernel has none that could be read */
	u64 clock_ns;
};

static const struct state_field image_state[] = {STATE_ARRAY(struct kvm_image, pic0),
						 STATE_ARRAY(struct kvm_image, pic1),
						 STATE_ARRAY(struct kvm_image, ioapic),
						 STATE_ARRAY(struct kvm_image, pit),
						 STATE(struct kvm_image, clock_stopped),
						 STATE(struct kvm_image, clock_ns),
						 STATE_END};

static u8 *chip_of(struct kvm_image *image, u32 id)
{
	u8 *const chips[] = {image->pic0, image->pic1, image->ioapic};

	assert(id < ARRAY_LEN(chips));
	return chips[id];
}

int kvm_save(struct kvm *kvm, struct state_buf *out, struct error *err)
{
	AUTO_FREE struct kvm_image *image = xnew(struct kvm_image);
	int ret = 0;

	for (u32 id = 0; ret == 0 && id < 3; id++) {
		struct kvm_irqchip chip = {.chip_id = id};

		ret = sys_ioctl(kvm->vm_fd, KVM_GET_IRQCHIP, &chip);
		memcpy(chip_of(image, id), &chip, sizeof(chip));
	}
	if (ret < 0)
		return err_set_errno(err, ret, "cannot read the interrupt controllers");
	ret = sys_ioctl(kvm->vm_fd, KVM_GET_PIT2, image->pit);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot read the interval timer");
	image->clock_stopped = kvm->clock_stopped;
	image->clock_ns = kvm->clock_ns;
	state_save(out, "kvm", image_state, image);
	return 0;
}

int kvm_load_image(struct state_buf *in, struct kvm_image **out, struct error *err)
{
	struct kvm_image *image = xnew(struct kvm_image);
	int ret = state_load(in, "kvm", image_state, image, err);

	for (u32 id = 0; ret == 0 && id < 3; id++) {
		struct kvm_irqchip chip;

		memcpy(&chip, chip_of(image, id), sizeof(chip));
		if (chip.chip_id != id)
			ret = err_set(err, -EINVAL,
				      "kvm: state of interrupt controller %u, expected %u",
				      chip.chip_id, id);
	}
	if (ret < 0) {
		free(image);
		return ret;
	}
	*out = image;
	return 0;
}

int kvm_load(struct kvm *kvm, const struct kvm_image *image, struct error *err)
{
	struct kvm_image copy = *image; /* the kernel's calls do not take const */
	int ret = 0;

	for (u32 id = 0; ret == 0 && id < 3; id++)
		ret = sys_ioctl(kvm->vm_fd, KVM_SET_IRQCHIP, chip_of(&copy, id));
	if (ret < 0)
		return err_set_errno(err, ret, "cannot set the interrupt controllers");
	ret = sys_ioctl(kvm->vm_fd, KVM_SET_PIT2, copy.pit);
	if (ret < 0)
		return err_set_errno(err, ret, "cannot set the interval timer");
	kvm->clock_stopped = kvm->clock_stopped || image->clock_stopped;
	kvm->clock_ns = image->clock_ns;
	return 0;
}
