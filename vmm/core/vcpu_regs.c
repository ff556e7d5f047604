/* A vCPU's registers: reset to the power-on state, get and set, dump.
 *
 * Intel SDM volume 3, section 10.1 (state after power-up), table 10-1; AMD APM
 * volume 2, section 14.1.  KVM API, section 4.
 * Order of setting matters: system registers (they hold the APIC's base) before
 * general ones and before the LAPIC, MSRs before the LAPIC (whose timer mode they
 * depend on), events and run state last.
 * Thread: control while paused, or the vCPU's own. */
#include "vmm/core/vcpu_int.h"

#include "base/io.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>

#define MSR_TSC		     0x10
#define MSR_APIC_BASE	     0x1b
#define MSR_MISC_ENABLE	     0x1a0
#define MISC_ENABLE_FAST_STR 1
#define APIC_BASE	     0xfee00000
#define APIC_BASE_BSP	     (1u << 8)
#define APIC_BASE_ENABLE     (1u << 11)

/* Of Hyper-V, TLFS appendix F. */
#define HV_MSR_VP_INDEX	      0x40000002
#define HV_MSR_SCONTROL	      0x40000080
#define HV_MSR_SIEFP	      0x40000082
#define HV_MSR_SIMP	      0x40000083
#define HV_MSR_SINT0	      0x40000090
#define HV_MSR_STIMER0_CONFIG 0x400000b0 /* then its count, then the next timer's */
#define HV_MSRS		      (1 + 2 + 16 + 8)

/* --- MSRs --------------------------------------------------------------------- */

