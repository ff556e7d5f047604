"""The command line of the whole program: exit status, messages, background."""
import os
import re
import signal
import subprocess
import time

import pytest

from tools import COWVM, SLOW, blank, run

pytestmark = pytest.mark.any_kvm


def refuse(*args, status=1):
    """Ends at once with this status and one line; returns that line."""
    done = run(COWVM, "-display", "none", *args, ok=(status,), timeout=20)
    lines = done.stdout.rstrip("\n").split("\n")
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("cowvm: "), done.stdout
    return lines[0]


@pytest.mark.parametrize("args, message", [
    (["-foo"], "-foo: invalid option"),
    (["--foo"], "--foo: invalid option"),
    (["-m"], "-m: requires an argument"),
    (["-m", "1G,foo=2"], "-m 1G,foo=2: Invalid parameter 'foo'"),
    (["-accel", "tcg"], "-accel tcg: accelerator 'tcg' is not available, only kvm"),
    (["-M", "q35"], "-M q35: unsupported machine type 'q35'; use -machine help to list "
                    "supported machines"),
    (["-smp", "0"], "-smp 0: Parameter 'cpus' must be greater than zero"),
    (["-cpu", "z80"], "-cpu z80: unable to find CPU model 'z80'"),
    (["-hda", "nosuch"], "-hda nosuch: Could not open 'nosuch': No such file or directory"),
    (["nosuch"], "nosuch: Could not open 'nosuch': No such file or directory"),
    (["-drive", "file=nosuch,if=virtio"],
     "-drive file=nosuch,if=virtio: Could not open 'nosuch': No such file or directory"),
    (["-boot", "z"], "-boot z: Invalid boot device 'z'"),
    (["-serial", "foo"], "-serial foo: 'foo' is not a valid char driver"),
    (["-serial", "chardev:x"], '-serial chardev:x: chardev "x" not found'),
    (["-mon", "x"], '-mon x: chardev "x" not found'),
    (["-device", "foo"], "-device foo: 'foo' is not a valid device model name"),
    (["-device", "virtio-blk-pci,drive=x"],
     "-device virtio-blk-pci,drive=x: Property 'drive' can't find value 'x'"),
    (["-device", "virtio-blk-pci,foo=1"],
     "-device virtio-blk-pci,foo=1: Property 'virtio-blk-pci.foo' not found"),
    (["-global", "a.b=c"], "-global a.b=c: not available: give the property to -device"),
    (["-readconfig", "nosuch"],
     "-readconfig nosuch: Could not open 'nosuch': No such file or directory"),
    (["-pidfile", "/nosuch/x"],
     "cannot create PID file: Could not create '/nosuch/x': No such file or directory"),
    (["-D", "/nosuch/x"], "cannot open log file '/nosuch/x': No such file or directory"),
    (["-serial", "stdio", "-monitor", "stdio"],
     "-monitor stdio: cannot use stdio by multiple character devices"),
    (["-daemonize", "-nographic"], "-nographic cannot be used with -daemonize"),
    (["-daemonize", "-hda", "nosuch"],
     "-hda nosuch: Could not open 'nosuch': No such file or directory"),
])
def test_mistakes_end_with_one_line_that_names_them(args, message):
    assert refuse(*args) == "cowvm: " + message


@pytest.mark.parametrize("args, message", [
    (["-bios", "nosuch"], r"'nosuch'"),
    (["-kernel", "nosuch"], r"'nosuch'.*No such file or directory"),
    (["-m", "3T"], r"cannot set up guest memory"),
])
def test_missing_things_end_with_one_line(args, message):
    assert re.search(message, refuse(*args))


@pytest.mark.no_kvm
def test_host_without_kvm_gets_one_line(tmp_path):
    """In a mount namespace whose /dev has nothing but what the shell needs."""
    script = ('mount -t tmpfs none /dev && : >/dev/null && exec "$0" -display none')
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script, COWVM], capture_output=True,
                          text=True, timeout=20 * SLOW, check=False)
    assert done.returncode == 1
    lines = done.stderr.rstrip("\n").split("\n")
    assert len(lines) == 1 and "KVM kernel module" in lines[0], done.stderr


