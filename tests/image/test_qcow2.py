"""Our qcow2 and the reference's on the same files: what one writes the other reads,
checks clean and compares equal; snapshots, backing chains, repairs, resizing."""
import json
import os
import random
import struct

import pytest
from tools import TOP, qemu_img, qemu_io, run

BLKIO = str(TOP / "build" / os.environ.get("COWVM_BUILD", "release") / "tests/image/blkio")


def blkio(*args, **kw):
    return run(BLKIO, *args, **kw)


def check(image, leaks=0):
    """Both must agree that it is clean."""
    report = json.loads(qemu_img("check", "--output=json", image,
                                 ok=(0, 3) if leaks else (0,)).stdout)
    ours = blkio("-r", image, "check", ok=(0, 1) if leaks else (0,)).stdout
    assert "corruptions 0 leaks %d errors 0" % report.get("leaks", 0) in ours
    assert not report.get("corruptions")
    assert "clusters %d of %d" % (report.get("allocated-clusters", 0),
                                  report["total-clusters"]) in ours
    return report


def operations(seed, size, n):
    """The same requests for both programs, as blkio and as qemu-io words them."""
    rnd = random.Random(seed)
    ours, theirs = [], []
    for _ in range(n):
        length = rnd.randrange(1, 400) * 512
        at = rnd.randrange(0, (size - length) // 512) * 512
        kind = rnd.randrange(10)
        if kind < 7:
            byte = rnd.randrange(1, 256)
            ours.append("write -P %d %d %d" % (byte, at, length))
            theirs.append("write -P %d %d %d" % (byte, at, length))
        elif kind < 9:
            ours.append("zero -u %d %d" % (at, length))
            theirs.append("write -z -u %d %d" % (at, length))
        else:
            ours.append("flush")
            theirs.append("flush")
    return ours, theirs


SHAPES = [(512, 16, 3), (4096, 1, 3), (4096, 64, 3), (65536, 16, 3), (65536, 16, 2),
          (2 << 20, 8, 3)]


@pytest.mark.parametrize("cluster,refcount,version", SHAPES)
def test_random_requests_end_alike_in_both_programs(tmp_path, cluster, refcount, version):
    a, b = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    size = 12 << 20
    ours, theirs = operations(cluster + refcount, size, 120)
    blkio(a, "create %d version=%d cluster=%d refcount=%d" % (size, version, cluster, refcount),
          *ours)
    qemu_img("create", "-q", "-f", "qcow2", "-o",
             "compat=%s,cluster_size=%d,refcount_bits=%d" %
             ("1.1" if version == 3 else "0.10", cluster, refcount), b, size)
    qemu_io(b, *theirs)
    qemu_img("compare", a, b)
    # And crosswise, on each other's images.
    ours, theirs = operations(cluster + refcount + 1, size, 120)
    blkio(b, *ours)
    qemu_io(a, *theirs)
    qemu_img("compare", a, b)
    check(a)
    check(b)


@pytest.mark.parametrize("cluster", [512, 65536, 2 << 20])
def test_fresh_image_is_laid_out_like_the_references(tmp_path, cluster):
    a, b = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    size = 8 << 20 if cluster > 512 else 1 << 20
    blkio(a, "create %d cluster=%d" % (size, cluster))
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=%d" % cluster, b, size)
    heads = []
    for path in (a, b):
        heads.append(path.read_bytes()[:112])
    assert heads[0] == heads[1]
    info = [json.loads(qemu_img("info", "--output=json", p).stdout) for p in (a, b)]
    assert info[0]["format-specific"] == info[1]["format-specific"]
    assert info[0]["virtual-size"] == info[1]["virtual-size"]
    check(a)


def test_preallocated_metadata_maps_every_cluster(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 100M prealloc", "read -P 0 0 100M", "write -P 7 50M 1M", "read -P 7 50M 1M")
    report = check(a)
    assert report["allocated-clusters"] == report["total-clusters"] == 1600


@pytest.mark.parametrize("version", ["0.10", "1.1"])
@pytest.mark.parametrize("below", ["raw", "qcow2"])
@pytest.mark.parametrize("size", ["3M", "16M"])
def test_backing_chains_read_alike(tmp_path, version, below, size):
    base, top, flat = tmp_path / "base", tmp_path / "top.qcow2", tmp_path / "flat"
    qemu_img("create", "-q", "-f", below, base, size)
    qemu_io(base, "write -P 0x41 0 3M", "write -P 0x42 1000k 8k", fmt=below)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "compat=" + version, "-b", base, "-F", below,
             top, "8M")
    ours, theirs = operations(size + below, 8 << 20, 60)
    blkio(top, *ours)
    qemu_img("convert", "-O", "raw", top, flat)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", flat, top)
    blkio(top, "discard 0 2M", "resize 14M", "read -P 0 9M 5M")
    check(top)
    assert below != "raw" or os.path.getsize(base) == (3 << 20 if size == "3M" else 16 << 20)


def test_snapshots_keep_their_content_under_our_writes(tmp_path):
    a, flat = tmp_path / "a.qcow2", tmp_path / "flat"
    blkio(a, "create 20M cluster=4096", "write -P 1 0 8M", "write -P 2 8M 1M", "zero -u 1M 1M")
    qemu_img("snapshot", "-c", "one", a)
    qemu_img("convert", "-O", "raw", a, flat)
    blkio(a, "write -P 3 0 100k", "write -P 4 4097k 3k", "zero -u 2M 2M", "discard 6M 1M",
          "write -P 5 8190k 4M", "flush", "read -P 3 0 100k", "read -P 1 4096k 1k",
          "read -P 4 4097k 3k")
    check(a)
    qemu_img("snapshot", "-c", "two", a)
    blkio(a, "write -P 6 0 20M")
    check(a)
    qemu_img("snapshot", "-a", "one", a)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", flat, a)
    qemu_img("snapshot", "-d", "two", a)
    check(a)


def test_version_2_image_with_snapshots_is_not_resized(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 20M version=2", "write 0 1M")
    qemu_img("snapshot", "-c", "one", a)
    out = blkio(a, "resize 30M", ok=(1,)).stdout
    assert "Can't resize a v2 image which has snapshots" in out


@pytest.mark.parametrize("cluster", [512, 65536])
def test_resizing_up_and_down_leaves_what_is_left(tmp_path, cluster):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 1M cluster=%d" % cluster, "write -P 9 0 1M", "resize 40M", "read -P 9 0 1M",
          "read -P 0 1M 39M", "write -P 8 30M 5M", "flush", "resize 700k", "read -P 9 0 700k")
    check(a)
    assert os.path.getsize(a) < 2 << 20
    blkio(a, "resize 3M", "read -P 9 0 700k", "read -P 0 700k 2372k")
    check(a)
    assert json.loads(qemu_img("info", "--output=json", a).stdout)["virtual-size"] == 3 << 20


def test_crash_before_flush_keeps_what_was_flushed(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 64M", "write -P 1 1M 3M", "flush", "write -P 2 20M 3M", "crash")
    report = json.loads(qemu_img("check", "--output=json", a, ok=(0, 3)).stdout)
    assert not report.get("corruptions")
    blkio(a, "read -P 1 1M 3M", "check all")
    check(a)


def test_lazy_refcounts_set_and_clear_the_dirty_bit(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 64M lazy", "write -P 1 0 1M", "flush", "crash")
    assert struct.unpack(">Q", a.read_bytes()[72:80])[0] == 1
    blkio("-r", a, "read -P 1 0 1M")
    assert struct.unpack(">Q", a.read_bytes()[72:80])[0] == 1
    blkio(a, "read -P 1 0 1M")
    assert struct.unpack(">Q", a.read_bytes()[72:80])[0] == 0
    check(a)
    info = json.loads(qemu_img("info", "--output=json", a).stdout)
    assert info["format-specific"]["data"]["lazy-refcounts"] is True


def test_our_repairs_please_the_reference(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 16M cluster=4096", "random 3 200 64k")
    data = bytearray(a.read_bytes())
    table = struct.unpack(">Q", data[48:56])[0]
    block = struct.unpack(">Q", data[table:table + 8])[0]
    for i in range(20, 90, 7):
        data[block + 2 * i + 1] ^= 1 + i % 2
    a.write_bytes(data)
    theirs = qemu_img("check", a, ok=(2,)).stdout.split("\n")
    ours = blkio("-r", a, "check", ok=(1,)).stdout.split("\n")
    wanted = [x for x in theirs if " cluster " in x]
    assert len(wanted) >= 10
    assert [x for x in ours if " cluster " in x] == wanted
    blkio(a, "check all")
    check(a)


def test_unknown_header_extensions_survive(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 8M")
    data = bytearray(a.read_bytes())
    # In place of the end marker behind the feature names: one of our own, then the end.
    at = 112 + 8 + 384
    assert data[at:at + 8] == bytes(8)
    data[at:at + 24] = struct.pack(">II8sII", 0x12345678, 5, b"hello", 0, 0)
    a.write_bytes(data)
    blkio(a, "write 0 64k", "resize 4G", "resize 16M")
    assert a.read_bytes()[at:at + 24] == data[at:at + 24]
    check(a)


def test_bitmaps_of_others_survive_a_repair_and_a_write(tmp_path):
    a = tmp_path / "a.qcow2"
    blkio(a, "create 16M", "write 0 1M")
    for name in ("one", "two"):
        qemu_img("bitmap", "--add", a, name)
    qemu_io(a, "write 3M 64k")
    check(a)
    blkio(a, "check all")
    data = bytearray(a.read_bytes())
    assert struct.unpack(">Q", data[88:96])[0] == 1
    report = json.loads(qemu_img("info", "--output=json", a).stdout)
    bitmaps = report["format-specific"]["data"]["bitmaps"]
    assert [b["name"] for b in bitmaps] == ["one", "two"]
    assert not any("in-use" in b["flags"] for b in bitmaps)
    blkio(a, "write 5M 64k")
    assert struct.unpack(">Q", a.read_bytes()[88:96])[0] == 1
    report = json.loads(qemu_img("info", "--output=json", a).stdout)
    assert bitmaps == report["format-specific"]["data"]["bitmaps"]
    check(a)
