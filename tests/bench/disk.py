#!/usr/bin/python3
"""Disk I/O of a guest against the reference's: tests/bench/disk.py PROGRAM DISK BYTES DEPTH
[write]: requests per second, and microseconds of processor time outside of the guest for
each.  DISK: virtio, ide, pio.

The guest (tests/guest/diskguest.c) reads or writes a qcow2 image that is all there and in
the host's cache.  What counts is the device, the block layer and their threads.
"""
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import guests                           # noqa: E402
import netguest                         # noqa: E402
import rfb                              # noqa: E402
import tools                            # noqa: E402

DISKS = {"virtio": (0, "virtio"), "ide": (1, "ide"), "pio": (2, "ide")}
MIB = 256
# About a second of the slower program.
REQUESTS = {("virtio", 4096, 1): 10240, ("virtio", 4096, 32): 40960, ("virtio", 65536, 32): 10240,
            ("ide", 4096, 1): 5120, ("ide", 131072, 1): 2560, ("pio", 4096, 1): 2560,
            ("pio", 65536, 1): 256}


def cpu_ticks(path):
    fields = Path(path).read_text(encoding="latin-1").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Guest:
    """A machine of either program, its serial port and its monitor; with this guest, if
    it is told what to do."""

    def __init__(self, program, work, append, *args):
        kernel = ["-kernel", str(netguest.kernel(work, "diskguest")),
                  "-append", append] if append else []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.join(work, "serial"))
        listener.listen(1)
        self.vm = subprocess.Popen(
            [program, "-enable-kvm", "-m", "64", "-display", "none", "-monitor", "stdio", "-net",
             "none", "-serial", "unix:" + os.path.join(work, "serial"), *kernel, *args],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.connection, _ = listener.accept()
        self.connection.settimeout(120)
        listener.close()
        self.said = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vm.kill()
        self.vm.wait()
        self.vm.stdout.close()
        self.vm.stdin.close()
        self.connection.close()

    def wait_for(self, word):
        """The moment when the guest has said it."""
        while word not in self.said:
            piece = self.connection.recv(4096)
            assert piece and b"failed" not in self.said + piece, "guest: %r" % self.said
            self.said += piece
        return time.monotonic()

    def vcpu(self):
        """The thread that runs it."""
        self.vm.stdin.write(b"info cpus\n")
        self.vm.stdin.flush()
        said = b""
        while True:
            said += os.read(self.vm.stdout.fileno(), 4096)
            found = re.search(rb"thread_id=(\d+)\s", said)
            if found:
                return int(found.group(1))

    def cpu_seconds(self, without=None):
        """Of the process; without a thread of it."""
        base = "/proc/%d" % self.vm.pid
        ticks = cpu_ticks(base + "/stat")
        if without:
            ticks -= cpu_ticks("%s/task/%d/stat" % (base, without))
        return ticks / os.sysconf("SC_CLK_TCK")


def settle(path):
    """Clean, and in the host's cache page by page: where it has made large folios of what
    was written at once, ext4 looks through a whole one for every 4 KiB that are written
    (50 us), and that is all there is to measure."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    while os.read(fd, 1 << 20):
        pass
    os.close(fd)


def full_image(work):
    path = os.path.join(work, "disk.qcow2")
    if not os.path.exists(path):
        tools.qemu_img("create", "-q", "-f", "qcow2", path, "%dM" % MIB)
        tools.qemu_io(path, "write -q -P 7 0 %dM" % MIB)
        settle(path)
    return path


def drive(program, disk, size, depth, write, image):
    """Requests per second, microseconds of the host's for each."""
    number, interface = DISKS[disk]
    requests = REQUESTS[disk, size, depth]
    append = "disk=%d write=%d bytes=%d depth=%d requests=%d mib=%d" % (
        number, write, size, depth, requests, MIB)
    with tempfile.TemporaryDirectory(prefix="cowvm-bench.") as work:
        with Guest(program, work, append, "-S", "-drive", "file=%s,format=qcow2,if=%s" % (
                image, interface)) as guest:
            vcpu = guest.vcpu()
            guest.vm.stdin.write(b"cont\n")
            guest.vm.stdin.flush()
            start = guest.wait_for(b"start")
            cpu = guest.cpu_seconds(vcpu)
            seconds = guest.wait_for(b"end") - start
            cpu = guest.cpu_seconds(vcpu) - cpu
            return requests / seconds, cpu / requests * 1e6


def idle(program, client, seconds=10):
    """Hundredths of a core that a halted guest takes, whose only interrupt is the BIOS's
    timer; with a VNC client that asks for updates, if wanted."""
    with tempfile.TemporaryDirectory(prefix="cowvm-bench.") as work:
        display = 400 + os.getpid() % 500
        sector = guests.disk_with(os.path.join(work, "disk.raw"), guests.hello(Path(work)))
        with Guest(program, work, None, "-vnc", "127.0.0.1:%d" % display, "-drive",
                   "file=%s,format=raw" % sector) as guest:
            guest.wait_for(b"boot sector runs")
            vnc = rfb.Rfb(("127.0.0.1", 5900 + display)) if client else None
            if vnc:
                vnc.picture()
                vnc.request(incremental=True)   # the answer comes with a change
            time.sleep(3)
            before, start = guest.cpu_seconds(), time.monotonic()
            time.sleep(seconds)
            used = guest.cpu_seconds() - before
            share = used / (time.monotonic() - start) * 100
            if vnc:
                vnc.sock.close()
            return share


def main():
    program, disk, size, depth, *more = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="cowvm-bench.") as work:
        print("%.0f %.2f" % drive(program, disk, int(size), int(depth), "write" in more,
                                  full_image(work)))


if __name__ == "__main__":
    main()
