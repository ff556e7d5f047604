"""savevm and loadvm: a guest that counts in memory, on disk and in a device's register
goes back and forth, in one process and from one to the next."""
import os
import re
import subprocess

import pytest

import guests
from beat import Beat
from counting import NUMBER, SECOND_PORT, landed, number
from tools import COWIMG, COWVM, check_image, cowimg, qemu_img
from vm import Vm

pytestmark = pytest.mark.any_kvm
FAR = 100


@pytest.fixture
def disk(tmp_path):
    return guests.qcow2_with(tmp_path / "disk.qcow2", guests.keeps_count(tmp_path))


DRIVES = {"ide": lambda d: ["-hda", d], "virtio": lambda d: ["-drive", "file=%s,if=virtio" % d]}


def count_to(vm, least):
    while number(vm) < least:
        pass


def first_number(vm):
    """Of a machine that has just begun to speak."""
    vm.serial.expect(NUMBER)
    return int(vm.serial.spawn.match.group(1), 16)


def save(vm, name):
    """Take a snapshot: a number from before and one from after it."""
    before = number(vm)
    said = vm.monitor("savevm " + name)
    assert said == "" or re.fullmatch(r"cowvm: info: savevm: userfaultfd: .*", said)
    return before, number(vm)


def load(vm, name, saved):
    """Go back, or forth, to a snapshot that was taken between these two numbers."""
    start = len(vm.serial.text)
    said = vm.monitor("loadvm " + name)
    assert said == "" or re.fullmatch(r"cowvm: warning: loadvm: userfaultfd: .*", said)
    assert saved[0] <= landed(vm, start) <= saved[1] + 3


def check_guest(vm):
    count_to(vm, number(vm) + 3)
    assert "torn" not in vm.serial.text and "error" not in vm.serial.text


@pytest.mark.parametrize("bus", DRIVES)
def test_goes_back_and_forth_while_running(disk, bus):
    with Vm(*DRIVES[bus](disk), *SECOND_PORT) as vm:
        assert vm.monitor("info snapshots") == "There is no snapshot available."
        one = save(vm, "one")
        count_to(vm, one[1] + FAR)
        two = save(vm, "two")
        count_to(vm, two[1] + FAR)
        for saved, name in ((one, "one"), (two, "two"), (two, "two"), (one, "one")):
            load(vm, name, saved)
            check_guest(vm)
        assert vm.monitor("info status") == "VM status: running"
        listed = vm.monitor("info snapshots").split("\n")
        assert listed[0] == "List of snapshots present on all disks:"
        assert listed[1] == ("ID        TAG               VM SIZE                DATE     "
                             "VM CLOCK     ICOUNT")
        assert re.match(r"--        one  +[\d.]+ MiB 20\d\d-", listed[2])
        assert [row.split()[1] for row in listed[2:]] == ["one", "two"]
        assert vm.quit() == 0
    check_image(disk)


