"""The screen over VNC: what clients see and type, who gets in, and that clients which
mean ill, or are just slow, hurt nobody but themselves."""
import contextlib
import os
import re
import socket
import struct
import subprocess
import threading
import time

import pytest

import guests
from rfb import QEMU_KEY, SHIFT, Refused, Rfb, differing_cells, read_png, read_ppm, text_picture
from tools import COWVM, SLOW
from vm import Vm
from ws import WebSocket

pytestmark = pytest.mark.any_kvm


@contextlib.contextmanager
def vnc_vm(*args, options="", boot=None):
    """A machine with VNC on a free port: (vm, address)."""
    more = ["-drive", "file=%s,format=raw" % boot] if boot else []
    with Vm("-vnc", "127.0.0.1:%d,to=999%s" % (100 + os.getpid() % 700, options), *more,
            *args) as vm:
        port = re.search(r"Server: 127\.0\.0\.1:(\d+) \(ipv4\)", vm.monitor("info vnc")).group(1)
        yield vm, ("127.0.0.1", int(port))


@pytest.fixture
def echo(tmp_path):
    return guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))


def dump(vm, tmp_path):
    path = tmp_path / "dump.ppm"
    assert vm.monitor("screendump %s" % path) == ""
    return read_ppm(path)


def responds(vm):
    start = time.monotonic()
    assert "VM status" in vm.monitor("info status")
    return time.monotonic() - start


def test_another_client_sees_what_screendump_writes(tmp_path):
    with vnc_vm() as (vm, (_, port)):
        vm.wait_screen("No bootable device")
        vm.monitor("stop")
        subprocess.run(["gvnccapture", "-q", "127.0.0.1:%d" % (port - 5900), tmp_path / "a.png"],
                       check=True, timeout=60 * SLOW)
        seen = read_png(tmp_path / "a.png")
        assert seen == dump(vm, tmp_path)
        assert len(differing_cells(seen, text_picture(vm.cells()))) <= 1
        assert vm.quit() == 0


