"""Snapshots of single disks, and jobs on their images, where an image of the chain is
encrypted: what goes into it is, and the key stays good."""
import os

import pytest

import guests
from counting import SECOND_PORT, chain, goes_on, last_number, number, wait_idle
from lib import crypt
from lib.crypt import encrypted
from tools import check_image, cowimg, qemu_img, run
from vm import Vm

pytestmark = pytest.mark.any_kvm
SECRET = ["-object", "secret,id=s,data=abc123"]
KINDS = ["qcow2-luks", "qcow2-aes"]
PLAIN = "warning: ide0-hd0: '%s' is not encrypted, but what is behind it is"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Names as people type them: without a folder."""
    monkeypatch.chdir(tmp_path)


def start(kind, work):
    encrypted("a.qcow2", kind, guests.keeps_count(work))
    return Vm(*SECRET, "-drive", "file=a.qcow2,encrypt.key-secret=s", *SECOND_PORT)


def put_overlay(vm, name, over_encrypted=True):
    said = vm.monitor("snapshot_blkdev ide0-hd0 " + name)
    assert "Formatting '%s'" % name in said
    assert (PLAIN % name in said) == over_encrypted
    goes_on(vm)


def count_in(kind, image):
    """What the guest's counter is on the disk, as the reference decrypts it."""
    return int.from_bytes(crypt.content(kind, image)[8 * 512:8 * 512 + 2], "little")


def quit_at(vm):
    assert vm.quit() == 0
    return last_number(vm)


@pytest.mark.parametrize("kind", KINDS)
def test_overlays_are_committed_into_an_encrypted_image(tmp_path, kind):
    with start(kind, tmp_path) as vm:
        number(vm)
        put_overlay(vm, "b.qcow2")
        before = number(vm)
        assert vm.monitor("commit ide0-hd0", timeout=60) == ""
        goes_on(vm)
        put_overlay(vm, "c.qcow2", False)
        assert vm.monitor("block_commit ide0-hd0 -t b.qcow2") == ""
        wait_idle(vm)
        goes_on(vm)
        assert chain("c.qcow2") == ["c.qcow2", "a.qcow2"]
        assert vm.monitor("block_commit ide0-hd0") == ""
        vm.wait_for(lambda: vm.monitor("block_job_complete ide0-hd0") == "", 30,
                    lambda: vm.monitor("info block-jobs"))
        wait_idle(vm)
        assert "): a.qcow2 (qcow2, encrypted)" in vm.monitor("info block ide0-hd0")
        goes_on(vm)
        assert vm.monitor("savevm after") == ""
        last = quit_at(vm)
    crypt.check(kind, "a.qcow2")
    assert before < last <= count_in(kind, "a.qcow2") <= last + 1
    cowimg("snapshot", "--verify", *crypt.SECRET, "--image-opts", crypt.opts(kind, "a.qcow2"))


@pytest.mark.parametrize("kind", KINDS)
def test_overlays_are_merged_reverted_and_made_whole(tmp_path, kind):
    with start(kind, tmp_path) as vm:
        number(vm)
        put_overlay(vm, "b.qcow2")
        assert vm.monitor("snapshot_merge ide0-hd0", timeout=60) == ""
        assert "): a.qcow2 (qcow2, encrypted)" in vm.monitor("info block ide0-hd0")
        goes_on(vm)
        put_overlay(vm, "c.qcow2")
        assert vm.monitor("block_stream ide0-hd0") == ""
        wait_idle(vm)
        assert "Backing file" not in vm.monitor("info block ide0-hd0")
        goes_on(vm)
        last = quit_at(vm)
    crypt.check(kind, "a.qcow2")
    check_image("c.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "read 0 16M", "c.qcow2")
    qemu_img("convert", "-f", "qcow2", "-O", "raw", "c.qcow2", "c.raw")
    with open("c.raw", "rb") as f:
        f.seek(8 * 512)
        assert last <= int.from_bytes(f.read(2), "little") <= last + 1
    below = count_in(kind, "a.qcow2")
    option = "backing.encrypt.key-secret=s"
    qemu_img("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "a.qcow2", "d.qcow2")
    os.unlink("c.qcow2")
    with Vm(*SECRET, "-drive", "file=d.qcow2," + option, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("stop") == ""
        assert vm.monitor("snapshot_revert ide0-hd0") == ""
        assert vm.quit() == 0
    theirs = ("--image-opts", "driver=qcow2,file.filename=d.qcow2," + option)
    qemu_img("convert", *crypt.SECRET, *theirs, "-O", "raw", "d.raw")
    with open("d.raw", "rb") as f:
        f.seek(8 * 512)
        assert int.from_bytes(f.read(2), "little") == below
