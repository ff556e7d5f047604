"""change, eject, block_resize, limits and what `info` says of them, typed at a monitor."""
import re
import time

import pytest

import guests
from lib import crypt
from tools import COWVM, cowimg, run
from vm import Vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture
def images(tmp_path):
    one, two = tmp_path / "one.iso", tmp_path / "two.qcow2"
    one.write_bytes(b"\1" * (1 << 20))
    cowimg("create", "-q", "-f", "qcow2", two, "2M")
    return one, two


def cd(vm):
    return vm.monitor("info block ide1-cd0")


def test_media_come_and_go(tmp_path, images):
    one, two = images
    with Vm("-S") as vm:
        assert vm.monitor("eject nosuch") == "Error: Device 'nosuch' not found"
        assert vm.monitor("change nosuch x") == "Error: Device 'nosuch' not found"
        assert vm.monitor("change ide1-cd0 %s" % one) == ""
        assert re.match(r"ide1-cd0 \(#block\d+\): %s \(raw, read-only\)\n"
                        r"    Attached to:      \S+\n"
                        r"    Removable device: not locked, tray closed\n"
                        r"    Cache mode:       writeback$" % one, cd(vm))
        assert vm.monitor("change ide1-cd0 %s/nosuch" % tmp_path) == (
            "Error: Could not open '%s/nosuch': No such file or directory" % tmp_path)
        assert vm.monitor("change ide1-cd0 %s qcow2" % one) == (
            "Error: Image is not in qcow2 format")
        assert vm.monitor("change ide1-cd0 %s raw foo" % one) == (
            "Error: invalid parameter value: foo")
        assert "one.iso" in cd(vm)              # still there
        assert vm.monitor("change ide1-cd0 -f %s qcow2 read-only" % two) == ""
        assert "two.qcow2 (qcow2, read-only)" in cd(vm)
        assert vm.monitor("eject ide1-cd0") == ""
        assert cd(vm).startswith("ide1-cd0: [not inserted]")
        assert cd(vm).endswith("Removable device: not locked, tray open")
        assert vm.monitor("eject -f ide1-cd0") == ""
        assert vm.monitor("change ide1-cd0 %s" % one) == ""
        assert "tray closed" in cd(vm)
        assert vm.monitor("eject") == (
            "eject: block device name expected\nTry \"help eject\" for more information")
        assert vm.quit() == 0


def test_a_tray_that_the_guest_keeps_shut_opens_by_force_only(tmp_path, images):
    one, two = images
    disk = guests.disk_with(tmp_path / "d", guests.locks_tray(tmp_path))
    locked = ("Error: Device 'ide1-cd0' is locked and force was not specified, wait for tray to "
              "open and try again")
    args = ["-drive", "file=%s,format=raw" % disk, "-cdrom", one]
    with Vm(*args) as vm:
        vm.serial.expect("locked")
        assert "Removable device: locked, tray closed" in cd(vm)
        assert vm.monitor("eject ide1-cd0") == locked
        assert vm.monitor("change ide1-cd0 %s" % two) == locked
        assert "one.iso" in cd(vm)
        vm.serial.send("x")
        vm.serial.expect("opened")
        assert "Removable device: not locked, tray open" in cd(vm) and "one.iso" in cd(vm)
        assert vm.monitor("eject ide1-cd0") == ""
        assert vm.monitor("change ide1-cd0 %s" % two) == ""
        assert "two.qcow2" in cd(vm) and "not locked, tray closed" in cd(vm)
        assert vm.quit() == 0
    with Vm(*args) as vm:
        vm.serial.expect("locked")
        assert vm.monitor("change ide1-cd0 -f %s" % two) == ""
        assert "two.qcow2" in cd(vm)
        assert vm.monitor("eject -f ide1-cd0") == ""
        assert cd(vm).startswith("ide1-cd0: [not inserted]")
        assert vm.quit() == 0


def test_an_encrypted_medium_asks_for_its_passphrase(tmp_path):
    disc = crypt.create("ours", "qcow2-luks", tmp_path / "cd.qcow2")
    with Vm("-S") as vm:
        vm.spawn.send("change ide1-cd0 %s\r" % disc)
        vm.spawn.expect(r"is encrypted\.\s+Password: ")
        vm.spawn.send("abc123\r")
        vm.spawn.expect(r"\(cowvm\) ")
        assert "encrypted)" in cd(vm) and "Locked" not in cd(vm)
        assert vm.quit() == 0


