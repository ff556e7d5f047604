/* KVM, vCPUs, memory and buses together, under guests of a few instructions. */
#define _GNU_SOURCE
#include "tests/guest/core_guest.h"

#include "base/bytes.h"
#include "vmm/core/state.h"

#include <errno.h>
#include <unistd.h>

#define DONE "mov $0x12, %dx; outb %al, %dx; 9: hlt; jmp 9b;"

/* --- port I/O ----------------------------------------------------------------- */

GUEST(hello, "mov $0x10, %dx; mov $'H', %al; outb %al, %dx; mov $'i', %al; outb %al, %dx;"
	     "xor %ax, %ax; mov %ax, %ds; cld;"
	     "mov $(1f - 100b + 0x1000), %si; mov $5, %cx; rep outsb;" DONE "1: .ascii \"there\"");

static void bytes_and_strings_reach_a_port(void **state)
{
	struct test_machine *t;

	t = TM_START(hello, 1);
	tm_wait(t);
	assert_string_equal(t->text, "Hithere");
	tm_stop(t);
}

/* Reads four words by rep insw, adds them up. */
GUEST(string_in, "xor %ax, %ax; mov %ax, %es; cld; mov $0x2000, %di; mov $4, %cx;"
		 "mov $0x14, %dx; rep insw;"
		 "mov $0x2000, %bx; mov (%bx), %ax; shl $4, %ax; or 2(%bx), %ax; shl $4, %ax;"
		 "or 4(%bx), %ax; shl $4, %ax; or 6(%bx), %ax;"
		 "mov $0x12, %dx; outw %ax, %dx; 9: hlt; jmp 9b");

static void strings_of_words_come_in_order(void **state)
{
	struct test_machine *t;

	t = TM_START(string_in, 1);
	assert_int_equal(tm_wait(t), 0x0123);
	tm_stop(t);
}

GUEST(nobody, "mov $0x3000, %dx; inl %dx, %eax; mov $0x12, %dx; outl %eax, %dx; 9: hlt; jmp 9b");

static void a_port_of_nobody_reads_as_ones(void **state)
{
	struct test_machine *t;

	t = TM_START(nobody, 1);
	assert_int_equal(tm_wait(t), 0xffffffff);
	tm_stop(t);
}

/* --- memory ------------------------------------------------------------------- */

GUEST(mmio, "mov $0x2000, %ax; mov %ax, %ds; mov 4, %eax; mov %al, 1; mov %ax, 2; mov %eax, 8;"
	    "mov $0x12, %dx; outl %eax, %dx; 9: hlt; jmp 9b");

static void registers_in_memory_are_read_and_written(void **state)
{
	struct test_machine *t;

	t = TM_START(mmio, 1);
	assert_int_equal(tm_wait(t), 0x11223344);
	assert_string_equal(t->text, "1:44 2:3344 8:11223344 ");
	assert_int_equal(t->widths, 7);
	tm_stop(t);
}

/* Unreal mode: %fs reaches all 4 GiB. */
#define UNREAL                                                                                     \
	"cli; xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x7000, %sp;"                         \
	"lgdtl 2f - 100b + 0x1000; mov %cr0, %eax; or $1, %al; mov %eax, %cr0; mov $8, %bx; mov "  \
	"%bx, %fs;"                                                                                \
	"and $0xfe, %al; mov %eax, %cr0; jmp 1f;"                                                  \
	".balign 8; 3: .quad 0, 0x00cf92000000ffff; 2: .word 15; .long 3b - 100b + 0x1000; 1: "

GUEST(write_rom,
      UNREAL "mov $0xfffffff0, %ebx; movb $0x55, %fs:(%ebx); movb %fs:(%ebx), %al;" DONE);

static void rom_does_not_change(void **state)
{
	struct test_machine *t;

	t = TM_START(write_rom, 1);
	assert_int_equal(tm_wait(t), 0xea);
	tm_stop(t);
}

GUEST(dirty, "xor %ax, %ax; mov %ax, %ds; 1: mov $0x14, %dx; inb %dx, %al; test $1, %al; jz 1b;"
	     "movb %al, 0x3000; movb %al, 0x5fff;" DONE);

