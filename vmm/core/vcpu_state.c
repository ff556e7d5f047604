/* A vCPU as part of saved state: everything that KVM keeps of it.
 *
 * KVM API, section 4.  The kernel's structs are stored as they are: they are its
 * ABI and do not change.  MSRs are those of KVM_GET_MSR_INDEX_LIST that can be
 * read; on loading, those that refuse are counted and named once.
 * Loading is in two steps, so that nothing changes before all is known to fit:
 * decode and judge a struct vcpu_image, then put it in place.  Order of the
 * latter: system registers before general ones, MSRs before the LAPIC (whose timer
 * depends on them), events and run state after it, time last.
 * Thread: control, vCPUs paused. */
#include "vmm/core/vcpu_int.h"

#include "base/bytes.h"
#include "base/io.h"
#include "base/log.h"
#include "vmm/core/state.h"

#include <errno.h>
#include <stdio.h>

#define MSR_TSC		 0x10
#define MSR_TSC_DEADLINE 0x6e0
#define MAX_MSRS	 512
#define MAX_NESTED_BYTES (16 * KiB)
#define XSTATE_BV_AT	 512 /* SDM volume 1, 13.4.2: which parts the area holds */

struct vcpu_image {
	u8 regs[sizeof(struct kvm_regs)];
	u8 sregs[sizeof(struct kvm_sregs)];
	u8 xsave[sizeof(struct kvm_xsave)];
	u8 xcrs[sizeof(struct kvm_xcrs)];
	u8 debugregs[sizeof(struct kvm_debugregs)];
	u8 lapic[sizeof(struct kvm_lapic_state)];
	u8 events[sizeof(struct kvm_vcpu_events)];
	u32 mp_state;
	u32 msrs;
	u32 msr_index[MAX_MSRS];
	u64 msr_data[MAX_MSRS];
	u64 tsc, tsc_deadline;
	u32 nested_bytes; /* 0: the guest runs no guests of its own */
	u8 nested[MAX_NESTED_BYTES];
};

static const struct state_field image_state[] = {STATE_ARRAY(struct vcpu_image, regs),
						 STATE_ARRAY(struct vcpu_image, sregs),
						 STATE_ARRAY(struct vcpu_image, xsave),
						 STATE_ARRAY(struct vcpu_image, xcrs),
						 STATE_ARRAY(struct vcpu_image, debugregs),
						 STATE_ARRAY(struct vcpu_image, lapic),
						 STATE_ARRAY(struct vcpu_image, events),
						 STATE(struct vcpu_image, mp_state),
						 STATE(struct vcpu_image, msrs),
						 STATE_ARRAY(struct vcpu_image, msr_index),
						 STATE_ARRAY(struct vcpu_image, msr_data),
						 STATE(struct vcpu_image, tsc),
						 STATE(struct vcpu_image, tsc_deadline),
						 STATE(struct vcpu_image, nested_bytes),
						 STATE_ARRAY(struct vcpu_image, nested),
						 STATE_END};

struct call {
	unsigned long get, set;
	const char *name;
	u32 offset;
	bool (*there)(const struct vcpus *v); /* NULL: always */
};

static bool has_xcrs(const struct vcpus *v)
{
	return v->has_xcrs;
}

static bool has_debugregs(const struct vcpus *v)
{
	return v->has_debugregs;
}

/* In the order of setting; MSRs go between `before` and `after`. */
static const struct call before[] = {
	{KVM_GET_SREGS, KVM_SET_SREGS, "system registers", offsetof(struct vcpu_image, sregs),
	 NULL},
	{KVM_GET_REGS, KVM_SET_REGS, "registers", offsetof(struct vcpu_image, regs), NULL},
	{KVM_GET_XCRS, KVM_SET_XCRS, "XCR0", offsetof(struct vcpu_image, xcrs), has_xcrs},
	{KVM_GET_XSAVE, KVM_SET_XSAVE, "extended state", offsetof(struct vcpu_image, xsave), NULL},
	{KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, "debug registers",
	 offsetof(struct vcpu_image, debugregs), has_debugregs},
};
static const struct call after[] = {
	{KVM_GET_LAPIC, KVM_SET_LAPIC, "local APIC", offsetof(struct vcpu_image, lapic), NULL},
	{KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, "events", offsetof(struct vcpu_image, events),
	 NULL},
};