def test_disks_are_resized_under_their_guest(tmp_path):
    disk = guests.qcow2_with(tmp_path / "d.qcow2", guests.hello(tmp_path))
    fixed = tmp_path / "fixed"
    fixed.write_bytes(bytes(1 << 20))
    with Vm("-hda", disk, "-drive", "file=%s,format=raw,if=virtio,readonly=on" % fixed) as vm:
        vm.serial.expect("boot sector runs")
        assert vm.monitor("block_resize nosuch 1G") == (
            "Error: Cannot find device='nosuch' nor node-name=''")
        assert vm.monitor("block_resize ide1-cd0 1G") == "Error: Device 'ide1-cd0' has no medium"
        assert vm.monitor("block_resize ide0-hd0 1025b") == (
            "Error: The new size must be a multiple of 512")
        assert vm.monitor("block_resize virtio0 2M") == "Error: Image is read-only"
        assert vm.monitor("block_resize ide0-hd0") == (
            "invalid size\nTry \"help block_resize\" for more information")
        assert vm.monitor("eject ide0-hd0") == "Error: Device 'ide0-hd0' is not removable"
        assert vm.monitor("block_resize ide0-hd0 32") == ""
        assert vm.quit() == 0
    assert "32 MiB (33554432 bytes)" in cowimg("info", disk).stdout


LIMITS = ("    I/O throttling:   bps=%d bps_rd=0 bps_wr=0 bps_max=0 bps_rd_max=0 bps_wr_max=0 "
          "iops=%d iops_rd=0 iops_wr=0 iops_max=0 iops_rd_max=0 iops_wr_max=0 iops_size=0 "
          "group=%s")


def test_limits_are_set_shown_and_taken_away(tmp_path):
    disk = guests.disk_with(tmp_path / "d", b"", 1 << 20)
    drive = "file=%s,format=raw" % disk
    with Vm("-S", "-drive", drive + ",detect-zeroes=on") as vm:
        assert "    Detect zeroes:    on" in vm.monitor("info block")
        assert "throttling" not in vm.monitor("info block")
        assert vm.monitor("block_set_io_throttle nosuch 1 0 0 0 0 0") == (
            "Error: Device 'nosuch' not found")
        assert vm.monitor("block_set_io_throttle ide0-hd0 1 2 0 0 0 0") == (
            "Error: bps/iops/max total values and read/write values cannot be used at the same "
            "time")
        assert vm.monitor("block_set_io_throttle ide0-hd0 1000000 0 0 100 0 0") == ""
        assert LIMITS % (1000000, 100, "ide0-hd0") in vm.monitor("info block")
        assert vm.monitor("block_set_io_throttle ide0-hd0 0 0 0 0 0 0") == ""
        assert "throttling" not in vm.monitor("info block")
        assert re.match(r"ide0-hd0: rd_bytes=0 wr_bytes=0 rd_operations=0 wr_operations=0 "
                        r"flush_operations=0 wr_total_time_ns=0 rd_total_time_ns=0 "
                        r"flush_total_time_ns=0 rd_merged=0 wr_merged=0 idle_time_ns=0$",
                        vm.monitor("info blockstats"), re.M)
        assert vm.quit() == 0


def test_a_limited_disk_takes_its_time_and_a_stop_does_not_wait(tmp_path):
    # 96 sectors thrice, a BIOS's requests: 144 KiB at 36 KiB a second, less a tenth's worth.
    code = guests.copies_sectors(tmp_path, 100, 400, 96)
    disk = guests.disk_with(tmp_path / "d", code, 1 << 20)
    with Vm("-drive", "file=%s,format=raw,if=virtio,bps=36864,group=g" % disk, "-S") as vm:
        assert "bps=36864" in vm.monitor("info block") and "group=g" in vm.monitor("info block")
        start = time.monotonic()
        vm.monitor("cont")
        vm.serial.expect("copied")
        assert time.monotonic() - start > 3.5
    with Vm("-drive", "file=%s,format=raw,if=virtio,bps=1024" % disk) as vm:
        vm.wait_for(lambda: not re.search("virtio0: .* rd_operations=0 ",
                                           vm.monitor("info blockstats")), 60, str)
        time.sleep(1)
        assert vm.monitor("stop") == ""         # minutes of reading wait, it does not
        assert vm.monitor("block_set_io_throttle virtio0 0 0 0 0 0 0") == ""
        assert vm.monitor("cont") == ""
        vm.serial.expect("copied")
        assert vm.wait_exit() == 0


@pytest.mark.parametrize("options,message", [
    ("bps=x", "Parameter 'throttling.bps-total' expects a number"),
    ("iops=-1", "bps/iops/max values must be within [0, 1000000000000000]"),
    ("iops_max=3", "bps_max/iops_max require corresponding bps/iops values"),
    ("bps=1,bps_rd=1", "bps/iops/max total values and read/write values cannot be used at the "
     "same time"),
    ("throttling.iops-total=100,throttling.iops-total-max=10",
     "bps_max/iops_max cannot be lower than bps/iops"),
    ("iops_size=4096", "iops size requires an iops value to be set")])
def test_limits_that_make_no_sense_are_refused(tmp_path, options, message):
    disk = guests.disk_with(tmp_path / "d", b"", 1 << 20)
    done = run(COWVM, "-display", "none", "-drive", "file=%s,format=raw,%s" % (disk, options),
               ok=(1,))
    assert done.stdout.endswith(": %s\n" % message)
