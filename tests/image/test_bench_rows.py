"""The image rows of `make bench` run, with small images: what they measure is work that
both programs can do on the same files."""
import os
import re
import sys

import pytest

from tools import COWIMG, TOP, run

sys.path.insert(0, str(TOP / "tests/bench"))
import images                           # noqa: E402


def bench(*args):
    return run(sys.executable, TOP / "tests/bench/images.py", *args,
               env=dict(os.environ, COWIMG=COWIMG), timeout=50).stdout


# Some of each kind: files made for it, a result, a copy that is changed, a chain.
@pytest.mark.parametrize("row", ["convert raw to qcow2", "from luks", "commit", "snapshot -a",
                                 "map fragmented", "convert chain 64", "allocate depth 32",
                                 "resize 64T"])
def test_row_measures_both_programs(row, tmp_path):
    out = bench("-n", "1", "-s", "8", "-d", tmp_path, row)
    lines = [line for line in out.splitlines() if line.startswith(row)]
    assert len(lines) == 1, out
    numbers = re.match(r"%s +(\d+) \[ *\d+\] +(\d+) \[ *\d+\] +[\d.]+" % re.escape(row), lines[0])
    assert numbers and all(int(n) > 0 for n in numbers.groups()), out
    assert not os.listdir(tmp_path)


def test_rows_have_names_of_their_own():
    names = bench("-l").splitlines()
    assert len(names) == len(set(names)) == len(images.ROWS)
