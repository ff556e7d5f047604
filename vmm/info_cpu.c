/* `info cpus`, `info registers` and registers by name.  vCPUs are stopped for an
 * instant, and go on afterwards if they ran. */
#include "vmm/vm.h"

#include <asm/processor-flags.h>
#include <errno.h>

#define EFER_LMA ((u64)1 << 10)

/* Descriptor bits, as in the upper half of a segment descriptor. */
enum descriptor {
	DESC_A = 1 << 8,
	DESC_W = 1 << 9,  /* data: writable; code: readable */
	DESC_E = 1 << 10, /* data: expand down; code: conforming */
	DESC_CODE = 1 << 11,
	DESC_S = 1 << 12,
	DESC_P = 1 << 15,
	DESC_L = 1 << 21,
	DESC_B = 1 << 22,
};

struct cpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	bool halted;
};

static int read_cpu(struct vm *vm, u32 cpu, struct cpu_state *s, struct error *err)
{
	struct vcpu *vcpu;
	int ret;

	if (cpu >= vcpus_count(vm->vcpus))
		return err_set(err, -ENOENT, "CPU#%u not available", cpu);
	vcpu = vcpus_get(vm->vcpus, cpu);
	vm_hold_cpus(vm);
	ret = vcpu_get_regs(vcpu, &s->regs);
	if (ret == 0)
		ret = vcpu_get_sregs(vcpu, &s->sregs);
	if (ret == 0)
		ret = vcpu_get_fpu(vcpu, &s->fpu);
	/* Asked of a running vCPU that halts, this would wait for its next interrupt. */
	s->halted = vcpu_is_halted(vcpu);
	vm_let_cpus_go(vm);
	return ret < 0 ? err_set_errno(err, ret, "CPU#%u: cannot read registers", cpu) : 0;
}

void vm_info_cpus(struct vm *vm, u32 current, struct printer *p)
{
	for (u32 i = 0; i < vcpus_count(vm->vcpus); i++)
		print_to(p, "%c CPU #%u: thread_id=%u\n", i == current ? '*' : ' ', i,
			 vcpu_thread_id(vcpus_get(vm->vcpus, i)));
}

static u32 descriptor_flags(const struct kvm_segment *s)
{
	return (u32)s->type << 8 | (u32)s->s << 12 | (u32)s->dpl << 13 | (u32)s->present << 15 |
	       (u32)s->avl << 20 | (u32)s->l << 21 | (u32)s->db << 22 | (u32)s->g << 23;
}

static void print_system_segment(struct printer *p, unsigned type, bool lma)
{
	static const char *const names[2][16] = {
		{"Reserved", "TSS16-avl", "LDT", "TSS16-busy", "CallGate16", "TaskGate",
		 "IntGate16", "TrapGate16", "Reserved", "TSS32-avl", "Reserved", "TSS32-busy",
		 "CallGate32", "Reserved", "IntGate32", "TrapGate32"},
		{"<hiword>", "Reserved", "LDT", "Reserved", "Reserved", "Reserved", "Reserved",
		 "Reserved", "Reserved", "TSS64-avl", "Reserved", "TSS64-busy", "CallGate64",
		 "Reserved", "IntGate64", "TrapGate64"}};

	print_to(p, "%s", names[lma][type & 15]);
}

static void print_segment(struct printer *p, const char *name, const struct kvm_segment *s,
			  const struct kvm_sregs *sregs)
{
	bool lma = sregs->efer & EFER_LMA;
	u32 flags = descriptor_flags(s);

	print_to(p, "%-3s=%04x %0*llx %08x %08x", name, s->selector, lma ? 16 : 8,
		 (unsigned long long)s->base, s->limit, flags);
	if (sregs->cr0 & X86_CR0_PE && flags & DESC_P) {
		print_to(p, " DPL=%u ", s->dpl);
		if (!(flags & DESC_S))
			print_system_segment(p, s->type, lma);
		else if (flags & DESC_CODE)
			print_to(p, "CS%s [%c%c%c]",
				 flags & DESC_L	  ? "64"
				 : flags & DESC_B ? "32"
						  : "16",
				 flags & DESC_E ? 'C' : '-', flags & DESC_W ? 'R' : '-',
				 flags & DESC_A ? 'A' : '-');
		else
			print_to(p, "DS%s [%c%c%c]", lma || flags & DESC_B ? "  " : "16",
				 flags & DESC_E ? 'E' : '-', flags & DESC_W ? 'W' : '-',
				 flags & DESC_A ? 'A' : '-');
	}
	print_to(p, "\n");
}

