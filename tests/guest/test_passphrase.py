"""Machines with encrypted disks: passphrases typed at `cont`, given as secrets, kept from
everybody else."""
import os
import re
import signal
import subprocess
import time

import pexpect
import pytest

import guests
from lib import crypt
from lib.crypt import answer, encrypted
from monitor_socket import Socket
from tools import COWVM, SLOW, cowimg, run
from vm import PROMPT, Vm

pytestmark = pytest.mark.any_kvm
COUNTS = ["-serial", "null"]            # the counting guest wants a second serial port
NUMBER = r"([0-9A-F]{4})\n"
SECRET = ["-object", "secret,id=s,data=abc123"]


@pytest.fixture
def counts(tmp_path):
    return guests.keeps_count(tmp_path)


def runs(vm):
    vm.serial.expect(NUMBER)
    vm.serial.expect(NUMBER)
    assert vm.monitor("info status") == "VM status: running"
    assert "error" not in vm.serial.text


@pytest.mark.parametrize("kind,bus", [("qcow2-luks", "ide"), ("qcow2-aes", "virtio"),
                                      ("luks", "ide")])
def test_cont_asks_and_only_then_the_guest_starts(tmp_path, counts, kind, bus):
    disk = encrypted(tmp_path / "a.img", kind, counts)
    fmt = crypt.KINDS[kind][0]
    drive, name = ("if=ide", "ide0-hd0") if bus == "ide" else ("if=virtio", "virtio0")
    name = "%s (%s)" % (name, disk)
    with Vm("-drive", "file=%s,format=%s,%s" % (disk, fmt, drive), *COUNTS) as vm:
        assert name + " is encrypted: type 'cont' to enter its passphrase" in vm.banner
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        block = vm.monitor("info block")
        assert "(%s, encrypted)" % fmt in block and "Locked:           %s" % disk in block
        text = answer(vm, "abc123", name=name)
        assert "abc123" not in text and "******\n" in text
        runs(vm)
        block = vm.monitor("info block")
        assert "(%s, encrypted)" % fmt in block and "Locked:" not in block
        assert vm.quit() == 0
    crypt.check(kind, disk)


def test_wrong_passphrases_are_said_and_asked_again(tmp_path, counts):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    name = "ide0-hd0 (%s)" % disk
    wrong = "Invalid password, cannot unlock any keyslot"
    with Vm("-hda", disk, *COUNTS) as vm:
        text = answer(vm, "one", "", "three", name=name)
        assert text.count(wrong) == 3 and text.endswith("Error: %s\n" % wrong)
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        vm.spawn.send("c\r")                            # the short name; and a change of mind
        vm.spawn.expect("Password: ")
        vm.spawn.send("abc\x03")
        vm.spawn.expect(re.escape("Error: %s is still encrypted" % name))
        vm.spawn.expect(PROMPT)
        # A slip of the finger, put right as one does.
        vm.spawn.send("cont\r")
        vm.spawn.expect("Password: ")
        vm.spawn.send("zz\x15abx\x7fc124\x7f3\r")
        vm.spawn.expect(PROMPT)
        runs(vm)
        assert vm.quit() == 0


def test_a_wrong_key_of_legacy_encryption_is_warned_about(tmp_path, counts):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-aes", counts)
    with Vm("-hda", disk, *COUNTS) as vm:
        text = answer(vm, "wrong", name="ide0-hd0 (%s)" % disk)
        assert "nothing known at the start of the decrypted disk: is the passphrase right?" in text
        assert vm.monitor("info status") == "VM status: running"


def test_one_cont_asks_for_every_image_of_every_chain(tmp_path, counts):
    base = encrypted(tmp_path / "base.qcow2", "qcow2-aes", counts, "first")
    top, other = tmp_path / "top.qcow2", tmp_path / "other.img"
    cowimg("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=second", "-b", base, "-F",
           "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", top)
    encrypted(other, "luks", counts, "third")
    with Vm("-hda", top, "-drive", "file=%s,if=virtio,format=luks" % other, *COUNTS) as vm:
        assert vm.banner.count("is encrypted: type 'cont'") == 2
        vm.spawn.send("cont\r")
        for image, passphrase in (("ide0-hd0 (%s)" % top, "second"),
                                  ("ide0-hd0 (%s)" % base, "first"),
                                  ("virtio0 (%s)" % other, "third")):
            vm.spawn.expect(re.escape(image) + r" is encrypted\.\s+Password: ")
            vm.spawn.send(passphrase + "\r")
        vm.spawn.expect(PROMPT)
        runs(vm)
        assert vm.quit() == 0


