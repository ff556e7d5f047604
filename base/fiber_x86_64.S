/* The stack switch of fibers: System V AMD64 ABI, section 3.2.1: a function
 * keeps rbx, rbp, r12..r15, the control bits of mxcsr and the x87 control word.
 * Everything else is dead at a call, so this is all a switch has to save.
 *
 *	void fiber_switch_stack(void **save_sp, void *to_sp);
 *
 * The frame that it leaves on the old stack and expects on the new one, from
 * the stack pointer up: mxcsr and control word (8 bytes), r15, r14, r13, r12,
 * rbx, rbp, return address.  struct switch_frame in fiber.c is its mirror. */

	.text

	.globl	fiber_switch_stack
	.type	fiber_switch_stack, @function
	.p2align 4
fiber_switch_stack:
	.cfi_startproc
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	subq	$8, %rsp
	stmxcsr	(%rsp)
	fnstcw	4(%rsp)
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	ldmxcsr	(%rsp)
	fldcw	4(%rsp)
	addq	$8, %rsp
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	ret
	.cfi_endproc
	.size	fiber_switch_stack, . - fiber_switch_stack

/* First return address of a new fiber: r12 holds the struct fiber.  Tells
 * unwinders that there is nothing above. */
	.globl	fiber_first_frame
	.type	fiber_first_frame, @function
	.p2align 4
fiber_first_frame:
	.cfi_startproc
	.cfi_undefined rip
	movq	%r12, %rdi
	xorl	%ebp, %ebp
	call	fiber_main
	ud2
	.cfi_endproc
	.size	fiber_first_frame, . - fiber_first_frame

	.section .note.GNU-stack, "", @progbits
