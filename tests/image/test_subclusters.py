"""Extended L2 entries and external data files, beside the reference."""
import json
import os
import random
import shutil

import pytest

from tools import COWIMG, check_image, cowimg, qemu_img, qemu_io, run, TOP
from test_cowimg import both, same

BLKIO = os.environ.get("BLKIO") or TOP / "build/release/tests/image/blkio"


def blkio(image, *commands, **kw):
    return run(BLKIO, *kw.pop("flags", ()), image, *commands, **kw)


def map_of(tool, image):
    return json.loads(tool("map", "--output=json", image).stdout)


def our_map(image):
    """What blkio's map says, in the words of the reference's, for one image alone."""
    out = []
    for line in blkio(image, "map", flags=("-r", "-n")).stdout.splitlines():
        words = line.split()
        e = {"start": int(words[0]), "length": int(words[1]), "depth": 0,
             "present": "hole" not in words, "data": "data" in words}
        e["zero"] = "zero" in words or not e["present"]
        if "at" in words:
            e["offset"] = int(words[-1])
        out.append(e)
    return merged(out)


def merged(extents):
    out = []
    for e in extents:
        e = {k: v for k, v in e.items() if k != "compressed"}
        e["zero"] = not e["data"]  # holes in the host file do not count
        last = out[-1] if out else None
        if last and all(last[k] == e[k] for k in ("depth", "present", "zero", "data")) and \
                ("offset" in last) == ("offset" in e) and \
                e.get("offset", 0) == (last["offset"] + last["length"] if "offset" in e else 0):
            last["length"] += e["length"]
        else:
            out.append(dict(e))
    return out


