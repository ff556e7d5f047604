"""cowimg next to qemu-img: same words, same exit codes, images either can use."""
import json
import os
import re
import shutil
import subprocess

import pytest

from tools import COWIMG, SLOW, check_image, cowimg, qemu_img, qemu_io


def both(tmp_path, *args, prepare=None, name="qemu-img"):
    """Run the same command line with both tools, each in a folder of its own that
    `prepare` filled; returns (ours, theirs) with the program's name made equal."""
    results = []
    for program in (COWIMG, "qemu-img"):
        work = tmp_path / ("ours" if program == COWIMG else "theirs")
        work.mkdir(exist_ok=True)
        if prepare:
            prepare(work)
        done = subprocess.run([program] + [str(a) for a in args], cwd=work, timeout=60 * SLOW,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
        results.append((done.returncode, done.stdout.replace("cowimg", name),
                        done.stderr.replace("cowimg", name)))
    return results


def same(tmp_path, *args, **kw):
    ours, theirs = both(tmp_path, *args, **kw)
    assert ours == theirs
    return ours


CREATE = [
    ("a.qcow2", "64M"),
    ("-f", "qcow2", "a.qcow2", "64M"),
    ("-q", "-f", "qcow2", "a.qcow2", "64M"),
    ("-f", "raw", "a.img", "3M"),
    ("-f", "qcow2", "a.qcow2", "1.5G"),
    ("-f", "qcow2", "a.qcow2", "1000"),
    ("-f", "qcow2", "a.qcow2", "100b"),
    ("-f", "qcow2", "-o", "size=1M", "a.qcow2"),
    ("-f", "qcow2", "-o", "cluster_size=4k", "-o", "cluster_size=8k,lazy_refcounts=on", "a", "9M"),
    ("-f", "qcow2", "-o", "compat=0.10", "a.qcow2", "10M"),
    ("-f", "qcow2", "-o", "compat=v3,refcount_bits=1", "a.qcow2", "10M"),
    ("-f", "qcow2", "-o", "preallocation=metadata", "a.qcow2", "10M"),
    ("-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "a.qcow2"),
    ("-f", "qcow2", "-o", "backing_file=base.qcow2,backing_fmt=qcow2", "a.qcow2"),
    ("-f", "qcow2", "-b", "base.qcow2", "-F", "raw", "a.qcow2", "8M"),
    ("-u", "-f", "qcow2", "-b", "nosuch", "-F", "qcow2", "a.qcow2", "1M"),
    # refused
    (),
    ("-f", "qcow2", "a"),
    ("-f", "foo", "a", "1M"),
    ("-f", "qcow2", "a", "1Q"),
    ("-f", "qcow2", "a", "9E"),
    ("-f", "qcow2", "a", "1M", "extra"),
    ("-f", "qcow2", "-o", "foo=1", "a", "1M"),
    ("-f", "raw", "-o", "foo=1", "a", "1M"),
    ("-f", "qcow2", "-o", "cluster_size=100", "a", "1M"),
    ("-f", "qcow2", "-o", "refcount_bits=3", "a", "1M"),
    ("-f", "qcow2", "-o", "compat=0.9", "a", "1M"),
    ("-f", "qcow2", "-o", "lazy_refcounts=on,compat=0.10", "a", "1M"),
    ("-f", "qcow2", "-o", "refcount_bits=8,compat=0.10", "a", "1M"),
    ("-f", "qcow2", "-F", "qcow2", "a", "1M"),
    ("-f", "qcow2", "-b", "nosuch", "-F", "qcow2", "a"),
    ("-f", "qcow2", "-b", "nosuch", "-F", "qcow2", "a", "1M"),
    ("-u", "-f", "qcow2", "-b", "nosuch", "-F", "qcow2", "a"),
    ("-f", "qcow2", "-o", "backing_file=a,backing_fmt=qcow2", "a"),
    ("-f", "raw", "-b", "base.qcow2", "a"),
    ("-f", "qcow2", "nonexistent/a", "1M"),
    ("-Z", "a"),
]


def base_image(work):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "5M"], cwd=work,
                   check=True)


@pytest.mark.parametrize("args", CREATE, ids=lambda a: " ".join(a) or "nothing")
def test_create_says_and_makes_what_the_reference_does(tmp_path, args):
    code, _, _ = same(tmp_path, "create", *args, prepare=base_image)
    if code:
        return
    made = [p.name for p in (tmp_path / "ours").iterdir() if p.name != "base.qcow2"]
    info = [json.loads(qemu_img("info", "--output=json", name, cwd=tmp_path / who).stdout)
            for who in ("ours", "theirs") for name in made]
    for i in info:
        i.pop("actual-size")
    assert info[0] == info[1]