def test_secrets_need_no_question(tmp_path, counts):
    base = encrypted(tmp_path / "base.img", "luks", counts)
    top = tmp_path / "top.qcow2"
    cowimg("create", "-q", "-f", "qcow2", "-b", base, "-F", "luks", top)
    key = tmp_path / "key"
    key.write_text("abc123")
    with Vm("-object", "secret,id=s,file=%s" % key,
            "-drive", "file=%s,backing.key-secret=s" % top, *COUNTS) as vm:
        assert "encrypted" not in vm.banner
        runs(vm)
        assert "(qcow2)" in vm.monitor("info block")
        assert vm.quit() == 0
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    config = tmp_path / "pc.cfg"
    config.write_text('[object "s"]\nqom-type = "secret"\ndata = "abc123"\n[drive]\nfile = "%s"\n'
                      'encrypt.format = "luks"\nencrypt.key-secret = "s"\n' % disk)
    with Vm("-readconfig", config, *COUNTS) as vm:
        runs(vm)
        assert vm.quit() == 0


REFUSED = [
    (["-object", "secret,id=s,data=wrong", "-drive", "file=DISK,encrypt.key-secret=s"],
     "Invalid password, cannot unlock any keyslot"),
    (["-drive", "file=DISK,encrypt.key-secret=t"], "No secret with id 't'"),
    (SECRET + ["-drive", "file=DISK,encrypt.format=aes,encrypt.key-secret=s"],
     "Header reported 'luks' encryption format but options specify 'aes'"),
    (["-drive", "file=DISK,foo=bar"], "Block format 'qcow2' does not support the option 'foo'"),
    (["-object", "secret,id=hush,data=topsecret,format=x"], "'x'"),
]


@pytest.mark.parametrize("args,message", REFUSED)
def test_bad_options_are_refused_in_a_line_without_the_passphrase(tmp_path, counts, args, message):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    done = run(COWVM, "-display", "none", *[a.replace("DISK", str(disk)) for a in args], ok=(1,))
    assert message in done.stdout and done.stdout.count("\n") == 1
    for passphrase in ("wrong", "topsecret", "abc123"):
        assert passphrase not in done.stdout.replace("Wrong", "")


def test_asks_on_a_socket_too_and_shows_nothing_there(tmp_path, counts):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    path = tmp_path / "mon"
    vm = subprocess.Popen([COWVM, "-m", "16", "-display", "none", "-net", "none", "-hda", disk,
                           "-monitor", "unix:%s,server,nowait" % path],
                          stderr=subprocess.PIPE, text=True)
    try:
        line = "ide0-hd0 (%s) is encrypted: type 'cont' to enter its passphrase" % disk
        assert vm.stderr.readline() == line + "\n"
        first, second = Socket(path), Socket(path)
        assert line in first.until("(cowvm) ")
        first.send("cont\n")
        first.until("Password: ")
        first.conn.close()                      # goes away with the question
        second.until("(cowvm) ")
        second.send("cont\nabc123\ninfo status\n")     # as scripts do
        assert "running" in second.until("VM status: running")
        assert "abc123" not in second.text and "*" not in second.text
        second.send("quit\n")
        assert vm.wait(30 * SLOW) == 0
    finally:
        vm.kill()
        vm.wait()


def test_nobody_waits_while_a_passphrase_is_tried(tmp_path):
    """Whoever made the disk wanted that to take two seconds."""
    disk, path = tmp_path / "a.qcow2", tmp_path / "mon"
    cowimg("create", "-q", "-f", "qcow2", *crypt.SECRET, "-o",
           "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=2000", disk, "16M")
    with Vm("-hda", disk, "-S", "-monitor", "unix:%s,server,nowait" % path) as vm:
        other = Socket(path)
        other.until("(cowvm) ")
        vm.spawn.send("block_passwd ide0-hd0\r")
        vm.spawn.expect("Password: ")
        vm.spawn.send("wrong\r")
        other.send("info status\n")
        other.until("VM status: paused (prelaunch)")
        other.send("block_passwd ide0-hd0 abc123\n")
        other.until("Another passphrase is being tried")
        vm.spawn.expect("Invalid password, cannot unlock any keyslot")
        vm.spawn.expect("Password: ")
        vm.spawn.send("abc123\r")
        vm.spawn.expect(PROMPT)
        assert "Locked:" not in vm.monitor("info block")
        assert vm.quit() == 0


