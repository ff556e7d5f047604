"""Guests of our own: boot sectors that talk on the serial port, made on the spot.

They run in real mode (and flat 32-bit code), so that every kind of KVM runs them.
Each says what it does on COM1 and ends by power off, reset, or a halt.
"""
from tools import assemble, boot_sector, run

SECTOR = 512

# Common to all: stacks and segments, drive number in dl kept, text to COM1.
HEAD = """
	.intel_syntax noprefix
	.globl _start
_start:	cli
	cld
	xor	ax, ax
	mov	ds, ax
	mov	es, ax
	mov	ss, ax
	mov	sp, 0x7c00
	mov	[0x7b00], dl
	jmp	main
puts:	lodsb
	test	al, al
	jz	1f
	call	putc
	jmp	puts
1:	ret
putc:	push	ax
	mov	dx, 0x3fd
2:	in	al, dx
	test	al, 0x20
	jz	2b
	pop	ax
	mov	dx, 0x3f8
	out	dx, al
	ret
"""
# AL = what comes on COM1 next.
GETC = """
getc:	mov	dx, 0x3fd
2:	in	al, dx
	test	al, 1
	jz	2b
	mov	dx, 0x3f8
	in	al, dx
	ret
"""
# SeaBIOS puts the power management ports at 0x600: PM1a control, sleep type 0, SLP_EN.
POWER_OFF = """
power_off:
	mov	dx, 0x604
	mov	ax, 0x2000
	out	dx, ax
3:	hlt
	jmp	3b
"""
HALT = """
halt:	sti
4:	hlt
	jmp	4b
"""


def say(text, label="text"):
    return '%s:\t.asciz "%s"\n' % (label, text.replace("\r\n", "\\r\\n"))


def hello(work, text="boot sector runs"):
    """Says the text and halts with interrupts on."""
    return boot_sector(HEAD + "main:\tmov si, offset text\n\tcall puts\n" + HALT +
                       say(text + "\r\n"), work)


def powers_off(work):
    return boot_sector(HEAD + "main:\tmov si, offset text\n\tcall puts\n" + POWER_OFF +
                       say("going off\r\n"), work)


RESETS = {
    "keyboard controller": "mov al, 0xfe\n\tout 0x64, al",
    "port 0x92": "in al, 0x92\n\tand al, 0xfe\n\tout 0x92, al\n\tor al, 1\n\tout 0x92, al",
    "port 0xcf9": "mov dx, 0xcf9\n\tmov al, 2\n\tout dx, al\n\tmov al, 6\n\tout dx, al",
    "triple fault": "lidt [no_idt]\n\tint3",
}


def resets(work, how):
    """Counts its starts on the disk (LBA 8) and resets until the third."""
    return boot_sector(HEAD + """
main:	mov	ah, 0x42
	call	disk
	inc	byte ptr [0x8000]
	mov	ah, 0x43
	call	disk
	mov	si, offset text
	call	puts
	mov	al, [0x8000]
	add	al, '0'
	call	putc
	mov	si, offset newline
	call	puts
	cmp	byte ptr [0x8000], 3
	jae	halt
	%s
5:	jmp	5b
disk:	mov	dl, [0x7b00]
	mov	si, offset packet
	xor	al, al
	int	0x13
	jc	failed
	ret
failed:	mov	si, offset error
	call	puts
""" % RESETS[how] + HALT + say("start ") + say("disk error\r\n", "error") +
                       say("\r\n", "newline") + """
packet:	.byte	16, 0
	.word	1, 0x8000, 0
	.quad	8
no_idt:	.word	0
	.long	0
""", work)


def copies_sectors(work, source, target, count):
    """Reads count sectors at LBA source with INT 13h, inverts every byte, writes them
    at target, reads those back, compares, says what happened, powers off."""
    return boot_sector(HEAD + """
main:	mov	dword ptr [packet + 8], %d
	mov	ah, 0x42
	call	disk
	mov	cx, %d
	mov	di, 0
	mov	ax, 0x1000
	mov	es, ax
6:	not	byte ptr es:[di]
	inc	di
	loop	6b
	mov	dword ptr [packet + 8], %d
	mov	ah, 0x43
	call	disk
	mov	word ptr [packet + 6], 0x2000
	mov	ah, 0x42
	call	disk
	mov	ax, 0x1000
	mov	ds, ax
	mov	ax, 0x2000
	mov	es, ax
	xor	si, si
	xor	di, di
	mov	cx, %d
	repe	cmpsb
	mov	ax, 0
	mov	ds, ax
	jne	failed
	mov	si, offset text
	call	puts
	jmp	power_off
disk:	push	ds
	mov	dl, [0x7b00]
	mov	si, offset packet
	xor	al, al
	int	0x13
	pop	ds
	jc	failed
	ret
failed:	mov	si, offset error
	call	puts
""" % (source, count * SECTOR, target, count * SECTOR) + POWER_OFF + say("copied\r\n") +
                       say("disk error\r\n", "error") + """
packet:	.byte	16, 0
	.word	%d, 0, 0x1000
	.quad	0
""" % count, work)


