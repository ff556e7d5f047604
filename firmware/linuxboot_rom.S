/* Option ROM that loads and enters a kernel given on the command line.
 *
 * The BIOS finds it as genroms/linuxboot.bin in fw_cfg and boots it through its
 * boot entry vector (Plug and Play BIOS 1.0A, section 3).  By then the BIOS has set
 * up the machine and its tables; this ROM fetches the pieces by fw_cfg DMA, asks
 * INT 15h E820 for the memory map, and enters the kernel in flat 32-bit mode or in
 * long mode.  All decisions are made by linuxboot.c, which fills in the parameters
 * below (struct rom_params) and the two checksums.
 *
 * Memory used: 0x500..0x7c00 stack, COPY: a copy of this ROM (what runs with paging
 * or flat segments runs there), DMA: the DMA request.  The pieces lie above. */

	.set	COPY, 0x8000
	.set	DMA, 0x8800
	.set	ROM_BYTES, 1024
	.set	CODE_32, 0x08
	.set	CODE_ENTRY, 0x10	/* of the kernel: 32 or 64 bits wide */
	.set	DATA, 0x18
	.set	PORT_A, 0x92
	.set	FWCFG_DMA_HIGH, 0x514
	.set	FWCFG_DMA_LOW, 0x518
	.set	FWCFG_READ_SELECTED, 0x0a
	.set	SMAP, 0x534d4150
	.set	E820_BYTES, 20

	.text
	.code16
	.globl	_start
_start:
	.byte	0x55, 0xaa
	.byte	ROM_BYTES / 512
	jmp	init
	.org	0x06
	.byte	0			/* checksum of the ROM */
	.org	0x18
	.word	0			/* no PCI data */
	.word	pnp

	.org	0x20
params:
magic:		.ascii	"cowboot1"
e820_addr:	.long	0		/* where the first entry goes, linear */
e820_stride:	.long	0
e820_max:	.long	0
count_addr:	.long	0		/* where the number of entries goes, ... */
count_unit:	.long	0		/* ... times this */
long_mode:	.long	0
entry:		.long	0
entry_eax:	.long	0
entry_ebx:	.long	0
entry_esi:	.long	0
page_tables:	.long	0
n_loads:	.long	0
loads:		.fill	4 * 16, 1, 0	/* fw_cfg key, bytes, 64-bit address */

	.balign	16
pnp:
	.ascii	"$PnP"
	.byte	0x10, 2			/* revision, length in paragraphs */
	.word	0			/* no further header */
	.byte	0
pnp_checksum:
	.byte	0
	.long	0			/* device id */
	.word	vendor, product
	.byte	0, 0, 0			/* device type: none in particular */
	.byte	0x14			/* reads, may be shared; boots by BEV */
	.word	0, 0
	.word	boot
	.word	0, 0
vendor:	.asciz	"cowvm"
product: .asciz	"Direct kernel boot"
failed_text: .asciz "Kernel cannot be read\r\n"

/* Nothing to set up; say that a boot device is there. */
init:
	movw	$0x20, %ax
	lretw

boot:
	cli
	cld
	xorw	%ax, %ax
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	pushw	%cs
	popw	%ds

	/* The copy: parameters, descriptor tables, and the code after the switch. */
	movw	$COPY >> 4, %ax
	movw	%ax, %es
	xorw	%si, %si
	xorw	%di, %di
	movw	$ROM_BYTES / 4, %cx
	rep movsl

	movw	$loads, %si
	movw	n_loads, %bp
1:	testw	%bp, %bp
	jz	2f
	call	load
	addw	$16, %si
	decw	%bp
	jmp	1b
2:	call	memory_map

	cli
	inb	$PORT_A, %al		/* address line 20, should anybody have closed it */
	orb	$2, %al
	andb	$0xfe, %al
	outb	%al, $PORT_A
	lgdtl	gdtr_32
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$CODE_32, $COPY + protected