def test_nothing_touches_a_locked_disk(tmp_path, counts):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    plain = guests.qcow2_with(tmp_path / "top.qcow2", counts)
    before = disk.read_bytes()
    with Vm("-hda", disk, "-hdb", plain, "-S") as vm:
        refused = "Error: ide0-hd0 (%s) is encrypted: type 'cont' to enter its passphrase" % disk
        for command in ("savevm x", "savevm -d x", "loadvm x", "delvm x",
                        "snapshot_blkdev ide0-hd0 %s qcow2" % (tmp_path / "over.qcow2"),
                        "snapshot_blkdev_internal ide0-hd0 x"):
            assert vm.monitor(command) == refused
        assert vm.monitor("info snapshots") == "There is no snapshot available."
        assert vm.monitor("system_reset") == ""
        # The IDE ports of PIIX3 on, READ SECTORS, LBA 0: all by hand, as nothing else runs.
        for address, value in ((0x80000904, 1), (0x80000940, 0x80008000)):
            assert vm.monitor("o /w 0xcf8 0x%x" % address) == ""
            assert vm.monitor("o /w 0xcfc 0x%x" % value) == ""
        for port, value in ((0x1F2, 1), (0x1F3, 0), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0),
                            (0x1F7, 0x20)):
            assert vm.monitor("o /b 0x%x 0x%x" % (port, value)) == ""
        vm.wait_for(lambda: int(vm.monitor("i /b 0x1f7").split("=")[1], 16) & 0x89 == 1, 20,
                    lambda: vm.monitor("i /b 0x1f7"))   # an error, no data
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        assert vm.quit() == 0
    assert disk.read_bytes() == before


def test_block_passwd_unlocks_without_starting(tmp_path, counts):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    with Vm("-hda", disk, *COUNTS) as vm:
        assert vm.monitor("block_passwd nosuch x") == "Error: Device 'nosuch' not found"
        assert "Invalid password" in vm.monitor("block_passwd ide0-hd0 x")
        answer(vm, "abc123", name="ide0-hd0 (%s)" % disk, command="block_passwd ide0-hd0")
        assert vm.monitor("block_passwd ide0-hd0 x") == "Error: Device 'ide0-hd0' is not locked"
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        assert "block_passwd" not in vm.monitor("info history")
        assert vm.monitor("cont") == ""
        runs(vm)


# --- who else may see it -----------------------------------------------------------------


def memory_of(pid):
    with open("/proc/%d/maps" % pid) as f:
        maps = [line.split() for line in f]
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as mem:
        for m in maps:
            start, end = (int(x, 16) for x in m[0].split("-"))
            if "r" not in m[1] or m[-1].startswith(("[v", "anon_inode")) or end - start > 1 << 28:
                continue
            try:
                mem.seek(start)
                yield mem.read(end - start)
            except OSError:
                pass


def test_typed_passphrases_are_nowhere_in_memory_afterwards(tmp_path, counts):
    phrase = "Xylophone-%d-Quartz" % os.getpid()
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts, phrase)
    log = tmp_path / "log"
    with Vm("-hda", disk, "-D", log, *COUNTS) as vm:
        answer(vm, "Zebra" + phrase, phrase, name="ide0-hd0 (%s)" % disk)
        runs(vm)
        if os.geteuid() == 0:                   # others cannot look at all
            assert any(b"SeaBIOS" in part for part in memory_of(vm.pid))
            for part in memory_of(vm.pid):
                assert phrase.encode() not in part
        else:
            with pytest.raises(PermissionError):
                open("/proc/%d/mem" % vm.pid, "rb")
        assert phrase not in log.read_text()


def test_secrets_are_not_in_the_arguments_nor_in_a_core_dump(tmp_path, counts):
    disk = encrypted(tmp_path / "a.qcow2", "qcow2-luks", counts)
    os.chdir(tmp_path)
    with Vm(*SECRET, "-drive", "file=%s,encrypt.key-secret=s" % disk, *COUNTS) as vm:
        with open("/proc/%d/cmdline" % vm.pid, "rb") as f:
            words = f.read().split(b"\0")
        assert b"secret,id=s,data=xxxxxx" in words
        assert not any(b"abc123" in w for w in words)
        runs(vm)
        # Its keys lie in pages that are marked: not to be dumped.
        with open("/proc/%d/smaps" % vm.pid) as f:
            assert re.search(r"^VmFlags:.* dd", f.read(), re.M)
        subprocess.run(["prlimit", "--core=unlimited", "--pid", str(vm.pid)], check=True)
        os.kill(vm.pid, signal.SIGABRT)
        vm.spawn.expect(pexpect.EOF)
        vm.spawn.wait()
        assert vm.spawn.signalstatus == signal.SIGABRT
        assert not os.WCOREDUMP(vm.spawn.status)
