#!/usr/bin/python3
"""The image tool against the reference's: tests/bench/images.py [-q] [-n PAIRS] [-s MIB]
[-d DIRECTORY] [ROW...], or `make bench`.  -q: one pair of small images, about a minute.

Every row is one command line, run by both programs on the same files, one after the
other, whoever was second before being first now.  A row's line: medians of ours and of
the reference in ms (smallest in brackets), ratio of the medians of wall time, of
processor time (user and system), of the space that the result takes and of the most
memory used (no less than this program's own, 18 MiB), that in MiB of ours, and the goal
for the first.  Where wall time is the disk's, or others use the machine, processor time
tells.  ROW is a part of a name.

Another measurement is one more line in ROWS.  Images are made on the spot, when a row
asks for them: a file system with this machine's files (--size MiB), the same as qcow2
in several ways, chains of images.  -l lists the rows.
"""
import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
OURS = os.environ.get("COWIMG") or str(TOP / "build/release/cowimg")
REFERENCE = "qemu-img"
CLUSTER = 64 << 10
SECRET = ("--object", "secret,id=key,data=not-so-secret")


def run(*command, **kw):
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **kw)
    assert done.returncode == 0, "%s\n%s" % (command, done.stdout.decode(errors="replace"))


def fill_directory(to, size, origin="/usr"):
    """Copy files from origin, as they come, until there are so many bytes."""
    done = 0
    for folder, folders, names in os.walk(origin):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.islink(path) or not os.access(path, os.R_OK):
                continue
            done += os.path.getsize(path)
            if done > size:
                return
            os.makedirs(to + folder, exist_ok=True)
            shutil.copyfile(path, to + path)