def test_typing_reaches_the_guest_and_the_screen_the_client(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as vnc:
            assert vnc.name == "cowvm"
            text = "Hello, World! ~{|}_^ 09 aZ @#$%&*()"
            vnc.type(text)                  # without ever pressing shift
            vm.serial.expect(re.escape(text))
            vnc.key(SHIFT, True)            # as a person with a US keyboard does
            vnc.type("Q?")
            vnc.key(SHIFT, False)
            vnc.key(SHIFT, True)            # and one whose slash is shifted
            vnc.type("/")
            vnc.key(SHIFT, False)
            vnc.type("/e")
            vm.serial.expect(re.escape("Q?//e"))
            vm.wait_for(lambda: vm.screen()[0 if text in vm.screen()[0] else 1:][0].endswith("//e")
                        or any("//e" in line for line in vm.screen()), 30, vm.screen)
            vm.monitor("stop")
            want = text_picture(vm.cells())
            vnc.wait(lambda p: p[:2] == want[:2] and len(differing_cells(p, want)) <= 1)
        assert vm.quit() == 0


def test_extended_key_events_are_taken(echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address, extra=(QEMU_KEY,)) as vnc:
            vnc.picture()
            assert vnc.knows_keys
            for down in (1, 0):
                vnc.extended_key(0xE9, 0x1E, down)  # the key of A, whatever is on it
            vnc.extended_key(ord("b"), 0, 1)        # no code: by its keysym
            vm.serial.expect("ab")
        assert vm.quit() == 0


def test_typing_at_the_boot_menu():
    with vnc_vm("-boot", "menu=on,splash-time=60000") as (vm, address):
        vm.wait_screen("Press ESC for boot menu")
        with Rfb(address) as vnc:
            vnc.press(0xFF1B)
            vm.wait_screen("Select boot device")
            vm.wait_for(lambda: "1. DVD/CD" in "\n".join(vm.screen()), 30, vm.screen)
            vnc.type("1")
            vm.wait_screen("Booting from DVD/CD")
        assert vm.quit() == 0


def test_a_held_key_is_released_when_its_client_goes(echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as vnc:
            vnc.key(SHIFT, True)
            vnc.type("A")
            vm.serial.expect("A")
        time.sleep(0.5)
        vm.monitor("sendkey b")
        vm.serial.expect("b")
        assert vm.quit() == 0


def test_the_size_follows_the_mode_for_every_client(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as one, Rfb(address) as two, Rfb(address, extra=()) as old:
            for vnc in (one, two, old):
                assert vnc.picture()[:2] == (720, 400)
            info = vm.monitor("info vnc")
            assert len(re.findall(r"Client: 127\.0\.0\.1:\d+ \(ipv4\)\n    Auth: none", info)) == 3
            vm.monitor("sendkey f1")
            vm.monitor("sendkey k")
            vm.serial.expect(r"\*")
            want = dump(vm, tmp_path)
            assert want[:2] == (640, 400)
            for vnc in (one, two):
                assert vnc.wait(lambda p: p == want)
            old.request()                   # this one knows of no sizes: it gets a part
            old.update()
            assert one.picture() == want
        vm.wait_for(lambda: "Client" not in vm.monitor("info vnc"), 30, lambda: "still there")
        assert vm.quit() == 0


# --- passwords -------------------------------------------------------------------------


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
        assert vm.monitor("expire_password vnc +60") == ""
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


def test_speaks_over_a_websocket(echo):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with vnc_vm(options=",websocket=%d" % port, boot=echo) as (vm, _):
        assert "127.0.0.1:%d (ipv4) (Websocket)" % port in vm.monitor("info vnc")
        vm.serial.expect("type")
        with Rfb(None, sock=WebSocket("127.0.0.1", port, protocol="binary")) as vnc:
            assert vnc.picture()[:2] == (720, 400)
            vnc.type("web")
            vm.serial.expect("web")
        assert vm.quit() == 0


# --- who means ill --------------------------------------------------------------------------


def open_client(address):
    """Through the handshake, then whatever the test sends."""
    return Rfb(address).sock


HOSTILE = {
    "half a key event": b"\x04\x01\x00",
    "half a list of encodings": struct.pack(">BxH", 2, 0xFFFF) + b"\0" * 100,
    "cut text of 4 GiB": struct.pack(">BxxxI", 6, 0xFFFFFFFF) + b"x" * 100000,
    "cut text of -1 bytes and more": struct.pack(">Bxxxi", 6, -1),
    "no such message": b"\xAA" * 64,
    "pixels of 7 bits": struct.pack(">BxxxBBBBHHHBBBxxx", 0, 7, 3, 1, 1, 0, 0, 0, 77, 99, 255),
    "a palette of 8 bits": struct.pack(">BxxxBBBBHHHBBBxxx", 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0),
    "a request beyond the screen": struct.pack(">BBHHHH", 3, 0, 65535, 65535, 65535, 65535),
    "half a screen by 0": struct.pack(">Bx", 8),
    "the screen scaled by 0": b"\x08\x00\x00\x00",
    "the screen scaled by 255": b"\x08\xFF\x00\x00" + struct.pack(">BBHHHH", 3, 0, 0, 0, 9, 9),
    "another size": struct.pack(">BxHHBx", 251, 60000, 60000, 255) + b"\xFF" * 200,
    "a file": struct.pack(">BBHII", 7, 3, 0, 0, 1 << 31) + b"../../etc/passwd",
    "chat": struct.pack(">BxxxI", 11, 1 << 30),
    "half an extended key": b"\xFF\x00\x00",
    "an audio message": b"\xFF\x01\x00\x02\x00\x00",
    "many keys at once": b"".join(struct.pack(">BBxxI", 4, i & 1, i * 77 & 0xFFFF)
                                  for i in range(20000)),
    "a wild pointer": b"".join(struct.pack(">BBHH", 5, i & 255, i * 7919 & 0xFFFF, i * 31 & 0xFFFF)
                               for i in range(20000)),
}


def test_bad_messages_hurt_nobody_else(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as good:
            good.picture()
            left = []
            for name, data in HOSTILE.items():
                sock = open_client(address)
                with contextlib.suppress(OSError):
                    sock.sendall(data)
                left.append(sock)
                assert responds(vm) < 2 * SLOW, name
            good.picture()
            vm.monitor("sendkey f1")        # another size, while they all hang about
            vm.monitor("sendkey k")
            vm.serial.expect(r"\*", timeout=120)
            want = dump(vm, tmp_path)
            good.wait(lambda p: p == want)
            for sock in left:
                sock.close()
            good.wait(lambda p: p == want)
        with Rfb(address) as late:
            assert late.picture() == want
        assert vm.quit() == 0


def test_who_asks_and_never_reads_is_let_go(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        greedy = []
        for _ in range(3):
            sock = open_client(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                sock.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 720, 400) * 3000)
            greedy.append(sock)
        with Rfb(address) as good:
            good.picture()
            vm.monitor("sendkey f1")
            vm.monitor("sendkey k")
            vm.serial.expect(r"\*")
            assert responds(vm) < 2 * SLOW
            want = dump(vm, tmp_path)
            good.wait(lambda p: p == want)
        start = time.monotonic()
        assert vm.quit() == 0               # with three threads in the middle of a write
        assert time.monotonic() - start < 5 * SLOW
        for sock in greedy:
            sock.close()


def test_crowds_and_comings_and_goings_leave_nothing_behind(tmp_path):
    with vnc_vm() as (vm, address):
        def count():
            return (len(os.listdir("/proc/%d/fd" % vm.pid)),
                    len(os.listdir("/proc/%d/task" % vm.pid)))
        Rfb(address).sock.close()
        time.sleep(0.5)
        before = count()
        silent = [socket.create_connection(address) for _ in range(60)]
        assert responds(vm) < 2 * SLOW
        for sock in silent:
            sock.close()

        def come_and_go():
            for i in range(10):
                with contextlib.suppress(OSError, EOFError):
                    sock = open_client(address)
                    sock.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 720, 400)[:i])
                    sock.close()
        crowd = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        Rfb(address).sock.close()           # the door is where ended threads are counted
        vm.wait_for(lambda: "Client" not in vm.monitor("info vnc"), 60, lambda: "still there")
        Rfb(address).sock.close()
        vm.wait_for(lambda: count()[0] <= before[0] and count()[1] <= before[1] + 1, 30,
                    lambda: "%s before, %s now" % (before, count()))
        assert vm.quit() == 0