/* Fetch the piece at %si by one DMA transfer. */
load:
	movw	$DMA >> 4, %ax
	movw	%ax, %es
	movl	0(%si), %eax
	shll	$16, %eax
	movb	$FWCFG_READ_SELECTED, %al
	bswapl	%eax
	movl	%eax, %es:0
	movl	4(%si), %eax
	bswapl	%eax
	movl	%eax, %es:4
	movl	12(%si), %eax
	bswapl	%eax
	movl	%eax, %es:8
	movl	8(%si), %eax
	bswapl	%eax
	movl	%eax, %es:12
	xorl	%eax, %eax
	movw	$FWCFG_DMA_HIGH, %dx
	outl	%eax, %dx
	movl	$DMA, %eax
	bswapl	%eax
	movw	$FWCFG_DMA_LOW, %dx
	outl	%eax, %dx
1:	movl	%es:0, %eax
	bswapl	%eax
	testb	$1, %al
	jnz	failed
	testl	%eax, %eax
	jnz	1b
	retw

failed:
	movw	$failed_text, %si
1:	lodsb
	testb	%al, %al
	jz	2f
	movb	$0x0e, %ah
	movw	$7, %bx
	int	$0x10
	jmp	1b
2:	int	$0x18			/* next boot device, please */

/* The BIOS's memory map, entry by entry; nothing above it lies in our pieces. */
memory_map:
	xorl	%ebx, %ebx
	xorl	%ebp, %ebp		/* entries */
	movl	e820_addr, %edi
1:	movl	%edi, %eax
	shrl	$4, %eax
	movw	%ax, %es
	pushl	%edi
	andw	$15, %di
	movl	$0xe820, %eax
	movl	$SMAP, %edx
	movl	$E820_BYTES, %ecx
	int	$0x15
	popl	%edi
	jc	2f
	cmpl	$SMAP, %eax
	jne	2f
	incl	%ebp
	addl	e820_stride, %edi
	testl	%ebx, %ebx
	jz	2f
	cmpl	e820_max, %ebp
	jb	1b
2:	movl	%ebp, %eax
	mull	count_unit
	movl	count_addr, %edi
	movl	%edi, %edx
	shrl	$4, %edx
	movw	%dx, %es
	andw	$15, %di
	movl	%eax, %es:(%di)
	retw

	.code32
protected:
	movw	$DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %fs
	movw	%ax, %gs
	movw	%ax, %ss
	movl	$0x7c00, %esp
	movl	COPY + entry, %ecx
	movl	COPY + entry_ebx, %ebx
	movl	COPY + entry_esi, %esi
	xorl	%edi, %edi
	xorl	%ebp, %ebp
	cmpl	$0, COPY + long_mode
	jne	enter_long
	movl	COPY + entry_eax, %eax
	pushl	$CODE_ENTRY
	pushl	%ecx
	lretl

enter_long:
	lgdtl	COPY + gdtr_64
	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	COPY + page_tables, %eax
	movl	%eax, %cr3
	movl	%ecx, %edi
	movl	$0xc0000080, %ecx	/* EFER */
	rdmsr
	orl	$0x100, %eax		/* LME */
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax	/* PG */
	movl	%eax, %cr0
	ljmpl	$CODE_ENTRY, $COPY + long_entry

	.code64
long_entry:
	movl	%edi, %ecx		/* upper halves are undefined until written */
	movl	%esi, %esi
	xorl	%edi, %edi
	xorl	%ebx, %ebx
	xorl	%ebp, %ebp
	jmp	*%rcx

	/* Flat segments; the second of each is what the kernel is entered with. */
	.balign	8
gdt_32:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00cf9b000000ffff
	.quad	0x00cf93000000ffff
gdt_64:
	.quad	0
	.quad	0x00cf9b000000ffff
	.quad	0x00af9b000000ffff
	.quad	0x00cf93000000ffff
gdtr_32:
	.word	31
	.long	COPY + gdt_32
	.balign	8
gdtr_64:
	.word	31
	.long	COPY + gdt_64

	.org	ROM_BYTES
