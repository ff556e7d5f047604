"""Commands that change or make images, for tests in which something fails in the middle of
them: see faults.py."""
from faults import SECRET, Scenario, qcow2, write
from tools import BUILD, COWIMG, TOP, run

BLKIO = TOP / "build" / BUILD / "tests/image/blkio"
SMALL = "cluster_size=4k"
PATTERN = ("write -P 1 0 200k", "write -P 2 300k 5000", "write -z 256k 32k", "write -P 3 700k 64k")
OVER = ("write -P 7 16k 40k", "write -P 8 290k 30k", "write -z 704k 8k", "write -P 9 900k 12k")


class Convert(Scenario):
    target, options, kind = "out.img", [], ()

    @property
    def args(self):
        return ["convert", *SECRET, *self.options, "-O", "qcow2", "src", "out.img"]

    def make(self, work):
        qcow2(work, "src", "1M", SMALL, pattern=PATTERN)

    def view(self):
        return self.show("out.img", self.kind) if (self.now / "out.img").exists() else None


class ConvertCompressed(Convert):
    options = ["-c", "-o", SMALL]


class ConvertEncrypted(Convert):
    slow = True
    options = ["-o", SMALL + ",encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"]
    kind = ("encrypt.key-secret=s",)


class ConvertDataFile(Convert):
    """What is in the data file alone would look like the whole disk."""
    options = ["-o", "data_file=data.img,data_file_raw=on"]


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


class Dd(Convert):
    args = ["dd", "-f", "qcow2", "-O", "qcow2", "bs=64k", "if=src", "of=out.img"]


class DdRaw(ConvertRaw):
    args = ["dd", "bs=64k", "if=src.img", "of=out.img"]


class Create(Scenario):
    """Whole or not there, whatever ends it; a file with data goes with it."""
    target, options, kind, size = "out.img", [], (), "1M"
    fresh_is_whole = True

    @property
    def args(self):
        return ["create", "-q", *SECRET, *self.options, "out.img", self.size]

    def make(self, work):
        pass

    def view(self):
        return self.show("out.img", self.kind) if (self.now / "out.img").exists() else None


class CreatePlain(Create):
    options = ["-f", "qcow2"]


class CreateFull(Create):
    options = ["-f", "qcow2", "-o", "preallocation=full,cluster_size=512,refcount_bits=64"]


class CreateSubclusters(Create):
    options = ["-f", "qcow2", "-o", "preallocation=metadata,extended_l2=on,cluster_size=16k"]


class CreateOverlay(Create):
    options = ["-f", "qcow2", "-b", "base.img", "-F", "qcow2", "-o", "compat=0.10"]

    def make(self, work):
        qcow2(work, "base.img", "1M", SMALL, pattern=PATTERN)


class CreateLuks(Create):
    slow = True
    options = ["-f", "qcow2", "-o",
               "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=4k"]
    kind = ("encrypt.key-secret=s",)


class CreateDataFile(Create):
    options = ["-f", "qcow2", "-o", "data_file=data.img,data_file_raw=on,preallocation=full"]


class CreateRawFull(Create):
    options = ["-f", "raw", "-o", "preallocation=full"]
    fresh_is_whole = False

    def view(self):
        path = self.now / "out.img"
        return path.read_bytes() if path.exists() else None


class CreateLuksFile(CreateRawFull):
    """Keys are random: only that it opens is the same."""
    slow = True
    options = ["-f", "luks", "-o", "key-secret=s,iter-time=10"]

    def view(self):
        path = self.now / "out.img"
        if not path.exists():
            return None
        done = run(COWIMG, "info", *SECRET, "--image-opts",
                   "driver=luks,key-secret=s,file.filename=out.img", cwd=self.now)
        return "encrypted: yes" in done.stdout


class BenchWrite(Scenario):
    """Requests one after another: each sector is old or new."""
    args = ["bench", "-q", "-w", "-c", "24", "-d", "4", "-s", "5120", "-S", "40k", "--pattern=7",
            "--flush-interval=8", "--no-drain", "-f", "qcow2", "top.img"]

    def make(self, work):
        qcow2(work, "top.img", "1M", SMALL, pattern=PATTERN)

    def view(self):
        self.show("top.img")
        data = (self.work / "flat").read_bytes()
        return [data[i:i + 512] for i in range(0, len(data), 512)]

    def accepts(self, seen, failed):
        if not failed:
            return seen == self.after
        return all(now in (a, b) for now, a, b in zip(seen, self.before, self.after))


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


