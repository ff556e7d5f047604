"""Compressed clusters, zlib and zstd: what one program packs the other reads, checks
clean, overwrites and discards; sizes; damage; what check and info say about it."""
import os
import random
import struct

import pytest
from tools import TOP, cowimg, qemu_img, qemu_io, run

BLKIO = str(TOP / "build" / os.environ.get("COWVM_BUILD", "release") / "tests/image/blkio")
SIZE = (6 << 20) + 1536
KINDS = [("zlib", 512), ("zlib", 4096), ("zlib", 65536), ("zlib", 2 << 20),
         ("zstd", 1024), ("zstd", 65536), ("zstd", 2 << 20)]
ENTRY_COPIED, ENTRY_COMPRESSED = 1 << 63, 1 << 62


def blkio(*args, **kw):
    return run(BLKIO, *args, **kw)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Real data: a program, some noise, zeros, and a program again."""
    path = tmp_path_factory.mktemp("data") / "disk.raw"
    code = open("/usr/bin/python3", "rb").read()
    data = code[:3 << 20] + random.Random(4).randbytes(1 << 20) + bytes(1 << 20) + code
    path.write_bytes(data[:SIZE])
    assert path.stat().st_size == SIZE
    return path


def same(a, b):
    """Texts of the two programs, but for the name."""
    return a.stdout.replace("cowimg", "qemu-img") == b.stdout and a.returncode == b.returncode


def check_alike(image, ok=(0,)):
    """Both check it, with the same words; the text."""
    ours, theirs = cowimg("check", image, ok=ok), qemu_img("check", image, ok=ok)
    assert same(ours, theirs), (ours.stdout, theirs.stdout)
    return theirs.stdout


def pack(image, raw, kind, cluster, *create):
    words = ["create", str(SIZE), "cluster=%d" % cluster, *create]
    if kind == "zstd":
        words.append("zstd")
    blkio(image, " ".join(words), "fill %s" % raw)


def theirs(image, raw, kind, cluster):
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o",
             "cluster_size=%d,compression_type=%s" % (cluster, kind), raw, image)


@pytest.mark.parametrize("kind,cluster", KINDS)
def test_what_the_reference_packs_is_read_and_checked(tmp_path, raw, kind, cluster):
    image = tmp_path / "a.qcow2"
    theirs(image, raw, kind, cluster)
    blkio("-r", image, "same %s" % raw)
    assert "% compressed clusters" in check_alike(image)


@pytest.mark.parametrize("kind,cluster", KINDS)
def test_what_is_packed_the_reference_reads_and_checks(tmp_path, raw, kind, cluster):
    image, other = tmp_path / "a.qcow2", tmp_path / "b.qcow2"
    pack(image, raw, kind, cluster)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", image, raw)
    assert "No errors" in check_alike(image)
    blkio("-r", image, "same %s" % raw)
    theirs(other, raw, kind, cluster)
    zeros = (1 << 20) // cluster * 64  # the reference leaves them out
    room = zeros + cluster + 40000
    assert abs(image.stat().st_size - other.stat().st_size) < \
        0.02 * other.stat().st_size + room


@pytest.mark.parametrize("options", ["compression_type=zlib", "compression_type=zstd",
                                     "compat=0.10,cluster_size=4k",
                                     "extended_l2=on,compression_type=zstd"])
def test_convert_compresses_and_unpacks(tmp_path, raw, options):
    ours, ref, back = tmp_path / "a.qcow2", tmp_path / "b.qcow2", tmp_path / "back"
    cowimg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, ours)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, ref)
    qemu_img("compare", "-f", "qcow2", "-F", "raw", ours, raw)
    assert abs(ours.stat().st_size - ref.stat().st_size) < 0.02 * ref.stat().st_size
    for image in (ours, ref):
        assert "No errors" in check_alike(image)
        assert same(cowimg("map", "--output=json", image), qemu_img("map", "--output=json", image))
        cowimg("convert", "-f", "qcow2", "-O", "raw", image, back)
        assert back.read_bytes() == raw.read_bytes()
    again = tmp_path / "again.qcow2"  # the same bytes, however the threads ran
    cowimg("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, again)
    assert again.read_bytes() == ours.read_bytes()


def test_version_2_and_narrow_refcounts_take_compressed_clusters(tmp_path, raw):
    for create in (["version=2"], ["refcount=1"], ["refcount=2"], ["refcount=64"], ["lazy"]):
        image = tmp_path / "a.qcow2"
        pack(image, raw, "zlib", 4096, *create)
        qemu_img("compare", "-f", "qcow2", "-F", "raw", image, raw)
        assert "No errors" in check_alike(image)
        image.unlink()


def changes(seed, cluster, n):
    """Requests over an image of SIZE, as blkio and as qemu-io words them, and what
    they do to a flat file."""
    rnd = random.Random(seed)
    both = []
    for _ in range(n):
        length = rnd.choice([512, 4096, cluster, 3 * cluster + 1024, rnd.randrange(1, 300) * 512])
        length = min(length, 600 << 10)
        at = rnd.randrange(0, (SIZE - length) // 512) * 512
        kind = rnd.randrange(6)
        if kind < 4:
            byte = rnd.randrange(1, 256)
            both.append((at, length, byte, "write -P %d %d %d" % (byte, at, length),
                         "write -P %d %d %d" % (byte, at, length)))
        else:
            both.append((at, length, 0, "zero -u %d %d" % (at, length),
                         "write -z -u %d %d" % (at, length)))
    return both


@pytest.mark.parametrize("kind,cluster", [("zlib", 512), ("zlib", 65536), ("zstd", 65536)])
def test_each_overwrites_what_the_other_packed(tmp_path, raw, kind, cluster):
    a, b, flat = tmp_path / "a.qcow2", tmp_path / "b.qcow2", tmp_path / "flat"
    pack(a, raw, kind, cluster)
    theirs(b, raw, kind, cluster)
    todo = changes(cluster, cluster, 60)
    want = bytearray(raw.read_bytes())
    for at, length, byte, _, _ in todo:
        want[at:at + length] = bytes([byte]) * length
    flat.write_bytes(want)
    blkio(b, *[t[3] for t in todo])
    qemu_io(a, *[t[4] for t in todo])
    for image in (a, b):
        qemu_img("compare", "-f", "qcow2", "-F", "raw", image, flat)
        blkio("-r", image, "same %s" % flat)
        assert "No errors" in check_alike(image)
    blkio(a, "discard 0 %d" % SIZE)
    assert "leaked" not in check_alike(a)


def test_a_snapshot_keeps_its_compressed_clusters(tmp_path, raw):
    image = tmp_path / "a.qcow2"
    pack(image, raw, "zlib", 65536)
    qemu_img("snapshot", "-c", "before", image)
    blkio(image, *[t[3] for t in changes(9, 65536, 60)])
    assert "No errors" in check_alike(image)
    qemu_img("snapshot", "-a", "before", image)
    blkio("-r", image, "same %s" % raw)
    qemu_img("snapshot", "-d", "before", image)
    blkio(image, *[t[3] for t in changes(10, 65536, 60)])
    assert "No errors" in check_alike(image)


def test_packing_is_refused_where_the_reference_refuses(tmp_path):
    image = tmp_path / "a.qcow2"
    blkio(image, "create 1M", "pack -P 1 0 64k", "write -P 2 64k 64k", "zero 128k 64k",
          "write -P 3 192k 64k", "zero 192k 64k")
    cases = [("0 64k", "Input/output error"), ("64k 64k", "Input/output error"),
             ("192k 64k", "Input/output error"), ("300k 64k", "Invalid argument"),
             ("320k 32k", "Invalid argument"), ("128k 64k", None), ("320k 128k", None)]
    for where, error in cases:
        copy = tmp_path / "copy.qcow2"
        copy.write_bytes(image.read_bytes())
        ref = run("qemu-io", "-f", "qcow2", "-c", "write -c -P 9 " + where, copy, ok=(0, 1))
        ours = blkio(image, "pack -P 9 " + where, ok=(0, 1))
        assert (ours.returncode, ref.returncode) == ((1, 1) if error else (0, 0)), where
        if error:
            assert error in ours.stdout and error in ref.stdout
    check_alike(image)


def test_info_names_the_compression_type(tmp_path):
    for kind in ("zlib", "zstd"):
        a, b = tmp_path / ("a" + kind), tmp_path / ("b" + kind)
        cowimg("create", "-q", "-f", "qcow2", "-o", "compression_type=" + kind, a, "1M")
        qemu_img("create", "-q", "-f", "qcow2", "-o", "compression_type=" + kind, b, "1M")
        assert a.read_bytes()[72:112] == b.read_bytes()[72:112]
        ours, ref = cowimg("info", a).stdout, qemu_img("info", a).stdout
        assert ours == ref and "compression type: " + kind in ours
        blkio(a, "pack -P 7 0 128k")
        qemu_io(a, "read -P 7 0 128k")


# --- damage ------------------------------------------------------------------------


def l2_offset(data):
    l1 = struct.unpack_from(">Q", data, 40)[0]
    return struct.unpack_from(">Q", data, l1)[0] & 0x00fffffffffffe00


def refcount_offset(data, cluster):
    table = struct.unpack_from(">Q", data, 48)[0]
    return struct.unpack_from(">Q", data, table)[0] + 2 * cluster


@pytest.fixture
def packed(tmp_path):
    image, source = tmp_path / "a.qcow2", tmp_path / "source"
    rnd = random.Random(3)
    source.write_bytes(b"".join(rnd.randbytes(1000) + b"a" * 3096 for _ in range(256)))
    blkio(image, "create 1M", "fill %s" % source)
    return image


def damage(image, at, fmt, value):
    data = bytearray(image.read_bytes())
    struct.pack_into(fmt, data, at(data), value(data))
    image.write_bytes(data)


def first_entry(data):
    return struct.unpack_from(">Q", data, l2_offset(data))[0]


ENTRIES = {
    "a copied flag": lambda e: e | ENTRY_COPIED,
    "a leak": lambda e: 0,
    "a place beyond the end": lambda e: e & ~0xffffffff | 0x10000000,
    "all sectors of the metadata": lambda e: ENTRY_COMPRESSED | 255 << 54 | 0x10000,
    "the largest of all": lambda e: ENTRY_COMPRESSED | (1 << 62) - 1,
}


@pytest.mark.parametrize("name", ENTRIES)
def test_check_words_damaged_descriptors_as_the_reference(packed, name):
    damage(packed, l2_offset, ">Q", lambda d: ENTRIES[name](first_entry(d)))
    text = check_alike(packed, ok=(2, 3))
    assert "ERROR" in text or "Leaked" in text
    if name == "a copied flag":
        assert "copied flag must never be set for compressed clusters" in text


def test_check_repairs_refcounts_of_shared_clusters(packed):
    cluster = (first_entry(packed.read_bytes()) & 0xffffffff) >> 16
    for value, status in ((1, 2), (200, 3)):
        damage(packed, lambda d: refcount_offset(d, cluster), ">H", lambda d: value)
        check_alike(packed, ok=(status,))
        cowimg("check", "-r", "all", packed)
        assert "No errors" in check_alike(packed)


def test_a_damaged_cluster_is_an_error_and_its_neighbours_are_not(packed):
    good = packed.read_bytes()
    start = first_entry(good) & 0xffffffff
    for junk in (b"\xff" * 4000, bytes(4000), good[start + 100:start + 4100]):
        data = bytearray(good)
        data[start:start + len(junk)] = junk
        packed.write_bytes(data)
        for command in ("read 0 512", "read 0 64k", "read 0 1M"):
            done = blkio("-r", packed, command, ok=(1,))
            assert "Input/output error" in done.stdout
        blkio("-r", packed, "read 64k 960k")
        assert "failed: Input/output error" in run(
            "qemu-io", "-r", "-f", "qcow2", "-c", "read 0 512", packed, ok=(1,)).stdout
        done = blkio(packed, "write 0 512", ok=(1,))  # the rest of it is not known
        assert "Input/output error" in done.stdout
        blkio(packed, "write -P 5 0 64k", "read -P 5 0 64k")
        assert "No errors" in check_alike(packed)


def test_a_file_that_ends_in_the_last_sector_is_whole(packed):
    """The descriptor counts sectors; the file may end before."""
    data = packed.read_bytes()
    assert len(data) % 512
    assert "No errors" in check_alike(packed)
    blkio("-r", packed, "read 960k 64k")
    packed.write_bytes(data[:len(data) - 12000])  # now a part is missing
    ours = blkio("-r", packed, "read 960k 64k", ok=(0, 1)).returncode
    assert ours == run("qemu-io", "-r", "-f", "qcow2", "-c", "read 960k 64k", packed,
                       ok=(0, 1)).returncode
