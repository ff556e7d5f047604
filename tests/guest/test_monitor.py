"""The monitor of a running machine: what each command shows, and the shared terminal."""
import re

import pexpect
import pytest

import guests
from tools import COWVM, SLOW, cowimg
from vm import PROMPT, Vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture(scope="module")
def vm(tmp_path_factory):
    """One machine for all that only looks: two CPUs, an IDE disk on a backing image,
    a virtio disk; its boot sector has run and halts."""
    folder = tmp_path_factory.mktemp("monitor")
    guests.qcow2_with(folder / "base.qcow2", guests.hello(folder))
    cowimg("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", folder / "disk.qcow2")
    blank = guests.disk_with(folder / "blank.raw", b"")
    with Vm("-smp", "2", "-name", "looked at", "-uuid", "12345678-9abc-def0-0123-456789abcdef",
            "-hda", folder / "disk.qcow2",
            "-drive", "file=%s,format=raw,if=virtio" % blank) as machine:
        machine.serial.expect("boot sector runs")
        yield machine
        assert machine.quit() == 0


@pytest.mark.parametrize("command, pattern", [
    ("info status", r"VM status: running"),
    ("info name", r"looked at"),
    ("info uuid", r"12345678-9abc-def0-0123-456789abcdef"),
    ("info kvm", r"kvm support: enabled"),
    ("info cpus", r"\* CPU #0: thread_id=\d+\n  CPU #1: thread_id=\d+"),
    ("info version", r"\d+\.\d+"),
    ("foo", r"unknown command: 'foo'"),
    ("info foo", r"unknown command: 'info foo'"),
    ("info block nosuch", r"Error: Device 'nosuch' not found"),
])
def test_short_answers(vm, command, pattern):
    assert re.fullmatch(pattern, vm.monitor(command))


def test_info_block_shows_drives_and_their_chains(vm):
    text = vm.monitor("info block")
    assert re.search(r"^ide0-hd0 \(#block\d+\): .*disk\.qcow2 \(qcow2\)$", text, re.M)
    assert re.search(r"^    Attached to:      ide0-hd0$", text, re.M)
    assert re.search(r"^    Cache mode:       writeback$", text, re.M)
    assert re.search(r"^    Backing file:     .*base\.qcow2 \(chain depth: 1\)$", text, re.M)
    assert re.search(r"^virtio0 \(#block\d+\): .*blank\.raw \(raw\)$", text, re.M)
    assert re.search(r"^ide1-cd0: \[not inserted\]$", text, re.M)
    assert re.search(r"^    Removable device: not locked, tray closed$", text, re.M)
    assert "virtio0" not in vm.monitor("info block ide0-hd0")


def test_info_blockstats_counts_what_the_firmware_read(vm):
    line = [s for s in vm.monitor("info blockstats").split("\n") if s.startswith("ide0-hd0: ")][0]
    words = dict(w.split("=") for w in line.split()[1:])
    assert int(words["rd_bytes"]) >= 512 and int(words["rd_operations"]) >= 1
    assert words["wr_bytes"] == "0"


def test_info_registers_shows_a_halted_real_mode_cpu(vm):
    text = vm.monitor("info registers")
    assert text.lstrip().startswith("CPU#0\nEAX=")
    assert re.search(r"^EIP=0000[0-9a-f]{4} EFL=[0-9a-f]{8} \[.{7}\] CPL=0 II=\d A20=1 SMM=0 "
                     r"HLT=\d$", text, re.M)
    assert re.search(r"^CS =(0000 00000000|f000 000f0000) [0-9a-f]{8} [0-9a-f]{8}", text, re.M)
    assert re.search(r"^CR0=[0-9a-f]{8} CR2=[0-9a-f]{8} CR3=[0-9a-f]{8} CR4=[0-9a-f]{8}$", text,
                     re.M)
    assert "XMM00=" in text
    every = vm.monitor("info registers -a")
    assert "CPU#0\n" in every and "CPU#1\n" in every


def test_info_pci_shows_the_board(vm):
    text = vm.monitor("info pci")
    for line in ("  Bus  0, device   0, function 0:\n    Host bridge: PCI device 8086:1237\n",
                 "  Bus  0, device   1, function 0:\n    ISA bridge: PCI device 8086:7000\n",
                 "  Bus  0, device   1, function 1:\n    IDE controller: PCI device 8086:7010\n",
                 "  Bus  0, device   1, function 3:\n    Bridge: PCI device 8086:7113\n",
                 "  Bus  0, device   2, function 0:\n    VGA controller: PCI device 1234:1111\n",
                 "    SCSI controller: PCI device 1af4:1001\n"):
        assert line in text
    assert re.search(r"BAR4: I/O at 0x[0-9a-f]{4} \[0x[0-9a-f]{4}\]\.", text)


def test_trees_name_memory_ports_and_devices(vm):
    tree = vm.monitor("info mtree")
    assert re.search(r"0{16}-0{11}9ffff \(prio 0, ram\): alias ram-below-640k", tree)
    assert re.search(r"0{8}fffc0000-0{8}ffffffff \(prio 0, rom\): bios", tree)
    assert re.search(r"0{13}3f8-0{13}3ff \(prio 0, i/o\): isa-serial", tree)
    tree = vm.monitor("info qtree")
    assert 'dev: ide-hd, id "ide0-hd0"' in tree and 'drive = "ide0-hd0"' in tree
    assert 'class SCSI controller, addr 00:03.0, pci id 1af4:1001 (sub 1af4:0002)' in tree
    assert re.search(r"^ *\d+: \d+$", vm.monitor("info irq"), re.M)
    assert "compat_monitor0: filename=stdio" in vm.monitor("info chardev")


def test_memory_and_ports_can_be_read(vm):
    assert re.search(r"aa55", vm.monitor("xp /1xh 0x7dfe"))
    assert re.search(r"aa55", vm.monitor("x /1xh 0x7dfe"))
    vm.monitor("o /b 0x3ff 0x5a")               # the serial port's scratch register
    assert "0x5a" in vm.monitor("i /b 0x3ff")
    assert "0x1237" in vm.monitor("o /w 0xcf8 0x80000000") + vm.monitor("i /h 0xcfe")


def test_looking_does_not_change_the_state(vm):
    vm.monitor("info registers")
    vm.monitor("xp /1xb 0")
    assert vm.monitor("info status") == "VM status: running"


def test_terminal_is_shared_by_serial_port_and_monitor(tmp_path):
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.hello(tmp_path))
    child = pexpect.spawn(COWVM, ["-enable-kvm", "-m", "64", "-nographic", "-hda", str(disk)],
                          timeout=60 * SLOW, encoding="utf-8", codec_errors="replace")
    try:
        child.expect("boot sector runs")
        child.send("\x01c")
        child.expect(PROMPT)
        child.send("info status\r")
        child.expect("VM status: running")
        child.expect(PROMPT)
        child.send("\x01c")
        child.send("\x01x")
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
