"""Whatever fails in the middle of a command that changes images: the error reaches the
caller, and they show what they showed before, or what the command was to make of them."""
import pytest

from fault_scenarios import CHANGES
from faults import work  # noqa: F401 (a fixture)


@pytest.mark.parametrize("kind", CHANGES, ids=lambda k: k.__name__)
def test_a_failure_in_the_middle_is_told_and_harmless(work, kind):
    kind(work).walk_all()
