"""savevm and loadvm of a Debian kernel that works: two CPUs, ext4 on virtio, kvm-clock,
a writer that never stops."""
import os
import re
import shutil
import subprocess

import pytest

from test_demo import DRIVES, log_in, shell
from tools import DEMO, check_image, cowimg, overlay, qemu_img
from vm import Vm

pytestmark = [pytest.mark.full_kvm, pytest.mark.limit(400)]
BAD = r"soft lockup|hung_task|BUG:|I/O error|EXT4-fs error|Oops|clocksource.*unstable"
# Counts in memory and on disk, and writes and syncs all the time.
WRITER = ("(n=0; while :; do n=$((n+1)); echo $n >/dev/shm/m; mv /dev/shm/m /dev/shm/n; "
          "echo $n >/root/n; "
          "dd if=/dev/urandom of=/root/load bs=64k count=8 conv=fsync 2>/dev/null; done) & ")


@pytest.fixture
def disk(tmp_path):
    return overlay(DEMO / "base.qcow2", tmp_path / "disk.qcow2")


def count(vm):
    """What the writer has got to, in memory."""
    return int(shell(vm, "cat /dev/shm/n"))


def check_guest(vm):
    """It lives, with all CPUs, and its kernel has nothing to complain about."""
    first = count(vm)
    vm.wait_for(lambda: count(vm) > first, 60, lambda: "the writer stands still")
    assert shell(vm, "nproc") == "2"
    assert not re.findall(BAD, shell(vm, "dmesg"))


def file_system_is_clean(disk):
    raw = str(disk) + ".raw"
    qemu_img("convert", "-O", "raw", disk, raw)
    path = os.environ["PATH"] + ":/sbin:/usr/sbin"
    done = subprocess.run([shutil.which("e2fsck", path=path), "-fn", raw + "?offset=1048576"],
                          capture_output=True, text=True)
    os.unlink(raw)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_system_at_work_goes_back_and_forth(disk):
    counts, uptimes = {}, {}
    with Vm(*DRIVES["virtio"](disk), "-smp", "2", memory=192) as vm:
        log_in(vm)
        shell(vm, "mount -t tmpfs none /dev/shm 2>/dev/null; " + WRITER + "sleep 1")
        for n in range(4):
            name = "s%d" % n
            before = count(vm)
            assert "Error" not in vm.monitor("savevm " + name, timeout=120)
            counts[name] = before, count(vm)
            uptimes[name] = float(shell(vm, "cut -d' ' -f1 /proc/uptime"))
        check_guest(vm)
        for name in ("s1", "s3", "s0", "s0", "s2"):
            assert vm.monitor("loadvm " + name, timeout=120) == ""
            vm.serial.send("\r")        # what was typed last is gone, or comes again
            vm.serial.expect("# ")
            vm.serial.drain(0.5)
            assert counts[name][0] <= count(vm)
            assert float(shell(vm, "cut -d' ' -f1 /proc/uptime")) < uptimes[name] + 60
            check_guest(vm)
        assert vm.monitor("info status") == "VM status: running"
        vm.serial.send("kill $!; poweroff\r")
        vm.serial.expect("Power down", 120)
        assert vm.wait_exit() == 0
    check_image(disk)
    cowimg("snapshot", "--verify", disk, timeout=120)
    file_system_is_clean(disk)
    with Vm(*DRIVES["virtio"](disk), "-smp", "2", "-loadvm", "s3", memory=192) as vm:
        vm.serial.send("\r")
        vm.serial.expect("# ")
        vm.serial.drain(0.5)
        assert counts["s3"][0] <= count(vm)
        check_guest(vm)
        vm.serial.send("kill %1; poweroff\r")
        vm.serial.expect("Power down", 120)
        assert vm.wait_exit() == 0
    check_image(disk)
