"""cowimg snapshot --verify on what savevm has made: one flipped bit anywhere in it is found,
and -loadvm refuses what it has to read first."""
import random
import shutil
import struct

import pytest

import guests
from tools import COWVM, cowimg, qemu_img, run
from vm import Vm

pytestmark = pytest.mark.any_kvm
MEMORY = 16
UNIT = 65536
PARTS = ["table of checksums", "description of the machine", "state of devices", "working set"]
FINE = "VM state is as it was written ("


def snapshot_entry(data, tag):
    """L1 table and disk size of a snapshot, from its entry in the table."""
    count, at = struct.unpack_from(">IQ", data, 60)
    for _ in range(count):
        l1, entries, idb, nameb, _, _, _, _, extra = struct.unpack_from(">QIHHIIQII", data, at)
        name = data[at + 40 + extra + idb:at + 40 + extra + idb + nameb]
        if name == tag.encode():
            return struct.unpack_from(">%dQ" % entries, data, l1), struct.unpack_from(
                ">Q", data, at + 48)[0]
        at += (40 + extra + idb + nameb + 7) // 8 * 8
    raise AssertionError("no snapshot %s" % tag)


def vm_state_places(path, tag):
    """Clusters of the VM state that are in the file: place in it -> place in the file."""
    data = path.read_bytes()
    cluster = 1 << struct.unpack_from(">I", data, 20)[0]
    l1, disk = snapshot_entry(data, tag)
    span = cluster * cluster // 8
    first = -(-disk // span)
    places = {}
    for i, entry in enumerate(l1[first:]):
        table = entry & 0x00fffffffffffe00
        for k in range(cluster // 8 if table else 0):
            host = struct.unpack_from(">Q", data, table + 8 * k)[0]
            if host & 0x00fffffffffffe00 and not host & 1:
                places[i * span + k * cluster] = host & 0x00fffffffffffe00
    return places, cluster


def meaningful(header, places, cluster):
    """Ranges of the VM state that count: what lies around parts does not."""
    units, ram, _ = struct.unpack_from("<QQQ", header, 16)
    ranges = {"header": (0, 4096)}
    for i, name in enumerate(PARTS):
        off, size = struct.unpack_from("<QQ", header, 40 + 24 * i)
        if size:
            ranges[name] = (off, size)
    in_file = sorted(p for p in places if ram <= p < ram + units * UNIT)
    return ranges, in_file


def flip(path, at, bit):
    with open(path, "r+b") as f:
        f.seek(at)
        byte = f.read(1)[0]
        f.seek(at)
        f.write(bytes([byte ^ 1 << bit]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """An image with a snapshot of a machine; whoever changes it, changes it back."""
    tmp_path = tmp_path_factory.mktemp("saved")
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.keeps_count(tmp_path))
    with Vm("-hda", disk, "-serial", "null", memory=MEMORY) as vm:
        vm.serial.expect("0010")
        assert vm.monitor("savevm here") == ""
        assert vm.quit() == 0
    qemu_img("snapshot", "-c", "plain", disk)
    return disk


def some_place(rng, ranges, ram, places, cluster):
    """A byte that counts: its place in the file, and what it belongs to."""
    what = rng.choice(sorted(ranges) + ["memory"] * 4)
    if what == "memory":
        return places[rng.choice(ram)] + rng.randrange(cluster), what
    off = ranges[what][0] + rng.randrange(ranges[what][1])
    start = off // cluster * cluster
    return (places[start] + off - start if start in places else None), what


def test_one_flipped_bit_anywhere_is_found(saved):
    good = cowimg("snapshot", "--verify", saved).stdout.split("\n")
    assert good[0].startswith("Snapshot 'here': " + FINE)
    assert good[1:] == ["Snapshot 'plain': no VM state", ""]
    places, cluster = vm_state_places(saved, "here")
    header = saved.read_bytes()[places[0]:places[0] + 4096]
    ranges, ram = meaningful(header, places, cluster)
    rng, found = random.Random(5), {}
    for _ in range(200):
        at, what = some_place(rng, ranges, ram, places, cluster)
        if at is None:
            continue
        bit = rng.randrange(8)
        flip(saved, at, bit)
        text = cowimg("snapshot", "--verify", "here", saved, ok=(2,)).stdout
        flip(saved, at, bit)
        assert "ERROR snapshot 'here': %s" % what in text.replace("memory [", "memory\t["), text
        assert text.count("ERROR") == 1 and "damaged in 1 place\n" in text, text
        found[what] = found.get(what, 0) + 1
    assert sum(found.values()) > 150 and set(found) == set(ranges) | {"memory"}, found
    assert cowimg("snapshot", "--verify", saved).stdout.startswith("Snapshot 'here': " + FINE)


def test_a_damaged_part_is_refused_at_start(saved):
    places, cluster = vm_state_places(saved, "here")
    header = saved.read_bytes()[places[0]:places[0] + 4096]
    ranges, _ = meaningful(header, places, cluster)
    for what in ("header", "table of checksums", "description of the machine",
                 "state of devices"):
        off, size = ranges[what]
        at = places[off // cluster * cluster] + off % cluster + min(size, cluster) // 3
        flip(saved, at, 3)
        done = run(COWVM, "-display", "none", "-serial", "null", "-serial", "null", "-monitor",
                   "none", "-chardev", "null,id=bios", "-device",
                   "isa-debugcon,iobase=0x402,chardev=bios", "-enable-kvm", "-m", MEMORY, "-net",
                   "none", "-hda", saved, "-loadvm", "here", ok=(1,))
        flip(saved, at, 3)
        assert done.stdout.count("\n") == 1 and "snapshot 'here': " in done.stdout
        assert what in done.stdout and "damaged" in done.stdout, done.stdout


def test_words_and_ends(saved, tmp_path):
    raw = tmp_path / "raw"
    raw.write_bytes(bytes(65536))
    assert "Could not verify snapshot 'x': snapshot not found" in cowimg(
        "snapshot", "--verify", "x", saved, ok=(1,)).stdout
    assert "Could not verify snapshot 'x': snapshot not found" in cowimg(
        "snapshot", "--verify", "x", raw, ok=(1,)).stdout
    assert cowimg("snapshot", "--verify", "-q", saved).stdout == ""
    assert "(100.00/100%)" in cowimg("snapshot", "--verify", "-p", saved).stdout
    assert "Cannot mix" in cowimg("snapshot", "--verify", "-l", saved, ok=(1,)).stdout
    # VM state of another program: not ours to judge.
    places, _ = vm_state_places(saved, "here")
    other = shutil.copy(saved, tmp_path / "other")
    with open(other, "r+b") as f:
        f.seek(places[0])
        f.write(b"QEVM" * 1024)
    assert "the VM state is not one of cowvm" in cowimg("snapshot", "--verify", other,
                                                        ok=(1,)).stdout