class Files:
    """The images, by name; each is made when first asked for."""

    def __init__(self, work, mib):
        self.work, self.mib, self.made = work, mib, set()

    def __getitem__(self, name):
        path = os.path.join(self.work, name)
        if name not in self.made:
            kind, _, depth = name.partition("-")
            self.made.add(name)
            make = getattr(self, "make_" + kind.replace(".", "_"))
            make(path, int(depth)) if depth else make(path)
        return path

    def out(self):
        return os.path.join(self.work, "out")

    def fresh(self, name):
        """A copy of an image, for a command that changes it."""
        path = os.path.join(self.work, "fresh")
        run("cp", "--sparse=always", self[name], path)
        run("sync", path)               # else the first flush pays for it
        return path

    def make_fs_raw(self, path):
        files = os.path.join(self.work, "files")
        fill_directory(files, self.mib * 3 // 4 << 20)
        run("mke2fs", "-q", "-t", "ext4", "-d", files, path, "%dM" % self.mib,
            env=dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin"))
        shutil.rmtree(files)

    def make_noise_raw(self, path):
        with open(path, "wb") as f:
            for n in range(self.mib):
                f.write(random.Random(n).randbytes(1 << 20))

    def make_sparse_raw(self, path):
        """64 KiB in each MiB of sixteen times the size."""
        noise = random.Random(1).randbytes(CLUSTER)
        with open(path, "wb") as f:
            for at in range(0, self.mib * 16 << 20, 1 << 20):
                f.seek(at)
                f.write(noise)
            f.truncate(self.mib * 16 << 20)

    def convert(self, path, *how):
        run(REFERENCE, "convert", "-f", "raw", "-O", "qcow2", *how, self["fs.raw"], path)

    def make_fs_qcow2(self, path):
        self.convert(path)

    def make_zlib_qcow2(self, path):
        self.convert(path, "-c", "-W")

    def make_zstd_qcow2(self, path):
        self.convert(path, "-c", "-W", "-o", "compression_type=zstd")

    def make_luks_raw(self, path):
        # By ours: the reference does not always find out how long so little time is.
        run(OURS, "convert", *SECRET, "-f", "raw", "-O", "luks", "-o",
            "key-secret=key,iter-time=10", self["fs.raw"], path)

    def write_clusters(self, path, clusters):
        commands = "".join("write -q -P %d %d %d\n" % (n % 255 + 1, n * CLUSTER, CLUSTER)
                           for n in clusters)
        run("qemu-io", "-t", "unsafe", "-f", "qcow2", path, input=commands.encode())

    def make_frag_qcow2(self, path):
        """Three clusters of four, written in random order."""
        run(REFERENCE, "create", "-q", "-f", "qcow2", path, "%dM" % self.mib)
        clusters = [n for n in range(self.mib * 16) if n % 4]
        random.Random(2).shuffle(clusters)
        self.write_clusters(path, clusters)

    def make_chain(self, path, depth):
        """So many images over a full one: an eighth of the disk is in them."""
        below, each = self["fs.qcow2"], max(self.mib * 2 // depth, 1)
        for n in range(depth):
            layer = path if n == depth - 1 else "%s.%d" % (path, n)
            run(REFERENCE, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below, layer)
            self.write_clusters(layer, random.Random(n).sample(range(self.mib * 16), each))
            below = layer

    def make_empty_qcow2(self, path):
        run(REFERENCE, "create", "-q", "-f", "qcow2", path, "%dM" % self.mib)

    def make_wide_qcow2(self, path):
        """A TiB with four clusters in each of its 2048 L2 tables, 128 MiB of them, in
        random order: what a cache of tables does not hold."""
        run(REFERENCE, "create", "-q", "-f", "qcow2", path, "1T")
        clusters = [(table << 13) + n * 2048 for table in range(2048) for n in range(4)]
        random.Random(4).shuffle(clusters)
        self.write_clusters(path, clusters)

    def make_huge_qcow2(self, path):
        run(REFERENCE, "create", "-q", "-f", "qcow2", path, "64T")

    def make_other_qcow2(self, path):
        """The same guest data from elsewhere, what rebase compares with."""
        run(REFERENCE, "convert", "-W", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=32k",
            self["fs.qcow2"], path)

    def make_snap_qcow2(self, path):
        """Two snapshots, and a quarter of the disk written since."""
        run("cp", self["fs.qcow2"], path)
        run(REFERENCE, "snapshot", "-c", "one", path)
        self.write_clusters(path, random.Random(3).sample(range(self.mib * 16), self.mib * 4))
        run(REFERENCE, "snapshot", "-c", "two", path)


def convert(name, to, *how):
    kind = "qcow2" if name.endswith("qcow2") or name.startswith("chain") else "raw"
    return lambda f: ["convert", *how, "-f", kind, "-O", to, f[name], f.out()]


def scattered(name, depth=1, count=20000, cache="writeback"):
    """Reads of 4 KiB that come everywhere in turn."""
    return lambda f: ["bench", "-f", "qcow2", "-t", cache, "-c", count, "-s", 4096, "-S",
                      4096 * 7919, "-d", depth, f[name]]


def scattered_wide(depth, count=20000):
    """Of clusters that are there, each in another L2 table than the one before."""
    step = 2 * (512 << 20) - (128 << 20)
    return lambda f: ["bench", "-f", "qcow2", "-t", "writeback", "-c", count, "-s", 4096, "-S",
                      step, "-d", depth, f["wide.qcow2"]]


def writes(name, depth, step, cache="unsafe"):
    """Writes of 4 KiB to a copy; unsafe: how fast the disk syncs is not the question."""
    return lambda f: ["bench", "-w", "-f", "qcow2", "-t", cache, "-c", f.mib * 16, "-s", 4096,
                      "-S", step, "-d", depth, f.fresh(name)]


def changing(name, *command):
    """A command on a copy, made before the time counts."""
    return lambda f: [*command, f.fresh(name)]


def from_luks(f):
    return ["convert", *SECRET, "-O", "raw", "--image-opts",
            "driver=luks,key-secret=key,file.filename=" + f["luks.raw"], f.out()]


# name, command line of the files, goal for ours / reference
ROWS = [
    ("convert raw to qcow2", convert("fs.raw", "qcow2"), "<= 0.5"),
    ("convert qcow2 to raw", convert("fs.qcow2", "raw"), "<= 0.5"),
    ("convert raw to raw", convert("fs.raw", "raw"), "<= 0.5"),
    ("convert noise to qcow2", convert("noise.raw", "qcow2"), "<= 0.5"),
    ("convert sparse to qcow2", convert("sparse.raw", "qcow2"), "<= 0.5"),
    ("convert fragmented to raw", convert("frag.qcow2", "raw"), "<= 0.5"),
    ("convert -c zlib", convert("fs.raw", "qcow2", "-c"), "<= 0.5"),
    ("convert -c zlib 2M", convert("fs.raw", "qcow2", "-c", "-o", "cluster_size=2M"), "<= 0.5"),
    ("convert -c zstd", convert("fs.raw", "qcow2", "-c", "-o", "compression_type=zstd"), "<= 0.5"),
    ("decompress zlib", convert("zlib.qcow2", "raw"), "<= 0.5"),
    ("decompress zstd", convert("zstd.qcow2", "raw"), "<= 0.5"),
    ("to luks", lambda f: ["convert", *SECRET, "-f", "raw", "-O", "luks", "-o",
                           "key-secret=key,iter-time=200", f["fs.raw"], f.out()], "<= 0.5"),
    ("from luks", from_luks, "<= 0.5"),
    ("preallocation=metadata", lambda f: ["create", "-q", "-f", "qcow2", "-o",
                                          "preallocation=metadata", f.out(), "16G"], "<= 0.5"),
    ("check", lambda f: ["check", "-q", f["fs.qcow2"]], "<= 0.5"),
    ("check fragmented", lambda f: ["check", "-q", f["frag.qcow2"]], "<= 0.5"),
    ("map", lambda f: ["map", "--output=json", f["fs.qcow2"]], "<= 0.5"),
    ("map fragmented", lambda f: ["map", "--output=json", f["frag.qcow2"]], "<= 0.5"),
    ("map chain 64", lambda f: ["map", "--output=json", f["chain-64"]], "<= 0.5"),
    ("compare", lambda f: ["compare", "-q", f["fs.raw"], f["fs.qcow2"]], "<= 0.5"),
    ("measure", lambda f: ["measure", "-O", "qcow2", f["fs.raw"]], "<= 0.5"),
    ("commit", changing("chain-1", "commit", "-q"), "<= 0.5"),
    ("rebase", lambda f: ["rebase", "-q", "-b", f["other.qcow2"], "-F", "qcow2",
                          f.fresh("chain-8")], "<= 0.5"),
    ("snapshot -c", changing("snap.qcow2", "snapshot", "-c", "three"), "<= 0.5"),
    ("snapshot -a", changing("snap.qcow2", "snapshot", "-a", "one"), "<= 0.5"),
    ("snapshot -d", changing("snap.qcow2", "snapshot", "-d", "two"), "<= 0.5"),
    ("read chain 1", scattered("chain-1"), "<= 0.75"),
    ("read chain 8", scattered("chain-8"), "<= 0.75"),
    ("read chain 64", scattered("chain-64"), "<= 0.75"),
    ("convert chain 64", convert("chain-64", "raw"), "<= 0.5"),
    ("read depth 32", scattered("fs.qcow2", 32), "<= 0.75"),
    ("read fragmented depth 32", scattered("frag.qcow2", 32), "<= 0.75"),
    ("read wide depth 1", scattered_wide(1), "<= 0.75"),
    ("read wide depth 32", scattered_wide(32), "<= 0.75"),
    ("direct read depth 1", scattered("fs.qcow2", 1, 2000, "none"), "<= 0.75"),
    ("direct read depth 32", scattered("fs.qcow2", 32, 20000, "none"), "<= 0.75"),
    ("write in place depth 1", writes("fs.qcow2", 1, 4096 * 7919), "<= 0.75"),
    ("write in place depth 32", writes("fs.qcow2", 32, 4096 * 7919), "<= 0.75"),
    ("allocate depth 1", writes("empty.qcow2", 1, CLUSTER), "<= 0.1"),
    ("allocate depth 32", writes("empty.qcow2", 32, CLUSTER), "<= 0.1"),
    ("allocate and sync", writes("empty.qcow2", 32, CLUSTER, "writeback"), "<= 0.1"),
    ("write over chain 64", writes("chain-64", 32, 4096 * 7919), "<= 0.75"),
    ("create 64T", lambda f: ["create", "-q", "-f", "qcow2", f.out(), "64T"], "<= 0.5"),
    ("check 64T", lambda f: ["check", "-q", f["huge.qcow2"]], "<= 0.5"),
    ("map 64T", lambda f: ["map", "--output=json", f["huge.qcow2"]], "<= 0.5"),
    ("resize 64T", lambda f: ["resize", "-q", "-f", "qcow2",
                                f.fresh("huge.qcow2"), "+1T"], "<= 0.5"),
]


def once(program, command, files):
    """Wall ms, processor ms, KiB of the result and KiB of memory of one run."""
    out = files.out()
    if os.path.exists(out):
        os.unlink(out)
    argv = [program] + [str(a) for a in command(files)]
    start = time.monotonic()
    with open(os.devnull, "w", encoding="ascii") as null:
        child = subprocess.Popen(argv, stdout=null)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, "%s: status %d" % (" ".join(argv), child.returncode)
    size = os.stat(out).st_blocks / 2 if os.path.exists(out) else 0
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3, size, usage.ru_maxrss


def ratio(ours, theirs):
    return "%6.2f" % (ours / theirs) if theirs else "%6s" % "-"


def measure(row, files, pairs):
    name, command, goal = row
    runs = {OURS: [], REFERENCE: []}
    command(files)                      # makes what it needs
    for n in range(pairs):
        for program in (OURS, REFERENCE) if n % 2 == 0 else (REFERENCE, OURS):
            runs[program].append(once(program, command, files))
    ours, theirs = ([statistics.median(v) for v in zip(*runs[p])] for p in (OURS, REFERENCE))
    best = [min(v[0] for v in runs[p]) for p in (OURS, REFERENCE)]
    print("%-26s %8.0f [%6.0f] %8.0f [%6.0f] %s %s %s %s %5.0f   goal %s" % (
        name, ours[0], best[0], theirs[0], best[1], *map(ratio, ours, theirs), ours[3] / 1024,
        goal), flush=True)


def bench(work, names=(), pairs=3, mib=1024):
    """Measure the rows that have one of these in their names, or all."""
    files = Files(work, mib)
    rows = [r for r in ROWS if not names or any(n in r[0] for n in names)]
    print("%-26s %17s %17s %6s %6s %6s %6s %5s   load %.1f, %d MiB" % (
        "image figure, ms", "ours", "reference", "wall", "cpu", "size", "memory", "MiB",
        os.getloadavg()[0], mib))
    for row in rows:
        measure(row, files, pairs)


def main():
    parser = argparse.ArgumentParser(description="measures; see the head of this file")
    parser.add_argument("-q", "--quick", action="store_true", help="-n 1 -s 64")
    parser.add_argument("-n", type=int, help="pairs of runs for each row (3)")
    parser.add_argument("-s", "--size", type=int, help="MiB of the file system (1024)")
    parser.add_argument("-d", "--directory", help="where images are made")
    parser.add_argument("-l", "--list", action="store_true", help="the rows")
    parser.add_argument("rows", nargs="*")
    args = parser.parse_args()
    if args.list:
        print("\n".join(r[0] for r in ROWS))
        return
    with tempfile.TemporaryDirectory(prefix="cowimg-bench.", dir=args.directory) as work:
        bench(work, args.rows, args.n or (1 if args.quick else 3),
              args.size or (64 if args.quick else 1024))


if __name__ == "__main__":
    sys.exit(main())