def keeps_count(work, register=0x2FF):
    """Counts in memory, on the disk (LBA 8) and in a register of a device (the second
    serial port's scratch register), says each number, and "torn" if the three differ."""
    return boot_sector((HEAD + """
main:	mov	word ptr [0x8000], 0
	mov	dx, REGISTER
	xor	al, al
	out	dx, al
	jmp	store
count:	mov	ah, 0x42
	mov	word ptr [packet + 4], 0x8200
	call	disk
	mov	ax, [0x8000]
	cmp	ax, [0x8200]
	jne	torn
	mov	dx, REGISTER
	in	al, dx
	cmp	al, [0x8000]
	jne	torn
	inc	word ptr [0x8000]
	mov	al, [0x8000]
	out	dx, al
store:	mov	ah, 0x43
	mov	word ptr [packet + 4], 0x8000
	call	disk
	mov	cx, 4
	mov	bx, [0x8000]
6:	rol	bx, 4
	mov	al, bl
	and	al, 15
	add	al, '0'
	cmp	al, '9'
	jbe	7f
	add	al, 7
7:	call	putc
	loop	6b
	mov	al, 10
	call	putc
	jmp	count
torn:	mov	si, offset text
	call	puts
	jmp	halt
disk:	mov	dl, [0x7b00]
	mov	si, offset packet
	xor	al, al
	int	0x13
	jc	failed
	ret
failed:	mov	si, offset error
	call	puts
""" + HALT + say("torn\r\n") + say("disk error\r\n", "error") + """
packet:	.byte	16, 0
	.word	1, 0x8000, 0
	.quad	8
""").replace("REGISTER", hex(register)), work)


def echoes_keys(work):
    """Shows what is typed on the screen and on the serial port.  F1 sets mode 13h and
    fills it with the next key's code, F2 goes back to text."""
    return boot_sector(HEAD + """
main:	mov	si, offset text
	call	puts
again:	xor	ah, ah
	int	0x16
	cmp	ah, 0x3b
	je	graphics
	cmp	ah, 0x3c
	je	letters
	call	putc
	mov	ah, 0x0e
	mov	bx, 7
	int	0x10
	jmp	again
letters: mov	ax, 3
	int	0x10
	jmp	again
graphics: mov	ax, 0x13
	int	0x10
	xor	ah, ah
	int	0x16
	push	0xa000
	pop	es
	xor	di, di
	mov	cx, 64000
	rep	stosb
	mov	al, '*'
	call	putc
	jmp	again
""" + say("type\r\n"), work)


def locks_tray(work):
    """Keeps the CD drive shut (secondary master; ATA/ATAPI-6 9.8, MMC-3 6.14) until
    something comes on COM1, then opens it."""
    return boot_sector(HEAD + """
main:	mov	si, offset lock
	call	packet
	mov	si, offset lock		# should the first have been told of a change
	call	packet
	mov	si, offset text
	call	puts
	call	getc
	mov	si, offset unlock
	call	packet
	call	packet
	mov	si, offset text2
	call	puts
	jmp	halt
packet:	mov	dx, 0x376
	mov	al, 2
	out	dx, al
	mov	dx, 0x176
	mov	al, 0xa0
	out	dx, al
	mov	dx, 0x174
	xor	al, al
	out	dx, al
	inc	dx
	out	dx, al
	mov	dx, 0x177
	mov	al, 0xa0
	out	dx, al
5:	in	al, dx
	test	al, 0x80
	jnz	5b
	test	al, 8
	jz	5b
	mov	dx, 0x170
	mov	cx, 6
	rep	outsw
	mov	dx, 0x177
6:	in	al, dx
	test	al, 0x80
	jnz	6b
	ret
lock:	.byte	0x1e, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0
unlock:	.byte	0x1e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.byte	0x1b, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0
""" + GETC + HALT + say("locked\r\n") + say("opened\r\n", "text2"), work)


def multiboot_kernel(work, text):
    """Says the text and powers off."""
    return assemble("""
	.intel_syntax noprefix
_start:	jmp	go
	.balign	4
header:	.long	0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
	.long	header, _start, end, end, go
go:	mov	esi, offset text
1:	lodsb
	test	al, al
	jz	3f
	mov	ah, al
	mov	dx, 0x3fd
2:	in	al, dx
	test	al, 0x20
	jz	2b
	mov	al, ah
	mov	dx, 0x3f8
	out	dx, al
	jmp	1b
3:	mov	dx, 0x604
	mov	ax, 0x2000
	out	dx, ax
4:	hlt
	jmp	4b
""" + say(text + "\r\n") + """
	.balign	4
end:
""", work, origin=0x100000, bits=32)


def disk_with(path, sector, size=16 << 20):
    """A raw image that starts with the boot sector."""
    with open(path, "wb") as f:
        f.write(sector)
        f.truncate(size)
    return path


def qcow2_with(path, sector, data=None, size="16M"):
    """A qcow2 image with the boot sector, and data at byte offsets, written by the
    reference tools."""
    run("qemu-img", "create", "-q", "-f", "qcow2", path, size)
    for at, content in {0: sector, **(data or {})}.items():
        blob = str(path) + ".part"
        with open(blob, "wb") as f:
            f.write(content)
        run("qemu-io", "-f", "qcow2", "-c", "write -s %s %d %d" % (blob, at, len(content)), path)
    return path


def bootable_cd(work, code, *options):
    """An ISO image whose no-emulation boot image is the code."""
    tree = work / "cd"
    tree.mkdir()
    (tree / "boot.bin").write_bytes(code.ljust(2048, b"\0"))
    run("xorriso", "-as", "mkisofs", "-quiet", "-o", work / "cd.iso", "-b", "boot.bin",
        "-no-emul-boot", "-boot-load-size", "4", *options, tree)
    return work / "cd.iso"


def grub_cd(work):
    """GRUB on a CD without a configuration: it comes to its prompt by itself."""
    core = work / "core.img"
    run("grub-mkimage", "-O", "i386-pc-eltorito", "-d", "/usr/lib/grub/i386-pc", "-p",
        "/boot/grub", "-o", core, "biosdisk", "iso9660", "normal", "minicmd", "ls")
    return bootable_cd(work, core.read_bytes(), "-boot-info-table")


__all__ = [n for n in dir() if not n.startswith("_")] + ["assemble"]
