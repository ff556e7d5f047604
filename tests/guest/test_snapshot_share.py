"""loadvm of a snapshot that shares memory with the one that the machine came from: what is
the same is neither read nor lost.  And what may not be deleted while it is being read."""
import re
import time

import pytest

from beat import Beat
from tools import SLOW, check_image, cowimg, qemu_img
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
    it = Beat(tmp_path, rate=5)         # a page every millisecond, the next one
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


def stop(vm, beat):
    """How many pages the guest has written by now."""
    assert vm.monitor("stop") == ""
    lines = -1
    while lines < len(beat.lines):
        lines = len(beat.lines)
        time.sleep(0.1)
    return beat.lines[-1][3]


def at_most(pages, cluster=65536):
    """Units that so many pages, one after the other, may lie in, and all that is not theirs."""
    return (pages * 4096 // cluster + 10) * (max(cluster, 65536) >> 16)


def save(vm, beat, name, work):
    beat.wait(20)                       # it writes a quarter of a megabyte, somewhere else
    pages = stop(vm, beat)
    assert vm.monitor("savevm " + name) == ""
    was = content(vm, work)
    assert vm.monitor("cont") == ""
    return was, pages


def test_only_what_differs_is_read(tmp_path, disk, beat):
    with machine(beat, disk) as vm:
        beat.wait(3)
        saved = {name: save(vm, beat, name, tmp_path) for name in ("a", "b", "c")}
        were = {name: saved[name][0] for name in saved}
        assert len(set(were.values())) == 3
        between = saved["c"][1] - saved["a"][1]
        since = stop(vm, beat) - saved["c"][1]
        # Neighbours, far apart, and the same again, with nothing written between.
        for name in ("b", "a", "c", "c", "a", "b", "b", "c"):
            read, kept = load(vm, name)
            assert read <= at_most(between + since) and kept >= UNITS - read, (name, read, kept)
            assert content(vm, tmp_path) == were[name], name
        assert 1 <= load(vm, "c")[0] <= 2   # the clock: KVM wrote it when it got its state
        # What the guest wrote meanwhile comes back too, wherever it comes from.
        now = "c"
        for name in ("a", "b", "c", "a"):
            assert vm.monitor("cont") == ""
            beat.wait(10)
            most = at_most(between + stop(vm, beat) - saved[now][1])
            now = name
            assert load(vm, name)[0] <= most
            assert content(vm, tmp_path) == were[name], name
        # The one that memory is counted from is gone: nothing is known.
        assert vm.monitor("delvm a") == ""
        read, kept = load(vm, "b")
        assert kept == 0 and read > UNITS // 2
        assert content(vm, tmp_path) == were["b"]
        assert load(vm, "c")[0] <= at_most(between)
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


@pytest.mark.parametrize("options, cluster", [
    ("cluster_size=4k", 4096), ("cluster_size=2M", 2 << 20),
    ("extended_l2=on,cluster_size=128k", 128 << 10)])
def test_clusters_that_are_no_units(tmp_path, disk, beat, options, cluster):
    qemu_img("create", "-f", "qcow2", "-o", options, disk, "16M")
    with machine(beat, disk) as vm:
        beat.wait(3)
        saved = {name: save(vm, beat, name, tmp_path) for name in ("a", "b")}
        most = at_most(stop(vm, beat) - saved["a"][1], max(cluster, 65536))
        for name in ("a", "b", "a"):
            read, kept = load(vm, name)
            assert read <= most and kept >= UNITS - read, (read, kept)
            assert content(vm, tmp_path) == saved[name][0], name
        assert vm.quit() == 0
    check_image(disk)


def deletes_while_it_is_read(vm, tag):
    """False: it had all been read already, when the host let the monitor go on."""
    vm.spawn.send("loadvm {0}\rsnapshot_delete_blkdev_internal ide0-hd0 {0}\rdelvm {0}\r".format(
        tag))
    words = []
    for _ in range(3):
        vm.spawn.expect(r"\(cowvm\) ", timeout=60 * SLOW)
        words.append(vm.spawn.before.decode())
    assert "rror" not in words[0]
    if "rror" not in words[1]:
        return False
    assert "Error: snapshot '%s' is being loaded" % tag in words[1] and "rror" not in words[2]
    assert re.search(r"^Last loaded: \d+ units of 64 KiB read, 0 kept",
                     vm.monitor("info snapshot-job"), re.M)
    return True


def test_what_is_being_read_is_not_deleted(tmp_path, disk, beat):
    """Memory comes in for a while in a fresh process; delvm waits, and the command for one
    disk says no."""
    tags = ["a%d" % n for n in range(5)]
    with machine(beat, disk, memory=256) as vm:
        beat.wait(3)
        for name in tags:
            assert vm.monitor("savevm " + name) == ""
        assert vm.quit() == 0
    for tag in tags:
        with machine(beat, disk, "-S", memory=256) as vm:
            refused = deletes_while_it_is_read(vm, tag)
            assert " %s " % tag not in vm.monitor("info snapshots")
            assert vm.monitor("cont") == ""
            assert vm.quit() == 0
        if refused:
            break
    assert refused
    check_image(disk)
    cowimg("snapshot", "--verify", disk)
