"""cowimg resize next to qemu-img: words, preallocation, data files; giant images."""
import json
import os
import resource
import subprocess

import pytest

from tools import COWIMG, SLOW, check_image, cowimg, cpu_seconds, qemu_img, qemu_io, run
from test_cowimg import same
from test_subclusters import merged


def images(work):
    if (work / "a").exists():
        return
    qemu_img("create", "-f", "qcow2", "a", "1M", cwd=work)
    qemu_img("create", "-f", "raw", "r", "1M", cwd=work)
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", "old", "1M", cwd=work)
    qemu_img("create", "-f", "qcow2", "-o", "data_file=d,data_file_raw=on", "e", "1M", cwd=work)
    qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", "x", "1M", cwd=work)
    qemu_img("create", "-f", "qcow2", "-o", "extended_l2=on", "-b", "r", "-F", "raw", "o", "512k",
             cwd=work)
    for name in ("a", "old"):
        qemu_io(work / name, "write -P 5 64k 128k")
    qemu_img("snapshot", "-c", "s", "old", cwd=work)


WORDS = [
    ("a", "1000"), ("a", "8E"), ("a", "+7E"), ("a", "7E"), ("a", "foo"), ("a",), (),
    ("nosuch", "1M"), ("a", "5M"), ("a", "--", "-1k"), ("--shrink", "a", "--", "-1M"),
    ("--shrink", "a", "--", "-9M"), ("--preallocation=foo", "a", "2M"),
    ("--shrink", "--preallocation=full", "a", "512k"), ("-f", "raw", "r", "2000000"),
    ("-f", "raw", "r", "+7"), ("-f", "raw", "--preallocation=metadata", "r", "2M"),
    ("old", "2M"), ("-q", "a", "+1M"), ("a", "1M"), ("a", "+100"),
]


@pytest.mark.parametrize("args", WORDS, ids=lambda a: " ".join(a) or "nothing")
def test_resize_says_what_the_reference_says(tmp_path, args):
    same(tmp_path, "resize", *args, prepare=images)


GROWN = [(mode, name) for mode in ("off", "metadata", "falloc", "full")
         for name in ("a", "e", "x", "o")] + [("falloc", "r"), ("full", "r")]


@pytest.mark.parametrize("mode,name", GROWN)
def test_new_space_is_allocated_as_the_reference_does(tmp_path, mode, name):
    fmt = ("-f", "raw") if name == "r" else ()
    same(tmp_path, "resize", *fmt, "--preallocation=" + mode, name, "+3M", prepare=images)
    seen = []
    for who in ("ours", "theirs"):
        work = tmp_path / who
        if name != "r":
            report = json.loads(run("qemu-img", "check", "--output=json", name, cwd=work).stdout)
            assert not report.get("corruptions") and not report.get("leaks")
        told = json.loads(run("qemu-img", "map", "--output=json", *fmt, name, cwd=work).stdout)
        for e in told:
            e.pop("offset", None)
        seen.append((merged(told), sum(os.stat(work / n).st_blocks
                                       for n in {name, "d" if name == "e" else name})))
    if name != "o":  # where the backing file has nothing, we leave a hole
        assert seen[0][0] == seen[1][0]
    assert seen[0][1] <= seen[1][1] + 300
    if mode in ("falloc", "full") and name != "o":
        assert seen[0][1] * 512 >= 3 << 20
    a = tmp_path / "ours"
    run("qemu-img", "compare", *(("-f", "raw", "-F", "raw") if fmt else ()), name,
        "../theirs/" + name, cwd=a)
    run(COWIMG, "resize", *fmt, "--shrink", name, "600k", cwd=a)
    if name != "r":
        run("qemu-img", "check", name, cwd=a)


def test_preallocation_reuses_clusters_that_were_used_before(tmp_path):
    image = tmp_path / "a"
    cowimg("create", "-f", "qcow2", image, "1M")
    qemu_io(image, "write -P 9 0 1M", "discard 0 512k")
    cowimg("resize", "--preallocation=metadata", image, "2M")
    qemu_io(image, "read -P 0 0 512k", "read -P 9 512k 512k", "read -P 0 1M 1M")
    check_image(image)


def test_a_full_disk_is_reported_and_nothing_is_lost(tmp_path):
    image = tmp_path / "a"
    cowimg("create", "-f", "qcow2", image, "1M")
    qemu_io(image, "write -P 9 0 1M")
    for mode in ("full", "metadata"):
        done = subprocess.run(["bash", "-c", "ulimit -f 2000; trap '' XFSZ; exec \"$@\"", "-",
                               COWIMG, "resize", "--preallocation=" + mode, image, "40M"],
                              capture_output=True, text=True, timeout=60 * SLOW)
        assert done.returncode == 1 and "Failed to resize underlying file" in done.stderr
        assert json.loads(qemu_img("info", "--output=json", image).stdout)[
            "virtual-size"] == 1 << 20
        qemu_io(image, "read -P 9 0 1M")
        assert "ERROR" not in cowimg("check", image, ok=(0, 3)).stdout
        cowimg("check", "-r", "leaks", image, ok=(0, 3))
        check_image(image)


@pytest.mark.parametrize("options", ("cluster_size=64k", "cluster_size=2M,extended_l2=on",
                                     "cluster_size=2M,refcount_bits=1"))
def test_giant_sparse_images_take_seconds_and_little_memory(tmp_path, options):
    image = tmp_path / "a"
    asan = "asan" in str(COWIMG)

    def measured(*args):
        start = cpu_seconds()
        run(COWIMG, *args, preexec_fn=None if asan else lambda: resource.setrlimit(
            resource.RLIMIT_AS, (1 << 30, 1 << 30)))
        assert cpu_seconds() - start < 20 * SLOW
    measured("create", "-f", "qcow2", "-o", options, image, "64T")
    run("qemu-io", "-c", "write -P 7 63T 64k", "-c", "write -P 8 1M 64k", image)
    for args in (("info", image), ("check", image), ("map", "--output=json", image),
                 ("resize", image, "+1T"), ("resize", "--shrink", image, "32T"),
                 ("check", "-r", "all", image)):
        measured(*args)
    qemu_io(image, "read -P 8 1M 64k", "read -P 0 31T 64k")
    run("qemu-img", "check", image)


def test_small_clusters_go_as_far_as_their_tables_reach(tmp_path):
    for cluster, most, size in (("512", "128G", 128 << 30), ("4k", "8T", 8 << 40)):
        image = tmp_path / cluster
        cowimg("create", "-q", "-f", "qcow2", "-o", "cluster_size=" + cluster, image, most)
        assert json.loads(cowimg("info", "--output=json", image).stdout)["virtual-size"] == size
        cowimg("check", image)
        done = cowimg("resize", image, "+1G", ok=(1,))
        assert "Failed to grow the L1 table: File too large" in done.stdout
