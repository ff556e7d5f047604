"""-kernel: small kernels of our own, entered the ways that the boot protocols define.

A Debian kernel does the same in test_demo.py; these run on every kind of KVM.
"""
import struct
import subprocess

import pytest

from tools import COWVM, DEMO, SLOW, assemble, check_image, file_on_disk, overlay, run
from vm import Vm

LOAD = 0x100000

# Text to COM1, in 32-bit code; esi: text, al: character, edx destroyed.
CONSOLE = """
puts:	lodsb
	test	al, al
	jz	1f
	call	putc
	jmp	puts
1:	ret
putc:	push	eax
	mov	dx, 0x3fd
2:	in	al, dx
	test	al, 0x20
	jz	2b
	pop	eax
	mov	dx, 0x3f8
	out	dx, al
	ret
line:	call	puts
	mov	al, 10
	jmp	putc
digit:	add	al, '0'
	jmp	putc
power_off:
	mov	dx, 0x604
	mov	ax, 0x2000
	out	dx, ax
3:	hlt
	jmp	3b
"""

# Says what the multiboot information holds.
MULTIBOOT = """
	.intel_syntax noprefix
	.globl _start
_start:	jmp	go
	.balign	4
header:	.long	0x1badb002, %(flags)d, -(0x1badb002 + %(flags)d)
	.long	header, _start, data_end, bss_end, go
go:	mov	esp, 0x7c00
	mov	edi, eax
	mov	esi, offset wrong
	cmp	edi, 0x2badb002
	jne	say
	mov	esi, offset right
say:	call	line
	mov	esi, [ebx + 16]
	call	line
	mov	esi, [ebx + 64]
	call	line
	mov	eax, [ebx + 20]
	call	digit
	mov	edi, [ebx + 24]
	mov	ecx, [ebx + 20]
4:	jecxz	5f
	mov	al, 10
	call	putc
	mov	esi, [edi + 8]
	call	line
	push	ecx
	mov	esi, [edi]
	mov	ecx, [edi + 4]
	sub	ecx, esi
6:	lodsb
	call	putc
	loop	6b
	pop	ecx
	add	edi, 16
	dec	ecx
	jmp	4b
5:	mov	esi, offset memory
	call	puts
	mov	eax, [ebx + 8]
	shr	eax, 10
	inc	eax
	xor	edx, edx
	mov	ecx, 10
	div	ecx
	push	edx
	call	digit
	pop	eax
	call	digit
	/* The map: entries of 20 bytes and their size, RAM from 1 MiB among them. */
	mov	edi, [ebx + 48]
	mov	ecx, edi
	add	ecx, [ebx + 44]
7:	cmp	edi, ecx
	jae	power_off
	cmp	dword ptr [edi], 20
	jne	power_off
	cmp	dword ptr [edi + 4], 0x100000
	jne	8f
	cmp	dword ptr [edi + 20], 1
	jne	8f
	mov	esi, offset map
	call	line
8:	add	edi, 24
	jmp	7b
right:	.asciz	"magic"
wrong:	.asciz	"no magic"
memory:	.asciz	"\\nMiB: "
map:	.asciz	"\\nmap has memory at 1 MiB"
""" + CONSOLE + """
data_end:
	.bss
	.skip	4096
bss_end:
"""


def multiboot(work, kind):
    """The kernel as a flat file with addresses, or as ELF."""
    source = MULTIBOOT % {"flags": 0x10003 if kind == "flat" else 3}
    if kind == "flat":
        data = assemble(source, work, origin=LOAD, bits=32)
        path = work / "kernel.flat"
        path.write_bytes(data)
        return path
    (work / "kernel.S").write_text(".code32\n" + source)
    run("as", "--32", "-o", work / "kernel.o", work / "kernel.S")
    run("ld", "-m", "elf_i386", "-N", "-Ttext", hex(LOAD),
        "-o", work / "kernel.elf", work / "kernel.o")
    if kind == "elf32":
        return work / "kernel.elf"
    run("objcopy", "-O", "elf64-x86-64", work / "kernel.elf", work / "kernel.elf64")
    return work / "kernel.elf64"


@pytest.mark.parametrize("kind", ["elf32", "elf64", "flat"])
def test_multiboot_kernel_gets_its_information(tmp_path, kind):
    kernel = multiboot(tmp_path, kind)
    (tmp_path / "m1").write_text("first module")
    (tmp_path / "m2").write_text("second one")
    modules = "%s some words,%s" % (tmp_path / "m1", tmp_path / "m2")
    with Vm("-kernel", kernel, "-append", "root=nowhere", "-initrd", modules, "-no-shutdown",
            memory=64) as vm:
        vm.serial.expect("map has memory at 1 MiB")
        lines = vm.serial.text.replace("\r", "").split("\n")
        assert lines[:8] == ["magic", "%s root=nowhere" % kernel, "cowvm", "2",
                             "%s some words" % (tmp_path / "m1"), "first module",
                             str(tmp_path / "m2"), "second one"], lines
        assert "MiB: 64" in lines or "MiB: 63" in lines, lines


