"""cowimg create next to qemu-img: option tables, bad command lines, preallocation."""
import json
import subprocess

import pytest

from tools import COWIMG, SLOW, cowimg, qemu_img
from test_cowimg import base_image, same

HELP = [
    ("-f", "qcow2", "-o", "help"), ("-f", "raw", "-o", "?"), ("-o", "help"),
    ("-f", "qcow2", "-o", "?", "a.qcow2"), ("-f", "raw", "-o", "help", "a"),
    ("-f", "qcow2", "-o", "help,lazy_refcounts=on", "a", "1M"), ("-f", "foo", "-o", "help"),
]


@pytest.mark.parametrize("args", HELP, ids=" ".join)
def test_the_list_of_options_is_the_references(tmp_path, args):
    same(tmp_path, "create", *args)


def q(options, *rest):
    return ("-f", "qcow2", "-o", options) + (rest or ("a", "1M"))


BAD = [
    q("cluster_size=0"), q("cluster_size=foo"), q("cluster_size=-1"), q("cluster_size=4M"),
    q("cluster_size=1000"), q("cluster_size=16E"),
    q("refcount_bits=128"), q("refcount_bits=7"), q("refcount_bits=0"), q("refcount_bits=x"),
    q("refcount_bits=99999999999999999999999"), q("refcount_bits=1,compat=0.10"),
    q("compat=foo"), q("compat6=on"), q("lazy_refcounts=maybe"),
    q("lazy_refcounts=on,compat=v2"), q("preallocation=foo"), q("compression_type=foo"),
    q("compression_type=zstd,compat=0.10"), q("extended_l2=on,cluster_size=8k"),
    q("extended_l2=on,compat=0.10"), q("extended_l2=perhaps"), q("data_file_raw=on"),
    q("data_file=d,compat=0.10"), q("data_file=,size=1M", "a"),
    q("data_file=d,data_file_raw=on,backing_file=base.qcow2,backing_fmt=raw"),
    q("data_file=/nosuch/d,data_file_raw=on"),
    q("backing_file=nosuch,backing_fmt=raw"), q("backing_file="), q("backing_fmt=qcow2"),
    q("backing_file=base.qcow2,backing_fmt=foo"),
    q("backing_file=base.qcow2,backing_fmt=qcow2,preallocation=metadata"),
    q("size=foo", "a"), q("size=-1", "a"), q("size=1.5.5G", "a"), q("size=16E", "a"),
    q("size=9E", "a"), q("size=1M", "a", "2M"), q("size=7E", "a"),
    q("cluster_size=512", "a", "100T"),
    q(""), q(","), q("size=1M,", "a"), q(",help"), q("foo=bar"),
    ("-u",) + q("backing_file=nosuch"), ("-u",) + q("backing_file=nosuch,backing_fmt=foo"),
    ("-f", "qcow2", "a", "--", "-1"), ("-f", "qcow2", "a", "foo"), ("-f", "qcow2", "a", "16E"),
    ("-f", "raw", "-o", "preallocation=metadata", "a", "1M"),
    ("-f", "raw", "-o", "preallocation=foo", "a", "1M"),
    ("-f", "raw", "-o", "backing_file=b", "a", "1M"), ("-f", "raw", "-F", "raw", "a", "1M"),
    ("-f", "raw", "/nosuch/a", "1M"), ("-f", "raw", "a"), ("-f", "raw", "a", "7E", "8E"),
]


@pytest.mark.parametrize("args", BAD, ids=" ".join)
def test_what_is_refused_is_refused_in_the_references_words(tmp_path, args):
    code, _, _ = same(tmp_path, "create", *args, prepare=base_image)
    assert code == 1


