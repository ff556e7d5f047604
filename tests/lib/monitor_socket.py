"""A monitor on a unix socket, beside the one that vm.py types at."""
import socket
import time

from tools import SLOW


class Socket:
    """Without a terminal's manners."""

    def __init__(self, path):
        self.conn = socket.socket(socket.AF_UNIX)
        end = time.monotonic() + 10 * SLOW
        while self.conn.connect_ex(str(path)):
            assert time.monotonic() < end
            time.sleep(0.02)
        self.text = ""

    def until(self, text):
        self.conn.settimeout(30 * SLOW)
        start = len(self.text)
        while text not in self.text[start:]:
            data = self.conn.recv(4096)
            assert data, self.text
            self.text += data.decode()
        return self.text[start:]

    def send(self, text):
        self.conn.sendall(text.encode())
