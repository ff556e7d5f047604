"""cowimg commit next to qemu-img: words, contents of every image, what is left over."""
import json
import os
import random
import signal
import subprocess
import time

import pytest

from pairs import Pair
from tools import COWIMG, SLOW, check_image, cowimg, qemu_img, qemu_io, run


def make(work, sizes=("1M", "2M", "3M"), top_cluster="4k"):
    work.mkdir(exist_ok=True)
    for args in (("-f", "raw", "base.raw", sizes[0]),
                 ("-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", sizes[1]),
                 ("-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "-o",
                  "cluster_size=" + top_cluster, "top.qcow2", sizes[2])):
        run("qemu-img", "create", "-q", *args, cwd=work)
    qemu_io(work / "base.raw", "write -P 9 0 900k", fmt="raw")
    qemu_io(work / "mid.qcow2", "write -P 2 64k 64k", "write -z 192k 64k", "write -c -P 3 256k 64k")
    qemu_io(work / "top.qcow2", "write -P 2 68k 8k", "write -P 4 300k 12k", "discard 304k 4k",
            "write -z 600k 100k")
    return work


COMMANDS = """
commit top.qcow2
commit -d top.qcow2
commit -q top.qcow2
commit -b base.raw top.qcow2
commit -b ./base.raw top.qcow2
commit -b mid.qcow2 top.qcow2
commit -b nosuch top.qcow2
commit -b top.qcow2 top.qcow2
commit -b base.raw mid.qcow2
commit mid.qcow2
commit base.raw
commit -r 500M top.qcow2
commit -r 0 top.qcow2
commit -r foo top.qcow2
commit -t foo top.qcow2
commit -t none top.qcow2
commit -t unsafe top.qcow2
commit
commit a b
commit nosuch
commit -f raw top.qcow2
commit -f qcow2 top.qcow2
commit --image-opts driver=qcow2,file.filename=top.qcow2
commit --object secret,id=x top.qcow2
""".strip().split("\n")


@pytest.mark.parametrize("line", COMMANDS)
def test_commit_leaves_what_the_reference_leaves(tmp_path, line):
    ours, theirs = make(tmp_path / "ours"), make(tmp_path / "theirs")
    Pair(tmp_path).same(line, cwds=(ours, theirs))
    for name in ("base.raw", "mid.qcow2", "top.qcow2"):
        fmt = "raw" if name.endswith("raw") else "qcow2"
        run("qemu-img", "compare", "-f", fmt, "-F", fmt, ours / name, theirs / name)
        sizes = [json.loads(qemu_img("info", "-f", fmt, "--output=json", work / name).stdout)
                 ["virtual-size"] for work in (ours, theirs)]
        assert sizes[0] == sizes[1]
    check_image(ours / "mid.qcow2")
    check_image(ours / "top.qcow2")
    maps = [json.loads(qemu_img("map", "--output=json", work / "top.qcow2").stdout)
            for work in (ours, theirs)]
    own = [[(e["start"], e["length"], e["depth"]) for e in m if e["depth"] == 0] for m in maps]
    assert own[0] == own[1]


@pytest.mark.parametrize("top,mid,base", [("512", "2M", "64k"), ("2M", "512", "raw"),
                                          ("64k", "64k", "512"), ("4k", "1M", "raw")])
