/* `info lapic` and `info pic`: the interrupt controllers, which are the kernel's.
 *
 * Intel SDM volume 3, chapter 11 (local APIC); 82093AA (I/O APIC) and 8259A datasheets. */
#include "base/bytes.h"
#include "vmm/vm.h"

#include <errno.h>

enum { LAPIC_TPR = 0x80, LAPIC_APR = 0x90, LAPIC_PPR = 0xa0, LAPIC_LDR = 0xd0, LAPIC_DFR = 0xe0 };
enum { LAPIC_SVR = 0xf0, LAPIC_ISR = 0x100, LAPIC_TMR = 0x180, LAPIC_IRR = 0x200 };
enum { LAPIC_ESR = 0x280, LAPIC_ICR = 0x300, LAPIC_ICR2 = 0x310 };
enum { LAPIC_INITIAL = 0x380, LAPIC_CURRENT = 0x390, LAPIC_DCR = 0x3e0 };

static const char *delivery(u32 reg)
{
	static const char *const modes[] = {"Fixed", "LowPri", "SMI",  "...",
					    "NMI",   "INIT",   "SIPI", "ExtINT"};

	return modes[reg >> 8 & 7];
}

static u32 reg(const struct kvm_lapic_state *l, unsigned off)
{
	return load_le32((const u8 *)l->regs + off);
}

static void print_lvt(struct printer *p, const char *name, u32 v, bool timer)
{
	static const char *const timers[] = {"one-shot", "periodic", "tsc-deadline", "reserved"};

	print_to(p, "%s\t 0x%08x active-%s %-5s %-6s %-7s %-12s %-6s", name, v,
		 v & 1 << 13 ? "low" : "hi", v & 1 << 15 ? "level" : "edge",
		 v & 1 << 16 ? "masked" : "", v & 1 << 12 ? "pending" : "",
		 timer ? timers[v >> 17 & 3] : "", delivery(v));
	if ((v >> 8 & 7) < 2)
		print_to(p, " (vec %u)", v & 0xff);
	print_to(p, "\n");
}

static void print_vectors(struct printer *p, const char *name, const struct kvm_lapic_state *l,
			  unsigned off)
{
	bool none = true;

	print_to(p, "%s\t", name);
	for (unsigned v = 0; v < 256; v++) {
		if (!(reg(l, off + v / 32 * 16) >> v % 32 & 1))
			continue;
		print_to(p, " %u%s", v,
			 reg(l, LAPIC_TMR + v / 32 * 16) >> v % 32 & 1 ? "(level)" : "");
		none = false;
	}
	print_to(p, "%s\n", none ? " (none)" : "");
}

static void print_icr(struct printer *p, const struct kvm_lapic_state *l)
{
	static const char *const shorthand[] = {"no-shorthand", "self", "all-self", "all"};
	u32 v = reg(l, LAPIC_ICR);

	print_to(p, "ICR\t 0x%08x %s %s %s %s\n", v, v & 1 << 11 ? "logical" : "physical",
		 v & 1 << 15 ? "level" : "edge", v & 1 << 14 ? "assert" : "de-assert",
		 shorthand[v >> 18 & 3]);
	print_to(p, "ICR2\t 0x%08x", reg(l, LAPIC_ICR2));
	if (!(v >> 18 & 3))
		print_to(p, " cpu %u (X2APIC ID)", reg(l, LAPIC_ICR2) >> 24);
	print_to(p, "\n");
}

