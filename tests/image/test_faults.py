"""Commands that are interrupted in the middle, and images that somebody else writes to."""
import shlex
import subprocess

import pytest

from fault_scenarios import (Commit, Convert, ConvertCompressed, ConvertInto, ConvertRaw,
                             CreateFull, CreateRawFull, Dd, Extract, Rebase)
from faults import MOST, work  # noqa: F401 (work: a fixture)
from tools import COWIMG, run


@pytest.mark.parametrize("kind", [Convert, ConvertCompressed, ConvertRaw, ConvertInto, Commit,
                                  CreateFull, CreateRawFull, Dd, Extract, Rebase],
                         ids=lambda k: k.__name__)
def test_an_interrupt_in_the_middle_leaves_nothing_that_looks_complete(work, kind):
    """SIGINT at the Nth call: the command ends in order, or has not begun to copy."""
    kind(work).walk("rwst", "int", 2 * MOST)


@pytest.mark.parametrize("line", ["snapshot -c s top.img", "resize -q top.img 2M", "commit top.img",
                                  "rebase -u -b '' top.img", "bitmap --add top.img b",
                                  "amend -o compat=0.10 top.img", "check -r all top.img",
                                  "convert -n -O qcow2 base.img top.img", "info top.img"])
def test_an_image_that_another_process_writes_to_is_refused(work, line):
    Commit(work).restore()
    held = subprocess.Popen(["qemu-io", "-f", "qcow2", "now/top.img"], cwd=work,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        held.stdin.write(b"read 0 512\n")
        held.stdin.flush()
        held.stdout.readline()
        said = [run(tool, *shlex.split(line), cwd=work / "now", ok=(1,)).stdout
                for tool in ("qemu-img", COWIMG)]
    finally:
        held.communicate()
    assert "Is another process using the image" in said[0]
    assert said[1].replace("cowimg", "qemu-img") == said[0]
