"""Whatever fails in the middle of a command that makes an image: the error reaches the
caller, other images stay in order, and no target is left that looks complete."""
import pytest

from fault_scenarios import CREATIONS
from faults import work  # noqa: F401 (a fixture)


@pytest.mark.parametrize("kind", CREATIONS, ids=lambda k: k.__name__)
def test_a_failure_in_the_middle_is_told_and_harmless(work, kind):
    kind(work).walk_all()
