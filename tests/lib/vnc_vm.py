"""A machine whose screen is on VNC, for tests."""
import contextlib
import os
import re
import time

from rfb import read_ppm
from vm import Vm


@contextlib.contextmanager
def vnc_vm(*args, options="", boot=None, **kw):
    """A machine with VNC on a free port: (vm, address)."""
    more = ["-drive", "file=%s,format=raw" % boot] if boot else []
    with Vm("-vnc", "127.0.0.1:%d,to=999%s" % (100 + os.getpid() % 700, options), *more,
            *args, **kw) as vm:
        port = re.findall(r"Server: 127\.0\.0\.1:(\d+) \(ipv4\)\n", vm.monitor("info vnc"))[-1]
        yield vm, ("127.0.0.1", int(port))


def dump(vm, tmp_path):
    path = tmp_path / "dump.ppm"
    assert vm.monitor("screendump %s" % path) == ""
    return read_ppm(path)


def responds(vm):
    start = time.monotonic()
    assert "VM status" in vm.monitor("info status")
    return time.monotonic() - start
