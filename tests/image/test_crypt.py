"""Encrypted images: legacy AES and LUKS in qcow2, raw LUKS containers.

The reference tools are the other side: what either writes, the other reads."""
import random

import pytest

from lib.crypt import KINDS, blkio, check, content, create, io, opts, qemu_io
from lib.tools import cowimg

CIPHERS = [("aes-256", "xts", "plain64", "sha256"), ("aes-128", "xts", "plain64", "sha512"),
           ("aes-192", "xts", "plain", "sha1"), ("aes-256", "cbc", "essiv", "sha256"),
           ("aes-128", "cbc", "plain64", "ripemd160"), ("aes-256", "ctr", "plain64", "sha384"),
           ("aes-128", "ecb", "plain64", "sha224")]


def sides(first, second):
    return pytest.param(first, second, id="%s-then-%s" % (first, second))


BOTH = [sides("ours", "reference"), sides("reference", "ours"), sides("ours", "ours")]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("maker,other", BOTH)
def test_what_one_writes_the_other_reads(tmp_path, kind, maker, other):
    image = create(maker, kind, tmp_path / "a")
    io(maker, kind, image, "write -P 17 0 128k", "write -P 34 1000k 4k", "write -P 51 4095k 1k")
    check(kind, image)
    io(other, kind, image, "read -P 17 0 128k", "read -P 34 1000k 4k", "read -P 51 4095k 1k")
    io(other, kind, image, "write -P 68 64k 512", "write -P 85 2M 70k")
    check(kind, image)
    io(maker, kind, image, "read -P 17 0 64k", "read -P 68 64k 512", "read -P 17 66048 65024",
       "read -P 85 2M 70k", "read -P 34 1000k 4k")


@pytest.mark.parametrize("kind", ["qcow2-luks", "qcow2-aes"])
def test_rest_of_a_fresh_cluster_reads_as_zeros(tmp_path, kind):
    image = create("ours", kind, tmp_path / "a")
    blkio(kind, image, "write -P 1 5k 1k", "zero 1M 64k", "write -P 2 1030k 512")
    for which in ("ours", "reference"):
        io(which, kind, image, "read -P 0 0 5k", "read -P 1 5k 1k", "read -P 0 6k 58k",
           "read -P 0 1M 6k", "read -P 2 1030k 512", "read -P 0 1055232 59k")
    check(kind, image)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_no_plaintext_lies_in_the_file(tmp_path, kind):
    image = create("ours", kind, tmp_path / "a")
    blkio(kind, image, "write -P 65 0 256k", "write -P 66 3M 5k")
    data = image.read_bytes()
    assert b"A" * 64 not in data and b"B" * 64 not in data
    assert content(kind, image)[:4] == b"AAAA"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_requests_at_any_byte(tmp_path, kind):
    image = create("ours", kind, tmp_path / "a", size="1M")
    model = bytearray(1 << 20)
    rng = random.Random(5)
    commands = ["write -P 0 0 1M"]
    for _ in range(60):
        size = rng.choice([1, 7, 511, 512, 513, 5000, 70000])
        at, byte = rng.randrange(0, len(model) - size), rng.randrange(256)
        commands.append("write -P %d %d %d" % (byte, at, size))
        model[at:at + size] = bytes([byte]) * size
    blkio(kind, image, *commands)
    assert content(kind, image) == model
    raw = tmp_path / "model"
    raw.write_bytes(model)
    blkio(kind, image, "same %s" % raw, "read 3 70001", "read 513 1")
    check(kind, image)


@pytest.mark.parametrize("cipher,mode,ivgen,hash_alg", CIPHERS)
@pytest.mark.parametrize("maker", ["ours", "reference"])
def test_every_cipher_both_ways(tmp_path, maker, cipher, mode, ivgen, hash_alg):
    extra = ["cipher-alg=" + cipher, "cipher-mode=" + mode, "ivgen-alg=" + ivgen,
             "hash-alg=" + hash_alg]
    image = create(maker, "luks", tmp_path / "a", size="1M", extra=extra)
    blkio("luks", image, "write -P 9 0 300k", "write -P 8 300k 724k")
    qemu_io(opts("luks", image), "read -P 9 0 300k", "read -P 8 300k 724k", "write -P 7 512 512")
    blkio("luks", image, "read -P 9 0 512", "read -P 7 512 512", "read -P 9 1k 299k")


def test_random_writes_leave_what_the_reference_reads(tmp_path):
    for kind in ("qcow2-luks", "qcow2-aes"):
        for cluster in (512, 4096, 65536):
            extra = ["cluster_size=%d" % cluster]
            image = create("ours", kind, tmp_path / ("%s%d" % (kind, cluster)), extra=extra)
            blkio(kind, image, "random %d 60 200000" % cluster)
            raw = tmp_path / "raw"
            raw.write_bytes(content(kind, image))
            blkio(kind, image, "same %s" % raw)
            check(kind, image)


def test_overlays_of_mixed_kinds(tmp_path):
    """Plain over LUKS, LUKS over AES, AES over a container."""
    chain = [("luks", "a"), ("qcow2-aes", "b"), ("qcow2-luks", "c"), (None, "d")]
    below = None
    for kind, name in chain:
        path = tmp_path / name
        extra = []
        if below:
            fmt = KINDS[below[0]][0]
            extra = ["backing_file=%s" % below[1], "backing_fmt=%s" % fmt]
        if kind:
            create("ours", kind, path, extra=extra)
        else:
            cowimg("create", "-q", "-f", "qcow2", "-b", below[1], "-F", "qcow2", path)
        below = (kind, path.name)
    blkio("luks", tmp_path / "a", "write -P 1 0 4M")
    blkio("qcow2-aes", tmp_path / "b", "write -P 2 1M 5k")
    blkio("qcow2-luks", tmp_path / "c", "write -P 3 2M 5k")
    blkio("qcow2-luks", tmp_path / "d", "write -P 4 3000001 77")
    reads = ["read -P 1 0 1M", "read -P 2 1M 5k", "read -P 1 1053696 1043456", "read -P 3 2M 5k",
             "read -P 4 3000001 77", "read -P 1 3000078 1194226"]
    blkio("qcow2-luks", tmp_path / "d", *reads)
    theirs = "driver=qcow2,file.filename=%s,backing.encrypt.key-secret=s," \
             "backing.backing.encrypt.key-secret=s,backing.backing.backing.key-secret=s" % \
             (tmp_path / "d")
    qemu_io(theirs, *reads)


def test_resize_of_encrypted_images(tmp_path):
    for kind in KINDS:
        image = create("ours", kind, tmp_path / kind)
        blkio(kind, image, "write -P 5 0 4M", "resize 5000k")
        qemu_io(opts(kind, image), "read -P 5 0 4M", "write -P 6 4M 64k")
        blkio(kind, image, "read -P 6 4M 64k", "resize 1025k", "resize 2M", "read -P 5 0 1025k")
        if kind != "luks":
            qemu_io(opts(kind, image), "read -P 0 1025k 1023k")
        check(kind, image)