static void print_lapic(struct printer *p, u32 cpu, const struct kvm_lapic_state *l)
{
	static const struct {
		const char *name;
		unsigned off;
	} lvts[] = {{"LVT0", 0x350},   {"LVT1", 0x360},	   {"LVTPC", 0x340},
		    {"LVTERR", 0x370}, {"LVTTHMR", 0x330}, {"LVTT", 0x320}};
	u32 dcr = reg(l, LAPIC_DCR), svr = reg(l, LAPIC_SVR);

	print_to(p, "dumping local APIC state for CPU %-2u\n\n", cpu);
	for (unsigned i = 0; i < ARRAY_LEN(lvts); i++)
		print_lvt(p, lvts[i].name, reg(l, lvts[i].off), lvts[i].off == 0x320);
	print_to(p, "Timer\t DCR=0x%x (divide by %u) initial_count = %u current_count = %u\n", dcr,
		 1u << (((dcr & 3) | (dcr >> 1 & 4)) + 1) % 8, reg(l, LAPIC_INITIAL),
		 reg(l, LAPIC_CURRENT));
	print_to(p, "SPIV\t 0x%08x APIC %s, focus=%s, spurious vec %u\n", svr,
		 svr & 1 << 8 ? "enabled" : "disabled", svr & 1 << 9 ? "on" : "off", svr & 0xff);
	print_icr(p, l);
	print_to(p, "ESR\t 0x%08x\n", reg(l, LAPIC_ESR));
	print_vectors(p, "ISR", l, LAPIC_ISR);
	print_vectors(p, "IRR", l, LAPIC_IRR);
	print_to(p, "\nAPR 0x%02x TPR 0x%02x DFR 0x%02x LDR 0x%02x PPR 0x%02x\n", reg(l, LAPIC_APR),
		 reg(l, LAPIC_TPR), reg(l, LAPIC_DFR) >> 28, reg(l, LAPIC_LDR) >> 24,
		 reg(l, LAPIC_PPR));
}

int vm_info_lapic(struct vm *vm, u32 cpu, struct printer *p, struct error *err)
{
	struct kvm_lapic_state lapic;
	int ret;

	vm_hold_cpus(vm);
	ret = vcpu_get_lapic(vcpus_get(vm->vcpus, cpu), &lapic);
	vm_let_cpus_go(vm);
	if (ret < 0)
		return err_set_errno(err, ret, "CPU#%u: cannot read the local APIC", cpu);
	print_lapic(p, cpu, &lapic);
	return 0;
}

/* --- the board's ------------------------------------------------------------------------ */

static void print_pins(struct printer *p, const char *name, const struct kvm_ioapic_state *io,
		       u32 pins)
{
	print_to(p, "  %-8s", name);
	for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++)
		if (pins >> i & 1)
			print_to(p, " %u", i);
	print_to(p, "%s\n", pins ? "" : " (none)");
}

static void print_ioapic(struct printer *p, const struct kvm_ioapic_state *io)
{
	u32 remote = 0;

	print_to(p, "ioapic0: ver=0x11 id=0x%02x sel=0x%02x\n", io->id, io->ioregsel);
	for (unsigned i = 0; i < KVM_IOAPIC_NUM_PINS; i++) {
		u64 e = io->redirtbl[i].bits;

		remote |= (u32)(e >> 14 & 1) << i;
		print_to(p,
			 "  pin %-2u 0x%016llx dest=%llx vec=%-3u active-%s %-5s %-6s %-6s%s %s\n",
			 i, (unsigned long long)e, (unsigned long long)(e >> 56), (u32)e & 0xff,
			 e & 1 << 13 ? "lo" : "hi", e & 1 << 15 ? "level" : "edge",
			 e & 1 << 16 ? "masked" : "", (e >> 8 & 7) ? delivery((u32)e) : "fixed", "",
			 e & 1 << 11 ? "logical" : "physical");
	}
	print_pins(p, "IRR", io, io->irr);
	print_pins(p, "Remote IRR", io, remote);
}

static void print_pic(struct printer *p, unsigned n, const struct kvm_pic_state *s)
{
	print_to(p,
		 "pic%u: irr=%02x imr=%02x isr=%02x hprio=%d irq_base=%02x rr_sel=%d elcr=%02x "
		 "fnm=%d\n",
		 n, s->irr, s->imr, s->isr, s->priority_add, s->irq_base, s->read_reg_select,
		 s->elcr, s->special_fully_nested_mode);
}

int vm_info_pic(struct vm *vm, struct printer *p, struct error *err)
{
	static const u32 order[] = {KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_SLAVE,
				    KVM_IRQCHIP_PIC_MASTER};

	for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
		struct kvm_irqchip chip = {.chip_id = order[i]};
		int ret = kvm_get_irqchip(vm->kvm, &chip);

		if (ret < 0)
			return err_set_errno(err, ret, "cannot read the interrupt controllers");
		if (i)
			print_pic(p, order[i], &chip.chip.pic);
		else
			print_ioapic(p, &chip.chip.ioapic);
	}
	return 0;
}