static void print_flags(struct printer *p, u64 flags)
{
	static const char letters[] = "DOSZAPC";
	static const u32 bits[] = {X86_EFLAGS_DF, X86_EFLAGS_OF, X86_EFLAGS_SF, X86_EFLAGS_ZF,
				   X86_EFLAGS_AF, X86_EFLAGS_PF, X86_EFLAGS_CF};
	char text[8] = "";

	for (unsigned i = 0; i < ARRAY_LEN(bits); i++)
		text[i] = flags & bits[i] ? letters[i] : '-';
	print_to(p, "%08llx [%s]", (unsigned long long)flags, text);
}

static void print_general(struct printer *p, const struct cpu_state *s)
{
	const struct kvm_regs *r = &s->regs;
	bool lma = s->sregs.efer & EFER_LMA;
	const u64 values[] = {r->rax, r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rbp, r->rsp,
			      r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
	static const char *const names[] = {"AX", "BX", "CX", "DX", "SI", "DI", "BP", "SP",
					    "8 ", "9 ", "10", "11", "12", "13", "14", "15"};

	for (unsigned i = 0; i < (lma ? 16 : 8); i++)
		print_to(p, "%c%s=%0*llx%c", lma ? 'R' : 'E', names[i], lma ? 16 : 8,
			 (unsigned long long)(lma ? values[i] : (u32)values[i]),
			 i % 4 == 3 ? '\n' : ' ');
	print_to(p, lma ? "RIP=%016llx RFL=" : "EIP=%08llx EFL=", (unsigned long long)r->rip);
	print_flags(p, r->rflags);
}

static void print_system(struct printer *p, const struct kvm_sregs *s)
{
	const struct {
		const char *name;
		const struct kvm_segment *segment;
	} segments[] = {{"ES", &s->es}, {"CS", &s->cs}, {"SS", &s->ss},	  {"DS", &s->ds},
			{"FS", &s->fs}, {"GS", &s->gs}, {"LDT", &s->ldt}, {"TR", &s->tr}};
	int wide = s->efer & EFER_LMA ? 16 : 8;

	for (unsigned i = 0; i < ARRAY_LEN(segments); i++)
		print_segment(p, segments[i].name, segments[i].segment, s);
	print_to(p, "GDT=     %0*llx %08x\n", wide, (unsigned long long)s->gdt.base, s->gdt.limit);
	print_to(p, "IDT=     %0*llx %08x\n", wide, (unsigned long long)s->idt.base, s->idt.limit);
	print_to(p, "CR0=%08llx CR2=%0*llx CR3=%0*llx CR4=%08llx\n", (unsigned long long)s->cr0,
		 wide, (unsigned long long)s->cr2, wide, (unsigned long long)s->cr3,
		 (unsigned long long)s->cr4);
	print_to(p, "EFER=%016llx\n", (unsigned long long)s->efer);
}

static u64 load64(const void *from)
{
	u64 value;

	memcpy(&value, from, sizeof(value));
	return value;
}

static void print_fpu(struct printer *p, const struct cpu_state *s)
{
	const struct kvm_fpu *f = &s->fpu;
	unsigned xmm = s->sregs.efer & EFER_LMA ? 16 : 8;

	print_to(p, "FCW=%04x FSW=%04x [ST=%d] FTW=%02x MXCSR=%08x\n", f->fcw, f->fsw,
		 f->fsw >> 11 & 7, f->ftwx, f->mxcsr);
	for (unsigned i = 0; i < 8; i++)
		print_to(p, "FPR%u=%016llx %04llx%c", i, (unsigned long long)load64(f->fpr[i]),
			 (unsigned long long)load64(f->fpr[i] + 8) & 0xffff, i & 1 ? '\n' : ' ');
	for (unsigned i = 0; i < xmm; i++)
		print_to(p, "XMM%02u=%016llx %016llx%c", i,
			 (unsigned long long)load64(f->xmm[i] + 8),
			 (unsigned long long)load64(f->xmm[i]), i & 1 ? '\n' : ' ');
}

static int info_registers(struct vm *vm, u32 cpu, struct printer *p, struct error *err)
{
	struct cpu_state s;
	int ret = read_cpu(vm, cpu, &s, err);

	if (ret < 0)
		return ret;
	print_to(p, "\nCPU#%u\n", cpu);
	print_general(p, &s);
	print_to(p, " CPL=%u II=%d A20=%d SMM=%d HLT=%d\n", s.sregs.ss.dpl, 0,
		 __atomic_load_n(&vm->machine.a20, __ATOMIC_RELAXED), 0, s.halted);
	print_system(p, &s.sregs);
	print_fpu(p, &s);
	return 0;
}

int vm_info_registers(struct vm *vm, u32 cpu, bool all, struct printer *p, struct error *err)
{
	int ret = 0;

	if (!all)
		return info_registers(vm, cpu, p, err);
	for (u32 i = 0; i < vcpus_count(vm->vcpus) && ret == 0; i++)
		ret = info_registers(vm, i, p, err);
	return ret;
}

/* Names as $name in expressions; 32-bit names give the lower half. */
static const struct {
	const char *name;
	size_t offset;
	bool is_segment; /* a selector; otherwise a u64 */
} registers[] = {
#define REG(n)                                                                                     \
	{                                                                                          \
#n, offsetof(struct cpu_state, regs.n), false                                      \
	}
#define EREG(n)                                                                                    \
	{                                                                                          \
		"e" #n, offsetof(struct cpu_state, regs.r##n), false                               \
	}
#define SREG(n)                                                                                    \
	{                                                                                          \
#n, offsetof(struct cpu_state, sregs.n), true                                      \
	}
#define CREG(n)                                                                                    \
	{                                                                                          \
#n, offsetof(struct cpu_state, sregs.n), false                                     \
	}
	REG(rax),
	REG(rbx),
	REG(rcx),
	REG(rdx),
	REG(rsi),
	REG(rdi),
	REG(rbp),
	REG(rsp),
	REG(r8),
	REG(r9),
	REG(r10),
	REG(r11),
	REG(r12),
	REG(r13),
	REG(r14),
	REG(r15),
	EREG(ax),
	EREG(bx),
	EREG(cx),
	EREG(dx),
	EREG(si),
	EREG(di),
	EREG(bp),
	EREG(sp),
	REG(rip),
	EREG(ip),
	SREG(cs),
	SREG(ds),
	SREG(es),
	SREG(ss),
	SREG(fs),
	SREG(gs),
	CREG(cr0),
	CREG(cr2),
	CREG(cr3),
	CREG(cr4),
#undef REG
#undef EREG
#undef SREG
#undef CREG
	{"pc", offsetof(struct cpu_state, regs.rip), false},
	{"eflags", offsetof(struct cpu_state, regs.rflags), false},
	{"rflags", offsetof(struct cpu_state, regs.rflags), false},
};

int vm_register(struct vm *vm, u32 cpu, const char *name, u64 *value)
{
	struct cpu_state s;
	struct error err;
	const char *at;

	for (unsigned i = 0; i < ARRAY_LEN(registers); i++) {
		if (strcmp(registers[i].name, name))
			continue;
		if (read_cpu(vm, cpu, &s, &err) < 0)
			return err.code;
		at = (const char *)&s + registers[i].offset;
		if (registers[i].is_segment)
			*value = ((const struct kvm_segment *)at)->selector;
		else
			*value = name[0] == 'e' ? (u32)load64(at) : load64(at);
		return 0;
	}
	return -ENOENT;
}
