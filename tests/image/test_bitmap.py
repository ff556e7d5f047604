"""Persistent dirty bitmaps: made, dirtied, merged and read by either tool."""
import json
import os
import struct

import pytest

from lib.tools import TOP, check_image, cowimg, qemu_img, qemu_io, run

TOOLS = {"ours": cowimg, "reference": qemu_img}
EXTENSION = struct.pack(">II", 0x23852875, 24)


def directory(image):
    """What the file says of bitmaps: name -> (flags, granularity bits, table entries)."""
    data = image.read_bytes()
    at = data.find(EXTENSION)
    if at < 0:
        return {}
    n, _, size, place = struct.unpack_from(">IIQQ", data, at + 8)
    found, p = {}, place
    for _ in range(n):
        table, entries, flags, _, granularity, name_bytes, extra = \
            struct.unpack_from(">QIIBBHI", data, p)
        name = data[p + 24 + extra:p + 24 + extra + name_bytes].decode()
        found[name] = (flags, granularity, struct.unpack_from(">%dQ" % entries, data, table))
        p += (24 + extra + name_bytes + 7) // 8 * 8
    assert p == place + size
    return found


def dirty(image, name, cluster=65536):
    """Ranges (start, end) in granules that the bitmap has set."""
    data = image.read_bytes()
    size = struct.unpack_from(">Q", data, 24)[0]
    _, granularity, table = directory(image)[name]
    bits = bytearray()
    for entry in table:
        if entry == 1:
            bits += b"\xff" * cluster
        elif entry:
            bits += data[entry:entry + cluster].ljust(cluster, b"\0")
        else:
            bits += bytes(cluster)
    granules = -(-size // (1 << granularity))
    ranges = []
    for i in range(granules):
        if not bits[i // 8]:
            continue
        if bits[i // 8] >> (i % 8) & 1:
            if ranges and ranges[-1][1] == i:
                ranges[-1][1] = i + 1
            else:
                ranges.append([i, i + 1])
    return ranges


def bitmaps(image, tool=qemu_img):
    text = tool("info", "--output=json", image).stdout
    info = json.loads(text[text.index("{"):])
    return info["format-specific"]["data"].get("bitmaps", [])


def blkio(*args, **kw):
    """Reads and writes as a drive does."""
    return run(TOP / "build" / os.environ.get("COWVM_BUILD", "release") / "tests/image/blkio",
               *args, **kw)


@pytest.mark.parametrize("second", TOOLS)
@pytest.mark.parametrize("first", TOOLS)
def test_a_bitmap_of_one_tool_is_used_by_the_other(tmp_path, first, second):
    image = tmp_path / "i.qcow2"
    TOOLS[first]("create", "-f", "qcow2", image, "64M")
    TOOLS[first]("bitmap", "--add", image, "a")
    TOOLS[second]("bitmap", "--add", "--disable", "-g", "512", image, "b")
    assert bitmaps(image, cowimg) == bitmaps(image, qemu_img) == [
        {"flags": ["auto"], "name": "a", "granularity": 65536},
        {"flags": [], "name": "b", "granularity": 512}]
    qemu_io(image, "write 0 1M", "write 10M 4k", "discard 20M 64k")
    assert dirty(image, "a") == [[0, 16], [160, 161], [320, 321]]
    assert dirty(image, "b") == []
    TOOLS[second]("bitmap", "--merge", "a", image, "b")
    assert dirty(image, "b") == [[0, 2048], [20480, 20608], [40960, 41088]]
    TOOLS[first]("bitmap", "--enable", image, "b")
    TOOLS[second]("bitmap", "--clear", image, "a")
    assert dirty(image, "a") == []
    qemu_io(image, "write 32M 512")
    assert dirty(image, "b")[-1] == [65536, 65537]
    check_image(image)
    TOOLS[first]("bitmap", "--remove", image, "a")
    TOOLS[second]("bitmap", "--remove", image, "b")
    assert bitmaps(image) == [] == bitmaps(image, cowimg)
    assert directory(image) == {}
    check_image(image)


@pytest.mark.parametrize("cluster", [512, 4096, 65536, 2 << 20])
def test_what_our_program_writes_is_what_the_references_bitmap_would_hold(tmp_path, cluster):
    spans = [(0, 1024), (300 * 1024, 200 * 1024), (3 << 20, 512), ((4 << 20) - 512, 512)]
    made = {}
    for writer in TOOLS:
        image = tmp_path / (writer + ".qcow2")
        qemu_img("create", "-f", "qcow2", "-o", "cluster_size=%d" % cluster, image, "4M")
        for g in (512, 4096, 65536):
            qemu_img("bitmap", "--add", "-g", g, image, "g%d" % g)
        qemu_img("bitmap", "--add", "--disable", image, "off")
        if writer == "reference":
            qemu_io(image, *["write %d %d" % s for s in spans])
        else:
            blkio(image, *["write %d %d" % s for s in spans])
        check_image(image)
        made[writer] = {n: dirty(image, n, cluster) for n in ("g512", "g4096", "g65536", "off")}
        assert all("in-use" not in b["flags"] for b in bitmaps(image))
    assert made["ours"] == made["reference"]
    assert made["ours"]["off"] == []


def test_resizing_keeps_bits_and_gives_room(tmp_path):
    for shrink_to in ("32M", "33555968"):
        images = {}
        for tool in TOOLS:
            image = tmp_path / (tool + shrink_to)
            qemu_img("create", "-f", "qcow2", "-o", "cluster_size=4k", image, "64M")
            qemu_img("bitmap", "--add", "-g", "4k", image, "a")
            qemu_img("bitmap", "--add", "-g", "64k", image, "b")
            qemu_img("bitmap", "--add", "-g", "512", "--disable", image, "c")
            qemu_io(image, "write 1M 1M", "write 33550336 8k", "write 63M 1M")
            qemu_img("bitmap", "--merge", "a", image, "c")
            TOOLS[tool]("resize", image, "512M")
            TOOLS[tool]("resize", "--shrink", image, shrink_to)
            TOOLS[tool]("resize", image, "64M")
            check_image(image)
            images[tool] = [dirty(image, n, 4096) for n in "abc"]
        assert images["ours"] == images["reference"]


def test_a_table_of_ones_and_zeros_needs_no_clusters(tmp_path):
    image = tmp_path / "i"
    cowimg("create", "-f", "qcow2", "-o", "cluster_size=512", image, "8M")
    cowimg("bitmap", "--add", "-g", "512", image, "a")
    qemu_io(image, "write -z 0 8M")
    cowimg("bitmap", "--add", "-g", "512", image, "b")
    cowimg("bitmap", "--merge", "a", image, "b")
    assert set(directory(image)["b"][2]) == {1}
    qemu_img("bitmap", "--merge", "b", image, "a")
    assert dirty(image, "a", 512) == [[0, 16384]]
    check_image(image)


def set_flags(image, name, flags):
    data = bytearray(image.read_bytes())
    place = struct.unpack_from(">Q", data, data.find(EXTENSION) + 24)[0]
    at = data.find(name.encode(), place) - 24
    struct.pack_into(">I", data, at + 12, flags)
    image.write_bytes(data)


def both(tmp_path, original, *args, ok=None):
    """Run on copies by both tools: (status, output) without names; they must agree."""
    results = []
    for tool in (qemu_img, cowimg):
        work = tmp_path / "work"
        work.mkdir(exist_ok=True)
        for p in original if isinstance(original, list) else [original]:
            (work / p.name).write_bytes(p.read_bytes())
        done = tool(*args, ok=None, cwd=work)
        text = done.stdout.replace("cowimg", "qemu-img")
        text = "\n".join(line for line in text.splitlines() if "disk size" not in line)
        results.append((done.returncode, text))
    assert results[0] == results[1], args
    return results[0]


def test_an_inconsistent_bitmap_can_only_be_removed(tmp_path):
    image = tmp_path / "i.q"
    qemu_img("create", "-f", "qcow2", image, "1M")
    qemu_img("bitmap", "--add", image, "b0")
    qemu_img("bitmap", "--add", image, "b1")
    set_flags(image, "b0", 3)
    for args in (["--add", "i.q", "b0"], ["--clear", "i.q", "b0"], ["--enable", "i.q", "b0"],
                 ["--disable", "i.q", "b0"], ["--merge", "b0", "i.q", "b1"],
                 ["--merge", "b1", "i.q", "b0"]):
        status, text = both(tmp_path, image, "bitmap", *args)
        assert status == 1 and "b0" in text
    assert both(tmp_path, image, "resize", "i.q", "2M")[0] == 1
    assert "in-use" in both(tmp_path, image, "info", "i.q")[1]
    assert both(tmp_path, image, "bitmap", "--remove", "i.q", "b0") == (0, "")
    cowimg("bitmap", "--remove", image, "b0")
    check_image(image)
    assert [b["name"] for b in bitmaps(image)] == ["b1"]


LONG = "x" * 1023
BAD = [
    [], ["--add"], ["--add", "i.q"], ["i.q", "b"], ["--add", "i.q", "b0"],
    ["--add", "-g", "1000", "i.q", "n"], ["--add", "-g", "256", "i.q", "n"],
    ["--add", "-g", "4G", "i.q", "n"], ["--add", "-g", "2G", "i.q", "n"],
    ["--add", "-g", "x", "i.q", "n"], ["--add", "-g", "0", "i.q", "n"],
    ["--add", "-g", "-1", "i.q", "n"], ["--clear", "-g", "512", "i.q", "b0"],
    ["--clear", "i.q", "nosuch"], ["--remove", "i.q", "nosuch"], ["--enable", "i.q", "nosuch"],
    ["--disable", "i.q", "nosuch"], ["--merge", "nosuch", "i.q", "b0"],
    ["--merge", "b0", "i.q", "nosuch"], ["--merge", "b0", "i.q", "b0"], ["--add", "i.q", ""],
    ["--add", "i.q", LONG], ["--add", "nosuch.q", "b"], ["--add", "-b", "i.q", "i.q", "b"],
    ["--add", "-F", "qcow2", "i.q", "b"], ["--merge", "b0", "-b", "nosuch.q", "i.q", "b0"],
    ["--merge", "b0", "-b", "r.raw", "-F", "raw", "i.q", "b0"],
    ["--merge", "c0", "-b", "small.q", "i.q", "b0"], ["--merge", "b0", "-b", "i.q", "i.q", "b0"],
    ["--add", "--add", "i.q", "n"], ["--add", "--remove", "--add", "i.q", "n"],
    ["--remove", "--add", "i.q", "b0"], ["-U", "--add", "i.q", "n"],
    ["--add", "i.q", "n", "extra"], ["--bogus", "i.q", "n"], ["-g"], ["--merge", "i.q", "n"],
    ["--add", "--disable", "i.q", "n"], ["--disable", "--enable", "i.q", "b0"],
    ["--image-opts", "-f", "qcow2", "--add", "driver=qcow2,file.filename=i.q", "d"],
    ["--image-opts", "--add", "driver=qcow2,file.filename=i.q", "d"],
    ["--add", "-f", "nosuch", "i.q", "d"],
]


def test_command_lines_say_what_the_reference_says(tmp_path):
    image, raw, small = tmp_path / "i.q", tmp_path / "r.raw", tmp_path / "small.q"
    qemu_img("create", "-f", "qcow2", image, "64M")
    qemu_img("create", "-f", "qcow2", small, "1M")
    qemu_img("create", "-f", "raw", raw, "1M")
    qemu_img("bitmap", "--add", image, "b0")
    qemu_img("bitmap", "--add", small, "c0")
    for args in BAD:
        both(tmp_path, [image, raw, small], "bitmap", *args)


# What is wrong with the directory, and where: offsets from the extension ("x") or
# from the directory ("d").
HOSTILE = [
    ("x", 8, ">I", 0), ("x", 8, ">I", 70000), ("x", 8, ">I", 3), ("x", 8, ">I", 1),
    ("x", 12, ">I", 1), ("x", 16, ">Q", 0), ("x", 16, ">Q", 1 << 40), ("x", 16, ">Q", 67107841),
    ("x", 24, ">Q", 8), ("x", 24, ">Q", 1 << 62), ("x", 24, ">Q", 1 << 50), ("x", 4, ">I", 32),
    ("d", 0, ">Q", 0), ("d", 0, ">Q", 0x1b0008), ("d", 8, ">I", 0), ("d", 8, ">I", 0xffffffff),
    ("d", 8, ">I", 9000), ("d", 12, ">I", 0x80000002), ("d", 12, ">I", 6), ("d", 16, ">B", 2),
    ("d", 17, ">B", 8), ("d", 17, ">B", 32), ("d", 18, ">H", 5000), ("d", 20, ">I", 8),
    ("d", 56, "2s", b"b0"), ("d", 17, ">B", 9), ("d", 0, ">Q", 1 << 40),
]


@pytest.mark.parametrize("where,offset,form,value", HOSTILE)
def test_a_hostile_directory_is_refused_as_the_reference_does_it(tmp_path, where, offset, form,
                                                                 value):
    image = tmp_path / "i.q"
    qemu_img("create", "-f", "qcow2", image, "64M")
    qemu_img("bitmap", "--add", image, "b0")
    qemu_img("bitmap", "--add", image, "b1")
    data = bytearray(image.read_bytes())
    at = data.find(EXTENSION)
    if where == "d":
        at = struct.unpack_from(">Q", data, at + 24)[0]
    struct.pack_into(form, data, at + offset, value)
    image.write_bytes(data)
    status, text = both(tmp_path, image, "info", "i.q")
    if status == 0:
        return
    both(tmp_path, image, "bitmap", "--add", "i.q", "zz")
    if (where, offset) == ("x", 4):
        return  # the header itself is not readable
    # The reference cannot check such an image; we can, and repair it.
    done = cowimg("check", image, ok=(2,))
    assert "ERROR: " in done.stdout and "leaked clusters" in done.stdout
    done = cowimg("check", "-r", "all", image)
    assert "    1 corruptions\n" in done.stdout
    check_image(image)
    assert bitmaps(image) == []


def test_a_crash_leaves_automatic_bitmaps_marked_and_others_valid(tmp_path):
    image = tmp_path / "i"
    qemu_img("create", "-f", "qcow2", image, "16M")
    qemu_img("bitmap", "--add", image, "auto")
    qemu_img("bitmap", "--add", image, "other")
    qemu_io(image, "write 1M 64k")
    qemu_img("bitmap", "--disable", image, "other")
    blkio(image, "write 0 64k", "flush", "crash", ok=None)
    assert [b["flags"] for b in bitmaps(image)] == [["in-use", "auto"], []]
    assert bitmaps(image, cowimg) == bitmaps(image)
    check_image(image)
    assert dirty(image, "other") == [[16, 17]]
    blkio(image, "write 2M 64k")  # goes on without the one that is inconsistent
    assert [b["flags"] for b in bitmaps(image)] == [["in-use", "auto"], []]
    cowimg("bitmap", "--remove", image, "auto")
    check_image(image)


def test_reading_leaves_the_file_alone(tmp_path):
    image = tmp_path / "i"
    qemu_img("create", "-f", "qcow2", image, "16M")
    qemu_img("bitmap", "--add", image, "a")
    before = image.read_bytes()
    cowimg("info", image)
    cowimg("check", image)
    blkio("-r", image, "read 0 1M")
    blkio(image, "read 0 1M")
    assert [b["name"] for b in bitmaps(image)] == ["a"]
    check_image(image)


def test_bits_of_another_image_are_merged(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    for image, granularity in ((a, "4k"), (b, "1M")):
        qemu_img("create", "-f", "qcow2", image, "16M")
        cowimg("bitmap", "--add", "-g", granularity, image, "m")
    qemu_io(a, "write 5000k 8k")
    qemu_io(b, "write 2M 3M")
    cowimg("bitmap", "--merge", "m", "-b", b, "-F", "qcow2", a, "m")
    assert dirty(a, "m") == [[512, 1280]]
    cowimg("bitmap", "--merge", "m", "-b", a, b, "m")
    assert dirty(b, "m") == [[2, 5]]
    check_image(a)
    check_image(b)


def test_a_read_only_program_without_bitmaps_makes_them_stale(tmp_path):
    image = tmp_path / "i.q"
    qemu_img("create", "-f", "qcow2", image, "1M")
    qemu_img("bitmap", "--add", image, "b0")
    data = bytearray(image.read_bytes())
    data[88:96] = bytes(8)  # autoclear bits
    image.write_bytes(data)
    done = cowimg("info", image)
    assert "a program lacking bitmap support modified this file" in done.stdout
    assert bitmaps(image) == []
    cowimg("check", image, ok=(3,))
    cowimg("bitmap", "--add", image, "fresh")
    cowimg("check", "-r", "leaks", image)
    check_image(image)
    assert [b["name"] for b in bitmaps(image)] == ["fresh"]


def test_no_snapshot_is_applied_beside_bitmaps(tmp_path):
    """The bits would no longer tell what changed."""
    image = tmp_path / "i"
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=512", image, "16M")
    qemu_img("snapshot", "-c", "large", image)
    qemu_img("bitmap", "--add", "-g", "512", image, "a")
    ours = cowimg("snapshot", "-a", "large", image, ok=(1,)).stdout
    theirs = qemu_img("snapshot", "-a", "large", image, ok=(1,)).stdout
    assert ours.split(":", 1)[1] == theirs.split(":", 1)[1]
    assert [b["name"] for b in bitmaps(image)] == ["a"]
    check_image(image)