static int get_msr_list(struct kvm *kvm, struct kvm_msr_list **out)
{
	struct kvm_msr_list probe = {0};
	struct kvm_msr_list *list;
	int ret = sys_ioctl(kvm_fd(kvm), KVM_GET_MSR_INDEX_LIST, &probe);

	if (ret < 0 && ret != -E2BIG)
		return ret;
	list = xalloc(sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
	list->nmsrs = probe.nmsrs;
	ret = sys_ioctl(kvm_fd(kvm), KVM_GET_MSR_INDEX_LIST, list);
	if (ret < 0) {
		free(list);
		return ret;
	}
	*out = list;
	return 0;
}

/* KVM_GET_MSRS and KVM_SET_MSRS stop at the first that refuses: drop that one and
 * go on behind it.  Returns how many were dropped, or a negative errno. */
static int each_msr(struct vcpu *vcpu, unsigned long request, struct kvm_msrs *msrs)
{
	u32 total = msrs->nmsrs, done = 0, kept = 0;
	AUTO_FREE struct kvm_msrs *part =
		xalloc(sizeof(*part) + total * sizeof(struct kvm_msr_entry));

	while (done < total) {
		int n;

		part->nmsrs = total - done;
		memcpy(part->entries, &msrs->entries[done],
		       part->nmsrs * sizeof(struct kvm_msr_entry));
		n = sys_ioctl(vcpu->fd, request, part);
		if (n < 0)
			return n;
		memmove(&msrs->entries[kept], part->entries, (u32)n * sizeof(struct kvm_msr_entry));
		kept += (u32)n;
		done += (u32)n + 1; /* and the one that refused, if any */
	}
	msrs->nmsrs = kept;
	return (int)(total - kept);
}

/* Those that are set on their own, or count time. */
static bool is_left_out(u32 index)
{
	return index == MSR_APIC_BASE || index == MSR_TSC || index == HV_MSR_SCONTROL ||
	       index == HV_MSR_STIMER0_CONFIG;
}

int vcpu_set_msrs(struct vcpu *vcpu, const struct kvm_msr_entry *entries, u32 n)
{
	AUTO_FREE struct kvm_msrs *msrs = xalloc(sizeof(*msrs) + n * sizeof(*entries));

	msrs->nmsrs = n;
	memcpy(msrs->entries, entries, n * sizeof(*entries));
	return sys_ioctl(vcpu->fd, KVM_SET_MSRS, msrs);
}

int vcpu_set_up_hyperv(struct vcpu *vcpu)
{
	struct kvm_enable_cap synic = {.cap = KVM_CAP_HYPERV_SYNIC2};
	struct kvm_msr_entry number = {.index = HV_MSR_VP_INDEX, .data = vcpu->index};
	int ret = vcpu->synic ? sys_ioctl(vcpu->fd, KVM_ENABLE_CAP, &synic) : 0;

	if (ret < 0)
		return ret;
	ret = vcpu_set_msrs(vcpu, &number, 1);
	return ret == 0 ? -EINVAL : MIN(ret, 0);
}

static void add_msrs(struct kvm_msrs *msrs, u32 first, u32 last)
{
	for (u32 i = first; i <= last; i++)
		msrs->entries[msrs->nmsrs++].index = i;
}

/* The kernel lists one of each group only (TLFS chapters 11 and 12); a timer's
 * configuration comes before its count, which decides whether it runs. */
static void add_hyperv_msrs(struct vcpu *vcpu, struct kvm_msrs *msrs)
{
	if (vcpu->synic) {
		add_msrs(msrs, HV_MSR_SCONTROL, HV_MSR_SCONTROL);
		add_msrs(msrs, HV_MSR_SIEFP, HV_MSR_SIMP);
		add_msrs(msrs, HV_MSR_SINT0, HV_MSR_SINT0 + 15);
	}
	if (vcpu->stimer)
		add_msrs(msrs, HV_MSR_STIMER0_CONFIG, HV_MSR_STIMER0_CONFIG + 7);
}

static int note_msrs(struct vcpu *vcpu)
{
	AUTO_FREE struct kvm_msr_list *list = NULL;
	struct kvm_msrs *msrs;
	int ret = get_msr_list(vcpu->set->kvm, &list);

	if (ret < 0)
		return ret;
	msrs = xalloc(sizeof(*msrs) + (list->nmsrs + 1 + HV_MSRS) * sizeof(struct kvm_msr_entry));
	vcpu->power_on.msrs = msrs;
	for (u32 i = 0; i < list->nmsrs; i++)
		if (!is_left_out(list->indices[i]))
			msrs->entries[msrs->nmsrs++].index = list->indices[i];
	add_hyperv_msrs(vcpu, msrs);
	ret = each_msr(vcpu, KVM_GET_MSRS, msrs);
	if (ret < 0)
		return ret;
	/* The firmware is to find what a PC's would (SDM volume 4). */
	for (u32 i = 0; i < msrs->nmsrs; i++)
		if (msrs->entries[i].index == MSR_MISC_ENABLE)
			msrs->entries[i].data |= MISC_ENABLE_FAST_STR;
	/* What cannot be written back now, cannot at a reset either. */
	ret = each_msr(vcpu, KVM_SET_MSRS, msrs);
	if (ret > 0)
		TRACE(TRACE_KVM, "CPU#%u: %d MSRs cannot be written", vcpu->index, ret);
	/* Last, so that all CPUs start counting from about the same moment. */
	msrs->entries[msrs->nmsrs++] = (struct kvm_msr_entry){.index = MSR_TSC};
	return ret < 0 ? ret : 0;
}

int vcpu_note_power_on(struct vcpu *vcpu, struct error *err)
{
	int ret = note_msrs(vcpu);

	if (ret < 0)
		return err_set_errno(err, ret, "cannot read the MSRs of CPU %u", vcpu->index);
	ret = sys_ioctl(vcpu->fd, KVM_GET_LAPIC, &vcpu->power_on.lapic);
	return ret < 0 ? err_set_errno(err, ret, "KVM_GET_LAPIC") : 0;
}

/* --- reset -------------------------------------------------------------------- */

static struct kvm_segment segment(u16 selector, u64 base, u8 type, bool system)
{
	return (struct kvm_segment){
		.selector = selector,
		.base = base,
		.limit = 0xffff,
		.type = type,
		.present = 1,
		.s = !system,
	};
}

static int reset_sregs(struct vcpu *vcpu)
{
	const struct kvm_segment data = segment(0, 0, 3, false); /* read/write, accessed */
	struct kvm_sregs sregs = {
		/* The first instruction is at ffff:fff0 of the last 64 KiB below 4 GiB. */
		.cs = segment(0xf000, 0xffff0000, 0xb, false), /* code, read, accessed */
		.ds = data,
		.es = data,
		.fs = data,
		.gs = data,
		.ss = data,
		.tr = segment(0, 0, 0xb, true),	 /* busy 32-bit TSS */
		.ldt = segment(0, 0, 0x2, true), /* LDT */
		.gdt = {.limit = 0xffff},
		.idt = {.limit = 0xffff},
		.cr0 = 0x60000010, /* caches off, ET */
		.apic_base = APIC_BASE | APIC_BASE_ENABLE | (vcpu->index == 0 ? APIC_BASE_BSP : 0),
	};

	return sys_ioctl(vcpu->fd, KVM_SET_SREGS, &sregs);
}

static int reset_regs(struct vcpu *vcpu)
{
	struct kvm_regs regs = {.rip = 0xfff0, .rflags = 2, .rdx = vcpu->signature};

	return sys_ioctl(vcpu->fd, KVM_SET_REGS, &regs);
}

/* All of the extended state to its initial values, x87 and SSE control words too. */
static int reset_fpu(struct vcpu *vcpu)
{
	struct kvm_fpu fpu = {.fcw = 0x40, .mxcsr = 0x1f80, .ftwx = 0xff};
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.value = 1}}};
	AUTO_FREE struct kvm_xsave *xsave = xalloc(sizeof(*xsave));
	int ret = 0;

	if (vcpu->set->has_xcrs)
		ret = sys_ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs);
	if (ret == 0) {
		xsave->region[6] = 0x1f80; /* MXCSR; the header says: all else initial */
		/* Refused where the host has no XSAVE: then there is only the FPU. */
		(void)sys_ioctl(vcpu->fd, KVM_SET_XSAVE, xsave);
		ret = sys_ioctl(vcpu->fd, KVM_SET_FPU, &fpu);
	}
	return ret;
}

