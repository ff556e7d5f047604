"""Coverage-guided fuzzing, in short: see tests/fuzz/guided.  More: make fuzz."""
import glob
import os
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TARGETS = sorted(os.path.basename(p)[5:-2] for p in glob.glob(TOP + "/tests/fuzz/fuzz_*.c"))


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_that_fuzzing_makes_of_the_corpus_does_harm(target):
    done = subprocess.run([TOP + "/tests/fuzz/guided", "--seconds", "2", target],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    assert " inputs in " in done.stdout
