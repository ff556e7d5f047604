"""Snapshots of disks under a running guest: all at one moment, internal ones, and beside
snapshots of the machine.  The reference's tools judge the images."""
import os
import re

import pytest

import guests
from counting import SECOND_PORT, chain, count_in, goes_on, number
from tools import check_image, qemu_img
from vm import Vm

pytestmark = pytest.mark.any_kvm
FORMATTING = ("Formatting '%s', fmt=qcow2 cluster_size=65536 extended_l2=off "
              "compression_type=zlib size=16777216 backing_file=%s backing_fmt=%s "
              "lazy_refcounts=off refcount_bits=16")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Names as people type them: without a folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def disk(tmp_path):
    return guests.qcow2_with("a.qcow2", guests.keeps_count(tmp_path)) and "a.qcow2"


def test_internal_snapshots_of_one_disk(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        before = number(vm)
        assert vm.monitor("snapshot_blkdev_internal ide0-hd0 one") == ""
        after = number(vm)
        assert vm.monitor("snapshot_blkdev_internal ide0-hd0 one") == (
            "Error: Snapshot with name 'one' already exists on device 'ide0-hd0'")
        assert vm.monitor("snapshot_blkdev_internal ide0-hd0 two") == ""
        listed = vm.monitor("info snapshots")
        assert "List of partial (non-loadable) snapshots on 'ide0-hd0':" in listed
        assert re.search(r"1 +one +0 B 20", listed)
        for arguments, text in (("one 2", "'2' and name 'one'"), ("zz", "'null' and name 'zz'"),
                                ("1", "'null' and name '1'")):
            assert vm.monitor("snapshot_delete_blkdev_internal ide0-hd0 " + arguments) == (
                "Error: Snapshot with id %s does not exist on device 'ide0-hd0'" % text)
        assert vm.monitor("snapshot_delete_blkdev_internal ide0-hd0 two 2") == ""
        goes_on(vm)
        assert vm.quit() == 0
    listed = qemu_img("snapshot", "-l", disk).stdout
    assert " one " in listed and " two " not in listed
    check_image(disk)
    qemu_img("snapshot", "-a", "one", disk)
    assert before <= count_in(disk) <= after + 2


def test_all_drives_switch_at_one_moment_or_none(disk):
    guests.disk_with("r.img", b"")
    drives = ["-hda", disk, "-drive", "file=r.img,format=raw,if=virtio"]
    with Vm(*drives, *SECOND_PORT) as vm:
        number(vm)
        os.mkdir("r-one.qcow2")                 # nothing can be made there
        said = vm.monitor("snapshot_blkdev_all one")
        assert said.split("\n")[-1] == "Error: Could not create 'r-one.qcow2': Is a directory"
        assert not os.path.exists("a-one.qcow2")
        assert "a.qcow2" in vm.monitor("info block ide0-hd0")
        goes_on(vm)
        os.rmdir("r-one.qcow2")
        assert vm.monitor("snapshot_blkdev_all one") == "\n".join((
            FORMATTING % ("a-one.qcow2", disk, "qcow2"),
            FORMATTING % ("r-one.qcow2", "r.img", "raw")))
        goes_on(vm)
        assert vm.monitor("snapshot_blkdev_all a/b") == (
            "Error: 'a/b' cannot be part of a file's name")
        assert vm.quit() == 0
    assert chain("a-one.qcow2") == ["a-one.qcow2", disk]
    assert chain("r-one.qcow2") == ["r-one.qcow2", "r.img"]
    assert count_in("a-one.qcow2") > count_in(disk)
    check_image("a-one.qcow2")


def test_a_drive_whose_writes_are_dropped(disk):
    before = open(disk, "rb").read()
    with Vm("-hda", disk, "-snapshot", *SECOND_PORT) as vm:
        number(vm)
        assert "Formatting 'top.qcow2'" in vm.monitor("snapshot_blkdev ide0-hd0 top.qcow2")
        goes_on(vm)
        assert vm.quit() == 0
    assert open(disk, "rb").read() == before
    assert "backing file: /" in qemu_img("info", "-U", "top.qcow2").stdout


def test_savevm_after_a_snapshot_is_whole(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("savevm one") == ""
        vm.monitor("snapshot_blkdev ide0-hd0 top.qcow2")
        assert "no snapshot" in vm.monitor("info snapshots")
        assert vm.monitor("loadvm one") == (
            "Error: Snapshot 'one' does not exist in one or more devices")
        before = number(vm)
        assert vm.monitor("savevm two") == ""
        goes_on(vm)
        assert vm.monitor("loadvm two") == ""
        assert number(vm) >= before
        goes_on(vm)
        assert vm.quit() == 0
    check_image("top.qcow2")
    check_image(disk)