GOOD = [
    q("compression_type=zstd"), q("extended_l2=on"), q("extended_l2=on,cluster_size=16k"),
    q("data_file=d.raw"), q("data_file=d.raw,data_file_raw=on", "a", "100k"),
    q("data_file=d.raw,extended_l2=on,data_file_raw=on"),
    q("data_file=d.raw,preallocation=metadata,lazy_refcounts=on"),
    q("backing_file=base.qcow2,backing_fmt=qcow2,extended_l2=on,preallocation=metadata", "a"),
    q("backing_file=base.qcow2,backing_fmt=qcow2,data_file=d", "a"),
    q("preallocation=falloc"), q("preallocation=full,cluster_size=512"), q("preallocation=off"),
    q("preallocation=full,extended_l2=on"), q("lazy_refcounts"), q("nolazy_refcounts"),
    q("preallocation=metadata,cluster_size=512,refcount_bits=64", "a", "3M"),
    q("preallocation=metadata,cluster_size=2M,refcount_bits=1", "a", "1T"),
    q("nocow=on"), q("lazy_refcounts=yes,refcount_bits=0x10,size=1k", "a"),
    q("data_file=d.raw,preallocation=full"), q("data_file=d.raw,preallocation=falloc"),
    ("-u",) + q("backing_file=x,,y,backing_fmt=raw"),
    ("-f", "raw", "-o", "preallocation=full", "a", "1000"),
    ("-f", "raw", "-o", "preallocation=falloc", "a", "1M"),
    ("-f", "raw", "-o", "nocow=on,extent_size_hint=1M,preallocation=off", "a", "1M"),
]


def name_of(args):
    return args[args.index("-f") + 1]


def joined(extents):
    """A map without offsets, neighbours of the same kind as one; else as it is."""
    if isinstance(extents, dict):
        return extents
    out = []
    for e in extents:
        kind = [e[k] for k in ("depth", "present", "data")]
        if out and out[-1][1] == kind:
            out[-1][0] += e["length"]
        else:
            out.append([e["length"], kind])
    return out


@pytest.mark.parametrize("args", GOOD, ids=" ".join)
def test_what_is_made_is_what_the_reference_makes(tmp_path, args):
    code, _, _ = same(tmp_path, "create", *args, prepare=base_image)
    assert code == 0
    told = []
    for who in ("ours", "theirs"):
        work = tmp_path / who
        fmt = name_of(args)
        said = [qemu_img("info", "-f", fmt, "--output=json", "a", cwd=work).stdout]
        if "-u" not in args and fmt == "qcow2":
            said.append(qemu_img("map", "-f", fmt, "--output=json", "a", cwd=work).stdout)
        if fmt == "qcow2" and "-u" not in args:
            said.append(qemu_img("check", "-f", fmt, "--output=json", "a", cwd=work).stdout)
        files = {p.name: (p.stat().st_size, p.stat().st_blocks)
                 for p in work.iterdir() if p.name != "base.qcow2"}
        told.append((said, files))
    ours, theirs = told
    assert sorted(ours[1]) == sorted(theirs[1])
    cluster = json.loads(ours[0][0]).get("cluster-size", 512) if name_of(args) == "qcow2" else 1
    for name, (size, blocks) in ours[1].items():
        # the last table may be written whole or as far as it goes
        unit = cluster if name == "a" else 1
        if unit in (1, 65536):  # else where refcount blocks lie differs
            assert -(-size // unit) == -(-theirs[1][name][0] // unit), name
            assert abs(blocks - theirs[1][name][1]) <= 64 + 2 * unit // 512, name
    for mine, other in zip(ours[0], theirs[0]):
        mine, other = json.loads(mine), json.loads(other)
        if isinstance(mine, dict):
            for key in ("actual-size", "image-end-offset", "fragmented-clusters"):
                mine.pop(key, None), other.pop(key, None)
        assert mine == other if cluster == 65536 else joined(mine) == joined(other)


def test_a_refused_image_leaves_an_old_file_alone(tmp_path):
    old = tmp_path / "a"
    old.write_bytes(b"precious")
    cowimg("create", "-f", "qcow2", "-o", "cluster_size=1000", old, "1M", ok=(1,))
    assert old.read_bytes() == b"precious"


def test_a_file_that_cannot_be_finished_is_removed(tmp_path):
    done = subprocess.run(["bash", "-c", "ulimit -f 1000; trap '' XFSZ; exec \"$@\"", "-",
                           str(COWIMG), "create", "-f", "qcow2", "-o", "preallocation=full",
                           str(tmp_path / "a"), "9M"], capture_output=True, text=True,
                          timeout=60 * SLOW)
    assert done.returncode == 1
    assert "Could not resize image: Failed to resize underlying file" in done.stderr
    assert not (tmp_path / "a").exists()
