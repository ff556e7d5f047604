"""cowimg snapshot next to qemu-img: words, lists, damaged tables, both on one image."""
import random
import re
import resource
import shutil
import struct
import subprocess

import pytest

from tools import COWIMG, SLOW, check_image, cowimg, qemu_img, qemu_io, run


def make(path, *options, size="64M", fmt=()):
    qemu_img("create", "-q", "-f", "qcow2", *(("-o", ",".join(options)) if options else ()), path,
             size)
    return path


def table(path):
    """(fixed part, extra data, id, name) of each entry, and where the table is."""
    data = path.read_bytes()
    count, at = struct.unpack(">IQ", data[60:72])
    start, entries = at, []
    for _ in range(count):
        fixed = struct.unpack(">QIHHIIQII", data[at:at + 40])
        idb, nameb, extra = fixed[2], fixed[3], fixed[8]
        body = data[at + 40:at + 40 + extra + idb + nameb]
        entries.append((fixed, body[:extra], body[extra:extra + idb], body[extra + idb:]))
        at += (40 + len(body) + 7) // 8 * 8
    return entries, start


def forge(path, change, count=None):
    """Rewrite the table in place; change(i, fields) edits a dict."""
    entries, start = table(path)
    out = b""
    for i, (fixed, extra, idb, name) in enumerate(entries):
        d = dict(l1=fixed[0], n=fixed[1], clock=fixed[6], size=fixed[7], extra=extra, id=idb,
                 name=name)
        change(i, d)
        out += struct.pack(">QIHHIIQII", d["l1"], d["n"], len(d["id"]), len(d["name"]), fixed[4],
                           fixed[5], d["clock"], d["size"], len(d["extra"]))
        out += d["extra"] + d["id"] + d["name"]
        out += b"\0" * (-len(out) % 8)
    data = bytearray(path.read_bytes())
    data[start:start + len(out)] = out
    if count is not None:
        data[60:64] = struct.pack(">I", count)
    path.write_bytes(data)


def words(program, *args, cwd):
    done = subprocess.run([program, *map(str, args)], cwd=cwd, capture_output=True, text=True,
                          timeout=60 * SLOW)
    name = program.rsplit("/", 1)[-1]
    return done.returncode, done.stdout, (done.stderr.replace(name, "PROGRAM")
                                          .replace("cowimg", "PROGRAM")
                                          .replace("qemu-img", "PROGRAM"))


def same(tmp_path, make_image, *args):
    """Both programs do it to images alike: status, words, and the second's check."""
    results = []
    for side, program in (("ours", COWIMG), ("theirs", "qemu-img")):
        folder = tmp_path / side
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(make_image, folder / "a.qcow2")
        (folder / "r.raw").write_bytes(bytes(1 << 20))
        results.append(words(program, *args, cwd=folder))
    assert results[0] == results[1]
    return results[0]


@pytest.fixture
def three(tmp_path):
    image = make(tmp_path / "three.qcow2")
    for i, name in enumerate(("one", "two", "one")):
        qemu_io(image, "write -P %d 0 256k" % (i + 1))
        qemu_img("snapshot", "-c", name, image)
    qemu_img("snapshot", "-c", "2", image)
    qemu_img("snapshot", "-c", "a name that is longer than its column", image)
    return image


@pytest.mark.parametrize("args", [
    ("-l", "a.qcow2"), ("-d", "nosuch", "a.qcow2"), ("-a", "nosuch", "a.qcow2"), ("a.qcow2",), (),
    ("-l",), ("-l", "-c", "x", "a.qcow2"), ("-c", "x", "-d", "y", "a.qcow2"), ("-c", "x"), ("-c",),
    ("-l", "nofile"), ("-l", "a.qcow2", "b"), ("-z", "a.qcow2"), ("-q", "-l", "a.qcow2"),
    ("-U", "-l", "a.qcow2"), ("-d", "5", "a.qcow2"), ("-d", "one", "a.qcow2"),
    ("-d", "2", "a.qcow2"),
    ("--image-opts", "-l", "driver=qcow2,file.filename=a.qcow2"),
    ("--image-opts", "-l", "driver=raw,file.filename=r.raw"),
    ("--image-opts", "-c", "x", "driver=raw,file.filename=r.raw"),
    ("--image-opts", "-a", "x", "driver=raw,file.filename=r.raw"),
    ("--image-opts", "-d", "x", "driver=raw,file.filename=r.raw"),
], ids=" ".join)
def test_the_words_are_the_references(tmp_path, three, args):
    same(tmp_path, three, "snapshot", *args)


