"""Jobs on the images of a disk that a running guest writes to: merging, going back, and
what comes in between.  The reference's tools judge what is left."""
import json
import os
import subprocess
import time

import pytest

from counting import (SECOND_PORT, chain, content_is_right, count_in, end, goes_on, make_chain,
                      number, wait_idle)
from tools import check_image, qemu_img
from vm import Vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Names as people type them: without a folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def chained(tmp_path):
    return make_chain(tmp_path)


def test_snapshots_are_committed_merged_and_gone_back_from(chained):
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        vm.monitor("snapshot_blkdev ide0-hd0 d.qcow2")
        goes_on(vm)
        assert vm.monitor("commit ide0-hd0") == ""
        assert "): d.qcow2 (qcow2)" in vm.monitor("info block ide0-hd0")
        assert os.path.getsize("d.qcow2") < 1 << 20
        goes_on(vm)
        assert vm.monitor("snapshot_merge ide0-hd0") == ""
        said = vm.monitor("info block ide0-hd0")
        assert "): c.qcow2 (qcow2)" in said and "(chain depth: 2)" in said
        before = number(vm)
        vm.monitor("snapshot_blkdev ide0-hd0 e.qcow2")
        after = number(vm)
        goes_on(vm)
        vm.monitor("stop")
        assert vm.monitor("snapshot_revert ide0-hd0") == ""
        assert "): e.qcow2 (qcow2)" in vm.monitor("info block ide0-hd0")
        assert vm.quit() == 0
    assert chain("e.qcow2") == ["e.qcow2", "c.qcow2", "b.qcow2", "a.qcow2"]
    count = count_in("e.qcow2")
    assert before <= count <= after + 2
    qemu_img("compare", "c.qcow2", "e.qcow2")
    for image in "abce":
        check_image(image + ".qcow2")
    content_is_right("e.qcow2")


def test_a_killed_job_is_run_again(chained):
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("block_stream ide0-hd0 2M") == ""
        time.sleep(1)
        os.kill(vm.pid, 9)
    for image in "abc":                         # leaks at most
        report = json.loads(qemu_img("check", "--output=json", image + ".qcow2",
                                     ok=(0, 3)).stdout)
        assert not report.get("corruptions")
    content_is_right(chained)
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("block_stream ide0-hd0 1 a.qcow2") == ""
        time.sleep(0.3)
        assert vm.quit() == 0                   # the job ends with it
    assert chain(chained) == ["c.qcow2", "b.qcow2", "a.qcow2"]
    qemu_img("check", "-r", "leaks", chained)
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        assert vm.monitor("block_stream ide0-hd0") == ""
        wait_idle(vm)
        end(vm, chained)
    assert chain(chained) == ["c.qcow2"]


def test_an_image_that_somebody_reads_is_not_committed_into(chained):
    with Vm("-hda", chained, "-S") as vm:
        reader = subprocess.Popen(["qemu-io", "-r", "-f", "qcow2", "a.qcow2"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            reader.stdin.write(b"read 0 512\n")
            reader.stdin.flush()
            reader.stdout.readline()
            lock = ('Failed to get "write" lock\n'
                    "Is another process using the image [a.qcow2]?")
            assert vm.monitor("block_commit ide0-hd0") == "Error: " + lock
            assert vm.monitor("block_commit ide0-hd0 -t b.qcow2") == "Error: " + lock
            assert vm.monitor("info block-jobs") == "No active jobs"
        finally:
            reader.communicate()
        assert vm.monitor("block_commit ide0-hd0 -t b.qcow2") == ""
        wait_idle(vm)
        assert vm.quit() == 0
    assert chain(chained) == ["c.qcow2", "a.qcow2"]
    content_is_right(chained)
    check_image("a.qcow2")


def test_a_full_disk_ends_the_job_and_not_the_guest(chained):
    with Vm("-hda", chained, *SECOND_PORT) as vm:
        number(vm)
        # The images' files may not grow further than this.
        subprocess.run(["prlimit", "--pid", str(vm.pid), "--fsize=%d:unlimited" % (5 << 20)],
                       check=True)
        assert vm.monitor("block_stream ide0-hd0") == ""
        wait_idle(vm)
        subprocess.run(["prlimit", "--pid", str(vm.pid), "--fsize=unlimited"], check=True)
        assert "(chain depth: 2)" in vm.monitor("info block ide0-hd0")
        goes_on(vm)
        end(vm, chained)
    assert chain(chained) == ["c.qcow2", "b.qcow2", "a.qcow2"]


def test_commit_keeps_what_snapshot_would_drop(chained):
    with Vm("-hda", chained, "-snapshot", *SECOND_PORT) as vm:
        number(vm)
        before = number(vm)
        assert vm.monitor("commit all") == ""
        after = number(vm)
        goes_on(vm)
        assert vm.quit() == 0
    assert before <= count_in(chained) <= after + 2
    assert chain(chained) == ["c.qcow2", "b.qcow2", "a.qcow2"]
    check_image(chained)
    content_is_right(chained)