def test_the_first_clusters_lie_where_tools_look_for_them(tmp_path):
    for program in (COWIMG, "qemu-img"):
        subprocess.run([program, "create", "-q", "-f", "qcow2", tmp_path / "x.qcow2", "64M"],
                       check=True)
        head = (tmp_path / "x.qcow2").read_bytes()[:72]
        # L1 at cluster 3, refcount table at cluster 1, one cluster of it
        assert head[40:48] == (0x30000).to_bytes(8, "big")
        assert head[48:56] == (0x10000).to_bytes(8, "big")
        assert head[56:60] == (1).to_bytes(4, "big")
        assert qemu_img("check", tmp_path / "x.qcow2").stdout.endswith("end offset: 262144\n")


def test_a_backing_file_without_a_format_is_probed_with_a_warning(tmp_path):
    base_image(tmp_path)
    done = cowimg("create", "-f", "qcow2", "-o", "backing_file=./base.qcow2", "a.qcow2",
                  cwd=tmp_path)
    assert "Backing file specified without backing format" in done.stdout
    assert "detected format of qcow2" in done.stdout
    info = json.loads(qemu_img("info", "--output=json", tmp_path / "a.qcow2").stdout)
    assert info["backing-filename"] == "./base.qcow2"
    assert info["backing-filename-format"] == "qcow2"
    assert info["virtual-size"] == 5 << 20


INFO = [
    ("base.qcow2",), ("top.qcow2",), ("--backing-chain", "top.qcow2"), ("old.qcow2",),
    ("flat.img",), ("-f", "raw", "base.qcow2"), ("sub/far.qcow2",), ("odd.img",),
    ("-U", "top.qcow2"),
    ("nosuch",), (), ("--output=xml", "base.qcow2"), ("-f", "qcow2", "flat.img"),
    ("--backing-chain", "loop.qcow2"),
]


