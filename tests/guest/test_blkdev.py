"""Snapshots of single disks under a running guest: external ones.  The
reference's tools judge the images."""
import os
import subprocess

import pytest

import guests
from counting import SECOND_PORT, chain, count_in, goes_on, last_number, number
from tools import check_image, qemu_img
from vm import Vm

pytestmark = pytest.mark.any_kvm
FORMATTING = ("Formatting '%s', fmt=qcow2 cluster_size=65536 extended_l2=off "
              "compression_type=zlib size=16777216 backing_file=%s backing_fmt=%s "
              "lazy_refcounts=off refcount_bits=16")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Names as people type them: without a folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def disk(tmp_path):
    return guests.qcow2_with("a.qcow2", guests.keeps_count(tmp_path)) and "a.qcow2"


def test_writes_go_to_the_new_image(disk):
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("savevm s1") == ""
        before = number(vm)
        assert vm.monitor("snapshot_blkdev ide0-hd0 a-snapshot.img qcow2") == (
            FORMATTING % ("a-snapshot.img", disk, "qcow2"))
        after = number(vm)
        goes_on(vm)
        said = vm.monitor("info block ide0-hd0")
        assert "ide0-hd0 (#block" in said and "): a-snapshot.img (qcow2)" in said
        assert "    Backing file:     a.qcow2 (chain depth: 1)" in said
        # As with any backing file, others may read it, and may not write to it.
        assert "a.qcow2" in qemu_img("info", disk).stdout
        assert "lock" in subprocess.run(["qemu-io", "-c", "write 0 512", disk], text=True,
                                        capture_output=True).stderr
        assert vm.quit() == 0
        last = last_number(vm)
    assert before <= count_in(disk) <= after + 2
    assert last <= count_in("a-snapshot.img") <= last + 1
    assert chain("a-snapshot.img") == ["a-snapshot.img", "a.qcow2"]
    check_image(disk)
    check_image("a-snapshot.img")


def test_many_in_a_row_over_raw(tmp_path):
    guests.disk_with("r.img", guests.keeps_count(tmp_path))
    with Vm("-drive", "file=r.img,format=raw,if=virtio", *SECOND_PORT) as vm:
        number(vm)
        name, fmt, counts = "r.img", "raw", []
        for i in range(12):
            fresh = "s%d.qcow2" % i
            assert vm.monitor("snapshot_blkdev virtio0 " + fresh) == (
                FORMATTING % (fresh, name, fmt))
            name, fmt = fresh, "qcow2"
            counts.append(number(vm))
        goes_on(vm)
        assert "chain depth: 12" in vm.monitor("info block virtio0")
        assert vm.quit() == 0
    assert len(chain("s11.qcow2")) == 13
    kept = [count_in("r.img", "raw")] + [count_in("s%d.qcow2" % i) for i in range(12)]
    assert kept == sorted(kept)
    for count, was in zip(counts, kept):
        assert was <= count + 2
    check_image("s5.qcow2")


def test_a_folder_of_its_own(disk):
    os.mkdir("sub")
    with Vm("-hda", disk, "-S") as vm:
        said = vm.monitor("snapshot_blkdev ide0-hd0 sub/x.qcow2")
        # The reference names `a.qcow2`, and nobody finds it from there.
        assert said == FORMATTING % ("sub/x.qcow2", os.path.realpath(disk), "qcow2")
        assert vm.monitor("snapshot_blkdev ide0-hd0 sub/y.qcow2") == (
            FORMATTING % ("sub/y.qcow2", "x.qcow2", "qcow2"))
        assert vm.quit() == 0
    assert chain("sub/y.qcow2") == ["y.qcow2", "x.qcow2", "a.qcow2"]


def test_an_image_that_is_there(disk):
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", disk, "new.qcow2")
    qemu_img("create", "-f", "raw", "new.img", "16M")
    with Vm("-hda", disk, *SECOND_PORT) as vm:
        number(vm)
        for command, error in (
                ("-n ide0-hd0 nosuch.qcow2",
                 "Could not open 'nosuch.qcow2': No such file or directory"),
                ("-n ide0-hd0 new.img raw", "The overlay does not support backing images"),
                ("-n ide0-hd0 a.qcow2", 'Failed to get "write" lock\nIs another process using '
                                        'the image [a.qcow2]?')):
            assert vm.monitor("snapshot_blkdev " + command) == "Error: " + error
        assert vm.monitor("snapshot_blkdev -n ide0-hd0 new.qcow2") == ""
        goes_on(vm)
        assert vm.quit() == 0
    assert count_in("new.qcow2") > count_in(disk)
    check_image("new.qcow2")


def test_words_of_the_reference(disk):
    guests.disk_with("r.img", b"")
    with Vm("-hda", disk, "-drive", "file=r.img,format=raw,if=virtio", "-S") as vm:
        for command, said in (
                ("", "snapshot_blkdev: block device name expected\n"
                     'Try "help snapshot_blkdev" for more information'),
                (" ide0-hd0", "Error: Parameter 'snapshot-file' is missing"),
                (" nosuch", "Error: Parameter 'snapshot-file' is missing"),
                (" nosuch x.qcow2", "Error: Cannot find device='nosuch' nor node-name=''"),
                (" ide1-cd0 x.qcow2", "Error: Device 'ide1-cd0' has no medium"),
                (" ide0-hd0 x.qcow2 foo", "Error: Unknown file format 'foo'"),
                (" ide0-hd0 x.img raw",
                 "Error: Backing file not supported for file format 'raw'"),
                (" ide0-hd0 a.qcow2", "Error: Error: Trying to create an image with the same "
                                      "filename as the backing file"),
                (" ide0-hd0 no/x.qcow2", FORMATTING % ("no/x.qcow2", "a.qcow2", "qcow2") +
                 "\nError: Could not create 'no/x.qcow2': No such file or directory"),
                (" ide0-hd0 r.img", FORMATTING % ("r.img", "a.qcow2", "qcow2") +
                 '\nError: Failed to get "write" lock\n'
                 "Is another process using the image [r.img]?")):
            assert vm.monitor("snapshot_blkdev" + command) == said
        for command, said in (
                ("_internal nosuch n",
                 "Error: Cannot find device='nosuch' nor node-name='nosuch'"),
                ("_internal ide1-cd0 n", "Error: Device 'ide1-cd0' has no medium"),
                ("_internal virtio0 n", "Error: Block format 'raw' used by device 'virtio0' "
                                        "does not support internal snapshots"),
                ('_internal ide0-hd0 ""', "Error: Name is empty"),
                ("_internal ide0-hd0", "snapshot_blkdev_internal: string expected\n"
                                       'Try "help snapshot_blkdev_internal" for more '
                                       "information")):
            assert vm.monitor("snapshot_blkdev" + command) == said
        assert [name for name in os.listdir() if name[0] in "nx"] == []
        assert vm.quit() == 0
