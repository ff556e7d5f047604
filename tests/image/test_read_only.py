"""Images on a read-only file system: what only reads works, the rest is refused in the
reference's words."""
import os
import shlex

import pytest

from mounts import on_read_only
from tools import COWIMG, qemu_img, qemu_io

LINES = """
info top.img
info --output=json --backing-chain top.img
check top.img
check -r all top.img
check -r leaks base.img
compare top.img base.img
compare raw.img raw.img
map --output=json top.img
measure -O qcow2 top.img
snapshot -l top.img
convert -O qcow2 top.img new.img
convert -O raw top.img new.img
convert -n -O qcow2 base.img top.img
convert -n -O raw base.img raw.img
dd if=top.img of=new.img
dd -O qcow2 if=base.img of=top.img
create -q -f qcow2 new.img 1M
create -q -f qcow2 top.img 1M
create -q -f raw new.img 1M
create -q -f raw -o preallocation=full raw.img 1M
create -q -f qcow2 -o data_file=d.img new.img 1M
create -q -f qcow2 -b base.img -F qcow2 new.img
resize top.img 2M
resize --shrink top.img 64k
resize -f raw raw.img 2M
snapshot -c new top.img
snapshot -a s top.img
snapshot -d s top.img
commit top.img
commit -d top.img
rebase -b '' top.img
rebase -u -b '' top.img
amend -o compat=0.10 top.img
amend -o refcount_bits=64 top.img
bitmap --add top.img b
bitmap --remove top.img b0
bench -c 4 top.img
bench -w -c 4 top.img
bench -w -c 4 -f raw raw.img
""".strip().split("\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    work = tmp_path_factory.mktemp("read-only")
    (work / "images").mkdir()
    os.chdir(work / "images")
    qemu_img("create", "-q", "-f", "qcow2", "base.img", "1M")
    qemu_io("base.img", "write -P 1 0 300k")
    qemu_img("create", "-q", "-f", "qcow2", "-b", "base.img", "-F", "qcow2", "top.img")
    qemu_io("top.img", "write -P 2 100k 300k")
    qemu_img("snapshot", "-c", "s", "top.img")
    qemu_img("bitmap", "--add", "top.img", "b0")
    qemu_img("create", "-q", "-f", "raw", "raw.img", "1M")
    os.chdir("/")
    return work


@pytest.mark.parametrize("line", LINES)
def test_the_reference_says_the_same(folder, line):
    theirs, ours = (on_read_only(folder / "images", folder / "mount", [tool, *shlex.split(line)])
                    for tool in ("qemu-img", COWIMG))
    assert ours.returncode == theirs.returncode, (theirs.stdout, ours.stdout)
    said = theirs.stdout.replace("qemu-img", "cowimg")
    if "bench" in line and theirs.returncode == 0:
        return                                          # times differ
    assert ours.stdout == said


@pytest.mark.parametrize("line, words", [
    ("snapshot -e s -O qcow2 top.img new.img", "Could not create 'new.img': Read-only file system"),
    ("serve -f qcow2 -k /nowhere/socket top.img", "Read-only file system")])
def test_what_the_reference_has_not(folder, line, words):
    done = on_read_only(folder / "images", folder / "mount", [COWIMG, *shlex.split(line)])
    assert done.returncode == 1
    assert words in done.stdout, done.stdout


def test_the_view_of_a_snapshot_is_to_be_had(folder):
    done = on_read_only(folder / "images", folder / "mount",
                        [COWIMG, "snapshot", "--tree", "top.img"])
    assert done.returncode == 0, done.stdout
