"""Whatever fails in the middle of a command: the error reaches the caller, images stay in
order and show what they showed before or what the command was to make of them, and no
target is left that looks complete."""
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from lib.faults import EIO, ENOSPC, SECRET, Scenario, qcow2, write
from tools import COWIMG, SLOW, run

SMALL = "cluster_size=4k"
PATTERN = ("write -P 1 0 200k", "write -P 2 300k 5000", "write -z 256k 32k", "write -P 3 700k 64k")
OVER = ("write -P 7 16k 40k", "write -P 8 290k 30k", "write -z 704k 8k", "write -P 9 900k 12k")


class Convert(Scenario):
    target, options = "out.img", []

    @property
    def args(self):
        return ["convert", *SECRET, *self.options, "-O", "qcow2", "src", "out.img"]

    def make(self, work):
        qcow2(work, "src", "1M", SMALL, pattern=PATTERN)

    def view(self):
        return self.show("out.img") if (self.now / "out.img").exists() else None


class ConvertCompressed(Convert):
    options = ["-c", "-o", SMALL]


class ConvertEncrypted(Convert):
    options = ["-o", SMALL + ",encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]

    def view(self):
        return self.show("out.img", ["encrypt.key-secret=s"]) \
            if (self.now / "out.img").exists() else None


class ConvertRaw(Convert):
    @property
    def args(self):
        return ["convert", "-O", "raw", "src.img", "out.img"]

    def make(self, work):
        qcow2(work, "src.img", "1M", SMALL, pattern=PATTERN)

    def view(self):
        path = self.now / "out.img"
        return path.read_bytes() if path.exists() else None


class ConvertInto(Convert):
    """-n: what is there stays, and is an image in order."""
    keeps_target = True
    options = ["-n"]

    def make(self, work):
        Convert.make(self, work)
        qcow2(work, "out.img", "1M", "cluster_size=8k", pattern=OVER)


class DataFile(Scenario):
    args = ["resize", "-q", "--preallocation=full", "top.img", "1200k"]

    def make(self, work):
        qcow2(work, "top.img", "1M", SMALL, "data_file=data.img", pattern=PATTERN)

    def view(self):
        return self.show("top.img")


class Commit(Scenario):
    args = ["commit", "-q", "top.img"]
    same = True
    kind = ()

    def make(self, work):
        qcow2(work, "base.img", "1M", SMALL, *self.kind, pattern=PATTERN)
        qcow2(work, "top.img", "1100k", SMALL, base="base.img")
        opts = "driver=qcow2,file.filename=top.img" + \
            (",backing.encrypt.key-secret=s" if self.kind else "")
        args = [a for line in OVER for a in ("-c", line)]
        run("qemu-io", *SECRET, "--image-opts", opts, *args, cwd=work)

    def view(self):
        return self.show("top.img", ["backing.encrypt.key-secret=s"] if self.kind else [])


class Rebase(Scenario):
    args = ["rebase", "-b", "new.img", "-F", "qcow2", "top.img"]
    same = True

    def make(self, work):
        qcow2(work, "base.img", "1M", SMALL, pattern=PATTERN)
        qcow2(work, "new.img", "900k", "cluster_size=8k", pattern=("write -P 5 100k 300k",))
        qcow2(work, "top.img", "1100k", SMALL, base="base.img", pattern=OVER)

    def view(self):
        return self.show("top.img")


class RebaseAway(Rebase):
    args = ["rebase", "-b", "", "top.img"]


class Snapshots(Scenario):
    verb, kind = "-c", ()

    def snapshot(self, verb, name):
        if not self.kind:
            return ["snapshot", verb, name, "top.img"]
        return ["snapshot", verb, name, *SECRET, "--image-opts",
                "driver=qcow2,encrypt.key-secret=s,file.filename=top.img"]

    @property
    def args(self):
        return self.snapshot(self.verb, "new" if self.verb == "-c" else "two")

    def make(self, work):
        secret = bool(self.kind)
        qcow2(work, "top.img", "1M", "cluster_size=1k", *self.kind, pattern=PATTERN)
        run("qemu-img", *self.snapshot("-c", "one"), cwd=work)
        write(work, "top.img", *OVER, secret=secret)
        run("qemu-img", *self.snapshot("-c", "two"), cwd=work)
        write(work, "top.img", "write -P 11 0 8k", "discard 300k 64k", secret=secret)

    def view(self):
        names = [s["name"] for s in self.info("top.img").get("snapshots", [])]
        return names, self.show("top.img", ["encrypt.key-secret=s"] if self.kind else [])


class SnapshotApply(Snapshots):
    verb = "-a"


class SnapshotDelete(Snapshots):
    verb = "-d"


class SnapshotDeleteEncrypted(SnapshotDelete):
    kind = ("encrypt.format=aes", "encrypt.key-secret=s")


class Bitmaps(Scenario):
    change = ["--add"]
    name = "b2"

    @property
    def args(self):
        return ["bitmap", *self.change, "top.img", self.name]

    def make(self, work):
        qcow2(work, "top.img", "1M", SMALL)
        for name in ("b0", "b1"):
            run("qemu-img", "bitmap", "--add", "-g", "4k", "top.img", name, cwd=work)
        write(work, "top.img", *PATTERN)
        run("qemu-img", "bitmap", "--clear", "top.img", "b1", cwd=work)
        write(work, "top.img", *OVER)

    def view(self):
        """Who cannot store them leaves them in use, and so not to be relied on."""
        listed = self.info("top.img")["format-specific"]["data"].get("bitmaps", [])
        return sorted(b["name"] for b in listed), self.show("top.img")


class BitmapRemove(Bitmaps):
    change, name = ["--remove"], "b0"


class BitmapMerge(Bitmaps):
    change, name, same = ["--merge", "b0"], "b1", True


class Grow(Scenario):
    args = ["resize", "-q", "top.img", "300M"]

    def make(self, work):
        qcow2(work, "top.img", "1M", "cluster_size=512", pattern=PATTERN)

    def view(self):
        return self.info("top.img")["virtual-size"]


class Shrink(Grow):
    args = ["resize", "-q", "--shrink", "top.img", "400k"]


class GrowFull(Grow):
    args = ["resize", "-q", "--preallocation=full", "top.img", "1500k"]


class Widen(Scenario):
    args = ["amend", "-o", "refcount_bits=64", "top.img"]
    options = ()

    def make(self, work):
        qcow2(work, "top.img", "1M", SMALL, *self.options, pattern=PATTERN)

    def view(self):
        data = self.info("top.img")["format-specific"]["data"]
        return data["compat"], data["refcount-bits"], self.show("top.img")


class Downgrade(Widen):
    args = ["amend", "-o", "compat=0.10", "top.img"]


class NewPassphrase(Scenario):
    """A key slot more; the old passphrase opens the disk whatever happens."""
    args = ["amend", *SECRET, "--object", "secret,id=n,data=new", "-o",
            "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10", "--image-opts",
            "driver=qcow2,file.filename=top.img,encrypt.key-secret=s"]
    same = True

    def make(self, work):
        qcow2(work, "top.img", "64k", "encrypt.format=luks", "encrypt.key-secret=s",
              "encrypt.iter-time=10", pattern=("write -P 1 0 4k",))

    def view(self):
        return self.show("top.img", ["encrypt.key-secret=s"])


class Repair(Scenario):
    """A refcount that is lost, and leaks."""
    args = ["check", "-q", "-r", "all", "top.img"]
    damaged = same = True

    def make(self, work):
        qcow2(work, "top.img", "1M", SMALL, pattern=PATTERN)
        data = bytearray((work / "top.img").read_bytes())
        block = int.from_bytes(data[0x1000:0x1008], "big")
        data[block + 12:block + 14] = b"\0\0"
        data[block + 600:block + 604] = b"\0\1\0\1"
        (work / "top.img").write_bytes(data)

    def view(self):
        return self.show("top.img")


SCENARIOS = [Convert, ConvertCompressed, ConvertEncrypted, ConvertRaw, ConvertInto, DataFile,
             Commit, Rebase, RebaseAway, Snapshots, SnapshotApply,
             SnapshotDelete, SnapshotDeleteEncrypted, Bitmaps, BitmapRemove, BitmapMerge, Grow,
             Shrink, GrowFull, Widen, Downgrade, NewPassphrase, Repair]
# Places in each run; COWVM_FAULTS=1000 walks all of them.
MOST = int(os.environ.get("COWVM_FAULTS", 5 if SLOW == 1 else 2))


@pytest.fixture
def work(tmp_path):
    """In memory, if there is room: most of the time is syncs."""
    shm = Path("/dev/shm")
    try:
        room = os.statvfs(shm)
        roomy = room.f_bavail * room.f_bsize > 1 << 28 and os.access(shm, os.W_OK)
    except OSError:
        roomy = False
    folder = Path(tempfile.mkdtemp(prefix="cowvm-faults.", dir=shm if roomy else tmp_path))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", SCENARIOS, ids=lambda k: k.__name__)
def test_a_failure_in_the_middle_is_told_and_harmless(work, kind):
    s = kind(work)
    assert s.calls > 2
    hurt = s.walk("rwst", EIO, 2 * MOST)
    assert hurt > 1
    assert s.walk("w", ENOSPC, MOST, after="+") > 0     # a disk that is full, and stays so
    s.walk("w", "kill", MOST)


@pytest.mark.parametrize("kind", [Convert, ConvertCompressed, ConvertRaw, ConvertInto, Commit,
                                  Rebase], ids=lambda k: k.__name__)
def test_an_interrupt_in_the_middle_leaves_nothing_that_looks_complete(work, kind):
    """SIGINT at the Nth write: the command ends in order, or has not begun to copy."""
    kind(work).walk("w", "int", MOST)


@pytest.mark.parametrize("line", ["snapshot -c s top.img", "resize -q top.img 2M", "commit top.img",
                                  "rebase -u -b '' top.img", "bitmap --add top.img b",
                                  "amend -o compat=0.10 top.img", "check -r all top.img",
                                  "convert -n -O qcow2 base.img top.img", "info top.img"])
def test_an_image_that_another_process_writes_to_is_refused(work, line):
    Commit(work).restore()
    held = subprocess.Popen(["qemu-io", "-f", "qcow2", "now/top.img"], cwd=work,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        held.stdin.write(b"read 0 512\n")
        held.stdin.flush()
        held.stdout.readline()
        said = [run(tool, *shlex.split(line), cwd=work / "now", ok=(1,)).stdout
                for tool in ("qemu-img", COWIMG)]
    finally:
        held.communicate()
    assert "Is another process using the image" in said[0]
    assert said[1].replace("cowimg", "qemu-img") == said[0]
