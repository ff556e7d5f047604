"""Runs of cowimg in which the Nth read, write, sync or truncation of its files fails.

A Scenario is a folder of small images, a command, and what must be seen afterwards: the
view as it was before the command, or as the command leaves it, nothing else.  Files whose
names contain ".img" are those that fail (lib/faults.c)."""
import hashlib
import json
import os
import subprocess

from tools import COWIMG, SLOW, TOP, qemu_img, run

BUILD = os.environ.get("COWVM_BUILD", "release")
SHIM = TOP / "build" / BUILD / "tests/lib/faults.so"
SECRET = ["--object", "secret,id=s,data=abc123"]
EIO, ENOSPC = 5, 28


def faulty(work, args, fault, count=None):
    """The run, with output; fault: "KINDS NTH ACTION", see lib/faults.c."""
    env = dict(os.environ, LD_PRELOAD=str(SHIM), COWVM_IO="threads", COWVM_FAULT=fault + " .img")
    env["ASAN_OPTIONS"] = env.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0:detect_leaks=0"
    if count:
        env["COWVM_FAULT_COUNT"] = str(count)
    return subprocess.run([COWIMG] + args, cwd=work, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=60 * SLOW)


class Scenario:
    """Subclasses set make, args, and what else differs."""
    target = None           # a file that the command makes
    keeps_target = False    # there already (convert -n): it stays, in order
    damaged = False         # the images are not clean before

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

    def nothing(self):
        """The view of a target that was made, and no more."""
        return hashlib.sha1(bytes(1 << 20)).hexdigest()

    def sound(self, name):
        """Leaks at most, in the eyes of the reference."""
        data = (self.now / name).read_bytes()
        secret = ",encrypt.key-secret=s" if data[35] else ""
        done = run("qemu-img", "check", *SECRET, "--image-opts",
                   "driver=qcow2,file.filename=" + name + secret, cwd=self.now, ok=None)
        assert done.returncode in ((0, 2, 3) if self.damaged else (0, 3)), done.stdout

    # --- one run

    def attempt(self, fault):
        """True if the command was hurt."""
        self.restore()
        done = faulty(self.now, self.args, fault)
        where = "%s (%s): %d %s" % (" ".join(self.args), fault, done.returncode, done.stdout)
        # -2: SIGINT while nothing is under way yet, or no more.
        assert done.returncode in (0, 1, 137) or (done.returncode == -2 and "int" in fault), where
        if done.returncode == 1:
            assert done.stdout.startswith("cowimg: ") or "\ncowimg: " in done.stdout, where
        for path in self.now.iterdir():
            if path.name.endswith(".img") and path.name != self.target and \
                    path.read_bytes()[:4] == b"QFI\xfb":
                self.sound(path.name)
        if self.target:
            self.judge_target(done.returncode, where)
        else:
            seen = self.view()
            assert seen == self.after or (done.returncode and seen == self.before), where
        return done.returncode != 0

    def judge_target(self, status, where):
        there = (self.now / self.target).exists()
        if status == 1 and not self.keeps_target:
            assert not there, where
        if status == -2 and there and not self.keeps_target and \
                (self.now / self.target).read_bytes()[:4] == b"QFI\xfb":
            assert self.view() in (self.after, self.nothing()), where
        if status == 0:
            assert self.view() == self.after, where
            if (self.now / self.target).read_bytes()[:4] == b"QFI\xfb":
                self.sound(self.target)
        elif there and self.keeps_target:
            self.sound(self.target)

    def walk(self, kinds, action, most, after=""):
        """Each of `most` places evenly in the run; how many of them hurt."""
        hurt, calls = 0, self.calls + 1
        step = max(1, calls // most)
        for nth in range(1, calls + 1, step):
            hurt += self.attempt("%s %d%s %s" % (kinds, nth, after or " ", action))
        return hurt


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
