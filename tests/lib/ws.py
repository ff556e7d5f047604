"""The client side of WebSocket (RFC 6455), for tests: binary and text messages."""
import base64
import os
import socket
import struct

from tools import SLOW


class WebSocket:
    """Looks like a socket: sendall and recv carry the bytes of binary messages."""

    def __init__(self, host, port, path="/", protocol=None):
        self.sock = socket.create_connection((host, port), timeout=30 * SLOW)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET %s HTTP/1.1" % path, "Host: %s:%d" % (host, port), "Upgrade: websocket",
                 "Connection: Upgrade", "Origin: http://%s" % host,
                 "Sec-WebSocket-Key: " + key, "Sec-WebSocket-Version: 13"]
        if protocol:
            lines.append("Sec-WebSocket-Protocol: " + protocol)
        self.sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = self.sock.recv(1)
            assert part, "no WebSocket: %r" % answer
            answer += part
        assert answer.startswith(b"HTTP/1.1 101"), answer
        self.kept = b""

    def close(self):
        self.sock.close()

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise EOFError("the server has closed the WebSocket")
            data += part
        return data

    def message(self):
        """The next message's bytes, put together from its frames."""
        data, last = b"", False
        while not last:
            head = self.exactly(2)
            last, kind, size = bool(head[0] & 0x80), head[0] & 15, head[1] & 0x7F
            if size == 126:
                size, = struct.unpack(">H", self.exactly(2))
            elif size == 127:
                size, = struct.unpack(">Q", self.exactly(8))
            part = self.exactly(size)
            if kind == 8:
                raise EOFError("the server has ended the WebSocket")
            if kind in (9, 10):         # ping, pong
                last = False
                continue
            data += part
        return data

    def put(self, data, kind):
        mask = os.urandom(4)
        size = len(data)
        head = bytes([0x80 | kind])
        if size < 126:
            head += bytes([0x80 | size])
        elif size < 1 << 16:
            head += struct.pack(">BH", 0x80 | 126, size)
        else:
            head += struct.pack(">BQ", 0x80 | 127, size)
        self.sock.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def text(self, text):
        self.put(text.encode(), 1)

    def sendall(self, data):
        self.put(data, 2)

    def recv(self, count):
        while not self.kept:
            self.kept = self.message()
        data, self.kept = self.kept[:count], self.kept[count:]
        return data
