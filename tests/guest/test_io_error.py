"""Disks that fail under a running guest: werror=, rerror=, and going on by `cont`.

The disk is on an NBD server whose error filter fails as long as a file exists."""
import os
import re
import subprocess
import time


import pytest

import guests
from tools import COWVM, SLOW, cowimg, run
from vm import Vm

pytestmark = pytest.mark.any_kvm
COUNTS = ["-serial", "null"]
NUMBER = r"([0-9A-F]{4})\n"


class Disk:
    """A disk of the counting guest that fails on demand."""

    def __init__(self, tmp_path, what, error, fmt="raw"):
        self.image = tmp_path / "disk.img"
        self.trigger = tmp_path / "fail"
        self.socket = tmp_path / "nbd"
        self.fmt = fmt
        self.what, self.error = what, error
        raw = guests.disk_with(tmp_path / "disk.raw", guests.keeps_count(tmp_path))
        cowimg("convert", "-O", fmt, raw, self.image)
        self.serve()

    def serve(self):
        os.truncate(self.image, 64 << 20)       # over this protocol it cannot grow
        self.server = subprocess.Popen(
            ["nbdkit", "-f", "-U", self.socket, "--filter=error", "file", self.image,
             "error=" + self.error, "error-%s-rate=100%%" % self.what,
             "error-file=%s" % self.trigger], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20 * SLOW
        while not self.socket.exists():
            assert time.monotonic() < end and self.server.poll() is None
            time.sleep(0.02)

    def drive(self, bus, *more):
        return ["-drive", ",".join([
            "driver=" + self.fmt, "file.driver=nbd", "file.server.type=unix",
            "file.server.path=%s" % self.socket, "if=" + bus, *more])]

    def fails(self, on):
        if on:
            self.trigger.touch()
        else:
            self.trigger.unlink()

    def end(self):
        self.server.kill()
        self.server.wait()


@pytest.fixture
def disk(tmp_path):
    made = []

    def make(*args):
        made.append(Disk(tmp_path, *args))
        return made[-1]
    yield make
    for d in made:
        d.end()


def number(vm):
    vm.serial.expect(NUMBER)
    return int(vm.serial.spawn.match.group(1), 16)


def goes_on(vm):
    first = number(vm)
    while number(vm) < first + 3:
        pass
    assert "error" not in vm.serial.text and "torn" not in vm.serial.text


@pytest.mark.parametrize("bus,what,error,option", [
    ("virtio", "pwrite", "ENOSPC", None), ("ide", "pwrite", "EIO", "werror=stop"),
    ("ide", "pread", "EIO", "rerror=stop")])
def test_a_failed_request_stops_the_machine_and_is_tried_again(disk, bus, what, error, option):
    d = disk(what, error)
    with Vm(*d.drive(bus, *([option] if option else [])), *COUNTS) as vm:
        goes_on(vm)
        d.fails(True)
        vm.wait_status("paused (io-error)")
        # It still fails; the log says so after the prompt or, on the same terminal, before.
        assert re.fullmatch(r"(cowvm: warning: .* tries again)?", vm.monitor("cont"))
        vm.wait_status("paused (io-error)")
        d.fails(False)
        assert vm.monitor("cont") == ""
        goes_on(vm)
        assert vm.monitor("info status") == "VM status: running"
        d.fails(True)
        vm.wait_status("paused (io-error)")
        d.fails(False)
        vm.monitor("system_reset")              # nothing is left of it
        vm.monitor("cont")
        goes_on(vm)
        assert vm.quit() == 0


@pytest.mark.parametrize("bus,what,option", [
    ("ide", "pwrite", None), ("virtio", "pwrite", "werror=report"), ("virtio", "pread", None)])
def test_other_errors_are_the_guests(disk, bus, what, option):
    d = disk(what, "EIO")
    with Vm(*d.drive(bus, *([option] if option else [])), *COUNTS) as vm:
        goes_on(vm)
        d.fails(True)
        vm.serial.expect("disk error")
        assert vm.monitor("info status") == "VM status: running"


def test_ignored_writes_are_lost_and_nobody_is_told(disk):
    d = disk("pwrite", "EIO")
    with Vm(*d.drive("virtio", "werror=ignore"), *COUNTS) as vm:
        goes_on(vm)
        d.fails(True)
        vm.serial.expect("torn")                # memory counted on, the disk did not
        assert "error" not in vm.serial.text


@pytest.mark.parametrize("bus", ["ide", "virtio"])
def test_a_waiting_request_is_part_of_a_snapshot(disk, bus):
    d = disk("pread", "EIO", "qcow2")
    with Vm(*d.drive(bus, "rerror=stop"), *COUNTS) as vm:
        goes_on(vm)
        d.fails(True)
        vm.wait_status("paused (io-error)")
        d.fails(False)
        assert vm.monitor("savevm waiting") == ""
        last = int(re.findall(NUMBER, vm.serial.drain(0.2))[-1], 16)
        assert vm.quit() == 0
    with Vm(*d.drive(bus, "rerror=stop"), *COUNTS, "-S") as vm:
        assert vm.monitor("loadvm waiting") == ""
        assert vm.monitor("cont") == ""
        assert last < number(vm) < last + 3
        goes_on(vm)
        assert vm.quit() == 0


def test_a_full_file_system_is_waited_for(tmp_path):
    """A qcow2 image that grows on a file system without space, until there is some."""
    fs = tmp_path / "fs"
    fs.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", fs]).returncode == 0
    if not mounted:
        pytest.skip("needs mount")
    try:
        filler = fs / "filler"
        disk = guests.qcow2_with(fs / "disk.qcow2", guests.copies_sectors(tmp_path, 100, 4000, 64),
                                 {100 * 512: bytes(range(256)) * 128})
        with open(filler, "wb", buffering=0) as f:
            with pytest.raises(OSError):
                while True:
                    f.write(bytes(4096))
        with Vm("-drive", "file=%s,if=virtio" % disk) as vm:
            vm.wait_status("paused (io-error)")
            filler.unlink()
            vm.monitor("cont")
            vm.serial.expect("copied")
            assert vm.wait_exit() == 0
        report = cowimg("check", disk).stdout
        assert "No errors were found" in report
    finally:
        subprocess.run(["umount", "-l", fs])


@pytest.mark.parametrize("option,message", [
    ("werror=foo", "'foo' invalid write error action"),
    ("rerror=foo", "'foo' invalid read error action"),
    ("rerror=enospc", "'enospc' invalid read error action"),
    ("detect-zeroes=foo", "invalid parameter value: foo")])
def test_bad_words_are_refused(tmp_path, option, message):
    disk = guests.disk_with(tmp_path / "d", b"", 1 << 20)
    done = run(COWVM, "-display", "none", "-drive", "file=%s,format=raw,%s" % (disk, option),
               ok=(1,))
    assert done.stdout.endswith(": %s\n" % message)
