"""A station on a machine's network, without a guest: Ethernet frames as datagrams of a
`-netdev socket,udp=`, and as much of ARP, DHCP, UDP and TCP as tests of networks need.

    with Station() as s:
        with Vm("-S", *s.network("user,id=u"), serial=False):
            offer = s.dhcp()
            s.connect("10.0.2.2", 80).send(b"x")
"""
import ipaddress
import socket
import struct
import time

from tools import SLOW

MAC = b"\x52\x54\0\x77\x77\x77"
EVERYBODY = b"\xff" * 6


def checksum(data):
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF ^ total


def packed(address):
    return ipaddress.ip_address(address).packed


class Station:
    def __init__(self, ip="10.0.2.15"):
        self.ip, self.router = packed(ip), None
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for s in self.sockets:
            s.bind(("127.0.0.1", 0))
        self.sock, other = self.sockets
        self.here, self.there = (s.getsockname()[1] for s in self.sockets)
        other.close()
        self.next_port = 40000

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def network(self, backend):
        """Options: the network, whose id is u, this station, and a hub between them."""
        return ["-netdev", backend, "-netdev",
                "socket,id=s,udp=127.0.0.1:%d,localaddr=127.0.0.1:%d" % (self.here, self.there),
                "-netdev", "hubport,id=p0,hubid=1,netdev=u",
                "-netdev", "hubport,id=p1,hubid=1,netdev=s"]

    # --- frames -------------------------------------------------------------------------

    def send(self, kind, payload, to=None):
        frame = (to or self.router or EVERYBODY) + MAC + struct.pack(">H", kind) + payload
        self.sock.sendto(frame.ljust(60, b"\0"), ("127.0.0.1", self.there))

    def receive(self, wanted, seconds):
        """What `wanted` makes of the first frame that it makes something of, or None."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                frame = self.sock.recv(65536)
            except socket.timeout:
                return None
            kind, payload = struct.unpack(">H", frame[12:14])[0], frame[14:]
            if kind == 0x0806:
                self.answer_arp(payload)
            got = wanted(kind, payload)
            if got is not None:
                return got
        return None

    def ask(self, send, wanted, seconds=20):
        """Send until there is an answer."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            send()
            got = self.receive(wanted, 0.5)
            if got is not None:
                return got
        return None

    def answer_arp(self, p):
        if p[6:8] == b"\0\1" and p[24:28] == self.ip:
            self.send(0x0806, p[:6] + b"\0\2" + MAC + self.ip + p[8:18], to=p[8:14])

    def find(self, address):
        """The hardware address of the one that packets go to."""
        want = packed(address)

        def ask():
            self.send(0x0806, b"\0\1\x08\0\6\4\0\1" + MAC + self.ip + bytes(6) + want,
                      to=EVERYBODY)
        self.router = self.ask(ask, lambda kind, p: p[8:14] if kind == 0x0806 and
                               p[6:8] == b"\0\2" and p[14:18] == want else None)
        assert self.router, "nobody has " + address

    def send_ip(self, to, protocol, payload, source=None, hardware=None):
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0)
        header += (source or self.ip) + packed(to)
        header = header[:10] + struct.pack(">H", checksum(header)) + header[12:]
        self.send(0x0800, header + payload, hardware)

    # --- UDP ----------------------------------------------------------------------------

    def send_udp(self, to, port, data, own=3000, **more):
        self.send_ip(to, 17, struct.pack(">HHHH", own, port, 8 + len(data), 0) + data, **more)

    @staticmethod
    def udp(own):
        """For `receive`: what comes to that port, and the port that it is from."""
        def wanted(kind, p):
            if kind != 0x0800 or p[9] != 17:
                return None
            source, port, length = struct.unpack(">HHH", p[20:26])
            return (p[28:20 + length], source) if port == own else None
        return wanted

    def dhcp(self, seconds=20):
        """An offer: address, BOOTP's file, options; None: there was none."""
        def ask():
            bootp = struct.pack(">BBBBIHH", 1, 1, 6, 0, 0x1234, 0, 0x8000) + bytes(16)
            bootp += MAC.ljust(16, b"\0") + bytes(192)
            bootp += b"\x63\x82\x53\x63" + b"\x35\1\1\x37\7\1\3\6\x0c\x0f\x42\x77\xff"
            self.send_udp("255.255.255.255", 67, bootp, own=68, source=bytes(4),
                          hardware=EVERYBODY)
        got = self.ask(ask, self.udp(68), seconds)
        if not got:
            return None
        data, options, at = got[0], {}, 240
        while data[at] != 255:
            if data[at]:
                options[data[at]] = data[at + 2:at + 2 + data[at + 1]]
                at += 1 + data[at + 1]
            at += 1
        return (str(ipaddress.ip_address(data[16:20])), data[108:236].rstrip(b"\0").decode(),
                options)

    def tftp(self, server, name):
        """A file, or the text of the error."""
        self.next_port += 1
        own, content, block = self.next_port, b"", 1
        request = b"\0\1" + name.encode() + b"\0octet\0"
        got = self.ask(lambda: self.send_udp(server, 69, request, own), self.udp(own))
        while got:
            (kind, number), data = struct.unpack(">HH", got[0][:4]), got[0][4:]
            if kind == 5:
                return data.rstrip(b"\0").decode()
            ack, port = struct.pack(">HH", 4, number), got[1]
            if number == block:
                content, block = content + data, block + 1
            if len(data) < 512:
                self.send_udp(server, port, ack, own)
                return content
            got = self.ask(lambda ack=ack, port=port: self.send_udp(server, port, ack, own),
                           self.udp(own))
        raise AssertionError("no answer from " + server)

    # --- TCP ----------------------------------------------------------------------------

    def connect(self, to, port, seconds=20):
        """A connection, or None where there is none."""
        self.next_port += 1
        connection = Tcp(self, to, port, self.next_port)
        return connection if connection.open(seconds) else None


