"""Guest memory in a file, and all of it at once: it works as any, snapshots too."""
import os
import re

import pytest

import guests
from tools import COWVM, check_image, cowimg, run
from vm import Vm

pytestmark = pytest.mark.any_kvm


def resident(vm, kind):
    with open("/proc/%d/status" % vm.pid) as f:
        return int(re.search(r"Rss%s:\s+(\d+)" % kind, f.read()).group(1)) // 1024


def test_memory_in_a_file_works_with_snapshots(tmp_path):
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.keeps_count(tmp_path))
    where = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    with Vm("-vga", "none", "-serial", "null", "-drive", "file=%s,if=virtio" % disk,
            "-mem-path", where, "-mem-prealloc", memory=48) as vm:
        assert resident(vm, "Shmem") + resident(vm, "File") > 48
        with open("/proc/%d/maps" % vm.pid) as f:
            assert re.search(r"rw-s .* %s/.*deleted" % where, f.read())
        for tag in ("one", "two"):
            vm.serial.expect("[0-9A-F]{4}")
            assert "userfaultfd" not in vm.monitor("savevm " + tag)
        vm.serial.expect("[0-9A-F]{4}")
        for tag in ("one", "two", "one"):
            assert "Error" not in vm.monitor("loadvm " + tag)
            vm.serial.expect("[0-9A-F]{4}")
            vm.serial.expect("[0-9A-F]{4}")
        assert "torn" not in vm.serial.text
        assert vm.quit() == 0


@pytest.mark.parametrize("there", ["file", "anonymous"])
def test_a_snapshot_goes_on_in_a_fresh_process(tmp_path, there):
    """Saved with memory in a file, loaded with it elsewhere, and the other way round."""
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.keeps_count(tmp_path))
    options = ["-vga", "none", "-serial", "null", "-drive", "file=%s,if=virtio" % disk]
    memory = {"file": ["-mem-path", str(tmp_path)], "anonymous": []}
    in_file = "guest memory lies in a file"
    here = "anonymous" if there == "file" else "file"
    with Vm(*options, *memory[here], memory=32) as vm:
        vm.serial.expect("[0-9A-F]{4}")
        said = vm.monitor("savevm one")
        assert ("info: savevm: %s: the guest will stand still" % in_file in said) == (
            here == "file")
        assert ("(in passes: %s)" % in_file in vm.monitor("info snapshot-job")) == (here == "file")
        assert vm.quit() == 0
    with Vm(*options, *memory[there], "-S", memory=32) as vm:
        said = vm.monitor("loadvm one")
        assert ("loadvm: %s: all memory is read before" % in_file in said) == (there == "file")
        vm.monitor("cont")
        for _ in range(3):
            vm.serial.expect("[0-9A-F]{4}")
        vm.wait_for(lambda: "Last loaded" in vm.monitor("info snapshot-job"), 60, lambda: "")
        assert ("(all at once: %s)" % in_file in vm.monitor("info snapshot-job")) == (
            there == "file")
        # From here on with what is counted: passes of the dirty log, or on demand.
        assert "rror" not in vm.monitor("savevm two")
        for tag in ("one", "two"):
            assert "rror" not in vm.monitor("loadvm " + tag)
            vm.serial.expect("[0-9A-F]{4}")
            vm.serial.expect("[0-9A-F]{4}")
        assert "torn" not in vm.serial.text and "error" not in vm.serial.text
        assert vm.quit() == 0
    cowimg("snapshot", "--verify", disk)
    check_image(disk)


def test_all_memory_is_taken_at_the_start():
    with Vm("-S", "-vga", "none", "-mem-prealloc", memory=96) as vm:
        assert resident(vm, "Anon") > 96
        assert vm.monitor("info memory_size_summary").startswith("base memory: 100663296\n")
    with Vm("-S", "-vga", "none", "-machine", "pc,mem-merge=on,dump-guest-core=off") as vm:
        with open("/proc/%d/smaps" % vm.pid) as f:
            assert re.search(r"VmFlags: .*\bdd\b.*\bmg\b", f.read())


@pytest.mark.parametrize("options, says", [
    (["-mem-path", "/nonexistent"], "can't open backing store /nonexistent for guest RAM"),
    (["-m", "3T", "-mem-path", "/tmp"], "/tmp has room for "),
    (["-m", "3T", "-mem-prealloc"], "cannot "),
    (["-m", "1G,slots=2,maxmem=2G"], "adding memory to a running machine is not available"),
    (["-machine", "pc,mem-merge=perhaps"], "mem-merge"),
])
def test_what_cannot_be_is_one_line(options, says):
    said = run(COWVM, "-S", "-display", "none", *options, ok=(1,)).stdout
    assert says in said and said.count("\n") == 1