def operations(rng, size, n):
    """The same random requests for both tools."""
    ours, theirs = [], []
    for i in range(n):
        start = rng.randrange(size // 512) * 512
        length = min(size - start, rng.choice((512, 1536, 4096, 10240, 65536, 200 * 1024)))
        what = rng.choice(("write", "write", "write", "zero", "unmap", "flush"))
        byte = rng.randrange(1, 256)
        if what == "write":
            ours.append("write -P %d %d %d" % (byte, start, length))
            theirs.append("write -P %d %d %d" % (byte, start, length))
        elif what == "flush":
            ours.append("flush")
            theirs.append("flush")
        else:
            flag = "-u " if what == "unmap" else ""
            ours.append("zero %s%d %d" % (flag, start, length))
            theirs.append("write -z %s%d %d" % (flag, start, length))
    return ours, theirs


def make(tmp_path, options, size="1M", backing=False):
    """The same image twice, made by the reference, side by side with its backing.  A
    data file is named by its whole path: names count from the current folder."""
    pair = []
    for who in ("ours", "theirs"):
        work = tmp_path / who
        work.mkdir()
        args = []
        if backing:
            qemu_img("create", "-f", "raw", work / "base", size)
            qemu_io(work / "base", "write -P 77 0 700k", fmt="raw")
            args = ["-b", "base", "-F", "raw"]
        qemu_img("create", "-f", "qcow2", "-o",
                 options.replace("data_file=d", "data_file=%s/d" % work), *args, "a", size,
                 cwd=work)
        pair.append(work / "a")
    return pair


@pytest.mark.parametrize("backing", (False, True), ids=("alone", "overlay"))
@pytest.mark.parametrize("cluster", ("16k", "64k", "256k", "2M"))
def test_both_leave_the_same_content_and_map_behind(tmp_path, cluster, backing):
    rng = random.Random(cluster + str(backing))
    ours, theirs = make(tmp_path, "extended_l2=on,cluster_size=" + cluster, "3M", backing)
    for _ in range(3):
        mine, other = operations(rng, 3 << 20, 25)
        blkio(ours, *mine)
        qemu_io(theirs, *other)
        assert qemu_img("compare", ours, theirs).stdout == "Images are identical.\n"
        check_image(ours)
        check_image(theirs)
        # each goes on with what the other left
        ours, theirs = theirs, ours
    if not backing:
        assert our_map(ours) == merged(map_of(qemu_img, ours))
        assert our_map(theirs) == merged(map_of(qemu_img, theirs))


def test_a_small_write_takes_one_subcluster(tmp_path):
    ours, theirs = make(tmp_path, "extended_l2=on,cluster_size=2M", "8M", True)
    for image, tool in ((ours, blkio), (theirs, qemu_io)):
        tool(image, "write -P 3 2101k 1k", "write -P 4 100k 4k")
    mine, other = map_of(qemu_img, ours), map_of(qemu_img, theirs)
    assert mine == other == map_of(cowimg, ours)
    assert [e["length"] for e in mine if e["depth"] == 0 and e["present"]] == [65536, 65536]


def test_a_snapshots_subclusters_move_with_their_cluster(tmp_path):
    ours, theirs = make(tmp_path, "extended_l2=on")
    for image in (ours, theirs):
        qemu_io(image, "write -P 1 0 4k", "write -P 2 20k 2k", "write -z 40k 4k")
        qemu_img("snapshot", "-c", "s", image)
    blkio(ours, "write -P 9 10k 1k", "write -P 8 70k 1k")
    qemu_io(theirs, "write -P 9 10k 1k", "write -P 8 70k 1k")
    check_image(ours)
    assert qemu_img("compare", ours, theirs).stdout == "Images are identical.\n"
    kinds = [[(e["start"], e["length"], e["present"]) for e in merged(map_of(qemu_img, i))]
             for i in (ours, theirs)]
    assert kinds[0] == kinds[1]
    qemu_img("snapshot", "-a", "s", ours)
    qemu_io(ours, "read -P 1 0 4k", "read -P 2 20k 2k", "read -P 0 40k 4k", "read -P 0 70k 1k")
    check_image(ours)


POKES = {  # entry 0 at 0x40000 is a cluster at 0x50000 with subclusters 0, 1, 5
    "both bits of a subcluster": (0x4000b, b"\xff"),
    "data without a cluster": (0x40028, b"\0\0\0\0\0\0\0\1"),
    "both bits without a cluster": (0x40028, b"\0\0\0\1\0\0\0\1"),
    "compressed with a bitmap": (0x40020, b"\x40\0\0\0\0\5\0\0\0\0\0\0\0\0\0\1"),
    "a zero flag, which means nothing": (0x40007, b"\1"),
    "a flag that is off": (0x40010, b"\0"),
    "clusters that are too small": (0x17, b"\x0d"),
}


@pytest.mark.parametrize("what", POKES)
def test_entries_that_cannot_be_are_reported_as_the_reference_does(tmp_path, what):
    def image(work):
        qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", work / "a", "1M")
        qemu_io(work / "a", "write -P 1 0 4k", "write -P 2 10k 1k", "write -P 3 64k 64k")
        with open(work / "a", "r+b") as f:
            f.seek(POKES[what][0])
            f.write(POKES[what][1])
    same(tmp_path, "check", "a", prepare=image)
    reports = [[sorted(said.strip().rstrip(",") for said in out.splitlines())
                if isinstance(out, str) else out for out in result]
               for result in both(tmp_path, "check", "--output=json", "a")]
    assert reports[0] == reports[1]
    for who in ("ours", "theirs"):
        shutil.copy(tmp_path / who / "a", tmp_path / who / "b")
    theirs = run("qemu-io", "-r", "-c", "read 0 192k", tmp_path / "theirs/b", ok=None)
    ours = blkio(tmp_path / "ours/b", "read 0 196608", flags=("-r",), ok=None)
    assert ("failed" in theirs.stdout or "can't open" in theirs.stdout) == (ours.returncode != 0)
    same(tmp_path, "check", "-r", "all", "a")


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_ends_in_errors_not_in_crashes(tmp_path, seed):
    rng = random.Random(seed)
    options = rng.choice(("extended_l2=on", "extended_l2=on,data_file=d", "data_file=d"))
    qemu_img("create", "-f", "qcow2", "-o", options, "a", "1M", cwd=tmp_path)
    run("qemu-io", "-c", "write -P 1 0 4k", "-c", "write -P 3 60k 200k", "a", cwd=tmp_path)
    whole = (tmp_path / "a").read_bytes()
    for _ in range(3):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 12)):
            at = rng.choice((rng.randrange(64, 112), rng.randrange(0x30000, 0x30008),
                             rng.randrange(0x40000, 0x40100), rng.randrange(0x20000, 0x20020)))
            damaged[at] = rng.choice((0, 1, 0x40, 0x80, 0xff, rng.randrange(256)))
        (tmp_path / "b").write_bytes(damaged)
        for commands in (("read 0 1048576",), ("write 1000 70000", "flush"),
                         ("zero 8192 300000", "zero -u 500 9000"), ("discard 0 1048576",),
                         ("resize 2097152", "resize 65536")):
            shutil.copy(tmp_path / "b", tmp_path / "c")
            done = blkio("c", *commands, ok=(0, 1), cwd=tmp_path)
            assert "Sanitizer" not in done.stdout
        run(COWIMG, "check", "b", ok=(0, 1, 2, 3), cwd=tmp_path)
        run(COWIMG, "check", "-r", "all", "b", ok=(0, 1, 2, 3), cwd=tmp_path)