static void pages_that_the_guest_writes_are_logged(void **state)
{
	struct test_machine *t;
	u64 bits = 0;

	t = TM_START(hello, 1);
	tm_wait(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(mem_write(t->m.mem, GUEST_CODE, guest_dirty,
				   (u64)(guest_dirty_end - guest_dirty)),
			 0);
	assert_int_equal(mem_dirty_log(t->ram, MEM_DIRTY_SNAPSHOT, true), 0);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	vcpus_resume(t->vcpus);
	tm_wait(t);
	assert_int_equal(mem_dirty_collect(t->ram, MEM_DIRTY_SNAPSHOT, &bits), 0);
	assert_true(bits == (1 << 3 | 1 << 5));
	bits = 0;
	assert_int_equal(mem_dirty_collect(t->ram, MEM_DIRTY_SNAPSHOT, &bits), 0);
	assert_true(bits == 0);
	assert_int_equal(mem_dirty_log(t->ram, MEM_DIRTY_SNAPSHOT, false), 0);
	tm_stop(t);
}

/* --- interrupts --------------------------------------------------------------- */

/* PIC: vectors from 0x20, all but `unmasked` of the first eight lines masked. */
#define PIC(unmasked)                                                                              \
	"xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x7000, %sp;"                              \
	"mov $0x11, %al; outb %al, $0x20; outb %al, $0xa0; mov $0x20, %al; outb %al, $0x21;"       \
	"mov $0x28, %al; outb %al, $0xa1; mov $4, %al; outb %al, $0x21; mov $2, %al;"              \
	"outb %al, $0xa1; mov $1, %al; outb %al, $0x21; outb %al, $0xa1;"                          \
	"mov $0xff, %al; outb %al, $0xa1; mov $" unmasked ", %al; outb %al, $0x21;"
#define HANDLER                                                                                    \
	"push %ax; push %dx; mov $0x12, %dx; outb %al, %dx;"                                       \
	"mov $0x20, %al; outb %al, $0x20; pop %dx; pop %ax; iret;"

GUEST(irq, PIC("0xf7") "movw $(1f - 100b + 0x1000), 4 * 0x23; movw $0, 4 * 0x23 + 2; sti;"
		       "mov $0x10, %dx; mov $'r', %al; outb %al, %dx; 9: hlt; jmp 9b; 1: " HANDLER);

static void a_line_interrupts_a_halted_guest(void **state)
{
	struct test_machine *t;
	struct irq_line line;

	t = TM_START(irq, 1);
	irq_line_init(&line, t->m.irq, 3);
	tm_wait_text(t);
	for (int i = 0; i < 20; i++) {
		irq_line_pulse(&line);
		tm_wait(t);
	}
	vcpus_pause(t->vcpus);
	assert_int_equal(t->done, 20);
	tm_stop(t);
}

/* PIT channel 0, mode 2, 1000 Hz. */
GUEST(pit, PIC("0xfe") "movw $(1f - 100b + 0x1000), 4 * 0x20; movw $0, 4 * 0x20 + 2;"
		       "mov $0x34, %al; outb %al, $0x43; mov $0xa9, %al; outb %al, $0x40;"
		       "mov $0x04, %al; outb %al, $0x40; sti; 9: hlt; jmp 9b; 1: " HANDLER);

static void the_timer_ticks_and_reset_stops_it(void **state)
{
	struct test_machine *t;
	u32 ticks;

	t = TM_START(pit, 1);
	for (int i = 0; i < 10; i++)
		tm_wait(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(
		mem_write(t->m.mem, GUEST_CODE, guest_irq, (u64)(guest_irq_end - guest_irq)), 0);
	assert_int_equal(kvm_irqchip_reset(t->kvm), 0);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	ticks = t->done;
	vcpus_resume(t->vcpus);
	tm_wait_text(t);
	usleep(20000);
	vcpus_pause(t->vcpus);
	assert_int_equal(t->done, ticks);
	tm_stop(t);
}

/* Switches its LAPIC on, then waits for vector 0x40. */
GUEST(msi, UNREAL "movw $(4f - 100b + 0x1000), 4 * 0x40; movw $0, 4 * 0x40 + 2;"
		  "mov $0xfee000f0, %ebx; movl $0x1ff, %fs:(%ebx); sti;"
		  "mov $0x10, %dx; mov $'r', %al; outb %al, %dx; 9: hlt; jmp 9b;"
		  "4: push %ax; push %dx; mov $0x12, %dx; outb %al, %dx;"
		  "mov $0xfee000b0, %ebx; movl $0, %fs:(%ebx); pop %dx; pop %ax; iret");

static void an_eventfd_and_a_message_raise_a_vector(void **state)
{
	struct test_machine *t;
	struct irq_route route, other;

	t = TM_START(msi, 1);
	tm_wait_text(t);
	assert_int_equal(irq_route_add(t->m.irq, &other, 0xfee00000, 0x66), 0);
	assert_int_equal(irq_route_add(t->m.irq, &route, 0xfee01000, 0x40), 0); /* no such CPU */
	assert_int_equal(irq_route_set(&route, 0xfee00000, 0x40), 0);
	irq_route_del(&other);
	irq_route_signal(&route);
	tm_wait(t);
	irq_msi(t->m.irq, 0xfee00000, 0x40);
	tm_wait(t);
	irq_route_signal(&route);
	tm_wait(t);
	irq_route_del(&route);
	vcpus_pause(t->vcpus);
	assert_int_equal(t->done, 3);
	tm_stop(t);
}

GUEST(nmi, PIC("0xff") "movw $(1f - 100b + 0x1000), 8; movw $0, 10; mov $'r', %al; mov $0x10, %dx;"
		       "outb %al, %dx; 9: hlt; jmp 9b; 1: " HANDLER);

static void an_nmi_arrives(void **state)
{
	struct test_machine *t;

	t = TM_START(nmi, 1);
	tm_wait_text(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(vcpu_nmi(vcpus_get(t->vcpus, 0)), 0);
	vcpus_resume(t->vcpus);
	tm_wait(t);
	tm_stop(t);
}

/* --- doorbells ---------------------------------------------------------------- */

GUEST(bell, "mov $0x10, %dx; mov $1, %ax; outw %ax, %dx; mov $2, %ax; outw %ax, %dx;"
	    "mov $0x2000, %ax; mov %ax, %ds; movw $7, 0x100; movw $8, 0x100;" DONE);

static void doorbells_ring_without_their_handler(void **state)
{
	struct test_machine *t;
	struct bus_doorbell pio = {.addr = PORT_TEXT, .size = 2, .match = true, .value = 1};
	struct bus_doorbell mmio = {.addr = PORT_MMIO + 0x100};
	u64 n = 0;

	t = TM_START(hello, 1);
	tm_wait(t);
	vcpus_pause(t->vcpus);
	memset(t->text, 0, sizeof(t->text));
	assert_int_equal(
		mem_write(t->m.mem, GUEST_CODE, guest_bell, (u64)(guest_bell_end - guest_bell)), 0);
	pio.fd = sys_eventfd();
	mmio.fd = sys_eventfd();
	assert_int_equal(bus_doorbell_add(t->m.pio, &pio), 0);
	assert_int_equal(bus_doorbell_add(t->m.mmio, &mmio), 0);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	vcpus_resume(t->vcpus);
	tm_wait(t);
	assert_int_equal(sys_read(pio.fd, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 1);
	assert_string_equal(t->text, "\x02"); /* the other value came through */
	assert_int_equal(sys_read(mmio.fd, &n, sizeof(n)), sizeof(n));
	assert_int_equal(n, 2);
	assert_int_equal(t->written, 0);
	bus_doorbell_del(t->m.pio, &pio);
	bus_doorbell_del(t->m.mmio, &mmio);
	sys_close(pio.fd);
	sys_close(mmio.fd);
	tm_stop(t);
}

/* --- run states --------------------------------------------------------------- */

GUEST(seq, "mov $0x14, %dx; 1: inl %dx, %eax; outl %eax, %dx; jmp 1b");

static void pauses_never_tear_an_access(void **state)
{
	struct test_machine *t;
	struct vcpu *vcpu;
	u64 start;
	u32 seq;

	t = TM_START(seq, 1);
	vcpu = vcpus_get(t->vcpus, 0);
	for (int i = 0; i < 200; i++) {
		struct kvm_regs regs;

		usleep(i % 7 * 100);
		vcpus_pause(t->vcpus);
		seq = tm_seq(t);
		assert_int_equal(vcpu_get_regs(vcpu, &regs), 0);
		/* Between the two instructions, or after both: %eax is what was read. */
		if (seq)
			assert_int_equal((u32)regs.rax, seq - 1);
		assert_int_equal(vcpu_set_regs(vcpu, &regs), 0);
		assert_int_equal(tm_seq(t), seq);
		vcpus_resume(t->vcpus);
	}
	start = now_ns();
	seq = tm_seq(t);
	usleep(500000);
	seq = tm_seq(t) - seq;
	print_message("port exits: %llu/s\n",
		      (unsigned long long)(2ull * seq * (u64)NS_PER_SEC / (now_ns() - start)));
	tm_stop(t);
}

/* Paging with an empty page directory, and no IDT to take the fault. */
GUEST(triple, "cli; xor %ax, %ax; mov %ax, %ds; mov $0x10, %dx; mov $'t', %al; outb %al, %dx;"
	      "lidtl 1f - 100b + 0x1000; mov $0x9000, %eax; mov %eax, %cr3; mov %cr0, %eax;"
	      "or $1, %al; mov %eax, %cr0; jmp 2f; 2: or $0x80000000, %eax; mov %eax, %cr0;"
	      "2: jmp 2b; 1: .word 0; .long 0");

static void a_triple_fault_stops_until_reset(void **state)
{
	struct test_machine *t;

	t = TM_START(triple, 1);
	for (u32 i = 1; i <= 3; i++) {
		tm_wait_for(t, &t->triple_faults, i);
		vcpus_pause(t->vcpus);
		assert_int_equal(kvm_irqchip_reset(t->kvm), 0);
		assert_int_equal(vcpus_reset(t->vcpus), 0);
		vcpus_resume(t->vcpus);
	}
	tm_wait_for(t, &t->triple_faults, 4);
	assert_string_equal(t->text, "tttt");
	tm_stop(t);
}

/* Jumps to where there is a device and no memory. */
GUEST(lost, "mov $0x10, %dx; mov $'l', %al; outb %al, %dx; ljmp $0x2000, $0");

static void a_guest_that_cannot_go_on_is_reported_and_can_be_reset(void **state)
{
	struct test_machine *t;
	struct kvm_regs regs;
	struct error err = {0};

	t = TM_START(hello, 1);
	tm_wait(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(
		mem_write(t->m.mem, GUEST_CODE, guest_lost, (u64)(guest_lost_end - guest_lost)), 0);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	assert_int_equal(log_set_file("/dev/null", &err), 0); /* a page of registers */
	vcpus_resume(t->vcpus);
	tm_wait_for(t, &t->failures, 1);
	vcpus_pause(t->vcpus);
	assert_int_equal(log_set_file(NULL, &err), 0);
	assert_int_equal(vcpu_get_regs(vcpus_get(t->vcpus, 0), &regs), 0);
	assert_int_equal(t->failures, 1);
	t->failures = 0;
	assert_int_equal(mem_write(t->m.mem, GUEST_CODE, guest_hello,
				   (u64)(guest_hello_end - guest_hello)),
			 0);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	vcpus_resume(t->vcpus);
	tm_wait(t);
	assert_string_equal(t->text, "HitherelHithere");
	tm_stop(t);
}

static void reset_is_the_power_on_state(void **state)
{
	struct test_machine *t;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
	u64 gpa;

	t = TM_START(hello, 2);
	tm_wait(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	assert_int_equal(vcpu_get_regs(vcpus_get(t->vcpus, 0), &regs), 0);
	assert_int_equal(vcpu_get_sregs(vcpus_get(t->vcpus, 0), &sregs), 0);
	assert_int_equal(vcpu_get_fpu(vcpus_get(t->vcpus, 0), &fpu), 0);
	assert_int_equal(regs.rip, 0xfff0);
	assert_int_equal(regs.rflags, 2);
	assert_int_not_equal(regs.rdx, 0); /* family, model, stepping */
	assert_int_equal(sregs.cs.selector, 0xf000);
	assert_int_equal(sregs.cs.base, 0xffff0000);
	assert_int_equal(sregs.cr0, 0x60000010);
	assert_int_equal(sregs.apic_base & 0xfffff900, 0xfee00900);
	assert_int_equal(fpu.fcw, 0x40);
	assert_int_equal(fpu.mxcsr, 0x1f80);
	assert_int_equal(vcpu_translate(vcpus_get(t->vcpus, 0), 0x1234, &gpa), 0);
	assert_int_equal(gpa, 0x1234);
	assert_int_equal(vcpu_get_sregs(vcpus_get(t->vcpus, 1), &sregs), 0);
	assert_int_equal(sregs.apic_base & 0xfffff900, 0xfee00800);
	tm_stop(t);
}

/* The first CPU copies the trampoline to 0x8000 and sends INIT and SIPI to all
 * others; each says its APIC ID, as leaf 1 and leaf 0xb have it. */
GUEST(smp,
      UNREAL "mov $(4f - 100b + 0x1000), %si; mov $0x8000, %di; xor %ax, %ax; mov %ax, %es; cld;"
	     "mov $(5f - 4f), %cx; rep movsb;"
	     "mov $0xfee00300, %ebx; movl $0xc4500, %fs:(%ebx); mov $20000, %cx; 8: loop 8b;"
	     "movl $0xc4608, %fs:(%ebx);"
	     "9: hlt; jmp 9b;"
	     "4: mov $1, %eax; cpuid; shr $24, %ebx; mov %bl, %bh;"
	     "push %bx; mov $0xb, %eax; xor %ecx, %ecx; cpuid; pop %bx; mov %dl, %bl;"
	     "mov %bx, %ax; mov $0x12, %dx; outw %ax, %dx; 9: hlt; jmp 9b; 5:");

static void other_cpus_start_by_init_and_sipi(void **state)
{
	struct test_machine *t;

	t = TM_START(smp, 2);
	assert_int_equal(tm_wait(t), 0x0101);
	vcpus_pause(t->vcpus);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	vcpus_resume(t->vcpus);
	assert_int_equal(tm_wait(t), 0x0101);
	tm_stop(t);
}

static void four_cpus_pause_together(void **state)
{
	struct test_machine *t;

	t = TM_START(smp, 4);
	for (int i = 0; i < 100; i++) {
		vcpus_pause(t->vcpus);
		vcpus_resume(t->vcpus);
	}
	tm_wait_for(t, &t->done, 3);
	tm_stop(t);
}

/* --- saved state --------------------------------------------------------------- */

/* %ebx and the word at 0x2000 count together, and say so when they do not; timer
 * interrupts count at 0x2008. */
GUEST(counters, "cli; xor %ax, %ax; mov %ax, %ds; mov %ax, %ss; mov $0x7000, %sp;"
		"movw $(1f - 100b + 0x1000), 0x20; movw $0, 0x22;"
		"mov $0x11, %al; outb %al, $0x20; mov $8, %al; outb %al, $0x21;"
		"mov $4, %al; outb %al, $0x21; mov $1, %al; outb %al, $0x21;"
		"mov $0xfe, %al; outb %al, $0x21;"
		"mov $0x34, %al; outb %al, $0x43; mov $0x00, %al; outb %al, $0x40;"
		"mov $0x10, %al; outb %al, $0x40; xor %ebx, %ebx; mov $0x10, %dx; sti;"
		"2: inc %ebx; incl 0x2000; cmp %ebx, 0x2000; je 3f;" DONE
		"3: test $0xfff, %bx; jne 2b; mov $'.', %al; outb %al, %dx; jmp 2b;"
		"1: push %ax; incl 0x2008; mov $0x20, %al; outb %al, $0x20; pop %ax; iret");

static u32 guest_word(struct test_machine *t, u64 gpa)
{
	u8 raw[4];

	assert_int_equal(mem_read(t->m.mem, gpa, raw, 4), 0);
	return load_le32(raw);
}

static void save_machine(struct test_machine *t, struct state_buf *out)
{
	struct error err = {0};

	assert_int_equal(kvm_save(t->kvm, out, &err), 0);
	for (u32 i = 0; i < vcpus_count(t->vcpus); i++)
		assert_int_equal(vcpu_save(vcpus_get(t->vcpus, i), out, &err), 0);
}

static void load_machine(struct test_machine *t, struct state_buf *in)
{
	struct error err = {0};
	struct kvm_image *kvm;
	struct vcpu_image *cpu;

	assert_int_equal(kvm_load_image(in, &kvm, &err), 0);
	assert_int_equal(kvm_load(t->kvm, kvm, &err), 0);
	free(kvm);
	for (u32 i = 0; i < vcpus_count(t->vcpus); i++) {
		struct vcpu *vcpu = vcpus_get(t->vcpus, i);

		if (vcpu_load_image(vcpu, in, &cpu, &err) < 0 || vcpu_load(vcpu, cpu, &err) < 0)
			fail_msg("%s", err.text);
		free(cpu);
	}
	assert_int_equal(in->at, in->bytes);
}

/* Three machines, one after the other, are one guest. */
static void a_guest_goes_on_in_another_machine(void **state)
{
	static u8 ram[64 * KiB];
	struct test_machine *t, *next;
	struct state_buf saved = {0};

	t = TM_START(counters, 2);
	for (int i = 0; i < 3; i++) {
		u32 ticks;

		tm_wait_for(t, &t->letters, 2);
		vcpus_pause(t->vcpus);
		save_machine(t, &saved);
		assert_int_equal(mem_read(t->m.mem, 0, ram, sizeof(ram)), 0);
		next = TM_START(hello, 2);
		tm_wait(next);
		vcpus_pause(next->vcpus);
		load_machine(next, &saved);
		assert_int_equal(mem_write(next->m.mem, 0, ram, sizeof(ram)), 0);
		ticks = guest_word(next, 0x2008);
		next->done = next->letters = 0;
		assert_int_equal(t->done, 0);
		tm_stop(t);
		vcpus_resume(next->vcpus);
		tm_wait_for(next, &next->letters, 2);
		for (int ms = 0; guest_word(next, 0x2008) < ticks + 3 && ms < 20000; ms++)
			usleep(1000);
		assert_true(guest_word(next, 0x2008) >= ticks + 3);
		assert_int_equal(next->done, 0);
		t = next;
		state_buf_fini(&saved);
	}
	tm_stop(t);
}

/* Saving and loading again changes nothing that the guest could see. */
static void what_was_loaded_is_saved_the_same(void **state)
{
	struct test_machine *t;
	struct state_buf a = {0}, b = {0};
	struct kvm_regs before, after;

	t = TM_START(counters, 2);
	tm_wait_text(t);
	vcpus_pause(t->vcpus);
	save_machine(t, &a);
	assert_int_equal(vcpu_get_regs(vcpus_get(t->vcpus, 0), &before), 0);
	assert_int_equal(vcpus_reset(t->vcpus), 0);
	load_machine(t, &a);
	assert_int_equal(vcpu_get_regs(vcpus_get(t->vcpus, 0), &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
	save_machine(t, &b);
	assert_int_equal(a.bytes, b.bytes);
	tm_stop(t);
	state_buf_fini(&a);
	state_buf_fini(&b);
}

static void state_cut_short_is_refused(void **state)
{
	struct test_machine *t;
	struct state_buf saved = {0}, cut;
	struct error err = {0};
	struct vcpu_image *cpu;

	t = TM_START(hello, 1);
	tm_wait(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(vcpu_save(vcpus_get(t->vcpus, 0), &saved, &err), 0);
	for (size_t n = 0; n < saved.bytes; n += 1 + n / 8) {
		cut = (struct state_buf){.data = saved.data, .bytes = n};
		assert_int_equal(vcpu_load_image(vcpus_get(t->vcpus, 0), &cut, &cpu, &err),
				 -EINVAL);
	}
	tm_stop(t);
	state_buf_fini(&saved);
}

/* Where the elements of a field begin: behind its name, kind, size and count. */
static u8 *field_in(const struct state_buf *b, const char *name)
{
	AUTO_FREE char *text = xasprintf("%c%s", (int)strlen(name), name);
	u8 *at = memmem(b->data, b->bytes, text, strlen(text));

	assert_non_null(at);
	return at + strlen(text) + 6;
}

/* A host with less in its CPU: nothing of the vCPU has changed when that is found out. */
static void extended_state_that_the_host_lacks_is_refused_before_anything_changes(void **state)
{
	static const struct {
		const char *field, *says;
		size_t at;
		unsigned bit;
	} cases[] = {
		{"xsave", "lacks: unknown ones (0x4000000000000000)", 512, 62},
		{"xcrs", "lacks: unknown ones (0x2000000000000000)", 16, 61},
		{"xsave", "lacks: AMX (0x20000)", 512, 17},
	};
	struct state_buf saved = {0}, in;
	struct kvm_regs before, after;
	struct test_machine *t = TM_START(hello, 1);
	struct vcpu *vcpu = vcpus_get(t->vcpus, 0);
	struct error err = {0};
	struct vcpu_image *cpu;

	tm_wait(t);
	vcpus_pause(t->vcpus);
	assert_int_equal(vcpu_save(vcpu, &saved, &err), 0);
	assert_int_equal(vcpu_get_regs(vcpu, &before), 0);
	for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
		u8 *mask = field_in(&saved, cases[i].field) + cases[i].at;

		store_le64(mask, load_le64(mask) ^ 1ull << cases[i].bit);
		in = (struct state_buf){.data = saved.data, .bytes = saved.bytes};
		assert_int_equal(vcpu_load_image(vcpu, &in, &cpu, &err), -EINVAL);
		if (!strstr(err.text, "cpu0: its extended state has parts that this host ") ||
		    !strstr(err.text, cases[i].says))
			fail_msg("%s", err.text);
		store_le64(mask, load_le64(mask) ^ 1ull << cases[i].bit);
	}
	assert_int_equal(vcpu_get_regs(vcpu, &after), 0);
	assert_memory_equal(&before, &after, sizeof(before));
	in = (struct state_buf){.data = saved.data, .bytes = saved.bytes};
	assert_int_equal(vcpu_load_image(vcpu, &in, &cpu, &err), 0);
	free(cpu);
	tm_stop(t);
	state_buf_fini(&saved);
}

/* --- /dev/kvm that is none ----------------------------------------------------- */

static void a_missing_device_is_one_clear_line(void **state)
{
	struct error err = {0};
	struct kvm *kvm;

	assert_int_equal(kvm_new_at(&kvm, "/dev/no-such-device", &err), -ENOENT);
	assert_string_equal(err.text, "Could not access KVM kernel module: No such file or "
				      "directory; is virtualisation switched on in the firmware, "
				      "and the module kvm_intel or kvm_amd loaded?");
	assert_int_equal(kvm_new_at(&kvm, "/dev/null", &err), -ENOTTY);
	assert_non_null(strstr(err.text, "Could not access KVM kernel module: "));
}

static void too_many_cpus_are_refused(void **state)
{
	struct test_machine *t;
	struct vcpus *v;
	struct error err = {0};
	struct cpu_options opt = {"host", 5000, 5000, 1, 1, NULL};

	t = TM_START(hello, 1);
	assert_int_equal(vcpus_new(&v, t->kvm, &t->m, &opt, NULL, &err), -EINVAL);
	assert_non_null(strstr(err.text, "Number of SMP CPUs requested (5000)"));
	tm_stop(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_and_strings_reach_a_port),
		cmocka_unit_test(strings_of_words_come_in_order),
		cmocka_unit_test(a_port_of_nobody_reads_as_ones),
		cmocka_unit_test(registers_in_memory_are_read_and_written),
		cmocka_unit_test(rom_does_not_change),
		cmocka_unit_test(pages_that_the_guest_writes_are_logged),
		cmocka_unit_test(a_line_interrupts_a_halted_guest),
		cmocka_unit_test(the_timer_ticks_and_reset_stops_it),
		cmocka_unit_test(an_eventfd_and_a_message_raise_a_vector),
		cmocka_unit_test(an_nmi_arrives),
		cmocka_unit_test(doorbells_ring_without_their_handler),
		cmocka_unit_test(pauses_never_tear_an_access),
		cmocka_unit_test(a_triple_fault_stops_until_reset),
		cmocka_unit_test(a_guest_that_cannot_go_on_is_reported_and_can_be_reset),
		cmocka_unit_test(reset_is_the_power_on_state),
		cmocka_unit_test(other_cpus_start_by_init_and_sipi),
		cmocka_unit_test(four_cpus_pause_together),
		cmocka_unit_test(a_guest_goes_on_in_another_machine),
		cmocka_unit_test(what_was_loaded_is_saved_the_same),
		cmocka_unit_test(state_cut_short_is_refused),
		cmocka_unit_test(
			extended_state_that_the_host_lacks_is_refused_before_anything_changes),
		cmocka_unit_test(a_missing_device_is_one_clear_line),
		cmocka_unit_test(too_many_cpus_are_refused),
	};

	return cmocka_run_group_tests_name("core under KVM", tests, NULL, NULL);
}