def test_info_shows_the_same_list(tmp_path, three):
    ours, theirs = (words(p, "info", three.name, cwd=tmp_path)[1] for p in (COWIMG, "qemu-img"))
    assert ours == theirs
    import json
    ours, theirs = (json.loads(words(p, "info", "--output=json", three.name, cwd=tmp_path)[1])
                    for p in (COWIMG, "qemu-img"))
    assert ours["snapshots"] == theirs["snapshots"] and len(ours["snapshots"]) == 5


def test_names_and_ids_choose_as_in_the_reference(three):
    cowimg("snapshot", "-a", "2", three)        # the id comes before the name
    qemu_io(three, "read -P 2 0 256k")
    cowimg("snapshot", "-d", "2", three)        # deleted by name only
    ids = [e[2] for e in table(three)[0]]
    assert ids == [b"1", b"2", b"3", b"5"]
    cowimg("snapshot", "-c", "next", three)
    assert table(three)[0][-1][2:] == (b"6", b"next")
    check_image(three)


SHAPES = [("cluster_size=512",), ("cluster_size=2M",), ("compat=0.10",), ("refcount_bits=64",),
          ("refcount_bits=4", "cluster_size=4k"), ("lazy_refcounts=on",), ("extended_l2=on",), ()]


@pytest.mark.parametrize("options", SHAPES, ids=",".join)
def test_both_programs_work_on_one_image(tmp_path, options):
    rng = random.Random(str(options))
    image = make(tmp_path / "a.qcow2", *options, size="4M")
    now, kept = bytearray(4 << 20), {}
    for step in range(40):
        tool = (cowimg, qemu_img)[rng.randrange(2)]
        what = rng.randrange(7)
        name = rng.choice(sorted(kept)) if kept else None
        if what < 3:
            at, n = rng.randrange(60) * 65536, rng.randrange(1, 60) * 1024
            qemu_io(image, "write -P %d %d %d" % (step + 1, at, n))
            now[at:at + n] = bytes([step + 1]) * n
        elif what < 5 and len(kept) < 6:
            tool("snapshot", "-c", "s%d" % step, image)
            kept["s%d" % step] = bytes(now)
        elif what == 5 and name:
            tool("snapshot", "-a", name, image)
            now[:] = kept[name]
        elif name:
            tool("snapshot", "-d", name, image)
            del kept[name]
        if step % 8 == 7:
            check_image(image)
    check_image(image)
    raw = tmp_path / "raw"
    for name, want in kept.items():
        qemu_img("convert", "-l", "snapshot.name=" + name, "-O", "raw", image, raw)
        assert raw.read_bytes() == want
    qemu_img("convert", "-O", "raw", image, raw)
    assert raw.read_bytes() == bytes(now)


def test_compressed_clusters_are_counted(tmp_path):
    raw, image = tmp_path / "raw", tmp_path / "a.qcow2"
    raw.write_bytes(b"".join(bytes([i]) * 65536 for i in range(64)))
    qemu_img("convert", "-c", "-O", "qcow2", raw, image)
    cowimg("snapshot", "-c", "one", image)
    qemu_io(image, "write -P 200 0 1M")
    cowimg("snapshot", "-c", "two", image)
    check_image(image)
    cowimg("snapshot", "-d", "one", image)
    check_image(image)
    cowimg("snapshot", "-a", "two", image)
    qemu_io(image, "read -P 200 0 1M", "read -P 63 4032k 64k")
    cowimg("snapshot", "-d", "two", image)
    check_image(image)


@pytest.mark.parametrize("size", ["128M", "32M"])
def test_apply_brings_the_size_back(tmp_path, size):
    image = make(tmp_path / "a.qcow2")
    qemu_io(image, "write -P 7 0 64k", "write -P 8 60M 64k")
    cowimg("snapshot", "-c", "x", image)
    qemu_img("resize", "--shrink", image, size)
    cowimg("snapshot", "-a", "x", image)
    assert "64 MiB (67108864 bytes)" in qemu_img("info", image).stdout
    qemu_io(image, "read -P 7 0 64k", "read -P 8 60M 64k")
    check_image(image)


def test_a_refcount_that_would_overflow_is_refused(tmp_path):
    image = make(tmp_path / "a.qcow2", "refcount_bits=1")
    qemu_io(image, "write 0 64k")
    code, _, err = words(COWIMG, "snapshot", "-c", "x", image, cwd=tmp_path)
    assert (code, err) == (1, "PROGRAM: Could not create snapshot 'x': -22 (Invalid argument)\n")
    check_image(image)


def test_a_data_file_has_no_snapshots(tmp_path):
    image = make(tmp_path / "a.qcow2", "data_file=" + str(tmp_path / "d"))
    code, _, err = words(COWIMG, "snapshot", "-c", "x", image, cwd=tmp_path)
    assert (code, err) == (1, "PROGRAM: Could not create snapshot 'x': -95 (Operation not "
                              "supported)\n")


