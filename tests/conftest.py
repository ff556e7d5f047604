"""What every whole-program test gets: helpers on the path, a private folder that
is removed afterwards, a limit on its time, and the kinds of KVM it may run on.

Environment: COWVM, COWIMG name the programs (default build/cowvm, build/cowimg);
COWVM_TEST_SLOW multiplies the time limits (sanitizers, nested machines).
"""
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "lib"))

LIMIT = 120                             # seconds for one test, unless marked


def pytest_configure(config):
    config.addinivalue_line("markers", "full_kvm: the guest needs a KVM with VT-x or SVM")
    config.addinivalue_line("markers", "any_kvm: the guest runs on a paravirtual KVM too")
    config.addinivalue_line("markers", "host: never nested; starts what it needs by itself")
    config.addinivalue_line("markers", "no_kvm: needs no KVM at all")
    config.addinivalue_line("markers", "limit(seconds): time limit of this test")


class TooLong(Exception):
    pass


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    mark = item.get_closest_marker("limit")
    seconds = (mark.args[0] if mark else LIMIT) * float(os.environ.get("COWVM_TEST_SLOW", 1))

    def expire(signum, frame):
        raise TooLong("past the limit of %d s" % seconds)
    old = signal.signal(signal.SIGALRM, expire)
    signal.alarm(int(seconds))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, old)


@pytest.fixture
def tmp_path():
    path = tempfile.mkdtemp(prefix="cowvm-test.")
    yield Path(path)
    shutil.rmtree(path, ignore_errors=True)
