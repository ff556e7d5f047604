/* A machine with nothing but memory, two buses and vCPUs, for guests of a few
 * instructions.  Needs /dev/kvm; the code is real mode or flat 32-bit, which the
 * weakest kind of KVM runs, too. */
#ifndef TESTS_GUEST_CORE_GUEST_H
#define TESTS_GUEST_CORE_GUEST_H

#include "vmm/core/kvm.h"
#include "vmm/core/vcpu.h"

#include "base/io.h"
#include "base/log.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

/* Guest code lies at 0x1000 of 64 KiB of RAM; the reset vector jumps there.
 * the guest address of label N is "Nf - 100b + 0x1000". */
#define GUEST_CODE 0x1000
#define GUEST(name, code)                                                                          \
	__asm__(".pushsection .rodata\n.code16\n"                                                  \
		"guest_" #name ":\n100: " code "\nguest_" #name "_end:\n.code64\n.popsection\n");  \
	extern const u8 guest_##name[], guest_##name##_end[]

/* Ports of the test device. */
#define PORT_TEXT 0x10 /* out: appended to `text` */
#define PORT_DONE 0x12 /* out: ends tm_wait */
#define PORT_SEQ  0x14 /* in: 0, 1, 2 ...; out: must be what the last in gave */
#define PORT_MMIO 0x20000

struct test_machine {
	struct machine m;
	struct kvm *kvm;
	struct vcpus *vcpus;
	struct mem_region *ram, *rom;
	struct mutex lock; /* of the device */
	struct cond changed;
	char text[256];		     /* [lock] */
	u32 letters;		     /* [lock] */
	u32 done, expected;	     /* [lock] how often the guest said so, and tm_wait waited */
	u32 done_value;		     /* [lock] */
	u32 seq, seq_errors;	     /* [lock] */
	u32 requests[8];	     /* [lock] by enum machine_request */
	u32 triple_faults, failures; /* [lock] */
	u32 written, widths;	     /* [lock] writes to MMIO, sum of sizes */
};

/* Running; on the heap, as vCPUs of a failed test may outlive it. */
struct test_machine *tm_start(const u8 *code, const u8 *end, u32 cpus);
void tm_stop(struct test_machine *t);
/* Wait for the guest's next word on PORT_DONE; returns it. */
u32 tm_wait(struct test_machine *t);
/* Wait until it has said something on PORT_TEXT since the start. */
void tm_wait_text(struct test_machine *t);
u32 tm_seq(struct test_machine *t); /* what the next in of PORT_SEQ gives */
/* Wait until *what, which the device's lock protects, is `least` or more. */
void tm_wait_for(struct test_machine *t, const u32 *what, u32 least);
#define TM_START(name, cpus) tm_start(guest_##name, guest_##name##_end, (cpus))

#endif
