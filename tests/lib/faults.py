"""Runs of cowimg in which the Nth read, write, sync or truncation of its files fails.

A Scenario is a folder of small images, a command, and what must be seen afterwards: the
view as it was before the command, or as the command leaves it, nothing else.  Files whose
names contain ".img" are those that fail (lib/faults.c)."""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tools import BUILD, COWIMG, SLOW, TOP, qemu_img, run

SHIM = TOP / "build" / BUILD / "tests/lib/faults.so"
SCARCE = TOP / "build" / BUILD / "tests/image/scarce"
SECRET = ["--object", "secret,id=s,data=abc123"]
EIO, ENOSPC = 5, 28
# Places in each run; COWVM_FAULTS=1000 walks all of them.
MOST = int(os.environ.get("COWVM_FAULTS", 5 if SLOW == 1 else 2))


def surroundings(count=None, **env):
    """The environment of a program in which something fails."""
    env = dict(os.environ, COWVM_IO="threads", **env)
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0:detect_leaks=0"
    if count:
        env["COWVM_FAULT_COUNT"] = str(count)
    return env


def faults(fault):
    """Of cowimg; fault: "KINDS NTH ACTION", see lib/faults.c."""
    return {"LD_PRELOAD": str(SHIM), "COWVM_FAULT": fault + " .img"}


def execute(program, args, work, env):
    return subprocess.run(["cowimg"] + args, executable=program, cwd=work, env=env,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60 * SLOW)


def faulty(work, args, fault, count=None):
    """The run, with output."""
    return execute(COWIMG, args, work, surroundings(count, **faults(fault)))


def starved(work, args, nth, count=None):
    """The same, with an allocation that fails: see image/scarce.c."""
    return execute(SCARCE, args, work, surroundings(count, COWVM_SCARCE=nth))


