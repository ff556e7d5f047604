"""-netdev user, from the guest's side: each of its options, asked for by a station that
speaks Ethernet to it (no guest runs).  On the reference the answers are the same."""
import socket
import struct
import threading

import pytest

from station import Station, checksum, packed
from vm import Vm

pytestmark = pytest.mark.any_kvm


def machine(station, options="", **kw):
    return Vm("-S", *station.network("user,id=u" + options), serial=False, **kw)


class Echo:
    """Somebody on the host who says back what he hears."""

    def __init__(self, address):
        self.listener = socket.socket(socket.AF_UNIX if isinstance(address, str) else
                                      socket.AF_INET)
        self.listener.bind(address)
        self.listener.listen(8)
        self.address, self.calls = self.listener.getsockname(), 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            self.calls += 1
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    @staticmethod
    def talk(s):
        with s:
            while data := s.recv(65536):
                s.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()


def test_dhcp_says_what_the_options_say():
    with Station("10.9.3.50") as s:
        with machine(s, ",net=10.9.0.0/16,host=10.9.3.1,dhcpstart=10.9.3.50,dns=10.9.3.4,"
                     "hostname=web,domainname=example.org,dnssearch=a.example,"
                     "dnssearch=b.example,bootfile=boot.ipxe,tftp-server-name=files") as vm:
            address, file, options = s.dhcp()
            assert "net=10.9.0.0,restrict=off" in vm.monitor("info network")
    assert (address, file) == ("10.9.3.50", "boot.ipxe")
    assert options[1] == packed("255.255.0.0")
    assert options[3] == options[54] == packed("10.9.3.1")
    assert options[6] == packed("10.9.3.4")
    assert (options[12], options[15], options[66]) == (b"web", b"example.org", b"files")
    assert options[119] == b"\1a\7example\0\1b\xc0\2"


def test_dhcp_without_options():
    with Station() as s:
        with machine(s):
            address, file, options = s.dhcp()
    assert (address, file) == ("10.0.2.15", "")
    assert options[3] == packed("10.0.2.2") and options[6] == packed("10.0.2.3")
    assert 66 not in options and 119 not in options and 12 not in options


def test_tftp_gives_the_files_of_one_folder(tmp_path):
    content = bytes(range(256)) * 9
    (tmp_path / "tftp").mkdir()
    (tmp_path / "tftp/file").write_bytes(content)
    (tmp_path / "secret").write_bytes(b"nobody's business")
    with Station() as s:
        with machine(s, ",tftp=%s/tftp" % tmp_path):
            s.find("10.0.2.2")
            assert s.tftp("10.0.2.2", "file") == content
            for name in ("nosuch", "../secret"):
                assert isinstance(s.tftp("10.0.2.2", name), str)


def test_an_address_leads_to_a_command_a_socket_or_a_connection(tmp_path):
    with Echo(str(tmp_path / "s")) as on_path, Echo(("127.0.0.1", 0)) as on_port, \
            Station() as s:
        with machine(s, ",restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:cat,"
                     "guestfwd=tcp:10.0.2.101:7-unix:%s,guestfwd=tcp:10.0.2.102:7-tcp:127.0.0.1:%d"
                     % (on_path.address, on_port.address[1])):
            for last in (100, 101, 102):
                address = "10.0.2.%d" % last
                s.find(address)
                for _ in range(2):                  # also for a second one
                    c = s.connect(address, 7)
                    c.send(b"hello")
                    assert c.receive(5) == b"hello"
                data = bytes(range(256)) * 40
                c.send(data)
                assert c.receive(len(data)) == data
        assert on_port.calls == 1 and on_path.calls == 2


def test_a_restricted_guest_reaches_nobody():
    with Echo(("127.0.0.1", 0)) as host:
        port = host.address[1]
        with Station() as s:
            with machine(s):
                s.find("10.0.2.2")
                c = s.connect("10.0.2.2", port)
                c.send(b"here")
                assert c.receive(4) == b"here"
        assert host.calls == 1
        with Station() as s:
            with machine(s, ",restrict=on") as vm:
                s.find("10.0.2.2")
                assert s.connect("10.0.2.2", port, seconds=1) is None
                assert s.dhcp()[0] == "10.0.2.15"
                assert "restrict=on" in vm.monitor("info network")
        assert host.calls == 1


LINK, OWN = packed("fe80::5054:ff:fe77:7777"), b"\1\1\x52\x54\0\x77\x77\x77"


def icmp6(station, to, group, message, kind, seconds=20):
    """The answer of that kind to a message (RFC 4861): where it is from, what it says."""
    to = packed(to)
    message += OWN
    total = checksum(LINK + to + struct.pack(">II", len(message), 58) + message)
    packet = struct.pack(">IHBB", 6 << 28, len(message), 58, 255) + LINK + to
    packet += message[:2] + struct.pack(">H", total) + message[4:]
    return station.ask(lambda: station.send(0x86DD, packet, b"\x33\x33" + group),
                       lambda what, p: (p[8:24], p[40:]) if what == 0x86DD and p[6] == 58 and
                       p[40] == kind else None, seconds)


def advertised_prefix(station, seconds=20):
    """As the router tells it; None: there is none."""
    got = icmp6(station, "ff02::2", b"\0\0\0\2", b"\x85" + bytes(7), 134, seconds)
    if not got:
        return None
    options, at = {}, 16
    while at + 2 <= len(got[1]) and got[1][at + 1]:
        options[got[1][at]] = got[1][at:at + 8 * got[1][at + 1]]
        at += 8 * got[1][at + 1]
    return options[3][16:32], options[3][2]


def is_there(station, address):
    target = packed(address)
    got = icmp6(station, "ff02::1:ff00:%x" % target[15], b"\xff\0\0" + target[15:],
                b"\x87" + bytes(7) + target, 136)
    return bool(got) and got[1][8:24] == target


def test_version_6_has_its_own_options():
    with Station() as s:
        with machine(s, ",ipv6=on,ipv6-net=fd00:7::/64,ipv6-host=fd00:7::9,ipv6-dns=fd00:7::5"):
            assert advertised_prefix(s) == (packed("fd00:7::"), 64)
            assert is_there(s, "fd00:7::9") and is_there(s, "fd00:7::5")
            assert s.dhcp(seconds=1) is None        # ipv6=on alone
    with Station() as s:
        with machine(s):
            assert advertised_prefix(s) == (packed("fec0::"), 64)
            assert is_there(s, "fec0::2") and is_there(s, "fec0::3")
    with Station() as s:
        with machine(s, ",ipv4=on"):
            assert advertised_prefix(s, seconds=1) is None
            assert s.dhcp()[0] == "10.0.2.15"