static int reset_debugregs(struct vcpu *vcpu)
{
	struct kvm_debugregs regs = {.dr6 = 0xffff0ff0, .dr7 = 0x400};

	if (!vcpu->set->has_debugregs)
		return 0;
	return sys_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &regs);
}

static int reset_msrs(struct vcpu *vcpu)
{
	int ret = sys_ioctl(vcpu->fd, KVM_SET_MSRS, vcpu->power_on.msrs);

	if (ret >= 0 && (u32)ret < vcpu->power_on.msrs->nmsrs)
		log_warn("CPU#%u: MSR 0x%x cannot be reset", vcpu->index,
			 vcpu->power_on.msrs->entries[ret].index);
	return MIN(ret, 0);
}

/* Nothing pending, nothing masked; then the boot CPU runs, the others wait for an
 * INIT and SIPI. */
static int reset_events(struct vcpu *vcpu)
{
	struct kvm_vcpu_events events = {
		.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
			 KVM_VCPUEVENT_VALID_SHADOW,
	};
	struct kvm_mp_state state = {
		.mp_state = vcpu->index == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED,
	};
	int ret = sys_ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events);

	return ret < 0 ? ret : sys_ioctl(vcpu->fd, KVM_SET_MP_STATE, &state);
}

int vcpu_reset(struct vcpu *vcpu)
{
	static int (*const steps[])(struct vcpu * vcpu) = {reset_sregs, reset_regs, reset_fpu,
							   reset_debugregs, reset_msrs};
	int ret = 0;

	for (unsigned i = 0; ret == 0 && i < ARRAY_LEN(steps); i++)
		ret = steps[i](vcpu);
	if (ret == 0)
		ret = sys_ioctl(vcpu->fd, KVM_SET_LAPIC, &vcpu->power_on.lapic);
	return ret < 0 ? ret : reset_events(vcpu);
}

/* --- get and set -------------------------------------------------------------- */

int vcpu_get_regs(struct vcpu *vcpu, struct kvm_regs *regs)
{
	return sys_ioctl(vcpu->fd, KVM_GET_REGS, regs);
}

int vcpu_set_regs(struct vcpu *vcpu, const struct kvm_regs *regs)
{
	struct kvm_regs copy = *regs;

	return sys_ioctl(vcpu->fd, KVM_SET_REGS, &copy);
}

int vcpu_get_sregs(struct vcpu *vcpu, struct kvm_sregs *sregs)
{
	return sys_ioctl(vcpu->fd, KVM_GET_SREGS, sregs);
}

int vcpu_set_sregs(struct vcpu *vcpu, const struct kvm_sregs *sregs)
{
	struct kvm_sregs copy = *sregs;

	return sys_ioctl(vcpu->fd, KVM_SET_SREGS, &copy);
}

int vcpu_get_fpu(struct vcpu *vcpu, struct kvm_fpu *fpu)
{
	struct kvm_xsave *xsave;
	int ret = sys_ioctl(vcpu->fd, KVM_GET_FPU, fpu);

	if (ret < 0)
		return ret;
	/* KVM_GET_FPU leaves MXCSR out; it is at byte 24 of the XSAVE area. */
	xsave = xalloc(sizeof(*xsave));
	if (sys_ioctl(vcpu->fd, KVM_GET_XSAVE, xsave) == 0)
		fpu->mxcsr = xsave->region[6];
	free(xsave);
	return 0;
}

int vcpu_get_lapic(struct vcpu *vcpu, struct kvm_lapic_state *lapic)
{
	return sys_ioctl(vcpu->fd, KVM_GET_LAPIC, lapic);
}