class Scenario:
    """Subclasses set make, args, and what else differs."""
    target = None           # a file that the command makes
    keeps_target = False    # there already (convert -n): it stays, in order
    damaged = False         # the images are not clean before
    statuses = (0, 1, 137)
    slow = False            # fewer places: each derives keys
    fresh_is_whole = False  # whatever ends the command, a qcow2 target is complete

    def __init__(self, work):
        self.work, self.now = work, work / "now"
        self.now.mkdir()
        self.make(self.now)
        self.fresh = {p.name: p.read_bytes() for p in self.now.iterdir()}
        self.before = self.view()
        count = work / "count"
        done = faulty(self.now, self.args, "rwst 1000000 5", count)
        assert done.returncode == 0, done.stdout
        self.calls = int(count.read_text())
        self.after = self.view()
        assert self.target or self.before != self.after or self.same, "the command does something"

    same = False            # the view stays

    def restore(self):
        for p in self.now.iterdir():
            p.unlink()
        for name, data in self.fresh.items():
            (self.now / name).write_bytes(data)

    # --- what is to be seen

    def show(self, name, extra=()):
        """Hash of what a qcow2 image shows."""
        out = self.work / "flat"
        options = "driver=qcow2,file.filename=" + name + "".join("," + e for e in extra)
        run(COWIMG, "convert", *SECRET, "--image-opts", "-O", "raw", options, out, cwd=self.now)
        return hashlib.sha1(out.read_bytes()).hexdigest()

    def info(self, name):
        return json.loads(run(COWIMG, "info", "--output=json", name, cwd=self.now).stdout)

    def view(self):
        return None

    def sound(self, name):
        """Leaks at most, in the eyes of the reference."""
        data = (self.now / name).read_bytes()
        secret = ",encrypt.key-secret=s" if data[35] else ""
        done = run("qemu-img", "check", *SECRET, "--image-opts",
                   "driver=qcow2,file.filename=" + name + secret, cwd=self.now, ok=None)
        assert done.returncode in ((0, 2, 3) if self.damaged else (0, 3)), done.stdout

    # --- one run

    def accepts(self, seen, failed):
        return seen == self.after or (failed and seen == self.before)

    def attempt(self, fault, how=faulty):
        """True if the command was hurt."""
        self.restore()
        done = how(self.now, self.args, fault)
        where = "%s (%s): %d %s" % (" ".join(self.args), fault, done.returncode, done.stdout)
        # -2: SIGINT while nothing is under way yet, or no more.
        assert done.returncode in self.statuses or (done.returncode == -2 and "int" in fault), where
        if done.returncode == 1:
            assert done.stdout.startswith("cowimg: ") or "\ncowimg: " in done.stdout, where
        for path in self.now.iterdir():
            if path.name.endswith(".img") and path.name != self.target and is_qcow2(path):
                self.sound(path.name)
        if self.target:
            self.judge_target(done.returncode, where)
        else:
            assert self.accepts(self.view(), done.returncode != 0), where
        return done.returncode != 0

    def judge_target(self, status, where):
        path = self.now / self.target
        if status == -2 and path.exists() and not self.keeps_target:
            status = 0                                  # it came when all was done
        if status in (1, -2) and not self.keeps_target:
            assert sorted(p.name for p in self.now.iterdir()) == sorted(self.fresh), where
        if status == 0:
            assert self.view() == self.after, where
        if path.exists() and (status == 0 or self.keeps_target) and is_qcow2(path):
            self.sound(self.target)
        if status == 137 and self.fresh_is_whole and path.exists() and is_qcow2(path):
            assert self.view() == self.after, where

    def walk_all(self):
        """Whatever can fail of its files."""
        assert self.calls > 2
        # Of the few places of slow ones all but the first may be harmless, as a last read is.
        assert self.walk("rwst", EIO, 2 * MOST) > (0 if self.slow else 1)
        assert self.walk("w", ENOSPC, MOST, after="+") > 0      # full, and stays so
        self.walk("w", "kill", MOST)

    def walk(self, kinds, action, most, after=""):
        """Each of `most` places evenly in the run; how many of them hurt."""
        return self.walk_calls(self.calls, most, lambda n: self.attempt(
            "%s %d%s %s" % (kinds, n, after or " ", action)))

    def walk_memory(self, most, after=""):
        """The same for allocations."""
        count = self.work / "count"
        self.restore()
        done = starved(self.now, self.args, "0", count)
        assert done.returncode == 0, done.stdout
        calls = int(count.read_text())
        hurt = self.walk_calls(calls, most, lambda n: self.attempt("%d%s" % (n, after), starved))
        assert hurt or not after or calls < 2, "some allocation of %d matters" % calls

    def walk_calls(self, calls, most, attempt):
        if self.slow and most < 100:
            most = max(2, most // 3)
        step = max(1, (calls + 1) // most)
        walked = range(1, calls + 2, step)
        record("%s: %d" % (type(self).__name__, len(walked)))
        return sum(attempt(nth) for nth in walked)


@pytest.fixture
def work(tmp_path):
    """A folder in memory, if there is room: most of the time is syncs."""
    shm = Path("/dev/shm")
    try:
        room = os.statvfs(shm)
        roomy = room.f_bavail * room.f_bsize > 1 << 28 and os.access(shm, os.W_OK)
    except OSError:
        roomy = False
    folder = Path(tempfile.mkdtemp(prefix="cowvm-faults.", dir=shm if roomy else tmp_path))
    yield folder
    shutil.rmtree(folder)


def is_qcow2(path):
    return path.read_bytes()[:4] == b"QFI\xfb"


def record(line):
    """How many places were walked, for those who ask."""
    name = os.environ.get("COWVM_FAULTS_LOG")
    if name:
        with open(name, "a", encoding="ascii") as f:
            f.write(line + "\n")


def qcow2(work, name, size, *options, base=None, pattern=()):
    args = ["create", "-q", "-f", "qcow2"]
    if options:
        args += ["-o", ",".join(options)]
    if base:
        args += ["-b", base, "-F", "qcow2"]
    if "encrypt" in str(options):       # the reference measures time, which may fail
        run(COWIMG, args[0], *SECRET, *args[1:], name, size, cwd=work)
    else:
        qemu_img(*args, name, size, cwd=work)
    write(work, name, *pattern, secret="encrypt" in str(options))


def write(work, name, *pattern, secret=False):
    if not pattern:
        return
    opts = "driver=qcow2,file.filename=" + name + (",encrypt.key-secret=s" if secret else "")
    args = [a for line in pattern for a in ("-c", line)]
    done = run("qemu-io", *SECRET, "--image-opts", opts, *args, cwd=work)
    assert "failed" not in done.stdout and "error" not in done.stdout, done.stdout
