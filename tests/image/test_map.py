"""cowimg map next to qemu-img: every attribute, every joint, in bounded time."""
import json
import random

import pytest

from pairs import Pair
from tools import SLOW, cowimg, cpu_seconds, qemu_img, qemu_io, run

LINES = r"""
map top.qcow2
map --output=json top.qcow2
map --output=json -s 100k -l 100k top.qcow2
map -s 100k -l 100k top.qcow2
map --output=json odd.raw
map odd.raw
map --output=json odd2.raw
map odd2.raw
map --output=json -s 5M top.qcow2
map --output=json -s foo top.qcow2
map --output=json -l foo top.qcow2
map --output=json -l -1 top.qcow2
map --output=json -s 9E top.qcow2
map --output=json -l 0 top.qcow2
map --output=json -s 3M top.qcow2
map --output=foo top.qcow2
map -q top.qcow2
map
map a b
map nosuch
map --output=json -s 100 -l 1000 top.qcow2
map -f raw mid.qcow2
map --output=json z.raw
map z.raw
map --output=json comp.qcow2
map comp.qcow2
map 'json:{"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file",\
"filename":"mid.qcow2"}}}'
map --output=json 'json:{"driver":"raw","offset":65536,"file":{"driver":"file",\
"filename":"base.raw"}}'
map --output=json pm.qcow2
map pm.qcow2
map --output=json za.qcow2
map --image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=raw,\
backing.file.filename=base.raw
map --image-opts driver=qcow2,file.filename=top.qcow2,backing.backing.l2-cache-size=1M
map --image-opts driver=qcow2,file.filename=top.qcow2,backing.l2-cache-size=1M
map --image-opts driver=qcow2,file.filename=za.qcow2,backing.driver=raw,\
backing.file.filename=base.raw
""".strip().replace("\\\n", "").split("\n")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    work = tmp_path_factory.mktemp("map")

    def create(*args):
        run("qemu-img", "create", "-q", *args, cwd=work)

    create("-f", "raw", "base.raw", "1000000")
    qemu_io(work / "base.raw", "write -P 1 100k 200k", fmt="raw")
    create("-f", "qcow2", "-b", "base.raw", "-F", "raw", "mid.qcow2", "2M")
    qemu_io(work / "mid.qcow2", "write -P 2 64k 64k", "write -z 192k 64k", "write -c -P 3 1M 64k",
            "write -z -u 1536k 64k")
    create("-f", "qcow2", "-b", "mid.qcow2", "-F", "qcow2", "-o", "cluster_size=4k", "top.qcow2",
           "3M")
    qemu_io(work / "top.qcow2", "write -P 2 68k 8k", "write -P 4 2500k 12k", "discard 2504k 4k")
    (work / "odd.raw").write_bytes(b"abc")
    create("-f", "raw", "odd2.raw", "1001")
    create("-f", "raw", "z.raw", "0")
    run("qemu-img", "convert", "-c", "-O", "qcow2", "base.raw", "comp.qcow2", cwd=work)
    create("-f", "qcow2", "-o", "preallocation=metadata", "pm.qcow2", "2M")
    qemu_io(work / "pm.qcow2", "write -P 4 100k 12k")
    create("-f", "qcow2", "za.qcow2", "2M")
    qemu_io(work / "za.qcow2", "write -P 4 0k 256k", "write -z 64k 128k")
    return Pair(work)


@pytest.mark.parametrize("line", LINES)
def test_map_prints_what_the_reference_prints(pair, line):
    pair.same(line)


@pytest.mark.parametrize("seed", range(6))
def test_chains_of_random_writes_are_mapped_the_same(tmp_path, seed):
    rng = random.Random(seed)
    pair, backing = Pair(tmp_path), None
    for depth in range(4):
        name, size = "i%d" % depth, rng.randrange(1, 64) * 64 * 1024
        args = ["-f", "qcow2", "-o", "cluster_size=%s" % rng.choice(["512", "4k", "64k", "2M"])]
        if backing:
            args += ["-b", backing, "-F", "qcow2"]
        run("qemu-img", "create", "-q", *args, name, size, cwd=tmp_path)
        commands = []
        for _ in range(12):
            start = rng.randrange(size // 512)
            count = rng.randrange(1, min(400, size // 512 - start) + 1)
            how = rng.choice(["write -P 5", "write -P 6", "write -z", "write -z -u", "discard"])
            commands.append("%s %d %d" % (how, start * 512, count * 512))
        qemu_io(tmp_path / name, *commands)
        backing = name
    pair.same("map --output=json " + backing)
    pair.same("map " + backing)
    pair.same("map --output=json -s 12345 -l 1000001 " + backing)


def test_a_sparse_image_of_64_tib_is_mapped_at_once(tmp_path):
    big, top = tmp_path / "big.qcow2", tmp_path / "top.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", big, "64T")
    qemu_io(big, "write -P 1 63T 64k", "write -P 1 1G 64k")
    qemu_img("create", "-q", "-f", "qcow2", "-b", big, "-F", "qcow2", top)
    begin = cpu_seconds()
    extents = json.loads(cowimg("map", "--output=json", top).stdout)
    assert cpu_seconds() - begin < 10 * SLOW
    assert [(e["start"], e["length"]) for e in extents if e["data"]] == \
        [(1 << 30, 65536), (63 << 40, 65536)]