int vcpu_translate(struct vcpu *vcpu, u64 gva, u64 *gpa)
{
	struct kvm_translation t = {.linear_address = gva};
	int ret = sys_ioctl(vcpu->fd, KVM_TRANSLATE, &t);

	if (ret < 0)
		return ret;
	if (!t.valid)
		return -EFAULT;
	*gpa = t.physical_address;
	return 0;
}

int vcpu_nmi(struct vcpu *vcpu)
{
	return sys_ioctl(vcpu->fd, KVM_NMI, NULL);
}

bool vcpu_is_halted(struct vcpu *vcpu)
{
	struct kvm_mp_state state = {0};

	return sys_ioctl(vcpu->fd, KVM_GET_MP_STATE, &state) == 0 &&
	       state.mp_state == KVM_MP_STATE_HALTED;
}

/* --- dump --------------------------------------------------------------------- */

static void dump_regs(const struct kvm_regs *r)
{
	const struct {
		const char *name;
		u64 value;
	} regs[] = {
		{"RAX", r->rax}, {"RBX", r->rbx}, {"RCX", r->rcx}, {"RDX", r->rdx},
		{"RSI", r->rsi}, {"RDI", r->rdi}, {"RBP", r->rbp}, {"RSP", r->rsp},
		{"R8 ", r->r8},	 {"R9 ", r->r9},  {"R10", r->r10}, {"R11", r->r11},
		{"R12", r->r12}, {"R13", r->r13}, {"R14", r->r14}, {"R15", r->r15},
	};

	for (unsigned i = 0; i < ARRAY_LEN(regs); i += 4)
		log_info("%s=%016llx %s=%016llx %s=%016llx %s=%016llx", regs[i].name,
			 (unsigned long long)regs[i].value, regs[i + 1].name,
			 (unsigned long long)regs[i + 1].value, regs[i + 2].name,
			 (unsigned long long)regs[i + 2].value, regs[i + 3].name,
			 (unsigned long long)regs[i + 3].value);
	log_info("RIP=%016llx RFL=%08llx", (unsigned long long)r->rip,
		 (unsigned long long)r->rflags);
}

static void dump_sregs(const struct kvm_sregs *s)
{
	const struct {
		const char *name;
		const struct kvm_segment *seg;
	} segs[] = {{"ES", &s->es}, {"CS", &s->cs}, {"SS", &s->ss},   {"DS", &s->ds},
		    {"FS", &s->fs}, {"GS", &s->gs}, {"LDT", &s->ldt}, {"TR", &s->tr}};

	for (unsigned i = 0; i < ARRAY_LEN(segs); i++)
		log_info("%-3s=%04x %016llx %08x type %x dpl %u%s%s", segs[i].name,
			 segs[i].seg->selector, (unsigned long long)segs[i].seg->base,
			 segs[i].seg->limit, segs[i].seg->type, segs[i].seg->dpl,
			 segs[i].seg->l ? " 64-bit" : "", segs[i].seg->db ? " 32-bit" : "");
	log_info("GDT=%016llx %04x IDT=%016llx %04x", (unsigned long long)s->gdt.base, s->gdt.limit,
		 (unsigned long long)s->idt.base, s->idt.limit);
	log_info("CR0=%08llx CR2=%016llx CR3=%016llx CR4=%08llx EFER=%016llx",
		 (unsigned long long)s->cr0, (unsigned long long)s->cr2, (unsigned long long)s->cr3,
		 (unsigned long long)s->cr4, (unsigned long long)s->efer);
}

static void dump_code(struct vcpu *vcpu, u64 linear)
{
	char text[3 * 16 + 1] = "";
	u8 code[16];
	u64 gpa;

	for (unsigned i = 0; i < sizeof(code); i++) {
		if (vcpu_translate(vcpu, linear + i, &gpa) < 0 ||
		    mem_read(vcpu->set->machine->mem, gpa, &code[i], 1) < 0) {
			strcpy(text + 3 * i, "??");
			break;
		}
		snprintf(text + 3 * i, 4, "%02x ", code[i]);
	}
	log_info("Code=%s", text);
}

void vcpu_dump(struct vcpu *vcpu)
{
	struct kvm_regs regs;
	struct kvm_sregs sregs;

	if (vcpu_get_regs(vcpu, &regs) < 0 || vcpu_get_sregs(vcpu, &sregs) < 0) {
		log_info("CPU#%u: registers cannot be read", vcpu->index);
		return;
	}
	dump_regs(&regs);
	dump_sregs(&sregs);
	dump_code(vcpu, sregs.cs.base + regs.rip);
}
