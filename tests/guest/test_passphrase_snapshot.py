"""Snapshots of machines with encrypted disks: nothing of memory is on them in the clear, and
they come back with a secret or a passphrase."""
import mmap
import os
import re

import pytest

import guests
from lib import crypt
from lib.crypt import answer, encrypted
from tools import check_image, cowimg
from vm import Vm

pytestmark = pytest.mark.any_kvm
COUNTS = ["-serial", "null"]            # the counting guest wants a second serial port
NUMBER = r"([0-9A-F]{4})\n"
SECRET = ["-object", "secret,id=s,data=abc123"]
PATTERN = b"cold-boot-remain"


def fills_memory(work):
    """Fills 64 KiB to 512 KiB with a pattern, says so, counts on in memory."""
    return guests.boot_sector(guests.HEAD + """
main:	mov	bx, 0x1000
6:	mov	es, bx
	xor	di, di
7:	mov	si, offset pattern
	mov	cx, 16
	rep	movsb
	test	di, di
	jnz	7b
	add	bx, 0x1000
	cmp	bx, 0x8000
	jb	6b
	mov	si, offset text
	call	puts
""" + guests.HALT + guests.say("filled\r\n") + 'pattern: .ascii "%s"\n' % PATTERN.decode(), work)


def holds(path, pattern):
    with open(path, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as m:
        return m.find(pattern) >= 0


def save_filled(args):
    with Vm(*args) as vm:
        vm.serial.expect("filled")
        assert vm.monitor("savevm full") == ""
        # A second one shares what did not change.
        assert vm.monitor("savevm again") == ""
        assert vm.monitor("loadvm full") == ""
        assert vm.monitor("info status") == "VM status: running"
        check_memory(vm)
        assert vm.quit() == 0


def check_memory(vm):
    for gpa in (0x10000, 0x7FFF0):
        dump = vm.monitor("xp /16xb 0x%x" % gpa)
        got = bytes(int(b, 16) for b in re.findall(r"0x([0-9a-f]{2})\b", dump))
        assert got[-16:] == PATTERN, dump


def test_memory_on_a_plain_disk_would_be_found(tmp_path):
    plain = guests.qcow2_with(tmp_path / "plain.qcow2", fills_memory(tmp_path))
    save_filled(["-hda", plain])
    assert holds(plain, PATTERN * 4)


@pytest.mark.parametrize("kind", ["qcow2-luks", "qcow2-aes"])
def test_no_memory_reaches_an_encrypted_disk_in_the_clear(tmp_path, kind):
    filler = fills_memory(tmp_path)
    disk = encrypted(tmp_path / "a.qcow2", kind, filler)
    save_filled([*SECRET, "-drive", "file=%s,encrypt.key-secret=s" % disk])
    assert not holds(disk, PATTERN)
    crypt.check(kind, disk)
    # In a fresh process: with a secret at once, with a question after cont.
    with Vm(*SECRET, "-drive", "file=%s,encrypt.key-secret=s" % disk, "-loadvm", "again") as vm:
        assert vm.monitor("info status") == "VM status: running"
        check_memory(vm)
        assert vm.quit() == 0
    with Vm("-hda", disk, "-loadvm", "full") as vm:
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        answer(vm, "abc123", name="ide0-hd0 (%s)" % disk)
        assert vm.monitor("info status") == "VM status: running"
        check_memory(vm)
        assert vm.monitor("delvm full") == ""
        assert vm.quit() == 0
    crypt.check(kind, disk)


def test_a_snapshot_that_is_not_there_is_said_at_cont(tmp_path):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", guests.keeps_count(tmp_path))
    with Vm("-hda", disk, "-loadvm", "nosuch", *COUNTS) as vm:
        text = answer(vm, "abc123", name="ide0-hd0 (%s)" % disk)
        assert "Error: Snapshot 'nosuch' does not exist in one or more devices" in text
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        assert vm.monitor("system_reset") == "" and vm.monitor("cont") == ""
        vm.serial.expect(NUMBER)


def test_vm_state_goes_to_the_drive_that_is_encrypted(tmp_path):
    filler = fills_memory(tmp_path)
    plain = guests.qcow2_with(tmp_path / "plain.qcow2", filler)
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", filler)
    save_filled(["-hda", plain, *SECRET, "-drive", "file=%s,encrypt.key-secret=s" % disk])
    assert not holds(plain, PATTERN * 2) and not holds(disk, PATTERN)
    check_image(plain)


def overlay_holds(vm, pattern):
    """Is it in the file that -snapshot has made and that has no name any more?"""
    folder = "/proc/%d/fd" % vm.pid
    found = [f for f in os.listdir(folder)
             if re.search(r"/cowvm-\w{6} \(deleted\)$", os.readlink(os.path.join(folder, f)))]
    assert len(found) == 1
    with open(os.path.join(folder, found[0]), "rb") as f:
        return pattern in f.read()


@pytest.mark.parametrize("kind", ["plain", "qcow2-luks", "qcow2-aes", "luks"])
def test_what_is_thrown_away_is_as_secret_as_the_disk(tmp_path, kind):
    if os.geteuid() != 0:
        pytest.skip("only root may look at the files of a program with secrets")
    filler = fills_memory(tmp_path)
    if kind == "plain":
        drive = ["-hda", guests.qcow2_with(tmp_path / "a.img", filler)]
    else:
        disk = encrypted(tmp_path / "a.img", kind, filler)
        option = "key-secret" if kind == "luks" else "encrypt.key-secret"
        fmt = crypt.KINDS[kind][0]
        drive = [*SECRET, "-drive", "file=%s,format=%s,%s=s" % (disk, fmt, option)]
    before = (tmp_path / "a.img").read_bytes()
    with Vm(*drive, "-snapshot") as vm:
        vm.serial.expect("filled")
        assert vm.monitor("savevm full") == ""
        assert overlay_holds(vm, PATTERN * 4) == (kind == "plain")
        assert vm.monitor("loadvm full") == ""
        check_memory(vm)
        assert vm.quit() == 0
    if kind != "plain":                 # without a secret: its own question, no other
        with Vm("-drive", "file=%s,format=%s" % (disk, fmt), "-snapshot") as vm:
            answer(vm, "abc123", name="ide0-hd0 (%s)" % disk)
            vm.serial.expect("filled")
            assert vm.quit() == 0
    assert (tmp_path / "a.img").read_bytes() == before


@pytest.mark.parametrize("kind", ["qcow2-luks", "qcow2-aes"])
def test_a_disk_that_grew_keeps_old_and_new_snapshots(tmp_path, kind):
    """VM state lies behind the disk: what two snapshots share has to stay readable when
    it moves."""
    disk = encrypted(tmp_path / "a.qcow2", kind, fills_memory(tmp_path))
    with Vm(*SECRET, "-drive", "file=%s,encrypt.key-secret=s" % disk) as vm:
        vm.serial.expect("filled")
        assert vm.monitor("savevm small") == ""
        assert vm.monitor("block_resize ide0-hd0 1G") == ""
        assert vm.monitor("savevm large") == ""
        for name in ("large", "small", "large"):
            assert vm.monitor("loadvm " + name) == ""
            check_memory(vm)
        assert vm.monitor("info status") == "VM status: running"
        assert vm.quit() == 0
    crypt.check(kind, disk)
    cowimg("snapshot", "--verify", *crypt.SECRET, "--image-opts", crypt.opts(kind, disk))