static int each_call(struct vcpu *vcpu, const struct call *calls, unsigned n, void *image, bool set,
		     struct error *err)
{
	for (unsigned i = 0; i < n; i++) {
		const struct call *c = &calls[i];
		int ret;

		if (c->there && !c->there(vcpu->set))
			continue;
		ret = sys_ioctl(vcpu->fd, set ? c->set : c->get, (u8 *)image + c->offset);
		if (ret < 0)
			return err_set_errno(err, ret, "CPU %u: cannot %s its %s", vcpu->index,
					     set ? "set" : "read", c->name);
	}
	return 0;
}

/* --- saving ------------------------------------------------------------------- */

static int get_msrs(struct vcpu *vcpu, struct vcpu_image *image)
{
	const struct kvm_msrs *known = vcpu->power_on.msrs;
	AUTO_FREE struct kvm_msrs *msrs =
		xalloc(sizeof(*msrs) + known->nmsrs * sizeof(struct kvm_msr_entry));
	int ret;

	msrs->nmsrs = known->nmsrs;
	memcpy(msrs->entries, known->entries, known->nmsrs * sizeof(struct kvm_msr_entry));
	ret = sys_ioctl(vcpu->fd, KVM_GET_MSRS, msrs);
	if (ret < 0)
		return ret;
	for (u32 i = 0; i < (u32)ret; i++) {
		const struct kvm_msr_entry *e = &msrs->entries[i];

		if (e->index == MSR_TSC) {
			image->tsc = e->data;
		} else if (e->index == MSR_TSC_DEADLINE) {
			image->tsc_deadline = e->data;
		} else if (image->msrs < MAX_MSRS) {
			image->msr_index[image->msrs] = e->index;
			image->msr_data[image->msrs++] = e->data;
		}
	}
	/* All of them could be read when the machine was made. */
	return (u32)ret == known->nmsrs && known->nmsrs <= MAX_MSRS ? 0 : -EIO;
}

/* A guest that is a hypervisor itself: what KVM keeps for its guests. */
static int get_nested(struct vcpu *vcpu, struct vcpu_image *image)
{
	struct kvm_nested_state *nested = (struct kvm_nested_state *)image->nested;
	int ret;

	if (!kvm_has_cap(vcpu->set->kvm, KVM_CAP_NESTED_STATE, NULL))
		return 0;
	nested->size = sizeof(image->nested);
	ret = sys_ioctl(vcpu->fd, KVM_GET_NESTED_STATE, nested);
	if (ret < 0)
		return ret;
	/* Neither in a guest nor with a current VMCS: nothing but a header. */
	image->nested_bytes = nested->size > sizeof(*nested) ? nested->size : 0;
	return 0;
}

int vcpu_save(struct vcpu *vcpu, struct state_buf *out, struct error *err)
{
	AUTO_FREE struct vcpu_image *image = xnew(struct vcpu_image);
	struct kvm_mp_state mp;
	char section[16];
	int ret = each_call(vcpu, before, ARRAY_LEN(before), image, false, err);

	if (ret == 0)
		ret = each_call(vcpu, after, ARRAY_LEN(after), image, false, err);
	if (ret < 0)
		return ret;
	ret = get_msrs(vcpu, image);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU %u: cannot read its MSRs", vcpu->index);
	ret = get_nested(vcpu, image);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU %u: cannot read its nested state", vcpu->index);
	ret = sys_ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU %u: cannot read its run state", vcpu->index);
	image->mp_state = mp.mp_state;
	snprintf(section, sizeof(section), "cpu%u", vcpu->index);
	state_save(out, section, image_state, image);
	return 0;
}

/* --- loading ------------------------------------------------------------------ */