def test_goes_on_in_a_fresh_process(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        before = number(vm)
        vm.monitor("stop")
        assert vm.monitor("savevm here") == ""
        assert vm.monitor("info status") == "VM status: paused"
        vm.monitor("cont")
        after = number(vm)
        count_to(vm, after + FAR)
        assert vm.quit() == 0
    check_image(disk)
    with Vm("-hda", disk, *SECOND_PORT, "-loadvm", "here") as vm:
        assert vm.monitor("info status") == "VM status: running"
        assert before <= first_number(vm) <= after + 1
        check_guest(vm)
        assert vm.quit() == 0
    with Vm("-hda", disk, *SECOND_PORT, "-S") as vm:
        assert vm.monitor("loadvm here") == ""
        assert vm.monitor("info status") == "VM status: paused"
        vm.monitor("cont")
        check_guest(vm)
        assert vm.quit() == 0
    check_image(disk)


def test_another_machine_is_refused_with_the_differences(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        count_to(vm, 3)
        assert vm.monitor("savevm here") == ""
        assert vm.quit() == 0
    with Vm("-hda", disk, *SECOND_PORT, "-smp", "2", memory=65) as vm:
        count_to(vm, 3)
        text = vm.monitor("loadvm here")
        assert "saved: cpus = 1" in text and "now: cpus = 2" in text
        assert "saved: memory pc.ram: %d bytes" % (64 << 20) in text
        assert text.endswith("Error: Snapshot 'here' is of a machine that differs from this one")
        check_guest(vm)                 # it goes on as if nothing had been asked
        assert vm.quit() == 0


def test_words_of_the_reference(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        count_to(vm, 3)
        assert vm.monitor("loadvm nosuch") == (
            "Error: Snapshot 'nosuch' does not exist in one or more devices")
        assert vm.monitor("delvm nosuch") == (
            "Error: Snapshot 'nosuch' does not exist in one or more devices")
        assert vm.monitor("loadvm") == (
            "loadvm: string expected\nTry \"help loadvm\" for more information")
        assert vm.monitor("savevm") == ""
        assert re.search(r"-- +vm-20\d{12} ", vm.monitor("info snapshots"))
        assert vm.monitor("savevm a") == ""
        assert vm.monitor("savevm a") == ""     # the same tag: replaced
        assert vm.monitor("info snapshots").count(" a ") == 1
        assert vm.monitor("delvm a") == ""
        assert " a " not in vm.monitor("info snapshots")
        assert vm.monitor("snapshot_cancel") == "Error: no snapshot is being taken"
        check_guest(vm)
        assert vm.quit() == 0
    check_image(disk)


def test_drives_that_throw_their_writes_away_have_snapshots_while_they_live(disk):
    before = disk.read_bytes()
    with Vm("-hda", disk, *SECOND_PORT, "-snapshot") as vm:
        saved = save(vm, "one")
        count_to(vm, saved[1] + FAR)
        load(vm, "one", saved)
        check_guest(vm)
        assert vm.quit() == 0
    assert disk.read_bytes() == before


def test_a_writable_raw_disk_is_refused(tmp_path):
    raw = guests.disk_with(tmp_path / "disk.raw", guests.keeps_count(tmp_path))
    with Vm("-drive", "file=%s,format=raw,if=virtio" % raw, *SECOND_PORT) as vm:
        count_to(vm, 3)
        assert vm.monitor("savevm x") == (
            "Error: Device 'virtio0' is writable but does not support snapshots")
        check_guest(vm)


def test_the_next_snapshot_costs_what_changed(disk):
    with Vm("-hda", disk, *SECOND_PORT, memory=256) as vm:
        count_to(vm, 3)
        assert vm.monitor("savevm one") == ""
        size = disk.stat().st_size
        assert vm.monitor("savevm two") == ""
        assert disk.stat().st_size - size < 2 << 20
        assert re.search(r"Last one: guest stood still for \d+ us, \d+ ms in all, \d+ bytes",
                         vm.monitor("info snapshot-job"))
        vm.monitor("loadvm one")
        check_guest(vm)
        vm.monitor("loadvm two")
        check_guest(vm)
        assert vm.quit() == 0
    check_image(disk)
    listed = subprocess.run(["qemu-img", "snapshot", "-l", disk], capture_output=True, text=True)
    assert [row.split()[1] for row in listed.stdout.split("\n")[2:4]] == ["one", "two"]
    ours = subprocess.run([COWIMG, "snapshot", "-l", disk], capture_output=True, text=True)
    assert ours.stdout == listed.stdout


def page_tables(vm):
    """KiB of them."""
    with open("/proc/%d/status" % vm.pid) as f:
        return int(re.search(r"^VmPTE:\s+(\d+) kB", f.read(), re.M).group(1))


def test_memory_that_nobody_touched_costs_nothing(disk):
    with Vm("-hda", disk, *SECOND_PORT, memory=2048) as vm:
        count_to(vm, 3)
        before = page_tables(vm)
        saved = save(vm, "one")
        assert disk.stat().st_size < 16 << 20
        count_to(vm, saved[1] + FAR)
        assert vm.monitor("loadvm one") == ""
        check_guest(vm)
        assert page_tables(vm) < before + 1024         # it would take 4 MiB
        assert vm.quit() == 0
    cowimg("snapshot", "--verify", disk)


def test_a_raw_disk_is_taken_along_under_an_overlay(tmp_path):
    raw = guests.disk_with(tmp_path / "disk.raw", guests.keeps_count(tmp_path))
    drive = "file=%s,format=%s,if=virtio"
    with Vm("-drive", drive % (raw, "raw"), *SECOND_PORT) as vm:
        before = number(vm)
        said = vm.monitor("savevm -x one")
        assert said.startswith("Formatting '%s', fmt=qcow2 " % (tmp_path / "disk-one.qcow2"))
        after = number(vm)
        count_to(vm, after + FAR)
        assert vm.monitor("savevm -x two") == ""        # there is one already
        load(vm, "one", (before, after))
        check_guest(vm)
        assert vm.monitor("savevm -x three/four") == ""     # no file is made for it
        assert vm.quit() == 0
    check_image(tmp_path / "disk-one.qcow2")
    content = raw.read_bytes()
    with Vm("-drive", drive % (tmp_path / "disk-one.qcow2", "qcow2"), *SECOND_PORT, "-loadvm",
            "two") as vm:
        assert number(vm) >= after
        check_guest(vm)
        assert vm.quit() == 0
    assert raw.read_bytes() == content


def flip_in_vm_state(disk, what):
    """Turn one bit of the VM state: of its header, or of a unit of memory."""
    data = bytearray(disk.read_bytes())
    if what == "header":
        at = data.index(b"cowvm-vm") + 100
    else:                               # the boot sector where it lies in memory
        at = next(m.start() for m in re.finditer(b"torn\r\n", data)
                  if 0x7C00 <= m.start() % 65536 < 0x7E00)
    data[at] ^= 4
    disk.write_bytes(data)


def test_a_damaged_header_is_refused_and_the_guest_goes_on(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        count_to(vm, 3)
        assert vm.monitor("savevm here") == ""
        assert vm.quit() == 0
    flip_in_vm_state(disk, "header")
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        count_to(vm, 3)
        assert vm.monitor("loadvm here") == (
            "Error: snapshot 'here': the header of the VM state is damaged")
        assert vm.monitor("info status") == "VM status: running"
        check_guest(vm)
        assert vm.quit() == 0


def test_damaged_memory_stops_the_guest_before_it_sees_it(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        count_to(vm, 3)
        assert vm.monitor("savevm here") == ""
        assert vm.quit() == 0
    flip_in_vm_state(disk, "memory")
    with Vm("-hda", disk, *SECOND_PORT, "-S") as vm:
        vm.monitor("loadvm here")
        vm.monitor("cont")
        vm.wait_status("paused (io-error)")
        assert "Guest memory is not whole" in vm.monitor("cont")
        vm.monitor("system_reset")
        vm.monitor("cont")
        check_guest(vm)
        assert vm.quit() == 0


def wait_cancelled(vm):
    """Its words come at any time before its end, with a prompt of their own."""
    def ended():
        vm.into_step()
        vm.spawn.send("info snapshot-job\r")
        return vm.spawn.expect(["No snapshot is being taken", r"Snapshot '\w+': "]) == 0
    vm.wait_for(ended, 60, lambda: "the snapshot is not cancelled")
    vm.into_step()


def test_comes_back_while_memory_still_comes_in(tmp_path):
    """A load, and a save, begin before the load before them has all the memory."""
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, "16M")
    beat = Beat(tmp_path, rate=20)
    with Vm(*beat.arguments(), "-hda", disk, serial=False, memory=160) as vm:
        beat.wait(5)
        assert "Error" not in vm.monitor("savevm one")
        for _ in range(5):
            assert vm.monitor("loadvm one") == ""
        assert "Error" not in vm.monitor("savevm two")
        for name in ("one", "two", "one"):
            assert vm.monitor("loadvm " + name) == ""
        # The monitor does not wait for that, and neither does who changes his mind.
        assert vm.monitor("savevm -d three") == ""
        assert re.search(r"^Snapshot 'three': |No snapshot is being taken",
                         vm.monitor("info snapshot-job"))
        assert vm.monitor("snapshot_cancel") in (
            "", "cowvm: snapshot 'three': cancelled", "Error: no snapshot is being taken")
        wait_cancelled(vm)
        assert vm.monitor("savevm -d four") == ""
        vm.wait_for(lambda: "No snapshot" in vm.monitor("info snapshot-job"), 60,
                    lambda: vm.monitor("info snapshot-job"))
        beat.wait(5)
        assert vm.monitor("loadvm two") == ""
        assert vm.quit() == 0           # in the middle of it
    beat.close()
    check_image(disk)


def without_userfaultfd(work):
    """A program that starts cowvm as on a host that lets nobody have userfaultfd."""
    if os.getuid() != 0:
        return COWVM                    # this is such a host
    script = work / "cowvm"
    script.write_text("""#!/bin/sh
if [ -e /dev/userfaultfd ] && [ -z "$HIDDEN" ]; then
	HIDDEN=yes exec unshare -m "$0" "$@"
fi
[ -z "$HIDDEN" ] || mount --bind /dev/null /dev/userfaultfd || exit 9
exec setpriv --bounding-set=-sys_ptrace,-sys_admin --inh-caps=-all %s "$@"
""" % COWVM)
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize("rate", [0, 20, 400])
def test_without_userfaultfd_memory_is_saved_in_passes(tmp_path, rate):
    disk = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", disk, "16M")
    beat = Beat(tmp_path, rate=rate)
    program = without_userfaultfd(tmp_path)
    with Vm(*beat.arguments(), "-hda", disk, serial=False, memory=128, program=program) as vm:
        beat.wait(5)
        for name in ("one", "two"):
            assert "Error" not in vm.monitor("savevm " + name)
            assert "in passes: no userfaultfd" in vm.monitor("info snapshot-job")
        for name in ("one", "two", "one"):
            assert "Error" not in vm.monitor("loadvm " + name)
            beat.wait(5)
        assert vm.quit() == 0
    beat.close()
    check_image(disk)
    cowimg("snapshot", "--verify", disk)


def test_a_set_saved_in_passes_is_one_moment(tmp_path, disk):
    program = without_userfaultfd(tmp_path)
    with Vm("-hda", disk, *SECOND_PORT, program=program) as vm:
        one = save(vm, "one")
        two = save(vm, "two")
        for saved, name in ((one, "one"), (two, "two")):
            load(vm, name, saved)
            check_guest(vm)
        assert vm.quit() == 0
    check_image(disk)
