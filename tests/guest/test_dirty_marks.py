"""Snapshots after the first hold all of memory, byte for byte, also what devices wrote by
themselves; and a cowvm that forgets one such mark is caught by this very comparison."""
import os

import pytest

import guests
from tools import COWIMG, TOP, check_image, run
from vm import Vm

pytestmark = pytest.mark.any_kvm
FORGETFUL = TOP / "build" / os.environ.get("COWVM_BUILD", "release") / "tests/guest/forgetful"
MEMORY = 16                             # MiB
UNIT = 65536
# Who writes where, on the guest's word (a key): each into a unit of its own.
WRITERS = {"virtio-blk": ("v", 0x20000), "fw_cfg": ("f", 0x30000), "ide": ("b", 0x40000)}


def writes_by_devices(work):
    """Waits for a key: v reads 16 KiB from the boot drive with INT 13h to 0x20000, f reads
    from fw_cfg by its DMA to 0x30000, b reads 16 KiB from the IDE disk by bus master to
    0x40000.  Says the key when it is done.  The clock that KVM
    keeps in memory, which SeaBIOS has set up, is off: KVM writes there when it likes."""
    return guests.boot_sector(guests.HEAD + """
main:	mov	ecx, 0x4b564d01
	xor	eax, eax
	xor	edx, edx
	wrmsr
	mov	al, '.'
	call	putc
wait:	call	getc
	mov	[0x7b01], al
	cmp	al, 'v'
	je	virtio
	cmp	al, 'f'
	je	fwcfg
	cmp	al, 'b'
	je	ide
	jmp	wait
done:	mov	al, [0x7b01]
	call	putc
	jmp	wait

virtio:	mov	dl, [0x7b00]
	mov	si, offset packet
	mov	ah, 0x42
	int	0x13
	jc	wait
	jmp	done

fwcfg:	mov	dx, 0x514
	xor	eax, eax
	out	dx, eax
	mov	eax, offset access
	bswap	eax
	mov	dx, 0x518
	out	dx, eax
6:	mov	eax, [access]
	test	eax, eax
	jnz	6b
	jmp	done

ide:	mov	dx, 0xcf8
	mov	eax, 0x80000904
	out	dx, eax
	mov	dx, 0xcfc
	mov	ax, 5
	out	dx, ax
	mov	dx, 0xcf8
	mov	eax, 0x80000920
	out	dx, eax
	mov	dx, 0xcfc
	in	eax, dx
	and	ax, 0xfffc
	mov	bx, ax
	lea	dx, [bx + 4]
	mov	eax, offset prd
	out	dx, eax
	lea	dx, [bx + 2]
	mov	al, 6
	out	dx, al
	mov	dx, bx
	mov	al, 8
	out	dx, al
	mov	dx, 0x1f6
	mov	al, 0xe0
	out	dx, al
	mov	dx, 0x1f2
	mov	al, 32
	out	dx, al
	inc	dx
	mov	al, 8
	out	dx, al
	inc	dx
	xor	al, al
	out	dx, al
	inc	dx
	out	dx, al
	mov	dx, 0x1f7
	mov	al, 0xc8
	out	dx, al
	mov	dx, bx
	mov	al, 9
	out	dx, al
	lea	dx, [bx + 2]
7:	in	al, dx
	test	al, 1
	jnz	7b
	mov	dx, bx
	xor	al, al
	out	dx, al
	mov	dx, 0x1f7
	in	al, dx
	jmp	done
""" + guests.GETC + """
	.balign 8
packet:	.byte	16, 0
	.word	32, 0, 0x2000
	.quad	8
prd:	.long	0x40000
	.word	16384, 0x8000
# control: select item 0 (the signature) and read; length; address; all big-endian
access:	.byte	0, 0, 0, 10, 0, 0, 0, 4, 0, 0, 0, 0, 0, 3, 0, 0
""", work)


@pytest.fixture
def disks(tmp_path):
    data = {4096: bytes(range(1, 256)) * 65}
    return [guests.qcow2_with(tmp_path / "virtio.qcow2", writes_by_devices(tmp_path), data),
            guests.qcow2_with(tmp_path / "ide.qcow2", b"\0" * 512, data)]


def machine(disks, *more, **kw):
    return Vm("-drive", "file=%s,if=none,id=v" % disks[0], "-device",
              "virtio-blk-pci,drive=v,bootindex=0", "-hda", disks[1], *more, memory=MEMORY, **kw)


def memory_of(vm, path):
    assert vm.monitor('pmemsave 0 0x%x "%s"' % (MEMORY << 20, path)) == ""
    return path.read_bytes()


def save_twice(disks, path, **kw):
    """Snapshot one; the devices write; snapshot two.  Memory at two."""
    with machine(disks, **kw) as vm:
        vm.serial.expect(r"\.")
        assert vm.monitor("savevm one") == ""
        for key, _ in WRITERS.values():
            vm.serial.send(key)
            vm.serial.expect(key)
        vm.monitor("stop")
        assert vm.monitor("savevm two") == ""
        memory = memory_of(vm, path)
        assert vm.quit() == 0
    for _, place in WRITERS.values():
        assert any(memory[place:place + 4]), "nothing came to 0x%x" % place
    return memory


def load(disks, tag, path):
    with machine(disks, "-S") as vm:
        assert vm.monitor("loadvm " + tag) == ""
        return memory_of(vm, path)


def differing_units(a, b):
    return [at for at in range(0, len(a), UNIT) if a[at:at + UNIT] != b[at:at + UNIT]]


def test_the_second_snapshot_holds_what_devices_wrote(disks, tmp_path):
    memory = save_twice(disks, tmp_path / "saved")
    loaded = load(disks, "two", tmp_path / "loaded")
    assert differing_units(memory, loaded) == []
    for disk in disks:
        check_image(disk)
    verified = run(COWIMG, "snapshot", "--verify", disks[0]).stdout.split("\n")
    assert [line.split(" (")[0] for line in verified[:2]] == [
        "Snapshot '%s': VM state is as it was written" % tag for tag in ("one", "two")]


@pytest.mark.parametrize("writer", WRITERS)
def test_a_mark_that_is_forgotten_is_caught(disks, tmp_path, writer):
    """The comparison above fails for a program that loses one mark: the proof that it
    would find a device that forgets to make one."""
    place = WRITERS[writer][1]
    memory = save_twice(disks, tmp_path / "saved", program=str(FORGETFUL),
                        env={"COWVM_TEST_FORGET_MARK": "%x" % place})
    assert differing_units(memory, load(disks, "two", tmp_path / "loaded")) == [place]
