"""The guest of tests/guest/beat.c, and what its heartbeat tells.

    beat = Beat(work)
    with Vm(*beat.arguments(rate=100), serial=False) as vm:
        beat.listen()
"""
import socket
import threading
import time
from pathlib import Path

from tools import SLOW, TOP, run

LAYOUT = """SECTIONS {
	. = 0x100000;
	.text : { *(.multiboot) *(.text*) *(.rodata*) *(.data*) *(.bss*) }
	/DISCARD/ : { *(.eh_frame*) *(.note*) *(.comment) }
}"""


def kernel(work):
    """The guest as a multiboot file."""
    work = Path(work)
    source, obj, out = TOP / "tests/guest/beat.c", work / "beat.o", work / "beat"
    (work / "beat.ld").write_text(LAYOUT)
    run("gcc", "-m32", "-O2", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-nostdlib",
        "-c", "-o", obj, source)
    run("ld", "-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-T", work / "beat.ld", "-e",
        "_start", "-o", out, obj)
    return out


class Beat:
    """Its lines as (our time, TSC, longest gap in ticks, pages written)."""

    def __init__(self, work, rate=0):
        self.path = str(Path(work) / ("beat.%d" % time.monotonic_ns()))
        self.kernel, self.rate, self.lines = kernel(work), rate, []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def arguments(self):
        return ["-kernel", str(self.kernel), "-append", "rate=%d" % self.rate,
                "-serial", "unix:" + self.path]

    def read(self):
        connection, _ = self.listener.accept()
        rest = b""
        with connection:
            while data := connection.recv(4096):
                now = time.monotonic()
                *whole, rest = (rest + data).split(b"\n")
                for line in whole:
                    self.take(now, line)

    def take(self, now, line):
        fields = line.split()
        if [len(f) for f in fields] == [16, 10, 8]:
            self.lines.append((now, *(int(f, 16) for f in fields)))

    def wait(self, lines=1, limit=60):
        """Until so many lines more have come; returns them."""
        start, end = len(self.lines), time.monotonic() + limit * SLOW
        while len(self.lines) < start + lines:
            assert time.monotonic() < end, "no heartbeat"
            time.sleep(0.001)
        return self.lines[start:start + lines]

    def ticks_per_second(self):
        first, last = self.lines[0], self.lines[-1]
        return (last[1] - first[1]) / (last[0] - first[0])

    def longest_gap(self, start, end, rate):
        """Seconds, of what the guest said between two of our times."""
        return max(line[2] for line in self.lines if start <= line[0] <= end) / rate

    def rate_reached(self, start, end):
        """MB/s written between two of our times."""
        some = [line for line in self.lines if start <= line[0] <= end]
        return (some[-1][3] - some[0][3]) * 4096 / 1e6 / (some[-1][0] - some[0][0])

    def close(self):
        self.listener.close()