@pytest.mark.no_kvm
def test_kvm_without_permission_gets_one_line():
    script = ('mount -t tmpfs none /dev && : >/dev/kvm && chmod 0 /dev/kvm && '
              'exec setpriv --reuid 1 --clear-groups --bounding-set -all "$0" -display none')
    done = subprocess.run(["unshare", "-m", "sh", "-c", script, COWVM], capture_output=True,
                          text=True, timeout=20 * SLOW, check=False)
    assert done.returncode == 1
    lines = done.stderr.rstrip("\n").split("\n")
    assert len(lines) == 1 and "KVM kernel module" in lines[0], done.stderr
    assert "Permission denied" in lines[0], done.stderr


@pytest.mark.no_kvm
def test_help_and_version_end_with_success():
    assert re.match(r"cowvm version \d", run(COWVM, "-version").stdout)
    text = run(COWVM, "-help").stdout
    for option in ("-drive", "-readconfig", "-nographic", "-m ", "-smp "):
        assert "\n" + option in text
    assert run(COWVM, "-h").stdout == text
    assert "pc " in run(COWVM, "-machine", "help").stdout
    assert "host" in run(COWVM, "-cpu", "help").stdout
    assert "kvm" in run(COWVM, "-accel", "help").stdout
    assert 'name "virtio-blk-pci", bus PCI' in run(COWVM, "-device", "help").stdout
    assert "drive=<str>" in run(COWVM, "-device", "virtio-blk-pci,help").stdout
    assert "qcow2" in run(COWVM, "-trace", "help").stdout.split("\n")


class Process:
    """cowvm in the foreground without a terminal."""

    def __init__(self, *args):
        self.child = subprocess.Popen([COWVM, "-display", "none", *map(str, args)],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.communicate()

    def wait(self):
        text, _ = self.child.communicate(timeout=30 * SLOW)
        return self.child.returncode, text


def wait_for_file(path):
    end = time.monotonic() + 20 * SLOW
    while not (os.path.exists(path) and os.path.getsize(path)):
        assert time.monotonic() < end, "%s does not appear" % path
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_in_order(tmp_path, number):
    pid, disk = tmp_path / "pid", tmp_path / "d.qcow2"
    blank(disk)
    with Process("-pidfile", pid, "-hda", disk) as p:
        wait_for_file(pid)
        time.sleep(0.3)
        p.child.send_signal(number)
        status, text = p.wait()
    assert status == 0, text
    assert re.fullmatch(r"cowvm: terminating on signal %d from pid %d \(.*\)\n" % (
        number, os.getpid()), text)
    assert not pid.exists()


def test_pid_file_is_locked(tmp_path):
    pid = tmp_path / "pid"
    with Process("-S", "-pidfile", pid) as p:
        wait_for_file(pid)
        assert int(pid.read_text()) == p.child.pid
        assert refuse("-S", "-pidfile", pid) == (
            "cowvm: cannot create PID file: Could not lock '%s': "
            "Resource temporarily unavailable" % pid)
        assert int(pid.read_text()) == p.child.pid


def test_daemon_returns_when_it_is_ready(tmp_path):
    pid, monitor, log = tmp_path / "pid", tmp_path / "mon", tmp_path / "log"
    done = run(COWVM, "-display", "none", "-daemonize", "-pidfile", pid, "-D", log, "-S",
               "-monitor", "unix:%s,server,nowait" % monitor, timeout=20)
    assert done.stdout == ""
    number = int(pid.read_text())
    try:
        assert monitor.exists()
        assert os.getsid(number) == number
        assert os.readlink("/proc/%d/fd/0" % number) == "/dev/null"
    finally:
        os.kill(number, signal.SIGTERM)
    end = time.monotonic() + 20 * SLOW
    while pid.exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "terminating on signal 15" in log.read_text()


def test_daemon_reports_errors_before_it_detaches(tmp_path):
    assert "Could not open" in refuse("-daemonize", "-hda", tmp_path / "nosuch")
