/* A guest that says what CPUID tells every one of its processors.
 *
 * tests/guest/tiny.h.  Starts the others by INIT and SIPI (Intel SDM volume 3, section
 * 9.4), as many as "cpus=" on its command line, and has each say its leaves in turn:
 * "cpuid CPU LEAF SUBLEAF EAX EBX ECX EDX", all in hexadecimal, then "done". */
#include "tiny.h"

#define LAPIC	   0xfee00000u
#define TRAMPOLINE 0x8000u

static volatile uint32_t turn, here;

struct leaf {
	uint32_t a, b, c, d;
};

static struct leaf cpuid(uint32_t leaf, uint32_t sub)
{
	struct leaf l;

	__asm__ volatile("cpuid"
			 : "=a"(l.a), "=b"(l.b), "=c"(l.c), "=d"(l.d)
			 : "a"(leaf), "c"(sub));
	return l;
}

static void say_leaf(uint32_t cpu, uint32_t leaf, uint32_t sub)
{
	struct leaf l = cpuid(leaf, sub);
	const uint32_t words[] = {leaf, sub, l.a, l.b, l.c, l.d};

	if (!(l.a | l.b | l.c | l.d))
		return;
	say("cpuid ");
	say_hex(cpu, 2);
	for (unsigned i = 0; i < 6; i++) {
		say(" ");
		say_hex(words[i], 8);
	}
	say("\n");
}

static void say_range(uint32_t cpu, uint32_t first)
{
	uint32_t last = cpuid(first, 0).a;

	for (uint32_t leaf = first; leaf <= last && leaf < first + 0x40; leaf++) {
		uint32_t subs =
			leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d
				? 10
				: 1;

		for (uint32_t sub = 0; sub < subs; sub++)
			say_leaf(cpu, leaf, sub);
	}
}

static void say_all(uint32_t cpu)
{
	say_range(cpu, 0);
	say_range(cpu, 0x40000000);
	say_range(cpu, 0x80000000);
}

/* Where the others arrive, in flat 32-bit code. */
__attribute__((used, noreturn)) static void other(void)
{
	uint32_t cpu = __sync_add_and_fetch(&here, 1);

	while (turn != cpu)
		__asm__ volatile("pause");
	say_all(cpu);
	turn = cpu + 1;
	for (;;)
		__asm__ volatile("cli; hlt");
}

/* Real mode at 0x8000: into flat 32-bit code on a stack of its own. */
__asm__(".code16\n"
	"tramp_start:\n\t"
	"cli\n\t"
	"xor %ax, %ax\n\t"
	"mov %ax, %ds\n\t"
	"lgdtl tramp_gdtr - tramp_start + 0x8000\n\t"
	"mov %cr0, %eax\n\t"
	"or $1, %eax\n\t"
	"mov %eax, %cr0\n\t"
	"ljmpl $8, $tramp_32 - tramp_start + 0x8000\n"
	".code32\n"
	"tramp_32:\n\t"
	"mov $16, %ax\n\t"
	"mov %ax, %ds\n\t"
	"mov %ax, %es\n\t"
	"mov %ax, %ss\n\t"
	"mov $0x1000, %eax\n\t"
	"lock xadd %eax, tramp_stack - tramp_start + 0x8000\n\t"
	"mov %eax, %esp\n\t"
	"mov $other, %eax\n\t"
	"jmp *%eax\n"
	".align 8\n"
	"tramp_gdt: .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff\n"
	"tramp_gdtr: .word 23\n\t.long tramp_gdt - tramp_start + 0x8000\n"
	"tramp_stack: .long 0x21000\n"
	"tramp_end:\n");
extern const uint8_t tramp_start[], tramp_end[];

static void start_others(void)
{
	volatile uint32_t *icr = (volatile uint32_t *)(LAPIC + 0x300);

	memcpy((void *)TRAMPOLINE, tramp_start, (unsigned)(tramp_end - tramp_start));
	*(volatile uint32_t *)(LAPIC + 0xf0) |= 0x100;
	*icr = 0xc4500; /* INIT to all but this one */
	for (unsigned i = 0; i < 2000; i++)
		in8(0x80);
	*icr = 0xc4600 | TRAMPOLINE >> 12;
}

static void guest(const struct boot_info *info)
{
	uint32_t cpus = number_after(info->cmdline, "cpus=");

	say_all(0);
	turn = 1;
	if (cpus > 1)
		start_others();
	while (turn < cpus)
		__asm__ volatile("pause");
	say("done\n");
	for (;;)
		__asm__ volatile("hlt");
}