@pytest.mark.parametrize("seed", range(2))
def test_random_chains_of_any_cluster_sizes_are_merged(tmp_path, top, mid, base, seed):
    rng, backing = random.Random(seed), None
    for depth, cluster in enumerate((base, mid, top)):
        size = rng.randrange(1, 48) * 65536 + rng.randrange(128) * 512
        fmt = "raw" if cluster == "raw" else "qcow2"
        args = ["-f", fmt]
        if fmt == "qcow2":
            args += ["-o", "cluster_size=%s,compat=%s" % (cluster, rng.choice(["0.10", "1.1"]))]
        if backing:
            args += ["-b", backing[0], "-F", backing[1]]
        backing = ("i%d" % depth, fmt)
        run("qemu-img", "create", "-q", *args, backing[0], size, cwd=tmp_path)
        commands = []
        for _ in range(10):
            start = rng.randrange(size // 512)
            count = rng.randrange(1, min(300, size // 512 - start) + 1)
            commands.append("%s %d %d" % (rng.choice(["write -P 5", "write -P 6", "write -z"]),
                                          start * 512, count * 512))
        qemu_io(tmp_path / backing[0], *commands, fmt=fmt)
    flat = tmp_path / "flat"
    run("qemu-img", "convert", "-O", "raw", tmp_path / "i2", flat)
    cowimg("commit", "-b", "i0", "i2", cwd=tmp_path)
    cowimg("commit", "i2", cwd=tmp_path)
    for name in ("i0", "i1", "i2"):
        if name == "i0" and base == "raw":
            continue
        check_image(tmp_path / name)
    for name in ("i0", "i1", "i2"):
        fmt = base if (name, base) == ("i0", "raw") else "qcow2"
        run("qemu-img", "convert", "-f", fmt, "-O", "raw", name, "now", cwd=tmp_path)
        now, want = (tmp_path / "now").read_bytes(), flat.read_bytes()
        # Those behind may be longer; a shorter one has zeros there.
        assert now[:len(want)].ljust(len(want), b"\0") == want


def test_an_emptied_overlay_gives_its_room_back(tmp_path):
    make(tmp_path)
    qemu_io(tmp_path / "top.qcow2", "write -P 7 0 2M")
    cowimg("commit", tmp_path / "top.qcow2")
    assert os.path.getsize(tmp_path / "top.qcow2") < 64 * 1024
    qemu_io(tmp_path / "top.qcow2", "read -P 7 0 2M", "write -P 8 0 64k", "read -P 8 0 64k")
    check_image(tmp_path / "top.qcow2")


def test_internal_snapshots_keep_their_clusters_when_the_overlay_is_emptied(tmp_path):
    top = make(tmp_path) / "top.qcow2"
    qemu_io(top, "write -P 1 0 256k")
    qemu_img("snapshot", "-c", "s", top)
    qemu_io(top, "write -P 2 64k 256k")
    cowimg("commit", top)
    check_image(top)
    qemu_io(top, "read -P 2 64k 256k")
    qemu_img("snapshot", "-a", "s", top)
    qemu_io(top, "read -P 1 0 256k")
    check_image(top)


def test_a_base_that_others_write_or_read_is_refused(tmp_path):
    make(tmp_path)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "other",
        cwd=tmp_path)
    with subprocess.Popen(["qemu-io", "-r", str(tmp_path / "other")], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as holder:
        holder.stdin.write(b"read 0 512\n")
        holder.stdin.flush()
        holder.stdout.readline()                # it has the image open
        done = cowimg("commit", "top.qcow2", cwd=tmp_path, ok=(1,))
        assert 'Failed to get "write" lock\nIs another process using the image [mid.qcow2]?' \
            in done.stdout
        holder.communicate(b"quit\n")
    cowimg("commit", "top.qcow2", cwd=tmp_path)


def test_an_interrupted_commit_can_be_done_again(tmp_path):
    make(tmp_path, sizes=("32M", "64M", "64M"), top_cluster="64k")
    top = tmp_path / "top.qcow2"
    qemu_io(top, "write -P 7 0 48M")
    with subprocess.Popen([COWIMG, "commit", "-r", "8M", str(top)]) as job:
        time.sleep(0.7)
        job.send_signal(signal.SIGTERM)
        assert job.wait(20 * SLOW) != 0
    check_image(top)
    check_image(tmp_path / "mid.qcow2")
    qemu_io(top, "read -P 7 0 48M")
    cowimg("commit", top)
    qemu_io(tmp_path / "mid.qcow2", "read -P 7 0 48M")
    check_image(tmp_path / "mid.qcow2")
