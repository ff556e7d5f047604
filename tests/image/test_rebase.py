"""cowimg rebase next to qemu-img: words, and that what the overlay shows stays."""
import json
import os
import random
import signal
import subprocess
import time

import pytest

from pairs import Pair
from tools import COWIMG, SLOW, check_image, cowimg, qemu_img, qemu_io, run


def make(work):
    work.mkdir(exist_ok=True)
    for args in (("-f", "raw", "base.raw", "1M"), ("-f", "raw", "nb.raw", "512k"),
                 ("-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "2M"),
                 ("-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "-o", "cluster_size=4k",
                  "top.qcow2", "3M")):
        run("qemu-img", "create", "-q", *args, cwd=work)
    qemu_io(work / "base.raw", "write -P 1 400k 300k", fmt="raw")
    qemu_io(work / "nb.raw", "write -P 9 0 100k", "write -P 1 450k 50k", fmt="raw")
    qemu_io(work / "mid.qcow2", "write -P 2 64k 64k", "write -z 192k 64k", "write -c -P 3 1M 64k")
    qemu_io(work / "top.qcow2", "write -P 2 68k 8k", "write -P 4 2500k 12k", "discard 2504k 4k")
    return work


COMMANDS = """
rebase -b base.raw top.qcow2
rebase -b base.raw -F raw top.qcow2
rebase -b '' top.qcow2
rebase -b '' -F raw top.qcow2
rebase -b nb.raw -F raw top.qcow2
rebase -b nb.raw -F raw -t none -T none top.qcow2
rebase -b nosuch -F raw top.qcow2
rebase -b nosuch top.qcow2
rebase -u -b nosuch top.qcow2
rebase -u -b nosuch -F raw top.qcow2
rebase -u -b '' top.qcow2
rebase -u -F raw -b '' top.qcow2
rebase -u -b nosuch -F foo top.qcow2
rebase -b base.raw -F foo top.qcow2
rebase top.qcow2
rebase -F raw top.qcow2
rebase
rebase -b top.qcow2 -F qcow2 top.qcow2
rebase -b base.raw -F raw base.raw
rebase -b nb.raw -F raw mid.qcow2
rebase -b mid.qcow2 -F qcow2 top.qcow2
rebase -t foo -b nb.raw -F raw mid.qcow2
rebase -T foo -b nb.raw -F raw mid.qcow2
rebase -b nb.raw -F raw -f raw mid.qcow2
rebase -q -b base.raw -F raw top.qcow2
rebase --image-opts -b base.raw -F raw driver=qcow2,file.filename=top.qcow2
""".strip().split("\n")


@pytest.mark.parametrize("line", COMMANDS)
def test_rebase_does_what_the_reference_does(tmp_path, line):
    ours, theirs = make(tmp_path / "ours"), make(tmp_path / "theirs")
    run("qemu-img", "convert", "-O", "raw", ours / "top.qcow2", tmp_path / "flat")
    code = Pair(tmp_path).same(line, cwds=(ours, theirs))[0]
    for name in ("mid.qcow2", "top.qcow2"):
        infos = [json.loads(qemu_img("info", "-U", "--output=json", work / name).stdout)
                 for work in (ours, theirs)]
        for key in ("backing-filename", "backing-filename-format", "virtual-size"):
            assert infos[0].get(key) == infos[1].get(key)
        cowimg("check", ours / name)
        if "nosuch -F" not in line:
            check_image(ours / name)
    if "-u" not in line and "mid.qcow2" != line.split()[-1]:
        run("qemu-img", "compare", "-F", "raw", ours / "top.qcow2", tmp_path / "flat")
    assert code in (0, 1)


@pytest.mark.parametrize("seed", range(10))
def test_a_rebase_between_random_chains_keeps_what_the_overlay_shows(tmp_path, seed):
    rng = random.Random(seed)

    def image(name, backing):
        size, cluster = rng.randrange(1, 3000) * 512, rng.choice(["512", "4k", "64k", "2M"])
        args = ["-o", "cluster_size=%s,compat=%s" % (cluster, rng.choice(["0.10", "1.1"]))]
        args += ["-b", backing, "-F", "qcow2"] if backing else []
        run("qemu-img", "create", "-q", "-f", "qcow2", *args, name, size, cwd=tmp_path)
        commands = []
        for _ in range(8):
            start = rng.randrange(size // 512)
            count = rng.randrange(1, min(300, size // 512 - start) + 1)
            commands.append("%s %d %d" % (rng.choice(["write -P 5", "write -P 6", "write -z"]),
                                          start * 512, count * 512))
        qemu_io(tmp_path / name, *commands)
        return name

    old = image("old1", image("old0", None))
    top = image("top", old)
    new = rng.choice([image("new1", image("new0", None)), "old0", ""])
    run("qemu-img", "convert", "-O", "raw", top, "flat", cwd=tmp_path)
    cowimg("rebase", "-b", new, *(["-F", "qcow2"] if new else []), top, cwd=tmp_path)
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", top, "flat", cwd=tmp_path)
    check_image(tmp_path / top)
    info = json.loads(qemu_img("info", "--output=json", tmp_path / top).stdout)
    assert info.get("backing-filename", "") == new


def test_only_what_differs_is_copied(tmp_path):
    for name in ("a.raw", "b.raw"):
        (tmp_path / name).write_bytes(bytes(range(1, 256)) * 65536)
    with open(tmp_path / "b.raw", "r+b") as f:
        f.seek(5 << 20)
        f.write(b"x")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "top",
        cwd=tmp_path)
    cowimg("rebase", "-b", "b.raw", "-F", "raw", "top", cwd=tmp_path)
    own = [e for e in json.loads(cowimg("map", "--output=json", tmp_path / "top").stdout)
           if e["depth"] == 0 and e["data"]]
    assert [(e["start"], e["length"]) for e in own] == [(5 << 20, 65536)]


def test_a_rebase_that_was_cut_off_changes_nothing_and_can_be_done_again(tmp_path):
    run("qemu-img", "create", "-q", "-f", "raw", "a.raw", "512M", cwd=tmp_path)
    qemu_io(tmp_path / "a.raw", "write -P 1 0 256M", fmt="raw")
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "a.raw", "-F", "raw", "top",
        cwd=tmp_path)
    with subprocess.Popen([COWIMG, "rebase", "-b", "", "top"], cwd=tmp_path,
                          stderr=subprocess.DEVNULL) as job:
        time.sleep(0.03)
        job.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20 * SLOW
    while True:         # the kernel may hold its locks for a moment
        check = cowimg("check", tmp_path / "top", ok=(0, 1, 3))  # leaks at most
        if "Failed to get" not in check.stdout:
            break
        assert time.monotonic() < end
        time.sleep(0.1)
    assert check.returncode in (0, 3) and "ERROR" not in check.stdout
    run("qemu-img", "compare", "-F", "raw", "top", "a.raw", cwd=tmp_path)
    cowimg("rebase", "-b", "", "top", cwd=tmp_path)
    os.rename(tmp_path / "a.raw", tmp_path / "kept.raw")
    run("qemu-img", "compare", "-F", "raw", "top", "kept.raw", cwd=tmp_path)


@pytest.mark.parametrize("line", ["rebase -u -b b.raw -F raw t.qcow2",
                                  "rebase -b b.raw -F raw t.qcow2",
                                  "rebase -u -b '' t.qcow2"])
def test_an_image_whose_data_file_is_raw_gets_no_backing_file(tmp_path, line):
    works = tmp_path / "ours", tmp_path / "theirs"
    for work in works:
        work.mkdir()
        run("qemu-img", "create", "-q", "-f", "raw", "b.raw", "1M", cwd=work)
        run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file=d,data_file_raw=on",
            "t.qcow2", "1M", cwd=work)
    assert Pair(tmp_path).same(line, cwds=works)[0] == (1 if "b.raw" in line else 0)
    infos = [json.loads(qemu_img("info", "--output=json", work / "t.qcow2").stdout)
             for work in works]
    assert all("backing-filename" not in info for info in infos)
