"""A file system that is full in the middle of a command: it says so, and images are what
they were or what the command was to make of them."""
import os

import pytest

from fault_scenarios import CHANGES, COPIES, CREATIONS, LAYERS, SNAPSHOTS
from faults import MOST, work  # noqa: F401 (work: a fixture)
from mounts import on_full_disk
from tools import COWIMG


def kib(folder):
    return sum(os.stat(p).st_blocks for p in folder.iterdir()) // 2


@pytest.mark.parametrize("kind", COPIES + CREATIONS + LAYERS + SNAPSHOTS + CHANGES,
                         ids=lambda k: k.__name__)
def test_a_full_disk_is_told_and_harmless(work, kind):
    s = kind(work)
    after = kib(s.now)
    s.restore()
    need = max(after - kib(s.now), 0) + 24

    def on_small(folder, args, free):
        return on_full_disk(folder, work / "small", free, [COWIMG, *args])
    hurt = [s.attempt(str(free), on_small)
            for free in range(0, need, max(4, need // MOST // 4 * 4))]
    assert len(hurt) > 1