# --- external data files ---------------------------------------------------------------

RAW = "data_file=d,data_file_raw=on"


@pytest.mark.parametrize("options", ("data_file=d", RAW, "data_file=d,extended_l2=on",
                                     RAW + ",extended_l2=on"))
def test_guest_data_lies_in_the_data_file_at_its_offset(tmp_path, options):
    rng = random.Random(options)
    ours, theirs = make(tmp_path, options, "1M")
    for _ in range(2):
        mine, other = operations(rng, 1 << 20, 25)
        blkio(ours, *mine)
        qemu_io(theirs, *other)
        assert qemu_img("compare", ours, theirs).stdout == "Images are identical.\n"
        check_image(ours)
        check_image(theirs)
        if "raw" in options:
            for image in (ours, theirs):
                same_bytes = qemu_img("compare", "-f", "qcow2", "-F", "raw", image,
                                      image.parent / "d").stdout
                assert same_bytes == "Images are identical.\n"
        assert our_map(ours) == merged(map_of(qemu_img, ours))
        ours, theirs = theirs, ours
    assert os.stat(ours).st_size < 1 << 20


def test_a_data_file_is_shown_checked_and_resized_as_the_reference_does(tmp_path):
    def image(work):
        if not (work / "a").exists():
            qemu_img("create", "-f", "qcow2", "-o", RAW, "a", "1M", cwd=work)
            run("qemu-io", "-c", "write -P 1 0 128k", "-c", "discard 0 64k", "a", cwd=work)
    same(tmp_path, "info", "a", prepare=image)
    same(tmp_path, "check", "a")
    same(tmp_path, "map", "a")
    same(tmp_path, "map", "--output=json", "a")
    same(tmp_path, "resize", "--shrink", "a", "512k")
    for who in ("ours", "theirs"):
        os.rename(tmp_path / who / "d", tmp_path / who / "e")
    same(tmp_path, "info", "a")
    same(tmp_path, "check", "a")
    same(tmp_path, "resize", "a", "9M")
    blkio("a", "read 0 512", ok=(1,), cwd=tmp_path / "ours")


def test_entries_that_do_not_go_with_a_data_file_are_reported(tmp_path):
    for name, (at, byte) in {"elsewhere": (0x40003, b"\1"), "compressed": (0x40000, b"\x40"),
                             "no file": (0x4f, b"\0")}.items():
        def image(work):
            qemu_img("create", "-f", "qcow2", "-o", RAW, "a", "1M", cwd=work)
            with open(work / "a", "r+b") as f:
                f.seek(at)
                f.write(byte)
        same(tmp_path, "check", "a", prepare=image)
        done = blkio("a", "read 0 512", flags=("-r",), ok=(1,), cwd=tmp_path / "ours")
        assert "corrupt" in done.stdout or "requires a data file" in done.stdout, name


def test_an_image_cannot_be_its_own_data_file(tmp_path):
    qemu_img("create", "-f", "qcow2", "-o", "data_file=d", "a", "1M", cwd=tmp_path)
    os.remove(tmp_path / "d")
    os.link(tmp_path / "a", tmp_path / "d")
    done = blkio("a", "read 0 512", ok=(1,), cwd=tmp_path)
    assert "is the image itself" in done.stdout
