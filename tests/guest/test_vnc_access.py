"""Who gets at the screen over VNC and how: passwords, sockets, WebSocket."""
import contextlib
import os
import re
import socket
import subprocess

import pytest

import guests
from rfb import QEMU_KEY, Refused, Rfb, differing_cells, text_picture
from tools import COWVM, SLOW
from vm import Vm
from vnc_vm import vnc_vm
from ws import WebSocket

pytestmark = pytest.mark.any_kvm


@pytest.fixture
def echo(tmp_path):
    return guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))


def test_passwords_decide_who_gets_in():
    with vnc_vm(options=",password=on") as (vm, address):
        assert "Auth: vnc (Sub: none)" in vm.monitor("info vnc")

        def enters(password):
            try:
                with Rfb(address, password) as vnc:
                    vnc.picture()
                    return True
            except (Refused, EOFError, ConnectionError):
                return False
        assert not enters("") and not enters("abc")             # none is set
        assert vm.monitor("set_password vnc secret78") == ""
        assert enters("secret78") and not enters("secret7") and not enters(None)
        assert enters("secret78 and more")                      # eight bytes count
        assert vm.monitor("expire_password vnc now") == ""
        assert not enters("secret78")
        assert vm.monitor("expire_password vnc +3600") == ""
        assert enters("secret78")
        vm.monitor("expire_password vnc never")
        vm.spawn.send("change vnc password\r")
        vm.spawn.expect("Password: ")
        vm.spawn.send("other\r")
        vm.spawn.expect(r"\((?:cowvm|qemu)\) ")
        assert enters("other") and not enters("secret78")
        assert vm.monitor("change vnc password third") == ""
        assert enters("third")
        assert vm.quit() == 0


def test_comes_and_goes_while_the_screen_changes_its_size():
    """What a client asks for is cut to the size of now, even if that was another one a
    moment ago: the first request makes somebody look at the screen, which may be of
    another size since."""
    for _ in range(3):
        with vnc_vm() as (vm, address):
            for _ in range(25):
                with Rfb(address) as vnc:
                    vnc.picture()
            assert vm.quit() == 0


def test_without_password_option_there_are_none_to_set():
    with vnc_vm() as (vm, _):
        assert vm.monitor("set_password vnc abc") == (
            "If you want use passwords please enable password auth using '-vnc "
            "${dpy},password'.\nError: Could not set password")
        assert vm.monitor("change vnc foo") == "Expected 'password' after 'vnc'"
    with Vm() as vm:
        assert vm.monitor("set_password vnc abc") == "Error: Could not set password"
        assert vm.monitor("expire_password vnc now") == \
            "Error: Could not set password expire time"


def greet(address):
    s = socket.create_connection(address, timeout=30 * SLOW)
    assert s.recv(12) == b"RFB 003.008\n"
    s.sendall(b"RFB 003.008\n")
    return s, s.recv(20)


def sees_nothing(asks, open_one):
    """Choose to have no password where one is asked for, while a display without one
    greets somebody; and type."""
    s, kinds = greet(asks)
    assert kinds == b"\1\2"
    other, kinds = greet(open_one)
    assert kinds == b"\1\1"
    got = b""
    with contextlib.suppress(ConnectionError):
        s.sendall(b"\1\1" + b"\4\1\0\0\0\0\0z" + b"\3\0" + bytes(4) +
                  b"\0\x10\0\x10")
        while more := s.recv(1000):
            got += more
    s.close()
    other.close()
    return len(got) < 64


