"""A Debian kernel on the demo guest's disk: the way a user boots a system.

One test boots over IDE: its firmware moves every word by port I/O, which takes a
nested machine minutes."""
import hashlib

import pytest

from tools import DEMO, check_image, file_on_disk, overlay
from vm import Vm

pytestmark = [pytest.mark.full_kvm, pytest.mark.limit(300)]
BOOT = 200                              # seconds until the login prompt, at worst


@pytest.fixture
def disk(tmp_path):
    return overlay(DEMO / "base.qcow2", tmp_path / "disk.qcow2")


def log_in(vm):
    vm.serial.expect("Booting .Debian kernel", BOOT)    # GRUB, on the serial port too
    vm.serial.expect("login: ", BOOT)
    vm.serial.send("root\r")
    vm.serial.expect("# ")


def shell(vm, command, timeout=60):
    """Output of a command in the guest."""
    vm.serial.send(command + "; echo status=$?\r")
    out = vm.serial.expect(r"\nstatus=(\d+)\r", timeout)
    vm.serial.expect("# ")
    return out.replace("\r", "").split("\n", 1)[-1].strip("\n")


DRIVES = {"ide": lambda d: ["-hda", d], "virtio": lambda d: ["-drive", "file=%s,if=virtio" % d]}


@pytest.mark.parametrize("bus", DRIVES)
def test_boots_to_login_writes_a_file_and_powers_off(disk, bus):
    with Vm(*DRIVES[bus](disk), "-smp", "2", memory=256) as vm:
        log_in(vm)
        assert shell(vm, "nproc") == "2"
        device = {"ide": "/dev/sda1", "virtio": "/dev/vda1"}[bus]
        assert device + " / ext4 rw" in shell(vm, "cat /proc/mounts")
        shell(vm, "echo hello from %s >/root/x; sync" % bus)
        shell(vm, "dd if=/dev/urandom of=/root/big bs=64k count=40 2>/dev/null")
        digest = shell(vm, "sync; md5sum /root/big").split()[0]
        shell(vm, "echo %s >/root/sum; sync" % digest)
        assert "VM status: running" in vm.monitor("info status")
        vm.serial.send("poweroff\r")
        vm.serial.expect("Power down", 60)
        assert vm.wait_exit() == 0
    check_image(disk)
    assert file_on_disk(disk, "/root/x") == b"hello from %s\n" % bus.encode()
    assert hashlib.md5(file_on_disk(disk, "/root/big")).hexdigest() == digest


def test_system_powerdown_ends_the_guest_through_acpi(disk):
    with Vm(*DRIVES["virtio"](disk), memory=256) as vm:
        log_in(vm)
        vm.monitor("system_powerdown")
        vm.serial.expect("power button pressed", 60)
        vm.serial.expect("Power down", 60)
        assert vm.wait_exit() == 0
    check_image(disk)


def test_system_reset_boots_the_guest_again(disk):
    with Vm(*DRIVES["virtio"](disk), memory=256) as vm:
        log_in(vm)
        shell(vm, "echo before >/root/reset; sync")
        vm.monitor("system_reset")
        log_in(vm)
        assert shell(vm, "cat /root/reset") == "before"
        vm.serial.send("poweroff\r")
        assert vm.wait_exit(120) == 0
    check_image(disk)


def test_kernel_boots_without_a_disk(tmp_path):
    with Vm("-kernel", DEMO / "vmlinuz", "-initrd", DEMO / "initrd.img", "-append",
            "console=ttyS0 quiet demo.shell", memory=256) as vm:
        vm.serial.expect("demo: initramfs shell on x86_64", BOOT)
        vm.serial.expect("# ")
        vm.serial.send("cat /proc/cmdline\r")
        vm.serial.expect("console=ttyS0 quiet demo.shell")
        vm.serial.send("poweroff -f\r")
        assert vm.wait_exit() == 0