class MachineDelete(SnapshotDelete):
    """Snapshots with VM state: two that share none of it."""

    def make(self, work):
        qcow2(work, "top.img", "1M", "cluster_size=2k", pattern=PATTERN)
        for i, name in enumerate(("one", "two")):
            run(BLKIO, "top.img", "machine %s %dk" % (name, 50 + 40 * i),
                "write -P %d 100k 90k" % (20 + i), cwd=work)

    def view(self):
        listed = [(s["name"], s["vm-state-size"]) for s in self.info("top.img")["snapshots"]]
        return listed, self.show("top.img")


class MachineApply(MachineDelete):
    verb = "-a"


class Extract(Convert):
    """The image with the snapshot only gives."""
    args = ["snapshot", "-e", "one", "-q", "-O", "qcow2", "top.img", "out.img"]

    def make(self, work):
        MachineDelete.make(self, work)

    def view(self):
        return self.show("top.img"), Convert.view(self)


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
        """No guest data changes: nobody may leave them marked in use."""
        listed = self.info("top.img")["format-specific"]["data"].get("bitmaps", [])
        return sorted((b["name"], b["flags"]) for b in listed), self.show("top.img")


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
    slow = True
    args = ["amend", *SECRET, "--object", "secret,id=n,data=new", "-o",
            "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10", "--image-opts",
            "driver=qcow2,file.filename=top.img,encrypt.key-secret=s"]
    same = True

    def make(self, work):
        qcow2(work, "top.img", "64k", "encrypt.format=luks", "encrypt.key-secret=s",
              "encrypt.iter-time=10", pattern=("write -P 1 0 4k",))

    def view(self):
        return self.show("top.img", ["encrypt.key-secret=s"])


class ErasePassphrase(NewPassphrase):
    args = ["amend", *SECRET, "--object", "secret,id=n,data=new", "--force", "-o",
            "encrypt.state=inactive,encrypt.keyslot=1", "--image-opts",
            "driver=qcow2,file.filename=top.img,encrypt.key-secret=s"]

    def make(self, work):
        NewPassphrase.make(self, work)
        run(COWIMG, *NewPassphrase.args, cwd=work)


class StreamedData(Scenario):
    """Extended L2 entries, and data in a file of their own."""
    args = ["rebase", "-b", "", "top.img"]
    same = True
    options = ("data_file=data.img", "extended_l2=on", "cluster_size=16k")

    def make(self, work):
        qcow2(work, "base.img", "1M", SMALL, pattern=PATTERN)
        qcow2(work, "top.img", "1100k", *self.options, base="base.img", pattern=OVER)

    def view(self):
        return self.show("top.img")


class Subclusters(StreamedData):
    options = ("extended_l2=on", "cluster_size=16k")


class CommitSubclusters(Commit):
    kind = ("extended_l2=on",)

    def make(self, work):
        qcow2(work, "base.img", "1M", "cluster_size=16k", *self.kind, pattern=PATTERN)
        qcow2(work, "top.img", "1100k", "cluster_size=32k", *self.kind, base="base.img",
              pattern=OVER)

    def view(self):
        return self.show("top.img")


class Repair(Scenario):
    """A refcount that is lost, and leaks.  What cannot be freed meanwhile is left, and said
    by the status."""
    statuses = (0, 1, 3, 137)
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


COPIES = [Convert, ConvertCompressed, ConvertEncrypted, ConvertDataFile, ConvertRaw, ConvertInto,
          Extract, Dd, DdRaw]
CREATIONS = [CreatePlain, CreateFull, CreateSubclusters, CreateOverlay, CreateLuks, CreateDataFile,
             CreateRawFull, CreateLuksFile]
LAYERS = [Commit, CommitSubclusters, Rebase, RebaseAway, StreamedData, Subclusters, BenchWrite,
          DataFile]
SNAPSHOTS = [Snapshots, SnapshotApply, SnapshotDelete, SnapshotDeleteEncrypted, MachineApply,
             MachineDelete]
CHANGES = [Bitmaps, BitmapRemove, BitmapMerge, Grow, Shrink, GrowFull, Widen, Downgrade,
           NewPassphrase, ErasePassphrase, Repair]
