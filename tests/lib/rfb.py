"""A small VNC client (RFC 6143) for tests: raw pixels, keys, pointer, passwords.

    with Rfb(("127.0.0.1", 5901)) as vnc:
        vnc.type("hello")
        picture = vnc.picture()         # (width, height, RGB bytes)

Also readers of the PPM and PNG files that screendump and other clients write, and
text mode pictures made from a font, to compare them with.
"""
import re
import socket
import struct
import subprocess
import time
import zlib

from tools import SLOW

RAW, DESKTOP_SIZE, QEMU_KEY = 0, -223, -258
SHIFT = 0xFFE1
VGA_ROM = "/usr/share/seabios/vgabios-stdvga.bin"


def encrypt(challenge, password):
    """DES with the password's bytes, each read backwards, as the key."""
    key = password.encode().ljust(8, b"\0")[:8]
    key = bytes(int("{:08b}".format(b)[::-1], 2) for b in key)
    return subprocess.run(["openssl", "enc", "-des-ecb", "-nopad", "-K", key.hex(), "-provider",
                           "legacy", "-provider", "default"], input=challenge, check=True,
                          capture_output=True).stdout


class Refused(Exception):
    pass


class Rfb:
    def __init__(self, address, password=None, shared=True, extra=(DESKTOP_SIZE,), sock=None):
        unix = isinstance(address, str)
        if not sock:
            sock = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
            sock.settimeout(30 * SLOW)
            sock.connect(address)
        self.sock, self.width, self.height = sock, 0, 0
        self.knows_keys = False
        self.handshake(password, shared)
        self.send(struct.pack(">BxxxBBBBHHHBBBxxx", 0, 32, 24, 0, 1, 255, 255, 255, 16, 8, 0))
        encodings = [RAW, *extra]
        self.send(struct.pack(">BxH%di" % len(encodings), 2, len(encodings), *encodings))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)

    def recv(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.sock.recv(min(count - len(data), 1 << 20))
            if not part:
                raise EOFError("the server has closed the connection")
            data += part
        return bytes(data)

    def handshake(self, password, shared):
        assert re.match(rb"RFB 003\.008\n", self.recv(12))
        self.send(b"RFB 003.008\n")
        kinds = self.recv(self.recv(1)[0])
        want = 2 if password is not None else 1
        if want not in kinds:
            raise Refused("security types are %r" % list(kinds))
        self.send(bytes([want]))
        if want == 2:
            self.send(encrypt(self.recv(16), password))
        if struct.unpack(">I", self.recv(4))[0]:
            raise Refused(self.recv(struct.unpack(">I", self.recv(4))[0]).decode())
        self.send(bytes([shared]))
        self.width, self.height = struct.unpack(">HH", self.recv(4))
        self.recv(16)
        self.name = self.recv(struct.unpack(">I", self.recv(4))[0]).decode()
        self.pixels = bytearray(self.width * self.height * 4)

    # --- from the server -------------------------------------------------------------

    def request(self, incremental=False):
        self.send(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def rectangle(self):
        x, y, width, height, encoding = struct.unpack(">HHHHi", self.recv(12))
        if encoding == DESKTOP_SIZE:
            self.width, self.height = width, height
            self.pixels = bytearray(width * height * 4)
            return True
        if encoding == QEMU_KEY:
            self.knows_keys = True
            return False
        assert encoding == RAW, encoding
        data = self.recv(width * height * 4)
        for row in range(height):
            at = ((y + row) * self.width + x) * 4
            self.pixels[at:at + width * 4] = data[row * width * 4:(row + 1) * width * 4]
        return False

    def update(self):
        """One message of the server; true when the size changed."""
        kind = self.recv(1)[0]
        if kind == 0:
            resized = [self.rectangle() for _ in range(struct.unpack(">xH", self.recv(3))[0])]
            return any(resized)
        assert kind in (2, 3), kind             # bell, cut text
        if kind == 3:
            self.recv(struct.unpack(">xxxI", self.recv(7))[0])
        return False

    def picture(self):
        """The whole screen as it is now."""
        self.request()
        while self.update():
            self.request()
        rgb = bytearray(self.width * self.height * 3)
        rgb[0::3], rgb[1::3], rgb[2::3] = (self.pixels[2::4], self.pixels[1::4],
                                           self.pixels[0::4])
        return self.width, self.height, bytes(rgb)

    def wait(self, condition, timeout=30):
        """Follow the screen until condition(picture)."""
        end = time.monotonic() + timeout * SLOW
        while True:
            picture = self.picture()
            if condition(picture):
                return picture
            assert time.monotonic() < end, "the screen never became what was expected"
            time.sleep(0.1)

    # --- to the server ----------------------------------------------------------------

    def key(self, keysym, down):
        self.send(struct.pack(">BBxxI", 4, down, keysym))

    def press(self, keysym):
        self.key(keysym, True)
        self.key(keysym, False)

    def type(self, text, pause=0.02):
        for c in text:
            self.press(0xFF0D if c == "\n" else ord(c))
            time.sleep(pause)

    def extended_key(self, keysym, code, down):
        self.send(struct.pack(">BBHII", 255, 0, down, keysym, code))

    def pointer(self, x, y, buttons=0):
        self.send(struct.pack(">BBHH", 5, buttons, x, y))


# --- pictures --------------------------------------------------------------------------


def read_ppm(path):
    with open(path, "rb") as f:
        data = f.read()
    m = re.match(rb"P6\n(\d+) (\d+)\n255\n", data)
    width, height = int(m.group(1)), int(m.group(2))
    assert len(data) == m.end() + width * height * 3
    return width, height, data[m.end():]


def unfilter(kind, line, before, bpp):
    for i in range(len(line)):
        a = line[i - bpp] if i >= bpp else 0
        b = before[i]
        c = before[i - bpp] if i >= bpp else 0
        if kind == 4:
            p = a + b - c
            near = sorted((abs(p - v), n, v) for n, v in enumerate((a, b, c)))[0][2]
        else:
            near = {1: a, 2: b, 3: (a + b) // 2}[kind]
        line[i] = (line[i] + near) & 255


def read_png(path):
    with open(path, "rb") as f:
        data = f.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, idat = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        chunk = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunk)
        idat += chunk if kind == b"IDAT" else b""
        at += size + 12
    assert depth == 8 and colour in (2, 6) and not interlaced
    bpp = 3 if colour == 2 else 4
    raw, lines, before = zlib.decompress(idat), [], bytes(width * bpp)
    for y in range(height):
        start = y * (width * bpp + 1)
        line = bytearray(raw[start + 1:start + 1 + width * bpp])
        if raw[start]:
            unfilter(raw[start], line, before, bpp)
        before = bytes(line)
        lines.append(before if bpp == 3 else bytes(
            v for i, v in enumerate(before) if i % 4 != 3))
    return width, height, b"".join(lines)


def rom_font():
    """The 8x16 font in the VGA BIOS: 256 glyphs of 16 bytes, found by its letter A."""
    with open(VGA_ROM, "rb") as f:
        rom = f.read()
    letter = bytes.fromhex("000010386cc6c6fec6c6c6c600000000")
    at = rom.index(letter) - ord("A") * 16
    return [rom[at + 16 * c:at + 16 * c + 16] for c in range(256)]


PALETTE = [(0, 0, 0), (0, 0, 170), (0, 170, 0), (0, 170, 170), (170, 0, 0), (170, 0, 170),
           (170, 85, 0), (170, 170, 170), (85, 85, 85), (85, 85, 255), (85, 255, 85),
           (85, 255, 255), (255, 85, 85), (255, 85, 255), (255, 255, 85), (255, 255, 255)]


def text_picture(cells, columns=80, rows=25):
    """What a VGA shows of text cells (attribute << 8 | character), nine dots wide."""
    font, out = rom_font(), bytearray()
    for y in range(rows * 16):
        for cell in cells[y // 16 * columns:(y // 16 + 1) * columns]:
            char, attr = cell & 255, cell >> 8
            bits = font[char][y % 16] << 1
            if 0xC0 <= char <= 0xDF:
                bits |= bits >> 1 & 1
            for x in range(9):
                out += bytes(PALETTE[attr & 15 if bits >> (8 - x) & 1 else attr >> 4 & 7])
    return columns * 9, rows * 16, bytes(out)


def differing_cells(a, b, columns=80):
    """Text cells (column, row) in which two pictures of the same size differ."""
    assert a[:2] == b[:2], (a[:2], b[:2])
    width, height = a[:2]
    found = set()
    for y in range(height):
        one, two = (p[2][y * width * 3:(y + 1) * width * 3] for p in (a, b))
        if one != two:
            found |= {(x // 27, y // 16) for x in range(0, width * 3, 3)
                      if one[x:x + 3] != two[x:x + 3]}
    return found


def picture_text(picture):
    """Lines of a text console that is drawn in cells of 8x16: each cell is read as the
    letter of the VGA font that is nearest to it, which mistakes a few (m, w, v, T)."""
    glyphs = {c: int.from_bytes(g, "big") for c, g in enumerate(rom_font()) if 32 <= c < 127}
    width, height, rgb = picture
    known, lines = {0: " "}, []

    def cell(x, y):
        """A bit for each dot that differs from the first."""
        bits, back = 0, rgb[(y * width + x) * 3:(y * width + x) * 3 + 3]
        for at in range((y * width + x) * 3, ((y + 16) * width + x) * 3, width * 3):
            for dot in range(at, at + 24, 3):
                bits = bits << 1 | (rgb[dot:dot + 3] != back)
        return bits

    def letter(bits):
        if bits not in known:
            near = min(glyphs, key=lambda c: bin(glyphs[c] ^ bits).count("1"))
            known[bits] = chr(near) if bin(glyphs[near] ^ bits).count("1") <= 12 else " "
        return known[bits]

    for y in range(0, height - 15, 16):
        lines.append("".join(letter(cell(x, y)) for x in range(0, width - 7, 8)).rstrip())
    return lines
