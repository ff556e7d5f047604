"""Damaged images: truncated anywhere, bits flipped in headers and tables.

Whatever an image says, the tool answers with a message and an exit code it owns
to, within bounds of time and memory, and never touches another file.
"""
import os
import random
import re
import resource
import subprocess

import pytest

from tools import COWIMG, SLOW, qemu_img, qemu_io

SEED = int(os.environ.get("COWVM_TEST_SEED", 20261123))
# Of each image.  Most are tried on the build that notices every stray access.
MUTANTS = int(os.environ.get("COWVM_TEST_MUTANTS", 340 if "asan" in COWIMG else 50))
ADDRESS_SPACE = 2 << 30


def plain(work):
    qemu_img("create", "-f", "qcow2", work / "x.qcow2", "4M")
    qemu_io(work / "x.qcow2", "write -P 1 0 200k", "write -P 2 3M 64k", "write -z 1M 128k")


def small_clusters(work):
    qemu_img("create", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=1", work / "x.qcow2",
             "2M")
    qemu_io(work / "x.qcow2", "write -P 1 0 100k", "write -P 2 1M 20k")


def version_2(work):
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", work / "x.qcow2", "4M")
    qemu_io(work / "x.qcow2", "write -P 1 0 100k")


def overlay(work):
    qemu_img("create", "-f", "qcow2", work / "base.qcow2", "4M")
    qemu_io(work / "base.qcow2", "write -P 3 0 1M")
    qemu_img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", work / "x.qcow2")
    qemu_io(work / "x.qcow2", "write -P 1 64k 100k")


def snapshots(work):
    plain(work)
    qemu_img("snapshot", "-c", "one", work / "x.qcow2")
    qemu_io(work / "x.qcow2", "write -P 9 32k 100k")
    qemu_img("snapshot", "-c", "two", work / "x.qcow2")


def dirty(work):
    qemu_img("create", "-f", "qcow2", "-o", "lazy_refcounts=on,cluster_size=4k", work / "x.qcow2",
             "4M")
    qemu_io(work / "x.qcow2", "write -P 1 0 100k")
    data = bytearray((work / "x.qcow2").read_bytes())
    data[79] |= 1           # incompatible feature bit 0: refcounts may be wrong
    (work / "x.qcow2").write_bytes(data)


IMAGES = [plain, small_clusters, version_2, overlay, snapshots, dirty]


def interesting(data):
    """Offsets that matter: header, its extensions, and non-zero bytes of the tables."""
    places = list(range(0, 112)) + list(range(112, 700))
    tables = [i for i in range(512, min(len(data), 1 << 19)) if data[i]]
    return places, tables


def mutate(rng, data):
    data = bytearray(data)
    places, tables = interesting(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.choice(places[:112] if rng.random() < 0.5 else
                        (tables or places) if rng.random() < 0.8 else places)
        if at >= len(data):
            continue
        kind = rng.random()
        if kind < 0.5:
            data[at] ^= 1 << rng.randrange(8)
        elif kind < 0.8:
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        else:               # a whole big-endian field
            value = rng.choice((0, 1, 511, 512, 1 << 31, (1 << 32) - 1, 1 << 56, (1 << 63) + 512,
                                (1 << 64) - 1, 0x20000, 0x30000, len(data)))
            at &= ~7
            data[at:at + 8] = value.to_bytes(8, "big")
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)):]
    return data


def limits():
    if "asan" not in COWIMG:        # its shadow takes terabytes of address space
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def answer(work, *args):
    done = subprocess.run([COWIMG, *args], cwd=work, capture_output=True, timeout=20 * SLOW,
                          preexec_fn=limits, stdin=subprocess.DEVNULL)
    said = done.stderr.decode("utf-8", "replace")
    end = said[-3000:]
    assert done.returncode in (0, 1, 2, 3), "%s: status %d\n%s" % (args, done.returncode, end)
    assert "Sanitizer" not in said and "runtime error" not in said, end
    if done.returncode == 1:            # what was repaired may be listed before
        assert re.search(r"^cowimg: .{6}", said, re.M), end
    return done.returncode


@pytest.mark.parametrize("make", IMAGES, ids=lambda f: f.__name__)
def test_a_damaged_image_gets_an_answer(tmp_path, make):
    make(tmp_path)
    image = tmp_path / "x.qcow2"
    good = image.read_bytes()
    before = sorted(os.listdir(tmp_path))
    base = (tmp_path / "base.qcow2").read_bytes() if make is overlay else None
    rng = random.Random("%d %s" % (SEED, make.__name__))
    codes = set()
    for i in range(MUTANTS):
        bad = mutate(rng, good)
        image.write_bytes(bad)
        try:
            codes.add(answer(tmp_path, "check", "-f", "qcow2", "x.qcow2"))
            # Looking changes nothing; a dirty image is not touched by a reader either.
            assert image.read_bytes() == bad
            action = i % 4
            if action == 0:
                answer(tmp_path, "info", "--backing-chain", "x.qcow2")
            elif action == 1:
                answer(tmp_path, "resize", "-f", "qcow2", "x.qcow2", "+1M")
            elif action == 2:
                answer(tmp_path, "check", "-r", "all", "-f", "qcow2", "x.qcow2")
            else:
                answer(tmp_path, "resize", "-f", "qcow2", "--shrink", "x.qcow2", "1M")
        except (AssertionError, subprocess.TimeoutExpired):
            (tmp_path / "bad.qcow2").write_bytes(bad)
            print("mutant %d of seed %d: kept as %s" % (i, SEED, tmp_path / "bad.qcow2"))
            raise
        assert sorted(os.listdir(tmp_path)) == before
        if base:
            assert (tmp_path / "base.qcow2").read_bytes() == base
    assert 1 in codes and len(codes) > 1     # the mutants were not all alike


@pytest.mark.parametrize("make", [plain, snapshots], ids=lambda f: f.__name__)
def test_an_image_cut_anywhere_gets_an_answer(tmp_path, make):
    make(tmp_path)
    image = tmp_path / "x.qcow2"
    good = image.read_bytes()
    cuts = sorted(set(list(range(0, 130, 3)) + list(range(512, len(good), 8192 + 24))))
    for cut in cuts:
        image.write_bytes(good[:cut])
        answer(tmp_path, "info", "-f", "qcow2", "x.qcow2")
        code = answer(tmp_path, "check", "-f", "qcow2", "x.qcow2")
        assert code != 0 or cut > 512       # the header was cut


def test_a_backing_loop_ends_with_a_message(tmp_path):
    for one, other in (("a", "b"), ("b", "a")):
        qemu_img("create", "-f", "qcow2", "-u", "-b", other, "-F", "qcow2", tmp_path / one, "1M")
    done = subprocess.run([COWIMG, "resize", "a", "2M"], cwd=tmp_path, capture_output=True,
                          text=True, timeout=20 * SLOW)
    assert done.returncode == 1 and "loop" in done.stderr