def test_several_displays_show_one_screen_with_passwords_of_their_own(echo):
    port = 1100 + os.getpid() % 700
    with vnc_vm("-vnc", "127.0.0.1:%d,to=9999,id=b,password=on" % port, "-vnc", "none",
                boot=echo) as (vm, first):
        said = vm.monitor("info vnc")
        names = re.findall(r"^(\w+):$", said, re.M)
        assert names == ["vnc2", "b", "default"]
        second = ("127.0.0.1", int(re.search(r"b:\s+Server: 127.0.0.1:(\d+)", said).group(1)))
        assert re.search(r"vnc2:\s+Auth: none", said)
        for command in ("set_password vnc x", "set_password vnc x -d default",
                        "set_password vnc x -d vnc2", "change vnc password x"):
            assert vm.monitor(command).endswith("Error: Could not set password")
        assert vm.monitor("set_password vnc x -d c") == "Error: Could not set password"
        assert vm.monitor("expire_password vnc now -d c") == \
            "Error: Could not set password expire time"
        assert vm.monitor("set_password vnc pass -d b keep") == ""
        with pytest.raises((Refused, EOFError, ConnectionError)):
            Rfb(second, "wrong")
        vm.serial.expect("type")
        assert sees_nothing(second, first)
        with Rfb(first) as one, Rfb(second, "pass", extra=(QEMU_KEY,)) as two:
            two.picture()
            assert two.knows_keys
            two.extended_key(0x61, 0x1E, 1)
            two.extended_key(0x61, 0x1E, 0)
            vm.serial.expect("a")
            one.type("b")
            vm.serial.expect("b")
            assert "z" not in vm.serial.text.split("type")[-1]
            vm.wait_for(lambda: any(r.endswith("ab") for r in vm.screen()), 30, vm.screen)
            vm.monitor("stop")
            want = text_picture(vm.cells())
            for vnc in (one, two):
                vnc.wait(lambda p: p[:2] == want[:2] and len(differing_cells(p, want)) <= 1)
            clients = re.findall(r"Client: |^\w+:$", vm.monitor("info vnc"), re.M)
            assert clients == ["vnc2:", "b:", "Client: ", "default:", "Client: "]
        assert vm.monitor("expire_password vnc now -d b") == ""
        with pytest.raises((Refused, EOFError, ConnectionError)):
            Rfb(second, "pass")
        assert vm.quit() == 0


# --- where it listens ---------------------------------------------------------------------


def test_listens_on_a_unix_socket(tmp_path, echo):
    path = str(tmp_path / "vnc")
    with Vm("-vnc", "unix:" + path, "-drive", "file=%s,format=raw" % echo) as vm:
        assert "Server: %s (unix)" % path in vm.monitor("info vnc")
        vm.serial.expect("type")
        with Rfb(path) as vnc:
            vnc.type("unix")
            vm.serial.expect("unix")
        assert vm.quit() == 0
    assert not os.path.exists(path)


def test_a_taken_port_is_said_or_passed_over():
    with vnc_vm() as (_, (_, port)):
        said = subprocess.run([COWVM, "-vnc", "127.0.0.1:%d" % (port - 5900)], text=True,
                              capture_output=True, timeout=30 * SLOW)
        assert said.returncode == 1
        assert said.stderr.endswith("Failed to bind socket: Address already in use\n")
        with Vm("-vnc", "127.0.0.1:%d,to=%d" % (port - 5900, port - 5800)) as vm:
            other = re.search(r"127\.0\.0\.1:(\d+)", vm.monitor("info vnc")).group(1)
            assert int(other) > port
            assert Rfb(("127.0.0.1", int(other))).picture()


@pytest.mark.parametrize("kind, host", [("ipv4", "127.0.0.1"), ("ipv6", "::1")])
def test_one_kind_of_address_can_be_asked_for(kind, host):
    with socket.socket(socket.AF_INET6 if kind == "ipv6" else socket.AF_INET) as s:
        try:
            s.bind((host, 0))
        except OSError:
            pytest.skip("this host has no address " + host)
    with Vm("-vnc", ":%d,to=9999,%s=on" % (1900 + os.getpid() % 700, kind)) as vm:
        said = vm.monitor("info vnc")
        assert re.findall(r"Server: (\S+):\d+ \((\w+)\)", said) == [(host, kind)]


def test_speaks_over_a_websocket(echo):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with vnc_vm(options=",websocket=%d" % port, boot=echo) as (vm, _):
        assert "127.0.0.1:%d (ipv4 (Websocket))" % port in vm.monitor("info vnc")
        vm.serial.expect("type")
        with Rfb(None, sock=WebSocket("127.0.0.1", port, protocol="binary")) as vnc:
            assert vnc.picture()[:2] == (720, 400)
            vnc.type("web")
            vm.serial.expect("web")
        assert vm.quit() == 0
