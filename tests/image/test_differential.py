"""Random operations by both tools on copies of an image: see tests/fuzz/differential."""
import subprocess

import pytest

from tools import SLOW, TOP


@pytest.mark.parametrize("part", range(4))
def test_random_sequences_end_the_same_by_either_tool(part):
    """A fixed range of seeds; a longer one: make fuzz-nightly."""
    count = 40 if SLOW == 1 else 10
    done = subprocess.run([TOP / "tests/fuzz/differential", "--seed", str(1000 * part), "-j", "1",
                           "--count", str(count), "--seconds", "25"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-8000:]