/* KVM would refuse them when half of the machine is loaded. */
static int check_xstates(const struct vcpu *vcpu, const struct vcpu_image *image, struct error *err)
{
	static const struct {
		u64 mask;
		const char *name;
	} parts[] = {
		{0x4, "AVX"}, {0x18, "MPX"}, {0xe0, "AVX-512"}, {0x200, "PKU"}, {0x60000, "AMX"}};
	u64 lacks = load_le64(image->xsave + XSTATE_BV_AT);
	struct kvm_xcrs xcrs;
	char names[64] = "";

	memcpy(&xcrs, image->xcrs, sizeof(xcrs));
	if (vcpu->set->has_xcrs && xcrs.nr_xcrs)
		lacks |= xcrs.xcrs[0].value;
	lacks &= ~vcpu->set->xstates;
	if (!lacks)
		return 0;
	for (unsigned i = 0; i < ARRAY_LEN(parts); i++)
		if (lacks & parts[i].mask)
			snprintf(names + strlen(names), sizeof(names) - strlen(names), "%s%s",
				 *names ? ", " : "", parts[i].name);
	return err_set(err, -EINVAL,
		       "cpu%u: its extended state has parts that this host lacks: %s (0x%llx)",
		       vcpu->index, *names ? names : "unknown ones", (unsigned long long)lacks);
}

int vcpu_load_image(struct vcpu *vcpu, struct state_buf *in, struct vcpu_image **out,
		    struct error *err)
{
	struct vcpu_image *image = xnew(struct vcpu_image);
	const struct kvm_nested_state *nested = (const void *)image->nested;
	char section[16];
	int ret;

	snprintf(section, sizeof(section), "cpu%u", vcpu->index);
	ret = state_load(in, section, image_state, image, err);
	if (ret == 0 && image->msrs > MAX_MSRS)
		ret = err_set(err, -EINVAL, "%s: has %u MSRs, expected at most %u", section,
			      image->msrs, MAX_MSRS);
	if (ret == 0 && image->nested_bytes &&
	    (image->nested_bytes > sizeof(image->nested) || nested->size != image->nested_bytes))
		ret = err_set(err, -EINVAL, "%s: nested state of %u bytes, expected at most %zu",
			      section, image->nested_bytes, sizeof(image->nested));
	if (ret == 0)
		ret = check_xstates(vcpu, image, err);
	if (ret < 0) {
		free(image);
		return ret;
	}
	*out = image;
	return 0;
}

/* Those that this KVM refuses are skipped: mostly counters and debugging aids.  It stops
 * at each of them. */
static int set_msrs(struct vcpu *vcpu, const struct vcpu_image *image)
{
	struct kvm_msr_entry entries[MAX_MSRS];
	u32 refused = 0, first = 0;

	for (u32 i = 0; i < image->msrs; i++)
		entries[i] = (struct kvm_msr_entry){.index = image->msr_index[i],
						    .data = image->msr_data[i]};
	for (u32 i = 0; i < image->msrs; i++) {
		int ret = vcpu_set_msrs(vcpu, entries + i, image->msrs - i);

		if (ret < 0)
			return ret;
		i += (u32)ret;
		if (i < image->msrs && !refused++)
			first = image->msr_index[i];
	}
	if (refused)
		log_warn("CPU#%u: %u MSRs cannot be restored here, 0x%x first", vcpu->index,
			 refused, first);
	return 0;
}

static int set_time(struct vcpu *vcpu, const struct vcpu_image *image)
{
	const struct kvm_msr_entry time[] = {
		{.index = MSR_TSC, .data = image->tsc},
		{.index = MSR_TSC_DEADLINE, .data = image->tsc_deadline},
	};
	int ret = vcpu_set_msrs(vcpu, time, ARRAY_LEN(time));

	return MIN(ret, 0);
}

static int set_nested(struct vcpu *vcpu, struct vcpu_image *image)
{
	if (!image->nested_bytes)
		return 0;
	return sys_ioctl(vcpu->fd, KVM_SET_NESTED_STATE, image->nested);
}

int vcpu_load(struct vcpu *vcpu, struct vcpu_image *image, struct error *err)
{
	struct kvm_mp_state mp = {.mp_state = image->mp_state};
	int ret = each_call(vcpu, before, ARRAY_LEN(before), image, true, err);

	if (ret < 0)
		return ret;
	ret = set_msrs(vcpu, image);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU %u: cannot set its MSRs", vcpu->index);
	ret = set_nested(vcpu, image);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU %u: cannot set its nested state", vcpu->index);
	ret = each_call(vcpu, after, ARRAY_LEN(after), image, true, err);
	if (ret < 0)
		return ret;
	ret = sys_ioctl(vcpu->fd, KVM_SET_MP_STATE, &mp);
	if (ret == 0)
		ret = set_time(vcpu, image);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU %u: cannot set its run state", vcpu->index);
	return 0;
}
