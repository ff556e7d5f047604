#!/usr/bin/python3
"""Thousand frames of 1514 bytes per second that a card of the guest puts on a tap, and
microseconds of the main thread for each: tests/bench/net.py PROGRAM CARD, in a network
namespace of its own (`unshare -n`).

The guest (tests/guest/netguest.c) offers its whole ring with one write, so what counts is
the device and the backend, not how fast the host runs the guest.
"""
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import netguest                         # noqa: E402

ROUNDS = {"virtio": 2000, "e1000": 200}  # e1000's ring has to be written anew each time
FRAMES = {"virtio": 256, "e1000": 255}


def wait_for(connection, word):
    """The moment when the guest has said it."""
    said = b""
    while word not in said:
        piece = connection.recv(4096)
        assert piece, "the guest is gone: %r" % said
        said += piece
    return time.monotonic()


def cpu_seconds(pid):
    """Of the main thread, which both programs send on."""
    fields = Path("/proc/%d/task/%d/stat" % (pid, pid)).read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def blast(program, card):
    with tempfile.TemporaryDirectory(prefix="cowvm-bench.") as work:
        path = os.path.join(work, "serial")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        driver = {"virtio": "virtio-net-pci"}.get(card, card)
        command = [program, "-enable-kvm", "-m", "64", "-display", "none", "-monitor", "none",
                   "-serial", "unix:" + path, "-kernel", str(netguest.kernel(work)), "-append",
                   "blast=%d" % ROUNDS[card], "-vga", "none",
                   "-netdev", "tap,id=n0,ifname=bench0,script=no,downscript=no",
                   "-device", driver + ",netdev=n0,romfile=", "-S"]
        # Stopped, until the tap is up: then there is a monitor on standard input.
        command[command.index("-monitor") + 1] = "stdio"
        vm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            connection, _ = listener.accept()
            Path("/proc/sys/net/ipv6/conf/bench0/disable_ipv6").write_text("1")
            subprocess.run(["ip", "link", "set", "bench0", "up"], check=True)
            vm.stdin.write(b"cont\n")
            vm.stdin.flush()
            start = wait_for(connection, b"card ")
            seconds = wait_for(connection, b"blast ") - start
            frames = ROUNDS[card] * FRAMES[card]
            return frames / seconds / 1e3, cpu_seconds(vm.pid) / frames * 1e6
        finally:
            vm.kill()
            vm.wait()


if __name__ == "__main__":
    print("%.3f %.3f" % blast(sys.argv[1], sys.argv[2]))
