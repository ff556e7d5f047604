"""Jobs on the images of a disk that a running guest writes to: words, control, ranges.
The reference's tools judge what is left."""
import re
import time

import pytest

import guests
from counting import (SECOND_PORT, chain, content_is_right, end, goes_on, make_chain, number,
                      wait_idle)
from tools import check_image, qemu_img
from vm import Vm

pytestmark = pytest.mark.any_kvm
BUSY = "Error: Node 'ide0-hd0' is busy: block device is in use by block job: %s"
LINE = (r"%s: Completed \d+ of 16777216 bytes, speed limit %d bytes/s$")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Names as people type them: without a folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def chained(tmp_path):
    return make_chain(tmp_path)


def test_words_of_the_reference(chained):
    guests.disk_with("r.img", b"")
    with Vm("-hda", chained, "-drive", "file=r.img,format=raw,if=virtio", "-S") as vm:
        for command, said in (
                ("info block-jobs", "No active jobs"),
                ("commit", "commit: block device name expected\n"
                           'Try "help commit" for more information'),
                ("commit nosuch", "Device 'nosuch' not found"),
                ("commit ide1-cd0", "Device 'ide1-cd0' has no medium"),
                ("commit virtio0", "'commit' error for 'virtio0': Operation not supported"),
                ("block_stream nosuch",
                 "Error: Cannot find device='nosuch' nor node-name='nosuch'"),
                ("block_stream ide1-cd0", "Error: Device 'ide1-cd0' has no medium"),
                ("block_stream ide0-hd0 1 nosuch.qcow2",
                 "Error: Can't find 'nosuch.qcow2' in the backing chain"),
                ("block_stream ide0-hd0 1 c.qcow2",
                 "Error: Can't find 'c.qcow2' in the backing chain"),
                ("block_stream ide0-hd0 -1",
                 'invalid size\nTry "help block_stream" for more information'),
                ("block_job_set_speed ide0-hd0",
                 'invalid size\nTry "help block_job_set_speed" for more information'),
                ("block_commit nosuch", "Error: Device 'nosuch' not found"),
                ("block_commit virtio0", "Error: cannot commit an image into itself"),
                ("block_commit ide0-hd0 -t nosuch", "Error: Top image file nosuch not found"),
                ("block_commit ide0-hd0 -t a.qcow2",
                 "Error: cannot commit an image into itself"),
                ("block_commit ide0-hd0 -t b.qcow2 -b c.qcow2",
                 "Error: Can't find 'c.qcow2' in the backing chain"),
                ("block_commit ide0-hd0 -x 1",
                 "Error: block_commit: unsupported option '-x'"),
                ("snapshot_merge nosuch", "Error: Device 'nosuch' not found"),
                ("snapshot_merge virtio0", "Error: cannot commit an image into itself"),
                ("snapshot_revert virtio0",
                 "Error: Device 'virtio0' has no image behind its image")):
            assert vm.monitor(command) == said
        for word in ("pause", "resume", "cancel", "cancel -f", "complete", "set_speed"):
            argument = " 1" if word == "set_speed" else ""
            for device in ("ide0-hd0", "nosuch"):
                assert vm.monitor("block_job_%s %s%s" % (word, device, argument)) == (
                    "Error: Block job '%s' not found" % device)
        assert vm.quit() == 0
    assert chain(chained) == ["c.qcow2", "b.qcow2", "a.qcow2"]
    content_is_right(chained)


def stands_still(vm):
    """What is said of a job when what was under way has ended."""
    seen = ["", vm.monitor("info block-jobs")]

    def same():
        time.sleep(0.6)
        seen[:] = seen[1], vm.monitor("info block-jobs")
        return seen[0] == seen[1]
    vm.wait_for(same, 30, lambda: seen[1])
    return seen[1]


def test_a_slow_job_is_looked_at_paused_and_in_the_way(chained):
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("savevm before") == ""
        assert vm.monitor("block_stream ide0-hd0 256k") == ""
        assert re.match(LINE % ("Streaming device ide0-hd0", 256 << 10),
                        vm.monitor("info block-jobs"))
        for command in ("block_stream ide0-hd0", "block_commit ide0-hd0",
                        "snapshot_blkdev ide0-hd0 x.qcow2", "snapshot_merge ide0-hd0",
                        "snapshot_revert ide0-hd0", "snapshot_blkdev_all x",
                        "snapshot_blkdev_internal ide0-hd0 x", "loadvm before"):
            assert vm.monitor(command) == BUSY % "stream"
        assert vm.monitor("commit ide0-hd0") == (
            "'commit' error for 'ide0-hd0': Device or resource busy")
        assert vm.monitor("commit all") == "'commit' error for 'all': Device or resource busy"
        assert vm.monitor("block_job_pause ide0-hd0") == ""
        assert vm.monitor("block_job_pause ide0-hd0") == "Error: Job is already paused"
        paused = stands_still(vm)
        goes_on(vm)
        assert vm.monitor("info block-jobs") == paused
        assert vm.monitor("savevm meanwhile") == ""
        assert vm.monitor("block_job_set_speed ide0-hd0 2M") == ""
        assert vm.monitor("block_job_resume ide0-hd0") == ""
        assert vm.monitor("block_job_resume ide0-hd0") == (
            "Error: Can't resume a job that was not paused")
        assert vm.monitor("block_job_complete ide0-hd0") == (
            "Error: Job 'ide0-hd0' in state 'running' cannot accept command verb 'complete'")
        assert re.match(LINE % ("Streaming device ide0-hd0", 2 << 20),
                        vm.monitor("info block-jobs"))
        vm.monitor("block_job_set_speed ide0-hd0 0")
        wait_idle(vm)
        assert "Backing file" not in vm.monitor("info block ide0-hd0")
        end(vm, chained)
    assert chain(chained) == ["c.qcow2"]


def test_committed_down_to_the_last_image(chained):
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("block_commit ide0-hd0 -t b.qcow2 -b a.qcow2") == ""
        wait_idle(vm)
        assert chain(chained) == ["c.qcow2", "a.qcow2"]
        assert vm.monitor("block_commit ide0-hd0") == ""
        vm.wait_for(lambda: vm.monitor("block_job_complete ide0-hd0") == "", 30,
                    lambda: vm.monitor("info block-jobs"))
        wait_idle(vm)
        said = vm.monitor("info block ide0-hd0")
        assert "): a.qcow2 (qcow2)" in said and "Backing file" not in said
        qemu_img("info", "b.qcow2")             # nobody holds them any more
        goes_on(vm)
        end(vm, "a.qcow2")
    check_image("c.qcow2")