# --- damaged tables -------------------------------------------------------------------------

def known(disk=64 << 20, state=0, icount=0):
    return struct.pack(">QQQ", state, disk, icount)


DAMAGE = {
    "no extra data": lambda i, d: d.update(extra=b""),
    "no icount": lambda i, d: d.update(extra=known(state=5 << 30)[:16], clock=3723456000000),
    "unknown extra data": lambda i, d: d.update(extra=known(icount=9) + b"x" * 40),
    "too much extra data": lambda i, d: i == 1 and d.update(extra=known() + b"x" * 1076),
    "L1 unaligned": lambda i, d: i == 1 and d.update(l1=0x12345),
    "L1 behind the end": lambda i, d: i == 1 and d.update(l1=0x12340000),
    "L1 too long": lambda i, d: i == 1 and d.update(n=0x10000000),
    "long names": lambda i, d: i == 1 and d.update(id=b"x" * 400, name=b"y" * 500),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_table_is_reported_and_repaired_as_by_the_reference(tmp_path, damage):
    image = make(tmp_path / "d.qcow2")
    qemu_io(image, "write -P 5 0 64k")
    for name in ("s0", "s1"):
        qemu_img("snapshot", "-c", name, image)
    forge(image, DAMAGE[damage])
    for args in (("snapshot", "-l"), ("check",), ("snapshot", "-d", "s1"), ("snapshot", "-a", "s1"),
                 ("check", "-r", "leaks")):
        if damage == "L1 behind the end" and args[-1] == "s1":
            continue    # theirs reads zeros there and goes on
        ours = same_but_ends(tmp_path, image, *args, "a.qcow2")
        if damage.startswith("L1") and args == ("check",):
            assert ours[0] == 2
    cowimg("check", "-r", "all", image, ok=(0, 2))
    theirs = qemu_img("check", image, ok=(0, 2))
    assert theirs.returncode == (2 if damage.startswith("L1") else 0), theirs.stdout
    qemu_io(image, "read -P 5 0 64k")
    if not damage.startswith("L1"):
        check_image(image)
        assert cowimg("snapshot", "-l", image).stdout == qemu_img("snapshot", "-l", image).stdout


def same_but_ends(tmp_path, image, *args):
    """As same(), but where the image ends, and how repairs are told, may differ."""
    def trim(result):
        code, out, err = result
        out = re.sub(r"Image end offset: \d+", "", out)
        if "-r" in args:
            return code, "", ""
        return code, out, err
    results = []
    for side, program in (("ours", COWIMG), ("theirs", "qemu-img")):
        folder = tmp_path / side
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(image, folder / "a.qcow2")
        results.append(trim(words(program, *args, cwd=folder)))
    assert results[0] == results[1]
    return results[0]


def test_entries_that_are_not_there_become_whole(tmp_path):
    image = make(tmp_path / "a.qcow2")
    qemu_img("snapshot", "-c", "s0", image)
    forge(image, lambda i, d: None, count=4)
    assert "ERROR snapshot table entry 3 is incomplete" in cowimg("check", image, ok=(2,)).stdout
    done = cowimg("check", "-r", "all", image)
    assert "Repairing snapshot table entry 1 is incomplete" in done.stdout
    assert "    3 corruptions" in done.stdout
    check_image(image)
    assert cowimg("snapshot", "-l", image).stdout == qemu_img("snapshot", "-l", image).stdout


def test_unknown_extra_data_survives_other_changes(tmp_path):
    image = make(tmp_path / "a.qcow2")
    qemu_img("snapshot", "-c", "s0", image)
    forge(image, DAMAGE["unknown extra data"])
    cowimg("snapshot", "-c", "s1", image)
    assert table(image)[0][0][1] == known(icount=9) + b"x" * 40
    check_image(image)


# --- no room ----------------------------------------------------------------------------------

def test_a_full_disk_leaves_the_image_whole(tmp_path):
    image = make(tmp_path / "a.qcow2", "cluster_size=4k", size="8M")
    qemu_io(image, "write -P 1 0 4M")
    cowimg("snapshot", "-c", "one", image)
    qemu_io(image, "write -P 2 0 4M")
    limit = image.stat().st_size + 4096

    def narrow():
        import signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    for args in (("-c", "two"), ("-a", "one"), ("-d", "one")):
        done = run(COWIMG, "snapshot", *args, image, ok=(0, 1), preexec_fn=narrow)
        left = qemu_img("check", image, ok=(0, 3))
        assert "ERROR" not in left.stdout
        if done.returncode:
            assert "File too large" in done.stdout or "No space" in done.stdout
    cowimg("check", "-r", "all", image)
    check_image(image)