# A kernel that says by which door it came in, its command line, initrd and map.
BZIMAGE = """
	.intel_syntax noprefix
	.globl _start
_start:	mov	edi, offset by32
	jmp	say
say:	push	esi
	mov	esi, edi
	call	line
	pop	esi
	mov	ebx, esi
	mov	esi, [ebx + 0x228]
	call	line
	mov	esi, [ebx + 0x218]
	mov	ecx, [ebx + 0x21c]
	jecxz	5f
4:	lodsb
	call	putc
	loop	4b
5:	mov	al, 10
	call	putc
	/* The map's entries from the BIOS: one of RAM at 1 MiB. */
	movzx	ecx, byte ptr [ebx + 0x1e8]
	lea	edi, [ebx + 0x2d0]
6:	jecxz	7f
	cmp	dword ptr [edi], 0x100000
	jne	8f
	cmp	dword ptr [edi + 16], 1
	jne	8f
	mov	esi, offset map
	call	line
8:	add	edi, 20
	dec	ecx
	jmp	6b
7:	jmp	power_off
by32:	.asciz	"32-bit entry"
by64:	.asciz	"64-bit entry"
map:	.asciz	"map has memory at 1 MiB"
""" + CONSOLE + """
	.org	0x200
	.code64
	/* Still in long mode after writing through it?  Then go back to 32 bits. */
	mov	r8, 0x1122334455667788
	mov	[0x200000], r8
	cmp	r8, [0x200000]
	jne	.
	mov	edi, offset by64
	mov	esp, 0x7c00
	mov	eax, offset gdtr
	lgdt	[rax]
	push	0x08
	mov	eax, offset back
	push	rax
	rex.w retf
	.code32
back:	mov	eax, cr0
	and	eax, 0x7fffffff
	mov	cr0, eax
	mov	eax, 0x10
	mov	ds, eax
	mov	es, eax
	mov	ss, eax
	jmp	say
	.balign	8
gdt:	.quad	0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:	.word	23
	.long	gdt, 0
"""


def bzimage(work, entry64, version=0x20F):
    code = assemble(BZIMAGE, work, origin=LOAD, bits=32)
    setup = bytearray(1024)
    setup[0x1F1] = 1
    struct.pack_into("<H", setup, 0x1FE, 0xAA55)
    setup[0x201] = 0x6A
    struct.pack_into("<4sH", setup, 0x202, b"HdrS", version)
    setup[0x211] = 1
    struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<H", setup, 0x236, int(entry64))
    struct.pack_into("<I", setup, 0x238, 255)
    struct.pack_into("<QI", setup, 0x258, LOAD, 1 << 20)
    path = work / "bzImage"
    path.write_bytes(bytes(setup) + code)
    return path


@pytest.mark.parametrize("bits", [32, 64])
def test_bzimage_is_entered_with_its_parameters(tmp_path, bits):
    kernel = bzimage(tmp_path, bits == 64)
    (tmp_path / "initrd").write_text("content of the initrd")
    with Vm("-kernel", kernel, "-append", "one two=3", "-initrd", tmp_path / "initrd",
            "-no-shutdown", memory=64) as vm:
        vm.serial.expect("map has memory at 1 MiB")
        lines = vm.serial.text.replace("\r", "").split("\n")
        assert lines[:3] == ["%d-bit entry" % bits, "one two=3", "content of the initrd"], lines


def test_kernel_starts_again_after_a_reset(tmp_path):
    with Vm("-kernel", bzimage(tmp_path, False), "-append", "x", "-no-shutdown") as vm:
        vm.serial.expect("map has memory at 1 MiB")
        vm.wait_status(r"paused (shutdown)")
        vm.monitor("system_reset")
        vm.monitor("cont")
        vm.serial.expect("map has memory at 1 MiB")


@pytest.mark.parametrize("name,content,message", [
    ("text", b"not a kernel at all\n" * 100, "is neither a bzImage nor a multiboot kernel"),
    ("old", None, "has boot protocol 2.05, expected 2.06 or later"),
    ("empty", b"", "is neither a bzImage nor a multiboot kernel"),
])
def test_bad_kernel_is_refused_in_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is None:
        path = bzimage(tmp_path, False, version=0x205)
    else:
        path.write_bytes(content)
    done = subprocess.run([COWVM, "-enable-kvm", "-display", "none", "-kernel", str(path)],
                          stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          timeout=30 * SLOW)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.full_kvm
@pytest.mark.limit(300)
@pytest.mark.parametrize("device", ["virtio-blk-pci,drive=d",
                                    "virtio-blk-pci,drive=d,disable-modern=on",
                                    "virtio-blk-pci,drive=d,disable-legacy=on,num-queues=2"])
def test_debian_kernel_mounts_its_root_from_virtio(tmp_path, device):
    disk = overlay(DEMO / "base.qcow2", tmp_path / "disk.qcow2")
    with Vm("-kernel", DEMO / "vmlinuz", "-initrd", DEMO / "initrd.img", "-append",
            "console=ttyS0 loglevel=4 root=LABEL=cowvm-demo", "-drive",
            "file=%s,if=none,id=d,discard=unmap" % disk, "-device", device, "-smp", "2",
            memory=256) as vm:
        vm.serial.expect("login: ", 200)
        vm.serial.send("root\r")
        vm.serial.expect("# ")
        vm.serial.send("dd if=/dev/urandom of=/root/big bs=64k count=40; rm /root/big; sync; "
                       "fstrim / && echo trimmed; grep -c virtio0 /proc/interrupts; "
                       "echo kernel booted >/root/x; sync\r")
        vm.serial.expect(r"\ntrimmed\r")
        vm.serial.expect(r"\n[23]\r")            # MSI-X: configuration and queues
        vm.serial.expect("# ")
        vm.serial.send("poweroff\r")
        assert vm.wait_exit(120) == 0
    check_image(disk)
    assert file_on_disk(disk, "/root/x") == b"kernel booted\n"
