"""An allocation that fails in the middle of any command: the error reaches the caller, and
images are what they were or what the command was to make of them."""
import pytest

from fault_scenarios import CHANGES, COPIES, CREATIONS, LAYERS, SNAPSHOTS
from faults import MOST, work  # noqa: F401 (work: a fixture)


@pytest.mark.parametrize("kind", COPIES + CREATIONS + LAYERS + SNAPSHOTS + CHANGES,
                         ids=lambda k: k.__name__)
def test_memory_that_is_missing_is_told_and_harmless(work, kind):
    s = kind(work)
    s.walk_memory(2 * MOST)
    s.walk_memory(MOST, after="+")
