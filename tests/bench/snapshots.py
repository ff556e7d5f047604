#!/usr/bin/python3
"""savevm and loadvm against the reference's: tests/bench/snapshots.py [-n SNAPSHOTS]
[-m MIB,...] [-r MB_PER_SECOND,...] [-d DIRECTORY], or `make bench`.

An own guest (tests/guest/beat.c) dirties memory at a rate, and stamps a heartbeat with
the TSC.  For each size of memory and each rate, one machine of each program, one after
the other: some snapshots in a row, each a second of dirtying later, then loadvm of each.
A line says, for each program: the rate that was reached (on a KVM that interprets this
guest it may fall short); the longest gap of the heartbeat without a snapshot, which is
the machine's noise; the gap during savevm, median and largest; the time savevm took;
what the image grew by, first and later snapshots; and loadvm from the command to the
first heartbeat.  All in ms and MiB.
"""
import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/lib"))
from beat import Beat                   # noqa: E402
from tools import COWVM, qemu_img       # noqa: E402
from vm import Vm                       # noqa: E402

REFERENCE = "qemu-system-x86_64"


def used(path):
    return os.stat(path).st_blocks * 512 / (1 << 20)


class Run:
    """Snapshots of one machine under one program."""

    def __init__(self, program, work, mib, rate, count):
        self.disk = os.path.join(work, "disk.qcow2")
        self.mib, self.count = mib, count
        self.gaps, self.totals, self.grown, self.loads = [], [], [], []
        qemu_img("create", "-q", "-f", "qcow2", self.disk, "64M")
        self.beat = Beat(work, rate)
        try:
            with Vm(*self.beat.arguments(), "-hda", self.disk, serial=False, memory=mib,
                    program=program) as vm:
                self.measure(vm)
                vm.quit()
        finally:
            self.beat.close()
            os.unlink(self.disk)

    def measure(self, vm):
        self.beat.wait(10, limit=300)
        start = time.monotonic()
        self.beat.wait(300, limit=300)
        self.ticks = self.beat.ticks_per_second()
        end = time.monotonic()
        self.rate = self.beat.rate_reached(start, end)
        self.noise = self.beat.longest_gap(start, end, self.ticks)
        for i in range(self.count):
            self.save(vm, "s%d" % i)
            time.sleep(1)
        for i in range(self.count):
            self.load(vm, "s%d" % i)

    def save(self, vm, name):
        before, start = used(self.disk), time.monotonic()
        said = vm.monitor("savevm " + name, timeout=600)
        assert "Error" not in said, said
        end = time.monotonic()
        self.beat.wait(3)
        self.gaps.append(self.beat.longest_gap(start, time.monotonic(), self.ticks))
        self.totals.append(end - start)
        os.sync()                       # delayed allocation is no space yet
        self.grown.append(used(self.disk) - before)

    def load(self, vm, name):
        vm.monitor("stop")
        vm.monitor("info status")       # nothing is on its way any more
        lines = len(self.beat.lines)
        start = time.monotonic()
        said = vm.monitor("loadvm " + name, timeout=600)
        assert "Error" not in said, said
        vm.monitor("cont")
        while len(self.beat.lines) == lines:
            assert time.monotonic() < start + 60, "no heartbeat after loadvm"
            time.sleep(0.0005)
        self.loads.append(self.beat.lines[lines][0] - start)

    def row(self):
        def ms(values):
            return "%8.1f %8.1f" % (statistics.median(values) * 1e3, max(values) * 1e3)
        return "%6.0f %7.1f %s %8.0f %8.1f %8.1f %s" % (
            self.rate, self.noise * 1e3, ms(self.gaps), statistics.median(self.totals) * 1e3,
            self.grown[0], statistics.median(self.grown[1:] or [0]), ms(self.loads))


def bench(work, memory=(256, 1024, 2048), rates=(0, 100, 1000), count=5):
    print("%-22s %6s %7s %17s %8s %17s %17s" % (
        "snapshots of a guest", "MB/s", "noise", "pause p50, max", "savevm", "MiB first, next",
        "loadvm p50, max"))
    for mib in memory:
        for rate in rates:
            for program in (COWVM, REFERENCE):
                run = Run(program, work, mib, rate, count)
                print("%5d MiB, %4d, %-5s %s" % (mib, rate, "ours" if program == COWVM else "ref.",
                                                 run.row()), flush=True)


def numbers(text):
    return [int(n) for n in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description="measures; see the head of this file")
    parser.add_argument("-n", type=int, default=5, help="snapshots of each machine")
    parser.add_argument("-m", "--memory", type=numbers, default=[256, 1024, 2048], help="MiB")
    parser.add_argument("-r", "--rates", type=numbers, default=[0, 100, 1000], help="MB/s")
    parser.add_argument("-d", "--directory", help="where the disk is made")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cowvm-bench.", dir=args.directory) as work:
        bench(work, args.memory, args.rates, args.n)


if __name__ == "__main__":
    sys.exit(main())
