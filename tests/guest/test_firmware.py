"""SeaBIOS and what it boots: own boot sectors from every bus, GRUB's rescue CD.
All of it real mode or flat 32-bit code: any KVM runs it, but for what is marked."""
import os
import re

import pytest

import guests
from tools import check_image, read_disk
from vm import Vm

pytestmark = pytest.mark.any_kvm
RESCUE_CD = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso"


def drive(bus, path, fmt="qcow2"):
    return {
        "ide": ["-drive", "file=%s,format=%s,if=ide" % (path, fmt)],
        "hda": ["-hda", path],
        "virtio": ["-drive", "file=%s,format=%s,if=virtio" % (path, fmt)],
        "virtio-device": ["-drive", "file=%s,format=%s,if=none,id=d0" % (path, fmt),
                          "-device", "virtio-blk-pci,drive=d0"],
        "virtio-modern": ["-drive", "file=%s,format=%s,if=none,id=d0" % (path, fmt),
                          "-device", "virtio-blk-pci,drive=d0,disable-legacy=on"],
    }[bus]


BUSES = ["ide", "hda", "virtio", "virtio-device", "virtio-modern"]


def test_seabios_says_who_it_is():
    with Vm() as vm:
        vm.wait_bios("SeaBIOS (version ")
        vm.wait_bios("No bootable device.")
        vm.wait_screen(r"SeaBIOS \(version")
        assert vm.quit() == 0


@pytest.mark.parametrize("bus", BUSES)
def test_boots_a_boot_sector(tmp_path, bus):
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.hello(tmp_path))
    with Vm(*drive(bus, disk)) as vm:
        vm.serial.expect("boot sector runs")
        assert "VM status: running" in vm.monitor("info status")
        assert vm.quit() == 0


def test_boots_a_boot_sector_from_a_raw_disk(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.hello(tmp_path))
    with Vm(*drive("ide", disk, "raw")) as vm:
        vm.serial.expect("boot sector runs")


def test_boots_from_a_cd(tmp_path):
    cd = guests.bootable_cd(tmp_path, guests.hello(tmp_path, "from the CD"))
    with Vm("-cdrom", cd) as vm:
        vm.serial.expect("from the CD")


def test_boot_order_prefers_the_cd_when_told(tmp_path):
    cd = guests.bootable_cd(tmp_path, guests.hello(tmp_path, "from the CD"))
    disk = guests.disk_with(tmp_path / "disk.raw", guests.hello(tmp_path, "from the disk"))
    with Vm(*drive("ide", disk, "raw"), "-cdrom", cd, "-boot", "d") as vm:
        vm.serial.expect("from the (CD|disk)")
        assert "from the CD" in vm.serial.text
    with Vm(*drive("ide", disk, "raw"), "-cdrom", cd, "-boot", "c") as vm:
        vm.serial.expect("from the (CD|disk)")
        assert "from the disk" in vm.serial.text


@pytest.mark.parametrize("bus", ["ide", "virtio"])
def test_int13_reads_and_writes_reach_the_qcow2(tmp_path, bus):
    pattern = os.urandom(64 * 512)
    sector = guests.copies_sectors(tmp_path, source=300, target=5000, count=64)
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", sector, {300 * 512: pattern})
    with Vm(*drive(bus, disk)) as vm:
        vm.serial.expect("(copied|disk error)")
        assert "copied" in vm.serial.text
        assert vm.wait_exit() == 0
    check_image(disk)
    assert read_disk(disk, 5000 * 512, 64 * 512) == bytes(b ^ 0xFF for b in pattern)
    assert read_disk(disk, 300 * 512, 64 * 512) == pattern


def test_power_off_ends_the_process(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.powers_off(tmp_path))
    with Vm(*drive("ide", disk, "raw")) as vm:
        vm.serial.expect("going off")
        assert vm.wait_exit() == 0


def test_no_shutdown_keeps_the_machine_after_power_off(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.powers_off(tmp_path))
    with Vm(*drive("ide", disk, "raw"), "-no-shutdown") as vm:
        vm.serial.expect("going off")
        vm.wait_status(r"paused (shutdown)")
        assert vm.quit() == 0


# KVM's emulator, in charge where there is no VT-x, knows no limit of the vector table.
@pytest.mark.parametrize("how", [
    pytest.param(how, marks=[pytest.mark.full_kvm] if how == "triple fault" else [])
    for how in guests.RESETS])
def test_guest_resets_itself(tmp_path, how):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.resets(tmp_path, how))
    with Vm(*drive("ide", disk, "raw")) as vm:
        for n in "123":
            vm.serial.expect("start " + n)
        assert "disk error" not in vm.serial.text


def test_no_reboot_turns_a_reset_into_an_end(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.resets(tmp_path, "keyboard controller"))
    with Vm(*drive("ide", disk, "raw"), "-no-reboot") as vm:
        vm.serial.expect("start 1")
        assert vm.wait_exit() == 0
        assert "start 2" not in vm.serial.drain()


def test_system_reset_starts_over(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.hello(tmp_path))
    with Vm(*drive("ide", disk, "raw")) as vm:
        vm.serial.expect("boot sector runs")
        vm.monitor("system_reset")
        vm.serial.expect("boot sector runs")


def test_stop_and_cont_hold_and_release_the_guest(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.hello(tmp_path))
    with Vm("-S", *drive("ide", disk, "raw")) as vm:
        assert "VM status: paused (prelaunch)" in vm.monitor("info status")
        vm.monitor("cont")
        vm.serial.expect("boot sector runs")
        vm.monitor("stop")
        assert "VM status: paused" in vm.monitor("info status")
        vm.monitor("system_reset")
        vm.monitor("cont")
        vm.serial.expect("boot sector runs")


def test_firmware_finds_two_cpus(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.hello(tmp_path))
    with Vm("-smp", "2", *drive("ide", disk, "raw")) as vm:
        vm.serial.expect("boot sector runs")
        vm.wait_bios("Found 2 cpu(s) max supported 2 cpu(s)")
        assert re.findall(r"CPU #(\d)", vm.monitor("info cpus")) == ["0", "1"]


@pytest.mark.limit(240)
def test_grub_comes_to_its_prompt_from_a_cd(tmp_path):
    with Vm("-cdrom", guests.grub_cd(tmp_path), memory=128) as vm:
        vm.wait_screen(r"grub>", 180)


@pytest.mark.limit(240)
def test_grub_rescue_cd_shows_its_menu():
    with Vm("-cdrom", RESCUE_CD, memory=128) as vm:
        vm.wait_screen(r"GNU GRUB", 180)
        assert vm.quit() == 0


# Real mode lets keys in for moments only, which KVM's emulator mostly misses.
@pytest.mark.full_kvm
@pytest.mark.limit(240)
def test_grub_rescue_cd_comes_to_its_prompt_and_obeys_keys():
    with Vm("-cdrom", RESCUE_CD, memory=128) as vm:
        vm.wait_screen(r"GNU GRUB", 180)        # its menu: `c` gives the prompt
        vm.monitor("sendkey c")
        vm.wait_screen(r"grub>", 60)
        for key in ("l", "s", "ret"):
            vm.monitor("sendkey " + key)
        vm.wait_screen(r"\(cd\d*\)", 60)
