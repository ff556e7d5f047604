"""Guest memory in a file, and all of it at once: it works as any, snapshots too."""
import os
import re
import subprocess

import pytest

import guests
import mounts
from tools import COWVM, check_image, cowimg, run
from vm import Vm

pytestmark = pytest.mark.any_kvm


def resident(vm, kind):
    with open("/proc/%d/status" % vm.pid) as f:
        return int(re.search(r"Rss%s:\s+(\d+)" % kind, f.read()).group(1)) // 1024


def memory_file(vm, where):
    """The guest's memory as the host sees it: a file without a name."""
    for fd in os.listdir("/proc/%d/fd" % vm.pid):
        path = "/proc/%d/fd/%s" % (vm.pid, fd)
        name = os.readlink(path)
        if name.startswith(str(where) + "/") and name.endswith(" (deleted)"):
            return open(path, "rb", buffering=0)
    raise AssertionError("no file in %s" % where)


def count_in(memory):
    memory.seek(0x8000)
    return int.from_bytes(memory.read(2), "little")


def check_memory_file(vm, where, sector):
    """What the guest writes is in there."""
    with memory_file(vm, where) as memory:
        assert os.fstat(memory.fileno()).st_size == 48 << 20
        memory.seek(0x7c00)
        assert memory.read(64) == sector[:64]
        first = count_in(memory)
        vm.wait_for(lambda: count_in(memory) != first, 30, lambda: "it stands still")
        vm.monitor("stop")
        shown = vm.monitor("xp /1xh 0x8000").split(": ")[-1]
        assert int(shown, 16) == count_in(memory)
        vm.monitor("cont")
    said = vm.monitor("info memdev")
    assert "share: true" in said and "mem-path: %s" % where in said


def test_memory_in_a_file_works_with_snapshots(tmp_path):
    sector = guests.keeps_count(tmp_path)
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", sector)
    where = "/dev/shm" if os.path.isdir("/dev/shm") else tmp_path
    with Vm("-vga", "none", "-serial", "null", "-drive", "file=%s,if=virtio" % disk,
            "-mem-path", where, "-mem-prealloc", memory=48) as vm:
        assert resident(vm, "Shmem") + resident(vm, "File") > 48
        with open("/proc/%d/maps" % vm.pid) as f:
            assert re.search(r"rw-s .* %s/.*deleted" % where, f.read())
        vm.serial.expect("[0-9A-F]{4}")
        check_memory_file(vm, where, sector)
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


@pytest.fixture
def huge(tmp_path):
    """A hugetlbfs of its own, with 20 pages of 2 MiB if the host has them."""
    where, pages = tmp_path / "huge", "/proc/sys/vm/nr_hugepages"
    where.mkdir()
    if subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", where],
                      stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("nobody here may mount a hugetlbfs")
    with open(pages) as f:
        before = f.read()
    try:
        with open(pages, "w") as f:
            f.write(str(int(before) + 20))
        with open(pages) as f:
            yield where, int(f.read()) - int(before)
    finally:
        with open(pages, "w") as f:
            f.write(before)
        subprocess.run(["umount", where], check=True)


def test_memory_in_huge_pages(tmp_path, huge):
    where, pages = huge
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.keeps_count(tmp_path))
    said = run(COWVM, "-S", "-display", "none", "-mem-path", where, "-m", "31", ok=(1,)).stdout
    assert "no multiple of its pages of 2097152 bytes" in said and said.count("\n") == 1
    if pages < 20:
        said = run(COWVM, "-S", "-display", "none", "-mem-path", where, "-m", "64", ok=(1,)).stdout
        assert "Cannot allocate memory" in said and said.count("\n") == 1
        return
    with Vm("-vga", "none", "-serial", "null", "-drive", "file=%s,if=virtio" % disk,
            "-mem-path", where, "-mem-prealloc", memory=32) as vm:
        with open("/proc/%d/smaps" % vm.pid) as f:
            assert re.search(r"(Shared|Private)_Hugetlb: +32768 kB", f.read())
        for tag in ("one", "two"):
            vm.serial.expect("[0-9A-F]{4}")
            assert "rror" not in vm.monitor("savevm " + tag)
        assert "rror" not in vm.monitor("loadvm one")
        vm.serial.expect("[0-9A-F]{4}")
        assert "torn" not in vm.serial.text
        assert vm.quit() == 0


def without_rights(command, folder):
    """As somebody whom permissions of files hold back, even as root."""
    folder.chmod(0o555)
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return run(*(drop if os.geteuid() == 0 else []), *command, ok=(1,)).stdout


def test_a_folder_that_takes_no_file_is_one_line(tmp_path):
    folder, mount = tmp_path / "folder", tmp_path / "mount"
    folder.mkdir()
    command = [COWVM, "-S", "-display", "none", "-net", "none", "-m", "16", "-mem-path"]
    said = without_rights([*command, folder], folder)
    assert "can't open backing store %s for guest RAM: Permission denied" % folder in said
    full = mounts.on_full_disk(folder, mount, 1024, [*command, "."])
    read_only = mounts.on_read_only(folder, mount, [*command, "."])
    assert full.returncode == read_only.returncode == 1
    assert ". has room for 1 MiB, guest memory is 16 MiB" in full.stdout
    assert "can't open backing store . for guest RAM: Read-only file system" in read_only.stdout
    for text in (said, full.stdout, read_only.stdout):
        assert text.count("\n") == 1


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
