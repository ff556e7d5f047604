"""cowimg compare next to qemu-img: the same verdicts, places and exit codes."""
import os
import random

import pytest

from pairs import Pair
from tools import qemu_io, run

LINES = r"""
compare base.raw b2.raw
compare b2.raw base.raw
compare -s za.qcow2 pm.qcow2
compare za.qcow2 pm.qcow2
compare -s base.raw comp.qcow2
compare base.raw comp.qcow2
compare a
compare a b
compare base.raw b
compare -T foo base.raw b2.raw
compare a b c
compare -x
compare -f foo base.raw b2.raw
compare -F qcow2 base.raw b2.raw
compare -f raw -F raw base.raw b2.raw
compare -s top.qcow2 top.qcow2
compare -s base.raw plain.qcow2
compare -s comp.qcow2 plain.qcow2
compare comp.qcow2 plain.qcow2
compare -s mid.qcow2 top.qcow2
compare mid.qcow2 top.qcow2
compare top.qcow2 mid.qcow2
compare -q top.qcow2 mid.qcow2
compare -q top.qcow2 top.qcow2
compare -T none top.qcow2 mid.qcow2
compare --object secret,id=x base.raw b2.raw
compare -p -q base.raw base.raw
compare odd.raw odd2.raw
compare odd.raw z.raw
compare z.raw z.raw
compare z.raw pm.qcow2
compare -U top.qcow2 top.qcow2
compare -f raw -F raw top.qcow2 mid.qcow2
""".strip().split("\n")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    work = tmp_path_factory.mktemp("compare")

    def create(*args):
        run("qemu-img", "create", "-q", *args, cwd=work)

    create("-f", "raw", "base.raw", "1000000")
    qemu_io(work / "base.raw", "write -P 1 100k 200k", fmt="raw")
    changed = bytearray((work / "base.raw").read_bytes())
    changed[150001] ^= 1
    (work / "b2.raw").write_bytes(changed)
    create("-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "2M")
    qemu_io(work / "mid.qcow2", "write -P 2 64k 64k", "write -z 192k 64k", "write -c -P 3 1M 64k")
    create("-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "-o", "cluster_size=4k", "top.qcow2",
           "3M")
    qemu_io(work / "top.qcow2", "write -P 2 68k 8k", "write -P 4 2500k 12k", "discard 2504k 4k")
    (work / "odd.raw").write_bytes(b"abc")
    create("-f", "raw", "odd2.raw", "1001")
    create("-f", "raw", "z.raw", "0")
    run("qemu-img", "convert", "-c", "-O", "qcow2", "base.raw", "comp.qcow2", cwd=work)
    run("qemu-img", "convert", "-O", "qcow2", "base.raw", "plain.qcow2", cwd=work)
    create("-f", "qcow2", "-o", "preallocation=metadata", "pm.qcow2", "2M")
    qemu_io(work / "pm.qcow2", "write -P 4 100k 12k")
    create("-f", "qcow2", "za.qcow2", "2M")
    qemu_io(work / "za.qcow2", "write -P 4 0k 256k", "write -z 64k 128k")
    return Pair(work)


@pytest.mark.parametrize("line", LINES)
def test_compare_says_what_the_reference_says(pair, line):
    pair.same(line)


def test_progress_ends_at_a_hundred(pair):
    ours, theirs = pair.both("compare -p top.qcow2 top.qcow2")
    assert ours[0] == theirs[0] == 0
    assert ours[1].split("\n")[-4:] == theirs[1].split("\n")[-4:]
    assert ours[1].startswith("    (0.00/100%)")


@pytest.mark.parametrize("seed", range(4))
def test_the_first_difference_of_many_is_the_one_told(tmp_path, seed):
    rng, pair = random.Random(seed), Pair(tmp_path)
    data = bytearray(os.urandom(1 << 20) * 9)
    (tmp_path / "a").write_bytes(data)
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "a", "a.qcow2", cwd=tmp_path)
    pair.same("compare -f raw -F qcow2 a a.qcow2")
    for _ in range(20):
        data[rng.randrange(len(data))] ^= 0x55
    (tmp_path / "b").write_bytes(data)
    pair.same("compare -f raw -F raw a b")
    pair.same("compare -f qcow2 -F raw a.qcow2 b")
    pair.same("compare -T none -f qcow2 -F raw a.qcow2 b")
