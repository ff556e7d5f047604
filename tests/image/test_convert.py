"""cowimg convert and dd next to qemu-img: contents, words, exit codes, ends."""
import json
import os
import random
import signal
import struct
import subprocess
import time

import pytest

from tools import COWIMG, SLOW, check_image, cowimg, qemu_img, qemu_io, run

MIB = 1 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A raw image with data, zeros on disk and holes of all sizes, and an odd end."""
    path = tmp_path_factory.mktemp("convert") / "source.raw"
    rnd = random.Random(5)
    size = 12 * MIB + 1536
    with open(path, "wb") as f:
        f.truncate(size)
        pos = 0
        while pos < size:
            n = min(rnd.choice([512, 4096, 8192, 65536, 70000, MIB]), size - pos)
            kind = rnd.random()
            if kind < 0.6:
                f.seek(pos)
                f.write(rnd.randbytes(n) if kind < 0.5 else bytes(n))
            pos += n
    return path


def identical(a, b, *flags):
    done = qemu_img("compare", *flags, a, b, ok=None)
    assert done.stdout == "Images are identical.\n" and done.returncode == 0, done.stdout
    assert "identical" in cowimg("compare", *flags, a, b).stdout


def blocks(path):
    return os.stat(path).st_blocks * 512


FORMATS = ["", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "compat=0.10",
           "lazy_refcounts=on,refcount_bits=1", "preallocation=metadata"]


@pytest.mark.parametrize("options", FORMATS)
def test_content_survives_every_kind_of_qcow2_in_both_directions(source, tmp_path, options):
    o = ["-o", options] if options else []
    ours, theirs, back = (tmp_path / n for n in ("ours", "theirs", "back"))
    cowimg("convert", "-f", "raw", "-O", "qcow2", *o, source, ours)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *o, source, theirs)
    check_image(ours)
    identical(source, ours, "-f", "raw", "-F", "qcow2")
    for image in ours, theirs:
        cowimg("convert", "-O", "raw", image, back)
        assert back.read_bytes() == source.read_bytes()
    assert blocks(ours) <= blocks(theirs) * 1.02 + (MIB if "meta" in options else 65536)


@pytest.mark.parametrize("options", ["", "cluster_size=4k", "cluster_size=2M",
                                     "compression_type=zstd"])
def test_compressed_targets_are_as_small_as_the_references(source, tmp_path, options):
    o = ["-o", options] if options else []
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    cowimg("convert", "-c", "-f", "raw", "-O", "qcow2", *o, source, ours)
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", *o, source, theirs)
    check_image(ours)
    identical(source, ours, "-f", "raw", "-F", "qcow2")
    slack = MIB if "2M" in options else 65536
    assert ours.stat().st_size <= theirs.stat().st_size * 1.02 + slack
    cowimg("convert", "-O", "qcow2", theirs, ours)
    identical(source, ours, "-f", "raw", "-F", "qcow2")


def test_raw_targets_are_as_sparse_as_the_references(source, tmp_path):
    for flags in ([], ["-S", "512"], ["-S", "64k"], ["-S", "0"], ["-W", "-m", "16"],
                  ["-m", "1"], ["-C"], ["-t", "none", "-T", "none"]):
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        cowimg("convert", "-f", "raw", *flags, "-O", "raw", source, ours)
        qemu_img("convert", "-f", "raw", *flags, "-O", "raw", source, theirs)
        assert ours.read_bytes() == source.read_bytes() == theirs.read_bytes()
        assert abs(blocks(ours) - blocks(theirs)) <= 65536, flags


def chain(tmp_path, source):
    """source <- middle <- top, of different cluster sizes and lengths."""
    base, middle, top = (tmp_path / n for n in ("base", "middle", "top"))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", source, base)
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", middle)
    qemu_io(middle, "write -P 3 1000k 77k", "write -z 5M 300k")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", middle, "-F", "qcow2",
             top, "16M")
    qemu_io(top, "write -P 9 7M 33k", "write -P 8 15M 512k", "write -z 2M 100k")
    return middle, top


@pytest.mark.parametrize("cluster", ["64k", "2M"])
def test_a_file_depends_on_what_is_in_it_and_not_on_timing(source, tmp_path, cluster):
    files = [tmp_path / str(n) for n in range(5)]
    o = ["-f", "raw", "-O", "qcow2", "-o", "cluster_size=" + cluster]
    for file in files:
        cowimg("convert", *o, source, file)
    qemu_img("convert", *o, source, tmp_path / "theirs")
    assert all(file.read_bytes() == files[0].read_bytes() for file in files)
    assert files[0].stat().st_size <= (tmp_path / "theirs").stat().st_size


def test_chains_are_flattened_or_kept(source, tmp_path):
    middle, top = chain(tmp_path, source)
    flat, kept, theirs = (tmp_path / n for n in ("flat", "kept", "theirs"))
    cowimg("convert", "-O", "qcow2", top, flat)
    identical(top, flat)
    assert "backing" not in qemu_img("info", flat).stdout
    for flags in [], ["-c"], ["-c", "-o", "cluster_size=2M"]:
        cowimg("convert", *flags, "-O", "qcow2", "-B", middle, "-F", "qcow2", top, kept)
        check_image(kept)
        identical(top, kept)
        qemu_img("convert", *flags, "-O", "qcow2", "-B", middle, "-F", "qcow2", top, theirs)
        slack = 4 * MIB if "cluster_size=2M" in flags else 65536
        assert blocks(kept) <= blocks(theirs) * 1.02 + slack
        assert json.loads(qemu_img("info", "--output=json", kept).stdout)[
            "backing-filename"] == str(middle)


def test_existing_targets_are_overwritten_whatever_they_held(source, tmp_path):
    target = tmp_path / "target"
    qemu_img("create", "-q", "-f", "qcow2", target, source.stat().st_size)
    qemu_io(target, "write -q -P 119 0 12M")
    cowimg("convert", "-n", "-f", "raw", "-O", "qcow2", source, target)
    check_image(target)
    identical(source, target, "-f", "raw", "-F", "qcow2")
    raw = tmp_path / "raw"
    raw.write_bytes(b"\xff" * (13 * MIB))
    cowimg("convert", "-n", "-f", "raw", "-O", "raw", source, raw)
    data = source.read_bytes()
    assert raw.read_bytes()[:len(data)] == data
    qemu_img("create", "-q", "-f", "qcow2", target, source.stat().st_size)
    cowimg("convert", "-n", "--target-is-zero", "--target-image-opts", "-f", "raw", source,
           "driver=qcow2,file.filename=%s" % target)
    identical(source, target, "-f", "raw", "-F", "qcow2")


def test_sources_are_joined_end_to_end(source, tmp_path):
    q, ours, theirs = (tmp_path / n for n in ("q", "ours", "theirs"))
    qemu_img("create", "-q", "-f", "qcow2", q, "1000k")
    qemu_io(q, "write -q -P 5 100k 300k")
    for flags in [], ["-c"]:
        cowimg("convert", *flags, "-O", "qcow2", q, source, q, source, ours)
        qemu_img("convert", "-O", "raw", q, source, q, source, theirs)
        check_image(ours)
        identical(ours, theirs)


def test_snapshots_are_sources_by_tag_and_by_id(tmp_path):
    image, out = tmp_path / "image", tmp_path / "out"
    qemu_img("create", "-q", "-f", "qcow2", image, "4M")
    qemu_io(image, "write -q -P 1 0 1M")
    qemu_img("snapshot", "-c", "first", image)
    qemu_io(image, "write -q -P 2 0 2M")
    for snapshot in ("first", "snapshot.id=1", "snapshot.name=first",
                     "snapshot.id=1,snapshot.name=first"):
        cowimg("convert", "-l", snapshot, "-O", "raw", image, out)
        assert out.read_bytes() == b"\1" * MIB + bytes(3 * MIB)


def test_bitmaps_come_along(tmp_path):
    image, out, theirs = tmp_path / "image", tmp_path / "out", tmp_path / "theirs"
    qemu_img("create", "-q", "-f", "qcow2", image, "8M")
    qemu_img("bitmap", "--add", "--enable", image, "one")
    qemu_img("bitmap", "--add", "--disable", "-g", "128k", image, "two")
    qemu_io(image, "write -q 1M 100k")

    def bitmaps(path):
        return json.loads(qemu_img("info", "--output=json", path).stdout)[
            "format-specific"]["data"]["bitmaps"]
    cowimg("convert", "--bitmaps", "-O", "qcow2", image, out)
    qemu_img("convert", "--bitmaps", "-O", "qcow2", image, theirs)
    assert bitmaps(out) == bitmaps(theirs)
    check_image(out)


WORDS = [line.split() for line in """
convert
convert a.qcow2
convert -f foo a.qcow2 x
convert -O foo a.qcow2 x
convert nosuch x
convert -f qcow2 nosuch x
convert -f qcow2 a.raw x
convert -c a.qcow2 x
convert -c -O qcow2 -o preallocation=metadata a.qcow2 x
convert -C -S 4k -O raw a.raw x
convert -C -c -O qcow2 a.raw x
convert -C --salvage -O qcow2 a.raw x
convert -S 100 a.raw x
convert -S foo a.raw x
convert -S 3G -O qcow2 a.raw x
convert -S -1 -O qcow2 a.raw x
convert -m 0 a.raw x
convert -m 17 a.raw x
convert -m x a.raw x
convert -r x a.raw x
convert -t foo a.raw x
convert -T foo a.raw x
convert -T foo -O bar nosuch x
convert -t foo -O bar a.raw x
convert -n -O qcow2 a.raw nosuch
convert -n -O qcow2 a.raw small.qcow2
convert -n -O qcow2 -o cluster_size=4k a.raw small.qcow2
convert --target-is-zero -O qcow2 a.raw x
convert --target-is-zero --skip-broken-bitmaps -C -S 4k a.raw x
convert -B a.qcow2 -O raw o.qcow2 x
convert -B a.qcow2 -O qcow2 o.qcow2 x
convert -F qcow2 -O qcow2 o.qcow2 x
convert -F raw -O raw a.raw x
convert -B nosuch -F qcow2 -O qcow2 o.qcow2 x
convert -b a.qcow2 -F qcow2 -O qcow2 o.qcow2 x
convert -B a.qcow2 -o backing_file=a.qcow2 -O qcow2 o.qcow2 x
convert -B a.qcow2 -F qcow2 -O qcow2 o.qcow2 o.qcow2 x
convert -B a.qcow2 -F foo -O qcow2 o.qcow2 x
convert -l nosuch -O qcow2 a.qcow2 x
convert -l snapshot.id=7 -O qcow2 a.qcow2 x
convert -l snapshot.foo=7 -O qcow2 a.qcow2 x
convert -l s1 -O qcow2 a.raw x
convert -l s1 -O qcow2 a.qcow2 a.qcow2 x
convert --bitmaps -O raw a.qcow2 x
convert --bitmaps -O qcow2 a.raw x
convert --bitmaps -O qcow2 a.qcow2 a.qcow2 x
convert --skip-broken-bitmaps -O qcow2 a.qcow2 x
convert -o help
convert -O qcow2 -o help
convert -O qcow2 -o ? a.raw x
convert -O foo -o help
convert -o foo=1 a.raw x
convert -O qcow2 -o cluster_size=100 a.raw x
convert -O qcow2 -o size=foo a.raw x
convert -O qcow2 -o size=1M a.raw x
convert -O qcow2 a.raw nodir/x
convert -O qcow2 a.raw a.raw
convert --image-opts a.qcow2 x
convert --image-opts -f qcow2 driver=qcow2,file.filename=a.qcow2 x
convert --image-opts driver=qcow2,file.filename=a.qcow2 x
convert --target-image-opts a.raw driver=raw,file.filename=x
convert --target-image-opts -n -O qcow2 a.raw driver=qcow2,file.filename=small.qcow2
convert --object foo a.raw x
convert --object secret,id=s a.raw x
convert -Z a.raw x
convert -O
convert -p a.raw x
convert -q -p a.raw x
dd
dd if=a.raw
dd if=nosuch of=x
dd if=a.raw of=x foo=1
dd if=a.raw of=x bs=0
dd if=a.raw of=x bs=x
dd if=a.raw of=x bs=2G
dd if=a.raw of=x count=x
dd if=a.raw of=x skip=-1
dd if=a.raw of=x skip=1M
dd if=a.raw of=x skip=8k count=1
dd if=a.raw of=x count=9999999999999999999999
dd if=a.raw of=x bs=1M count=2 skip=1E
dd if=a.raw of=x seek=1
dd a.raw of=x
dd -f foo if=a.raw of=x
dd -O foo if=a.raw of=x
dd -O qcow2 if=a.raw of=nodir/x
dd -n if=a.raw of=x
dd --image-opts -f qcow2 if=driver=qcow2,file.filename=a.qcow2 of=x
""".strip().splitlines()]


@pytest.mark.parametrize("part", range(4))
def test_words_and_exit_codes_are_the_references(tmp_path, part):
    wrong = []
    for program, name in (COWIMG, "ours"), ("qemu-img", "theirs"):
        work = tmp_path / name
        work.mkdir()
        for image, size, flags in (("a.qcow2", "4M", []), ("small.qcow2", "1M", []),
                                   ("a.raw", "4M", ["-f", "raw"]),
                                   ("o.qcow2", None, ["-b", "a.qcow2", "-F", "qcow2"])):
            run("qemu-img", "create", "-q", *(flags if "-f" in flags else ["-f", "qcow2"] + flags),
                image, *([size] if size else []), cwd=work)
        run("qemu-img", "snapshot", "-c", "s1", "a.qcow2", cwd=work)
    for words in WORDS[part::4]:
        said = []
        for program, name in (COWIMG, "ours"), ("qemu-img", "theirs"):
            done = subprocess.run([program, *words], cwd=tmp_path / name, capture_output=True,
                                  stdin=subprocess.DEVNULL, timeout=60 * SLOW)
            said.append((done.returncode, done.stdout.decode().replace("cowimg", "qemu-img"),
                         done.stderr.decode().replace("cowimg", "qemu-img")))
        if words[:2] == ["convert", "-p"]:      # how often is not agreed on
            assert all(s[1].startswith("    (0.00/100%)\r") and
                       s[1].endswith("    (100.00/100%)\r\n") for s in said)
        elif said[0] != said[1]:
            wrong.append((words, said))
    assert not wrong, wrong


DD = [[], ["count=3"], ["bs=1000", "count=7", "skip=3"], ["bs=100", "count=90", "skip=20"],
      ["bs=64k", "skip=5"], ["bs=1M", "count=9"], ["bs=3000000"], ["count=0"]]


@pytest.mark.parametrize("out", ["raw", "qcow2"])
def test_dd_copies_what_the_reference_copies(tmp_path, out):
    image, ours, theirs = tmp_path / "image", tmp_path / "ours", tmp_path / "theirs"
    qemu_img("create", "-q", "-f", "qcow2", image, "4M")
    qemu_io(image, "write -q -P 5 1000 70000", "write -q -P 6 1M 1M", "write -q -P 7 3M 1M")
    for operands in DD:
        cowimg("dd", "-O", out, *operands, "if=%s" % image, "of=%s" % ours)
        qemu_img("dd", "-O", out, *operands, "if=%s" % image, "of=%s" % theirs)
        if out == "raw":
            assert ours.read_bytes() == theirs.read_bytes(), operands
        else:
            check_image(ours)
            identical(ours, theirs, "-s")


# --- what goes wrong on the way ------------------------------------------------------

def wait_for_data(path, before=0):
    """Something that was not there before has been written to the second mebibyte."""
    end = time.monotonic() + 60 * SLOW
    while True:
        data = b""
        if path.exists():
            with open(path, "rb") as f:
                f.seek(MIB)
                data = f.read(MIB)
        if data.strip(bytes([before])):
            return
        assert time.monotonic() < end, "nothing is written"
        time.sleep(0.05)


def start_slow(tmp_path, *flags):
    source = tmp_path / "long.raw"
    with open(source, "wb") as f:
        for i in range(64):
            f.write(bytes([i + 1]) * MIB)
    out = tmp_path / "out"
    return out, subprocess.Popen([COWIMG, "convert", "-r", "4M", "-f", "raw", *flags, source, out],
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_an_interrupted_convert_leaves_no_target(tmp_path, number, format):
    out, p = start_slow(tmp_path, "-O", format)
    wait_for_data(out)
    p.send_signal(signal.SIGUSR1)
    assert p.stderr.readline().endswith("/100%)\n")
    p.send_signal(number)
    _, said = p.communicate(timeout=60 * SLOW)
    assert p.returncode == 1 and "interrupted" in said, said
    assert not out.exists()


def test_an_interrupted_convert_leaves_no_boot_sector_in_a_target_that_was_there(tmp_path):
    (tmp_path / "out").write_bytes(b"\xee" * (64 * MIB))
    out, p = start_slow(tmp_path, "-n", "-O", "raw")
    wait_for_data(out, 0xEE)
    p.send_signal(signal.SIGINT)
    _, said = p.communicate(timeout=60 * SLOW)
    assert p.returncode == 1 and "not complete" in said
    assert out.read_bytes()[:65536] == bytes(65536)


def test_the_rate_limit_holds(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4 * MIB))
    begin = time.monotonic()
    cowimg("convert", "-r", "4M", "-f", "raw", "-O", "qcow2", source, tmp_path / "out")
    assert time.monotonic() - begin > 0.7
    identical(source, tmp_path / "out", "-f", "raw", "-F", "qcow2")


def limit_files():
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MIB, 8 * MIB))


def test_a_full_disk_is_an_error_and_leaves_no_target(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(os.urandom(12 * MIB))
    for flags in [], ["-c"]:
        done = cowimg("convert", *flags, "-f", "raw", "-O", "qcow2", source, out, ok=[1],
                      preexec_fn=limit_files)
        assert "error while writing at byte" in done.stdout and "File too large" in done.stdout
        assert not out.exists()


def test_salvage_zeroes_what_cannot_be_read(tmp_path):
    source, image, out = tmp_path / "source", tmp_path / "image", tmp_path / "out"
    rnd = random.Random(3)
    source.write_bytes(b"".join(bytes([rnd.randrange(255)]) * 4096 for _ in range(1024)))
    qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", source, image)
    damage_compressed(image, 5)
    done = cowimg("convert", "-O", "raw", image, out, ok=[1])
    assert "error while reading at byte" in done.stdout
    done = cowimg("convert", "--salvage", "-O", "raw", image, out)
    warnings = [w for w in done.stdout.splitlines() if "warning: error while reading offset" in w]
    first = 5 * 65536
    assert warnings == ["cowimg: warning: error while reading offset %d: Input/output error" %
                        (first + i * 512) for i in range(128)]
    data = source.read_bytes()
    assert out.read_bytes() == data[:first] + bytes(65536) + data[first + 65536:]
    done = cowimg("convert", "-q", "--salvage", "-O", "raw", image, out)
    assert "error while reading" not in done.stdout


def damage_compressed(image, cluster):
    """Overwrite the data of a compressed cluster."""
    with open(image, "r+b") as f:
        l1 = struct.unpack(">Q", pread(f, 40, 8))[0]
        l2 = struct.unpack(">Q", pread(f, l1, 8))[0] & ((1 << 56) - 512)
        entry = struct.unpack(">Q", pread(f, l2 + 8 * cluster, 8))[0]
        assert entry >> 62 == 1
        f.seek(entry & ((1 << 54) - 1))
        f.write(b"\xff" * 16)


def pread(f, at, n):
    f.seek(at)
    return f.read(n)


def test_sixty_four_tebibytes_of_holes_take_no_time_and_memory(tmp_path):
    image, out = tmp_path / "image", tmp_path / "out"
    qemu_img("create", "-q", "-f", "qcow2", image, "64T")
    qemu_io(image, "write -q -P 5 10T 1M", "write -q -P 6 63T 5M")
    p = subprocess.Popen([COWIMG, "convert", "-O", "qcow2", image, out])
    _, status, usage = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    assert p.returncode == 0
    if not os.environ.get("COWVM_TEST_SLOW"):   # sanitizers have memory of their own
        assert usage.ru_utime + usage.ru_stime < 10 and usage.ru_maxrss < 200 << 10
    check_image(out)
    qemu_io(out, "read -q -P 5 10T 1M", "read -q -P 6 63T 5M", "read -q -P 0 20T 1M")
