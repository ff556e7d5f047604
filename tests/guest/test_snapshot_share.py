"""loadvm of a snapshot that shares memory with the one that the machine came from: what is
the same is neither read nor lost.  And what may not be deleted while it is being read."""
import re

import pytest

from beat import Beat
from tools import check_image, cowimg, qemu_img
from vm import Vm

pytestmark = pytest.mark.any_kvm
MEMORY = 48
UNITS = MEMORY << 20 >> 16


@pytest.fixture
def disk(tmp_path):
    it = tmp_path / "disk.qcow2"
    qemu_img("create", "-f", "qcow2", it, "16M")
    return it


@pytest.fixture
def beat(tmp_path):
    it = Beat(tmp_path, rate=4)
    yield it
    it.close()


def machine(beat, disk, *args, memory=MEMORY, **kw):
    return Vm(*beat.arguments(), "-hda", disk, *args, serial=False, memory=memory, **kw)


def clock_page(vm):
    """Where KVM itself writes, at each loadvm too: the firmware's kvmclock."""
    return int(re.search(r"kvmclock: at 0x([0-9a-f]+)", vm.bios()).group(1), 16) & ~0xFFF


def content(vm, work):
    """All memory, of a machine that stands still."""
    file = work / "memory"
    assert vm.monitor("pmemsave 0 %d \"%s\"" % (MEMORY << 20, file)) == ""
    data = bytearray(file.read_bytes())
    data[clock_page(vm):clock_page(vm) + 4096] = bytes(4096)
    return bytes(data)


def loaded(vm):
    """Units read and kept, when all of them are there."""
    found = []

    def there():
        found[:] = re.findall(r"^Last loaded: (\d+) units of 64 KiB read, (\d+) kept \(on demand",
                              vm.monitor("info snapshot-job"), re.M)
        return bool(found)
    vm.wait_for(there, 60, lambda: vm.monitor("info snapshot-job"))
    return tuple(int(n) for n in found[0])


def load(vm, name):
    assert vm.monitor("loadvm " + name) == ""
    return loaded(vm)


def save(vm, beat, name, work):
    beat.wait(20)                       # it writes a quarter of a megabyte, somewhere else
    assert vm.monitor("stop") == ""
    assert vm.monitor("savevm " + name) == ""
    was = content(vm, work)
    assert vm.monitor("cont") == ""
    return was


def test_only_what_differs_is_read(tmp_path, disk, beat):
    with machine(beat, disk) as vm:
        beat.wait(3)
        were = {name: save(vm, beat, name, tmp_path) for name in ("a", "b", "c")}
        assert len(set(were.values())) == 3
        assert vm.monitor("stop") == ""
        # Neighbours, far apart, and the same again, with nothing written between.
        for name in ("b", "a", "c", "c", "a", "b", "b", "c"):
            read, kept = load(vm, name)
            assert read < UNITS // 4 and kept > UNITS * 3 // 4, (name, read, kept)
            assert content(vm, tmp_path) == were[name], name
        assert 1 <= load(vm, "c")[0] <= 2   # the clock: KVM wrote it when it got its state
        # What the guest wrote meanwhile comes back too, wherever it comes from.
        for name in ("a", "b", "c", "a"):
            assert vm.monitor("cont") == ""
            beat.wait(10)
            assert vm.monitor("stop") == ""
            assert load(vm, name)[0] < UNITS // 4
            assert content(vm, tmp_path) == were[name], name
        # The one that memory is counted from is gone: nothing is known.
        assert vm.monitor("delvm a") == ""
        read, kept = load(vm, "b")
        assert kept == 0 and read > UNITS // 2
        assert content(vm, tmp_path) == were["b"]
        assert load(vm, "c")[0] < UNITS // 4
        assert content(vm, tmp_path) == were["c"]
        # Writes through the monitor are writes.
        assert vm.monitor("system_reset") == ""
        assert vm.monitor("savevm d") == ""
        was = content(vm, tmp_path)
        assert load(vm, "c")[1] > 0 and content(vm, tmp_path) == were["c"]
        assert load(vm, "d")[1] > 0 and content(vm, tmp_path) == was
        assert vm.quit() == 0
    check_image(disk)
    cowimg("snapshot", "--verify", disk)


@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=2M",
                                     "extended_l2=on,cluster_size=128k"])
def test_clusters_that_are_no_units(tmp_path, disk, beat, options):
    qemu_img("create", "-f", "qcow2", "-o", options, disk, "16M")
    with machine(beat, disk) as vm:
        beat.wait(3)
        were = {name: save(vm, beat, name, tmp_path) for name in ("a", "b")}
        assert vm.monitor("stop") == ""
        for name in ("a", "b", "a"):
            read, kept = load(vm, name)
            assert kept > UNITS // 4 and read < UNITS * 3 // 4, (read, kept)
            assert content(vm, tmp_path) == were[name], name
        assert vm.quit() == 0
    check_image(disk)


def test_what_is_being_read_is_not_deleted(tmp_path, disk, beat):
    """Memory comes in for a while in a fresh process; delvm waits, and the command for one
    disk says no."""
    with machine(beat, disk, memory=256) as vm:
        beat.wait(3)
        for name in ("a", "b"):
            assert vm.monitor("savevm " + name) == ""
        assert vm.quit() == 0
    with machine(beat, disk, "-S", memory=256) as vm:
        vm.spawn.send("loadvm a\rsnapshot_delete_blkdev_internal ide0-hd0 a\rdelvm a\r")
        for _ in range(3):
            vm.spawn.expect(r"\(cowvm\) ", timeout=60)
            said = vm.spawn.before.decode()
            if "_internal" in said:
                assert "Error: snapshot 'a' is being loaded" in said
            else:
                assert "rror" not in said
        assert re.search(r"^Last loaded: \d+ units of 64 KiB read, 0 kept",
                         vm.monitor("info snapshot-job"), re.M)
        assert " a " not in vm.monitor("info snapshots")
        assert vm.monitor("cont") == ""
        assert vm.quit() == 0
    check_image(disk)
    cowimg("snapshot", "--verify", disk)