SYN, RST, ACK = 2, 4, 16


class Tcp:
    """The client's side of RFC 9293, as far as a network without losses needs it."""

    def __init__(self, station, to, port, own):
        self.station, self.to, self.port, self.own = station, to, port, own
        self.sent, self.got, self.acked = 1000, 0, 1000

    def segment(self, flags, data=b""):
        head = struct.pack(">HHIIBBHHH", self.own, self.port, self.sent, self.got, 0x50, flags,
                           16384, 0, 0)
        pseudo = self.station.ip + packed(self.to) + struct.pack(">HH", 6, 20 + len(data))
        sum_ = struct.pack(">H", checksum(pseudo + head + data))
        self.station.send_ip(self.to, 6, head[:16] + sum_ + head[18:] + data)

    def mine(self, kind, p):
        if kind != 0x0800 or p[9] != 6 or p[12:16] != packed(self.to):
            return None
        p = p[20:struct.unpack(">H", p[2:4])[0]]
        source, port, sequence, ack, at, flags = struct.unpack(">HHIIBB", p[:14])
        if (source, port) != (self.port, self.own):
            return None
        return sequence, ack, flags, p[(at >> 4) * 4:]

    def open(self, seconds):
        answer = self.station.ask(lambda: self.segment(SYN), self.mine, seconds)
        if not answer or answer[2] & RST:
            return False
        self.sent += 1
        self.got = answer[0] + 1
        self.segment(ACK)
        return True

    def send(self, data):
        for at in range(0, len(data), 1400):
            part = data[at:at + 1400]
            self.segment(ACK | 8, part)
            self.sent += len(part)

    def receive(self, count, seconds=20):
        """So many bytes."""
        data, end = b"", time.monotonic() + seconds * SLOW
        while len(data) < count and time.monotonic() < end:
            answer = self.station.receive(self.mine, end - time.monotonic())
            if not answer:
                break
            sequence, _, flags, part = answer
            assert not flags & RST, "reset"
            if part and sequence == self.got:
                data, self.got = data + part, self.got + len(part)
            if part:
                self.segment(ACK)
        return data
