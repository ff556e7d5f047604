"""A server of an image in the background, and a small NBD client that may misbehave."""
import os
import signal
import socket
import struct
import subprocess
import time

from tools import COWIMG, SLOW

OPTION = 0x49484156454F5054
EXPORT_NAME, ABORT, LIST, INFO, GO, STRUCTURED, LIST_META, SET_META = 1, 2, 3, 6, 7, 8, 9, 10
READ, WRITE, DISC, FLUSH, TRIM, CACHE, ZERO, STATUS = range(8)


class Server:
    """cowimg serve on a unix socket; the block's end stops it and wants exit code 0."""

    def __init__(self, work, image, *args, program=COWIMG, **popen):
        self.socket = os.path.join(work, "nbd.sock")
        self.uri = "nbd+unix:///?socket=" + self.socket
        self.child = subprocess.Popen([program, "serve", "-k", self.socket, *map(str, args),
                                       str(image)], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                      **popen)
        self.wait_for_socket()

    def wait_for_socket(self):
        end = time.monotonic() + 20 * SLOW
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as s:
                    if os.path.exists(self.socket) and "-e" in self.child.args:
                        s.connect(self.socket)
                        return
                    if os.path.exists(self.socket):
                        return
            except OSError:
                pass
            assert self.child.poll() is None, self.child.stdout.read()
            assert time.monotonic() < end, "no socket"
            time.sleep(0.01)

    def stop(self, sig=signal.SIGTERM):
        if self.child.poll() is None:
            self.child.send_signal(sig)
        out, _ = self.child.communicate(timeout=20 * SLOW)
        assert self.child.returncode == 0, (self.child.returncode, out)
        return out

    def rss_kib(self):
        for line in open("/proc/%d/status" % self.child.pid, encoding="ascii"):
            if line.startswith("VmRSS"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            self.child.kill()
            print(self.child.communicate()[0])
        else:
            self.stop()


class Client:
    def __init__(self, path, flags=3, timeout=20):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(timeout * SLOW)
        self.s.connect(path)
        hello = self.take(18)
        assert hello[:8] == b"NBDMAGIC" and hello[16:] == b"\x00\x03"
        self.s.sendall(struct.pack(">I", flags))

    def take(self, n):
        data = b""
        while len(data) < n:
            part = self.s.recv(n - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def option(self, number, data=b""):
        """[(type, data), ...] up to the acknowledgement or error."""
        self.s.sendall(struct.pack(">QII", OPTION, number, len(data)) + data)
        replies = []
        while not replies or not (replies[-1][0] == 1 or replies[-1][0] >> 31):
            magic, opt, kind, size = struct.unpack(">QIII", self.take(20))
            assert magic == 0x3e889045565a9 and opt == number
            replies.append((kind, self.take(size)))
        return replies

    def go(self, name=b"", option=GO):
        replies = self.option(option, struct.pack(">I", len(name)) + name + b"\0\0")
        for kind, data in replies:
            if kind == 3 and data[:2] == b"\0\0":
                self.size, self.flags = struct.unpack(">QH", data[2:])
        return replies

    def set_context(self, name=b"base:allocation", option=SET_META):
        return self.option(option, struct.pack(">III", 0, 1, len(name)) + name)

    def request(self, kind, offset, size, payload=b"", flags=0, cookie=1):
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, size) +
                       payload)

    def simple(self, size=0):
        magic, error, cookie = struct.unpack(">IIQ", self.take(16))
        assert magic == 0x67446698
        return error, cookie, self.take(size) if size and not error else b""

    def chunks(self):
        """[(type, payload), ...] of one request."""
        found, flags = [], 0
        while not flags & 1:
            magic, flags, kind, _, size = struct.unpack(">IHHQI", self.take(20))
            assert magic == 0x668e33ef
            found.append((kind, self.take(size)))
        return found

    def close(self):
        self.s.close()