def info_images(work):
    (work / "sub").mkdir(exist_ok=True)

    def img(*args):
        subprocess.run(["qemu-img"] + list(args), cwd=work, check=True, capture_output=True)
    img("create", "-f", "qcow2", "base.qcow2", "5M")
    img("create", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    img("create", "-f", "qcow2", "-o", "compat=0.10,cluster_size=512", "old.qcow2", "1M")
    img("create", "-f", "qcow2", "-b", "../top.qcow2", "-F", "qcow2", "sub/far.qcow2")
    for one, other in (("loop", "pool"), ("pool", "loop")):
        img("create", "-f", "qcow2", "-u", "-b", other + ".qcow2", "-F", "qcow2", one + ".qcow2",
            "1M")
    (work / "flat.img").write_bytes(b"x" * 65536)
    (work / "odd.img").write_bytes(b"x" * 1000)


@pytest.mark.parametrize("args", INFO, ids=lambda a: " ".join(a) or "nothing")
def test_info_says_what_the_reference_says(tmp_path, args):
    same(tmp_path, "info", *args, prepare=info_images)


@pytest.mark.parametrize("name", ["base.qcow2", "top.qcow2", "old.qcow2", "flat.img"])
def test_info_as_json_holds_the_same_values(tmp_path, name):
    ours, theirs = both(tmp_path, "info", "--output=json", "--backing-chain", name,
                        prepare=info_images)
    assert json.loads(ours[1]) == json.loads(theirs[1])


def test_check_agrees_on_clean_written_and_raw_images(tmp_path):
    def images(work):
        info_images(work)
        qemu_io(work / "base.qcow2", "write -P 1 0 128k", "write -P 2 1M 64k")
    same(tmp_path, "check", "base.qcow2", prepare=images)
    same(tmp_path, "check", "top.qcow2")
    same(tmp_path, "check", "-q", "base.qcow2")
    assert same(tmp_path, "check", "flat.img")[0] == 63
    same(tmp_path, "check", "nosuch")
    same(tmp_path, "check", "-r", "foo", "base.qcow2")
    ours, theirs = both(tmp_path, "check", "--output=json", "base.qcow2")
    assert json.loads(ours[1]) == json.loads(theirs[1])


def poke(path, offset, data):
    with open(path, "r+b") as f:
        f.seek(offset)
        f.write(data)


def test_a_leak_is_found_and_freed(tmp_path):
    def leak(work):
        base_image(work)
        os.truncate(work / "base.qcow2", 21 << 16)
        poke(work / "base.qcow2", 0x20000 + 2 * 20, b"\0\1")
    code, _, said = same(tmp_path, "check", "base.qcow2", prepare=leak)
    assert code == 3 and "Leaked cluster 20 refcount=1 reference=0" in said
    # The reference names each finding twice, as found and as repaired; we once.
    ours, theirs = both(tmp_path, "check", "-r", "leaks", "base.qcow2", prepare=leak)
    assert ours[:2] == theirs[:2] and ours[0] == 0
    assert "Repairing cluster 20 refcount=1 reference=0" in ours[2]
    check_image(tmp_path / "ours" / "base.qcow2")


def test_a_corruption_is_found_and_repaired(tmp_path):
    def corrupt(work):
        base_image(work)
        qemu_io(work / "base.qcow2", "write -P 7 0 64k")
        poke(work / "base.qcow2", 0x20000 + 2 * 5, b"\0\0")    # data cluster, refcount gone
    code, _, said = same(tmp_path, "check", "base.qcow2", prepare=corrupt)
    assert code == 2 and "ERROR" in said
    ours, theirs = both(tmp_path, "check", "-r", "all", "base.qcow2", prepare=corrupt)
    assert ours[0] == theirs[0] == 0
    assert "The following inconsistencies were found and repaired:" in ours[1]
    image = tmp_path / "ours" / "base.qcow2"
    check_image(image)
    assert "verification failed" not in qemu_io(image, "read -P 7 0 64k")


RESIZE = [
    ("base.qcow2", "+10M"), ("base.qcow2", "20G"), ("-f", "qcow2", "base.qcow2", "6M"),
    ("-q", "base.qcow2", "7M"), ("--shrink", "base.qcow2", "1M"), ("--shrink", "base.qcow2", "-1M"),
    ("-f", "raw", "flat.img", "30M"), ("--shrink", "-f", "raw", "flat.img", "4k"),
    ("base.qcow2", "1M"), ("base.qcow2",), (), ("base.qcow2", "foo"), ("base.qcow2", "0"),
    ("base.qcow2", "-10G"), ("nosuch", "1G"),
]


@pytest.mark.parametrize("args", RESIZE, ids=lambda a: " ".join(a) or "nothing")
def test_resize_says_and_does_what_the_reference_does(tmp_path, args):
    code, _, _ = same(tmp_path, "resize", *args, prepare=info_images)
    if not code:
        sizes = [json.loads(qemu_img("info", "--output=json", tmp_path / who / args[-2]).stdout)
                 ["virtual-size"] for who in ("ours", "theirs")]
        assert sizes[0] == sizes[1]
        if args[-2].endswith("qcow2"):
            check_image(tmp_path / "ours" / args[-2])


def test_data_survives_growing_and_shrinking(tmp_path):
    image = tmp_path / "d.qcow2"
    cowimg("create", "-f", "qcow2", "-o", "cluster_size=512", image, "4M")
    qemu_io(image, "write -P 0x11 0 300k", "write -P 0x22 3M 1M")
    cowimg("resize", image, "1G")
    qemu_io(image, "write -P 0x33 900M 1M")
    check_image(image)
    cowimg("resize", "--shrink", image, "3584k")
    check_image(image)
    out = qemu_io(image, "read -P 0x11 0 300k", "read -P 0 300k 2772k", "read -P 0x22 3M 512k")
    assert "verification failed" not in out


def test_the_program_answers_to_the_name_it_was_called_by(tmp_path):
    link = tmp_path / "qemu-img"
    shutil.copy(COWIMG, link)
    done = subprocess.run([link, "info", "nosuch"], capture_output=True, text=True, cwd=tmp_path)
    assert done.stderr == ("qemu-img: Could not open 'nosuch': Could not open 'nosuch': "
                           "No such file or directory\n")
    assert done.returncode == 1


def test_usage_errors_and_help(tmp_path):
    for args in ((), ("foo",), ("info", "--nosuch", "x"), ("create", "-f")):
        done = subprocess.run([COWIMG, *args], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("cowimg: ") and "Try 'cowimg --help'" in done.stderr
    done = cowimg("--help")
    assert re.search(r"^  create .*filename \[size\]$", done.stdout, re.M)
    assert cowimg("create", "-f", "qcow2", "-o", "help").stdout.startswith(
        "Supported qcow2 options:\n")


def test_two_writers_are_kept_apart(tmp_path):
    image = tmp_path / "d.qcow2"
    cowimg("create", "-f", "qcow2", image, "4M")
    holder = subprocess.Popen(["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    try:
        holder.stdin.write("read 0 512\n")
        holder.stdin.flush()
        while "read 512/512" not in holder.stdout.readline():
            pass
        done = cowimg("resize", image, "8M", ok=(1,))
        assert 'Failed to get "write" lock' in done.stdout
        assert "Is another process using the image" in done.stdout
    finally:
        holder.stdin.close()
        holder.wait(timeout=60 * SLOW)
    cowimg("resize", image, "8M")
